/* A broker and workers as child processes: what `davit up` and `davit run` stand on. A child that
 * dies is started again (crash-only: the broker finds its store, a worker its jobs), at most once a
 * second. Threads: one at a time. */
#ifndef DAVIT_CLI_STACK_H
#define DAVIT_CLI_STACK_H

#include <sys/types.h>

#include "cli/client.h"

#define STACK_WORKERS_MAX 64u

struct stack_options {
    const char *data;   /* folder for everything; made if needed */
    const char *listen; /* of the fleet: tcp://127.0.0.1:7070 */
    const char *http;   /* 127.0.0.1:7080 */
    uint64_t workers;
    uint64_t slots;        /* of each worker */
    const char *tags;      /* NULL: none */
    const char *executors; /* of each worker; NULL: shell */
    bool restart;          /* start again what dies */
    bool logs_to_files;    /* DATA/davitd.log, DATA/workers/N.log; else stderr */
};

struct stack;
/* Returns when the broker serves and has met all workers. Says itself what went wrong. */
int stack_start(struct cli *c, const struct stack_options *o, struct stack **ret);
const struct client *stack_client(const struct stack *s);
pid_t stack_broker_pid(const struct stack *s);
pid_t stack_worker_pid(const struct stack *s, size_t i);
/* Reaps and restarts; call often. False when a child is gone for good. */
bool stack_tick(struct stack *s);
/* Workers drain (or, with `now`, leave their jobs), then the broker ends. Frees s; NULL is fine. */
void stack_stop(struct stack *s, bool now);

#endif
