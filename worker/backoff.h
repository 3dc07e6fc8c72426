/* How long to wait before the next try: full jitter, a random time below a bound that doubles from
 * 0.5 s to a cap, so that a fleet that lost its broker does not come back in one instant.
 * Pure: the caller brings the random number. */
#ifndef DAVIT_WORKER_BACKOFF_H
#define DAVIT_WORKER_BACKOFF_H

#include "common/base.h"

#define BACKOFF_FIRST_MS 500u
#define BACKOFF_CAP_MS   60000u

struct backoff {
    uint32_t tries; /* that failed in a row */
};

/* The pause before the next try, below min(cap_ms, 500 ms * 2^tries); counts one failure more. */
uint64_t backoff_next_ms(struct backoff *b, uint64_t cap_ms, uint64_t random);
void backoff_reset(struct backoff *b);

#endif
