/* Rollouts over HTTP: who sees them, who may do what, and what they answer. */
#include "common/base.h"

#include "tests/unit/api/fixture.h"

#define PIPELINE                  \
    "deploy:\n"                   \
    "  environment: production\n" \
    "  rollout: {target: web, version: v1}\n"

static Pb__DriverConfig *driver(struct arena *a)
{
    Pb__DriverConfig *d = arena_alloc(a, sizeof(*d));
    pb__driver_config__init(d);
    d->driver = arena_strdup(a, STR("exec"));
    return d;
}

/* The target web of every environment; two roles can let a rollout begin. */
static void declare(struct fixture *x)
{
    struct post *p = post_new("config");
    struct arena *a = post_arena(p);
    Pb__Configure *c = arena_alloc(a, sizeof(*c));
    Pb__RolloutTarget *t = arena_alloc(a, sizeof(*t));
    struct reply reply;
    pb__configure__init(c);
    pb__rollout_target__init(t);
    t->environment = arena_strdup(a, STR("*"));
    t->name = arena_strdup(a, STR("web"));
    t->instances = 2;
    t->instance_driver = driver(a);
    t->router_driver = driver(a);
    t->gate = arena_array(a, 2, sizeof(*t->gate));
    t->gate[t->n_gate++] = arena_strdup(a, STR("token:boss"));
    t->gate[t->n_gate++] = arena_strdup(a, STR("admin"));
    t->gate_approvals = 2;
    c->targets = arena_array(a, 1, sizeof(Pb__RolloutTarget *));
    c->targets[c->n_targets++] = t;
    post_command(p)->body_case = PB__COMMAND__BODY_CONFIGURE;
    post_command(p)->configure = c;
    assert_int_equal(turn_call(x->turn, p, &reply), 0);
}

/* Submits; the id of the rollout once it waits for approvals. */
static uint64_t begin(struct fixture *x)
{
    uint64_t id = 0;
    declare(x);
    submit(x, PIPELINE, NULL);
    for (unsigned tries = 0; id == 0 && tries < 500; tries++) {
        json_t *list = get_json(x, 200, "/api/v1/rollouts?project=group/test&state=gated");
        id = id_of(json_array_get(json_object_get(list, "items"), 0), "id");
        json_decref(list);
        if (id == 0) {
            os_sleep_ms(10);
        }
    }
    assert_int_not_equal(id, 0);
    return id;
}

static void rollouts_are_listed_and_shown(void **state)
{
    struct fixture *x = *state;
    const uint64_t id = begin(x);
    json_t *o = get_json(x, 200, "/api/v1/rollouts/%" PRIu64, id);
    assert_string_equal(text_of(o, "project"), "group/test");
    assert_string_equal(text_of(o, "environment"), "production");
    assert_string_equal(text_of(o, "target"), "web");
    assert_string_equal(text_of(o, "version"), "v1");
    assert_string_equal(text_of(o, "state"), "gated");
    assert_non_null(strstr(text_of(o, "waits_for"), "approval"));
    assert_true(json_array_size(json_object_get(o, "notes")) > 0);
    json_decref(o);
    o = get_json(x, 200, "/api/v1/rollouts/%" PRIu64 "/explain", id);
    assert_int_equal(json_array_size(json_object_get(o, "items")), 0);
    json_decref(o);
    static const struct {
        const char *query;
        size_t count;
    } cases[] = {{"", 1}, {"&state=live", 1}, {"&state=done", 0}, {"&environment=production", 1}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        o = get_json(x, 200, "/api/v1/rollouts?project=group/test%s", cases[i].query);
        assert_int_equal(json_array_size(json_object_get(o, "items")), cases[i].count);
        assert_true(json_is_null(json_object_get(o, "next")));
        json_decref(o);
    }
    json_decref(get_json(x, 400, "/api/v1/rollouts?project=group/test&state=good"));
    json_decref(get_json(x, 404, "/api/v1/rollouts?project=group/test&environment=none"));
    json_decref(get_json(x, 404, "/api/v1/rollouts/%" PRIu64, id + 1));
}

