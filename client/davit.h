/* libdavit: enqueue jobs at a broker of Davit, and learn how they end.
 *
 *     struct davit_error error;
 *     struct davit *d = davit_connect(&(struct davit_options){
 *         .url = "tcp://127.0.0.1:7800", .token = token}, &error);
 *     const char *argv[] = {"make", "test", NULL};
 *     struct davit_queued queued;
 *     struct davit_result result;
 *     davit_enqueue(d, "demo", &(struct davit_job){.name = "test", .command = argv}, 1,
 * DAVIT_WATCH, &queued, &error); davit_wait(d, &queued.id, 1, &result, -1, &error); davit_close(d);
 *
 * What is promised. Once davit_enqueue has returned 0, the jobs are on the broker's disk. A job is
 * enqueued once: each has an idempotency key, its own or one that is made up here, and when the
 * connection is lost before the answer came, the request is sent again under the same keys on the
 * next one. A connection that is lost is made again by itself, after a pause of up to 10 s; calls
 * wait for that as long as their time allows, and what was watched is watched again.
 *
 * Threads: every function may be called on any thread, several at once; requests of several threads
 * are on their way together. A handle has one thread of its own, which reads, beats and connects.
 * The handle must outlive all calls: davit_close is the last one. No signal is caught; SIGPIPE is
 * never raised. After fork() only the parent may use the handle.
 *
 * Ownership: whatever is passed in is only read during the call. Nothing is handed out that must be
 * freed but the handle.
 *
 * Errors: 0 or a negative number of enum davit_code; `error`, which may be NULL, gets it too, with
 * a line for people. Times are in ms; a timeout of -1 waits without end, 0 not at all. */
#ifndef DAVIT_CLIENT_H
#define DAVIT_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define DAVIT_API __attribute__((visibility("default")))

enum davit_code {
    DAVIT_OK = 0,
    DAVIT_E_INVALID = -1,      /* the request cannot be: the text says why */
    DAVIT_E_UNAUTHORIZED = -2, /* the token is not one that may do this */
    DAVIT_E_NOT_FOUND = -3,
    DAVIT_E_CONFLICT = -4, /* not possible in the job's state; a key used for another job */
    DAVIT_E_LIMIT = -5,    /* more than is allowed: of jobs, of bytes, of what is watched */
    DAVIT_E_FULL = -6,     /* the broker's disk is full: try later */
    DAVIT_E_TIMEOUT = -7,  /* no answer yet. An enqueue may or may not have been done: again under
                              the same keys it is done once */
    DAVIT_E_UNREACHABLE = -8, /* davit_connect: nobody answers there, or another than we trust */
    DAVIT_E_LOST = -9,        /* DAVIT_ONCE: the connection was lost before the answer came */
    DAVIT_E_VERSION = -10,    /* the broker speaks another version; the handle is of no use */
    DAVIT_E_BROKER = -11,     /* the broker could not, for a reason of its own */
};

struct davit_error {
    int code;
    char text[256];
};

struct davit_options {
    const char *url; /* "tcp://HOST:PORT" or "tls://HOST:PORT", the broker's address for workers */
    const char *token;   /* an API token that may submit */
    const char *name;    /* of this program, for people; NULL: "libdavit" */
    int timeout_ms;      /* for the first connection, and for the answer to each request; 0: 30 s */
    const char *ca_file; /* of tls://: PEM file with the authority's certificate that the broker's
                            must be of (DATA/tls/ca.pem there); none else is trusted */
};

struct davit;

/* NULL: there is no connection, `error` says why. */
DAVIT_API struct davit *davit_connect(const struct davit_options *options,
                                      struct davit_error *error);
/* Says good-bye and frees. Requests that no thread waits for any more are given up. NULL is fine.
 */
DAVIT_API void davit_close(struct davit *d);

struct davit_variable {
    const char *name;
    const char *value;
};

/* What is 0 or NULL is left to the broker's defaults. Either a script or a command. Names are
 * UTF-8; scripts, commands and values of variables are any bytes. */
