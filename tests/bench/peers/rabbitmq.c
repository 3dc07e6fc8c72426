/* RabbitMQ, a quorum queue of one node, over AMQP 0-9-1: publishes with confirms, a consumer with
 * as much prefetch as the worker has room, one "ack, multiple" for all that a round brought.
 *
 * The protocol has no answer to an ack. What counts as its acknowledgement here is a round trip on
 * its channel behind it (channel.flow): the channel has passed it to the queue. That is less than
 * "on disk"; an ack that is lost makes the job run again. */
#include "common/base.h"

#include "tests/bench/peers/peer.h"

#include <stdlib.h>

#include "tests/bench/peers/amqp.h"

struct rabbit;

struct side {
    struct rabbit *r;
    struct conn *c;
    bool consumer;
    uint64_t delivery;      /* the newest one's number; of a publisher: the last confirmed */
    struct fifo tags;       /* published, or held, in order */
    struct fifo finishing;  /* acked: tags */
    struct fifo ack_counts; /* how many each flow stands behind */
};

struct rabbit {
    struct driver *d;
    struct loop *loop;
    struct side *sides; /* publishers, then consumers */
    size_t n;           /* publishers */
    size_t n_sides;
    size_t set_up;
    size_t next;
    const char *queue;
    uint16_t port;
    uint16_t prefetch;
};

static void lost(struct conn *c UNUSED, void *ctx UNUSED)
{
    driver_fail("rabbitmq", STR("the connection is gone"));
}

/* Behind Tune: everything up to the queue, in one go. */
static void open_channel(struct side *s)
{
    struct buf *out = conn_out(s->c);

    amqp_tune_ok(out);
    amqp_open(out);
    amqp_channel_open(out);
    amqp_queue_declare(out, s->r->queue);
    if (s->consumer) {
        amqp_qos(out, s->r->prefetch);
        amqp_consume(out, s->r->queue);
    } else {
        amqp_confirm_select(out);
    }
}

static void start(struct side *s);

/* The first side makes the queue: it may not be declared twice at the same time. */
static void count_ready(struct rabbit *r)
{
    r->set_up++;
    for (size_t i = 1; r->set_up == 1 && i < r->n_sides; i++) {
        start(&r->sides[i]);
    }
    if (r->set_up == r->n_sides) {
        driver_ready(r->d);
    }
}

static void take_confirm(struct side *s, const struct amqp_frame *f)
{
    uint64_t tag = amqp_u64(f->payload, 4);

    check(tag > s->delivery && tag - s->delivery <= s->tags.n);
    if (!(f->payload.p[12] & 1) && tag != s->delivery + 1) {
        driver_fail("rabbitmq", STR("confirms out of order"));
    }
    for (; s->delivery < tag; s->delivery++) {
        driver_submitted(s->r->d, fifo_pop(&s->tags));
    }
}

static void take_method(struct side *s, const struct amqp_frame *f)
{
    switch (amqp_method(f)) {
    case AMQP_START:
        amqp_start_ok(conn_out(s->c));
        break;
    case AMQP_TUNE:
        open_channel(s);
        break;
    case AMQP_CONFIRM_SELECT_OK:
    case AMQP_CONSUME_OK:
        count_ready(s->r);
        break;
    case AMQP_DELIVER:
        s->delivery = amqp_u64(f->payload, 5 + (uint8_t)f->payload.p[4]);
        break;
    case AMQP_ACK:
        take_confirm(s, f);
        break;
    case AMQP_FLOW_OK:
        for (uint64_t i = fifo_pop(&s->ack_counts); i > 0; i--) {
            driver_finished(s->r->d, fifo_pop(&s->finishing));
        }
        break;
    case AMQP_CLOSE:
    case AMQP_CHANNEL_CLOSE:
    case AMQP_NACK:
        driver_fail("rabbitmq", str_sub(f->payload, 6, f->payload.n));
    default: /* the answers on the way to the queue */
        break;
    }
}

static size_t take(struct conn *c UNUSED, void *ctx, const char *p, size_t n)
{
    struct side *s = ctx;
    struct str rest = {p, n};
    struct amqp_frame f;

    while (amqp_take(&rest, &f)) {
        if (f.type == AMQP_FRAME_METHOD) {
            take_method(s, &f);
        } else if (f.type == AMQP_FRAME_BODY) {
            uint64_t tag = peer_tag(f.payload.p);
            check(f.payload.n == PEER_PAYLOAD);
            driver_has(s->r->d, tag);
            fifo_push(&s->tags, tag);
        }
    }
    return n - rest.n;
}

static void start(struct side *s)
{
    static const struct conn_events events = {.input = take, .closed = lost};

    s->c = conn_open(s->r->loop, s->r->port, &events, s);
    amqp_greet(conn_out(s->c));
}

static struct peer *open_peer(const struct peer_config *config, struct loop *l, struct driver *d)
{
    struct rabbit *r = xcalloc(1, sizeof(*r));

    r->d = d;
    r->loop = l;
    r->port = config->port;
    r->queue = config->queue;
    r->n = MIN(config->connections, config->window);
    r->n_sides = config->worker ? 2 * r->n : r->n;
    r->prefetch = (uint16_t)(config->window / r->n);
    r->sides = xcalloc(r->n_sides, sizeof(*r->sides));
    for (size_t i = 0; i < r->n_sides; i++) {
        struct side *s = &r->sides[i];
        s->r = r;
        s->consumer = i >= r->n;
    }
    start(&r->sides[0]);
    return (struct peer *)r;
}

static void free_peer(struct peer *p)
{
    struct rabbit *r = (struct rabbit *)p;

    for (size_t i = 0; i < r->n_sides; i++) {
        fifo_release(&r->sides[i].tags);
        fifo_release(&r->sides[i].finishing);
        fifo_release(&r->sides[i].ack_counts);
    }
    free(r->sides);
    free(r);
}

static void submit(struct peer *p, const uint64_t *tags, size_t n)
{
    struct rabbit *r = (struct rabbit *)p;
    char payload[PEER_PAYLOAD];

    for (size_t i = 0; i < n; i++) {
        struct side *s = &r->sides[r->next];
        peer_payload(tags[i], payload);
        amqp_publish(conn_out(s->c), r->queue, str_of(payload, sizeof(payload)));
        fifo_push(&s->tags, tags[i]);
        r->next = (r->next + 1) % r->n;
    }
}

static void end_round(struct peer *p)
{
    struct rabbit *r = (struct rabbit *)p;

    for (size_t i = r->n; i < r->n_sides; i++) {
        struct side *s = &r->sides[i];
        if (s->tags.n == 0) {
            continue;
        }
        fifo_push(&s->ack_counts, s->tags.n);
        while (s->tags.n > 0) {
            fifo_push(&s->finishing, fifo_pop(&s->tags));
        }
        amqp_ack_all(conn_out(s->c), s->delivery);
        amqp_flow(conn_out(s->c));
    }
}

const struct peer_ops peer_rabbitmq = {
    .name = "RabbitMQ quorum queue",
    .durable = "submit; an ack when its channel took it",
    .open = open_peer,
    .free = free_peer,
    .submit = submit,
    .round = end_round,
};
