#include "common/base.h"

#include <math.h>

#include "tests/kit/chance.h"

#define POISSON_PART 50.0

/* splitmix64: a step and a scramble. */
uint64_t chance_next(struct chance *c)
{
    uint64_t z = (c->state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

double chance_unit(struct chance *c)
{
    return (double)(chance_next(c) >> 11) * 0x1p-53;
}

uint64_t chance_below(struct chance *c, uint64_t n)
{
    return chance_next(c) % n;
}

/* Knuth's product of uniform numbers, in parts, whose sum has the same law. */
double chance_poisson(struct chance *c, double mean)
{
    double count = 0;

    while (mean > 0) {
        const double part = fmin(mean, POISSON_PART), end = exp(-part);

        for (double product = chance_unit(c); product > end; product *= chance_unit(c)) {
            count++;
        }
        mean -= part;
    }
    return count;
}

/* From success to success: the gaps between them are geometric. */
double chance_binomial(struct chance *c, double n, double p)
{
    double count = 0, at = 0;

    if (p <= 0) {
        return 0;
    }
    if (p > 0.5) {
        return n - chance_binomial(c, n, 1 - p);
    }
    for (;;) {
        at += floor(log1p(-chance_unit(c)) / log1p(-p)) + 1;
        if (at > n) {
            return count;
        }
        count++;
    }
}
