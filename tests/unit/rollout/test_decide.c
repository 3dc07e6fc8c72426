#include "common/base.h"

#include "tests/unit/rollout/stage.h"

#define HOUR_MS 3600000u

static void add_weight(struct stage *s, uint32_t bp, uint64_t hold_ms)
{
    Pb__RolloutStepWish *w = stage_wish(s);

    w->has_weight = true;
    w->weight_bp = bp;
    w->hold_ms = hold_ms;
}

static void canary(struct stage *s)
{
    add_weight(s, 500, 60000);
    add_weight(s, 2500, 30000);
    add_weight(s, 5000, 0);
    s->spec.bake_ms = 60000;
    stage_begin(s, false);
}

static void a_good_canary_goes_step_by_step_to_all(void **state)
{
    struct stage *s = *state;

    canary(s);
    assert_true(stage_run_until(s, ROLLOUT_DONE, HOUR_MS));
    assert_int_equal(s->weight_count, 4);
    assert_int_equal(s->weights_seen[0], 500);
    assert_int_equal(s->weights_seen[1], 2500);
    assert_int_equal(s->weights_seen[2], 5000);
    assert_int_equal(s->weights_seen[3], 10000);
    assert_int_equal(s->service.stable_slot, ROLLOUT_SLOT_B);
    assert_int_equal(s->slots[ROLLOUT_SLOT_A].instances[0], 0);
    assert_int_equal(s->slots[ROLLOUT_SLOT_B].instances[0], 4);
}

static void a_canary_that_is_never_ready_goes_back(void **state)
{
    struct stage *s = *state;

    s->sick_from = 0;
    canary(s);
    assert_true(stage_run_until(s, ROLLOUT_ROLLED_BACK, HOUR_MS));
    assert_int_equal(s->record->why, ROLLOUT_WHY_DEADLINE);
    assert_int_equal(s->weight_count, 0);
    assert_int_equal(s->slots[ROLLOUT_SLOT_B].instances[0], 0);
    assert_int_equal(s->slots[ROLLOUT_SLOT_A].instances[0], 4);
}

static void a_canary_that_gets_sick_goes_back_by_the_hard_check(void **state)
{
    struct stage *s = *state;

    canary(s);
    assert_true(stage_run_until(s, ROLLOUT_STEPPING, HOUR_MS));
    stage_run(s, 20000);
    assert_int_equal(s->weight_b_bp, 500);
    s->sick_from = 0;
    const uint64_t sick_ms = s->now_ms;
    assert_true(stage_run_until(s, ROLLOUT_DRAIN, HOUR_MS));
    assert_int_equal(s->record->why, ROLLOUT_WHY_HARD_CHECK);
    assert_true(s->moved_ms - sick_ms <= 3 * 1000 + 100); /* three looks */
    assert_true(stage_run_until(s, ROLLOUT_ROLLED_BACK, HOUR_MS));
    assert_int_equal(s->weight_b_bp, 0);
}

static void an_abort_moves_traffic_at_once(void **state)
{
    struct stage *s = *state;

    canary(s);
    assert_true(stage_run_until(s, ROLLOUT_STEPPING, HOUR_MS));
    stage_run(s, 70000);
    assert_int_equal(s->weight_b_bp, 2500);
    const uint64_t abort_ms = s->now_ms;
    stage_abort(s);
    assert_true(stage_run_until(s, ROLLOUT_ROLLED_BACK, HOUR_MS));
    assert_true(s->moved_ms - abort_ms <= 2 * s->action_ms);
    assert_int_equal(s->record->why, ROLLOUT_WHY_PERSON);
}

static void before_anything_moved_an_abort_leaves_nothing(void **state)
{
    static char *roles[] = {(char *)"release-managers"};
    struct stage *s = *state;

    s->target.gate = roles;
    s->target.n_gate = 1;
    canary(s);
    stage_run(s, 60000);
    assert_int_equal(s->record->state, ROLLOUT_GATED);
    stage_abort(s);
    stage_run(s, 1);
    assert_int_equal(s->record->state, ROLLOUT_REFUSED);
    assert_int_equal(s->action_count, 0);
}

