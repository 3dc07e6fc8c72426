/* Asking git about a tree that a job could write to. Its .git/config may name programs that git
 * would run where the steps do, outside of the job's sandbox or container (core.fsmonitor,
 * gpg.program, a remote for missing objects), so git gets a folder of its own, FOLDER/view.git,
 * that shares objects, refs and index with the tree's, but neither configuration nor hooks. For
 * reading only. Threads: one; the working folder is the project's. */
#ifndef DAVIT_STEP_GIT_VIEW_H
#define DAVIT_STEP_GIT_VIEW_H

#include "worker/step/step.h"

/* Runs git with these words (NULL-terminated); what it prints, up to limit, is appended to out.
 * -E_NOT_FOUND: the project has no folder .git. -E_FAILED: git ended badly. */
int git_view_run(struct step *s, const char *const *words, size_t limit, struct buf *out);

#endif
