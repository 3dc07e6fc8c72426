/* The audit must see damage: each test breaks one row behind the core's back. */
#include "common/base.h"

#include "tests/kit/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct busy {
    struct world w;
    uint64_t pipeline_id;
    uint64_t worker_id;
    uint64_t child_id;
};

/* What a job may leave behind: variables, a release, pages. */
static void publish(struct world *w, uint64_t job_id, uint64_t worker_id)
{
    static uint8_t digest[32] = {1};
    Pb__Outcome o = PB__OUTCOME__INIT;
    Pb__Variable variable = PB__VARIABLE__INIT;
    Pb__Variable *variables[] = {&variable};
    Pb__ArtifactOut artifact = PB__ARTIFACT_OUT__INIT;
    Pb__ArtifactOut *artifacts[] = {&artifact};
    Pb__ReleaseSpec release = PB__RELEASE_SPEC__INIT;
    Pb__PagesOut pages = PB__PAGES_OUT__INIT;
    Pb__CacheSet cache = PB__CACHE_SET__INIT;

    variable.name = (char *)"A";
    artifact.digest = (ProtobufCBinaryData){sizeof(digest), digest};
    artifact.type = (char *)"pages";
    release.tag_name = pb_bytes_ref(STR("v1"));
    pages.expire_in_ms = 1000;
    o.result = JOB_SUCCESS;
    o.dotenv = variables;
    o.n_dotenv = 1;
    o.artifacts = artifacts;
    o.n_artifacts = 1;
    o.release = &release;
    o.pages = &pages;
    cache.job_id = job_id;
    cache.key = pb_bytes_ref(STR("default"));
    cache.digest = artifact.digest;
    assert_int_equal(world_assign(w, job_id, worker_id), 0);
    assert_int_equal(WORLD_APPLY(w, "worker", CACHE_SET, &cache), 0);
    assert_int_equal(world_finished(w, job_id, &o), 0);
}

/* A world with a job in nearly every state. */
static int set_up(void **state)
{
    struct busy *b = xcalloc(1, sizeof(*b));
    struct world *w = &b->w;

    world_init(w);
    b->worker_id = world_worker(w, "w1", "", "shell", 3, true);
    assert_int_equal(
        world_submit(w,
                     plan_from_text(tx_arena(w->tx), "plan: auto_cancel=yes\n"
                                                     "done: stage=a\n"
                                                     "runs: stage=a group=g\n"
                                                     "waits: stage=a group=g\n"
                                                     "late: stage=a when=delayed start_in=1h\n"
                                                     "ready: stage=a\n"
                                                     "halt: stage=a env=e action=stop when=manual\n"
                                                     "live: stage=a env=e on_stop=halt "
                                                     "auto_stop=1h\n"
                                                     "pub: stage=a\n"
                                                     "open: stage=a trigger=depend\n"
                                                     "child: stage=a trigger=depend\n"
                                                     "after: stage=b\n"),
                     "main", "1"),
        0);
    b->pipeline_id = w->reply.pipeline_id;
    world_run(w, world_job_id(w, b->pipeline_id, "done"), b->worker_id, JOB_SUCCESS);
    assert_int_equal(world_assign(w, world_job_id(w, b->pipeline_id, "runs"), b->worker_id), 0);
    world_run(w, world_job_id(w, b->pipeline_id, "live"), b->worker_id, JOB_SUCCESS);
    publish(w, world_job_id(w, b->pipeline_id, "pub"), b->worker_id);
    assert_int_equal(world_child(w, world_job_id(w, b->pipeline_id, "child"),
                                 plan_from_text(tx_arena(w->tx), "work: stage=a\n")),
                     0);
    b->child_id = w->reply.pipeline_id;
    assert_int_equal(world_submit(w, plan_from_text(tx_arena(w->tx), "over: stage=a\n"), "old", ""),
                     0);
    assert_int_equal(world_cancel(w, w->reply.pipeline_id), 0);
    assert_int_equal(world_enqueue(w, plan_from_text(tx_arena(w->tx), "gone: cpu=1\n"), 0), 0);
    world_run(w, w->reply.job_id, b->worker_id, JOB_SUCCESS);
    *state = b;
    return 0;
}

static int tear_down(void **state)
{
    struct busy *b = *state;

    world_release(&b->w);
    free(b);
    return 0;
}

static void ignore(void *ctx, const char *text)
{
}

static void finds_damage(struct busy *b)
{
    assert_true(core_audit(b->w.tx, ignore, NULL) > 0);
}

/* Takes the first row of a table away. */
static void drop_first(struct busy *b, enum table t)
{
    struct cursor cur;
    struct key k;

    tx_seek(&cur, b->w.tx, t, STR_NULL, NULL);
    assert_true(cur.valid);
    k = key_bytes(cur.key.p, cur.key.n);
    cursor_end(&cur);
    tx_del(b->w.tx, t, &k);
}