static void a_dead_router_needs_a_human_and_is_tried_until_it_is_back(void **state)
{
    struct stage *s = *state;

    canary(s);
    assert_true(stage_run_until(s, ROLLOUT_STEPPING, HOUR_MS));
    stage_run(s, 20000);
    s->router_dead = true;
    stage_abort(s);
    assert_true(stage_run_until(s, ROLLOUT_NEEDS_HUMAN, HOUR_MS));
    stage_run(s, 10 * 60000);
    assert_int_equal(s->record->state, ROLLOUT_NEEDS_HUMAN);
    assert_int_equal(s->slots[ROLLOUT_SLOT_B].instances[0],
                     1); /* what has traffic is not stopped */
    s->router_dead = false;
    assert_true(stage_run_until(s, ROLLOUT_ROLLED_BACK, 60000));
    assert_int_equal(s->weight_b_bp, 0);
}

static void a_router_that_says_yes_and_does_nothing_is_not_believed(void **state)
{
    struct stage *s = *state;

    canary(s);
    s->router_deaf = true;
    assert_true(stage_run_until(s, ROLLOUT_ROLLED_BACK, HOUR_MS));
    assert_int_equal(s->record->why, ROLLOUT_WHY_DEADLINE);
    assert_int_equal(s->weight_b_bp, 0);
}

static void blue_green_moves_all_traffic_in_one_change(void **state)
{
    struct stage *s = *state;

    stage_strategy(s, ROLLOUT_BLUE_GREEN);
    stage_wish(s)->hold_ms = 10000;
    s->spec.bake_ms = 30000;
    stage_begin(s, false);
    assert_true(stage_run_until(s, ROLLOUT_BAKE, HOUR_MS));
    assert_int_equal(s->weight_count, 1);
    assert_int_equal(s->weights_seen[0], 10000);
    assert_int_equal(s->slots[ROLLOUT_SLOT_A].instances[0], 4); /* warm */
    stage_abort(s);
    assert_true(stage_run_until(s, ROLLOUT_ROLLED_BACK, HOUR_MS));
    assert_int_equal(s->weight_count, 2);
    assert_int_equal(s->weight_b_bp, 0);
    assert_int_equal(s->service.stable_slot, ROLLOUT_SLOT_A);
}

static void rolling_goes_in_waves_and_keeps_capacity(void **state)
{
    static char *hosts[] = {(char *)"h1", (char *)"h2"};
    struct stage *s = *state;

    stage_strategy(s, ROLLOUT_ROLLING);
    s->target.places = hosts;
    s->target.n_places = 2;
    stage_begin(s, false);
    assert_true(stage_run_until(s, ROLLOUT_DONE, HOUR_MS));
    assert_true(s->weight_count >= 4);
    for (size_t i = 1; i < s->weight_count; i++) {
        assert_true(s->weights_seen[i] > s->weights_seen[i - 1]);
    }
    assert_int_equal(s->slots[ROLLOUT_SLOT_B].instances[0], 4);
    assert_int_equal(s->slots[ROLLOUT_SLOT_B].instances[1], 4);
    assert_int_equal(s->slots[ROLLOUT_SLOT_A].instances[0], 0);
    assert_int_equal(s->slots[ROLLOUT_SLOT_A].instances[1], 0);
}

static void a_bad_host_in_a_later_wave_takes_the_earlier_ones_back(void **state)
{
    struct stage *s = *state;

    stage_strategy(s, ROLLOUT_ROLLING);
    s->sick_from = 2;
    stage_begin(s, false);
    assert_true(stage_run_until(s, ROLLOUT_ROLLED_BACK, 3 * HOUR_MS));
    assert_int_equal(s->weight_b_bp, 0);
    assert_int_equal(s->slots[ROLLOUT_SLOT_A].instances[0], 4);
    assert_int_equal(s->slots[ROLLOUT_SLOT_B].instances[0], 0);
}

static void without_a_router_instances_are_replaced_all_the_same(void **state)
{
    static Pb__DriverConfig none;
    struct stage *s = *state;

    pb__driver_config__init(&none);
    none.driver = (char *)"none";
    s->target.router_driver = &none;
    s->routerless = true;
    stage_strategy(s, ROLLOUT_ROLLING);
    stage_begin(s, false);
    assert_true(stage_run_until(s, ROLLOUT_DONE, HOUR_MS));
    assert_int_equal(s->slots[ROLLOUT_SLOT_B].instances[0], 4);
    assert_int_equal(s->slots[ROLLOUT_SLOT_A].instances[0], 0);
}

