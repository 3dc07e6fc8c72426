#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "worker/backoff.h"

static void the_bound_doubles_from_half_a_second(void **state)
{
    (void)state;
    struct backoff b = {0};
    for (uint64_t bound = 500; bound < 60000; bound *= 2) {
        struct backoff copy = b;
        assert_int_equal(backoff_next_ms(&copy, BACKOFF_CAP_MS, bound), bound);
        assert_int_equal(backoff_next_ms(&b, BACKOFF_CAP_MS, bound + 1), 0);
    }
}

static void no_pause_passes_the_cap(void **state)
{
    (void)state;
    struct backoff b = {0};
    for (uint64_t i = 0; i < 1000; i++) {
        assert_true(backoff_next_ms(&b, 3000, i * 0x9e3779b97f4a7c15u) <= 3000);
    }
}

static void success_starts_from_the_beginning(void **state)
{
    (void)state;
    struct backoff b = {.tries = 30};
    backoff_reset(&b);
    assert_int_equal(backoff_next_ms(&b, BACKOFF_CAP_MS, 501), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_bound_doubles_from_half_a_second),
        cmocka_unit_test(no_pause_passes_the_cap),
        cmocka_unit_test(success_starts_from_the_beginning),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
