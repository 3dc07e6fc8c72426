/* Uploads that go on after they broke: files UNFINISHED_DIR/ID.OWNER.SIZE, whose names say all that
 * a new start must know, and a table of them. */
#include "common/base.h"

#include "broker/blob/state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uthash.h>

#include "common/limits.h"
#include "common/os.h"

#define READ_BYTES ((size_t)64 * KIB)

struct partial {
    uint8_t id[SHA256_BYTES];
    uint64_t owner;
    uint64_t size;
    unsigned users; /* under the table's lock; frees what was removed */
    bool removed;   /* no longer in the table */

    pthread_mutex_t lock; /* of all below */
    uint64_t offset;
    uint64_t touched_ms;
    struct sha256 *hash;        /* of the first `offset` bytes; NULL: to be read again */
    struct blob_upload *writer; /* NULL: nobody */
    bool sealed;                /* being committed: nobody writes */
    bool done;                  /* a blob; its file is gone */
    uint8_t digest[SHA256_BYTES];
    UT_hash_handle hh; /* the table's order is that of the beginnings */
};

struct partials {
    pthread_mutex_t lock;
    struct partial *table;
};

static void file_name(const struct partial *p, char ret[128])
{
    char hex[HEX_CHARS + 1];
    str_to_hex(p->id, SHA256_BYTES, hex);
    snprintf(ret, 128, UNFINISHED_DIR "/%s.%016" PRIx64 ".%" PRIu64, hex, p->owner, p->size);
}

static struct partial *partial_new(uint64_t owner, uint64_t size)
{
    struct partial *p = xcalloc(1, sizeof(*p));
    p->owner = owner;
    p->size = size;
    p->touched_ms = os_realtime_ms();
    check(pthread_mutex_init(&p->lock, NULL) == 0);
    return p;
}

static void partial_free(struct partial *p)
{
    sha256_free(p->hash);
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/* --- the table --- */

static void unuse(struct blobs *b, struct partial *p)
{
    pthread_mutex_lock(&b->partials->lock);
    check(p->users > 0);
    bool last = --p->users == 0 && p->removed;
    pthread_mutex_unlock(&b->partials->lock);
    if (last) {
        partial_free(p);
    }
}

static struct partial *use(struct blobs *b, const uint8_t id[SHA256_BYTES], uint64_t owner)
{
    struct partial *p;
    pthread_mutex_lock(&b->partials->lock);
    HASH_FIND(hh, b->partials->table, id, SHA256_BYTES, p);
    if (p && p->owner != owner) {
        p = NULL;
    }
    if (p) {
        p->users++;
    }
    pthread_mutex_unlock(&b->partials->lock);
    return p;
}

/* Under the table's lock. The caller has it in use, or nobody. */
static void forget(struct partials *t, struct partial *p)
{
    if (!p->removed) {
        HASH_DEL(t->table, p);
        p->removed = true;
    }
}

static bool is_done(struct partial *p)
{
    pthread_mutex_lock(&p->lock);
    bool done = p->done;
    pthread_mutex_unlock(&p->lock);
    return done;
}

/* Under the table's lock: is there room for one more? Of what is done, which is remembered for
 * whoever did not get the answer, the oldest make room. */
static int make_room(struct partials *t, uint64_t owner, uint64_t size)
{
    struct partial *p, *next;
    uint64_t bytes = 0;
    unsigned mine = 0;
    unsigned open = 0;
    HASH_ITER (hh, t->table, p, next) {
        if (!is_done(p)) {
            bytes += p->size;
            mine += p->owner == owner;
            open++;
        }
    }
    if (mine >= LIMIT_OWNER_UNFINISHED) {
        return -E_LIMIT;
    }
    if (open >= LIMIT_UNFINISHED ||
        size > LIMIT_UNFINISHED_BYTES - MIN(bytes, LIMIT_UNFINISHED_BYTES)) {
        return -E_BUSY;
    }
    HASH_ITER (hh, t->table, p, next) {
        if (HASH_COUNT(t->table) >= 2 * LIMIT_UNFINISHED && p->users == 0 && is_done(p)) {
            forget(t, p);
            partial_free(p);
        }
    }
    return 0;
}

/* --- a start --- */

/* NULL: it is none of ours. */
static struct partial *read_name(const char *name)
{
    uint8_t id[SHA256_BYTES];
    uint8_t owner[8];
    uint64_t size;
    uint64_t number = 0;
    struct str rest = str_from(name);
    struct str hex, middle;
    if (!str_split(&rest, '.', &hex) || !str_split(&rest, '.', &middle) ||
        str_from_hex(hex, id, sizeof(id)) < 0 || str_from_hex(middle, owner, sizeof(owner)) < 0 ||
        str_to_u64(rest, &size) < 0 || size > LIMIT_BLOB_BYTES) {
        return NULL;
    }
    for (size_t i = 0; i < sizeof(owner); i++) {
        number = number << 8 | owner[i];
    }
    struct partial *p = partial_new(number, size);
    memcpy(p->id, id, sizeof(id));
    return p;
}

/* A file with two names is a blob already: whoever sent it did not hear so, and sends it again. */
static void load_one(struct blobs *b, int dir_fd, const char *name)
{
    struct stat st;
    struct partial *p = read_name(name);
    if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !p || !S_ISREG(st.st_mode) ||
        st.st_nlink != 1 || (uint64_t)st.st_size > p->size) {
        if (name[0] != '.') {
            unlinkat(dir_fd, name, 0);
        }
        if (p) {
            partial_free(p);
        }
        return;
    }
    p->offset = (uint64_t)st.st_size;
    p->touched_ms = (uint64_t)st.st_mtim.tv_sec * 1000;
    HASH_ADD(hh, b->partials->table, id, SHA256_BYTES, p);
}

