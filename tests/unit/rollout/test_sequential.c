/* The tests that may be asked at every look: numbers computed by hand, laws that hold for all. */
#include "common/base.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "broker/rollout/sequential.h"
#include "tests/kit/chance.h"

#define ROUNDS 300
/* cmocka has it for float only. */
#define assert_near(a, b, eps) assert_true(fabs((a) - (b)) <= (eps))

/* The formulas of docs/rollouts-statistics.md, straight, for counts that allow it. */
static double by_hand(const struct tally *t, double from, double to)
{
    const double p = from * t->canary / (from * t->canary + t->stable);
    const double q = to * t->canary / (to * t->canary + t->stable);

    return pow(q / p, t->canary_bad) * pow((1 - q) / (1 - p), t->stable_bad);
}

static struct compare compared(double tolerance, const struct tally *looks, size_t n)
{
    struct compare c;

    compare_init(&c);
    for (size_t i = 0; i < n; i++) {
        compare_add(&c, tolerance, &looks[i]);
    }
    return c;
}

static void nothing_seen_is_evidence_for_nothing(void **state)
{
    const struct tally quiet = {100, 0, 1900, 0}, alone = {100, 7, 0, 0}, without = {0, 0, 50, 3};
    const struct tally looks[] = {quiet, alone, without};
    const struct compare c = compared(1.2, looks, 3);
    double low, high;

    assert_near(compare_bad(&c), 0, 1e-12);
    assert_near(compare_good(&c), 0, 1e-12);
    compare_interval(&c, 0.01, &low, &high);
    assert_true(low == 0 && isinf(high));
    assert_true(c.all.canary == 200 && c.all.canary_bad == 7 && c.all.stable == 1950);
    assert_true(c.bad.looks == 0);
}

/* L_k of 5 of 20 against 2 of 380, and of 1 of 20 against 1 of 380, by tolerance 1.2. */
static void two_looks_give_the_numbers_computed_by_hand(void **state)
{
    const struct tally looks[] = {{20, 5, 380, 2}, {20, 1, 380, 1}};
    struct compare c = compared(1.2, looks, 1);

    assert_near(c.bad.ln[0], 1.8224328644400292 - M_LN2, 1e-12);
    assert_near(c.bad.ln[7], 8.633568631693533 - M_LN2, 1e-12);
    assert_near(compare_bad(&c), 8.046019032456568, 1e-12);
    compare_add(&c, 1.2, &looks[1]);
    assert_near(compare_bad(&c), 9.299621689557533, 1e-12);
    assert_near(compare_good(&c), -4.015886785916862, 1e-12);
}

/* Summed over all counts that can be, with their probabilities: the mean of E is at most 1 for all
 * that the hypothesis allows, not only at its edge. */
static void the_mean_of_the_evidence_is_at_most_one(void **state)
{
    const double rates[] = {0.001, 0.02, 0.3, 0.8}, ratios[] = {0, 0.5, 1, 1.2};

    for (size_t i = 0; i < 16; i++) {
        const double ps = rates[i / 4], pc = ps * ratios[i % 4];
        double mean = 0, all = 0;

        for (double x = 0; x <= 6; x++) {
            for (double y = 0; y <= 20; y++) {
                const struct tally t = {6, x, 20, y};
                const struct compare c = compared(1.2, &t, 1);
                const double p = exp(lgamma(7) - lgamma(x + 1) - lgamma(7 - x) + lgamma(21) -
                                     lgamma(y + 1) - lgamma(21 - y)) *
                                 pow(pc, x) * pow(1 - pc, 6 - x) * pow(ps, y) * pow(1 - ps, 20 - y);

                mean += p * exp(compare_bad(&c));
                all += p;
            }
        }
        assert_near(all, 1, 1e-9);
        assert_true(mean <= 1 + 1e-9);
    }
}

/* No bad event at stable at all: p/q has no ratio to guess, and each bad one of the canary's 5 % of
 * the traffic counts by its true likelihood. */
