/* The API as its own files see it: one server, its connections, streams and helper threads.
 *
 * `lock` guards what is listed under it. It may be held when libmicrohttpd is told to suspend or to
 * resume, never when a handler runs, and never while the bus or the turn is called. */
#ifndef DAVIT_API_SERVER_H
#define DAVIT_API_SERVER_H

#include <pthread.h>
#include <stdatomic.h>

#include "broker/api/api.h"
#include "broker/api/quota.h"
#include "broker/api/request.h"
#include "broker/api/sent.h"
#include "broker/store/tx.h"
#include "common/limits.h"

#define API_WORK_THREADS 2u

struct stream;

/* A connection, for the deadlines that libmicrohttpd does not have. */
struct link {
    struct link *prev, *next;
    int fd;
    bool leaves;                    /* was shut down to make room; under the server's lock */
    _Atomic uint64_t head_since_ms; /* waiting for a whole request head; 0: not waiting */
    _Atomic uint64_t body_since_ms; /* reading a body; 0: not reading */
    _Atomic uint64_t body_bytes;
};

struct api {
    struct api_config config;
    struct MHD_Daemon *daemon;
    uint16_t port;
    _Atomic uint16_t fleet_port;
    struct buf url; /* "http://127.0.0.1:7080" */
    atomic_bool ready;
    char job_key_bytes[SHA256_BYTES];
    struct str job_key;
    uint64_t start_ms; /* realtime */
    uint64_t bus_handle;
    pthread_t watch_thread;
    pthread_t work_threads[API_WORK_THREADS];

    _Atomic uint64_t body_bytes; /* JSON bodies in memory */
    struct uses *uses;           /* of tokens */
    struct rate *strangers;      /* requests without a good token, by address */
    struct rate *requests;       /* of each token; NULL: unbounded */
    struct quota *quota;         /* of uploads by jobs */
    struct sent *sent;           /* which those were */
    _Atomic uint64_t *counts;    /* answers, by route and status: metrics.c */

    pthread_mutex_t lock;
    pthread_cond_t changed;      /* for the watch thread and api_stop */
    pthread_cond_t work_changed; /* for the work threads */
    bool stopping;
    bool ended;
    unsigned parked;
    struct request *work, *work_last;
    struct link *links;
    unsigned link_count;
    struct stream *streams;
    unsigned stream_count;
};

bool api_stopping(struct api *a);
/* The turn went around lately. */
bool api_alive(struct api *a);

/* Where the API is, as workers and holders of id tokens know it. */
const char *api_server_url(struct api *a);

/* A read transaction that finds all that anybody was told so far, for which it may have to wait for
 * a commit; -E_BUSY when there are too many readers. */
int api_read(struct api *a, struct tx **ret);
/* One of the last commit, at once: for what is only ever added to, and for those whom the bus has
 * woken, as it does that after the commit. */
int api_read_stored(struct api *a, struct tx **ret);

#endif