static void put_job(struct busy *b, const Pb__JobRecord *job)
{
    const struct key k = key_u64(job->id);

    tx_put_msg(b->w.tx, T_JOB, &k, &job->base);
}

static Pb__JobRecord *job(struct busy *b, const char *name)
{
    return (Pb__JobRecord *)world_job(&b->w, b->pipeline_id, name);
}

static void the_busy_world_is_sound(void **state)
{
    struct busy *b = *state;

    assert_int_equal(core_audit(b->w.tx, ignore, NULL), 0);
}

static void a_missing_row_of_any_table_is_found(void **state)
{
    static const enum table tables[] = {
        T_PROJECT,
        T_PROJECT_NAME,
        T_PIPELINE_VARS,
        T_PROJECT_PIPELINE,
        T_PIPELINE_LIVE,
        T_REF_LIVE,
        T_FAMILY,
        T_PIPELINE_ENDED,
        T_PIPELINE_NEEDED,
        T_JOB_DEPLOYMENT,
        T_STAGE,
        T_PLAN,
        T_JOB,
        T_ATTEMPT,
        T_CLASS,
        T_CLASS_HASH,
        T_CLASS_IDLE,
        T_READY,
        T_ASSIGNMENT,
        T_WORKER_JOB,
        T_WORKER,
        T_WORKER_UID,
        T_RESOURCE_HOLD,
        T_RESOURCE_WAIT,
        T_TIMER,
        T_PIPELINE_EVENT,
        T_EVENT,
        T_PIPELINE,
        T_JOB_DOTENV,
        T_TRIGGER,
        T_ENVIRONMENT,
        T_ENVIRONMENT_NAME,
        T_DEPLOYMENT,
        T_RELEASE,
        T_RELEASE_TAG,
        T_PAGES,
        T_CACHE,
        T_CACHE_AGE,
        T_BLOB_REF,
    };
    struct busy *b = *state;

    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        world_commit(&b->w);
        drop_first(b, tables[i]);
        finds_damage(b);
        tx_abort(b->w.tx); /* whole again for the next */
        assert_int_equal(tx_begin(b->w.store, true, &b->w.tx), 0);
        assert_int_equal(core_audit(b->w.tx, ignore, NULL), 0);
    }
}

static void a_needless_row_is_found(void **state)
{
    static const enum table tables[] = {T_READY,           T_WORKER_JOB, T_RESOURCE_HOLD,
                                        T_BLOB_REF,        T_TIMER,      T_PROJECT_PIPELINE,
                                        T_ASSIGNMENT,      T_PLAN,       T_PIPELINE_EVENT,
                                        T_TRIGGER,         T_CACHE_AGE,  T_RELEASE_TAG,
                                        T_ENVIRONMENT_NAME};
    const struct key k = key_u64_u64(77, 78);
    struct busy *b = *state;

    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        world_commit(&b->w);
        tx_put(b->w.tx, tables[i], &k, STR_NULL);
        finds_damage(b);
        tx_abort(b->w.tx);
        assert_int_equal(tx_begin(b->w.store, true, &b->w.tx), 0);
    }
}

static void a_state_that_its_indexes_deny_is_found(void **state)
{
    struct busy *b = *state;
    Pb__JobRecord *ready = job(b, "ready");

    ready->state = JOB_RUNNING;
    put_job(b, ready);
    finds_damage(b);
}

static void wrong_counts_of_a_stage_are_found(void **state)
{
    struct busy *b = *state;
    const struct key k = key_u64_u64(b->pipeline_id, 0);
    Pb__StageRecord *s = (Pb__StageRecord *)stage_get(b->w.tx, b->pipeline_id, 0);

    s->counts[JOB_SUCCESS]++;
    tx_put_msg(b->w.tx, T_STAGE, &k, &s->base);
    finds_damage(b);
}

static void wrong_counts_of_a_class_are_found(void **state)
{
    struct busy *b = *state;
    Pb__ClassRecord *class = (Pb__ClassRecord *)class_get(b->w.tx, job(b, "ready")->class_id);
    const struct key k = key_u64(class->id);

    class->unfinished++;
    tx_put_msg(b->w.tx, T_CLASS, &k, &class->base);
    finds_damage(b);
}

static void a_pipeline_that_ended_too_early_is_found(void **state)
{
    struct busy *b = *state;
    const struct key k = key_u64(b->pipeline_id);
    Pb__PipelineRecord *p = (Pb__PipelineRecord *)pipeline_get(b->w.tx, b->pipeline_id);

    p->status = STATUS_SUCCESS;
    tx_put_msg(b->w.tx, T_PIPELINE, &k, &p->base);
    finds_damage(b);
}

static void a_forgotten_timer_is_found(void **state)
{
    struct busy *b = *state;
    Pb__JobRecord *late = job(b, "late");

    late->timer_id = 0;
    late->timer_due_ms = 0;
    put_job(b, late);
    finds_damage(b);
}