static void without_a_router_it_goes_back_too(void **state)
{
    static Pb__DriverConfig none;
    struct stage *s = *state;

    pb__driver_config__init(&none);
    none.driver = (char *)"none";
    s->target.router_driver = &none;
    s->routerless = true;
    s->sick_from = 1;
    stage_strategy(s, ROLLOUT_ROLLING);
    stage_begin(s, false);
    assert_true(stage_run_until(s, ROLLOUT_ROLLED_BACK, 3 * HOUR_MS));
    assert_int_equal(s->slots[ROLLOUT_SLOT_A].instances[0], 4);
    assert_int_equal(s->slots[ROLLOUT_SLOT_B].instances[0], 0);
}

static void the_first_version_gets_all_traffic_without_steps(void **state)
{
    struct stage *s = *state;

    add_weight(s, 500, 60000);
    stage_begin(s, true);
    assert_true(stage_run_until(s, ROLLOUT_DONE, 60000));
    assert_int_equal(s->weight_b_bp, 0); /* it is in slot a */
    assert_int_equal(s->slots[ROLLOUT_SLOT_A].instances[0], 4);
}

static void a_freeze_holds_what_goes_up_and_nothing_that_goes_back(void **state)
{
    static Pb__FreezeWindow window, *windows[] = {&window};
    struct stage *s = *state;

    pb__freeze_window__init(&window);
    window.name = (char *)"weekend";
    window.from_ms = s->now_ms + 30000;
    window.until_ms = s->now_ms + HOUR_MS;
    s->target.freezes = windows;
    s->target.n_freezes = 1;
    canary(s);
    stage_run(s, HOUR_MS / 4);
    assert_int_equal(s->weight_b_bp, 500);
    assert_string_equal(s->record->holds, "frozen: weekend");
    stage_abort(s);
    assert_true(stage_run_until(s, ROLLOUT_ROLLED_BACK, 60000));
    assert_true(s->now_ms < window.until_ms);
}

static void after_a_freeze_it_goes_on(void **state)
{
    static Pb__FreezeWindow window, *windows[] = {&window};
    struct stage *s = *state;

    pb__freeze_window__init(&window);
    window.name = (char *)"weekend";
    window.from_ms = s->now_ms + 30000;
    window.until_ms = s->now_ms + HOUR_MS / 4;
    s->target.freezes = windows;
    s->target.n_freezes = 1;
    canary(s);
    assert_true(stage_run_until(s, ROLLOUT_DONE, HOUR_MS));
    assert_true(s->now_ms > window.until_ms);
}

static void approve(struct stage *s, const char *by)
{
    Pb__RolloutApproval *a = arena_alloc(&s->arena, sizeof(*a));
    Pb__RolloutApproval **all = arena_array(&s->arena, s->record->n_approvals + 1, sizeof(*all));

    pb__rollout_approval__init(a);
    a->by = (char *)by;
    a->role = (char *)"release-managers";
    a->step = s->record->step;
    if (s->record->n_approvals > 0) {
        memcpy(all, s->record->approvals, s->record->n_approvals * sizeof(*all));
    }
    all[s->record->n_approvals++] = a;
    s->record->approvals = all;
    s->record->revision++;
    s->record->next_look_ms = s->now_ms;
}

static void two_approvals_are_of_two_persons(void **state)
{
    static char *roles[] = {(char *)"release-managers"};
    struct stage *s = *state;
    Pb__RolloutStepWish *w;

    add_weight(s, 500, 0);
    w = stage_wish(s);
    w->approve = roles;
    w->n_approve = 1;
    w->approvals = 2;
    stage_begin(s, false);
    stage_run(s, HOUR_MS);
    assert_int_equal(s->record->state, ROLLOUT_STEPPING);
    assert_int_equal(s->weight_b_bp, 500);
    approve(s, "ann");
    approve(s, "ann");
    stage_run(s, HOUR_MS);
    assert_int_equal(s->record->state, ROLLOUT_STEPPING);
    approve(s, "bob");
    assert_true(stage_run_until(s, ROLLOUT_DONE, HOUR_MS));
}

