#include "common/base.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/os.h"
#include "tests/unit/worker/world.h"

static const struct job_key job = {11, 1, 5};

/* Prints 200 numbered lines over half a second. */
#define LINES "i=0; while [ $i -lt 200 ]; do echo line $i; i=$((i+1)); sleep 0.002; done"

static void start(struct world *w, const char *script)
{
    peer_assign(&w->peer, job, script);
    const Pb__Envelope *e = peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
    assert_true(job_key_eq(job_key_of(e->assign_ack->keys[0]), job));
    e = peer_expect(&w->peer, PB__ENVELOPE__BODY_JOB_STARTED);
    assert_true(job_key_eq(job_key_of(e->job_started->keys[0]), job));
}

static void take_over(struct world *w, Pb__HeldState expected)
{
    const Pb__Hello *hello = peer_welcome(&w->peer);
    assert_int_equal(hello->n_jobs, 1);
    assert_true(job_key_eq(job_key_of(hello->jobs[0]->key), job));
    assert_int_equal(hello->jobs[0]->state, expected);
}

static void assert_log_has(struct world *w, const char *text)
{
    if (str_find(buf_str(&w->peer.log), str_from(text)) < 0) {
        fail_msg("`%s` is not in the log:\n%s", text, buf_cstr(&w->peer.log));
    }
}

static void assert_all_lines_once(struct world *w)
{
    struct str rest = buf_str(&w->peer.log);
    struct str line;
    int next = 0;
    while (str_split(&rest, '\n', &line)) {
        char wanted[32];
        snprintf(wanted, sizeof(wanted), "line %d", next);
        next += str_eqz(str_trim(line), wanted);
    }
    assert_int_equal(next, 200);
}

static void finish(struct world *w, Pb__JobState result)
{
    assert_int_equal(peer_expect_finished(&w->peer, job)->result, result);
    peer_finish_ack(&w->peer, job, false);
    until_no_folder(w, job);
    while (peer_beat(&w->peer)->heartbeat->n_jobs > 0) {
    }
}

/* A folder of programs in which davit-shim starts once there is a file `go`, whoever started it. */
static char *slow_shim(const struct world *w)
{
    struct buf text = BUF_INIT;
    char *bin = os_path_join(w->root, "bin");
    char *slow = os_path_join(bin, "davit-shim");
    char *own = os_path_join(bin, "davit-worker");
    char *shim = os_find_program("davit-shim");
    char *worker = os_find_program("davit-worker");
    buf_addf(&text,
             "#!/bin/sh\n(until [ -e %s/go ]; do sleep 0.01; done; exec %s \"$@\") &\nwait\n",
             w->root, shim);
    assert_int_equal(os_mkdir_p(bin, 0700), 0);
    assert_int_equal(os_write_file(slow, text.p, text.n, 0700), 0);
    assert_int_equal(symlink(worker, own), 0);
    buf_release(&text);
    free(worker);
    free(shim);
    free(own);
    free(slow);
    return bin;
}

static void let_shims_go(const struct world *w)
{
    char *go = os_path_join(w->root, "go");
    assert_int_equal(os_write_file(go, "", 0, 0600), 0);
    free(go);
}

static void restart_with(struct world *w, const char *bin)
{
    char *usual = xstrdup(getenv("DAVIT_BIN_DIR"));
    worker_kill(w);
    assert_int_equal(setenv("DAVIT_BIN_DIR", bin, 1), 0);
    w->worker = worker_start(w);
    assert_int_equal(setenv("DAVIT_BIN_DIR", usual, 1), 0);
    free(usual);
}

static void a_job_is_taken_run_logged_and_forgotten(void **state)
{
    struct world *w = *state;
    start(w, "echo hello from the job");
    finish(w, JOB_SUCCESS);
    assert_log_has(w, "hello from the job");
}

/* The broker waits for these acknowledgements alone: shims that start slowly must not delay them.
 */
static void all_jobs_are_accepted_before_one_is_started(void **state)
{
    struct world *w = *state;
    const struct job_key more[] = {{12, 1, 5}, {13, 1, 5}};
    char *bin = slow_shim(w);
    w->slots = "3";
    restart_with(w, bin);
    peer_welcome(&w->peer);

    peer_assign(&w->peer, job, "sleep 20");
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK); /* its shim is being started now */
    peer_assign(&w->peer, more[0], "sleep 20");
    peer_assign(&w->peer, more[1], "sleep 20");
    for (int i = 0; i < 8; i++) { /* nothing tells when the worker has them; a busy one is slow */
        os_sleep_ms(100);
    }
    let_shims_go(w);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_JOB_STARTED);
    const Pb__Envelope *e = peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
    assert_int_equal(e->assign_ack->n_keys, 2);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_JOB_STARTED);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_JOB_STARTED);
    free(bin);
}

