/* Rollouts from begin to end: the core with the decider, and a fleet that acts. */
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
};

static int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));

    world_init(&f->w);
    rig_init(&f->rig, &f->w);
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

/* The service's first version, which goes out at once. */
static uint64_t first(struct fixture *f)
{
    const uint64_t job_id = rig_submit(&f->rig, "v1");
    const uint64_t id = rig_rollout_of(&f->rig, job_id);

    assert_true(rig_until(&f->rig, id, ROLLOUT_DONE, HOUR_MS));
    f->rig.highest_bp = 0;
    return id;
}

static const Pb__ServiceRecord *service(struct fixture *f)
{
    const Pb__ProjectRecord *p = project_by_name(f->w.tx, "demo");
    const Pb__EnvironmentRecord *e = environment_by_name(f->w.tx, p->id, "production");

    return service_by_name(f->w.tx, e->id, "web");
}

static const char *job_state(struct fixture *f, uint64_t job_id)
{
    return job_state_text(job_get(f->w.tx, job_id)->state);
}

static void a_first_version_goes_out_at_once(void **state)
{
    struct fixture *f = *state;
    const uint64_t job_id = rig_submit(&f->rig, "v1");
    const uint64_t id = rig_rollout_of(&f->rig, job_id);
    const Pb__ServiceRecord *s;

    assert_int_not_equal(id, 0);
    assert_string_equal(job_state(f, job_id), "running");
    assert_true(rig_until(&f->rig, id, ROLLOUT_DONE, HOUR_MS));
    assert_string_equal(job_state(f, job_id), "success");
    s = service(f);
    assert_int_equal(s->live_rollout_id, 0);
    assert_string_equal(snapshot_get(f->w.tx, s->stable_snapshot_id)->version, "v1");
    assert_int_equal(f->rig.slots[s->stable_slot].instances[0], 2);
    assert_false(f->rig.broken);
}

static void a_good_canary_becomes_stable(void **state)
{
    struct fixture *f = *state;
    const uint64_t before = first(f);
    const uint64_t was = service(f)->stable_snapshot_id;
    const uint64_t job_id = rig_submit(&f->rig, "v2");
    const uint64_t id = rig_rollout_of(&f->rig, job_id);
    const Pb__ServiceRecord *s;

    assert_true(rig_until(&f->rig, id, ROLLOUT_STEPPING, HOUR_MS));
    assert_int_equal(service(f)->stable_snapshot_id, was);
    assert_true(rig_until(&f->rig, id, ROLLOUT_BAKE, HOUR_MS));
    assert_int_equal(service(f)->stable_snapshot_id, was);
    assert_int_equal(f->rig.weight_b_bp, ROLLOUT_FULL_BP);
    assert_true(rig_until(&f->rig, id, ROLLOUT_DONE, HOUR_MS));
    s = service(f);
    assert_int_not_equal(s->stable_snapshot_id, was);
    assert_int_equal(s->stable_slot, ROLLOUT_SLOT_B);
    assert_int_equal(s->n_snapshot_ids, 2);
    assert_string_equal(job_state(f, job_id), "success");
    assert_int_equal(f->rig.slots[ROLLOUT_SLOT_A].instances[0], 0);
    assert_false(f->rig.broken);
    assert_int_not_equal(before, id);
}

static void a_bad_canary_goes_back(void **state)
{
    struct fixture *f = *state;
    const Pb__JobRecord *job;
    uint64_t was, job_id, id;

    first(f);
    was = service(f)->stable_snapshot_id;
    job_id = rig_submit(&f->rig, "v2");
    id = rig_rollout_of(&f->rig, job_id);
    assert_true(rig_until(&f->rig, id, ROLLOUT_STEPPING, HOUR_MS));
    rig_run(&f->rig, 10000);
    assert_int_equal(f->rig.weight_b_bp, 500);
    f->rig.never_ready = true;
    assert_true(rig_until(&f->rig, id, ROLLOUT_ROLLED_BACK, HOUR_MS));
    assert_int_equal(rollout_get(f->w.tx, id)->why, ROLLOUT_WHY_HARD_CHECK);
    assert_int_equal(f->rig.highest_bp, 500);
    assert_int_equal(f->rig.weight_b_bp, 0);
    assert_int_equal(f->rig.slots[ROLLOUT_SLOT_B].instances[0], 0);
    assert_int_equal(service(f)->stable_snapshot_id, was);
    job = job_get(f->w.tx, job_id);
    assert_int_equal(job->state, JOB_FAILED);
    assert_int_equal(job->reason, REASON_ROLLOUT_FAILED);
    assert_false(f->rig.broken);
}

