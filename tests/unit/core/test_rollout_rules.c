/* Whatever is proposed, traffic stays within the rules: each of them refuses what breaks it, by its
 * name, with nothing changed (the world checks that). */
#include "common/base.h"

#include "tests/kit/rig.h"

#include "broker/core/rollout.h"
#include "common/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define HOUR_MS (3600u * 1000)

struct fixture {
    struct world w;
    struct rig rig;
    uint64_t id; /* of the second rollout, which steps */
};

static uint64_t begin(struct fixture *f, const char *version)
{
    return rig_rollout_of(&f->rig, rig_submit(&f->rig, version));
}

/* A version is stable, and another one has 5 % of the traffic. */
static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));

    world_init(&f->w);
    rig_init(&f->rig, &f->w);
    check(rig_until(&f->rig, begin(f, "v1"), ROLLOUT_DONE, HOUR_MS));
    f->id = begin(f, "v2");
    check(rig_until(&f->rig, f->id, ROLLOUT_STEPPING, HOUR_MS));
    rig_run(&f->rig, 10000);
    check(rollout_get(f->w.tx, f->id)->observed_bp == 500);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    world_release(&f->w);
    free(f);
    return 0;
}

static const Pb__RolloutRecord *now(struct fixture *f)
{
    return rollout_get(f->w.tx, f->id);
}

/* Nothing but the next look: a right proposal to make wrong. */
static Pb__RolloutStep *nothing(struct fixture *f, uint64_t id)
{
    struct arena *a = tx_arena(f->w.tx);
    Pb__RolloutStep *step = arena_alloc(a, sizeof(*step));

    pb__rollout_step__init(step);
    step->rollout_id = id;
    step->next = (Pb__RolloutRecord *)pb_copy(a, &rollout_get(f->w.tx, id)->base);
    step->revision = step->next->revision;
    step->next->next_look_ms = f->w.now_ms + 1;
    return step;
}

static Pb__RolloutStep *step_of(struct fixture *f)
{
    return nothing(f, f->id);
}

static void refused(struct fixture *f, Pb__RolloutStep *step, const char *rule)
{
    const int r = WORLD_APPLY(&f->w, "rollout", ROLLOUT_STEP, step);

    if (r >= 0 || strstr(f->w.reply.text, rule) == NULL) {
        fail_msg("'%s' instead of '%s' (%d)", f->w.reply.text, rule, r);
    }
}

static void taken(struct fixture *f, Pb__RolloutStep *step)
{
    const int r = WORLD_APPLY(&f->w, "rollout", ROLLOUT_STEP, step);

    if (r < 0) {
        fail_msg("refused: %s", f->w.reply.text);
    }
}

static Pb__RolloutActionRecord *action(struct fixture *f, Pb__RolloutStep *step,
                                       Pb__RolloutActionKind kind, Pb__RolloutSlot slot)
{
    struct arena *a = tx_arena(f->w.tx);
    Pb__RolloutActionRecord *action = arena_alloc(a, sizeof(*action));

    pb__rollout_action_record__init(action);
    action->kind = kind;
    action->slot = slot;
    action->seq = step->next->next_action++;
    action->epoch = step->next->epoch;
    action->driver = (char *)"rig";
    step->begin = arena_array(a, 1, sizeof(Pb__RolloutActionRecord *));
    step->begin[0] = action;
    step->n_begin = 1;
    return action;
}

static void with_args(struct fixture *f, Pb__RolloutActionRecord *a, const ProtobufCMessage *args)
{
    struct buf b = BUF_INIT;

    pb_pack(args, &b);
    a->args = pb_bytes(tx_arena(f->w.tx), buf_str(&b));
    buf_release(&b);
}

static Pb__RolloutStep *ensures(struct fixture *f, Pb__RolloutSlot slot, uint32_t count)
{
    Pb__RolloutStep *step = step_of(f);
    Pb__InstanceArgs args = PB__INSTANCE_ARGS__INIT;

    args.slot = slot;
    args.instances = count;
    with_args(f, action(f, step, ROLLOUT_ACTION_ENSURE, slot), &args.base);
    return step;
}

static Pb__RolloutStep *routes(struct fixture *f, uint32_t weight_b_bp)
{
    Pb__RolloutStep *step = step_of(f);
    Pb__RouterArgs args = PB__ROUTER_ARGS__INIT;

    args.weight_b_bp = weight_b_bp;
    with_args(f, action(f, step, ROLLOUT_ACTION_ROUTE, ROLLOUT_SLOT_A), &args.base);
    return step;
}

