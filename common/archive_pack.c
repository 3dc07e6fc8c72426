#include "common/base.h"

#include "common/archive.h"
#include "common/archive_path.h"
#include "common/os.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_BYTES (64 * 1024)

struct packer {
    struct archive *archive;
    int root_fd;
    int out_fd;
    int out_error; /* of writing to out_fd */
    int out_errno;
    bool dropping; /* something failed: nothing more is written */
    struct sha256 *hash;
    struct archive_info info;
    struct buf *why;
};

/* Never fails for libarchive, which would leak its buffers then: an error is kept, and what comes
 * later is dropped. */
static la_ssize_t pack_write(struct archive *archive, void *ctx, const void *p, size_t n)
{
    struct packer *pk = ctx;
    if (!pk->dropping) {
        pk->out_error = os_write_all(pk->out_fd, p, n);
        pk->out_errno = errno;
        pk->dropping = pk->out_error < 0;
        sha256_add(pk->hash, p, n);
        pk->info.size += n;
    }
    return (la_ssize_t)n;
}

static int write_failed(struct packer *pk)
{
    const char *text = archive_error_string(pk->archive);
    if (pk->out_error < 0) {
        buf_addf(pk->why, "cannot write the archive: %s", strerror(pk->out_errno));
        return pk->out_error;
    }
    buf_addz(pk->why, text != NULL ? text : "cannot make the archive");
    return -E_IO;
}

static int file_failed(struct packer *pk, const char *name)
{
    int r = err_from_errno(errno);
    buf_addf(pk->why, "cannot read %s: %s", name, strerror(errno));
    return r;
}

/* Exactly as many bytes as the header said: what is appended meanwhile is left out. */
static int pack_content(struct packer *pk, const char *name, int fd, uint64_t size)
{
    char *bytes = xmalloc(BLOCK_BYTES);
    int r = 0;
    while (r == 0 && size > 0) {
        ssize_t n = read(fd, bytes, MIN(size, (uint64_t)BLOCK_BYTES));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            r = file_failed(pk, name);
        } else if (n == 0) {
            buf_addf(pk->why, "%s became shorter while it was packed", name);
            r = -E_CONFLICT;
        } else if (archive_write_data(pk->archive, bytes, (size_t)n) != n || pk->out_error < 0) {
            r = write_failed(pk);
        } else {
            size -= (uint64_t)n;
            pk->info.content_bytes += (uint64_t)n;
        }
    }
    free(bytes);
    return r;
}

static int pack_entry(struct packer *pk, const char *name, int fd, const struct stat *st,
                      const char *target)
{
    struct archive_entry *entry = archive_entry_new();
    int r = 0;
    check(entry != NULL);
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, st->st_mode & S_IFMT);
    archive_entry_set_perm(entry, st->st_mode & 0777);
    archive_entry_set_mtime(entry, st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
    archive_entry_set_size(entry, S_ISREG(st->st_mode) ? st->st_size : 0);
    if (target != NULL) {
        archive_entry_set_symlink(entry, target);
    }
    if (archive_write_header(pk->archive, entry) != ARCHIVE_OK || pk->out_error < 0) {
        r = write_failed(pk);
    } else if (S_ISREG(st->st_mode)) {
        r = pack_content(pk, name, fd, (uint64_t)st->st_size);
    }
    pk->info.file_count += r == 0;
    archive_entry_free(entry);
    return r;
}

static int pack_symlink(struct packer *pk, const char *name, int parent_fd, const char *leaf,
                        const struct stat *st)
{
    char target[4096];
    ssize_t n = readlinkat(parent_fd, leaf, target, sizeof(target) - 1);
    if (n < 0) {
        return errno == ENOENT || errno == EINVAL ? 0 : file_failed(pk, name);
    }
    target[n] = '\0';
    return pack_entry(pk, name, -1, st, target);
}

/* The descriptor tells what the thing is, so that nobody swaps it between the look and the read. A
 * pipe must not block the open. */
