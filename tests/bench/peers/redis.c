/* Redis lists as its documentation has a reliable queue: LPUSH, BLMOVE from the queue to a list of
 * what is being processed, LREM from there.
 *
 * A BLMOVE that waits blocks what is behind it on its connection. So a set of connections has one
 * for submits (one LPUSH with all that a round brings), one for BLMOVEs (as many pipelined as the
 * worker has room) and one for LREMs (pipelined). LREM looks from the tail, where the oldest is. */
#include "common/base.h"

#include "tests/bench/peers/peer.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/bench/peers/resp.h"

struct redis;

struct set {
    struct redis *r;
    struct conn *submits;
    struct conn *moves;
    struct conn *removals;
    struct fifo tags;      /* of submits */
    struct fifo counts;    /* how many each LPUSH has */
    struct fifo has;       /* came in this round */
    struct fifo finishing; /* LREM is on its way */
    size_t free_slots;     /* room for a BLMOVE that has not been sent */
};

struct redis {
    struct driver *d;
    struct set *sets;
    size_t n;
    size_t next; /* whose turn it is to submit */
    char list[64];
    char taken[64];
};

static void lost(struct conn *c UNUSED, void *ctx UNUSED)
{
    driver_fail("redis", STR("the connection is gone"));
}

static size_t take_submits(struct conn *c UNUSED, void *ctx, const char *p, size_t n)
{
    struct set *s = ctx;
    struct str rest = {p, n};
    struct resp reply;

    while (resp_take(&rest, &reply)) {
        if (reply.type != ':') {
            driver_fail("redis: LPUSH", reply.text);
        }
        for (uint64_t i = fifo_pop(&s->counts); i > 0; i--) {
            driver_submitted(s->r->d, fifo_pop(&s->tags));
        }
    }
    return n - rest.n;
}

static size_t take_moves(struct conn *c UNUSED, void *ctx, const char *p, size_t n)
{
    struct set *s = ctx;
    struct str rest = {p, n};
    struct resp reply;

    while (resp_take(&rest, &reply)) {
        if (reply.type != '$' || reply.text.n != PEER_PAYLOAD) {
            driver_fail("redis: BLMOVE", reply.text);
        }
        uint64_t tag = peer_tag(reply.text.p);
        driver_has(s->r->d, tag);
        fifo_push(&s->has, tag);
    }
    return n - rest.n;
}

static size_t take_removals(struct conn *c UNUSED, void *ctx, const char *p, size_t n)
{
    struct set *s = ctx;
    struct str rest = {p, n};
    struct resp reply;

    while (resp_take(&rest, &reply)) {
        if (reply.type != ':' || reply.number != 1) {
            driver_fail("redis: LREM", reply.text);
        }
        driver_finished(s->r->d, fifo_pop(&s->finishing));
    }
    return n - rest.n;
}

static struct peer *open_peer(const struct peer_config *config, struct loop *l, struct driver *d)
{
    static const struct conn_events submit_events = {.input = take_submits, .closed = lost};
    static const struct conn_events move_events = {.input = take_moves, .closed = lost};
    static const struct conn_events removal_events = {.input = take_removals, .closed = lost};
    struct redis *r = xcalloc(1, sizeof(*r));

    r->d = d;
    r->n = MIN(config->connections, config->window);
    snprintf(r->list, sizeof(r->list), "%s", config->queue);
    snprintf(r->taken, sizeof(r->taken), "%s:taken", config->queue);
    r->sets = xcalloc(r->n, sizeof(*r->sets));
    for (size_t i = 0; i < r->n; i++) {
        struct set *s = &r->sets[i];
        s->r = r;
        s->submits = conn_open(l, config->port, &submit_events, s);
        s->moves = conn_open(l, config->port, &move_events, s);
        s->removals = conn_open(l, config->port, &removal_events, s);
        if (config->worker) {
            s->free_slots = config->window / r->n;
        }
    }
    driver_ready(d);
    return (struct peer *)r;
}

static void free_peer(struct peer *p)
{
    struct redis *r = (struct redis *)p;

    for (size_t i = 0; i < r->n; i++) {
        fifo_release(&r->sets[i].tags);
        fifo_release(&r->sets[i].counts);
        fifo_release(&r->sets[i].has);
        fifo_release(&r->sets[i].finishing);
    }
    free(r->sets);
    free(r);
}

static void push(struct set *s, const uint64_t *tags, size_t n)
{
    struct buf *out = conn_out(s->submits);
    char payload[PEER_PAYLOAD];

    resp_begin(out, n + 2);
    resp_add(out, STR("LPUSH"));
    resp_add(out, str_from(s->r->list));
    for (size_t i = 0; i < n; i++) {
        peer_payload(tags[i], payload);
        resp_add(out, str_of(payload, sizeof(payload)));
        fifo_push(&s->tags, tags[i]);
    }
    fifo_push(&s->counts, n);
}

static void submit(struct peer *p, const uint64_t *tags, size_t n)
{
    struct redis *r = (struct redis *)p;
    size_t sets = MIN(n, r->n);

    for (size_t i = 0; i < sets; i++) {
        size_t from = n * i / sets;
        push(&r->sets[r->next], tags + from, n * (i + 1) / sets - from);
        r->next = (r->next + 1) % r->n;
    }
}

static void end_round(struct peer *p)
{
    struct redis *r = (struct redis *)p;
    char payload[PEER_PAYLOAD];

    for (struct set *s = r->sets; s < r->sets + r->n; s++) {
        while (s->has.n > 0) {
            struct buf *out = conn_out(s->removals);
            uint64_t tag = fifo_pop(&s->has);
            peer_payload(tag, payload);
            resp_begin(out, 4);
            resp_add(out, STR("LREM"));
            resp_add(out, str_from(r->taken));
            resp_add(out, STR("-1"));
            resp_add(out, str_of(payload, sizeof(payload)));
            fifo_push(&s->finishing, tag);
            s->free_slots++;
        }
        for (; s->free_slots > 0; s->free_slots--) {
            struct buf *out = conn_out(s->moves);
            resp_begin(out, 6);
            resp_add(out, STR("BLMOVE"));
            resp_add(out, str_from(r->list));
            resp_add(out, str_from(r->taken));
            resp_add(out, STR("RIGHT"));
            resp_add(out, STR("LEFT"));
            resp_add(out, STR("0"));
        }
    }
}

const struct peer_ops peer_redis_list = {
    .name = "Redis lists",
    .durable = "each step",
    .open = open_peer,
    .free = free_peer,
    .submit = submit,
    .round = end_round,
};
