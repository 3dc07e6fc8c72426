/* Server-sent events: pipelines, everything, logs. */
#include "common/base.h"

#include "tests/unit/api/fixture.h"

#include <sys/resource.h>
#include <sys/socket.h>

#include "common/crypto.h"
#include "common/limits.h"

#define ONE_JOB "build:\n  script: [make]\n"
#define WAIT_MS 10000u

/* What was freed must not count as memory in use. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "quarantine_size_mb=1";
}

static void follow(struct plug *w, struct fixture *x, const char *last_id, const char *fmt, ...)
    PRINTF_LIKE(4, 5);

static void follow(struct plug *w, struct fixture *x, const char *last_id, const char *fmt, ...)
{
    struct buf path = BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    buf_vaddf(&path, fmt, ap);
    va_end(ap);
    plug_open(w, x);
    plug_sendf(w, "GET %s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " ADMIN_TOKEN "\r\n",
               buf_cstr(&path));
    if (last_id) {
        plug_sendf(w, "Last-Event-ID: %s\r\n", last_id);
    }
    plug_sendf(w, "\r\n");
    buf_release(&path);
}

static size_t count_of(struct plug *w, const char *text)
{
    struct str rest = buf_str(&w->in);
    size_t n = 0;
    ptrdiff_t at;
    while ((at = str_find(rest, str_from(text))) >= 0) {
        rest = str_sub(rest, (size_t)at + 1, rest.n);
        n++;
    }
    return n;
}

static void assert_has(struct plug *w, const char *text)
{
    if (!plug_until(w, text, WAIT_MS)) {
        fail_msg("`%s` did not come; this did:\n%s", text, buf_cstr(&w->in));
    }
}

/* The id of the newest event that came. */
static uint64_t last_seq(struct plug *w)
{
    const char *at = NULL;
    for (const char *p = buf_cstr(&w->in); (p = strstr(p, "\nid: ")) != NULL; p++) {
        at = p;
    }
    assert_non_null(at);
    return strtoull(at + 5, NULL, 10);
}

static void a_pipeline_is_told_from_its_beginning_to_its_end(void **state)
{
    struct fixture *x = *state;
    struct plug w;
    uint64_t job;
    uint64_t id = submit(x, ONE_JOB, &job);
    follow(&w, x, NULL, "/api/v1/pipelines/%" PRIu64 "/events", id);
    assert_has(&w, "Content-Type: text/event-stream");
    assert_has(&w, "event: job\n");
    worker_hello(x);
    job_start(x, job);
    assert_has(&w, "\"to\":\"running\"");
    job_finish(x, job, JOB_SUCCESS, NULL);
    assert_has(&w, "\"to\":\"success\"");
    assert_has(&w, "event: end\ndata: {\"status\":\"success\"}\n\n");
    assert_has(&w, "\r\n0\r\n\r\n"); /* the stream is whole */
    plug_close(&w);
    follow(&w, x, NULL, "/api/v1/pipelines/%" PRIu64 "/events", id);
    assert_has(&w, "event: end\n"); /* an ended pipeline is told, too */
    assert_true(count_of(&w, "event: job\n") >= 4);
    plug_close(&w);
}

static void a_follower_goes_on_behind_its_last_event(void **state)
{
    struct fixture *x = *state;
    struct plug w;
    char last[32];
    uint64_t job;
    uint64_t id = submit(x, ONE_JOB, &job);
    follow(&w, x, NULL, "/api/v1/pipelines/%" PRIu64 "/events", id);
    assert_has(&w, "\"to\":\"pending\"");
    plug_until(&w, ": ping", WAIT_MS); /* all that there was has come */
    snprintf(last, sizeof(last), "%" PRIu64, last_seq(&w));
    plug_close(&w);
    worker_hello(x);
    job_start(x, job);
    follow(&w, x, last, "/api/v1/pipelines/%" PRIu64 "/events", id);
    assert_has(&w, "\"to\":\"running\"");
    assert_int_equal(count_of(&w, "\"to\":\"pending\""), 0);
    assert_int_equal(count_of(&w, "event: resync"), 0);
    plug_close(&w);
}

static void the_stream_of_everything_begins_now(void **state)
{
    struct fixture *x = *state;
    struct plug w;
    uint64_t first = submit(x, ONE_JOB, NULL);
    char id[48];
    follow(&w, x, NULL, "/api/v1/events");
    assert_has(&w, "retry: ");
    uint64_t second = submit(x, ONE_JOB, NULL);
    snprintf(id, sizeof(id), "\"pipeline_id\":%" PRIu64 ",", second);
    assert_has(&w, id);
    snprintf(id, sizeof(id), "\"pipeline_id\":%" PRIu64 ",", first);
    assert_int_equal(count_of(&w, id), 0);
    plug_close(&w);
    follow(&w, x, "0", "/api/v1/events"); /* from the beginning */
    assert_has(&w, id);
    plug_close(&w);
}

