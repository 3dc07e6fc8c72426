#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "broker/core/query.h"
#include "common/limits.h"
#include "common/os.h"
#include "tests/unit/net/client.h"

/* Sessions of programs that enqueue jobs, byte by byte; tests/unit/client has the library's side.
 */

static const struct fixture_options calm = {.listen = true};
static const struct fixture_options hasty = {
    .listen = true, .heartbeat_ms = 50, .lease_ms = 250, .hello_ms = 150};

static void join_by(struct client *c, const struct fixture *f, const char *token)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__ClientHello hello = PB__CLIENT_HELLO__INIT;

    client_open(c, f);
    hello.token = pb_bytes_ref(str_from(token));
    hello.name = (char *)"program";
    hello.version = (char *)"test";
    hello.uid = pb_bytes_ref(STR("program---------"));
    body.body_case = PB__ENVELOPE__BODY_CLIENT_HELLO;
    body.client_hello = &hello;
    client_send(c, &body);
    c->session = client_expect(c, PB__ENVELOPE__BODY_WELCOME)->welcome->session;
}

static void join(struct client *c, const struct fixture *f)
{
    join_by(c, f, FIXTURE_ADMIN_TOKEN);
}

static const Pb__ClientAnswer *cancel(struct client *c, uint64_t job_id, bool again)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__ClientCancel m = PB__CLIENT_CANCEL__INIT;

    m.request = 1;
    m.job_id = job_id;
    m.again = again;
    body.body_case = PB__ENVELOPE__BODY_CLIENT_CANCEL;
    body.client_cancel = &m;
    client_send(c, &body);
    const Pb__ClientAnswer *answer = client_expect(c, PB__ENVELOPE__BODY_CLIENT_ANSWER)
                                         ->client_answer;
    return answer;
}

static bool is_forced(struct fixture *f, uint64_t job_id)
{
    struct tx *tx;

    fixture_read(f, &tx);
    bool forced = job_get(tx, job_id)->cancel_forced;
    tx_abort(tx);
    return forced;
}

static void a_cancel_sent_again_is_no_force(void **state)
{
    struct fixture f;
    struct client worker;
    struct client c;

    fixture_up(&f, &calm);
    uint64_t job_id = fixture_submit(&f, 2);
    client_join(&worker, &f, "w1", 1);
    Pb__JobKey key = client_take_job(&worker);
    assert_true(fixture_wait_job(&f, job_id, JOB_RUNNING));
    join(&c, &f);
    for (int i = 0; i < 2; i++) { /* the first may have been lost before it was read */
        const Pb__ClientAnswer *answer = cancel(&c, job_id, true);
        assert_string_equal(answer->code, "");
        assert_int_equal(answer->n_jobs, 1);
        assert_int_equal(answer->jobs[0]->state, JOB_CANCELING);
    }
    assert_false(is_forced(&f, job_id));
    assert_string_equal(cancel(&c, job_id, false)->code, "");
    assert_true(is_forced(&f, job_id));
    assert_string_equal(cancel(&c, job_id + 1, true)->code, "");
    assert_string_equal(cancel(&c, job_id + 1, true)->code, "");
    assert_int_equal(fixture_job_state(&f, job_id + 1), JOB_CANCELED);
    assert_string_equal(cancel(&c, job_id + 1, false)->code, "conflict");
    assert_string_equal(cancel(&c, job_id + 2, true)->code, "not_found");
    client_send_finished(&worker, &key, 0);
    client_close(&worker);
    client_close(&c);
    fixture_down(&f);
}

/* The job of that key, and to be told of its end. */
static void send_enqueue(struct client *c, const char *key)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__ClientEnqueue m = PB__CLIENT_ENQUEUE__INIT;
    Pb__JobsEnqueue all = PB__JOBS_ENQUEUE__INIT;
    Pb__EnqueueJob job = PB__ENQUEUE_JOB__INIT;
    Pb__EnqueueJob *jobs = &job;
    Pb__PlanJob plan = PB__PLAN_JOB__INIT;
    ProtobufCBinaryData script = pb_bytes_ref(STR("true"));

    plan.name = (char *)"one";
    plan.script = &script;
    plan.n_script = 1;
    job.plan = &plan;
    job.keep_ms = 3600000;
    job.idempotency_key = pb_bytes_ref(str_from(key));
    all.project = (char *)"demo";
    all.jobs = &jobs;
    all.n_jobs = 1;
    m.request = 1;
    m.jobs = &all;
    m.notify = true;
    body.body_case = PB__ENVELOPE__BODY_CLIENT_ENQUEUE;
    body.client_enqueue = &m;
    client_send(c, &body);
}

static void expect_enqueued(struct client *c)
{
    const Pb__ClientEnqueued *m = client_expect(c, PB__ENVELOPE__BODY_CLIENT_ENQUEUED)
                                      ->client_enqueued;

    assert_string_equal(m->code, "");
    assert_int_equal(m->n_job_ids, 1);
}

/* Each of its requests is answered, and by the end of a job besides: all that may be sent without
 * an acknowledgement, and then as many requests as a library makes. */
