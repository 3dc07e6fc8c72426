/* docs/openapi.json says what the routes are, and what they answer is what it says. */
#include "common/base.h"

#include "tests/unit/api/fixture.h"

#include "broker/api/route.h"

static json_t *document;

static int load(void **state)
{
    const char *path = getenv("DAVIT_OPENAPI");
    json_error_t error;
    assert_non_null(path);
    document = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (!document) {
        fail_msg("%s:%d: %s", path, error.line, error.text);
    }
    return 0;
}

static int unload(void **state)
{
    json_decref(document);
    return 0;
}

static const json_t *operation(const struct route *r)
{
    const json_t *path = json_object_get(json_object_get(document, "paths"), r->path);
    static const char *const methods[] = {
        [GET] = "get", [POST] = "post", [PUT] = "put", [DELETE] = "delete", [PATCH] = "patch"};
    const json_t *op = json_object_get(path, methods[r->method]);
    if (!op) {
        fail_msg("%s is not in the document", r->path);
    }
    return op;
}

static void the_document_is_of_this_version(void **state)
{
    assert_string_equal(text_of(document, "openapi"), "3.1.0");
    assert_string_equal(text_of(json_object_get(document, "info"), "version"), DAVIT_VERSION);
}

static void every_route_is_in_the_document_and_nothing_else(void **state)
{
    size_t operations = 0;
    const char *path;
    json_t *item;
    json_object_foreach(json_object_get(document, "paths"), path, item)
    {
        operations += json_object_size(item);
    }
    for (size_t i = 0; i < route_count; i++) {
        assert_non_null(operation(&routes[i]));
    }
    assert_int_equal(operations, route_count);
}

static unsigned roles_of(const json_t *op)
{
    const json_t *list = json_object_get(json_array_get(json_object_get(op, "security"), 0),
                                         "token");
    unsigned roles = ROLE_NONE;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        roles |= strcmp(name, "join") == 0         ? ROLE_JOIN
                 : strcmp(name, "admin") == 0      ? ROLE_ADMIN
                 : strcmp(name, "user") == 0       ? ROLE_USER
                 : strcmp(name, "worker") == 0     ? ROLE_WORKER
                 : strcmp(name, "maintainer") == 0 ? ROLE_MAINTAINER
                                                   : ROLE_JOB;
    }
    return roles;
}

static void roles_queries_and_bodies_are_those_of_the_routes(void **state)
{
    for (size_t i = 0; i < route_count; i++) {
        const struct route *r = &routes[i];
        const json_t *op = operation(r);
        const json_t *params = json_object_get(op, "parameters");
        struct str names = str_from(r->query);
        struct str name;
        size_t known = 0;
        size_t documented = 0;
        assert_int_equal(roles_of(op), r->roles);
        assert_int_equal(json_object_get(op, "requestBody") != NULL, r->body != BODY_NONE);
        while (str_split(&names, ' ', &name)) {
            known += name.n > 0 && !str_eqz(name, ROUTE_ANY_QUERY);
        }
        for (size_t p = 0; p < json_array_size(params); p++) {
            const json_t *param = json_array_get(params, p);
            if (strcmp(text_of(param, "in"), "query") == 0) {
                assert_true(route_knows_query(r, str_from(text_of(param, "name"))));
                documented++;
            }
        }
        assert_int_equal(documented, known);
    }
}

/* --- answers: as much of JSON Schema as the document uses --- */

static const json_t *resolve(const json_t *schema)
{
    const char *ref = text_of(schema, "$ref");
    if (ref[0] == '\0') {
        return schema;
    }
    const json_t *at = document;
    struct str rest = str_from(ref);
    struct str part;
    str_split(&rest, '/', &part);
    assert_true(str_eq(part, STR("#")));
    while (str_split(&rest, '/', &part)) {
        char *name = str_dup(part);
        at = json_object_get(at, name);
        free(name);
    }
    if (!at) {
        fail_msg("%s leads nowhere", ref);
    }
    return at;
}

static bool is_type(const json_t *value, const char *type)
{
    return strcmp(type, "null") == 0      ? json_is_null(value)
           : strcmp(type, "string") == 0  ? json_is_string(value)
           : strcmp(type, "integer") == 0 ? json_is_integer(value)
           : strcmp(type, "number") == 0  ? json_is_number(value)
           : strcmp(type, "boolean") == 0 ? json_is_boolean(value)
           : strcmp(type, "array") == 0   ? json_is_array(value)
                                          : json_is_object(value);
}

