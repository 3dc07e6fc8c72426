/* What workers bring besides artifacts is bounded, and what is kept of it can be found again. */
#include "common/base.h"

#include "tests/kit/world.h"

#include "broker/core/apply.h"
#include "common/crypto.h"
#include "common/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

struct bench {
    struct world w;
    uint64_t pipeline_id;
    uint64_t worker_id;
};

static int set_up(void **state)
{
    struct bench *b = xcalloc(1, sizeof(*b));

    world_init(&b->w);
    b->worker_id = world_worker(&b->w, "w1", "", "shell", 20, true);
    assert_int_equal(world_submit(&b->w,
                                  plan_from_text(tx_arena(b->w.tx), "a: stage=a dotenv=yes\n"
                                                                    "b: stage=a dotenv=yes\n"
                                                                    "c: stage=a dotenv=yes\n"
                                                                    "d: stage=a dotenv=yes\n"
                                                                    "e: stage=a dotenv=yes\n"
                                                                    "last: stage=b when=always\n"),
                                  "main", "1"),
                     0);
    b->pipeline_id = b->w.reply.pipeline_id;
    *state = b;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *b = *state;

    world_release(&b->w);
    free(b);
    return 0;
}

static uint64_t started(struct bench *b, const char *name)
{
    const uint64_t id = world_job_id(&b->w, b->pipeline_id, name);

    if (assignment_get(b->w.tx, id) == NULL) {
        assert_int_equal(world_assign(&b->w, id, b->worker_id), 0);
    }
    return id;
}

static Pb__Variable *variable(struct bench *b, const char *name, size_t n)
{
    Pb__Variable *v = arena_alloc(tx_arena(b->w.tx), sizeof(*v));

    pb__variable__init(v);
    v->name = (char *)name;
    v->value = (ProtobufCBinaryData){n, arena_alloc(tx_arena(b->w.tx), n + 1)};
    return v;
}

static int finish(struct bench *b, const char *name, Pb__Variable **dotenv, size_t n)
{
    Pb__Outcome o = PB__OUTCOME__INIT;

    o.result = JOB_SUCCESS;
    o.dotenv = dotenv;
    o.n_dotenv = n;
    return world_finished(&b->w, started(b, name), &o);
}

static void dotenv_variables_are_few_small_and_named_rightly(void **state)
{
    struct bench *b = *state;
    Pb__Variable *list[LIMIT_DOTENV_VARIABLES + 1];

    for (size_t i = 0; i < ARRAY_LEN(list); i++) {
        list[i] = variable(b, "A", 1);
    }
    assert_int_equal(finish(b, "a", list, ARRAY_LEN(list)), -E_LIMIT);
    list[0] = variable(b, "1", 1);
    assert_int_equal(finish(b, "a", list, 1), -E_INVALID);
    list[0] = variable(b, "", 1);
    assert_int_equal(finish(b, "a", list, 1), -E_INVALID);
    list[0] = variable(b, "A", LIMIT_DOTENV_BYTES);
    assert_int_equal(finish(b, "a", list, 1), -E_LIMIT);
    list[0] = variable(b, "_A1", 1);
    assert_int_equal(finish(b, "a", list, LIMIT_DOTENV_VARIABLES), 0);
    assert_int_equal(dotenv_get(b->w.tx, world_job_id(&b->w, b->pipeline_id, "a"))->n_variables,
                     LIMIT_DOTENV_VARIABLES);
}

static void the_job_that_brings_too_much_for_its_pipeline_fails(void **state)
{
    static const char *const names[] = {"a", "b", "c", "d"};
    struct bench *b = *state;
    Pb__Variable *big = variable(b, "A", LIMIT_DOTENV_BYTES - 100);
    Pb__JobSpec *spec;
    uint64_t last;

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        assert_int_equal(finish(b, names[i], &big, 1), 0);
        assert_string_equal(world_state(&b->w, b->pipeline_id, names[i]), "success");
    }
    assert_int_equal(finish(b, "e", &big, 1), 0);
    assert_string_equal(world_state(&b->w, b->pipeline_id, "e"), "failed");
    assert_int_equal(world_job(&b->w, b->pipeline_id, "e")->reason, REASON_ARTIFACT_FAILURE);
    last = started(b, "last");
    assert_int_equal(core_job_spec(b->w.tx, last, "token", &spec), 0);
    assert_true(pb__job_spec__get_packed_size(spec) > 4 * (LIMIT_DOTENV_BYTES - 100));
}

