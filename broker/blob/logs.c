#include "common/base.h"

#include "broker/blob/logs.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uthash.h>
#include <utlist.h>

#include "common/limits.h"
#include "common/log.h"
#include "common/os.h"

#define JOBS_PER_FOLDER 4096

struct log_key {
    uint64_t job_id;
    uint64_t attempt;
};

/* An open log. It is in the table as long as it is open, and leaves it only with all its bytes on
 * the disk: what is in a file that is not in the table is durable, once opening it has fsynced it.
 */
struct log_file {
    struct log_key key;
    int fd;
    uint64_t size;    /* written; only the writer changes it */
    uint64_t durable; /* fsynced */
    uint64_t epoch;   /* of the newest chunk, for the answer */
    uint32_t pins;    /* readers and the writer's round */
    bool fresh;       /* made in this round: its folder needs an fsync */
    bool in_round;    /* a chunk of this round was for it */
    bool leave;       /* not wanted any more: goes with its last pin */
    bool removed;     /* no longer in the table */
    struct log_file *next_in_round;
    UT_hash_handle hh; /* the table's order is the order of use */
};

struct chunk {
    struct log_key key;
    uint64_t epoch;
    uint64_t offset;
    size_t n;
    struct chunk *next;
    uint8_t data[];
};

struct logs {
    char *dir;
    logs_durable_fn durable;
    void *ctx;
    pthread_t writer;

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t wake;
    struct log_file *table;
    struct chunk *queue;
    struct chunk *queue_last;
    size_t queued_bytes;
    uint64_t written_bytes;
    bool stop;

    bool disk_full; /* was said in the program's log; the writer's own */
};

struct log_path {
    char text[64]; /* below the folder */
};

static struct log_path log_folder(uint64_t job_id)
{
    struct log_path p;
    snprintf(p.text, sizeof(p.text), "/%" PRIu64, job_id / JOBS_PER_FOLDER);
    return p;
}

static struct log_path log_name(struct log_key key)
{
    struct log_path p;
    snprintf(p.text, sizeof(p.text), "/%" PRIu64 "/%" PRIu64 "-%" PRIu64 ".log",
             key.job_id / JOBS_PER_FOLDER, key.job_id, key.attempt);
    return p;
}

/* A failed write or fsync leaves the kernel's pages in doubt: only a new start reads the truth. */
NORETURN static void disk_failed(const char *what, struct log_key key)
{
    log_error("logs: %s of job %" PRIu64 " attempt %" PRIu64 " failed: %s", what, key.job_id,
              key.attempt, strerror(errno));
    abort();
}

static bool is_full(int e)
{
    return e == ENOSPC || e == EDQUOT || e == EFBIG;
}

static void file_drop(struct logs *l, struct log_file *f)
{
    if (!f->removed) {
        HASH_DEL(l->table, f);
        f->removed = true;
    }
    if (f->pins == 0) {
        close(f->fd);
        free(f);
    }
}

static void file_unpin(struct logs *l, struct log_file *f)
{
    check(f->pins > 0);
    f->pins--;
    if (f->pins == 0 && (f->leave || f->removed)) {
        file_drop(l, f);
    }
}

/* Closes what was not used for longest until the bound is kept; what is in use stays. */
static void table_trim(struct logs *l)
{
    struct log_file *f, *next;
    HASH_ITER (hh, l->table, f, next) {
        if (HASH_COUNT(l->table) <= LIMIT_LOG_FILES) {
            return;
        }
        if (f->pins == 0) {
            file_drop(l, f);
        }
    }
}

/* The file as it stands, its bytes on the disk. */
static int open_file(struct logs *l, struct log_key key, int flags, int *ret_fd)
{
    char *path = os_path_join(l->dir, log_name(key).text + 1);
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | flags, 0600);
    int saved = errno;
    free(path);
    if (fd < 0) {
        return err_from_errno(saved);
    }
    if (fdatasync(fd) != 0) {
        disk_failed("fsync at open", key);
    }
    *ret_fd = fd;
    return 0;
}

