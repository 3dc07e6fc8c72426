/* What acts on targets, and measures them: routers, pools of instances, metrics. A driver gets one
 * call for each action (DriverAction) and ends it with one answer.
 *
 * Invariants.
 * - Nothing blocks: `act` and all callbacks run on the worker's event loop, between the heartbeats
 *   and thousands of other actions. What takes time is asked of the helpers below.
 * - Every call ends exactly once, by driver_done or one of its short forms; after that the call is
 *   gone. They may be used from within `act` and from any callback of the call. A call that was
 *   canceled, timed out or lost its job is ended by the worker: `release` is called and nothing
 * else.
 * - A call is never begun whose fence is lower than one that its target has seen from this worker,
 *   in this process or an earlier one: it is refused before (code "stale"). So a driver needs no
 *   fence of its own; where the target itself can keep the number, setting it there is better
 * still.
 * - An action may be asked again: after a lost worker, a lost answer. Whatever a verb does twice is
 *   as good as done once, and its answer is what was read back, not what was wished.
 *
 * Ownership: the call is the worker's; `state` the driver's, given back in `release`. What helpers
 * began for a call ends with it. Threads: the loop's. */
#ifndef DAVIT_WORKER_DRIVER_H
#define DAVIT_WORKER_DRIVER_H

#include "proto/pb.h"
#include "proto/rollout.h"

struct action; /* worker/action/action.h */

struct driver_call {
    const Pb__DriverAction *what; /* verb, target, fence, args */
    const Pb__JobSpec *job;       /* its variables; what it brings along */
    struct arena *arena;          /* ends with the call */
    const char *state_dir;        /* STATE/drivers/NAME, there already: what outlives calls */
    uint64_t deadline_ms;         /* os_monotonic_ms: then the worker ends it */
    void *state;                  /* the driver's own; NULL at first */
    struct action *action;        /* the worker's */
};

struct driver {
    const char *name; /* as DriverAction.driver: [a-z0-9_-] */
    /* Begins, and mostly goes on in callbacks. */
    void (*act)(struct driver_call *call);
    /* NULL, or gives `state` back: once, at the end of every call that was begun. */
    void (*release)(struct driver_call *call);
    /* NULL, or called once as the worker starts: `state_dir` as in calls, if it is there yet. */
    void (*begin)(const char *state_dir);
};

/* All that this worker has, in drivers.def; NULL: there is none of that name.
 * The list ends with NULL, which is not counted. */
const struct driver *driver_by_name(const char *name);
const struct driver *const *driver_list(size_t *ret_count);

/* ---- the end of a call ---- */

/* Good: `answer` (packed into ActionResult.data) may be NULL. One that is larger than
 * LIMIT_ACTION_DATA makes it an error ("too_big"). */
void driver_done(struct driver_call *call, const ProtobufCMessage *answer);
/* Bad. `code` is a word for programs ("unreachable", "refused"); the text is for people, one line,
 * and is cut at LIMIT_ACTION_TEXT. */
void driver_fail(struct driver_call *call, const char *code, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
/* The args as a message of that kind, in the call's arena. NULL: they are none, and the call has
 * been ended for it. Use DRIVER_ARGS(call, router_args). */
ProtobufCMessage *driver_args(struct driver_call *call, const ProtobufCMessageDescriptor *kind);
#define DRIVER_ARGS(call, name) \
    ((void *)driver_args((call), &pb__##name##__descriptor)) /* its first member is the base */
/* A variable of the job; NULL: it has none of that name. */
const char *driver_variable(const struct driver_call *call, const char *name);
/* A setting of a DriverConfig; `otherwise` where there is none. */
struct str driver_setting(const Pb__DriverConfig *config, const char *name, const char *otherwise);

/* ---- helpers: each calls back once, later, unless the call ends before; several at a time are
 * allowed. What a reply points to is there until the callback returns. ---- */

struct driver_reply {
    int error;       /* 0, or -E_*: it could not be done: -E_TIMEOUT, -E_UNREACHABLE, ... */
    const char *why; /* one line for people, with an error */
    int status;      /* of an HTTP answer; or the exit code, 128 + N after signal N */
    struct str out;  /* the answer, or what a program wrote to stdout */
    struct str err;  /* what a program wrote to stderr: its last 4 KiB */
    void *ctx;       /* of what was asked */
};
typedef void (*driver_fn)(struct driver_call *call, const struct driver_reply *reply);

void driver_after(struct driver_call *call, uint64_t ms, driver_fn fn);

struct driver_http {
    const char *method;         /* NULL: GET */
    const char *url;            /* http or https */
    const char *unix_socket;    /* NULL: TCP */
    const char *const *headers; /* NULL, or pairs of name and value, and NULL at the end */
    struct str body;
    const char *ca_file; /* NULL: those whom the machine trusts */
    bool insecure;
    size_t limit;        /* of the answer's body; above: -E_TOO_BIG */
    uint64_t timeout_ms; /* 0: 10 s */
    void *ctx;           /* comes back in the reply */
};
/* Any status is an answer. Targets that --action-allow does not let be reached: -E_FORBIDDEN. */
void driver_http(struct driver_call *call, const struct driver_http *request, driver_fn fn);

/* Connects to "unix:PATH" or to "ADDRESS:PORT" (a number), sends, reads until the other side
 * closes: the runtime socket of HAProxy. */
struct driver_ask {
    const char *address;
    bool connects; /* that is all: nothing is sent or read */
    struct str text;
    size_t limit; /* of the answer; above: -E_TOO_BIG */
    uint64_t timeout_ms;
    void *ctx; /* comes back in the reply */
};
void driver_ask(struct driver_call *call, const struct driver_ask *ask, driver_fn fn);

/* A program, in a session of its own that is killed with the call, and so is what it started in
 * others when the call ends before it does. Its environment is the worker's PATH, HOME and LANG,
 * the job's variables, `env`, and DAVIT_DRIVER_CALL, by which all of it is found. */
struct driver_exec {
    const char *const *argv; /* argv[0] is searched in PATH; NULL at the end */
    const char *const *env;  /* NULL, or NAME=VALUE, NULL at the end */
    const char *cwd;         /* NULL: state_dir */
    struct str in;           /* its stdin: at most 64 KiB */
    size_t limit;            /* of stdout; above it is killed: -E_TOO_BIG */
    uint64_t timeout_ms;     /* then it is killed: -E_TIMEOUT */
    void *ctx;               /* comes back in the reply */
};
void driver_exec(struct driver_call *call, const struct driver_exec *exec, driver_fn fn);

#endif
