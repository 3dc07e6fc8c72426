/* Projects, pipelines, jobs, workers: every route's success and its errors. */
#include "common/base.h"

#include "tests/unit/api/fixture.h"

#include "broker/api/server.h"

#include "common/crypto.h"
#include "common/limits.h"

#define ONE_JOB "build:\n  script: [make]\n"
#define TWO_STAGES                                                \
    "stages: [build, test]\n"                                     \
    "build:\n  stage: build\n  script: [make]\n  tags: [linux]\n" \
    "test:\n  stage: test\n  script: [make check]\n"

static json_t *job_of(struct fixture *x, uint64_t id)
{
    return get_json(x, 200, "/api/v1/jobs/%" PRIu64, id);
}

static void health_version_and_readiness_are_told(void **state)
{
    struct fixture *x = *state;
    json_t *version = get_json(x, 200, "/api/v1/version");
    assert_string_equal(text_of(version, "version"), DAVIT_VERSION);
    assert_int_equal(id_of(version, "schema"), STORE_SCHEMA_VERSION);
    assert_int_equal(id_of(version, "wire"), WIRE_VERSION);
    json_decref(version);
    struct call c = {.path = "/healthz", .token = ""};
    struct answer a;
    call(x, &c, &a);
    assert_int_equal(a.status, 200);
    answer_release(&a);
    c.path = "/readyz";
    call(x, &c, &a);
    assert_int_equal(a.status, 200);
    answer_release(&a);
}

static void it_is_not_ready_before_workers_are_served(void **state)
{
    struct fixture *x = *state;
    x->api->ready = false; /* as it is until api_set_ready */
    assert_problem(x, &(struct call){.path = "/readyz", .token = ""}, 503, "busy");
    json_decref(get_json(x, 200, "/healthz"));
    api_set_ready(x->api);
    json_decref(get_json(x, 200, "/readyz"));
}

static void a_stopped_turn_is_not_healthy(void **state)
{
    struct fixture *x = *state;
    turn_stop(x->turn);
    struct call c = {.path = "/api/v1/jobs/1/cancel", .body = "{}"};
    assert_problem(x, &c, 503, "shutting_down");
}

static void a_submitted_pipeline_is_shown_with_its_jobs(void **state)
{
    struct fixture *x = *state;
    uint64_t job_id;
    uint64_t id = submit(x, TWO_STAGES, &job_id);
    json_t *p = get_json(x, 200, "/api/v1/pipelines/%" PRIu64, id);
    assert_int_equal(id_of(p, "id"), id);
    assert_int_equal(id_of(p, "iid"), 1);
    assert_string_equal(text_of(p, "project"), "group/test");
    assert_string_equal(text_of(p, "ref"), "main");
    assert_string_equal(text_of(p, "origin"), "api");
    assert_string_equal(text_of(p, "status"), "pending");
    assert_true(json_is_false(json_object_get(p, "tag")));
    assert_true(json_is_null(json_object_get(p, "started_at")));
    assert_int_equal(strlen(text_of(p, "created_at")), strlen("2026-02-03T04:05:06Z"));
    const json_t *stages = json_object_get(p, "stages");
    assert_int_equal(json_array_size(stages), 2);
    assert_string_equal(text_of(json_array_get(stages, 1), "name"), "test");
    assert_string_equal(text_of(json_array_get(stages, 1), "status"), "created");
    const json_t *jobs = json_object_get(p, "jobs");
    assert_int_equal(json_array_size(jobs), 2);
    const json_t *build = json_array_get(jobs, 0);
    assert_string_equal(text_of(build, "name"), "build");
    assert_string_equal(text_of(build, "stage"), "build");
    assert_string_equal(text_of(build, "status"), "pending");
    assert_string_equal(text_of(build, "when"), "on_success");
    assert_string_equal(json_string_value(json_array_get(json_object_get(build, "tags"), 0)),
                        "linux");
    assert_true(json_is_null(json_object_get(build, "needs")));
    assert_true(json_is_null(json_object_get(build, "exit_code")));
    json_decref(p);
}

