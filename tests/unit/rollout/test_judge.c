/* What all metrics together mean for a step, and what ends a rollout in any state. */
#include "common/base.h"

#include "tests/unit/rollout/fixture.h"

static struct judge_look asked(struct numbers *n)
{
    return (struct judge_look){
        .spec = &n->spec,
        .rules = n->rules,
        .rule_count = n->rule_count,
        .rows = n->rows,
        .now_ms = n->now_ms,
        .evidence_from_ms = n->now_ms - 10000,
    };
}

/* Two rules, each with a row that says so. */
static void say(struct numbers *n, enum verdict first, enum verdict second)
{
    const enum verdict v[] = {first, second};

    if (n->spec.n_analysis == 0) {
        judged_by(n, "error_rate", ROLLOUT_RULE_COMPARE)->critical = true;
        judged_by(n, "latency", ROLLOUT_RULE_COMPARE);
        assert_int_equal(make_rules(n), 0);
    }
    for (size_t i = 0; i < 2; i++) {
        n->rows[i] = arena_alloc(&n->arena, sizeof(*n->rows[i]));
        pb__rollout_metric_record__init(n->rows[i]);
        n->rows[i]->verdict = v[i];
        n->rows[i]->verdict_ms = n->now_ms;
        n->rows[i]->text = (char *)"seen";
    }
}

/* While the time runs, when it is over, and when no more is to be had. */
static void expect(struct numbers *n, enum judgement during, enum judgement over,
                   enum judgement last)
{
    struct judge_look q = asked(n);

    assert_int_equal(judge(&q, &n->arena).what, during);
    q.over = true;
    assert_int_equal(judge(&q, &n->arena).what, over);
    q.last = true;
    assert_int_equal(judge(&q, &n->arena).what, last);
    q.over = false; /* says the same */
    assert_int_equal(judge(&q, &n->arena).what, last);
}

static void what_is_good_passes_when_its_time_is_over(void **state)
{
    struct numbers *n = *state;
    struct judge_look q;

    say(n, VERDICT_GOOD, VERDICT_GOOD);
    expect(n, JUDGE_WAIT, JUDGE_GO, JUDGE_GO);
    q = asked(n);
    assert_string_equal(judge(&q, &n->arena).text, "2 of 2 metrics good");
    assert_true(judge(&q, &n->arena).all_good);
    q.until_good = true;
    assert_int_equal(judge(&q, &n->arena).what, JUDGE_GO);
    say(n, VERDICT_GOOD, VERDICT_THIN);
    assert_int_equal(judge(&q, &n->arena).what, JUDGE_WAIT);
}

static void bad_ends_it_at_once_where_it_is_critical(void **state)
{
    struct numbers *n = *state;
    struct judge_look q;
    struct judged j;

    say(n, VERDICT_BAD, VERDICT_GOOD);
    expect(n, JUDGE_FAIL, JUDGE_FAIL, JUDGE_FAIL);
    q = asked(n);
    q.evidence_from_ms = n->now_ms; /* a final BAD is never too old */
    j = judge(&q, &n->arena);
    assert_int_equal(j.what, JUDGE_FAIL);
    assert_int_equal(j.why, ROLLOUT_WHY_METRIC);
    assert_string_equal(j.text, "error_rate: bad: seen");
    assert_false(j.all_good);
    say(n, VERDICT_GOOD, VERDICT_BAD);
    expect(n, JUDGE_WAIT, JUDGE_FAIL, JUDGE_FAIL);
    q = asked(n);
    assert_false(judge(&q, &n->arena).all_good);
}

static void the_kill_line_ends_it_whatever_the_metric_is_for(void **state)
{
    struct numbers *n = *state;
    struct judge_look q;

    say(n, VERDICT_GOOD, VERDICT_KILL);
    n->analysis[1].dry_run = true;
    expect(n, JUDGE_FAIL, JUDGE_FAIL, JUDGE_FAIL);
    q = asked(n);
    assert_int_equal(judge(&q, &n->arena).why, ROLLOUT_WHY_HARD_CHECK);
}

static void dry_runs_do_not_count(void **state)
{
    struct numbers *n = *state;
    const enum verdict any[] = {VERDICT_NO_DATA, VERDICT_THIN, VERDICT_BAD, VERDICT_ERROR};

    for (size_t i = 0; i < ARRAY_LEN(any); i++) {
        struct judge_look q;

        say(n, any[i], VERDICT_GOOD);
        n->analysis[0].dry_run = true;
        expect(n, JUDGE_WAIT, JUDGE_GO, JUDGE_GO);
        q = asked(n);
        q.until_good = true;
        assert_int_equal(judge(&q, &n->arena).what, JUDGE_GO);
        assert_true(judge(&q, &n->arena).all_good);
    }
}