/* A sweep may take the folder away just before it gets its first log again. */
static int create_file(struct logs *l, struct log_key key, int *ret_fd)
{
    char *folder = os_path_join(l->dir, log_folder(key.job_id).text + 1);
    int r = -E_NOT_FOUND;
    for (unsigned tries = 0; tries < 3 && r == -E_NOT_FOUND; tries++) {
        r = 0;
        if (!os_exists(folder)) {
            r = os_mkdir_p(folder, 0700);
            if (r == 0) {
                r = os_fsync_dir(l->dir);
            }
        }
        r = r < 0 ? r : open_file(l, key, O_CREAT, ret_fd);
    }
    free(folder);
    return r;
}

static struct log_file *table_find(struct logs *l, struct log_key key)
{
    struct log_file *f = NULL;
    HASH_FIND(hh, l->table, &key, sizeof(key), f);
    if (f) { /* to the end of the order */
        HASH_DEL(l->table, f);
        HASH_ADD(hh, l->table, key, sizeof(f->key), f);
    }
    return f;
}

/* Finds or opens a log and pins it. Called with the lock held, which it lets go while it opens. */
static int file_get(struct logs *l, struct log_key key, bool create, struct log_file **ret)
{
    struct log_file *f = table_find(l, key);
    if (!f) {
        pthread_mutex_unlock(&l->lock);
        int fd = -1;
        bool created = false;
        int r = open_file(l, key, 0, &fd);
        if (r == -E_NOT_FOUND && create) {
            r = create_file(l, key, &fd);
            created = true;
        }
        pthread_mutex_lock(&l->lock);
        if (r < 0) {
            return r;
        }
        f = table_find(l, key);
        if (f) { /* somebody was faster */
            close(fd);
        } else {
            struct stat st;
            if (fstat(fd, &st) != 0) {
                disk_failed("stat", key);
            }
            f = xcalloc(1, sizeof(*f));
            f->key = key;
            f->fd = fd;
            f->size = f->durable = (uint64_t)st.st_size;
            HASH_ADD(hh, l->table, key, sizeof(f->key), f);
        }
        if (created) {
            f->fresh = true;
        }
    }
    f->pins++;
    table_trim(l);
    *ret = f;
    return 0;
}

static void say_disk_full(struct logs *l)
{
    if (!l->disk_full) {
        l->disk_full = true;
        log_warn("logs: the disk is full; workers keep what does not fit");
    }
}

/* Writes what is new of the chunk; what lies behind a gap is dropped. */
static void write_chunk(struct logs *l, struct log_file *f, const struct chunk *c)
{
    if (c->offset > f->size || c->offset + c->n <= f->size) {
        return;
    }
    size_t skip = (size_t)(f->size - c->offset);
    int r = os_pwrite_all(f->fd, c->data + skip, c->n - skip, f->size);
    if (r == 0) {
        f->size = c->offset + c->n;
        l->disk_full = false;
        return;
    }
    if (!is_full(errno) || ftruncate(f->fd, (off_t)f->size) != 0) {
        disk_failed("write", f->key);
    }
    say_disk_full(l);
}

/* Brings a log's bytes to the disk. A full disk takes it back to what was durable. */
static void sync_file(struct log_file *f)
{
    if (f->size == f->durable) {
        return;
    }
    if (fdatasync(f->fd) == 0) {
        return;
    }
    if (!is_full(errno) || ftruncate(f->fd, (off_t)f->durable) != 0) {
        disk_failed("fsync", f->key);
    }
    f->size = f->durable;
}

/* Makes the names of new logs durable. Neighbours share a folder: mostly one fsync a round. */
static void sync_folders(struct logs *l, struct log_file *round)
{
    uint64_t synced = UINT64_MAX;
    for (struct log_file *f = round; f; f = f->next_in_round) {
        if (!f->fresh) {
            continue;
        }
        f->fresh = false;
        if (f->key.job_id / JOBS_PER_FOLDER == synced) {
            continue;
        }
        synced = f->key.job_id / JOBS_PER_FOLDER;
        char *folder = os_path_join(l->dir, log_folder(f->key.job_id).text + 1);
        if (os_fsync_dir(folder) < 0) {
            disk_failed("fsync of the folder", f->key);
        }
        free(folder);
    }
}

