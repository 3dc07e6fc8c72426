/* What a driver has asked for and has not been answered yet. Private to worker/driver. */
#ifndef DAVIT_WORKER_DRIVER_OP_H
#define DAVIT_WORKER_DRIVER_OP_H

#include <sys/types.h>

#include "worker/action/pipes.h"
#include "worker/action/state.h"

#define OP_ERR_BYTES 4096u
/* What a program of the user's own gets of the worker's environment. */
#define OP_KEPT_NAMES          \
    {                          \
        "PATH", "HOME", "LANG" \
    }

struct driver_op {
    struct action *action;
    struct driver_op *prev, *next;
    driver_fn fn;
    void *ctx;
    struct loop_timer timer; /* its own end, or all that it is */
    size_t limit;            /* of `out` */
    struct buf out;
    struct buf err;
    struct http_call *http;
    int fd; /* of a socket, or of stdout; -1: none */
    struct loop_watch *watch;
    int err_fd; /* -1: none */
    struct loop_watch *err_watch;
    pid_t child; /* 0: none, or it has been reaped */
    struct loop_watch *child_watch;
    const char *mark; /* in the program's environment, and of all that it starts: "NAME=VALUE" */
    bool exited;
    bool connects; /* and no more */
    int status;
    struct str text; /* to be sent, in the call's arena */
    size_t sent;
};

struct driver_op *op_new(struct driver_call *call, driver_fn fn, size_t limit);
/* Calls back, once, and frees it. */
void op_done(struct driver_op *op, int status);
void op_fail(struct driver_op *op, int error, const char *why);
/* The same from the loop: for what fails at once. */
void op_fail_soon(struct driver_op *op, int error);
/* Ends with -E_TIMEOUT. */
void op_set_end(struct driver_op *op, uint64_t timeout_ms);

#endif
