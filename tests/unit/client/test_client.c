#include "common/base.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "client/davit.h"
#include "tests/unit/client/broker.h"
#include "tests/unit/net/client.h"

#define HOUR_MS 3600000u

static const struct fixture_options calm = {.listen = true};
static const struct fixture_options quick = {
    .listen = true, .heartbeat_ms = 50, .lease_ms = 1000, .hello_ms = 10000};

static const char *const command[] = {"echo", "it's", NULL};

static struct davit *open_with(const struct fixture *f, const char *token,
                               struct davit_error *error)
{
    char url[64];

    snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", f->port);
    return davit_connect(&(struct davit_options){.url = url, .token = token, .timeout_ms = 10000},
                         error);
}

static struct davit *open_handle(const struct fixture *f)
{
    struct davit_error error;
    struct davit *d = open_with(f, FIXTURE_ADMIN_TOKEN, &error);

    assert_string_equal(error.text, "");
    assert_non_null(d);
    return d;
}

/* A program whose broker is the test's own hand, which is on this thread. */
struct program {
    struct broker broker;
    pthread_t thread;
    int (*main)(struct davit *d, struct davit_error *error);
    int code;
    struct davit_error error;
};

static void *program_main(void *arg)
{
    struct program *p = arg;
    char url[64];

    snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", p->broker.port);
    const struct davit_options options = {.url = url, .token = "t", .timeout_ms = 10000};
    struct davit *d = davit_connect(&options, &p->error);
    p->code = d != NULL ? p->main(d, &p->error) : p->error.code;
    davit_close(d);
    return NULL;
}

static void program_start(struct program *p, int (*program)(struct davit *, struct davit_error *))
{
    memset(p, 0, sizeof(*p));
    broker_up(&p->broker);
    p->main = program;
    assert_int_equal(pthread_create(&p->thread, NULL, program_main, p), 0);
}

static void program_end(struct program *p)
{
    pthread_join(p->thread, NULL);
    broker_down(&p->broker);
    assert_string_equal(p->error.text, "");
    assert_int_equal(p->code, 0);
}

static uint64_t enqueue(struct davit *d, unsigned flags)
{
    const struct davit_job job = {.name = "one", .command = command, .keep_ms = HOUR_MS};
    struct davit_queued queued;
    struct davit_error error;

    davit_enqueue(d, "demo", &job, 1, flags, &queued, &error);
    assert_string_equal(error.text, "");
    assert_false(queued.duplicate);
    return queued.id;
}

static void expect_end(struct davit *d, uint64_t id, enum davit_state state)
{
    struct davit_result result;
    struct davit_error error;

    davit_wait(d, &id, 1, &result, 10000, &error);
    assert_string_equal(error.text, "");
    assert_int_equal(result.id, id);
    assert_string_equal(davit_state_name(result.state), davit_state_name(state));
}

static void a_token_that_may_not_submit_is_refused(void **state)
{
    struct fixture f;
    struct davit_error error;

    fixture_up(&f, &calm);
    assert_null(open_with(&f, FIXTURE_WORKER_TOKEN, &error));
    assert_int_equal(error.code, DAVIT_E_UNAUTHORIZED);
    assert_null(open_with(&f, "", &error));
    assert_int_equal(error.code, DAVIT_E_UNAUTHORIZED);
    fixture_down(&f);
}

static void users_submit_but_not_above_all_others(void **state)
{
    struct davit_job job = {.name = "one", .command = command, .priority = 100};
    struct davit_queued queued;
    struct davit_error error;
    struct fixture f;

    fixture_up(&f, &calm);
    struct davit *d = open_with(&f, FIXTURE_USER_TOKEN, &error);
    assert_non_null(d);
    assert_int_equal(davit_enqueue(d, "demo", &job, 1, 0, &queued, &error), 0);
    job.priority = 101;
    assert_int_equal(davit_enqueue(d, "demo", &job, 1, 0, &queued, &error), DAVIT_E_UNAUTHORIZED);
    assert_string_equal(error.text, "jobs[0].priority: above 100 is for administrators");
    job.priority = 0;
    assert_int_equal(davit_enqueue(d, "demo", &job, 1, 0, &queued, &error), 0);
    davit_close(d);
    fixture_down(&f);
}

