#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "broker/core/query.h"
#include "common/log.h"
#include "tests/unit/journal/fake_disk.h"
#include "tests/unit/turn/fixture.h"

/* A turn whose journal is on a disk that dies: after the next start the store is what it was after
 * some number of the same commands, and of those that were acknowledged none is missing. */

#define STEPS     20u
#define INDEX_MAX 64u

struct run {
    struct fixture f;
    uint64_t jobs[STEPS]; /* of the first run: what the others cancel */
    uint8_t hashes[INDEX_MAX][32];
    uint64_t acked; /* index of the last command that was answered */
};

struct answer {
    bool done;
    int r;
    uint64_t pipeline_id;
};

static void take_answer(void *ctx, int r, const struct reply *reply)
{
    *(struct answer *)ctx = (struct answer){true, r, reply->pipeline_id};
}

static struct post *cancel_post(uint64_t job_id)
{
    struct post *p = post_new("test");
    Pb__JobCancel *cancel = arena_alloc(post_arena(p), sizeof(*cancel));

    pb__job_cancel__init(cancel);
    cancel->job_id = job_id;
    post_command(p)->body_case = PB__COMMAND__BODY_JOB_CANCEL;
    post_command(p)->job_cancel = cancel;
    return p;
}

static struct post *delayed_post(void)
{
    struct post *p = fixture_pipeline_post("group/delayed", 1);
    Pb__PlanJob *job = post_command(p)->pipeline_create->plan->jobs[0];

    job->when = WHEN_DELAYED;
    job->start_in_ms = 20;
    return p;
}

static struct post *nth_post(const struct run *run, unsigned n)
{
    if (n % 3 == 1) {
        return cancel_post(run->jobs[n - 1]);
    }
    return n % 3 == 0 ? fixture_pipeline_post("group/test", 1 + n % 4) : delayed_post();
}

/* Of the store as it is, by the number of commands in it. */
static uint64_t applied_index(struct run *run)
{
    struct tx *tx;

    fixture_read(&run->f, &tx);
    uint64_t index = meta_get(tx)->applied_index;
    tx_abort(tx);
    return index;
}

static void note_hash(struct run *run, unsigned n, const struct answer *a)
{
    struct tx *tx;
    const uint64_t index = applied_index(run);

    assert_true(index < INDEX_MAX);
    assert_int_equal(store_hash(run->f.store, run->hashes[index]), 0);
    if (a->pipeline_id != 0) {
        fixture_read(&run->f, &tx);
        run->jobs[n] = pipeline_get(tx, a->pipeline_id)->first_job_id;
        tx_abort(tx);
    }
}

/* A command that came in the step before: its timers have had time to fire. */
static int step(struct run *run, unsigned n, bool note)
{
    struct answer a = {.done = false};
    const uint64_t elapsed_ms = n % 7 == 6 ? 600 : 9;

    run->f.real_ms += elapsed_ms;
    run->f.mono_ms += elapsed_ms;
    int r = turn_step(run->f.turn); /* timers, and what the disk is owed */
    if (note && r == 0) {
        note_hash(run, n, &a);
    }
    if (r == 0) {
        assert_int_equal(turn_submit(run->f.turn, nth_post(run, n), take_answer, &a), 0);
        r = turn_step(run->f.turn);
    }
    if (r == 0) {
        assert_true(a.done);
        assert_int_equal(a.r, 0);
        run->acked++;
    }
    if (note && r == 0) {
        note_hash(run, n, &a);
    }
    return r;
}

static void begin(struct run *run, uint32_t relaxed_ms)
{
    const struct fixture_options o = {.stepped = true, .relaxed_ms = relaxed_ms};

    fake_disk_reset();
    fixture_up(&run->f, &o);
    run->acked = 0;
}

/* What every command leaves behind when nothing goes wrong. Returns the calls that it took. */
static uint64_t first_run(struct run *run, uint32_t relaxed_ms)
{
    begin(run, relaxed_ms);
    const uint64_t before = fake_disk_calls();
    note_hash(run, 0, &(struct answer){.done = false});
    for (unsigned n = 0; n < STEPS; n++) {
        assert_int_equal(step(run, n, true), 0);
    }
    const uint64_t calls = fake_disk_calls() - before;
    fixture_down(&run->f);
    return calls;
}

/* Ends with the n-th call. Every command that was acknowledged is one of those that the test gave.
 */
static void crash_run(struct run *run, uint64_t call, uint64_t seed, uint32_t relaxed_ms)
{
    uint8_t hash[32];
    int r = 0;

    begin(run, relaxed_ms);
    const uint64_t index_before = applied_index(run);
    fake_disk_fail(fake_disk_calls() + call, -E_IO, true);
    for (unsigned n = 0; n < STEPS && r == 0; n++) {
        r = step(run, n, false);
    }
    fixture_end(&run->f);
    fake_disk_crash(seed);
    fixture_start(&run->f);
    const uint64_t index = applied_index(run);
    assert_true(index >= index_before + run->acked);
    assert_true(index < INDEX_MAX);
    assert_int_equal(store_hash(run->f.store, hash), 0);
    assert_memory_equal(hash, run->hashes[index], sizeof(hash));
    fixture_audit(&run->f);
    fixture_down(&run->f);
}

static void a_machine_that_dies_at_any_call_leaves_a_prefix_with_all_that_was_heard(void **state)
{
    static struct run run;
    const uint64_t calls = first_run(&run, 0);

    assert_true(calls > STEPS);
    for (uint64_t call = 1; call <= calls; call++) {
        for (uint64_t seed = 0; seed < 4; seed++) {
            crash_run(&run, call, 4 * call + seed, 0);
        }
    }
}

/* What is written and not flushed outlives the process, if not the machine. */
static void a_relaxed_turn_that_is_killed_loses_nothing(void **state)
{
    static struct run run;
    const uint64_t kept = 1; /* a seed by which the disk keeps all */

    first_run(&run, 100);
    for (uint64_t call = 1; call <= 8; call++) {
        crash_run(&run, call, kept, 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_machine_that_dies_at_any_call_leaves_a_prefix_with_all_that_was_heard),
        cmocka_unit_test(a_relaxed_turn_that_is_killed_loses_nothing),
    };
    log_init("test", LOG_ERROR);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    fake_disk_reset();
    return failed;
}
