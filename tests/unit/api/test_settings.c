/* Pools and projects: what administrators set of them, and who may. */
#include "common/base.h"

#include "tests/unit/api/fixture.h"

/* Answers with the status, or the test fails; the JSON is the caller's. */
static json_t *send(struct fixture *x, int status, const char *method, const char *path,
                    const char *token, const char *body)
{
    struct answer a;
    call(x, &(struct call){.method = method, .path = path, .token = token, .body = body}, &a);
    if (a.status != status) {
        fail_msg("%s %s: status %d: %s", method, path, a.status, buf_cstr(&a.body));
    }
    json_t *json = json_incref(a.json);
    answer_release(&a);
    return json;
}

static bool flag_of(const json_t *object, const char *name)
{
    return json_is_true(json_object_get(object, name));
}

static void a_pool_is_set_piece_by_piece_and_forgotten(void **state)
{
    struct fixture *x = *state;
    json_t *p = send(x, 200, "PUT", "/api/v1/pools/fast", NULL,
                     "{\"projects\":[\"a/b\",\"c/*\"],\"locked\":true,\"max_running\":7,"
                     "\"queue_timeout\":\"1h\"}");
    assert_string_equal(text_of(p, "name"), "fast");
    assert_int_equal(json_array_size(json_object_get(p, "projects")), 2);
    assert_true(flag_of(p, "locked"));
    assert_false(flag_of(p, "protected"));
    assert_int_equal(id_of(p, "max_running"), 7);
    assert_int_equal(id_of(p, "queue_timeout_ms"), 3600000);
    assert_int_equal(strlen(text_of(p, "created_at")), strlen("2026-02-03T04:05:06Z"));
    json_decref(p);
    p = send(x, 200, "PUT", "/api/v1/pools/fast", NULL,
             "{\"protected\":true,\"preempt\":true,\"project_max_running\":2,\"max_running\":0,"
             "\"projects\":[]}");
    assert_true(flag_of(p, "locked"));
    assert_true(flag_of(p, "protected"));
    assert_true(flag_of(p, "preempt"));
    assert_int_equal(json_array_size(json_object_get(p, "projects")), 0);
    assert_int_equal(id_of(p, "max_running"), 0);
    assert_int_equal(id_of(p, "project_max_running"), 2);
    assert_int_equal(id_of(p, "queue_timeout_ms"), 3600000);
    json_decref(p);
    p = send(x, 200, "PUT", "/api/v1/pools/fast", NULL,
             "{\"heartbeat_ms\":1000,\"suspect_ms\":2500,\"lease_ms\":4000,"
             "\"on_worker_lost\":\"fail\"}");
    assert_int_equal(id_of(p, "heartbeat_ms"), 1000);
    assert_int_equal(id_of(p, "suspect_ms"), 2500);
    assert_int_equal(id_of(p, "lease_ms"), 4000);
    assert_string_equal(text_of(p, "on_worker_lost"), "fail");
    assert_false(flag_of(p, "declared"));
    json_decref(p);
    json_decref(send(x, 400, "PUT", "/api/v1/pools/fast", NULL, "{\"lease_ms\":1999}"));
    json_decref(send(x, 400, "PUT", "/api/v1/pools/fast", NULL, "{\"on_worker_lost\":\"cry\"}"));
    json_decref(send(x, 200, "DELETE", "/api/v1/pools/fast", NULL, NULL));
    assert_problem(x, &(struct call){.path = "/api/v1/pools/fast"}, 404, "not_found");
    assert_problem(x, &(struct call){.method = "DELETE", .path = "/api/v1/pools/fast"}, 404,
                   "not_found");
}

