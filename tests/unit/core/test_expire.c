/* What has outlived its time goes: all of it, in pieces of any size, and out of sight at once. What
 * the live part of the store costs does not depend on how much history lies beside it. */
#include "common/base.h"

#include "tests/kit/world.h"

#include "common/limits.h"
#include "common/os.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define DAY_MS (24ull * 3600 * 1000)

static const char *const plan_text = "build: stage=build artifacts=yes\n"
                                     "deploy: stage=deploy env=staging\n"
                                     "optional: stage=deploy when=manual allow_failure=yes\n";

static void run_job(struct world *w, uint64_t job_id, uint64_t worker_id)
{
    static uint8_t digest[32] = {1};
    Pb__Outcome o = PB__OUTCOME__INIT;
    Pb__ArtifactOut artifact = PB__ARTIFACT_OUT__INIT;
    Pb__ArtifactOut *artifacts[] = {&artifact};
    Pb__Variable variable = PB__VARIABLE__INIT;
    Pb__Variable *variables[] = {&variable};

    o.result = JOB_SUCCESS;
    artifact.digest = (ProtobufCBinaryData){sizeof(digest), digest};
    artifact.expire_in_ms = 400 * DAY_MS;
    o.artifacts = artifacts;
    o.n_artifacts = 1;
    variable.name = (char *)"A";
    o.dotenv = variables;
    o.n_dotenv = 1;
    assert_int_equal(world_assign(w, job_id, worker_id), 0);
    assert_int_equal(world_acked(w, job_id), 0);
    assert_int_equal(world_started(w, job_id), 0);
    assert_int_equal(world_finished(w, job_id, &o), 0);
}

static uint64_t run_pipeline(struct world *w, uint64_t worker_id)
{
    uint64_t id;

    assert_int_equal(world_submit(w, plan_from_text(tx_arena(w->tx), plan_text), "main", "1"), 0);
    id = w->reply.pipeline_id;
    run_job(w, world_job_id(w, id, "build"), worker_id);
    run_job(w, world_job_id(w, id, "deploy"), worker_id);
    assert_string_equal(world_status(w, id), "success");
    return id;
}

/* Rows of the tables whose rows come and go with pipelines. */
static uint64_t rows_of_pipelines(struct world *w)
{
    static const enum table tables[] = {
        T_PIPELINE,
        T_PIPELINE_VARS,
        T_PROJECT_PIPELINE,
        T_PIPELINE_ENDED,
        T_PIPELINE_GONE,
        T_STAGE,
        T_PLAN,
        T_JOB,
        T_JOB_VARS,
        T_ATTEMPT,
        T_ARTIFACT,
        T_TIMER,
        T_JOB_DOTENV,
        T_JOB_DEPLOYMENT,
        T_BLOB_REF,
        T_FAMILY,
        T_PIPELINE_EVENT,
    };
    uint64_t rows = 0;

    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        rows += tx_count(w->tx, tables[i]);
    }
    return rows;
}

static void start(struct world *w, uint64_t *ret_worker_id)
{
    world_init(w);
    w->now_ms = 100 * DAY_MS;
    *ret_worker_id = world_worker(w, "w1", "", "shell", 8, true);
}

static uint64_t expire_all(struct world *w, uint32_t rows)
{
    uint64_t commands = 0;

    while (core_next_expiry_ms(w->tx, DAY_MS) <= w->now_ms) {
        assert_int_equal(world_expire(w, rows, w->now_ms - DAY_MS), 0);
        assert_true(++commands < 1000);
    }
    return commands;
}

static void a_pipeline_goes_with_all_that_hangs_on_it(void **state)
{
    for (uint32_t rows = 1; rows <= LIMIT_EXPIRE_BATCH; rows *= 3) {
        struct world w;
        uint64_t worker_id, first, second, commands;

        start(&w, &worker_id);
        first = run_pipeline(&w, worker_id);
        second = run_pipeline(&w, worker_id); /* the environment needs it, and not the first */
        world_elapse(&w, DAY_MS);
        commands = expire_all(&w, rows);
        assert_null(pipeline_get(w.tx, first));
        assert_non_null(pipeline_get(w.tx, second));
        assert_int_equal(w.expired, 1);
        assert_true(rows > 1 || commands > 30);
        assert_true(rows < 729 || commands == 1);

        assert_int_equal(
            world_stop_environment(&w, world_job(&w, second, "deploy")->environment_id, true), 0);
        world_elapse(&w, 2 * DAY_MS);
        expire_all(&w, rows);
        assert_int_equal(rows_of_pipelines(&w), 0);
        assert_int_equal(tx_count(w.tx, T_DEPLOYMENT), 1); /* where the environment had come to */
        world_release(&w);
    }
}

static void what_is_half_deleted_is_seen_by_nobody(void **state)
{
    struct world w;
    uint64_t worker_id, id, job_id;

    start(&w, &worker_id);
    id = run_pipeline(&w, worker_id);
    job_id = world_job_id(&w, id, "build");
    run_pipeline(&w, worker_id);
    world_elapse(&w, 2 * DAY_MS);
    assert_int_equal(world_expire(&w, 1, w.now_ms - DAY_MS), 0);
    assert_int_equal(tx_count(w.tx, T_PIPELINE_GONE), 1);
    assert_int_equal(core_next_expiry_ms(w.tx, 0), 0);
    assert_null(pipeline_get(w.tx, id));
    assert_null(job_get(w.tx, job_id));
    assert_int_equal(world_retry_job(&w, job_id), -E_NOT_FOUND);
    assert_int_equal(world_cancel(&w, id), -E_NOT_FOUND);
    world_elapse(&w, 400 * DAY_MS); /* the timers of its artifacts fire meanwhile */
    world_reopen(&w);
    expire_all(&w, 1);
    assert_int_equal(tx_count(w.tx, T_PIPELINE_GONE), 0);
    world_release(&w);
}

