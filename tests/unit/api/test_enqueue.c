/* Jobs without a pipeline: how they are asked for, shown, listed and acted on. */
#include "common/base.h"

#include "tests/unit/api/fixture.h"

#include "broker/api/auth.h"
#include "broker/core/core.h"
#include "common/limits.h"

/* What is asked for, its quotes written as ' to be read more easily. Heap. */
static char *quoted(const char *body)
{
    char *text = xstrdup(body);
    for (char *p = text; *p != '\0'; p++) {
        *p = *p == '\'' ? '"' : *p;
    }
    return text;
}

/* The answer of POST /jobs, the caller's. */
static json_t *enqueue(struct fixture *x, int status, const char *token, const char *body)
{
    char *text = quoted(body);
    struct answer a;
    call(x, &(struct call){.path = "/api/v1/jobs", .token = token, .body = text}, &a);
    if (a.status != status) {
        fail_msg("%s: status %d: %s", body, a.status, buf_cstr(&a.body));
    }
    json_t *json = json_incref(a.json);
    answer_release(&a);
    free(text);
    return json;
}

static uint64_t id_at(const json_t *answer, size_t i)
{
    return id_of(json_array_get(json_object_get(answer, "jobs"), i), "id");
}

static bool known_at(const json_t *answer, size_t i)
{
    return json_is_true(
        json_object_get(json_array_get(json_object_get(answer, "jobs"), i), "duplicate"));
}

static json_t *job_of(struct fixture *x, uint64_t id)
{
    return get_json(x, 200, "/api/v1/jobs/%" PRIu64, id);
}

static const char *script_of(const json_t *job, size_t i)
{
    return json_string_value(json_array_get(json_object_get(job, "script"), i));
}

static void a_job_is_shown_as_it_was_asked_for(void **state)
{
    struct fixture *x = *state;
    json_t *made = enqueue(
        x, 201, NULL,
        "{'project':'a/b','jobs':[{'name':'one','script':['make','make check'],"
        "'tags':['z','a','z'],'executor':'shell','pool':'fast','priority':-7,'cpu':'500m',"
        "'memory':'512Mi','disk':1000,'timeout':60,'retry':2,'keep':'1h',"
        "'resource_group':'g','interruptible':true,'on_worker_lost':'fail',"
        "'variables':[{'name':'X','value':'y'}]}]}");
    json_t *job = job_of(x, id_at(made, 0));
    assert_true(json_is_null(json_object_get(job, "pipeline_id")));
    assert_true(json_is_null(json_object_get(job, "stage")));
    assert_string_equal(text_of(job, "project"), "a/b");
    assert_string_equal(text_of(job, "name"), "one");
    assert_string_equal(text_of(job, "status"), "pending");
    assert_string_equal(script_of(job, 1), "make check");
    const json_t *tags = json_object_get(job, "tags");
    assert_int_equal(json_array_size(tags), 2);
    assert_string_equal(json_string_value(json_array_get(tags, 0)), "a");
    assert_string_equal(text_of(job, "executor"), "shell");
    assert_string_equal(text_of(job, "pool"), "fast");
    assert_int_equal(json_integer_value(json_object_get(job, "priority")), -7);
    assert_int_equal(id_of(job, "cpu_millis"), 500);
    assert_int_equal(id_of(job, "memory_bytes"), 512 << 20);
    assert_int_equal(id_of(job, "disk_bytes"), 1000);
    assert_int_equal(id_of(job, "keep_ms"), 3600000);
    assert_string_equal(text_of(job, "resource_group"), "g");
    assert_true(json_is_true(json_object_get(job, "interruptible")));
    assert_string_equal(text_of(job, "submitted_by"), "admin");
    json_decref(job);
    json_decref(made);
}

static void a_command_becomes_a_line_that_a_shell_reads_as_it_was(void **state)
{
    struct fixture *x = *state;
    json_t *made = enqueue(x, 201, NULL,
                           "{'project':'p','jobs':[{'command':['echo','a b','$X','','x=1']},"
                           "{'script':'first\\nsecond'},{'command':['\\u0027']}]}");
    json_t *job = job_of(x, id_at(made, 0));
    assert_string_equal(script_of(job, 0), "echo 'a b' '$X' '' x=1");
    assert_string_equal(text_of(job, "name"), "echo 'a b' '$X' '' x=1");
    json_decref(job);
    job = job_of(x, id_at(made, 1));
    assert_string_equal(script_of(job, 0), "first\nsecond");
    assert_string_equal(text_of(job, "name"), "first");
    json_decref(job);
    job = job_of(x, id_at(made, 2));
    assert_string_equal(script_of(job, 0), "''\\'''");
    json_decref(job);
    json_decref(made);
}

