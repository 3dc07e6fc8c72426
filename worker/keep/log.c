#include "common/base.h"

#include "worker/keep/log.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/os.h"
#include "worker/keep/keep.h"

static void open_file(struct keep_log *l)
{
    char *path = os_path_join(l->folder, "log");
    struct stat st;

    l->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    l->size = l->fd >= 0 && fstat(l->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
    free(path);
}

static void rotate(struct keep_log *l)
{
    char *path = os_path_join(l->folder, "log");
    char *before = os_path_join(l->folder, "log.1");

    close(l->fd);
    if (rename(path, before) < 0) {
        unlink(path);
    }
    free(path);
    free(before);
    open_file(l);
}

/* In portions, so that no portion makes the file larger than it may be. */
static void put(struct keep_log *l, struct str bytes)
{
    while (bytes.n > 0) {
        if (l->fd < 0) {
            open_file(l);
        }
        if (l->fd >= 0 && l->size >= l->max) {
            rotate(l);
        }
        const size_t n = MIN(bytes.n, l->max);
        const size_t now = l->size < l->max ? MIN(n, (size_t)(l->max - l->size)) : n;
        if (l->fd < 0 || os_write_all(l->fd, bytes.p, now) < 0) {
            return;
        }
        l->size += now;
        l->in_line = bytes.p[now - 1] != '\n';
        bytes = str_sub(bytes, now, bytes.n);
    }
}

static void put_shown(struct keep_log *l)
{
    put(l, buf_str(&l->shown));
    buf_clear(&l->shown);
}

void keep_log_open(struct keep_log *l, const char *folder, uint64_t max, struct mask *mask)
{
    *l = (struct keep_log){.folder = folder, .mask = mask, .max = max, .fd = -1};
    open_file(l);
}

void keep_log_close(struct keep_log *l)
{
    if (l->fd >= 0) {
        close(l->fd);
    }
    l->fd = -1;
    buf_release(&l->shown);
}

void keep_log_add(struct keep_log *l, const char *p, size_t n)
{
    mask_feed(l->mask, str_of(p, n), &l->shown);
    put_shown(l);
}

void keep_log_pause(struct keep_log *l)
{
    mask_end(l->mask, &l->shown);
    put_shown(l);
}

void keep_log_say(struct keep_log *l, const char *fmt, ...)
{
    struct buf line = BUF_INIT;
    va_list args;

    keep_log_pause(l);
    buf_addz(&line, l->in_line ? "\n" KEEP_SAYS : KEEP_SAYS);
    va_start(args, fmt);
    buf_vaddf(&line, fmt, args);
    va_end(args);
    buf_add_char(&line, '\n');
    put(l, buf_str(&line));
    buf_release(&line);
}