static void pools_are_listed_by_name_with_what_their_workers_come_to(void **state)
{
    struct fixture *x = *state;
    json_decref(send(x, 200, "PUT", "/api/v1/pools/b", NULL, ""));
    json_decref(send(x, 200, "PUT", "/api/v1/pools/a%2Fdeep", NULL, "{}"));
    worker_hello_pool(x, "c");
    worker_hello_pool(x, "b");
    json_t *list = get_json(x, 200, "/api/v1/pools?limit=2");
    const json_t *items = json_object_get(list, "items");
    assert_int_equal(json_array_size(items), 2);
    assert_string_equal(text_of(json_array_get(items, 0), "name"), "a/deep");
    assert_string_equal(text_of(json_array_get(items, 1), "name"), "b");
    assert_int_equal(id_of(json_array_get(items, 1), "workers"), 1);
    assert_int_equal(id_of(json_array_get(items, 1), "online"), 0);
    assert_string_equal(text_of(list, "next"), "b");
    json_decref(list);
    list = get_json(x, 200, "/api/v1/pools?after=b");
    items = json_object_get(list, "items");
    assert_int_equal(json_array_size(items), 1);
    assert_string_equal(text_of(json_array_get(items, 0), "name"), "c");
    assert_string_equal(text_of(json_array_get(items, 0), "created_at"), "");
    assert_true(json_is_null(json_object_get(list, "next")));
    json_decref(list);
    assert_problem(x, &(struct call){.path = "/api/v1/pools?limit=0"}, 400, "invalid");
    assert_problem(x, &(struct call){.method = "DELETE", .path = "/api/v1/pools/b"}, 409,
                   "conflict");
}

static void a_project_gets_its_share_and_its_bound(void **state)
{
    struct fixture *x = *state;
    json_t *p = send(x, 200, "PUT", "/api/v1/projects/group/heavy", NULL,
                     "{\"weight\":300,\"max_running\":12}");
    assert_string_equal(text_of(p, "name"), "group/heavy");
    assert_int_equal(id_of(p, "weight"), 300);
    assert_int_equal(id_of(p, "max_running"), 12);
    json_decref(p);
    p = send(x, 200, "PUT", "/api/v1/projects/group/heavy", NULL, "{\"weight\":0}");
    assert_int_equal(id_of(p, "weight"), 100); /* the default */
    assert_int_equal(id_of(p, "max_running"), 12);
    json_decref(p);
    p = get_json(x, 200, "/api/v1/projects/group/heavy");
    assert_int_equal(id_of(p, "max_running"), 12);
    json_decref(p);
    assert_problem(x, &(struct call){.path = "/api/v1/projects/group/none"}, 404, "not_found");
}

static void a_resource_group_lets_jobs_in_by_its_mode(void **state)
{
    struct fixture *x = *state;
    uint64_t first;
    submit(x, "a:\n  script: [x]\n  resource_group: g/h\n", &first);
    uint64_t second;
    submit(x, "a:\n  script: [x]\n  resource_group: g/h\n", &second);
    json_t *g = get_json(x, 200, "/api/v1/resource-groups/g/h?project=group/test");
    assert_string_equal(text_of(g, "mode"), "unordered");
    assert_int_equal(id_of(g, "holder"), first);
    const json_t *waiting = json_object_get(g, "waiting");
    assert_int_equal(json_array_size(waiting), 1);
    assert_int_equal(json_integer_value(json_array_get(waiting, 0)), second);
    json_decref(g);
    g = send(x, 200, "PUT", "/api/v1/resource-groups/g/h?project=group/test", USER_TOKEN,
             "{\"mode\":\"newest_first\"}");
    assert_string_equal(text_of(g, "mode"), "newest_first");
    json_decref(g);
    json_decref(send(x, 200, "PUT", "/api/v1/resource-groups/b?project=group/test", NULL,
                     "{\"mode\":\"oldest_first\"}"));
    json_t *list = get_json(x, 200, "/api/v1/resource-groups?project=group/test&limit=1");
    assert_int_equal(json_array_size(json_object_get(list, "items")), 1);
    char *next = xstrdup(text_of(list, "next"));
    json_decref(list);
    list = get_json(x, 200, "/api/v1/resource-groups?project=group/test&after=%s", next);
    assert_int_equal(json_array_size(json_object_get(list, "items")), 1);
    const json_t *item = json_array_get(json_object_get(list, "items"), 0);
    assert_string_not_equal(text_of(item, "name"), next);
    assert_true(json_is_null(json_object_get(list, "next")));
    json_decref(list);
    free(next);
    g = send(x, 200, "DELETE", "/api/v1/resource-groups/b?project=group/test", NULL, NULL);
    assert_string_equal(text_of(g, "mode"), "unordered");
    json_decref(g);
    list = get_json(x, 200, "/api/v1/resource-groups?project=group/test");
    assert_int_equal(json_array_size(json_object_get(list, "items")), 1);
    json_decref(list);
    static const char *const bad[] = {"{}", "{\"mode\":\"best\"}", "{\"mod\":\"unordered\"}"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        json_decref(
            send(x, 400, "PUT", "/api/v1/resource-groups/b?project=group/test", NULL, bad[i]));
    }
    json_decref(send(x, 400, "GET", "/api/v1/resource-groups", NULL, NULL));
    json_decref(send(x, 404, "GET", "/api/v1/resource-groups/b?project=none", NULL, NULL));
}

