/* beanstalkd, with -b and -f 0: put and delete are on disk before their answer, a reservation is
 * never. A deletion must come from the connection that reserved, and a reserve that waits blocks
 * what is behind it: so each consumer holds one job and sends "delete" and "reserve" together, and
 * there are as many consumers as `connections` says; puts are pipelined on a connection of their
 * own. */
#include "common/base.h"

#include "tests/bench/peers/peer.h"

#include <stdlib.h>

struct beanstalkd;

struct consumer {
    struct beanstalkd *b;
    struct conn *c;
    uint64_t tag;
    bool deleting; /* the next answer is that of the delete */
    bool set_up;
};

struct beanstalkd {
    struct driver *d;
    struct conn *producer;
    struct fifo tags; /* of the puts */
    bool using;       /* the tube is chosen */
    size_t set_up;
    struct consumer *consumers;
    size_t n;
    const char *tube;
};

static void lost(struct conn *c UNUSED, void *ctx UNUSED)
{
    driver_fail("beanstalkd", STR("the connection is gone"));
}

static void count_ready(struct beanstalkd *b)
{
    if (++b->set_up == b->n + 1) {
        driver_ready(b->d);
    }
}

static size_t take_put(struct conn *c UNUSED, void *ctx, const char *p, size_t n)
{
    struct beanstalkd *b = ctx;
    struct str rest = {p, n};
    struct str line;

    while (peer_line(&rest, &line)) {
        if (str_starts(line, STR("INSERTED"))) {
            driver_submitted(b->d, fifo_pop(&b->tags));
        } else if (!b->using && str_starts(line, STR("USING"))) {
            b->using = true;
            count_ready(b);
        } else {
            driver_fail("beanstalkd: put", line);
        }
    }
    return n - rest.n;
}

/* "RESERVED <id> <bytes>", the body, CR LF. False when it is not whole yet. */
static bool take_reserved(struct consumer *k, struct str line, struct str *rest)
{
    struct str part;
    struct str id;

    if (rest->n < PEER_PAYLOAD + 2) {
        return false;
    }
    check(str_split(&line, ' ', &part) && str_split(&line, ' ', &id));
    k->tag = peer_tag(rest->p);
    *rest = str_sub(*rest, PEER_PAYLOAD + 2, rest->n);
    driver_has(k->b->d, k->tag);
    k->deleting = true;
    buf_addf(conn_out(k->c), "delete " STR_FMT "\r\nreserve\r\n", STR_ARG(id));
    return true;
}

static size_t take_job(struct conn *c UNUSED, void *ctx, const char *p, size_t n)
{
    struct consumer *k = ctx;
    struct str rest = {p, n};
    struct str before = rest;
    struct str line;

    while (peer_line(&rest, &line)) {
        if (str_starts(line, STR("RESERVED"))) {
            if (!take_reserved(k, line, &rest)) {
                return n - before.n;
            }
        } else if (k->deleting && str_eqz(line, "DELETED")) {
            k->deleting = false;
            driver_finished(k->b->d, k->tag);
        } else if (!k->set_up && str_starts(line, STR("WATCHING"))) {
            k->set_up = true;
            count_ready(k->b);
            buf_addz(conn_out(k->c), "reserve\r\n");
        } else {
            driver_fail("beanstalkd: reserve", line);
        }
        before = rest;
    }
    return n - rest.n;
}

static struct peer *open_peer(const struct peer_config *config, struct loop *l, struct driver *d)
{
    static const struct conn_events put_events = {.input = take_put, .closed = lost};
    static const struct conn_events job_events = {.input = take_job, .closed = lost};
    struct beanstalkd *b = xcalloc(1, sizeof(*b));

    b->d = d;
    b->n = config->worker ? MIN(config->connections, config->window) : 0;
    b->consumers = xcalloc(b->n + 1, sizeof(*b->consumers));
    b->producer = conn_open(l, config->port, &put_events, b);
    buf_addf(conn_out(b->producer), "use %s\r\n", config->queue);
    for (size_t i = 0; i < b->n; i++) {
        struct consumer *k = &b->consumers[i];
        k->b = b;
        k->c = conn_open(l, config->port, &job_events, k);
        buf_addf(conn_out(k->c), "watch %s\r\n", config->queue);
    }
    return (struct peer *)b;
}

static void free_peer(struct peer *p)
{
    struct beanstalkd *b = (struct beanstalkd *)p;

    fifo_release(&b->tags);
    free(b->consumers);
    free(b);
}

static void submit(struct peer *p, const uint64_t *tags, size_t n)
{
    struct beanstalkd *b = (struct beanstalkd *)p;
    struct buf *out = conn_out(b->producer);
    char payload[PEER_PAYLOAD];

    for (size_t i = 0; i < n; i++) {
        peer_payload(tags[i], payload);
        buf_addf(out, "put 1 0 600 %d\r\n", PEER_PAYLOAD);
        buf_add(out, payload, sizeof(payload));
        buf_addz(out, "\r\n");
        fifo_push(&b->tags, tags[i]);
    }
}

static void end_round(struct peer *p UNUSED)
{
}

const struct peer_ops peer_beanstalkd = {
    .name = "beanstalkd",
    .durable = "submit, finish; never the assignment",
    .open = open_peer,
    .free = free_peer,
    .submit = submit,
    .round = end_round,
};
