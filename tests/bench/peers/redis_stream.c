/* Redis streams with a consumer group: XADD, XREADGROUP with as many as the worker has room for,
 * XACK and XDEL of all that a round brought (a stream forgets nothing by itself). Connections as
 * for lists (redis.c). */
#include "common/base.h"

#include "tests/bench/peers/peer.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/bench/peers/resp.h"

struct stream;

struct set {
    struct stream *r;
    struct conn *submits;
    struct conn *reads;
    struct conn *acks;
    struct fifo tags;       /* of submits */
    struct fifo has;        /* three numbers a job: both halves of its id, its tag */
    struct fifo finishing;  /* tags */
    struct fifo ack_counts; /* how many jobs each XACK has */
    size_t room;            /* what the worker could take beyond what it holds */
    uint64_t id_ms;         /* of the entry that is being read */
    uint64_t id_sequence;
    size_t entries; /* of the reply that are still to come */
    unsigned token; /* of the reply's head, or of the entry */
    bool in_entries;
    bool reading;  /* an XREADGROUP is on its way */
    bool deleting; /* the next reply is that of an XDEL */
};

struct stream {
    struct driver *d;
    struct set *sets;
    size_t n;
    size_t next; /* whose turn it is to submit */
    size_t set_up;
    bool worker;
    char key[64];
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
        if (s->r->set_up < s->r->n) {
            /* XGROUP CREATE; BUSYGROUP when it is there already */
            if (++s->r->set_up == s->r->n) {
                driver_ready(s->r->d);
            }
        } else if (reply.type == '$') {
            driver_submitted(s->r->d, fifo_pop(&s->tags));
        } else {
            driver_fail("redis: XADD", reply.text);
        }
    }
    return n - rest.n;
}

static void take_id(struct set *s, struct str id)
{
    struct str part;

    if (!str_split(&id, '-', &part) || str_to_u64(part, &s->id_ms) < 0 ||
        str_to_u64(id, &s->id_sequence) < 0) {
        driver_fail("redis: no id", id);
    }
}

/* The five values of an entry: array, id, array, name of the field, payload. */
static void take_entry_token(struct set *s, const struct resp *reply)
{
    s->token++;
    if (s->token == 2) {
        take_id(s, reply->text);
    } else if (s->token == 5) {
        uint64_t tag = peer_tag(reply->text.p);
        driver_has(s->r->d, tag);
        fifo_push(&s->has, s->id_ms);
        fifo_push(&s->has, s->id_sequence);
        fifo_push(&s->has, tag);
        check(s->room > 0);
        s->room--;
        s->token = 0;
        s->entries--;
    }
}

/* Before the entries: array of streams, array, key, array of entries. */
static void take_head_token(struct set *s, const struct resp *reply)
{
    if (reply->type == '-' || reply->number < 0) {
        driver_fail("redis: XREADGROUP", reply->text);
    }
    s->token++;
    if (s->token == 4) {
        s->entries = (size_t)reply->number;
        s->in_entries = true;
        s->token = 0;
    }
}

static size_t take_reads(struct conn *c UNUSED, void *ctx, const char *p, size_t n)
{
    struct set *s = ctx;
    struct str rest = {p, n};
    struct resp reply;

    while (resp_take(&rest, &reply)) {
        if (!s->in_entries) {
            take_head_token(s, &reply);
            continue;
        }
        take_entry_token(s, &reply);
        if (s->entries == 0) {
            s->in_entries = false;
            s->reading = false;
        }
    }
    return n - rest.n;
}

static size_t take_acks(struct conn *c UNUSED, void *ctx, const char *p, size_t n)
{
    struct set *s = ctx;
    struct str rest = {p, n};
    struct resp reply;

    while (resp_take(&rest, &reply)) {
        if (reply.type != ':') {
            driver_fail("redis: XACK", reply.text);
        }
        for (uint64_t i = s->deleting ? fifo_pop(&s->ack_counts) : 0; i > 0; i--) {
            driver_finished(s->r->d, fifo_pop(&s->finishing));
        }
        s->deleting = !s->deleting;
    }
    return n - rest.n;
}

static struct peer *open_peer(const struct peer_config *config, struct loop *l, struct driver *d)
{
    static const struct conn_events submit_events = {.input = take_submits, .closed = lost};
    static const struct conn_events read_events = {.input = take_reads, .closed = lost};
    static const struct conn_events ack_events = {.input = take_acks, .closed = lost};
    struct stream *r = xcalloc(1, sizeof(*r));

