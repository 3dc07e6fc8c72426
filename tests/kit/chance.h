/* Random numbers of a seed: the same on every machine. Threads: one stream belongs to one. */
#ifndef DAVIT_TESTS_KIT_CHANCE_H
#define DAVIT_TESTS_KIT_CHANCE_H

#include "common/base.h"

struct chance {
    uint64_t state; /* the seed */
};

uint64_t chance_next(struct chance *c);
double chance_unit(struct chance *c);                         /* at least 0, below 1 */
uint64_t chance_below(struct chance *c, uint64_t n);          /* 0 to n - 1 */
double chance_poisson(struct chance *c, double mean);         /* a count */
double chance_binomial(struct chance *c, double n, double p); /* so many of n */

#endif
