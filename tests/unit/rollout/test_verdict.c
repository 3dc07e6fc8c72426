/* What one metric says at each look, and what is kept of it. */
#include "common/base.h"

#include "common/err.h"
#include "common/limits.h"
#include "tests/unit/rollout/fixture.h"

static void must(struct numbers *n)
{
    const int r = make_rules(n);

    if (r < 0) {
        print_error("%s\n", n->why);
    }
    assert_int_equal(r, 0);
}

static void refused(struct numbers *n, const char *why)
{
    assert_true(make_rules(n) < 0);
    if (strstr(n->why, why) == NULL) {
        print_error("'%s' is not in '%s'\n", why, n->why);
    }
    assert_non_null(strstr(n->why, why));
    n->spec.n_analysis = 0;
}

static void a_metric_is_judged_by_what_it_is(void **state)
{
    struct numbers *n = *state;

    judged_by(n, "error_rat", ROLLOUT_RULE_COMPARE);
    refused(n, "no metric 'error_rat'; it has: error_rate, latency, queue");
    judged_by(n, "queue", ROLLOUT_RULE_COMPARE);
    refused(n, "give it a threshold");
    judged_by(n, "error_rate", ROLLOUT_RULE_COMPARE)->tolerance_millis = 999;
    refused(n, "tolerance: must be 1 to 1000");
    judged_by(n, "error_rate", ROLLOUT_RULE_THRESHOLD)->threshold_micros = 1000000;
    refused(n, "below 100%");
    judged_by(n, "error_rate", ROLLOUT_RULE_THRESHOLD);
    refused(n, "above 0");
    judged_by(n, "latency", ROLLOUT_RULE_THRESHOLD);
    refused(n, "is a time");
    judged_by(n, "latency", ROLLOUT_RULE_COMPARE)->percentile = 10000;
    refused(n, "percentile");
    judged_by(n, "error_rate", ROLLOUT_RULE_FAILURES);
    refused(n, "for readiness and restarts");
    judged_by(n, "readiness", ROLLOUT_RULE_COMPARE);
    refused(n, "give it failures");
    judged_by(n, "readiness", ROLLOUT_RULE_FAILURES)->failures = 0;
    refused(n, "at least 1");
    judged_by(n, "error_rate", ROLLOUT_RULE_THRESHOLD)->threshold_micros = 50000;
    n->analysis[0].below = true;
    refused(n, "too low");
    n->target.kill_ratio_millionths = 1000000;
    refused(n, "of 100% or more");
    n->metrics[0].kind = TARGET_METRIC_VALUE;
    n->target.kill_ratio_millionths = 100000;
    refused(n, "no metric that is a share");
    n->spec.n_analysis = LIMIT_ROLLOUT_METRICS + 1;
    assert_int_equal(make_rules(n), -E_LIMIT);
}

static void alpha_is_shared_by_the_tests_that_count(void **state)
{
    struct numbers *n = *state;

    judged_by(n, "error_rate", ROLLOUT_RULE_COMPARE);
    judged_by(n, "latency", ROLLOUT_RULE_COMPARE);
    judged_by(n, "latency", ROLLOUT_RULE_COMPARE)->dry_run = true;
    judged_by(n, "readiness", ROLLOUT_RULE_FAILURES);
    judged_by(n, "queue", ROLLOUT_RULE_THRESHOLD);
    must(n);
    assert_int_equal(n->rule_count, 5);
    assert_true(fabs(n->rules[0].alpha - 0.005) < 1e-12 && n->rules[0].kill == 0);
    n->spec.alpha_millionths = 30000;
    n->target.kill_ratio_millionths = 500000;
    must(n);
    assert_int_equal(n->rule_count, 5);
    assert_true(fabs(n->rules[1].alpha - 0.01) < 1e-12 && n->rules[0].kill == 0.5);
}

