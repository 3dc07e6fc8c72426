/* What raw counters say happened: resets, gaps, instances that come and go, nonsense. */
#include "common/base.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "broker/rollout/counter.h"
#include "common/err.h"
#include "common/limits.h"
#include "tests/kit/chance.h"

#define A ROLLOUT_SLOT_A
#define B ROLLOUT_SLOT_B

struct world {
    struct arena arena;
    struct counters counters;
    struct tally since;
    const char *why;
    uint64_t taken_ms;
};

static int setup(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));

    arena_init(&w->arena, 0);
    w->taken_ms = 100000;
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    arena_release(&w->arena);
    free(w);
    return 0;
}

static int take(struct world *w, const struct reading *r, size_t n)
{
    w->taken_ms += 2000;
    return counters_take(&w->counters, w->taken_ms, r, n, B, &w->arena, &w->counters, &w->since,
                         &w->why);
}

static bool since(const struct world *w, double canary, double canary_bad, double stable,
                  double stable_bad)
{
    return w->since.canary == canary && w->since.canary_bad == canary_bad &&
           w->since.stable == stable && w->since.stable_bad == stable_bad;
}

#define TAKE(w, ...)                               \
    take(w, (const struct reading[]){__VA_ARGS__}, \
         sizeof((const struct reading[]){__VA_ARGS__}) / sizeof(struct reading))

static void differences_are_counted_by_version(void **state)
{
    struct world *w = *state;

    assert_int_equal(TAKE(w, {A, "x", 1000, 10}, {B, "y", 5, 1}), 0);
    assert_true(since(w, 0, 0, 0, 0));
    assert_int_equal(TAKE(w, {B, "y", 15, 3}, {A, "x", 1190, 12}), 0);
    assert_true(since(w, 10, 2, 190, 2));
}

static void the_same_name_in_both_versions_is_two_counters(void **state)
{
    struct world *w = *state;

    TAKE(w, {A, "x", 100, 0}, {B, "x", 10, 0});
    TAKE(w, {A, "x", 150, 1}, {B, "x", 12, 2});
    assert_true(since(w, 2, 2, 50, 1));
}

static void a_counter_that_began_anew_counts_what_it_shows(void **state)
{
    struct world *w = *state;

    TAKE(w, {A, "x", 1000, 100}, {B, "y", 1000, 100});
    TAKE(w, {A, "x", 1100, 101}, {B, "y", 7, 2});
    assert_true(since(w, 7, 2, 100, 1));
}

static void an_instance_that_comes_is_counted_from_there_on(void **state)
{
    struct world *w = *state;

    TAKE(w, {A, "x", 1000, 0});
    TAKE(w, {A, "x", 1100, 0}, {A, "new", 9000, 5000});
    assert_true(since(w, 0, 0, 100, 0));
    TAKE(w, {A, "x", 1100, 0}, {A, "new", 9010, 5001});
    assert_true(since(w, 0, 0, 10, 1));
}

static void a_gap_loses_nothing_and_a_long_one_begins_anew(void **state)
{
    struct world *w = *state;

    TAKE(w, {A, "x", 1000, 0}, {B, "y", 10, 0});
    TAKE(w, {A, "x", 1100, 0});
    assert_true(since(w, 0, 0, 100, 0));
    TAKE(w, {A, "x", 1100, 0}, {B, "y", 40, 3});
    assert_true(since(w, 30, 3, 0, 0));
    for (uint32_t i = 0; i <= COUNTER_MISSED; i++) {
        TAKE(w, {A, "x", 1100, 0});
    }
    assert_int_equal(w->counters.n, 1);
    TAKE(w, {A, "x", 1100, 0}, {B, "y", 90, 9});
    assert_true(since(w, 0, 0, 0, 0));
}

static void an_older_sample_changes_nothing(void **state)
{
    struct world *w = *state;

    TAKE(w, {A, "x", 1000, 0});
    w->taken_ms -= 4000; /* 2 s before the last one */
    TAKE(w, {A, "x", 900, 0});
    assert_true(since(w, 0, 0, 0, 0));
    w->taken_ms += 2000;
    TAKE(w, {A, "x", 1010, 0});
    assert_true(since(w, 0, 0, 10, 0));
}

static void a_clock_that_was_set_back_does_not_stop_the_counting(void **state)
{
    struct world *w = *state;

    TAKE(w, {A, "x", 1000, 0});
    w->taken_ms -= COUNTER_CLOCK_MS + 5000;
    TAKE(w, {A, "x", 1010, 0});
    assert_true(since(w, 0, 0, 0, 0));
    TAKE(w, {A, "x", 1030, 1});
    assert_true(since(w, 0, 0, 20, 1));
}

