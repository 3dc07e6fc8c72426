#include "common/base.h"

#include <math.h>

#include "broker/rollout/sequential.h"

/* How much worse (or better) the alternatives are than the hypothesis; all weigh the same. */
static const double FACTORS[SEQUENTIAL_ALTERNATIVES] = {1.5, 2, 3, 5, 10, 20, 50, 200};

#define GRID_LOWEST   (1.0 / 256)
#define LEVEL_MIN     1e-9
#define BISECTIONS    60
#define TOLERANCE_MAX 1000.0

static double ln_add(double a, double b)
{
    const double most = fmax(a, b), least = fmin(a, b);

    return most == -INFINITY ? most : most + log1p(exp(least - most));
}

static double ln_mean(const double *ln, size_t n)
{
    double sum = -INFINITY;

    for (size_t i = 0; i < n; i++) {
        sum = ln_add(sum, ln[i]);
    }
    return sum - log((double)n);
}

static void check_count(double requests, double bad)
{
    check(requests >= 0 && requests <= SEQUENTIAL_COUNT_MAX && floor(requests) == requests);
    check(bad >= 0 && bad <= requests && floor(bad) == bad);
}

/* ---- evidence that may begin late ---- */

static void evidence_init(struct evidence *e)
{
    for (size_t k = 0; k < SEQUENTIAL_ALTERNATIVES; k++) {
        e->ln[k] = -log(2);
    }
    e->looks = 0;
}

/* One more look, with the likelihood ratio of each alternative. Those that begin with it bet what
 * was kept for that: whether they begin is known before the look is. */
static void evidence_add(struct evidence *e, const double ln_ratio[SEQUENTIAL_ALTERNATIVES])
{
    const double t = e->looks;

    for (size_t k = 0; k < SEQUENTIAL_ALTERNATIVES; k++) {
        if (t > 0) {
            e->ln[k] = ln_add(e->ln[k], -log(2) - log(t) - log1p(t));
        }
        e->ln[k] += ln_ratio[k];
        check(!isnan(e->ln[k]));
    }
    e->looks++;
}

/* With what was not bet yet, and so is worth what it was: 1/2 - sum of 1/2 * 1/(s(s+1)), s < t. */
static double evidence_ln(const struct evidence *e)
{
    const double kept = -log(2) - log(fmax(e->looks, 1));
    const double ln = ln_add(kept, ln_mean(e->ln, SEQUENTIAL_ALTERNATIVES));

    check(!isnan(ln));
    return ln;
}

/* ---- two versions ---- */

/* Of the bad events, with the canary so many times as bad: each is the canary's with the
 * probability p = ratio * canary / (ratio * canary + stable). ln of the likelihood with the ratio
 * `to` over that with `from`. Since 1 + z <= e^z this is an e-value for shares of requests
 * (binomial counts), too, whatever the base rate: docs/rollouts-statistics.md. */
static double ln_ratio_of(const struct tally *t, double from, double to)
{
    /* ln((1 - q) / (1 - p)) = -ln((to * canary + stable) / (from * canary + stable)) */
    const double others = -log1p((to - from) * t->canary / (from * t->canary + t->stable));

    return t->canary_bad * (log(to / from) + others) + t->stable_bad * others;
}

static double grid_ratio(size_t i)
{
    return GRID_LOWEST * exp2((double)i / 2);
}

double compare_limit(double tolerance)
{
    return fmax(2, tolerance * 5 / 3);
}

void compare_init(struct compare *c)
{
    *c = (struct compare){0};
    evidence_init(&c->bad);
}

void tally_add(struct tally *t, const struct tally *look)
{
    t->canary = fmin(t->canary + look->canary, SEQUENTIAL_COUNT_MAX);
    t->canary_bad = fmin(t->canary_bad + look->canary_bad, t->canary);
    t->stable = fmin(t->stable + look->stable, SEQUENTIAL_COUNT_MAX);
    t->stable_bad = fmin(t->stable_bad + look->stable_bad, t->stable);
}

void compare_add(struct compare *c, double tolerance, const struct tally *look)
{
    const double limit = compare_limit(tolerance);
    double ln[SEQUENTIAL_ALTERNATIVES];

    check(tolerance >= 1 && tolerance <= TOLERANCE_MAX);
    check_count(look->canary, look->canary_bad);
    check_count(look->stable, look->stable_bad);
    tally_add(&c->all, look);
    tally_add(&c->step, look);
    if (look->canary == 0 || look->stable == 0 || look->canary_bad + look->stable_bad == 0) {
        return;
    }
    for (size_t k = 0; k < SEQUENTIAL_ALTERNATIVES; k++) {
        ln[k] = ln_ratio_of(look, tolerance, tolerance * FACTORS[k]);
        c->good[k] += ln_ratio_of(look, limit, limit / FACTORS[k]);
        check(!isnan(c->good[k]));
    }
    evidence_add(&c->bad, ln);
    for (size_t i = 0; i < SEQUENTIAL_GRID; i++) {
        c->grid[i] += ln_ratio_of(look, 1, grid_ratio(i));
    }
}

