/* What jobs leave behind, over HTTP: artifacts by type, caches, environments, releases, pages. */
#include "common/base.h"

#include "tests/unit/api/fixture.h"

#include <fcntl.h>
#include <unistd.h>

#include "broker/core/query.h"
#include "common/archive.h"
#include "common/crypto.h"

#define ONE_JOB "build:\n  script: [make]\n"

/* Uploads bytes; NULL: as the admin. */
static void put_blob_as(struct fixture *x, const char *token, const char *p, size_t n,
                        uint8_t ret[SHA256_BYTES])
{
    struct answer a;
    call(x, &(struct call){.path = "/api/v1/blobs", .token = token, .body = p, .body_size = n}, &a);
    assert_int_equal(a.status, 201);
    assert_int_equal(str_from_hex(str_from(text_of(a.json, "digest")), ret, SHA256_BYTES), 0);
    answer_release(&a);
}

static void put_blob(struct fixture *x, const char *p, size_t n, uint8_t ret[SHA256_BYTES])
{
    put_blob_as(x, NULL, p, n, ret);
}

static void set_artifact(struct arena *a, Pb__Outcome *o, const char *type, const uint8_t *digest)
{
    Pb__ArtifactOut *out = arena_alloc(a, sizeof(*out));
    pb__artifact_out__init(out);
    out->type = arena_strdup(a, str_from(type));
    out->digest = pb_bytes(a, str_of(digest, SHA256_BYTES));
    out->size = 1;
    out->file_count = 1;
    out->name = out->type;
    if (o->n_artifacts == 0) {
        o->artifacts = arena_array(a, 8, sizeof(*o->artifacts));
    }
    o->artifacts[o->n_artifacts++] = out;
}

static char *job_path(uint64_t job_id, const char *rest)
{
    struct buf path = BUF_INIT;
    buf_addf(&path, "/api/v1/jobs/%" PRIu64 "%s", job_id, rest);
    return buf_take(&path);
}

/* --- artifacts --- */