static void join_and_fall_silent(struct client *c, struct fixture *f)
{
    join(c, f);
    send_enqueue(c, "key");
    const Pb__ClientEnqueued *m = client_expect(c, PB__ENVELOPE__BODY_CLIENT_ENQUEUED)
                                      ->client_enqueued;
    if (!m->duplicates[0]) {
        assert_int_equal(fixture_cancel_job(f, m->job_ids[0]), 0);
    }
    client_expect(c, PB__ENVELOPE__BODY_CLIENT_JOB_ENDED);
    c->mute = true;
    for (uint32_t i = 0; i < WIRE_CREDIT / 2; i++) {
        send_enqueue(c, "key");
        expect_enqueued(c);
        client_expect(c, PB__ENVELOPE__BODY_CLIENT_JOB_ENDED);
    }
    for (uint32_t i = 0; i < LIMIT_CLIENT_REQUESTS + 1; i++) {
        send_enqueue(c, "key");
    }
    client_expect_silence(c, 80);
}

static void ends_of_jobs_do_not_count_as_answers_that_wait(void **state)
{
    struct fixture f;
    struct client c;

    fixture_up(&f, &calm);
    join_and_fall_silent(&c, &f);
    c.mute = false;
    c.seen = c.next_seen - 1;
    client_beat(&c, NULL, 0);
    for (uint32_t i = 0; i < LIMIT_CLIENT_REQUESTS + 1; i++) {
        expect_enqueued(&c);
        client_expect(&c, PB__ENVELOPE__BODY_CLIENT_JOB_ENDED);
        client_beat(&c, NULL, 0);
    }
    client_close(&c);
    fixture_down(&f);
}

static void a_client_that_asks_on_without_reading_is_cut_off(void **state)
{
    struct fixture f;
    struct client c;
    struct fleet_stats stats;

    fixture_up(&f, &calm);
    join_and_fall_silent(&c, &f);
    send_enqueue(&c, "key");
    client_expect_closed(&c);
    fleet_get_stats(f.fleet, &stats);
    assert_int_equal(stats.violations, 1);
    client_close(&c);
    fixture_down(&f);
}

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
    assert_int_equal(fleet_violations(&f), 2);
    fixture_down(&f);
}

static void drivers_are_for_rollouts(void **state)
{
    struct fixture f;
    struct client c;
    struct tx *tx;
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__ClientEnqueue m = PB__CLIENT_ENQUEUE__INIT;
    Pb__JobsEnqueue all = PB__JOBS_ENQUEUE__INIT;
    Pb__EnqueueJob job = PB__ENQUEUE_JOB__INIT;
    Pb__EnqueueJob *jobs = &job;
    Pb__PlanJob plan = PB__PLAN_JOB__INIT;
    Pb__ActionSpec action = PB__ACTION_SPEC__INIT;
    Pb__DriverAction driver = PB__DRIVER_ACTION__INIT;
    Pb__ActionFence fence = PB__ACTION_FENCE__INIT;

    driver.driver = (char *)"haproxy";
    driver.verb = (char *)"set_weight";
    driver.target = (char *)"live";
    driver.fence = &fence;
    action.what_case = PB__ACTION_SPEC__WHAT_DRIVER;
    action.driver = &driver;
    plan.name = (char *)"one";
    plan.action = &action;
    job.plan = &plan;
    job.keep_ms = 3600000;
    all.project = (char *)"demo";
    all.jobs = &jobs;
    all.n_jobs = 1;
    m.request = 1;
    m.jobs = &all;
    body.body_case = PB__ENVELOPE__BODY_CLIENT_ENQUEUE;
    body.client_enqueue = &m;
    fixture_up(&f, &calm);
    join(&c, &f);
    client_send(&c, &body);
    const Pb__ClientEnqueued *answer = client_expect(&c, PB__ENVELOPE__BODY_CLIENT_ENQUEUED)
                                           ->client_enqueued;
    assert_string_equal(answer->code, "forbidden");
    assert_string_equal(answer->text, "jobs[0].action: drivers are for rollouts");
    fixture_read(&f, &tx);
    assert_int_equal(tx_count(tx, T_JOB), 0);
    tx_abort(tx);
    client_close(&c);
    fixture_down(&f);
}

static void a_client_whose_token_is_revoked_enqueues_no_more(void **state)
{
    struct fixture f;
    struct client c;
    struct tx *tx;

    fixture_up(&f, &calm);
    join_by(&c, &f, FIXTURE_USER_TOKEN);
    send_enqueue(&c, "first");
    expect_enqueued(&c);
    fixture_revoke_token(&f, FIXTURE_USER_TOKEN);
    send_enqueue(&c, "second");
    const Pb__Refused *refused = client_expect(&c, PB__ENVELOPE__BODY_REFUSED)->refused;
    assert_string_equal(refused->code, "unauthorized");
    assert_true(refused->final);
    client_expect_closed(&c);
    fixture_read(&f, &tx);
    assert_int_equal(tx_count(tx, T_JOB), 1);
    tx_abort(tx);
    client_close(&c);
    fixture_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_cancel_sent_again_is_no_force),
        cmocka_unit_test(a_client_whose_token_is_revoked_enqueues_no_more),
        cmocka_unit_test(drivers_are_for_rollouts),
        cmocka_unit_test(ends_of_jobs_do_not_count_as_answers_that_wait),
        cmocka_unit_test(a_client_that_asks_on_without_reading_is_cut_off),
        cmocka_unit_test(a_newer_session_of_a_client_ends_the_older),
        cmocka_unit_test(a_silent_client_is_forgotten),
        cmocka_unit_test(a_client_that_speaks_as_a_worker_is_cut_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