    r->d = d;
    r->n = MIN(config->connections, config->window);
    r->worker = config->worker;
    snprintf(r->key, sizeof(r->key), "%s:stream", config->queue);
    r->sets = xcalloc(r->n, sizeof(*r->sets));
    for (size_t i = 0; i < r->n; i++) {
        struct set *s = &r->sets[i];
        s->r = r;
        s->submits = conn_open(l, config->port, &submit_events, s);
        s->reads = conn_open(l, config->port, &read_events, s);
        s->acks = conn_open(l, config->port, &ack_events, s);
        s->room = config->window / r->n;
        resp_begin(conn_out(s->submits), 6);
        resp_add(conn_out(s->submits), STR("XGROUP"));
        resp_add(conn_out(s->submits), STR("CREATE"));
        resp_add(conn_out(s->submits), str_from(r->key));
        resp_add(conn_out(s->submits), STR("g"));
        resp_add(conn_out(s->submits), STR("0"));
        resp_add(conn_out(s->submits), STR("MKSTREAM"));
    }
    return (struct peer *)r;
}

static void free_peer(struct peer *p)
{
    struct stream *r = (struct stream *)p;

    for (size_t i = 0; i < r->n; i++) {
        fifo_release(&r->sets[i].tags);
        fifo_release(&r->sets[i].has);
        fifo_release(&r->sets[i].finishing);
        fifo_release(&r->sets[i].ack_counts);
    }
    free(r->sets);
    free(r);
}

static void submit(struct peer *p, const uint64_t *tags, size_t n)
{
    struct stream *r = (struct stream *)p;
    char payload[PEER_PAYLOAD];

    for (size_t i = 0; i < n; i++) {
        struct set *s = &r->sets[r->next];
        struct buf *out = conn_out(s->submits);
        peer_payload(tags[i], payload);
        resp_begin(out, 5);
        resp_add(out, STR("XADD"));
        resp_add(out, str_from(r->key));
        resp_add(out, STR("*"));
        resp_add(out, STR("d"));
        resp_add(out, str_of(payload, sizeof(payload)));
        fifo_push(&s->tags, tags[i]);
        r->next = (r->next + 1) % r->n;
    }
}

static void add_number(struct buf *out, uint64_t n)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, n);
    resp_add(out, str_from(text));
}

static void read_more(struct set *s, size_t number)
{
    struct buf *out = conn_out(s->reads);

    resp_begin(out, 11);
    resp_add(out, STR("XREADGROUP"));
    resp_add(out, STR("GROUP"));
    resp_add(out, STR("g"));
    add_number(out, number);
    resp_add(out, STR("COUNT"));
    add_number(out, s->room);
    resp_add(out, STR("BLOCK"));
    resp_add(out, STR("0"));
    resp_add(out, STR("STREAMS"));
    resp_add(out, str_from(s->r->key));
    resp_add(out, STR(">"));
    s->reading = true;
}

/* Takes the ids that are waiting out of `has`; XACK and XDEL of them. */
static void finish(struct set *s)
{
    size_t jobs = s->has.n / 3;
    struct buf *out = conn_out(s->acks);
    struct buf ids = BUF_INIT;
    char id[48];

    for (size_t i = 0; i < jobs; i++) {
        uint64_t ms = fifo_pop(&s->has);
        uint64_t sequence = fifo_pop(&s->has);
        snprintf(id, sizeof(id), "%" PRIu64 "-%" PRIu64, ms, sequence);
        resp_add(&ids, str_from(id));
        fifo_push(&s->finishing, fifo_pop(&s->has));
    }
    resp_begin(out, jobs + 3);
    resp_add(out, STR("XACK"));
    resp_add(out, str_from(s->r->key));
    resp_add(out, STR("g"));
    buf_add_str(out, buf_str(&ids));
    resp_begin(out, jobs + 2);
    resp_add(out, STR("XDEL"));
    resp_add(out, str_from(s->r->key));
    buf_add_str(out, buf_str(&ids));
    fifo_push(&s->ack_counts, jobs);
    s->room += jobs;
    buf_release(&ids);
}

static void end_round(struct peer *p)
{
    struct stream *r = (struct stream *)p;

    for (size_t i = 0; i < r->n; i++) {
        struct set *s = &r->sets[i];
        if (s->has.n > 0) {
            finish(s);
        }
        if (r->worker && !s->reading && s->room > 0 && r->set_up == r->n) {
            read_more(s, i);
        }
    }
}

const struct peer_ops peer_redis_stream = {
    .name = "Redis streams",
    .durable = "each step",
    .open = open_peer,
    .free = free_peer,
    .submit = submit,
    .round = end_round,
};