static void a_failing_script_is_a_failed_job(void **state)
{
    struct world *w = *state;
    start(w, "exit 3");
    const Pb__Outcome *outcome = peer_expect_finished(&w->peer, job);
    assert_int_equal(outcome->result, JOB_FAILED);
    assert_int_equal(outcome->reason, REASON_SCRIPT_FAILURE);
    assert_int_equal(outcome->exit_code, 3);
}

static void output_travels_at_once(void **state)
{
    struct world *w = *state;
    start(w, "echo early; sleep 20");
    uint64_t begin_ms = os_monotonic_ms();
    while (str_find(buf_str(&w->peer.log), STR("early")) < 0) {
        peer_run_until_log(&w->peer, w->peer.log.n + 1);
    }
    assert_true(os_monotonic_ms() - begin_ms < 2000); /* and not when it ends */
}

static void megabytes_of_log_arrive_whole(void **state)
{
    struct world *w = *state;
    start(w, "head -c 5000000 /dev/zero | tr '\\0' 'x'");
    finish(w, JOB_SUCCESS);
    assert_true(w->peer.log.n >= 5000000);
}

static void a_cut_connection_costs_no_byte_of_the_log(void **state)
{
    struct world *w = *state;
    start(w, LINES);
    for (size_t at = 300; at <= 1200; at += 300) {
        peer_run_until_log(&w->peer, at);
        peer_cut(&w->peer);
        take_over(w, PB__HELD_STATE__HELD_RUNNING);
    }
    finish(w, JOB_SUCCESS);
    assert_all_lines_once(w);
}

static void a_killed_worker_finds_its_job_again(void **state)
{
    struct world *w = *state;
    start(w, LINES);
    peer_run_until_log(&w->peer, 500);
    worker_kill(w);
    w->worker = worker_start(w);
    take_over(w, PB__HELD_STATE__HELD_RUNNING);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_JOB_STARTED);
    finish(w, JOB_SUCCESS);
    assert_all_lines_once(w);
}

static void a_job_that_ended_without_a_worker_is_reported(void **state)
{
    struct world *w = *state;
    start(w, LINES "; exit 9");
    char *status = job_file(w, job, "status");
    worker_kill(w);
    until_file(status);
    w->worker = worker_start(w);
    take_over(w, PB__HELD_STATE__HELD_RUNNING);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_JOB_STARTED);
    assert_int_equal(peer_expect_finished(&w->peer, job)->exit_code, 9);
    assert_all_lines_once(w);
    free(status);
}

static void an_end_that_nobody_acknowledged_is_told_again(void **state)
{
    struct world *w = *state;
    start(w, "echo once");
    assert_int_equal(peer_expect_finished(&w->peer, job)->result, JOB_SUCCESS);
    peer_cut(&w->peer);
    take_over(w, PB__HELD_STATE__HELD_RUNNING);
    assert_int_equal(peer_expect_finished(&w->peer, job)->result, JOB_SUCCESS);
    worker_kill(w);
    w->worker = worker_start(w);
    take_over(w, PB__HELD_STATE__HELD_RUNNING);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_JOB_STARTED);
    finish(w, JOB_SUCCESS);
}

static void a_killed_shim_is_the_loss_of_a_holder(void **state)
{
    struct world *w = *state;
    start(w, "echo before; sleep 30");
    while (str_find(buf_str(&w->peer.log), STR("before")) < 0) {
        peer_run_until_log(&w->peer, w->peer.log.n + 1);
    }
    kill(job_shim(w, job), SIGKILL);
    const Pb__Outcome *outcome = peer_expect_finished(&w->peer, job);
    assert_int_equal(outcome->result, JOB_FAILED);
    assert_int_equal(outcome->reason, REASON_WORKER_LOST);
    assert_log_has(w, "before");
    assert_log_has(w, "davit-shim");
}

