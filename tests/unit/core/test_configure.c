/* What the configuration file declares: all or nothing, and out of the reach of others. */
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

static Pb__PoolSet pool(const char *name)
{
    Pb__PoolSet set = PB__POOL_SET__INIT;

    set.name = (char *)name;
    set.has_projects = set.has_protected = set.has_locked = set.has_max_running = true;
    set.has_project_max_running = set.has_queue_timeout = set.has_preempt = true;
    set.has_heartbeat = set.has_suspect = set.has_lease = set.has_on_worker_lost = true;
    return set;
}

static int configure(struct world *w, Pb__PoolSet **pools, size_t n_pools,
                     Pb__ProjectSet **projects, size_t n_projects)
{
    Pb__Configure body = PB__CONFIGURE__INIT;

    body.pools = pools;
    body.n_pools = n_pools;
    body.projects = projects;
    body.n_projects = n_projects;
    return WORLD_APPLY(w, "davitd", CONFIGURE, &body);
}

static int configure_pool(struct world *w, Pb__PoolSet *set)
{
    return configure(w, &set, 1, NULL, 0);
}

static void what_is_declared_is_changed_by_the_file_alone(void **state)
{
    struct world *w = *state;
    Pb__PoolSet set = pool("fast");
    Pb__PoolDelete drop = PB__POOL_DELETE__INIT;
    Pb__ProjectSet project = PB__PROJECT_SET__INIT;

    project.name = (char *)"demo";
    project.has_weight = project.has_max_running = true;
    project.weight = 300;
    set.max_running = 4;
    assert_int_equal(configure(w, (Pb__PoolSet *[]){&set}, 1, (Pb__ProjectSet *[]){&project}, 1),
                     0);
    assert_true(pool_get(w->tx, "fast")->declared);
    assert_int_equal(pool_get(w->tx, "fast")->max_running, 4);
    assert_int_equal(project_by_name(w->tx, "demo")->weight, 300);
    set.max_running = 5;
    assert_int_equal(WORLD_APPLY(w, "ann", POOL_SET, &set), -E_CONFLICT);
    assert_non_null(strstr(w->reply.text, "declared in the broker's configuration file"));
    drop.name = (char *)"fast";
    assert_int_equal(WORLD_APPLY(w, "ann", POOL_DELETE, &drop), -E_CONFLICT);
    project.weight = 1;
    assert_int_equal(WORLD_APPLY(w, "ann", PROJECT_SET, &project), -E_CONFLICT);
    assert_int_equal(configure_pool(w, &set), 0);
    assert_int_equal(pool_get(w->tx, "fast")->max_running, 5);
    assert_false(project_by_name(w->tx, "demo")->declared);
    assert_int_equal(project_by_name(w->tx, "demo")->weight, 300);
}

static void what_is_not_declared_any_more_keeps_its_settings(void **state)
{
    struct world *w = *state;
    Pb__PoolSet set = pool("fast");
    char *projects[] = {(char *)"demo"};

    set.projects = projects;
    set.n_projects = 1;
    assert_int_equal(configure_pool(w, &set), 0);
    assert_int_equal(configure(w, NULL, 0, NULL, 0), 0);
    assert_int_equal(pool_get(w->tx, "fast")->n_projects, 1); /* not open to all */
    assert_false(pool_get(w->tx, "fast")->declared);
    set.n_projects = 0;
    assert_int_equal(WORLD_APPLY(w, "ann", POOL_SET, &set), 0);
    assert_int_equal(pool_get(w->tx, "fast")->n_projects, 0);
}

static void the_same_file_again_changes_nothing(void **state)
{
    struct world *w = *state;
    Pb__PoolSet set = pool("fast");

    assert_int_equal(configure_pool(w, &set), 0);
    assert_int_equal(w->fx.count, 1);
    assert_int_equal(w->fx.items[0].kind, EFFECT_SETTINGS);
    assert_int_equal(configure_pool(w, &set), 0);
    assert_int_equal(w->fx.count, 0);
}

