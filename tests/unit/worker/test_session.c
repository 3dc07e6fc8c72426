#include "common/base.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/os.h"
#include "tests/unit/worker/world.h"

static const struct job_key job = {11, 1, 5};
static const struct job_key job_2 = {12, 1, 5};
static const struct job_key job_3 = {13, 1, 5};

static void a_hello_says_who_the_worker_is(void **state)
{
    struct world *w = *state;
    peer_cut(&w->peer);
    const Pb__Hello *hello = peer_welcome(&w->peer);
    assert_true(str_eqz(pb_str(hello->token), "secret"));
    assert_string_equal(hello->worker->name, "tested");
    assert_string_equal(hello->worker->pool, "night");
    assert_int_equal(hello->worker->uid.len, 16);
    assert_int_equal(hello->worker->slots, 2);
    assert_false(hello->worker->run_untagged);
    assert_int_equal(hello->worker->n_tags, 2);
    assert_string_equal(hello->worker->tags[1], "b");
    assert_int_equal(hello->worker->n_executors, 1);
    assert_string_equal(hello->worker->executors[0], "shell");
    assert_string_equal(hello->worker->version, DAVIT_VERSION);
    assert_true(hello->worker->cpu_millis >= 1000); /* of this machine, as nothing was said */
    assert_true(hello->worker->memory_bytes > 0 && hello->worker->disk_bytes > 0);
    assert_int_equal(hello->n_jobs, 0);
}

static void the_uid_outlives_the_process(void **state)
{
    struct world *w = *state;
    uint8_t uid[16];
    peer_cut(&w->peer);
    memcpy(uid, peer_welcome(&w->peer)->worker->uid.data, sizeof(uid));
    worker_kill(w);
    w->worker = worker_start(w);
    assert_memory_equal(peer_welcome(&w->peer)->worker->uid.data, uid, sizeof(uid));
}

static void what_is_received_is_acknowledged_soon(void **state)
{
    struct world *w = *state;
    peer_drain(&w->peer, false);
    peer_drain(&w->peer, true);
    while (w->peer.acked < 3) {
        peer_beat(&w->peer);
    }
}

static void a_silent_broker_is_left_and_tried_again(void **state)
{
    struct world *w = *state;
    uint64_t begin_ms = os_monotonic_ms();
    w->peer.mute = true;
    peer_welcome(&w->peer);
    assert_true(os_monotonic_ms() - begin_ms >= PEER_LEASE_MS / 2);
}

/* TCP may need longer than the rest of the lease to notice that the network is back. */
static void who_holds_a_job_leaves_a_silent_broker_before_the_lease_is_over(void **state)
{
    struct world *w = *state;
    w->peer.lease_ms = 3 * PEER_LEASE_MS;
    w->peer.session = 500;
    peer_cut(&w->peer);
    peer_welcome(&w->peer);
    peer_assign(&w->peer, job, "sleep 60");
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_JOB_STARTED);
    peer_beat(&w->peer);
    uint64_t heard_ms = os_monotonic_ms();
    w->peer.mute = true;
    peer_expect(&w->peer, PB__ENVELOPE__BODY_HELLO);
    uint64_t silent_ms = os_monotonic_ms() - heard_ms;
    assert_true(silent_ms >= w->peer.lease_ms / 2);
    assert_true(silent_ms < w->peer.lease_ms);
}

static void a_gap_in_the_numbers_ends_the_session(void **state)
{
    struct world *w = *state;
    w->peer.seq_out++;
    peer_drain(&w->peer, false);
    peer_welcome(&w->peer);
}

static void a_refusal_for_good_is_the_end(void **state)
{
    struct world *w = *state;
    peer_cut(&w->peer);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_HELLO);
    peer_refuse(&w->peer, "unauthorized", true);
    assert_int_equal(worker_wait(w->worker), err_exit_code(-E_UNAUTHORIZED));
    w->worker = 0;
}

static void a_refusal_for_now_is_tried_again(void **state)
{
    struct world *w = *state;
    peer_cut(&w->peer);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_HELLO);
    peer_refuse(&w->peer, "busy", false);
    w->peer.session = 500;
    peer_welcome(&w->peer);
}

