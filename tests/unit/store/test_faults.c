#include "common/base.h"

#include "tests/unit/store/fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "broker/store/env.h"

static void a_full_map_fails_the_batch_and_nothing_else(void **state)
{
    struct fixture *f = *state;
    struct key k = key_u64(0);
    struct store_stat stat;
    uint8_t before[32];
    uint8_t after[32];
    struct tx *tx;
    uint64_t changes;

    f->map_bytes = MIB;
    fixture_open(f);
    tx = begin(f, true);
    put_value(tx, 0, 300000, 1);
    commit(tx);
    assert_int_equal(store_hash(f->s, before), 0);

    tx = begin(f, true);
    for (uint64_t i = 1; i < 200 && tx_ok(tx); i++) {
        put_value(tx, i, 10000, 1);
    }
    assert_int_equal(tx_error(tx), -E_FULL);
    changes = tx_changes(tx);
    tx_del(tx, T_JOB, &k);
    assert_int_equal(tx_changes(tx), changes);
    assert_false(tx_has(tx, T_JOB, &k));
    assert_int_equal(tx_commit(tx), -E_FULL);

    assert_int_equal(store_hash(f->s, after), 0);
    assert_memory_equal(before, after, sizeof(before));
    assert_sound(f);
    tx = begin(f, true);
    put_value(tx, 1, 100, 1);
    tx_del(tx, T_JOB, &k);
    commit(tx);
    assert_sound(f);
    store_stat(f->s, &stat);
    assert_false(stat.full);
}

static void alarm_and_full_follow_what_is_in_use_not_the_file(void **state)
{
    struct fixture *f = *state;
    struct store_stat stat;
    struct tx *tx;
    uint64_t i = 0;
    bool alarmed = false;

    f->map_bytes = 4 * MIB;
    fixture_open(f);
    for (store_stat(f->s, &stat); !stat.full; store_stat(f->s, &stat)) {
        alarmed = alarmed || stat.alarm;
        tx = begin(f, true);
        put_value(tx, i++, 9000, 1);
        commit(tx);
    }
    assert_true(alarmed);
    assert_true(stat.alarm);
    /* What is left above "full" is the room that deleting needs: LMDB copies before it frees. */
    while (i > 0) {
        struct key k = key_u64(--i);

        tx = begin(f, true);
        tx_del(tx, T_JOB, &k);
        commit(tx);
    }
    store_stat(f->s, &stat);
    assert_false(stat.alarm);
    assert_false(stat.full);
    assert_true(stat.used_bytes > 4 * MIB / 10 * 7); /* the file has not shrunk */
}

