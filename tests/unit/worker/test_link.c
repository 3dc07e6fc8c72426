#include "common/base.h"

#include <arpa/inet.h>
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
#include "worker/link.h"

#define PATIENCE_MS 10000

/* A REP socket of nng, byte by byte. */
struct world {
    int listener;
    int peer;
    struct link *link;
};

static const char broker_greeting[] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};

static int set_up(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(at);
    char url[64];
    w->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(w->listener, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(w->listener, 4), 0);
    assert_int_equal(getsockname(w->listener, (struct sockaddr *)&at, &n), 0);
    snprintf(url, sizeof(url), "tcp://127.0.0.1:%d", ntohs(at.sin_port));
    assert_int_equal(link_open(url, NULL, &w->link), 0);
    w->peer = accept(w->listener, NULL, NULL);
    assert_true(w->peer >= 0);
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    link_close(w->link);
    close(w->peer);
    close(w->listener);
    free(w);
    return 0;
}

static struct link_event next(struct link *l)
{
    struct link_event ev;
    struct pollfd p = {.fd = link_fd(l), .events = POLLIN};
    while (!link_next(l, &ev)) {
        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
    }
    return ev;
}

/* What is not about sending. */
static struct link_event next_in(struct link *l)
{
    struct link_event ev = next(l);
    while (ev.kind == LINK_ROOM) {
        ev = next(l);
    }
    return ev;
}

static void say(struct world *w, const void *p, size_t n)
{
    assert_int_equal(os_write_all(w->peer, p, n), 0);
}

static void read_exactly(struct world *w, char *p, size_t n)
{
    while (n > 0) {
        ssize_t got = read(w->peer, p, n);
        assert_true(got > 0);
        p += got;
        n -= (size_t)got;
    }
}

static void greet(struct world *w)
{
    say(w, broker_greeting, sizeof(broker_greeting));
    assert_int_equal(next_in(w->link).kind, LINK_UP);
}

static void assert_down(struct world *w)
{
    assert_int_equal(next_in(w->link).kind, LINK_DOWN);
}

static void it_speaks_first_as_a_req_socket(void **state)
{
    struct world *w = *state;
    static const char wanted[] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
    char got[sizeof(wanted)];
    read_exactly(w, got, sizeof(got));
    assert_memory_equal(got, wanted, sizeof(wanted));
}

static void a_message_has_its_length_and_a_request_id_before_it(void **state)
{
    struct world *w = *state;
    static const char wanted[] = "\0\0\0\0\0\0\0\x09\x80\0\0\1hello";
    char got[8 + sizeof(wanted) - 1];
    greet(w);
    link_send(w->link, STR("hello"));
    read_exactly(w, got, sizeof(got));
    assert_memory_equal(got + 8, wanted, sizeof(wanted) - 1);
}

static void a_message_in_single_bytes_is_one_message(void **state)
{
    struct world *w = *state;
    static const char bytes[] = "\0\0\0\0\0\0\0\x09\x80\0\0\1hello";
    greet(w);
    for (size_t i = 0; i < sizeof(bytes) - 1; i++) {
        say(w, bytes + i, 1);
        os_sleep_ms(1);
    }
    struct link_event ev = next_in(w->link);
    assert_int_equal(ev.kind, LINK_MESSAGE);
    assert_true(str_eqz(ev.bytes, "hello"));
    link_event_release(&ev);
}

static void messages_come_in_order_and_before_the_end(void **state)
{
    struct world *w = *state;
    greet(w);
    for (char c = 'a'; c <= 'z'; c++) {
        char bytes[] = "\0\0\0\0\0\0\0\x05\x80\0\0\1?";
        bytes[12] = c;
        say(w, bytes, 13);
    }
    shutdown(w->peer, SHUT_WR);
    for (char c = 'a'; c <= 'z'; c++) {
        struct link_event ev = next_in(w->link);
        assert_int_equal(ev.kind, LINK_MESSAGE);
        assert_int_equal(ev.bytes.p[0], c);
        link_event_release(&ev);
    }
    assert_down(w);
}

