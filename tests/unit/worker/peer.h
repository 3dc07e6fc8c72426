/* A broker by hand for the tests of davit-worker: one raw REP socket, which says what the test
 * tells it to, keeps the protocol's numbers, and holds the worker to them. Fails the test on
 * anything that does not come in time. */
#ifndef DAVIT_TEST_PEER_H
#define DAVIT_TEST_PEER_H

#include <nng/nng.h>

#include "proto/pb.h"
#include "worker/jobdir.h"

#define PEER_HEARTBEAT_MS 100u
#define PEER_LEASE_MS     1500u

struct peer {
    nng_socket socket;
    char url[64];
    uint32_t version; /* that it speaks, and wants to hear but in a Hello */
    uint64_t session;
    uint64_t seq_in, seq_out, acked;
    uint32_t offered;   /* by the last Hello */
    uint32_t header[2]; /* where the worker is */
    nng_pipe pipe;
    struct arena arena; /* of the last message */
    uint32_t lease_ms;  /* of the next Welcome */
    bool mute;          /* answers no heartbeat */
    bool ack_held;      /* acknowledges nothing but Hello */

    struct buf log; /* of the one job that ships */
    bool log_full;
};

void peer_init(struct peer *p);
void peer_release(struct peer *p);
void peer_cut(struct peer *p); /* the connection, as a network would */

/* The next message that is none of Heartbeat and LogChunk: those are answered on the way. */
const Pb__Envelope *peer_next(struct peer *p);
const Pb__Envelope *peer_expect(struct peer *p, Pb__Envelope__BodyCase which);
const Pb__Envelope *peer_beat(struct peer *p);        /* the next Heartbeat */
void peer_run_until_log(struct peer *p, size_t size); /* the log has so many bytes */

/* Hello and Welcome; returns the Hello. */
const Pb__Hello *peer_welcome(struct peer *p);
void peer_assign(struct peer *p, struct job_key key, const char *script);
/* In one message; at most eight. */
void peer_assign_all(struct peer *p, const struct job_key *keys, size_t count, const char *script);
void peer_send(struct peer *p, Pb__Envelope *e);
void peer_send_spec(struct peer *p, Pb__JobSpec *spec);
void peer_cancel(struct peer *p, struct job_key key, Pb__CancelKind kind);
void peer_drain(struct peer *p, bool undo);
void peer_finish_ack(struct peer *p, struct job_key key, bool stale);
void peer_refuse(struct peer *p, const char *code, bool final);
void peer_bye_ack(struct peer *p);

/* JobFinished of this job, whose log must be what came: its outcome. */
const Pb__Outcome *peer_expect_finished(struct peer *p, struct job_key key);

#endif
