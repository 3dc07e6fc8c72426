/* Uploads of several requests, and what is left of them after a restart. */
#include "common/base.h"

#include "broker/blob/blob.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/limits.h"
#include "common/os.h"

#define HOUR_MS (3600u * 1000)
#define OWNER   7u

struct fixture {
    char dir[64];
    struct blobs *blobs;
    uint8_t id[SHA256_BYTES];
    uint8_t digest[SHA256_BYTES];
    uint64_t size;
};

static void restart(struct fixture *x)
{
    struct buf why = BUF_INIT;
    blobs_close(x->blobs);
    assert_int_equal(blobs_open(x->dir, &x->blobs, &why), 0);
}

static int setup(void **state)
{
    struct fixture *x = xcalloc(1, sizeof(*x));
    struct buf why = BUF_INIT;
    snprintf(x->dir, sizeof(x->dir), "/tmp/davit-partial-XXXXXX");
    assert_non_null(mkdtemp(x->dir));
    assert_int_equal(blobs_open(x->dir, &x->blobs, &why), 0);
    *state = x;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *x = *state;
    blobs_close(x->blobs);
    os_remove_tree(x->dir);
    free(x);
    return 0;
}

static struct blob_upload *resume(struct fixture *x, uint64_t offset)
{
    struct blob_upload *u = NULL;
    assert_int_equal(blob_partial_resume(x->blobs, x->id, OWNER, offset, &u), 0);
    return u;
}

static void begin(struct fixture *x, uint64_t size)
{
    assert_int_equal(blob_partial_begin(x->blobs, OWNER, size, x->id), 0);
}

static void add(struct fixture *x, uint64_t offset, const char *text)
{
    struct blob_upload *u = resume(x, offset);
    assert_int_equal(blob_upload_write(u, text, strlen(text)), 0);
    blob_upload_abort(u);
}

static uint64_t offset_of(struct fixture *x)
{
    struct blob_partial p;
    assert_int_equal(blob_partial_look(x->blobs, x->id, OWNER, &p), 0);
    assert_false(p.done);
    return p.offset;
}

static void finish(struct fixture *x, uint64_t offset, const char *rest)
{
    struct blob_upload *u = resume(x, offset);
    assert_int_equal(blob_upload_write(u, rest, strlen(rest)), 0);
    assert_true(blob_upload_is_whole(u));
    assert_int_equal(blob_upload_commit(u, x->digest, &x->size), 0);
}

static void assert_is(struct fixture *x, const char *text)
{
    uint8_t digest[SHA256_BYTES];
    crypto_sha256(text, strlen(text), digest);
    assert_memory_equal(x->digest, digest, sizeof(digest));
    assert_int_equal(x->size, strlen(text));
    assert_true(blob_exists(x->blobs, digest));
}

static void count(void *ctx, const char *name)
{
    (void)name;
    ++*(unsigned *)ctx;
}

static unsigned files_left(struct fixture *x)
{
    unsigned n = 0;
    char *dir = os_path_join(x->dir, "unfinished");
    assert_int_equal(os_list_dir(dir, count, &n), 0);
    free(dir);
    return n;
}

static void an_upload_goes_on_where_it_broke(void **state)
{
    struct fixture *x = *state;
    begin(x, 10);
    add(x, 0, "0123");
    assert_int_equal(offset_of(x), 4);
    finish(x, 4, "456789");
    assert_is(x, "0123456789");
    assert_int_equal(files_left(x), 0);
}

static void an_upload_goes_on_after_a_restart(void **state)
{
    struct fixture *x = *state;
    begin(x, 10);
    add(x, 0, "0123");
    restart(x);
    assert_int_equal(offset_of(x), 4);
    add(x, 4, "45");
    restart(x);
    finish(x, 6, "6789");
    assert_is(x, "0123456789");
    assert_int_equal(files_left(x), 0);
}

static void whoever_missed_the_answer_is_told_the_digest(void **state)
{
    struct fixture *x = *state;
    struct blob_partial p;
    struct blob_upload *u;
    begin(x, 3);
    finish(x, 0, "abc");
    assert_int_equal(blob_partial_look(x->blobs, x->id, OWNER, &p), 0);
    assert_true(p.done);
    assert_memory_equal(p.digest, x->digest, SHA256_BYTES);
    assert_int_equal(blob_partial_resume(x->blobs, x->id, OWNER, 3, &u), -E_CONFLICT);
    restart(x); /* which forgets it: it is sent again */
    assert_int_equal(blob_partial_look(x->blobs, x->id, OWNER, &p), -E_NOT_FOUND);
    assert_is(x, "abc");
}

