#include "common/base.h"

#include <dirent.h>
#include <endian.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "broker/core/query.h"
#include "common/limits.h"
#include "common/os.h"
#include "tests/unit/net/client.h"

static const struct fixture_options calm = {.listen = true};
static const struct fixture_options hasty = {
    .listen = true, .heartbeat_ms = 50, .lease_ms = 250, .hello_ms = 150};

/* For tests whose worker must be heard in time, on a busy machine too. */
static const struct fixture_options patient = {
    .listen = true, .heartbeat_ms = 200, .lease_ms = 1500};

static Pb__HeldJob held(Pb__JobKey *key, Pb__HeldState state)
{
    Pb__HeldJob h = PB__HELD_JOB__INIT;
    h.key = key;
    h.state = state;
    return h;
}

static uint64_t violations(struct fixture *f)
{
    struct fleet_stats stats;
    fleet_get_stats(f->fleet, &stats);
    return stats.violations;
}

/* ---- from Hello to the end of a job ---- */

static void a_job_goes_to_a_worker_and_ends(void **state)
{
    struct fixture f;
    struct client c;
    struct fleet_worker view;

    fixture_up(&f, &calm);
    uint64_t job_id = fixture_submit(&f, 1);
    client_join(&c, &f, "w1", 1);
    Pb__JobKey key = client_take_job(&c);
    assert_int_equal(key.job_id, job_id);
    assert_true(fixture_wait_job(&f, job_id, JOB_RUNNING));
    client_send_log(&c, &key, 0, "hello\n");
    assert_int_equal(client_expect(&c, PB__ENVELOPE__BODY_LOG_ACK)->log_ack->durable, 6);
    client_send_finished(&c, &key, 6);
    assert_false(client_expect(&c, PB__ENVELOPE__BODY_FINISH_ACK)->finish_ack->stale);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_SUCCESS);
    assert_true(fleet_worker_state(f.fleet, c.worker_id, &view));
    assert_true(view.online);
    assert_int_equal(view.session, c.session);
    assert_int_equal(fleet_online_count(f.fleet), 1);
    fixture_audit(&f);
    client_close(&c);
    fixture_down(&f);
}

static void a_worker_that_waits_gets_a_new_job_at_once(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &calm);
    client_join(&c, &f, "w1", 2);
    uint64_t job_id = fixture_submit(&f, 3);
    Pb__JobKey first = client_take_job(&c);
    Pb__JobKey second = client_take_job(&c);
    assert_int_equal(first.job_id, job_id);
    assert_int_equal(second.job_id, job_id + 1);
    client_expect_silence(&c, 80); /* both slots are taken */
    client_send_finished(&c, &first, 0);
    client_expect(&c, PB__ENVELOPE__BODY_FINISH_ACK);
    Pb__JobKey third = client_take_job(&c);
    assert_int_equal(third.job_id, job_id + 2);
    client_close(&c);
    fixture_down(&f);
}

static void an_end_before_its_log_is_put_off(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &calm);
    uint64_t job_id = fixture_submit(&f, 1);
    client_join(&c, &f, "w1", 1);
    Pb__JobKey key = client_take_job(&c);
    client_send_finished(&c, &key, 6);
    assert_int_equal(client_expect(&c, PB__ENVELOPE__BODY_LOG_ACK)->log_ack->durable, 0);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_RUNNING);
    client_send_log(&c, &key, 3, "lo\n"); /* a gap */
    assert_int_equal(client_expect(&c, PB__ENVELOPE__BODY_LOG_ACK)->log_ack->durable, 0);
    client_send_log(&c, &key, 0, "hello\n");
    assert_int_equal(client_expect(&c, PB__ENVELOPE__BODY_LOG_ACK)->log_ack->durable, 6);
    client_send_log(&c, &key, 2, "llo\n"); /* known already */
    assert_int_equal(client_expect(&c, PB__ENVELOPE__BODY_LOG_ACK)->log_ack->durable, 6);
    client_send_log(&c, &key, 0, ""); /* a question */
    assert_int_equal(client_expect(&c, PB__ENVELOPE__BODY_LOG_ACK)->log_ack->durable, 6);
    client_send_finished(&c, &key, 6);
    client_expect(&c, PB__ENVELOPE__BODY_FINISH_ACK);
    client_close(&c);
    fixture_down(&f);
}