/* A broker of the version before refuses the newest one, as it always did. */
static void an_older_broker_is_met_at_its_version(void **state)
{
    struct world *w = *state;
    peer_cut(&w->peer);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_HELLO);
    assert_int_equal(w->peer.offered, WIRE_VERSION);
    w->peer.version = WIRE_VERSION - 1;
    peer_refuse(&w->peer, "version", true);
    w->peer.session = 500;
    peer_welcome(&w->peer);
    assert_int_equal(w->peer.offered, WIRE_VERSION - 1);
    peer_beat(&w->peer);
    peer_cut(&w->peer); /* the next one may be a newer broker */
    w->peer.version = WIRE_VERSION;
    w->peer.session = 501;
    peer_welcome(&w->peer);
    assert_int_equal(w->peer.offered, WIRE_VERSION);
}

static void a_broker_without_a_common_version_is_the_end(void **state)
{
    struct world *w = *state;
    peer_cut(&w->peer);
    for (uint32_t v = WIRE_VERSION; v >= WIRE_VERSION_OLDEST; v--) {
        peer_expect(&w->peer, PB__ENVELOPE__BODY_HELLO);
        assert_int_equal(w->peer.offered, v);
        peer_refuse(&w->peer, "version", true);
    }
    assert_int_equal(worker_wait(w->worker), err_exit_code(-E_VERSION));
    w->worker = 0;
}

static void a_second_worker_on_the_state_folder_is_refused(void **state)
{
    struct world *w = *state;
    assert_int_equal(worker_wait(worker_start(w)), err_exit_code(-E_BUSY));
    peer_beat(&w->peer); /* the first one does not mind */
}

static void an_idle_worker_says_bye_on_sigterm(void **state)
{
    struct world *w = *state;
    peer_beat(&w->peer); /* it has its session */
    kill(w->worker, SIGTERM);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_BYE);
    peer_bye_ack(&w->peer);
    assert_int_equal(worker_wait(w->worker), 0);
    w->worker = 0;
}

static void jobs_of_one_message_are_acknowledged_in_one(void **state)
{
    struct world *w = *state;
    const struct job_key jobs[] = {job, job_2, job_3};
    peer_assign_all(&w->peer, jobs, ARRAY_LEN(jobs), "sleep 30");
    const Pb__Envelope *e = peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
    assert_int_equal(e->assign_ack->n_keys, 2);
    assert_true(job_key_eq(job_key_of(e->assign_ack->keys[0]), job));
    assert_true(job_key_eq(job_key_of(e->assign_ack->keys[1]), job_2));
    e = peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_RETURN); /* it has two slots */
    assert_true(job_key_eq(job_key_of(e->assign_return->key), job_3));
    for (size_t started = 0; started < 2;) {
        started += peer_expect(&w->peer, PB__ENVELOPE__BODY_JOB_STARTED)->job_started->n_keys;
    }
    for (size_t i = 0; i < 2; i++) {
        peer_cancel(&w->peer, jobs[i], PB__CANCEL_KIND__CANCEL_FENCED);
        until_no_folder(w, jobs[i]);
    }
}

static void a_draining_worker_gives_new_work_back_and_waits_for_the_old(void **state)
{
    struct world *w = *state;
    peer_assign(&w->peer, job, "sleep 0.3; echo done");
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_JOB_STARTED);
    kill(w->worker, SIGTERM);
    while (!peer_beat(&w->peer)->heartbeat->draining) {
    }
    peer_assign(&w->peer, job_2, "true");
    const Pb__Envelope *e = peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_RETURN);
    assert_true(job_key_eq(job_key_of(e->assign_return->key), job_2));
    assert_int_equal(peer_expect_finished(&w->peer, job)->result, JOB_SUCCESS);
    peer_finish_ack(&w->peer, job, false);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_BYE);
    peer_bye_ack(&w->peer);
    assert_int_equal(worker_wait(w->worker), 0);
    w->worker = 0;
}

