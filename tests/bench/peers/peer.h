/* A queue under test, as bench_queue drives it: one side submits, the other takes and finishes, all
 * on one thread over the queue's own protocol. Each is spoken to in the way that is fastest for it:
 * what a round of the loop brings together goes out together, in one command where the protocol has
 * one, pipelined where it has not. No peer waits for an answer that it does not need.
 *
 * Jobs are told apart by a tag, the first PEER_TAG bytes of the payload of PEER_PAYLOAD bytes, in
 * hex. Threads: one. */
#ifndef DAVIT_BENCH_PEER_H
#define DAVIT_BENCH_PEER_H

#include "tests/bench/loop.h"

enum { PEER_PAYLOAD = 300, PEER_TAG = 16 };

struct driver; /* bench_queue's */

/* The set-up is done: submit may be called. */
void driver_ready(struct driver *d);
/* The queue has acknowledged the submit. */
void driver_submitted(struct driver *d, uint64_t tag);
/* The worker has the job. */
void driver_has(struct driver *d, uint64_t tag);
/* The queue has acknowledged its end. */
void driver_finished(struct driver *d, uint64_t tag);
/* Ends the program. */
NORETURN void driver_fail(const char *what, struct str why);

struct peer_config {
    uint16_t port;
    const char *queue;   /* letters and digits */
    size_t window;       /* jobs that the workers hold at once, all together */
    size_t connections;  /* of each kind that the peer has */
    const char *variant; /* "": the usual way; others are the peer's own */
    bool worker;         /* take jobs, too */
    const char *token;   /* Davit: of the client */
    const char *worker_token;
};

struct peer;

struct peer_ops {
    const char *name;
    const char *durable;  /* what is on disk when it is acknowledged */
    uint64_t max_wait_us; /* how long a round may wait; 0: as long as it likes */
    struct peer *(*open)(const struct peer_config *config, struct loop *loop, struct driver *d);
    /* Connections are closed by the loop. */
    void (*free)(struct peer *p);
    void (*submit)(struct peer *p, const uint64_t *tags, size_t n);
    /* Behind every round of the loop: says what came together in it. */
    void (*round)(struct peer *p);
    /* Take no more, finish what is held. NULL: closing the connections is as good. */
    void (*quiesce)(struct peer *p);
};

extern const struct peer_ops peer_redis_list;
extern const struct peer_ops peer_redis_stream;
extern const struct peer_ops peer_postgres;
extern const struct peer_ops peer_beanstalkd;
extern const struct peer_ops peer_nats;
extern const struct peer_ops peer_rabbitmq;
extern const struct peer_ops peer_davit;

/* PEER_PAYLOAD bytes. */
void peer_payload(uint64_t tag, char *ret);
uint64_t peer_tag(const char *payload);

/* Numbers in the order in which they are answered. */
struct fifo {
    uint64_t *p;
    size_t cap; /* a power of two */
    size_t head;
    size_t n;
};

void fifo_push(struct fifo *f, uint64_t x);
uint64_t fifo_pop(struct fifo *f); /* there is one */
void fifo_release(struct fifo *f);

/* The line at the front, without its CR LF; false when it is not whole yet. */
bool peer_line(struct str *rest, struct str *ret_line);

#endif