static void too_little_follows_its_policy(void **state)
{
    struct numbers *n = *state;
    const struct {
        Pb__RolloutPolicy policy;
        enum judgement over, last;
    } cases[] = {
        {ROLLOUT_POLICY_DEFAULT, JUDGE_WAIT, JUDGE_GO},
        {ROLLOUT_POLICY_EXTEND, JUDGE_WAIT, JUDGE_HOLD},
        {ROLLOUT_POLICY_SYNTHETIC, JUDGE_WAIT, JUDGE_HOLD},
        {ROLLOUT_POLICY_APPROVE, JUDGE_APPROVE, JUDGE_APPROVE},
        {ROLLOUT_POLICY_PASS, JUDGE_GO, JUDGE_GO},
        {ROLLOUT_POLICY_FAIL, JUDGE_FAIL, JUDGE_FAIL},
    };

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct judge_look q;

        n->spec.on_thin = cases[i].policy;
        n->spec.on_no_data = ROLLOUT_POLICY_PASS;
        say(n, VERDICT_THIN, VERDICT_GOOD);
        expect(n, JUDGE_WAIT, cases[i].policy == ROLLOUT_POLICY_DEFAULT ? JUDGE_GO : cases[i].over,
               cases[i].last);
        q = asked(n);
        assert_int_equal(judge(&q, &n->arena).synthetic,
                         cases[i].policy == ROLLOUT_POLICY_SYNTHETIC);
        n->spec.on_thin = ROLLOUT_POLICY_PASS;
        n->spec.on_no_data = cases[i].policy;
        say(n, VERDICT_NO_DATA, VERDICT_THIN);
        expect(n, JUDGE_WAIT, cases[i].over, cases[i].last);
    }
    n->spec.on_thin = ROLLOUT_POLICY_FAIL;
    n->spec.on_no_data = ROLLOUT_POLICY_EXTEND;
    expect(n, JUDGE_WAIT, JUDGE_FAIL, JUDGE_FAIL); /* the gravest counts */
}

static void a_monitoring_outage_neither_promotes_nor_rolls_back(void **state)
{
    struct numbers *n = *state;

    say(n, VERDICT_GOOD, VERDICT_GOOD);
    n->rows[0] = NULL;
    look_at(n, 0, "no route to host");
    n->rows[1]->verdict_ms = n->now_ms;
    expect(n, JUDGE_WAIT, JUDGE_WAIT, JUDGE_HOLD);
    for (int i = 0; i < 40; i++) {
        look_at(n, 0, "no route to host"); /* beyond the grace */
    }
    n->rows[1]->verdict_ms = n->now_ms;
    expect(n, JUDGE_WAIT, JUDGE_HOLD, JUDGE_HOLD);
    n->spec.on_error = ROLLOUT_POLICY_FAIL;
    expect(n, JUDGE_WAIT, JUDGE_FAIL, JUDGE_FAIL);
    n->spec.on_error = ROLLOUT_POLICY_PASS;
    expect(n, JUDGE_WAIT, JUDGE_GO, JUDGE_GO);
}

static void what_was_seen_before_the_evidence_begins_is_not_seen(void **state)
{
    struct numbers *n = *state;
    struct judge_look q;

    say(n, VERDICT_GOOD, VERDICT_GOOD);
    n->rows[1]->verdict_ms = n->now_ms - 20000;
    q = asked(n);
    q.until_good = true;
    assert_int_equal(judge(&q, &n->arena).what, JUDGE_WAIT);
    assert_false(judge(&q, &n->arena).all_good);
    expect(n, JUDGE_WAIT, JUDGE_WAIT, JUDGE_GO);
    n->spec.on_no_data = ROLLOUT_POLICY_FAIL;
    expect(n, JUDGE_WAIT, JUDGE_WAIT, JUDGE_FAIL);
}

static void without_metrics_time_decides(void **state)
{
    struct numbers *n = *state;
    struct judge_look q;

    assert_int_equal(make_rules(n), 0);
    expect(n, JUDGE_WAIT, JUDGE_GO, JUDGE_GO);
    q = asked(n);
    q.until_good = true;
    assert_int_equal(judge(&q, &n->arena).what, JUDGE_WAIT);
}

/* ---- hard checks ---- */

