#include "common/base.h"

#include "tests/unit/store/fixture.h"

static const size_t edge_sizes[] = {0, 1, 4078, 4079, 4080, 4081, 8159, 8160, 8161, 100000, MIB};

static void a_value_of_any_size_comes_back_as_it_was(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(edge_sizes); i++) {
        struct tx *tx = begin(f, true);

        put_value(tx, i, edge_sizes[i], 3);
        assert_value(tx, i, edge_sizes[i], 3);
        commit(tx);
    }
    fixture_close(f);
    fixture_open(f);
    assert_sound(f);
    for (size_t i = 0; i < ARRAY_LEN(edge_sizes); i++) {
        struct tx *tx = begin(f, false);

        assert_value(tx, i, edge_sizes[i], 3);
        assert_int_equal(tx_count(tx, T_JOB), ARRAY_LEN(edge_sizes));
        tx_abort(tx);
    }
}

static void replacing_any_size_by_any_other_leaves_no_pieces(void **state)
{
    struct fixture *f = *state;

    for (size_t i = 0; i < ARRAY_LEN(edge_sizes); i++) {
        for (size_t j = 0; j < ARRAY_LEN(edge_sizes); j++) {
            struct tx *tx = begin(f, true);

            put_value(tx, 1, edge_sizes[i], 1);
            put_value(tx, 2, 9000, 5); /* a neighbour with pieces of its own */
            put_value(tx, 1, edge_sizes[j], 2);
            commit(tx);
            tx = begin(f, false);
            assert_value(tx, 1, edge_sizes[j], 2);
            assert_value(tx, 2, 9000, 5);
            tx_abort(tx);
            assert_sound(f);
        }
    }
}

static void deleting_takes_the_pieces_along(void **state)
{
    struct fixture *f = *state;
    struct key k = key_u64(1);
    struct tx *tx;

    for (size_t i = 0; i < ARRAY_LEN(edge_sizes); i++) {
        tx = begin(f, true);
        put_value(tx, 1, edge_sizes[i], 1);
        commit(tx);
        tx = begin(f, true);
        assert_true(tx_has(tx, T_JOB, &k));
        tx_del(tx, T_JOB, &k);
        assert_false(tx_has(tx, T_JOB, &k));
        commit(tx);
        assert_sound(f);
    }
    tx = begin(f, false);
    assert_int_equal(tx_count(tx, T_JOB), 0);
    tx_abort(tx);
}

static void an_aborted_transaction_changes_nothing(void **state)
{
    struct fixture *f = *state;
    uint8_t before[32];
    uint8_t after[32];
    struct tx *tx = begin(f, true);

    put_value(tx, 1, 5000, 1);
    commit(tx);
    assert_int_equal(store_hash(f->s, before), 0);
    tx = begin(f, true);
    put_value(tx, 1, 50, 2);
    put_value(tx, 2, 50000, 2);
    tx_abort(tx);
    assert_int_equal(store_hash(f->s, after), 0);
    assert_memory_equal(before, after, sizeof(before));
    assert_sound(f);
}

static void a_value_may_be_read_from_the_row_it_replaces(void **state)
{
    struct fixture *f = *state;
    struct key k = key_u64(1);
    struct str v;
    struct tx *tx = begin(f, true);

    put_value(tx, 1, 3000, 1);
    assert_true(tx_get(tx, T_JOB, &k, &v));
    tx_put(tx, T_JOB, &k, str_sub(v, 0, 2999));
    assert_value(tx, 1, 2999, 1);
    put_value(tx, 1, 30000, 2);
    assert_true(tx_get(tx, T_JOB, &k, &v));
    tx_put(tx, T_JOB, &k, str_sub(v, 0, 20000));
    assert_value(tx, 1, 20000, 2);
    commit(tx);
    assert_sound(f);
}

static void changes_count_writes_that_changed_something(void **state)
{
    struct key absent = key_u64(7);
    struct key k = key_u64(1);
    struct tx *tx = begin(*state, true);

    tx_del(tx, T_JOB, &absent);
    assert_int_equal(tx_changes(tx), 0);
    put_value(tx, 1, 10000, 1);
    assert_int_equal(tx_changes(tx), 1);
    tx_del(tx, T_JOB, &k);
    assert_int_equal(tx_changes(tx), 2);
    tx_abort(tx);
}

