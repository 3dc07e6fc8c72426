/* What blobs.c and partial.c share. */
#ifndef DAVIT_BLOB_STATE_H
#define DAVIT_BLOB_STATE_H

#include <pthread.h>

#include "broker/blob/blob.h"

#define HEX_CHARS      (2 * SHA256_BYTES)
#define UNFINISHED_DIR "unfinished" /* uploads that may go on later; survives a start */

struct partials;

struct blobs {
    int dir_fd;
    bool unnamed;          /* the filesystem has O_TMPFILE */
    pthread_mutex_t names; /* a name appears, is touched or goes only under it */
    struct partials *partials;
    uint64_t keep_bytes;
    struct s3 *remote; /* NULL: the folder is all there is */
};

struct blob_upload {
    struct blobs *blobs;
    struct sha256 *hash; /* NULL with a partial, which has its own */
    uint64_t size;
    uint64_t max_bytes;
    int fd;
    int failed;              /* sticky */
    char tmp_name[128];      /* below the folder; "" for an unnamed file */
    struct partial *partial; /* NULL: all in one request */
};

/* What was written is a copy of that blob: checks it, gives it its name. -E_CORRUPT. */
int upload_take_copy(struct blob_upload *u, const uint8_t digest[SHA256_BYTES]);
/* Removes the file unless it was used since. Returns bytes freed. */
uint64_t remove_blob(struct blobs *b, const uint8_t digest[SHA256_BYTES], uint64_t used_ms);
/* 0 as well where there is no S3. */
int remote_put(struct blobs *b, const uint8_t digest[SHA256_BYTES], int fd, uint64_t size);
bool remote_has(struct blobs *b, const uint8_t digest[SHA256_BYTES]);
uint64_t remote_sweep(struct blobs *b, uint64_t older_than_ms, blob_wanted_fn wanted, void *ctx);
int read_digest(int fd, uint64_t size, uint8_t ret[SHA256_BYTES]);

int partials_open(struct blobs *b); /* reads what an earlier broker left */
void partials_close(struct blobs *b);
int partial_write(struct blob_upload *u, const void *p, size_t n);
/* Nobody writes to it any more, and its digest is known. */
int partial_seal(struct blob_upload *u, uint8_t ret_digest[SHA256_BYTES]);
/* The end of a commit that began with partial_seal: the blob has its name, or r says why not. */
void partial_sealed(struct blob_upload *u, int r, const uint8_t digest[SHA256_BYTES]);
void partial_leave(struct blob_upload *u); /* what was written stays */

#endif