static void a_whole_submit_is_kept_as_it_was_said(void **state)
{
    struct fixture *x = *state;
    json_t *blob = post_json(x, 201, "snapshot", "/api/v1/blobs");
    struct buf body = BUF_INIT;
    buf_addf(&body,
             "{\"project\":\"a/b\",\"ref\":\"v1\",\"tag\":true,"
             "\"sha\":\"0123456789012345678901234567890123456789\","
             "\"before_sha\":\"0000000000000000000000000000000000000000\",\"origin\":\"push\","
             "\"default_branch\":\"trunk\",\"commit\":{\"message\":\"m\",\"author\":\"A <a@b>\","
             "\"timestamp\":\"2026-01-01T00:00:00Z\"},"
             "\"source\":{\"snapshot\":{\"digest\":\"%s\",\"size\":8}},\"file\":\"ci.yml\","
             "\"files\":{\"ci.yml\":\"include: [more.yml]\","
             "\"more.yml\":\"a:\\n  script: [x]\\n  rules:\\n    - changes: [src/*]\\n\"},"
             "\"paths\":[\"src/a\"],\"changes\":[\"src/a\"],"
             "\"variables\":[{\"name\":\"X\",\"value\":\"y\",\"raw\":true,\"file\":false}]}",
             text_of(blob, "digest"));
    json_t *p = post_json(x, 201, buf_cstr(&body), "/api/v1/pipelines");
    assert_string_equal(text_of(p, "ref"), "v1");
    assert_true(json_is_true(json_object_get(p, "tag")));
    assert_string_equal(text_of(p, "sha"), "0123456789012345678901234567890123456789");
    assert_string_equal(text_of(p, "origin"), "push");
    json_decref(p);
    json_decref(blob);
    buf_release(&body);
}

static void git_sources_are_checked(void **state)
{
    struct fixture *x = *state;
    static const struct {
        const char *git;
        int status;
    } cases[] = {
        {"\"url\":\"file:///r\",\"sha\":\"0123456789012345678901234567890123456789\"", 201},
        {"\"url\":\"https://h/r\",\"sha\":\"0123456789012345678901234567890123456789\","
         "\"ref\":\"main\"",
         201},
        {"\"url\":\"ssh://h/r\",\"sha\":\"0123456789012345678901234567890123456789\"", 400},
        {"\"url\":\"--upload-pack=x\",\"sha\":\"0123456789012345678901234567890123456789\"", 400},
        {"\"url\":\"https://h/r\\nhost=x\",\"sha\":\"0123456789012345678901234567890123456789\"",
         400},
        {"\"url\":\"ext::sh\",\"sha\":\"0123456789012345678901234567890123456789\"", 400},
        {"\"url\":\"file:///r\",\"sha\":\"main\"", 400},
        {"\"url\":\"file:///r\"", 400},
        {"\"sha\":\"0123456789012345678901234567890123456789\"", 400},
        {"\"url\":1", 400},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct buf body = BUF_INIT;
        buf_addf(&body,
                 "{\"project\":\"a\",\"files\":{\".gitlab-ci.yml\":\"a: {script: [x]}\"},"
                 "\"source\":{\"git\":{%s}}}",
                 cases[i].git);
        json_decref(post_json(x, cases[i].status, buf_cstr(&body), "/api/v1/pipelines"));
        buf_release(&body);
    }
}