static void i1_stable_changes_on_one_way_only(void **state)
{
    struct fixture *f = *state;
    const uint64_t stable = service_get(f->w.tx, now(f)->service_id)->stable_snapshot_id;
    Pb__RolloutStep *step = step_of(f);

    step->next->state = ROLLOUT_RETIRE;
    refused(f, step, "I1");
    step->next->state = ROLLOUT_DONE;
    refused(f, step, "I1");
    assert_true(rig_until(&f->rig, f->id, ROLLOUT_BAKE, HOUR_MS));
    step = step_of(f);
    step->next->state = ROLLOUT_RETIRE;
    step->next->observed_ms = 0; /* as after a start */
    refused(f, step, "I1");
    step->next->observed_ms = now(f)->observed_ms;
    step->next->weight_bp = 5000;
    refused(f, step, "I1");
    assert_int_equal(service_get(f->w.tx, now(f)->service_id)->stable_snapshot_id, stable);
    step->next->weight_bp = ROLLOUT_FULL_BP;
    taken(f, step);
    assert_int_equal(service_get(f->w.tx, now(f)->service_id)->stable_snapshot_id,
                     now(f)->snapshot_id);
}

static void i2_who_has_traffic_keeps_instances(void **state)
{
    struct fixture *f = *state;
    Pb__RolloutStep *step;

    for (unsigned slot = 0; slot < 2; slot++) {
        step = step_of(f);
        action(f, step, ROLLOUT_ACTION_REMOVE, (Pb__RolloutSlot)slot);
        refused(f, step, "I2");
        step = ensures(f, (Pb__RolloutSlot)slot, 0);
        refused(f, step, "other instances than the record wants");
        *(slot == now(f)->slot ? step->next->wanted : step->next->wanted_old) = 0;
        refused(f, step, "I2");
    }
    step = ensures(f, ROLLOUT_SLOT_A, 1); /* some of the old ones, which only rolling may */
    step->next->wanted_old[0] = 1;
    refused(f, step, "I2");
    step = ensures(f, ROLLOUT_SLOT_B, 2);
    step->next->wanted[0] = 2;
    taken(f, step);
}

static void i2_a_drain_takes_its_time(void **state)
{
    struct fixture *f = *state;
    Pb__RolloutStep *step;

    assert_int_equal(rig_act_on(&f->rig, f->id, ROLLOUT_VERB_ABORT, ""), 0);
    assert_true(rig_until(&f->rig, f->id, ROLLOUT_DRAIN, HOUR_MS));
    step = step_of(f);
    action(f, step, ROLLOUT_ACTION_REMOVE, ROLLOUT_SLOT_B);
    refused(f, step, "I2");
    f->rig.silent = true; /* nobody looks again */
    world_elapse(&f->w, 5000);
    step = step_of(f);
    action(f, step, ROLLOUT_ACTION_REMOVE, ROLLOUT_SLOT_A); /* has all traffic now */
    refused(f, step, "I2");
    step = step_of(f);
    action(f, step, ROLLOUT_ACTION_REMOVE, ROLLOUT_SLOT_B);
    taken(f, step);
}

static void i2_what_was_seen_stands_in_an_answer(void **state)
{
    struct fixture *f = *state;
    Pb__RolloutStep *step = step_of(f);

    step->next->observed_bp = 0;
    step->next->weight_changed_ms = step->next->evidence_from_ms = f->w.now_ms;
    step->next->observed_ms = f->w.now_ms;
    refused(f, step, "I2");
    step = step_of(f);
    step->next->zero_ms = 1;
    refused(f, step, "I2");
    step = step_of(f);
    step->next->observed_ms = 0; /* it is not known any more: always true */
    taken(f, step);
}

static void i3_one_number_is_all_weight(void **state)
{
    struct fixture *f = *state;
    Pb__RolloutStep *step = step_of(f);

    step->next->verdict_ms = f->w.now_ms;
    step->next->weight_bp = ROLLOUT_FULL_BP + 1;
    refused(f, step, "I3");
    refused(f, routes(f, 501), "I3");
    refused(f, routes(f, 9500), "I3");
    taken(f, routes(f, 500));
}

static void i4_more_only_after_a_good_look(void **state)
{
    struct fixture *f = *state;
    Pb__RolloutStep *step = step_of(f);

    step->next->weight_bp = 2500;
    step->next->verdict_ms = step->next->evidence_from_ms;
    refused(f, step, "I4");
    step->next->verdict_ms = f->w.now_ms;
    step->next->evidence_from_ms--;
    refused(f, step, "I4");
    step->next->evidence_from_ms++;
    step->next->verdict_ms = f->w.now_ms + 1;
    refused(f, step, "has not come");
    step->next->verdict_ms = f->w.now_ms;
    taken(f, step);
}