static void artifacts_are_fetched_by_type(void **state)
{
    struct fixture *x = *state;
    struct arena a;
    struct answer answer;
    uint8_t archive[SHA256_BYTES], junit[SHA256_BYTES], closed[SHA256_BYTES];
    Pb__Outcome o = PB__OUTCOME__INIT;
    uint64_t job_id;
    arena_init(&a, 0);
    submit(x, ONE_JOB, &job_id);
    put_blob(x, "archive", 7, archive);
    put_blob(x, "junit", 5, junit);
    put_blob(x, "closed", 6, closed);
    worker_hello(x);
    job_start(x, job_id);
    set_artifact(&a, &o, "archive", archive);
    set_artifact(&a, &o, "junit", junit);
    set_artifact(&a, &o, "sast", closed);
    o.artifacts[1]->expose_as = pb_bytes(&a, STR("Test report"));
    o.artifacts[2]->access = (char *)"none";
    job_finish_with(x, job_id, &o);
    static const struct {
        const char *rest;
        int status;
        const char *body;
    } cases[] = {
        {"/artifacts", 200, "archive"},          {"/artifacts?type=archive", 200, "archive"},
        {"/artifacts?type=junit", 200, "junit"}, {"/artifacts?type=sast", 403, NULL},
        {"/artifacts?type=dotenv", 404, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *path = job_path(job_id, cases[i].rest);
        call(x, &(struct call){.path = path}, &answer);
        assert_int_equal(answer.status, cases[i].status);
        if (cases[i].body) {
            assert_string_equal(buf_cstr(&answer.body), cases[i].body);
        }
        answer_release(&answer);
        free(path);
    }
    json_t *job = get_json(x, 200, "/api/v1/jobs/%" PRIu64, job_id);
    const json_t *list = json_object_get(job, "artifacts");
    assert_int_equal(json_array_size(list), 3);
    assert_string_equal(text_of(json_array_get(list, 1), "type"), "junit");
    assert_string_equal(text_of(json_array_get(list, 1), "expose_as"), "Test report");
    assert_string_equal(text_of(json_array_get(list, 1), "access"), "all");
    assert_string_equal(text_of(json_array_get(list, 2), "access"), "none");
    assert_true(json_is_null(json_object_get(json_array_get(list, 2), "digest")));
    json_decref(job);
    arena_release(&a);
}

static void coverage_is_shown_of_jobs_and_averaged_of_pipelines(void **state)
{
    struct fixture *x = *state;
    uint64_t job_id;
    uint64_t id = submit(x, "a: {script: [x]}\nb: {script: [x]}\nc: {script: [x]}\n", &job_id);
    worker_hello(x);
    static const uint32_t hundredths[] = {8735, 5000};
    for (size_t i = 0; i < ARRAY_LEN(hundredths); i++) {
        Pb__Outcome o = PB__OUTCOME__INIT;
        o.has_coverage = true;
        o.coverage_hundredths = hundredths[i];
        job_start(x, job_id + i);
        job_finish_with(x, job_id + i, &o);
    }
    struct answer a;
    char *path = job_path(job_id, "");
    call(x, &(struct call){.path = path}, &a);
    assert_non_null(strstr(buf_cstr(&a.body), "\"coverage\":87.35,"));
    answer_release(&a);
    free(path);
    json_t *p = get_json(x, 200, "/api/v1/pipelines/%" PRIu64, id);
    assert_true(json_number_value(json_object_get(p, "coverage")) == 68.68); /* 68.675, rounded */
    assert_true(
        json_is_null(json_object_get(json_array_get(json_object_get(p, "jobs"), 2), "coverage")));
    json_decref(p);
}

/* --- caches --- */

static json_t *put_cache(struct fixture *x, int status, uint64_t job_id, const char *token,
                         const char *body)
{
    struct answer a;
    char *path = job_path(job_id, "/cache");
    call(x, &(struct call){.method = "PUT", .path = path, .token = token, .body = body}, &a);
    assert_int_equal(a.status, status);
    json_t *json = json_incref(a.json);
    answer_release(&a);
    free(path);
    return json;
}

static void assert_cache(struct fixture *x, uint64_t job_id, const char *query, const char *token,
                         int status, const char *body)
{
    struct answer a;
    char *path = job_path(job_id, query);
    call(x, &(struct call){.path = path, .token = token}, &a);
    assert_int_equal(a.status, status);
    if (body) {
        assert_string_equal(buf_cstr(&a.body), body);
        assert_non_null(strstr(buf_cstr(&a.head), "ETag: \""));
    }
    answer_release(&a);
    free(path);
}

static void assert_blob(struct fixture *x, const char *token, const uint8_t *digest, int status)
{
    struct answer a;
    struct buf path = BUF_INIT;
    char hex[2 * SHA256_BYTES + 1];
    str_to_hex(digest, SHA256_BYTES, hex);
    buf_addf(&path, "/api/v1/blobs/%s", hex);
    call(x, &(struct call){.path = buf_cstr(&path), .token = token}, &a);
    assert_int_equal(a.status, status);
    answer_release(&a);
    buf_release(&path);
}

/* With needs outside of its pipeline a job reads what they name, also when there is a newer one by
 * now, and nothing else that the broker has. */
static void a_job_reads_of_others_what_its_needs_name(void **state)
{
    struct fixture *x = *state;
    struct arena a;
    uint8_t old[SHA256_BYTES], new[SHA256_BYTES], unnamed[SHA256_BYTES], other[SHA256_BYTES];
    const char *const texts[] = {"old", "new"};
    uint8_t *const digests[] = {old, new};
    uint64_t first;
    uint64_t job_id;
    arena_init(&a, 0);
    worker_hello(x);
    put_blob(x, "of nobody", 9, other);
    put_blob(x, "unnamed", 7, unnamed);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        Pb__Outcome made = PB__OUTCOME__INIT;
        Pb__Outcome more = PB__OUTCOME__INIT;
        submit(x, "make: {script: [x]}\nmore: {script: [x]}\n", &first);
        put_blob(x, texts[i], 3, digests[i]);
        set_artifact(&a, &made, "archive", digests[i]);
        set_artifact(&a, &more, "archive", unnamed);
        job_start(x, first);
        job_finish_with(x, first, &made);
        job_start(x, first + 1);
        job_finish_with(x, first + 1, &more);
    }
    submit(x,
           "use:\n  script: [x]\n  needs: [{project: group/test, job: make, ref: main, "
           "artifacts: true}]\n",
           &job_id);
    job_start(x, job_id);
    char *mine = token_of_job(x, job_id);
    assert_blob(x, mine, new, 200);
    assert_blob(x, mine, old, 200);
    assert_blob(x, mine, unnamed, 403);
    assert_blob(x, mine, other, 403);
    free(mine);
    arena_release(&a);
}

