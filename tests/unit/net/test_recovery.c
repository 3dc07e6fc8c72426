#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "broker/core/query.h"
#include "common/limits.h"
#include "common/os.h"
#include "tests/unit/net/client.h"

/* What outlives a session: leases, new sessions, restarts. */

static const struct fixture_options calm = {.listen = true};
static const struct fixture_options hasty = {
    .listen = true, .heartbeat_ms = 50, .lease_ms = 250, .hello_ms = 150};

/* For tests whose worker must be heard in time, on a busy machine too. */
static const struct fixture_options patient = {
    .listen = true, .heartbeat_ms = 200, .lease_ms = 1500};

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
    Pb__HeldJob job = client_held(&key, PB__HELD_STATE__HELD_RUNNING);
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
    Pb__HeldJob job = client_held(&key, PB__HELD_STATE__HELD_RUNNING);
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
    Pb__HeldJob job = client_held(&key, PB__HELD_STATE__HELD_FINISHED);
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

    Pb__HeldJob job = client_held(&key, PB__HELD_STATE__HELD_RUNNING);
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
    Pb__HeldJob job = client_held(&key, PB__HELD_STATE__HELD_RUNNING);
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
    Pb__HeldJob job = client_held(&key, PB__HELD_STATE__HELD_RUNNING);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
