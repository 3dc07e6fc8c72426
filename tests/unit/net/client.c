#include "common/base.h"

#include "tests/unit/net/client.h"

#include <arpa/inet.h>
#include <endian.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/limits.h"
#include "common/os.h"

#define WAIT_MS  3000
#define GREETING "\0SP\0\0\x30\0\0" /* a REQ */
#define ANSWER   "\0SP\0\0\x31\0\0" /* a REP */
#define REQUEST  0x80000001u

static bool readable(struct client *c, int ms)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};

    return poll(&p, 1, ms) > 0;
}

/* False: the broker closed. */
static bool read_all(struct client *c, void *p, size_t n)
{
    for (size_t got = 0; got < n;) {
        assert_true(readable(c, WAIT_MS));
        ssize_t r = read(c->fd, (char *)p + got, n - got);
        if (r <= 0) {
            return false;
        }
        got += (size_t)r;
    }
    return true;
}

void client_open(struct client *c, const struct fixture *f)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(f->port)};
    char answer[8];

    memset(c, 0, sizeof(*c));
    arena_init(&c->arena, 0);
    c->next_seen = 1;
    c->version = WIRE_VERSION;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(c->fd >= 0);
    assert_int_equal(connect(c->fd, (struct sockaddr *)&at, sizeof(at)), 0);
    client_send_raw(c, GREETING, 8);
    assert_true(read_all(c, answer, sizeof(answer)));
    assert_memory_equal(answer, ANSWER, sizeof(answer));
}

void client_close(struct client *c)
{
    close(c->fd);
    arena_release(&c->arena);
}

/* The broker may have closed already: that is seen by reading. */
void client_send_raw(struct client *c, const void *p, size_t n)
{
    for (size_t sent = 0; sent < n;) {
        ssize_t r = send(c->fd, (const char *)p + sent, n - sent, MSG_NOSIGNAL);
        if (r < 0) {
            return;
        }
        sent += (size_t)r;
    }
}

void client_send_bytes(struct client *c, const void *p, size_t n)
{
    uint64_t length = htobe64(n + 4);
    uint32_t request = htonl(REQUEST);
    struct buf frame = BUF_INIT;

    buf_add(&frame, &length, sizeof(length));
    buf_add(&frame, &request, sizeof(request));
    buf_add(&frame, p, n);
    client_send_raw(c, frame.p, frame.n);
    buf_release(&frame);
}

void client_send(struct client *c, Pb__Envelope *body)
{
    struct buf bytes = BUF_INIT;

    body->version = c->version;
    body->session = c->session;
    body->seq = body->body_case == PB__ENVELOPE__BODY_HEARTBEAT ? 0 : ++c->seq;
    body->ack = c->seen;
    PB_PACK(body, &bytes);
    client_send_bytes(c, bytes.p, bytes.n);
    buf_release(&bytes);
}

/* NULL: nothing came, or the broker closed. */
static Pb__Envelope *receive_within(struct client *c, int ms)
{
    Pb__Envelope *e;
    uint64_t length;
    uint32_t request;

    if (!readable(c, ms) || !read_all(c, &length, sizeof(length))) {
        return NULL;
    }
    length = be64toh(length);
    assert_in_range(length, sizeof(request), LIMIT_WIRE_MESSAGE);
    assert_true(read_all(c, &request, sizeof(request)));
    assert_int_equal(ntohl(request), REQUEST);
    arena_release(&c->arena);
    size_t n = length - sizeof(request);
    char *bytes = arena_alloc(&c->arena, n + 1);
    assert_true(read_all(c, bytes, n));
    assert_int_equal(PB_UNPACK(&c->arena, envelope, bytes, n, LIMIT_WIRE_MESSAGE, &e), 0);
    assert_int_equal(e->version, MIN(c->version, WIRE_VERSION));
    if (e->seq != 0) {
        assert_int_equal(e->seq, c->next_seen);
        c->next_seen++;
        c->seen = c->mute ? c->seen : e->seq;
    }
    return e;
}

Pb__Envelope *client_receive(struct client *c)
{
    return receive_within(c, WAIT_MS);
}

Pb__Envelope *client_expect(struct client *c, Pb__Envelope__BodyCase kind)
{
    Pb__Envelope *e;

    do {
        e = client_receive(c);
        assert_non_null(e);
    } while (e->body_case == PB__ENVELOPE__BODY_HEARTBEAT_ACK && e->body_case != kind);
    assert_int_equal(e->body_case, kind);
    return e;
}

void client_expect_silence(struct client *c, uint32_t ms)
{
    Pb__Envelope *e;

    while ((e = receive_within(c, (int)ms)) != NULL) {
        assert_int_equal(e->body_case, PB__ENVELOPE__BODY_HEARTBEAT_ACK);
    }
}

void client_expect_closed(struct client *c)
{
    char bytes[4096];

    do {
        assert_true(readable(c, WAIT_MS));
    } while (read(c->fd, bytes, sizeof(bytes)) > 0);
}

