/* One cgroup (v2) for a job's processes, used for cgroup.kill alone: no controllers are enabled. It
 * hangs below the shim's own cgroup, so that whoever bounds or kills the worker bounds the job. */
#ifndef DAVIT_SHIM_CGROUP_H
#define DAVIT_SHIM_CGROUP_H

#include <sys/types.h>

#include "common/buf.h"
#include "common/err.h"

/* "davit-PID-START": of one shim, and of no later process with its pid. */
void cgroup_name(pid_t pid, uint64_t start_ticks, struct buf *out);
/* Makes the shim's own below the present one and makes sure that processes may join it and be
 * killed by it; appends its path. Removes empty ones of shims that are gone. -E_UNSUPPORTED where
 * that is not so. */
int cgroup_make(pid_t pid, uint64_t start_ticks, struct buf *ret_path);
/* Moves the calling process; async-signal-safe. False with errno set. */
bool cgroup_join(const char *path);
bool cgroup_kill(const char *path);
/* Removes it with the cgroups that its processes made in it; false while any holds a process. */
/* How many processes the kernel has killed for want of memory in the control group at the root of
 * our view: that of the container, inside of one. 0 where nothing says so. */
uint64_t cgroup_oom_kills(void);
bool cgroup_remove(const char *path);

#endif
