/* What a job prints, on its way to the disk: the head as frames in `spool`, then the last bytes in
 * the ring `tail`. Secrets are hidden before anything is kept. Never fails and never blocks on a
 * full disk: what cannot be kept is counted as elided. What is kept is always one piece at the
 * log's start and one at its end. */
#ifndef DAVIT_SHIM_OUTPUT_H
#define DAVIT_SHIM_OUTPUT_H

#include "common/limits.h"
#include "common/mask.h"
#include "worker/shim/shim.h"

#define FRAME_BYTES_MAX (64u * KIB)
enum { STREAM_JOB = 1, STREAM_DAVIT = 3 };

struct output {
    int spool_fd;
    int tail_fd;
    uint64_t head_limit;
    uint64_t tail_limit;
    uint64_t total_bytes; /* of the whole log */
    uint64_t head_bytes;
    uint64_t spool_size; /* of the file, frames' headers included */
    bool head_closed;    /* full, or the disk was */
    uint64_t ring_bytes; /* that went into the ring since it was last begun */
    char last_byte;
    struct mask *mask; /* the caller's */
    struct buf shown;  /* what the mask lets through */
    char frame[sizeof(struct spool_header) + FRAME_BYTES_MAX];
};

int output_open(struct output *o, const char *folder, uint64_t head_limit, uint64_t tail_limit,
                struct mask *mask);
void output_add(struct output *o, uint32_t stream, const char *p, size_t n);
/* One line of our own, behind all that was printed. */
void output_say(struct output *o, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* The same while the job goes on printing: what may be the first part of a secret waits. */
void output_interject(struct output *o, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* What `status` would say of the output now. */
void output_describe(const struct output *o, struct shim_status *ret);
/* Brings all to the disk and closes; fills in what `status` says of the output. */
void output_close(struct output *o, struct shim_status *ret);

#endif
