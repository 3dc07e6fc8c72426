/* How much jobs may upload with their tokens: each by itself, and all of a pipeline together. What
 * is on its way counts, what was broken off is given back, what is stored stays booked for as long
 * as the job is remembered: the QUOTA_JOBS that uploaded last. A new start forgets it all, which
 * costs no more than another quota. Threads: all safe. */
#ifndef DAVIT_API_QUOTA_H
#define DAVIT_API_QUOTA_H

#include "common/err.h"

#define QUOTA_JOBS 100000u

struct quota;
struct quota *quota_new(uint64_t job_bytes, uint64_t pipeline_bytes);
void quota_free(struct quota *q);

/* -E_LIMIT: nothing is booked. */
int quota_take(struct quota *q, uint64_t job_id, uint64_t pipeline_id, uint64_t bytes);
void quota_give_back(struct quota *q, uint64_t job_id, uint64_t pipeline_id, uint64_t bytes);

#endif
