/* Job logs: one append-only file per attempt, DIR/<job / 4096>/<job>-<attempt>.log, holding the raw
 * bytes: the offset in the log is the offset in the file. A log's durable size is what was fsynced;
 * only that is acknowledged to workers and shown to readers.
 *
 * One writer thread appends and fsyncs in groups (one fdatasync per touched file and round), then
 * calls `durable` for each log it was given chunks of. Chunks that overlap what is there already
 * are cut; a chunk behind a gap is dropped and answered with the present size. Threads: all safe.
 * Errors of the disk end the process (never retry an fsync), but for a full disk, which is answered
 * with the old size: the worker keeps its bytes and tries again. */
#ifndef DAVIT_LOGS_H
#define DAVIT_LOGS_H

#include "common/buf.h"
#include "common/err.h"

struct logs;
/* Called on the writer's thread after the fsync; must not block. */
typedef void (*logs_durable_fn)(void *ctx, uint64_t job_id, uint64_t attempt, uint64_t epoch,
                                uint64_t durable);

int logs_open(const char *dir, logs_durable_fn durable, void *ctx, struct logs **ret,
              struct buf *why);
void logs_close(struct logs *l); /* writes out what is queued */

/* Copies the data and returns; every chunk taken is answered by a call of `durable`. -E_BUSY above
 * LIMIT_LOG_QUEUE queued bytes (the chunk is dropped: the worker sends it again from the durable
 * offset); -E_TOO_BIG for more than LIMIT_LOG_CHUNK bytes or beyond the end of any log. */
int logs_append(struct logs *l, uint64_t job_id, uint64_t attempt, uint64_t epoch, uint64_t offset,
                const void *p, size_t n);
uint64_t logs_durable(struct logs *l, uint64_t job_id, uint64_t attempt);
/* Reads at most n durable bytes from offset; 0 at the end. Negative error: -E_NOT_FOUND, -E_IO. */
int64_t logs_read(struct logs *l, uint64_t job_id, uint64_t attempt, uint64_t offset, void *p,
                  size_t n);
/* The attempt ended: its open descriptor may go. */
void logs_close_one(struct logs *l, uint64_t job_id, uint64_t attempt);
/* Deletes the log of an attempt that ended. -E_NOT_FOUND */
int logs_remove(struct logs *l, uint64_t job_id, uint64_t attempt);
/* Deletes the logs of jobs that `wanted` does not mark, unless they were written to less than
 * min_age_ms ago, and folders that are empty then. Any thread; returns the bytes freed. */
typedef void (*logs_wanted_fn)(void *ctx, const uint64_t *job_ids, bool *ret_wanted, size_t count);
uint64_t logs_sweep(struct logs *l, uint64_t now_ms, uint64_t min_age_ms, logs_wanted_fn wanted,
                    void *ctx);
const char *logs_dir(const struct logs *l);
/* Bytes made durable since the start, for /metrics. */
uint64_t logs_written_bytes(struct logs *l);

#endif