static void hold_on_failure_stays_until_a_person_says(void **state)
{
    struct stage *s = *state;

    s->spec.on_failure = ON_ROLLOUT_FAILURE_HOLD;
    canary(s);
    assert_true(stage_run_until(s, ROLLOUT_STEPPING, HOUR_MS));
    stage_run(s, 10000);
    s->sick_from = 0;
    stage_run(s, HOUR_MS);
    assert_true(s->record->held);
    assert_int_equal(s->weight_b_bp, 500);
    stage_abort(s);
    assert_true(stage_run_until(s, ROLLOUT_ROLLED_BACK, 60000));
}

static void measured(struct stage *s, double stable_bad, double new_bad)
{
    s->rps = 200;
    s->bad_share[ROLLOUT_SLOT_A] = stable_bad;
    s->bad_share[ROLLOUT_SLOT_B] = new_bad;
    stage_metric(s, 1200);
}

static void errors_of_the_new_version_take_it_back(void **state)
{
    struct stage *s = *state;

    measured(s, 0.005, 0.2);
    canary(s);
    assert_true(stage_run_until(s, ROLLOUT_ROLLED_BACK, HOUR_MS));
    assert_int_equal(s->record->why, ROLLOUT_WHY_METRIC);
    assert_int_equal(s->weight_count, 2);
    assert_int_equal(s->weights_seen[0], 500);
    assert_int_equal(s->weights_seen[1], 0);
    assert_true(s->bad[ROLLOUT_SLOT_B] < 60); /* within half a minute of 10 requests a second */
}

static void errors_that_the_stable_version_has_too_do_not(void **state)
{
    struct stage *s = *state;

    measured(s, 0.1, 0.1);
    canary(s);
    assert_true(stage_run_until(s, ROLLOUT_DONE, HOUR_MS));
}

static void errors_in_the_bake_go_back_by_one_change_of_weight(void **state)
{
    struct stage *s = *state;

    measured(s, 0.005, 0.005);
    canary(s);
    assert_true(stage_run_until(s, ROLLOUT_BAKE, HOUR_MS));
    stage_run(s, 5000);
    s->bad_share[ROLLOUT_SLOT_B] = 1;
    const uint64_t bad_ms = s->now_ms;
    assert_true(stage_run_until(s, ROLLOUT_DRAIN, HOUR_MS));
    assert_true(s->moved_ms - bad_ms < 5000);
    assert_int_equal(s->weight_b_bp, 0);
    assert_int_equal(s->slots[ROLLOUT_SLOT_A].instances[0], 4);
}

static void an_outage_of_what_measures_neither_promotes_nor_rolls_back(void **state)
{
    struct stage *s = *state;

    measured(s, 0.005, 0.005);
    canary(s);
    assert_true(stage_run_until(s, ROLLOUT_STEPPING, HOUR_MS));
    stage_run(s, 20000);
    assert_int_equal(s->weight_b_bp, 500);
    s->metrics_dead = true;
    stage_run(s, HOUR_MS / 3);
    assert_int_equal(s->weight_b_bp, 500);
    assert_int_equal(s->record->state, ROLLOUT_STEPPING);
    assert_non_null(strstr(s->record->holds, "error_rate: error"));
    s->metrics_dead = false;
    assert_true(stage_run_until(s, ROLLOUT_DONE, HOUR_MS));
}

static void without_metrics_the_policy_may_say_that_it_fails(void **state)
{
    struct stage *s = *state;

    s->spec.on_error = ROLLOUT_POLICY_FAIL;
    measured(s, 0.005, 0.005);
    canary(s);
    assert_true(stage_run_until(s, ROLLOUT_STEPPING, HOUR_MS));
    stage_run(s, 20000);
    s->metrics_dead = true;
    assert_true(stage_run_until(s, ROLLOUT_ROLLED_BACK, HOUR_MS));
    assert_int_equal(s->record->why, ROLLOUT_WHY_INCONCLUSIVE);
}

static void a_bake_that_cannot_tell_is_asked_about(void **state)
{
    struct stage *s = *state;

    s->spec.on_error = ROLLOUT_POLICY_APPROVE;
    measured(s, 0.005, 0.005);
    canary(s);
    assert_true(stage_run_until(s, ROLLOUT_BAKE, HOUR_MS));
    s->metrics_dead = true;
    stage_run(s, HOUR_MS / 4);
    assert_int_equal(s->record->state, ROLLOUT_BAKE);
    s->record->skip_wanted = true;
    s->record->revision++;
    s->record->next_look_ms = s->now_ms;
    assert_true(stage_run_until(s, ROLLOUT_DONE, HOUR_MS));
}

