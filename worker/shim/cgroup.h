/* One cgroup (v2) for a job's processes, used for cgroup.kill alone: no controllers are enabled. It
 * hangs below the shim's own cgroup, so that whoever bounds or kills the worker bounds the job. */
#ifndef DAVIT_SHIM_CGROUP_H
#define DAVIT_SHIM_CGROUP_H

#include "common/buf.h"
#include "common/err.h"

/* Makes the folder NAME below the own cgroup and makes sure that processes may join it and be
 * killed by it; appends its path. -E_UNSUPPORTED where that is not so. */
int cgroup_make(const char *name, struct buf *ret_path);
/* Moves the calling process; async-signal-safe. False with errno set. */
bool cgroup_join(const char *path);
bool cgroup_kill(const char *path);
/* Removes it with the cgroups that its processes made in it; false while any holds a process. */
bool cgroup_remove(const char *path);

#endif
