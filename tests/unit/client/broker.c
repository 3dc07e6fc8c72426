#include "common/base.h"

#include "tests/unit/client/broker.h"

#include <arpa/inet.h>
#include <endian.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/limits.h"
#include "proto/envelope.h"

#define WAIT_MS      3000
#define GREETING     "\0SP\0\0\x31\0\0" /* a REP */
#define HEARTBEAT_MS 60000
#define LEASE_MS     120000
#define REQUEST      0x80000001u

static bool readable(int fd, int ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, ms) > 0;
}

static void read_all(struct broker *b, void *p, size_t n)
{
    for (size_t got = 0; got < n;) {
        assert_true(readable(b->fd, WAIT_MS));
        ssize_t r = read(b->fd, (char *)p + got, n - got);
        assert_true(r > 0);
        got += (size_t)r;
    }
}

static void write_all(struct broker *b, const void *p, size_t n)
{
    for (size_t sent = 0; sent < n;) {
        ssize_t r = send(b->fd, (const char *)p + sent, n - sent, MSG_NOSIGNAL);
        assert_true(r > 0);
        sent += (size_t)r;
    }
}

void broker_up(struct broker *b)
{
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t n = sizeof(at);

    memset(b, 0, sizeof(*b));
    arena_init(&b->arena, 0);
    b->fd = -1;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    b->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(b->listener >= 0);
    assert_int_equal(bind(b->listener, (struct sockaddr *)&at, n), 0);
    assert_int_equal(listen(b->listener, 4), 0);
    assert_int_equal(getsockname(b->listener, (struct sockaddr *)&at, &n), 0);
    b->port = ntohs(at.sin_port);
}

void broker_hang_up(struct broker *b)
{
    close(b->fd);
    b->fd = -1;
}

void broker_down(struct broker *b)
{
    if (b->fd >= 0) {
        broker_hang_up(b);
    }
    close(b->listener);
    arena_release(&b->arena);
}

static Pb__Envelope *receive(struct broker *b)
{
    Pb__Envelope *e;
    uint64_t length;
    uint32_t request;

    read_all(b, &length, sizeof(length));
    length = be64toh(length);
    assert_in_range(length, sizeof(request), LIMIT_WIRE_MESSAGE);
    read_all(b, &request, sizeof(request));
    arena_release(&b->arena);
    size_t n = length - sizeof(request);
    char *bytes = arena_alloc(&b->arena, n + 1);
    read_all(b, bytes, n);
    assert_int_equal(PB_UNPACK(&b->arena, envelope, bytes, n, LIMIT_WIRE_MESSAGE, &e), 0);
    if (e->seq != 0) {
        assert_int_equal(e->seq, b->seen + 1);
        b->seen = e->seq;
    }
    return e;
}

Pb__Envelope *broker_expect(struct broker *b, Pb__Envelope__BodyCase kind)
{
    Pb__Envelope *e;

    do {
        e = receive(b);
    } while (e->body_case == PB__ENVELOPE__BODY_HEARTBEAT);
    assert_int_equal(e->body_case, kind);
    return e;
}

void broker_expect_silence(struct broker *b, int ms)
{
    assert_false(readable(b->fd, ms));
}

void broker_send(struct broker *b, Pb__Envelope *body)
{
    struct buf frame = BUF_INIT;
    struct buf bytes = BUF_INIT;
    uint32_t request = htonl(REQUEST);

    body->version = WIRE_VERSION;
    body->session = 1;
    body->seq = ++b->seq;
    body->ack = b->seen;
    PB_PACK(body, &bytes);
    uint64_t length = htobe64(sizeof(request) + bytes.n);
    buf_add(&frame, &length, sizeof(length));
    buf_add(&frame, &request, sizeof(request));
    buf_add_str(&frame, buf_str(&bytes));
    write_all(b, frame.p, frame.n);
    buf_release(&bytes);
    buf_release(&frame);
}

void broker_welcome(struct broker *b)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__Welcome welcome = PB__WELCOME__INIT;
    char greeting[8];

    assert_true(readable(b->listener, WAIT_MS));
    b->fd = accept4(b->listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(b->fd >= 0);
    b->seq = b->seen = 0;
    write_all(b, GREETING, sizeof(greeting));
    read_all(b, greeting, sizeof(greeting));
    broker_expect(b, PB__ENVELOPE__BODY_CLIENT_HELLO);
    welcome.session = 1;
    welcome.heartbeat_ms = HEARTBEAT_MS;
    welcome.lease_ms = LEASE_MS;
    body.body_case = PB__ENVELOPE__BODY_WELCOME;
    body.welcome = &welcome;
    broker_send(b, &body);
}

void broker_answer(struct broker *b, uint64_t request, const char *code, Pb__ClientJob *job)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__ClientAnswer answer = PB__CLIENT_ANSWER__INIT;

    answer.request = request;
    answer.code = (char *)code;
    answer.jobs = &job;
    answer.n_jobs = job != NULL ? 1 : 0;
    body.body_case = PB__ENVELOPE__BODY_CLIENT_ANSWER;
    body.client_answer = &answer;
    broker_send(b, &body);
}

void broker_part(struct broker *b)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__ByeAck ack = PB__BYE_ACK__INIT;

    broker_expect(b, PB__ENVELOPE__BODY_BYE);
    body.body_case = PB__ENVELOPE__BODY_BYE_ACK;
    body.bye_ack = &ack;
    broker_send(b, &body);
}