static void nothing_is_late_because_the_broker_was_away(void **state)
{
    struct stage *s = *state;

    canary(s);
    assert_true(stage_run_until(s, ROLLOUT_STEPPING, HOUR_MS));
    stage_run(s, 70000);
    assert_int_equal(s->weight_b_bp, 2500);
    s->now_ms += 3 * HOUR_MS;
    stage_restart(s);
    assert_true(stage_run_until(s, ROLLOUT_DONE, HOUR_MS));
}

static void an_abort_needs_no_metrics(void **state)
{
    struct stage *s = *state;

    measured(s, 0.005, 0.005);
    canary(s);
    assert_true(stage_run_until(s, ROLLOUT_STEPPING, HOUR_MS));
    stage_run(s, 20000);
    s->metrics_dead = true;
    stage_abort(s);
    assert_true(stage_run_until(s, ROLLOUT_ROLLED_BACK, 60000));
}

static void analyse_for(struct stage *s, uint64_t ms, bool until_good)
{
    Pb__RolloutStepWish *w;

    add_weight(s, 500, 0);
    w = stage_wish(s);
    w->analyze_ms = ms;
    w->until_good = until_good;
    stage_begin(s, false);
}

/* What could never be judged does not begin. */
static void a_metric_without_the_stable_version_keeps_the_gate_shut(void **state)
{
    struct stage *s = *state;

    measured(s, 0, 0);
    s->metrics_mute = true;
    canary(s);
    assert_false(stage_run_until(s, ROLLOUT_PROVISION, 60000));
    assert_int_equal(s->record->state, ROLLOUT_GATED);
    assert_non_null(strstr(s->record->holds, "has nothing of the stable version"));
    assert_int_equal(s->slots[ROLLOUT_SLOT_B].instances[0], 0);
    s->metrics_mute = false;
    s->metrics_dead = true;
    assert_false(stage_run_until(s, ROLLOUT_PROVISION, 60000));
    assert_non_null(strstr(s->record->holds, "cannot be had"));
    s->metrics_dead = false;
    assert_true(stage_run_until(s, ROLLOUT_PROVISION, 60000));
}

static void who_does_not_mind_missing_data_is_not_kept_waiting(void **state)
{
    struct stage *s = *state;

    measured(s, 0, 0);
    s->metrics_mute = true;
    s->spec.on_no_data = ROLLOUT_POLICY_PASS;
    canary(s);
    assert_true(stage_run_until(s, ROLLOUT_PROVISION, 1000));
}

static void an_analysis_until_good_ends_when_it_is(void **state)
{
    struct stage *s = *state;

    measured(s, 0.005, 0.005);
    analyse_for(s, 2 * HOUR_MS, true);
    assert_true(stage_run_until(s, ROLLOUT_PROMOTE, HOUR_MS));
    assert_int_equal(s->metrics[0]->verdict, VERDICT_GOOD);
}

static void load_that_the_target_does_not_have_is_no_policy(void **state)
{
    struct stage *s = *state;
    Pb__RolloutPlanRecord *plan;
    const char *why = NULL;

    s->spec.on_thin = ROLLOUT_POLICY_SYNTHETIC;
    assert_int_equal(rollout_compile(&s->spec, &s->target, false, &s->arena, &plan, &why),
                     -E_INVALID);
    assert_string_equal(why, "the target has no `synthetic` load");
}

static void without_data_the_policy_decides(void **state)
{
    struct stage *s = *state;

    measured(s, 0, 0);
    s->spec.on_no_data = ROLLOUT_POLICY_FAIL;
    analyse_for(s, 60000, false);
    assert_true(stage_run_until(s, ROLLOUT_WARMUP, HOUR_MS));
    s->metrics_mute = true;
    assert_true(stage_run_until(s, ROLLOUT_ROLLED_BACK, HOUR_MS));
    assert_int_equal(s->record->why, ROLLOUT_WHY_INCONCLUSIVE);
}