static void nothing_goes_that_is_kept_or_has_not_ended(void **state)
{
    struct world w;
    uint64_t worker_id;

    start(&w, &worker_id);
    run_pipeline(&w, worker_id);
    assert_int_equal(core_next_expiry_ms(w.tx, 0), UINT64_MAX);
    assert_int_equal(core_next_expiry_ms(w.tx, 3 * DAY_MS), w.now_ms + 3 * DAY_MS);
    assert_int_equal(core_next_expiry_ms(w.tx, UINT64_MAX - 1), UINT64_MAX); /* as good as never */
    assert_int_equal(world_expire(&w, 10, 0), 0);
    assert_int_equal(world_expire(&w, 10, w.now_ms - 1), 0);
    assert_int_equal(w.expired, 0);
    assert_int_equal(world_expire(&w, 0, 1), -E_LIMIT);
    assert_int_equal(world_expire(&w, LIMIT_EXPIRE_BATCH + 1, 1), -E_LIMIT);
    assert_int_equal(world_expire(&w, 10, w.now_ms), -E_INVALID);
    world_release(&w);
}

#define HIDDEN_ROWS 7u /* of one pipeline: its own, there and here, what finds it, its blobs */

/* A family is hidden in one command, however many they are: that is what bounds the command. */
static void the_largest_family_is_hidden_in_so_many_rows(void **state)
{
    struct buf plan = BUF_INIT;
    struct world w;
    uint64_t worker_id, id, changes, begin_us;

    start(&w, &worker_id);
    w.audit = false;
    for (unsigned i = 0; i < LIMIT_PIPELINE_FAMILY; i++) {
        buf_addf(&plan, "t%u: trigger=none\n", i);
    }
    assert_int_equal(world_submit(&w, plan_from_text(tx_arena(w.tx), buf_cstr(&plan)), "main", "1"),
                     0);
    id = w.reply.pipeline_id;
    for (unsigned i = 0; i < LIMIT_PIPELINE_FAMILY; i++) {
        assert_int_equal(
            world_child(&w, pipeline_get(w.tx, id)->first_job_id + i,
                        plan_from_text(tx_arena(w.tx), "a: when=manual allow_failure=yes\n")),
            0);
    }
    assert_string_equal(world_status(&w, id), "success");
    world_elapse(&w, 2 * DAY_MS);
    changes = tx_changes(w.tx);
    begin_us = os_monotonic_us();
    assert_int_equal(world_expire(&w, 1, w.now_ms - DAY_MS), 0);
    printf("  hidden in %" PRIu64 " us, %" PRIu64 " rows\n", os_monotonic_us() - begin_us,
           tx_changes(w.tx) - changes);
    assert_null(pipeline_get(w.tx, id));
    assert_int_equal(tx_count(w.tx, T_PIPELINE_GONE), LIMIT_PIPELINE_FAMILY + 1);
    assert_in_range(tx_changes(w.tx) - changes, LIMIT_PIPELINE_FAMILY,
                    HIDDEN_ROWS * (LIMIT_PIPELINE_FAMILY + 1));
    buf_release(&plan);
    world_release(&w);
}

/* A whole life of a job beside `history` pipelines that have ended: rows read. */
static uint64_t reads_beside(unsigned history)
{
    struct world w;
    struct sched_proposal todo[4];
    uint64_t worker_id, before;

    start(&w, &worker_id);
    w.sched = sched_new();
    sched_worker(w.sched, worker_id, worker_get(w.tx, worker_id), true);
    w.audit = false;
    for (unsigned i = 0; i < history; i++) {
        run_pipeline(&w, worker_id);
    }
    before = tx_reads(w.tx);
    assert_int_equal(world_submit(&w, plan_from_text(tx_arena(w.tx), "a: stage=a\n"), "dev", "9"),
                     0);
    assert_int_equal(sched_propose(w.sched, w.tx, w.now_ms, todo, ARRAY_LEN(todo)), 1);
    run_job(&w, todo[0].job_id, worker_id);
    core_next_due_ms(w.tx);
    core_next_expiry_ms(w.tx, DAY_MS);
    before = tx_reads(w.tx) - before;
    sched_free(w.sched);
    world_release(&w);
    return before;
}

static void history_costs_the_living_nothing(void **state)
{
    const uint64_t alone = reads_beside(1);
    const uint64_t beside = reads_beside(300);

    printf("  rows read: %" PRIu64 "\n", alone);
    assert_true(alone > 10);
    assert_int_equal(alone, beside);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pipeline_goes_with_all_that_hangs_on_it),
        cmocka_unit_test(what_is_half_deleted_is_seen_by_nobody),
        cmocka_unit_test(nothing_goes_that_is_kept_or_has_not_ended),
        cmocka_unit_test(the_largest_family_is_hidden_in_so_many_rows),
        cmocka_unit_test(history_costs_the_living_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
