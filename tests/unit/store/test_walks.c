#include "common/base.h"

#include "tests/unit/store/fixture.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* Rows (1, 0..n-1), (2, 0..n-1), (3, 0..n-1) in T_ATTEMPT; every third value is in pieces. */
enum { GROUPS = 3, PER_GROUP = 10 };

static size_t size_of(uint64_t i)
{
    return i % 3 == 0 ? 10000 + i : i;
}

static void fill(struct fixture *f)
{
    struct tx *tx = begin(f, true);

    for (uint64_t g = 1; g <= GROUPS; g++) {
        for (uint64_t i = 0; i < PER_GROUP; i++) {
            struct key k = key_u64_u64(g, i);

            tx_put(tx, T_ATTEMPT, &k, make_value(tx_arena(tx), size_of(i), (uint32_t)g));
        }
    }
    commit(tx);
}

static void assert_at(const struct cursor *c, uint64_t group, uint64_t i)
{
    assert_true(c->valid);
    assert_int_equal(c->key.n, 16);
    assert_int_equal(key_read_u64(c->key, 0), group);
    assert_int_equal(key_read_u64(c->key, 8), i);
    assert_true(str_eq(c->value, make_value(tx_arena(c->tx), size_of(i), (uint32_t)group)));
}

static void a_walk_meets_each_row_of_the_prefix_once_and_in_order(void **state)
{
    struct key prefix = key_u64(2);
    struct cursor c;
    struct tx *tx;
    uint64_t i = 0;

    fill(*state);
    tx = begin(*state, false);
    for (tx_seek(&c, tx, T_ATTEMPT, key_str(&prefix), NULL); c.valid; tx_next(&c)) {
        assert_at(&c, 2, i++);
    }
    assert_int_equal(i, PER_GROUP);
    assert_null(c.impl);
    tx_next(&c); /* past the end nothing happens */
    assert_false(c.valid);

    i = 0;
    for (tx_seek(&c, tx, T_ATTEMPT, STR_NULL, NULL); c.valid; tx_next(&c)) {
        assert_at(&c, 1 + i / PER_GROUP, i % PER_GROUP);
        i++;
    }
    assert_int_equal(i, GROUPS * PER_GROUP);
    tx_abort(tx);
}

static void a_walk_backwards_is_the_walk_forwards_reversed(void **state)
{
    struct key prefix = key_u64(2);
    struct cursor c;
    struct tx *tx;
    uint64_t i = PER_GROUP;

    fill(*state);
    tx = begin(*state, false);
    for (tx_seek_last(&c, tx, T_ATTEMPT, key_str(&prefix)); c.valid; tx_prev(&c)) {
        assert_at(&c, 2, --i);
    }
    assert_int_equal(i, 0);
    tx_seek_last(&c, tx, T_ATTEMPT, STR_NULL);
    assert_at(&c, 3, PER_GROUP - 1);
    tx_prev(&c);
    assert_at(&c, 3, PER_GROUP - 2);
    tx_next(&c);
    assert_at(&c, 3, PER_GROUP - 1);
    cursor_end(&c);
    tx_abort(tx);
}

static void a_walk_starts_where_it_is_told(void **state)
{
    struct key prefix = key_u64(2);
    struct key from = key_u64_u64(2, 4);
    struct key before = key_u64_u64(1, 4);
    struct key after = key_u64_u64(2, PER_GROUP);
    struct cursor c;
    struct tx *tx;

    fill(*state);
    tx = begin(*state, false);
    tx_seek(&c, tx, T_ATTEMPT, key_str(&prefix), &from);
    assert_at(&c, 2, 4);
    cursor_end(&c);
    tx_seek(&c, tx, T_ATTEMPT, key_str(&prefix), &before);
    assert_at(&c, 2, 0);
    cursor_end(&c);
    tx_seek(&c, tx, T_ATTEMPT, key_str(&prefix), &after);
    assert_false(c.valid);
    tx_abort(tx);
}

static void a_walk_over_nothing_is_over_at_once(void **state)
{
    struct key prefix = key_u64(9);
    struct cursor c;
    struct tx *tx = begin(*state, false);

    tx_seek(&c, tx, T_ATTEMPT, STR_NULL, NULL);
    assert_false(c.valid);
    tx_seek_last(&c, tx, T_ATTEMPT, STR_NULL);
    assert_false(c.valid);
    tx_abort(tx);
    fill(*state);
    tx = begin(*state, false);
    tx_seek(&c, tx, T_ATTEMPT, key_str(&prefix), NULL);
    assert_false(c.valid);
    tx_seek_last(&c, tx, T_ATTEMPT, key_str(&prefix));
    assert_false(c.valid);
    tx_abort(tx);
}

static void the_last_row_of_a_prefix_of_ones_is_found(void **state)
{
    struct key a = key_u64_u64(UINT64_MAX, 1);
    struct key b = key_u64_u64(UINT64_MAX, UINT64_MAX);
    struct key prefix = key_u64(UINT64_MAX);
    struct key low = key_u64(UINT64_MAX - 1);
    struct cursor c;
    struct tx *tx = begin(*state, true);

    tx_put(tx, T_ATTEMPT, &a, STR("a"));
    tx_put(tx, T_ATTEMPT, &b, STR("b"));
    tx_seek_last(&c, tx, T_ATTEMPT, key_str(&prefix));
    assert_true(c.valid && str_eq(c.value, STR("b")));
    tx_prev(&c);
    assert_true(c.valid && str_eq(c.value, STR("a")));
    tx_prev(&c);
    assert_false(c.valid);
    tx_seek_last(&c, tx, T_ATTEMPT, key_str(&low));
    assert_false(c.valid);
    tx_abort(tx);
}

static void a_walk_left_early_ends_with_its_transaction(void **state)
{
    struct cursor c;
    struct tx *tx;

    fill(*state);
    for (int write = 0; write < 2; write++) {
        tx = begin(*state, write == 1);
        tx_seek(&c, tx, T_ATTEMPT, STR_NULL, NULL);
        assert_true(c.valid);
        tx_abort(tx);
        tx = begin(*state, true);
        tx_seek(&c, tx, T_ATTEMPT, STR_NULL, NULL);
        commit(tx);
    }
}

static void a_step_after_a_write_to_the_table_is_our_mistake(void **state)
{
    struct key k = key_u64_u64(1, 1);
    struct cursor c;
    struct tx *tx;
    int status;
    pid_t pid;

    fill(*state);
    tx = begin(*state, true);
    tx_seek(&c, tx, T_ATTEMPT, STR_NULL, NULL);
    put_value(tx, 1, 1, 1); /* of another table: fine */
    tx_next(&c);
    assert_at(&c, 1, 1);
    tx_del(tx, T_ATTEMPT, &k);
    pid = fork();
    if (pid == 0) {
        close(STDERR_FILENO); /* where the failed check would be told */
        signal(SIGABRT, SIG_DFL);
        tx_next(&c);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    tx_abort(tx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_walk_meets_each_row_of_the_prefix_once_and_in_order),
        TEST(a_walk_backwards_is_the_walk_forwards_reversed),
        TEST(a_walk_starts_where_it_is_told),
        TEST(a_walk_over_nothing_is_over_at_once),
        TEST(the_last_row_of_a_prefix_of_ones_is_found),
        TEST(a_walk_left_early_ends_with_its_transaction),
        TEST(a_step_after_a_write_to_the_table_is_our_mistake),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