static void the_kill_line_is_watched_without_being_asked_for(void **state)
{
    struct numbers *n = *state;

    n->target.kill_ratio_millionths = 300000;
    must(n);
    assert_int_equal(n->rule_count, 1);
    assert_null(n->rules[0].metric);
    assert_string_equal(metric_rule_text(&n->rules[0], &n->arena),
                        "error_rate: below the target's kill line of 30%");
    look(n, 0, 0, 0, 0, 0);
    assert_int_equal(look(n, 0, 1900, 5, 4, 4)->verdict, VERDICT_THIN);
    assert_int_equal(look(n, 0, 1900, 5, 100, 0)->verdict, VERDICT_GOOD);
    assert_int_equal(look(n, 0, 1900, 5, 300, 250)->verdict, VERDICT_KILL);
    assert_int_equal(look(n, 0, 1900, 5, 9000, 0)->verdict, VERDICT_KILL);
}

static void a_comparison_goes_from_no_data_to_bad(void **state)
{
    struct numbers *n = *state;
    const Pb__RolloutMetricRecord *row;

    judged_by(n, "error_rate", ROLLOUT_RULE_COMPARE)->critical = true;
    must(n);
    row = look(n, 0, 50000, 250, 0, 0);
    assert_int_equal(row->verdict, VERDICT_NO_DATA);
    assert_int_equal(look(n, 0, 380, 2, 20, 0)->verdict, VERDICT_THIN);
    assert_int_equal(look(n, 0, 380, 2, 4, 4)->verdict, VERDICT_THIN); /* four are too few */
    row = look(n, 0, 380, 1, 20, 4);
    assert_int_equal(row->verdict, VERDICT_BAD);
    assert_int_equal(row->verdict_ms, n->now_ms);
    assert_string_equal(row->text,
                        "8 of 44 bad (18.2%), stable 5 of 1140 bad (0.439%); 41.5 times as many, "
                        "surely 5.7 to 1024");
    /* Final: no later look changes it. */
    for (int i = 0; i < 100; i++) {
        row = look(n, 0, 500, 5, 500, 0);
    }
    assert_int_equal(row->verdict, VERDICT_BAD);
    assert_int_equal(row->verdict_ms, n->now_ms);
}

static void what_is_not_critical_may_recover(void **state)
{
    struct numbers *n = *state;

    judged_by(n, "error_rate", ROLLOUT_RULE_COMPARE);
    must(n);
    look(n, 0, 0, 0, 0, 0);
    assert_int_equal(look(n, 0, 380, 2, 20, 10)->verdict, VERDICT_BAD);
    for (int i = 0; i < 400; i++) {
        look(n, 0, 500, 5, 500, 0);
    }
    assert_int_equal(n->rows[0]->verdict, VERDICT_GOOD);
}

static void good_is_proven_and_begins_anew_with_a_weight(void **state)
{
    struct numbers *n = *state;

    judged_by(n, "error_rate", ROLLOUT_RULE_COMPARE);
    must(n);
    for (int i = 0; i < 200; i++) {
        look(n, 0, 400, 4, 400, 4);
    }
    assert_int_equal(n->rows[0]->verdict, VERDICT_GOOD);
    n->evidence_from_ms = n->now_ms;
    assert_int_equal(look_at(n, 0, "timeout")->verdict, VERDICT_ERROR);
    /* In part of before: what began with it is not yet counted. */
    assert_int_equal(look(n, 0, 400000, 4000, 400000, 4000)->verdict, VERDICT_NO_DATA);
    assert_int_equal(look(n, 0, 400, 4, 400, 4)->verdict, VERDICT_THIN);
    for (int i = 0; i < 200; i++) {
        look(n, 0, 400, 4, 400, 4);
    }
    assert_int_equal(n->rows[0]->verdict, VERDICT_GOOD);
    n->evidence_from_ms = n->now_ms;
    assert_int_equal(look(n, 0, 400, 4, 20, 20)->verdict, VERDICT_BAD); /* bad at any weight */
}

static void a_service_without_any_error_is_good_in_the_end(void **state)
{
    struct numbers *n = *state;

    judged_by(n, "error_rate", ROLLOUT_RULE_COMPARE);
    must(n);
    look(n, 0, 0, 0, 0, 0);
    assert_int_equal(look(n, 0, 9000, 0, 1000, 0)->verdict, VERDICT_THIN);
    assert_int_equal(look(n, 0, 99000, 0, 8000, 0)->verdict, VERDICT_GOOD);
}

