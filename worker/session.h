/* The worker's side of a session with the broker: connect, greet, number, acknowledge, beat, notice
 * silence, start over (docs/protocol.md, "Session" and "Numbers"). What the messages mean is the
 * agent's business.
 *
 * Invariant: between sessions there is no socket, and nothing of an old session is sent in a new
 * one. Threads: the loop's. */
#ifndef DAVIT_WORKER_SESSION_H
#define DAVIT_WORKER_SESSION_H

#include "proto/pb.h"
#include "worker/backoff.h"
#include "worker/link.h"
#include "worker/loop.h"

enum session_phase {
    SESSION_PAUSED,   /* waits for the next try, or is stopped */
    SESSION_DIALING,  /* connects */
    SESSION_GREETING, /* Hello was sent */
    SESSION_OPEN,     /* Welcome came */
    SESSION_LEAVING,  /* Bye was sent */
};

struct session_user {
    void (*fill_hello)(void *ctx, struct arena *arena, Pb__Hello *hello);
    void (*fill_heartbeat)(void *ctx, struct arena *arena, Pb__Heartbeat *beat);
    void (*opened)(void *ctx);
    void (*closed)(void *ctx); /* an open session ended: its numbers mean nothing any more */
    void (*message)(void *ctx, const Pb__Envelope *e); /* all but what the session itself handles */
    void (*acked)(void *ctx);                          /* session.acked has grown */
    void (*room)(void *ctx);                           /* all that was to be sent is on its way */
    void (*refused)(void *ctx, const Pb__Refused *refused); /* for good */
    void (*left)(void *ctx);       /* after session_leave: the broker knows */
    bool (*in_a_hurry)(void *ctx); /* holds jobs, which are lost with the lease */
};

struct session {
    struct loop *loop;
    const char *url;
    struct tls *tls; /* set before session_start for a URL of tls://; borrowed */
    const struct session_user *user;
    void *ctx;
    enum session_phase phase;
    struct link *link;
    struct loop_watch *watch;
    struct backoff backoff;
    uint32_t
        version; /* of the protocol, as offered: the newest, or the older one that the broker has */

    /* what Welcome said; kept from one session to the next */
    uint64_t id;
    uint64_t worker_id;
    uint64_t heartbeat_ms;
    uint64_t lease_ms;
    uint64_t log_window;
    char *api_url;

    uint64_t sent;        /* number of the last reliable message to the broker; with `list` */
    uint64_t acked;       /* the broker processed all up to here */
    uint64_t received;    /* number of the broker's last reliable message; it is processed */
    uint64_t acked_by_us; /* the last `received` that was sent */

    /* A list that grows until the end of the loop's round or a message of another kind. */
    Pb__Envelope__BodyCase list; /* NOT_SET: none */
    size_t list_count;
    struct buf list_content;
    struct loop_timer list_timer;

    uint64_t heard_ms;
    uint64_t beat_due_ms;            /* the next regular heartbeat */
    struct loop_timer retry_timer;   /* the next try */
    struct loop_timer silence_timer; /* nothing was heard for too long */
    struct loop_timer beat_timer;    /* the next heartbeat, earlier to acknowledge */
};

/* `url` and `ctx` outlive the session. */
void session_init(struct session *s, struct loop *loop, const char *url,
                  const struct session_user *user, void *ctx);
void session_release(struct session *s);
void session_start(struct session *s);
bool session_is_open(const struct session *s);

/* Completes version, session, ack and (for all but heartbeats) the number, and sends; bodies that
 * are lists, of one kind and in one round of the loop, as one message. Returns the message's
 * number: the broker has processed it once session.acked reaches it. Open sessions only. */
uint64_t session_send(struct session *s, const Pb__Envelope *e);
void session_beat(struct session *s); /* a heartbeat now; nothing when there is no session */
size_t session_unsent(struct session *s);
void session_leave(struct session *s, const char *why); /* Bye; calls `left` in the end */

#endif
