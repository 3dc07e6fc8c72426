#include "common/base.h"

#include "common/http.h"
#include "common/limits.h"
#include "common/os.h"
#include "common/sse.h"
#include "tests/unit/common/server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

struct call {
    int r;
    int status;
    struct buf out;
    struct buf why;
};

static struct call call(struct server *s, struct http_request req)
{
    struct call c = {.status = -1};
    server_start(s);
    req.url = req.url != NULL ? req.url : s->url;
    c.r = http_do(&req, &c.status, &c.out, &c.why);
    server_stop(s);
    return c;
}

static void release(struct call *c, struct server *s)
{
    buf_release(&c->out);
    buf_release(&c->why);
    server_release(s);
}

#define PIECES(...)                               \
    .pieces = (const char *const[]){__VA_ARGS__}, \
    .piece_count = sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *)

static bool contains(const struct buf *b, const char *text)
{
    return str_find(buf_str(b), str_from(text)) >= 0;
}

static void test_an_answer_with_any_status_is_an_answer(void **state)
{
    struct server s = {PIECES("HTTP/1.1 404 Not Found\r\nContent-", "Length: 5\r\n\r\nhe", "llo")};
    struct http_request req = HTTP_REQUEST_INIT;
    req.token = "secret";
    struct call c = call(&s, req);
    assert_int_equal(c.r, 0);
    assert_int_equal(c.status, 404);
    assert_string_equal(c.out.p, "hello");
    assert_true(str_starts(buf_str(&s.request), STR("GET /path?q=1 HTTP/1.1\r\n")));
    assert_true(contains(&s.request, "Authorization: Bearer secret\r\n"));
    assert_false(contains(&s.request, "Content-Type"));
    release(&c, &s);
}

static void test_an_answers_etag_is_handed_over(void **state)
{
    static const char *const rows[][2] = {
        {"ETag: \"abc\"\r\n", "abc"}, {"etag:  bare \r\n", "bare"}, {"X-ETag: \"no\"\r\n", ""}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf etag = BUF_INIT;
        struct server s = {PIECES("HTTP/1.1 200 OK\r\n", rows[i][0], "Content-Length: 0\r\n\r\n")};
        struct http_request req = HTTP_REQUEST_INIT;
        req.etag = &etag;
        struct call c = call(&s, req);
        assert_int_equal(c.status, 200);
        assert_string_equal(buf_cstr(&etag), rows[i][1]);
        buf_release(&etag);
        release(&c, &s);
    }
}

/* What the file has when it begins, what is asked for, what comes, what is there then. */
static void test_a_download_goes_on_where_it_broke(void **state)
{
    static const struct {
        const char *had, *asked, *answer, *has;
        int r, status;
    } rows[] = {
        {"01234", "Range: bytes=5-\r\nIf-Range: \"abc\"\r\n",
         "HTTP/1.1 206 Part\r\nContent-Length: 5\r\n\r\n56789", "0123456789", 0, 206},
        {"", "GET /path?q=1 HTTP/1.1\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc",
         0, 200},
        /* It is another one by now. */
        {"01234", "Range: bytes=5-\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc",
         0, 200},
        /* The limit is of all of it. */
        {"01234", "Range: bytes=5-\r\n", "HTTP/1.1 206 Part\r\nContent-Length: 6\r\n\r\n56789X",
         "01234", -E_TOO_BIG, -1},
        /* What came stays. */
        {"01234", "Range: bytes=5-\r\n", "HTTP/1.1 206 Part\r\nContent-Length: 5\r\n\r\n56",
         "0123456", -E_UNREACHABLE, -1},
        {"01234", "Range: bytes=5-\r\n", "HTTP/1.1 503 No\r\nContent-Length: 3\r\n\r\nxyz", "01234",
         0, 503},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char path[] = "/tmp/davit-resume-XXXXXX";
        char has[32] = "";
        struct server s = {PIECES(rows[i].answer)};
        struct http_request req = HTTP_REQUEST_INIT;
        req.out_fd = mkstemp(path);
        req.out_limit = 10;
        req.resume = "abc";
        assert_int_equal(os_write_all(req.out_fd, rows[i].had, strlen(rows[i].had)), 0);
        struct call c = call(&s, req);
        assert_int_equal(c.r, rows[i].r);
        assert_int_equal(c.status, rows[i].status);
        if (!contains(&s.request, rows[i].asked)) {
            fail_msg("%s", buf_cstr(&s.request));
        }
        assert_true(pread(req.out_fd, has, sizeof(has) - 1, 0) >= 0);
        assert_string_equal(has, rows[i].has);
        close(req.out_fd);
        unlink(path);
        release(&c, &s);
    }
}