static void a_version_with_errors_goes_back(void **state)
{
    struct fixture *f = *state;
    uint64_t job_id, id;

    first(f);
    f->rig.bad_percent[ROLLOUT_SLOT_B] = 50;
    job_id = rig_submit(&f->rig, "v2");
    id = rig_rollout_of(&f->rig, job_id);
    assert_true(rig_until(&f->rig, id, ROLLOUT_ROLLED_BACK, HOUR_MS));
    assert_int_equal(rollout_get(f->w.tx, id)->why, ROLLOUT_WHY_METRIC);
    assert_int_equal(f->rig.highest_bp, 500);
    assert_int_equal(f->rig.weight_b_bp, 0);
    assert_string_equal(job_state(f, job_id), "failed");
    assert_false(f->rig.broken);
}

/* Counts that rise with each look would push all else out of the notes. */
static void what_it_waits_for_is_noted_once(void **state)
{
    struct fixture *f = *state;
    const Pb__RolloutNoteRecord *notes[LIMIT_ROLLOUT_NOTES];
    Pb__Plan *plan;
    uint64_t id;

    first(f);
    plan = rig_plan(tx_arena(f->w.tx), "v2");
    plan->jobs[0]->rollout->on_thin = ROLLOUT_POLICY_EXTEND;
    assert_int_equal(world_submit(&f->w, plan, "main", "v2"), 0);
    id = rig_rollout_of(&f->rig, world_job_id(&f->w, f->w.reply.pipeline_id, "deploy"));
    rig_run(&f->rig, 180000);
    assert_string_equal(rig_state(&f->rig, id), "stepping");
    assert_int_equal(rollout_get(f->w.tx, id)->observed_bp, 500);
    assert_non_null(strstr(rollout_get(f->w.tx, id)->holds, "thin"));
    assert_in_range(rollout_notes_before(f->w.tx, id, 0, ARRAY_LEN(notes), notes), 5, 20);
}

/* Has 5 % of the traffic. */
static uint64_t second(struct fixture *f, uint64_t *ret_job_id)
{
    uint64_t id;

    first(f);
    *ret_job_id = rig_submit(&f->rig, "v2");
    id = rig_rollout_of(&f->rig, *ret_job_id);
    assert_true(rig_until(&f->rig, id, ROLLOUT_STEPPING, HOUR_MS));
    rig_run(&f->rig, 10000);
    assert_int_equal(f->rig.weight_b_bp, 500);
    return id;
}

static void a_cancel_of_the_job_is_an_abort(void **state)
{
    struct fixture *f = *state;
    uint64_t job_id;
    const uint64_t id = second(f, &job_id);

    assert_int_equal(world_cancel_job(&f->w, job_id), 0);
    assert_string_equal(job_state(f, job_id), "running");
    assert_true(rollout_get(f->w.tx, id)->abort_wanted);
    assert_true(rig_until(&f->rig, id, ROLLOUT_ROLLED_BACK, HOUR_MS));
    assert_string_equal(job_state(f, job_id), "canceled");
    assert_int_equal(f->rig.weight_b_bp, 0);
    assert_false(f->rig.broken);
}

