#include "common/base.h"

#include "broker/blob/s3.h"
#include "broker/blob/state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/os.h"

#define TMP_DIR "tmp" /* uploads on filesystems without O_TMPFILE; emptied at every start */

/* "ab/abcdef..." */
struct blob_name {
    char path[3 + HEX_CHARS + 1];
    char folder[3];
};

static struct blob_name blob_name(const uint8_t digest[SHA256_BYTES])
{
    struct blob_name name;
    str_to_hex(digest, SHA256_BYTES, name.path + 3);
    memcpy(name.folder, name.path + 3, 2);
    name.folder[2] = '\0';
    memcpy(name.path, name.folder, 2);
    name.path[2] = '/';
    return name;
}

static bool has_unnamed_files(int dir_fd)
{
    int fd = openat(dir_fd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    if (fd < 0) {
        return false;
    }
    close(fd);
    return true;
}

int blobs_open(const char *dir, struct blobs **ret, struct buf *why)
{
    char *tmp = os_path_join(dir, TMP_DIR);
    int r = os_remove_tree(tmp);
    if (r == 0) {
        r = os_mkdir_p(tmp, 0700);
    }
    free(tmp);
    int fd = r == 0 ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (r == 0) {
        /* The fsync is for folders that a broker made just before it died. */
        r = fd < 0 || fsync(fd) != 0 ? err_from_errno(errno) : 0;
    }
    if (r < 0) {
        if (fd >= 0) {
            close(fd);
        }
        buf_addf(why, "cannot open the blob folder %s: %s", dir, err_text(r));
        return r;
    }
    struct blobs *b = xcalloc(1, sizeof(*b));
    b->dir_fd = fd;
    b->unnamed = has_unnamed_files(fd);
    pthread_mutex_init(&b->names, NULL);
    r = partials_open(b);
    if (r < 0) {
        buf_addf(why, "cannot open %s/" UNFINISHED_DIR ": %s", dir, err_text(r));
        blobs_close(b);
        return r;
    }
    *ret = b;
    return 0;
}

void blobs_close(struct blobs *b)
{
    if (!b) {
        return;
    }
    partials_close(b);
    s3_close(b->remote);
    pthread_mutex_destroy(&b->names);
    close(b->dir_fd);
    free(b);
}

static int upload_file(struct blob_upload *u)
{
    int dir_fd = u->blobs->dir_fd;
    if (u->blobs->unnamed) {
        u->fd = openat(dir_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    } else {
        uint8_t id[16];
        char hex[2 * sizeof(id) + 1];
        os_random(id, sizeof(id));
        str_to_hex(id, sizeof(id), hex);
        snprintf(u->tmp_name, sizeof(u->tmp_name), TMP_DIR "/%s", hex);
        u->fd = openat(dir_fd, u->tmp_name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);
    }
    return u->fd < 0 ? err_from_errno(errno) : 0;
}

int blob_upload_begin(struct blobs *b, uint64_t max_bytes, struct blob_upload **ret)
{
    struct blob_upload *u = xcalloc(1, sizeof(*u));
    u->blobs = b;
    u->max_bytes = max_bytes;
    int r = upload_file(u);
    if (r < 0) {
        free(u);
        return r;
    }
    u->hash = sha256_new();
    *ret = u;
    return 0;
}

int blob_upload_write(struct blob_upload *u, const void *p, size_t n)
{
    if (u->partial) {
        return partial_write(u, p, n);
    }
    if (u->failed == 0 && n > u->max_bytes - u->size) {
        u->failed = -E_TOO_BIG;
    }
    if (u->failed == 0) {
        u->failed = os_write_all(u->fd, p, n);
    }
    if (u->failed < 0) {
        return u->failed;
    }
    sha256_add(u->hash, p, n);
    u->size += n;
    return 0;
}

void blob_upload_abort(struct blob_upload *u)
{
    if (!u) {
        return;
    }
    if (u->partial) {
        partial_leave(u);
    } else if (u->tmp_name[0] != '\0') {
        unlinkat(u->blobs->dir_fd, u->tmp_name, 0);
    }
    if (u->fd >= 0) {
        close(u->fd);
    }
    sha256_free(u->hash);
    free(u);
}

/* Gives the file its name. A blob that is there already is touched, so that a sweep spares it. */
static int link_upload(struct blob_upload *u, const struct blob_name *name)
{
    struct blobs *b = u->blobs;
    char from[sizeof(u->tmp_name)];
    int from_fd = AT_FDCWD;
    if (u->tmp_name[0] == '\0') {
        snprintf(from, sizeof(from), "/proc/self/fd/%d", u->fd);
    } else {
        memcpy(from, u->tmp_name, sizeof(from));
        from_fd = b->dir_fd;
    }
    pthread_mutex_lock(&b->names);
    /* Nobody finds a folder whose own name is not durable yet: it is made under the lock. */
    if (mkdirat(b->dir_fd, name->folder, 0700) == 0 && fsync(b->dir_fd) != 0) {
        int r = err_from_errno(errno);
        unlinkat(b->dir_fd, name->folder, AT_REMOVEDIR);
        pthread_mutex_unlock(&b->names);
        return r;
    }
    int r = linkat(from_fd, from, b->dir_fd, name->path, AT_SYMLINK_FOLLOW);
    if (r != 0 && errno == EEXIST) {
        r = utimensat(b->dir_fd, name->path, NULL, AT_SYMLINK_NOFOLLOW);
    }
    int saved = errno;
    pthread_mutex_unlock(&b->names);
    return r != 0 ? err_from_errno(saved) : 0;
}

static int fsync_folder(struct blobs *b, const char *folder)
{
    int fd = openat(b->dir_fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    int r = fsync(fd) == 0 ? 0 : err_from_errno(errno);
    close(fd);
    return r;
}

/* The name and the bytes are on the disk when it returns 0. */
static int make_durable(struct blob_upload *u, const uint8_t digest[SHA256_BYTES])
{
    struct blob_name name = blob_name(digest);
    int r = fsync(u->fd) == 0 ? 0 : err_from_errno(errno);
    if (r == 0) {
        r = link_upload(u, &name);
    }
    /* Also for a blob that was there: its name may be younger than the folder's last fsync. */
    return r < 0 ? r : fsync_folder(u->blobs, name.folder);
}

int upload_take_copy(struct blob_upload *u, const uint8_t digest[SHA256_BYTES])
{
    uint8_t got[SHA256_BYTES];
    struct stat st;
    int r = fstat(u->fd, &st) != 0 ? err_from_errno(errno) : 0;
    if (r == 0) {
        r = read_digest(u->fd, (uint64_t)st.st_size, got);
    }
    if (r == 0 && memcmp(got, digest, sizeof(got)) != 0) {
        r = -E_CORRUPT;
    }
    return r < 0 ? r : make_durable(u, digest);
}

int blob_upload_commit(struct blob_upload *u, uint8_t ret_digest[SHA256_BYTES], uint64_t *ret_size)
{
    uint8_t digest[SHA256_BYTES];
    int r = u->failed;
    if (r == 0 && u->partial) {
        r = partial_seal(u, digest);
    } else if (r == 0) {
        sha256_end(u->hash, digest);
    }
    if (r == 0) {
        r = make_durable(u, digest);
        if (r == 0) {
            r = remote_put(u->blobs, digest, u->fd, u->size);
        }
        if (u->partial) {
            partial_sealed(u, r, digest);
        }
    }
    if (r == 0) {
        memcpy(ret_digest, digest, SHA256_BYTES);
        *ret_size = u->size;
    }
    blob_upload_abort(u);
    return r;
}

int blob_open_here(struct blobs *b, const uint8_t digest[SHA256_BYTES], int *ret_fd,
                   uint64_t *ret_size)
{
    struct blob_name name = blob_name(digest);
    int fd = openat(b->dir_fd, name.path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    struct stat st;
    if (fstat(fd, &st) != 0) {
        int r = err_from_errno(errno);
        close(fd);
        return r;
    }
    *ret_fd = fd;
    *ret_size = (uint64_t)st.st_size;
    return 0;
}

int blob_open(struct blobs *b, const uint8_t digest[SHA256_BYTES], int *ret_fd, uint64_t *ret_size)
{
    int r = blob_open_here(b, digest, ret_fd, ret_size);
    if (r == -E_NOT_FOUND && (r = blob_fetch(b, digest)) == 0) {
        r = blob_open_here(b, digest, ret_fd, ret_size);
    }
    return r;
}

bool blob_exists(struct blobs *b, const uint8_t digest[SHA256_BYTES])
{
    struct blob_name name = blob_name(digest);
    pthread_mutex_lock(&b->names);
    int r = utimensat(b->dir_fd, name.path, NULL, AT_SYMLINK_NOFOLLOW);
    pthread_mutex_unlock(&b->names);
    return r == 0 || remote_has(b, digest);
}

/* Under the lock the age is looked at again: the blob may have been touched while `wanted` thought.
 */
static uint64_t remove_if_old(struct blobs *b, const char *path, uint64_t older_than_ms)
{
    struct stat st;
    uint64_t freed = 0;
    pthread_mutex_lock(&b->names);
    if (fstatat(b->dir_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        uint64_t mtime_ms = (uint64_t)st.st_mtim.tv_sec * 1000 +
                            (uint64_t)st.st_mtim.tv_nsec / 1000000;
        if (mtime_ms <= older_than_ms && unlinkat(b->dir_fd, path, 0) == 0) {
            freed = (uint64_t)st.st_size;
        }
    }
    pthread_mutex_unlock(&b->names);
    return freed;
}

uint64_t remove_blob(struct blobs *b, const uint8_t digest[SHA256_BYTES], uint64_t used_ms)
{
    return remove_if_old(b, blob_name(digest).path, used_ms);
}

static uint64_t sweep_folder(struct blobs *b, const char *folder, uint64_t older_than_ms,
                             blob_wanted_fn wanted, void *ctx)
{
    int fd = openat(b->dir_fd, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d) {
        if (fd >= 0) {
            close(fd);
        }
        return 0;
    }
    uint64_t freed = 0;
    for (struct dirent *e = readdir(d); e; e = readdir(d)) {
        uint8_t digest[SHA256_BYTES];
        if (str_from_hex(str_from(e->d_name), digest, sizeof(digest)) == 0 &&
            !wanted(ctx, digest)) {
            freed += remove_if_old(b, blob_name(digest).path, older_than_ms);
        }
    }
    closedir(d);
    return freed;
}

uint64_t blob_sweep(struct blobs *b, uint64_t now_ms, uint64_t min_age_ms, blob_wanted_fn wanted,
                    void *ctx)
{
    if (now_ms < min_age_ms) {
        return 0;
    }
    uint64_t freed = 0;
    for (unsigned i = 0; i < 256; i++) {
        char folder[3];
        uint8_t byte = (uint8_t)i;
        str_to_hex(&byte, 1, folder);
        freed += sweep_folder(b, folder, now_ms - min_age_ms, wanted, ctx);
    }
    return freed + remote_sweep(b, now_ms - min_age_ms, wanted, ctx);
}
