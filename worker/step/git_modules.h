/* A repository that was used before, and its submodules. A job may have left hooks, a
 * configuration, or another repository in their places, which git would run in the next job's step,
 * with its credentials. What is kept are objects and refs. Threads: one; the working folder is the
 * project's, nothing else of the slot runs. */
#ifndef DAVIT_STEP_GIT_MODULES_H
#define DAVIT_STEP_GIT_MODULES_H

/* Takes out what is neither file nor folder below .git. */
void git_tidy_links(void);
/* Below .git/modules: takes out what git would run or be led away by. */
void git_tidy_modules(void);
/* In the working trees of the submodules that the index names: only repositories below .git/modules
 * may be theirs. A negative err: the index cannot be read. */
int git_tidy_submodules(void);

#endif
