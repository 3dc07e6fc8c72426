/* davitd backup and davitd fsck: beside a running broker or without one. Threads: main's. */
#ifndef DAVIT_INSPECT_H
#define DAVIT_INSPECT_H

#include "common/err.h"

/* A consistent copy of the store of `data` at `target`/store. 0, or an error that was logged. */
int inspect_backup(const char *data, const char *target);
/* Checks every row and every rule between them, prints what is broken. -E_CORRUPT if something is.
 */
int inspect_fsck(const char *data);

#endif
