/* A session with the broker on an epoll loop (loop.h), of a worker or a client: framing, numbers,
 * acknowledgements, heartbeats as docs/protocol.md has them. What is said in it is the owner's.
 *
 * Small, so that ten thousand of them fit in one process. Ownership: the storage is the caller's;
 * the connection is the loop's, which frees it when the session is lost. Threads: one. */
#ifndef DAVIT_BENCH_SESSION_H
#define DAVIT_BENCH_SESSION_H

#include "proto/pb.h"
#include "tests/bench/loop.h"

struct session;

struct session_events {
    /* The connection is open: send Hello or ClientHello, as the first message. */
    void (*opened)(void *ctx);
    /* Every message, Welcome and Refused too; `e` lives in the arena until the call returns. */
    void (*message)(void *ctx, const Pb__Envelope *e);
    /* Fills in what the heartbeat says of jobs. NULL: nothing. */
    void (*beat)(void *ctx, Pb__Heartbeat *beat, struct arena *arena);
    /* The connection is gone: open it again, or let it be. */
    void (*lost)(void *ctx, const char *why);
};

struct session {
    struct conn *conn; /* NULL: none */
    struct arena *arena;
    const struct session_events *events;
    void *ctx;
    const char *why; /* of its end, where it is ours */
    uint64_t id;     /* 0 before Welcome */
    uint64_t sent_seq;
    uint64_t taken_seq;
    uint64_t acked_seq; /* the ack that was sent last */
    uint64_t taken_us;  /* when the first came that is not acknowledged yet */
    uint64_t beat_us;   /* when the last heartbeat was sent */
    uint32_t heartbeat_ms;
    uint32_t worker_id;
    bool greeted;
};

/* `arena` is scratch that all sessions of a loop may share; `events` is kept by reference. */
void session_open(struct session *s, struct loop *l, uint16_t port, struct arena *arena,
                  const struct session_events *events, void *ctx);
/* As the first message of a client's session. */
void session_client_hello(struct session *s, const char *token, const char *name);
/* Numbers it, but for heartbeats; leaves with the next flush. */
void session_send(struct session *s, Pb__Envelope *e);
/* Sends a heartbeat when one is due, or an acknowledgement that has waited for 20 ms. */
void session_tick(struct session *s, uint64_t now_us);
void session_beat(struct session *s, uint64_t now_us);

#endif