static void a_retry_rolls_the_same_version_out_anew(void **state)
{
    struct fixture *f = *state;
    uint64_t job_id, again;
    const uint64_t id = second(f, &job_id);
    const uint64_t version = rollout_get(f->w.tx, id)->snapshot_id;

    assert_int_equal(rig_act_on(&f->rig, id, ROLLOUT_VERB_ABORT, ""), 0);
    assert_true(rig_until(&f->rig, id, ROLLOUT_ROLLED_BACK, HOUR_MS));
    assert_string_equal(job_state(f, job_id), "failed");
    assert_int_equal(world_retry_job(&f->w, job_id), 0);
    again = rig_rollout_of(&f->rig, job_id);
    assert_int_not_equal(again, id);
    assert_int_equal(rollout_get(f->w.tx, again)->snapshot_id, version);
    assert_true(rig_until(&f->rig, again, ROLLOUT_DONE, HOUR_MS));
    assert_string_equal(job_state(f, job_id), "success");
}

static int undo(struct fixture *f, uint64_t snapshot_id)
{
    Pb__RolloutBegin body = PB__ROLLOUT_BEGIN__INIT;

    body.service_id = service(f)->id;
    body.snapshot_id = snapshot_id;
    body.reason = (char *)"it was better";
    return WORLD_APPLY(&f->w, "ann", ROLLOUT_BEGIN, &body);
}

static void an_undo_needs_no_steps(void **state)
{
    struct fixture *f = *state;
    uint64_t job_id, id, began_ms, old;

    id = second(f, &job_id);
    old = service(f)->stable_snapshot_id;
    assert_int_equal(undo(f, old), -E_CONFLICT); /* it is stable: abort */
    assert_true(rig_until(&f->rig, id, ROLLOUT_DONE, HOUR_MS));
    assert_int_equal(undo(f, 4711), -E_NOT_FOUND);
    assert_int_equal(undo(f, old), 0);
    id = f->w.reply.rollout_id;
    began_ms = f->w.now_ms;
    assert_true(rig_until(&f->rig, id, ROLLOUT_DONE, HOUR_MS));
    assert_in_range(f->w.now_ms - began_ms, 0, 20000);
    assert_int_equal(service(f)->stable_snapshot_id, old);
    assert_int_equal(f->rig.weight_b_bp, 0);
    assert_false(f->rig.broken);
}

static void a_pause_stops_the_clock_of_a_step(void **state)
{
    struct fixture *f = *state;
    uint64_t job_id;
    const uint64_t id = second(f, &job_id);
    const uint64_t phase_ms = rollout_get(f->w.tx, id)->phase_ms;

    assert_int_equal(rig_act_on(&f->rig, id, ROLLOUT_VERB_RESUME, ""), -E_CONFLICT);
    assert_int_equal(rig_act_on(&f->rig, id, ROLLOUT_VERB_PAUSE, ""), 0);
    rig_run(&f->rig, 90000);
    assert_int_equal(rollout_get(f->w.tx, id)->observed_bp, 500);
    assert_int_equal(rig_act_on(&f->rig, id, ROLLOUT_VERB_RESUME, ""), 0);
    assert_int_equal(rollout_get(f->w.tx, id)->phase_ms, phase_ms + 90000);
    assert_true(rig_until(&f->rig, id, ROLLOUT_DONE, HOUR_MS));
}

static void without_a_target_the_job_is_told(void **state)
{
    struct fixture *f = *state;
    Pb__Configure none = PB__CONFIGURE__INIT;
    const Pb__JobRecord *job;
    uint64_t job_id;

    assert_int_equal(WORLD_APPLY(&f->w, "config", CONFIGURE, &none), 0);
    job_id = rig_submit(&f->rig, "v1");
    assert_int_equal(rig_rollout_of(&f->rig, job_id), 0);
    job = job_get(f->w.tx, job_id);
    assert_int_equal(job->state, JOB_FAILED);
    assert_int_equal(job->reason, REASON_CONFIG_ERROR);
    assert_string_equal(attempt_get(f->w.tx, job_id, 1)->detail, "there is no such target");
}