void client_send_hello(struct client *c, const struct client_hello *h)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__Hello hello = PB__HELLO__INIT;
    Pb__WorkerHello worker = PB__WORKER_HELLO__INIT;
    char *executors[] = {(char *)"shell"};
    char uid[17];

    snprintf(uid, sizeof(uid), "%-16.16s", h->name);
    worker.uid = pb_bytes_ref(str_of(uid, 16));
    worker.name = (char *)h->name;
    worker.pool = (char *)"default";
    worker.executors = executors;
    worker.n_executors = 1;
    worker.slots = h->slots;
    worker.run_untagged = true;
    worker.version = (char *)"test";
    worker.host = (char *)"test";
    hello.token = pb_bytes_ref(str_from(h->token != NULL ? h->token : FIXTURE_WORKER_TOKEN));
    hello.worker = &worker;
    hello.jobs = h->jobs;
    hello.n_jobs = h->job_count;
    body.body_case = PB__ENVELOPE__BODY_HELLO;
    body.hello = &hello;
    client_send(c, &body);
}

void client_join(struct client *c, const struct fixture *f, const char *name, uint32_t slots)
{
    client_open(c, f);
    client_send_hello(c, &(struct client_hello){.name = name, .slots = slots});
    const Pb__Welcome *welcome = client_expect(c, PB__ENVELOPE__BODY_WELCOME)->welcome;
    assert_int_not_equal(welcome->session, 0);
    c->session = welcome->session;
    c->worker_id = welcome->worker_id;
}

void client_beat(struct client *c, Pb__HeldJob **jobs, size_t count)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__Heartbeat beat = PB__HEARTBEAT__INIT;

    beat.sent_ms = os_monotonic_ms();
    beat.jobs = jobs;
    beat.n_jobs = count;
    body.body_case = PB__ENVELOPE__BODY_HEARTBEAT;
    body.heartbeat = &beat;
    client_send(c, &body);
}

void client_send_assign_ack(struct client *c, const Pb__JobKey *key)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__AssignAck ack = PB__ASSIGN_ACK__INIT;

    ack.keys = (Pb__JobKey *[]){(Pb__JobKey *)key};
    ack.n_keys = 1;
    body.body_case = PB__ENVELOPE__BODY_ASSIGN_ACK;
    body.assign_ack = &ack;
    client_send(c, &body);
}

void client_send_started(struct client *c, const Pb__JobKey *key)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__WireJobStarted started = PB__WIRE_JOB_STARTED__INIT;

    started.keys = (Pb__JobKey *[]){(Pb__JobKey *)key};
    started.n_keys = 1;
    body.body_case = PB__ENVELOPE__BODY_JOB_STARTED;
    body.job_started = &started;
    client_send(c, &body);
}

void client_send_log(struct client *c, const Pb__JobKey *key, uint64_t offset, const char *text)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__LogChunk chunk = PB__LOG_CHUNK__INIT;

    chunk.key = (Pb__JobKey *)key;
    chunk.offset = offset;
    chunk.data = pb_bytes_ref(str_from(text));
    body.body_case = PB__ENVELOPE__BODY_LOG_CHUNK;
    body.log_chunk = &chunk;
    client_send(c, &body);
}

void client_send_finished(struct client *c, const Pb__JobKey *key, uint64_t log_size)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__WireJobFinished finished = PB__WIRE_JOB_FINISHED__INIT;
    Pb__JobEnd end = PB__JOB_END__INIT;
    Pb__Outcome outcome = PB__OUTCOME__INIT;

    outcome.result = JOB_SUCCESS;
    outcome.log_size = log_size;
    end.key = (Pb__JobKey *)key;
    end.outcome = &outcome;
    finished.ends = (Pb__JobEnd *[]){&end};
    finished.n_ends = 1;
    body.body_case = PB__ENVELOPE__BODY_JOB_FINISHED;
    body.job_finished = &finished;
    client_send(c, &body);
}

void client_send_return(struct client *c, const Pb__JobKey *key)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__AssignReturn back = PB__ASSIGN_RETURN__INIT;

    back.key = (Pb__JobKey *)key;
    back.why = (char *)"draining";
    body.body_case = PB__ENVELOPE__BODY_ASSIGN_RETURN;
    body.assign_return = &back;
    client_send(c, &body);
}

Pb__JobKey client_expect_assign(struct client *c)
{
    if (c->assigned_count == 0) {
        const Pb__WireAssign *assign = client_expect(c, PB__ENVELOPE__BODY_ASSIGN)->assign;
        assert_in_range(assign->n_specs, 1, ARRAY_LEN(c->assigned));
        while (c->assigned_count < assign->n_specs) {
            assert_non_null(assign->specs[c->assigned_count]->key);
            c->assigned[c->assigned_count] = *assign->specs[c->assigned_count]->key;
            c->assigned_count++;
        }
    }
    Pb__JobKey key = c->assigned[0];
    c->assigned_count--;
    memmove(c->assigned, c->assigned + 1, c->assigned_count * sizeof(key));
    return key;
}

Pb__JobKey client_take_job(struct client *c)
{
    Pb__JobKey key = client_expect_assign(c);

    client_send_assign_ack(c, &key);
    client_send_started(c, &key);
    return key;
}

Pb__HeldJob client_held(Pb__JobKey *key, Pb__HeldState state)
{
    Pb__HeldJob h = PB__HELD_JOB__INIT;

    h.key = key;
    h.state = state;
    return h;
}

uint64_t fleet_violations(struct fixture *f)
{
    struct fleet_stats stats;

    fleet_get_stats(f->fleet, &stats);
    return stats.violations;
}
