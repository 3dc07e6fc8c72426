#include "common/base.h"

#include "tests/unit/store/fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/store/env.h"

/* Tries to open, expects r and a line that holds `text`. */
static void assert_refused(const char *dir, const struct store_options *opt, int r,
                           const char *text)
{
    struct store *s = NULL;
    struct buf why = BUF_INIT;

    assert_int_equal(store_open(dir, opt, &s, &why), r);
    assert_null(s);
    if (!strstr(buf_cstr(&why), text)) {
        fail_msg("\"%s\" is not in \"%s\"", text, buf_cstr(&why));
    }
    buf_release(&why);
}

static void every_descriptor_is_close_on_exec(void **state)
{
    struct fixture *f = *state;
    DIR *fds = opendir("/proc/self/fd");
    struct dirent *e;
    int seen = 0;

    assert_non_null(fds);
    while ((e = readdir(fds))) {
        char target[256] = "";
        uint64_t fd;

        if (readlinkat(dirfd(fds), e->d_name, target, sizeof(target) - 1) < 0 ||
            !str_starts(str_from(target), str_from(f->dir))) {
            continue;
        }
        assert_int_equal(str_to_u64(str_from(e->d_name), &fd), 0);
        assert_true(fcntl((int)fd, F_GETFD) & FD_CLOEXEC);
        seen++;
    }
    closedir(fds);
    assert_true(seen >= 3); /* data, lock, folder lock */
}

static void a_second_open_in_this_process_is_refused(void **state)
{
    struct fixture *f = *state;
    struct store_options read_only = {.read_only = true};

    assert_refused(f->dir, NULL, -E_BUSY, "already open in this process");
    assert_refused(f->dir, &read_only, -E_BUSY, "already open in this process");
    fixture_close(f);
    fixture_open(f); /* and allowed again */
}