static void a_job_given_back_goes_to_another_worker_and_costs_nothing(void **state)
{
    struct fixture f;
    struct client one;
    struct client two;

    fixture_up(&f, &calm);
    uint64_t job_id = fixture_submit(&f, 1);
    client_join(&one, &f, "w1", 1);
    Pb__JobKey key = client_expect_assign(&one);
    client_join(&two, &f, "w2", 1);
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__Heartbeat beat = PB__HEARTBEAT__INIT;
    beat.draining = true;
    body.body_case = PB__ENVELOPE__BODY_HEARTBEAT;
    body.heartbeat = &beat;
    client_send(&one, &body);
    client_send_return(&one, &key);
    Pb__JobKey again = client_take_job(&two);
    assert_int_equal(again.job_id, job_id);
    assert_true(again.epoch > key.epoch);
    assert_int_equal(fixture_job_losses(&f, job_id), 0);
    fixture_audit(&f);
    client_close(&one);
    client_close(&two);
    fixture_down(&f);
}

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
    assert_int_equal(violations(&f), 2);
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
    assert_int_equal(violations(&f), 1);
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
    assert_int_equal(violations(&f), 2);
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
    Pb__HeldJob job = held(&key, PB__HELD_STATE__HELD_RUNNING);
    client_beat(&c, (Pb__HeldJob *[]){&job}, 1);
    while (c.next_seen <= 62) {
        client_expect(&c, PB__ENVELOPE__BODY_CANCEL);
    }
    client_expect_silence(&c, 50);
    client_close(&c);
    fixture_down(&f);
}

static void a_worker_without_credit_gets_no_more_jobs(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &calm);
    client_join(&c, &f, "w1", 100);
    c.mute = true;
    for (uint64_t i = 1; i < WIRE_CREDIT; i++) { /* Welcome is not acknowledged either */
        fixture_submit(&f, 1);
        client_expect_assign(&c);
    }
    fixture_submit(&f, 30);
    client_expect_silence(&c, 80);
    c.mute = false;
    c.seen = c.next_seen - 1;
    client_beat(&c, NULL, 0);
    for (int i = 0; i < 30; i++) {
        client_expect_assign(&c);
    }
    assert_int_equal(c.next_seen, WIRE_CREDIT + 2); /* all thirty in one message */
    fixture_audit(&f);
    client_close(&c);
    fixture_down(&f);
}

static void jobs_of_one_turn_travel_together_and_end_together(void **state)
{
    struct fixture f;
    struct client c;
    Pb__JobKey keys[20];
    Pb__JobEnd ends[20];
    Pb__JobEnd *list[20];
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__WireJobFinished finished = PB__WIRE_JOB_FINISHED__INIT;
    Pb__Outcome outcome = PB__OUTCOME__INIT;

    fixture_up(&f, &calm);
    uint64_t job_id = fixture_submit(&f, 20);
    client_join(&c, &f, "w1", 32);
    outcome.result = JOB_SUCCESS;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        keys[i] = client_expect_assign(&c);
        assert_int_equal(keys[i].job_id, job_id + i);
        pb__job_end__init(&ends[i]);
        ends[i].key = &keys[i];
        ends[i].outcome = &outcome;
        list[i] = &ends[i];
    }
    assert_int_equal(c.seen, 2); /* Welcome and one Assign */
    keys[7].epoch--;             /* somebody else's: answered apart, in its place */
    finished.ends = list;
    finished.n_ends = ARRAY_LEN(list);
    body.body_case = PB__ENVELOPE__BODY_JOB_FINISHED;
    body.job_finished = &finished;
    client_send(&c, &body); /* nothing was acknowledged or started */
    const Pb__FinishAck *ack = client_expect(&c, PB__ENVELOPE__BODY_FINISH_ACK)->finish_ack;
    assert_true(ack->stale);
    assert_int_equal(ack->n_keys, 1);
    assert_int_equal(ack->keys[0]->job_id, keys[7].job_id);
    ack = client_expect(&c, PB__ENVELOPE__BODY_FINISH_ACK)->finish_ack;
    assert_false(ack->stale);
    assert_int_equal(ack->n_keys, ARRAY_LEN(keys) - 1);
    assert_int_equal(fixture_job_state(&f, job_id + 19), JOB_SUCCESS);
    assert_int_equal(fixture_job_state(&f, job_id + 7), JOB_ASSIGNED);
    fixture_audit(&f);
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
    assert_int_equal(violations(&f), 1);
    client_close(&c);
    fixture_down(&f);
}

