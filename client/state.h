/* What a handle holds, for the files of this folder.
 *
 * The handle's thread (session.c) owns the socket's reading side and makes and ends connections.
 * `lock` guards the rest: requests, jobs, what is to be sent. A request lives in the frame of the
 * call that waits for it, and leaves the list, under the lock, before that call returns. */
#ifndef DAVIT_CLIENT_STATE_H
#define DAVIT_CLIENT_STATE_H

#include <pthread.h>
#include <uthash.h>

#include "client/davit.h"
#include "client/stream.h"
#include "proto/envelope.h"

struct request {
    uint64_t number;
    Pb__Envelope__BodyCase kind;
    struct buf content; /* of its message, without anything of a session */
    bool once;          /* not to be sent in another session */
    bool watch;
    bool sent; /* in this session */
    bool done;
    int code;
    char text[sizeof(((struct davit_error *)0)->text)];
    struct davit_queued *queued;  /* room for the answer of ClientEnqueue, of `count` */
    struct davit_result *results; /* likewise of ClientQuery */
    const uint64_t *ids;          /* asked for; of ClientCancel one, to be canceled */
    size_t count;
    pthread_cond_t wake;
    struct request *prev, *next;
};

/* A job whose end is waited for, or that has ended and nobody has taken it. */
struct job {
    struct davit_result result;
    bool ended;
    bool refused;            /* its end will not be told, and somebody waits */
    unsigned waiters;        /* calls of davit_wait that name it */
    struct job *prev, *next; /* in `unasked`, or in `ended`, or in neither */
    enum { JOB_LOOSE, JOB_UNASKED, JOB_ENDED } list;
    UT_hash_handle hh;
};

struct davit {
    char *url;
    char *token;
    char *name;
    struct tls *tls; /* NULL: plain */
    int timeout_ms;
    uint8_t uid[16];
    pthread_t thread;
    int wake_fd;

    /* the thread's */
    struct arena arena; /* of the message in hand */
    uint64_t pause_ms;  /* before the next connection */

    pthread_mutex_t lock; /* guards what follows */
    struct stream stream;
    bool open;   /* welcome */
    bool broken; /* the connection is of no use any more */
    bool closing;
    struct davit_error fatal; /* code 0: none */
    bool distrusted;          /* the newest connection was with somebody whom we do not trust */
    char why[160];            /* why the newest connection came to nothing; or "" */
    uint64_t heard_ms;
    uint64_t session;
    uint32_t version; /* of the protocol, as offered */
    uint64_t heartbeat_ms;
    uint64_t lease_ms;
    uint64_t sent;       /* our last number */
    uint64_t received;   /* the broker's */
    uint64_t acked;      /* what of it was acknowledged */
    uint64_t ack_due_ms; /* 0: nothing is owed */
    uint64_t beat_due_ms;

    uint64_t next_request;
    uint64_t next_key;
    size_t on_the_way; /* requests */
    struct request *requests;
    pthread_cond_t room; /* fewer requests are on their way, or it is open, or the end */

    struct job *jobs; /* by id */
    struct job *unasked;
    struct job *ended;
    pthread_cond_t news; /* a job has ended */
    uint64_t refusals;   /* jobs ever refused */
    struct request ask;  /* the one question of the thread's own */
    uint64_t ask_ids[DAVIT_MAX_JOBS];
    size_t ask_max;      /* as many at once, at present */
    uint64_t ask_due_ms; /* not before; 0: at once */
};

/* session.c */
void *session_main(void *handle);
void session_wake(struct davit *d);
/* With the lock held; sends as much as can be at once. */
void session_send(struct davit *d, Pb__Envelope__BodyCase kind, struct str content);
void session_request(struct davit *d, struct request *r);
void session_pack_cancel(struct request *r, bool again);
void session_bye(struct davit *d);

/* watch.c: with the lock held */
struct job *watch_job(struct davit *d, uint64_t id, bool asked);
void watch_ended(struct davit *d, const Pb__ClientJob *said);
void watch_ask(struct davit *d); /* the broker, about what it has not been asked yet */
void watch_answered(struct davit *d, const Pb__ClientAnswer *m);
void watch_put_off(struct davit *d);
void watch_time(struct davit *d, uint64_t now_ms); /* what is due */
void watch_session_ended(struct davit *d);
void watch_claim(struct davit *d, struct job *job);               /* for one call of davit_wait; */
void watch_release(struct davit *d, struct job *job, bool taken); /* which ends */
void watch_forget(struct davit *d, struct job *job);
void watch_result(const Pb__ClientJob *said, struct davit_result *ret);

/* job.c */
bool job_text_ok(const char *text); /* may be NULL */
/* 0 or DAVIT_E_INVALID, with the field in `error`. */
int job_check(const struct davit_job *job, size_t index, struct davit_error *error);
/* Of a job that was checked. */
void job_fill(struct davit *d, const struct davit_job *job, unsigned flags, struct arena *arena,
              Pb__EnqueueJob *ret);

int davit_fail(struct davit_error *error, int code, const char *text);

#endif
