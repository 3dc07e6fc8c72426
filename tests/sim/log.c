#include "common/base.h"

#include "common/log.h"

#include <stdarg.h>
#include <stdio.h>

#include "tests/sim/sim.h"

/* What the broker logs is part of the trace; it has no other place here. */
void log_write(enum log_level level, const char *fmt, ...)
{
    char line[256];
    va_list ap;

    if (sim == NULL || !sim->tracing || level == LOG_DEBUG) {
        return;
    }
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    trace_line("log: %s", line);
}