static void a_retry_without_variables_takes_the_old_ones_away(void **state)
{
    struct bench *b = *state;
    Pb__Variable *v = variable(b, "A", 10);
    const uint64_t id = started(b, "a");

    assert_int_equal(finish(b, "a", &v, 1), 0);
    assert_non_null(dotenv_get(b->w.tx, id));
    assert_int_equal(world_retry_job(&b->w, id), 0);
    assert_int_equal(finish(b, "a", NULL, 0), 0);
    assert_null(dotenv_get(b->w.tx, id));
    assert_int_equal(pipeline_get(b->w.tx, b->pipeline_id)->dotenv_bytes, 0);
}

static void wrong_releases_and_pages_are_refused(void **state)
{
    struct bench *b = *state;
    Pb__Outcome o = PB__OUTCOME__INIT;
    Pb__ReleaseSpec release = PB__RELEASE_SPEC__INIT;
    Pb__PagesOut pages = PB__PAGES_OUT__INIT;
    uint8_t *text = arena_alloc(tx_arena(b->w.tx), LIMIT_RELEASE_BYTES + 1);

    o.result = JOB_SUCCESS;
    o.release = &release;
    assert_int_equal(world_finished(&b->w, started(b, "a"), &o), -E_INVALID);
    release.tag_name = pb_bytes_ref(STR("v1"));
    release.description = (ProtobufCBinaryData){LIMIT_RELEASE_BYTES, text};
    assert_int_equal(world_finished(&b->w, started(b, "a"), &o), -E_INVALID);
    o.release = NULL;
    o.pages = &pages;
    assert_int_equal(world_finished(&b->w, started(b, "a"), &o), -E_INVALID);
    o.pages = NULL;
    o.environment_url = (ProtobufCBinaryData){LIMIT_URL + 1, text};
    assert_int_equal(world_finished(&b->w, started(b, "a"), &o), -E_LIMIT);
}

static void a_failed_job_publishes_nothing(void **state)
{
    struct bench *b = *state;
    Pb__Outcome o = PB__OUTCOME__INIT;
    Pb__ReleaseSpec release = PB__RELEASE_SPEC__INIT;
    const uint64_t project = pipeline_get(b->w.tx, b->pipeline_id)->project_id;

    release.tag_name = pb_bytes_ref(STR("v1"));
    o.release = &release;
    o.result = JOB_FAILED;
    o.reason = REASON_SCRIPT_FAILURE;
    assert_int_equal(world_finished(&b->w, started(b, "a"), &o), 0);
    assert_null(release_by_tag(b->w.tx, project, STR("v1")));
    o.result = JOB_SUCCESS;
    assert_int_equal(world_finished(&b->w, started(b, "b"), &o), 0);
    assert_non_null(release_by_tag(b->w.tx, project, STR("v1")));
}

static void a_project_keeps_so_many_caches_and_the_newest(void **state)
{
    struct bench *b = *state;
    uint8_t digest[32] = {1};
    const uint64_t project = pipeline_get(b->w.tx, b->pipeline_id)->project_id;
    Pb__CacheSet body = PB__CACHE_SET__INIT;
    char key[16];

    body.job_id = started(b, "a");
    body.digest = (ProtobufCBinaryData){sizeof(digest), digest};
    body.size = 1;
    b->w.audit = false;
    for (unsigned i = 0; i < LIMIT_PROJECT_CACHES + 2; i++) {
        snprintf(key, sizeof(key), "key-%u", i);
        body.key = pb_bytes_ref(str_from(key));
        assert_int_equal(WORLD_APPLY(&b->w, "worker", CACHE_SET, &body), 0);
    }
    b->w.audit = true;
    assert_int_equal(WORLD_APPLY(&b->w, "worker", CACHE_SET, &body), 0);
    assert_null(cache_get(b->w.tx, project, STR("key-1")));
    assert_non_null(cache_get(b->w.tx, project, STR("key-2")));
    assert_int_equal(project_get(b->w.tx, project)->cache_count, LIMIT_PROJECT_CACHES);
    body.key = pb_bytes_ref(STR_NULL);
    assert_int_equal(WORLD_APPLY(&b->w, "worker", CACHE_SET, &body), -E_INVALID);
}

