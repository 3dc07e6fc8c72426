#include "common/base.h"

#include "tests/unit/store/fixture.h"

void fixture_open(struct fixture *f)
{
    struct store_options opt = {.map_bytes = f->map_bytes};
    struct buf why = BUF_INIT;

    if (store_open(f->dir, &opt, &f->s, &why) < 0) {
        fail_msg("%s", buf_cstr(&why));
    }
    buf_release(&why);
}

void fixture_close(struct fixture *f)
{
    store_close(f->s);
    f->s = NULL;
}

int setup_folder(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));

    f->map_bytes = 64u * MIB;
    snprintf(f->dir, sizeof(f->dir), "/tmp/davit-test-store-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    *state = f;
    return 0;
}

int setup(void **state)
{
    setup_folder(state);
    fixture_open(*state);
    return 0;
}

int teardown(void **state)
{
    struct fixture *f = *state;

    fixture_close(f);
    os_remove_tree(f->dir);
    free(f);
    return 0;
}

struct tx *begin(struct fixture *f, bool write)
{
    struct tx *tx;

    assert_int_equal(tx_begin(f->s, write, &tx), 0);
    return tx;
}

void commit(struct tx *tx)
{
    assert_int_equal(tx_commit(tx), 0);
}

void assert_sound(struct fixture *f)
{
    struct buf why = BUF_INIT;

    if (store_check(f->s, &why) < 0) {
        fail_msg("%s", buf_cstr(&why));
    }
    buf_release(&why);
}

struct str make_value(struct arena *a, size_t n, uint32_t seed)
{
    char *p = arena_alloc(a, n + 1);

    for (size_t i = 0; i < n; i++) {
        p[i] = (char)((i * 31 + i / LIMIT_STORE_VALUE + seed * 7) & 0xff);
    }
    return str_of(p, n);
}

void put_value(struct tx *tx, uint64_t id, size_t n, uint32_t seed)
{
    struct key k = key_u64(id);

    tx_put(tx, T_JOB, &k, make_value(tx_arena(tx), n, seed));
}

void assert_value(struct tx *tx, uint64_t id, size_t n, uint32_t seed)
{
    struct key k = key_u64(id);
    struct str want = make_value(tx_arena(tx), n, seed);
    struct str got;

    assert_true(tx_get(tx, T_JOB, &k, &got));
    assert_true(str_eq(got, want));
}
