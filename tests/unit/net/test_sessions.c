#include "common/base.h"

#include <dirent.h>
#include <endian.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "broker/core/query.h"
#include "common/limits.h"
#include "common/os.h"
#include "tests/unit/net/client.h"

/* Who comes in, and what a session may say: tokens, frames, numbers, credit. */

static const struct fixture_options calm = {.listen = true};
static const struct fixture_options hasty = {
    .listen = true, .heartbeat_ms = 50, .lease_ms = 250, .hello_ms = 150};

static void a_numbered_message_is_acknowledged_though_there_is_nothing_to_say(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &calm);
    fixture_submit(&f, 1);
    client_join(&c, &f, "w1", 1);
    client_take_job(&c);
    const Pb__Envelope *e = client_receive(&c);
    assert_non_null(e);
    assert_int_equal(e->body_case, PB__ENVELOPE__BODY_HEARTBEAT_ACK);
    assert_int_equal(e->seq, 0);
    assert_int_equal(e->ack, 3); /* Hello, AssignAck, JobStarted */
    client_close(&c);
    fixture_down(&f);
}

/* ---- who may not come in ---- */

static void a_wrong_token_is_refused_for_good(void **state)
{
    struct fixture f;
    struct client c;
    static const char *const tokens[] = {"dvw_wrong", "", FIXTURE_ADMIN_TOKEN};

    fixture_up(&f, &calm);
    for (size_t i = 0; i < ARRAY_LEN(tokens); i++) {
        client_open(&c, &f);
        client_send_hello(&c, &(struct client_hello){.name = "w1", .token = tokens[i], .slots = 1});
        const Pb__Refused *refused = client_expect(&c, PB__ENVELOPE__BODY_REFUSED)->refused;
        assert_string_equal(refused->code, "unauthorized");
        assert_true(refused->final);
        client_expect_closed(&c);
        client_close(&c);
    }
    assert_int_equal(fleet_online_count(f.fleet), 0);
    fixture_down(&f);
}

/* With what it has in hand, and whatever it says next. */
static void a_worker_whose_token_is_revoked_is_heard_no_more(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &calm);
    uint64_t job_id = fixture_submit(&f, 1);
    client_join(&c, &f, "w1", 1);
    Pb__JobKey key = client_take_job(&c);
    assert_true(fixture_wait_job(&f, job_id, JOB_RUNNING));
    fixture_revoke_token(&f, FIXTURE_WORKER_TOKEN);
    client_send_finished(&c, &key, 0);
    const Pb__Refused *refused = client_expect(&c, PB__ENVELOPE__BODY_REFUSED)->refused;
    assert_string_equal(refused->code, "unauthorized");
    assert_true(refused->final);
    client_expect_closed(&c);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_RUNNING); /* until its lease is over */
    assert_int_equal(fleet_violations(&f), 0);
    client_close(&c);
    fixture_down(&f);
}

static void another_version_is_refused_for_good(void **state)
{
    struct fixture f;
    struct client c;
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__Hello hello = PB__HELLO__INIT;
    struct buf bytes = BUF_INIT;

    fixture_up(&f, &calm);
    client_open(&c, &f);
    body.version = WIRE_VERSION + 1;
    body.seq = 1;
    body.body_case = PB__ENVELOPE__BODY_HELLO;
    body.hello = &hello;
    PB_PACK(&body, &bytes);
    client_send_bytes(&c, bytes.p, bytes.n);
    const Pb__Refused *refused = client_expect(&c, PB__ENVELOPE__BODY_REFUSED)->refused;
    assert_string_equal(refused->code, "version");
    assert_true(refused->final);
    buf_release(&bytes);
    client_close(&c);
    fixture_down(&f);
}

/* As workers of the version before say it. */
static void a_worker_of_the_version_before_is_served(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &calm);
    fixture_submit(&f, 1);
    client_open(&c, &f);
    c.version = WIRE_VERSION - 1;
    client_send_hello(&c, &(struct client_hello){.name = "old", .slots = 1});
    c.session = client_expect(&c, PB__ENVELOPE__BODY_WELCOME)->welcome->session;
    Pb__JobKey key = client_take_job(&c);
    Pb__HeldJob held = client_held(&key, PB__HELD_STATE__HELD_RUNNING);
    client_beat(&c, (Pb__HeldJob *[]){&held}, 1);
    client_send_finished(&c, &key, 0);
    client_expect(&c, PB__ENVELOPE__BODY_FINISH_ACK);
    c.version = WIRE_VERSION; /* it cannot change its mind within a session */
    client_beat(&c, NULL, 0);
    client_expect_closed(&c);
    client_close(&c);
    fixture_down(&f);
}

static void a_version_before_that_is_refused_in_its_own_words(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &calm);
    client_open(&c, &f);
    c.version = WIRE_VERSION_OLDEST - 1;
    client_send_hello(&c, &(struct client_hello){.name = "ancient", .slots = 1});
    const Pb__Refused *refused = client_expect(&c, PB__ENVELOPE__BODY_REFUSED)->refused;
    assert_string_equal(refused->code, "version");
    assert_non_null(strstr(refused->text, "2 to 3"));
    client_close(&c);
    fixture_down(&f);
}