/* ---- sessions and leases ---- */

static void a_new_hello_supersedes_the_older_session(void **state)
{
    struct fixture f;
    struct client old;
    struct client young;

    fixture_up(&f, &calm);
    uint64_t job_id = fixture_submit(&f, 1);
    client_join(&old, &f, "w1", 1);
    Pb__JobKey key = client_take_job(&old);
    assert_true(fixture_wait_job(&f, job_id, JOB_RUNNING));
    Pb__HeldJob job = held(&key, PB__HELD_STATE__HELD_RUNNING);
    client_open(&young, &f);
    client_send_hello(
        &young, &(struct client_hello){
                    .name = "w1", .slots = 1, .jobs = (Pb__HeldJob *[]){&job}, .job_count = 1});
    const Pb__Welcome *welcome = client_expect(&young, PB__ENVELOPE__BODY_WELCOME)->welcome;
    assert_int_equal(welcome->worker_id, old.worker_id);
    assert_true(welcome->session > old.session);
    young.session = welcome->session;
    client_expect_closed(&old);
    client_send_finished(&young, &key, 0);
    client_expect(&young, PB__ENVELOPE__BODY_FINISH_ACK);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_SUCCESS);
    assert_int_equal(fleet_online_count(f.fleet), 1);
    client_close(&old);
    client_close(&young);
    fixture_down(&f);
}

static void an_unacknowledged_job_is_sent_again_in_a_new_session(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &calm);
    fixture_submit(&f, 1);
    client_join(&c, &f, "w1", 1);
    Pb__JobKey key = client_expect_assign(&c);
    client_close(&c);
    client_join(&c, &f, "w1", 1);
    Pb__JobKey again = client_expect_assign(&c);
    assert_int_equal(again.job_id, key.job_id);
    assert_int_equal(again.epoch, key.epoch);
    client_close(&c);
    fixture_down(&f);
}

static void what_the_last_session_did_not_deliver_is_read_from_the_list(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &calm);
    uint64_t job_id = fixture_submit(&f, 1);
    client_join(&c, &f, "w1", 1);
    Pb__JobKey key = client_expect_assign(&c);
    client_close(&c);
    Pb__HeldJob job = held(&key, PB__HELD_STATE__HELD_RUNNING);
    client_open(&c, &f);
    client_send_hello(
        &c, &(struct client_hello){
                .name = "w1", .slots = 1, .jobs = (Pb__HeldJob *[]){&job}, .job_count = 1});
    client_expect(&c, PB__ENVELOPE__BODY_WELCOME);
    assert_true(fixture_wait_job(&f, job_id, JOB_RUNNING));
    client_expect_silence(&c, 80);
    client_close(&c);
    fixture_down(&f);
}

static void an_end_is_taken_though_no_step_before_it_was_heard(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &calm);
    uint64_t job_id = fixture_submit(&f, 1);
    client_join(&c, &f, "w1", 1);
    Pb__JobKey key = client_expect_assign(&c);
    client_close(&c);
    Pb__HeldJob job = held(&key, PB__HELD_STATE__HELD_FINISHED);
    client_open(&c, &f);
    client_send_hello(
        &c, &(struct client_hello){
                .name = "w1", .slots = 1, .jobs = (Pb__HeldJob *[]){&job}, .job_count = 1});
    c.session = client_expect(&c, PB__ENVELOPE__BODY_WELCOME)->welcome->session;
    client_send_finished(&c, &key, 0);
    assert_false(client_expect(&c, PB__ENVELOPE__BODY_FINISH_ACK)->finish_ack->stale);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_SUCCESS);
    fixture_audit(&f);
    client_close(&c);
    fixture_down(&f);
}