static void nobody_there_is_unreachable(void **state)
{
    struct davit_error error;
    struct davit_options options = {.url = "tcp://127.0.0.1:1", .token = "t", .timeout_ms = 300};

    assert_null(davit_connect(&options, &error));
    assert_int_equal(error.code, DAVIT_E_UNREACHABLE);
    options.url = "http://127.0.0.1:1";
    assert_null(davit_connect(&options, &error));
    assert_int_equal(error.code, DAVIT_E_INVALID);
}

static void a_job_is_enqueued_taken_and_its_end_told(void **state)
{
    struct fixture f;
    struct client worker;

    fixture_up(&f, &calm);
    struct davit *d = open_handle(&f);
    client_join(&worker, &f, "w1", 1);
    uint64_t id = enqueue(d, DAVIT_WATCH);
    const Pb__WireAssign *assign = client_expect(&worker, PB__ENVELOPE__BODY_ASSIGN)->assign;
    const Pb__JobSpec *spec = assign->specs[0];
    Pb__JobKey key = *spec->key;
    assert_int_equal(key.job_id, id);
    assert_true(str_eqz(pb_str(spec->script[0]), "'echo' 'it'\\''s'"));
    assert_string_equal(spec->project, "demo");
    assert_string_equal(spec->token, "");
    client_send_finished(&worker, &key, 0);
    client_expect(&worker, PB__ENVELOPE__BODY_FINISH_ACK);
    expect_end(d, id, DAVIT_SUCCESS);
    expect_end(d, id, DAVIT_SUCCESS); /* asked for, now */
    fixture_audit(&f);
    davit_close(d);
    client_close(&worker);
    fixture_down(&f);
}

static void a_key_is_good_for_one_job(void **state)
{
    struct fixture f;
    struct davit_job jobs[2] = {{.name = "a", .script = "true", .idempotency_key = "key-1"},
                                {.name = "b", .script = "true", .idempotency_key = "key-2"}};
    struct davit_queued first[2];
    struct davit_queued again[2];
    struct davit_error error;

    fixture_up(&f, &calm);
    struct davit *d = open_handle(&f);
    assert_int_equal(davit_enqueue(d, "demo", jobs, 2, 0, first, &error), 0);
    assert_int_equal(davit_enqueue(d, "demo", jobs, 2, 0, again, &error), 0);
    assert_false(first[1].duplicate);
    assert_true(again[0].duplicate && again[1].duplicate);
    assert_int_equal(again[0].id, first[0].id);
    assert_int_equal(again[1].id, first[1].id);
    jobs[1].script = "false";
    assert_int_equal(davit_enqueue(d, "demo", jobs, 2, 0, again, &error), DAVIT_E_CONFLICT);
    jobs[1].command = command;
    assert_int_equal(davit_enqueue(d, "demo", jobs, 2, 0, again, &error), DAVIT_E_INVALID);
    assert_int_equal(davit_enqueue(d, "demo", jobs, DAVIT_MAX_JOBS + 1, 0, again, &error),
                     DAVIT_E_LIMIT);
    davit_close(d);
    fixture_down(&f);
}

static void a_key_is_good_for_one_project(void **state)
{
    struct fixture f;
    const struct davit_job job = {.script = "true", .idempotency_key = "key"};
    struct davit_queued first;
    struct davit_queued again;
    struct davit_error error;

    fixture_up(&f, &calm);
    struct davit *d = open_handle(&f);
    assert_int_equal(davit_enqueue(d, "a", &job, 1, 0, &first, &error), 0);
    assert_int_equal(davit_enqueue(d, "b", &job, 1, 0, &again, &error), DAVIT_E_CONFLICT);
    assert_int_equal(davit_enqueue(d, "a", &job, 1, 0, &again, &error), 0);
    assert_true(again.duplicate);
    assert_int_equal(again.id, first.id);
    davit_close(d);
    fixture_down(&f);
}