static void people_act_when_it_is_time(void **state)
{
    struct fixture *x = *state;
    const uint64_t id = begin(x);
    json_t *o = post_json(x, 202, "{}", "/api/v1/rollouts/%" PRIu64 "/pause", id);
    assert_true(json_is_true(json_object_get(o, "paused")));
    json_decref(o);
    json_decref(post_json(x, 409, "{}", "/api/v1/rollouts/%" PRIu64 "/pause", id));
    o = post_json(x, 202, "{}", "/api/v1/rollouts/%" PRIu64 "/resume", id);
    assert_true(json_is_false(json_object_get(o, "paused")));
    json_decref(o);
    json_decref(post_json(x, 409, "{}", "/api/v1/rollouts/%" PRIu64 "/skip", id));
    json_decref(post_json(x, 409, "{}", "/api/v1/rollouts/%" PRIu64 "/promote", id));
    json_decref(post_json(x, 409, "{}", "/api/v1/rollouts/%" PRIu64 "/retry", id));
    json_decref(post_json(x, 409, "{}", "/api/v1/rollouts/%" PRIu64 "/override", id));
    json_decref(
        post_json(x, 202, "{\"reason\":\"urgent\"}", "/api/v1/rollouts/%" PRIu64 "/override", id));
    json_decref(post_json(x, 400, "{\"because\":\"x\"}", "/api/v1/rollouts/%" PRIu64 "/abort", id));
    o = post_json(x, 202, "{\"reason\":\"not today\"}", "/api/v1/rollouts/%" PRIu64 "/abort", id);
    assert_string_equal(text_of(o, "why_text"), "not today");
    json_decref(o);
    json_decref(post_json(x, 409, "{}", "/api/v1/rollouts/%" PRIu64 "/abort", id));
    json_decref(post_json(x, 404, "{}", "/api/v1/rollouts/%" PRIu64 "/abort", id + 1));
}

static void approvals_need_the_role_and_another_person(void **state)
{
    struct fixture *x = *state;
    const uint64_t id = begin(x);
    char path[80];
    json_t *boss = post_json(x, 201, "{\"name\":\"boss\",\"role\":\"user\"}", "/api/v1/tokens");
    char *token = str_dup(str_from(text_of(boss, "token")));
    struct answer a;
    json_decref(boss);
    snprintf(path, sizeof(path), "/api/v1/rollouts/%" PRIu64 "/approve", id);
    struct call c = {.path = path, .token = USER_TOKEN, .body = "{}"};
    assert_problem(x, &c, 403, "forbidden");
    json_t *o = post_json(x, 202, "{}", "%s", path);
    assert_string_equal(text_of(o, "state"), "gated");
    assert_string_equal(text_of(json_array_get(json_object_get(o, "approvals"), 0), "role"),
                        "admin");
    json_decref(o);
    json_decref(post_json(x, 409, "{}", "%s", path));
    c.token = token;
    call(x, &c, &a);
    assert_int_equal(a.status, 202);
    assert_int_equal(json_array_size(json_object_get(a.json, "approvals")), 2);
    answer_release(&a);
    free(token);
    for (unsigned tries = 0;; tries++) {
        o = get_json(x, 200, "/api/v1/rollouts/%" PRIu64, id);
        const bool moved = strcmp(text_of(o, "state"), "provision") == 0;
        json_decref(o);
        if (moved) {
            break;
        }
        assert_true(tries < 500);
        os_sleep_ms(10);
    }
}

static void tokens_of_other_projects_see_none(void **state)
{
    struct fixture *x = *state;
    const uint64_t id = begin(x);
    json_t *o = post_json(
        x, 201, "{\"name\":\"other\",\"role\":\"developer\",\"projects\":[\"other/one\"]}",
        "/api/v1/tokens");
    char *token = str_dup(str_from(text_of(o, "token")));
    char path[80];
    json_decref(o);
    snprintf(path, sizeof(path), "/api/v1/rollouts/%" PRIu64, id);
    struct call c = {.path = path, .token = token};
    assert_problem(x, &c, 404, "not_found");
    c.path = "/api/v1/rollouts?project=group/test";
    assert_problem(x, &c, 404, "not_found");
    snprintf(path, sizeof(path), "/api/v1/rollouts/%" PRIu64 "/abort", id);
    c = (struct call){.path = path, .token = token, .body = "{}"};
    assert_problem(x, &c, 404, "not_found");
    free(token);
}