static int take_text(void *ctx, const void *p, size_t n)
{
    struct buf *text = ctx;
    buf_add(text, p, n);
    return text->n > 5 ? -E_PROTOCOL : 0;
}

static void test_a_good_body_can_be_taken_as_it_comes(void **state)
{
    static const char *const headers[] = {"X-Registry-Auth", "abc", NULL};
    static const char *const bad[] = {"X-A", "b\r\nX-C: d", NULL};
    static const struct {
        const char *status, *taken, *out;
        int r;
    } rows[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "hello", "", 0},
        {"HTTP/1.1 404 No\r\nContent-Length: 5\r\n\r\nhello", "", "hello", 0},
        {"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello!", "hello!", "", -E_PROTOCOL},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf text = BUF_INIT;
        struct server s = {PIECES(rows[i].status)};
        struct http_request req = HTTP_REQUEST_INIT;
        req.headers = headers;
        req.take = take_text;
        req.take_ctx = &text;
        struct call c = call(&s, req);
        assert_int_equal(c.r, rows[i].r);
        assert_string_equal(buf_cstr(&text), rows[i].taken);
        assert_string_equal(buf_cstr(&c.out), rows[i].out);
        assert_true(contains(&s.request, "X-Registry-Auth: abc\r\n"));
        buf_release(&text);
        release(&c, &s);
    }
    struct http_request req = HTTP_REQUEST_INIT;
    struct buf why = BUF_INIT;
    int status;
    req.url = "http://127.0.0.1:9/";
    req.headers = bad;
    assert_true(http_do(&req, &status, NULL, &why) < 0);
    buf_release(&why);
}

static void test_a_socket_that_is_a_file_is_connected_to(void **state)
{
    struct http_request req = HTTP_REQUEST_INIT;
    struct buf why = BUF_INIT;
    int status;
    (void)state;
    req.url = "http://name.invalid/"; /* which nobody is asked for then */
    req.unix_socket = "/nowhere/at/all";
    assert_int_equal(http_do(&req, &status, NULL, &why), -E_UNREACHABLE);
    assert_true(why.n > 0);
    buf_release(&why);
}

static void test_a_body_is_sent_with_its_type_and_key(void **state)
{
    struct server s = {PIECES("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")};
    struct http_request req = HTTP_REQUEST_INIT;
    req.method = "POST";
    req.body = STR("{\"a\":1}");
    req.idempotency_key = "key-1";
    struct call c = call(&s, req);
    assert_int_equal(c.r, 0);
    assert_int_equal(c.status, 201);
    assert_true(str_starts(buf_str(&s.request), STR("POST ")));
    assert_true(contains(&s.request, "Content-Type: application/json\r\n"));
    assert_true(contains(&s.request, "Idempotency-Key: key-1\r\n"));
    assert_true(str_ends(buf_str(&s.request), STR("\r\n\r\n{\"a\":1}")));
    release(&c, &s);
}

static void test_files_go_out_and_come_in(void **state)
{
    struct server s = {PIECES("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nback")};
    struct http_request req = HTTP_REQUEST_INIT;
    FILE *in = tmpfile();
    FILE *out = tmpfile();
    char got[5] = "";
    fputs("from the file, but not this", in);
    fflush(in);
    req.method = "PUT";
    req.content_type = "application/octet-stream";
    req.body_fd = fileno(in);
    req.body_size = strlen("from the file");
    req.out_fd = fileno(out);
    struct call c = call(&s, req);
    assert_int_equal(c.r, 0);
    assert_int_equal(c.out.n, 0);
    assert_int_equal(pread(fileno(out), got, 4, 0), 4);
    assert_string_equal(got, "back");
    assert_true(str_ends(buf_str(&s.request), STR("\r\n\r\nfrom the file")));
    fclose(in);
    fclose(out);
    release(&c, &s);
}

static void test_an_error_does_not_end_up_in_the_file(void **state)
{
    struct server s = {PIECES("HTTP/1.1 500 Oops\r\nContent-Length: 4\r\n\r\noops")};
    struct http_request req = HTTP_REQUEST_INIT;
    FILE *out = tmpfile();
    req.out_fd = fileno(out);
    struct call c = call(&s, req);
    assert_int_equal(c.r, 0);
    assert_int_equal(c.status, 500);
    assert_string_equal(c.out.p, "oops");
    assert_int_equal(lseek(fileno(out), 0, SEEK_END), 0);
    fclose(out);
    release(&c, &s);
}