/* The kernel refuses to let the file grow: stands for a full disk. */
static void a_disk_that_refuses_a_write_changes_nothing(void **state)
{
    struct fixture *f = *state;
    int status;
    pid_t pid;
    struct tx *tx;

    fixture_open(f);
    tx = begin(f, true);
    put_value(tx, 1, 100000, 1);
    commit(tx);
    fixture_close(f);
    pid = fork();
    if (pid == 0) {
        struct rlimit limit = {.rlim_cur = MIB, .rlim_max = MIB};
        int r;

        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        fixture_open(f);
        tx = begin(f, true);
        put_value(tx, 2, 3 * MIB, 2);
        r = tx_commit(tx);
        _exit(r == -E_NO_SPACE || r == -E_IO ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    fixture_open(f);
    assert_sound(f);
    tx = begin(f, true);
    assert_int_equal(tx_count(tx, T_JOB), 1);
    assert_value(tx, 1, 100000, 1);
    put_value(tx, 2, 3 * MIB, 2);
    commit(tx);
    assert_sound(f);
}

/* Commits rows 1, 2, 3 ... and reports each through the pipe, until it is killed. */
NORETURN static void write_for_ever(struct fixture *f, int out)
{
    fixture_open(f);
    for (uint64_t i = 1;; i++) {
        struct tx *tx = begin(f, true);

        put_value(tx, i, (size_t)(i % 7) * 3000, (uint32_t)i);
        put_value(tx, 0, (size_t)(i % 5) * 2500, (uint32_t)i);
        commit(tx);
        if (write(out, &i, sizeof(i)) != sizeof(i)) {
            _exit(1);
        }
    }
}

static void a_writer_killed_at_any_moment_loses_nothing_committed(void **state)
{
    struct fixture *f = *state;

    for (unsigned round = 0; round < 20; round++) {
        uint64_t i;
        uint64_t last = 0;
        int pipe_fds[2];
        struct tx *tx;
        pid_t pid;

        assert_int_equal(pipe(pipe_fds), 0);
        pid = fork();
        if (pid == 0) {
            write_for_ever(f, pipe_fds[1]);
        }
        close(pipe_fds[1]);
        assert_int_equal(read(pipe_fds[0], &last, sizeof(last)), sizeof(last));
        os_sleep_ms(round % 10);
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        while (read(pipe_fds[0], &i, sizeof(i)) == sizeof(i)) {
            last = i;
        }
        close(pipe_fds[0]);

        fixture_open(f);
        assert_sound(f);
        tx = begin(f, true);
        for (i = 1; i <= last; i++) {
            assert_value(tx, i, (size_t)(i % 7) * 3000, (uint32_t)i);
        }
        commit(tx);
        fixture_close(f);
    }
}

static void a_writer_killed_inside_a_transaction_leaves_no_lock(void **state)
{
    struct fixture *f = *state;
    int pipe_fds[2];
    char c;
    struct tx *tx;
    pid_t pid;

    assert_int_equal(pipe(pipe_fds), 0);
    pid = fork();
    if (pid == 0) {
        fixture_open(f);
        tx = begin(f, true);
        put_value(tx, 1, 100000, 1);
        if (write(pipe_fds[1], "x", 1) == 1) {
            pause();
        }
        _exit(1);
    }
    assert_int_equal(read(pipe_fds[0], &c, 1), 1);
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    fixture_open(f);
    tx = begin(f, true);
    assert_int_equal(tx_count(tx, T_JOB), 0);
    put_value(tx, 1, 10, 1);
    commit(tx);
    assert_sound(f);
}

static void a_dead_reader_is_cleared(void **state)
{
    struct fixture *f = *state;
    int pipe_fds[2];
    char c;
    struct store_stat stat;
    pid_t pid;

    fixture_open(f);
    fixture_close(f);
    assert_int_equal(pipe(pipe_fds), 0);
    pid = fork();
    if (pid == 0) {
        struct store_options opt = {.read_only = true, .map_bytes = f->map_bytes};
        struct buf why = BUF_INIT;

        if (store_open(f->dir, &opt, &f->s, &why) == 0 && begin(f, false) &&
            write(pipe_fds[1], "x", 1) == 1) {
            pause();
        }
        _exit(1);
    }
    assert_int_equal(read(pipe_fds[0], &c, 1), 1);
    fixture_open(f);
    for (uint64_t i = 0; i < 3; i++) {
        struct tx *tx = begin(f, true);

        put_value(tx, i, 10, 1);
        commit(tx);
    }
    assert_int_equal(store_check_readers(f->s), 0); /* a living one stays */
    store_stat(f->s, &stat);
    assert_int_equal(stat.readers, 1);
    assert_int_equal(stat.oldest_reader_lag, 3);

    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    store_stat(f->s, &stat);
    assert_int_equal(stat.readers, 1);
    assert_int_equal(store_check_readers(f->s), 0);
    store_stat(f->s, &stat);
    assert_int_equal(stat.readers, 0);
    assert_int_equal(stat.oldest_reader_lag, 0);
}

/* Damages the pieces of the only large value below tx.h. */
static void damage(struct fixture *f, bool add)
{
    struct key k = key_u64(1);
    MDB_val key;
    MDB_val data = {.mv_size = 4, .mv_data = (void *)"lost"};
    struct tx *tx = begin(f, true);

    key_add_u32(&k, add ? 99 : 1);
    key = (MDB_val){.mv_size = k.n, .mv_data = k.p};
    if (add) {
        assert_int_equal(mdb_put(tx->txn, f->s->chunks, &key, &data, 0), 0);
    } else {
        assert_int_equal(mdb_del(tx->txn, f->s->chunks, &key, NULL), 0);
    }
    commit(tx);
}

static void assert_unsound(struct fixture *f, const char *text)
{
    struct buf why = BUF_INIT;

    assert_int_equal(store_check(f->s, &why), -E_CORRUPT);
    assert_non_null(strstr(buf_cstr(&why), text));
    buf_release(&why);
}

static void a_lost_piece_is_found_by_readers_and_by_the_check(void **state)
{
    struct fixture *f = *state;
    struct key k = key_u64(5);
    struct cursor c;
    struct str v;
    struct tx *tx = begin(f, true);

    put_value(tx, 5, 20000, 1);
    commit(tx);
    assert_sound(f);
    damage(f, false);
    assert_unsound(f, "damaged");
    tx = begin(f, false);
    assert_false(tx_get(tx, T_JOB, &k, &v));
    assert_int_equal(tx_error(tx), -E_CORRUPT);
    tx_abort(tx);
    tx = begin(f, false);
    tx_seek(&c, tx, T_JOB, STR_NULL, NULL);
    assert_false(c.valid);
    assert_int_equal(tx_error(tx), -E_CORRUPT);
    tx_abort(tx);
}

static void a_piece_that_nobody_owns_is_found(void **state)
{
    struct fixture *f = *state;
    struct tx *tx = begin(f, true);

    put_value(tx, 5, 20000, 1);
    commit(tx);
    damage(f, true);
    assert_unsound(f, "6 pieces, but rows own 5");
}

static void a_value_that_two_rows_own_is_found(void **state)
{
    struct fixture *f = *state;
    struct key from = key_u64(5);
    struct key to = key_u64(6);
    MDB_val key = {.mv_size = from.n, .mv_data = from.p};
    MDB_val data;
    uint8_t head[64];
    struct tx *tx = begin(f, true);

    put_value(tx, 5, 20000, 1);
    put_value(tx, 7, 20000, 1);
    /* Row 6 gets the head of row 5, and row 7 loses its own: the sum of pieces stays right. */
    assert_int_equal(mdb_get(tx->txn, f->s->tables[T_JOB], &key, &data), 0);
    assert_true(data.mv_size <= sizeof(head));
    memcpy(head, data.mv_data, data.mv_size);
    data.mv_data = head;
    key.mv_data = to.p;
    assert_int_equal(mdb_put(tx->txn, f->s->tables[T_JOB], &key, &data, 0), 0);
    to = key_u64(7);
    key.mv_data = to.p;
    assert_int_equal(mdb_del(tx->txn, f->s->tables[T_JOB], &key, NULL), 0);
    commit(tx);
    assert_unsound(f, "two rows own value 1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_CLOSED(a_full_map_fails_the_batch_and_nothing_else),
        TEST_CLOSED(alarm_and_full_follow_what_is_in_use_not_the_file),
        TEST_CLOSED(a_disk_that_refuses_a_write_changes_nothing),
        TEST_CLOSED(a_writer_killed_at_any_moment_loses_nothing_committed),
        TEST_CLOSED(a_writer_killed_inside_a_transaction_leaves_no_lock),
        TEST_CLOSED(a_dead_reader_is_cleared),
        TEST(a_lost_piece_is_found_by_readers_and_by_the_check),
        TEST(a_piece_that_nobody_owns_is_found),
        TEST(a_value_that_two_rows_own_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
