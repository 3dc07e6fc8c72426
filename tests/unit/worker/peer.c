#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>

#include "common/crypto.h"
#include "common/limits.h"
#include "tests/unit/worker/peer.h"

#define PATIENCE_MS 10000

/* nng 1.5 forgets a message now and then when it closes a pipe. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libnng";
}

void peer_init(struct peer *p)
{
    nng_listener listener;
    int port;
    *p = (struct peer){.session = 100, .version = WIRE_VERSION, .lease_ms = PEER_LEASE_MS};
    arena_init(&p->arena, 0);
    assert_int_equal(nng_rep0_open_raw(&p->socket), 0);
    nng_socket_set_ms(p->socket, NNG_OPT_RECVTIMEO, PATIENCE_MS);
    nng_socket_set_size(p->socket, NNG_OPT_RECVMAXSZ, LIMIT_WIRE_MESSAGE);
    assert_int_equal(nng_listen(p->socket, "tcp://127.0.0.1:0", &listener, 0), 0);
    assert_int_equal(nng_listener_get_int(listener, NNG_OPT_TCP_BOUND_PORT, &port), 0);
    snprintf(p->url, sizeof(p->url), "tcp://127.0.0.1:%d", port);
}

void peer_release(struct peer *p)
{
    nng_close(p->socket);
    arena_release(&p->arena);
    buf_release(&p->log);
}

void peer_cut(struct peer *p)
{
    assert_int_equal(nng_pipe_close(p->pipe), 0);
}

static Pb__Envelope *receive(struct peer *p)
{
    nng_msg *msg;
    Pb__Envelope *e;
    assert_int_equal(nng_recvmsg(p->socket, &msg, 0), 0);
    assert_int_equal(nng_msg_header_len(msg), sizeof(p->header));
    memcpy(p->header, nng_msg_header(msg), sizeof(p->header));
    p->pipe = nng_msg_get_pipe(msg);
    arena_release(&p->arena);
    assert_int_equal(
        PB_UNPACK(&p->arena, envelope, nng_msg_body(msg), nng_msg_len(msg), LIMIT_WIRE_MESSAGE, &e),
        0);
    nng_msg_free(msg);
    if (e->body_case != PB__ENVELOPE__BODY_HELLO) {
        assert_int_equal(e->version, p->version);
    }
    if (e->body_case == PB__ENVELOPE__BODY_HELLO) {
        p->offered = e->version;
        assert_int_equal(e->session, 0);
        p->seq_in = p->seq_out = p->acked = 0;
    } else {
        assert_int_equal(e->session, p->session);
    }
    if (e->body_case == PB__ENVELOPE__BODY_HEARTBEAT) {
        assert_int_equal(e->seq, 0);
    } else {
        assert_int_equal(e->seq, ++p->seq_in);
    }
    assert_true(e->ack >= p->acked && e->ack <= p->seq_out);
    p->acked = e->ack;
    return e;
}

static void send_raw(struct peer *p, Pb__Envelope *e, bool numbered)
{
    nng_msg *msg;
    struct buf bytes = BUF_INIT;
    e->version = p->version;
    e->session = p->session;
    e->seq = numbered ? ++p->seq_out : 0;
    e->ack = p->ack_held ? 1 : p->seq_in;
    PB_PACK(e, &bytes);
    assert_int_equal(nng_msg_alloc(&msg, 0), 0);
    assert_int_equal(nng_msg_append(msg, bytes.p, bytes.n), 0);
    assert_int_equal(nng_msg_header_append(msg, p->header, sizeof(p->header)), 0);
    assert_int_equal(nng_sendmsg(p->socket, msg, 0), 0);
    buf_release(&bytes);
}

void peer_send(struct peer *p, Pb__Envelope *e)
{
    send_raw(p, e, true);
}

static void answer_beat(struct peer *p, const Pb__Heartbeat *beat)
{
    Pb__HeartbeatAck body = PB__HEARTBEAT_ACK__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    if (p->mute) {
        return;
    }
    body.sent_ms = beat->sent_ms;
    e.body_case = PB__ENVELOPE__BODY_HEARTBEAT_ACK;
    e.heartbeat_ack = &body;
    send_raw(p, &e, false);
}

static void take_chunk(struct peer *p, const Pb__LogChunk *c)
{
    Pb__LogAck body = PB__LOG_ACK__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    assert_true(c->data.len <= LIMIT_LOG_CHUNK);
    if (!p->log_full && c->offset <= p->log.n && c->offset + c->data.len > p->log.n) {
        size_t known = p->log.n - (size_t)c->offset;
        assert_memory_equal(c->data.data, p->log.p + c->offset, known);
        buf_add(&p->log, c->data.data + known, c->data.len - known);
    }
    body.key = c->key;
    body.durable = p->log.n;
    e.body_case = PB__ENVELOPE__BODY_LOG_ACK;
    e.log_ack = &body;
    peer_send(p, &e);
}

const Pb__Envelope *peer_next(struct peer *p)
{
    for (;;) {
        const Pb__Envelope *e = receive(p);
        if (e->body_case == PB__ENVELOPE__BODY_HEARTBEAT) {
            answer_beat(p, e->heartbeat);
        } else if (e->body_case == PB__ENVELOPE__BODY_LOG_CHUNK) {
            take_chunk(p, e->log_chunk);
        } else {
            return e;
        }
    }
}

const Pb__Envelope *peer_expect(struct peer *p, Pb__Envelope__BodyCase which)
{
    const Pb__Envelope *e = peer_next(p);
    assert_int_equal(e->body_case, which);
    return e;
}

const Pb__Envelope *peer_beat(struct peer *p)
{
    for (;;) {
        const Pb__Envelope *e = receive(p);
        if (e->body_case == PB__ENVELOPE__BODY_HEARTBEAT) {
            answer_beat(p, e->heartbeat);
            return e;
        }
        assert_int_equal(e->body_case, PB__ENVELOPE__BODY_LOG_CHUNK);
        take_chunk(p, e->log_chunk);
    }
}

void peer_run_until_log(struct peer *p, size_t size)
{
    while (p->log.n < size) {
        const Pb__Envelope *e = receive(p);
        if (e->body_case == PB__ENVELOPE__BODY_HEARTBEAT) {
            answer_beat(p, e->heartbeat);
        } else {
            assert_int_equal(e->body_case, PB__ENVELOPE__BODY_LOG_CHUNK);
            take_chunk(p, e->log_chunk);
        }
    }
}

const Pb__Hello *peer_welcome(struct peer *p)
{
    const Pb__Envelope *e = peer_expect(p, PB__ENVELOPE__BODY_HELLO);
    Pb__Welcome body = PB__WELCOME__INIT;
    Pb__Envelope answer = PB__ENVELOPE__INIT;
    body.session = ++p->session;
    body.worker_id = 7;
    body.heartbeat_ms = PEER_HEARTBEAT_MS;
    body.lease_ms = p->lease_ms;
    body.api_url = (char *)(uintptr_t) "http://127.0.0.1:1";
    body.log_window = LIMIT_LOG_WINDOW;
    answer.body_case = PB__ENVELOPE__BODY_WELCOME;
    answer.welcome = &body;
    peer_send(p, &answer);
    return e->hello;
}

static Pb__JobKey wire_key(struct job_key key)
{
    Pb__JobKey wire = PB__JOB_KEY__INIT;
    wire.job_id = key.job_id;
    wire.attempt = key.attempt;
    wire.epoch = key.epoch;
    return wire;
}

void peer_send_spec(struct peer *p, Pb__JobSpec *spec)
{
    Pb__WireAssign body = PB__WIRE_ASSIGN__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    body.specs = &spec;
    body.n_specs = 1;
    e.body_case = PB__ENVELOPE__BODY_ASSIGN;
    e.assign = &body;
    peer_send(p, &e);
}

static void put_spec(Pb__JobSpec *spec, Pb__JobKey *key, const ProtobufCBinaryData *line)
{
    pb__job_spec__init(spec);
    spec->key = key;
    spec->pipeline_id = 3;
    spec->project_id = 2;
    spec->project = (char *)(uintptr_t) "demo";
    spec->name = (char *)(uintptr_t) "job";
    spec->stage = (char *)(uintptr_t) "test";
    spec->script = (ProtobufCBinaryData *)line;
    spec->n_script = 1;
    spec->timeout_ms = 60000;
    spec->token = (char *)(uintptr_t) "token";
}

void peer_assign_all(struct peer *p, const struct job_key *keys, size_t count, const char *script)
{
    Pb__JobKey wire[8];
    Pb__JobSpec specs[8];
    Pb__JobSpec *list[8];
    Pb__Variable no_sources = PB__VARIABLE__INIT;
    Pb__Variable *variables[] = {&no_sources};
    ProtobufCBinaryData line = pb_bytes_ref(str_from(script));
    Pb__WireAssign body = PB__WIRE_ASSIGN__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    assert_in_range(count, 1, ARRAY_LEN(specs));
    no_sources.name = (char *)(uintptr_t) "GIT_STRATEGY";
    no_sources.value = pb_bytes_ref(STR("none"));
    for (size_t i = 0; i < count; i++) {
        wire[i] = wire_key(keys[i]);
        put_spec(&specs[i], &wire[i], &line);
        specs[i].variables = variables;
        specs[i].n_variables = 1;
        list[i] = &specs[i];
    }
    body.specs = list;
    body.n_specs = count;
    e.body_case = PB__ENVELOPE__BODY_ASSIGN;
    e.assign = &body;
    peer_send(p, &e);
}

void peer_assign(struct peer *p, struct job_key key, const char *script)
{
    peer_assign_all(p, &key, 1, script);
}

void peer_cancel(struct peer *p, struct job_key key, Pb__CancelKind kind)
{
    Pb__JobKey wire = wire_key(key);
    Pb__WireCancel body = PB__WIRE_CANCEL__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    body.key = &wire;
    body.kind = kind;
    e.body_case = PB__ENVELOPE__BODY_CANCEL;
    e.cancel = &body;
    peer_send(p, &e);
}

void peer_drain(struct peer *p, bool undo)
{
    Pb__Drain body = PB__DRAIN__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    body.undo = undo;
    e.body_case = PB__ENVELOPE__BODY_DRAIN;
    e.drain = &body;
    peer_send(p, &e);
}

void peer_finish_ack(struct peer *p, struct job_key key, bool stale)
{
    Pb__JobKey wire = wire_key(key);
    Pb__FinishAck body = PB__FINISH_ACK__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    body.keys = (Pb__JobKey *[]){&wire};
    body.n_keys = 1;
    body.stale = stale;
    e.body_case = PB__ENVELOPE__BODY_FINISH_ACK;
    e.finish_ack = &body;
    peer_send(p, &e);
}

void peer_refuse(struct peer *p, const char *code, bool final)
{
    Pb__Refused body = PB__REFUSED__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    body.code = (char *)(uintptr_t)code;
    body.text = (char *)(uintptr_t) "not you";
    body.final = final;
    e.body_case = PB__ENVELOPE__BODY_REFUSED;
    e.refused = &body;
    p->session = 0;
    send_raw(p, &e, false);
}

void peer_bye_ack(struct peer *p)
{
    Pb__ByeAck body = PB__BYE_ACK__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    e.body_case = PB__ENVELOPE__BODY_BYE_ACK;
    e.bye_ack = &body;
    peer_send(p, &e);
}

const Pb__Outcome *peer_expect_finished(struct peer *p, struct job_key key)
{
    const Pb__Envelope *e = peer_expect(p, PB__ENVELOPE__BODY_JOB_FINISHED);
    assert_int_equal(e->job_finished->n_ends, 1);
    const Pb__Outcome *outcome = e->job_finished->ends[0]->outcome;
    assert_true(job_key_eq(job_key_of(e->job_finished->ends[0]->key), key));
    assert_int_equal(outcome->log_size, p->log.n);
    assert_int_equal(outcome->log_crc, crypto_crc32(0, buf_cstr(&p->log), p->log.n));
    return outcome;
}