static void a_submit_that_is_wrong_is_refused_by_name(void **state)
{
    struct fixture *x = *state;
    static const struct {
        const char *body;
        const char *names;
    } cases[] = {
        {"{\"projct\":\"a\"}", "projct"},
        {"{\"files\":{\".gitlab-ci.yml\":\"a: {script: [x]}\"}}", "project"},
        {"{\"project\":1}", "project"},
        {"{\"project\":\"a\"}", ".gitlab-ci.yml"},
        {"{\"project\":\"a\",\"files\":{\"x\":\"y\"},\"file\":\"z\"}", "z"},
        {"{\"project\":\"a\",\"files\":{\"x\":1}}", "x"},
        {"{\"project\":\"a\",\"files\":[]}", "files"},
        {"{\"project\":\"a\",\"tag\":\"yes\"}", "tag"},
        {"{\"project\":\"a\",\"sha\":\"main\"}", "sha"},
        {"{\"project\":\"a\",\"commit\":{\"date\":\"x\"}}", "commit.date"},
        {"{\"project\":\"a\",\"files\":{\".gitlab-ci.yml\":\"a: {script: [x]}\"},\"paths\":[1]}",
         "paths"},
        {"{\"project\":\"a\",\"files\":{\".gitlab-ci.yml\":\"a: {script: [x]}\"},"
         "\"variables\":[{\"name\":\"1X\"}]}",
         "1X"},
        {"{\"project\":\"a\",\"files\":{\".gitlab-ci.yml\":\"a: {script: [x]}\"},"
         "\"variables\":[{\"name\":\"X\",\"secret\":true}]}",
         "variables[0].secret"},
        {"{\"project\":\"a\",\"files\":{\".gitlab-ci.yml\":\"a: {script: [x]}\"},\"source\":{}}",
         "source"},
        {"{\"project\":\"a\",\"files\":{\".gitlab-ci.yml\":\"a: {script: [x]}\"},"
         "\"source\":{\"snapshot\":{\"digest\":\"abc\"}}}",
         "digest"},
        {"{\"project\":\"a\",\"files\":{\".gitlab-ci.yml\":\"a: {script: [x]}\"},"
         "\"source\":{\"snapshot\":{\"digest\":"
         "\"0000000000000000000000000000000000000000000000000000000000000000\"}}}",
         "upload"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        json_t *problem = post_json(x, 400, cases[i].body, "/api/v1/pipelines");
        if (!strstr(text_of(problem, "detail"), cases[i].names)) {
            fail_msg("%s: %s", cases[i].body, text_of(problem, "detail"));
        }
        json_decref(problem);
    }
    json_t *list = get_json(x, 200, "/api/v1/pipelines");
    assert_int_equal(json_array_size(json_object_get(list, "items")), 0);
    json_decref(list);
}

static void a_pipeline_file_with_errors_is_answered_with_diagnostics(void **state)
{
    json_t *problem = post_json(
        *state, 422, "{\"project\":\"a\",\"files\":{\".gitlab-ci.yml\":\"a:\\n  scirpt: [x]\\n\"}}",
        "/api/v1/pipelines");
    assert_string_equal(text_of(problem, "code"), "pipeline_invalid");
    const json_t *d = json_array_get(json_object_get(problem, "diagnostics"), 0);
    assert_string_equal(text_of(d, "level"), "error");
    assert_string_equal(text_of(d, "file"), ".gitlab-ci.yml");
    assert_int_equal(id_of(d, "line"), 2);
    assert_int_equal(id_of(d, "column"), 3);
    assert_non_null(strstr(text_of(d, "message"), "scirpt"));
    json_decref(problem);
}

static void lint_explains_when_asked(void **state)
{
    struct fixture *x = *state;
    json_t *answer = post_json(
        x, 200,
        "{\"explain\":true,\"files\":{\".gitlab-ci.yml\":\".b: {script: [x]}\\n"
        "a: {extends: .b}\\n"
        "c: {extends: .b, rules: [{if: $CI_COMMIT_TAG}]}\"}}",
        "/api/v1/lint");
    const json_t *explain = json_object_get(answer, "explain");
    const json_t *jobs = json_object_get(explain, "jobs");
    assert_int_equal(json_array_size(jobs), 2);
    assert_true(json_is_true(json_object_get(json_array_get(jobs, 0), "in")));
    assert_true(json_is_false(json_object_get(json_array_get(jobs, 1), "in")));
    assert_string_equal(text_of(json_array_get(jobs, 1), "why"), "no rule matches");
    assert_null(strstr(text_of(explain, "merged"), "extends"));
    json_decref(answer);
    json_decref(post_json(x, 400, "{\"explain\":true,\"project\":\"a\",\"files\":{}}",
                          "/api/v1/pipelines"));
}

static void lint_tells_without_submitting(void **state)
{
    struct fixture *x = *state;
    json_t *good = post_json(
        x, 200,
        "{\"files\":{\".gitlab-ci.yml\":\"a: {script: [x], when: manual, stage: deploy}\"}}",
        "/api/v1/lint");
    assert_true(json_is_true(json_object_get(good, "valid")));
    const json_t *job = json_array_get(json_object_get(good, "jobs"), 0);
    assert_string_equal(text_of(job, "name"), "a");
    assert_string_equal(text_of(job, "stage"), "deploy");
    assert_string_equal(text_of(job, "when"), "manual");
    json_decref(good);
    json_t *bad = post_json(x, 200, "{\"files\":{\".gitlab-ci.yml\":\"a: [\"}}", "/api/v1/lint");
    assert_true(json_is_false(json_object_get(bad, "valid")));
    assert_true(json_array_size(json_object_get(bad, "diagnostics")) > 0);
    assert_int_equal(json_array_size(json_object_get(bad, "jobs")), 0);
    json_decref(bad);
    json_t *list = get_json(x, 200, "/api/v1/pipelines");
    assert_int_equal(json_array_size(json_object_get(list, "items")), 0);
    json_decref(list);
}

static void the_same_key_gives_the_first_answer_again(void **state)
{
    struct fixture *x = *state;
    struct answer first, second;
    struct call c = {
        .path = "/api/v1/pipelines",
        .body = "{\"project\":\"a\",\"files\":{\".gitlab-ci.yml\":\"a: {script: [x]}\"}}",
        .headers = {"Idempotency-Key: one"}};
    call(x, &c, &first);
    assert_int_equal(first.status, 201);
    call(x, &c, &second);
    assert_int_equal(second.status, 200);
    assert_int_equal(id_of(first.json, "id"), id_of(second.json, "id"));
    c.headers[0] = "Idempotency-Key: two";
    answer_release(&second);
    call(x, &c, &second);
    assert_int_equal(second.status, 201);
    assert_true(id_of(first.json, "id") != id_of(second.json, "id"));
    answer_release(&first);
    answer_release(&second);
    c.body = "{\"project\":\"b\",\"files\":{\".gitlab-ci.yml\":\"a: {script: [x]}\"}}";
    assert_problem(x, &c, 422, "idempotency_key_reused");
    c.headers[0] = "Idempotency-Key: a b";
    assert_problem(x, &c, 400, "invalid");
}

static void what_is_not_there_is_not_found(void **state)
{
    struct fixture *x = *state;
    static const char *const gets[] = {
        "/api/v1/pipelines/7",      "/api/v1/pipelines/7/events",    "/api/v1/jobs/7",
        "/api/v1/jobs/7/log",       "/api/v1/jobs/7/log/follow",     "/api/v1/jobs/7/why",
        "/api/v1/jobs/7/artifacts", "/api/v1/pipelines?project=none"};
    static const char *const posts[] = {
        "/api/v1/pipelines/7/cancel", "/api/v1/pipelines/7/retry", "/api/v1/jobs/7/cancel",
        "/api/v1/jobs/7/retry",       "/api/v1/jobs/7/play",       "/api/v1/workers/7/pause",
        "/api/v1/workers/7/resume",   "/api/v1/workers/7/drain",   "/api/v1/workers/7/undrain"};
    for (size_t i = 0; i < ARRAY_LEN(gets); i++) {
        assert_problem(x, &(struct call){.path = gets[i]}, 404, "not_found");
    }
    for (size_t i = 0; i < ARRAY_LEN(posts); i++) {
        assert_problem(x, &(struct call){.path = posts[i], .body = "{}"}, 404, "not_found");
        assert_problem(x, &(struct call){.path = posts[i], .body = "{\"force\":1}"}, 400,
                       "invalid");
    }
}

static void a_running_job_is_shown_with_its_attempt(void **state)
{
    struct fixture *x = *state;
    uint64_t job_id;
    submit(x, ONE_JOB, &job_id);
    worker_hello(x);
    job_start(x, job_id);
    json_t *job = job_of(x, job_id);
    assert_string_equal(text_of(job, "status"), "running");
    assert_string_equal(text_of(job, "worker"), "w1");
    assert_int_equal(id_of(job, "attempt"), 1);
    const json_t *attempt = json_array_get(json_object_get(job, "attempts"), 0);
    assert_string_equal(text_of(attempt, "worker"), "w1");
    assert_string_equal(text_of(attempt, "status"), "running");
    assert_true(json_is_false(json_object_get(attempt, "log_complete")));
    json_decref(job);
    job_finish(x, job_id, JOB_FAILED, NULL);
    job = job_of(x, job_id);
    assert_string_equal(text_of(job, "status"), "failed");
    assert_string_equal(text_of(job, "reason"), "script_failure");
    assert_int_equal(id_of(job, "exit_code"), 3);
    assert_true(json_is_integer(json_object_get(job, "duration_ms")));
    json_decref(job);
}

static void a_pipeline_is_canceled_and_retried(void **state)
{
    struct fixture *x = *state;
    uint64_t id = submit(x, ONE_JOB, NULL);
    json_t *p = post_json(x, 202, "{}", "/api/v1/pipelines/%" PRIu64 "/cancel", id);
    assert_string_equal(text_of(p, "status"), "canceled");
    json_decref(p);
    p = post_json(x, 202, "", "/api/v1/pipelines/%" PRIu64 "/retry", id);
    assert_string_equal(text_of(p, "status"), "running");
    json_decref(p);
}

static void a_job_is_canceled_and_retried(void **state)
{
    struct fixture *x = *state;
    uint64_t job_id;
    submit(x, ONE_JOB, &job_id);
    json_t *job = post_json(x, 202, "{}", "/api/v1/jobs/%" PRIu64 "/cancel", job_id);
    assert_string_equal(text_of(job, "status"), "canceled");
    json_decref(job);
    job = post_json(x, 202, "{}", "/api/v1/jobs/%" PRIu64 "/retry", job_id);
    assert_string_equal(text_of(job, "status"), "pending");
    json_decref(job);
    job = post_json(x, 409, "{}", "/api/v1/jobs/%" PRIu64 "/retry", job_id);
    assert_string_equal(text_of(job, "code"), "conflict");
    json_decref(job);
}

static void a_manual_job_is_played_with_variables(void **state)
{
    struct fixture *x = *state;
    uint64_t job_id;
    submit(x, "a:\n  script: [x]\n  when: manual\n", &job_id);
    json_t *why = get_json(x, 200, "/api/v1/jobs/%" PRIu64 "/why", job_id);
    assert_string_equal(text_of(why, "summary"), "waits for somebody to play it");
    json_decref(why);
    json_decref(post_json(x, 400, "{\"variables\":[{\"name\":\"-\"}]}",
                          "/api/v1/jobs/%" PRIu64 "/play", job_id));
    json_t *job = post_json(x, 202, "{\"variables\":[{\"name\":\"X\",\"value\":\"1\"}]}",
                            "/api/v1/jobs/%" PRIu64 "/play", job_id);
    assert_string_equal(text_of(job, "status"), "pending");
    json_decref(job);
    json_decref(post_json(x, 409, "{}", "/api/v1/jobs/%" PRIu64 "/play", job_id));
}

static void why_names_what_a_job_waits_for(void **state)
{
    struct fixture *x = *state;
    uint64_t build;
    submit(x, TWO_STAGES, &build);
    json_t *why = get_json(x, 200, "/api/v1/jobs/%" PRIu64 "/why", build);
    assert_string_equal(text_of(why, "status"), "pending");
    assert_non_null(strstr(text_of(why, "summary"), "worker"));
    json_decref(why);
    why = get_json(x, 200, "/api/v1/jobs/%" PRIu64 "/why", build + 1);
    assert_string_equal(text_of(why, "status"), "created");
    assert_string_equal(text_of(why, "summary"), "waits for: build");
    json_decref(why);
    worker_hello(x);
    why = get_json(x, 200, "/api/v1/jobs/%" PRIu64 "/why", build);
    assert_int_equal(id_of(why, "position"), 1);
    assert_true(json_is_false(json_object_get(why, "never")));
    const json_t *worker = json_array_get(json_object_get(why, "workers"), 0);
    assert_string_equal(text_of(worker, "name"), "w1");
    assert_string_equal(text_of(worker, "reason"), "offline");
    json_decref(why);
    job_start(x, build);
    why = get_json(x, 200, "/api/v1/jobs/%" PRIu64 "/why", build);
    assert_non_null(strstr(text_of(why, "summary"), "runs on worker w1 since 20"));
    json_decref(why);
    job_finish(x, build, JOB_FAILED, NULL);
    why = get_json(x, 200, "/api/v1/jobs/%" PRIu64 "/why", build);
    assert_string_equal(text_of(why, "summary"), "has ended: failed (script_failure)");
    json_decref(why);
}

static void why_tells_when_no_worker_could_ever_run_a_job(void **state)
{
    struct fixture *x = *state;
    uint64_t job_id;
    worker_hello(x);
    submit(x, "a:\n  script: [x]\n  tags: [gpu, linux]\n", &job_id);
    json_t *why = get_json(x, 200, "/api/v1/jobs/%" PRIu64 "/why", job_id);
    assert_true(json_is_true(json_object_get(why, "never")));
    assert_non_null(strstr(text_of(why, "summary"), "tags: gpu, linux"));
    const json_t *worker = json_array_get(json_object_get(why, "workers"), 0);
    assert_non_null(strstr(text_of(worker, "reason"), "gpu"));
    json_decref(why);
}

static void why_names_the_holder_of_a_resource_group(void **state)
{
    struct fixture *x = *state;
    uint64_t first, second;
    const char *yaml = "deploy:\n  script: [x]\n  resource_group: production\n";
    worker_hello(x);
    submit(x, yaml, &first);
    job_start(x, first);
    submit(x, yaml, &second);
    json_t *why = get_json(x, 200, "/api/v1/jobs/%" PRIu64 "/why", second);
    assert_string_equal(text_of(why, "status"), "waiting_for_resource");
    assert_int_equal(id_of(why, "holder"), first);
    assert_non_null(strstr(text_of(why, "summary"), "production"));
    assert_int_equal(id_of(why, "position"), 1);
    json_decref(why);
    uint64_t third;
    submit(x, yaml, &third);
    why = get_json(x, 200, "/api/v1/jobs/%" PRIu64 "/why", third);
    assert_int_equal(id_of(why, "position"), 2);
    assert_non_null(strstr(text_of(why, "summary"), "number 2 of those that wait"));
    json_decref(why);
}

static void needs_are_listed_by_id_and_named_by_why(void **state)
{
    struct fixture *x = *state;
    uint64_t first;
    submit(x,
           "a:\n  script: [x]\nb:\n  script: [x]\n  needs: [a]\nc:\n  script: [x]\n  needs: []\n",
           &first);
    json_t *job = job_of(x, first + 1);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(job, "needs"), 0)), first);
    json_decref(job);
    job = job_of(x, first + 2);
    assert_true(json_is_array(json_object_get(job, "needs")));
    json_decref(job);
    json_t *why = get_json(x, 200, "/api/v1/jobs/%" PRIu64 "/why", first + 1);
    assert_string_equal(text_of(why, "summary"), "waits for: a");
    json_decref(why);
}