static void a_plan_that_is_none_is_refused(void **state)
{
    struct fixture *f = *state;
    const uint64_t job_id = rig_submit(&f->rig, "v1");
    Pb__RolloutBegin body = PB__ROLLOUT_BEGIN__INIT;
    Pb__RolloutPlanRecord plan = PB__ROLLOUT_PLAN_RECORD__INIT;

    body.job_id = job_id;
    body.epoch = 1;
    body.plan = &plan;
    assert_int_equal(WORLD_APPLY(&f->w, "rollout", ROLLOUT_BEGIN, &body), -E_INVALID);
    body.epoch = 2;
    assert_int_equal(WORLD_APPLY(&f->w, "rollout", ROLLOUT_BEGIN, &body), -E_STALE_EPOCH);
    assert_string_equal(job_state(f, job_id), "running");
    assert_int_equal(core_open_rollout(f->w.tx), job_id);
    assert_int_equal(world_cancel_job(&f->w, job_id), 0); /* before it has begun */
    assert_string_equal(job_state(f, job_id), "canceled");
    assert_int_equal(core_open_rollout(f->w.tx), 0);
}

static void a_target_is_declared_rightly_or_not_at_all(void **state)
{
    struct fixture *f = *state;
    Pb__RolloutTarget *good = rig_target(tx_arena(f->w.tx));
    Pb__RolloutTarget *bad = rig_target(tx_arena(f->w.tx));
    Pb__RolloutTarget *both[] = {good, bad};
    Pb__Configure body = PB__CONFIGURE__INIT;
    bool others;

    body.targets = both;
    body.n_targets = 2;
    good->name = (char *)"api";
    bad->name = (char *)"api";
    assert_int_equal(WORLD_APPLY(&f->w, "config", CONFIGURE, &body), -E_INVALID);
    bad->environment = (char *)"review/*";
    bad->instances = LIMIT_ROLLOUT_INSTANCES + 1;
    assert_int_equal(WORLD_APPLY(&f->w, "config", CONFIGURE, &body), -E_INVALID);
    bad->instances = 1;
    bad->instance_driver = NULL;
    assert_int_equal(WORLD_APPLY(&f->w, "config", CONFIGURE, &body), -E_INVALID);
    assert_null(target_find(f->w.tx, "production", "api", "demo", &others));
    bad->instance_driver = good->instance_driver;
    assert_int_equal(WORLD_APPLY(&f->w, "config", CONFIGURE, &body), 0);
    assert_string_equal(target_find(f->w.tx, "review/1", "api", "demo", &others)->environment,
                        "review/*");
    assert_string_equal(target_find(f->w.tx, "production", "api", "demo", &others)->environment,
                        "*");
    assert_null(target_find(f->w.tx, "production", "web", "demo", &others));
    assert_false(others);
}

static void a_target_is_for_its_projects(void **state)
{
    struct fixture *f = *state;
    Pb__RolloutTarget *t = rig_target(tx_arena(f->w.tx));
    char *projects[] = {(char *)"group/*"};
    bool others;

    t->projects = projects;
    t->n_projects = 1;
    assert_int_equal(rig_declare(&f->w, t), 0);
    assert_null(target_find(f->w.tx, "production", "web", "demo", &others));
    assert_true(others);
    assert_non_null(target_find(f->w.tx, "production", "web", "group/app", &others));
    assert_false(others);
}

static const Pb__JobRecord *pending_action(struct fixture *f, Pb__RolloutActionKind kind)
{
    struct cursor cur;
    const Pb__JobRecord *found = NULL;

    for (tx_seek(&cur, f->w.tx, T_READY, STR_NULL, NULL); cur.valid && found == NULL;
         tx_next(&cur)) {
        const Pb__JobRecord *job = job_get(f->w.tx,
                                           key_read_u64(cur.key, cur.key.n - sizeof(uint64_t)));
        const Pb__RolloutActionRecord *a = rollout_action_get(f->w.tx, job->rollout_id,
                                                              job->rollout_action);
        found = a != NULL && a->kind == kind ? job : NULL;
    }
    cursor_end(&cur);
    return found;
}

static bool has_variable(const Pb__JobSpec *spec, const char *name, const char *value)
{
    for (size_t i = 0; i < spec->n_variables; i++) {
        if (strcmp(spec->variables[i]->name, name) == 0 &&
            str_eqz(pb_str(spec->variables[i]->value), value)) {
            return true;
        }
    }
    return false;
}

