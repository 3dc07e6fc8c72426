/* A write transaction has rows in memory before LMDB has them. To whoever reads, nothing shows of
 * that: each test does the same to a transaction and to a model, and asks both. */
#include "common/base.h"

#include "tests/unit/store/fixture.h"

#include "broker/store/env.h"

enum { KEYS = 60, LARGE = 9000 };

/* What a key holds: nothing, bytes of that size and seed, or a message. */
struct value {
    bool there;
    bool is_message;
    size_t n;
    uint32_t seed;
};

struct model {
    struct fixture *f;
    struct tx *tx;
    struct value now[KEYS];
    struct value saved[KEYS]; /* as of the last commit */
    uint64_t changes;
    uint64_t random;
};

static unsigned pick(struct model *m, unsigned below)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return (unsigned)(m->random % below);
}

/* Keys of several lengths, in the order of their numbers; the first of all is a prefix of others.
 */
static struct key key_at(unsigned i)
{
    struct key k = key_bytes("row", 3);

    if (i > 0) {
        key_add_u32(&k, i / 3);
    }
    if (i % 3 == 1) {
        key_add_bytes(&k, "x", 1);
    } else if (i % 3 == 2) {
        key_add_bytes(&k, "x-and-more", 10);
    }
    return k;
}

static Pb__ProjectRecord message_of(struct arena *a, const struct value *v)
{
    Pb__ProjectRecord p = PB__PROJECT_RECORD__INIT;

    p.id = v->seed;
    p.name = arena_printf(a, "project %0*u", (int)(v->n % 3000), v->seed);
    return p;
}

static struct str bytes_of(struct arena *a, const struct value *v)
{
    Pb__ProjectRecord p;
    struct buf packed = BUF_INIT;
    struct str bytes;

    if (!v->is_message) {
        return make_value(a, v->n, v->seed);
    }
    p = message_of(a, v);
    PB_PACK(&p, &packed);
    bytes = arena_str(a, buf_str(&packed));
    buf_release(&packed);
    return bytes;
}

static void assert_holds(struct model *m, const struct value *v, struct str got)
{
    assert_true(v->there);
    assert_true(str_eq(got, bytes_of(tx_arena(m->tx), v)));
}

static void put(struct model *m, unsigned i)
{
    static const size_t sizes[] = {0, 1, 30, 300, 4079, 4080, LARGE};
    const struct key k = key_at(i);
    struct value *v = &m->now[i];

    *v = (struct value){.there = true,
                        .is_message = pick(m, 2) == 0,
                        .n = sizes[pick(m, ARRAY_LEN(sizes))],
                        .seed = pick(m, 1000) + 1};
    if (v->is_message) {
        const Pb__ProjectRecord p = message_of(tx_arena(m->tx), v);
        tx_put_msg(m->tx, T_PROJECT, &k, &p.base);
    } else {
        tx_put(m->tx, T_PROJECT, &k, bytes_of(tx_arena(m->tx), v));
    }
    m->changes++;
}

static void drop(struct model *m, unsigned i)
{
    const struct key k = key_at(i);

    tx_del(m->tx, T_PROJECT, &k);
    m->changes += m->now[i].there;
    m->now[i].there = false;
}

static void look(struct model *m, unsigned i)
{
    const struct value *v = &m->now[i];
    const struct key k = key_at(i);
    struct str got;

    assert_int_equal(tx_has(m->tx, T_PROJECT, &k), v->there);
    if (v->there && v->is_message && pick(m, 2) == 0) {
        ProtobufCMessage *p = tx_get_msg(m->tx, T_PROJECT, &k, &pb__project_record__descriptor);
        struct buf packed = BUF_INIT;
        assert_non_null(p);
        pb_pack(p, &packed);
        assert_holds(m, v, buf_str(&packed));
        buf_release(&packed);
    } else if (tx_get(m->tx, T_PROJECT, &k, &got)) {
        assert_holds(m, v, got);
    } else {
        assert_false(v->there);
        assert_null(tx_get_msg(m->tx, T_PROJECT, &k, &pb__project_record__descriptor));
    }
}

/* Which keys a walk may meet: all, or a third key and the two that it is a prefix of. */
struct range {
    int first;
    int end;
    struct key prefix;
};

static struct range range_at(unsigned i)
{
    const unsigned first = i / 3 * 3;

    if (first == 0) { /* what they have in common */
        return (struct range){0, KEYS, key_at(0)};
    }
    return (struct range){(int)first, (int)first + 3, key_at(first)};
}

/* The next one that is there, from i on in the direction; none: outside of the range. */
static int neighbour(const struct model *m, const struct range *r, int i, int step)
{
    while (i >= r->first && i < r->end && !m->now[i].there) {
        i += step;
    }
    return i;
}

