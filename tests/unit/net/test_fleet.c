#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "broker/core/query.h"
#include "common/limits.h"
#include "common/os.h"
#include "tests/unit/net/client.h"

/* What becomes of jobs between broker and worker. */

static const struct fixture_options calm = {.listen = true};
static const struct fixture_options hasty = {
    .listen = true, .heartbeat_ms = 50, .lease_ms = 250, .hello_ms = 150};

/* For tests whose worker must be heard in time, on a busy machine too. */
static const struct fixture_options patient = {
    .listen = true, .heartbeat_ms = 200, .lease_ms = 1500};

static uint64_t class_of(struct fixture *f, uint64_t job_id)
{
    struct tx *tx;

    fixture_read(f, &tx);
    const uint64_t id = job_get(tx, job_id)->class_id;
    tx_abort(tx);
    return id;
}

/* ---- from Hello to the end of a job ---- */

static void a_job_goes_to_a_worker_and_ends(void **state)
{
    struct fixture f;
    struct client c;
    struct fleet_worker view;
    uint64_t held_ms;

    fixture_up(&f, &calm);
    uint64_t job_id = fixture_submit(&f, 1);
    assert_false(turn_typical_ms(f.turn, class_of(&f, job_id), &held_ms));
    client_join(&c, &f, "w1", 1);
    Pb__JobKey key = client_take_job(&c);
    assert_int_equal(key.job_id, job_id);
    assert_true(fixture_wait_job(&f, job_id, JOB_RUNNING));
    client_send_log(&c, &key, 0, "hello\n");
    assert_int_equal(client_expect(&c, PB__ENVELOPE__BODY_LOG_ACK)->log_ack->durable, 6);
    client_send_finished(&c, &key, 6);
    assert_false(client_expect(&c, PB__ENVELOPE__BODY_FINISH_ACK)->finish_ack->stale);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_SUCCESS);
    assert_true(turn_typical_ms(f.turn, class_of(&f, job_id), &held_ms));
    assert_in_range(held_ms, 0, 60000);
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
    Pb__HeldJob job = client_held(&key, PB__HELD_STATE__HELD_RUNNING);
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
    Pb__HeldJob job = client_held(&key, PB__HELD_STATE__HELD_RUNNING);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_goes_to_a_worker_and_ends),
        cmocka_unit_test(a_worker_that_waits_gets_a_new_job_at_once),
        cmocka_unit_test(an_end_before_its_log_is_put_off),
        cmocka_unit_test(a_job_given_back_goes_to_another_worker_and_costs_nothing),
        cmocka_unit_test(a_worker_without_credit_gets_no_more_jobs),
        cmocka_unit_test(jobs_of_one_turn_travel_together_and_end_together),
        cmocka_unit_test(a_cancel_is_told_and_told_again_in_a_new_session),
        cmocka_unit_test(a_job_that_waits_for_its_worker_goes_on_under_the_same_epoch),
        cmocka_unit_test(a_worker_that_returns_without_the_job_ends_the_wait),
        cmocka_unit_test(an_impossible_end_fails_the_attempt),
        cmocka_unit_test(drain_and_pause_are_told_and_obeyed),
        cmocka_unit_test(a_worker_that_the_core_refuses_holds_nobody_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