static void another_offset_is_refused_and_changes_nothing(void **state)
{
    struct fixture *x = *state;
    struct blob_upload *u;
    begin(x, 10);
    add(x, 0, "0123");
    assert_int_equal(blob_partial_resume(x->blobs, x->id, OWNER, 3, &u), -E_CONFLICT);
    assert_int_equal(blob_partial_resume(x->blobs, x->id, OWNER, 5, &u), -E_CONFLICT);
    finish(x, 4, "456789");
    assert_is(x, "0123456789");
}

static void no_more_than_was_announced_is_taken(void **state)
{
    struct fixture *x = *state;
    begin(x, 3);
    struct blob_upload *u = resume(x, 0);
    assert_int_equal(blob_upload_write(u, "abcd", 4), -E_TOO_BIG);
    assert_int_equal(blob_upload_write(u, "a", 1), -E_TOO_BIG); /* sticky */
    blob_upload_abort(u);
    assert_int_equal(offset_of(x), 0);
    assert_int_equal(blob_partial_begin(x->blobs, OWNER, LIMIT_BLOB_BYTES + 1, x->id), -E_TOO_BIG);
}

static void half_an_upload_is_no_blob(void **state)
{
    struct fixture *x = *state;
    begin(x, 4);
    struct blob_upload *u = resume(x, 0);
    assert_int_equal(blob_upload_write(u, "ab", 2), 0);
    assert_false(blob_upload_is_whole(u));
    assert_int_equal(blob_upload_commit(u, x->digest, &x->size), -E_CONFLICT);
    finish(x, 2, "cd");
    assert_is(x, "abcd");
}

/* The connection of the first is dead, which nobody has noticed yet. */
static void the_newest_writer_is_the_only_one(void **state)
{
    struct fixture *x = *state;
    begin(x, 6);
    struct blob_upload *old = resume(x, 0);
    assert_int_equal(blob_upload_write(old, "abc", 3), 0);
    struct blob_upload *now = resume(x, 3);
    assert_int_equal(blob_upload_write(old, "YYY", 3), -E_CONFLICT);
    assert_false(blob_upload_is_whole(old));
    assert_int_equal(blob_upload_write(now, "def", 3), 0);
    assert_int_equal(blob_upload_commit(old, x->digest, &x->size), -E_CONFLICT);
    assert_int_equal(blob_upload_commit(now, x->digest, &x->size), 0);
    assert_is(x, "abcdef");
}

static void a_look_takes_the_upload_from_its_writer(void **state)
{
    struct fixture *x = *state;
    begin(x, 6);
    struct blob_upload *old = resume(x, 0);
    assert_int_equal(blob_upload_write(old, "abc", 3), 0);
    assert_int_equal(offset_of(x), 3);
    assert_int_equal(blob_upload_write(old, "YYY", 3), -E_CONFLICT);
    blob_upload_abort(old);
    finish(x, 3, "def");
    assert_is(x, "abcdef");
}

static void uploads_of_others_are_not_found(void **state)
{
    struct fixture *x = *state;
    struct blob_partial p;
    struct blob_upload *u;
    uint64_t freed;
    begin(x, 6);
    assert_int_equal(blob_partial_look(x->blobs, x->id, OWNER + 1, &p), -E_NOT_FOUND);
    assert_int_equal(blob_partial_resume(x->blobs, x->id, OWNER + 1, 0, &u), -E_NOT_FOUND);
    assert_int_equal(blob_partial_remove(x->blobs, x->id, OWNER + 1, &freed), -E_NOT_FOUND);
    restart(x);
    assert_int_equal(blob_partial_look(x->blobs, x->id, OWNER + 1, &p), -E_NOT_FOUND);
    assert_int_equal(offset_of(x), 0);
}

