/* NATS JetStream: a stream with work-queue retention in files, a push consumer shared by a group
 * that all connections are in. Publishes are acknowledged by name, so are the acks: both ask for an
 * answer at an inbox that has the tag in its name.
 *
 * The server writes each message before it acknowledges it and flushes the file every two minutes
 * (this version has no setting for it): a crash of the machine loses what came since. */
#include "common/base.h"

#include "tests/bench/peers/peer.h"

#include <stdio.h>
#include <stdlib.h>

struct nats;

struct side {
    struct nats *n;
    struct conn *c;
    struct buf acks; /* for the round's end */
    size_t index;
    bool consumer;
};

struct nats {
    struct driver *d;
    struct side *publishers;
    struct side *consumers; /* none: n_consumers is 0 */
    size_t n;
    size_t n_consumers;
    size_t next;
    unsigned set_up; /* answers to the calls that set up */
    char stream[64];
    char subject[64];
    size_t window;
};

static void lost(struct conn *c UNUSED, void *ctx UNUSED)
{
    driver_fail("nats", STR("the connection is gone"));
}

static void call(struct side *s, const char *what, const char *name, struct str body)
{
    struct buf *out = conn_out(s->c);

    buf_addf(out, "PUB $JS.API.%s.%s _S.0 %zu\r\n", what, name, body.n);
    buf_add_str(out, body);
    buf_addz(out, "\r\n");
}

static void make_stream(struct side *s)
{
    struct buf body = BUF_INIT;

    buf_addf(&body,
             "{\"name\":\"%s\",\"subjects\":[\"%s\"],\"retention\":\"workqueue\","
             "\"storage\":\"file\",\"max_consumers\":-1,\"max_msgs\":-1,\"max_bytes\":-1,"
             "\"max_age\":0,\"max_msg_size\":-1,\"discard\":\"old\",\"num_replicas\":1,"
             "\"duplicate_window\":0}",
             s->n->stream, s->n->subject);
    call(s, "STREAM.CREATE", s->n->stream, buf_str(&body));
    buf_release(&body);
}

static void make_consumer(struct side *s)
{
    struct buf body = BUF_INIT;
    char name[160];

    buf_addf(&body,
             "{\"stream_name\":\"%s\",\"config\":{\"durable_name\":\"w\",\"deliver_subject\":"
             "\"_D.%s\",\"deliver_group\":\"w\",\"deliver_policy\":\"all\",\"ack_policy\":"
             "\"explicit\",\"ack_wait\":600000000000,\"max_ack_pending\":%zu,"
             "\"replay_policy\":\"instant\"}}",
             s->n->stream, s->n->stream, s->n->window);
    snprintf(name, sizeof(name), "%s.w", s->n->stream);
    call(s, "CONSUMER.DURABLE.CREATE", name, buf_str(&body));
    buf_release(&body);
}

/* The answers to what was called: the stream is there, the consumer of an earlier run is not (a
 * stream with work-queue retention has one, whose bounds cannot be changed), a new one is. */
static void take_set_up(struct side *s, struct str body)
{
    struct nats *n = s->n;
    char name[160];

    n->set_up++;
    if (n->set_up != 2 && str_find(body, STR("\"error\"")) >= 0) {
        driver_fail("nats", body);
    }
    if (n->n_consumers == 0 || n->set_up == 3) {
        driver_ready(n->d);
    } else if (n->set_up == 1) {
        snprintf(name, sizeof(name), "%s.w", n->stream);
        call(s, "CONSUMER.DELETE", name, STR(""));
    } else {
        make_consumer(s);
    }
}

static void take_job(struct side *s, struct str reply_to, struct str body)
{
    uint64_t tag = peer_tag(body.p);

    driver_has(s->n->d, tag);
    buf_addf(&s->acks, "PUB " STR_FMT " _F.%zu.%016" PRIx64 " 4\r\n+ACK\r\n", STR_ARG(reply_to),
             s->index, tag);
}

/* "MSG <subject> <sid> [reply-to] <bytes>" */
static void take_message(struct side *s, struct str line, struct str body)
{
    struct str words[5];
    size_t count = 0;

    while (count < ARRAY_LEN(words) && str_split(&line, ' ', &words[count])) {
        count++;
    }
    struct str subject = count > 1 ? words[1] : STR_NULL;
    if (str_starts(subject, STR("_S."))) {
        take_set_up(s, body);
    } else if (str_starts(subject, STR("_P."))) {
        if (str_find(body, STR("\"error\"")) >= 0) {
            driver_fail("nats: publish", body);
        }
        driver_submitted(s->n->d, peer_tag(subject.p + subject.n - PEER_TAG));
    } else if (str_starts(subject, STR("_F."))) {
        driver_finished(s->n->d, peer_tag(subject.p + subject.n - PEER_TAG));
    } else if (count == 5 && body.n == PEER_PAYLOAD) {
        take_job(s, words[3], body); /* its subject is that of the stream */
    } else {
        driver_fail("nats: a message of", subject);
    }
}

