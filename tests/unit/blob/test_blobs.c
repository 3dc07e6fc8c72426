#include "common/base.h"

#include "broker/blob/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/os.h"

#define HOUR_MS (3600u * 1000)

/* Faults of the filesystem, by the linker's --wrap; names as large file support makes them. */
static bool no_tmpfile;
static unsigned tmpfiles_refused;
static int write_errno;
static int fsync_errno;

int __real_openat64(int dir_fd, const char *path, int flags, ...);
int __wrap_openat64(int dir_fd, const char *path, int flags, ...);
int __wrap_openat64(int dir_fd, const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    if (no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
        tmpfiles_refused++;
        errno = EOPNOTSUPP;
        return -1;
    }
    return __real_openat64(dir_fd, path, flags, mode);
}

ssize_t __real_write(int fd, const void *p, size_t n);
ssize_t __wrap_write(int fd, const void *p, size_t n);
ssize_t __wrap_write(int fd, const void *p, size_t n)
{
    if (write_errno != 0) {
        errno = write_errno;
        return -1;
    }
    return __real_write(fd, p, n);
}

/* No test here can see whether the disk has the bytes, and all of them would wait for it. */
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    if (fsync_errno != 0) {
        errno = fsync_errno;
        return -1;
    }
    return fcntl(fd, F_GETFD) < 0 ? -1 : 0;
}

struct fixture {
    char dir[64];
    struct blobs *blobs;
};

static int setup(void **state)
{
    struct fixture *x = xcalloc(1, sizeof(*x));
    snprintf(x->dir, sizeof(x->dir), "/tmp/davit-blobs-XXXXXX");
    assert_non_null(mkdtemp(x->dir));
    no_tmpfile = false;
    write_errno = fsync_errno = 0;
    struct buf why = BUF_INIT;
    assert_int_equal(blobs_open(x->dir, &x->blobs, &why), 0);
    *state = x;
    return 0;
}

static int setup_without_tmpfile(void **state)
{
    setup(state);
    struct fixture *x = *state;
    struct buf why = BUF_INIT;
    blobs_close(x->blobs);
    no_tmpfile = true;
    tmpfiles_refused = 0;
    assert_int_equal(blobs_open(x->dir, &x->blobs, &why), 0);
    assert_int_equal(tmpfiles_refused, 1);
    return 0;
}

static int teardown(void **state)
{
    struct fixture *x = *state;
    write_errno = fsync_errno = 0;
    blobs_close(x->blobs);
    os_remove_tree(x->dir);
    free(x);
    return 0;
}

static int put(struct fixture *x, const char *text, uint8_t ret_digest[SHA256_BYTES])
{
    struct blob_upload *u;
    uint64_t size;
    int r = blob_upload_begin(x->blobs, 1 << 20, &u);
    if (r < 0) {
        return r;
    }
    if ((r = blob_upload_write(u, text, strlen(text))) < 0) {
        blob_upload_abort(u);
        return r;
    }
    r = blob_upload_commit(u, ret_digest, &size);
    if (r == 0) {
        assert_int_equal(size, strlen(text));
    }
    return r;
}

static void assert_holds(struct fixture *x, const uint8_t digest[SHA256_BYTES], const char *text)
{
    int fd;
    uint64_t size;
    char got[64] = {0};
    assert_int_equal(blob_open(x->blobs, digest, &fd, &size), 0);
    assert_int_equal(size, strlen(text));
    assert_int_equal(read(fd, got, sizeof(got)), (ssize_t)size);
    assert_string_equal(got, text);
    close(fd);
}

static void a_blob_is_found_by_the_hash_of_its_bytes(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES], want[SHA256_BYTES];
    assert_int_equal(put(x, "hello", digest), 0);
    crypto_sha256("hello", 5, want);
    assert_memory_equal(digest, want, sizeof(want));
    assert_true(blob_exists(x->blobs, digest));
    assert_holds(x, digest, "hello");
}