static void services_show_what_stood_and_go_back(void **state)
{
    struct fixture *x = *state;
    const uint64_t rollout = begin(x);
    char path[96];
    json_t *o = get_json(x, 200, "/api/v1/rollouts/%" PRIu64, rollout);
    const uint64_t snapshot = id_of(o, "snapshot_id");
    assert_int_equal(id_of(o, "from_snapshot_id"), 0);
    json_decref(o);
    o = get_json(x, 200, "/api/v1/services?project=group/test");
    const json_t *line = json_array_get(json_object_get(o, "items"), 0);
    const uint64_t id = id_of(line, "id");
    assert_string_equal(text_of(line, "target"), "web");
    assert_int_equal(id_of(line, "live_rollout_id"), rollout);
    assert_int_equal(id_of(line, "snapshot_id"), 0);
    assert_true(json_is_null(json_object_get(o, "next")));
    json_decref(o);
    static const struct {
        const char *query;
        size_t count;
    } cases[] = {{"&environment=production", 1},
                 {"&after=production/", 0},
                 {"&after=production/a", 1},
                 {"&after=production/web", 0},
                 {"&environment=production&after=production/web", 0}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        o = get_json(x, 200, "/api/v1/services?project=group/test%s", cases[i].query);
        assert_int_equal(json_array_size(json_object_get(o, "items")), cases[i].count);
        json_decref(o);
    }
    json_decref(get_json(x, 400, "/api/v1/services?project=group/test&after=web"));
    json_decref(get_json(x, 404, "/api/v1/services?project=group/test&environment=none"));
    o = get_json(x, 200, "/api/v1/services/%" PRIu64, id);
    assert_int_equal(json_array_size(json_object_get(o, "rollouts")), 1);
    assert_int_equal(json_array_size(json_object_get(o, "snapshots")), 0);
    json_decref(o);
    o = get_json(x, 200, "/api/v1/snapshots/%" PRIu64, snapshot);
    assert_string_equal(text_of(o, "version"), "v1");
    assert_true(json_is_array(json_object_get(o, "variables")));
    json_decref(o);
    o = get_json(x, 200, "/api/v1/snapshots/%" PRIu64 "/diff?from=%" PRIu64, snapshot, snapshot);
    assert_int_equal(json_array_size(json_object_get(o, "items")), 0);
    json_decref(o);
    json_decref(get_json(x, 404, "/api/v1/snapshots/%" PRIu64 "/diff?from=1", snapshot));
    json_decref(get_json(x, 404, "/api/v1/snapshots/%" PRIu64, id));
    snprintf(path, sizeof(path), "/api/v1/services/%" PRIu64 "/undo", id);
    json_decref(post_json(x, 409, "{}", "%s", path));
    json_decref(post_json(x, 404, "{\"version\":\"v1\"}", "%s", path));
    json_decref(post_json(x, 404, "{\"snapshot_id\":77}", "%s", path));
    json_decref(post_json(x, 400, "{\"snapshot_id\":77,\"version\":\"v1\"}", "%s", path));
    json_decref(post_json(x, 404, "{}", "/api/v1/services/%" PRIu64 "/undo", id + 1));
}

static void developers_do_not_undo_and_others_see_no_service(void **state)
{
    struct fixture *x = *state;
    char path[80];
    begin(x);
    json_t *o = get_json(x, 200, "/api/v1/services?project=group/test");
    const uint64_t id = id_of(json_array_get(json_object_get(o, "items"), 0), "id");
    json_decref(o);
    o = post_json(x, 201, "{\"name\":\"dev\",\"role\":\"developer\"}", "/api/v1/tokens");
    struct call c = {.path = path, .token = text_of(o, "token"), .body = "{}"};
    snprintf(path, sizeof(path), "/api/v1/services/%" PRIu64 "/undo", id);
    assert_problem(x, &c, 403, "forbidden");
    json_decref(o);
    o = post_json(x, 201, "{\"name\":\"other\",\"role\":\"user\",\"projects\":[\"other/one\"]}",
                  "/api/v1/tokens");
    c.token = text_of(o, "token");
    assert_problem(x, &c, 404, "not_found");
    c.body = NULL;
    snprintf(path, sizeof(path), "/api/v1/services/%" PRIu64, id);
    assert_problem(x, &c, 404, "not_found");
    json_decref(o);
}

/* What lint says of a rollout of that spec in that environment; the first diagnostic's text. */
static void assert_linted(struct fixture *x, const char *environment, const char *spec, bool valid,
                          const char *says)
{
    struct buf yaml = BUF_INIT;
    buf_addf(&yaml, "deploy:\n  environment: %s\n  rollout: %s\n", environment, spec);
    json_t *body = json_pack("{s:s, s:{s:s}}", "project", "group/test", "files", ".gitlab-ci.yml",
                             buf_cstr(&yaml));
    char *text = json_dumps(body, 0);
    json_t *o = post_json(x, 200, text, "/api/v1/lint");
    const json_t *list = json_object_get(o, "diagnostics");
    const json_t *first = json_array_get(list, 0);
    assert_int_equal(json_is_true(json_object_get(o, "valid")), valid);
    if (!strstr(text_of(first, "message"), says)) {
        fail_msg("`%s` says: %s", spec, text_of(first, "message"));
    }
    assert_int_equal(json_integer_value(json_object_get(first, "line")), 3);
    free(text);
    json_decref(o);
    json_decref(body);
    buf_release(&yaml);
}

