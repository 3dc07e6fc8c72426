/* Pipes to programs that run beside the loop. Threads: any. */
#ifndef DAVIT_WORKER_PIPES_H
#define DAVIT_WORKER_PIPES_H

#include "common/buf.h"
#include "common/err.h"

/* Our end does not block; neither outlives an exec but as os_spawn gives it on. */
int pipe_make(int ret[2], bool our_end_reads);
/* Reads what there is of a descriptor that does not block. 1: its end; 0: not yet; -E_TOO_BIG. */
int pipe_read(int fd, struct buf *out, size_t limit);
/* Sends what it takes of what is left from *sent on. 0: not all yet, or all; -E_IO: nobody reads.
 */
int pipe_write(int fd, struct str all, size_t *sent);
/* What a program said last, of all it wrote. */
struct str last_line(struct str s);

#endif