static void a_baseline_of_zero_is_exact(void **state)
{
    const struct tally four = {100, 4, 1900, 0}, five = {100, 5, 1900, 0};
    const struct compare c = compared(1, &four, 1), d = compared(1, &five, 1);
    double sum = 0;

    sum += by_hand(&four, 1, 1.5) + by_hand(&four, 1, 2) + by_hand(&four, 1, 3);
    sum += by_hand(&four, 1, 5) + by_hand(&four, 1, 10) + by_hand(&four, 1, 20);
    sum += by_hand(&four, 1, 50) + by_hand(&four, 1, 200);
    assert_near(compare_bad(&c), log(sum / 16 + 0.5), 1e-12);
    assert_true(compare_bad(&d) > compare_bad(&c));
    assert_true(compare_bad(&d) > log(100));
}

static void a_bad_event_more_is_never_evidence_for_the_canary(void **state)
{
    struct chance chance = {1};

    for (int i = 0; i < ROUNDS; i++) {
        const double canary = 1 + (double)chance_below(&chance, 500);
        const double stable = 1 + (double)chance_below(&chance, 5000);
        struct tally t = {canary, (double)chance_below(&chance, (uint64_t)canary), stable,
                          (double)chance_below(&chance, (uint64_t)stable)};
        const struct compare before = compared(1.2, &t, 1);
        struct compare after;

        t.canary_bad++;
        after = compared(1.2, &t, 1);
        assert_true(compare_bad(&after) >= compare_bad(&before));
        assert_true(compare_good(&after) <= compare_good(&before));
    }
}

/* Looks that are cut otherwise, while the weights stay, say the same of GOOD and of the interval.
 */
static void one_long_look_is_as_good_as_many_short_ones(void **state)
{
    const struct tally one = {100, 3, 900, 11};
    const struct tally two[] = {{50, 1, 450, 7}, {50, 2, 450, 4}};
    const struct compare c = compared(1.2, &one, 1), d = compared(1.2, two, 2);

    assert_near(compare_good(&c), compare_good(&d), 1e-9);
    for (size_t i = 0; i < SEQUENTIAL_GRID; i++) {
        assert_near(c.grid[i], d.grid[i], 1e-9);
    }
}

/* An hour of health, then a fault: without the bets on late beginnings it would have to pay back
 * all evidence that was collected for the canary. */
static void a_fault_that_begins_late_is_found_soon(void **state)
{
    const struct tally healthy = {20, 0, 380, 2}, faulty = {20, 4, 380, 2};
    struct compare c;
    int looks = 0;

    compare_init(&c);
    for (int i = 0; i < 1800; i++) {
        compare_add(&c, 1.2, &healthy);
    }
    assert_true(compare_good(&c) > log(100));
    while (compare_bad(&c) < log(100)) {
        compare_add(&c, 1.2, &faulty);
        looks++;
    }
    assert_in_range(looks, 1, 5);
}

static void good_begins_anew_with_a_step(void **state)
{
    const struct tally healthy = {500, 2, 500, 3};
    struct compare c;

    compare_init(&c);
    for (int i = 0; i < 40; i++) {
        compare_add(&c, 1.2, &healthy);
    }
    assert_true(compare_good(&c) > log(100));
    compare_renew(&c);
    assert_near(compare_good(&c), 0, 0);
    assert_true(c.step.canary == 0 && c.all.canary == 20000);
}

static void the_interval_holds_the_truth_and_tightens(void **state)
{
    struct chance chance = {7};
    struct compare c;
    double low, high, width = INFINITY;

    compare_init(&c);
    for (int i = 1; i <= 4096; i++) {
        const struct tally t = {100, chance_binomial(&chance, 100, 0.06), 900,
                                chance_binomial(&chance, 900, 0.02)};

        compare_add(&c, 1.2, &t);
        compare_interval(&c, 0.01, &low, &high);
        assert_true(low <= 3 && high >= 3);
        if ((i & (i - 1)) == 0) {
            assert_true(high / low <= width);
            width = high / low;
        }
    }
    assert_true(width <= 2.001); /* two steps of the grid */
}