static void workers_are_shown_paused_and_drained(void **state)
{
    struct fixture *x = *state;
    static const struct {
        const char *verb, *field;
        bool value;
    } steps[] = {{"pause", "paused", true},
                 {"resume", "paused", false},
                 {"drain", "draining", true},
                 {"undrain", "draining", false}};
    uint64_t job_id;
    worker_hello(x);
    submit(x, ONE_JOB, &job_id);
    job_start(x, job_id);
    json_t *list = get_json(x, 200, "/api/v1/workers");
    const json_t *w = json_array_get(json_object_get(list, "items"), 0);
    assert_string_equal(text_of(w, "name"), "w1");
    assert_string_equal(text_of(w, "host"), "here");
    assert_int_equal(id_of(w, "slots"), 4);
    assert_int_equal(id_of(w, "busy"), 1);
    assert_true(json_is_false(json_object_get(w, "online")));
    assert_int_equal(json_integer_value(json_array_get(json_object_get(w, "jobs"), 0)), job_id);
    json_decref(list);
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        json_t *worker = post_json(x, 202, "{}", "/api/v1/workers/%" PRIu64 "/%s", x->worker_id,
                                   steps[i].verb);
        assert_int_equal(json_is_true(json_object_get(worker, steps[i].field)), steps[i].value);
        json_decref(worker);
    }
}