static void an_epoch_that_differs_is_found(void **state)
{
    struct busy *b = *state;
    Pb__JobRecord *runs = job(b, "runs");

    runs->epoch++;
    put_job(b, runs);
    finds_damage(b);
}

static void a_second_holder_of_a_resource_group_is_found(void **state)
{
    struct busy *b = *state;
    struct cursor cur;
    struct key k;

    tx_seek(&cur, b->w.tx, T_RESOURCE_HOLD, STR_NULL, NULL);
    k = key_bytes(cur.key.p, cur.key.n - sizeof(uint64_t));
    cursor_end(&cur);
    key_add_u64(&k, world_job_id(&b->w, b->pipeline_id, "waits"));
    tx_put(b->w.tx, T_RESOURCE_HOLD, &k, STR_NULL);
    finds_damage(b);
}

static void an_id_that_was_never_given_is_found(void **state)
{
    struct busy *b = *state;
    const struct key k = key_bytes("meta", 4);
    Pb__MetaRecord *meta = (Pb__MetaRecord *)meta_get(b->w.tx);

    meta->next_id = b->pipeline_id;
    tx_put_msg(b->w.tx, T_META, &k, &meta->base);
    finds_damage(b);
}

static void a_trigger_job_that_is_at_odds_with_its_child_is_found(void **state)
{
    struct busy *b = *state;
    Pb__JobRecord *child = job(b, "child");

    child->child_pipeline_id = b->pipeline_id;
    put_job(b, child);
    finds_damage(b);
}

static void a_child_at_a_wrong_depth_is_found(void **state)
{
    struct busy *b = *state;
    const struct key k = key_u64(b->child_id);
    Pb__PipelineRecord *p = (Pb__PipelineRecord *)pipeline_get(b->w.tx, b->child_id);

    p->depth = 2;
    tx_put_msg(b->w.tx, T_PIPELINE, &k, &p->base);
    finds_damage(b);
}

static void wrong_sums_of_caches_and_variables_are_found(void **state)
{
    struct busy *b = *state;
    Pb__PipelineRecord *p = (Pb__PipelineRecord *)pipeline_get(b->w.tx, b->pipeline_id);
    Pb__ProjectRecord *project = (Pb__ProjectRecord *)project_get(b->w.tx, p->project_id);
    const struct key of_project = key_u64(project->id);
    const struct key of_pipeline = key_u64(p->id);

    project->cache_bytes++;
    tx_put_msg(b->w.tx, T_PROJECT, &of_project, &project->base);
    finds_damage(b);
    project->cache_bytes--;
    tx_put_msg(b->w.tx, T_PROJECT, &of_project, &project->base);
    the_busy_world_is_sound(state);
    p = (Pb__PipelineRecord *)pipeline_get(b->w.tx, b->pipeline_id);
    p->dotenv_bytes++;
    tx_put_msg(b->w.tx, T_PIPELINE, &of_pipeline, &p->base);
    finds_damage(b);
}

static void a_stopped_environment_with_a_timer_is_found(void **state)
{
    struct busy *b = *state;
    const struct key k = key_u64(job(b, "live")->environment_id);
    Pb__EnvironmentRecord *e = (Pb__EnvironmentRecord *)environment_get(
        b->w.tx, job(b, "live")->environment_id);

    assert_int_not_equal(e->timer_id, 0);
    e->state = ENVIRONMENT_STOPPED;
    e->stopped_ms = 1;
    tx_put_msg(b->w.tx, T_ENVIRONMENT, &k, &e->base);
    finds_damage(b);
}

static void a_deployment_that_outlives_its_job_is_found(void **state)
{
    struct busy *b = *state;
    const Pb__JobRecord *live = job(b, "live");
    const struct key k = key_u64_u64(live->environment_id, live->deployment_id);
    Pb__DeploymentRecord *d = (Pb__DeploymentRecord *)deployment_get(b->w.tx, live->environment_id,
                                                                     live->deployment_id);

    d->status = JOB_RUNNING;
    tx_put_msg(b->w.tx, T_DEPLOYMENT, &k, &d->base);
    finds_damage(b);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_busy_world_is_sound),
        TEST(a_missing_row_of_any_table_is_found),
        TEST(a_needless_row_is_found),
        TEST(a_state_that_its_indexes_deny_is_found),
        TEST(wrong_counts_of_a_stage_are_found),
        TEST(wrong_counts_of_a_class_are_found),
        TEST(a_pipeline_that_ended_too_early_is_found),
        TEST(a_forgotten_timer_is_found),
        TEST(an_epoch_that_differs_is_found),
        TEST(a_second_holder_of_a_resource_group_is_found),
        TEST(an_id_that_was_never_given_is_found),
        TEST(a_trigger_job_that_is_at_odds_with_its_child_is_found),
        TEST(a_child_at_a_wrong_depth_is_found),
        TEST(wrong_sums_of_caches_and_variables_are_found),
        TEST(a_stopped_environment_with_a_timer_is_found),
        TEST(a_deployment_that_outlives_its_job_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