static void the_worst_counts_give_numbers(void **state)
{
    const double huge = SEQUENTIAL_COUNT_MAX;
    const struct tally looks[] = {{huge, huge, huge, huge}, {huge, huge, 1, 0}, {1, 0, huge, huge},
                                  {huge, 0, huge, huge},    {1, 1, 1, 1},       {huge, 0, 1, 1},
                                  {1, 1, huge, 0}};
    double low, high;

    for (size_t i = 0; i < ARRAY_LEN(looks); i++) {
        for (size_t j = 0; j < ARRAY_LEN(looks); j++) {
            const struct tally both[] = {looks[i], looks[j]};
            const struct compare c = compared(1000, both, 2);

            assert_true(isfinite(compare_bad(&c)) && isfinite(compare_good(&c)));
            compare_interval(&c, 0.01, &low, &high);
            assert_true(low < high && c.all.canary <= huge && c.all.canary_bad <= c.all.canary);
        }
    }
    level_interval(huge, 5, 0.01, &low, &high);
    assert_true(low >= 0 && low <= high && high < 1e-6);
}

static void a_share_gives_the_numbers_computed_by_hand(void **state)
{
    struct level l;

    level_init(&l);
    assert_near(level_bad(&l), 0, 1e-12);
    level_add(&l, 0.05, 40, 8);
    assert_near(level_bad(&l), 3.4416353048854016, 1e-12);
    assert_near(level_good_of(0.05, 2000, 10), 67.1773168589251, 1e-9);
    level_renew(&l);
    assert_near(level_good(&l, 0.05), 0, 0);
    assert_true(l.all == 40 && l.all_bad == 8);
}

static void three_bad_requests_of_three_do_not_break_a_threshold_of_half(void **state)
{
    struct level l;

    level_init(&l);
    level_add(&l, 0.5, 3, 3);
    assert_true(level_bad(&l) < log(100));
    level_add(&l, 0.5, 40, 40);
    assert_true(level_bad(&l) > log(100));
}

static void thresholds_at_the_ends_are_numbers(void **state)
{
    const double ends[] = {0, 1e-6, 1 - 1e-6, 1};

    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        struct level l;

        level_init(&l);
        level_add(&l, ends[i], SEQUENTIAL_COUNT_MAX, SEQUENTIAL_COUNT_MAX);
        level_add(&l, ends[i], SEQUENTIAL_COUNT_MAX, 0);
        assert_true(isfinite(level_bad(&l)) && isfinite(level_good(&l, ends[i])));
    }
}

static void the_interval_of_a_share_is_that_of_its_equation(void **state)
{
    double low, high;

    level_interval(100, 5, 0.01, &low, &high);
    assert_near(low, 0.00498, 2e-5);
    assert_near(high, 0.17505, 2e-5);
    level_interval(100, 0, 0.01, &low, &high);
    assert_true(low == 0);
    assert_near(high, 0.07208, 2e-5);
    level_interval(100, 100, 0.01, &low, &high);
    assert_near(low, 1 - 0.07208, 2e-5);
    assert_true(high == 1);
    level_interval(0, 0, 0.01, &low, &high);
    assert_true(low == 0 && high == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_seen_is_evidence_for_nothing),
        cmocka_unit_test(two_looks_give_the_numbers_computed_by_hand),
        cmocka_unit_test(the_mean_of_the_evidence_is_at_most_one),
        cmocka_unit_test(a_baseline_of_zero_is_exact),
        cmocka_unit_test(a_bad_event_more_is_never_evidence_for_the_canary),
        cmocka_unit_test(one_long_look_is_as_good_as_many_short_ones),
        cmocka_unit_test(a_fault_that_begins_late_is_found_soon),
        cmocka_unit_test(good_begins_anew_with_a_step),
        cmocka_unit_test(the_interval_holds_the_truth_and_tightens),
        cmocka_unit_test(the_worst_counts_give_numbers),
        cmocka_unit_test(a_share_gives_the_numbers_computed_by_hand),
        cmocka_unit_test(three_bad_requests_of_three_do_not_break_a_threshold_of_half),
        cmocka_unit_test(thresholds_at_the_ends_are_numbers),
        cmocka_unit_test(the_interval_of_a_share_is_that_of_its_equation),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
