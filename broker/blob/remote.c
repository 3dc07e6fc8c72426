/* Blobs that are in S3 as well, or only there: the folder keeps what was used last. */
#include "common/base.h"

#include "broker/blob/s3.h"
#include "broker/blob/state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/os.h"

void blobs_use_s3(struct blobs *b, struct s3 *s3, uint64_t keep_bytes)
{
    check(!b->remote);
    b->remote = s3;
    b->keep_bytes = keep_bytes;
}

/* Logged here: what the caller can say of it is an error's name. */
static int remote_failed(int r, const char *what, struct buf *why)
{
    if (r < 0 && r != -E_NOT_FOUND) {
        log_warn("blobs: cannot %s: %s", what, why->n > 0 ? buf_cstr(why) : err_text(r));
    }
    buf_release(why);
    return r;
}

int remote_put(struct blobs *b, const uint8_t digest[SHA256_BYTES], int fd, uint64_t size)
{
    struct buf why = BUF_INIT;
    if (!b->remote) {
        return 0;
    }
    return remote_failed(s3_put(b->remote, digest, fd, size, &why), "store a blob", &why);
}

bool remote_has(struct blobs *b, const uint8_t digest[SHA256_BYTES])
{
    struct buf why = BUF_INIT;
    uint64_t size;
    return b->remote &&
           remote_failed(s3_size(b->remote, digest, &size, &why), "look for a blob", &why) == 0;
}

int blob_fetch(struct blobs *b, const uint8_t digest[SHA256_BYTES])
{
    struct buf why = BUF_INIT;
    struct blob_upload *u;
    if (!b->remote) {
        return -E_NOT_FOUND;
    }
    int r = blob_upload_begin(b, UINT64_MAX, &u);
    if (r < 0) {
        return r;
    }
    r = remote_failed(s3_get(b->remote, digest, u->fd, &why), "fetch a blob", &why);
    if (r == 0) {
        r = upload_take_copy(u, digest);
    }
    blob_upload_abort(u);
    return r;
}

/* --- what the folder keeps --- */

struct kept {
    uint8_t digest[SHA256_BYTES];
    uint64_t size;
    uint64_t used_ms;
};

struct keeps {
    struct kept *items;
    size_t count;
    uint64_t bytes;
};

static void add_folder(struct blobs *b, const char *folder, struct keeps *k)
{
    int fd = openat(b->dir_fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        struct kept one;
        struct stat st;
        if (str_from_hex(str_from(e->d_name), one.digest, sizeof(one.digest)) < 0 ||
            fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0) {
            continue;
        }
        one.size = (uint64_t)st.st_size;
        one.used_ms = (uint64_t)st.st_mtim.tv_sec * 1000 + (uint64_t)st.st_mtim.tv_nsec / 1000000;
        k->items = xrealloc(k->items, (k->count + 1) * sizeof(*k->items));
        k->items[k->count++] = one;
        k->bytes += one.size;
    }
    closedir(d);
}

static void list_kept(struct blobs *b, struct keeps *k)
{
    for (unsigned i = 0; b->remote && i < 256; i++) {
        char folder[3];
        uint8_t byte = (uint8_t)i;
        str_to_hex(&byte, 1, folder);
        add_folder(b, folder, k);
    }
}

static int compare_used(const void *a, const void *b)
{
    uint64_t x = ((const struct kept *)a)->used_ms;
    uint64_t y = ((const struct kept *)b)->used_ms;
    return x < y ? -1 : x > y;
}

/* A blob of an installation that had no S3 yet is brought there. */
static bool is_safe(struct blobs *b, const struct kept *one)
{
    struct buf why = BUF_INIT;
    uint64_t there = 0;
    int fd;
    uint64_t size;
    int r = remote_failed(s3_size(b->remote, one->digest, &there, &why), "look for a blob", &why);
    if (r == 0 && there == one->size) {
        return true;
    }
    if ((r < 0 && r != -E_NOT_FOUND) || blob_open_here(b, one->digest, &fd, &size) < 0) {
        return false;
    }
    r = remote_put(b, one->digest, fd, size);
    close(fd);
    return r == 0;
}

uint64_t blob_shrink(struct blobs *b, uint64_t now_ms, uint64_t min_age_ms)
{
    struct keeps k = {0};
    uint64_t freed = 0;
    list_kept(b, &k);
    if (k.count > 1) {
        qsort(k.items, k.count, sizeof(*k.items), compare_used);
    }
    for (size_t i = 0; i < k.count && k.bytes - freed > b->keep_bytes; i++) {
        if (k.items[i].used_ms + min_age_ms <= now_ms && is_safe(b, &k.items[i])) {
            freed += remove_blob(b, k.items[i].digest, k.items[i].used_ms);
        }
    }
    free(k.items);
    return freed;
}

uint64_t blob_bring(struct blobs *b)
{
    struct keeps k = {0};
    uint64_t there = 0;
    list_kept(b, &k);
    for (size_t i = 0; i < k.count; i++) {
        there += is_safe(b, &k.items[i]);
    }
    uint64_t left = k.count - there;
    free(k.items);
    return left;
}

/* --- what nobody needs --- */

struct unwanted {
    struct blobs *blobs;
    uint64_t older_than_ms;
    blob_wanted_fn wanted;
    void *ctx;
    uint64_t freed;
};

/* A copy here that is young was asked for or sent just now. */
static bool is_young(struct blobs *b, const uint8_t digest[SHA256_BYTES], uint64_t older_than_ms)
{
    struct stat st;
    uint64_t size;
    int fd;
    if (blob_open_here(b, digest, &fd, &size) < 0) {
        return false;
    }
    bool young = fstat(fd, &st) != 0 || (uint64_t)st.st_mtim.tv_sec * 1000 > older_than_ms;
    close(fd);
    return young;
}

static bool sweep_object(void *ctx, const uint8_t digest[SHA256_BYTES], uint64_t modified_ms,
                         uint64_t size)
{
    struct unwanted *u = ctx;
    struct buf why = BUF_INIT;
    if (modified_ms <= u->older_than_ms && !u->wanted(u->ctx, digest) &&
        !is_young(u->blobs, digest, u->older_than_ms)) {
        int r = remote_failed(s3_delete(u->blobs->remote, digest, &why), "delete a blob", &why);
        u->freed += r == 0 ? size : 0;
        return r == 0;
    }
    return true;
}

uint64_t remote_sweep(struct blobs *b, uint64_t older_than_ms, blob_wanted_fn wanted, void *ctx)
{
    struct unwanted u = {.blobs = b, .older_than_ms = older_than_ms, .wanted = wanted, .ctx = ctx};
    struct buf why = BUF_INIT;
    if (b->remote) {
        remote_failed(s3_list(b->remote, sweep_object, &u, &why), "list the blobs", &why);
    }
    return u.freed;
}
