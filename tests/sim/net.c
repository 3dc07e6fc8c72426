#include "common/base.h"

#include <stdlib.h>

#include "broker/net/wire.h"
#include "common/limits.h"
#include "tests/sim/sim.h"

/* The network, and the adapter of it that the broker sees instead of nng's. Messages of one
 * connection keep their order; a connection that breaks takes with it what was on its way. */

struct wire {
    struct inbox *inbox;
};

struct wire_msg {
    size_t n;
    char *bytes;
};

static struct link *link_of(uint32_t pipe)
{
    check(pipe != 0 && pipe < sim->link_count);
    return &sim->links[pipe];
}

static uint64_t delay_us(void)
{
    return strikes(sim->swarm.slow) ? between(SIM_MS, 3 * SIM_SECOND) : between(50, 2000);
}

/* When what is sent now arrives: after all that was sent before. */
static uint64_t arrival_us(uint64_t last_us)
{
    const uint64_t at_us = sim->now_us + delay_us();

    return MAX(at_us, last_us + 1);
}

/* What is sent from now on, either way, may or may not arrive, and who hears of it? */
static void maybe_break(uint32_t pipe)
{
    struct link *l = link_of(pipe);

    if (!strikes(sim->swarm.cut)) {
        return;
    }
    trace("net: pipe %u breaks", pipe);
    const bool silent = strikes(sim->swarm.half_open);
    if (one_in(4)) {
        l->to_worker_dead = true;
    } else {
        l->to_broker_dead = true;
        l->to_worker_dead = l->to_worker_dead || !one_in(4);
    }
    if (!silent || one_in(2)) {
        event_add_us(sim->now_us + delay_us(), EV_WORKER_DOWN, pipe, 0);
    }
    if (!silent || one_in(2)) {
        event_add_us(sim->now_us + delay_us(), EV_BROKER_DOWN, pipe, 0);
    }
}

uint32_t net_connect(uint32_t owner)
{
    if (!sim->up || !sim->listening) {
        return 0;
    }
    if (sim->link_count == sim->link_cap) {
        sim->link_cap = MAX(64u, 2 * sim->link_cap);
        sim->links = xrealloc(sim->links, sim->link_cap * sizeof(*sim->links));
    }
    const uint32_t pipe = sim->link_count++;
    sim->links[pipe] = (struct link){.owner = owner,
                                     .broker_open = true,
                                     .worker_open = true,
                                     .up_us = sim->now_us,
                                     .down_us = sim->now_us,
                                     .heard_us = sim->now_us};
    struct item *item = item_new(ITEM_PIPE_UP);
    item->pipe = pipe;
    inbox_push_event(sim->inbox, item);
    broker_wish(sim->now_us);
    return pipe;
}

void net_send(uint32_t pipe, const void *p, size_t n)
{
    struct link *l = link_of(pipe);

    maybe_break(pipe);
    if (!l->to_broker_dead) {
        l->up_us = arrival_us(l->up_us);
        event_add_bytes(l->up_us, EV_TO_BROKER, pipe, p, n, NULL, 0);
    }
}

void net_close(uint32_t pipe)
{
    struct link *l = link_of(pipe);

    l->worker_open = false;
    if (!l->to_broker_dead) {
        l->up_us = arrival_us(l->up_us);
        event_add_us(l->up_us, EV_BROKER_DOWN, pipe, 0);
    }
}

void net_to_broker(uint32_t pipe, char *bytes, size_t n)
{
    struct link *l = link_of(pipe);

    if (!sim->up || !l->broker_open || l->to_broker_dead) {
        free(bytes);
        return;
    }
    struct item *item = item_new(ITEM_MESSAGE);
    item->pipe = pipe;
    item->msg = xcalloc(1, sizeof(*item->msg));
    item->msg->bytes = bytes;
    item->msg->n = n;
    item->bytes = n;
    l->heard_us = sim->now_us;
    inbox_push_message(sim->inbox, item);
    broker_wish(sim->now_us + below(300));
}

void net_broker_down(uint32_t pipe)
{
    struct link *l = link_of(pipe);

    if (!sim->up || !l->broker_open) {
        return;
    }
    struct item *item = item_new(ITEM_PIPE_DOWN);
    item->pipe = pipe;
    inbox_push_event(sim->inbox, item);
    broker_wish(sim->now_us + below(300));
}

/* The broker's end of a connection is gone; the other end learns of it, if at all, later. */
static void end_link(uint32_t pipe)
{
    struct link *l = link_of(pipe);

    l->broker_open = false;
    if (l->worker_open && !l->to_worker_dead && !strikes(sim->swarm.half_open)) {
        l->down_us = arrival_us(l->down_us);
        event_add_us(l->down_us, EV_WORKER_DOWN, pipe, 0);
    }
}

void net_broker_killed(void)
{
    for (uint32_t i = 1; i < sim->link_count; i++) {
        if (sim->links[i].broker_open) {
            end_link(i);
        }
    }
}

int wire_listen(struct inbox *in, const char *url, struct tls *tls, struct wire **ret,
                uint16_t *ret_port, struct buf *why)
{
    *ret = xcalloc(1, sizeof(**ret));
    (*ret)->inbox = in;
    *ret_port = 1;
    sim->listening = true;
    return 0;
}

void wire_close(struct wire *w)
{
    sim->listening = false;
    net_broker_killed();
    free(w);
}

void wire_resume(struct wire *w)
{
    check(w->inbox == sim->inbox);
}

/* Nothing gets out before all that was applied is safe: a kill now must lose none of it. */
void wire_send(struct wire *w, uint32_t pipe, struct str head, struct str body)
{
    struct link *l = link_of(pipe);

    check(w->inbox == sim->inbox);
    if (sim->dead || !l->broker_open) {
        return;
    }
    broker_acknowledge("a message");
    check(head.n + body.n <= LIMIT_WIRE_MESSAGE);
    maybe_break(pipe);
    if (!l->to_worker_dead && l->worker_open) {
        l->down_us = arrival_us(l->down_us);
        event_add_bytes(l->down_us, EV_TO_WORKER, pipe, head.p, head.n, body.p, body.n);
    }
}

void wire_flush(struct wire *w, uint32_t pipe)
{
}

bool wire_peer(struct wire *w, uint32_t pipe, struct tls_peer *ret)
{
    return false;
}

void wire_close_pipe(struct wire *w, uint32_t pipe)
{
    check(w->inbox == sim->inbox);
    if (link_of(pipe)->broker_open) {
        end_link(pipe);
    }
}

struct str wire_msg_body(const struct wire_msg *msg)
{
    return str_of(msg->bytes, msg->n);
}

void wire_msg_free(struct wire_msg *msg)
{
    if (msg != NULL) {
        free(msg->bytes);
        free(msg);
    }
}