static void a_threshold_needs_more_than_three_requests(void **state)
{
    struct numbers *n = *state;

    judged_by(n, "error_rate", ROLLOUT_RULE_THRESHOLD)->threshold_micros = 50000;
    n->analysis[0].min_events = 1;
    must(n);
    assert_string_equal(metric_rule_text(&n->rules[0], &n->arena),
                        "error_rate: at most 5% of requests");
    look(n, 0, 0, 0, 0, 0);
    assert_int_equal(look(n, 0, 0, 0, 3, 1)->verdict, VERDICT_THIN); /* 33 % */
    assert_int_equal(look(n, 0, 0, 0, 3, 3)->verdict, VERDICT_BAD);
    assert_int_equal(look(n, 0, 0, 0, 4000, 8)->verdict, VERDICT_GOOD);
}

static void dry_runs_are_never_final(void **state)
{
    struct numbers *n = *state;

    judged_by(n, "error_rate", ROLLOUT_RULE_COMPARE)->dry_run = true;
    n->analysis[0].critical = true;
    must(n);
    look(n, 0, 0, 0, 0, 0);
    assert_int_equal(look(n, 0, 400, 1, 20, 20)->verdict, VERDICT_BAD);
    for (int i = 0; i < 400; i++) {
        look(n, 0, 500, 5, 500, 0);
    }
    assert_int_equal(n->rows[0]->verdict, VERDICT_GOOD);
}

static void errors_keep_what_is_known(void **state)
{
    struct numbers *n = *state;
    const Pb__RolloutMetricRecord *row;

    judged_by(n, "error_rate", ROLLOUT_RULE_COMPARE);
    must(n);
    for (int i = 0; i < 200; i++) {
        look(n, 0, 400, 4, 400, 4);
    }
    row = look_at(n, 0, "connection refused");
    assert_int_equal(row->verdict, VERDICT_ERROR);
    assert_string_equal(row->text, "connection refused");
    assert_int_equal(look(n, 0, 400, 4, 400, 4)->verdict, VERDICT_GOOD);
    n->series[1].total = NAN;
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_ERROR);
    n->series[1].total = 80400;
    assert_int_equal(look(n, 0, 0, 0, 0, 0)->verdict, VERDICT_GOOD);
    n->answer.n_series = 1; /* stable's alone: the canary's series is away */
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_NO_DATA);
    n->answer.n_series = 0;
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_NO_DATA);
}

/* At a few requests a look, stable often has none by chance: that is not being alone. */
static void only_the_router_says_who_is_alone(void **state)
{
    struct numbers *n = *state;

    judged_by(n, "error_rate", ROLLOUT_RULE_COMPARE);
    must(n);
    look(n, 0, 0, 0, 0, 0);
    look(n, 0, 100000, 100, 10000, 10);
    for (int i = 0; i < 100; i++) {
        look(n, 0, 0, 0, 2, i % 2); /* all services are bad now; stable's requests are elsewhere */
    }
    assert_int_not_equal(n->rows[0]->verdict, VERDICT_BAD);
    n->alone = true;
    look(n, 0, 0, 0, 20, 10);
    assert_int_equal(n->rows[0]->verdict, VERDICT_BAD);
}

/* A kill -9 at any look: the row that was stored is all that there is. */
static void a_row_continues_bit_by_bit_whoever_made_it(void **state)
{
    struct numbers *n = *state;

    judged_by(n, "error_rate", ROLLOUT_RULE_COMPARE);
    n->target.kill_ratio_millionths = 900000;
    must(n);
    for (int i = 0; i < 40; i++) {
        Pb__RolloutMetricRecord *const before = n->rows[0];
        const Pb__RolloutMetricRecord *first, *again;

        first = look(n, 0, 377, i % 3, 23, i % 7 == 0);
        n->rows[0] = before != NULL ? (Pb__RolloutMetricRecord *)pb_copy(&n->arena, &before->base)
                                    : NULL;
        n->now_ms -= 2000;
        again = look(n, 0, 0, 0, 0, 0); /* the same sample, taken by another one */
        assert_true(pb_same(&first->base, &again->base));
    }
    assert_in_range(n->rows[0]->state.len, 100, 1000);
}