static void lists_are_walked_page_by_page_without_gaps(void **state)
{
    struct fixture *x = *state;
    uint64_t ids[7];
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        ids[i] = submit(x, ONE_JOB, NULL);
    }
    uint64_t after = UINT64_MAX;
    size_t seen = 0;
    while (after > 0) {
        json_t *page = get_json(x, 200, "/api/v1/pipelines?limit=3&after=%" PRIu64, after);
        const json_t *items = json_object_get(page, "items");
        for (size_t i = 0; i < json_array_size(items); i++) {
            assert_int_equal(id_of(json_array_get(items, i), "id"), ids[ARRAY_LEN(ids) - 1 - seen]);
            seen++;
        }
        after = id_of(page, "next");
        json_decref(page);
    }
    assert_int_equal(seen, ARRAY_LEN(ids));
    json_t *page = get_json(x, 200, "/api/v1/pipelines?limit=7");
    assert_true(json_is_null(json_object_get(page, "next")));
    json_decref(page);
    page = get_json(x, 200, "/api/v1/pipelines?after=1");
    assert_int_equal(json_array_size(json_object_get(page, "items")), 0);
    json_decref(page);
}

static size_t count_items(struct fixture *x, const char *path)
{
    json_t *list = get_json(x, 200, "%s", path);
    size_t n = json_array_size(json_object_get(list, "items"));
    json_decref(list);
    return n;
}