static void a_second_sigterm_leaves_the_job_running_for_the_next_process(void **state)
{
    struct world *w = *state;
    peer_assign(&w->peer, job, "sleep 0.5; echo done");
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_JOB_STARTED);
    kill(w->worker, SIGTERM);
    while (!peer_beat(&w->peer)->heartbeat->draining) {
    }
    kill(w->worker, SIGTERM);
    assert_int_equal(worker_wait(w->worker), 0);
    w->worker = worker_start(w);
    const Pb__Hello *hello = peer_welcome(&w->peer);
    assert_int_equal(hello->n_jobs, 1);
    assert_int_equal(hello->jobs[0]->state, PB__HELD_STATE__HELD_RUNNING);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_JOB_STARTED);
    assert_int_equal(peer_expect_finished(&w->peer, job)->result, JOB_SUCCESS);
}

static void the_broker_can_drain_and_undrain(void **state)
{
    struct world *w = *state;
    peer_drain(&w->peer, false);
    while (!peer_beat(&w->peer)->heartbeat->draining) {
    }
    peer_assign(&w->peer, job, "true");
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_RETURN);
    peer_drain(&w->peer, true);
    while (peer_beat(&w->peer)->heartbeat->draining) {
    }
    peer_assign(&w->peer, job, "true");
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
}

static void more_jobs_than_slots_are_given_back(void **state)
{
    struct world *w = *state;
    peer_assign(&w->peer, job, "sleep 20");
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_JOB_STARTED);
    peer_assign(&w->peer, job_2, "sleep 20");
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_JOB_STARTED);
    peer_assign(&w->peer, job_3, "true");
    const Pb__Envelope *e = peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_RETURN);
    assert_true(job_key_eq(job_key_of(e->assign_return->key), job_3));
    assert_false(job_is_there(w, job_3));
}

static void a_worker_without_disk_space_takes_no_work(void **state)
{
    struct world *w = *state;
    worker_kill(w);
    w->min_free_mb = "4294967295";
    w->worker = worker_start(w);
    peer_welcome(&w->peer);
    assert_true(peer_beat(&w->peer)->heartbeat->disk_low);
    peer_assign(&w->peer, job, "true");
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_RETURN);
    assert_false(job_is_there(w, job));
}

static void three_failures_of_the_machine_send_the_worker_to_quarantine(void **state)
{
    struct world *w = *state;
    char *builds = os_path_join(w->state, "builds");
    assert_int_equal(os_remove_tree(builds), 0);
    assert_int_equal(os_write_file(builds, "", 0, 0600), 0); /* no working tree can be made */
    for (uint64_t i = 1; i <= 3; i++) {
        struct job_key doomed = {100 + i, 1, 1};
        buf_clear(&w->peer.log);
        peer_assign(&w->peer, doomed, "true");
        peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
        assert_int_equal(peer_expect_finished(&w->peer, doomed)->reason, REASON_SYSTEM_FAILURE);
        peer_finish_ack(&w->peer, doomed, false);
    }
    while (!peer_beat(&w->peer)->heartbeat->draining) {
    }
    peer_assign(&w->peer, job, "true");
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_RETURN);
    free(builds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_WORLD(a_hello_says_who_the_worker_is),
        TEST_WORLD(the_uid_outlives_the_process),
        TEST_WORLD(what_is_received_is_acknowledged_soon),
        TEST_WORLD(a_silent_broker_is_left_and_tried_again),
        TEST_WORLD(who_holds_a_job_leaves_a_silent_broker_before_the_lease_is_over),
        TEST_WORLD(a_gap_in_the_numbers_ends_the_session),
        TEST_WORLD(a_refusal_for_good_is_the_end),
        TEST_WORLD(a_refusal_for_now_is_tried_again),
        TEST_WORLD(an_older_broker_is_met_at_its_version),
        TEST_WORLD(a_broker_without_a_common_version_is_the_end),
        TEST_WORLD(a_second_worker_on_the_state_folder_is_refused),
        TEST_WORLD(an_idle_worker_says_bye_on_sigterm),
        TEST_WORLD(jobs_of_one_message_are_acknowledged_in_one),
        TEST_WORLD(a_draining_worker_gives_new_work_back_and_waits_for_the_old),
        TEST_WORLD(a_second_sigterm_leaves_the_job_running_for_the_next_process),
        TEST_WORLD(the_broker_can_drain_and_undrain),
        TEST_WORLD(more_jobs_than_slots_are_given_back),
        TEST_WORLD(a_worker_without_disk_space_takes_no_work),
        TEST_WORLD(three_failures_of_the_machine_send_the_worker_to_quarantine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