static void a_cache_is_set_by_its_job_and_found_by_the_next(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    char hex[2 * SHA256_BYTES + 1];
    struct buf body = BUF_INIT;
    uint64_t job_id;
    submit(x, "a: {script: [x]}\nb: {script: [x]}\n", &job_id);
    put_blob(x, "cached", 6, digest);
    str_to_hex(digest, SHA256_BYTES, hex);
    worker_hello(x);
    job_start(x, job_id);
    job_start(x, job_id + 1);
    char *mine = token_of_job(x, job_id);
    char *other = token_of_job(x, job_id + 1);
    assert_cache(x, job_id, "/cache?key=k/1%20x", mine, 404, NULL);
    buf_addf(&body, "{\"key\":\"k/1 x\",\"digest\":\"%s\",\"size\":6}", hex);
    json_decref(put_cache(x, 403, job_id, other, buf_cstr(&body)));
    json_decref(put_cache(x, 403, job_id, NULL, buf_cstr(&body))); /* the admin runs no job */
    /* That somebody else uploaded it is not enough, nor that another job of the pipeline did. */
    json_decref(put_cache(x, 409, job_id, mine, buf_cstr(&body)));
    put_blob_as(x, other, "cached", 6, digest);
    json_decref(put_cache(x, 409, job_id, mine, buf_cstr(&body)));
    put_blob_as(x, mine, "cached", 6, digest);
    json_t *set = put_cache(x, 200, job_id, mine, buf_cstr(&body));
    assert_string_equal(text_of(set, "digest"), hex);
    json_decref(set);
    assert_cache(x, job_id, "/cache?key=k/1%20x", mine, 200, "cached");
    assert_cache(x, job_id + 1, "/cache?key=k/1%20x", other, 200, "cached");
    assert_cache(x, job_id, "/cache?key=k/1%20x", other, 403, NULL);
    assert_cache(x, job_id, "/cache?key=k/1%20x", NULL, 200, "cached");
    assert_cache(x, job_id, "/cache?key=k", mine, 404, NULL);
    assert_cache(x, job_id, "/cache", mine, 400, NULL);
    json_t *list = get_json(x, 200, "/api/v1/caches?project=group/test");
    const json_t *items = json_object_get(list, "items");
    assert_int_equal(json_array_size(items), 1);
    assert_string_equal(text_of(json_array_get(items, 0), "key"), "k/1 x");
    assert_int_equal(id_of(json_array_get(items, 0), "size"), 6);
    assert_int_equal(id_of(json_array_get(items, 0), "job_id"), job_id);
    json_decref(list);
    free(mine);
    free(other);
    buf_release(&body);
}

