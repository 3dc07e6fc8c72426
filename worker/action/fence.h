/* The highest fence that each target has seen from this worker: STATE/fences/DIGEST, a file a
 * target, durable before anything is done under a higher one. What comes with a lower (generation,
 * epoch) is refused, and what comes with the same one from another rollout. Threads: one. */
#ifndef DAVIT_WORKER_FENCE_H
#define DAVIT_WORKER_FENCE_H

#include "proto/pb.h"

struct fences {
    char *dir;
    size_t count; /* of files; SIZE_MAX: not counted yet */
};

void fences_init(struct fences *f, const char *state_dir);
void fences_release(struct fences *f);
/* 0: it may be done. -E_STALE_EPOCH: *ret_seen is what the target has seen; -E_LIMIT: too many
 * targets; -E_CORRUPT, -E_IO: the state folder. */
int fences_pass(struct fences *f, const char *target, const Pb__ActionFence *fence,
                Pb__ActionFence *ret_seen);

#endif
