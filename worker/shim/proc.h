/* What /proc says of processes: who descends from whom, who carries a folder's mark. Used by
 * davit-shim to find its own tree and by the worker to find what a dead shim left. */
#ifndef DAVIT_SHIM_PROC_H
#define DAVIT_SHIM_PROC_H

#include <sys/types.h>

#include "common/err.h"

struct proc {
    pid_t pid;
    pid_t parent;
    char state; /* 'R', 'S', 'Z' ... */
    bool marked;
};

/* All processes of the machine (of this PID namespace) at about one moment. */
struct proc_list {
    struct proc *items;
    size_t count;
    size_t cap;
};

int proc_read(pid_t pid, struct proc *ret, uint64_t *ret_start_ticks);
void proc_list_load(struct proc_list *list);
void proc_list_release(struct proc_list *list);
/* Marks every process that descends from a marked one. */
void proc_list_spread(struct proc_list *list);
/* Marks all descendants of `ancestor`, not itself. */
void proc_list_mark_descendants(struct proc_list *list, pid_t ancestor);
/* Marks all whose environment holds this entry ("NAME=VALUE"), as far as it may be read. */
void proc_list_mark_environment(struct proc_list *list, const char *entry);
/* Sends to all that are marked and not zombies; returns how many those are. `except` is left out
 * (0: nobody). */
size_t proc_list_signal(const struct proc_list *list, int signal_number, pid_t except);
/* SIGKILL for all that carry the entry, descend from one of them or from `ancestor` (0: nobody), in
 * looks at the machine until one finds none that lives; never for the caller itself. */
void proc_kill_marked(const char *entry, pid_t ancestor);

#endif
