#include "common/base.h"

#include "tests/unit/net/client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <nng/protocol/reqrep0/req.h>

#include "common/limits.h"
#include "common/os.h"

#define WAIT_MS 3000

/* nng 1.5 forgets messages that a closed socket had not sent yet. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_options(void);

const char *__lsan_default_options(void)
{
    return "print_suppressions=0";
}

const char *__lsan_default_suppressions(void)
{
    return "leak:client_send_bytes\nleak:wire_send\n";
}

static void on_pipe_gone(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct client *c = arg;

    atomic_store(&c->closed, true);
}

void client_open(struct client *c, const struct fixture *f)
{
    char url[64];

    memset(c, 0, sizeof(*c));
    arena_init(&c->arena, 0);
    c->next_seen = 1;
    snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", f->port);
    assert_int_equal(nng_req0_open_raw(&c->socket), 0);
    assert_int_equal(nng_socket_set_int(c->socket, NNG_OPT_RECVBUF, 1024), 0);
    assert_int_equal(nng_socket_set_int(c->socket, NNG_OPT_SENDBUF, 1024), 0);
    /* One connection is one session: nng shall not dial again by itself. */
    assert_int_equal(nng_socket_set_ms(c->socket, NNG_OPT_RECONNMINT, 3600 * 1000), 0);
    assert_int_equal(nng_pipe_notify(c->socket, NNG_PIPE_EV_REM_POST, on_pipe_gone, c), 0);
    assert_int_equal(nng_dial(c->socket, url, NULL, 0), 0);
}

void client_close(struct client *c)
{
    nng_close(c->socket);
    arena_release(&c->arena);
}

void client_send_bytes(struct client *c, const void *p, size_t n)
{
    nng_msg *msg;

    assert_int_equal(nng_msg_alloc(&msg, 0), 0);
    assert_int_equal(nng_msg_append(msg, p, n), 0);
    assert_int_equal(nng_msg_header_append_u32(msg, 0x80000001u), 0);
    assert_int_equal(nng_sendmsg(c->socket, msg, 0), 0);
}

void client_send(struct client *c, Pb__Envelope *body)
{
    struct buf bytes = BUF_INIT;

    body->version = WIRE_VERSION;
    body->session = c->session;
    body->seq = body->body_case == PB__ENVELOPE__BODY_HEARTBEAT ? 0 : ++c->seq;
    body->ack = c->seen;
    PB_PACK(body, &bytes);
    client_send_bytes(c, bytes.p, bytes.n);
    buf_release(&bytes);
}

static Pb__Envelope *receive_within(struct client *c, int ms)
{
    Pb__Envelope *e;
    nng_msg *msg;

    assert_int_equal(nng_socket_set_ms(c->socket, NNG_OPT_RECVTIMEO, ms), 0);
    if (nng_recvmsg(c->socket, &msg, 0) != 0) {
        return NULL;
    }
    arena_release(&c->arena);
    assert_int_equal(
        PB_UNPACK(&c->arena, envelope, nng_msg_body(msg), nng_msg_len(msg), LIMIT_WIRE_MESSAGE, &e),
        0);
    nng_msg_free(msg);
    assert_int_equal(e->version, WIRE_VERSION);
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
    uint64_t until_ms = os_monotonic_ms() + WAIT_MS;

    while (!atomic_load(&c->closed)) {
        assert_true(os_monotonic_ms() < until_ms);
        os_sleep_ms(2);
    }
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

    ack.key = (Pb__JobKey *)key;
    body.body_case = PB__ENVELOPE__BODY_ASSIGN_ACK;
    body.assign_ack = &ack;
    client_send(c, &body);
}

void client_send_started(struct client *c, const Pb__JobKey *key)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__WireJobStarted started = PB__WIRE_JOB_STARTED__INIT;

    started.key = (Pb__JobKey *)key;
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
    Pb__Outcome outcome = PB__OUTCOME__INIT;

    outcome.result = JOB_SUCCESS;
    outcome.log_size = log_size;
    finished.key = (Pb__JobKey *)key;
    finished.outcome = &outcome;
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
    const Pb__WireAssign *assign = client_expect(c, PB__ENVELOPE__BODY_ASSIGN)->assign;

    assert_non_null(assign->spec);
    assert_non_null(assign->spec->key);
    return *assign->spec->key;
}

Pb__JobKey client_take_job(struct client *c)
{
    Pb__JobKey key = client_expect_assign(c);

    client_send_assign_ack(c, &key);
    client_send_started(c, &key);
    return key;
}
