/* Server-sent events. A stream holds no queue: it reads the store or the log from where it stands
 * each time there may be more, so a slow reader costs nothing but its own delay.
 *
 * A stream with nothing to say sleeps (libmicrohttpd suspends the connection) and is woken by the
 * bus, by the watch thread for a ping, or by the end of the server.
 * Ownership: of the response; freed with it. Threads: `fill` on the connection's thread, one call
 * at a time; stream_on_bus and stream_watch on others, under the server's lock. */
#ifndef DAVIT_API_STREAM_H
#define DAVIT_API_STREAM_H

#include "broker/api/server.h"

enum stream_state {
    STREAM_MORE, /* something was said, or will be said when asked again */
    STREAM_WAIT, /* nothing now */
    STREAM_END,  /* nothing any more */
};

struct stream {
    struct stream *prev, *next;
    struct api *api;
    struct MHD_Connection *conn;
    /* Appends events to out: about a block of them, not all there are. */
    enum stream_state (*fill)(struct stream *s);
    struct buf out;
    size_t sent; /* of out */
    bool ended;

    uint64_t pipeline_id; /* events: 0 for all */
    uint64_t seq;         /* events: the last one told */
    uint64_t job_id;      /* log */
    uint64_t attempt;     /* log: 0 before the first */
    uint64_t offset;      /* log */
    bool one_attempt;     /* log: asked for by number */

    bool asleep; /* under the server's lock, as all below */
    bool woken;  /* something happened since fill was called last */
    bool ping;   /* it was silent for too long */
    uint64_t spoke_ms;
};

/* Answers the request with a stream made of `first`, which is copied. -E_BUSY: too many. */
int stream_answer(struct request *rq, const struct stream *first);

/* One event; data is a JSON object, which is taken over. id may be NULL. */
void stream_event(struct stream *s, const char *id, const char *event, json_t *data);

void stream_on_bus(void *ctx, enum bus_topic topic, uint64_t key); /* ctx: the api */
/* Wakes those who were silent for ping_ms (all of them with 0). The lock is held. */
void stream_watch(struct api *a, uint64_t now_ms, uint64_t ping_ms);

#endif
