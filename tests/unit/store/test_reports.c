#include "common/base.h"

#include "tests/unit/store/fixture.h"

#include <pthread.h>
#include <stdatomic.h>

static void equal_contents_hash_equal_whatever_their_history(void **state)
{
    struct fixture *f = *state;
    struct key k = key_u64(9);
    uint8_t a[32];
    uint8_t b[32];
    struct tx *tx = begin(f, true);

    put_value(tx, 1, 10000, 1);
    put_value(tx, 2, 20, 2);
    commit(tx);
    assert_int_equal(store_hash(f->s, a), 0);

    tx = begin(f, true);
    put_value(tx, 9, 50000, 3);
    put_value(tx, 2, 40000, 3);
    put_value(tx, 1, 5, 3);
    commit(tx);
    assert_int_equal(store_hash(f->s, b), 0);
    assert_memory_not_equal(a, b, sizeof(a));

    tx = begin(f, true);
    tx_del(tx, T_JOB, &k);
    put_value(tx, 2, 20, 2);
    put_value(tx, 1, 10000, 1);
    commit(tx);
    assert_int_equal(store_hash(f->s, b), 0);
    assert_memory_equal(a, b, sizeof(a));
}

/* Writes the same number into rows of two tables, in one transaction each time. */
struct writer {
    struct fixture *f;
    atomic_bool stop;
    atomic_bool started; /* one round is on the disk */
    uint64_t rounds;
};

static void *write_pairs(void *ctx)
{
    struct writer *w = ctx;

    while (!atomic_load(&w->stop)) {
        struct key k = key_u64(1);
        struct key n = key_u64(++w->rounds);
        struct tx *tx;

        check(tx_begin(w->f->s, true, &tx) == 0);
        tx_put(tx, T_JOB, &k, key_str(&n));
        tx_put(tx, T_STAGE, &k, key_str(&n));
        tx_put(tx, T_PLAN, &n, make_value(tx_arena(tx), 9000, 1));
        check(tx_commit(tx) == 0);
        atomic_store(&w->started, true);
    }
    return NULL;
}

static void assert_pair(struct tx *tx)
{
    struct key k = key_u64(1);
    struct str a;
    struct str b;

    if (tx_get(tx, T_JOB, &k, &a)) {
        check(tx_get(tx, T_STAGE, &k, &b) && str_eq(a, b));
        check(tx_count(tx, T_PLAN) == key_read_u64(a, 0));
    }
}

static void a_backup_during_writes_is_one_moment(void **state)
{
    struct fixture *f = *state;
    struct writer w = {.f = f};
    struct fixture copy = {.map_bytes = f->map_bytes};
    struct buf why = BUF_INIT;
    struct tx *tx;
    pthread_t thread;

    snprintf(copy.dir, sizeof(copy.dir), "%.50s/copy", f->dir);
    assert_int_equal(pthread_create(&thread, NULL, write_pairs, &w), 0);
    while (!atomic_load(&w.started)) {
        os_sleep_ms(1);
    }
    assert_int_equal(store_backup(f->s, copy.dir, &why), 0);
    assert_int_equal(store_backup(f->s, copy.dir, &why), -E_EXISTS);
    atomic_store(&w.stop, true);
    pthread_join(thread, NULL);

    fixture_open(&copy);
    assert_sound(&copy);
    tx = begin(&copy, true);
    assert_pair(tx);
    assert_true(tx_count(tx, T_PLAN) > 0);
    put_value(tx, 5, 10000, 5); /* a full store, not only a readable one */
    commit(tx);
    assert_sound(&copy);
    fixture_close(&copy);
    buf_release(&why);
}

static void a_backup_that_was_cut_off_is_no_hindrance(void **state)
{
    struct fixture *f = *state;
    struct buf why = BUF_INIT;
    char dir[128];
    char tmp[160];

    snprintf(dir, sizeof(dir), "%s/copy", f->dir);
    snprintf(tmp, sizeof(tmp), "%s/data.mdb.tmp", dir);
    assert_int_equal(os_mkdir_p(dir, 0700), 0);
    assert_int_equal(os_write_file(tmp, "half", 4, 0600), 0);
    assert_int_equal(store_backup(f->s, dir, &why), 0);
    assert_false(os_exists(tmp));
    buf_release(&why);
}

static void *read_pairs(void *ctx)
{
    struct writer *w = ctx;

    for (int i = 0; i < 300; i++) {
        struct tx *tx;

        check(tx_begin(w->f->s, false, &tx) == 0);
        assert_pair(tx);
        tx_abort(tx);
    }
    return NULL;
}

static void readers_on_many_threads_see_one_moment_each(void **state)
{
    struct writer w = {.f = *state};
    pthread_t readers[8];
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, write_pairs, &w), 0);
    while (!atomic_load(&w.started)) {
        os_sleep_ms(1);
    }
    for (size_t i = 0; i < ARRAY_LEN(readers); i++) {
        assert_int_equal(pthread_create(&readers[i], NULL, read_pairs, &w), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(readers); i++) {
        pthread_join(readers[i], NULL);
    }
    atomic_store(&w.stop, true);
    pthread_join(thread, NULL);
    assert_sound(*state);
}

static void every_table_has_a_name_of_its_own(void **state)
{
    for (enum table t = 0; t < TABLE_COUNT; t++) {
        assert_true(strlen(table_name(t)) > 0);
        assert_string_not_equal(table_name(t), "chunk");
        for (enum table u = 0; u < t; u++) {
            assert_string_not_equal(table_name(t), table_name(u));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(equal_contents_hash_equal_whatever_their_history),
        TEST(a_backup_during_writes_is_one_moment),
        TEST(a_backup_that_was_cut_off_is_no_hindrance),
        TEST(readers_on_many_threads_see_one_moment_each),
        TEST(every_table_has_a_name_of_its_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
