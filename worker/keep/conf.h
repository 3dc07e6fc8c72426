/* keep.conf as davit-keep reads it. All points into the text. */
#ifndef DAVIT_KEEP_CONF_H
#define DAVIT_KEEP_CONF_H

#include "worker/keep/keep.h"

struct keep_conf {
    struct buf text;
    uint64_t grace_ms;
    uint64_t log_bytes;
    const char *cwd;
    const char *command;
    struct mask *mask;
    const char **envp; /* NULL at the end; DAVIT_JOB_FOLDER is in it */
    size_t env_count;
    char *mark; /* that entry */
};

int keep_conf_load(struct keep_conf *c, const char *folder); /* -E_CORRUPT: not as keep.h says */
void keep_conf_release(struct keep_conf *c);

#endif
