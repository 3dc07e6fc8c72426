/* What a command costs must not depend on how big its pipeline is. */
#include "common/base.h"

#include "tests/kit/world.h"

#include "common/limits.h"
#include "common/os.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define JOBS   2000u
#define STAGES 10u

enum shape {
    SHAPE_STAGES, /* ten stages of 200 jobs */
    SHAPE_TREE,   /* each job needs one */
    SHAPE_WIDE,   /* 1,800 jobs need the same 200: as many needs as are allowed */
    SHAPE_LONG,   /* as many stages as are allowed */
};

static void add_wide_needs(struct buf *text)
{
    buf_addz(text, " needs=j0");
    for (unsigned i = 1; i < LIMIT_JOB_NEEDS; i++) {
        buf_addf(text, ",j%u", i);
    }
}

static Pb__Plan *big_plan(struct arena *a, enum shape shape)
{
    const unsigned stages = shape == SHAPE_LONG ? LIMIT_PIPELINE_STAGES : STAGES;
    struct buf text = BUF_INIT;
    Pb__Plan *plan;

    for (unsigned i = 0; i < JOBS; i++) {
        buf_addf(&text, "j%u: stage=s%u", i, i * stages / JOBS);
        if (shape == SHAPE_TREE && i > 0) {
            buf_addf(&text, " needs=j%u", (i - 1) / 2);
        } else if (shape == SHAPE_WIDE && i >= LIMIT_JOB_NEEDS) {
            add_wide_needs(&text);
        }
        buf_addz(&text, "\n");
    }
    plan = plan_from_text(a, buf_cstr(&text));
    buf_release(&text);
    return plan;
}

struct cost {
    uint64_t finish_writes_max; /* of one JobFinished that makes no other job ready */
    uint64_t total_us;
};

/* Runs all jobs of a big pipeline, in the order in which they become ready. */
static void run_all(enum shape shape, struct cost *ret)
{
    struct world w;
    uint64_t worker_id, pipeline_id;
    uint64_t begin;
    struct sched_proposal todo[64];
    size_t n;

    world_init(&w);
    w.audit = false;
    w.sched = sched_new();
    worker_id = world_worker(&w, "w1", "", "shell", 64, true);
    sched_worker(w.sched, worker_id, worker_get(w.tx, worker_id), true);
    begin = os_monotonic_us();
    assert_int_equal(world_submit(&w, big_plan(tx_arena(w.tx), shape), "main", "1"), 0);
    pipeline_id = w.reply.pipeline_id;
    printf("  %u jobs created in %" PRIu64 " us\n", JOBS, os_monotonic_us() - begin);
    begin = os_monotonic_us();
    do {
        n = sched_propose(w.sched, w.tx, w.now_ms, todo, ARRAY_LEN(todo));
        for (size_t i = 0; i < n; i++) {
            const uint64_t events = meta_get(w.tx)->next_event;
            const uint64_t writes = tx_changes(w.tx);
            world_run(&w, todo[i].job_id, worker_id, JOB_SUCCESS);
            if (meta_get(w.tx)->next_event - events <= 3) { /* assigned, running, success */
                ret->finish_writes_max = MAX(ret->finish_writes_max, tx_changes(w.tx) - writes);
            }
        }
        world_commit(&w);
    } while (n > 0);
    ret->total_us = os_monotonic_us() - begin;
    assert_string_equal(world_status(&w, pipeline_id), "success");
    w.audit = true;
    assert_int_equal(world_retry(&w, pipeline_id), -E_CONFLICT); /* audits once */
    sched_free(w.sched);
    world_release(&w);
}

static void run_and_check(enum shape shape, const char *what)
{
    struct cost cost = {0};

    run_all(shape, &cost);
    printf("  %s: %u jobs run in %" PRIu64 " ms, at most %" PRIu64 " rows written a job\n", what,
           JOBS, cost.total_us / 1000, cost.finish_writes_max);
    assert_true(cost.finish_writes_max > 0);
    assert_true(cost.finish_writes_max < 60); /* four commands */
}

static void a_job_of_a_big_pipeline_of_stages_ends_cheaply(void **state)
{
    run_and_check(SHAPE_STAGES, "ten stages");
}

static void a_job_of_a_big_pipeline_of_needs_ends_cheaply(void **state)
{
    run_and_check(SHAPE_TREE, "a tree of needs");
}

static void a_job_that_everybody_needs_ends_cheaply(void **state)
{
    run_and_check(SHAPE_WIDE, "200 needs each");
}

static void a_job_in_one_of_many_stages_ends_cheaply(void **state)
{
    run_and_check(SHAPE_LONG, "256 stages");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_of_a_big_pipeline_of_stages_ends_cheaply),
        cmocka_unit_test(a_job_of_a_big_pipeline_of_needs_ends_cheaply),
        cmocka_unit_test(a_job_that_everybody_needs_ends_cheaply),
        cmocka_unit_test(a_job_in_one_of_many_stages_ends_cheaply),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