/* Goes on from there to and fro, and meets what the model has. */
static void walk(struct model *m, unsigned from)
{
    const struct range r = range_at(pick(m, 2) == 0 ? 0 : from);
    const struct key k = key_at(from);
    const bool last = pick(m, 3) == 0;
    struct cursor c;
    int at = neighbour(m, &r, last ? r.end - 1 : (int)from, last ? -1 : 1);
    bool back = last;

    if (last) {
        tx_seek_last(&c, m->tx, T_PROJECT, key_str(&r.prefix));
    } else {
        tx_seek(&c, m->tx, T_PROJECT, key_str(&r.prefix), &k);
    }
    while (at >= r.first && at < r.end) {
        const struct key here = key_at((unsigned)at);
        assert_true(c.valid && str_eq(c.key, key_str(&here)));
        assert_holds(m, &m->now[at], c.value);
        if (pick(m, 6) == 0) { /* what is only read is no write to the table */
            look(m, pick(m, KEYS));
        }
        if (pick(m, 20) == 0) {
            return; /* left early */
        }
        back = pick(m, 4) == 0 ? !back : back;
        at = neighbour(m, &r, at + (back ? -1 : 1), back ? -1 : 1);
        back ? tx_prev(&c) : tx_next(&c);
    }
    assert_false(c.valid);
}

static void count(struct model *m)
{
    const struct range all = range_at(0);
    const int first = neighbour(m, &all, 0, 1);
    const struct key least = key_at((unsigned)first % KEYS);
    struct key k;
    uint64_t n = 0;

    for (unsigned i = 0; i < KEYS; i++) {
        n += m->now[i].there;
    }
    assert_int_equal(tx_first_key(m->tx, T_PROJECT, STR("row"), &k), n > 0);
    assert_true(n == 0 || str_eq(key_str(&k), key_str(&least)));
    assert_false(tx_first_key(m->tx, T_PROJECT, STR("rowing"), &k));
    assert_int_equal(tx_count(m->tx, T_PROJECT), n);
    assert_int_equal(tx_changes(m->tx), m->changes);
}

static void end(struct model *m)
{
    const bool kept = pick(m, 3) > 0;

    if (kept) {
        commit(m->tx);
    } else {
        tx_abort(m->tx);
    }
    memcpy(kept ? m->saved : m->now, kept ? m->now : m->saved, sizeof(m->now));
    assert_sound(m->f);
    m->tx = begin(m->f, true);
    m->changes = 0;
}

static void do_something(struct model *m)
{
    const unsigned what = pick(m, 100), i = pick(m, KEYS);

    if (what < 35) {
        put(m, i);
    } else if (what < 60) {
        drop(m, i);
    } else if (what < 75) {
        look(m, i);
    } else if (what < 85) {
        walk(m, i);
    } else if (what < 90) {
        count(m);
    } else if (what < 94) { /* some rows go to LMDB */
        tx_rest(m->tx);
        flush_oldest(m->tx, pick(m, 20));
    } else if (what < 96) {
        assert_int_equal(tx_save(m->tx), 0);
        memcpy(m->saved, m->now, sizeof(m->now));
    } else if (what < 97) {
        end(m);
    }
}

static void nobody_can_tell_whether_a_row_is_in_memory(void **state)
{
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct model m = {.f = *state, .random = seed * 88172645463325252ull};
        m.tx = begin(m.f, true);
        for (unsigned i = 0; i < KEYS; i++) { /* what the round before it left */
            const struct key k = key_at(i);
            tx_del(m.tx, T_PROJECT, &k);
        }
        m.changes = tx_changes(m.tx);
        assert_int_equal(tx_save(m.tx), 0);
        for (unsigned i = 0; i < 1500; i++) {
            do_something(&m);
        }
        for (unsigned i = 0; i < KEYS; i++) {
            look(&m, i);
        }
        count(&m);
        commit(m.tx);
        assert_sound(m.f);
        m.tx = begin(m.f, false); /* where there is no memory */
        for (unsigned i = 0; i < KEYS; i++) {
            look(&m, i);
        }
        walk(&m, 0);
        tx_abort(m.tx);
    }
}

static void what_comes_and_goes_between_commits_costs_the_store_nothing(void **state)
{
    struct fixture *f = *state;
    struct store_stat before, after;
    struct tx *tx = begin(f, true);

    put_value(tx, 1, 100, 1);
    commit(tx);
    store_stat(f->s, &before);
    tx = begin(f, true);
    for (uint64_t i = 2; i < 30000; i++) {
        const struct key k = key_u64(i);
        put_value(tx, i, 1000, 1);
        tx_del(tx, T_JOB, &k);
        tx_rest(tx);
    }
    assert_int_equal(tx_changes(tx), 2 * 29998);
    assert_int_equal(tx->mem->count, 0);
    commit(tx);
    store_stat(f->s, &after);
    assert_int_equal(before.used_bytes, after.used_bytes);
    tx = begin(f, false);
    assert_int_equal(tx_count(tx, T_JOB), 1);
    tx_abort(tx);
}