static void instances_get_the_variables_and_files_of_their_version(void **state)
{
    struct fixture *f = *state;
    uint8_t digest[32] = {7};
    Pb__Plan *plan = rig_plan(tx_arena(f->w.tx), "v1");
    Pb__Plan *build = plan_from_text(tx_arena(f->w.tx), "build: stage=build artifacts=yes\n"
                                                        "deploy: env=production vars=COLOR:red\n");
    Pb__ArtifactOut out = PB__ARTIFACT_OUT__INIT, *outs[] = {&out};
    Pb__Outcome o = PB__OUTCOME__INIT;
    const Pb__JobRecord *job;
    Pb__JobSpec *spec;
    uint64_t pipeline_id, build_id;

    build->jobs[1]->rollout = plan->jobs[0]->rollout;
    build->jobs[1]->rollout->command = pb_bytes_ref(STR("serve --color $COLOR"));
    build->jobs[1]->rollout->version = (char *)"v1-$COLOR";
    build->jobs[1]->n_script = 0;
    assert_int_equal(world_submit(&f->w, build, "main", "1"), 0);
    pipeline_id = f->w.reply.pipeline_id;
    build_id = world_job_id(&f->w, pipeline_id, "build");
    out.digest = (ProtobufCBinaryData){sizeof(digest), digest};
    out.name = (char *)"site";
    out.type = (char *)"archive";
    out.size = 10;
    o.result = JOB_SUCCESS;
    o.artifacts = outs;
    o.n_artifacts = 1;
    assert_int_equal(world_assign(&f->w, build_id, f->rig.worker_id), 0);
    assert_int_equal(world_started(&f->w, build_id), 0);
    assert_int_equal(world_finished(&f->w, build_id, &o), 0);
    rig_decide(&f->rig);
    job = pending_action(f, ROLLOUT_ACTION_ENSURE);
    assert_non_null(job);
    assert_true(rollout_needs_blob(f->w.tx, job, str_of(digest, sizeof(digest))));
    assert_int_equal(world_assign(&f->w, job->id, f->rig.worker_id), 0);
    assert_int_equal(core_job_spec(f->w.tx, job->id, "token", &spec), 0);
    assert_true(has_variable(spec, "COLOR", "red"));
    assert_true(has_variable(spec, "DAVIT_VERSION", "v1-red"));
    assert_int_equal(spec->n_artifacts_in, 1);
    assert_memory_equal(spec->artifacts_in[0]->digest.data, digest, sizeof(digest));
    assert_string_equal(spec->action->driver->target, "demo/production/web");
    assert_true(str_eqz(
        pb_str(snapshot_get(f->w.tx, rollout_get(f->w.tx, job->rollout_id)->snapshot_id)->command),
        "serve --color red"));
}

static char old_key[60] = {1};
static char new_key[60] = {2};

/* A stored variable of the project, its key wrapped by that of "12345678". */
static void store_secret(struct fixture *f)
{
    Pb__VariablesSet set = PB__VARIABLES_SET__INIT;
    Pb__SealedVariable v = PB__SEALED_VARIABLE__INIT;
    Pb__SealedVariable *all[] = {&v};

    v.level = VARIABLE_PROJECT;
    v.owner = (char *)"demo";
    v.name = (char *)"SECRET";
    v.environment_scope = (char *)"*";
    v.sealed = pb_bytes_ref(STR("twenty-eight bytes of overhead, and a value"));
    v.wrapped_key = pb_bytes_ref(str_of(old_key, sizeof(old_key)));
    v.master_key_id = pb_bytes_ref(STR("12345678"));
    set.variables = all;
    set.n_variables = 1;
    assert_int_equal(WORLD_APPLY(&f->w, "admin", VARIABLES_SET, &set), 0);
}