static void an_empty_blob_is_a_blob(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    assert_int_equal(put(x, "", digest), 0);
    assert_holds(x, digest, "");
}

static void an_unknown_digest_is_not_found(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES] = {1};
    int fd;
    uint64_t size;
    assert_int_equal(blob_open(x->blobs, digest, &fd, &size), -E_NOT_FOUND);
    assert_false(blob_exists(x->blobs, digest));
}

static void the_same_bytes_are_kept_once(void **state)
{
    struct fixture *x = *state;
    uint8_t first[SHA256_BYTES], second[SHA256_BYTES];
    assert_int_equal(put(x, "same", first), 0);
    assert_int_equal(put(x, "same", second), 0);
    assert_memory_equal(first, second, sizeof(first));
    assert_holds(x, first, "same");
}

static void more_than_allowed_is_refused_and_leaves_nothing(void **state)
{
    struct fixture *x = *state;
    struct blob_upload *u;
    uint8_t digest[SHA256_BYTES];
    uint64_t size;
    assert_int_equal(blob_upload_begin(x->blobs, 4, &u), 0);
    assert_int_equal(blob_upload_write(u, "1234", 4), 0);
    assert_int_equal(blob_upload_write(u, "5", 1), -E_TOO_BIG);
    assert_int_equal(blob_upload_write(u, "", 0), -E_TOO_BIG);
    assert_int_equal(blob_upload_commit(u, digest, &size), -E_TOO_BIG);
    crypto_sha256("1234", 4, digest);
    assert_false(blob_exists(x->blobs, digest));
}

static void a_full_disk_is_said_and_leaves_nothing(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    write_errno = ENOSPC;
    assert_int_equal(put(x, "big", digest), -E_NO_SPACE);
    write_errno = 0;
    fsync_errno = ENOSPC;
    assert_int_equal(put(x, "big", digest), -E_NO_SPACE);
    fsync_errno = EIO;
    assert_int_equal(put(x, "big", digest), -E_IO);
    fsync_errno = 0;
    crypto_sha256("big", 3, digest);
    assert_false(blob_exists(x->blobs, digest));
    assert_int_equal(put(x, "big", digest), 0);
    assert_holds(x, digest, "big");
}

static void an_aborted_upload_leaves_nothing(void **state)
{
    struct fixture *x = *state;
    struct blob_upload *u;
    assert_int_equal(blob_upload_begin(x->blobs, 10, &u), 0);
    assert_int_equal(blob_upload_write(u, "x", 1), 0);
    blob_upload_abort(u);
    blob_upload_abort(NULL);
    char *tmp = os_path_join(x->dir, "tmp");
    assert_int_equal(rmdir(tmp), 0); /* it is empty */
    free(tmp);
}

static void left_over_uploads_are_gone_after_a_restart(void **state)
{
    struct fixture *x = *state;
    char *left = os_path_join(x->dir, "tmp/left");
    struct buf why = BUF_INIT;
    assert_int_equal(os_write_file(left, "x", 1, 0600), 0);
    blobs_close(x->blobs);
    assert_int_equal(blobs_open(x->dir, &x->blobs, &why), 0);
    assert_false(os_exists(left));
    free(left);
}

/* Wants the digest given as ctx, and no other. */
static bool wants(void *ctx, const uint8_t digest[SHA256_BYTES])
{
    return ctx && memcmp(ctx, digest, SHA256_BYTES) == 0;
}

static void a_sweep_takes_what_is_old_and_not_wanted(void **state)
{
    struct fixture *x = *state;
    uint8_t wanted[SHA256_BYTES], unwanted[SHA256_BYTES];
    uint64_t now = os_realtime_ms();
    assert_int_equal(put(x, "wanted", wanted), 0);
    assert_int_equal(put(x, "unwanted", unwanted), 0);
    assert_int_equal(blob_sweep(x->blobs, now, HOUR_MS, wants, wanted), 0);
    assert_true(blob_exists(x->blobs, unwanted));
    assert_int_equal(blob_sweep(x->blobs, now + 2 * HOUR_MS, HOUR_MS, wants, wanted),
                     strlen("unwanted"));
    assert_true(blob_exists(x->blobs, wanted));
    assert_false(blob_exists(x->blobs, unwanted));
}