static bool has_type(const json_t *value, const json_t *types)
{
    if (!types || json_is_string(types)) {
        return !types || is_type(value, json_string_value(types));
    }
    for (size_t i = 0; i < json_array_size(types); i++) {
        if (is_type(value, json_string_value(json_array_get(types, i)))) {
            return true;
        }
    }
    return false;
}

static bool is_listed(const json_t *value, const json_t *list)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (json_equal(value, json_array_get(list, i))) {
            return true;
        }
    }
    return false;
}

static void validate(const char *where, const json_t *value, const json_t *schema);

static void validate_object(const char *where, const json_t *value, const json_t *schema)
{
    const json_t *properties = json_object_get(schema, "properties");
    const json_t *required = json_object_get(schema, "required");
    const char *name;
    json_t *member;
    for (size_t i = 0; i < json_array_size(required); i++) {
        name = json_string_value(json_array_get(required, i));
        if (!json_object_get(value, name)) {
            fail_msg("%s lacks `%s`", where, name);
        }
    }
    json_object_foreach((json_t *)value, name, member)
    {
        const json_t *property = json_object_get(properties, name);
        if (!property) {
            fail_msg("%s has `%s`, which is not in the document", where, name);
        }
        validate(name, member, property);
    }
}

static void validate(const char *where, const json_t *value, const json_t *schema)
{
    schema = resolve(schema);
    const json_t *choice = json_object_get(schema, "oneOf"); /* an object, or null */
    if (choice && !json_is_null(value)) {
        validate(where, value, json_array_get(choice, 0));
    }
    const json_t *list = json_object_get(schema, "enum");
    if (!has_type(value, json_object_get(schema, "type")) || (list && !is_listed(value, list))) {
        char *text = json_dumps(value, JSON_ENCODE_ANY);
        fail_msg("%s: %s is not what the document says", where, text);
    }
    if (json_is_object(value) && json_object_get(schema, "properties")) {
        validate_object(where, value, schema);
    }
    for (size_t i = 0; json_is_array(value) && i < json_array_size(value); i++) {
        validate(where, json_array_get(value, i), json_object_get(schema, "items"));
    }
}

/* Calls the route and holds the answer against its schema. Returns it: the caller's. */
static void answers_as_said(struct fixture *x, const char *id, const char *path, const char *body)
{
    for (size_t i = 0; i < route_count; i++) {
        const json_t *op = operation(&routes[i]);
        if (strcmp(text_of(op, "operationId"), id) != 0) {
            continue;
        }
        struct answer a;
        char status[16];
        bool plain = routes[i].method == GET || routes[i].method == POST;
        call(x,
             &(struct call){.method = plain ? NULL : method_name(routes[i].method),
                            .path = path,
                            .body = body},
             &a);
        snprintf(status, sizeof(status), "%d", a.status);
        const json_t *response = json_object_get(json_object_get(op, "responses"), status);
        if (!response) {
            fail_msg("%s: status %d: %s", id, a.status, buf_cstr(&a.body));
        }
        const json_t *content = json_object_get(response, "content");
        const json_t *media = json_object_get(content, "application/json");
        assert_non_null(media);
        validate(id, a.json, json_object_get(media, "schema"));
        answer_release(&a);
        return;
    }
    fail_msg("%s is no operation", id);
}

