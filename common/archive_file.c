#include "common/base.h"

#include "common/archive.h"
#include "common/archive_path.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>

#define BLOCK_BYTES ((size_t)64 * 1024)

static int damaged(struct archive *a, struct buf *why)
{
    const char *text = archive_error_string(a);
    buf_addf(why, "the archive is damaged: %s", text != NULL ? text : "no reason known");
    return -E_CORRUPT;
}

static bool is_named(struct archive_entry *entry, struct str name)
{
    const char *raw = archive_entry_pathname(entry);
    struct buf clean = BUF_INIT;
    bool same = raw != NULL && archive_clean_name(str_from(raw), &clean) == 0 &&
                str_eq(buf_str(&clean), name);
    buf_release(&clean);
    return same;
}

static int read_content(struct archive *a, size_t limit, struct buf *out, struct buf *why)
{
    size_t before = out->n;
    for (;;) {
        char *space = buf_space(out, BLOCK_BYTES);
        check(space != NULL);
        la_ssize_t n = archive_read_data(a, space, BLOCK_BYTES);
        if (n < 0) {
            buf_truncate(out, before);
            return damaged(a, why);
        }
        if (n == 0) {
            return 0;
        }
        buf_advance(out, (size_t)n);
        if (out->n - before > limit) {
            buf_truncate(out, before);
            buf_addf(why, "larger than %zu bytes", limit);
            return -E_TOO_BIG;
        }
    }
}

static int find_file(struct archive *a, struct str name, size_t limit, struct buf *out,
                     struct buf *why)
{
    for (;;) {
        struct archive_entry *entry;
        int got = archive_read_next_header(a, &entry);
        if (got == ARCHIVE_EOF) {
            buf_addz(why, "the archive holds no such file");
            return -E_NOT_FOUND;
        }
        if (got != ARCHIVE_OK && got != ARCHIVE_WARN) {
            return damaged(a, why);
        }
        if (!is_named(entry, name)) {
            continue;
        }
        if (archive_entry_filetype(entry) != AE_IFREG || archive_entry_hardlink(entry) != NULL) {
            buf_addz(why, "not a file");
            return -E_INVALID;
        }
        return read_content(a, limit, out, why);
    }
}

int archive_read_file(int fd, const char *name, size_t limit, struct buf *out, struct buf *why)
{
    struct buf clean = BUF_INIT;
    struct archive *a = archive_read_new();
    int r;
    check(a != NULL);
    check(archive_read_support_filter_zstd(a) == ARCHIVE_OK);
    check(archive_read_support_format_tar(a) == ARCHIVE_OK);
    if (archive_clean_name(str_from(name), &clean) < 0 || clean.n == 0) {
        buf_addz(why, "no name of a file within an archive");
        r = -E_INVALID;
    } else if (archive_read_open_fd(a, fd, BLOCK_BYTES) != ARCHIVE_OK) {
        r = damaged(a, why);
    } else {
        r = find_file(a, buf_str(&clean), limit, out, why);
    }
    archive_read_free(a);
    buf_release(&clean);
    return r;
}