static void bytes_that_are_no_state_count_as_none(void **state)
{
    struct numbers *n = *state;
    Pb__RolloutMetricRecord row = PB__ROLLOUT_METRIC_RECORD__INIT;

    judged_by(n, "error_rate", ROLLOUT_RULE_COMPARE);
    must(n);
    row.state = pb_bytes(&n->arena, STR("\xff\xff\xff nonsense"));
    n->rows[0] = &row;
    assert_int_equal(look(n, 0, 380, 2, 20, 10)->verdict, VERDICT_NO_DATA);
}

static void latency_is_compared_at_the_bucket_that_stable_chose(void **state)
{
    struct numbers *n = *state;

    judged_by(n, "latency", ROLLOUT_RULE_COMPARE)->percentile = 9900;
    must(n);
    buckets(n, 0, 50, 99, 100, 100, 100); /* too few: a thousand are wanted for a p99 */
    buckets(n, 1, 0, 0, 0, 0, 0);
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_NO_DATA);
    assert_non_null(strstr(n->rows[0]->text, "too few requests"));
    buckets(n, 0, 900, 1985, 2000, 2000, 2000);
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_NO_DATA);
    buckets(n, 0, 900, 2475, 2500, 2500, 2500);
    buckets(n, 1, 40, 98, 100, 100, 100);
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_THIN);
    assert_string_equal(n->rows[0]->text, "2 of 100 slower than 0.25 s (2%), stable 10 of 500 "
                                          "slower than 0.25 s (2%); 1 times as many, surely "
                                          "0.011 to 11");
    buckets(n, 1, 40, 98, 150, 150, 150); /* 50 slow ones more */
    buckets(n, 0, 900, 2970, 3000, 3000, 3000);
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_BAD);
}

static void latency_by_a_threshold_takes_the_next_bucket(void **state)
{
    struct numbers *n = *state;

    judged_by(n, "latency", ROLLOUT_RULE_THRESHOLD)->threshold_micros = 400000;
    must(n);
    buckets(n, 0, 0, 0, 0, 0, 0);
    buckets(n, 1, 0, 0, 0, 0, 0);
    look_at(n, 0, NULL);
    buckets(n, 1, 0, 0, 2995, 3000, 3000); /* half a second is the next: 5 are slower */
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_GOOD);
    buckets(n, 1, 0, 0, 3900, 4000, 4000);
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_BAD);
    n->rows[0] = NULL;
    n->analysis[0].threshold_micros = 2000000;
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_NO_DATA);
    assert_non_null(strstr(n->rows[0]->text, "no bucket up to the threshold"));
}

static void broken_histograms_are_errors(void **state)
{
    struct numbers *n = *state;

    judged_by(n, "latency", ROLLOUT_RULE_THRESHOLD)->threshold_micros = 400000;
    must(n);
    buckets(n, 0, 0, 0, 0, 0, 0);
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_ERROR); /* series 1 has none */
    buckets(n, 1, 0, 0, 0, 0, 0);
    n->series[1].buckets[2]->upto_micros = 5;
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_ERROR);
    buckets(n, 1, 0, 0, 0, 0, 0);
    n->series[1].buckets[4]->upto_micros = 2000000;
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_ERROR);
    buckets(n, 1, 0, 0, 0, NAN, 0);
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_ERROR);
    buckets(n, 1, 0, 0, 0, 0, 0);
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_NO_DATA);
    n->series[1].buckets[2]->upto_micros = 600000; /* the new version has other buckets */
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_ERROR);
    assert_non_null(strstr(n->rows[0]->text, "no bucket of 0.5 s"));
}

static void a_value_is_bad_after_so_many_looks(void **state)
{
    struct numbers *n = *state;

    judged_by(n, "queue", ROLLOUT_RULE_THRESHOLD)->threshold_micros = 100000000;
    n->analysis[0].min_events = 2;
    must(n);
    n->series[0].value = 500; /* stable's is not asked */
    n->series[1].value = 99;
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_GOOD);
    n->series[1].value = 101;
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_THIN);
    n->series[1].value = NAN;
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_NO_DATA);
    n->series[1].value = 101;
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_BAD);
    n->analysis[0].below = true;
    assert_int_equal(look_at(n, 0, NULL)->verdict, VERDICT_GOOD);
}