static void a_shim_killed_without_a_worker_is_found_dead(void **state)
{
    struct world *w = *state;
    start(w, "sleep 30");
    worker_kill(w);
    pid_t shim = job_shim(w, job);
    kill(shim, SIGKILL);
    until_gone(shim);
    w->worker = worker_start(w);
    take_over(w, PB__HELD_STATE__HELD_RUNNING);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_JOB_STARTED);
    assert_int_equal(peer_expect_finished(&w->peer, job)->reason, REASON_WORKER_LOST);
}

static void a_fenced_job_is_killed_without_a_word(void **state)
{
    struct world *w = *state;
    start(w, "sleep 30");
    pid_t shim = job_shim(w, job);
    peer_cancel(&w->peer, job, PB__CANCEL_KIND__CANCEL_FENCED);
    until_gone(shim);
    until_no_folder(w, job);
    for (int i = 0; i < 3; i++) {
        peer_beat(&w->peer); /* and nothing else */
    }
    assert_int_equal(peer_beat(&w->peer)->heartbeat->n_jobs, 0);
}

static void a_canceled_job_ends_within_its_grace(void **state)
{
    struct world *w = *state;
    start(w, "trap 'echo asked to end; exit 1' TERM; echo ready; while :; do sleep 0.05; done");
    while (str_find(buf_str(&w->peer.log), STR("\nready")) < 0) {
        peer_run_until_log(&w->peer, w->peer.log.n + 1);
    }
    peer_cancel(&w->peer, job, PB__CANCEL_KIND__CANCEL_GRACEFUL);
    finish(w, JOB_CANCELED);
    assert_log_has(w, "asked to end");
}

static void a_job_canceled_by_force_ends_at_once(void **state)
{
    struct world *w = *state;
    start(w, "trap '' TERM; sleep 30");
    peer_cancel(&w->peer, job, PB__CANCEL_KIND__CANCEL_FORCE);
    finish(w, JOB_CANCELED);
}

static void a_cancel_for_an_unknown_job_is_answered_with_the_list(void **state)
{
    struct world *w = *state;
    uint64_t sent_ms = peer_beat(&w->peer)->heartbeat->sent_ms;
    peer_cancel(&w->peer, job, PB__CANCEL_KIND__CANCEL_GRACEFUL);
    const Pb__Heartbeat *beat = peer_beat(&w->peer)->heartbeat;
    assert_true(beat->sent_ms - sent_ms < PEER_HEARTBEAT_MS);
    assert_int_equal(beat->n_jobs, 0);
}

static void an_assignment_that_comes_twice_is_acknowledged_twice(void **state)
{
    struct world *w = *state;
    start(w, "sleep 30");
    peer_assign(&w->peer, job, "sleep 30");
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
    assert_int_equal(peer_beat(&w->peer)->heartbeat->n_jobs, 1);
}

static void a_newer_epoch_ends_the_older_copy(void **state)
{
    struct world *w = *state;
    struct job_key newer = {job.job_id, 2, job.epoch + 1};
    start(w, "sleep 30");
    peer_assign(&w->peer, newer, "echo newer");
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_JOB_STARTED);
    assert_int_equal(peer_expect_finished(&w->peer, newer)->result, JOB_SUCCESS);
    until_no_folder(w, job);
}

static void a_job_that_needs_an_image_is_refused_with_a_reason(void **state)
{
    struct world *w = *state;
    Pb__JobKey key = PB__JOB_KEY__INIT;
    Pb__Image image = PB__IMAGE__INIT;
    Pb__JobSpec spec = PB__JOB_SPEC__INIT;
    key.job_id = job.job_id;
    key.attempt = job.attempt;
    key.epoch = job.epoch;
    image.name = (char *)(uintptr_t) "alpine:3";
    spec.key = &key;
    spec.project = (char *)(uintptr_t) "demo";
    spec.name = (char *)(uintptr_t) "job";
    spec.image = &image;
    spec.timeout_ms = 1000;
    peer_send_spec(&w->peer, &spec);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
    const Pb__Outcome *outcome = peer_expect_finished(&w->peer, job);
    assert_int_equal(outcome->result, JOB_FAILED);
    assert_int_equal(outcome->reason, REASON_UNMET_PREREQUISITES);
    assert_log_has(w, "image");
}

static void a_finish_ack_nobody_waited_for_ends_the_job(void **state)
{
    struct world *w = *state;
    start(w, "sleep 30");
    peer_finish_ack(&w->peer, job, true);
    until_no_folder(w, job);
}

