/* Objects in a bucket of S3, or of what speaks as it does: PREFIX/ab/abcdef..., the same names that
 * the blob folder has, so that any S3 tool moves an installation there and back. Every request is
 * signed; a PUT is signed with the body's hash, so that the server refuses other bytes. Tried again
 * with growing pauses while the server does not answer, for about half a minute.
 * Threads: all safe after s3_open; the calls block. */
#ifndef DAVIT_BLOB_S3_H
#define DAVIT_BLOB_S3_H

#include "common/buf.h"
#include "common/crypto.h"
#include "common/err.h"

struct s3;

/* `url` is http(s)://HOST[:PORT]/BUCKET[/PREFIX]. `source` says where ACCESS_KEY:SECRET_KEY is, or
 * the two in two lines where the first has a colon: file:PATH (mode 0600 at most), env:NAME
 * (removed from the environment), command:TEXT (what sh prints). -E_INVALID and others with a line
 * in `why`. Whether the server answers is not asked. */
int s3_open(const char *url, const char *region, const char *source, struct s3 **ret,
            struct buf *why);
void s3_close(struct s3 *s); /* NULL is fine */

/* Each puts a line into `why` on failure. */
/* Whether the bucket is there and the key opens it, asked once, by the list of it. -E_FORBIDDEN,
 * -E_NOT_FOUND, -E_FAILED: it does not, and will not by itself. */
int s3_check(struct s3 *s, struct buf *why);
/* What fd holds from its start. When it returns 0 the server has said that it has these bytes, and
 * so many. */
int s3_put(struct s3 *s, const uint8_t digest[SHA256_BYTES], int fd, uint64_t size,
           struct buf *why);
/* Into fd, which is empty. -E_NOT_FOUND. The caller looks at the hash. */
int s3_get(struct s3 *s, const uint8_t digest[SHA256_BYTES], int fd, struct buf *why);
/* -E_NOT_FOUND. */
int s3_size(struct s3 *s, const uint8_t digest[SHA256_BYTES], uint64_t *ret_size, struct buf *why);
int s3_delete(struct s3 *s, const uint8_t digest[SHA256_BYTES], struct buf *why);
/* All blobs there, in no order, until fn returns false; objects with other names are left out. */
typedef bool (*s3_object_fn)(void *ctx, const uint8_t digest[SHA256_BYTES], uint64_t modified_ms,
                             uint64_t size);
int s3_list(struct s3 *s, s3_object_fn fn, void *ctx, struct buf *why);

#endif