static void a_message_comes_back_and_a_damaged_one_fails_the_transaction(void **state)
{
    struct fixture *f = *state;
    struct key k = key_u64(1);
    struct key damaged = key_u64(2);
    Pb__ProjectRecord project = PB__PROJECT_RECORD__INIT;
    const Pb__ProjectRecord *got;
    struct tx *tx = begin(f, true);

    project.id = 1;
    project.name = (char *)"group/name";
    tx_put_msg(tx, T_PROJECT, &k, &project.base);
    tx_put(tx, T_PROJECT, &damaged, STR("\xff\xff\xff"));
    commit(tx);

    tx = begin(f, false);
    got = (const Pb__ProjectRecord *)tx_get_msg(tx, T_PROJECT, &k, &pb__project_record__descriptor);
    assert_non_null(got);
    assert_int_equal(got->id, 1);
    assert_string_equal(got->name, "group/name");
    assert_null(tx_get_msg(tx, T_PROJECT, &damaged, &pb__project_record__descriptor));
    assert_int_equal(tx_error(tx), -E_CORRUPT);
    assert_null(tx_get_msg(tx, T_PROJECT, &k, &pb__project_record__descriptor));
    tx_abort(tx);
}

static void the_first_error_stays_and_later_calls_do_nothing(void **state)
{
    struct fixture *f = *state;
    struct key k = key_u64(1);
    struct str v;
    struct cursor c;
    struct tx *tx = begin(f, true);

    put_value(tx, 1, 10, 1);
    commit(tx);
    tx = begin(f, true);
    tx_fail(tx, -E_INVALID);
    tx_fail(tx, -E_IO);
    put_value(tx, 2, 10, 1);
    tx_del(tx, T_JOB, &k);
    assert_false(tx_get(tx, T_JOB, &k, &v));
    tx_seek(&c, tx, T_JOB, STR_NULL, NULL);
    assert_false(c.valid);
    assert_int_equal(tx_count(tx, T_JOB), 0);
    assert_int_equal(tx_changes(tx), 0);
    assert_int_equal(tx_commit(tx), -E_INVALID);
    tx = begin(f, false);
    assert_int_equal(tx_count(tx, T_JOB), 1);
    tx_abort(tx);
}

static void numbers_in_keys_sort_as_numbers_and_read_back(void **state)
{
    static const uint64_t numbers[] = {0, 1, 255, 256, UINT32_MAX, 1ull << 32, UINT64_MAX};

    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        struct key k = key_u64_u64(7, numbers[i]);

        key_add_u32(&k, 0xdeadbeef);
        assert_int_equal(key_read_u64(key_str(&k), 0), 7);
        assert_true(key_read_u64(key_str(&k), 8) == numbers[i]);
        assert_int_equal(key_read_u32(key_str(&k), 16), 0xdeadbeef);
        if (i > 0) {
            struct key before = key_u64_u64(7, numbers[i - 1]);

            assert_true(str_cmp(key_str(&before), key_str(&k)) < 0);
        }
    }
}

static void the_longest_key_is_kept_whole(void **state)
{
    struct fixture *f = *state;
    char name[LIMIT_STORE_KEY - 4];
    struct key k;
    struct tx *tx = begin(f, true);

    memset(name, 'n', sizeof(name));
    k = key_bytes(name, sizeof(name));
    tx_put(tx, T_PROJECT_NAME, &k, make_value(tx_arena(tx), 5000, 1));
    commit(tx);
    tx = begin(f, false);
    assert_true(tx_has(tx, T_PROJECT_NAME, &k));
    k.n--;
    assert_false(tx_has(tx, T_PROJECT_NAME, &k));
    tx_abort(tx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_value_of_any_size_comes_back_as_it_was),
        TEST(replacing_any_size_by_any_other_leaves_no_pieces),
        TEST(deleting_takes_the_pieces_along),
        TEST(an_aborted_transaction_changes_nothing),
        TEST(a_value_may_be_read_from_the_row_it_replaces),
        TEST(changes_count_writes_that_changed_something),
        TEST(a_message_comes_back_and_a_damaged_one_fails_the_transaction),
        TEST(the_first_error_stays_and_later_calls_do_nothing),
        TEST(numbers_in_keys_sort_as_numbers_and_read_back),
        TEST(the_longest_key_is_kept_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
