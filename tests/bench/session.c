#include "common/base.h"

#include "tests/bench/session.h"

#include <endian.h>

#include "common/limits.h"
#include "common/os.h"

enum { LENGTH_BYTES = 8, REQUEST_BYTES = 4, ACK_DELAY_US = 20000 };

static const char greeting[LENGTH_BYTES] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
static const char greeting_wanted[LENGTH_BYTES] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};

static void fail(struct session *s, const char *why)
{
    s->why = why;
    conn_fail(s->conn);
}

static void take_body(struct session *s, const char *p, size_t n)
{
    Pb__Envelope *e;

    arena_clear(s->arena);
    if (PB_UNPACK(s->arena, envelope, p, n, LIMIT_WIRE_MESSAGE, &e) < 0) {
        fail(s, "a message that is none");
        return;
    }
    if (e->seq > 0 && e->seq != s->taken_seq + 1) {
        fail(s, "a gap in the numbers");
        return;
    }
    if (e->seq > 0) {
        if (s->taken_seq == s->acked_seq) {
            s->taken_us = os_monotonic_us();
        }
        s->taken_seq = e->seq;
    }
    if (e->body_case == PB__ENVELOPE__BODY_WELCOME) {
        s->id = e->welcome->session;
        s->worker_id = (uint32_t)e->welcome->worker_id;
        s->heartbeat_ms = e->welcome->heartbeat_ms;
    }
    s->events->message(s->ctx, e);
}

static size_t take(struct conn *c UNUSED, void *ctx, const char *p, size_t n)
{
    struct session *s = ctx;
    size_t used = 0;

    if (!s->greeted && n >= LENGTH_BYTES) {
        s->greeted = true;
        used = LENGTH_BYTES;
        if (memcmp(p, greeting_wanted, LENGTH_BYTES) != 0) {
            fail(s, "no broker answers");
        }
    }
    while (s->greeted && !s->why && n - used >= LENGTH_BYTES) {
        uint64_t length;

        memcpy(&length, p + used, sizeof(length));
        length = be64toh(length);
        if (length < REQUEST_BYTES || length > LIMIT_WIRE_MESSAGE + REQUEST_BYTES) {
            fail(s, "a frame that is none");
        } else if (n - used - LENGTH_BYTES < length) {
            break;
        } else {
            take_body(s, p + used + LENGTH_BYTES + REQUEST_BYTES, length - REQUEST_BYTES);
            used += LENGTH_BYTES + (size_t)length;
        }
    }
    return used;
}

static void open_up(struct conn *c, void *ctx)
{
    struct session *s = ctx;

    buf_add(conn_out(c), greeting, sizeof(greeting));
    s->events->opened(s->ctx);
}

static void close_down(struct conn *c UNUSED, void *ctx)
{
    struct session *s = ctx;

    s->conn = NULL;
    s->events->lost(s->ctx, s->why ? s->why : "the connection is gone");
}

void session_open(struct session *s, struct loop *l, uint16_t port, struct arena *arena,
                  const struct session_events *events, void *ctx)
{
    static const struct conn_events conn_events = {
        .opened = open_up, .input = take, .closed = close_down};

    *s = (struct session){.arena = arena, .events = events, .ctx = ctx};
    s->beat_us = os_monotonic_us();
    s->conn = conn_open(l, port, &conn_events, s);
}

void session_send(struct session *s, Pb__Envelope *e)
{
    static const char request[REQUEST_BYTES] = {(char)0x80, 0, 0, 1};
    static const char space[LENGTH_BYTES];
    struct buf *out = conn_out(s->conn);
    size_t begin = out->n;
    uint64_t length;

    e->version = WIRE_VERSION;
    e->session = s->id;
    e->seq = e->body_case == PB__ENVELOPE__BODY_HEARTBEAT ? 0 : ++s->sent_seq;
    e->ack = s->acked_seq = s->taken_seq;
    buf_add(out, space, sizeof(space));
    buf_add(out, request, sizeof(request));
    PB_PACK(e, out);
    length = htobe64(out->n - begin - LENGTH_BYTES);
    memcpy(out->p + begin, &length, sizeof(length));
}

void session_client_hello(struct session *s, const char *token, const char *name)
{
    Pb__ClientHello hello = PB__CLIENT_HELLO__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    uint8_t uid[16];

    os_random(uid, sizeof(uid));
    hello.uid = pb_bytes_ref(str_of(uid, sizeof(uid)));
    hello.token = pb_bytes_ref(str_from(token));
    hello.name = (char *)name;
    hello.version = (char *)DAVIT_VERSION;
    e.body_case = PB__ENVELOPE__BODY_CLIENT_HELLO;
    e.client_hello = &hello;
    session_send(s, &e);
}

void session_beat(struct session *s, uint64_t now_us)
{
    Pb__Heartbeat beat = PB__HEARTBEAT__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;

    arena_clear(s->arena);
    if (s->events->beat) {
        s->events->beat(s->ctx, &beat, s->arena);
    }
    s->beat_us = now_us;
    beat.sent_ms = now_us / 1000;
    e.body_case = PB__ENVELOPE__BODY_HEARTBEAT;
    e.heartbeat = &beat;
    session_send(s, &e);
}

void session_tick(struct session *s, uint64_t now_us)
{
    if (s->conn && s->id != 0 &&
        (now_us - s->beat_us >= s->heartbeat_ms * 1000ull ||
         (s->taken_seq != s->acked_seq && now_us - s->taken_us >= ACK_DELAY_US))) {
        session_beat(s, now_us);
    }
}