static void i4_a_start_makes_verdicts_old(void **state)
{
    struct fixture *f = *state;
    const uint64_t verdict_ms = now(f)->verdict_ms;
    Pb__RolloutStep *step;

    rig_restart(&f->rig);
    assert_int_equal(now(f)->observed_ms, 0);
    assert_int_equal(now(f)->evidence_from_ms, f->w.now_ms);
    step = step_of(f);
    step->next->weight_bp = 2500;
    assert_true(verdict_ms <= now(f)->evidence_from_ms);
    refused(f, step, "I4");
}

static void i4_less_is_always_allowed(void **state)
{
    struct fixture *f = *state;
    Pb__RolloutStep *step = step_of(f);

    step->next->weight_bp = 100;
    step->next->verdict_ms = 0;
    taken(f, step);
}

static void i5_actions_are_of_the_present_epoch(void **state)
{
    struct fixture *f = *state;
    Pb__RolloutStep *step = routes(f, 500);

    step->begin[0]->epoch--;
    refused(f, step, "I5");
    step = routes(f, 500);
    step->begin[0]->seq++;
    refused(f, step, "I5");
    step = routes(f, 500);
    step->next->next_action++;
    refused(f, step, "I5");
    step = step_of(f);
    step->next->epoch--;
    refused(f, step, "I5");
}

static void i5_a_higher_epoch_cancels_what_is_under_way(void **state)
{
    struct fixture *f = *state;
    Pb__RolloutStep *step = routes(f, 500);
    uint64_t seq, job_id;

    taken(f, step);
    seq = now(f)->next_action - 1;
    job_id = rollout_action_get(f->w.tx, f->id, seq)->job_id;
    assert_int_equal(job_get(f->w.tx, job_id)->state, JOB_PENDING);
    step = step_of(f);
    step->next->epoch++;
    taken(f, step);
    assert_null(job_get(f->w.tx, job_id));
    assert_int_equal(rollout_action_get(f->w.tx, f->id, seq)->state, ROLLOUT_ACTION_BAD);
    assert_string_equal(rollout_action_get(f->w.tx, f->id, seq)->error, "canceled");
}

static void i6_a_newer_one_waits_for_the_way_back(void **state)
{
    struct fixture *f = *state;
    const uint64_t third = begin(f, "v3");
    Pb__RolloutStep *step = nothing(f, third);
    uint64_t fourth;

    assert_true(now(f)->abort_wanted);
    assert_int_equal(now(f)->why, ROLLOUT_WHY_SUPERSEDED);
    step->next->state = ROLLOUT_GATED;
    refused(f, step, "I6");
    fourth = begin(f, "v4");
    assert_string_equal(rig_state(&f->rig, third), "refused");
    assert_true(rig_until(&f->rig, f->id, ROLLOUT_ROLLED_BACK, HOUR_MS));
    assert_true(rig_until(&f->rig, fourth, ROLLOUT_DONE, HOUR_MS));
    assert_int_equal(rollout_get(f->w.tx, fourth)->generation, 4);
    assert_false(f->rig.broken);
}

static void i7_an_abort_is_never_taken_back(void **state)
{
    struct fixture *f = *state;
    Pb__RolloutStep *step;

    assert_int_equal(rig_act_on(&f->rig, f->id, ROLLOUT_VERB_ABORT, ""), 0);
    assert_int_equal(rig_act_on(&f->rig, f->id, ROLLOUT_VERB_ABORT, ""), -E_CONFLICT);
    assert_int_equal(rig_act_on(&f->rig, f->id, ROLLOUT_VERB_PROMOTE, ""), -E_CONFLICT);
    step = step_of(f);
    step->next->abort_wanted = false;
    refused(f, step, "I7");
    step = step_of(f);
    step->next->weight_bp = 2500;
    step->next->verdict_ms = f->w.now_ms;
    refused(f, step, "I7");
    step = step_of(f);
    step->next->state = ROLLOUT_PROMOTE;
    refused(f, step, "I7");
    step->next->state = ROLLOUT_ROLLBACK;
    taken(f, step);
}

