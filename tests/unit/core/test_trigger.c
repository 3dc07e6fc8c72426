/* Child pipelines: what a command must say to make one, and how many there can be. */
#include "common/base.h"

#include "tests/kit/world.h"

#include "common/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct family {
    struct world w;
    uint64_t pipeline_id;
    uint64_t job_id;
};

static int set_up(void **state)
{
    struct family *f = xcalloc(1, sizeof(*f));

    world_init(&f->w);
    assert_int_equal(world_submit(&f->w,
                                  plan_from_text(tx_arena(f->w.tx), "up: trigger=depend\n"
                                                                    "plain:\n"),
                                  "main", "1"),
                     0);
    f->pipeline_id = f->w.reply.pipeline_id;
    f->job_id = world_job_id(&f->w, f->pipeline_id, "up");
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct family *f = *state;

    world_release(&f->w);
    free(f);
    return 0;
}

/* A right command to make wrong. */
static Pb__PipelineCreate child_of(struct family *f)
{
    Pb__PipelineCreate body = PB__PIPELINE_CREATE__INIT;

    body.project = (char *)"demo";
    body.ref = (char *)"main";
    body.sha = (char *)"1";
    body.plan = plan_from_text(tx_arena(f->w.tx), "work:\n");
    body.parent_job_id = f->job_id;
    body.parent_epoch = 1;
    return body;
}

static void refused(struct family *f, Pb__PipelineCreate *body, int r, const char *why)
{
    assert_int_equal(WORLD_APPLY(&f->w, "trigger", PIPELINE_CREATE, body), r);
    if (strstr(f->w.reply.text, why) == NULL) {
        fail_msg("refused with '%s' instead of '%s'", f->w.reply.text, why);
    }
}

static void a_child_is_of_its_parents_project_and_epoch(void **state)
{
    struct family *f = *state;
    uint8_t key[32] = {1};
    Pb__PipelineCreate body = child_of(f);

    body.parent_epoch = 0;
    refused(f, &body, -E_STALE_EPOCH, "waits for no child");
    body = child_of(f);
    body.project = (char *)"other";
    refused(f, &body, -E_INVALID, "of its parent's project");
    body = child_of(f);
    body.idempotency_key = body.body_hash = (ProtobufCBinaryData){sizeof(key), key};
    refused(f, &body, -E_INVALID, "without a key");
    body = child_of(f);
    body.parent_job_id = world_job_id(&f->w, f->pipeline_id, "plain");
    refused(f, &body, -E_STALE_EPOCH, "waits for no child");
    body.parent_job_id = 9999;
    refused(f, &body, -E_NOT_FOUND, "no job");
    body = child_of(f);
    assert_int_equal(WORLD_APPLY(&f->w, "trigger", PIPELINE_CREATE, &body), 0);
}

static void parent_and_child_know_each_other(void **state)
{
    struct family *f = *state;
    const Pb__PipelineRecord *child;

    assert_int_equal(world_child(&f->w, f->job_id, plan_from_text(tx_arena(f->w.tx), "work:\n")),
                     0);
    child = pipeline_get(f->w.tx, f->w.reply.pipeline_id);
    assert_int_equal(child->depth, 1);
    assert_string_equal(child->origin, "parent_pipeline");
    assert_string_equal(child->submitted_by, "tester");
    assert_int_equal(pipeline_parent_job(f->w.tx, child)->id, f->job_id);
    assert_int_equal(job_get(f->w.tx, f->job_id)->child_pipeline_id, child->id);
    assert_null(pipeline_parent_job(f->w.tx, pipeline_get(f->w.tx, f->pipeline_id)));
}

static void a_bundle_is_kept_for_each_pipeline_that_has_it(void **state)
{
    struct family *f = *state;
    uint8_t digest[32] = {5};
    Pb__SnapshotSource bundle = PB__SNAPSHOT_SOURCE__INIT;
    Pb__PipelineCreate body = child_of(f);

    bundle.digest = (ProtobufCBinaryData){7, digest};
    body.bundle = &bundle;
    refused(f, &body, -E_INVALID, "bad bundle");
    bundle.digest.len = sizeof(digest);
    assert_false(blob_referenced(f->w.tx, str_of(digest, sizeof(digest))));
    assert_int_equal(WORLD_APPLY(&f->w, "trigger", PIPELINE_CREATE, &body), 0);
    assert_true(blob_referenced(f->w.tx, str_of(digest, sizeof(digest))));
}

static void a_family_has_a_limit(void **state)
{
    struct family *f = *state;

    f->w.audit = false;
    for (unsigned i = 0; i < LIMIT_PIPELINE_FAMILY; i++) {
        assert_int_equal(
            world_child(&f->w, f->job_id, plan_from_text(tx_arena(f->w.tx), "work:\n")), 0);
        assert_int_equal(world_cancel_job(&f->w, f->job_id), 0);
        assert_int_equal(world_retry_job(&f->w, f->job_id), 0);
        world_commit(&f->w);
    }
    f->w.audit = true;
    assert_int_equal(world_child(&f->w, f->job_id, plan_from_text(tx_arena(f->w.tx), "work:\n")),
                     -E_LIMIT);
    assert_int_equal(world_trigger_failed(&f->w, f->job_id, f->w.reply.text), 0);
    assert_string_equal(world_state(&f->w, f->pipeline_id, "up"), "failed");
}

static void why_there_is_no_child_stands_at_the_attempt(void **state)
{
    struct family *f = *state;
    const Pb__AttemptRecord *a;

    assert_int_equal(world_trigger_failed(&f->w, f->job_id, "child.yml:1:1: no jobs"), 0);
    a = attempt_get(f->w.tx, f->job_id, 1);
    assert_int_equal(a->reason, REASON_CONFIG_ERROR);
    assert_string_equal(a->detail, "child.yml:1:1: no jobs");
    assert_int_equal(a->worker_id, 0);
    assert_true(a->log_complete);
    assert_int_equal(world_trigger_failed(&f->w, f->job_id, "again"), -E_STALE_EPOCH);
}

/* The core's own words cut names by bytes, and they come back as the detail. */
static void words_that_end_within_a_character_stay_readable(void **state)
{
    struct family *f = *state;
    char long_name[LIMIT_NAME] = "a";
    Pb__PipelineCreate body;
    Pb__Plan *plan;

    for (size_t i = 1; i < 60; i += 2) {
        memcpy(long_name + i, "\xc3\xa4", 2);
    }
    assert_int_equal(world_submit(&f->w,
                                  plan_from_text(tx_arena(f->w.tx), "up: trigger=depend group=g\n"),
                                  "main", "1"),
                     0);
    f->job_id = world_job_id(&f->w, f->w.reply.pipeline_id, "up");
    plan = plan_from_text(tx_arena(f->w.tx), "work: group=g\n");
    plan->jobs[0]->name = long_name;
    body = child_of(f);
    body.plan = plan;
    refused(f, &body, -E_INVALID, "would wait for ever");
    assert_true(str_is_utf8(str_from(f->w.reply.text), NULL));
    assert_int_equal(world_trigger_failed(&f->w, f->job_id, "job a\xc3 would wait"), 0);
    assert_string_equal(attempt_get(f->w.tx, f->job_id, 1)->detail, "job a? would wait");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_child_is_of_its_parents_project_and_epoch),
        TEST(parent_and_child_know_each_other),
        TEST(a_bundle_is_kept_for_each_pipeline_that_has_it),
        TEST(a_family_has_a_limit),
        TEST(why_there_is_no_child_stands_at_the_attempt),
        TEST(words_that_end_within_a_character_stay_readable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