static void one_bad_pool_leaves_all_as_it_was(void **state)
{
    struct world *w = *state;
    Pb__PoolSet good = pool("good"), bad = pool("bad"), again = pool("good");

    bad.lease_ms = 5000; /* without a heartbeat */
    assert_int_equal(configure(w, (Pb__PoolSet *[]){&good, &bad}, 2, NULL, 0), -E_INVALID);
    assert_null(pool_get(w->tx, "good"));
    assert_int_equal(configure(w, (Pb__PoolSet *[]){&good, &again}, 2, NULL, 0), -E_INVALID);
    assert_null(pool_get(w->tx, "good"));
}

static void times_that_cannot_be_are_refused(void **state)
{
    static const uint32_t bad[][3] = {
        {19, 0, 1000},      {60001, 0, 600000}, {1000, 0, 1999},       {1000, 1000, 5000},
        {1000, 5001, 5000}, {0, 100, 0},        {1000, 0, 600000 + 1},
    };
    struct world *w = *state;
    Pb__PoolSet set = pool("p");

    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        set.heartbeat_ms = bad[i][0];
        set.suspect_ms = bad[i][1];
        set.lease_ms = bad[i][2];
        assert_int_equal(WORLD_APPLY(w, "ann", POOL_SET, &set), -E_INVALID);
    }
    set.heartbeat_ms = 1000;
    set.suspect_ms = 5000;
    set.lease_ms = 5000;
    assert_int_equal(WORLD_APPLY(w, "ann", POOL_SET, &set), 0);
    set.on_worker_lost = PB__ON_WORKER_LOST__ON_WORKER_LOST_REQUEUE_ALWAYS;
    assert_int_equal(WORLD_APPLY(w, "ann", POOL_SET, &set), -E_INVALID);
}

/* The job `name` of a plan runs on a worker of the pool and loses it. */
static const char *lose(struct world *w, const char *plan, uint64_t worker_id)
{
    uint64_t p, job;

    assert_int_equal(world_submit(w, plan_from_text(tx_arena(w->tx), plan), "main", "1"), 0);
    p = w->reply.pipeline_id;
    job = world_job_id(w, p, "a");
    assert_int_equal(world_assign(w, job, worker_id), 0);
    assert_int_equal(world_started(w, job), 0);
    assert_int_equal(world_lost(w, job), 0);
    return world_state(w, p, "a");
}

static void a_lost_worker_is_what_the_pool_says_unless_the_job_does(void **state)
{
    struct world *w = *state;
    Pb__PoolSet set = pool("deploy");
    const uint64_t id = world_worker_in(w, "deploy", 0, "w1", "", "shell", 9, true);

    assert_string_equal(lose(w, "a:\n", id), "pending"); /* the pool has no row */
    set.on_worker_lost = PB__ON_WORKER_LOST__ON_WORKER_LOST_FAIL;
    assert_int_equal(configure_pool(w, &set), 0);
    assert_string_equal(lose(w, "a:\n", id), "failed");
    assert_string_equal(lose(w, "a: lost=always\n", id), "pending");
    set.on_worker_lost = PB__ON_WORKER_LOST__ON_WORKER_LOST_WAIT;
    assert_int_equal(configure_pool(w, &set), 0);
    assert_string_equal(lose(w, "a:\n", id), "running");
    assert_string_equal(lose(w, "a: lost=fail\n", id), "failed");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_declared_is_changed_by_the_file_alone),
        TEST(what_is_not_declared_any_more_keeps_its_settings),
        TEST(the_same_file_again_changes_nothing),
        TEST(one_bad_pool_leaves_all_as_it_was),
        TEST(times_that_cannot_be_are_refused),
        TEST(a_lost_worker_is_what_the_pool_says_unless_the_job_does),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
