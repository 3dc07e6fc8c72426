/* The scheduler on a queue of 100,000 jobs in a few classes. */
#include "common/base.h"

#include "tests/kit/world.h"

#include "common/os.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static int set_up(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));

    world_init(w);
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    world_release(*state);
    free(*state);
    return 0;
}

static size_t propose(struct world *w, const uint64_t *ids, size_t count, uint32_t slots,
                      struct sched_proposal *ret, size_t max)
{
    struct sched_worker workers[8];

    for (size_t i = 0; i < count; i++) {
        workers[i] = (struct sched_worker){ids[i], slots, worker_get(w->tx, ids[i])};
    }
    return sched_propose(w->tx, workers, count, ret, max);
}

static const char *job_name(struct world *w, uint64_t job_id)
{
    return job_get(w->tx, job_id)->name;
}

static void classes_are_interleaved_by_priority_then_age(void **state)
{
    static const char *const want[] = {"c", "f", "a", "b", "d", "e"};
    struct world *w = *state;
    struct sched_proposal got[8];
    const uint64_t worker = world_worker(w, "w1", "x,y", "shell", 10, true);

    assert_int_equal(world_submit(w,
                                  plan_from_text(tx_arena(w->tx), "a:\n"
                                                                  "b: tags=x\n"
                                                                  "c: tags=y priority=2\n"
                                                                  "d:\n"
                                                                  "e: tags=x,y\n"
                                                                  "f: priority=1\n"),
                                  "main", "1"),
                     0);
    assert_int_equal(propose(w, &worker, 1, 10, got, 8), ARRAY_LEN(want));
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        assert_string_equal(job_name(w, got[i].job_id), want[i]);
    }
    assert_int_equal(propose(w, &worker, 1, 10, got, 2), 2); /* no more than asked for */
    assert_int_equal(propose(w, &worker, 1, 3, got, 8), 3);  /* no more than slots */
    assert_int_equal(propose(w, &worker, 1, 0, got, 8), 0);
}

static void no_matching_pair_is_left_idle(void **state)
{
    struct world *w = *state;
    struct sched_proposal got[16];
    uint64_t ids[3];

    ids[0] = world_worker(w, "w0", "gpu", "shell", 2, false);
    ids[1] = world_worker(w, "w1", "", "docker", 2, true);
    ids[2] = world_worker(w, "w2", "", "shell", 2, true);
    assert_int_equal(world_submit(w,
                                  plan_from_text(tx_arena(w->tx), "a: tags=none_has_it\n"
                                                                  "b: tags=gpu\n"
                                                                  "c: executor=docker\n"
                                                                  "d:\n"
                                                                  "e:\n"
                                                                  "f:\n"
                                                                  "g:\n"),
                                  "main", "1"),
                     0);
    /* b to w0, c to w1, and three of d, e, f, g to what is left of w1 and w2 */
    assert_int_equal(propose(w, ids, 3, 2, got, 16), 5);
    for (size_t i = 0; i < 5; i++) {
        assert_string_not_equal(job_name(w, got[i].job_id), "a");
    }
}

#define QUEUED_PIPELINES 50u
#define QUEUED_JOBS      2000u

static void fill(struct world *w)
{
    struct buf text = BUF_INIT;

    for (unsigned i = 0; i < QUEUED_JOBS; i++) {
        buf_addf(&text, "j%u: %s\n", i, i % 3 == 0 ? "tags=x" : i % 3 == 1 ? "" : "tags=y");
    }
    w->audit = false;
    for (unsigned i = 0; i < QUEUED_PIPELINES; i++) {
        assert_int_equal(
            world_submit(w, plan_from_text(tx_arena(w->tx), buf_cstr(&text)), "main", "1"), 0);
        world_commit(w);
    }
    buf_release(&text);
}

static bool online(void *ctx, uint64_t worker_id)
{
    return true;
}

/* Rows that were looked at show in the arena: each class and worker is unpacked into it. */
static void a_long_queue_costs_no_more_than_a_short_one(void **state)
{
    struct world *w = *state;
    struct sched_proposal got[64];
    const uint64_t worker = world_worker(w, "w1", "x", "shell", 64, true);
    uint64_t begin, us;

    fill(w);
    assert_int_equal(tx_count(w->tx, T_READY), QUEUED_PIPELINES * QUEUED_JOBS);
    begin = os_monotonic_us();
    assert_int_equal(propose(w, &worker, 1, 64, got, 64), 64);
    us = os_monotonic_us() - begin;
    printf("  64 proposals of %" PRIu64 " ready jobs: %" PRIu64 " us\n", tx_count(w->tx, T_READY),
           us);
    assert_true(tx_arena(w->tx)->used < 16 * 1024);
    for (size_t i = 1; i < 64; i++) { /* two classes, oldest first */
        assert_true(job_get(w->tx, got[i - 1].job_id)->ready_seq <
                    job_get(w->tx, got[i].job_id)->ready_seq);
    }
}

static void why_tells_the_place_in_line(void **state)
{
    struct world *w = *state;
    struct sched_why why[4];
    uint64_t position;
    bool never;

    world_worker(w, "w1", "x", "shell", 1, false);
    assert_int_equal(
        world_submit(w, plan_from_text(tx_arena(w->tx), "a:\nb:\nc: priority=1\n"), "main", "1"),
        0);
    assert_int_equal(sched_why(w->tx, world_job(w, w->reply.pipeline_id, "b"), online, NULL, why, 4,
                               &position, &never),
                     1);
    assert_int_equal(position, 3);
    assert_true(never);
    assert_string_equal(why[0].reason, "runs no untagged jobs");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(classes_are_interleaved_by_priority_then_age),
        TEST(no_matching_pair_is_left_idle),
        TEST(a_long_queue_costs_no_more_than_a_short_one),
        TEST(why_tells_the_place_in_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