/* Of one kept version each: the one that a rollout leaves goes when it cannot be gone back to. */
static void i8_what_a_way_back_needs_is_kept(void **state)
{
    struct fixture *f = *state;
    const uint64_t old = now(f)->from_snapshot_id;
    Pb__RolloutTarget *t = rig_target(tx_arena(f->w.tx));

    assert_non_null(snapshot_get(f->w.tx, old));
    assert_int_equal(snapshot_get(f->w.tx, old)->uses, 3); /* its rollout, the service, this one */
    t->keep_snapshots = 1;
    assert_int_equal(rig_declare(&f->w, t), 0);
    assert_true(rig_until(&f->rig, f->id, ROLLOUT_DONE, HOUR_MS)); /* its target is the old one */
    assert_int_equal(snapshot_get(f->w.tx, old)->uses, 2);
    assert_true(rig_until(&f->rig, begin(f, "v3"), ROLLOUT_RETIRE, HOUR_MS));
    assert_non_null(snapshot_get(f->w.tx, now(f)->snapshot_id)); /* it is being left */
    rig_run(&f->rig, HOUR_MS);
    assert_int_equal(service_get(f->w.tx, now(f)->service_id)->n_snapshot_ids, 1);
    assert_int_equal(world_expire(&f->w, 1000, f->w.now_ms - 1), 0);
    assert_null(snapshot_get(f->w.tx, old));
    assert_null(rollout_get(f->w.tx, f->id));
}

static void a_step_changes_nothing_else(void **state)
{
    struct fixture *f = *state;
    Pb__RolloutStep *step = step_of(f);

    step->next->snapshot_id++;
    refused(f, step, "may not");
    step = step_of(f);
    step->next->freeze_overridden = true;
    refused(f, step, "may not");
    step = step_of(f);
    step->next->skip_wanted = true;
    refused(f, step, "only a person");
    step = step_of(f);
    step->revision++;
    refused(f, step, "revision");
    step = step_of(f);
    step->next->next_look_ms = 0;
    refused(f, step, "look at it again");
    step = step_of(f);
    step->next->n_wanted = 2;
    refused(f, step, "other places");
}

static void an_action_is_one_that_the_target_can_do(void **state)
{
    struct fixture *f = *state;
    Pb__RolloutStep *step = routes(f, 500);

    step->begin[0]->kind = (Pb__RolloutActionKind)99;
    refused(f, step, "unknown kind");
    step = ensures(f, ROLLOUT_SLOT_B, 1);
    step->begin[0]->place = 1;
    refused(f, step, "place");
    step = routes(f, 500);
    step->begin[0]->driver = (char *)"";
    refused(f, step, "without a driver");
    step = step_of(f);
    action(f, step, ROLLOUT_ACTION_SAMPLE, ROLLOUT_SLOT_A)->metric = 1;
    refused(f, step, "metric");
    step = step_of(f);
    action(f, step, ROLLOUT_ACTION_RUN, ROLLOUT_SLOT_A)->driver = (char *)"";
    refused(f, step, "script");
    step = step_of(f);
    step->taken = arena_array(tx_arena(f->w.tx), 1, sizeof(*step->taken));
    step->taken[0] = 4711;
    step->n_taken = 1;
    refused(f, step, "not come");
}

static void after_the_end_nothing_is_decided(void **state)
{
    struct fixture *f = *state;
    Pb__RolloutStep *step;

    assert_true(rig_until(&f->rig, f->id, ROLLOUT_DONE, HOUR_MS));
    step = step_of(f);
    assert_int_equal(WORLD_APPLY(&f->w, "rollout", ROLLOUT_STEP, step), -E_CONFLICT);
    assert_int_equal(rig_act_on(&f->rig, f->id, ROLLOUT_VERB_ABORT, ""), -E_CONFLICT);
    assert_int_equal(rig_act_on(&f->rig, 4711, ROLLOUT_VERB_ABORT, ""), -E_NOT_FOUND);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(i1_stable_changes_on_one_way_only),
        TEST(i2_who_has_traffic_keeps_instances),
        TEST(i2_a_drain_takes_its_time),
        TEST(i2_what_was_seen_stands_in_an_answer),
        TEST(i3_one_number_is_all_weight),
        TEST(i4_more_only_after_a_good_look),
        TEST(i4_a_start_makes_verdicts_old),
        TEST(i4_less_is_always_allowed),
        TEST(i5_actions_are_of_the_present_epoch),
        TEST(i5_a_higher_epoch_cancels_what_is_under_way),
        TEST(i6_a_newer_one_waits_for_the_way_back),
        TEST(i7_an_abort_is_never_taken_back),
        TEST(i8_what_a_way_back_needs_is_kept),
        TEST(a_step_changes_nothing_else),
        TEST(an_action_is_one_that_the_target_can_do),
        TEST(after_the_end_nothing_is_decided),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
