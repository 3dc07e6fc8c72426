/* The event stream format of server-sent events (WHATWG HTML, "parsing an event stream"), fed in
 * pieces that may end anywhere. Lines end with LF, CR LF or CR. Threads: one at a time. */
#ifndef DAVIT_SSE_H
#define DAVIT_SSE_H

#include "common/buf.h"

/* `event` is "message" where the stream names none; `id` is the last one that was sent. The strings
 * live until the function returns. False: no more events are wanted. */
typedef bool (*sse_event_fn)(void *ctx, struct str id, struct str event, struct str data);

struct sse {
    sse_event_fn on_event;
    void *ctx;
    struct buf line;
    struct buf id;
    struct buf event;
    struct buf data;
    bool has_data; /* a data field came, maybe an empty one */
    bool after_cr; /* an LF that comes next belongs to it */
    bool any_line; /* the first line may start with a byte order mark */
};

void sse_init(struct sse *s, sse_event_fn on_event, void *ctx);
void sse_release(struct sse *s);
/* 0, -E_CANCELED when on_event returned false, -E_TOO_BIG for a line or event above
 * LIMIT_SSE_BYTES. */
int sse_feed(struct sse *s, struct str bytes);

#endif
