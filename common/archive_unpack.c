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

#define BLOCK_BYTES ((size_t)64 * 1024)

/* A folder gets its mode and time at the end: what comes into it would change the time, and a mode
 * without the right to write would keep it out. */
struct late_folder {
    char *name;
    mode_t mode;
    struct timespec mtime;
};

struct unpacker {
    struct archive *archive;
    int root_fd;
    int in_fd;
    int in_error; /* of reading in_fd */
    char *block;
    struct sha256 *hash;
    struct archive_info info;
    uint64_t entries; /* of the archive and folders made for them */
    uint64_t max_files;
    uint64_t max_bytes;
    struct late_folder *folders;
    size_t folder_count;
    size_t folder_cap;
    struct buf *why;
};

static la_ssize_t unpack_read(struct archive *archive, void *ctx, const void **ret)
{
    struct unpacker *up = ctx;
    ssize_t n;
    do {
        n = read(up->in_fd, up->block, BLOCK_BYTES);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        up->in_error = err_from_errno(errno);
        archive_set_error(archive, errno, "cannot read the archive: %s", strerror(errno));
        return -1;
    }
    sha256_add(up->hash, up->block, (size_t)n);
    up->info.size += (uint64_t)n;
    *ret = up->block;
    return n;
}

static int library_failed(struct unpacker *up)
{
    const char *text = archive_error_string(up->archive);
    buf_addf(up->why, "the archive is damaged: %s", text != NULL ? text : "no reason known");
    return up->in_error < 0 ? up->in_error : -E_CORRUPT;
}

static int file_failed(struct unpacker *up, const char *name)
{
    int r = err_from_errno(errno);
    buf_addf(up->why, "cannot write %s: %s", name, strerror(errno));
    return r;
}

static int refused(struct unpacker *up, int r, const char *name, const char *reason)
{
    buf_addf(up->why, "%s: %s", name, reason);
    return r;
}

static struct timespec entry_mtime(struct archive_entry *entry)
{
    return (struct timespec){.tv_sec = archive_entry_mtime(entry),
                             .tv_nsec = archive_entry_mtime_nsec(entry)};
}

/* Counts the content of a file up to `end`; holes count like bytes. */
static int count_content(struct unpacker *up, const char *name, uint64_t end, uint64_t *counted)
{
    uint64_t grown = end - *counted;
    if (grown > up->max_bytes - up->info.content_bytes) {
        return refused(up, -E_TOO_BIG, name, "the archive holds more bytes than allowed");
    }
    up->info.content_bytes += grown;
    *counted = end;
    return 0;
}

static int unpack_content(struct unpacker *up, const char *name, uint64_t size, int fd)
{
    uint64_t counted = 0;
    for (;;) {
        const void *bytes;
        size_t n;
        la_int64_t offset;
        int got = archive_read_data_block(up->archive, &bytes, &n, &offset);
        if (got == ARCHIVE_EOF) {
            break;
        }
        if (got != ARCHIVE_OK || offset < 0 || (uint64_t)offset < counted) {
            return library_failed(up);
        }
        int r = count_content(up, name, (uint64_t)offset + n, &counted);
        if (r < 0) {
            return r;
        }
        if (os_pwrite_all(fd, bytes, n, (uint64_t)offset) < 0) {
            return file_failed(up, name);
        }
    }
    /* A hole at the end comes without a block. */
    int r = size > counted ? count_content(up, name, size, &counted) : 0;
    return r == 0 && ftruncate(fd, (off_t)counted) < 0 ? file_failed(up, name) : r;
}

static int unpack_file(struct unpacker *up, struct archive_entry *entry, const char *name,
                       int parent_fd, const char *leaf)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, entry_mtime(entry)};
    mode_t mode = archive_entry_perm(entry) & 0777;
    if (unlinkat(parent_fd, leaf, 0) < 0 && errno != ENOENT) {
        return file_failed(up, name);
    }
    int fd = openat(parent_fd, leaf, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return file_failed(up, name);
    }
    int r = unpack_content(up, name, (uint64_t)MAX(archive_entry_size(entry), 0), fd);
    if (r == 0 && (fchmod(fd, mode) < 0 || futimens(fd, times) < 0)) {
        r = file_failed(up, name);
    }
    close(fd);
    return r;
}

static int unpack_symlink(struct unpacker *up, struct archive_entry *entry, const char *name,
                          int parent_fd, const char *leaf)
{
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, entry_mtime(entry)};
    const char *target = archive_entry_symlink(entry);
    if (target == NULL || target[0] == '\0') {
        return refused(up, -E_INVALID, name, "a symlink without a target");
    }
    if ((unlinkat(parent_fd, leaf, 0) < 0 && errno != ENOENT) ||
        symlinkat(target, parent_fd, leaf) < 0 ||
        utimensat(parent_fd, leaf, times, AT_SYMLINK_NOFOLLOW) < 0) {
        return file_failed(up, name);
    }
    return 0;
}

static int unpack_folder(struct unpacker *up, struct archive_entry *entry, const char *name,
                         int parent_fd, const char *leaf)
{
    struct stat st;
    if (mkdirat(parent_fd, leaf, 0700) < 0) {
        if (errno != EEXIST) {
            return file_failed(up, name);
        }
        if (fstatat(parent_fd, leaf, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode)) {
            return refused(up, -E_INVALID, name, "a file or symlink stands where a folder goes");
        }
    }
    if (up->folder_count == up->folder_cap) {
        up->folder_cap = MAX(2 * up->folder_cap, (size_t)16);
        up->folders = xrealloc(up->folders, up->folder_cap * sizeof(*up->folders));
    }
    up->folders[up->folder_count++] = (struct late_folder){
        .name = xstrdup(name),
        .mode = archive_entry_perm(entry) & 0777,
        .mtime = entry_mtime(entry),
    };
    return 0;
}