/* A worker that comes back late must not finish somebody else's job. */
static void a_silent_worker_loses_its_job_and_is_fenced_when_it_comes_back(void **state)
{
    struct fixture f;
    struct client late;
    struct client other;

    fixture_up(&f, &patient);
    uint64_t job_id = fixture_submit(&f, 1);
    client_join(&late, &f, "w1", 1);
    Pb__JobKey key = client_take_job(&late);
    assert_true(fixture_wait_job(&f, job_id, JOB_RUNNING));
    client_expect_closed(&late);
    assert_true(fixture_wait_job(&f, job_id, JOB_PENDING));
    assert_int_equal(fixture_job_losses(&f, job_id), 1);
    client_join(&other, &f, "w2", 1);
    Pb__JobKey second = client_expect_assign(&other);
    assert_true(second.epoch > key.epoch);

    Pb__HeldJob job = held(&key, PB__HELD_STATE__HELD_RUNNING);
    client_close(&late);
    client_open(&late, &f);
    client_send_hello(
        &late, &(struct client_hello){
                   .name = "w1", .slots = 1, .jobs = (Pb__HeldJob *[]){&job}, .job_count = 1});
    late.session = client_expect(&late, PB__ENVELOPE__BODY_WELCOME)->welcome->session;
    const Pb__WireCancel *cancel = client_expect(&late, PB__ENVELOPE__BODY_CANCEL)->cancel;
    assert_int_equal(cancel->kind, PB__CANCEL_KIND__CANCEL_FENCED);
    assert_int_equal(cancel->key->job_id, job_id);
    client_send_finished(&late, &key, 0);
    assert_true(client_expect(&late, PB__ENVELOPE__BODY_FINISH_ACK)->finish_ack->stale);
    assert_int_not_equal(fixture_job_state(&f, job_id), JOB_SUCCESS);
    fixture_audit(&f);
    client_close(&late);
    client_close(&other);
    fixture_down(&f);
}

static void a_worker_that_beats_keeps_its_job_for_longer_than_a_lease(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &patient);
    uint64_t job_id = fixture_submit(&f, 1);
    client_join(&c, &f, "w1", 1);
    Pb__JobKey key = client_take_job(&c);
    Pb__HeldJob job = held(&key, PB__HELD_STATE__HELD_RUNNING);
    uint64_t until_ms = os_monotonic_ms() + patient.lease_ms + 300;
    struct turn_stats before;
    struct turn_stats after;
    assert_true(fixture_wait_job(&f, job_id, JOB_RUNNING));
    turn_get_stats(f.turn, &before);
    while (os_monotonic_ms() < until_ms) {
        client_beat(&c, (Pb__HeldJob *[]){&job}, 1);
        assert_int_equal(client_receive(&c)->body_case, PB__ENVELOPE__BODY_HEARTBEAT_ACK);
        os_sleep_ms(20);
    }
    turn_get_stats(f.turn, &after);
    assert_int_equal(after.turns, before.turns); /* heartbeats cost no commit */
    assert_int_equal(fixture_job_state(&f, job_id), JOB_RUNNING);
    client_close(&c);
    fixture_down(&f);
}

static void a_job_missing_from_a_heartbeat_is_lost(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &calm);
    uint64_t job_id = fixture_submit(&f, 1);
    client_join(&c, &f, "w1", 1);
    Pb__JobKey key = client_take_job(&c);
    assert_true(fixture_wait_job(&f, job_id, JOB_RUNNING));
    client_beat(&c, NULL, 0);
    Pb__JobKey again = client_expect_assign(&c);
    assert_int_equal(again.job_id, job_id);
    assert_true(again.epoch > key.epoch);
    assert_int_equal(fixture_job_losses(&f, job_id), 1);
    client_close(&c);
    fixture_down(&f);
}

static void after_a_restart_a_holder_has_a_full_lease(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &patient);
    uint64_t job_id = fixture_submit(&f, 1);
    client_join(&c, &f, "w1", 1);
    Pb__JobKey key = client_take_job(&c);
    assert_true(fixture_wait_job(&f, job_id, JOB_RUNNING));
    client_close(&c);
    fixture_restart(&f);
    Pb__HeldJob job = held(&key, PB__HELD_STATE__HELD_RUNNING);
    os_sleep_ms(100);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_RUNNING);
    client_open(&c, &f);
    client_send_hello(
        &c, &(struct client_hello){
                .name = "w1", .slots = 1, .jobs = (Pb__HeldJob *[]){&job}, .job_count = 1});
    c.session = client_expect(&c, PB__ENVELOPE__BODY_WELCOME)->welcome->session;
    client_send_finished(&c, &key, 0);
    client_expect(&c, PB__ENVELOPE__BODY_FINISH_ACK);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_SUCCESS);
    client_close(&c);
    fixture_down(&f);
}