static void a_cache_of_protected_refs_is_closed_to_other_branches(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    char hex[2 * SHA256_BYTES + 1];
    struct buf body = BUF_INIT;
    uint64_t of_main;
    uint64_t of_topic;
    submit(x, ONE_JOB, &of_main);
    submit_ref(x, ONE_JOB, "topic", &of_topic);
    put_blob(x, "cached", 6, digest);
    str_to_hex(digest, SHA256_BYTES, hex);
    worker_hello(x);
    job_start(x, of_main);
    job_start(x, of_topic);
    char *main_token = token_of_job(x, of_main);
    char *topic_token = token_of_job(x, of_topic);
    buf_addf(&body, "{\"key\":\"k-protected\",\"digest\":\"%s\",\"size\":6}", hex);
    json_decref(put_cache(x, 403, of_topic, topic_token, buf_cstr(&body)));
    put_blob_as(x, main_token, "cached", 6, digest);
    json_decref(put_cache(x, 200, of_main, main_token, buf_cstr(&body)));
    assert_cache(x, of_main, "/cache?key=k-protected", main_token, 200, "cached");
    assert_cache(x, of_topic, "/cache?key=k-protected", topic_token, 403, NULL);
    buf_clear(&body);
    buf_addf(&body, "{\"key\":\"k-non_protected\",\"digest\":\"%s\",\"size\":6}", hex);
    json_decref(put_cache(x, 409, of_topic, topic_token, buf_cstr(&body)));
    put_blob_as(x, topic_token, "cached", 6, digest);
    json_decref(put_cache(x, 200, of_topic, topic_token, buf_cstr(&body)));
    free(main_token);
    free(topic_token);
    buf_release(&body);
}

static void a_cache_that_cannot_be_is_refused(void **state)
{
    struct fixture *x = *state;
    static const char *const bodies[] = {
        "{}",
        "{\"key\":\"k\"}",
        "{\"key\":\"k\",\"digest\":\"00\"}",
        "{\"key\":\"k\",\"digest\":"
        "\"0000000000000000000000000000000000000000000000000000000000000000\"}",
        "{\"key\":\"k\",\"digest\":"
        "\"0000000000000000000000000000000000000000000000000000000000000000\",\"more\":1}",
    };
    uint64_t job_id;
    submit(x, ONE_JOB, &job_id);
    worker_hello(x);
    job_start(x, job_id);
    char *mine = token_of_job(x, job_id);
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        /* Whether a digest is here is nobody's business who has not sent it. */
        json_decref(put_cache(x, i == 3 ? 409 : 400, job_id, mine, bodies[i]));
    }
    free(mine);
}

static void caches_are_listed_page_by_page(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    char hex[2 * SHA256_BYTES + 1];
    uint64_t job_id;
    submit(x, ONE_JOB, &job_id);
    put_blob(x, "cached", 6, digest);
    str_to_hex(digest, SHA256_BYTES, hex);
    worker_hello(x);
    job_start(x, job_id);
    char *mine = token_of_job(x, job_id);
    put_blob_as(x, mine, "cached", 6, digest);
    for (int i = 0; i < 5; i++) {
        struct buf body = BUF_INIT;
        buf_addf(&body, "{\"key\":\"k%d\",\"digest\":\"%s\"}", i, hex);
        json_decref(put_cache(x, 200, job_id, mine, buf_cstr(&body)));
        buf_release(&body);
    }
    struct buf seen = BUF_INIT;
    uint64_t after = 0;
    do {
        json_t *page = get_json(x, 200, "/api/v1/caches?project=group/test&limit=2&after=%" PRIu64,
                                after);
        const json_t *items = json_object_get(page, "items");
        for (size_t i = 0; i < json_array_size(items); i++) {
            buf_addf(&seen, "%s ", text_of(json_array_get(items, i), "key"));
        }
        after = id_of(page, "next");
        json_decref(page);
    } while (after != 0);
    assert_string_equal(buf_cstr(&seen), "k4 k3 k2 k1 k0 ");
    buf_release(&seen);
    free(mine);
}