static void another_protocol_is_no_broker(void **state)
{
    struct world *w = *state;
    say(w, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
    assert_down(w);
}

static void a_length_out_of_bounds_ends_it_before_memory_is_taken(void **state)
{
    struct world *w = *state;
    greet(w);
    say(w, "\x7f\0\0\0\0\0\0\0", 8);
    assert_down(w);
}

static void a_message_too_short_for_a_request_id_ends_it(void **state)
{
    struct world *w = *state;
    greet(w);
    say(w, "\0\0\0\0\0\0\0\x03\x80\0\0", 11);
    assert_down(w);
}

/* Nothing is waiting any more: from here on the event descriptor counts. */
static void settle(struct world *w)
{
    struct link_event ev;
    for (bool up = false, room = false; !up || !room;) {
        ev = next(w->link);
        up = up || ev.kind == LINK_UP;
        room = room || ev.kind == LINK_ROOM;
    }
    assert_false(link_next(w->link, &ev));
}

static void a_flood_ends_it(void **state)
{
    struct world *w = *state;
    static const char one[] = "\0\0\0\0\0\0\0\x05\x80\0\0\1?";
    struct pollfd p = {.fd = link_fd(w->link), .events = POLLIN};
    say(w, broker_greeting, sizeof(broker_greeting));
    settle(w);
    for (int i = 0; i < 4097; i++) {
        say(w, one, sizeof(one) - 1);
    }
    for (uint64_t events = 0, more = 0; events < 4097; events += more) {
        assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
        assert_int_equal(read(p.fd, &more, sizeof(more)), sizeof(more));
    }
    for (int i = 0; i < 4096; i++) {
        struct link_event ev = next(w->link);
        assert_int_equal(ev.kind, LINK_MESSAGE);
        link_event_release(&ev);
    }
    assert_down(w);
}

static void it_can_be_closed_with_a_message_half_received(void **state)
{
    struct world *w = *state;
    for (int i = 0; i < 200; i++) {
        greet(w);
        say(w, "\0\0\0\0\0\0\0\x09\x80\0\0\1he", 14);
        link_send(w->link, STR("out"));
        link_close(w->link);
        close(w->peer);
        struct sockaddr_in at;
        socklen_t n = sizeof(at);
        char url[64];
        assert_int_equal(getsockname(w->listener, (struct sockaddr *)&at, &n), 0);
        snprintf(url, sizeof(url), "tcp://127.0.0.1:%d", ntohs(at.sin_port));
        assert_int_equal(link_open(url, NULL, &w->link), 0);
        w->peer = accept(w->listener, NULL, NULL);
    }
}

static void nobody_listening_is_said(void **state)
{
    (void)state;
    struct link *l;
    assert_int_equal(link_open("tcp://127.0.0.1:1", NULL, &l), 0);
    struct link_event ev = next(l);
    assert_int_equal(ev.kind, LINK_DOWN);
    assert_true(strlen(ev.text) > 0);
    link_close(l);
}

static void it_can_be_closed_while_it_connects(void **state)
{
    (void)state;
    for (int i = 0; i < 50; i++) {
        struct link *l;
        assert_int_equal(link_open("tcp://127.0.0.1:1", NULL, &l), 0);
        link_close(l);
    }
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(it_speaks_first_as_a_req_socket),
        T(a_message_has_its_length_and_a_request_id_before_it),
        T(a_message_in_single_bytes_is_one_message),
        T(messages_come_in_order_and_before_the_end),
        T(another_protocol_is_no_broker),
        T(a_length_out_of_bounds_ends_it_before_memory_is_taken),
        T(a_message_too_short_for_a_request_id_ends_it),
        T(a_flood_ends_it),
        T(it_can_be_closed_with_a_message_half_received),
        cmocka_unit_test(nobody_listening_is_said),
        cmocka_unit_test(it_can_be_closed_while_it_connects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