static void garbage_closes_only_its_own_pipe(void **state)
{
    struct fixture f;
    struct client good;
    struct client bad;
    uint8_t noise[4096];

    fixture_up(&f, &calm);
    client_join(&good, &f, "w1", 1);
    for (size_t i = 0; i < sizeof(noise); i++) {
        noise[i] = (uint8_t)(i * 37 + 11);
    }
    client_open(&bad, &f);
    client_send_bytes(&bad, noise, sizeof(noise));
    client_expect_closed(&bad);
    client_close(&bad);
    client_open(&bad, &f);
    client_send_bytes(&bad, "", 0); /* an Envelope without anything */
    client_expect_closed(&bad);
    client_close(&bad);
    assert_int_equal(fleet_violations(&f), 2);
    client_open(&bad, &f);
    client_send_raw(&bad, noise, sizeof(noise)); /* a length beyond all bounds */
    client_expect_closed(&bad);
    client_close(&bad);
    fixture_submit(&f, 1);
    client_take_job(&good);
    client_close(&good);
    fixture_down(&f);
}

static void an_oversized_frame_closes_its_pipe(void **state)
{
    struct fixture f;
    struct client c;
    char *big = xcalloc(1, LIMIT_WIRE_MESSAGE + 1);

    fixture_up(&f, &calm);
    client_join(&c, &f, "w1", 1);
    client_send_bytes(&c, big, LIMIT_WIRE_MESSAGE + 1);
    client_expect_closed(&c);
    client_close(&c);
    client_join(&c, &f, "w1", 1);
    client_close(&c);
    free(big);
    fixture_down(&f);
}

/* Strangers may take memory for a Hello, not for more. */
static void a_first_frame_bigger_than_any_hello_closes_its_pipe(void **state)
{
    struct fixture f;
    struct client c;
    uint64_t length = htobe64(sizeof(uint32_t) + LIMIT_HELLO + 1);

    fixture_up(&f, &calm);
    client_open(&c, &f);
    client_send_raw(&c, &length, sizeof(length));
    client_expect_closed(&c);
    client_close(&c);
    fixture_down(&f);
}

static size_t open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    size_t count = 0;

    assert_non_null(d);
    while (readdir(d) != NULL) {
        count++;
    }
    closedir(d);
    return count;
}

/* Closing a pipe between the head and the body of a message must not stop the burial of pipes. */
static void connections_closed_in_the_middle_of_a_flood_leave_nothing(void **state)
{
    struct fixture f;
    struct client c;
    char *noise = xcalloc(1, 32 * KIB);

    fixture_up(&f, &calm);
    size_t before = open_descriptors();
    for (int i = 0; i < 40; i++) {
        client_open(&c, &f);
        for (int n = 0; n < 8; n++) {
            client_send_bytes(&c, noise, 32 * KIB - 777 * (size_t)n);
        }
        client_expect_closed(&c);
        client_close(&c);
    }
    for (int i = 0; i < 500 && open_descriptors() > before; i++) {
        os_sleep_ms(2);
    }
    assert_int_equal(open_descriptors(), before);
    client_join(&c, &f, "w1", 1);
    client_close(&c);
    free(noise);
    fixture_down(&f);
}

/* Announced bytes cost nothing. */
static void half_a_message_waits_without_harm(void **state)
{
    struct fixture f;
    struct client half;
    struct client good;
    uint8_t head[8] = {0, 0, 0, 0, 0, 0x0f, 0xff, 0xff};

    fixture_up(&f, &calm);
    client_open(&half, &f);
    client_send_raw(&half, head, sizeof(head));
    client_join(&good, &f, "w1", 1);
    fixture_submit(&f, 1);
    client_take_job(&good);
    client_close(&good);
    client_close(&half);
    fixture_down(&f);
}

static void a_pipe_without_hello_is_closed(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &hasty);
    client_open(&c, &f);
    client_expect_closed(&c);
    assert_int_equal(fleet_violations(&f), 1);
    client_close(&c);
    fixture_down(&f);
}

static void a_message_before_hello_closes_the_pipe(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &calm);
    client_open(&c, &f);
    client_beat(&c, NULL, 0);
    client_expect_closed(&c);
    client_close(&c);
    fixture_down(&f);
}

/* ---- numbers and credit ---- */

static void a_gap_or_a_repeat_in_the_numbers_ends_the_session(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &calm);
    fixture_submit(&f, 1);
    for (int step = 0; step < 2; step++) {
        client_join(&c, &f, "w1", 1);
        Pb__JobKey key = client_expect_assign(&c);
        c.seq = step == 0 ? c.seq + 1 : c.seq - 1;
        client_send_assign_ack(&c, &key);
        client_expect_closed(&c);
        client_close(&c);
    }
    assert_int_equal(fleet_violations(&f), 2);
    fixture_down(&f);
}

static void an_acknowledgement_of_what_was_never_sent_ends_the_session(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &calm);
    client_join(&c, &f, "w1", 1);
    c.seen += 1;
    client_beat(&c, NULL, 0);
    client_expect_closed(&c);
    client_close(&c);
    fixture_down(&f);
}

