/* Blobs, artifacts and logs over HTTP. */
#include "common/base.h"

#include "tests/unit/api/fixture.h"

#include <sys/socket.h>
#include <unistd.h>

#include "broker/api/range.h"
#include "common/crypto.h"
#include "common/limits.h"

#define ONE_JOB "build:\n  script: [make]\n"

/* --- ranges --- */

static void ranges_are_read_as_the_rfc_says(void **state)
{
    static const struct {
        const char *text;
        uint64_t total;
        int r;
        struct range want;
    } cases[] = {
        {NULL, 10, 0, {0, 10, false}},
        {"bytes=0-0", 10, 0, {0, 1, true}},
        {"bytes=0-9", 10, 0, {0, 10, true}},
        {"bytes=3-", 10, 0, {3, 7, true}},
        {"bytes=-3", 10, 0, {7, 3, true}},
        {"bytes=-30", 10, 0, {0, 10, true}},
        {"bytes=5-100", 10, 0, {5, 5, true}},
        {"bytes=9-9", 10, 0, {9, 1, true}},
        {"bytes=10-", 10, -E_RANGE, {0}},
        {"bytes=10-20", 10, -E_RANGE, {0}},
        {"bytes=-0", 10, -E_RANGE, {0}},
        {"bytes=0-", 0, -E_RANGE, {0}},
        {"bytes=-1", 0, -E_RANGE, {0}},
        /* What is no single range of bytes is as if it was not there. */
        {"bytes=5-3", 10, 0, {0, 10, false}},
        {"bytes=0-1,3-4", 10, 0, {0, 10, false}},
        {"lines=0-1", 10, 0, {0, 10, false}},
        {"bytes=", 10, 0, {0, 10, false}},
        {"bytes=-", 10, 0, {0, 10, false}},
        {"bytes=a-b", 10, 0, {0, 10, false}},
        {"bytes=+1-2", 10, 0, {0, 10, false}},
        {"bytes=0-18446744073709551615", 10, 0, {0, 10, false}},
        {"bytes=0-18446744073709551614", 10, 0, {0, 10, true}},
        {"bytes=18446744073709551615-", 10, -E_RANGE, {0}},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct range got = {0};
        int r = range_parse(cases[i].text, cases[i].total, &got);
        if (r != cases[i].r || got.offset != cases[i].want.offset ||
            got.size != cases[i].want.size || got.partial != cases[i].want.partial) {
            fail_msg("%s of %" PRIu64 ": %d, %" PRIu64 " + %" PRIu64, cases[i].text, cases[i].total,
                     r, got.offset, got.size);
        }
    }
}

/* --- blobs --- */

static char *upload(struct fixture *x, const char *bytes)
{
    json_t *blob = post_json(x, 201, bytes, "/api/v1/blobs");
    char *path = xmalloc(128);
    assert_int_equal(id_of(blob, "size"), strlen(bytes));
    snprintf(path, 128, "/api/v1/blobs/%s", text_of(blob, "digest"));
    json_decref(blob);
    return path;
}