static void answers_are_what_the_document_says(void **state)
{
    struct fixture *x = *state;
    const char *yaml = "stages: [a, b]\na:\n  stage: a\n  script: [x]\n  artifacts: {paths: [x]}\n"
                       "b:\n  stage: b\n  script: [x]\n  when: manual\n  needs: [a]\n";
    char path[80];
    uint8_t digest[SHA256_BYTES];
    uint64_t job;
    uint64_t id = submit(x, yaml, &job);
    json_t *blob = post_json(x, 201, "artifact", "/api/v1/blobs");
    assert_int_equal(str_from_hex(str_from(text_of(blob, "digest")), digest, sizeof(digest)), 0);
    json_decref(blob);
    worker_hello(x);
    answers_as_said(x, "get_health", "/healthz", NULL);
    answers_as_said(x, "get_ready", "/readyz", NULL);
    answers_as_said(x, "get_key_set", "/.well-known/jwks.json", NULL);
    answers_as_said(x, "get_openid_configuration", "/.well-known/openid-configuration", NULL);
    answers_as_said(x, "get_version", "/api/v1/version", NULL);
    answers_as_said(x, "get_projects", "/api/v1/projects", NULL);
    answers_as_said(x, "get_project", "/api/v1/projects/group/test", NULL);
    answers_as_said(x, "put_project", "/api/v1/projects/group/test", "{\"weight\":7}");
    answers_as_said(x, "put_pool", "/api/v1/pools/fast", "{\"projects\":[\"a/b\"]}");
    answers_as_said(x, "get_pool", "/api/v1/pools/fast", NULL);
    answers_as_said(x, "get_pools", "/api/v1/pools", NULL);
    answers_as_said(x, "delete_pool", "/api/v1/pools/fast", NULL);
    answers_as_said(x, "put_resource_group", "/api/v1/resource-groups/g?project=group/test",
                    "{\"mode\":\"oldest_first\"}");
    answers_as_said(x, "get_resource_groups", "/api/v1/resource-groups?project=group/test", NULL);
    answers_as_said(x, "get_resource_group", "/api/v1/resource-groups/g?project=group/test", NULL);
    answers_as_said(x, "delete_resource_group", "/api/v1/resource-groups/g?project=group/test",
                    NULL);
    answers_as_said(x, "get_jobs", "/api/v1/jobs", NULL);
    answers_as_said(x, "get_pipelines", "/api/v1/pipelines", NULL);
    answers_as_said(x, "get_environments", "/api/v1/environments?project=group/test", NULL);
    answers_as_said(x, "get_releases", "/api/v1/releases?project=group/test", NULL);
    answers_as_said(x, "get_caches", "/api/v1/caches?project=group/test", NULL);
    answers_as_said(x, "delete_caches", "/api/v1/caches?project=group/test", NULL);
    answers_as_said(x, "get_services", "/api/v1/services?project=group/test", NULL);
    answers_as_said(x, "get_workers", "/api/v1/workers", NULL);
    answers_as_said(x, "post_blob", "/api/v1/blobs", "bytes");
    answers_as_said(x, "post_lint", "/api/v1/lint", "{\"files\":{\".gitlab-ci.yml\":\"a: [\"}}");
    answers_as_said(x, "post_pipeline", "/api/v1/pipelines",
                    "{\"project\":\"a\",\"files\":{\".gitlab-ci.yml\":\"a: {script: [x]}\"}}");
    snprintf(path, sizeof(path), "/api/v1/pipelines/%" PRIu64, id);
    answers_as_said(x, "get_pipeline", path, NULL);
    snprintf(path, sizeof(path), "/api/v1/jobs/%" PRIu64 "/why", job);
    answers_as_said(x, "get_job_why", path, NULL);
    job_start(x, job);
    snprintf(path, sizeof(path), "/api/v1/jobs/%" PRIu64, job);
    answers_as_said(x, "get_job", path, NULL);
    job_finish(x, job, JOB_SUCCESS, digest);
    answers_as_said(x, "get_job", path, NULL);
    snprintf(path, sizeof(path), "/api/v1/jobs/%" PRIu64 "/play", job + 1);
    answers_as_said(x, "post_job_play", path, "{}");
    snprintf(path, sizeof(path), "/api/v1/jobs/%" PRIu64 "/cancel", job + 1);
    answers_as_said(x, "post_job_cancel", path, "{}");
    snprintf(path, sizeof(path), "/api/v1/jobs/%" PRIu64 "/retry", job + 1);
    answers_as_said(x, "post_job_retry", path, "{}");
    snprintf(path, sizeof(path), "/api/v1/pipelines/%" PRIu64 "/cancel", id);
    answers_as_said(x, "post_pipeline_cancel", path, "{}");
    snprintf(path, sizeof(path), "/api/v1/pipelines/%" PRIu64 "/retry", id);
    answers_as_said(x, "post_pipeline_retry", path, "{}");
    static const char *const verbs[] = {"pause", "resume", "drain", "undrain"};
    for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
        char operation_id[32];
        snprintf(path, sizeof(path), "/api/v1/workers/%" PRIu64 "/%s", x->worker_id, verbs[i]);
        snprintf(operation_id, sizeof(operation_id), "post_worker_%s", verbs[i]);
        answers_as_said(x, operation_id, path, "{}");
    }
}

