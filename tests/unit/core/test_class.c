/* What jobs ask for: counted, bounded, gone when nobody asks for it any more. */
#include "common/base.h"

#include "tests/kit/world.h"

#include "common/limits.h"

#include <setjmp.h>
#include <stdarg.h>
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

static int enqueue(struct world *w, const char *text, uint64_t keep_ms)
{
    return world_enqueue(w, plan_from_text(tx_arena(w->tx), text), keep_ms);
}

static const Pb__ClassRecord *class_of_job(struct world *w, uint64_t job_id)
{
    return class_get(w->tx, job_get(w->tx, job_id)->class_id);
}

static void check_counts(const Pb__ClassRecord *class, uint64_t jobs, uint64_t unfinished)
{
    assert_int_equal(class->jobs, jobs);
    assert_int_equal(class->unfinished, unfinished);
}

static void jobs_are_counted_from_their_first_row_to_their_last(void **state)
{
    struct world *w = *state;
    const uint64_t id = world_worker(w, "w1", "x", "shell", 4, true);
    uint64_t p, a, b;

    assert_int_equal(enqueue(w, "a: tags=x\n", 0), 0);
    a = w->reply.job_id;
    assert_int_equal(
        world_submit(w, plan_from_text(tx_arena(w->tx), "b: tags=x\nc: tags=x when=manual\n"),
                     "main", "1"),
        0);
    p = w->reply.pipeline_id;
    b = world_job_id(w, p, "b");
    assert_int_equal(tx_count(w->tx, T_CLASS), 1);
    check_counts(class_of_job(w, b), 3, 3);
    world_run(w, a, id, JOB_SUCCESS); /* leaves nothing */
    check_counts(class_of_job(w, b), 2, 2);
    world_run(w, b, id, JOB_FAILED);
    check_counts(class_of_job(w, b), 2, 1); /* somebody may play c */
    assert_int_equal(world_retry_job(w, b), 0);
    check_counts(class_of_job(w, b), 2, 2);
    assert_int_equal(world_cancel(w, p), 0);
    check_counts(class_of_job(w, b), 2, 0);
    w->now_ms += 1000;
    assert_int_equal(world_expire(w, 1000, w->now_ms - 1), 0);
    assert_int_equal(tx_count(w->tx, T_JOB), 0);
    assert_int_equal(tx_count(w->tx, T_CLASS_IDLE), 1);
}

static void a_class_goes_an_hour_after_its_last_job(void **state)
{
    struct world *w = *state;
    const uint64_t id = world_worker(w, "w1", "", "shell", 4, true);
    uint64_t start_ms;

    assert_int_equal(enqueue(w, "a: cpu=1\n", 0), 0);
    world_run(w, w->reply.job_id, id, JOB_SUCCESS);
    start_ms = w->now_ms;
    assert_int_equal(core_next_expiry_ms(w->tx, 0), start_ms + CORE_KEEP_CLASS_MS);
    w->now_ms = start_ms + CORE_KEEP_CLASS_MS - 1;
    assert_int_equal(world_expire(w, 10, 0), 0);
    assert_int_equal(tx_count(w->tx, T_CLASS), 1);
    assert_int_equal(enqueue(w, "a: cpu=1\n", 0), 0); /* it is asked for again */
    assert_int_equal(core_next_expiry_ms(w->tx, 0), UINT64_MAX);
    world_run(w, w->reply.job_id, id, JOB_SUCCESS);
    w->now_ms += CORE_KEEP_CLASS_MS;
    assert_int_equal(world_expire(w, 10, 0), 0);
    assert_int_equal(tx_count(w->tx, T_CLASS), 0);
    assert_int_equal(tx_count(w->tx, T_CLASS_HASH), 0);
}

#define FIRST 6u

/* As many as there may be, all of them in use. The ids of the first jobs. */
static void fill(struct world *w, uint64_t ret[FIRST])
{
    w->audit = false;
    for (unsigned n = 0; n < LIMIT_CLASSES; n += LIMIT_ENQUEUE_JOBS) {
        struct buf text = BUF_INIT;
        for (unsigned i = 0; i < LIMIT_ENQUEUE_JOBS; i++) {
            buf_addf(&text, "j%u: cpu=%u\n", n + i, n + i + 1);
        }
        assert_int_equal(enqueue(w, buf_cstr(&text), 0), 0);
        for (unsigned i = 0; i < FIRST && n == 0; i++) {
            ret[i] = w->reply.jobs[i].job_id;
        }
        buf_release(&text);
        world_commit(w);
    }
    assert_int_equal(tx_count(w->tx, T_CLASS), LIMIT_CLASSES);
}

static void no_more_than_so_many_are_asked_for_at_once(void **state)
{
    struct world *w = *state;
    const uint64_t id = world_worker(w, "w1", "", "shell", 4, true);
    const char *known = "a: cpu=7\nb: cpu=8\nc: trigger=none\n";
    uint64_t first[FIRST];

    fill(w, first);
    assert_int_equal(enqueue(w, "a: cpu=5000\n", 0), -E_LIMIT);
    assert_int_equal(enqueue(w, "a: cpu=1\nb: cpu=5000\n", 0), -E_LIMIT);
    assert_int_equal(world_submit(w, plan_from_text(tx_arena(w->tx), "a: cpu=5000\n"), "main", "1"),
                     -E_LIMIT);
    assert_int_equal(enqueue(w, "a: cpu=1\nb: cpu=2\n", 0), 0); /* nothing new */
    assert_int_equal(world_submit(w, plan_from_text(tx_arena(w->tx), known), "main", "1"), 0);
    world_run(w, first[5], id, JOB_SUCCESS); /* now there is room for one */
    assert_int_equal(enqueue(w, "a: cpu=5000\nb: cpu=5001\n", 0), -E_LIMIT);
    assert_int_equal(enqueue(w, "a: cpu=5000\nb: cpu=6\n", 0), -E_LIMIT);
    assert_int_equal(enqueue(w, "a: cpu=5000\nb: cpu=5000\n", 0), 0);
    assert_int_equal(tx_count(w->tx, T_CLASS), LIMIT_CLASSES);
    assert_int_equal(tx_count(w->tx, T_CLASS_IDLE), 0);
    w->audit = true;
    assert_int_equal(world_cancel_job(w, first[0]), 0); /* and all of it is sound */
}

/* What is taken away for its room may be asked for by the next job of the same command. */
static void who_comes_back_finds_room_too(void **state)
{
    struct world *w = *state;
    const uint64_t id = world_worker(w, "w1", "", "shell", 4, true);
    uint64_t first[FIRST];

    fill(w, first);
    world_run(w, first[0], id, JOB_SUCCESS);
    world_run(w, first[1], id, JOB_SUCCESS);
    assert_int_equal(enqueue(w, "a: cpu=5000\nb: cpu=1\n", 0), 0);
    assert_int_equal(tx_count(w->tx, T_CLASS), LIMIT_CLASSES);
    assert_int_equal(tx_count(w->tx, T_CLASS_IDLE), 0);
    w->audit = true;
    assert_int_equal(world_cancel_job(w, first[2]), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(jobs_are_counted_from_their_first_row_to_their_last),
        TEST(a_class_goes_an_hour_after_its_last_job),
        TEST(no_more_than_so_many_are_asked_for_at_once),
        TEST(who_comes_back_finds_room_too),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