static void test_a_file_that_is_too_short_is_an_error(void **state)
{
    struct server s = {PIECES("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")};
    struct http_request req = HTTP_REQUEST_INIT;
    FILE *in = tmpfile();
    req.method = "PUT";
    req.body_fd = fileno(in);
    req.body_size = 10;
    struct call c = call(&s, req);
    assert_int_equal(c.r, -E_IO);
    assert_int_equal(c.status, -1);
    fclose(in);
    release(&c, &s);
}

static void test_an_answer_before_the_body_was_read_counts(void **state)
{
    struct server s = {PIECES("HTTP/1.1 413 Too Big\r\nContent-Length: 0\r\n\r\n"),
                       .closes_early = true};
    struct http_request req = HTTP_REQUEST_INIT;
    char *large = xcalloc(1, 8 * MIB);
    req.method = "POST";
    req.body = str_of(large, 8 * MIB);
    struct call c = call(&s, req);
    assert_int_equal(c.r, 0);
    assert_int_equal(c.status, 413);
    free(large);
    release(&c, &s);
}

static void test_an_answer_is_bounded(void **state)
{
    struct server s = {PIECES("HTTP/1.1 200 OK\r\n\r\n12345", "6789")};
    struct http_request req = HTTP_REQUEST_INIT;
    req.out_limit = 8;
    struct call c = call(&s, req);
    assert_int_equal(c.r, -E_TOO_BIG);
    assert_int_equal(c.status, -1);
    assert_int_equal(c.out.n, 0);
    assert_true(c.why.n > 0);
    release(&c, &s);
}