/* What the broker has sent is seen by its numbers, which the client checks. */
static void a_reader_that_does_not_acknowledge_gets_32_messages_and_then_the_rest(void **state)
{
    struct fixture f;
    struct client c;
    struct fleet_worker view;
    Pb__JobKey key;

    fixture_up(&f, &calm);
    uint64_t job_id = fixture_submit(&f, 1);
    client_join(&c, &f, "w1", 1);
    key = client_take_job(&c);
    c.mute = true;
    for (uint64_t i = 0; i < 60; i++) {
        Pb__JobKey stale = key;
        stale.job_id = job_id + 1000 + i;
        client_send_started(&c, &stale);
    }
    while (c.next_seen <= c.seen + WIRE_CREDIT) {
        client_expect(&c, PB__ENVELOPE__BODY_CANCEL);
    }
    client_expect_silence(&c, 80);
    assert_true(fleet_worker_state(f.fleet, c.worker_id, &view));
    assert_int_equal(view.unacked, WIRE_CREDIT);
    assert_int_equal(view.unacked + view.queued, 60 + 2 - c.seen);
    c.mute = false;
    c.seen = c.next_seen - 1;
    Pb__HeldJob job = client_held(&key, PB__HELD_STATE__HELD_RUNNING);
    client_beat(&c, (Pb__HeldJob *[]){&job}, 1);
    while (c.next_seen <= 62) {
        client_expect(&c, PB__ENVELOPE__BODY_CANCEL);
    }
    client_expect_silence(&c, 50);
    client_close(&c);
    fixture_down(&f);
}

static void a_list_beyond_all_bounds_ends_the_session(void **state)
{
    struct fixture f;
    struct client c;
    Pb__JobKey key = PB__JOB_KEY__INIT;
    Pb__JobKey *list[LIMIT_HELD_JOBS + 1];
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__AssignAck ack = PB__ASSIGN_ACK__INIT;

    fixture_up(&f, &calm);
    client_join(&c, &f, "w1", 1);
    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        list[i] = &key;
    }
    ack.keys = list;
    ack.n_keys = ARRAY_LEN(list);
    body.body_case = PB__ENVELOPE__BODY_ASSIGN_ACK;
    body.assign_ack = &ack;
    client_send(&c, &body);
    client_expect_closed(&c);
    assert_int_equal(fleet_violations(&f), 1);
    client_close(&c);
    fixture_down(&f);
}

/* How many connections may wait at the socket that listens at the port; 0: it is not that one. */
static uint32_t backlog_of(int fd, uint16_t port)
{
    struct sockaddr_in a = {.sin_port = 0};
    socklen_t size = sizeof(a);
    struct tcp_info info = {.tcpi_state = 0};
    socklen_t n = sizeof(info);

    if (getsockname(fd, (struct sockaddr *)&a, &size) < 0 || ntohs(a.sin_port) != port ||
        getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) < 0 || info.tcpi_state != TCP_LISTEN) {
        return 0;
    }
    return info.tcpi_sacked; /* of a socket that listens: its bound */
}

/* Or the kernel drops them, and they come back too late for their leases. */
static void a_fleet_that_comes_at_once_may_wait_to_be_accepted(void **state)
{
    struct fixture f;
    uint32_t backlog = 0;

    fixture_up(&f, &calm);
    for (int fd = 0; fd < 1024 && backlog == 0; fd++) {
        backlog = backlog_of(fd, f.port);
    }
    assert_true(backlog > 128);
    fixture_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_numbered_message_is_acknowledged_though_there_is_nothing_to_say),
        cmocka_unit_test(a_wrong_token_is_refused_for_good),
        cmocka_unit_test(a_worker_whose_token_is_revoked_is_heard_no_more),
        cmocka_unit_test(another_version_is_refused_for_good),
        cmocka_unit_test(a_worker_of_the_version_before_is_served),
        cmocka_unit_test(a_version_before_that_is_refused_in_its_own_words),
        cmocka_unit_test(garbage_closes_only_its_own_pipe),
        cmocka_unit_test(an_oversized_frame_closes_its_pipe),
        cmocka_unit_test(a_first_frame_bigger_than_any_hello_closes_its_pipe),
        cmocka_unit_test(connections_closed_in_the_middle_of_a_flood_leave_nothing),
        cmocka_unit_test(half_a_message_waits_without_harm),
        cmocka_unit_test(a_pipe_without_hello_is_closed),
        cmocka_unit_test(a_message_before_hello_closes_the_pipe),
        cmocka_unit_test(a_gap_or_a_repeat_in_the_numbers_ends_the_session),
        cmocka_unit_test(an_acknowledgement_of_what_was_never_sent_ends_the_session),
        cmocka_unit_test(a_reader_that_does_not_acknowledge_gets_32_messages_and_then_the_rest),
        cmocka_unit_test(a_list_beyond_all_bounds_ends_the_session),
        cmocka_unit_test(a_fleet_that_comes_at_once_may_wait_to_be_accepted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