static void not_ready_so_often_in_a_row_is_an_end(void **state)
{
    struct numbers *n = *state;
    Pb__InstanceState up = PB__INSTANCE_STATE__INIT, down = PB__INSTANCE_STATE__INIT;
    Pb__InstanceState *of[] = {&up, &down};
    struct hard_look h = {.target = &n->target, .instances = of, .instance_count = 2};
    uint32_t looks;

    up.ready = true;
    down.index = 4;
    down.address = (char *)"10.0.0.4:80";
    down.detail = (char *)"status 503";
    h.unready_looks = 9;
    assert_null(hard_check(&h, &n->arena, &looks)); /* it is still warming up */
    assert_int_equal(looks, 0);
    h.ready_expected = true;
    h.unready_looks = 1;
    assert_null(hard_check(&h, &n->arena, &looks));
    assert_int_equal(looks, 2);
    h.unready_looks = looks;
    assert_string_equal(hard_check(&h, &n->arena, &looks),
                        "instance 4 at 10.0.0.4:80 was not ready 3 times in a row: status 503");
    down.ready = true;
    assert_null(hard_check(&h, &n->arena, &looks));
    assert_int_equal(looks, 0);
    n->target.unready_failures = 1;
    down.ready = false;
    h.unready_looks = 0;
    assert_non_null(hard_check(&h, &n->arena, &looks));
}

static void restarting_over_and_over_is_an_end_while_warming_up_too(void **state)
{
    struct numbers *n = *state;
    Pb__InstanceState s = PB__INSTANCE_STATE__INIT;
    Pb__InstanceState *of[] = {&s};
    struct hard_look h = {.target = &n->target, .instances = of, .instance_count = 1};
    uint32_t looks;

    s.address = (char *)"h:1";
    s.restarts = 2;
    assert_null(hard_check(&h, &n->arena, &looks));
    s.restarts = 3;
    assert_string_equal(hard_check(&h, &n->arena, &looks),
                        "instance 0 at h:1 has restarted 3 times");
}

static void traffic_without_a_server_is_an_end(void **state)
{
    struct numbers *n = *state;
    Pb__RouterServer a = PB__ROUTER_SERVER__INIT, b = PB__ROUTER_SERVER__INIT;
    Pb__RouterServer *of[] = {&a, &b};
    Pb__RouterAnswer router = PB__ROUTER_ANSWER__INIT;
    struct hard_look h = {.target = &n->target, .slot = ROLLOUT_SLOT_B, .router = &router};
    uint32_t looks;

    a.up = true;
    b.slot = ROLLOUT_SLOT_B;
    router.servers = of;
    router.n_servers = 2;
    assert_null(hard_check(&h, &n->arena, &looks)); /* no traffic */
    router.weight_b_bp = 500;
    assert_non_null(strstr(hard_check(&h, &n->arena, &looks), "sends 5% of the traffic"));
    b.up = true;
    assert_null(hard_check(&h, &n->arena, &looks));
    h.slot = ROLLOUT_SLOT_A;
    a.up = false;
    assert_non_null(strstr(hard_check(&h, &n->arena, &looks), "sends 95%"));
    router.unknown = true;
    assert_null(hard_check(&h, &n->arena, &looks));
    h.router = NULL;
    assert_null(hard_check(&h, &n->arena, &looks));
}

static void over_the_kill_line_is_an_end(void **state)
{
    struct numbers *n = *state;
    struct hard_look h = {.target = &n->target, .rows = n->rows, .row_count = 3};
    uint32_t looks;

    say(n, VERDICT_BAD, VERDICT_GOOD);
    assert_null(hard_check(&h, &n->arena, &looks));
    say(n, VERDICT_GOOD, VERDICT_KILL);
    assert_string_equal(hard_check(&h, &n->arena, &looks), "over the kill line: seen");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, numbers_setup, numbers_teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_is_good_passes_when_its_time_is_over),
        TEST(bad_ends_it_at_once_where_it_is_critical),
        TEST(the_kill_line_ends_it_whatever_the_metric_is_for),
        TEST(dry_runs_do_not_count),
        TEST(too_little_follows_its_policy),
        TEST(a_monitoring_outage_neither_promotes_nor_rolls_back),
        TEST(what_was_seen_before_the_evidence_begins_is_not_seen),
        TEST(without_metrics_time_decides),
        TEST(not_ready_so_often_in_a_row_is_an_end),
        TEST(restarting_over_and_over_is_an_end_while_warming_up_too),
        TEST(traffic_without_a_server_is_an_end),
        TEST(over_the_kill_line_is_an_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
