/* Buckets: what is there at once, how they fill, and that no key takes another's. */
#include "common/base.h"

#include "broker/api/rate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define SECOND 1000000u
#define START  (7u * SECOND)

static void a_burst_passes_and_then_the_rate(void **state)
{
    struct rate *r = rate_new(10, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(rate_take(r, STR("a"), START), 0);
    }
    uint32_t wait_ms = rate_take(r, STR("a"), START);
    assert_in_range(wait_ms, 100, 101);
    assert_int_not_equal(rate_take(r, STR("a"), START + 90000), 0);
    assert_int_equal(rate_take(r, STR("a"), START + 101000), 0);
    assert_int_not_equal(rate_take(r, STR("a"), START + 101000), 0);
    rate_free(r);
}

static void a_rest_fills_it_to_the_burst_and_no_further(void **state)
{
    struct rate *r = rate_new(10, 3);
    unsigned passed = 0;
    assert_int_equal(rate_take(r, STR("a"), START), 0);
    for (unsigned i = 0; i < 10; i++) {
        passed += rate_take(r, STR("a"), START + 3600ull * SECOND) == 0;
    }
    assert_int_equal(passed, 3);
    rate_free(r);
}

static void keys_are_apart_and_time_may_stand_still(void **state)
{
    struct rate *r = rate_new(1, 1);
    assert_int_equal(rate_take(r, STR("a"), START), 0);
    assert_int_equal(rate_take(r, STR("b"), START), 0);
    assert_int_not_equal(rate_take(r, STR("a"), START), 0);
    assert_int_not_equal(rate_take(r, STR("a"), START - 1), 0);
    rate_free(r);
}

static void many_keys_cost_bounded_memory_and_the_busy_one_stays(void **state)
{
    struct rate *r = rate_new(1, 1);
    char key[32];
    assert_int_equal(rate_take(r, STR("busy"), START), 0);
    for (unsigned i = 0; i < 2 * RATE_BUCKETS; i++) {
        int n = snprintf(key, sizeof(key), "%u", i);
        assert_int_equal(rate_take(r, str_of(key, (size_t)n), START), 0);
        if (i % 1000 == 0) {
            assert_int_not_equal(rate_take(r, STR("busy"), START), 0);
        }
    }
    rate_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_burst_passes_and_then_the_rate),
        cmocka_unit_test(a_rest_fills_it_to_the_burst_and_no_further),
        cmocka_unit_test(keys_are_apart_and_time_may_stand_still),
        cmocka_unit_test(many_keys_cost_bounded_memory_and_the_busy_one_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
