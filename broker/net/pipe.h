/* One connection of the wire: greeting, messages in, messages out. Made by an accept callback, used
 * and freed on the turn's thread; between, nng's callbacks of this pipe work on it, one for each
 * direction at a time. */
#ifndef DAVIT_NET_PIPE_H
#define DAVIT_NET_PIPE_H

#include <nng/nng.h>
#include <uthash.h>

#include "broker/net/wire.h"

struct pipe;

/* What a pipe tells the wire, on nng's threads. */
struct pipe_events {
    /* Takes the message. False: receive no more until pipe_receive. */
    bool (*message)(void *ctx, struct pipe *p, struct wire_msg *msg);
    void (*down)(void *ctx, struct pipe *p); /* once at most */
    void *ctx;
};

struct pipe {
    uint32_t id;
    bool paused; /* the wire's, under its lock */
    UT_hash_handle hh;
    struct pipe_io *io;
};

/* Takes the stream in any case. NULL: no memory for it within nng. */
struct pipe *pipe_new(uint32_t id, nng_stream *stream, const struct pipe_events *events);
/* Waits for callbacks that run: never from within one. */
void pipe_free(struct pipe *p);
void pipe_start(struct pipe *p);   /* greets and receives */
void pipe_receive(struct pipe *p); /* goes on after `message` said false */
nng_stream *pipe_stream(const struct pipe *p);
/* Adds a message to what the next pipe_flush sends in one. */
void pipe_send(struct pipe *p, struct str head, struct str body);
void pipe_flush(struct pipe *p);

#endif
