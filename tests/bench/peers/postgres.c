/* PostgreSQL: a table, taken from by UPDATE of what SELECT ... FOR UPDATE SKIP LOCKED chose, over
 * its own protocol with prepared statements. A submit is one INSERT of all that a round brings; a
 * worker's connection ends what it holds and takes the next in one transaction.
 *
 * The state is in no index, so that taking a job is an update in its page. Variants: "notify" (a
 * submit wakes idle workers by NOTIFY) and "poll" (they look every half millisecond, and always
 * right after they found something). */
#include "common/base.h"

#include "tests/bench/peers/peer.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/os.h"
#include "tests/bench/peers/pgwire.h"

enum { POLL_US = 500 };

struct postgres;

struct side {
    struct postgres *g;
    struct conn *c;
    bool worker;
    bool ready; /* logged in and prepared */
    bool busy;  /* a transaction is on its way */
    bool woken;
    unsigned set_up_steps;
    uint64_t looked_us;    /* when it found nothing last */
    struct fifo has;       /* two numbers a job: id and tag; held by the worker */
    struct fifo coming;    /* the same, before the commit */
    struct fifo finishing; /* tags of the transaction on its way */
    struct fifo tags;      /* submitted */
    struct fifo counts;    /* how many of these each transaction has */
    size_t room;
};

struct postgres {
    struct driver *d;
    struct loop *loop;
    struct side *sides; /* submitters, then workers; [0] makes the table */
    size_t n;           /* submitters */
    size_t n_sides;
    size_t set_up;
    size_t next;
    uint16_t port;
    bool notify;
    bool quiet;
    bool made; /* the table is there */
    char table[64];
};

static void lost(struct conn *c UNUSED, void *ctx UNUSED)
{
    driver_fail("postgres", STR("the connection is gone"));
}

static void start(struct side *s);

static void prepare(struct side *s)
{
    struct buf *out = conn_out(s->c);
    char sql[600];

    if (!s->worker) {
        snprintf(sql, sizeof(sql), "INSERT INTO %s (payload) SELECT unnest($1::text[])",
                 s->g->table);
        pg_parse(out, "i", sql);
        snprintf(sql, sizeof(sql), "SELECT pg_notify('%s', '')", s->g->table);
        pg_parse(out, "n", sql);
    } else {
        snprintf(sql, sizeof(sql),
                 "UPDATE %s SET state = 1 WHERE id = ANY (ARRAY(SELECT id FROM %s WHERE state = 0 "
                 "ORDER BY id LIMIT $1::int FOR UPDATE SKIP LOCKED)) RETURNING id, payload",
                 s->g->table, s->g->table);
        pg_parse(out, "t", sql);
        snprintf(sql, sizeof(sql), "DELETE FROM %s WHERE id = ANY ($1::bigint[])", s->g->table);
        pg_parse(out, "f", sql);
    }
    pg_sync(out);
    if (s->worker && s->g->notify) {
        snprintf(sql, sizeof(sql), "LISTEN %s", s->g->table);
        pg_query(out, sql);
    }
}

static void make_table(struct side *s)
{
    char sql[600];

    snprintf(sql, sizeof(sql),
             "CREATE TABLE IF NOT EXISTS %s (id bigserial PRIMARY KEY, state smallint NOT NULL "
             "DEFAULT 0, payload text NOT NULL) WITH (fillfactor = 70, "
             "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000, "
             "autovacuum_vacuum_cost_delay = 0, autovacuum_vacuum_insert_threshold = -1)",
             s->g->table);
    pg_query(conn_out(s->c), sql);
}

/* Answers that end a step of the set-up: the login, the table, the statements, LISTEN. */
static void take_set_up(struct side *s)
{
    struct postgres *g = s->g;

    s->set_up_steps++;
    if (!g->made && s->set_up_steps == 1) {
        make_table(s);
        return;
    }
    if (!g->made) {
        g->made = true;
        for (size_t i = 1; i < g->n_sides; i++) {
            start(&g->sides[i]);
        }
        s->set_up_steps = 1;
    }
    if (s->set_up_steps == 1) {
        prepare(s);
    } else if (s->set_up_steps == (s->worker && g->notify ? 3u : 2u)) {
        s->ready = true;
        if (++g->set_up == g->n_sides) {
            driver_ready(g->d);
        }
    }
}

static void take_row(struct side *s, struct str row)
{
    struct str id = pg_column(row, 0);
    struct str payload = pg_column(row, 1);
    uint64_t number;

    if (id.n == 0 || payload.n != PEER_PAYLOAD) {
        return; /* that of pg_notify */
    }
    check(str_to_u64(id, &number) == 0);
    fifo_push(&s->coming, number);
    fifo_push(&s->coming, peer_tag(payload.p));
}

/* The transaction is committed. */
static void take_commit(struct side *s)
{
    struct driver *d = s->g->d;

    s->busy = false;
    if (!s->worker) {
        for (uint64_t i = fifo_pop(&s->counts); i > 0; i--) {
            driver_submitted(d, fifo_pop(&s->tags));
        }
        return;
    }
    while (s->finishing.n > 0) {
        driver_finished(d, fifo_pop(&s->finishing));
    }
    if (s->coming.n == 0) {
        s->looked_us = os_monotonic_us();
    }
    while (s->coming.n > 0) {
        fifo_push(&s->has, fifo_pop(&s->coming));
        uint64_t tag = fifo_pop(&s->coming);
        fifo_push(&s->has, tag);
        driver_has(d, tag);
    }
}