static uint64_t delete_caches(struct fixture *x, int status, const char *query, const char *token)
{
    struct answer a;
    struct buf path = BUF_INIT;
    buf_addf(&path, "/api/v1/caches%s", query);
    call(x, &(struct call){.method = "DELETE", .path = buf_cstr(&path), .token = token}, &a);
    assert_int_equal(a.status, status);
    uint64_t n = status == 200 ? id_of(a.json, "deleted") : 0;
    answer_release(&a);
    buf_release(&path);
    return n;
}

static void caches_go_when_somebody_wants_that(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    char hex[2 * SHA256_BYTES + 1];
    uint64_t job_id;
    submit(x, ONE_JOB, &job_id);
    put_blob(x, "cached", 6, digest);
    str_to_hex(digest, SHA256_BYTES, hex);
    worker_hello(x);
    job_start(x, job_id);
    char *mine = token_of_job(x, job_id);
    put_blob_as(x, mine, "cached", 6, digest);
    for (int i = 0; i < 3; i++) {
        struct buf body = BUF_INIT;
        buf_addf(&body, "{\"key\":\"k %d\",\"digest\":\"%s\"}", i, hex);
        json_decref(put_cache(x, 200, job_id, mine, buf_cstr(&body)));
        buf_release(&body);
    }
    delete_caches(x, 400, "", NULL);
    delete_caches(x, 400, "?project=group/test&key=", NULL);
    delete_caches(x, 403, "?project=group/test", mine);
    delete_caches(x, 404, "?project=none", NULL);
    delete_caches(x, 404, "?project=group/test&key=k", NULL);
    assert_int_equal(delete_caches(x, 200, "?project=group/test&key=k%201", USER_TOKEN), 1);
    delete_caches(x, 404, "?project=group/test&key=k%201", NULL);
    assert_cache(x, job_id, "/cache?key=k%201", mine, 404, NULL);
    assert_cache(x, job_id, "/cache?key=k%202", mine, 200, "cached");
    assert_int_equal(delete_caches(x, 200, "?project=group/test", NULL), 2);
    assert_int_equal(delete_caches(x, 200, "?project=group/test", NULL), 0);
    assert_cache(x, job_id, "/cache?key=k%202", mine, 404, NULL);
    free(mine);
}

/* --- environments and releases --- */

static uint64_t deploy(struct fixture *x, const char *environment, const char *url)
{
    Pb__Outcome o = PB__OUTCOME__INIT;
    uint64_t job_id = submit_deploy(x, environment);
    job_start(x, job_id);
    o.environment_url = pb_bytes_ref(str_from(url));
    job_finish_with(x, job_id, &o);
    return job_id;
}

static void an_environment_is_shown_with_its_deployments_and_stopped(void **state)
{
    struct fixture *x = *state;
    worker_hello(x);
    uint64_t first = deploy(x, "review/x", "https://one.example");
    uint64_t second = deploy(x, "review/x", "https://two.example");
    json_t *list = get_json(x, 200, "/api/v1/environments?project=group/test");
    const json_t *items = json_object_get(list, "items");
    assert_int_equal(json_array_size(items), 1);
    uint64_t id = id_of(json_array_get(items, 0), "id");
    assert_string_equal(text_of(json_array_get(items, 0), "name"), "review/x");
    assert_string_equal(text_of(json_array_get(items, 0), "state"), "available");
    assert_string_equal(text_of(json_array_get(items, 0), "url"), "https://two.example");
    json_decref(list);
    json_t *e = get_json(x, 200, "/api/v1/environments/%" PRIu64, id);
    const json_t *deployments = json_object_get(e, "deployments");
    assert_int_equal(json_array_size(deployments), 2);
    assert_int_equal(id_of(json_array_get(deployments, 0), "job_id"), second);
    assert_int_equal(id_of(json_array_get(deployments, 1), "job_id"), first);
    assert_string_equal(text_of(json_array_get(deployments, 0), "status"), "success");
    json_decref(e);
    json_t *job = get_json(x, 200, "/api/v1/jobs/%" PRIu64, second);
    assert_string_equal(text_of(json_object_get(job, "environment"), "name"), "review/x");
    assert_string_equal(text_of(json_object_get(job, "environment"), "action"), "start");
    json_decref(job);
    e = post_json(x, 202, "{}", "/api/v1/environments/%" PRIu64 "/stop", id);
    assert_string_equal(text_of(e, "state"), "stopped");
    json_decref(e);
    list = get_json(x, 200, "/api/v1/environments?project=group/test&state=available");
    assert_int_equal(json_array_size(json_object_get(list, "items")), 0);
    json_decref(list);
    assert_problem(x, &(struct call){.path = "/api/v1/environments/99999"}, 404, "not_found");
    assert_problem(x, &(struct call){.path = "/api/v1/environments"}, 400, "invalid");
    assert_problem(x, &(struct call){.path = "/api/v1/environments?project=no/such"}, 404,
                   "not_found");
    assert_problem(x, &(struct call){.path = "/api/v1/environments/99999/stop", .body = "{}"}, 404,
                   "not_found");
}