static void a_removed_upload_is_gone_even_for_its_writer(void **state)
{
    struct fixture *x = *state;
    struct blob_partial p;
    uint64_t freed = 0;
    begin(x, 6);
    struct blob_upload *u = resume(x, 0);
    assert_int_equal(blob_upload_write(u, "abc", 3), 0);
    assert_int_equal(blob_partial_remove(x->blobs, x->id, OWNER, &freed), 0);
    assert_int_equal(freed, 3);
    assert_int_equal(blob_upload_write(u, "def", 3), -E_CONFLICT);
    assert_int_equal(blob_upload_commit(u, x->digest, &x->size), -E_CONFLICT);
    assert_int_equal(blob_partial_look(x->blobs, x->id, OWNER, &p), -E_NOT_FOUND);
    assert_int_equal(files_left(x), 0);
}

static void a_token_has_no_more_than_its_number(void **state)
{
    struct fixture *x = *state;
    uint8_t id[SHA256_BYTES];
    for (unsigned i = 0; i < LIMIT_OWNER_UNFINISHED; i++) {
        begin(x, 1);
    }
    assert_int_equal(blob_partial_begin(x->blobs, OWNER, 1, id), -E_LIMIT);
    assert_int_equal(blob_partial_begin(x->blobs, OWNER + 1, 1, id), 0);
    finish(x, 0, "a"); /* what is done does not count */
    assert_int_equal(blob_partial_begin(x->blobs, OWNER, 1, id), 0);
}

static void all_together_have_no_more_than_their_bytes(void **state)
{
    struct fixture *x = *state;
    uint8_t id[SHA256_BYTES];
    uint64_t owner = 0;
    for (uint64_t bytes = 0; bytes < LIMIT_UNFINISHED_BYTES; bytes += LIMIT_BLOB_BYTES) {
        assert_int_equal(blob_partial_begin(x->blobs, ++owner, LIMIT_BLOB_BYTES, id), 0);
    }
    assert_int_equal(blob_partial_begin(x->blobs, ++owner, 1, id), -E_BUSY);
    assert_int_equal(blob_partial_sweep(x->blobs, os_realtime_ms() + 2 * HOUR_MS, HOUR_MS), 0);
    assert_int_equal(blob_partial_begin(x->blobs, owner, 1, id), 0);
}

static void a_sweep_takes_what_nobody_writes_to(void **state)
{
    struct fixture *x = *state;
    struct blob_partial p;
    uint64_t now = os_realtime_ms();
    begin(x, 6);
    add(x, 0, "abc");
    assert_int_equal(blob_partial_sweep(x->blobs, now, HOUR_MS), 0);
    struct blob_upload *u = resume(x, 3);
    assert_int_equal(blob_partial_sweep(x->blobs, now + 2 * HOUR_MS, HOUR_MS), 0);
    blob_upload_abort(u);
    assert_int_equal(blob_partial_sweep(x->blobs, now + 2 * HOUR_MS, HOUR_MS), 3);
    assert_int_equal(blob_partial_look(x->blobs, x->id, OWNER, &p), -E_NOT_FOUND);
    assert_int_equal(files_left(x), 0);
}

static void what_is_no_upload_does_not_survive_a_start(void **state)
{
    static const char *const names[] = {"x", "abc.def.1", "README"};
    struct fixture *x = *state;
    begin(x, 6);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char path[128];
        snprintf(path, sizeof(path), "%s/unfinished/%s", x->dir, names[i]);
        assert_int_equal(os_write_file(path, "x", 1, 0600), 0);
    }
    restart(x);
    assert_int_equal(files_left(x), 1);
    assert_int_equal(offset_of(x), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(an_upload_goes_on_where_it_broke),
        TEST(an_upload_goes_on_after_a_restart),
        TEST(whoever_missed_the_answer_is_told_the_digest),
        TEST(another_offset_is_refused_and_changes_nothing),
        TEST(no_more_than_was_announced_is_taken),
        TEST(half_an_upload_is_no_blob),
        TEST(the_newest_writer_is_the_only_one),
        TEST(a_look_takes_the_upload_from_its_writer),
        TEST(uploads_of_others_are_not_found),
        TEST(a_removed_upload_is_gone_even_for_its_writer),
        TEST(a_token_has_no_more_than_its_number),
        TEST(all_together_have_no_more_than_their_bytes),
        TEST(a_sweep_takes_what_nobody_writes_to),
        TEST(what_is_no_upload_does_not_survive_a_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