static void a_source_that_contradicts_itself_counts_for_nothing(void **state)
{
    struct world *w = *state;

    TAKE(w, {A, "x", 1000, 100}, {B, "y", 10, 0});
    TAKE(w, {A, "x", 1010, 90}, {B, "y", 12, 5}); /* fewer bad, more in all; 5 bad of 2 */
    assert_true(since(w, 2, 2, 0, 0));
    TAKE(w, {A, "x", 1020, 91}, {B, "y", 12, 5});
    assert_true(since(w, 0, 0, 10, 1));
}

static void nonsense_is_refused_and_changes_nothing(void **state)
{
    struct world *w = *state;
    static struct reading many[LIMIT_METRIC_SERIES + 1];
    static char names[LIMIT_METRIC_SERIES + 1][8];

    TAKE(w, {A, "x", 1000, 0});
    assert_int_equal(TAKE(w, {A, "x", NAN, 0}), -E_INVALID);
    assert_non_null(strstr(w->why, "'x' is 0 of nan"));
    assert_int_equal(TAKE(w, {A, "x", -1, 0}), -E_INVALID);
    assert_int_equal(TAKE(w, {A, "x", 5, INFINITY}), -E_INVALID);
    assert_int_equal(TAKE(w, {A, "x", 1e16, 0}), -E_INVALID);
    assert_int_equal(TAKE(w, {A, "x", 5, 0}, {A, "x", 6, 0}), -E_INVALID);
    assert_non_null(strstr(w->why, "'x' has two counters"));
    for (size_t i = 0; i < ARRAY_LEN(many); i++) {
        many[i] = (struct reading){A, names[i], 1, 0};
        names[i][0] = (char)('0' + i / 100 % 10);
        names[i][1] = (char)('0' + i / 10 % 10);
        names[i][2] = (char)('0' + i % 10);
        names[i][3] = (char)('0' + i / 1000);
    }
    assert_int_equal(take(w, many, ARRAY_LEN(many)), -E_LIMIT);
    assert_int_equal(
        counters_take(&w->counters, 0, many, 1, B, &w->arena, &w->counters, &w->since, &w->why),
        -E_INVALID);
    assert_non_null(strstr(w->why, "when it was taken"));
    TAKE(w, {A, "x", 1003, 1});
    assert_true(since(w, 0, 0, 3, 1));
    assert_int_equal(take(w, many, LIMIT_METRIC_SERIES), 0);
    assert_int_equal(w->counters.n, LIMIT_METRIC_SERIES); /* the missing one made room */
}

/* Instances that restart, stay away and serve at random: never more is counted than happened. */
static void never_more_is_counted_than_happened(void **state)
{
    struct world *w = *state;
    struct chance chance = {3};
    const char *const names[] = {"a", "b", "c", "d"};
    struct reading at[4] = {0};
    double served = 0, bad = 0, counted = 0, counted_bad = 0;

    for (int look = 0; look < 2000; look++) {
        struct reading seen[4];
        size_t n = 0;

        for (size_t i = 0; i < 4; i++) {
            const double some = (double)chance_below(&chance, 30);
            const double wrong = chance_binomial(&chance, some, 0.1);

            if (chance_below(&chance, 20) == 0) {
                at[i] = (struct reading){0};
            }
            at[i] = (struct reading){A, names[i], at[i].total + some, at[i].bad + wrong};
            served += some;
            bad += wrong;
            if (chance_below(&chance, 5) != 0) {
                seen[n++] = at[i];
            }
        }
        assert_int_equal(take(w, seen, n), 0);
        counted += w->since.stable;
        counted_bad += w->since.stable_bad;
        assert_true(w->since.stable_bad <= w->since.stable);
        assert_true(counted <= served && counted_bad <= bad);
    }
    assert_true(counted > served * 0.8);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(differences_are_counted_by_version),
        TEST(the_same_name_in_both_versions_is_two_counters),
        TEST(a_counter_that_began_anew_counts_what_it_shows),
        TEST(an_instance_that_comes_is_counted_from_there_on),
        TEST(a_gap_loses_nothing_and_a_long_one_begins_anew),
        TEST(an_older_sample_changes_nothing),
        TEST(a_clock_that_was_set_back_does_not_stop_the_counting),
        TEST(a_source_that_contradicts_itself_counts_for_nothing),
        TEST(nonsense_is_refused_and_changes_nothing),
        TEST(never_more_is_counted_than_happened),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