static void a_number_from_another_store_gives_a_resync(void **state)
{
    struct fixture *x = *state;
    struct plug w;
    submit(x, ONE_JOB, NULL);
    follow(&w, x, "999999", "/api/v1/events");
    assert_has(&w, "event: resync\n");
    uint64_t id = submit(x, ONE_JOB, NULL);
    char text[48];
    snprintf(text, sizeof(text), "\"pipeline_id\":%" PRIu64 ",", id);
    assert_has(&w, text); /* and it goes on */
    plug_close(&w);
}

static void expired_events_give_a_resync_and_the_rest(void **state)
{
    struct fixture *x = *state;
    struct plug w;
    struct tx *tx;
    uint64_t id = submit(x, ONE_JOB, NULL);
    assert_int_equal(turn_fresh(x->turn), 0); /* and idle then: the test may write */
    assert_int_equal(tx_begin(x->store, true, &tx), 0);
    for (uint64_t seq = 1; seq <= 2; seq++) {
        struct key k = key_u64(seq);
        struct key pk = key_u64_u64(id, seq);
        tx_del(tx, T_EVENT, &k);
        tx_del(tx, T_PIPELINE_EVENT, &pk);
    }
    assert_int_equal(tx_commit(tx), 0);
    follow(&w, x, "1", "/api/v1/events");
    assert_has(&w, "id: 2\nevent: resync\n");
    assert_has(&w, "id: 3\n");
    plug_close(&w);
}

static void a_bad_last_event_id_is_refused(void **state)
{
    struct fixture *x = *state;
    uint64_t job;
    uint64_t id = submit(x, ONE_JOB, &job);
    char path[80];
    struct call c = {.path = "/api/v1/events", .headers = {"Last-Event-ID: x"}};
    assert_problem(x, &c, 400, "invalid");
    c.path = path;
    snprintf(path, sizeof(path), "/api/v1/pipelines/%" PRIu64 "/events", id);
    assert_problem(x, &c, 400, "invalid");
    snprintf(path, sizeof(path), "/api/v1/jobs/%" PRIu64 "/log/follow", job);
    assert_problem(x, &c, 400, "invalid");
    c.headers[0] = "Last-Event-ID: 0:5";
    assert_problem(x, &c, 400, "invalid");
    c.headers[0] = "Last-Event-ID: 7:5";
    assert_problem(x, &c, 404, "not_found");
}

/* --- logs --- */

/* All bytes that `event: log` brought, in order. */
static struct buf log_bytes(struct plug *w)
{
    struct buf bytes = BUF_INIT;
    const char *mark = "\"bytes\":\"";
    for (const char *p = buf_cstr(&w->in); (p = strstr(p, mark)) != NULL;) {
        p += strlen(mark);
        const char *end = strchr(p, '"');
        assert_non_null(end);
        assert_int_equal(crypto_from_base64(str_of(p, (size_t)(end - p)), &bytes), 0);
    }
    return bytes;
}

static void assert_log(struct plug *w, const char *text)
{
    struct buf bytes = log_bytes(w);
    assert_string_equal(buf_cstr(&bytes), text);
    buf_release(&bytes);
}

static void a_log_is_told_as_it_grows(void **state)
{
    struct fixture *x = *state;
    struct plug w;
    uint64_t job;
    submit(x, ONE_JOB, &job);
    follow(&w, x, NULL, "/api/v1/jobs/%" PRIu64 "/log/follow", job);
    assert_has(&w, "retry: "); /* before there is an attempt */
    worker_hello(x);
    job_start(x, job);
    assert_has(&w, "event: attempt\ndata: {\"attempt\":1}\n\n");
    job_log(x, job, 0, "hello ");
    assert_has(&w, "id: 1:6\nevent: log\n");
    job_log(x, job, 6, "world\n");
    assert_has(&w, "id: 1:12\nevent: log\n");
    job_finish(x, job, JOB_SUCCESS, NULL);
    assert_has(&w, "event: end\ndata: {\"status\":\"success\",\"attempt\":1}\n\n");
    assert_log(&w, "hello world\n");
    plug_close(&w);
}

static void a_log_goes_on_where_the_follower_stood(void **state)
{
    struct fixture *x = *state;
    struct plug w;
    uint64_t job;
    submit(x, ONE_JOB, &job);
    worker_hello(x);
    job_start(x, job);
    job_log(x, job, 0, "0123456789");
    follow(&w, x, "1:4", "/api/v1/jobs/%" PRIu64 "/log/follow", job);
    assert_has(&w, "id: 1:10\n");
    assert_log(&w, "456789");
    assert_int_equal(count_of(&w, "event: attempt"), 0);
    plug_close(&w);
    follow(&w, x, NULL, "/api/v1/jobs/%" PRIu64 "/log/follow?attempt=1&offset=7", job);
    assert_has(&w, "id: 1:10\n");
    assert_log(&w, "789");
    plug_close(&w);
}