int partials_open(struct blobs *b)
{
    if (mkdirat(b->dir_fd, UNFINISHED_DIR, 0700) != 0 && errno != EEXIST) {
        return err_from_errno(errno);
    }
    int fd = openat(b->dir_fd, UNFINISHED_DIR, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d) {
        int r = err_from_errno(errno);
        if (fd >= 0) {
            close(fd);
        }
        return r;
    }
    b->partials = xcalloc(1, sizeof(*b->partials));
    check(pthread_mutex_init(&b->partials->lock, NULL) == 0);
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        load_one(b, fd, e->d_name);
    }
    closedir(d);
    return 0;
}

void partials_close(struct blobs *b)
{
    struct partial *p, *next;
    if (!b->partials) {
        return;
    }
    HASH_ITER (hh, b->partials->table, p, next) {
        check(p->users == 0);
        forget(b->partials, p);
        partial_free(p);
    }
    pthread_mutex_destroy(&b->partials->lock);
    free(b->partials);
}

/* --- for the API --- */

int blob_partial_begin(struct blobs *b, uint64_t owner, uint64_t size, uint8_t ret_id[SHA256_BYTES])
{
    char name[128];
    if (size > LIMIT_BLOB_BYTES) {
        return -E_TOO_BIG;
    }
    struct partial *p = partial_new(owner, size);
    os_random(p->id, sizeof(p->id));
    p->hash = sha256_new();
    file_name(p, name);
    pthread_mutex_lock(&b->partials->lock);
    int r = make_room(b->partials, owner, size);
    int fd = r < 0 ? -1 : openat(b->dir_fd, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    if (r == 0 && fd < 0) {
        r = err_from_errno(errno);
    }
    if (r == 0) {
        close(fd);
        memcpy(ret_id, p->id, SHA256_BYTES);
        HASH_ADD(hh, b->partials->table, id, SHA256_BYTES, p);
    }
    pthread_mutex_unlock(&b->partials->lock);
    if (r < 0) {
        partial_free(p);
    }
    return r;
}

int blob_partial_look(struct blobs *b, const uint8_t id[SHA256_BYTES], uint64_t owner,
                      struct blob_partial *ret)
{
    struct partial *p = use(b, id, owner);
    if (!p) {
        return -E_NOT_FOUND;
    }
    pthread_mutex_lock(&p->lock);
    if (!p->sealed) {
        p->writer = NULL; /* the offset stays as it is told now */
    }
    ret->size = p->size;
    ret->offset = p->offset;
    ret->done = p->done;
    memcpy(ret->digest, p->digest, SHA256_BYTES);
    pthread_mutex_unlock(&p->lock);
    unuse(b, p);
    return 0;
}

static int take_over(struct partial *p, uint64_t offset, struct blob_upload *u)
{
    int r = 0;
    pthread_mutex_lock(&p->lock);
    if (p->done || offset != p->offset) {
        r = -E_CONFLICT;
    } else if (p->sealed) {
        r = -E_BUSY;
    } else {
        p->writer = u;
        p->touched_ms = os_realtime_ms();
    }
    pthread_mutex_unlock(&p->lock);
    return r;
}

int blob_partial_resume(struct blobs *b, const uint8_t id[SHA256_BYTES], uint64_t owner,
                        uint64_t offset, struct blob_upload **ret)
{
    struct partial *p = use(b, id, owner);
    if (!p) {
        return -E_NOT_FOUND;
    }
    struct blob_upload *u = xcalloc(1, sizeof(*u));
    u->blobs = b;
    u->partial = p;
    u->size = p->size;
    file_name(p, u->tmp_name);
    u->fd = openat(b->dir_fd, u->tmp_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    int r = u->fd < 0 && errno != ENOENT ? err_from_errno(errno) : take_over(p, offset, u);
    if (r == 0 && u->fd < 0) {
        r = -E_NOT_FOUND; /* it was removed just now */
    }
    if (r < 0) {
        blob_upload_abort(u);
        return r;
    }
    *ret = u;
    return 0;
}

bool blob_upload_is_whole(const struct blob_upload *u)
{
    struct partial *p = u->partial;
    if (!p) {
        return true;
    }
    pthread_mutex_lock(&p->lock);
    bool whole = p->writer == u && p->offset == p->size;
    pthread_mutex_unlock(&p->lock);
    return whole;
}

/* Under its own lock: false while somebody is at it. */
static bool may_go(struct partial *p, uint64_t older_than_ms)
{
    pthread_mutex_lock(&p->lock);
    bool may = !p->sealed && !p->writer && p->touched_ms <= older_than_ms;
    p->sealed = p->sealed || may; /* nobody begins to write to it */
    pthread_mutex_unlock(&p->lock);
    return may;
}

static uint64_t drop(struct blobs *b, struct partial *p)
{
    char name[128];
    file_name(p, name);
    if (!p->done) {
        unlinkat(b->dir_fd, name, 0);
    }
    forget(b->partials, p);
    return p->done ? 0 : p->offset;
}

int blob_partial_remove(struct blobs *b, const uint8_t id[SHA256_BYTES], uint64_t owner,
                        uint64_t *ret_freed)
{
    struct blob_partial ignored;
    int r = blob_partial_look(b, id, owner, &ignored); /* takes it from whoever writes to it */
    struct partial *p = r == 0 ? use(b, id, owner) : NULL;
    if (!p) {
        return -E_NOT_FOUND;
    }
    r = is_done(p) || may_go(p, UINT64_MAX) ? 0 : -E_BUSY;
    if (r == 0) {
        pthread_mutex_lock(&b->partials->lock);
        *ret_freed = p->removed ? 0 : drop(b, p);
        pthread_mutex_unlock(&b->partials->lock);
    }
    unuse(b, p);
    return r;
}

uint64_t blob_partial_sweep(struct blobs *b, uint64_t now_ms, uint64_t min_age_ms)
{
    struct partial *p, *next;
    uint64_t freed = 0;
    if (now_ms < min_age_ms) {
        return 0;
    }
    pthread_mutex_lock(&b->partials->lock);
    HASH_ITER (hh, b->partials->table, p, next) {
        if (p->users == 0 && (may_go(p, now_ms - min_age_ms) ||
                              (is_done(p) && p->touched_ms <= now_ms - min_age_ms))) {
            freed += drop(b, p);
            partial_free(p);
        }
    }
    pthread_mutex_unlock(&b->partials->lock);
    return freed;
}

/* --- for blobs.c --- */

int partial_write(struct blob_upload *u, const void *bytes, size_t n)
{
    struct partial *p = u->partial;
    pthread_mutex_lock(&p->lock);
    int r = u->failed;
    if (r == 0 && p->writer != u) {
        r = -E_CONFLICT; /* somebody else goes on with it */
    } else if (r == 0 && n > p->size - p->offset) {
        r = -E_TOO_BIG;
    } else if (r == 0) {
        r = os_pwrite_all(u->fd, bytes, n, p->offset);
    }
    if (r == 0) {
        if (p->hash) {
            sha256_add(p->hash, bytes, n);
        }
        p->offset += n;
    }
    u->failed = r;
    pthread_mutex_unlock(&p->lock);
    return r;
}

int read_digest(int fd, uint64_t size, uint8_t ret[SHA256_BYTES])
{
    char *bytes = xmalloc(READ_BYTES);
    struct sha256 *hash = sha256_new();
    uint64_t done = 0;
    size_t n = 1;
    int r = 0;
    while (r == 0 && done < size && n > 0) {
        r = os_pread_all(fd, bytes, MIN((uint64_t)READ_BYTES, size - done), done, &n);
        if (r == 0) {
            sha256_add(hash, bytes, n);
            done += n;
        }
    }
    sha256_end(hash, ret);
    sha256_free(hash);
    free(bytes);
    return r == 0 && done < size ? -E_IO : r;
}

int partial_seal(struct blob_upload *u, uint8_t ret_digest[SHA256_BYTES])
{
    struct partial *p = u->partial;
    int r = 0;
    pthread_mutex_lock(&p->lock);
    if (p->writer != u || p->offset != p->size) {
        r = -E_CONFLICT;
    } else {
        p->sealed = true;
    }
    struct sha256 *hash = r == 0 ? p->hash : NULL;
    p->hash = r == 0 ? NULL : p->hash;
    pthread_mutex_unlock(&p->lock);
    if (hash) {
        sha256_end(hash, ret_digest);
        sha256_free(hash);
    } else if (r == 0) {
        r = read_digest(u->fd, p->size, ret_digest);
        if (r < 0) {
            partial_sealed(u, r, ret_digest);
        }
    }
    return r;
}

void partial_sealed(struct blob_upload *u, int r, const uint8_t digest[SHA256_BYTES])
{
    struct partial *p = u->partial;
    pthread_mutex_lock(&p->lock);
    p->sealed = r == 0;
    p->done = r == 0;
    p->writer = NULL;
    p->touched_ms = os_realtime_ms();
    if (r == 0) {
        memcpy(p->digest, digest, SHA256_BYTES);
        unlinkat(u->blobs->dir_fd, u->tmp_name, 0);
    }
    pthread_mutex_unlock(&p->lock);
}

void partial_leave(struct blob_upload *u)
{
    struct partial *p = u->partial;
    pthread_mutex_lock(&p->lock);
    if (p->writer == u && !p->sealed) {
        p->writer = NULL;
        p->touched_ms = os_realtime_ms();
    }
    pthread_mutex_unlock(&p->lock);
    unuse(u->blobs, p);
}
