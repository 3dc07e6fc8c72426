/* How often somebody may do a thing: a bucket of tokens for each key, filled at a steady rate. The
 * RATE_BUCKETS keys used last are remembered; one that is forgotten begins with a full bucket,
 * which is what it would have after a rest. Threads: all safe. */
#ifndef DAVIT_API_RATE_H
#define DAVIT_API_RATE_H

#include "common/str.h"

#define RATE_BUCKETS 16384u

struct rate;
/* `per_second` more each second, `burst` at once. */
struct rate *rate_new(double per_second, double burst);
void rate_free(struct rate *r);

/* Takes one of the key's (at most 63 bytes count). 0, or for how many ms there will be none. */
uint32_t rate_take(struct rate *r, struct str key, uint64_t now_us);

#endif
