/* Is the new version worse? Tests that may be asked at every look, and stay right.
 *
 * An e-process is a number E that begins at 1 and, as long as a hypothesis holds, has a mean of at
 * most 1 at whatever time one stops to look. By Ville's inequality (1939) it then ever reaches
 * 1/alpha with a probability of at most alpha. So a verdict "E >= 1/alpha" may be asked after every
 * sample, for as long as one likes, with weights and base rates that change between looks.
 * docs/rollouts-statistics.md has the proofs, the sources and what was measured.
 *
 *   compare  two versions at the same time: bad events per request, canary against stable
 *   level    one version against a fixed share of bad requests
 *
 * Each knows three things: evidence that it is BAD, evidence that it is GOOD, and the interval in
 * which the truth lies. None of them takes the place of another: with little data all are weak.
 *
 * A canary that was good for an hour has collected much evidence for itself, against which a fault
 * that begins now would have to argue. So the evidence for BAD is a mixture over the looks at which
 * the fault may have begun: half of it bets on the first one, the rest on later ones with
 * 1/2 * 1/(t(t+1)). That is an e-process like each of its parts.
 *
 * Units: counts are whole numbers in doubles, 0 to SEQUENTIAL_COUNT_MAX; evidence is natural
 * logarithms. No result is ever NaN; a count outside of its range is a mistake of the caller, and
 * checked. The structs are the state, plain numbers that may be copied, stored bit by bit and
 * continued elsewhere. Threads: pure. */
#ifndef DAVIT_ROLLOUT_SEQUENTIAL_H
#define DAVIT_ROLLOUT_SEQUENTIAL_H

#include "common/base.h"

#define SEQUENTIAL_ALTERNATIVES 8u
#define SEQUENTIAL_GRID         40u
#define SEQUENTIAL_COUNT_MAX    9007199254740992.0 /* 2^53: all whole numbers up to it are exact */

/* What both versions did: of one look, or of many. bad <= requests. */
struct tally {
    double canary;
    double canary_bad;
    double stable;
    double stable_bad;
};
void tally_add(struct tally *t, const struct tally *look); /* up to SEQUENTIAL_COUNT_MAX */

/* Evidence for BAD, over the alternatives and over the looks at which it may have begun. */
struct evidence {
    double ln[SEQUENTIAL_ALTERNATIVES];
    double looks; /* that said something */
};

struct compare {
    struct evidence bad;
    double good[SEQUENTIAL_ALTERNATIVES]; /* since compare_renew */
    double grid[SEQUENTIAL_GRID];         /* ln of the likelihood of ratios against a ratio of 1 */
    struct tally all;                     /* since the beginning */
    struct tally step;                    /* since compare_renew */
};

void compare_init(struct compare *c);
/* One look. The hypothesis of BAD: the canary has at most `tolerance` (1 to 1000) times stable's
 * bad events per request; of GOOD: at least compare_limit(tolerance) times as many. A look in which
 * one of the two had no request says nothing. */
void compare_add(struct compare *c, double tolerance, const struct tally *look);
/* ln E against "not worse than tolerated", "worse than the limit". */
double compare_bad(const struct compare *c);
double compare_good(const struct compare *c);
/* What is known to be good was so at another weight: evidence for GOOD begins anew. */
void compare_renew(struct compare *c);
/* How many times worse nobody would want it: 2, more where more is tolerated. */
double compare_limit(double tolerance);
/* All ratios of canary to stable that are not refuted at alpha, on a grid of steps of sqrt(2): the
 * truth stays within with a probability of 1 - alpha, at all looks together. 0 and INFINITY where
 * nothing bounds it. */
void compare_interval(const struct compare *c, double alpha, double *ret_low, double *ret_high);

struct level {
    struct evidence bad;
    double all, all_bad;   /* since the beginning */
    double step, step_bad; /* since level_renew */
};

void level_init(struct level *l);
/* The hypothesis of BAD: at most the share p (clipped to 1e-9 .. 1 - 1e-9) of requests is bad; of
 * GOOD: at least that. */
void level_add(struct level *l, double p, double requests, double bad);
double level_bad(const struct level *l);
double level_good(const struct level *l, double p);
void level_renew(struct level *l);
/* ln E against "at least the share p is bad", of counts that began when nothing was known. */
double level_good_of(double p, double requests, double bad);
/* All shares that are not refuted at alpha by so many of so many; as compare_interval. */
void level_interval(double requests, double bad, double alpha, double *ret_low, double *ret_high);

#endif
