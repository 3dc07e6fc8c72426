/* Blobs in S3: against a stand-in that checks signatures (s3_server.py), or, where DAVIT_TEST_S3 is
 * an URL as of `davitd --s3` and DAVIT_TEST_S3_KEY its key, of region us-east-1, against that: then
 * without the tests that need faults. The bucket has to be there; what is under the prefix goes. */
#include "common/base.h"

#include "broker/blob/blob.h"
#include "broker/blob/s3.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/http.h"
#include "common/os.h"

#define HOUR_MS (3600u * 1000)

struct fixture {
    char dir[64];
    pid_t server;
    char url[96];
    struct blobs *blobs;
};

static const char *real_url(void)
{
    return getenv("DAVIT_TEST_S3");
}

static const char *region(void)
{
    return real_url() ? "us-east-1" : "eu-test-1";
}

static void open_blobs(struct fixture *x, uint64_t keep_bytes)
{
    struct buf why = BUF_INIT;
    struct s3 *s3;
    const char *key = real_url() ? getenv("DAVIT_TEST_S3_KEY") : "AKTEST:secret/test\n";
    char *path = os_path_join(x->dir, "key");
    char *dir = os_path_join(x->dir, "blobs");
    char source[128];
    assert_int_equal(os_write_file(path, key, strlen(key), 0600), 0);
    snprintf(source, sizeof(source), "file:%s", path);
    assert_int_equal(blobs_open(dir, &x->blobs, &why), 0);
    assert_int_equal(s3_open(x->url, region(), source, &s3, &why), 0);
    blobs_use_s3(x->blobs, s3, keep_bytes);
    free(path);
    free(dir);
}

static void start_server(struct fixture *x)
{
    const char *argv[] = {"python3", getenv("DAVIT_S3_SERVER"), x->dir, NULL};
    struct os_spawn spawn = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    char *path = os_path_join(x->dir, "port");
    struct buf port = BUF_INIT;
    assert_non_null(argv[1]);
    assert_int_equal(os_spawn(&spawn, &x->server), 0);
    while (os_read_file(path, 16, &port) < 0) {
        os_sleep_ms(5);
    }
    snprintf(x->url, sizeof(x->url), "http://127.0.0.1:%s/bucket/some/prefix", buf_cstr(&port));
    buf_release(&port);
    free(path);
}

static bool drop(void *ctx, const uint8_t digest[SHA256_BYTES])
{
    (void)ctx, (void)digest;
    return false;
}

static int setup(void **state)
{
    struct fixture *x = xcalloc(1, sizeof(*x));
    snprintf(x->dir, sizeof(x->dir), "/tmp/davit-s3-XXXXXX");
    assert_non_null(mkdtemp(x->dir));
    if (real_url()) {
        snprintf(x->url, sizeof(x->url), "%s", real_url());
    } else {
        start_server(x);
    }
    open_blobs(x, 0);
    if (real_url()) {
        blob_sweep(x->blobs, os_realtime_ms() + HOUR_MS, 0, drop, NULL);
    }
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *x = *state;
    blobs_close(x->blobs);
    if (x->server > 0) {
        kill(x->server, SIGKILL);
        waitpid(x->server, NULL, 0);
    }
    os_remove_tree(x->dir);
    free(x);
    return 0;
}

static void faults(struct fixture *x, const char *words)
{
    char *path = os_path_join(x->dir, "faults");
    assert_int_equal(os_put_file(path, words, strlen(words), 0600), 0);
    free(path);
}

static int put(struct fixture *x, const char *text, uint8_t ret[SHA256_BYTES])
{
    struct blob_upload *u;
    uint64_t size;
    assert_int_equal(blob_upload_begin(x->blobs, 1 << 20, &u), 0);
    assert_int_equal(blob_upload_write(u, text, strlen(text)), 0);
    return blob_upload_commit(u, ret, &size);
}

static bool is_here(struct fixture *x, const uint8_t *digest)
{
    uint64_t size;
    int fd;
    int r = blob_open_here(x->blobs, digest, &fd, &size);
    if (r == 0) {
        close(fd);
    }
    return r == 0;
}

