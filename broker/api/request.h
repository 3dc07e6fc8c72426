/* One HTTP request, from its first line to its answer.
 *
 * libmicrohttpd calls in steps: the head (admitted or refused at once, before any body is read),
 * the body in pieces, the end (the route's handler). A handler answers, returns an error, or parks:
 * the connection sleeps until request_wake, then `next` is called like a handler. Ownership: a
 * request is freed by request_done (libmicrohttpd's completion), never while parked. Threads:
 * everything on the connection's thread, but request_wake and a work function. */
#ifndef DAVIT_API_REQUEST_H
#define DAVIT_API_REQUEST_H

#include <jansson.h>
#include <microhttpd.h>

#include "broker/api/auth.h"
#include "broker/api/route.h"
#include "broker/turn.h"
#include "common/buf.h"

struct api;
struct blob_upload;

struct request {
    struct api *api;
    struct MHD_Connection *conn;
    const struct route *route; /* NULL: not found yet */
    struct route_args args;
    struct principal who;
    const char *allow; /* with -E_METHOD */
    uint32_t wait_ms;  /* with -E_RATE: for how long */
    uint64_t total;    /* with -E_RANGE: the size of the whole */

    bool bad_target; /* the raw request line was refused */
    bool head_seen;
    bool answered;
    bool broken;       /* not even the answer could be queued */
    bool close;        /* the connection ends with the answer */
    int refused;       /* the body is read to its end only to give this error */
    uint64_t received; /* bytes of the body */
    uint64_t drained;  /* of them after it was refused */

    struct buf body; /* BODY_JSON */
    struct blob_upload *upload;
    uint8_t digest[SHA256_BYTES]; /* of a blob that is on its way from S3 */
    bool fetched;                 /* once is enough */
    uint64_t booked;              /* bytes of an upload by a job that is not stored yet */
    struct buf why;               /* one line for people, with an error */
    char where[64]; /* what is read of the body: "jobs[3]."; put before the names of fields */
    json_t *extra;  /* more members of an error's object, or an answer in the making */

    request_fn next; /* after parking */
    request_fn work; /* runs on a work thread while parked */
    struct request *next_work;
    int result; /* of a command or of `work` */
    struct reply reply;
    struct reply_job *jobs; /* reply.jobs, copied */
    struct post *post;      /* built, not yet submitted */
};

/* Sets the line for people and returns r. */
int request_fail(struct request *rq, int r, const char *fmt, ...) PRINTF_LIKE(3, 4);

/* The address of who asks, as a trusted proxy says it. */
#define ADDRESS_TEXT 48u
const char *request_address(struct request *rq, char ret_text[ADDRESS_TEXT]);

/* NULL: not given. */
const char *request_header(struct request *rq, const char *name);
const char *request_query(struct request *rq, const char *name);
/* A number in the query; the default where it is absent. -E_INVALID. */
int request_query_u64(struct request *rq, const char *name, uint64_t absent, uint64_t *ret);

/* Puts the connection to sleep. -E_SHUTDOWN: not any more. */
int request_park(struct request *rq, request_fn next);
/* Any thread; the request is not the caller's afterwards. */
void request_wake(struct request *rq);

/* Posts the command; `next` runs once it is committed or refused, with rq->result and rq->reply.
 * Takes the post over. */
int request_post(struct request *rq, struct post *post, request_fn next);
/* A command of the request's principal. */
struct post *request_post_new(struct request *rq);
/* Runs `work` on a work thread, then `next`. For what waits for a disk or computes for long. */
int request_work(struct request *rq, request_fn work, request_fn next);

/* libmicrohttpd's callbacks; cls is the api. */
void *request_begin(void *cls, const char *uri, struct MHD_Connection *conn);
enum MHD_Result request_step(void *cls, struct MHD_Connection *conn, const char *url,
                             const char *method, const char *version, const char *data,
                             size_t *data_size, void **con_cls);
void request_done(void *cls, struct MHD_Connection *conn, void **con_cls,
                  enum MHD_RequestTerminationCode how);

#endif
