/* The programs' own log: one line an event on stderr, "TIME LEVEL WHERE: TEXT", in journal format
 * (<3> prefixes) when stderr is the journal. Only the outermost layers log (main, turn, net, blob,
 * api, worker); the pure ones return errors. Secrets never go here. Threads: all safe. */
#ifndef DAVIT_LOG_H
#define DAVIT_LOG_H

#include "common/base.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_init(const char *program, enum log_level level);
void log_set_level(enum log_level level);
int log_level_from(const char *name, enum log_level *ret); /* "error" "warn" "info" "debug" */
void log_write(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)

#endif