static void assert_reads(struct fixture *x, const uint8_t *digest, const char *text)
{
    char got[64] = "";
    uint64_t size;
    int fd;
    assert_int_equal(blob_open(x->blobs, digest, &fd, &size), 0);
    assert_int_equal(size, strlen(text));
    assert_int_equal(pread(fd, got, sizeof(got) - 1, 0), size);
    assert_string_equal(got, text);
    close(fd);
}

/* Nothing is kept in the folder. */
static void shrink(struct fixture *x)
{
    blob_shrink(x->blobs, os_realtime_ms() + HOUR_MS, 0);
}

static void a_blob_is_read_from_s3_when_the_folder_has_none(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    assert_int_equal(put(x, "hello", digest), 0);
    assert_true(is_here(x, digest));
    shrink(x);
    assert_false(is_here(x, digest));
    assert_true(blob_exists(x->blobs, digest));
    assert_reads(x, digest, "hello");
    assert_true(is_here(x, digest));
}

static void an_empty_blob_is_a_blob(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    assert_int_equal(put(x, "", digest), 0);
    shrink(x);
    assert_reads(x, digest, "");
}

static void an_unknown_blob_is_not_found(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES] = {1};
    uint64_t size;
    int fd;
    assert_int_equal(blob_open(x->blobs, digest, &fd, &size), -E_NOT_FOUND);
    assert_false(blob_exists(x->blobs, digest));
}

static bool wants(void *ctx, const uint8_t digest[SHA256_BYTES])
{
    return memcmp(ctx, digest, SHA256_BYTES) == 0;
}

static void a_sweep_takes_what_nobody_wants_there_too(void **state)
{
    struct fixture *x = *state;
    uint8_t wanted[SHA256_BYTES];
    uint8_t others[5][SHA256_BYTES];
    assert_int_equal(put(x, "wanted", wanted), 0);
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        char text[16];
        snprintf(text, sizeof(text), "other %zu", i);
        assert_int_equal(put(x, text, others[i]), 0);
    }
    /* What was sent just now stays, although the stand-in says that it is old. */
    assert_int_equal(blob_sweep(x->blobs, os_realtime_ms(), HOUR_MS, wants, wanted), 0);
    shrink(x);
    uint64_t freed = blob_sweep(x->blobs, os_realtime_ms() + 2 * HOUR_MS, HOUR_MS, wants, wanted);
    assert_int_equal(freed, 5 * strlen("other 0"));
    assert_true(blob_exists(x->blobs, wanted));
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        assert_false(blob_exists(x->blobs, others[i]));
    }
}

static void a_folder_that_was_there_before_is_brought_to_s3(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    struct buf why = BUF_INIT;
    char *dir = os_path_join(x->dir, "blobs");
    blobs_close(x->blobs);
    assert_int_equal(blobs_open(dir, &x->blobs, &why), 0); /* as it was without S3 */
    assert_int_equal(put(x, "from before", digest), 0);
    blobs_close(x->blobs);
    free(dir);
    open_blobs(x, 0);
    assert_int_equal(blob_bring(x->blobs), 0);
    shrink(x);
    assert_false(is_here(x, digest));
    assert_reads(x, digest, "from before");
}

static void only_a_blob_that_is_there_leaves_the_folder(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    if (real_url()) {
        skip();
    }
    assert_int_equal(put(x, "precious", digest), 0);
    char *objects = os_path_join(x->dir, "objects");
    assert_int_equal(os_remove_tree(objects), 0);
    assert_int_equal(os_mkdir_p(objects, 0700), 0);
    free(objects);
    faults(x, "404 403"); /* asked whether it has it, and to take it */
    shrink(x);
    assert_true(is_here(x, digest));
    shrink(x);
    assert_false(is_here(x, digest));
    assert_reads(x, digest, "precious");
}