double compare_bad(const struct compare *c)
{
    return evidence_ln(&c->bad);
}

double compare_good(const struct compare *c)
{
    return ln_mean(c->good, SEQUENTIAL_ALTERNATIVES);
}

void compare_renew(struct compare *c)
{
    memset(c->good, 0, sizeof(c->good));
    c->step = (struct tally){0};
}

/* A ratio is refuted when the mixture of all ratios of the grid explains what was seen 1/alpha
 * times better. The likelihood is concave in ln(ratio): beyond a refuted ratio, on its side, all
 * others are, too. So the interval ends at refuted ones, and what is between two of the grid is
 * within. */
void compare_interval(const struct compare *c, double alpha, double *ret_low, double *ret_high)
{
    const double bound = ln_mean(c->grid, SEQUENTIAL_GRID) + log(alpha);
    size_t best = 0, low, high;

    check(alpha > 0 && alpha < 1);
    for (size_t i = 1; i < SEQUENTIAL_GRID; i++) {
        best = c->grid[i] > c->grid[best] ? i : best;
    }
    for (low = best; low > 0 && c->grid[low] > bound;) {
        low--;
    }
    for (high = best; high < SEQUENTIAL_GRID - 1 && c->grid[high] > bound;) {
        high++;
    }
    *ret_low = c->grid[low] > bound ? 0 : grid_ratio(low);
    *ret_high = c->grid[high] > bound ? INFINITY : grid_ratio(high);
}

/* ---- one version ---- */

static double clip(double p)
{
    check(!isnan(p));
    return fmin(fmax(p, LEVEL_MIN), 1 - LEVEL_MIN);
}

/* ln of the likelihood of the share whose odds are `factor` times those of p, over that of p. */
static double ln_level(double p, double factor, double requests, double bad)
{
    const double all = log1p(p *
                             (factor - 1)); /* q = factor * p / e^all, 1 - q = (1 - p) / e^all */

    return bad * log(factor) - requests * all;
}

void level_init(struct level *l)
{
    *l = (struct level){0};
    evidence_init(&l->bad);
}

void level_add(struct level *l, double p, double requests, double bad)
{
    double ln[SEQUENTIAL_ALTERNATIVES];

    check_count(requests, bad);
    if (requests == 0) {
        return;
    }
    l->all = fmin(l->all + requests, SEQUENTIAL_COUNT_MAX);
    l->all_bad = fmin(l->all_bad + bad, l->all);
    l->step = fmin(l->step + requests, SEQUENTIAL_COUNT_MAX);
    l->step_bad = fmin(l->step_bad + bad, l->step);
    for (size_t k = 0; k < SEQUENTIAL_ALTERNATIVES; k++) {
        ln[k] = ln_level(clip(p), FACTORS[k], requests, bad);
    }
    evidence_add(&l->bad, ln);
}

double level_bad(const struct level *l)
{
    return evidence_ln(&l->bad);
}

double level_good(const struct level *l, double p)
{
    return level_good_of(p, l->step, l->step_bad);
}

void level_renew(struct level *l)
{
    l->step = 0;
    l->step_bad = 0;
}

double level_good_of(double p, double requests, double bad)
{
    double ln[SEQUENTIAL_ALTERNATIVES];

    check_count(requests, bad);
    for (size_t k = 0; k < SEQUENTIAL_ALTERNATIVES; k++) {
        ln[k] = ln_level(clip(p), 1 / FACTORS[k], requests, bad);
    }
    return ln_mean(ln, SEQUENTIAL_ALTERNATIVES);
}

static double ln_beta(double a, double b)
{
    int sign;

    return lgamma_r(a, &sign) + lgamma_r(b, &sign) - lgamma_r(a + b, &sign);
}

/* Where the likelihood of the share falls to `bound`, between one that is likely and one that is
 * not; the unlikely end of what is left. */
static double bisect(double likely, double unlikely, double requests, double bad, double bound)
{
    for (int i = 0; i < BISECTIONS; i++) {
        const double p = (likely + unlikely) / 2;
        const double ln = (bad > 0 ? bad * log(p) : 0) +
                          (requests > bad ? (requests - bad) * log1p(-p) : 0);

        if (ln > bound) {
            likely = p;
        } else {
            unlikely = p;
        }
    }
    return unlikely;
}

/* The mixture of all shares, with weights of Jeffreys' prior Beta(1/2, 1/2), against each. */
void level_interval(double requests, double bad, double alpha, double *ret_low, double *ret_high)
{
    const double good = requests - bad;
    double bound;

    check(alpha > 0 && alpha < 1);
    check_count(requests, bad);
    if (requests == 0) {
        *ret_low = 0;
        *ret_high = 1;
        return;
    }
    bound = ln_beta(bad + 0.5, good + 0.5) - ln_beta(0.5, 0.5) + log(alpha);
    *ret_low = bad == 0 ? 0 : bisect(bad / requests, 0, requests, bad, bound);
    *ret_high = good == 0 ? 1 : bisect(bad / requests, 1, requests, bad, bound);
}
