/* The child's side of starting a step: everything between fork and execve. */
#ifndef DAVIT_SHIM_LAUNCH_H
#define DAVIT_SHIM_LAUNCH_H

#include "worker/shim/tree.h"

/* Makes the calling process the step's main process; `parent` (0: unknown) must still be its
 * parent. Writes an errno into error_fd (above 3, close-on-exec) when it cannot. */
NORETURN void launch_main(const struct launch *launch, const char *cgroup, pid_t parent,
                          int error_fd);
/* The same below an init of a new PID namespace, which the calling process becomes: it reaps,
 * writes the main process's wait status into report_fd, and ends after the last process. Runs
 * nothing when nobody reads the report: the caller's parent is the only one that may have it open.
 */
NORETURN void launch_init(const struct launch *launch, int report_fd, int error_fd);
/* Prepares the calling process, the first of new PID and mount namespaces: /proc shows them. */
bool launch_init_view(void);

#endif