struct davit_job {
    const char *name;           /* NULL: "job" */
    const char *script;         /* for a shell */
    const char *const *command; /* a program and its arguments, up to NULL */
    const struct davit_variable *variables;
    size_t variable_count;
    const char *const *tags; /* up to NULL */
    const char *executor;
    const char *pool;
    int priority;           /* higher goes first */
    uint64_t not_before_ms; /* since 1970 */
    uint64_t timeout_ms;
    uint64_t keep_ms; /* how long it can be asked for after a success; 0: it is gone at once, and
                         only who watches it hears of its end */
    unsigned retry;   /* how often it runs again after a failure: 0 to 2 */
    bool interruptible;
    const char *resource_group;
    uint32_t cpu_millis;
    uint64_t memory_bytes;
    uint64_t disk_bytes;
    const char *idempotency_key; /* 1 to 255 printable characters; NULL: made up here */
};

struct davit_queued {
    uint64_t id;
    bool duplicate; /* the key was known: this is the job it was used for */
};

#define DAVIT_MAX_JOBS 1024u /* in one request, and 768 KiB */

/* Jobs of one handle that the broker watches at once. What davit_wait names beyond these is watched
 * as others end. */
#define DAVIT_MAX_WATCHED 100000u

enum davit_flags {
    DAVIT_WATCH = 1, /* davit_wait and davit_next will tell the ends of these jobs */
    DAVIT_ONCE = 2,  /* make up no keys, which saves the broker a row for each job: what cannot be
                        known after a lost connection is DAVIT_E_LOST */
};

/* All of them or none; `ret` has room for count entries. */
DAVIT_API int davit_enqueue(struct davit *d, const char *project, const struct davit_job *jobs,
                            size_t count, unsigned flags, struct davit_queued *ret,
                            struct davit_error *error);

enum davit_state {
    DAVIT_GONE = 0, /* there is no such job (any more): how it ended is not known */
    DAVIT_CREATED,
    DAVIT_WAITING_FOR_RESOURCE,
    DAVIT_SCHEDULED,
    DAVIT_MANUAL,
    DAVIT_PENDING,
    DAVIT_ASSIGNED,
    DAVIT_RUNNING,
    DAVIT_CANCELING,
    DAVIT_SUCCESS,
    DAVIT_FAILED,
    DAVIT_CANCELED,
    DAVIT_SKIPPED,
};

struct davit_result {
    uint64_t id;
    enum davit_state state;
    int reason;    /* of a failure: davit_reason_name */
    int exit_code; /* of the script */
    uint64_t attempt;
};

DAVIT_API bool davit_has_ended(enum davit_state state); /* DAVIT_GONE, too */
DAVIT_API const char *davit_state_name(enum davit_state state);
DAVIT_API const char *davit_reason_name(int reason); /* "" for none */

/* Waits until all of these have ended, whoever enqueued them: jobs without a pipeline.
 * DAVIT_E_INVALID: one that has not ended yet belongs to a pipeline, whose ends are told as events
 * of the API. DAVIT_E_LIMIT: more than DAVIT_MAX_WATCHED. 0: `ret` has how, in the order of ids,
 * and nothing is known of them here any more. Else nothing is taken: waiting again goes on. */
DAVIT_API int davit_wait(struct davit *d, const uint64_t *ids, size_t count,
                         struct davit_result *ret, int timeout_ms, struct davit_error *error);
/* Takes up to max ends of watched jobs, in the order in which they came; waits for the first. How
 * many, or an error. */
DAVIT_API int davit_next(struct davit *d, struct davit_result *ret, size_t max, int timeout_ms,
                         struct davit_error *error);
/* How they are now, in the order of ids; any job. */
DAVIT_API int davit_query(struct davit *d, const uint64_t *ids, size_t count,
                          struct davit_result *ret, struct davit_error *error);
/* Asks that it ends; one that runs may take a while for it. */
DAVIT_API int davit_cancel(struct davit *d, uint64_t id, struct davit_error *error);

#ifdef __cplusplus
}
#endif

#endif
