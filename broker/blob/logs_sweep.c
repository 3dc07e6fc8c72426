#include "common/base.h"

#include "broker/blob/logs.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/os.h"

/* Logs of jobs that are gone. A folder is read to its end, in batches; what is young stays
 * unasked: its job may be younger than what the caller knows. */

#define BATCH 256u

struct batch {
    struct logs *logs;
    logs_wanted_fn wanted;
    void *ctx;
    uint64_t older_than_ms;
    uint64_t freed;
    size_t count;
    uint64_t jobs[BATCH];
    uint64_t attempts[BATCH];
    uint64_t sizes[BATCH];
    bool keep[BATCH];
};

/* "17-2.log" */
static bool parse_name(struct str name, uint64_t *ret_job, uint64_t *ret_attempt)
{
    struct str job;

    return str_ends(name, STR(".log")) && str_split(&name, '-', &job) &&
           str_to_u64(job, ret_job) == 0 &&
           str_to_u64(str_sub(name, 0, name.n - strlen(".log")), ret_attempt) == 0;
}

static void remove_batch(struct batch *b)
{
    b->wanted(b->ctx, b->jobs, b->keep, b->count);
    for (size_t i = 0; i < b->count; i++) {
        if (!b->keep[i] && logs_remove(b->logs, b->jobs[i], b->attempts[i]) == 0) {
            b->freed += b->sizes[i];
        }
    }
    b->count = 0;
}

static void add(struct batch *b, int fd, const char *name)
{
    struct stat st;

    if (!parse_name(str_from(name), &b->jobs[b->count], &b->attempts[b->count]) ||
        fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode) ||
        (uint64_t)st.st_mtim.tv_sec * 1000 + (uint64_t)st.st_mtim.tv_nsec / 1000000 >
            b->older_than_ms) {
        return;
    }
    b->sizes[b->count] = (uint64_t)st.st_size;
    b->keep[b->count++] = true;
    if (b->count == BATCH) {
        remove_batch(b);
    }
}

static void sweep_folder(struct batch *b, int dir_fd, const char *folder)
{
    const int fd = openat(dir_fd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;

    if (d == NULL) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        add(b, fd, e->d_name);
    }
    if (b->count > 0) {
        remove_batch(b);
    }
    closedir(d);
    unlinkat(dir_fd, folder, AT_REMOVEDIR); /* if it is empty; it may be made again */
}

uint64_t logs_sweep(struct logs *l, uint64_t now_ms, uint64_t min_age_ms, logs_wanted_fn wanted,
                    void *ctx)
{
    DIR *d = now_ms >= min_age_ms ? opendir(logs_dir(l)) : NULL;
    struct batch *b;
    uint64_t freed, number;

    if (d == NULL) {
        return 0;
    }
    b = xcalloc(1, sizeof(*b));
    b->logs = l;
    b->wanted = wanted;
    b->ctx = ctx;
    b->older_than_ms = now_ms - min_age_ms;
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        if (str_to_u64(str_from(e->d_name), &number) == 0) {
            sweep_folder(b, dirfd(d), e->d_name);
        }
    }
    closedir(d);
    freed = b->freed;
    free(b);
    return freed;
}