static void what_is_wrong_is_named_by_its_place(void **state)
{
    struct fixture *x = *state;
    static const struct {
        const char *job, *named;
    } rows[] = {
        {"7", "`jobs[1]`"},
        {"{}", "jobs[1]"},
        {"{'script':'x','command':['y']}", "jobs[1]"},
        {"{'script':[]}", "jobs[1]"},
        {"{'script':['a',1]}", "`jobs[1].script[1]`"},
        {"{'command':'x'}", "`jobs[1].command`"},
        {"{'script':'x','tag':'y'}", "`jobs[1].tag`"},
        {"{'script':'x','name':'a\\nb'}", "`jobs[1].name`"},
        {"{'script':'x','name':''}", "`jobs[1].name`"},
        {"{'script':'x','tags':['a','']}", "`jobs[1].tags[1]`"},
        {"{'script':'x','priority':1.5}", "`jobs[1].priority`"},
        {"{'script':'x','priority':-101}", "`jobs[1].priority`"},
        {"{'script':'x','timeout':'soon'}", "`jobs[1].timeout`"},
        {"{'script':'x','delay':-1}", "`jobs[1].delay`"},
        {"{'script':'x','not_before':'now'}", "`jobs[1].not_before`"},
        {"{'script':'x','not_before':'2999-01-01'}", "`jobs[1].not_before`"},
        {"{'script':'x','not_before':'2030-01-01','delay':1}", "jobs[1]"},
        {"{'script':'x','retry':3}", "`jobs[1].retry`"},
        {"{'script':'x','on_worker_lost':'cry'}", "`jobs[1].on_worker_lost`"},
        {"{'script':'x','cpu':'lots'}", "`jobs[1].cpu`"},
        {"{'script':'x','cpu':-1}", "`jobs[1].cpu`"},
        {"{'script':'x','memory':'1 GB'}", "`jobs[1].memory`"},
        {"{'script':'x','disk':1.5}", "`jobs[1].disk`"},
        {"{'script':'x','variables':[{'name':'A'},{'name':'1'}]}", "jobs[1].variables[1]"},
        {"{'script':'x','variables':[{'name':'A','valu':'1'}]}", "jobs[1].variables[0].valu"},
        {"{'script':'x','idempotency_key':'a b'}", "jobs[1].idempotency_key"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf body = BUF_INIT;
        buf_addf(&body, "{'project':'p','jobs':[{'script':'x'},%s]}", rows[i].job);
        json_t *problem = enqueue(x, 400, NULL, buf_cstr(&body));
        if (!strstr(text_of(problem, "detail"), rows[i].named)) {
            fail_msg("%s: %s", rows[i].job, text_of(problem, "detail"));
        }
        json_decref(problem);
        buf_release(&body);
    }
    json_decref(enqueue(x, 400, NULL, "{'jobs':[{'script':'x'}]}"));
    json_decref(enqueue(x, 400, NULL, "{'project':'../x','jobs':[{'script':'x'}]}"));
    json_decref(enqueue(x, 400, NULL, "{'project':'p','jobs':[]}"));
    json_decref(enqueue(x, 400, NULL, "{'project':'p'}"));
    json_t *list = get_json(x, 200, "/api/v1/jobs");
    assert_int_equal(json_array_size(json_object_get(list, "items")), 0);
    json_decref(list);
}

static void the_highest_priorities_are_an_administrators(void **state)
{
    struct fixture *x = *state;
    const char *body = "{'project':'p','jobs':[{'script':'x'},{'script':'x','priority':101}]}";
    json_t *problem = enqueue(x, 403, USER_TOKEN, body);
    assert_non_null(strstr(text_of(problem, "detail"), "`jobs[1].priority`"));
    json_decref(problem);
    json_decref(enqueue(x, 201, NULL, body));
    json_decref(
        enqueue(x, 201, USER_TOKEN, "{'project':'p','jobs':[{'script':'x','priority':100}]}"));
    json_decref(enqueue(x, 403, WORKER_TOKEN, "{'project':'p','jobs':[{'script':'x'}]}"));
}

static void a_key_means_one_job(void **state)
{
    struct fixture *x = *state;
    const char *body = "{'project':'p','jobs':[{'script':'x','idempotency_key':'k','delay':'1h'},"
                       "{'script':'y'}]}";
    json_t *first = enqueue(x, 201, NULL, body);
    json_t *again = enqueue(x, 201, NULL, body);
    assert_false(known_at(first, 0));
    assert_true(known_at(again, 0));
    assert_int_equal(id_at(first, 0), id_at(again, 0));
    assert_true(id_at(first, 1) != id_at(again, 1));
    json_decref(again);
    /* Another token's key is another key. */
    again = enqueue(x, 201, USER_TOKEN, body);
    assert_true(id_at(first, 0) != id_at(again, 0));
    json_decref(again);
    json_decref(first);
    json_decref(
        enqueue(x, 422, NULL, "{'project':'p','jobs':[{'script':'z','idempotency_key':'k'}]}"));
    json_decref(
        enqueue(x, 422, NULL,
                "{'project':'q','jobs':[{'script':'x','idempotency_key':'k','delay':'1h'}]}"));
}

/* As the fleet takes it from a client: broker/net/client.c. */
static int enqueue_by_wire(struct fixture *x, const char *key, uint64_t keep_ms, uint64_t *ret_id)
{
    struct post *p = post_new("admin");
    struct arena *a = post_arena(p);
    Pb__JobsEnqueue *jobs = arena_alloc(a, sizeof(*jobs));
    Pb__EnqueueJob *job = arena_alloc(a, sizeof(*job));
    Pb__PlanJob *plan = arena_alloc(a, sizeof(*plan));
    uint8_t *hashes = arena_array(a, 2, SHA256_BYTES);
    struct reply reply;
    pb__jobs_enqueue__init(jobs);
    pb__enqueue_job__init(job);
    pb__plan_job__init(plan);
    plan->name = arena_strdup(a, STR("n"));
    plan->script = arena_array(a, 1, sizeof(*plan->script));
    plan->script[plan->n_script++] = pb_bytes(a, STR("make 'x y'"));
    job->plan = plan;
    job->keep_ms = keep_ms;
    job->idempotency_key = pb_bytes(a, str_from(key));
    core_enqueue_hash("p", job, 0, hashes + SHA256_BYTES);
    assert_int_equal(auth_idempotency("admin", str_from(key), hashes), 0);
    job->idempotency_key = pb_bytes_ref(str_of(hashes, SHA256_BYTES));
    job->body_hash = pb_bytes_ref(str_of(hashes + SHA256_BYTES, SHA256_BYTES));
    jobs->project = arena_strdup(a, STR("p"));
    jobs->jobs = arena_array(a, 1, sizeof(Pb__EnqueueJob *));
    jobs->jobs[jobs->n_jobs++] = job;
    post_command(p)->body_case = PB__COMMAND__BODY_JOBS_ENQUEUE;
    post_command(p)->jobs_enqueue = jobs;
    int r = turn_call(x->turn, p, &reply);
    *ret_id = r == 0 ? reply.job_id : 0;
    return r;
}

static void a_key_means_one_job_whichever_way_it_comes(void **state)
{
    struct fixture *x = *state;
    json_t *first = enqueue(x, 201, NULL,
                            "{'project':'p','jobs':[{'name':'n','command':['make','x y'],'keep':5,"
                            "'idempotency_key':'k'}]}");
    uint64_t id;
    assert_int_equal(enqueue_by_wire(x, "k", 5000, &id), 0);
    assert_int_equal(id, id_at(first, 0));
    assert_int_equal(enqueue_by_wire(x, "k", 6000, &id), -E_KEY_REUSED);
    json_decref(first);
}

static void a_request_with_a_key_can_be_sent_again(void **state)
{
    struct fixture *x = *state;
    char *body = quoted("{'project':'p','jobs':[{'script':'x'},{'script':'x'}]}");
    const struct call c = {
        .path = "/api/v1/jobs", .body = body, .headers = {"Idempotency-Key: once"}};
    struct answer first, again;
    call(x, &c, &first);
    call(x, &c, &again);
    assert_int_equal(first.status, 201);
    assert_int_equal(again.status, 200);
    assert_int_equal(id_at(first.json, 0), id_at(again.json, 0));
    assert_int_equal(id_at(first.json, 1), id_at(again.json, 1));
    assert_true(id_at(first.json, 0) != id_at(first.json, 1));
    answer_release(&again);
    answer_release(&first);
    free(body);
}

static void a_delayed_job_says_when_it_may_start(void **state)
{
    struct fixture *x = *state;
    json_t *made = enqueue(x, 201, NULL,
                           "{'project':'p','jobs':[{'script':'x','delay':'1h'},"
                           "{'script':'x','not_before':'2001-01-01'},{'script':'x','delay':0}]}");
    json_t *job = job_of(x, id_at(made, 0));
    assert_string_equal(text_of(job, "status"), "scheduled");
    assert_int_equal(strlen(text_of(job, "starts_at")), strlen("2026-02-03T04:05:06Z"));
    json_decref(job);
    for (size_t i = 1; i < 3; i++) {
        job = job_of(x, id_at(made, i));
        assert_string_equal(text_of(job, "status"), "pending");
        assert_true(json_is_null(json_object_get(job, "starts_at")));
        json_decref(job);
    }
    json_decref(made);
}

static void it_runs_is_canceled_and_retried_as_any_job(void **state)
{
    struct fixture *x = *state;
    json_t *made = enqueue(x, 201, NULL, "{'project':'p','jobs':[{'script':'x'},{'script':'y'}]}");
    uint64_t first = id_at(made, 0);
    uint64_t second = id_at(made, 1);
    json_decref(made);
    worker_hello(x);
    job_start(x, first);
    json_t *job = job_of(x, first);
    assert_string_equal(text_of(job, "status"), "running");
    assert_string_equal(text_of(job, "worker"), "w1");
    const json_t *attempt = json_array_get(json_object_get(job, "attempts"), 0);
    assert_string_equal(text_of(attempt, "status"), "running");
    assert_string_equal(text_of(attempt, "worker"), "w1");
    json_decref(job);
    json_t *why = get_json(x, 200, "/api/v1/jobs/%" PRIu64 "/why", second);
    assert_int_equal(json_integer_value(json_object_get(why, "position")), 1);
    assert_true(json_is_false(json_object_get(why, "position_or_more")));
    assert_true(json_is_null(json_object_get(why, "estimate_ms"))); /* nobody knows yet */
    assert_int_equal(json_array_size(json_object_get(why, "empty_pools")), 0);
    json_decref(why);
    why = get_json(x, 200, "/api/v1/jobs/%" PRIu64 "/why", first);
    assert_non_null(strstr(text_of(why, "summary"), "runs on worker w1"));
    json_decref(why);
    job_log(x, first, 0, "hello\n");
    job_finish(x, first, JOB_FAILED, NULL);
    job = job_of(x, first);
    assert_string_equal(text_of(job, "status"), "failed");
    assert_int_equal(json_array_size(json_object_get(job, "attempts")), 1);
    json_decref(job);
    struct answer a;
    char path[80];
    snprintf(path, sizeof(path), "/api/v1/jobs/%" PRIu64 "/log", first);
    call(x, &(struct call){.path = path}, &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(buf_cstr(&a.body), "hello\n");
    answer_release(&a);
    job = post_json(x, 202, "{}", "/api/v1/jobs/%" PRIu64 "/retry", first);
    assert_string_equal(text_of(job, "status"), "pending");
    json_decref(job);
    job = post_json(x, 202, "{}", "/api/v1/jobs/%" PRIu64 "/cancel", second);
    assert_string_equal(text_of(job, "status"), "canceled");
    json_decref(job);
}

static size_t count_items(struct fixture *x, const char *path)
{
    json_t *list = get_json(x, 200, "%s", path);
    size_t n = json_array_size(json_object_get(list, "items"));
    json_decref(list);
    return n;
}

static void jobs_are_listed_by_project_and_status(void **state)
{
    struct fixture *x = *state;
    json_t *made = enqueue(x, 201, NULL,
                           "{'project':'p','jobs':[{'script':'x'},{'script':'y'},{'script':'z'}]}");
    uint64_t running = id_at(made, 1);
    submit(x, "a:\n  script: [x]\n", NULL); /* of group/test */
    worker_hello(x);
    job_start(x, running);
    assert_int_equal(count_items(x, "/api/v1/jobs"), 4);
    assert_int_equal(count_items(x, "/api/v1/jobs?project=p"), 3);
    assert_int_equal(count_items(x, "/api/v1/jobs?project=group%2Ftest"), 1);
    assert_int_equal(count_items(x, "/api/v1/jobs?status=pending"), 3);
    assert_int_equal(count_items(x, "/api/v1/jobs?status=running"), 1);
    assert_int_equal(count_items(x, "/api/v1/jobs?status=running&project=group/test"), 0);
    assert_int_equal(count_items(x, "/api/v1/jobs?project=p&limit=2"), 2);
    json_t *page = get_json(x, 200, "/api/v1/jobs?project=p&limit=2");
    assert_int_equal(id_of(json_array_get(json_object_get(page, "items"), 0), "id"),
                     id_at(made, 2));
    uint64_t next = id_of(page, "next");
    json_decref(page);
    page = get_json(x, 200, "/api/v1/jobs?project=p&after=%" PRIu64, next);
    assert_int_equal(id_of(json_array_get(json_object_get(page, "items"), 0), "id"),
                     id_at(made, 0));
    json_decref(page);
    json_decref(made);
    assert_problem(x, &(struct call){.path = "/api/v1/jobs?status=odd"}, 400, "invalid");
    assert_problem(x, &(struct call){.path = "/api/v1/jobs?project=none"}, 404, "not_found");
}

/* More than a connection's own thread reads, and as many as one request may hold. */
static void a_large_batch_is_one_command(void **state)
{
    struct fixture *x = *state;
    struct buf body = BUF_INIT;
    buf_addz(&body, "{'project':'p','jobs':[");
    for (size_t i = 0; i < LIMIT_ENQUEUE_JOBS; i++) {
        buf_addf(&body, "%s{'script':'echo %zu, which is a line of some length','tags':['t']}",
                 i > 0 ? "," : "", i);
    }
    buf_addz(&body, "]}");
    json_t *made = enqueue(x, 201, NULL, buf_cstr(&body));
    assert_int_equal(json_array_size(json_object_get(made, "jobs")), LIMIT_ENQUEUE_JOBS);
    assert_true(id_at(made, LIMIT_ENQUEUE_JOBS - 1) > id_at(made, 0));
    json_decref(made);
    buf_clear(&body);
    buf_addz(&body, "{'project':'p','jobs':[");
    for (size_t i = 0; i <= LIMIT_ENQUEUE_JOBS; i++) {
        buf_addf(&body, "%s{'script':'x'}", i > 0 ? "," : "");
    }
    buf_addz(&body, "]}");
    json_decref(enqueue(x, 422, NULL, buf_cstr(&body)));
    buf_clear(&body);
    buf_addz(&body, "{'project':'p','jobs':[{'script':'");
    for (size_t i = 0; i < LIMIT_ENQUEUE_BYTES / 8; i++) {
        buf_addz(&body, "12345678");
    }
    buf_addz(&body, "'}]}");
    json_decref(enqueue(x, 413, NULL, buf_cstr(&body)));
    buf_release(&body);
}

static void a_follower_hears_that_it_has_ended(void **state)
{
    struct fixture *x = *state;
    struct plug w;
    json_t *made = enqueue(x, 201, NULL, "{'project':'p','jobs':[{'script':'x','keep':0}]}");
    uint64_t id = id_at(made, 0);
    json_decref(made);
    worker_hello(x);
    job_start(x, id);
    job_log(x, id, 0, "hello\n");
    plug_open(&w, x);
    plug_sendf(&w,
               "GET /api/v1/jobs/%" PRIu64 "/log/follow HTTP/1.1\r\nHost: a\r\n"
               "Authorization: Bearer " ADMIN_TOKEN "\r\n\r\n",
               id);
    assert_true(plug_until(&w, "event: log", 5000));
    job_finish(x, id, JOB_SUCCESS, NULL);
    assert_true(plug_until(&w, "event: end", 5000)); /* though nothing of it is left */
    plug_close(&w);
    assert_problem(x, &(struct call){.path = "/api/v1/jobs/999999/log"}, 404, "not_found");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_job_is_shown_as_it_was_asked_for),
        TEST(a_command_becomes_a_line_that_a_shell_reads_as_it_was),
        TEST(what_is_wrong_is_named_by_its_place),
        TEST(the_highest_priorities_are_an_administrators),
        TEST(a_key_means_one_job),
        TEST(a_key_means_one_job_whichever_way_it_comes),
        TEST(a_request_with_a_key_can_be_sent_again),
        TEST(a_delayed_job_says_when_it_may_start),
        TEST(it_runs_is_canceled_and_retried_as_any_job),
        TEST(jobs_are_listed_by_project_and_status),
        TEST(a_large_batch_is_one_command),
        TEST(a_follower_hears_that_it_has_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