static void test_silence_ends_in_a_timeout(void **state)
{
    struct server s = {PIECES("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), .hangs = true};
    struct http_request req = HTTP_REQUEST_INIT;
    req.idle_timeout_ms = 50;
    struct call c = call(&s, req);
    assert_int_equal(c.r, -E_TIMEOUT);
    assert_int_equal(c.out.n, 0);
    release(&c, &s);
}

static void test_who_does_not_listen_is_unreachable(void **state)
{
    struct server s = {0};
    struct http_request req = HTTP_REQUEST_INIT;
    struct call c = {.status = -1};
    server_start(&s);
    server_stop(&s); /* the port is free now */
    req.url = s.url;
    assert_int_equal(http_do(&req, &c.status, &c.out, &c.why), -E_UNREACHABLE);
    assert_true(c.why.n > 0);
    req.url = "file:///etc/passwd";
    assert_int_equal(http_do(&req, &c.status, NULL, &c.why), -E_INVALID);
    req.url = s.url;
    req.token = "a\r\nX-Evil: 1";
    assert_int_equal(http_do(&req, &c.status, NULL, &c.why), -E_INVALID);
    release(&c, &s);
}

static void test_redirects_are_not_followed(void **state)
{
    struct server s = {PIECES("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n"
                              "Content-Length: 0\r\n\r\n")};
    struct http_request req = HTTP_REQUEST_INIT;
    struct call c = call(&s, req);
    assert_int_equal(c.r, 0);
    assert_int_equal(c.status, 302);
    release(&c, &s);
}

/* Events as text: "ID|EVENT|DATA" and a line end each. */
struct seen {
    struct buf text;
    unsigned count;
    unsigned wanted; /* 0: all */
};

static bool see(void *ctx, struct str id, struct str event, struct str data)
{
    struct seen *seen = ctx;
    buf_addf(&seen->text, STR_FMT "|" STR_FMT "|" STR_FMT "\n", STR_ARG(id), STR_ARG(event),
             STR_ARG(data));
    return ++seen->count != seen->wanted;
}

static const struct {
    const char *stream;
    const char *seen;
} streams[] = {
    {"data: one\n\n", "|message|one\n"},
    {"data: a\r\ndata: b\r\n\r\n", "|message|a\nb\n"},
    {"data: a\rdata: b\r\r", "|message|a\nb\n"},
    {"id: 7\nevent: log\ndata:x\n\ndata: y\n\n", "7|log|x\n7|message|y\n"},
    {": ping\n\nevent: nothing\n\ndata\n\n", "|message|\n"},
    {"data:  two blanks\nretry: 10\nunknown: z\n\n", "|message| two blanks\n"},
    {"\xef\xbb\xbf"
     "data: mark\n\ndata: cut off\n",
     "|message|mark\n"},
    {"id: 1\r\ndata: x\r\n\r\nid\r\ndata: y\r\n\r\n", "1|message|x\n|message|y\n"},
};

static void feed_in_pieces(const char *stream, size_t piece, struct seen *seen)
{
    struct sse sse;
    struct str rest = str_from(stream);
    sse_init(&sse, see, seen);
    for (; rest.n > 0; rest = str_sub(rest, piece, rest.n)) {
        assert_int_equal(sse_feed(&sse, str_sub(rest, 0, piece)), 0);
    }
    sse_release(&sse);
}

static void test_events_may_be_cut_anywhere(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(streams); i++) {
        for (size_t piece = 1; piece <= strlen(streams[i].stream); piece++) {
            struct seen seen = {0};
            feed_in_pieces(streams[i].stream, piece, &seen);
            assert_string_equal(buf_cstr(&seen.text), streams[i].seen);
            buf_release(&seen.text);
        }
    }
}

static void test_an_endless_event_is_too_big(void **state)
{
    struct sse sse;
    struct seen seen = {0};
    char line[1024];
    int r = 0;
    memset(line, 'x', sizeof(line));
    memcpy(line, "data:", 5);
    line[sizeof(line) - 1] = '\n';
    sse_init(&sse, see, &seen);
    for (size_t n = 0; r == 0 && n < 2 * LIMIT_SSE_BYTES; n += sizeof(line)) {
        r = sse_feed(&sse, str_of(line, sizeof(line)));
    }
    assert_int_equal(r, -E_TOO_BIG);
    sse_release(&sse);
}

static void test_a_stream_is_listened_to_until_it_ends(void **state)
{
    struct server s = {
        PIECES("HTTP/1.1 200 OK\r\n\r\nid: 8\nda", "ta: x\r", "\n\r", "\ndata: y\n\n")};
    struct seen seen = {0};
    struct buf why = BUF_INIT;
    server_start(&s);
    assert_int_equal(http_events(s.url, "secret", "7", see, &seen, NULL, &why), 0);
    server_stop(&s);
    assert_string_equal(seen.text.p, "8|message|x\n8|message|y\n");
    assert_true(contains(&s.request, "Last-Event-ID: 7\r\n"));
    assert_true(contains(&s.request, "Authorization: Bearer secret\r\n"));
    buf_release(&seen.text);
    buf_release(&why);
    server_release(&s);
}

static void test_listening_ends_when_enough_was_seen(void **state)
{
    struct server s = {PIECES("HTTP/1.1 200 OK\r\n\r\ndata: x\n\ndata: y\n\n"), .hangs = true};
    struct seen seen = {.wanted = 1};
    struct buf why = BUF_INIT;
    bool stop = true;
    server_start(&s);
    assert_int_equal(http_events(s.url, NULL, NULL, see, &seen, NULL, &why), 0);
    assert_int_equal(seen.count, 1);
    assert_int_equal(http_events(s.url, NULL, NULL, see, &seen, &stop, &why), 0);
    server_stop(&s);
    assert_int_equal(seen.count, 1);
    buf_release(&seen.text);
    buf_release(&why);
    server_release(&s);
}

static void test_a_refused_stream_says_why(void **state)
{
    struct server s = {PIECES("HTTP/1.1 401 No\r\nContent-Length: 8\r\n\r\nno token")};
    struct seen seen = {0};
    struct buf why = BUF_INIT;
    server_start(&s);
    assert_int_equal(http_events(s.url, NULL, NULL, see, &seen, NULL, &why), -E_UNAUTHORIZED);
    server_stop(&s);
    assert_string_equal(why.p, "the server answered 401: no token");
    assert_int_equal(seen.count, 0);
    buf_release(&why);
    server_release(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_answer_with_any_status_is_an_answer),
        cmocka_unit_test(test_an_answers_etag_is_handed_over),
        cmocka_unit_test(test_a_download_goes_on_where_it_broke),
        cmocka_unit_test(test_a_good_body_can_be_taken_as_it_comes),
        cmocka_unit_test(test_a_socket_that_is_a_file_is_connected_to),
        cmocka_unit_test(test_a_body_is_sent_with_its_type_and_key),
        cmocka_unit_test(test_files_go_out_and_come_in),
        cmocka_unit_test(test_an_error_does_not_end_up_in_the_file),
        cmocka_unit_test(test_a_file_that_is_too_short_is_an_error),
        cmocka_unit_test(test_an_answer_before_the_body_was_read_counts),
        cmocka_unit_test(test_an_answer_is_bounded),
        cmocka_unit_test(test_silence_ends_in_a_timeout),
        cmocka_unit_test(test_who_does_not_listen_is_unreachable),
        cmocka_unit_test(test_redirects_are_not_followed),
        cmocka_unit_test(test_events_may_be_cut_anywhere),
        cmocka_unit_test(test_an_endless_event_is_too_big),
        cmocka_unit_test(test_a_stream_is_listened_to_until_it_ends),
        cmocka_unit_test(test_listening_ends_when_enough_was_seen),
        cmocka_unit_test(test_a_refused_stream_says_why),
    };
    http_global_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