static int pack_opened(struct packer *pk, const char *name, int parent_fd, const char *leaf)
{
    struct stat st;
    if (fstatat(parent_fd, leaf, &st, AT_SYMLINK_NOFOLLOW) < 0) {
        return errno == ENOENT ? 0 : file_failed(pk, name);
    }
    if (S_ISLNK(st.st_mode)) {
        return pack_symlink(pk, name, parent_fd, leaf, &st);
    }
    if (S_ISDIR(st.st_mode)) {
        return pack_entry(pk, name, -1, &st, NULL);
    }
    if (!S_ISREG(st.st_mode)) {
        return 0;
    }
    int fd = openat(parent_fd, leaf, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT ? 0 : file_failed(pk, name);
    }
    int r = fstat(fd, &st) < 0 ? file_failed(pk, name) : 0;
    if (r == 0 && S_ISREG(st.st_mode)) {
        r = pack_entry(pk, name, fd, &st, NULL);
    }
    close(fd);
    return r;
}

static int pack_path(struct packer *pk, const char *name)
{
    int parent_fd;
    const char *leaf;
    int r = archive_open_parent(pk->root_fd, name, NULL, &parent_fd, &leaf);
    if (r == -E_NOT_FOUND) {
        return 0;
    }
    if (r == -E_INVALID) {
        buf_addf(pk->why, "%s leads through a symlink", name);
        return r;
    }
    if (r < 0) {
        buf_addf(pk->why, "cannot open the folder of %s: %s", name, strerror(errno));
        return r;
    }
    r = pack_opened(pk, name, parent_fd, leaf);
    close(parent_fd);
    return r;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int clean_names(const char *const *paths, size_t count, char **names, struct buf *why)
{
    struct buf clean = BUF_INIT;
    int r = 0;
    for (size_t i = 0; r == 0 && i < count; i++) {
        r = archive_clean_name(str_from(paths[i]), &clean);
        if (r < 0) {
            buf_addf(why, "%s is outside of the folder", paths[i]);
        } else {
            names[i] = buf_take(&clean);
        }
    }
    buf_release(&clean);
    return r;
}

static int pack_names(struct packer *pk, char **names, size_t count)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < count; i++) {
        bool repeated = i > 0 && strcmp(names[i], names[i - 1]) == 0;
        if (names[i][0] != '\0' && !repeated) {
            r = pack_path(pk, names[i]);
        }
    }
    return r;
}

static void open_archive(struct packer *pk)
{
    pk->archive = archive_write_new();
    check(pk->archive != NULL);
    check(archive_write_add_filter_zstd(pk->archive) == ARCHIVE_OK);
    check(archive_write_set_format_pax(pk->archive) == ARCHIVE_OK);
    /* Names are bytes, whatever the locale. */
    check(archive_write_set_options(pk->archive, "hdrcharset=BINARY") == ARCHIVE_OK);
    check(archive_write_set_bytes_per_block(pk->archive, BLOCK_BYTES) == ARCHIVE_OK);
    check(archive_write_set_bytes_in_last_block(pk->archive, 1) == ARCHIVE_OK);
    pk->hash = sha256_new();
}

int archive_pack(const char *root, const char *const *paths, size_t count, int fd,
                 struct archive_info *ret, struct buf *why)
{
    struct packer pk = {.out_fd = fd, .why = why};
    char **names = xcalloc(count, sizeof(*names));
    pk.root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = pk.root_fd < 0 ? file_failed(&pk, root) : clean_names(paths, count, names, why);
    open_archive(&pk);
    if (r == 0) {
        qsort(names, count, sizeof(*names), compare_names);
        if (archive_write_open(pk.archive, &pk, NULL, pack_write, NULL) != ARCHIVE_OK) {
            r = write_failed(&pk);
        }
    }
    if (r == 0) {
        r = pack_names(&pk, names, count);
    }
    if (r == 0 && (archive_write_close(pk.archive) != ARCHIVE_OK || pk.out_error < 0)) {
        r = write_failed(&pk);
    }
    if (r == 0) {
        sha256_end(pk.hash, pk.info.digest);
        *ret = pk.info;
    }
    pk.dropping = true; /* freeing ends the archive properly, which writes */
    archive_write_free(pk.archive);
    sha256_free(pk.hash);
    for (size_t i = 0; i < count; i++) {
        free(names[i]);
    }
    free(names);
    if (pk.root_fd >= 0) {
        close(pk.root_fd);
    }
    return r;
}