static void pipelines_are_filtered_by_project_and_status(void **state)
{
    struct fixture *x = *state;
    uint64_t id = submit(x, ONE_JOB, NULL);
    submit(x, ONE_JOB, NULL);
    json_decref(post_json(x, 201,
                          "{\"project\":\"other\",\"files\":{\".gitlab-ci.yml\":"
                          "\"a: {script: [x]}\"}}",
                          "/api/v1/pipelines"));
    json_decref(post_json(x, 202, "{}", "/api/v1/pipelines/%" PRIu64 "/cancel", id));
    assert_int_equal(count_items(x, "/api/v1/pipelines"), 3);
    assert_int_equal(count_items(x, "/api/v1/pipelines?project=other"), 1);
    assert_int_equal(count_items(x, "/api/v1/pipelines?project=group%2Ftest"), 2);
    assert_int_equal(count_items(x, "/api/v1/pipelines?status=pending"), 2);
    assert_int_equal(count_items(x, "/api/v1/pipelines?status=canceled"), 1);
    assert_int_equal(count_items(x, "/api/v1/pipelines?project=group/test&status=pending"), 1);
    assert_int_equal(count_items(x, "/api/v1/pipelines?status=running"), 0);
    assert_int_equal(count_items(x, "/api/v1/projects"), 2);
}