static void what_is_wrong_with_a_setting_is_named(void **state)
{
    struct fixture *x = *state;
    static const struct {
        const char *path, *body, *named;
    } rows[] = {
        {"/api/v1/pools/p", "{\"sise\":1}", "`sise`"},
        {"/api/v1/pools/p", "{\"projects\":\"a\"}", "`projects`"},
        {"/api/v1/pools/p", "{\"projects\":[\"a\",7]}", "`projects[1]`"},
        {"/api/v1/pools/p", "{\"projects\":[\"a\\n\"]}", "`projects[0]`"},
        {"/api/v1/pools/p", "{\"locked\":1}", "`locked`"},
        {"/api/v1/pools/p", "{\"max_running\":-1}", "`max_running`"},
        {"/api/v1/pools/p", "{\"max_running\":4294967296}", "`max_running`"},
        {"/api/v1/pools/p", "{\"queue_timeout\":\"soon\"}", "`queue_timeout`"},
        {"/api/v1/projects/p", "{\"weight\":1001}", "`weight`"},
        {"/api/v1/projects/p", "{\"weight\":\"1\"}", "`weight`"},
        {"/api/v1/projects/a//b", "{}", "project"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        json_t *problem = send(x, 400, "PUT", rows[i].path, NULL, rows[i].body);
        if (!strstr(text_of(problem, "detail"), rows[i].named)) {
            fail_msg("%s: %s", rows[i].body, text_of(problem, "detail"));
        }
        json_decref(problem);
    }
}

static void only_an_administrator_sets(void **state)
{
    struct fixture *x = *state;
    static const char *const paths[] = {"/api/v1/pools/p", "/api/v1/projects/p"};
    json_decref(send(x, 200, "PUT", paths[0], NULL, "{}"));
    json_decref(send(x, 200, "PUT", paths[1], NULL, "{}"));
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        json_decref(send(x, 403, "PUT", paths[i], USER_TOKEN, "{}"));
        json_decref(send(x, 200, "GET", paths[i], USER_TOKEN, NULL));
        json_decref(send(x, 403, "GET", paths[i], WORKER_TOKEN, NULL));
    }
    json_decref(send(x, 403, "DELETE", paths[0], USER_TOKEN, NULL));
    json_decref(send(x, 403, "GET", "/metrics", USER_TOKEN, NULL));
    json_decref(send(x, 200, "GET", "/api/v1/workers", USER_TOKEN, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_pool_is_set_piece_by_piece_and_forgotten),
        TEST(pools_are_listed_by_name_with_what_their_workers_come_to),
        TEST(a_project_gets_its_share_and_its_bound),
        TEST(a_resource_group_lets_jobs_in_by_its_mode),
        TEST(what_is_wrong_with_a_setting_is_named),
        TEST(only_an_administrator_sets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