static void after_a_restart_a_holder_that_stays_away_is_lost(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &hasty);
    uint64_t job_id = fixture_submit(&f, 1);
    client_join(&c, &f, "w1", 1);
    client_take_job(&c);
    assert_true(fixture_wait_job(&f, job_id, JOB_RUNNING));
    client_close(&c);
    fixture_restart(&f);
    assert_true(fixture_wait_job(&f, job_id, JOB_PENDING));
    assert_int_equal(fixture_job_losses(&f, job_id), 1);
    fixture_audit(&f);
    fixture_down(&f);
}

static void a_worker_whose_pipe_is_gone_gets_no_work(void **state)
{
    struct fixture f;
    struct client c;
    struct fleet_worker view = {.online = true};

    fixture_up(&f, &calm);
    client_join(&c, &f, "w1", 1);
    client_close(&c);
    for (int i = 0; i < 1000 && view.online; i++) {
        assert_true(fleet_worker_state(f.fleet, c.worker_id, &view));
        os_sleep_ms(2);
    }
    assert_false(view.online);
    assert_true(view.suspect);
    uint64_t job_id = fixture_submit(&f, 1);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_PENDING);
    fixture_down(&f);
}

static void good_bye_is_answered_and_frees_what_was_on_its_way(void **state)
{
    struct fixture f;
    struct client one;
    struct client two;
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__Bye bye = PB__BYE__INIT;

    fixture_up(&f, &calm);
    uint64_t job_id = fixture_submit(&f, 1);
    client_join(&one, &f, "w1", 1);
    client_expect_assign(&one);
    client_join(&two, &f, "w2", 1);
    bye.why = (char *)"SIGTERM";
    body.body_case = PB__ENVELOPE__BODY_BYE;
    body.bye = &bye;
    client_send(&one, &body);
    client_expect(&one, PB__ENVELOPE__BODY_BYE_ACK);
    assert_int_equal(client_take_job(&two).job_id, job_id);
    assert_int_equal(fixture_job_losses(&f, job_id), 0);
    client_expect_closed(&one);
    struct fleet_worker view;
    for (int i = 0; i < 1000 && fleet_worker_state(f.fleet, one.worker_id, &view); i++) {
        os_sleep_ms(2);
    }
    assert_false(fleet_worker_state(f.fleet, one.worker_id, &view));
    struct fleet_stats stats;
    fleet_get_stats(f.fleet, &stats);
    assert_int_equal(stats.lost, 0);
    client_close(&one);
    client_close(&two);
    fixture_down(&f);
}

/* ---- what users want, and what cannot be ---- */

static void cancel_job(struct fixture *f, uint64_t job_id)
{
    struct reply reply;
    struct post *p = post_new("test");
    Pb__JobCancel *cancel = arena_alloc(post_arena(p), sizeof(*cancel));
    pb__job_cancel__init(cancel);
    cancel->job_id = job_id;
    post_command(p)->body_case = PB__COMMAND__BODY_JOB_CANCEL;
    post_command(p)->job_cancel = cancel;
    assert_int_equal(turn_call(f->turn, p, &reply), 0);
}

static void a_cancel_is_told_and_told_again_in_a_new_session(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &calm);
    uint64_t job_id = fixture_submit(&f, 1);
    client_join(&c, &f, "w1", 1);
    Pb__JobKey key = client_take_job(&c);
    assert_true(fixture_wait_job(&f, job_id, JOB_RUNNING));
    cancel_job(&f, job_id);
    assert_int_equal(client_expect(&c, PB__ENVELOPE__BODY_CANCEL)->cancel->kind,
                     PB__CANCEL_KIND__CANCEL_GRACEFUL);
    cancel_job(&f, job_id);
    assert_int_equal(client_expect(&c, PB__ENVELOPE__BODY_CANCEL)->cancel->kind,
                     PB__CANCEL_KIND__CANCEL_FORCE);
    client_close(&c);
    Pb__HeldJob job = held(&key, PB__HELD_STATE__HELD_RUNNING);
    client_open(&c, &f);
    client_send_hello(
        &c, &(struct client_hello){
                .name = "w1", .slots = 1, .jobs = (Pb__HeldJob *[]){&job}, .job_count = 1});
    client_expect(&c, PB__ENVELOPE__BODY_WELCOME);
    const Pb__WireCancel *again = client_expect(&c, PB__ENVELOPE__BODY_CANCEL)->cancel;
    assert_int_equal(again->kind, PB__CANCEL_KIND__CANCEL_FORCE);
    assert_int_equal(again->key->epoch, key.epoch);
    client_close(&c);
    fixture_down(&f);
}

