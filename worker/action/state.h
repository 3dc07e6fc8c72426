/* What the files of worker/action and worker/driver share of an action. */
#ifndef DAVIT_WORKER_ACTION_STATE_H
#define DAVIT_WORKER_ACTION_STATE_H

#include "common/expand.h"
#include "common/http_multi.h"
#include "worker/action/action.h"
#include "worker/action/fence.h"
#include "worker/action/prefork.h"
#include "worker/driver/driver.h"

struct actions {
    struct loop *loop;
    const struct reach *reach;
    const char *state_dir;
    struct http_multi *http;
    struct loop_timer http_timer;
    struct fences fences;
    const struct driver *const *drivers; /* NULL at the end */
    struct prefork **pools;
    size_t pool_count;
    struct action *list;
};

struct driver_op; /* worker/driver/call.c */
struct process;   /* worker/action/prefork.c */

struct action {
    struct actions *all;
    struct action *prev, *next;
    const Pb__JobSpec *spec;
    struct arena arena;
    action_fn fn;
    void *ctx;
    Pb__ActionResult result;
    Pb__Reason reason;
    bool ended; /* the callback is on its way */
    bool expands;
    uint64_t begun_us;
    struct loop_timer timer;     /* a wait's end; then the callback's turn */
    struct loop_timer job_timer; /* the job's time is over */
    struct http_call *http;
    struct vars *vars; /* made when they are asked for */
    struct str log;    /* what a process of a pool wrote */

    struct prefork *pool; /* while it waits for one of its processes, in this list */
    struct action *pool_prev, *pool_next;
    struct process *process; /* that has it */

    const struct driver *driver; /* begun */
    struct driver_call call;
    struct driver_op *ops;
};

/* Sets the result and lets the callback come. Does nothing once that is on its way. */
void action_end_ok(struct action *a);
void action_end_bad(struct action *a, Pb__Reason reason, const char *code, const char *fmt, ...)
    PRINTF_LIKE(4, 5);
/* What went wrong beneath: -E_TIMEOUT and such. */
void action_end_error(struct action *a, int error, const char *why);

/* One line that is good UTF-8, of at most LIMIT_ACTION_TEXT bytes. */
char *action_line(struct arena *arena, struct str text);
/* With the job's variables in place, in the action's arena, NUL-terminated. False: it is too long,
 * or holds a NUL; the action has ended. */
bool action_expand(struct action *a, ProtobufCBinaryData text, size_t limit, struct str *ret);
const struct var *action_variable(struct action *a, const char *name); /* NULL: none */

/* The job's time counts from now on. */
void action_time_begins(struct action *a);

void action_http(struct action *a, const Pb__HttpAction *what); /* http.c */
void action_tcp(struct action *a, const Pb__TcpAction *what);
void action_drive(struct action *a, const Pb__DriverAction *what); /* worker/driver/call.c */
void action_drive_end(struct action *a); /* of what a driver began, nothing goes on */

#endif