static int wrap_anew(struct fixture *f, uint64_t snapshot_id, const char *old)
{
    Pb__VariablesRewrap cmd = PB__VARIABLES_REWRAP__INIT;
    Pb__RewrappedKey key = PB__REWRAPPED_KEY__INIT;
    Pb__RewrappedKey *keys[] = {&key};

    key.level = VARIABLE_PROJECT;
    key.owner = (char *)"demo";
    key.name = (char *)"SECRET";
    key.environment_scope = (char *)"*";
    key.old_wrapped_key = pb_bytes_ref(str_of(old, sizeof(old_key)));
    key.wrapped_key = pb_bytes_ref(str_of(new_key, sizeof(new_key)));
    key.master_key_id = pb_bytes_ref(STR("abcdefgh"));
    key.snapshot_id = snapshot_id;
    cmd.keys = keys;
    cmd.n_keys = 1;
    return WORLD_APPLY(&f->w, "davitd", VARIABLES_REWRAP, &cmd);
}

/* So that an old master key is needed by nothing. */
static void keys_of_versions_are_wrapped_anew(void **state)
{
    struct fixture *f = *state;
    struct held_variable held[4];
    struct key at = {.n = 0};
    uint64_t id;
    bool more;

    store_secret(f);
    first(f);
    id = service(f)->stable_snapshot_id;
    assert_int_equal(
        snapshots_wrapped_by_others(f->w.tx, STR("abcdefgh"), &at, ARRAY_LEN(held), held, &more),
        1);
    assert_false(more);
    assert_int_equal(held[0].snapshot_id, id);
    assert_string_equal(held[0].variable->name, "SECRET");
    assert_int_equal(wrap_anew(f, id, new_key), 0); /* of another time */
    at.n = 0;
    assert_int_equal(
        snapshots_wrapped_by_others(f->w.tx, STR("abcdefgh"), &at, ARRAY_LEN(held), held, &more),
        1);
    assert_int_equal(wrap_anew(f, id, old_key), 0);
    assert_int_equal(wrap_anew(f, id + 1000, old_key), 0);
    at.n = 0;
    assert_int_equal(
        snapshots_wrapped_by_others(f->w.tx, STR("abcdefgh"), &at, ARRAY_LEN(held), held, &more),
        0);
    at.n = 0;
    assert_int_equal(snapshots_wrapped_by_others(f->w.tx, STR("12345678"), &at, 1, held, &more), 1);
    assert_int_equal(snapshot_get(f->w.tx, id)->uses, 2); /* nothing else of it has changed */
    assert_int_equal(wrap_anew(f, 0, old_key), 0);        /* the stored one itself */
    assert_memory_equal(
        stored_get(f->w.tx, VARIABLE_PROJECT, "demo", "SECRET", "*")->variable->master_key_id.data,
        "abcdefgh", 8);
}

/* Whatever fails or is lost on the way, and whenever the broker starts anew: the end is that of an
 * undisturbed one. */
static void disturbed(struct fixture *f, bool goes_back)
{
    uint64_t job_id, id, starts = 0;

    first(f);
    f->rig.fail_every = 7;
    f->rig.lose_every = 11;
    job_id = rig_submit(&f->rig, "v2");
    id = rig_rollout_of(&f->rig, job_id);
    while ((rollout_state_flags(rollout_get(f->w.tx, id)->state) & ROLLOUT_ENDED) == 0) {
        const Pb__RolloutRecord *r = rollout_get(f->w.tx, id);
        if (goes_back && r->observed_bp > 0 && !r->abort_wanted) {
            assert_int_equal(rig_act_on(&f->rig, id, ROLLOUT_VERB_ABORT, ""), 0);
        }
        assert_true(starts++ < 200);
        rig_run(&f->rig, 1 + starts * 137 % 9000);
        rig_restart(&f->rig);
    }
    assert_string_equal(rig_state(&f->rig, id), goes_back ? "rolled_back" : "done");
    assert_string_equal(job_state(f, job_id), goes_back ? "failed" : "success");
    assert_int_equal(f->rig.weight_b_bp, goes_back ? 0 : ROLLOUT_FULL_BP);
    assert_int_equal(f->rig.slots[goes_back ? ROLLOUT_SLOT_B : ROLLOUT_SLOT_A].instances[0], 0);
    assert_int_equal(f->rig.slots[goes_back ? ROLLOUT_SLOT_A : ROLLOUT_SLOT_B].instances[0], 2);
    assert_true(f->rig.failed > 0 && f->rig.lost > 0);
    assert_false(f->rig.broken);
}

