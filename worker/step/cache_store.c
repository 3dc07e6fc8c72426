#include "common/base.h"

#include "worker/step/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"

#define LOCK_TRIES   100u /* some 2 s: what is done under the lock takes a moment */
#define LOCK_WAIT_MS 20u
#define STALE_S      3600 /* a new file that nobody wrote to for so long has lost its process */
#define FREE_SHARE   4u

static char *copy_path(const char *dir, const uint8_t *digest)
{
    char hex[2 * SHA256_BYTES + 1];
    str_to_hex(digest, SHA256_BYTES, hex);
    return os_path_join(dir, hex);
}

int cache_store_open(const char *dir, const uint8_t *digest, int *ret_fd)
{
    uint8_t got[SHA256_BYTES];
    uint64_t size;
    char *path = copy_path(dir, digest);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    int r = fd < 0 ? err_from_errno(errno) : step_file_digest(fd, got, &size);
    if (r == 0 && memcmp(got, digest, sizeof(got)) != 0) {
        unlink(path);
        r = -E_NOT_FOUND;
    }
    if (r == 0) {
        (void)futimens(fd, NULL); /* used: it stays longer */
        *ret_fd = fd;
    } else if (fd >= 0) {
        close(fd);
    }
    free(path);
    return r;
}

struct copy {
    char *path;
    uint64_t size;
    struct timespec used;
    bool fresh; /* no copy yet: somebody writes it */
};

struct copies {
    const char *dir;
    struct copy *items;
    size_t count;
    uint64_t bytes;
};

static void add_copy(void *ctx, const char *name)
{
    struct copies *c = ctx;
    struct stat st;
    char *path = os_path_join(c->dir, name);
    if (strcmp(name, "lock") == 0 || lstat(path, &st) < 0 || !S_ISREG(st.st_mode)) {
        free(path);
        return;
    }
    bool fresh = str_starts(str_from(name), STR("new."));
    if (fresh && st.st_mtime + STALE_S < (time_t)(os_realtime_ms() / 1000)) {
        unlink(path);
        free(path);
        return;
    }
    c->items = xrealloc(c->items, (c->count + 1) * sizeof(*c->items));
    c->items[c->count++] = (struct copy){
        .path = path, .size = (uint64_t)st.st_size, .used = st.st_mtim, .fresh = fresh};
    c->bytes += (uint64_t)st.st_size;
}

static int compare_used(const void *a, const void *b)
{
    const struct timespec *x = &((const struct copy *)a)->used;
    const struct timespec *y = &((const struct copy *)b)->used;
    if (x->tv_sec != y->tv_sec) {
        return x->tv_sec < y->tv_sec ? -1 : 1;
    }
    return x->tv_nsec < y->tv_nsec ? -1 : x->tv_nsec > y->tv_nsec;
}

uint64_t cache_store_limit(void)
{
    const char *text = getenv("DAVIT_CACHE_BYTES");
    uint64_t bytes;
    return text != NULL && str_to_u64(str_from(text), &bytes) == 0 ? bytes
                                                                   : LIMIT_WORKER_CACHE_BYTES;
}

/* Makes the folder fit: all in it counts, the new file too. True when it does. */
static bool make_room(const char *dir)
{
    struct copies copies = {.dir = dir};
    uint64_t free_bytes = 0;
    uint64_t total;
    if (os_list_dir(dir, add_copy, &copies) < 0 || os_disk_free(dir, &free_bytes, &total) < 0) {
        copies.bytes = UINT64_MAX;
    }
    uint64_t most = MIN(cache_store_limit(), (copies.bytes + free_bytes) / FREE_SHARE);
    if (copies.count > 1) {
        qsort(copies.items, copies.count, sizeof(*copies.items), compare_used);
    }
    for (size_t i = 0; i < copies.count; i++) {
        const struct copy *copy = &copies.items[i];
        if (copies.bytes > most && !copy->fresh && unlink(copy->path) == 0) {
            copies.bytes -= copy->size;
        }
        free(copy->path);
    }
    free(copies.items);
    return copies.bytes <= most;
}

static int lock(const char *dir, int *ret_fd)
{
    char *path = os_path_join(dir, "lock");
    int r = -E_BUSY;
    for (unsigned tries = 0; r == -E_BUSY && tries < LOCK_TRIES; tries++) {
        if (tries > 0) {
            os_sleep_ms(LOCK_WAIT_MS);
        }
        r = os_lock_file(path, ret_fd);
    }
    free(path);
    return r;
}

int cache_file_new(const char *dir, struct cache_file *ret)
{
    int r = os_mkdir_p(dir, 0700);
    if (r < 0) {
        return r;
    }
    char *path = os_path_join(dir, "new.XXXXXX");
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) {
        r = err_from_errno(errno);
        free(path);
        return r;
    }
    *ret = (struct cache_file){.fd = fd, .path = path};
    return 0;
}

void cache_file_keep(struct cache_file *f, const char *dir, const uint8_t *digest, uint64_t size)
{
    int lock_fd;
    if (size > cache_store_limit() || lock(dir, &lock_fd) < 0) {
        return;
    }
    if (make_room(dir)) {
        char *path = copy_path(dir, digest);
        if (rename(f->path, path) == 0) {
            free(f->path);
            f->path = NULL;
        }
        free(path);
    }
    close(lock_fd);
}

void cache_file_release(struct cache_file *f)
{
    close(f->fd);
    if (f->path != NULL) {
        unlink(f->path);
    }
    free(f->path);
    *f = (struct cache_file){.fd = -1};
}
