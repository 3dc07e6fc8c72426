/* Requests as they should not be, and who may ask for what. */
#include "common/base.h"

#include "tests/unit/api/fixture.h"

#include <sys/socket.h>

#include "broker/api/hygiene.h"
#include "broker/api/route.h"
#include "common/crypto.h"
#include "common/limits.h"

#define AUTH "Authorization: Bearer " ADMIN_TOKEN "\r\n"

/* Sends the bytes and expects the status; the server lives on. */
static void expect(struct fixture *x, const char *request, int status)
{
    struct plug w;
    plug_open(&w, x);
    plug_send(&w, request, strlen(request));
    int got = plug_status(&w);
    if (got != status) {
        fail_msg("status %d, not %d, for:\n%s\n%s", got, status, request, buf_cstr(&w.in));
    }
    plug_close(&w);
    json_decref(get_json(x, 200, "/healthz"));
}

static void a_plain_request_is_answered(void **state)
{
    expect(*state, "GET /api/v1/version HTTP/1.1\r\nHost: a\r\n" AUTH "\r\n", 200);
}

static void both_lengths_are_refused_and_the_connection_ends(void **state)
{
    struct plug w;
    plug_open(&w, *state);
    plug_sendf(&w, "POST /api/v1/lint HTTP/1.1\r\nHost: a\r\n" AUTH
                   "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
                   "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(plug_status(&w), 400);
    assert_true(plug_closed(&w, 5000));
    assert_true(str_find(buf_str(&w.in), STR("200 OK")) < 0); /* nothing was smuggled */
    plug_close(&w);
}

static void headers_that_may_stand_once_are_refused_twice(void **state)
{
    expect(*state, "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400);
    expect(*state,
           "POST /api/v1/lint HTTP/1.1\r\nHost: a\r\n" AUTH
           "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
           400);
    expect(*state, "GET /api/v1/version HTTP/1.1\r\nHost: a\r\n" AUTH AUTH "\r\n", 400);
    expect(*state,
           "POST /api/v1/lint HTTP/1.1\r\nHost: a\r\n" AUTH
           "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
           400);
}

static void a_header_name_that_is_no_token_is_refused(void **state)
{
    expect(*state,
           "POST /api/v1/lint HTTP/1.1\r\nHost: a\r\n" AUTH
           "Transfer-Encoding : chunked\r\nContent-Length: 2\r\n\r\n{}",
           400);
    expect(*state, "GET /healthz HTTP/1.1\r\nHost: a\r\nA B: c\r\n\r\n", 400);
    expect(*state, "GET /healthz HTTP/1.1\r\nHost: a\r\nA(B: c\r\n\r\n", 400);
}

static void paths_with_tricks_are_refused(void **state)
{
    expect(*state, "GET /healthz%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    expect(*state, "GET /api/v1/../../healthz HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    expect(*state, "GET /api/%2e%2e/healthz HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    expect(*state, "GET /./healthz HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    expect(*state, "GET http://a/healthz HTTP/1.1\r\nHost: a\r\n\r\n", 400);
    expect(*state, "GET //healthz HTTP/1.1\r\nHost: a\r\n\r\n", 404);
    expect(*state, "GET /healthz/ HTTP/1.1\r\nHost: a\r\n\r\n", 404);
}

static void a_request_without_a_host_is_refused(void **state)
{
    expect(*state, "GET /healthz HTTP/1.1\r\n\r\n", 400);
}

static void garbage_ends_its_own_connection_only(void **state)
{
    struct fixture *x = *state;
    static const char *const garbage[] = {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                                          "\r\n\r\n\r\n\r\n", "GET\r\n\r\n",
                                          "\xff\xfe\xfd\r\n\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(garbage); i++) {
        struct plug w;
        plug_open(&w, x);
        plug_send(&w, garbage[i], strlen(garbage[i]));
        plug_closed(&w, 1000);
        plug_close(&w);
        json_decref(get_json(x, 200, "/healthz"));
    }
}

static void random_bytes_do_no_harm(void **state)
{
    struct fixture *x = *state;
    uint8_t *bytes = xmalloc(1 << 20);
    struct plug w;
    os_random(bytes, 1 << 20);
    plug_open(&w, x);
    plug_send(&w, bytes, 1 << 20);
    assert_true(plug_closed(&w, 5000));
    plug_close(&w);
    free(bytes);
    json_decref(get_json(x, 200, "/healthz"));
}

static void a_head_that_is_too_large_is_refused(void **state)
{
    struct fixture *x = *state;
    struct plug w;
    char line[1100];
    memset(line, 'a', sizeof(line));
    line[sizeof(line) - 1] = '\0';
    plug_open(&w, x);
    plug_sendf(&w, "GET /healthz HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < 200; i++) {
        plug_sendf(&w, "X-%d: %s\r\n", i, line);
    }
    plug_sendf(&w, "\r\n");
    assert_int_equal(plug_status(&w), 431);
    plug_close(&w);
    plug_open(&w, x);
    plug_sendf(&w, "GET /");
    for (int i = 0; i < 200; i++) {
        plug_sendf(&w, "%s", line);
    }
    plug_sendf(&w, " HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(plug_status(&w), 414);
    plug_close(&w);
    json_decref(get_json(x, 200, "/healthz"));
}

static void a_head_that_comes_too_slowly_ends_the_connection(void **state)
{
    struct plug w;
    fixture_restart_api(*state, HEAD_MS);
    plug_open(&w, *state);
    plug_sendf(&w, "GET /healthz HTTP/1.1\r\nHost: a\r\n");
    uint64_t start_ms = os_monotonic_ms();
    bool closed = false;
    while (!closed && os_monotonic_ms() - start_ms < 10000) {
        plug_sendf(&w, "X: y\r\n"); /* always something, never the end */
        closed = plug_closed(&w, 30);
    }
    assert_true(closed);
    assert_in_range(os_monotonic_ms() - start_ms, HEAD_MS - 50, 9000);
    assert_int_equal(w.in.n, 0);
    plug_close(&w);
}

static void a_body_that_comes_too_slowly_ends_the_connection(void **state)
{
    struct plug w;
    fixture_restart_api(*state, HEAD_MS);
    plug_open(&w, *state);
    plug_sendf(&w, "POST /api/v1/lint HTTP/1.1\r\nHost: a\r\n" AUTH "Content-Length: 1000\r\n\r\n");
    uint64_t start_ms = os_monotonic_ms();
    bool closed = false;
    while (!closed && os_monotonic_ms() - start_ms < 20000) {
        plug_sendf(&w, " ");
        closed = plug_closed(&w, 50);
    }
    assert_true(closed);
    assert_in_range(os_monotonic_ms() - start_ms, 4 * HEAD_MS - 50, 19000);
    plug_close(&w);
}

static void an_idle_connection_ends_and_a_used_one_serves_again(void **state)
{
    struct plug w;
    fixture_restart_api(*state, HEAD_MS);
    plug_open(&w, *state);
    for (int i = 0; i < 3; i++) {
        buf_clear(&w.in);
        plug_sendf(&w, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_true(plug_until(&w, "\"ok\"}", 5000));
        os_sleep_ms(HEAD_MS / 3);
    }
    assert_true(plug_closed(&w, 10000));
    plug_close(&w);
}

/* --- tokens --- */

/* A path of the route, on the heap; `last` stands for {name} and {path}. */
static char *path_of(const struct route *r, const char *last)
{
    struct buf path = BUF_INIT;
    struct str rest = str_from(r->path);
    struct str part;
    while (str_split(&rest, '/', &part)) {
        if (str_eqz(part, "{id}")) {
            buf_addz(&path, "/1");
        } else if (str_eqz(part, "{digest}")) {
            buf_addf(&path, "/%064d", 1);
        } else if (str_eqz(part, "{name}") || str_eqz(part, "{path}")) {
            buf_addf(&path, "/%s", last);
        } else if (part.n > 0) {
            buf_addf(&path, "/" STR_FMT, STR_ARG(part));
        }
    }
    return buf_take(&path);
}

static void without_a_valid_token_nothing_is_told(void **state)
{
    struct fixture *x = *state;
    static const char *const tokens[] = {
        "",
        "wrong",
        "dva_",
        ADMIN_TOKEN "x",
        "djt-1-1-1-00",
        "djt-",
        "djt-1-1-1",
        "djt-1-1-1-0000000000000000000000000000000000000000000000000000000000000000"};
    for (size_t i = 0; i < route_count; i++) {
        if (routes[i].roles == ROLE_NONE) {
            continue;
        }
        char *text = path_of(&routes[i], "{name}");
        if (i % 10 == 0) {
            fixture_restart_api(x, 0); /* strangers may not ask for ever */
        }
        for (size_t t = 0; t < ARRAY_LEN(tokens); t++) {
            struct call c = {.path = text,
                             .token = tokens[t],
                             .method = method_name(routes[i].method),
                             .body = routes[i].method == GET ? NULL : "{}"};
            assert_problem(x, &c, 401, "unauthorized");
        }
        free(text);
    }
}

static void answered(struct fixture *x, const struct call *c)
{
    struct answer a;
    call(x, c, &a);
    if (a.status < 200 || a.status >= 500) {
        fail_msg("%s: status %d", c->path, a.status);
    }
    answer_release(&a);
}

static void bytes_that_are_no_text_are_answered_everywhere(void **state)
{
    struct fixture *x = *state;
    uint64_t job;
    submit(x, "a:\n  script: [x]\n  resource_group: g\n", &job);
    for (size_t i = 0; i < route_count; i++) {
        const struct route *r = &routes[i];
        if (strstr(r->path, "events") || strstr(r->path, "follow")) {
            continue; /* these do not end */
        }
        struct call c = {.method = method_name(r->method), .body = r->body ? "{}" : NULL};
        char *path = path_of(r, "%ff");
        struct buf with = BUF_INIT;
        struct str names = str_from(r->query);
        struct str name;
        const char *project = route_knows_query(r, STR("project")) ? "?project=group/test" : "";
        buf_addf(&with, "%s%s", path, project);
        c.path = buf_cstr(&with);
        answered(x, &c);
        while (str_split(&names, ' ', &name)) {
            if (name.n > 0 && !str_eqz(name, ROUTE_ANY_QUERY)) {
                buf_clear(&with);
                buf_addf(&with, "%s?" STR_FMT "=%%ff", path, STR_ARG(name));
                if (!str_eqz(name, "project") && project[0] != '\0') {
                    buf_addz(&with, "&project=group/test");
                }
                c.path = buf_cstr(&with);
                answered(x, &c);
            }
        }
        buf_release(&with);
        free(path);
    }
    assert_problem(x, &(struct call){.path = "/api/v1/resource-groups/%ff?project=group/test"}, 400,
                   "invalid");
}

static void the_scheme_must_be_bearer(void **state)
{
    struct call c = {
        .path = "/api/v1/version", .token = "", .headers = {"Authorization: Basic " ADMIN_TOKEN}};
    struct answer a;
    call(*state, &c, &a);
    assert_int_equal(a.status, 401);
    assert_true(str_find(buf_str(&a.head), STR("WWW-Authenticate: Bearer")) > 0);
    answer_release(&a);
}

static void a_worker_token_opens_only_what_workers_need(void **state)
{
    struct fixture *x = *state;
    struct answer a;
    call(x, &(struct call){.path = "/api/v1/version", .token = WORKER_TOKEN}, &a);
    assert_int_equal(a.status, 200);
    answer_release(&a);
    assert_problem(x, &(struct call){.path = "/api/v1/jobs/1", .token = WORKER_TOKEN}, 403,
                   "forbidden");
    assert_problem(x, &(struct call){.path = "/metrics", .token = WORKER_TOKEN}, 403, "forbidden");
    assert_problem(x, &(struct call){.path = "/api/v1/blobs", .token = WORKER_TOKEN, .body = "x"},
                   403, "forbidden");
}

/* --- routes and bodies --- */

static void unknown_paths_and_methods_are_named(void **state)
{
    struct fixture *x = *state;
    struct answer a;
    assert_problem(x, &(struct call){.path = "/nothing"}, 404, "not_found");
    assert_problem(x, &(struct call){.path = "/api/v1/jobs/x"}, 404, "not_found");
    assert_problem(x, &(struct call){.path = "/api/v1/jobs/-1"}, 404, "not_found");
    assert_problem(x, &(struct call){.path = "/api/v1/jobs/0"}, 404, "not_found");
    assert_problem(x, &(struct call){.path = "/api/v1/jobs/99999999999999999999"}, 404,
                   "not_found");
    assert_problem(x, &(struct call){.path = "/api/v1/blobs/abc"}, 404, "not_found");
    call(x, &(struct call){.path = "/api/v1/jobs/1/cache", .method = "POST", .body = "{}"}, &a);
    assert_int_equal(a.status, 405);
    assert_true(str_find(buf_str(&a.head), STR("Allow: GET, HEAD, PUT")) > 0);
    answer_release(&a);
    call(x, &(struct call){.path = "/api/v1/pipelines", .method = "DELETE"}, &a);
    assert_int_equal(a.status, 405);
    assert_true(str_find(buf_str(&a.head), STR("Allow: GET, HEAD, POST")) > 0);
    answer_release(&a);
}

static void a_head_request_gets_the_head_of_the_answer(void **state)
{
    struct answer a;
    call(*state, &(struct call){.path = "/api/v1/version", .method = "HEAD"}, &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body.n, 0);
    answer_release(&a);
}

static void the_query_is_read_strictly(void **state)
{
    struct fixture *x = *state;
    static const char *const paths[] = {
        "/api/v1/projects?limits=3",     "/api/v1/projects?limit=x",
        "/api/v1/projects?limit=",       "/api/v1/projects?limit=1&limit=2",
        "/api/v1/projects?limit=0",      "/api/v1/projects?limit=201",
        "/api/v1/projects?limit",        "/api/v1/version?x=1",
        "/api/v1/pipelines?status=fine", "/api/v1/projects?after=-1"};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        assert_problem(x, &(struct call){.path = paths[i]}, 400, "invalid");
    }
}

static void a_get_takes_no_body(void **state)
{
    assert_problem(*state, &(struct call){.path = "/api/v1/version", .method = "GET", .body = "{}"},
                   400, "invalid");
    expect(*state,
           "GET /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: "
           "chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
           400);
}

static void bodies_that_are_no_object_are_refused(void **state)
{
    struct fixture *x = *state;
    static const char *const bodies[] = {"",           "x",
                                         "[]",         "\"a\"",
                                         "{",          "{\"a\":1,\"a\":2}",
                                         "{\"a\":1}}", "{\"a\":\"\\u0000\"}",
                                         "\xff\xfe",   "{\"project\":\"\xff\"}",
                                         "null",       "{\"nothing\":1}"};
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        assert_problem(x, &(struct call){.path = "/api/v1/lint", .body = bodies[i]}, 400,
                       "invalid");
    }
}

static void what_comes_along_for_the_compiler_is_read_strictly(void **state)
{
    static const char *const fields[] = {
        "\"files\":{\"a\":1}",
        "\"files\":{\"a\":{}}",
        "\"files\":{\"a\":{\"text\":1}}",
        "\"files\":{\"a\":{\"text\":\"\",\"sah\":\"\"}}",
        "\"files\":[]",
        "\"inputs\":[]",
        "\"compared\":{\"main\":\"a\"}",
        "\"compared\":{\"main\":[1]}",
        "\"compared\":[]",
    };
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        struct buf body = BUF_INIT;
        buf_addf(&body, "{\"file\":\"b\",%s}", fields[i]);
        assert_problem(*state, &(struct call){.path = "/api/v1/lint", .body = buf_cstr(&body)}, 400,
                       "invalid");
        buf_release(&body);
    }
}

static json_t *lint(struct fixture *x, const char *body)
{
    return post_json(x, 200, body, "/api/v1/lint");
}

static const char *first_code(const json_t *answer)
{
    return text_of(json_array_get(json_object_get(answer, "diagnostics"), 0), "code");
}

static void files_and_inputs_come_along(void **state)
{
    json_t *a = lint(*state, "{\"files\":{\".gitlab-ci.yml\":\"spec: {inputs: {n: {type: number}, "
                             "l: {type: array}}}\\n---\\ninclude: {component: "
                             "example.org/a/b/c@~latest}\\n$[[ inputs.l[0] ]] $[[ inputs.n ]]: "
                             "{script: [a]}\",\"component:example.org/a/b/c@~latest\":{\"text\":"
                             "\"spec: {component: [version]}\\n---\\nat $[[ component.version ]]: "
                             "{script: [b]}\",\"sha\":\"abc\",\"version\":\"1.2\"}},"
                             "\"inputs\":{\"n\":\"7\",\"l\":[\"x\"]}}");
    json_t *jobs = json_object_get(a, "jobs");
    assert_int_equal(json_array_size(jobs), 2);
    assert_string_equal(text_of(json_array_get(jobs, 0), "name"), "at 1.2");
    assert_string_equal(text_of(json_array_get(jobs, 1), "name"), "x 7");
    json_decref(a);
}

static void nothing_is_fetched_unless_it_was_asked_for(void **state)
{
    json_t *a = lint(*state, "{\"files\":{\".gitlab-ci.yml\":"
                             "\"include: http://127.0.0.1:1/a.yml\"}}");
    assert_string_equal(first_code(a), "include-offline");
    json_decref(a);
}

static void heavy_json_is_refused_before_it_is_built(void **state)
{
    struct fixture *x = *state;
    struct buf deep = BUF_INIT;
    struct buf wide = BUF_INIT;
    for (int i = 0; i < 200000; i++) {
        buf_add_char(&deep, '[');
    }
    buf_addz(&wide, "{\"paths\":[[]");
    for (int i = 0; i < 4000000; i++) {
        buf_addz(&wide, ",[]");
    }
    buf_addz(&wide, "]}");
    assert_problem(x, &(struct call){.path = "/api/v1/lint", .body = buf_cstr(&deep)}, 422,
                   "limit");
    assert_problem(x, &(struct call){.path = "/api/v1/lint", .body = buf_cstr(&wide)}, 422,
                   "limit");
    buf_release(&deep);
    buf_release(&wide);
}

static void a_body_of_17_mib_is_refused_by_its_head(void **state)
{
    struct fixture *x = *state;
    struct plug w;
    plug_open(&w, x);
    plug_sendf(&w, "POST /api/v1/lint HTTP/1.1\r\nHost: a\r\n" AUTH "Content-Length: %u\r\n\r\n{",
               17u * MIB);
    assert_int_equal(plug_status(&w), 413); /* though only one byte was sent */
    assert_true(plug_closed(&w, 5000));
    plug_close(&w);
}

static void a_chunked_body_of_17_mib_is_refused_when_it_is_too_large(void **state)
{
    struct fixture *x = *state;
    struct plug w;
    char *block = xmalloc(MIB);
    memset(block, ' ', MIB);
    plug_open(&w, x);
    plug_sendf(&w, "POST /api/v1/lint HTTP/1.1\r\nHost: a\r\n" AUTH
                   "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 17; i++) {
        plug_sendf(&w, "%x\r\n", MIB);
        plug_send(&w, block, MIB);
        plug_sendf(&w, "\r\n");
    }
    plug_sendf(&w, "0\r\n\r\n");
    assert_int_equal(plug_status(&w), 413);
    plug_close(&w);
    free(block);
    json_decref(get_json(x, 200, "/healthz"));
}

static void an_endless_body_is_cut_off(void **state)
{
    struct fixture *x = *state;
    struct plug w;
    char *block = xmalloc(MIB);
    memset(block, ' ', MIB);
    plug_open(&w, x);
    plug_sendf(&w, "POST /api/v1/lint HTTP/1.1\r\nHost: a\r\n" AUTH
                   "Transfer-Encoding: chunked\r\n\r\n");
    bool closed = false;
    for (int i = 0; i < 100 && !closed; i++) {
        plug_sendf(&w, "%x\r\n", MIB);
        plug_send(&w, block, MIB);
        plug_sendf(&w, "\r\n");
        closed = plug_closed(&w, 0);
    }
    assert_true(closed);
    plug_close(&w);
    free(block);
    json_decref(get_json(x, 200, "/healthz"));
}

static void an_upload_without_a_token_is_refused_by_its_head(void **state)
{
    struct plug w;
    plug_open(&w, *state);
    plug_sendf(&w, "POST /api/v1/blobs HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n"
                   "Expect: 100-continue\r\n\r\n");
    assert_int_equal(plug_status(&w), 401);
    assert_true(plug_closed(&w, 5000));
    assert_true(str_find(buf_str(&w.in), STR("100 Continue")) < 0);
    plug_close(&w);
}

static void only_loopback_is_served(void **state)
{
    struct fixture *x = *state;
    static const char *const hosts[] = {"0.0.0.0", "192.168.1.1", "::", "example.org", ""};
    for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
        struct api_config config = {.store = x->store,
                                    .turn = x->turn,
                                    .fleet = x->fleet,
                                    .blobs = x->blobs,
                                    .logs = x->logs,
                                    .bus = x->bus,
                                    .host = hosts[i]};
        struct api *api = NULL;
        struct buf why = BUF_INIT;
        assert_int_equal(api_start(&config, &api, &why), -E_USAGE);
        assert_null(api);
        assert_true(why.n > 0);
        buf_release(&why);
    }
}

static void a_port_in_use_is_an_error_with_its_number(void **state)
{
    struct fixture *x = *state;
    struct api_config config = {.store = x->store,
                                .turn = x->turn,
                                .fleet = x->fleet,
                                .blobs = x->blobs,
                                .logs = x->logs,
                                .bus = x->bus,
                                .host = "127.0.0.1",
                                .port = api_port(x->api)};
    struct api *api = NULL;
    struct buf why = BUF_INIT;
    char number[16];
    snprintf(number, sizeof(number), "%u", api_port(x->api));
    assert_true(api_start(&config, &api, &why) < 0);
    assert_non_null(strstr(buf_cstr(&why), number));
    buf_release(&why);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_plain_request_is_answered),
        TEST(both_lengths_are_refused_and_the_connection_ends),
        TEST(headers_that_may_stand_once_are_refused_twice),
        TEST(a_header_name_that_is_no_token_is_refused),
        TEST(paths_with_tricks_are_refused),
        TEST(a_request_without_a_host_is_refused),
        TEST(garbage_ends_its_own_connection_only),
        TEST(random_bytes_do_no_harm),
        TEST(a_head_that_is_too_large_is_refused),
        TEST(a_head_that_comes_too_slowly_ends_the_connection),
        TEST(a_body_that_comes_too_slowly_ends_the_connection),
        TEST(an_idle_connection_ends_and_a_used_one_serves_again),
        TEST(bytes_that_are_no_text_are_answered_everywhere),
        TEST(without_a_valid_token_nothing_is_told),
        TEST(the_scheme_must_be_bearer),
        TEST(a_worker_token_opens_only_what_workers_need),
        TEST(unknown_paths_and_methods_are_named),
        TEST(a_head_request_gets_the_head_of_the_answer),
        TEST(the_query_is_read_strictly),
        TEST(a_get_takes_no_body),
        TEST(bodies_that_are_no_object_are_refused),
        TEST(heavy_json_is_refused_before_it_is_built),
        TEST(what_comes_along_for_the_compiler_is_read_strictly),
        TEST(files_and_inputs_come_along),
        TEST(nothing_is_fetched_unless_it_was_asked_for),
        TEST(a_body_of_17_mib_is_refused_by_its_head),
        TEST(a_chunked_body_of_17_mib_is_refused_when_it_is_too_large),
        TEST(an_endless_body_is_cut_off),
        TEST(an_upload_without_a_token_is_refused_by_its_head),
        TEST(only_loopback_is_served),
        TEST(a_port_in_use_is_an_error_with_its_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
