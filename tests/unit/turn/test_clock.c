#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/core/query.h"
#include "common/os.h"
#include "tests/unit/turn/fixture.h"

/* A clock that somebody sets, and a disk that breaks. */

static const struct fixture_options quiet = {.listen = false};
static const struct fixture_options no_journal = {.no_journal = true};
static const struct fixture_options stepped = {.stepped = true};

static atomic_llong clock_offset_ms;
static atomic_int commit_error;

uint64_t __real_os_realtime_ms(void);
uint64_t __wrap_os_realtime_ms(void);
int __real_tx_save(struct tx *tx);
int __wrap_tx_save(struct tx *tx);

uint64_t __wrap_os_realtime_ms(void)
{
    return __real_os_realtime_ms() + (uint64_t)atomic_load(&clock_offset_ms);
}

int __wrap_tx_save(struct tx *tx)
{
    int r = atomic_load(&commit_error);

    if (r == 0) {
        return __real_tx_save(tx);
    }
    tx_fail(tx, r);
    return r;
}

static uint64_t submit_delayed(struct fixture *f, uint64_t start_in_ms)
{
    struct post *p = fixture_pipeline_post("group/delayed", 1);
    Pb__PlanJob *job = post_command(p)->pipeline_create->plan->jobs[0];

    job->when = WHEN_DELAYED;
    job->start_in_ms = start_in_ms;
    return fixture_submit_post(f, p);
}

static void check_event_times(struct fixture *f)
{
    const Pb__EventRecord *events[100];
    uint64_t last_ms = 0;
    struct tx *tx;

    fixture_read(f, &tx);
    size_t count = events_after(tx, 0, 0, ARRAY_LEN(events), events);
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++) {
        assert_true(events[i]->time_ms >= last_ms);
        last_ms = events[i]->time_ms;
    }
    tx_abort(tx);
}

static void a_clock_set_back_neither_stops_time_nor_turns_it(void **state)
{
    struct fixture f;

    fixture_up(&f, &quiet);
    fixture_submit(&f, 1);
    atomic_store(&clock_offset_ms, -3600ll * 1000);
    uint64_t job_id = submit_delayed(&f, 40);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_SCHEDULED);
    assert_true(fixture_wait_job(&f, job_id, JOB_PENDING));
    check_event_times(&f);
    fixture_restart(&f);
    fixture_submit(&f, 1);
    check_event_times(&f);
    atomic_store(&clock_offset_ms, 0);
    fixture_audit(&f);
    fixture_down(&f);
}

static void a_clock_set_forward_and_back_does_not_freeze_timers(void **state)
{
    struct fixture f;

    fixture_up(&f, &quiet);
    atomic_store(&clock_offset_ms, 365ll * 24 * 3600 * 1000);
    fixture_submit(&f, 1);
    atomic_store(&clock_offset_ms, 0);
    uint64_t job_id = submit_delayed(&f, 40);
    assert_true(fixture_wait_job(&f, job_id, JOB_PENDING));
    check_event_times(&f);
    fixture_audit(&f);
    fixture_down(&f);
}

/* In a process of its own: the turn must end it. */
static void call_command(struct fixture *f, struct post *p, struct reply *ret)
{
    assert_int_equal(fixture_call(f, p, ret), 0);
}

/* A job in the hands of a worker that is never heard of. */
static uint64_t assign_one(struct fixture *f)
{
    static uint8_t uid[16] = {1};
    static char *executors[] = {(char *)"shell"};
    uint64_t job_id = fixture_submit(f, 1);
    struct post *hello = post_new("w"), *assign = post_new("scheduler");
    Pb__WorkerHello *h = arena_alloc(post_arena(hello), sizeof(*h));
    Pb__Assign *a = arena_alloc(post_arena(assign), sizeof(*a));
    struct reply reply;

    pb__worker_hello__init(h);
    h->uid = (ProtobufCBinaryData){sizeof(uid), uid};
    h->name = (char *)"w";
    h->executors = executors;
    h->n_executors = 1;
    h->slots = 1;
    h->run_untagged = true;
    post_command(hello)->body_case = PB__COMMAND__BODY_WORKER_HELLO;
    post_command(hello)->worker_hello = h;
    call_command(f, hello, &reply);
    pb__assign__init(a);
    a->worker_id = reply.worker_id;
    a->job_ids = arena_array(post_arena(assign), 1, sizeof(*a->job_ids));
    a->job_ids[0] = job_id;
    a->n_job_ids = 1;
    post_command(assign)->body_case = PB__COMMAND__BODY_ASSIGN;
    post_command(assign)->assign = a;
    call_command(f, assign, &reply);
    return job_id;
}

static void step_by(struct fixture *f, uint64_t real_ms, uint64_t mono_ms)
{
    f->real_ms += real_ms;
    f->mono_ms += mono_ms;
    assert_int_equal(turn_step(f->turn), 0);
}