static void age(struct fixture *x, const uint8_t digest[SHA256_BYTES])
{
    char hex[2 * SHA256_BYTES + 1], path[256];
    str_to_hex(digest, SHA256_BYTES, hex);
    snprintf(path, sizeof(path), "%s/%.2s/%s", x->dir, hex, hex);
    struct timespec times[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
}

static void a_second_upload_and_a_question_make_a_blob_young(void **state)
{
    struct fixture *x = *state;
    uint8_t digest[SHA256_BYTES];
    uint64_t now = os_realtime_ms();
    assert_int_equal(put(x, "old", digest), 0);
    age(x, digest);
    assert_int_equal(put(x, "old", digest), 0);
    assert_int_equal(blob_sweep(x->blobs, now, HOUR_MS, wants, NULL), 0);
    age(x, digest);
    assert_true(blob_exists(x->blobs, digest));
    assert_int_equal(blob_sweep(x->blobs, now, HOUR_MS, wants, NULL), 0);
    age(x, digest);
    assert_int_equal(blob_sweep(x->blobs, now, HOUR_MS, wants, NULL), 3);
}

struct uploader {
    struct fixture *x;
    uint8_t digest[SHA256_BYTES];
    int r;
};

static void *upload_many(void *arg)
{
    struct uploader *u = arg;
    for (int i = 0; i < 20 && u->r == 0; i++) {
        u->r = put(u->x, "shared bytes", u->digest);
    }
    return NULL;
}

static void uploads_of_the_same_bytes_do_not_disturb_each_other(void **state)
{
    struct uploader u[4] = {0};
    pthread_t threads[4];
    for (size_t i = 0; i < ARRAY_LEN(u); i++) {
        u[i].x = *state;
        assert_int_equal(pthread_create(&threads[i], NULL, upload_many, &u[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(u); i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(u[i].r, 0);
    }
    assert_holds(*state, u[0].digest, "shared bytes");
}

static void a_folder_that_cannot_be_made_is_an_error_with_its_name(void **state)
{
    struct blobs *b = NULL;
    struct buf why = BUF_INIT;
    assert_true(blobs_open("/proc/no/such", &b, &why) < 0);
    assert_null(b);
    assert_non_null(strstr(buf_cstr(&why), "/proc/no/such"));
    buf_release(&why);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
#define TEST_NAMED(name)                                                     \
    {                                                                        \
#name " (no O_TMPFILE)", name, setup_without_tmpfile, teardown, NULL \
    }
    const struct CMUnitTest tests[] = {
        TEST(a_blob_is_found_by_the_hash_of_its_bytes),
        TEST(an_empty_blob_is_a_blob),
        TEST(an_unknown_digest_is_not_found),
        TEST(the_same_bytes_are_kept_once),
        TEST(more_than_allowed_is_refused_and_leaves_nothing),
        TEST(a_full_disk_is_said_and_leaves_nothing),
        TEST(an_aborted_upload_leaves_nothing),
        TEST(left_over_uploads_are_gone_after_a_restart),
        TEST(a_sweep_takes_what_is_old_and_not_wanted),
        TEST(a_second_upload_and_a_question_make_a_blob_young),
        TEST(uploads_of_the_same_bytes_do_not_disturb_each_other),
        TEST(a_folder_that_cannot_be_made_is_an_error_with_its_name),
        TEST_NAMED(a_blob_is_found_by_the_hash_of_its_bytes),
        TEST_NAMED(the_same_bytes_are_kept_once),
        TEST_NAMED(more_than_allowed_is_refused_and_leaves_nothing),
        TEST_NAMED(a_full_disk_is_said_and_leaves_nothing),
        TEST_NAMED(an_aborted_upload_leaves_nothing),
        TEST_NAMED(uploads_of_the_same_bytes_do_not_disturb_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
