/* An instance's log: FOLDER/log, bounded, with the one before it as FOLDER/log.1. What the disk
 * does not take is lost: nothing here fails. */
#ifndef DAVIT_KEEP_LOG_H
#define DAVIT_KEEP_LOG_H

#include "common/mask.h"

struct keep_log {
    const char *folder; /* the caller's */
    struct mask *mask;  /* likewise */
    uint64_t max;
    uint64_t size;
    int fd;           /* -1: it could not be opened; tried again with the next write */
    bool in_line;     /* the last byte ended no line */
    struct buf shown; /* what the mask has let through */
};

void keep_log_open(struct keep_log *l, const char *folder, uint64_t max, struct mask *mask);
void keep_log_close(struct keep_log *l);
void keep_log_add(struct keep_log *l, const char *p, size_t n);
/* The command has ended: what the mask holds back is said. */
void keep_log_pause(struct keep_log *l);
/* A line of davit-keep's own. */
void keep_log_say(struct keep_log *l, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
