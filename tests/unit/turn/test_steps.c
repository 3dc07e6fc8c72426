#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "broker/core/query.h"
#include "common/limits.h"
#include "tests/unit/turn/fixture.h"

/* A turn without a thread: whoever steps it is its clock and its other threads. */

static const struct fixture_options stepped = {.stepped = true};

static void elapse(struct fixture *f, uint64_t ms)
{
    f->real_ms += ms;
    f->mono_ms += ms;
}

static uint64_t submit_delayed(struct fixture *f, uint64_t start_in_ms)
{
    struct post *p = fixture_pipeline_post("group/delayed", 1);
    Pb__PlanJob *job = post_command(p)->pipeline_create->plan->jobs[0];

    job->when = WHEN_DELAYED;
    job->start_in_ms = start_in_ms;
    return fixture_submit_post(f, p);
}

static void a_timer_fires_at_the_step_in_which_it_is_due(void **state)
{
    struct fixture f;

    fixture_up(&f, &stepped);
    uint64_t job_id = submit_delayed(&f, 700);
    assert_int_equal(turn_next_step_ms(f.turn), f.mono_ms + 700);
    elapse(&f, 699);
    assert_int_equal(turn_step(f.turn), 0);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_SCHEDULED);
    elapse(&f, 1);
    assert_int_equal(turn_step(f.turn), 0);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_PENDING);
    fixture_audit(&f);
    fixture_down(&f);
}

struct answer {
    unsigned count;
    int r;
};

static void take_answer(void *ctx, int r, const struct reply *reply)
{
    struct answer *a = ctx;

    a->count++;
    a->r = r;
}

static void nothing_happens_between_two_steps(void **state)
{
    struct fixture f;
    struct answer a = {.count = 0};

    fixture_up(&f, &stepped);
    struct post *p = fixture_pipeline_post("group/test", 1);
    assert_int_equal(turn_submit(f.turn, p, take_answer, &a), 0);
    assert_int_equal(a.count, 0);
    assert_int_equal(turn_step(f.turn), 0);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.r, 0);
    fixture_down(&f);
}

static void a_kill_between_two_steps_loses_nothing_acknowledged(void **state)
{
    struct fixture f;
    struct answer a = {.count = 0};

    fixture_up(&f, &stepped);
    uint64_t job_id = fixture_submit(&f, 2);
    struct post *p = fixture_pipeline_post("group/unheard", 1);
    assert_int_equal(turn_submit(f.turn, p, take_answer, &a), 0);
    fixture_kill(&f);
    assert_int_equal(a.count, 1);
    assert_int_equal(a.r, -E_SHUTDOWN);
    assert_int_equal(fixture_job_state(&f, job_id + 1), JOB_PENDING);
    fixture_audit(&f);
    fixture_down(&f);
}

static bool pipeline_is_there(struct fixture *f, uint64_t id)
{
    struct tx *tx;

    fixture_read(f, &tx);
    const bool found = pipeline_get(tx, id) != NULL;
    tx_abort(tx);
    return found;
}

static uint64_t submit_and_cancel(struct fixture *f)
{
    struct reply reply;
    struct post *p = post_new("ann");
    Pb__PipelineCancel *cancel = arena_alloc(post_arena(p), sizeof(*cancel));

    assert_int_equal(fixture_call(f, fixture_pipeline_post("group/old", 3), &reply), 0);
    const uint64_t id = reply.pipeline_id;
    pb__pipeline_cancel__init(cancel);
    cancel->pipeline_id = id;
    post_command(p)->body_case = PB__COMMAND__BODY_PIPELINE_CANCEL;
    post_command(p)->pipeline_cancel = cancel;
    assert_int_equal(fixture_call(f, p, &reply), 0);
    return id;
}

static void what_is_old_goes_when_nobody_waits(void **state)
{
    const struct fixture_options keeping = {.stepped = true, .keep_pipelines_ms = 5000};
    struct turn_stats stats;
    struct fixture f;

    fixture_up(&f, &keeping);
    uint64_t first = submit_and_cancel(&f);
    uint64_t second = submit_and_cancel(&f);
    elapse(&f, 4999);
    assert_int_equal(turn_step(f.turn), 0);
    assert_true(pipeline_is_there(&f, first));
    assert_int_equal(turn_next_step_ms(f.turn), f.mono_ms + 1);
    elapse(&f, 100);
    fixture_submit(&f, 1); /* others have the right of way */
    assert_true(pipeline_is_there(&f, first));
    assert_int_equal(turn_next_step_ms(f.turn), f.mono_ms);
    assert_int_equal(turn_step(f.turn), 0);
    assert_false(pipeline_is_there(&f, first));
    assert_false(pipeline_is_there(&f, second));
    fixture_audit(&f);
    turn_get_stats(f.turn, &stats);
    assert_int_equal(stats.expired, 2);
    fixture_down(&f);
}