static void a_full_disk_of_the_broker_delays_the_end(void **state)
{
    struct world *w = *state;
    w->peer.log_full = true;
    start(w, "echo text");
    char *outcome = job_file(w, job, "outcome.pb");
    until_file(outcome);
    for (int i = 0; i < 3; i++) {
        peer_beat(&w->peer);
    }
    w->peer.log_full = false;
    finish(w, JOB_SUCCESS);
    free(outcome);
}

static void a_half_written_folder_is_cleared_away(void **state)
{
    struct world *w = *state;
    char *dir = job_file(w, job, "");
    char *slot = job_file(w, job, "slot");
    worker_kill(w);
    assert_int_equal(os_mkdir_p(dir, 0700), 0);
    assert_int_equal(os_write_file(slot, "0\n", 2, 0600), 0);
    w->worker = worker_start(w);
    assert_int_equal(peer_welcome(&w->peer)->n_jobs, 0);
    assert_false(job_is_there(w, job));
    free(dir);
    free(slot);
}

/* As a worker leaves it that was killed between AssignAck and the start. */
static void restart_with_accepted(struct world *w, const char *script)
{
    char *dir = job_file(w, job, "");
    Pb__JobSpec spec = PB__JOB_SPEC__INIT;
    ProtobufCBinaryData line = pb_bytes_ref(str_from(script));
    worker_kill(w);
    dir[strlen(dir) - 1] = '\0';
    spec.project = spec.name = (char *)(uintptr_t) "demo";
    spec.script = &line;
    spec.n_script = 1;
    spec.timeout_ms = 10000;
    assert_int_equal(jobdir_create(dir, 0, &spec), 0);
    free(dir);
    w->worker = worker_start(w);
    take_over(w, PB__HELD_STATE__HELD_ACCEPTED);
    peer_expect(&w->peer, PB__ENVELOPE__BODY_ASSIGN_ACK);
}

static void an_accepted_job_starts_once_the_broker_confirms_it(void **state)
{
    struct world *w = *state;
    restart_with_accepted(w, "echo started late");
    peer_expect(&w->peer, PB__ENVELOPE__BODY_JOB_STARTED);
    finish(w, JOB_SUCCESS);
    assert_log_has(w, "started late");
}

static void an_accepted_job_that_is_fenced_never_starts(void **state)
{
    struct world *w = *state;
    w->peer.ack_held = true;
    restart_with_accepted(w, "echo never");
    peer_cancel(&w->peer, job, PB__CANCEL_KIND__CANCEL_FENCED);
    until_no_folder(w, job);
    assert_int_equal(peer_beat(&w->peer)->heartbeat->n_jobs, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_WORLD(a_job_is_taken_run_logged_and_forgotten),
        TEST_WORLD(all_jobs_are_accepted_before_one_is_started),
        TEST_WORLD(a_failing_script_is_a_failed_job),
        TEST_WORLD(output_travels_at_once),
        TEST_WORLD(megabytes_of_log_arrive_whole),
        TEST_WORLD(a_cut_connection_costs_no_byte_of_the_log),
        TEST_WORLD(a_killed_worker_finds_its_job_again),
        TEST_WORLD(a_job_that_ended_without_a_worker_is_reported),
        TEST_WORLD(an_end_that_nobody_acknowledged_is_told_again),
        TEST_WORLD(a_killed_shim_is_the_loss_of_a_holder),
        TEST_WORLD(a_shim_killed_without_a_worker_is_found_dead),
        TEST_WORLD(a_fenced_job_is_killed_without_a_word),
        TEST_WORLD(a_canceled_job_ends_within_its_grace),
        TEST_WORLD(a_job_canceled_by_force_ends_at_once),
        TEST_WORLD(a_cancel_for_an_unknown_job_is_answered_with_the_list),
        TEST_WORLD(an_assignment_that_comes_twice_is_acknowledged_twice),
        TEST_WORLD(a_newer_epoch_ends_the_older_copy),
        TEST_WORLD(a_job_that_needs_an_image_is_refused_with_a_reason),
        TEST_WORLD(a_finish_ack_nobody_waited_for_ends_the_job),
        TEST_WORLD(a_full_disk_of_the_broker_delays_the_end),
        TEST_WORLD(a_half_written_folder_is_cleared_away),
        TEST_WORLD(an_accepted_job_starts_once_the_broker_confirms_it),
        TEST_WORLD(an_accepted_job_that_is_fenced_never_starts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
