/* Published pages on the disk: DIR/DIGEST is the unpacked archive of that digest, made on demand
 * from the blob. A DIGEST.bad beside it says why an archive cannot be unpacked, so that it is not
 * tried again with each request. Which of them is published where is said by the store (T_PAGES);
 * pages_sweep removes the rest.
 * Ownership: pages_close. Threads: all safe; pages_unpack takes its time. */
#ifndef DAVIT_PAGES_H
#define DAVIT_PAGES_H

#include "broker/blob/blob.h"

struct pages;
/* What a broker that died left half unpacked goes. */
int pages_open(const char *dir, struct blobs *blobs, struct pages **ret, struct buf *why);
void pages_close(struct pages *p); /* NULL is fine */

/* Is it unpacked, or known to be no use? */
bool pages_ready(struct pages *p, const uint8_t digest[SHA256_BYTES]);
/* Makes it so, unless it is. -E_NOT_FOUND: there is no such blob; -E_NO_SPACE: it would leave less
 * than LIMIT_DISK_RESERVE to the store; -E_IO. An archive that is refused is no error here:
 * page_open tells. */
int pages_unpack(struct pages *p, const uint8_t digest[SHA256_BYTES], struct buf *why);

struct page {
    int fd; /* the caller's */
    uint64_t size;
    const char *type; /* Content-Type, by the name's ending */
    bool is_folder;   /* no file: a folder with an index.html, asked for without a slash at the end;
                         fd is -1 */
};

/* The file at a decoded path: "a/b.html"; "a/" and "" are the index.html there; "a" may be
 * "a.html". -E_NOT_FOUND: nothing there, or a path that cannot be one (empty parts, dots, over
 * LIMIT_PAGE_PATH), or it is not unpacked. -E_GONE: the archive cannot be unpacked, `why` has the
 * reason. */
int page_open(struct pages *p, const uint8_t digest[SHA256_BYTES], struct str path,
              struct page *ret, struct buf *why);

/* Removes what `wanted` says no of. Returns the number of folders that went. */
uint64_t pages_sweep(struct pages *p, blob_wanted_fn wanted, void *ctx);

#endif