/* Runs fn(f) in a child; the exit status says whether it was content. */
static void in_child(struct fixture *f, bool (*fn)(struct fixture *f))
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        _exit(fn(f) ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* The child waits for the parent's word before it opens: what fork copied is not a second open. */
static void another_process_may_read_but_not_write(void **state)
{
    struct fixture *f = *state;
    int go[2];
    int status;
    pid_t pid;
    char c = 'g';

    fixture_open(f);
    fixture_close(f);
    assert_int_equal(pipe(go), 0);
    pid = fork();
    if (pid == 0) {
        struct store_options read_only = {.read_only = true};
        struct store *s = NULL;
        struct buf why = BUF_INIT;
        struct tx *tx;
        bool good = read(go[0], &c, 1) == 1 && store_open(f->dir, NULL, &s, &why) == -E_BUSY &&
                    strstr(buf_cstr(&why), "another process") &&
                    store_open(f->dir, &read_only, &s, &why) == 0 && tx_begin(s, false, &tx) == 0 &&
                    tx_count(tx, T_JOB) == 1;

        _exit(good ? 0 : 1);
    }
    fixture_open(f);
    struct tx *tx = begin(f, true);
    put_value(tx, 1, 10, 1);
    commit(tx);
    assert_int_equal(write(go[1], &c, 1), 1);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(go[0]);
    close(go[1]);
}

static void reading_a_store_that_is_not_there_is_refused_and_makes_nothing(void **state)
{
    struct fixture *f = *state;
    struct store_options read_only = {.read_only = true};
    char *none = os_path_join(f->dir, "none");
    char *data = os_path_join(f->dir, "data.mdb");

    assert_refused(none, &read_only, -E_NOT_FOUND, none);
    assert_refused(f->dir, &read_only, -E_NOT_FOUND, f->dir);
    assert_false(os_exists(none));
    assert_false(os_exists(data));
    free(none);
    free(data);
}

static void a_file_that_is_no_store_is_refused(void **state)
{
    struct fixture *f = *state;
    char *data = os_path_join(f->dir, "data.mdb");
    char garbage[8192];

    memset(garbage, 'x', sizeof(garbage));
    assert_int_equal(os_write_file(data, garbage, sizeof(garbage), 0600), 0);
    assert_refused(f->dir, NULL, -E_CORRUPT, f->dir);
    free(data);
}

static void another_schema_version_is_refused(void **state)
{
    struct fixture *f = *state;
    Pb__MetaRecord meta = PB__META_RECORD__INIT;
    struct key k = key_bytes("meta", 4);
    struct tx *tx = begin(f, true);

    meta.schema_version = STORE_SCHEMA_VERSION;
    tx_put_msg(tx, T_META, &k, &meta.base);
    commit(tx);
    fixture_close(f);
    fixture_open(f);
    tx = begin(f, true);
    meta.schema_version = STORE_SCHEMA_VERSION + 1;
    tx_put_msg(tx, T_META, &k, &meta.base);
    commit(tx);
    fixture_close(f);
    assert_refused(f->dir, NULL, -E_VERSION, "it is of a newer davitd");
}

static int say_no(void *ctx, const Pb__MetaRecord *meta, struct buf *why)
{
    assert_non_null(ctx);
    assert_int_equal(meta->schema_version, STORE_SCHEMA_OLDEST);
    buf_addz(why, "not now");
    return -E_CONFLICT;
}

static void an_older_schema_waits_for_who_may_write(void **state)
{
    struct fixture *f = *state;
    const struct store_options read_only = {.read_only = true};
    Pb__MetaRecord meta = PB__META_RECORD__INIT;
    struct key k = key_bytes("meta", 4);
    struct tx *tx = begin(f, true);

    meta.schema_version = STORE_SCHEMA_OLDEST;
    tx_put_msg(tx, T_META, &k, &meta.base);
    commit(tx);
    fixture_close(f);
    assert_refused(f->dir, &read_only, -E_VERSION, "start davitd to bring it to");
    /* Nobody has changed it where somebody said no. */
    const struct store_options guarded = {.may_migrate = say_no, .migrate_ctx = f};
    assert_refused(f->dir, &guarded, -E_CONFLICT, "not now");
    assert_refused(f->dir, &read_only, -E_VERSION, "start davitd to bring it to");
    fixture_open(f);
    tx = begin(f, true);
    meta.schema_version = STORE_SCHEMA_OLDEST - 1;
    tx_put_msg(tx, T_META, &k, &meta.base);
    commit(tx);
    fixture_close(f);
    assert_refused(f->dir, NULL, -E_VERSION, "start a davitd in between first");
}

static void network_filesystems_are_known_by_their_magic(void **state)
{
    assert_true(store_is_remote_fs(0x6969));
    assert_true(store_is_remote_fs(0xff534d42));
    assert_true(store_is_remote_fs(0xffffffffff534d42)); /* sign-extended by statfs */
    assert_true(store_is_remote_fs(0x65735546));
    assert_true(store_is_remote_fs(0x01021997));
    assert_false(store_is_remote_fs(0xef53));     /* ext4 */
    assert_false(store_is_remote_fs(0x58465342)); /* XFS */
    assert_false(store_is_remote_fs(0x9123683e)); /* btrfs */
    assert_false(store_is_remote_fs(0x01021994)); /* tmpfs */
    assert_false(store_is_remote_fs(0x794c7630)); /* overlay */
}

static bool refuses_a_map_above_the_address_space(struct fixture *f)
{
    /* More than the processor can address: the same answer as under ulimit -v, which the sanitizers
     * do not survive. */
    struct store_options opt = {.map_bytes = 1ull << 50};
    struct store *s;
    struct buf why = BUF_INIT;
    int r = store_open(f->dir, &opt, &s, &why);

    return r == -E_LIMIT && strstr(buf_cstr(&why), "ulimit -v");
}

static void a_map_that_does_not_fit_the_address_space_is_explained(void **state)
{
    in_child(*state, refuses_a_map_above_the_address_space);
}

static void the_default_map_opens(void **state)
{
    struct fixture *f = *state;

    f->map_bytes = 0;
    fixture_open(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_descriptor_is_close_on_exec),
        TEST(a_second_open_in_this_process_is_refused),
        TEST_CLOSED(another_process_may_read_but_not_write),
        TEST_CLOSED(reading_a_store_that_is_not_there_is_refused_and_makes_nothing),
        TEST_CLOSED(a_file_that_is_no_store_is_refused),
        TEST(another_schema_version_is_refused),
        TEST(an_older_schema_waits_for_who_may_write),
        TEST(network_filesystems_are_known_by_their_magic),
        TEST_CLOSED(a_map_that_does_not_fit_the_address_space_is_explained),
        TEST_CLOSED(the_default_map_opens),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