static void memory_is_bounded_and_what_is_beyond_it_is_not_lost(void **state)
{
    struct fixture *f = *state;
    const uint64_t rows = 80000;
    struct tx *tx = begin(f, true);
    size_t most = 0;

    for (uint64_t i = 0; i < rows; i++) {
        put_value(tx, i * 7919 % rows, 40, 2);
        most = MAX(most, tx->mem->count);
        assert_int_equal(tx_changes(tx), i + 1);
        if (i == rows / 2) {
            tx_rest(tx);
            assert_in_range(tx->mem->count, 1, 5000);
        }
    }
    assert_in_range(most, 2000, 20000);
    assert_int_equal(tx->mem->count, 0); /* the transaction has become too large for that */
    assert_int_equal(tx_count(tx, T_JOB), rows);
    for (uint64_t i = 0; i < rows; i++) {
        const struct key k = key_u64(i);
        assert_value(tx, i, 40, 2);
        if (i % 2 == 0) {
            tx_del(tx, T_JOB, &k);
        }
    }
    assert_int_equal(tx_count(tx, T_JOB), rows / 2);
    commit(tx);
    assert_sound(f);
    tx = begin(f, false);
    assert_int_equal(tx_count(tx, T_JOB), rows / 2);
    assert_value(tx, 1, 40, 2);
    tx_abort(tx);
}

/* A reader elsewhere sees what was committed, whatever a writer has in memory. */
static void readers_see_commits_alone(void **state)
{
    struct fixture *f = *state;
    struct tx *tx = begin(f, true);
    struct tx *reader;

    put_value(tx, 1, 10, 1);
    assert_int_equal(tx_save(tx), 0);
    put_value(tx, 1, 10, 2);
    put_value(tx, 2, 10, 2);
    reader = begin(f, false);
    assert_value(reader, 1, 10, 1);
    assert_int_equal(tx_count(reader, T_JOB), 1);
    tx_abort(reader);
    assert_int_equal(tx_save(tx), 0);
    reader = begin(f, false);
    assert_value(reader, 1, 10, 2);
    assert_int_equal(tx_count(reader, T_JOB), 2);
    tx_abort(reader);
    tx_abort(tx);
}

static void what_one_reads_is_ones_own(void **state)
{
    struct fixture *f = *state;
    const struct key k = key_u64(1);
    Pb__ProjectRecord project = PB__PROJECT_RECORD__INIT;
    Pb__ProjectRecord *got;
    struct tx *tx = begin(f, true);

    project.name = (char *)"group/name";
    tx_put_msg(tx, T_PROJECT, &k, &project.base);
    for (int committed = 0; committed < 2; committed++) {
        for (int i = 0; i < 3; i++) {
            got = (Pb__ProjectRecord *)tx_get_msg(tx, T_PROJECT, &k,
                                                  &pb__project_record__descriptor);
            assert_string_equal(got->name, "group/name");
            assert_int_equal(got->weight, 0);
            got->weight = 5; /* a change that comes to nothing */
            got->name[0] = 'x';
        }
        assert_int_equal(tx_save(tx), 0);
    }
    tx_abort(tx);
}

/* The map is full when the rows in memory are to go into it: then nothing of them is there. */
static void what_does_not_fit_fails_the_commit_as_a_whole(void **state)
{
    struct fixture *f = *state;
    struct tx *tx;
    uint8_t before[32], after[32];

    f->map_bytes = MIB;
    fixture_open(f);
    tx = begin(f, true);
    put_value(tx, 0, 300000, 1);
    commit(tx);
    assert_int_equal(store_hash(f->s, before), 0);
    for (int save = 0; save < 2; save++) {
        tx = begin(f, true);
        for (uint64_t i = 1; i < 1000; i++) {
            put_value(tx, i, 1000, 1);
        }
        assert_true(tx_ok(tx));
        if (save == 1) {
            assert_int_equal(tx_save(tx), -E_FULL);
            assert_int_equal(tx_save(tx), -E_FULL);
            tx_abort(tx);
        } else {
            assert_int_equal(tx_commit(tx), -E_FULL);
        }
        assert_int_equal(store_hash(f->s, after), 0);
        assert_memory_equal(before, after, sizeof(before));
    }
    assert_sound(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nobody_can_tell_whether_a_row_is_in_memory),
        TEST(what_comes_and_goes_between_commits_costs_the_store_nothing),
        TEST(memory_is_bounded_and_what_is_beyond_it_is_not_lost),
        TEST(readers_see_commits_alone),
        TEST(what_one_reads_is_ones_own),
        TEST_CLOSED(what_does_not_fit_fails_the_commit_as_a_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
