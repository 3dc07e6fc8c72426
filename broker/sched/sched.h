/* The scheduler: which pending job goes to which worker. Pure: reads the store and the list of
 * workers that can take work, proposes; the turn applies the proposals as Assign commands.
 *
 * A class is what jobs ask for (executor, tags); a worker serves a class when it has the executor
 * and all tags of it, or the class has no tags and the worker runs untagged jobs. Within a class:
 * higher priority first, then older first; between classes likewise. No matching pair is left idle:
 * the turn calls again until nothing is proposed. Cost: O(ready classes * workers + proposals *
 * (workers of the class + log classes)) per call; it never walks over jobs that it does not
 * propose. sched_why counts its way to the job. Threads: the turn's. */
#ifndef DAVIT_SCHED_H
#define DAVIT_SCHED_H

#include "broker/store/tx.h"

struct sched_worker {
    uint64_t worker_id;
    uint32_t free_slots; /* how many it may be given now */
    const Pb__WorkerRecord *record;
};

struct sched_proposal {
    uint64_t job_id;
    uint64_t worker_id;
};

/* At most max proposals; free_slots of the workers is counted down. */
size_t sched_propose(struct tx *tx, struct sched_worker *workers, size_t count,
                     struct sched_proposal *ret, size_t max);

/* Why a job is not running: a reason for each known worker. *ret_position is its place among the
 * ready jobs of its class (1-based; 0: it is not ready). `online` tells whether a worker has a live
 * session. *ret_never: no known worker could ever match. */
struct sched_why {
    uint64_t worker_id;
    const char *worker;
    const char *reason; /* "offline", "missing tags: gpu", "no free slot", "paused", "draining",
                         * "can take it" */
};
size_t sched_why(struct tx *tx, const Pb__JobRecord *job,
                 bool (*online)(void *ctx, uint64_t worker_id), void *ctx, struct sched_why *ret,
                 size_t max, uint64_t *ret_position, bool *ret_never);

#endif
