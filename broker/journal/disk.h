/* The files of the journal: one folder, and in it files of a fixed size that are written in place.
 * All that the journal asks of the system goes through here, so that a test can link a disk of its
 * own which loses, tears and refuses.
 *
 * What a disk promises, and no more: bytes written are durable once disk_flush has returned 0;
 * until then any part of them may be. A name is durable once disk_sync has. After a disk_flush that
 * failed nothing is known of the bytes, and a second one would lie. Errors: -E_NO_SPACE, -E_IO,
 * -E_NOT_FOUND, -E_EXISTS, and what err_from_errno makes of others. Threads: one, the owner's. */
#ifndef DAVIT_DISK_H
#define DAVIT_DISK_H

#include "common/err.h"

struct disk;

/* Opens the folder; with `write` it is made where it is not there (-E_NOT_FOUND else). */
int disk_open(const char *dir, bool write, struct disk **ret);
void disk_close(struct disk *d); /* NULL is fine; all files were closed */

/* Calls fn with each name, in no order. */
int disk_list(struct disk *d, void (*fn)(void *ctx, const char *name), void *ctx);
int disk_rename(struct disk *d, const char *from, const char *to); /* replaces */
int disk_unlink(struct disk *d, const char *name);
int disk_sync(struct disk *d); /* makes names durable */

struct disk_file;

/* A new file of `bytes` zeros, all of them written and flushed, so that writing within them never
 * finds a full disk and costs no more the first time than later. It has its name once it is whole.
 * -E_EXISTS. */
int disk_create(struct disk *d, const char *name, uint64_t bytes, struct disk_file **ret);
int disk_open_file(struct disk *d, const char *name, bool write, struct disk_file **ret);
void disk_close_file(struct disk_file *f); /* NULL is fine; flushes nothing */

int disk_size(struct disk_file *f, uint64_t *ret_bytes);
/* All n bytes, or an error; then any part of them may be there. */
int disk_write(struct disk_file *f, const void *p, size_t n, uint64_t offset);
/* Up to n bytes: fewer only at the end of the file. */
int disk_read(struct disk_file *f, void *p, size_t n, uint64_t offset, size_t *ret_n);
int disk_flush(struct disk_file *f); /* what was written, not the times of the file */

#endif