static void the_next_attempt_is_told_after_the_last(void **state)
{
    struct fixture *x = *state;
    struct plug w;
    uint64_t job;
    submit(x, "build:\n  script: [make]\n  retry: 1\n", &job);
    worker_hello(x);
    job_start(x, job);
    job_log(x, job, 0, "first");
    follow(&w, x, NULL, "/api/v1/jobs/%" PRIu64 "/log/follow", job);
    job_finish(x, job, JOB_FAILED, NULL);
    job_start(x, job);
    job_log(x, job, 0, "second");
    assert_has(&w, "data: {\"attempt\":2}");
    assert_has(&w, "id: 2:6\n");
    job_finish(x, job, JOB_SUCCESS, NULL);
    assert_has(&w, "event: end\ndata: {\"status\":\"success\",\"attempt\":2}\n\n");
    assert_log(&w, "firstsecond");
    plug_close(&w);
    follow(&w, x, NULL, "/api/v1/jobs/%" PRIu64 "/log/follow?attempt=1", job);
    assert_has(&w, "event: end\ndata: {\"status\":\"failed\",\"attempt\":1}\n\n");
    assert_log(&w, "first");
    plug_close(&w);
}

static void a_job_that_never_ran_ends_its_stream(void **state)
{
    struct fixture *x = *state;
    struct plug w;
    uint64_t job;
    submit(x, ONE_JOB, &job);
    follow(&w, x, NULL, "/api/v1/jobs/%" PRIu64 "/log/follow", job);
    assert_has(&w, "retry: ");
    json_decref(post_json(x, 202, "{}", "/api/v1/jobs/%" PRIu64 "/cancel", job));
    assert_has(&w, "event: end\ndata: {\"status\":\"canceled\",\"attempt\":null}\n\n");
    plug_close(&w);
}

/* Writes n bytes of a pattern as the job's log. */
static void long_log(struct fixture *x, uint64_t job, uint64_t n)
{
    char *chunk = xmalloc(LIMIT_LOG_CHUNK);
    memset(chunk, 'x', LIMIT_LOG_CHUNK);
    for (uint64_t at = 0; at < n; at += LIMIT_LOG_CHUNK) {
        while (logs_append(x->logs, job, 1, 1, at, chunk, LIMIT_LOG_CHUNK) < 0) {
            os_sleep_ms(1);
        }
    }
    while (logs_durable(x->logs, job, 1) < n) {
        os_sleep_ms(1);
    }
    free(chunk);
}

static uint64_t resident_bytes(void)
{
    struct buf text = BUF_INIT;
    uint64_t pages = 0;
    struct str rest, field;
    assert_int_equal(os_read_file("/proc/self/statm", 4096, &text), 0);
    rest = buf_str(&text);
    str_split(&rest, ' ', &field);
    str_split(&rest, ' ', &field);
    assert_int_equal(str_to_u64(field, &pages), 0);
    buf_release(&text);
    return pages * 4096;
}

static void followers_that_never_read_cost_no_memory(void **state)
{
    struct fixture *x = *state;
    struct plug w[20];
    uint64_t job;
    submit(x, ONE_JOB, &job);
    worker_hello(x);
    job_start(x, job);
    long_log(x, job, 32 * MIB);
    uint64_t before = resident_bytes();
    for (size_t i = 0; i < ARRAY_LEN(w); i++) {
        follow(&w[i], x, NULL, "/api/v1/jobs/%" PRIu64 "/log/follow", job);
    }
    for (int i = 0; i < 20; i++) {
        submit(x, ONE_JOB, NULL); /* wakes them all */
    }
    uint64_t after = resident_bytes();
    assert_true(after < before + 20 * MIB); /* of 640 MiB that they would get */
    for (size_t i = 0; i < ARRAY_LEN(w); i++) {
        plug_close(&w[i]);
    }
    json_decref(get_json(x, 200, "/healthz"));
}

