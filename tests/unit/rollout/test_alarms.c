/* False alarms and times to find a fault, over rollouts of a fixed seed: the small sister of
 * `./bench rollout-stats`. */
#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/kit/canary.h"

#define HEALTHY 200u
#define FAULTY  51u

static const struct canary_traffic USUAL = {
    .rps = 200, .weight = 0.05, .base = 0.005, .ticks = 150};

static void count_failed(struct canary_traffic t, uint32_t ret[CANARY_RULES])
{
    struct chance chance = {11};

    memset(ret, 0, CANARY_RULES * sizeof(*ret));
    for (uint32_t i = 0; i < HEALTHY; i++) {
        uint32_t tick[CANARY_RULES];

        canary_run(&chance, &t, tick);
        for (size_t k = 0; k < CANARY_RULES; k++) {
            ret[k] += tick[k] != 0;
        }
    }
}

static int by_size(const void *a, const void *b)
{
    const uint32_t one = *(const uint32_t *)a, other = *(const uint32_t *)b;

    return (one > other) - (one < other);
}

/* Median of the seconds from a fault to the verdict of a rule. */
static uint32_t found_after_s(struct canary_traffic t, enum canary_rule rule)
{
    struct chance chance = {12};
    uint32_t seconds[FAULTY];

    t.ticks += t.fault_tick;
    for (uint32_t i = 0; i < FAULTY; i++) {
        uint32_t tick[CANARY_RULES];

        canary_run(&chance, &t, tick);
        seconds[i] = tick[rule] > t.fault_tick ? (tick[rule] - t.fault_tick) * CANARY_TICK_S
                                               : UINT32_MAX;
    }
    qsort(seconds, FAULTY, sizeof(*seconds), by_size);
    return seconds[FAULTY / 2];
}

static void healthy_versions_are_failed_no_more_often_than_alpha(void **state)
{
    const uint32_t most = (uint32_t)(HEALTHY * CANARY_ALPHA);
    struct canary_traffic t = USUAL;
    uint32_t failed[CANARY_RULES];

    count_failed(t, failed);
    assert_in_range(failed[CANARY_SEQUENTIAL], 0, most);
    t.worse = CANARY_TOLERANCE; /* the edge of what is tolerated */
    count_failed(t, failed);
    assert_in_range(failed[CANARY_SEQUENTIAL], 0, most);
    t = USUAL;
    t.rps = 20;
    count_failed(t, failed);
    assert_in_range(failed[CANARY_SEQUENTIAL], 0, most);
    assert_true(failed[CANARY_SHARE] > HEALTHY / 4); /* as thresholds do at a request a second */
}

static void weights_and_base_rates_may_change(void **state)
{
    struct canary_traffic t = USUAL;
    uint32_t failed[CANARY_RULES];

    t.base_swings = true;
    t.weights_rise = true;
    count_failed(t, failed);
    assert_in_range(failed[CANARY_SEQUENTIAL], 0, (uint32_t)(HEALTHY * CANARY_ALPHA));
}

static void faults_are_found_in_seconds(void **state)
{
    struct canary_traffic t = USUAL;

    t.fault = 1;
    assert_in_range(found_after_s(t, CANARY_SEQUENTIAL), 2, 2);
    t.fault = 0.2;
    assert_in_range(found_after_s(t, CANARY_SEQUENTIAL), 2, 4);
    t.fault = 0.05;
    assert_in_range(found_after_s(t, CANARY_SEQUENTIAL), 8, 14);
}

static void late_faults_are_found_as_well(void **state)
{
    struct canary_traffic t = USUAL;

    t.ticks = 60;
    t.fault = 0.2;
    t.fault_tick = 150; /* five minutes */
    assert_in_range(found_after_s(t, CANARY_SEQUENTIAL), 2, 6);
    assert_true(found_after_s(t, CANARY_PLAIN) > found_after_s(t, CANARY_SEQUENTIAL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(healthy_versions_are_failed_no_more_often_than_alpha),
        cmocka_unit_test(weights_and_base_rates_may_change),
        cmocka_unit_test(faults_are_found_in_seconds),
        cmocka_unit_test(late_faults_are_found_as_well),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
