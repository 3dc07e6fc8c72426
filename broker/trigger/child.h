/* One child pipeline: what its trigger job says, compiled with the files of the bundle and of
 * artifacts. Threads: any but the turn's; it reads the disk. */
#ifndef DAVIT_TRIGGER_CHILD_H
#define DAVIT_TRIGGER_CHILD_H

#include "broker/blob/blob.h"
#include "broker/store/store.h"
#include "broker/turn.h"
#include "broker/vault/known.h"
#include "pipeline/fetch/fetch.h"

struct child_sources {
    struct store *store;
    struct blobs *blobs;
    struct vault *vault;                 /* of stored variables; NULL: there are none */
    const struct fetch_config *includes; /* NULL: what is not in the bundle is not there */
};

/* 0 and a PipelineCreate that waits to be submitted; *ret stays NULL when the job needs no child
 * any more: it has ended, has one, or runs under another epoch. -E_PIPELINE and all other errors:
 * `why` has a line for people. -E_BUSY, -E_IO: descriptors, readers or the disk were
 * in the way, and not the pipeline: try again. */
int child_build(const struct child_sources *s, uint64_t job_id, uint64_t epoch, struct post **ret,
                struct buf *why);

#endif