static void what_is_old_goes_though_somebody_always_waits(void **state)
{
    const struct fixture_options keeping = {.stepped = true, .keep_pipelines_ms = 5000};
    struct fixture f;

    fixture_up(&f, &keeping);
    uint64_t id = submit_and_cancel(&f);
    elapse(&f, 4900);
    fixture_submit(&f, 1);
    for (unsigned i = 0; i < 4; i++) {
        elapse(&f, 300);
        fixture_submit(&f, 1);
        assert_true(pipeline_is_there(&f, id));
    }
    elapse(&f, 300);
    fixture_submit(&f, 1);
    assert_false(pipeline_is_there(&f, id));
    fixture_down(&f);
}

static void a_shorter_time_to_keep_counts_for_what_is_there(void **state)
{
    const struct fixture_options keeping = {.stepped = true, .keep_pipelines_ms = 3600000};
    struct fixture f;

    fixture_up(&f, &keeping);
    uint64_t id = submit_and_cancel(&f);
    elapse(&f, 10000);
    assert_int_equal(turn_step(f.turn), 0);
    assert_true(pipeline_is_there(&f, id));
    turn_keep_pipelines(f.turn, 5000);
    assert_int_equal(turn_step(f.turn), 0);
    assert_false(pipeline_is_there(&f, id));
    fixture_down(&f);
}

static void hear(void *ctx, enum bus_topic topic, uint64_t key)
{
    assert_int_equal(topic, BUS_EVENTS);
    (*(unsigned *)ctx)++;
}

static void followers_are_woken_by_the_commit_and_not_before(void **state)
{
    struct fixture f;
    unsigned woken = 0;

    fixture_up(&f, &stepped);
    assert_int_equal(turn_fresh(f.turn), 0);
    assert_int_equal(turn_step(f.turn), 0);
    uint64_t handle = bus_subscribe(f.bus, hear, &woken);
    struct reply reply;
    assert_int_equal(fixture_call(&f, fixture_pipeline_post("group/test", 1), &reply), 0);
    elapse(&f, 9);
    assert_int_equal(turn_step(f.turn), 0);
    assert_int_equal(woken, 0);
    elapse(&f, 1);
    assert_int_equal(turn_step(f.turn), 0);
    assert_int_equal(woken, 1);
    elapse(&f, 1000);
    assert_int_equal(turn_step(f.turn), 0);
    assert_int_equal(woken, 1);
    bus_unsubscribe(f.bus, handle);
    fixture_down(&f);
}

static void a_reader_that_wants_all_makes_one_commit_for_all_turns_before(void **state)
{
    struct turn_stats before;
    struct turn_stats after;
    struct fixture f;

    fixture_up(&f, &stepped);
    assert_int_equal(turn_fresh(f.turn), 0);
    turn_get_stats(f.turn, &before);
    for (unsigned i = 0; i < 5; i++) {
        struct reply reply;
        assert_int_equal(fixture_call(&f, fixture_pipeline_post("group/test", 1), &reply), 0);
    }
    assert_int_equal(turn_fresh(f.turn), 0);
    assert_int_equal(turn_fresh(f.turn), 0);
    turn_get_stats(f.turn, &after);
    assert_int_equal(after.turns - before.turns, 5);
    assert_int_equal(after.journal.flushes - before.journal.flushes, 5);
    assert_int_equal(after.commits - before.commits, 1);
    fixture_down(&f);
}

static void steady_work_is_committed_twice_a_second(void **state)
{
    struct turn_stats before;
    struct turn_stats after;
    struct fixture f;

    fixture_up(&f, &stepped);
    assert_int_equal(turn_fresh(f.turn), 0);
    turn_get_stats(f.turn, &before);
    for (unsigned i = 0; i < 100; i++) {
        struct reply reply;
        elapse(&f, 9);
        assert_int_equal(fixture_call(&f, fixture_pipeline_post("group/test", 1), &reply), 0);
    }
    turn_get_stats(f.turn, &after);
    assert_in_range(after.commits - before.commits, 1, 4); /* 900 ms, and segments that were full */
    fixture_down(&f);
}

/* Whoever knew of a job that is lost now must not take another for it. */
static void a_start_after_relaxed_durability_gives_no_id_again(void **state)
{
    const struct fixture_options relaxed = {.stepped = true, .relaxed_ms = 1000};
    struct fixture f;

    fixture_up(&f, &relaxed);
    const uint64_t first = fixture_submit(&f, 1);
    assert_true(first < LIMIT_IDS_SKIPPED);
    fixture_kill(&f);
    const uint64_t second = fixture_submit(&f, 1);
    assert_true(second > first + LIMIT_IDS_SKIPPED);
    fixture_end(&f);
    f.options.relaxed_ms = 0; /* what may be missing was acknowledged before */
    fixture_start(&f);
    const uint64_t third = fixture_submit(&f, 1);
    assert_true(third > second + LIMIT_IDS_SKIPPED);
    fixture_kill(&f);
    assert_true(fixture_submit(&f, 1) < third + 100);
    fixture_audit(&f);
    fixture_down(&f);
}

