/* What happened since the last look, from raw counters that only rise, and sometimes begin anew.
 *
 * Each slot and instance has a counter of its own, so that one that restarts, comes or goes changes
 * nothing for the others:
 *
 * - One that is seen for the first time begins to count where it stands: what it counted before is
 *   of another time than what it would be compared with.
 * - One that is less than before began anew: all that it shows happened since.
 * - One that is missing stays as it was for COUNTER_MISSED looks, then it is forgotten.
 * - One with fewer bad ones but more in all contradicts itself: it counts on from where it stands.
 *
 * A sample that is not younger than the last one says nothing; one that is older by more than
 * COUNTER_CLOCK_MS is of a clock that was set: all begin to count where they stand.
 *
 * Threads: pure. */
#ifndef DAVIT_ROLLOUT_COUNTER_H
#define DAVIT_ROLLOUT_COUNTER_H

#include "broker/rollout/sequential.h"
#include "common/arena.h"
#include "proto/rollout.h"

#define COUNTER_MISSED   30u
#define COUNTER_CLOCK_MS 60000u

struct counter {
    uint64_t key; /* of slot and instance */
    double total;
    double bad;
    uint32_t missed;
};

struct counters {
    uint64_t taken_ms;  /* 0: no sample yet */
    struct counter *of; /* by key */
    size_t n;
};

struct reading {
    Pb__RolloutSlot slot;
    const char *instance;
    double total;
    double bad;
};

/* Takes a sample: the counters as they are now, in `a`, and what both versions did since. 0, or
 * with one line for people in *ret_why -E_LIMIT (more than LIMIT_METRIC_SERIES), -E_INVALID (an
 * instance twice, a count below 0, not a number, or beyond 2^53). bad may be above total: it is
 * clipped. */
int counters_take(const struct counters *before, uint64_t taken_ms, const struct reading *readings,
                  size_t n, Pb__RolloutSlot canary, struct arena *a, struct counters *ret,
                  struct tally *ret_since, const char **ret_why);

#endif
