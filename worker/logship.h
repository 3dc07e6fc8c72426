/* The cursor of one job's log on its way to the broker. The log is the shim's spool (the head),
 * followed, once the job has ended, by what is known then: the kept tail and a note of the worker.
 * The broker owns the truth: `durable` is what it has on disk, and all that is not yet there can be
 * read again from our own disk, after a lost connection or in a new worker process.
 *
 * Bytes are read in order. Those below `durable` (a new process takes over a job) only feed the
 * checksum; the rest becomes chunks within the window.
 * Pure but for the reader that it is given. Threads: one. */
#ifndef DAVIT_WORKER_LOGSHIP_H
#define DAVIT_WORKER_LOGSHIP_H

#include "common/buf.h"
#include "common/err.h"

#define LOGSHIP_RETRY_MS   200u   /* after an answer that brought nothing new */
#define LOGSHIP_STALLED_MS 15000u /* without any answer */

/* Appends at most max bytes of the spool from offset on; 0 bytes: there are no more now. */
typedef int (*logship_read_fn)(void *ctx, uint64_t offset, size_t max, struct buf *out);

struct logship {
    logship_read_fn read;
    void *ctx;
    uint64_t at;      /* of the next byte to read */
    uint64_t durable; /* all below is on the broker's disk */
    bool known;       /* `durable` is known; else the broker is asked */
    bool asked;
    uint64_t retry_due_ms; /* then goes back to `durable`; 0: not at all */

    bool ended; /* the spool is complete, and so is `tail` */
    bool head_end_known;
    uint64_t head_end; /* where the spool ends and the tail begins */
    struct buf tail;

    uint64_t crc_upto; /* crc is of the bytes below */
    uint32_t crc;
};

enum logship_step {
    LOGSHIP_IDLE,  /* nothing to send now */
    LOGSHIP_CHUNK, /* send what is in `out` (no bytes: a question) */
    LOGSHIP_AGAIN, /* read bytes that the broker has: call again */
};

/* fresh: the attempt began in this process, so the broker has nothing of it yet. */
void logship_init(struct logship *l, logship_read_fn read, void *ctx, bool fresh);
void logship_release(struct logship *l);
void logship_new_session(struct logship *l);          /* what was on its way is forgotten */
void logship_end(struct logship *l, struct str tail); /* copies it */
void logship_acked(struct logship *l, uint64_t durable, uint64_t now_ms);
/* At most LIMIT_LOG_CHUNK bytes into `out`, which the caller empties. A step, or a read error. */
int logship_next(struct logship *l, uint64_t window, uint64_t now_ms, struct buf *out,
                 uint64_t *ret_offset);
/* All is read, and the broker has it: l->at and l->crc are final. */
bool logship_done(const struct logship *l);
uint64_t logship_size(const struct logship *l); /* once done */

#endif