/* Pins the chunk's log for the round. NULL: there is no room for it on the disk, or no descriptor.
 */
static struct log_file *round_file(struct logs *l, const struct chunk *c, struct log_file **round)
{
    struct log_file *f = NULL;
    pthread_mutex_lock(&l->lock);
    int r = file_get(l, c->key, true, &f);
    if (r == 0 && f->in_round) {
        file_unpin(l, f);
    } else if (r == 0) {
        f->in_round = true;
        LL_PREPEND2(*round, f, next_in_round);
    }
    pthread_mutex_unlock(&l->lock);
    if (r == -E_NO_SPACE) {
        say_disk_full(l);
    }
    if (r == -E_NO_SPACE || r == -E_BUSY) {
        return NULL; /* the worker keeps its bytes and tries again */
    }
    if (r < 0) {
        disk_failed("open", c->key);
    }
    f->epoch = c->epoch;
    return f;
}

/* Writes and fsyncs chunks, of as many logs as may be open at once. Returns what is left. */
static struct chunk *write_round(struct logs *l, struct chunk *chunks)
{
    struct log_file *round = NULL;
    size_t bytes = 0;
    unsigned files = 0;
    while (chunks && files < LIMIT_LOG_FILES) {
        struct chunk *c = chunks;
        chunks = c->next;
        struct log_file *before = round;
        struct log_file *f = round_file(l, c, &round);
        files += round != before;
        if (f) {
            write_chunk(l, f, c);
        } else {
            l->durable(l->ctx, c->key.job_id, c->key.attempt, c->epoch, 0);
        }
        bytes += sizeof(*c) + c->n;
        free(c);
    }
    for (struct log_file *f = round; f; f = f->next_in_round) {
        sync_file(f);
    }
    sync_folders(l, round);

    pthread_mutex_lock(&l->lock);
    l->queued_bytes -= bytes;
    for (struct log_file *f = round; f; f = f->next_in_round) {
        l->written_bytes += f->size - f->durable;
        f->durable = f->size;
    }
    pthread_mutex_unlock(&l->lock);
    for (struct log_file *f = round; f; f = f->next_in_round) {
        l->durable(l->ctx, f->key.job_id, f->key.attempt, f->epoch, f->durable);
    }
    pthread_mutex_lock(&l->lock);
    struct log_file *f, *next_file;
    LL_FOREACH_SAFE2(round, f, next_file, next_in_round)
    {
        f->in_round = false;
        f->next_in_round = NULL;
        file_unpin(l, f);
    }
    table_trim(l);
    pthread_mutex_unlock(&l->lock);
    return chunks;
}

