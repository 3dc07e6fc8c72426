/* A running davitd: everything opened in order, closed in the reverse order, and the wait between.
 * Threads: main's. */
#ifndef DAVIT_SERVE_H
#define DAVIT_SERVE_H

#include "broker/config/options.h"
#include "common/err.h"

/* Serves until SIGTERM or SIGINT; SIGHUP loads the options of `source` anew. 0, or an error that
 * was logged. */
int serve(const struct options_source *source, const struct options *o);

#endif