static void environments_are_listed_page_by_page_and_by_name(void **state)
{
    struct fixture *x = *state;
    static const char *const names[] = {"production", "review/a", "review/b", "staging"};
    worker_hello(x);
    for (size_t i = ARRAY_LEN(names); i > 0; i--) {
        deploy(x, names[i - 1], "");
    }
    struct buf seen = BUF_INIT;
    char after[64] = "";
    do {
        json_t *page = get_json(x, 200, "/api/v1/environments?project=group/test&limit=3&after=%s",
                                after);
        const json_t *items = json_object_get(page, "items");
        for (size_t i = 0; i < json_array_size(items); i++) {
            buf_addf(&seen, "%s ", text_of(json_array_get(items, i), "name"));
        }
        snprintf(after, sizeof(after), "%s", text_of(page, "next"));
        json_decref(page);
    } while (after[0] != '\0');
    assert_string_equal(buf_cstr(&seen), "production review/a review/b staging ");
    json_t *one = get_json(x, 200, "/api/v1/environments?project=group/test&name=review/b");
    assert_int_equal(json_array_size(json_object_get(one, "items")), 1);
    json_decref(one);
    one = get_json(x, 200, "/api/v1/environments?project=group/test&name=review");
    assert_int_equal(json_array_size(json_object_get(one, "items")), 0);
    json_decref(one);
    buf_release(&seen);
}

static void a_release_is_shown_as_it_was_said(void **state)
{
    struct fixture *x = *state;
    Pb__Outcome o = PB__OUTCOME__INIT;
    Pb__ReleaseSpec release = PB__RELEASE_SPEC__INIT;
    Pb__ReleaseLink link = PB__RELEASE_LINK__INIT;
    Pb__ReleaseLink *links[] = {&link};
    uint64_t job_id;
    submit(x, ONE_JOB, &job_id);
    worker_hello(x);
    job_start(x, job_id);
    release.tag_name = pb_bytes_ref(STR("v1.0"));
    release.description = pb_bytes_ref(STR("good \xff things"));
    link.name = pb_bytes_ref(STR("binary"));
    link.url = pb_bytes_ref(STR("https://example.com/b"));
    release.links = links;
    release.n_links = 1;
    o.release = &release;
    job_finish_with(x, job_id, &o);
    json_t *list = get_json(x, 200, "/api/v1/releases?project=group/test");
    const json_t *items = json_object_get(list, "items");
    assert_int_equal(json_array_size(items), 1);
    const json_t *r = json_array_get(items, 0);
    assert_string_equal(text_of(r, "tag"), "v1.0");
    assert_string_equal(text_of(r, "description"), "good ? things");
    assert_string_equal(text_of(json_array_get(json_object_get(r, "links"), 0), "name"), "binary");
    assert_int_equal(id_of(r, "job_id"), job_id);
    json_decref(list);
}

/* --- pages --- */

