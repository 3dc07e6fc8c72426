/* Working trees: BUILDS/SLOT/PROJECT, those of protected refs BUILDS/SLOT-protected/PROJECT: what
 * a job of any other ref has left, hooks and ignored files too, is never there. A slot runs one job
 * at a time, so no two jobs share one; the next job of the slot and project finds the tree of the
 * one before. */
#ifndef DAVIT_EXEC_WORKSPACE_H
#define DAVIT_EXEC_WORKSPACE_H

#include "common/buf.h"
#include "common/err.h"

/* Makes it and gives its canonical path (heap). Where a job has put links in the way, the slot's
 * folder is made anew. -E_INVALID: not a name for a path. */
int workspace_make(const char *builds_dir, uint32_t slot, bool ref_protected, const char *project,
                   char **ret_path, struct buf *why);

#endif