static void jobs_without_a_pipeline_are_what_the_document_says(void **state)
{
    struct fixture *x = *state;
    char path[80];
    worker_hello(x);
    answers_as_said(x, "post_jobs", "/api/v1/jobs",
                    "{\"project\":\"a\",\"jobs\":[{\"script\":\"x\"},{\"command\":[\"y\"]}]}");
    json_t *jobs = get_json(x, 200, "/api/v1/jobs?project=a&status=pending");
    uint64_t lone = id_of(json_array_get(json_object_get(jobs, "items"), 0), "id");
    json_decref(jobs);
    answers_as_said(x, "get_jobs", "/api/v1/jobs", NULL);
    snprintf(path, sizeof(path), "/api/v1/jobs/%" PRIu64, lone);
    answers_as_said(x, "get_job", path, NULL);
    snprintf(path, sizeof(path), "/api/v1/jobs/%" PRIu64 "/why", lone);
    answers_as_said(x, "get_job_why", path, NULL);
    job_start(x, lone);
    snprintf(path, sizeof(path), "/api/v1/jobs/%" PRIu64, lone);
    answers_as_said(x, "get_job", path, NULL);
}

/* What a deploying job leaves behind, as objects and lists. */
static void what_jobs_leave_is_what_the_document_says(void **state)
{
    struct fixture *x = *state;
    Pb__Outcome o = PB__OUTCOME__INIT;
    Pb__ReleaseSpec release = PB__RELEASE_SPEC__INIT;
    Pb__ReleaseLink link = PB__RELEASE_LINK__INIT;
    Pb__ReleaseLink *links[] = {&link};
    struct buf body = BUF_INIT;
    struct answer a;
    char path[80];
    worker_hello(x);
    uint64_t job_id = submit_deploy(x, "production");
    job_start(x, job_id);
    char *token = token_of_job(x, job_id);
    call(x, &(struct call){.path = "/api/v1/blobs", .token = token, .body = "cached"}, &a);
    assert_int_equal(a.status, 201);
    buf_addf(&body, "{\"key\":\"k\",\"digest\":\"%s\"}", text_of(a.json, "digest"));
    answer_release(&a);
    snprintf(path, sizeof(path), "/api/v1/jobs/%" PRIu64 "/cache", job_id);
    call(x, &(struct call){.method = "PUT", .path = path, .token = token, .body = buf_cstr(&body)},
         &a);
    assert_int_equal(a.status, 200);
    answer_release(&a);
    free(token);
    buf_release(&body);
    release.tag_name = pb_bytes_ref(STR("v1"));
    release.links = links;
    release.n_links = 1;
    o.release = &release;
    o.has_coverage = true;
    o.coverage_hundredths = 1234;
    job_finish_with(x, job_id, &o);
    answers_as_said(x, "get_environments", "/api/v1/environments?project=group/test", NULL);
    answers_as_said(x, "get_releases", "/api/v1/releases?project=group/test", NULL);
    answers_as_said(x, "get_caches", "/api/v1/caches?project=group/test", NULL);
    snprintf(path, sizeof(path), "/api/v1/jobs/%" PRIu64, job_id);
    answers_as_said(x, "get_job", path, NULL);
    json_t *job = get_json(x, 200, "%s", path);
    uint64_t id = id_of(json_object_get(job, "environment"), "id");
    snprintf(path, sizeof(path), "/api/v1/pipelines/%" PRIu64, id_of(job, "pipeline_id"));
    answers_as_said(x, "get_pipeline", path, NULL);
    json_decref(job);
    snprintf(path, sizeof(path), "/api/v1/environments/%" PRIu64, id);
    answers_as_said(x, "get_environment", path, NULL);
    snprintf(path, sizeof(path), "/api/v1/environments/%" PRIu64 "/stop", id);
    answers_as_said(x, "post_environment_stop", path, "{}");
}

static void problems_are_what_the_document_says(void **state)
{
    struct fixture *x = *state;
    const json_t *schema = json_object_get(
        json_object_get(json_object_get(document, "components"), "schemas"), "Problem");
    json_t *problem = get_json(x, 404, "/api/v1/jobs/1");
    validate("Problem", problem, schema);
    json_decref(problem);
    problem = post_json(
        x, 422, "{\"project\":\"a\",\"files\":{\".gitlab-ci.yml\":\"a:\\n  scirpt: x\\n\"}}",
        "/api/v1/pipelines");
    validate("Problem", problem, schema);
    json_decref(problem);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_document_is_of_this_version),
        cmocka_unit_test(every_route_is_in_the_document_and_nothing_else),
        cmocka_unit_test(roles_queries_and_bodies_are_those_of_the_routes),
        TEST(answers_are_what_the_document_says),
        TEST(jobs_without_a_pipeline_are_what_the_document_says),
        TEST(what_jobs_leave_is_what_the_document_says),
        TEST(problems_are_what_the_document_says),
    };
    return cmocka_run_group_tests(tests, load, unload);
}