static void lint_asks_the_target(void **state)
{
    struct fixture *x = *state;
    declare(x);
    assert_linted(x, "production", "{target: web}", true, "no worker that is connected has");
    assert_linted(x, "production", "{target: api}", false,
                  "no target api is declared for environment production");
    assert_linted(x, "production",
                  "{target: web, analysis: [{metric: error_rate, tolerance: 1.2}]}", false,
                  "error_rate");
    assert_linted(x, "production", "{target: web, strategy: blue_green, steps: [{weight: 5}]}",
                  false, "blue_green moves all traffic at once");
    assert_linted(x, "production", "{target: web, on_thin: synthetic}", false, "`synthetic` load");
}

static void what_the_target_cannot_do_is_not_submitted(void **state)
{
    struct fixture *x = *state;
    declare(x);
    json_t *o = post_json(x, 422,
                          "{\"project\":\"group/test\",\"files\":{\".gitlab-ci.yml\":"
                          "\"d: {environment: e, rollout: {target: none}}\"}}",
                          "/api/v1/pipelines");
    const json_t *first = json_array_get(json_object_get(o, "diagnostics"), 0);
    assert_string_equal(text_of(first, "code"), "rollout-target");
    json_decref(o);
}

static void why_a_job_waits_for_its_rollout(void **state)
{
    struct fixture *x = *state;
    json_t *o = get_json(x, 200, "/api/v1/rollouts/%" PRIu64, begin(x));
    const uint64_t job = id_of(o, "job_id");
    json_decref(o);
    o = get_json(x, 200, "/api/v1/jobs/%" PRIu64 "/why", job);
    assert_non_null(strstr(text_of(o, "summary"), "of v1 is gated: 0 of 2 approvals"));
    json_decref(o);
}

/* A rollout that has begun asks a driver to start instances: that is no job of anybody's list. */
static void actions_are_listed_only_when_asked_for(void **state)
{
    struct fixture *x = *state;
    const uint64_t id = begin(x);
    json_t *o;
    size_t shown = 0;
    json_decref(post_json(x, 202, "{}", "/api/v1/rollouts/%" PRIu64 "/approve", id));
    o = post_json(x, 201, "{\"name\":\"boss\",\"role\":\"user\"}", "/api/v1/tokens");
    char path[80];
    struct answer a;
    snprintf(path, sizeof(path), "/api/v1/rollouts/%" PRIu64 "/approve", id);
    call(x, &(struct call){.path = path, .token = text_of(o, "token"), .body = "{}"}, &a);
    assert_int_equal(a.status, 202);
    answer_release(&a);
    json_decref(o);
    for (unsigned tries = 0; shown < 2 && tries < 500; tries++) {
        o = get_json(x, 200, "/api/v1/jobs?actions=true");
        shown = json_array_size(json_object_get(o, "items"));
        json_decref(o);
        os_sleep_ms(10);
    }
    assert_true(shown >= 2);
    o = get_json(x, 200, "/api/v1/jobs");
    assert_int_equal(json_array_size(json_object_get(o, "items")), 1);
    json_decref(o);
    json_decref(get_json(x, 400, "/api/v1/jobs?actions=some"));
    call(x, &(struct call){.path = "/metrics"}, &a);
    assert_non_null(strstr(buf_cstr(&a.body), "\ndavit_rollouts{state=\"provision\"} 1\n"));
    assert_non_null(
        strstr(buf_cstr(&a.body), "\ndavit_rollout_states_total{state=\"provision\"} 1\n"));
    assert_non_null(
        strstr(buf_cstr(&a.body), "\ndavit_rollout_rollbacks_total{why=\"metric\"} 0\n"));
    assert_non_null(
        strstr(buf_cstr(&a.body), "\ndavit_rollout_verdicts_total{verdict=\"bad\"} 0\n"));
    answer_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(rollouts_are_listed_and_shown),
        TEST(people_act_when_it_is_time),
        TEST(approvals_need_the_role_and_another_person),
        TEST(tokens_of_other_projects_see_none),
        TEST(services_show_what_stood_and_go_back),
        TEST(lint_asks_the_target),
        TEST(what_the_target_cannot_do_is_not_submitted),
        TEST(why_a_job_waits_for_its_rollout),
        TEST(actions_are_listed_only_when_asked_for),
        TEST(developers_do_not_undo_and_others_see_no_service),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