static bool job_waits(struct fixture *f, uint64_t job_id)
{
    struct tx *tx;

    fixture_read(f, &tx);
    const Pb__AssignmentRecord *a = assignment_get(tx, job_id);
    bool waits = a != NULL && a->waiting;
    tx_abort(tx);
    return waits;
}

static void a_job_that_waits_for_its_worker_goes_on_under_the_same_epoch(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &patient);
    struct post *p = fixture_pipeline_post("group/deploy", 1);
    post_command(p)->pipeline_create->plan->jobs[0]->on_worker_lost =
        PB__ON_WORKER_LOST__ON_WORKER_LOST_WAIT;
    uint64_t job_id = fixture_submit_post(&f, p);
    client_join(&c, &f, "w1", 1);
    Pb__JobKey key = client_take_job(&c);
    assert_true(fixture_wait_job(&f, job_id, JOB_RUNNING));
    client_expect_closed(&c);
    client_close(&c);
    for (int i = 0; i < 2000 && !job_waits(&f, job_id); i++) {
        os_sleep_ms(2);
    }
    assert_true(job_waits(&f, job_id));
    Pb__HeldJob job = held(&key, PB__HELD_STATE__HELD_RUNNING);
    client_open(&c, &f);
    client_send_hello(
        &c, &(struct client_hello){
                .name = "w1", .slots = 1, .jobs = (Pb__HeldJob *[]){&job}, .job_count = 1});
    c.session = client_expect(&c, PB__ENVELOPE__BODY_WELCOME)->welcome->session;
    assert_false(job_waits(&f, job_id));
    client_send_finished(&c, &key, 0);
    assert_false(client_expect(&c, PB__ENVELOPE__BODY_FINISH_ACK)->finish_ack->stale);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_SUCCESS);
    assert_int_equal(fixture_job_losses(&f, job_id), 0);
    fixture_audit(&f);
    client_close(&c);
    fixture_down(&f);
}

static void a_worker_that_returns_without_the_job_ends_the_wait(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &hasty);
    struct post *p = fixture_pipeline_post("group/deploy", 1);
    post_command(p)->pipeline_create->plan->jobs[0]->on_worker_lost =
        PB__ON_WORKER_LOST__ON_WORKER_LOST_WAIT;
    uint64_t job_id = fixture_submit_post(&f, p);
    client_join(&c, &f, "w1", 1);
    client_take_job(&c);
    assert_true(fixture_wait_job(&f, job_id, JOB_RUNNING));
    client_expect_closed(&c);
    client_close(&c);
    for (int i = 0; i < 5000 && !job_waits(&f, job_id); i++) {
        os_sleep_ms(2);
    }
    assert_true(job_waits(&f, job_id));
    client_join(&c, &f, "w1", 1);
    assert_true(fixture_wait_job(&f, job_id, JOB_FAILED));
    fixture_audit(&f);
    client_close(&c);
    fixture_down(&f);
}

static void an_impossible_end_fails_the_attempt(void **state)
{
    struct fixture f;
    struct client c;
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__WireJobFinished finished = PB__WIRE_JOB_FINISHED__INIT;
    Pb__JobEnd end = PB__JOB_END__INIT;
    Pb__Outcome outcome = PB__OUTCOME__INIT;

    fixture_up(&f, &calm);
    uint64_t job_id = fixture_submit(&f, 1);
    client_join(&c, &f, "w1", 1);
    Pb__JobKey key = client_take_job(&c);
    outcome.result = JOB_RUNNING;
    end.key = &key;
    end.outcome = &outcome;
    finished.ends = (Pb__JobEnd *[]){&end};
    finished.n_ends = 1;
    body.body_case = PB__ENVELOPE__BODY_JOB_FINISHED;
    body.job_finished = &finished;
    client_send(&c, &body);
    client_expect(&c, PB__ENVELOPE__BODY_FINISH_ACK);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_FAILED);
    client_close(&c);
    fixture_down(&f);
}