static void a_follower_gets_a_long_log_whole(void **state)
{
    struct fixture *x = *state;
    struct plug w;
    uint64_t job;
    submit(x, ONE_JOB, &job);
    worker_hello(x);
    job_start(x, job);
    long_log(x, job, 2 * MIB);
    job_finish(x, job, JOB_SUCCESS, NULL);
    follow(&w, x, NULL, "/api/v1/jobs/%" PRIu64 "/log/follow", job);
    assert_has(&w, "event: end\n");
    struct buf bytes = BUF_INIT;
    /* Chunked encoding may cut an event anywhere: take the frames off first. */
    struct buf body = BUF_INIT;
    const char *p = strstr(buf_cstr(&w.in), "\r\n\r\n") + 4;
    for (unsigned long n; (n = strtoul(p, (char **)&p, 16)) > 0; p += n + 2) {
        p += 2;
        buf_add(&body, p, n);
    }
    struct buf all = w.in;
    w.in = body;
    bytes = log_bytes(&w);
    assert_int_equal(bytes.n, 2 * MIB);
    w.in = all;
    buf_release(&body);
    buf_release(&bytes);
    plug_close(&w);
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void idle_followers_sleep_and_are_pinged(void **state)
{
    struct fixture *x = *state;
    enum { FOLLOWERS = 200 };
    static struct plug w[FOLLOWERS];
    uint64_t id = submit(x, ONE_JOB, NULL);
    for (size_t i = 0; i < FOLLOWERS; i++) {
        follow(&w[i], x, NULL, "/api/v1/pipelines/%" PRIu64 "/events", id);
    }
    for (size_t i = 0; i < FOLLOWERS; i++) {
        assert_has(&w[i], ": ping\n\n");
    }
    double before = cpu_seconds();
    uint64_t start_ms = os_monotonic_ms();
    while (os_monotonic_ms() < start_ms + 1000) {
        os_sleep_ms(100);
    }
    /* Ten pings each in this second; a spinning follower alone would take all of it. */
    assert_true(cpu_seconds() - before < 0.8);
    for (size_t i = 0; i < FOLLOWERS; i++) {
        plug_close(&w[i]);
    }
    /* Those who are gone are noticed by their pings. */
    for (int i = 0; i < 1000; i++) {
        struct answer a;
        call(x, &(struct call){.path = "/metrics"}, &a);
        bool gone = strstr(buf_cstr(&a.body), "\ndavit_http_followers 0\n") != NULL;
        answer_release(&a);
        if (gone) {
            return;
        }
        os_sleep_ms(10);
    }
    fail_msg("followers that hung up are still there");
}

static void a_stop_ends_all_followers(void **state)
{
    struct fixture *x = *state;
    struct plug w[30];
    uint64_t job;
    uint64_t id = submit(x, ONE_JOB, &job);
    for (size_t i = 0; i < ARRAY_LEN(w); i++) {
        if (i % 3 == 0) {
            follow(&w[i], x, NULL, "/api/v1/events");
        } else if (i % 3 == 1) {
            follow(&w[i], x, NULL, "/api/v1/pipelines/%" PRIu64 "/events", id);
        } else {
            follow(&w[i], x, NULL, "/api/v1/jobs/%" PRIu64 "/log/follow", job);
        }
    }
    assert_has(&w[0], "retry: ");
    fixture_restart_api(x, 0);
    for (size_t i = 0; i < ARRAY_LEN(w); i++) {
        assert_true(plug_closed(&w[i], WAIT_MS));
        plug_close(&w[i]);
    }
    json_decref(get_json(x, 200, "/healthz"));
}

static void too_many_followers_are_sent_away(void **state)
{
    struct fixture *x = *state;
    static struct plug w[LIMIT_HTTP_STREAMS + 1];
    uint64_t id = submit(x, ONE_JOB, NULL);
    size_t open = 0;
    struct rlimit files;
    /* Both ends of every connection are in this process. */
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < 4 * LIMIT_HTTP_STREAMS) {
        print_message("skipped: too few descriptors are allowed here\n");
        skip();
    }
    for (; open < LIMIT_HTTP_STREAMS; open++) {
        follow(&w[open], x, NULL, "/api/v1/pipelines/%" PRIu64 "/events", id);
        assert_int_equal(plug_status(&w[open]), 200);
    }
    follow(&w[open], x, NULL, "/api/v1/pipelines/%" PRIu64 "/events", id);
    assert_int_equal(plug_status(&w[open++]), 503);
    json_decref(get_json(x, 200, "/healthz"));
    for (size_t i = 0; i < open; i++) {
        plug_close(&w[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_pipeline_is_told_from_its_beginning_to_its_end),
        TEST(a_follower_goes_on_behind_its_last_event),
        TEST(the_stream_of_everything_begins_now),
        TEST(a_number_from_another_store_gives_a_resync),
        TEST(expired_events_give_a_resync_and_the_rest),
        TEST(a_bad_last_event_id_is_refused),
        TEST(a_log_is_told_as_it_grows),
        TEST(a_log_goes_on_where_the_follower_stood),
        TEST(the_next_attempt_is_told_after_the_last),
        TEST(a_job_that_never_ran_ends_its_stream),
        TEST(followers_that_never_read_cost_no_memory),
        TEST(a_follower_gets_a_long_log_whole),
        TEST(idle_followers_sleep_and_are_pinged),
        TEST(a_stop_ends_all_followers),
        TEST(too_many_followers_are_sent_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
