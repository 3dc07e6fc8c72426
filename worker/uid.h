/* The state folder of a worker: one process at a time, and 16 random bytes, made once, by which the
 * broker knows the worker again. */
#ifndef DAVIT_WORKER_UID_H
#define DAVIT_WORKER_UID_H

#include "common/buf.h"
#include "common/err.h"

#define UID_BYTES 16u

/* -E_BUSY: another process has it. The descriptor is the lock; the folder must be there. */
int uid_lock(const char *state, int *ret_fd, struct buf *why);
int uid_load(const char *state, uint8_t ret[UID_BYTES], struct buf *why);

#endif
