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

/* From now on a blob has to be in S3, too, before a commit returns 0 (blob/s3.h); -E_UNREACHABLE
 * then, and another try is worth it. The folder keeps copies (blob_shrink). Takes it over; before
 * other threads use `b`. */
struct s3;
void blobs_use_s3(struct blobs *b, struct s3 *s3, uint64_t keep_bytes);
/* Brings a blob from S3 into the folder, checked by its hash. -E_NOT_FOUND: not there, or no S3. */
int blob_fetch(struct blobs *b, const uint8_t digest[SHA256_BYTES]);
/* Removes copies that are older than min_age_ms and were used longest ago, until there are
 * keep_bytes of blobs_use_s3; only what is in S3, or could be brought there. Returns bytes freed.
 */
uint64_t blob_shrink(struct blobs *b, uint64_t now_ms, uint64_t min_age_ms);
/* Brings to S3 what is not there yet. Returns how many could not be. */
uint64_t blob_bring(struct blobs *b);

struct blob_upload;
int blob_upload_begin(struct blobs *b, uint64_t max_bytes, struct blob_upload **ret);
int blob_upload_write(struct blob_upload *u, const void *p, size_t n); /* -E_TOO_BIG, -E_NO_SPACE */
/* Durable and named when it returns 0. Frees the upload in any case. */
int blob_upload_commit(struct blob_upload *u, uint8_t ret_digest[SHA256_BYTES], uint64_t *ret_size);
void blob_upload_abort(struct blob_upload *u); /* NULL is fine */

/* Uploads of several requests: whoever broke off asks how much is here and goes on from there, also
 * after a restart of the broker. An upload is its owner's (a number that stands for a token):
 * others do not find it. -E_LIMIT: the owner has LIMIT_OWNER_UNFINISHED of them, -E_BUSY: all
 * together have LIMIT_UNFINISHED or LIMIT_UNFINISHED_BYTES; -E_TOO_BIG, -E_NO_SPACE. */
int blob_partial_begin(struct blobs *b, uint64_t owner, uint64_t size,
                       uint8_t ret_id[SHA256_BYTES]);
struct blob_partial {
    uint64_t size;
    uint64_t offset; /* what is here of it */
    bool done;       /* it is a blob, of this digest */
    uint8_t digest[SHA256_BYTES];
};
/* Who wrote to it until now cannot any more, so that the offset is true until the next resume.
 * -E_NOT_FOUND. */
int blob_partial_look(struct blobs *b, const uint8_t id[SHA256_BYTES], uint64_t owner,
                      struct blob_partial *ret);
/* An upload to write, commit or abort, which keeps what was written. -E_NOT_FOUND, -E_CONFLICT:
 * done, or not at that offset; -E_BUSY: being committed. The newest resume is the one that writes:
 * blob_upload_write of an older one is -E_CONFLICT. */
int blob_partial_resume(struct blobs *b, const uint8_t id[SHA256_BYTES], uint64_t owner,
                        uint64_t offset, struct blob_upload **ret);
bool blob_upload_is_whole(const struct blob_upload *u); /* may be committed */
/* -E_NOT_FOUND, -E_BUSY: being committed. */
int blob_partial_remove(struct blobs *b, const uint8_t id[SHA256_BYTES], uint64_t owner,
                        uint64_t *ret_freed);
/* Removes what nobody has written to for min_age_ms. Returns bytes freed. */
uint64_t blob_partial_sweep(struct blobs *b, uint64_t now_ms, uint64_t min_age_ms);

/* -E_NOT_FOUND. The descriptor is the caller's. Where there is S3, and the blob only there, it is
 * fetched first, which takes its time; blob_open_here does not look there. */
int blob_open_here(struct blobs *b, const uint8_t digest[SHA256_BYTES], int *ret_fd,
                   uint64_t *ret_size);
int blob_open(struct blobs *b, const uint8_t digest[SHA256_BYTES], int *ret_fd, uint64_t *ret_size);
/* Also makes the blob young again: who asked may refer to it before a sweep takes it. */
bool blob_exists(struct blobs *b, const uint8_t digest[SHA256_BYTES]);

/* Removes blobs that are older than min_age_ms and of which `wanted` says no. Returns bytes freed.
 */
typedef bool (*blob_wanted_fn)(void *ctx, const uint8_t digest[SHA256_BYTES]);
uint64_t blob_sweep(struct blobs *b, uint64_t now_ms, uint64_t min_age_ms, blob_wanted_fn wanted,
                    void *ctx);

#endif