/* The fsync gathers the next group: all that arrived meanwhile is one round. */
static void *writer_main(void *arg)
{
    struct logs *l = arg;
    pthread_mutex_lock(&l->lock);
    while (!l->stop || l->queue) {
        if (!l->queue) {
            pthread_cond_wait(&l->wake, &l->lock);
            continue;
        }
        struct chunk *chunks = l->queue;
        l->queue = l->queue_last = NULL;
        pthread_mutex_unlock(&l->lock);
        while (chunks) {
            chunks = write_round(l, chunks);
        }
        pthread_mutex_lock(&l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

int logs_open(const char *dir, logs_durable_fn durable, void *ctx, struct logs **ret,
              struct buf *why)
{
    int r = os_mkdir_p(dir, 0700);
    if (r < 0) {
        buf_addf(why, "cannot open the log folder %s: %s", dir, err_text(r));
        return r;
    }
    struct logs *l = xcalloc(1, sizeof(*l));
    l->dir = xstrdup(dir);
    l->durable = durable;
    l->ctx = ctx;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->wake, NULL);
    check(pthread_create(&l->writer, NULL, writer_main, l) == 0);
    *ret = l;
    return 0;
}

void logs_close(struct logs *l)
{
    if (!l) {
        return;
    }
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->writer, NULL);
    struct log_file *f, *next;
    HASH_ITER (hh, l->table, f, next) {
        check(f->pins == 0);
        file_drop(l, f);
    }
    pthread_cond_destroy(&l->wake);
    pthread_mutex_destroy(&l->lock);
    free(l->dir);
    free(l);
}

int logs_append(struct logs *l, uint64_t job_id, uint64_t attempt, uint64_t epoch, uint64_t offset,
                const void *p, size_t n)
{
    if (n > LIMIT_LOG_CHUNK || offset > LIMIT_LOG_BYTES + LIMIT_LOG_CHUNK) {
        return -E_TOO_BIG;
    }
    struct chunk *c = xmalloc(sizeof(*c) + n);
    *c = (struct chunk){
        .key = {job_id, attempt}, .epoch = epoch, .offset = offset, .n = n, .next = NULL};
    if (n > 0) {
        memcpy(c->data, p, n);
    }
    pthread_mutex_lock(&l->lock);
    bool taken = !l->stop && l->queued_bytes + sizeof(*c) + n <= LIMIT_LOG_QUEUE;
    if (taken) {
        if (l->queue) {
            l->queue_last->next = c;
        } else {
            l->queue = c;
        }
        l->queue_last = c;
        l->queued_bytes += sizeof(*c) + n;
        pthread_cond_signal(&l->wake);
    }
    pthread_mutex_unlock(&l->lock);
    if (!taken) {
        free(c);
        return -E_BUSY;
    }
    return 0;
}

uint64_t logs_durable(struct logs *l, uint64_t job_id, uint64_t attempt)
{
    struct log_file *f;
    uint64_t durable = 0;
    pthread_mutex_lock(&l->lock);
    if (file_get(l, (struct log_key){job_id, attempt}, false, &f) == 0) {
        durable = f->durable;
        file_unpin(l, f);
    }
    pthread_mutex_unlock(&l->lock);
    return durable;
}

int64_t logs_read(struct logs *l, uint64_t job_id, uint64_t attempt, uint64_t offset, void *p,
                  size_t n)
{
    struct log_file *f;
    pthread_mutex_lock(&l->lock);
    int r = file_get(l, (struct log_key){job_id, attempt}, false, &f);
    if (r < 0) {
        pthread_mutex_unlock(&l->lock);
        return r;
    }
    uint64_t durable = f->durable;
    pthread_mutex_unlock(&l->lock);

    ssize_t got = 0;
    if (offset < durable) {
        do {
            got = pread(f->fd, p, (size_t)MIN((uint64_t)n, durable - offset), (off_t)offset);
        } while (got < 0 && errno == EINTR);
    }
    pthread_mutex_lock(&l->lock);
    file_unpin(l, f);
    pthread_mutex_unlock(&l->lock);
    return got < 0 ? -E_IO : got;
}

void logs_close_one(struct logs *l, uint64_t job_id, uint64_t attempt)
{
    struct log_key key = {job_id, attempt};
    struct log_file *f = NULL;
    pthread_mutex_lock(&l->lock);
    HASH_FIND(hh, l->table, &key, sizeof(key), f);
    if (f && f->pins > 0) {
        f->leave = true;
    } else if (f) {
        file_drop(l, f);
    }
    pthread_mutex_unlock(&l->lock);
}

int logs_remove(struct logs *l, uint64_t job_id, uint64_t attempt)
{
    struct log_key key = {job_id, attempt};
    struct log_file *f = NULL;
    char *path = os_path_join(l->dir, log_name(key).text + 1);
    pthread_mutex_lock(&l->lock);
    HASH_FIND(hh, l->table, &key, sizeof(key), f);
    if (f) {
        file_drop(l, f);
    }
    int r = unlink(path) == 0 ? 0 : err_from_errno(errno);
    pthread_mutex_unlock(&l->lock);
    free(path);
    return r;
}

const char *logs_dir(const struct logs *l)
{
    return l->dir;
}

uint64_t logs_written_bytes(struct logs *l)
{
    pthread_mutex_lock(&l->lock);
    uint64_t bytes = l->written_bytes;
    pthread_mutex_unlock(&l->lock);
    return bytes;
}
