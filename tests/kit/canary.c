#include "common/base.h"

#include <math.h>

#include "tests/kit/canary.h"

#define WINDOW_TICKS 30u /* a minute */
#define CHECK_TICKS  5u  /* ten seconds */
#define FAILURES     5u
#define SHARE        0.01
#define MIN_EVENTS   5.0

const char *const canary_rule_names[CANARY_RULES] = {
    [CANARY_SEQUENTIAL] = "sequential test",
    [CANARY_PLAIN] = "the same, only from the start",
    [CANARY_SHARE] = "1 % in a minute, 5 times",
    [CANARY_RATIO] = "1.2 times stable in a minute, 5 times",
};

/* The rules that look at the last minute. */
struct window {
    struct tally of[WINDOW_TICKS];
    uint32_t share_failures;
    uint32_t ratio_failures;
};

struct plain {
    double ln[SEQUENTIAL_ALTERNATIVES];
};

static double weight_at(const struct canary_traffic *t, uint32_t tick)
{
    static const double RISING[] = {0.05, 0.25, 0.5};

    return t->weights_rise ? RISING[MIN(tick * 3 / t->ticks, 2u)] : t->weight;
}

static double base_at(const struct canary_traffic *t, uint32_t tick)
{
    return t->base_swings ? t->base * (tick / 60 % 2 == 0 ? 0.2 : 10) : t->base;
}

static struct tally serve(struct chance *chance, const struct canary_traffic *t, uint32_t tick)
{
    const double all = t->rps * CANARY_TICK_S, base = base_at(t, tick);
    const double canary = chance_binomial(chance, all, weight_at(t, tick));
    const bool faulty = t->fault > 0 && tick >= t->fault_tick;
    const double bad = faulty ? t->fault : base * (t->worse > 0 ? t->worse : 1);

    return (struct tally){canary, chance_binomial(chance, canary, fmin(bad, 1)), all - canary,
                          chance_binomial(chance, all - canary, base)};
}

static void window_fails(struct window *w, const struct tally *look, uint32_t tick, bool *ret_share,
                         bool *ret_ratio)
{
    struct tally sum = {0};
    double share;

    w->of[tick % WINDOW_TICKS] = *look;
    if (tick + 1 < WINDOW_TICKS || (tick + 1) % CHECK_TICKS != 0) {
        return;
    }
    for (size_t i = 0; i < WINDOW_TICKS; i++) {
        tally_add(&sum, &w->of[i]);
    }
    if (sum.canary == 0) {
        return;
    }
    share = sum.canary_bad / sum.canary;
    w->share_failures += share > SHARE;
    w->ratio_failures += sum.stable > 0 && share > CANARY_TOLERANCE * sum.stable_bad / sum.stable;
    *ret_share = w->share_failures >= FAILURES;
    *ret_ratio = w->ratio_failures >= FAILURES;
}

/* The formula of the e-process as it is without sequential.h: a second account of it. */
static double plain_add(struct plain *p, const struct tally *t)
{
    static const double FACTORS[SEQUENTIAL_ALTERNATIVES] = {1.5, 2, 3, 5, 10, 20, 50, 200};
    const double r = CANARY_TOLERANCE;
    double most = -INFINITY, sum = 0;

    for (size_t k = 0; k < SEQUENTIAL_ALTERNATIVES; k++) {
        const double p0 = r * t->canary / (r * t->canary + t->stable);
        const double q = r * FACTORS[k] * t->canary / (r * FACTORS[k] * t->canary + t->stable);

        if (t->canary > 0 && t->stable > 0) {
            p->ln[k] += t->canary_bad * log(q / p0) + t->stable_bad * log((1 - q) / (1 - p0));
        }
        most = fmax(most, p->ln[k]);
    }
    for (size_t k = 0; k < SEQUENTIAL_ALTERNATIVES; k++) {
        sum += exp(p->ln[k] - most);
    }
    return most + log(sum / SEQUENTIAL_ALTERNATIVES);
}

void canary_run(struct chance *chance, const struct canary_traffic *traffic,
                uint32_t ret_tick[CANARY_RULES])
{
    const double needed = -log(CANARY_ALPHA);
    struct compare c;
    struct plain plain = {{0}};
    struct window w = {0};

    compare_init(&c);
    memset(ret_tick, 0, CANARY_RULES * sizeof(*ret_tick));
    for (uint32_t tick = 0; tick < traffic->ticks; tick++) {
        const struct tally look = serve(chance, traffic, tick);
        const double by_hand = plain_add(&plain, &look);
        bool fails[CANARY_RULES] = {false}, enough;

        compare_add(&c, CANARY_TOLERANCE, &look);
        check(compare_bad(&c) >= by_hand - log(2) - 1e-6); /* it has bet half on it */
        enough = c.all.canary_bad >= MIN_EVENTS;
        fails[CANARY_SEQUENTIAL] = enough && compare_bad(&c) >= needed;
        fails[CANARY_PLAIN] = enough && by_hand >= needed;
        window_fails(&w, &look, tick, &fails[CANARY_SHARE], &fails[CANARY_RATIO]);
        for (size_t i = 0; i < CANARY_RULES; i++) {
            if (fails[i] && ret_tick[i] == 0) {
                ret_tick[i] = tick + 1;
            }
        }
        if (traffic->fault > 0 && ret_tick[CANARY_SEQUENTIAL] != 0 && ret_tick[CANARY_PLAIN] != 0 &&
            ret_tick[CANARY_SHARE] != 0) {
            return;
        }
    }
}