static void a_server_that_stumbles_is_asked_again(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    if (real_url()) {
        skip();
    }
    faults(x, "503");
    assert_int_equal(put(x, "again", digest), 0);
    shrink(x);
    assert_reads(x, digest, "again");
}

static void what_s3_did_not_keep_is_not_stored(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    if (real_url()) {
        skip();
    }
    faults(x, "lose");
    assert_true(put(x, "lost", digest) < 0);
    faults(x, "403");
    assert_true(put(x, "denied", digest) < 0);
    assert_int_equal(put(x, "lost", digest), 0);
    shrink(x);
    assert_reads(x, digest, "lost");
}

static void other_bytes_from_s3_are_no_blob(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    uint64_t size;
    int fd;
    char hex[2 * SHA256_BYTES + 1];
    char path[256];
    if (real_url()) {
        skip();
    }
    assert_int_equal(put(x, "good", digest), 0);
    shrink(x);
    str_to_hex(digest, SHA256_BYTES, hex);
    snprintf(path, sizeof(path), "%s/objects/some+prefix+%.2s+%s", x->dir, hex, hex);
    assert_int_equal(os_put_file(path, "evil", 4, 0600), 0);
    assert_int_equal(blob_open(x->blobs, digest, &fd, &size), -E_CORRUPT);
    assert_false(is_here(x, digest));
}

static void a_wrong_key_stores_nothing(void **state)
{
    struct fixture *x = *state;
    struct buf why = BUF_INIT;
    struct s3 *s3;
    uint8_t digest[SHA256_BYTES] = {1};
    uint64_t size;
    setenv("S3_TEST_KEY", "AKTEST:wrong", 1);
    assert_int_equal(s3_open(x->url, region(), "env:S3_TEST_KEY", &s3, &why), 0);
    assert_null(getenv("S3_TEST_KEY"));
    assert_int_equal(s3_size(s3, digest, &size, &why), -E_FORBIDDEN);
    buf_clear(&why);
    assert_int_equal(s3_check(s3, &why), -E_FORBIDDEN);
    assert_non_null(strstr(buf_cstr(&why), "HTTP status 403 "));
    s3_close(s3);
    buf_release(&why);
}

static void what_is_no_storage_is_said(void **state)
{
    static const char *const rows[][3] = {
        {"ftp://host/bucket", "us-east-1", "command:echo a:b"},
        {"https://host", "us-east-1", "command:echo a:b"},
        {"https://host/", "us-east-1", "command:echo a:b"},
        {"https://user:pass@host/bucket", "us-east-1", "command:echo a:b"},
        {"https://host/bucket/../x", "us-east-1", "command:echo a:b"},
        {"https://host/bucket?x", "us-east-1", "command:echo a:b"},
        {"https://host/bucket", "us east", "command:echo a:b"},
        {"https://host/bucket", "us-east-1", "command:echo ab"},
        {"https://host/bucket", "us-east-1", "command:exit 3"},
        {"https://host/bucket", "us-east-1", "env:S3_NOT_SET"},
        {"https://host/bucket", "us-east-1", "file:/nowhere/key"},
        {"https://host/bucket", "us-east-1", "a:b"},
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf why = BUF_INIT;
        struct s3 *s3 = NULL;
        assert_true(s3_open(rows[i][0], rows[i][1], rows[i][2], &s3, &why) < 0);
        assert_null(s3);
        assert_true(why.n > 0);
        buf_release(&why);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_blob_is_read_from_s3_when_the_folder_has_none),
        TEST(an_empty_blob_is_a_blob),
        TEST(an_unknown_blob_is_not_found),
        TEST(a_sweep_takes_what_nobody_wants_there_too),
        TEST(a_folder_that_was_there_before_is_brought_to_s3),
        TEST(only_a_blob_that_is_there_leaves_the_folder),
        TEST(a_server_that_stumbles_is_asked_again),
        TEST(what_s3_did_not_keep_is_not_stored),
        TEST(other_bytes_from_s3_are_no_blob),
        TEST(a_wrong_key_stores_nothing),
        cmocka_unit_test(what_is_no_storage_is_said),
    };
    http_global_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