/* No broker reads a message with such text in it, however often it is sent. */
static void what_is_no_text_is_said_to_the_caller(void **state)
{
    static const char bad[] = "\xff";
    static const char *const bad_tags[] = {"good", bad, NULL};
    static const struct davit_variable bad_variable = {.name = bad, .value = "x"};
    static const struct davit_variable odd_variable = {.name = "X", .value = bad};
    const struct {
        struct davit_job job;
        const char *text;
    } table[] = {
        {{.name = bad}, "jobs[1].name: no UTF-8"},
        {{.pool = bad}, "jobs[1].pool: no UTF-8"},
        {{.executor = bad}, "jobs[1].executor: no UTF-8"},
        {{.resource_group = bad}, "jobs[1].resource_group: no UTF-8"},
        {{.tags = bad_tags}, "jobs[1].tags: no UTF-8"},
        {{.variables = &bad_variable, .variable_count = 1},
         "jobs[1].variables: a name is no UTF-8"},
    };
    struct davit_job jobs[2] = {{.script = bad, .variables = &odd_variable, .variable_count = 1}};
    struct davit_queued queued[2];
    struct davit_error error;
    struct fixture f;

    fixture_up(&f, &calm);
    struct davit *d = open_handle(&f);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        jobs[1] = table[i].job;
        jobs[1].script = "true";
        assert_int_equal(davit_enqueue(d, "demo", jobs, 2, 0, queued, &error), DAVIT_E_INVALID);
        assert_string_equal(error.text, table[i].text);
    }
    assert_int_equal(davit_enqueue(d, bad, jobs, 1, 0, queued, &error), DAVIT_E_INVALID);
    assert_string_equal(error.text, "project: no UTF-8");
    assert_int_equal(davit_enqueue(d, NULL, jobs, 1, 0, queued, &error), DAVIT_E_INVALID);
    assert_int_equal(davit_enqueue(d, "demo", jobs, 1, 0, queued, &error), 0); /* bytes */
    davit_close(d);
    const struct davit_options options = {.url = "tcp://127.0.0.1:1", .token = "t", .name = bad};
    assert_null(davit_connect(&options, &error));
    assert_int_equal(error.code, DAVIT_E_INVALID);
    fixture_down(&f);
}

static void a_cancel_ends_what_waits(void **state)
{
    struct fixture f;
    struct davit_result results[2];
    struct davit_error error;

    fixture_up(&f, &calm);
    struct davit *d = open_handle(&f);
    uint64_t ids[2] = {enqueue(d, 0), 123456};
    assert_int_equal(davit_query(d, ids, 2, results, &error), 0);
    assert_int_equal(results[0].state, DAVIT_PENDING);
    assert_int_equal(results[1].state, DAVIT_GONE);
    assert_int_equal(davit_wait(d, ids, 1, results, 50, &error), DAVIT_E_TIMEOUT);
    assert_int_equal(davit_cancel(d, ids[0], &error), 0);
    assert_int_equal(davit_cancel(d, ids[1], &error), DAVIT_E_NOT_FOUND);
    assert_int_equal(davit_next(d, results, 2, 10000, &error), 1);
    assert_int_equal(results[0].id, ids[0]);
    assert_int_equal(results[0].state, DAVIT_CANCELED);
    expect_end(d, ids[1], DAVIT_GONE);
    assert_int_equal(davit_next(d, results, 2, 0, &error), DAVIT_E_TIMEOUT);
    davit_close(d);
    fixture_down(&f);
}

static void the_end_of_a_job_of_a_pipeline_is_not_waited_for(void **state)
{
    struct fixture f;
    struct davit_result results[2];
    struct davit_error error;
    char text[128];

    fixture_up(&f, &calm);
    uint64_t job_id = fixture_submit(&f, 1);
    struct davit *d = open_handle(&f);
    uint64_t ids[2] = {enqueue(d, 0), job_id};
    snprintf(text, sizeof(text),
             "job %" PRIu64 " belongs to a pipeline: its end is told as an event of the API",
             job_id);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(davit_wait(d, ids, 2, results, -1, &error), DAVIT_E_INVALID);
        assert_string_equal(error.text, text);
    }
    assert_int_equal(davit_cancel(d, ids[0], &error), 0);
    expect_end(d, ids[0], DAVIT_CANCELED);
    assert_int_equal(davit_cancel(d, job_id, &error), 0);
    expect_end(d, job_id, DAVIT_CANCELED); /* one that has ended is told */
    davit_close(d);
    fixture_down(&f);
}

static int wait_for_three(struct davit *d, struct davit_error *error)
{
    const uint64_t ids[3] = {7, 8, 9};
    struct davit_result results[3];
    int code = davit_wait(d, ids, 3, results, 10000, error);

    for (size_t i = 0; i < ARRAY_LEN(ids) && code == DAVIT_OK; i++) {
        code = results[i].state == (i == 0 ? DAVIT_SUCCESS : DAVIT_GONE) ? 0 : -100;
    }
    return code;
}

