/* Pools and projects: their settings, and whom a pool lets in. */
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

static int set(struct world *w, Pb__PoolSet *body)
{
    const int r = WORLD_APPLY(w, "ann", POOL_SET, body);

    if (r == 0) {
        assert_int_equal(w->fx.count, 1);
        assert_int_equal(w->fx.items[0].kind, EFFECT_SETTINGS);
    }
    return r;
}

static int set_projects(struct world *w, const char *pool, const char *one, const char *two)
{
    char *projects[] = {(char *)one, (char *)two};
    Pb__PoolSet body = PB__POOL_SET__INIT;

    body.name = (char *)pool;
    body.has_projects = true;
    body.projects = projects;
    body.n_projects = 2;
    return set(w, &body);
}

static int drop(struct world *w, const char *pool)
{
    Pb__PoolDelete body = PB__POOL_DELETE__INIT;

    body.name = (char *)pool;
    return WORLD_APPLY(w, "ann", POOL_DELETE, &body);
}

static uint64_t worker(struct world *w, const char *name, const char *pool)
{
    char *executors[] = {(char *)"shell"};
    Pb__WorkerHello body = PB__WORKER_HELLO__INIT;

    body.name = (char *)name;
    body.pool = (char *)pool;
    body.executors = executors;
    body.n_executors = 1;
    body.slots = 9;
    body.run_untagged = true;
    assert_int_equal(world_hello(w, &body), 0);
    return w->reply.worker_id;
}

static void what_is_not_said_stays(void **state)
{
    struct world *w = *state;
    Pb__PoolSet body = PB__POOL_SET__INIT;
    const Pb__PoolRecord *p;

    assert_int_equal(set_projects(w, "fast", "demo", "group/*"), 0);
    body.name = (char *)"fast";
    body.has_max_running = true;
    body.max_running = 3;
    body.locked = true; /* without has_locked: not said */
    assert_int_equal(set(w, &body), 0);
    p = pool_get(w->tx, "fast");
    assert_int_equal(p->n_projects, 2);
    assert_int_equal(p->max_running, 3);
    assert_false(p->locked);
    body.has_projects = true; /* to none */
    assert_int_equal(set(w, &body), 0);
    assert_int_equal(pool_get(w->tx, "fast")->n_projects, 0);
    assert_null(pool_get(w->tx, "slow"));
    assert_null(pool_get(w->tx, ""));
}

static void what_cannot_be_is_refused(void **state)
{
    struct world *w = *state;
    Pb__PoolSet body = PB__POOL_SET__INIT;
    Pb__ProjectSet project = PB__PROJECT_SET__INIT;

    body.name = (char *)"";
    assert_int_equal(set(w, &body), -E_INVALID);
    body.name = (char *)"p";
    body.queue_timeout_ms = LIMIT_TIMEOUT_MS + 1;
    assert_int_equal(set(w, &body), -E_LIMIT);
    assert_int_equal(set_projects(w, "p", "demo", ""), -E_INVALID);
    assert_int_equal(set_projects(w, "p", "demo", "*"), -E_INVALID); /* would match none */
    assert_int_equal(set_projects(w, "p", "demo", "g//p"), -E_INVALID);
    assert_int_equal(set_projects(w, "p", "demo", "g/*/p*"), -E_INVALID);
    assert_int_equal(drop(w, "p"), -E_NOT_FOUND);
    project.name = (char *)"demo";
    project.has_weight = true;
    project.weight = 1001;
    assert_int_equal(WORLD_APPLY(w, "ann", PROJECT_SET, &project), -E_INVALID);
    project.weight = 1000;
    assert_int_equal(WORLD_APPLY(w, "ann", PROJECT_SET, &project), 0);
    assert_int_equal(project_by_name(w->tx, "demo")->weight, 1000);
}

static enum pool_bar bar(struct world *w, const char *pool, const char *wanted, bool protected,
                         const char *project)
{
    Pb__ClassRecord class = PB__CLASS_RECORD__INIT;

    class.pool = (char *)wanted;
    class.protected_ = protected;
    return pool_bar(pool_get(w->tx, pool), pool, &class, project);
}

static void a_pool_lets_in_whom_it_is_for(void **state)
{
    struct world *w = *state;
    Pb__PoolSet body = PB__POOL_SET__INIT;

    assert_int_equal(bar(w, "", "", false, "demo"), POOL_BAR_NONE);
    assert_int_equal(bar(w, "", "fast", false, "demo"), POOL_BAR_OTHER);
    assert_int_equal(bar(w, "fast", "", false, "demo"), POOL_BAR_NONE); /* has no row yet */
    assert_int_equal(set_projects(w, "fast", "demo", "group/*"), 0);
    assert_int_equal(bar(w, "fast", "", false, "demo"), POOL_BAR_NONE);
    assert_int_equal(bar(w, "fast", "", false, "demo2"), POOL_BAR_PROJECT);
    assert_int_equal(bar(w, "fast", "", false, "group/a/b"), POOL_BAR_NONE);
    assert_int_equal(bar(w, "fast", "", false, "group"), POOL_BAR_PROJECT);
    assert_int_equal(bar(w, "fast", "", false, "groups/a"), POOL_BAR_PROJECT);
    body.name = (char *)"fast";
    body.has_locked = body.locked = true;
    body.has_protected = body.protected_ = true;
    assert_int_equal(set(w, &body), 0);
    assert_int_equal(bar(w, "fast", "", true, "demo"), POOL_BAR_LOCKED);
    assert_int_equal(bar(w, "fast", "fast", false, "demo"), POOL_BAR_PROTECTED);
    assert_int_equal(bar(w, "fast", "fast", true, "demo"), POOL_BAR_NONE);
}

