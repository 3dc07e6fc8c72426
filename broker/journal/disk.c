#include "common/base.h"

#include "broker/journal/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/os.h"

struct disk {
    char *dir;
    int fd;
};

struct disk_file {
    int fd;
};

/* A folder whose name is lost takes along what was flushed in it. */
static int make_folder(const char *dir)
{
    char *parent = os_path_join(dir, "..");
    int r = os_mkdir_p(dir, 0700);

    r = r < 0 ? r : os_fsync_dir(parent);
    free(parent);
    return r;
}

int disk_open(const char *dir, bool write, struct disk **ret)
{
    int r = write ? make_folder(dir) : 0;

    if (r < 0) {
        return r;
    }
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    struct disk *d = xcalloc(1, sizeof(*d));
    d->dir = xstrdup(dir);
    d->fd = fd;
    *ret = d;
    return 0;
}

void disk_close(struct disk *d)
{
    if (d == NULL) {
        return;
    }
    close(d->fd);
    free(d->dir);
    free(d);
}

int disk_list(struct disk *d, void (*fn)(void *ctx, const char *name), void *ctx)
{
    return os_list_dir(d->dir, fn, ctx);
}

int disk_rename(struct disk *d, const char *from, const char *to)
{
    return renameat(d->fd, from, d->fd, to) < 0 ? err_from_errno(errno) : 0;
}

int disk_unlink(struct disk *d, const char *name)
{
    return unlinkat(d->fd, name, 0) < 0 ? err_from_errno(errno) : 0;
}

int disk_sync(struct disk *d)
{
    return fsync(d->fd) < 0 ? err_from_errno(errno) : 0;
}

static int open_at(struct disk *d, const char *name, int flags, struct disk_file **ret)
{
    int fd = openat(d->fd, name, flags | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0) {
        return err_from_errno(errno);
    }
    struct disk_file *f = xcalloc(1, sizeof(*f));
    f->fd = fd;
    *ret = f;
    return 0;
}

/* Blocks that were set aside and never written have to be marked as written by the flush that
 * follows their first write: that costs a write of the file system's own, and time. */
static int fill(int fd, uint64_t bytes)
{
    static const uint8_t zeros[256u * 1024];
    int e = posix_fallocate(fd, 0, (off_t)bytes);
    int r = e != 0 ? err_from_errno(e) : 0;

    for (uint64_t at = 0; r == 0 && at < bytes; at += sizeof(zeros)) {
        r = os_pwrite_all(fd, zeros, (size_t)MIN(bytes - at, sizeof(zeros)), at);
    }
    return r == 0 && fdatasync(fd) < 0 ? err_from_errno(errno) : r;
}

int disk_create(struct disk *d, const char *name, uint64_t bytes, struct disk_file **ret)
{
    char part[NAME_MAX + 1];
    struct disk_file *f = NULL;

    check((size_t)snprintf(part, sizeof(part), "%s.part", name) < sizeof(part));
    int r = open_at(d, part, O_RDWR | O_CREAT | O_TRUNC, &f);
    if (r < 0) {
        return r;
    }
    r = fill(f->fd, bytes);
    if (r == 0 && renameat2(d->fd, part, d->fd, name, RENAME_NOREPLACE) < 0) {
        r = errno == EEXIST ? -E_EXISTS : err_from_errno(errno);
    }
    if (r < 0) {
        disk_close_file(f);
        unlinkat(d->fd, part, 0);
        return r;
    }
    *ret = f;
    return 0;
}

int disk_open_file(struct disk *d, const char *name, bool write, struct disk_file **ret)
{
    return open_at(d, name, write ? O_RDWR : O_RDONLY, ret);
}

void disk_close_file(struct disk_file *f)
{
    if (f == NULL) {
        return;
    }
    close(f->fd);
    free(f);
}

int disk_size(struct disk_file *f, uint64_t *ret_bytes)
{
    struct stat st;

    if (fstat(f->fd, &st) < 0) {
        return err_from_errno(errno);
    }
    *ret_bytes = (uint64_t)st.st_size;
    return 0;
}

int disk_write(struct disk_file *f, const void *p, size_t n, uint64_t offset)
{
    return os_pwrite_all(f->fd, p, n, offset);
}

int disk_read(struct disk_file *f, void *p, size_t n, uint64_t offset, size_t *ret_n)
{
    return os_pread_all(f->fd, p, n, offset, ret_n);
}

int disk_flush(struct disk_file *f)
{
    return fdatasync(f->fd) < 0 ? err_from_errno(errno) : 0;
}