static int unpack_named(struct unpacker *up, struct archive_entry *entry, const char *name)
{
    int parent_fd;
    const char *leaf;
    int r = archive_open_parent(up->root_fd, name, &up->entries, &parent_fd, &leaf);
    if (r == -E_INVALID) {
        return refused(up, r, name, "leads through a file or symlink");
    }
    if (r < 0) {
        return file_failed(up, name);
    }
    if (archive_entry_hardlink(entry) != NULL) {
        r = refused(up, -E_INVALID, name, "hard links are not unpacked");
    } else if (archive_entry_filetype(entry) == AE_IFREG) {
        r = unpack_file(up, entry, name, parent_fd, leaf);
    } else if (archive_entry_filetype(entry) == AE_IFLNK) {
        r = unpack_symlink(up, entry, name, parent_fd, leaf);
    } else if (archive_entry_filetype(entry) == AE_IFDIR) {
        r = unpack_folder(up, entry, name, parent_fd, leaf);
    } else {
        r = refused(up, -E_INVALID, name, "neither file, folder nor symlink");
    }
    close(parent_fd);
    return r;
}

static int unpack_entry(struct unpacker *up, struct archive_entry *entry)
{
    const char *raw = archive_entry_pathname(entry);
    struct buf name = BUF_INIT;
    if (raw == NULL || archive_clean_name(str_from(raw), &name) < 0) {
        return refused(up, -E_INVALID, raw != NULL ? raw : "?", "outside of the folder");
    }
    up->entries++;
    int r = name.n > 0 ? unpack_named(up, entry, name.p) : 0;
    if (r == 0 && up->entries > up->max_files) {
        r = refused(up, -E_LIMIT, raw, "the archive holds more entries than allowed");
    }
    up->info.file_count += r == 0 && name.n > 0;
    buf_release(&name);
    return r;
}

static int unpack_entries(struct unpacker *up)
{
    for (;;) {
        struct archive_entry *entry;
        int got = archive_read_next_header(up->archive, &entry);
        if (got == ARCHIVE_EOF) {
            return 0;
        }
        int r = got != ARCHIVE_OK && got != ARCHIVE_WARN ? library_failed(up)
                                                         : unpack_entry(up, entry);
        if (r < 0) {
            return r;
        }
    }
}

static int finish_folders(struct unpacker *up)
{
    for (size_t i = up->folder_count; i > 0; i--) {
        const struct late_folder *folder = &up->folders[i - 1];
        struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, folder->mtime};
        int parent_fd;
        const char *leaf;
        int r = archive_open_parent(up->root_fd, folder->name, NULL, &parent_fd, &leaf);
        if (r < 0) {
            return refused(up, r, folder->name, "cannot open its folder again");
        }
        int fd = openat(parent_fd, leaf, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        close(parent_fd);
        if (fd < 0) {
            return file_failed(up, folder->name);
        }
        r = futimens(fd, times) < 0 || fchmod(fd, folder->mode) < 0 ? file_failed(up, folder->name)
                                                                    : 0;
        close(fd);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

/* The digest is of the whole input, also of what stands behind the archive's end mark. */
static int drain(struct unpacker *up)
{
    const void *bytes;
    la_ssize_t n;
    do {
        n = unpack_read(up->archive, up, &bytes);
    } while (n > 0);
    return n < 0 ? library_failed(up) : 0;
}

static void open_archive(struct unpacker *up)
{
    up->archive = archive_read_new();
    check(up->archive != NULL);
    check(archive_read_support_filter_zstd(up->archive) == ARCHIVE_OK);
    check(archive_read_support_format_tar(up->archive) == ARCHIVE_OK);
    up->block = xmalloc(BLOCK_BYTES);
    up->hash = sha256_new();
}

static void close_archive(struct unpacker *up)
{
    archive_read_free(up->archive);
    sha256_free(up->hash);
    free(up->block);
    for (size_t i = 0; i < up->folder_count; i++) {
        free(up->folders[i].name);
    }
    free(up->folders);
    if (up->root_fd >= 0) {
        close(up->root_fd);
    }
}

int archive_unpack(int fd, const char *root, uint64_t max_files, uint64_t max_bytes,
                   struct archive_info *ret, struct buf *why)
{
    struct unpacker up = {.in_fd = fd, .max_files = max_files, .max_bytes = max_bytes, .why = why};
    open_archive(&up);
    up.root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = up.root_fd < 0 ? file_failed(&up, root) : 0;
    if (r == 0 && archive_read_open(up.archive, &up, NULL, unpack_read, NULL) != ARCHIVE_OK) {
        r = library_failed(&up);
    }
    if (r == 0) {
        r = unpack_entries(&up);
    }
    if (r == 0) {
        r = finish_folders(&up);
    }
    if (r == 0) {
        r = drain(&up);
    }
    if (r == 0) {
        sha256_end(up.hash, up.info.digest);
        *ret = up.info;
    }
    close_archive(&up);
    return r;
}