static void instances_are_bad_when_not_ready_so_often(void **state)
{
    struct numbers *n = *state;
    Pb__InstanceState up = PB__INSTANCE_STATE__INIT, down = PB__INSTANCE_STATE__INIT;
    Pb__InstanceState *all_up[] = {&up, &up}, *one_down[] = {&up, &down};

    up.ready = true;
    judged_by(n, "readiness", ROLLOUT_RULE_FAILURES);
    judged_by(n, "restarts", ROLLOUT_RULE_FAILURES);
    must(n);
    assert_int_equal(look_at_instances(n, 0, NULL, 0)->verdict, VERDICT_NO_DATA);
    assert_int_equal(look_at_instances(n, 0, all_up, 2)->verdict, VERDICT_GOOD);
    look_at_instances(n, 0, one_down, 2);
    assert_int_equal(look_at_instances(n, 0, one_down, 2)->verdict, VERDICT_THIN);
    assert_int_equal(look_at_instances(n, 0, one_down, 2)->verdict, VERDICT_BAD);
    assert_int_equal(look_at_instances(n, 1, one_down, 2)->verdict, VERDICT_GOOD);
    down.restarts = 3;
    assert_int_equal(look_at_instances(n, 1, one_down, 2)->verdict, VERDICT_BAD);
}

static void it_is_explained_with_numbers(void **state)
{
    struct numbers *n = *state;
    struct metric_figures f;
    struct buf b = BUF_INIT;

    judged_by(n, "error_rate", ROLLOUT_RULE_COMPARE)->critical = true;
    must(n);
    look(n, 0, 0, 0, 0, 0);
    for (int i = 0; i < 20; i++) {
        look(n, 0, 380, 2, 20, i == 7);
    }
    explain_metric(&n->rules[0], n->rows[0], &b);
    assert_string_equal(buf_cstr(&b),
                        "error_rate: at most 1.2 times that of stable (critical)\n"
                        "thin: 1 of 400 bad (0.25%), stable 40 of 7600 bad (0.526%); 0.475 times "
                        "as many, surely less "
                        "than 5.7 times\n"
                        "evidence of bad: e = 0.117, decides at 100\n"
                        "evidence of good: e = 3.01, decides at 100\n"
                        "never bad with fewer than 5 bad requests\n"
                        "bad after 5 more requests, if all of them are bad\n"
                        "good after about 3375 more requests, if they are as those of stable\n");
    assert_true(metric_figures(&n->rules[0], n->rows[0], &n->arena, &f));
    assert_true(f.counts.canary == 400 && f.counts.stable_bad == 40 && f.bad_after == 5);
    assert_true(fabs(f.ratio - 0.475) < 1e-9 && f.low == 0 && f.high > 5 && f.high < 6);
    assert_true(fabs(f.needed_ln - log(100)) < 1e-12 && f.kill_ln == 0);
    buf_clear(&b);
    look_at(n, 0, "timeout");
    explain_metric(&n->rules[0], n->rows[0], &b);
    assert_non_null(strstr(buf_cstr(&b), "error: timeout\nknown before: 1 of 400 bad"));
    buf_release(&b);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, numbers_setup, numbers_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_metric_is_judged_by_what_it_is),
        TEST(alpha_is_shared_by_the_tests_that_count),
        TEST(the_kill_line_is_watched_without_being_asked_for),
        TEST(a_comparison_goes_from_no_data_to_bad),
        TEST(what_is_not_critical_may_recover),
        TEST(good_is_proven_and_begins_anew_with_a_weight),
        TEST(a_service_without_any_error_is_good_in_the_end),
        TEST(a_threshold_needs_more_than_three_requests),
        TEST(dry_runs_are_never_final),
        TEST(errors_keep_what_is_known),
        TEST(only_the_router_says_who_is_alone),
        TEST(a_row_continues_bit_by_bit_whoever_made_it),
        TEST(bytes_that_are_no_state_count_as_none),
        TEST(latency_is_compared_at_the_bucket_that_stable_chose),
        TEST(latency_by_a_threshold_takes_the_next_bucket),
        TEST(broken_histograms_are_errors),
        TEST(a_value_is_bad_after_so_many_looks),
        TEST(instances_are_bad_when_not_ready_so_often),
        TEST(it_is_explained_with_numbers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