static void an_assignment_is_checked_against_the_pool(void **state)
{
    struct world *w = *state;
    const uint64_t fast = worker(w, "w1", "fast"), plain = worker(w, "w2", "");
    uint64_t p;

    assert_int_equal(set_projects(w, "fast", "other", "group/*"), 0);
    assert_int_equal(world_submit(w,
                                  plan_from_text(tx_arena(w->tx), "a: pool=fast\n"
                                                                  "b:\n"),
                                  "main", "1"),
                     0);
    p = w->reply.pipeline_id;
    assert_int_equal(world_assign(w, world_job_id(w, p, "a"), plain), -E_CONFLICT);
    assert_int_equal(world_assign(w, world_job_id(w, p, "a"), fast), -E_CONFLICT);
    assert_int_equal(world_assign(w, world_job_id(w, p, "b"), fast), -E_CONFLICT);
    assert_int_equal(world_assign(w, world_job_id(w, p, "b"), plain), 0);
    assert_int_equal(set_projects(w, "fast", "demo", "group/*"), 0);
    assert_int_equal(world_assign(w, world_job_id(w, p, "a"), fast), 0);
}

static void a_pool_goes_only_when_nobody_needs_it(void **state)
{
    struct world *w = *state;

    worker(w, "w1", "fast");
    assert_int_equal(set_projects(w, "fast", "demo", "group/*"), 0);
    assert_int_equal(set_projects(w, "slow", "demo", "group/*"), 0);
    assert_int_equal(
        world_submit(w, plan_from_text(tx_arena(w->tx), "a: pool=slow\n"), "main", "1"), 0);
    assert_int_equal(drop(w, "fast"), -E_CONFLICT);
    assert_int_equal(drop(w, "slow"), -E_CONFLICT);
    worker(w, "w1", "other");
    assert_int_equal(drop(w, "fast"), 0);
    assert_null(pool_get(w->tx, "fast"));
}

/* Waiting or not: what names the pool must not find it open to all. */
static void a_pool_stays_while_a_job_that_may_run_names_it(void **state)
{
    static const char *const plans[] = {
        "a: stage=a\nb: stage=b pool=fast\n",            /* created */
        "a: when=delayed start_in=1h pool=fast\n",       /* scheduled */
        "a: when=manual pool=fast\n",                    /* manual */
        "a: group=g priority=1\nb: group=g pool=fast\n", /* waiting_for_resource */
    };
    struct world *w = *state;

    assert_int_equal(set_projects(w, "fast", "demo", "group/*"), 0);
    for (size_t i = 0; i < ARRAY_LEN(plans); i++) {
        uint64_t p;
        assert_int_equal(world_submit(w, plan_from_text(tx_arena(w->tx), plans[i]), "main", "1"),
                         0);
        p = w->reply.pipeline_id;
        assert_int_equal(drop(w, "fast"), -E_CONFLICT);
        assert_int_equal(world_cancel(w, p), 0);
    }
    assert_int_equal(drop(w, "fast"), 0);
}

/* Each move of a job that the scheduler must know of, and no other. */
static void moves_tell_the_scheduler(void **state)
{
    struct world *w = *state;
    const uint64_t id = worker(w, "w1", "");
    const struct queue_change *q;
    uint64_t job;

    assert_int_equal(
        world_submit(w, plan_from_text(tx_arena(w->tx), "a: priority=7\n"), "main", "1"), 0);
    job = world_job_id(w, w->reply.pipeline_id, "a");
    assert_int_equal(w->fx.change_count, 1);
    q = &w->fx.changes[0];
    assert_int_equal(q->job_id, job);
    assert_int_equal(q->entered, 2);
    assert_int_equal(q->left, 0);
    assert_int_equal(q->priority, 7);
    assert_int_equal(q->ready_seq, job_get(w->tx, job)->ready_seq);
    assert_int_equal(world_assign(w, job, id), 0);
    assert_int_equal(w->fx.change_count, 1);
    q = &w->fx.changes[0];
    assert_int_equal(q->left, 2);
    assert_int_equal(q->entered, 4);
    assert_int_equal(q->worker_id, id);
    assert_int_equal(world_started(w, job), 0);
    assert_int_equal(w->fx.change_count, 0);
    assert_int_equal(world_lost(w, job), 0);
    q = &w->fx.changes[0];
    assert_int_equal(q->left, 4);
    assert_int_equal(q->entered, 2);
    assert_int_equal(q->worker_id, id);
    assert_int_equal(q->ready_seq, job_get(w->tx, job)->ready_seq); /* its old place */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_not_said_stays),
        TEST(what_cannot_be_is_refused),
        TEST(a_pool_lets_in_whom_it_is_for),
        TEST(an_assignment_is_checked_against_the_pool),
        TEST(a_pool_goes_only_when_nobody_needs_it),
        TEST(a_pool_stays_while_a_job_that_may_run_names_it),
        TEST(moves_tell_the_scheduler),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