static size_t take(struct conn *c, void *ctx, const char *p, size_t n)
{
    struct side *s = ctx;
    struct str rest = {p, n};
    struct str before = rest;
    struct str line;
    uint64_t bytes;

    while (peer_line(&rest, &line)) {
        if (str_starts(line, STR("MSG "))) {
            const char *word = memrchr(line.p, ' ', line.n);
            check(str_to_u64(str_of(word + 1, (size_t)(line.p + line.n - word - 1)), &bytes) == 0);
            if (rest.n < bytes + 2) {
                return n - before.n;
            }
            take_message(s, line, str_sub(rest, 0, bytes));
            rest = str_sub(rest, bytes + 2, rest.n);
        } else if (str_eqz(line, "PING")) {
            buf_addz(conn_out(c), "PONG\r\n");
        } else if (str_starts(line, STR("-ERR"))) {
            driver_fail("nats", line);
        }
        before = rest;
    }
    return n - rest.n;
}

static void start(struct side *s, struct loop *l, uint16_t port)
{
    static const struct conn_events events = {.input = take, .closed = lost};

    s->c = conn_open(l, port, &events, s);
    buf_addz(conn_out(s->c), "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,"
                             "\"lang\":\"c\",\"version\":\"1\",\"protocol\":1}\r\n");
    if (s->consumer) {
        buf_addf(conn_out(s->c), "SUB _D.%s w 1\r\nSUB _F.%zu.* 2\r\n", s->n->stream, s->index);
    } else {
        buf_addf(conn_out(s->c), "SUB _P.%zu.* 1\r\n", s->index);
    }
    if (!s->consumer && s->index == 0) {
        buf_addz(conn_out(s->c), "SUB _S.0 3\r\n");
        make_stream(s);
    }
}

static struct peer *open_peer(const struct peer_config *config, struct loop *l, struct driver *d)
{
    struct nats *n = xcalloc(1, sizeof(*n));

    n->d = d;
    n->n = MIN(config->connections, config->window);
    n->n_consumers = config->worker ? n->n : 0;
    n->window = config->window;
    snprintf(n->stream, sizeof(n->stream), "S%s", config->queue);
    snprintf(n->subject, sizeof(n->subject), "jobs.%s", config->queue);
    n->publishers = xcalloc(n->n, sizeof(*n->publishers));
    n->consumers = xcalloc(n->n, sizeof(*n->consumers));
    /* Consumers first: who is there when the stream begins to deliver gets his share. */
    for (size_t i = 0; i < n->n_consumers; i++) {
        n->consumers[i] = (struct side){.n = n, .index = i, .consumer = true};
        start(&n->consumers[i], l, config->port);
    }
    for (size_t i = 0; i < n->n; i++) {
        n->publishers[i] = (struct side){.n = n, .index = i};
        start(&n->publishers[i], l, config->port);
    }
    return (struct peer *)n;
}

static void free_peer(struct peer *p)
{
    struct nats *n = (struct nats *)p;

    for (size_t i = 0; i < n->n; i++) {
        buf_release(&n->consumers[i].acks);
    }
    free(n->publishers);
    free(n->consumers);
    free(n);
}

static void submit(struct peer *p, const uint64_t *tags, size_t count)
{
    struct nats *n = (struct nats *)p;
    char payload[PEER_PAYLOAD];

    for (size_t i = 0; i < count; i++) {
        struct side *s = &n->publishers[n->next];
        struct buf *out = conn_out(s->c);
        peer_payload(tags[i], payload);
        buf_addf(out, "PUB %s _P.%zu.%016" PRIx64 " %d\r\n", n->subject, s->index, tags[i],
                 PEER_PAYLOAD);
        buf_add(out, payload, sizeof(payload));
        buf_addz(out, "\r\n");
        n->next = (n->next + 1) % n->n;
    }
}

static void end_round(struct peer *p)
{
    struct nats *n = (struct nats *)p;

    for (size_t i = 0; i < n->n_consumers; i++) {
        struct side *s = &n->consumers[i];
        if (s->acks.n > 0) {
            buf_add_str(conn_out(s->c), buf_str(&s->acks));
            buf_clear(&s->acks);
        }
    }
}

const struct peer_ops peer_nats = {
    .name = "NATS JetStream",
    .durable = "written; flushed every 2 min",
    .open = open_peer,
    .free = free_peer,
    .submit = submit,
    .round = end_round,
};