/* A site of files with their own names as text. */
static void put_site(struct fixture *x, const char *const *names, size_t count,
                     uint8_t ret[SHA256_BYTES])
{
    char *dir = os_make_temp_dir("davit-site");
    char *archive = os_path_join(dir, "archive");
    struct archive_info info;
    struct buf why = BUF_INIT;
    struct buf bytes = BUF_INIT;
    for (size_t i = 0; i < count; i++) {
        char *path = os_path_join(dir, names[i]);
        char *slash = strrchr(path, '/');
        *slash = '\0';
        assert_int_equal(os_mkdir_p(path, 0700), 0);
        *slash = '/';
        assert_int_equal(os_put_file(path, names[i], strlen(names[i]), 0600), 0);
        free(path);
    }
    int fd = open(archive, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_int_equal(archive_pack(dir, names, count, fd, &info, &why), 0);
    close(fd);
    assert_int_equal(os_read_file(archive, 1u << 20, &bytes), 0);
    put_blob(x, bytes.p, bytes.n, ret);
    assert_int_equal(os_remove_tree(dir), 0);
    buf_release(&bytes);
    free(archive);
    free(dir);
}

static void publish(struct fixture *x, const char *prefix, const uint8_t digest[SHA256_BYTES])
{
    Pb__Outcome o = PB__OUTCOME__INIT;
    Pb__PagesOut pages = PB__PAGES_OUT__INIT;
    struct arena a;
    uint64_t job_id;
    arena_init(&a, 0);
    submit(x, ONE_JOB, &job_id);
    job_start(x, job_id);
    set_artifact(&a, &o, "pages", digest);
    pages.path_prefix = pb_bytes_ref(str_from(prefix));
    o.pages = &pages;
    job_finish_with(x, job_id, &o);
    arena_release(&a);
}

static void assert_page(struct fixture *x, const char *path, int status, const char *body)
{
    struct answer a;
    call(x, &(struct call){.path = path, .token = ""}, &a);
    if (a.status != status || (body && strcmp(buf_cstr(&a.body), body) != 0)) {
        fail_msg("%s: %d, %s", path, a.status, buf_cstr(&a.body));
    }
    if (status == 200) {
        assert_non_null(
            strstr(buf_cstr(&a.head), "Content-Security-Policy: sandbox allow-scripts"));
        assert_non_null(strstr(buf_cstr(&a.head), "X-Content-Type-Options: nosniff"));
    }
    answer_release(&a);
}

static void pages_are_served_to_everybody(void **state)
{
    static const char *const names[] = {"index.html", "docs/index.html", "about.html", "a b.txt"};
    static const char *const preview[] = {"index.html", "404.html"};
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    worker_hello(x);
    assert_page(x, "/pages/group/test/", 404, NULL);
    put_site(x, names, ARRAY_LEN(names), digest);
    publish(x, "", digest);
    assert_page(x, "/pages/group/test/", 200, "index.html");
    assert_page(x, "/pages/group/test/docs/", 200, "docs/index.html");
    assert_page(x, "/pages/group/test/about?v=1&v=2", 200, "about.html");
    assert_page(x, "/pages/group/test/a%20b.txt", 200, "a b.txt");
    assert_page(x, "/pages/group/test/nothing", 404, NULL);
    assert_page(x, "/pages/group/", 404, NULL);
    assert_page(x, "/pages/", 404, NULL);
    put_site(x, preview, ARRAY_LEN(preview), digest);
    publish(x, "mr-1", digest);
    assert_page(x, "/pages/group/test/mr-1/", 200, "index.html");
    assert_page(x, "/pages/group/test/mr-1/nothing/at/all", 404, "404.html");
    assert_page(x, "/pages/group/test/docs/", 200, "docs/index.html");
}

static void pages_redirect_to_folders_and_know_what_one_has(void **state)
{
    static const char *const names[] = {"index.html", "docs/index.html", "page.html"};
    struct fixture *x = *state;
    struct answer a;
    uint8_t digest[SHA256_BYTES];
    char hex[2 * SHA256_BYTES + 1];
    struct buf match = BUF_INIT;
    worker_hello(x);
    put_site(x, names, ARRAY_LEN(names), digest);
    publish(x, "", digest);
    call(x, &(struct call){.path = "/pages/group/test", .token = ""}, &a);
    assert_int_equal(a.status, 302);
    assert_non_null(strstr(buf_cstr(&a.head), "Location: /pages/group/test/\r\n"));
    answer_release(&a);
    call(x, &(struct call){.path = "/pages/group/test/docs", .token = ""}, &a);
    assert_int_equal(a.status, 302);
    assert_non_null(strstr(buf_cstr(&a.head), "Location: /pages/group/test/docs/\r\n"));
    answer_release(&a);
    call(x, &(struct call){.path = "/pages/group/test/", .token = "", .method = "HEAD"}, &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body.n, 0);
    assert_non_null(strstr(buf_cstr(&a.head), "Content-Length: 10\r\n"));
    answer_release(&a);
    str_to_hex(digest, SHA256_BYTES, hex);
    buf_addf(&match, "If-None-Match: \"%s\"", hex);
    call(x,
         &(struct call){.path = "/pages/group/test/", .token = "", .headers = {buf_cstr(&match)}},
         &a);
    assert_int_equal(a.status, 304);
    answer_release(&a);
    call(x,
         &(struct call){
             .path = "/pages/group/test/page.html", .token = "", .headers = {"Range: bytes=1-3"}},
         &a);
    assert_int_equal(a.status, 206);
    assert_string_equal(buf_cstr(&a.body), "age");
    answer_release(&a);
    assert_problem(x, &(struct call){.path = "/pages/group/test/", .token = "", .body = "{}"}, 405,
                   "method_not_allowed");
    buf_release(&match);
}

static void pages_that_cannot_be_unpacked_are_gone(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    worker_hello(x);
    put_blob(x, "no archive", 10, digest);
    publish(x, "", digest);
    for (int i = 0; i < 2; i++) {
        assert_problem(x, &(struct call){.path = "/pages/group/test/", .token = ""}, 410, "gone");
    }
}

static void no_path_leads_out_of_pages(void **state)
{
    static const char *const names[] = {"index.html"};
    static const char *const paths[] = {
        "/pages/group/test/%2e%2e/%2e%2e/admin.token", "/pages/group/test/..%2f..%2fstore",
        "/pages/group/test//index.html", "/pages/group/test/./index.html",
        "/pages/group/test/index.html%00.txt"};
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    worker_hello(x);
    put_site(x, names, 1, digest);
    publish(x, "", digest);
    assert_page(x, "/pages/group/test/", 200, "index.html");
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct plug w;
        plug_open(&w, x);
        plug_sendf(&w, "GET %s HTTP/1.1\r\nHost: a\r\n\r\n", paths[i]);
        int status = plug_status(&w);
        if (status != 400 && status != 404) {
            fail_msg("%s: %d", paths[i], status);
        }
        plug_close(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(artifacts_are_fetched_by_type),
        TEST(coverage_is_shown_of_jobs_and_averaged_of_pipelines),
        TEST(a_job_reads_of_others_what_its_needs_name),
        TEST(a_cache_is_set_by_its_job_and_found_by_the_next),
        TEST(a_cache_of_protected_refs_is_closed_to_other_branches),
        TEST(a_cache_that_cannot_be_is_refused),
        TEST(caches_are_listed_page_by_page),
        TEST(caches_go_when_somebody_wants_that),
        TEST(an_environment_is_shown_with_its_deployments_and_stopped),
        TEST(environments_are_listed_page_by_page_and_by_name),
        TEST(a_release_is_shown_as_it_was_said),
        TEST(pages_are_served_to_everybody),
        TEST(pages_redirect_to_folders_and_know_what_one_has),
        TEST(pages_that_cannot_be_unpacked_are_gone),
        TEST(no_path_leads_out_of_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
