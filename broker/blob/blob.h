/* Blobs: immutable files named by the SHA-256 of their bytes, in DIR/ab/abcdef...  Written to an
 * unnamed file (O_TMPFILE), hashed on the way, fsynced, then linked: a name never shows half a
 * blob. Who needs a blob is said by the store (T_BLOB_REF); blob_sweep removes what nobody needs.
 * Threads: all safe; an upload belongs to one thread at a time. */
#ifndef DAVIT_BLOB_H
#define DAVIT_BLOB_H

#include "common/buf.h"
#include "common/crypto.h"
#include "common/err.h"

struct blobs;
int blobs_open(const char *dir, struct blobs **ret, struct buf *why);
void blobs_close(struct blobs *b);

struct blob_upload;
int blob_upload_begin(struct blobs *b, uint64_t max_bytes, struct blob_upload **ret);
int blob_upload_write(struct blob_upload *u, const void *p, size_t n); /* -E_TOO_BIG, -E_NO_SPACE */
/* Durable and named when it returns 0. Frees the upload in any case. */
int blob_upload_commit(struct blob_upload *u, uint8_t ret_digest[SHA256_BYTES], uint64_t *ret_size);
void blob_upload_abort(struct blob_upload *u); /* NULL is fine */

/* -E_NOT_FOUND. The descriptor is the caller's. */
int blob_open(struct blobs *b, const uint8_t digest[SHA256_BYTES], int *ret_fd, uint64_t *ret_size);
/* Also makes the blob young again: who asked may refer to it before a sweep takes it. */
bool blob_exists(struct blobs *b, const uint8_t digest[SHA256_BYTES]);

/* Removes blobs that are older than min_age_ms and of which `wanted` says no. Returns bytes freed.
 */
typedef bool (*blob_wanted_fn)(void *ctx, const uint8_t digest[SHA256_BYTES]);
uint64_t blob_sweep(struct blobs *b, uint64_t now_ms, uint64_t min_age_ms, blob_wanted_fn wanted,
                    void *ctx);

#endif
