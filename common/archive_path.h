/* Names of archive entries, and the way to them: private to archive_pack.c and archive_unpack.c.
 * Whoever made the names or the tree, nothing outside of the root is ever reached. Threads: pure
 * but for the file system. */
#ifndef DAVIT_ARCHIVE_PATH_H
#define DAVIT_ARCHIVE_PATH_H

#include "common/buf.h"
#include "common/err.h"

/* Makes "a/b/c" of a name: without empty parts and "."; "" is the root itself. -E_INVALID for an
 * absolute name and for "..". */
int archive_clean_name(struct str name, struct buf *ret_name);

/* Opens the folder that holds a clean name, part by part, never through a symlink. Makes missing
 * folders and counts them where `made` is not NULL. *ret_leaf is the last part of the name.
 * -E_NOT_FOUND, -E_INVALID (something that is no folder stands in the way), -E_NO_SPACE, -E_IO. */
int archive_open_parent(int root_fd, const char *name, uint64_t *made, int *ret_fd,
                        const char **ret_leaf);

#endif