static uint64_t expect_query(struct broker *b, size_t count, uint64_t first)
{
    const Pb__ClientQuery *q = broker_expect(b, PB__ENVELOPE__BODY_CLIENT_QUERY)->client_query;

    assert_int_equal(q->n_job_ids, count);
    assert_int_equal(q->job_ids[0], first);
    return q->request;
}

/* All in one session: a broker that is full is no better after a reconnect. */
static void what_the_broker_has_no_room_to_watch_is_asked_for_later(void **state)
{
    static struct program p;
    Pb__ClientJob job = PB__CLIENT_JOB__INIT;
    Pb__ClientJob *list = &job;
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__ClientJobEnded ended = PB__CLIENT_JOB_ENDED__INIT;

    program_start(&p, wait_for_three);
    broker_welcome(&p.broker);
    broker_answer(&p.broker, expect_query(&p.broker, 3, 7), "limit", NULL);
    job.job_id = 7;
    job.state = JOB_RUNNING;
    broker_answer(&p.broker, expect_query(&p.broker, 1, 7), "", &job); /* room for one */
    broker_answer(&p.broker, expect_query(&p.broker, 2, 8), "limit", NULL);
    broker_answer(&p.broker, expect_query(&p.broker, 1, 8), "limit", NULL);
    broker_answer(&p.broker, expect_query(&p.broker, 1, 8), "limit", NULL); /* after a pause */
    job.state = JOB_SUCCESS;
    ended.jobs = &list;
    ended.n_jobs = 1;
    body.body_case = PB__ENVELOPE__BODY_CLIENT_JOB_ENDED;
    body.client_job_ended = &ended;
    broker_send(&p.broker, &body);
    broker_answer(&p.broker, expect_query(&p.broker, 1, 8), "", NULL); /* the room of that one */
    broker_answer(&p.broker, expect_query(&p.broker, 1, 9), "", NULL);
    broker_part(&p.broker);
    program_end(&p);
}

static void nobody_waits_for_more_than_can_be_watched(void **state)
{
    struct davit_result result;
    struct davit_error error;
    struct fixture f;
    uint64_t *ids = xcalloc(DAVIT_MAX_WATCHED + 1, sizeof(*ids));

    fixture_up(&f, &calm);
    struct davit *d = open_handle(&f);
    assert_int_equal(davit_wait(d, ids, DAVIT_MAX_WATCHED + 1, &result, 0, &error), DAVIT_E_LIMIT);
    davit_close(d);
    free(ids);
    fixture_down(&f);
}

static int be_idle(struct davit *d, struct davit_error *error)
{
    struct davit_result result;
    int code = davit_next(d, &result, 1, 1200, error);

    *error = (struct davit_error){.code = 0};
    return code == DAVIT_E_TIMEOUT ? 0 : code;
}

/* Also where nothing was heard for longer than the answer may take. */
static void a_close_waits_for_the_answer_to_its_good_bye(void **state)
{
    static struct program p;

    program_start(&p, be_idle);
    broker_welcome(&p.broker);
    broker_expect(&p.broker, PB__ENVELOPE__BODY_BYE);
    broker_expect_silence(&p.broker, 80);
    broker_hang_up(&p.broker);
    program_end(&p);
}

static int cancel_seven(struct davit *d, struct davit_error *error)
{
    return davit_cancel(d, 7, error);
}

static void a_cancel_sent_again_says_so(void **state)
{
    static struct program p;

    program_start(&p, cancel_seven);
    broker_welcome(&p.broker);
    const Pb__ClientCancel *cancel = broker_expect(&p.broker, PB__ENVELOPE__BODY_CLIENT_CANCEL)
                                         ->client_cancel;
    assert_int_equal(cancel->job_id, 7);
    assert_false(cancel->again);
    for (int i = 0; i < 2; i++) {
        broker_hang_up(&p.broker); /* the answer is lost */
        broker_welcome(&p.broker);
        cancel = broker_expect(&p.broker, PB__ENVELOPE__BODY_CLIENT_CANCEL)->client_cancel;
        assert_int_equal(cancel->job_id, 7);
        assert_true(cancel->again);
    }
    broker_answer(&p.broker, cancel->request, "", NULL);
    broker_part(&p.broker);
    program_end(&p);
}

/* The broker is killed and comes back at the same port: what was watched is watched again, and a
 * handle goes on. */
