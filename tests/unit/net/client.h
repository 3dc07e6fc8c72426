/* A worker by hand: a TCP connection that speaks the framing of nng's REQ itself (eight bytes of
 * greeting, then messages behind a 64-bit length), so that the test says exactly what it wants and
 * sees exactly when the broker closes. */
#ifndef DAVIT_TESTS_NET_CLIENT_H
#define DAVIT_TESTS_NET_CLIENT_H

#include "common/arena.h"
#include "proto/pb.h"
#include "tests/unit/turn/fixture.h"

struct client {
    int fd;
    struct arena arena; /* of the message received last */
    uint32_t version; /* that it speaks: the newest, unless a test sets another after client_open */
    uint64_t session;
    uint64_t worker_id;
    uint64_t seq;            /* of the last numbered message sent */
    uint64_t seen;           /* the broker's last number: goes out as `ack` */
    uint64_t next_seen;      /* what the broker's next number must be */
    bool mute;               /* do not acknowledge: `ack` stays at what it is */
    Pb__JobKey assigned[64]; /* of the last Assign, what client_expect_assign has not told yet */
    size_t assigned_count;
};

void client_open(struct client *c, const struct fixture *f);
void client_close(struct client *c);

/* One frame with these bytes behind the request number; as they are, whatever they are. */
void client_send_bytes(struct client *c, const void *p, size_t n);
/* Bytes outside of any frame. */
void client_send_raw(struct client *c, const void *p, size_t n);
/* Fills in version, session, seq and ack. */
void client_send(struct client *c, Pb__Envelope *body);
/* The next message within 3 s; NULL: the pipe was closed, or there was none. */
Pb__Envelope *client_receive(struct client *c);
/* The next message that is not a HeartbeatAck, which must be of that kind. */
Pb__Envelope *client_expect(struct client *c, Pb__Envelope__BodyCase kind);
/* Nothing but HeartbeatAcks comes within ms. */
void client_expect_silence(struct client *c, uint32_t ms);
/* The broker closes the pipe within 3 s. */
void client_expect_closed(struct client *c);

struct client_hello {
    const char *name;  /* also its identity */
    const char *token; /* NULL: the worker token of the fixture */
    uint32_t slots;
    Pb__HeldJob **jobs;
    size_t job_count;
};
void client_send_hello(struct client *c, const struct client_hello *h);
/* Hello and Welcome. */
void client_join(struct client *c, const struct fixture *f, const char *name, uint32_t slots);

void client_beat(struct client *c, Pb__HeldJob **jobs, size_t count);
void client_send_assign_ack(struct client *c, const Pb__JobKey *key);
void client_send_started(struct client *c, const Pb__JobKey *key);
void client_send_log(struct client *c, const Pb__JobKey *key, uint64_t offset, const char *text);
void client_send_finished(struct client *c, const Pb__JobKey *key, uint64_t log_size);
void client_send_return(struct client *c, const Pb__JobKey *key);

/* The next job that was assigned, from the last Assign or one that it waits for: its key, a copy.
 */
Pb__JobKey client_expect_assign(struct client *c);
/* Acknowledges it, too, and starts the job. */
Pb__JobKey client_take_job(struct client *c);

/* How a worker lists a job that it holds; `key` by reference. */
Pb__HeldJob client_held(Pb__JobKey *key, Pb__HeldState state);
/* Sessions that the broker has ended for what they said. */
uint64_t fleet_violations(struct fixture *f);

#endif