static void a_clock_set_forward_takes_no_time_from_jobs_at_work(void **state)
{
    struct fixture f;

    fixture_up(&f, &stepped);
    uint64_t job_id = assign_one(&f);
    step_by(&f, 48u * 3600 * 1000, 10);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_ASSIGNED);
    step_by(&f, 9900, 9900);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_ASSIGNED);
    step_by(&f, 200, 200); /* nobody has acknowledged it for ten seconds */
    assert_int_equal(fixture_job_state(&f, job_id), JOB_PENDING);
    fixture_audit(&f);
    fixture_down(&f);
}

static void a_disk_that_fails_ends_the_process_without_an_answer(void **state)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct fixture f;
        struct reply reply;
        fixture_up(&f, &no_journal);
        os_remove_tree(f.dir); /* nobody comes back for it; the store has its files open */
        atomic_store(&commit_error, -E_IO);
        turn_call(f.turn, fixture_pipeline_post("group/lost", 1), &reply);
        _exit(0); /* an answer */
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), err_exit_code(-E_IO));
}

static void ask_for_itself(void *ctx, int r, const struct reply *reply)
{
    turn_fresh(ctx);
    _exit(0);
}

static void a_turn_that_would_wait_for_itself_is_a_mistake(void **state)
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct fixture f;
        fixture_up(&f, &no_journal);
        os_remove_tree(f.dir);
        turn_submit(f.turn, fixture_pipeline_post("group/test", 1), ask_for_itself, f.turn);
        turn_stop(f.turn);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void a_commit_that_found_no_space_is_answered_and_tried_again_later(void **state)
{
    struct fixture f;
    struct reply reply;

    fixture_up(&f, &no_journal);
    atomic_store(&commit_error, -E_NO_SPACE);
    struct post *p = fixture_pipeline_post("group/test", 1);
    assert_int_equal(turn_call(f.turn, p, &reply), -E_NO_SPACE);
    atomic_store(&commit_error, 0);
    fixture_submit(&f, 1);
    fixture_audit(&f);
    fixture_down(&f);
}

static void step_after(struct fixture *f, uint64_t ms)
{
    f->real_ms += ms;
    f->mono_ms += ms;
    assert_int_equal(turn_step(f->turn), 0);
}

static void what_the_journal_has_outlives_a_store_that_cannot_commit(void **state)
{
    struct fixture f;
    struct reply reply;

    fixture_up(&f, &stepped);
    uint64_t first = fixture_submit(&f, 1);
    atomic_store(&commit_error, -E_NO_SPACE);
    struct post *p = fixture_pipeline_post("group/test", 1);
    assert_int_equal(fixture_call(&f, p, &reply), 0);
    step_after(&f, 10); /* the commit is due and fails */
    assert_int_equal(turn_fresh(f.turn), -E_NO_SPACE);
    p = fixture_pipeline_post("group/test", 1);
    assert_int_equal(fixture_call(&f, p, &reply), -E_FULL);
    assert_int_equal(fixture_cancel_job(&f, first), 0); /* no new work */
    step_after(&f, 1000);                               /* tried again, and fails again */
    atomic_store(&commit_error, 0);
    step_after(&f, 1000);
    assert_int_equal(turn_fresh(f.turn), 0);
    assert_int_equal(fixture_job_state(&f, first), JOB_CANCELED);
    fixture_submit(&f, 1);
    fixture_audit(&f);
    fixture_down(&f);
}

static void a_kill_while_the_store_cannot_commit_loses_nothing(void **state)
{
    struct fixture f;
    struct reply reply;
    struct tx *tx;

    fixture_up(&f, &stepped);
    uint64_t first = fixture_submit(&f, 1);
    atomic_store(&commit_error, -E_NO_SPACE);
    struct post *p = fixture_pipeline_post("group/test", 1);
    assert_int_equal(fixture_call(&f, p, &reply), 0);
    step_after(&f, 10);
    assert_int_equal(fixture_cancel_job(&f, first), 0);
    atomic_store(&commit_error, 0);
    fixture_kill(&f);
    assert_int_equal(fixture_job_state(&f, first), JOB_CANCELED);
    fixture_read(&f, &tx);
    assert_non_null(pipeline_get(tx, reply.pipeline_id));
    tx_abort(tx);
    fixture_audit(&f);
    fixture_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_disk_that_fails_ends_the_process_without_an_answer),
        cmocka_unit_test(a_turn_that_would_wait_for_itself_is_a_mistake),
        cmocka_unit_test(a_commit_that_found_no_space_is_answered_and_tried_again_later),
        cmocka_unit_test(what_the_journal_has_outlives_a_store_that_cannot_commit),
        cmocka_unit_test(a_kill_while_the_store_cannot_commit_loses_nothing),
        cmocka_unit_test(a_clock_set_back_neither_stops_time_nor_turns_it),
        cmocka_unit_test(a_clock_set_forward_and_back_does_not_freeze_timers),
        cmocka_unit_test(a_clock_set_forward_takes_no_time_from_jobs_at_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