static void set_worker(struct fixture *f, uint64_t worker_id, bool draining, bool paused)
{
    struct reply reply;
    struct post *p = post_new("test");
    Pb__WorkerSet *set = arena_alloc(post_arena(p), sizeof(*set));
    pb__worker_set__init(set);
    set->worker_id = worker_id;
    set->has_draining = true;
    set->draining = draining;
    set->has_paused = true;
    set->paused = paused;
    post_command(p)->body_case = PB__COMMAND__BODY_WORKER_SET;
    post_command(p)->worker_set = set;
    assert_int_equal(turn_call(f->turn, p, &reply), 0);
}

static void drain_and_pause_are_told_and_obeyed(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &calm);
    client_join(&c, &f, "w1", 1);
    set_worker(&f, c.worker_id, true, false);
    assert_false(client_expect(&c, PB__ENVELOPE__BODY_DRAIN)->drain->undo);
    uint64_t job_id = fixture_submit(&f, 1);
    client_expect_silence(&c, 50);
    set_worker(&f, c.worker_id, false, true);
    assert_true(client_expect(&c, PB__ENVELOPE__BODY_DRAIN)->drain->undo);
    client_expect_silence(&c, 50);
    set_worker(&f, c.worker_id, false, false);
    assert_int_equal(client_take_job(&c).job_id, job_id);
    client_close(&c);
    fixture_down(&f);
}

/* Behind the back of the fleet. The turn is idle. */
static void write_draining(struct fixture *f, uint64_t worker_id, bool draining)
{
    const struct key k = key_u64(worker_id);
    struct tx *tx;

    assert_int_equal(turn_fresh(f->turn), 0);
    assert_int_equal(tx_begin(f->store, true, &tx), 0);
    Pb__WorkerRecord *w = (Pb__WorkerRecord *)worker_get(tx, worker_id);
    w->draining = draining;
    tx_put_msg(tx, T_WORKER, &k, &w->base);
    assert_int_equal(tx_commit(tx), 0);
}

static void a_worker_that_the_core_refuses_holds_nobody_up(void **state)
{
    struct fixture f;
    struct client a;
    struct client b;

    fixture_up(&f, &calm);
    client_join(&a, &f, "w1", 2); /* the first that is thought of */
    client_join(&b, &f, "w2", 1);
    write_draining(&f, a.worker_id, true);
    uint64_t job_id = fixture_submit(&f, 2);
    assert_int_equal(client_take_job(&b).job_id, job_id);
    client_expect_silence(&a, 20);
    write_draining(&f, a.worker_id, false);
    assert_int_equal(client_take_job(&a).job_id, job_id + 1); /* though nobody says a word */
    fixture_audit(&f);
    client_close(&a);
    client_close(&b);
    fixture_down(&f);
}

/* ---- clients ---- */

static void say_client_hello(struct client *c, const struct fixture *f, const char *uid)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__ClientHello hello = PB__CLIENT_HELLO__INIT;

    client_open(c, f);
    hello.token = pb_bytes_ref(str_from(FIXTURE_ADMIN_TOKEN));
    hello.name = (char *)"by hand";
    hello.uid = pb_bytes_ref(str_from(uid));
    body.body_case = PB__ENVELOPE__BODY_CLIENT_HELLO;
    body.client_hello = &hello;
    client_send(c, &body);
}

static void join_as_client(struct client *c, const struct fixture *f, const char *uid)
{
    say_client_hello(c, f, uid);
    const Pb__Welcome *welcome = client_expect(c, PB__ENVELOPE__BODY_WELCOME)->welcome;
    assert_int_equal(welcome->worker_id, 0);
    c->session = welcome->session;
}