static void starts_failures_and_losses_change_no_good_end(void **state)
{
    disturbed(*state, false);
}

static void starts_failures_and_losses_change_no_way_back(void **state)
{
    disturbed(*state, true);
}

static void a_router_that_does_not_obey_needs_a_human(void **state)
{
    struct fixture *f = *state;
    uint64_t job_id;
    const uint64_t id = second(f, &job_id);

    f->rig.deaf = true;
    assert_int_equal(rig_act_on(&f->rig, id, ROLLOUT_VERB_ABORT, ""), 0);
    assert_true(rig_until(&f->rig, id, ROLLOUT_NEEDS_HUMAN, HOUR_MS));
    assert_string_equal(job_state(f, job_id), "running");
    f->rig.deaf = false;
    assert_true(rig_until(&f->rig, id, ROLLOUT_ROLLED_BACK, HOUR_MS));
    assert_int_equal(f->rig.weight_b_bp, 0);
}

static void two_of_a_group_are_known_to_each_other(void **state)
{
    struct fixture *f = *state;
    Pb__RolloutTarget *web = rig_target(tx_arena(f->w.tx)), *api = rig_target(tx_arena(f->w.tx));
    Pb__RolloutTarget *both[] = {web, api};
    Pb__Configure body = PB__CONFIGURE__INIT;
    Pb__Plan *plan = plan_from_text(tx_arena(f->w.tx), "web: env=production\n"
                                                       "api: env=production\n");
    struct rollout_view v;
    uint64_t ids[2];

    api->name = (char *)"api";
    body.targets = both;
    body.n_targets = 2;
    assert_int_equal(WORLD_APPLY(&f->w, "config", CONFIGURE, &body), 0);
    for (size_t i = 0; i < 2; i++) {
        plan->jobs[i]->rollout = rig_plan(tx_arena(f->w.tx), "v1")->jobs[0]->rollout;
        plan->jobs[i]->rollout->target = plan->jobs[i]->name;
        plan->jobs[i]->rollout->group = (char *)"shop";
        plan->jobs[i]->n_script = 0;
    }
    assert_int_equal(world_submit(&f->w, plan, "main", "1"), 0);
    const uint64_t pipeline_id = f->w.reply.pipeline_id;
    rig_decide(&f->rig);
    ids[0] = job_get(f->w.tx, world_job_id(&f->w, pipeline_id, "web"))->rollout_id;
    ids[1] = job_get(f->w.tx, world_job_id(&f->w, pipeline_id, "api"))->rollout_id;
    assert_true(rollout_view_load(f->w.tx, ids[0], &v));
    assert_int_equal(v.group_count, 1);
    assert_int_equal(v.group[0]->id, ids[1]);
    assert_int_equal(rig_act_on(&f->rig, ids[0], ROLLOUT_VERB_ABORT, ""), 0);
    rig_run(&f->rig, 60000);
    assert_int_equal(rollout_get(f->w.tx, ids[1])->why, ROLLOUT_WHY_GROUP);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_first_version_goes_out_at_once),
        TEST(a_good_canary_becomes_stable),
        TEST(a_bad_canary_goes_back),
        TEST(a_version_with_errors_goes_back),
        TEST(what_it_waits_for_is_noted_once),
        TEST(a_cancel_of_the_job_is_an_abort),
        TEST(a_retry_rolls_the_same_version_out_anew),
        TEST(an_undo_needs_no_steps),
        TEST(a_pause_stops_the_clock_of_a_step),
        TEST(without_a_target_the_job_is_told),
        TEST(a_plan_that_is_none_is_refused),
        TEST(a_target_is_declared_rightly_or_not_at_all),
        TEST(a_target_is_for_its_projects),
        TEST(instances_get_the_variables_and_files_of_their_version),
        TEST(keys_of_versions_are_wrapped_anew),
        TEST(starts_failures_and_losses_change_no_good_end),
        TEST(starts_failures_and_losses_change_no_way_back),
        TEST(a_router_that_does_not_obey_needs_a_human),
        TEST(two_of_a_group_are_known_to_each_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
