#include "common/base.h"

#include "common/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define READ_BYTES ((size_t)64 * 1024)

/* Closes without touching errno, which is kept for a message. */
static void close_quietly(int fd)
{
    int saved = errno;
    close(fd);
    errno = saved;
}

static int last_error(void)
{
    return err_from_errno(errno);
}

static int read_to_end(int fd, size_t limit, struct buf *out)
{
    size_t start = out->n;
    for (;;) {
        char *space = buf_space(out, READ_BYTES);
        if (space == NULL) {
            return -E_TOO_BIG;
        }
        ssize_t n = read(fd, space, READ_BYTES);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return n < 0 ? last_error() : 0;
        }
        buf_advance(out, (size_t)n);
        if (out->n - start > limit) {
            return -E_TOO_BIG;
        }
    }
}

int os_read_file(const char *path, size_t limit, struct buf *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        return last_error();
    }
    /* Through a buffer of our own: a limit of `out` may not leave room for a whole read. */
    struct buf content = BUF_INIT;
    int r = read_to_end(fd, limit, &content);
    if (r == 0) {
        buf_add_str(out, buf_str(&content));
        r = buf_ok(out) ? 0 : -E_TOO_BIG;
    }
    buf_release(&content);
    close_quietly(fd);
    return r;
}

int os_write_all(int fd, const void *p, size_t n)
{
    const char *at = p;
    while (n > 0) {
        ssize_t done = write(fd, at, n);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return last_error();
        }
        at += done;
        n -= (size_t)done;
    }
    return 0;
}

int os_pwrite_all(int fd, const void *p, size_t n, uint64_t offset)
{
    const char *at = p;
    while (n > 0) {
        ssize_t done = pwrite(fd, at, n, (off_t)offset);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done < 0) {
            return last_error();
        }
        at += done;
        offset += (uint64_t)done;
        n -= (size_t)done;
    }
    return 0;
}

int os_pread_all(int fd, void *p, size_t n, uint64_t offset, size_t *ret_n)
{
    size_t done = 0;
    while (done < n) {
        ssize_t got = pread(fd, (char *)p + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got < 0) {
            return last_error();
        }
        if (got == 0) {
            break;
        }
        done += (size_t)got;
    }
    *ret_n = done;
    return 0;
}

/* The folder a path is in, heap. */
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return xstrdup(".");
    }
    return str_dup(str_of(path, slash == path ? 1 : (size_t)(slash - path)));
}

int os_fsync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return last_error();
    }
    int r = fsync(fd) < 0 ? last_error() : 0;
    close_quietly(fd);
    return r;
}

static int write_new_file(const char *path, const void *p, size_t n, mode_t mode, bool durable)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return last_error();
    }
    int r = os_write_all(fd, p, n);
    if (r == 0 && (fchmod(fd, mode) < 0 || (durable && fsync(fd) < 0))) {
        r = last_error();
    }
    if (close(fd) < 0 && r == 0) {
        r = last_error();
    }
    return r;
}

static int replace_file(const char *path, const void *p, size_t n, mode_t mode, bool durable)
{
    uint64_t unique;
    struct buf temporary = BUF_INIT;
    os_random(&unique, sizeof(unique));
    buf_addf(&temporary, "%s.%016" PRIx64 ".tmp", path, unique);
    int r = write_new_file(temporary.p, p, n, mode, durable);
    if (r == 0 && rename(temporary.p, path) < 0) {
        r = last_error();
    }
    if (r < 0) {
        int saved = errno;
        unlink(temporary.p);
        errno = saved;
    } else if (durable) {
        char *parent = parent_of(path);
        r = os_fsync_dir(parent);
        free(parent);
    }
    buf_release(&temporary);
    return r;
}

int os_write_file(const char *path, const void *p, size_t n, mode_t mode)
{
    return replace_file(path, p, n, mode, true);
}

int os_put_file(const char *path, const void *p, size_t n, mode_t mode)
{
    return replace_file(path, p, n, mode, false);
}

static int make_dir(const char *path, mode_t mode)
{
    struct stat st;
    if (mkdir(path, mode) == 0) {
        return 0;
    }
    if (errno != EEXIST) {
        return last_error();
    }
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        return 0;
    }
    errno = ENOTDIR;
    return -E_EXISTS;
}

int os_mkdir_p(const char *path, mode_t mode)
{
    char *work = xstrdup(path);
    int r = 0;
    for (char *at = work + 1; work[0] != '\0' && r == 0 && *at != '\0'; at++) {
        if (*at == '/' && at[-1] != '/') {
            *at = '\0';
            r = make_dir(work, mode);
            *at = '/';
        }
    }
    if (r == 0) {
        r = make_dir(path, mode);
    }
    free(work);
    return r;
}

bool os_exists(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0;
}

int os_list_dir(const char *path, void (*fn)(void *ctx, const char *name), void *ctx)
{
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return last_error();
    }
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            fn(ctx, entry->d_name);
        }
    }
    closedir(dir);
    return 0;
}

char *os_absolute_path(const char *path)
{
    return realpath(path, NULL);
}

int os_disk_free(const char *path, uint64_t *ret_free_bytes, uint64_t *ret_total_bytes)
{
    struct statvfs fs;
    if (statvfs(path, &fs) < 0) {
        return last_error();
    }
    *ret_free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    *ret_total_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
    return 0;
}

int os_lock_file(const char *path, int *ret_fd)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return last_error();
    }
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        int r = errno == EWOULDBLOCK ? -E_BUSY : last_error();
        close_quietly(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

char *os_path_join(const char *a, const char *b)
{
    struct buf path = BUF_INIT;
    size_t n = strlen(a);
    bool slash = n > 0 && a[n - 1] == '/';
    buf_addf(&path, "%s%s%s", a, n == 0 || slash ? "" : "/", b);
    return buf_take(&path);
}

const char *os_temp_dir(void)
{
    const char *dir = getenv("TMPDIR");
    return dir != NULL && dir[0] == '/' ? dir : "/tmp";
}

char *os_make_temp_dir(const char *name)
{
    struct buf path = BUF_INIT;
    buf_addf(&path, "%s/%s-XXXXXX", os_temp_dir(), name);
    char *made = buf_take(&path);
    if (mkdtemp(made) == NULL) {
        free(made);
        return NULL;
    }
    return made;
}