/* What cannot be read any more. */
static void damage_project_of(struct fixture *f, uint64_t job_id)
{
    struct tx *tx;

    assert_int_equal(turn_fresh(f->turn), 0);
    assert_int_equal(turn_step(f->turn), 0);
    assert_int_equal(tx_begin(f->store, true, &tx), 0);
    const struct key k = key_u64(job_get(tx, job_id)->project_id);
    tx_put(tx, T_PROJECT, &k, STR("\xff"));
    assert_int_equal(tx_commit(tx), 0);
}

/* The turn that says what may be missing is undone for somebody else's sake; the others in it get
 * one each, and they take ids. */
static void a_start_whose_first_turn_is_undone_gives_no_id_again(void **state)
{
    const struct fixture_options relaxed = {.stepped = true, .relaxed_ms = 1000};
    struct answer bad = {.count = 0};
    struct reply reply;
    struct fixture f;

    fixture_up(&f, &relaxed);
    const uint64_t first = fixture_submit(&f, 1);
    assert_int_equal(fixture_cancel_job(&f, first), 0);
    damage_project_of(&f, first);
    fixture_kill(&f);
    struct post *p = fixture_pipeline_post("group/test", 1);
    assert_int_equal(turn_submit(f.turn, p, take_answer, &bad), 0);
    assert_int_equal(fixture_call(&f, fixture_pipeline_post("group/other", 1), &reply), 0);
    assert_int_equal(bad.count, 1);
    assert_int_equal(bad.r, -E_CORRUPT);
    assert_true(reply.pipeline_id > first + LIMIT_IDS_SKIPPED);
    assert_true(fixture_submit_post(&f, fixture_pipeline_post("group/other", 1)) <
                reply.pipeline_id + 100); /* they are skipped once */
    fixture_down(&f);
}

static void take_journal_away(struct fixture *f)
{
    char aside[96];

    snprintf(aside, sizeof(aside), "%s.old", f->journal_dir);
    assert_int_equal(rename(f->journal_dir, aside), 0);
}

static void a_store_without_its_journal_gives_no_id_again(void **state)
{
    struct fixture f;

    fixture_up(&f, &stepped);
    const uint64_t first = fixture_submit(&f, 1);
    fixture_restart(&f);
    const uint64_t second = fixture_submit(&f, 1);
    assert_true(second < first + 100);
    turn_stop(f.turn);
    fixture_end(&f);
    take_journal_away(&f);
    fixture_start(&f);
    assert_true(fixture_submit(&f, 1) > second + LIMIT_IDS_SKIPPED);
    fixture_audit(&f);
    fixture_down(&f);
}

/* The start that found no journal came to nothing: the next one must not take it for that of the
 * store. */
static void a_journal_is_begun_once_the_store_knows_that_it_is_new(void **state)
{
    struct turn_stats stats;
    struct fixture f;

    fixture_up(&f, &stepped);
    const uint64_t first = fixture_submit(&f, 1);
    turn_stop(f.turn);
    fixture_end(&f);
    take_journal_away(&f);
    fixture_start(&f);
    fixture_kill(&f);
    const uint64_t second = fixture_submit(&f, 1);
    assert_true(second > first + LIMIT_IDS_SKIPPED);
    assert_true(fixture_submit(&f, 1) < second + 100);
    turn_get_stats(f.turn, &stats);
    assert_int_equal(stats.journal.records, 1);
    fixture_kill(&f);
    assert_true(fixture_submit(&f, 1) < second + 100);
    fixture_audit(&f);
    fixture_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_timer_fires_at_the_step_in_which_it_is_due),
        cmocka_unit_test(nothing_happens_between_two_steps),
        cmocka_unit_test(a_kill_between_two_steps_loses_nothing_acknowledged),
        cmocka_unit_test(what_is_old_goes_when_nobody_waits),
        cmocka_unit_test(what_is_old_goes_though_somebody_always_waits),
        cmocka_unit_test(a_shorter_time_to_keep_counts_for_what_is_there),
        cmocka_unit_test(followers_are_woken_by_the_commit_and_not_before),
        cmocka_unit_test(a_reader_that_wants_all_makes_one_commit_for_all_turns_before),
        cmocka_unit_test(steady_work_is_committed_twice_a_second),
        cmocka_unit_test(a_start_after_relaxed_durability_gives_no_id_again),
        cmocka_unit_test(a_start_whose_first_turn_is_undone_gives_no_id_again),
        cmocka_unit_test(a_store_without_its_journal_gives_no_id_again),
        cmocka_unit_test(a_journal_is_begun_once_the_store_knows_that_it_is_new),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
