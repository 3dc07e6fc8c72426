#include "common/base.h"

#include "common/err.h"
#include "common/log.h"
#include "common/os.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *log_program = "davit";
static _Atomic enum log_level log_max = LOG_INFO;
static bool log_journal;

static const char *const level_names[] = {
    [LOG_ERROR] = "error",
    [LOG_WARN] = "warn",
    [LOG_INFO] = "info",
    [LOG_DEBUG] = "debug",
};

/* The priorities of syslog(3). */
static const int level_priorities[] = {
    [LOG_ERROR] = 3,
    [LOG_WARN] = 4,
    [LOG_INFO] = 6,
    [LOG_DEBUG] = 7,
};

/* systemd names the journal's stream by device and inode, so that a redirected stderr is told from
 * an inherited one. */
static bool stderr_is_journal(void)
{
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat st;
    char text[64];
    if (stream == NULL || fstat(STDERR_FILENO, &st) < 0) {
        return false;
    }
    snprintf(text, sizeof(text), "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    return strcmp(text, stream) == 0;
}

void log_init(const char *program, enum log_level level)
{
    log_program = program;
    log_max = level;
    log_journal = stderr_is_journal();
}

void log_set_level(enum log_level level)
{
    log_max = level;
}

int log_level_from(const char *name, enum log_level *ret)
{
    for (size_t i = 0; i < ARRAY_LEN(level_names); i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *ret = (enum log_level)i;
            return 0;
        }
    }
    return -E_INVALID;
}

static size_t log_head(enum log_level level, char *ret_text, size_t n)
{
    char now[32];
    if (log_journal) {
        return (size_t)snprintf(ret_text, n, "<%d>", level_priorities[level]);
    }
    return (size_t)snprintf(ret_text, n,
                            "%s %-5s %s: ", str_time(os_realtime_ms(), now, sizeof(now)),
                            level_names[level], log_program);
}

void log_write(enum log_level level, const char *fmt, ...)
{
    char line[4096];
    va_list ap;
    if (level > log_max) {
        return;
    }
    size_t head = MIN(log_head(level, line, sizeof(line) / 2), sizeof(line) / 2);
    va_start(ap, fmt);
    int n = vsnprintf(line + head, sizeof(line) - head - 1, fmt, ap);
    va_end(ap);
    check(n >= 0);
    size_t end = head + MIN((size_t)n, sizeof(line) - head - 2);
    /* One event stays one line, whatever a name from outside holds. */
    for (size_t i = head; i < end; i++) {
        if ((unsigned char)line[i] < ' ' || line[i] == 0x7f) {
            line[i] = ' ';
        }
    }
    line[end] = '\n';
    /* One write, so that lines of several threads do not mix; a log that is gone is not fatal. */
    os_write_all(STDERR_FILENO, line, end + 1);
}