static void without_data_and_policy_it_goes_on_as_nothing_was_bad(void **state)
{
    struct stage *s = *state;

    measured(s, 0, 0);
    analyse_for(s, 60000, false);
    assert_true(stage_run_until(s, ROLLOUT_WARMUP, HOUR_MS));
    s->metrics_mute = true;
    assert_true(stage_run_until(s, ROLLOUT_DONE, HOUR_MS));
}

/* One rollout that is good, or sick once all are to run; the broker is killed after so many steps
 * (and again after as many more), and one of so many answers is lost. False: it had ended before.
 */
static bool end_is_the_same(uint32_t kill_after, bool good, uint32_t lost_every)
{
    struct stage *s;
    uint32_t kills = 0;

    stage_set_up((void **)&s);
    s->sick_from = good ? UINT32_MAX : 3;
    s->lost_every = lost_every;
    s->kill_after = kill_after;
    canary(s);
    while ((rollout_state_flags(s->record->state) & ROLLOUT_ENDED) == 0 && kills < 20) {
        stage_run(s, 3 * HOUR_MS);
        if (s->steps_applied >= kill_after) {
            stage_restart(s);
            s->steps_applied = 0;
            kills++;
        }
    }
    s->kill_after = UINT32_MAX;
    stage_run(s, 3 * HOUR_MS);
    assert_int_equal(s->record->state, good ? ROLLOUT_DONE : ROLLOUT_ROLLED_BACK);
    assert_int_equal(s->weight_b_bp, good ? 10000 : 0);
    assert_int_equal(s->slots[ROLLOUT_SLOT_A].instances[0], good ? 0 : 4);
    assert_int_equal(s->slots[ROLLOUT_SLOT_B].instances[0], good ? 4 : 0);
    stage_tear_down((void **)&s);
    return kills > 0;
}

static void the_end_is_the_same_after_a_kill_at_any_step(void **state)
{
    uint32_t killed = 0;

    (void)state;
    for (uint32_t after = 1; after < 250; after++) {
        killed += end_is_the_same(after, after % 2 == 0, after % 3 == 0 ? 7 : 0) ? 1 : 0;
    }
    assert_true(killed > 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_good_canary_goes_step_by_step_to_all),
        TEST(a_canary_that_is_never_ready_goes_back),
        TEST(a_canary_that_gets_sick_goes_back_by_the_hard_check),
        TEST(an_abort_moves_traffic_at_once),
        TEST(before_anything_moved_an_abort_leaves_nothing),
        TEST(a_dead_router_needs_a_human_and_is_tried_until_it_is_back),
        TEST(a_router_that_says_yes_and_does_nothing_is_not_believed),
        TEST(blue_green_moves_all_traffic_in_one_change),
        TEST(rolling_goes_in_waves_and_keeps_capacity),
        TEST(a_bad_host_in_a_later_wave_takes_the_earlier_ones_back),
        TEST(without_a_router_instances_are_replaced_all_the_same),
        TEST(without_a_router_it_goes_back_too),
        TEST(the_first_version_gets_all_traffic_without_steps),
        TEST(a_freeze_holds_what_goes_up_and_nothing_that_goes_back),
        TEST(after_a_freeze_it_goes_on),
        TEST(two_approvals_are_of_two_persons),
        TEST(hold_on_failure_stays_until_a_person_says),
        TEST(errors_of_the_new_version_take_it_back),
        TEST(errors_that_the_stable_version_has_too_do_not),
        TEST(errors_in_the_bake_go_back_by_one_change_of_weight),
        TEST(an_outage_of_what_measures_neither_promotes_nor_rolls_back),
        TEST(without_metrics_the_policy_may_say_that_it_fails),
        TEST(a_bake_that_cannot_tell_is_asked_about),
        TEST(nothing_is_late_because_the_broker_was_away),
        TEST(an_abort_needs_no_metrics),
        TEST(a_metric_without_the_stable_version_keeps_the_gate_shut),
        TEST(who_does_not_mind_missing_data_is_not_kept_waiting),
        TEST(an_analysis_until_good_ends_when_it_is),
        TEST(load_that_the_target_does_not_have_is_no_policy),
        TEST(without_data_the_policy_decides),
        TEST(without_data_and_policy_it_goes_on_as_nothing_was_bad),
        cmocka_unit_test(the_end_is_the_same_after_a_kill_at_any_step),
    };

    return cmocka_run_group_tests_name("rollout decide", tests, NULL, NULL);
}
