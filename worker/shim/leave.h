/* How davit-shim and davit-keep leave the worker that starts them. Threads: the first one. */
#ifndef DAVIT_SHIM_LEAVE_H
#define DAVIT_SHIM_LEAVE_H

#include "common/base.h"

/* A session of its own, and init (or the nearest reaper) as its parent, so that neither the
 * worker's end nor its terminal reaches it and the worker has nothing to reap. */
bool leave_starter(void);
/* Signals as they are at first, but for those that a terminal or a closed pipe sends: ignored.
 * Descriptors above 2 are closed. */
void leave_prepare(void);
/* Tells shim_start that all is ready and lets go of its pipe. */
void leave_announce(void);

#endif
