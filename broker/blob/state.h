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

int partials_open(struct blobs *b); /* reads what an earlier broker left */
void partials_close(struct blobs *b);
int partial_write(struct blob_upload *u, const void *p, size_t n);
/* Nobody writes to it any more, and its digest is known. */
int partial_seal(struct blob_upload *u, uint8_t ret_digest[SHA256_BYTES]);
/* The end of a commit that began with partial_seal: the blob has its name, or r says why not. */
void partial_sealed(struct blob_upload *u, int r, const uint8_t digest[SHA256_BYTES]);
void partial_leave(struct blob_upload *u); /* what was written stays */

#endif
