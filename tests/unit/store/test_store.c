#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "broker/store/tx.h"
#include "common/limits.h"
#include "common/os.h"

/* A store in a folder of its own. */
struct fixture {
    char dir[64];
    struct store *s;
};

static void open_store(struct fixture *f)
{
    struct store_options opt = {.map_bytes = 64u * MIB};
    struct buf why = BUF_INIT;
    int r = store_open(f->dir, &opt, &f->s, &why);

    if (r < 0) {
        fail_msg("%s", buf_cstr(&why));
    }
    buf_release(&why);
}

static int setup(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));

    snprintf(f->dir, sizeof(f->dir), "/tmp/davit-test-store-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    open_store(f);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    store_close(f->s);
    os_remove_tree(f->dir);
    free(f);
    return 0;
}

static struct tx *begin(struct fixture *f, bool write)
{
    struct tx *tx;

    assert_int_equal(tx_begin(f->s, write, &tx), 0);
    return tx;
}

static void assert_sound(struct fixture *f)
{
    struct buf why = BUF_INIT;

    if (store_check(f->s, &why) < 0) {
        fail_msg("%s", buf_cstr(&why));
    }
    buf_release(&why);
}

/* Bytes that differ from place to place and from seed to seed. */
static struct str make_value(struct arena *a, size_t n, uint32_t seed)
{
    char *p = arena_alloc(a, n + 1);

    for (size_t i = 0; i < n; i++) {
        p[i] = (char)((i * 31 + i / 4080 + seed * 7) & 0xff);
    }
    return str_of(p, n);
}

static void assert_value(struct tx *tx, uint64_t id, size_t n, uint32_t seed)
{
    struct key k = key_u64(id);
    struct str want = make_value(tx_arena(tx), n, seed);
    struct str got;

    assert_true(tx_get(tx, T_JOB, &k, &got));
    assert_true(str_eq(got, want));
}

static void put_value(struct fixture *f, uint64_t id, size_t n, uint32_t seed)
{
    struct tx *tx = begin(f, true);
    struct key k = key_u64(id);

    tx_put(tx, T_JOB, &k, make_value(tx_arena(tx), n, seed));
    assert_value(tx, id, n, seed);
    assert_int_equal(tx_commit(tx), 0);
    assert_sound(f);
    tx = begin(f, false);
    assert_value(tx, id, n, seed);
    tx_abort(tx);
}

static const size_t edge_sizes[] = {0,    1,    4078, 4079, 4080, 4081,
                                    8159, 8160, 8161, 100000, MIB};

static void a_value_of_any_size_comes_back_as_it_was(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(edge_sizes); i++) {
        put_value(*state, i, edge_sizes[i], (uint32_t)i);
    }
}

static void replacing_any_size_by_any_other_leaves_no_pieces(void **state)
{
    for (size_t i = 0; i < ARRAY_LEN(edge_sizes); i++) {
        for (size_t j = 0; j < ARRAY_LEN(edge_sizes); j++) {
            put_value(*state, 1, edge_sizes[i], 1);
            put_value(*state, 1, edge_sizes[j], 2);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_value_of_any_size_comes_back_as_it_was, setup, teardown),
        cmocka_unit_test_setup_teardown(replacing_any_size_by_any_other_leaves_no_pieces, setup,
                                        teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
