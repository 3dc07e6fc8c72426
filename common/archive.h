/* tar.zst archives by libarchive: snapshots of working trees, artifacts. Streamed to and from
 * descriptors; nothing is held in memory as a whole.
 * Packing is reproducible: names sorted, owner 0, the files' own times and modes.
 * Unpacking is hostile-proof: no absolute names, no "..", no way through a symlink, only files,
 * folders and symlinks, entry and byte limits. Threads: separate calls are independent. */
#ifndef DAVIT_ARCHIVE_H
#define DAVIT_ARCHIVE_H

#include "common/buf.h"
#include "common/crypto.h"
#include "common/err.h"

struct archive_info {
    uint8_t digest[SHA256_BYTES]; /* of the tar.zst as written */
    uint64_t size;                /* of the tar.zst */
    uint64_t file_count;
    uint64_t content_bytes;
};

/* Packs `count` paths, relative to `root`, each a file, symlink or folder (a folder alone, without
 * what is in it), into the open file `fd`. A path that vanished is skipped; sockets and devices are
 * skipped. `why` gets one line for people on failure. */
int archive_pack(const char *root, const char *const *paths, size_t count, int fd,
                 struct archive_info *ret, struct buf *why);

/* Unpacks from `fd` (to its end) below `root`, which exists. Files that stand there already are
 * replaced. What was written before a failure stays. -E_CORRUPT for what is no archive, -E_INVALID
 * for entries that are refused, -E_LIMIT and -E_TOO_BIG above max_files (folders count) and
 * max_bytes. */
int archive_unpack(int fd, const char *root, uint64_t max_files, uint64_t max_bytes,
                   struct archive_info *ret, struct buf *why);

/* Appends the content of one file of the archive in `fd` to `out`: at most `limit` bytes, else
 * -E_TOO_BIG. -E_NOT_FOUND: no entry has that name; -E_INVALID: it is no file, or the name no name
 * within an archive; -E_CORRUPT. `out` is as it was after a failure. */
int archive_read_file(int fd, const char *name, size_t limit, struct buf *out, struct buf *why);

#endif
