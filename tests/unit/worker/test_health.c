#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "worker/health.h"

static void two_failures_of_the_machine_are_bad_luck(void **state)
{
    (void)state;
    struct health h = {0};
    assert_int_equal(health_job_ended(&h, true, 1000), 0);
    assert_int_equal(health_job_ended(&h, true, 1000), 0);
    assert_false(health_paused(&h, 1000));
}

static void three_in_a_row_begin_a_pause(void **state)
{
    (void)state;
    struct health h = {0};
    health_job_ended(&h, true, 1000);
    health_job_ended(&h, true, 1000);
    assert_int_equal(health_job_ended(&h, true, 1000), QUARANTINE_FIRST_MS);
    assert_true(health_paused(&h, 1000 + QUARANTINE_FIRST_MS - 1));
    assert_false(health_paused(&h, 1000 + QUARANTINE_FIRST_MS));
}

static void the_pause_grows_to_a_cap(void **state)
{
    (void)state;
    struct health h = {.failures = QUARANTINE_AFTER};
    assert_int_equal(health_job_ended(&h, true, 0), 2 * QUARANTINE_FIRST_MS);
    assert_int_equal(health_job_ended(&h, true, 0), 4 * QUARANTINE_FIRST_MS);
    for (int i = 0; i < 100; i++) {
        assert_true(health_job_ended(&h, true, 0) <= QUARANTINE_CAP_MS);
    }
    assert_int_equal(health_job_ended(&h, true, 0), QUARANTINE_CAP_MS);
}

static void a_job_that_ends_on_its_own_account_clears_the_record(void **state)
{
    (void)state;
    struct health h = {.failures = 10};
    assert_int_equal(health_job_ended(&h, false, 0), 0);
    assert_int_equal(health_job_ended(&h, true, 0), 0);
    assert_int_equal(health_job_ended(&h, true, 0), 0);
    assert_int_equal(health_job_ended(&h, true, 0), QUARANTINE_FIRST_MS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_failures_of_the_machine_are_bad_luck),
        cmocka_unit_test(three_in_a_row_begin_a_pause),
        cmocka_unit_test(the_pause_grows_to_a_cap),
        cmocka_unit_test(a_job_that_ends_on_its_own_account_clears_the_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
