/* One instance from davit-keep's start to its end. */
#ifndef DAVIT_KEEP_RUN_H
#define DAVIT_KEEP_RUN_H

#include "worker/keep/conf.h"
#include "worker/keep/log.h"
#include "worker/shim/tree.h"

struct keep {
    const char *folder; /* absolute, without links */
    struct keep_conf conf;
    struct keep_log log;
    struct tree tree;
    struct keep_state state;
    uint64_t start_ticks; /* of this process */
    int lock_fd;
    int signal_fd;
    int out_fd;          /* of what the command says; -1: none */
    uint64_t begun_ms;   /* os_monotonic_ms: of the command's last start */
    uint64_t backoff_ms; /* of the next restart */
    uint64_t due_ms;     /* the restart, or SIGKILL; UINT64_MAX: neither */
};

/* Reads the conf, takes the lock, writes pid and method. -E_BUSY: another one has the folder. */
int keep_open(struct keep *k, const char *folder);
/* Starts the command, or tries to: the file `state` says. */
void keep_begin(struct keep *k);
/* Starts it again and again until SIGTERM; then nothing of it is left, or -E_BUSY. */
int keep_run(struct keep *k);
void keep_release(struct keep *k);

#endif