static void metrics_tell_what_happened(void **state)
{
    struct fixture *x = *state;
    struct answer a;
    uint64_t job_id;
    submit(x, "a: {script: [x]}\nb: {script: [x]}\nc: {script: [x]}\n", &job_id);
    worker_hello(x);
    job_start(x, job_id);
    job_finish(x, job_id, JOB_SUCCESS, NULL);
    job_start(x, job_id + 1);
    json_decref(get_json(x, 200, "/api/v1/jobs/%" PRIu64, job_id)); /* the store has it now */
    call(x, &(struct call){.path = "/nothing"}, &a);
    answer_release(&a);
    call(x, &(struct call){.path = "/metrics"}, &a);
    assert_int_equal(a.status, 200);
    static const char *const lines[] = {
        "# TYPE davit_turns_total counter\n",
        "\ndavit_jobs{state=\"pending\"} 1\n",
        "\ndavit_jobs{state=\"running\"} 1\n",
        "\ndavit_jobs{state=\"success\"} 1\n",
        "\ndavit_jobs{state=\"skipped\"} 0\n",
        "\n# TYPE davit_job_wait_seconds histogram\n",
        "\ndavit_job_wait_seconds_bucket{pool=\"\",le=\"+Inf\"} 2\n",
        "\ndavit_job_wait_seconds_count{pool=\"\"} 2\n",
        "\ndavit_job_run_seconds_bucket{pool=\"\",le=\"0.05\"} ",
        "\ndavit_job_run_seconds_bucket{pool=\"\",le=\"86400\"} 1\n",
        "\ndavit_job_run_seconds_sum{pool=\"\"} ",
        "\ndavit_job_run_seconds_count{pool=\"\"} 1\n",
        "\ndavit_pipelines_live 1\n",
        "\ndavit_rollouts_live 0\n",
        "\ndavit_workers_online 0\n",
        "\ndavit_http_requests_total{route=\"POST /api/v1/pipelines\",code=\"201\"} 1\n",
        "\ndavit_http_requests_total{route=\"none\",code=\"404\"} 1\n",
        "\ndavit_log_bytes_total 0\n",
        "\nprocess_resident_memory_bytes ",
        "\nprocess_open_fds ",
    };
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        if (!strstr(buf_cstr(&a.body), lines[i])) {
            fail_msg("not in /metrics: %s\n%s", lines[i], buf_cstr(&a.body));
        }
    }
    answer_release(&a);
}

