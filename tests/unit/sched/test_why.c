/* What is said of a job that waits: its place, and who keeps it. */
#include "common/base.h"

#include "tests/unit/sched/fixture.h"

static bool online(void *ctx, uint64_t worker_id)
{
    return true;
}

static void why_tells_the_place_in_line(void **state)
{
    struct world *w = *state;
    struct sched_why why[4];
    struct sched_outlook o;

    worker(w, (struct offer){"w1", "x", .slots = 1, .tagged_only = true});
    submit(w, "demo", "a:\nb:\nc: priority=1\n");
    assert_int_equal(
        sched_why(w->tx, world_job(w, w->reply.pipeline_id, "b"), online, NULL, why, 4, &o), 1);
    assert_int_equal(o.position, 3);
    assert_false(o.position_or_more);
    assert_true(o.never);
    assert_int_equal(sched_wait_ms(&o, 1000), UINT64_MAX);
    assert_string_equal(why[0].reason, "runs no untagged jobs");
}

static void why_tells_what_it_has_not_counted(void **state)
{
    struct world *w = *state;
    struct sched_why why[4];
    struct sched_outlook o;

    uint64_t p;

    fill(w);
    p = w->reply.pipeline_id;
    worker(w, (struct offer){"w1", "x", .slots = 4});
    sched_why(w->tx, world_job(w, p, "j1997"), online, NULL, why, 4, &o);
    assert_string_equal(why[0].reason, "missing tags: y");
    sched_why(w->tx, world_job(w, submit(w, "demo", "last:\n"), "last"), online, NULL, why, 4, &o);
    assert_int_equal(o.position, 10000);
    assert_true(o.position_or_more);
    assert_int_equal(o.slots, 4);
    assert_int_equal(sched_wait_ms(&o, 1000), 10000 / 4 * 1000);
}

static void why_names_pools_that_nobody_serves(void **state)
{
    struct world *w = *state;
    struct sched_why why[4];
    struct sched_outlook o;
    uint64_t p;

    set_pool(w, "empty", 0, 0, false);
    set_pool(w, "full", 0, 0, false);
    worker(w, (struct offer){"w1", .pool = "full", .slots = 1});
    p = submit(w, "demo", "a:\nb:\nc: pool=empty\n");
    sched_why(w->tx, world_job(w, p, "a"), online, NULL, why, 4, &o);
    assert_int_equal(o.pool_count, 1);
    assert_string_equal(o.pools[0], "empty");
    assert_true(o.now);
    assert_int_equal(sched_wait_ms(&o, 1000), 0);
    assert_string_equal(assign_all(w), "a");
    sched_why(w->tx, world_job(w, p, "b"), online, NULL, why, 4, &o);
    assert_false(o.now);
    assert_int_equal(sched_wait_ms(&o, 1000), 1000);
    sched_why(w->tx, world_job(w, p, "c"), online, NULL, why, 4, &o);
    assert_true(o.never);
    assert_int_equal(o.pool_count, 1);
}

static void why_counts_what_runs_for_each_pool(void **state)
{
    struct world *w = *state;
    struct sched_why why[4];
    struct sched_outlook o;
    uint64_t p;

    set_pool(w, "full", 1, 0, false);
    set_pool(w, "fair", 0, 1, false);
    worker(w, (struct offer){"w1", .pool = "full", .slots = 3});
    worker(w, (struct offer){"w2", .pool = "fair", .slots = 3});
    worker(w, (struct offer){"w3", .slots = 3});
    submit(w, "x", "a: pool=full\nb: pool=fair\nc:\n");
    assert_int_equal(strlen(assign_all(w)), strlen("a b c"));
    p = submit(w, "x", "d:\n");
    sched_why(w->tx, world_job(w, p, "d"), online, NULL, why, 4, &o);
    assert_string_equal(why[0].reason, "pool full runs 1 of 1 jobs");
    assert_string_equal(why[1].reason, "its project runs 1 of 1 jobs in pool fair");
    assert_string_equal(why[2].reason, "can take it");
    sched_why(w->tx, world_job(w, submit(w, "y", "e:\n"), "e"), online, NULL, why, 4, &o);
    assert_string_equal(why[1].reason, "can take it");
    set_project(w, "x", 0, 3);
    sched_why(w->tx, world_job(w, p, "d"), online, NULL, why, 4, &o);
    assert_string_equal(why[0].reason, "its project runs 3 of 3 jobs");
    assert_string_equal(why[2].reason, "its project runs 3 of 3 jobs");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(why_tells_the_place_in_line),
        TEST(why_tells_what_it_has_not_counted),
        TEST(why_names_pools_that_nobody_serves),
        TEST(why_counts_what_runs_for_each_pool),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