static void a_restart_of_the_broker_is_not_noticed(void **state)
{
    struct fixture f;
    struct client worker;

    fixture_up(&f, &quick);
    struct davit *d = open_handle(&f);
    uint64_t ids[3];
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        ids[i] = enqueue(d, DAVIT_WATCH);
    }
    fixture_restart(&f);
    uint64_t later = enqueue(d, DAVIT_WATCH);
    client_join(&worker, &f, "w1", 8);
    for (size_t i = 0; i < ARRAY_LEN(ids) + 1; i++) {
        Pb__JobKey key = client_expect_assign(&worker);
        client_send_finished(&worker, &key, 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        expect_end(d, ids[i], DAVIT_SUCCESS);
    }
    expect_end(d, later, DAVIT_SUCCESS);
    fixture_audit(&f);
    davit_close(d);
    client_close(&worker);
    fixture_down(&f);
}

static void a_silent_time_keeps_the_session(void **state)
{
    struct fixture f;
    struct fleet_stats before;
    struct fleet_stats after;

    fixture_up(&f, &quick);
    struct davit *d = open_handle(&f);
    fleet_get_stats(f.fleet, &before);
    struct davit_result result;
    struct davit_error error;
    assert_int_equal(davit_next(d, &result, 1, 1500, &error), DAVIT_E_TIMEOUT);
    fleet_get_stats(f.fleet, &after);
    assert_int_equal(after.sessions, 1);
    assert_int_equal(after.clients, before.clients);
    assert_int_equal(after.clients, 1);
    davit_close(d);
    fixture_down(&f);
}

struct caller {
    struct davit *d;
    pthread_t thread;
    struct davit_queued queued[40];
    int failures;
};

static void *call_many(void *arg)
{
    struct caller *c = arg;
    const struct davit_job job = {.command = command};

    for (size_t i = 0; i < ARRAY_LEN(c->queued); i++) {
        c->failures += davit_enqueue(c->d, "demo", &job, 1, i % 2, &c->queued[i], NULL) != 0;
    }
    return NULL;
}

static int by_id(const void *a, const void *b)
{
    const uint64_t *x = a;
    const uint64_t *y = b;

    return *x < *y ? -1 : *x > *y;
}

static void many_threads_share_a_handle(void **state)
{
    struct fixture f;
    static struct caller callers[40]; /* more than may be on the way at once */
    static uint64_t ids[ARRAY_LEN(callers) * ARRAY_LEN(callers[0].queued)];
    size_t count = 0;

    fixture_up(&f, &calm);
    struct davit *d = open_handle(&f);
    for (size_t i = 0; i < ARRAY_LEN(callers); i++) {
        callers[i].d = d;
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call_many, &callers[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(callers); i++) {
        pthread_join(callers[i].thread, NULL);
        assert_int_equal(callers[i].failures, 0);
        for (size_t k = 0; k < ARRAY_LEN(callers[i].queued); k++) {
            ids[count++] = callers[i].queued[k].id;
        }
    }
    qsort(ids, count, sizeof(ids[0]), by_id);
    for (size_t i = 1; i < count; i++) {
        assert_true(ids[i] > ids[i - 1]);
    }
    davit_close(d);
    fixture_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_that_may_not_submit_is_refused),
        cmocka_unit_test(users_submit_but_not_above_all_others),
        cmocka_unit_test(nobody_there_is_unreachable),
        cmocka_unit_test(a_job_is_enqueued_taken_and_its_end_told),
        cmocka_unit_test(a_key_is_good_for_one_job),
        cmocka_unit_test(a_key_is_good_for_one_project),
        cmocka_unit_test(what_is_no_text_is_said_to_the_caller),
        cmocka_unit_test(a_cancel_ends_what_waits),
        cmocka_unit_test(the_end_of_a_job_of_a_pipeline_is_not_waited_for),
        cmocka_unit_test(what_the_broker_has_no_room_to_watch_is_asked_for_later),
        cmocka_unit_test(nobody_waits_for_more_than_can_be_watched),
        cmocka_unit_test(a_close_waits_for_the_answer_to_its_good_bye),
        cmocka_unit_test(a_cancel_sent_again_says_so),
        cmocka_unit_test(a_restart_of_the_broker_is_not_noticed),
        cmocka_unit_test(a_silent_time_keeps_the_session),
        cmocka_unit_test(many_threads_share_a_handle),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