static size_t take(struct conn *c UNUSED, void *ctx, const char *p, size_t n)
{
    struct side *s = ctx;
    struct str rest = {p, n};
    struct pg_message m;

    while (pg_take(&rest, &m)) {
        if (m.type == 'E') {
            driver_fail("postgres", pg_error(m.body));
        } else if (m.type == 'A') {
            s->woken = true;
        } else if (m.type == 'D') {
            take_row(s, m.body);
        } else if (m.type == 'Z' && s->ready) {
            take_commit(s);
        } else if (m.type == 'Z') {
            take_set_up(s);
        }
    }
    return n - rest.n;
}

static void start(struct side *s)
{
    static const struct conn_events events = {.input = take, .closed = lost};

    s->c = conn_open(s->g->loop, s->g->port, &events, s);
    pg_startup(conn_out(s->c));
}

static struct peer *open_peer(const struct peer_config *config, struct loop *l, struct driver *d)
{
    struct postgres *g = xcalloc(1, sizeof(*g));

    g->d = d;
    g->loop = l;
    g->port = config->port;
    g->notify = strcmp(config->variant, "poll") != 0;
    g->n = MIN(config->connections, config->window);
    g->n_sides = config->worker ? 2 * g->n : g->n;
    snprintf(g->table, sizeof(g->table), "jobs_%s", config->queue);
    g->sides = xcalloc(g->n_sides, sizeof(*g->sides));
    for (size_t i = 0; i < g->n_sides; i++) {
        struct side *s = &g->sides[i];
        s->g = g;
        s->worker = i >= g->n;
        s->woken = true;
        s->room = config->window / g->n;
    }
    start(&g->sides[0]);
    return (struct peer *)g;
}

static void free_peer(struct peer *p)
{
    struct postgres *g = (struct postgres *)p;

    for (size_t i = 0; i < g->n_sides; i++) {
        fifo_release(&g->sides[i].has);
        fifo_release(&g->sides[i].coming);
        fifo_release(&g->sides[i].finishing);
        fifo_release(&g->sides[i].tags);
        fifo_release(&g->sides[i].counts);
    }
    free(g->sides);
    free(g);
}

static void insert(struct side *s, const uint64_t *tags, size_t n)
{
    struct buf *out = conn_out(s->c);
    struct buf array = BUF_INIT;
    char payload[PEER_PAYLOAD];

    for (size_t i = 0; i < n; i++) {
        buf_add_char(&array, i == 0 ? '{' : ',');
        peer_payload(tags[i], payload);
        buf_add(&array, payload, sizeof(payload));
        fifo_push(&s->tags, tags[i]);
    }
    buf_add_char(&array, '}');
    fifo_push(&s->counts, n);
    pg_execute(out, "i", buf_str(&array));
    if (s->g->notify) {
        pg_execute(out, "n", STR_NULL);
    }
    pg_sync(out);
    buf_release(&array);
}

static void submit(struct peer *p, const uint64_t *tags, size_t n)
{
    struct postgres *g = (struct postgres *)p;
    size_t sides = MIN(n, g->n);

    for (size_t i = 0; i < sides; i++) {
        size_t from = n * i / sides;
        insert(&g->sides[g->next], tags + from, n * (i + 1) / sides - from);
        g->next = (g->next + 1) % g->n;
    }
}

/* Ends all that the worker holds and takes as many as it then has room for. */
static void finish_and_take(struct side *s)
{
    struct buf *out = conn_out(s->c);
    struct buf ids = BUF_INIT;
    char room[16];

    for (size_t i = 0; s->has.n > 0; i++) {
        buf_addf(&ids, "%c%" PRIu64, i == 0 ? '{' : ',', fifo_pop(&s->has));
        fifo_push(&s->finishing, fifo_pop(&s->has));
    }
    if (ids.n > 0) {
        buf_add_char(&ids, '}');
        pg_execute(out, "f", buf_str(&ids));
    }
    if (!s->g->quiet) {
        snprintf(room, sizeof(room), "%zu", s->room);
        pg_execute(out, "t", str_from(room));
    }
    pg_sync(out);
    s->busy = true;
    s->woken = false;
    buf_release(&ids);
}

static void end_round(struct peer *p)
{
    struct postgres *g = (struct postgres *)p;

    for (size_t i = g->n; i < g->n_sides && g->set_up == g->n_sides; i++) {
        struct side *s = &g->sides[i];
        bool look = s->woken || s->looked_us == 0 ||
                    (!g->notify && os_monotonic_us() - s->looked_us >= POLL_US);

        if (!s->busy && (s->has.n > 0 || (look && !g->quiet))) {
            finish_and_take(s);
        }
    }
}

static void quiesce(struct peer *p)
{
    ((struct postgres *)p)->quiet = true;
}

const struct peer_ops peer_postgres = {
    .name = "PostgreSQL",
    .durable = "each step",
    .max_wait_us = POLL_US,
    .open = open_peer,
    .free = free_peer,
    .submit = submit,
    .round = end_round,
    .quiesce = quiesce,
};