static void a_blob_comes_back_as_it_was_sent(void **state)
{
    struct fixture *x = *state;
    struct answer a;
    char *path = upload(x, "0123456789");
    call(x, &(struct call){.path = path}, &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(buf_cstr(&a.body), "0123456789");
    assert_non_null(strstr(buf_cstr(&a.head), "Content-Length: 10\r\n"));
    assert_non_null(strstr(buf_cstr(&a.head), "Accept-Ranges: bytes\r\n"));
    answer_release(&a);
    free(path);
}

static void an_empty_blob_is_fine(void **state)
{
    struct fixture *x = *state;
    struct answer a;
    char *path = upload(x, "");
    call(x, &(struct call){.path = path}, &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body.n, 0);
    answer_release(&a);
    assert_problem(x, &(struct call){.path = path, .headers = {"Range: bytes=0-"}}, 416,
                   "range_not_satisfiable");
    free(path);
}

static void a_part_of_a_blob_is_given(void **state)
{
    struct fixture *x = *state;
    struct answer a;
    char *path = upload(x, "0123456789");
    call(x, &(struct call){.path = path, .headers = {"Range: bytes=2-4"}}, &a);
    assert_int_equal(a.status, 206);
    assert_string_equal(buf_cstr(&a.body), "234");
    assert_non_null(strstr(buf_cstr(&a.head), "Content-Range: bytes 2-4/10\r\n"));
    answer_release(&a);
    call(x, &(struct call){.path = path, .headers = {"Range: bytes=10-"}}, &a);
    assert_int_equal(a.status, 416);
    assert_non_null(strstr(buf_cstr(&a.head), "Content-Range: bytes */10\r\n"));
    answer_release(&a);
    free(path);
}

static void an_unknown_blob_is_not_found(void **state)
{
    assert_problem(
        *state,
        &(struct call){.path = "/api/v1/blobs/"
                               "0000000000000000000000000000000000000000000000000000000000000000"},
        404, "not_found");
}

static void an_upload_larger_than_allowed_is_refused_by_its_head(void **state)
{
    struct plug w;
    plug_open(&w, *state);
    plug_sendf(&w,
               "POST /api/v1/blobs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " ADMIN_TOKEN
               "\r\nContent-Length: %llu\r\nExpect: 100-continue\r\n\r\n",
               LIMIT_BLOB_BYTES + 1);
    assert_int_equal(plug_status(&w), 413);
    assert_true(plug_closed(&w, 5000));
    plug_close(&w);
}

static int upload_as_job(struct fixture *x, uint64_t job_id, size_t n)
{
    char *token = token_of_job(x, job_id);
    char *bytes = xcalloc(1, n);
    struct answer a;
    call(x, &(struct call){.path = "/api/v1/blobs", .token = token, .body = bytes, .body_size = n},
         &a);
    int status = a.status;
    answer_release(&a);
    free(bytes);
    free(token);
    return status;
}

static void jobs_upload_no_more_than_their_share(void **state)
{
    struct fixture *x = *state;
    uint64_t first;
    submit(x, "a: {script: [x]}\nb: {script: [x]}\nc: {script: [x]}\n", &first);
    worker_hello(x);
    for (uint64_t id = first; id < first + 3; id++) {
        job_assign(x, id);
    }
    assert_int_equal(upload_as_job(x, first, 600 * KIB), 201);
    assert_int_equal(upload_as_job(x, first, 600 * KIB), 422);     /* the job's own share */
    assert_int_equal(upload_as_job(x, first + 1, KIB * KIB), 422); /* all of the pipeline */
    assert_int_equal(upload_as_job(x, first + 1, 900 * KIB), 201); /* what was refused is free */
    assert_int_equal(upload_as_job(x, first + 2, 60 * KIB), 422);
    assert_int_equal(upload_as_job(x, first, 30 * KIB), 201);
    char *path = upload(x, "people upload what they like");
    free(path);
}

/* --- uploads of several requests --- */

/* Begins one; its path, heap. */
static char *begin_upload(struct fixture *x, const char *token, uint64_t size)
{
    char length[48];
    struct answer a;
    snprintf(length, sizeof(length), "Upload-Length: %" PRIu64, size);
    call(x,
         &(struct call){
             .method = "POST", .path = "/api/v1/uploads", .token = token, .headers = {length}},
         &a);
    assert_int_equal(a.status, 201);
    assert_non_null(strstr(buf_cstr(&a.head), "Tus-Resumable: 1.0.0\r\n"));
    const char *at = strstr(buf_cstr(&a.head), "Location: ");
    assert_non_null(at);
    at += strlen("Location: ");
    char *path = str_dup(str_of(at, strcspn(at, "\r")));
    answer_release(&a);
    return path;
}

static void send_part(struct fixture *x, const char *token, const char *path, uint64_t offset,
                      const char *bytes, struct answer *ret)
{
    char from[48];
    snprintf(from, sizeof(from), "Upload-Offset: %" PRIu64, offset);
    call(x,
         &(struct call){
             .method = "PATCH", .path = path, .token = token, .body = bytes, .headers = {from}},
         ret);
}

static void assert_offset(struct fixture *x, const char *path, const char *line)
{
    struct answer a;
    for (int i = 0; i < 100; i++) { /* the broker has to see that the connection is gone */
        call(x, &(struct call){.path = path}, &a);
        assert_int_equal(a.status, 200);
        if (strstr(buf_cstr(&a.head), line)) {
            answer_release(&a);
            return;
        }
        answer_release(&a);
        os_sleep_ms(10);
    }
    fail_msg("no %s", line);
}

static void an_upload_goes_on_after_a_cut_and_a_restart(void **state)
{
    struct fixture *x = *state;
    struct answer a;
    struct plug w;
    uint8_t digest[SHA256_BYTES];
    char hex[2 * SHA256_BYTES + 1];
    char *path = begin_upload(x, NULL, 10);
    plug_open(&w, x);
    plug_sendf(&w,
               "PATCH %s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " ADMIN_TOKEN
               "\r\nUpload-Offset: 0\r\nContent-Length: 10\r\n\r\n0123",
               path);
    os_sleep_ms(50);
    plug_close(&w);
    assert_offset(x, path, "Upload-Offset: 4\r\n");
    fixture_restart_api(x, 0);
    send_part(x, NULL, path, 4, "456", &a);
    assert_int_equal(a.status, 204);
    assert_non_null(strstr(buf_cstr(&a.head), "Upload-Offset: 7\r\n"));
    assert_null(strstr(buf_cstr(&a.head), "ETag"));
    answer_release(&a);
    send_part(x, NULL, path, 7, "789", &a);
    assert_int_equal(a.status, 204);
    crypto_sha256("0123456789", 10, digest);
    str_to_hex(digest, sizeof(digest), hex);
    assert_non_null(strstr(buf_cstr(&a.head), hex));
    answer_release(&a);
    assert_true(blob_exists(x->blobs, digest));
    assert_offset(x, path, hex); /* for whoever missed the answer */
    free(path);
}

static void what_does_not_fit_an_upload_is_refused(void **state)
{
    struct fixture *x = *state;
    struct answer a;
    char *path = begin_upload(x, NULL, 4);
    send_part(x, NULL, path, 1, "x", &a);
    assert_int_equal(a.status, 409);
    answer_release(&a);
    send_part(x, NULL, path, 0, "01234", &a);
    assert_int_equal(a.status, 413);
    answer_release(&a);
    assert_problem(x, &(struct call){.method = "PATCH", .path = path, .body = "0123"}, 400,
                   "invalid");
    assert_problem(
        x,
        &(struct call){
            .method = "PATCH", .path = path, .body = "0123", .headers = {"Upload-Offset: -1"}},
        400, "invalid");
    assert_problem(x, &(struct call){.path = path, .token = USER_TOKEN}, 404, "not_found");
    assert_problem(x, &(struct call){.method = "POST", .path = "/api/v1/uploads"}, 400, "invalid");
    assert_problem(x,
                   &(struct call){.method = "POST",
                                  .path = "/api/v1/uploads",
                                  .headers = {"Upload-Length: 99999999999999"}},
                   413, "too_big");
    call(x, &(struct call){.method = "DELETE", .path = path}, &a);
    assert_int_equal(a.status, 204);
    answer_release(&a);
    assert_problem(x, &(struct call){.path = path}, 404, "not_found");
    free(path);
}

static void what_a_job_sends_in_parts_counts_until_it_gives_it_up(void **state)
{
    struct fixture *x = *state;
    struct answer a;
    uint64_t job;
    submit(x, ONE_JOB, &job);
    worker_hello(x);
    job_assign(x, job);
    char *token = token_of_job(x, job);
    char *bytes = xcalloc(1, 600 * KIB + 1);
    memset(bytes, 'x', 600 * KIB);
    char *path = begin_upload(x, token, 1200ull * KIB);
    send_part(x, token, path, 0, bytes, &a);
    assert_int_equal(a.status, 204);
    answer_release(&a);
    send_part(x, token, path, 600ull * KIB, bytes, &a);
    assert_int_equal(a.status, 422);
    answer_release(&a);
    assert_int_equal(upload_as_job(x, job, 600 * KIB), 422);
    call(x, &(struct call){.method = "DELETE", .path = path, .token = token}, &a);
    assert_int_equal(a.status, 204);
    answer_release(&a);
    assert_int_equal(upload_as_job(x, job, 600 * KIB), 201);
    free(path);
    free(bytes);
    free(token);
}

static void a_part_is_of_the_blob_that_was_begun(void **state)
{
    struct fixture *x = *state;
    struct answer a;
    char *path = upload(x, "0123456789");
    char same[128];
    snprintf(same, sizeof(same), "If-Range: \"%s\"", strrchr(path, '/') + 1);
    call(x, &(struct call){.path = path, .headers = {"Range: bytes=2-", same}}, &a);
    assert_int_equal(a.status, 206);
    assert_string_equal(buf_cstr(&a.body), "23456789");
    answer_release(&a);
    call(x, &(struct call){.path = path, .headers = {"Range: bytes=2-", "If-Range: \"other\""}},
         &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(buf_cstr(&a.body), "0123456789");
    answer_release(&a);
    free(path);
}

static void an_upload_that_breaks_off_leaves_nothing(void **state)
{
    struct fixture *x = *state;
    struct plug w;
    uint8_t digest[SHA256_BYTES];
    plug_open(&w, x);
    plug_sendf(&w, "POST /api/v1/blobs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " ADMIN_TOKEN
                   "\r\nContent-Length: 10\r\n\r\n01234");
    os_sleep_ms(20);
    plug_close(&w);
    crypto_sha256("01234", 5, digest);
    json_decref(get_json(x, 200, "/healthz"));
    assert_false(blob_exists(x->blobs, digest));
}

static uint64_t peak_bytes(void)
{
    struct buf text = BUF_INIT;
    assert_int_equal(os_read_file("/proc/self/status", 65536, &text), 0);
    const char *line = strstr(buf_cstr(&text), "VmHWM:");
    assert_non_null(line);
    uint64_t kib = strtoull(line + 6, NULL, 10);
    buf_release(&text);
    return kib * 1024;
}

/* 100 MB in chunks over a bare socket, and back; the server and the test share one process. */
static void a_large_blob_streams_both_ways_in_little_memory(void **state)
{
    struct fixture *x = *state;
    enum { BLOCKS = 100 };
    struct plug w;
    char *block = xmalloc(1000000);
    struct sha256 *h = sha256_new();
    char hex[2 * SHA256_BYTES + 1];
    uint8_t digest[SHA256_BYTES];
    uint64_t before = peak_bytes();
    plug_open(&w, x);
    plug_sendf(&w, "POST /api/v1/blobs HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " ADMIN_TOKEN
                   "\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < BLOCKS; i++) {
        memset(block, i, 1000000);
        sha256_add(h, block, 1000000);
        plug_sendf(&w, "%x\r\n", 1000000);
        plug_send(&w, block, 1000000);
        plug_sendf(&w, "\r\n");
    }
    plug_sendf(&w, "0\r\n\r\n");
    sha256_end(h, digest);
    sha256_free(h);
    str_to_hex(digest, sizeof(digest), hex);
    assert_true(plug_until(&w, hex, 60000));
    assert_true(plug_until(&w, "\"size\":100000000", 1000));

    buf_clear(&w.in);
    plug_sendf(&w,
               "GET /api/v1/blobs/%s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " ADMIN_TOKEN
               "\r\n\r\n",
               hex);
    assert_true(plug_until(&w, "\r\n\r\n", 10000));
    size_t head = (size_t)str_find(buf_str(&w.in), STR("\r\n\r\n")) + 4;
    size_t got = w.in.n - head;
    h = sha256_new();
    sha256_add(h, w.in.p + head, got);
    while (got < 100000000) {
        ssize_t n = recv(w.fd, block, 1000000, 0);
        assert_true(n > 0);
        sha256_add(h, block, (size_t)n);
        got += (size_t)n;
    }
    uint8_t back[SHA256_BYTES];
    sha256_end(h, back);
    sha256_free(h);
    assert_memory_equal(back, digest, sizeof(back));
    assert_true(peak_bytes() - before < 32 * MIB);
    free(block);
    plug_close(&w);
}

/* --- a job's token --- */

static void digest_of(const char *path, uint8_t ret[SHA256_BYTES])
{
    assert_int_equal(str_from_hex(str_from(strrchr(path, '/') + 1), ret, SHA256_BYTES), 0);
}

/* Submits one job with a snapshot of the blob at `path`. */
static uint64_t submit_snapshot(struct fixture *x, const char *path)
{
    struct buf body = BUF_INIT;
    buf_addf(&body,
             "{\"project\":\"a\",\"files\":{\".gitlab-ci.yml\":\"a: {script: [x]}\"},"
             "\"source\":{\"snapshot\":{\"digest\":\"%s\"}}}",
             strrchr(path, '/') + 1);
    json_t *p = post_json(x, 201, buf_cstr(&body), "/api/v1/pipelines");
    uint64_t id = id_of(json_array_get(json_object_get(p, "jobs"), 0), "id");
    json_decref(p);
    buf_release(&body);
    return id;
}

static void a_job_reads_the_blobs_of_its_pipeline_only_and_while_it_runs(void **state)
{
    struct fixture *x = *state;
    struct answer a;
    char *own = upload(x, "snapshot");
    char *other = upload(x, "other");
    uint64_t job = submit_snapshot(x, own);
    worker_hello(x);
    job_start(x, job);
    char *token = token_of_job(x, job);
    call(x, &(struct call){.path = own, .token = token}, &a);
    assert_int_equal(a.status, 200);
    answer_release(&a);
    assert_problem(x, &(struct call){.path = other, .token = token}, 403, "forbidden");
    assert_problem(x, &(struct call){.path = "/api/v1/jobs/1", .token = token}, 403, "forbidden");
    call(x, &(struct call){.path = "/api/v1/blobs", .token = token, .body = "artifact"}, &a);
    assert_int_equal(a.status, 201);
    answer_release(&a);

    char *forged = job_token(STR("00000000000000000000000000000000"), job, 1, 1);
    char *later = job_token(STR(JOB_KEY), job, 1, 2);
    assert_problem(x, &(struct call){.path = own, .token = forged}, 401, "unauthorized");
    assert_problem(x, &(struct call){.path = own, .token = later}, 401, "unauthorized");
    job_finish(x, job, JOB_SUCCESS, NULL);
    assert_problem(x, &(struct call){.path = own, .token = token}, 401, "unauthorized");
    free(forged);
    free(later);
    free(token);
    free(own);
    free(other);
}

static void a_job_reads_artifacts_of_its_pipeline(void **state)
{
    struct fixture *x = *state;
    struct answer a;
    uint8_t digest[SHA256_BYTES];
    uint64_t first;
    char *artifact = upload(x, "artifact");
    digest_of(artifact, digest);
    submit(x,
           "stages: [a, b]\na:\n  stage: a\n  script: [x]\n  artifacts: {paths: [x]}\n"
           "b:\n  stage: b\n  script: [x]\n",
           &first);
    worker_hello(x);
    job_start(x, first);
    job_finish(x, first, JOB_SUCCESS, digest);
    job_start(x, first + 1);
    char *token = token_of_job(x, first + 1);
    call(x, &(struct call){.path = artifact, .token = token}, &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(buf_cstr(&a.body), "artifact");
    answer_release(&a);
    free(token);
    free(artifact);
}

static void the_newest_artifacts_of_a_job_are_given(void **state)
{
    struct fixture *x = *state;
    struct answer a;
    uint8_t digest[SHA256_BYTES];
    char path[64];
    uint64_t job;
    char *artifact = upload(x, "artifact");
    digest_of(artifact, digest);
    submit(x, "a:\n  script: [x]\n  artifacts: {paths: [x]}\n", &job);
    snprintf(path, sizeof(path), "/api/v1/jobs/%" PRIu64 "/artifacts", job);
    assert_problem(x, &(struct call){.path = path}, 404, "not_found");
    worker_hello(x);
    job_start(x, job);
    job_finish(x, job, JOB_SUCCESS, digest);
    call(x, &(struct call){.path = path, .headers = {"Range: bytes=0-2"}}, &a);
    assert_int_equal(a.status, 206);
    assert_string_equal(buf_cstr(&a.body), "art");
    answer_release(&a);
    json_t *shown = get_json(x, 200, "/api/v1/jobs/%" PRIu64, job);
    const json_t *item = json_array_get(json_object_get(shown, "artifacts"), 0);
    assert_string_equal(text_of(item, "digest"), strrchr(artifact, '/') + 1);
    json_decref(shown);
    free(artifact);
}

/* --- logs --- */

static void a_log_is_given_with_its_attempt_and_whether_it_is_whole(void **state)
{
    struct fixture *x = *state;
    struct answer a;
    char path[64];
    uint64_t job;
    submit(x, ONE_JOB, &job);
    snprintf(path, sizeof(path), "/api/v1/jobs/%" PRIu64 "/log", job);
    call(x, &(struct call){.path = path}, &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body.n, 0); /* there is no attempt yet */
    assert_non_null(strstr(buf_cstr(&a.head), "X-Davit-Attempt: 0\r\n"));
    answer_release(&a);
    worker_hello(x);
    job_start(x, job);
    job_log(x, job, 0, "0123456789");
    call(x, &(struct call){.path = path}, &a);
    assert_string_equal(buf_cstr(&a.body), "0123456789");
    assert_non_null(strstr(buf_cstr(&a.head), "X-Davit-Attempt: 1\r\n"));
    assert_non_null(strstr(buf_cstr(&a.head), "X-Davit-Log-Complete: false\r\n"));
    assert_non_null(strstr(buf_cstr(&a.head), "Content-Type: text/plain"));
    assert_non_null(strstr(buf_cstr(&a.head), "X-Content-Type-Options: nosniff\r\n"));
    answer_release(&a);
    job_finish(x, job, JOB_SUCCESS, NULL);
    call(x, &(struct call){.path = path, .headers = {"Range: bytes=-3"}}, &a);
    assert_int_equal(a.status, 206);
    assert_string_equal(buf_cstr(&a.body), "789");
    assert_non_null(strstr(buf_cstr(&a.head), "X-Davit-Log-Complete: true\r\n"));
    assert_non_null(strstr(buf_cstr(&a.head), "Content-Range: bytes 7-9/10\r\n"));
    answer_release(&a);
    call(x, &(struct call){.path = path, .headers = {"Range: bytes=10-"}}, &a);
    assert_int_equal(a.status, 416);
    answer_release(&a);
    snprintf(path, sizeof(path), "/api/v1/jobs/%" PRIu64 "/log?attempt=2", job);
    assert_problem(x, &(struct call){.path = path}, 404, "not_found");
    snprintf(path, sizeof(path), "/api/v1/jobs/%" PRIu64 "/log?attempt=1", job);
    call(x, &(struct call){.path = path}, &a);
    assert_int_equal(a.body.n, 10);
    answer_release(&a);
}

static void any_bytes_of_a_log_come_through(void **state)
{
    struct fixture *x = *state;
    struct answer a;
    char path[64];
    uint8_t bytes[256];
    uint64_t job;
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)i;
    }
    submit(x, ONE_JOB, &job);
    worker_hello(x);
    job_start(x, job);
    assert_int_equal(logs_append(x->logs, job, 1, 1, 0, bytes, sizeof(bytes)), 0);
    while (logs_durable(x->logs, job, 1) < sizeof(bytes)) {
        os_sleep_ms(1);
    }
    snprintf(path, sizeof(path), "/api/v1/jobs/%" PRIu64 "/log", job);
    call(x, &(struct call){.path = path}, &a);
    assert_int_equal(a.body.n, sizeof(bytes));
    assert_memory_equal(a.body.p, bytes, sizeof(bytes));
    answer_release(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_are_read_as_the_rfc_says),
        TEST(a_blob_comes_back_as_it_was_sent),
        TEST(an_empty_blob_is_fine),
        TEST(a_part_of_a_blob_is_given),
        TEST(an_unknown_blob_is_not_found),
        TEST(an_upload_larger_than_allowed_is_refused_by_its_head),
        TEST(jobs_upload_no_more_than_their_share),
        TEST(an_upload_goes_on_after_a_cut_and_a_restart),
        TEST(what_does_not_fit_an_upload_is_refused),
        TEST(what_a_job_sends_in_parts_counts_until_it_gives_it_up),
        TEST(a_part_is_of_the_blob_that_was_begun),
        TEST(an_upload_that_breaks_off_leaves_nothing),
        TEST(a_large_blob_streams_both_ways_in_little_memory),
        TEST(a_job_reads_the_blobs_of_its_pipeline_only_and_while_it_runs),
        TEST(a_job_reads_artifacts_of_its_pipeline),
        TEST(the_newest_artifacts_of_a_job_are_given),
        TEST(a_log_is_given_with_its_attempt_and_whether_it_is_whole),
        TEST(any_bytes_of_a_log_come_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