static void a_newer_session_of_a_client_ends_the_older(void **state)
{
    struct fixture f;
    struct client old;
    struct client young;
    struct client other;

    fixture_up(&f, &calm);
    join_as_client(&old, &f, "0123456789abcdef");
    join_as_client(&other, &f, "0123456789abcdeX");
    join_as_client(&young, &f, "0123456789abcdef");
    client_expect_closed(&old);
    client_beat(&young, NULL, 0);
    client_expect(&young, PB__ENVELOPE__BODY_HEARTBEAT_ACK);
    client_beat(&other, NULL, 0);
    client_expect(&other, PB__ENVELOPE__BODY_HEARTBEAT_ACK);
    client_close(&old);
    client_close(&young);
    client_close(&other);
    fixture_down(&f);
}

static void a_silent_client_is_forgotten(void **state)
{
    struct fixture f;
    struct client c;
    struct fleet_stats stats;

    fixture_up(&f, &hasty);
    join_as_client(&c, &f, "0123456789abcdef");
    client_expect_closed(&c);
    fleet_get_stats(f.fleet, &stats);
    for (int i = 0; i < 1000 && stats.clients > 0; i++) {
        os_sleep_ms(2);
        fleet_get_stats(f.fleet, &stats);
    }
    assert_int_equal(stats.clients, 0);
    assert_int_equal(stats.violations, 0);
    client_close(&c);
    fixture_down(&f);
}

static void a_client_that_speaks_as_a_worker_is_cut_off(void **state)
{
    struct fixture f;
    struct client c;
    Pb__JobKey key = PB__JOB_KEY__INIT;

    fixture_up(&f, &calm);
    join_as_client(&c, &f, "0123456789abcdef");
    client_send_started(&c, &key);
    client_expect_closed(&c);
    client_close(&c);
    say_client_hello(&c, &f, "short");
    client_expect_closed(&c);
    client_close(&c);
    assert_int_equal(violations(&f), 2);
    fixture_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_goes_to_a_worker_and_ends),
        cmocka_unit_test(a_worker_that_waits_gets_a_new_job_at_once),
        cmocka_unit_test(an_end_before_its_log_is_put_off),
        cmocka_unit_test(a_job_given_back_goes_to_another_worker_and_costs_nothing),
        cmocka_unit_test(a_numbered_message_is_acknowledged_though_there_is_nothing_to_say),
        cmocka_unit_test(a_wrong_token_is_refused_for_good),
        cmocka_unit_test(another_version_is_refused_for_good),
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
        cmocka_unit_test(a_worker_without_credit_gets_no_more_jobs),
        cmocka_unit_test(jobs_of_one_turn_travel_together_and_end_together),
        cmocka_unit_test(a_list_beyond_all_bounds_ends_the_session),
        cmocka_unit_test(a_new_hello_supersedes_the_older_session),
        cmocka_unit_test(an_unacknowledged_job_is_sent_again_in_a_new_session),
        cmocka_unit_test(what_the_last_session_did_not_deliver_is_read_from_the_list),
        cmocka_unit_test(an_end_is_taken_though_no_step_before_it_was_heard),
        cmocka_unit_test(a_silent_worker_loses_its_job_and_is_fenced_when_it_comes_back),
        cmocka_unit_test(a_worker_that_beats_keeps_its_job_for_longer_than_a_lease),
        cmocka_unit_test(a_job_missing_from_a_heartbeat_is_lost),
        cmocka_unit_test(after_a_restart_a_holder_has_a_full_lease),
        cmocka_unit_test(after_a_restart_a_holder_that_stays_away_is_lost),
        cmocka_unit_test(a_worker_whose_pipe_is_gone_gets_no_work),
        cmocka_unit_test(good_bye_is_answered_and_frees_what_was_on_its_way),
        cmocka_unit_test(a_cancel_is_told_and_told_again_in_a_new_session),
        cmocka_unit_test(a_job_that_waits_for_its_worker_goes_on_under_the_same_epoch),
        cmocka_unit_test(a_worker_that_returns_without_the_job_ends_the_wait),
        cmocka_unit_test(an_impossible_end_fails_the_attempt),
        cmocka_unit_test(drain_and_pause_are_told_and_obeyed),
        cmocka_unit_test(a_worker_that_the_core_refuses_holds_nobody_up),
        cmocka_unit_test(a_newer_session_of_a_client_ends_the_older),
        cmocka_unit_test(a_silent_client_is_forgotten),
        cmocka_unit_test(a_client_that_speaks_as_a_worker_is_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