static int publish(struct bench *b, const char *name, const char *prefix)
{
    static uint8_t digest[SHA256_BYTES] = {1};
    Pb__Outcome o = PB__OUTCOME__INIT;
    Pb__ArtifactOut artifact = PB__ARTIFACT_OUT__INIT;
    Pb__ArtifactOut *artifacts[] = {&artifact};
    Pb__PagesOut pages = PB__PAGES_OUT__INIT;

    artifact.digest = (ProtobufCBinaryData){sizeof(digest), digest};
    artifact.type = (char *)"pages";
    pages.path_prefix = pb_bytes_ref(str_from(prefix));
    o.result = JOB_SUCCESS;
    o.artifacts = artifacts;
    o.n_artifacts = 1;
    o.pages = &pages;
    return world_finished(&b->w, started(b, name), &o);
}

static void a_project_publishes_under_so_many_prefixes(void **state)
{
    struct bench *b = *state;
    Pb__PagesRecord row = PB__PAGES_RECORD__INIT;

    row.project_id = pipeline_get(b->w.tx, b->pipeline_id)->project_id;
    b->w.audit = false; /* the rows are put there behind the core's back */
    for (uint64_t i = 1; i < LIMIT_PROJECT_PAGES; i++) {
        const struct key name = key_u64(i);
        const struct key k = project_hash_key(row.project_id, key_str(&name));
        row.id = i;
        tx_put_msg(b->w.tx, T_PAGES, &k, &row.base);
    }
    assert_int_equal(publish(b, "a", "the last"), 0);
    assert_string_equal(world_state(&b->w, b->pipeline_id, "a"), "success");
    assert_int_equal(publish(b, "b", "one more"), 0);
    assert_string_equal(world_state(&b->w, b->pipeline_id, "b"), "failed");
    assert_int_equal(world_job(&b->w, b->pipeline_id, "b")->reason, REASON_ARTIFACT_FAILURE);
    assert_int_equal(publish(b, "c", "the last"), 0); /* in place of the one before */
    assert_string_equal(world_state(&b->w, b->pipeline_id, "c"), "success");
    assert_int_equal(tx_count(b->w.tx, T_PAGES), LIMIT_PROJECT_PAGES);
}

static void lists_have_pages(void **state)
{
    struct bench *b = *state;
    const uint64_t project = pipeline_get(b->w.tx, b->pipeline_id)->project_id;
    const Pb__EnvironmentRecord *e[3];
    const Pb__DeploymentRecord *d[2];
    uint64_t pipeline_id, newest;

    assert_int_equal(world_submit(&b->w,
                                  plan_from_text(tx_arena(b->w.tx), "x: stage=a env=beta\n"
                                                                    "y: stage=a env=alpha\n"
                                                                    "z: stage=a env=gamma\n"),
                                  "main", "2"),
                     0);
    pipeline_id = b->w.reply.pipeline_id;
    for (unsigned i = 0; i < 3; i++) {
        const uint64_t id = world_job_id(&b->w, pipeline_id, "x");
        world_run(&b->w, id, b->worker_id, JOB_FAILED);
        assert_int_equal(world_retry_job(&b->w, id), 0);
    }
    assert_int_equal(environments_after(b->w.tx, project, NULL, 2, e), 2);
    assert_string_equal(e[0]->name, "alpha");
    assert_string_equal(e[1]->name, "beta");
    assert_int_equal(environments_after(b->w.tx, project, "beta", 2, e), 1);
    assert_string_equal(e[0]->name, "gamma");
    e[0] = environment_by_name(b->w.tx, project, "beta");
    assert_int_equal(deployments_before(b->w.tx, e[0]->id, 0, 2, d), 2);
    newest = d[0]->id;
    assert_true(d[1]->id < newest);
    assert_int_equal(deployments_before(b->w.tx, e[0]->id, d[1]->id, 2, d), 1);
    assert_int_equal(deployments_before(b->w.tx, e[0]->id, d[0]->id, 2, d), 0);
    assert_null(environment_by_name(b->w.tx, project, "delta"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(dotenv_variables_are_few_small_and_named_rightly),
        TEST(the_job_that_brings_too_much_for_its_pipeline_fails),
        TEST(a_retry_without_variables_takes_the_old_ones_away),
        TEST(wrong_releases_and_pages_are_refused),
        TEST(a_failed_job_publishes_nothing),
        TEST(a_project_keeps_so_many_caches_and_the_newest),
        TEST(a_project_publishes_under_so_many_prefixes),
        TEST(lists_have_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
