/* The processes of one step, from the first to the last: starting them, knowing when the main one
 * ended, ending all of them.
 *
 * The shim is the reaper of all its descendants, so "no children left" is the proof that nothing
 * is left, whatever the method. The methods differ in how they kill:
 *   cgroup     cgroup.kill: at once, also what runs as another user
 *   namespace  the step runs in a PID namespace whose init dies; for root without a writable
 *              cgroup. Not with a user namespace: one mapped user means no sudo, and files of all
 *              others that belong to nobody
 *   sweep      SIGKILL to all descendants, again until none is left
 * Every method sweeps too: a process may have been moved out of its cgroup (by logind, say). */
#ifndef DAVIT_SHIM_TREE_H
#define DAVIT_SHIM_TREE_H

#include <sys/types.h>

#include "common/buf.h"
#include "common/err.h"

enum tree_method { TREE_CGROUP, TREE_NAMESPACE, TREE_SWEEP };

struct tree {
    enum tree_method method;
    char *cgroup;  /* path, TREE_CGROUP */
    pid_t child;   /* our direct child: the main process, or the namespace's init */
    int report_fd; /* TREE_NAMESPACE: the init tells how the main process ended; else -1 */
    bool main_ended;
    int main_status; /* as waitpid gives it */
    bool empty;      /* nothing of the step is left */
};

struct launch {
    const char *const *argv;
    const char *const *envp;
    const char *cwd;
    int output_fd;
    uint64_t open_files; /* at most; 0: as many as the shim */
    bool service;        /* the kernel is not to take it before the worker for want of memory */
};

/* Takes the best method that works here; `wanted` (may be NULL) names the only one to take. The
 * calling process, which began at start_ticks, becomes the reaper of all its descendants. */
int tree_init(struct tree *t, const char *wanted, uint64_t start_ticks);
void tree_release(struct tree *t);
/* "cgroup PATH", "namespace" or "sweep". */
void tree_describe(const struct tree *t, struct buf *out);

/* Starts a step's main process. Failure: an errno of fork, chdir or execve, negative. */
int tree_start(struct tree *t, const struct launch *launch);
/* Collects what ended; call it after SIGCHLD and when report_fd is readable. */
void tree_reap(struct tree *t);
/* A signal to every process of the step. */
void tree_signal(struct tree *t, int signal_number);
/* Kills all and waits until nothing is left. Returns how many processes there were; t->empty is
 * false after TREE_KILL_MS if some could not be killed. */
#define TREE_KILL_MS 10000u
size_t tree_kill(struct tree *t);

#endif