static void many_submits_at_once_are_all_kept(void **state)
{
    struct fixture *x = *state;
    enum { CLIENTS = 32 };
    struct plug plugs[CLIENTS];
    const char *body = "{\"project\":\"a\",\"files\":{\".gitlab-ci.yml\":\"a: {script: [x]}\"}}";
    for (size_t i = 0; i < CLIENTS; i++) {
        plug_open(&plugs[i], x);
        plug_sendf(
            &plugs[i],
            "POST /api/v1/pipelines HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " ADMIN_TOKEN
            "\r\nContent-Length: %zu\r\n\r\n%s",
            strlen(body), body);
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        assert_int_equal(plug_status(&plugs[i]), 201);
        plug_close(&plugs[i]);
    }
    assert_int_equal(count_items(x, "/api/v1/pipelines?limit=200"), CLIENTS);
}

static void a_stop_in_the_middle_of_submits_answers_or_closes_them_all(void **state)
{
    struct fixture *x = *state;
    struct plug plugs[16];
    const char *body = "{\"project\":\"a\",\"files\":{\".gitlab-ci.yml\":\"a: {script: [x]}\"}}";
    for (size_t i = 0; i < ARRAY_LEN(plugs); i++) {
        plug_open(&plugs[i], x);
        plug_sendf(
            &plugs[i],
            "POST /api/v1/pipelines HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " ADMIN_TOKEN
            "\r\nContent-Length: %zu\r\n\r\n%s",
            strlen(body), body);
    }
    fixture_restart_api(x, 0);
    for (size_t i = 0; i < ARRAY_LEN(plugs); i++) {
        assert_true(plug_closed(&plugs[i], 5000));
        plug_close(&plugs[i]);
    }
    json_decref(get_json(x, 200, "/healthz"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(health_version_and_readiness_are_told),
        TEST(it_is_not_ready_before_workers_are_served),
        TEST(a_stopped_turn_is_not_healthy),
        TEST(a_submitted_pipeline_is_shown_with_its_jobs),
        TEST(a_whole_submit_is_kept_as_it_was_said),
        TEST(git_sources_are_checked),
        TEST(a_submit_that_is_wrong_is_refused_by_name),
        TEST(a_pipeline_file_with_errors_is_answered_with_diagnostics),
        TEST(lint_explains_when_asked),
        TEST(lint_tells_without_submitting),
        TEST(the_same_key_gives_the_first_answer_again),
        TEST(what_is_not_there_is_not_found),
        TEST(a_running_job_is_shown_with_its_attempt),
        TEST(a_pipeline_is_canceled_and_retried),
        TEST(a_job_is_canceled_and_retried),
        TEST(a_manual_job_is_played_with_variables),
        TEST(why_names_what_a_job_waits_for),
        TEST(why_tells_when_no_worker_could_ever_run_a_job),
        TEST(why_names_the_holder_of_a_resource_group),
        TEST(needs_are_listed_by_id_and_named_by_why),
        TEST(workers_are_shown_paused_and_drained),
        TEST(lists_are_walked_page_by_page_without_gaps),
        TEST(pipelines_are_filtered_by_project_and_status),
        TEST(metrics_tell_what_happened),
        TEST(many_submits_at_once_are_all_kept),
        TEST(a_stop_in_the_middle_of_submits_answers_or_closes_them_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
