/* A store of an older layout, as an older program would have left it, opened by this one. */
#include "common/base.h"

#include "broker/store/migrate.h"
#include "tests/kit/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define MANY_JOBS (3 * MIGRATION_ROWS / 2) /* takes two steps */

static int set_up(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));

    world_init(w);
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    world_release(*state);
    free(*state);
    return 0;
}

static void no_breach(void *ctx, const char *text)
{
    fail_msg("%s", text);
}

static Pb__MetaRecord *meta_of(struct tx *tx)
{
    const struct key k = key_bytes("meta", 4);

    return (Pb__MetaRecord *)tx_get_msg(tx, T_META, &k, &pb__meta_record__descriptor);
}

static void set_meta(struct tx *tx, const Pb__MetaRecord *meta)
{
    const struct key k = key_bytes("meta", 4);

    tx_put_msg(tx, T_META, &k, &meta->base);
}

/* The layout of schema 1: classes without counts, none of them known as idle, and (until schema 3)
 * no counts of jobs by state. */
static void make_schema_1(struct world *w)
{
    struct key keys[64];
    struct cursor c;
    size_t n = 0;
    Pb__MetaRecord *meta = meta_of(w->tx);

    for (tx_seek(&c, w->tx, T_CLASS, STR_NULL, NULL); c.valid; tx_next(&c)) {
        assert_true(n < ARRAY_LEN(keys));
        keys[n++] = key_bytes(c.key.p, c.key.n);
    }
    for (size_t i = 0; i < n; i++) {
        Pb__ClassRecord *class = (Pb__ClassRecord *)tx_get_msg(w->tx, T_CLASS, &keys[i],
                                                               &pb__class_record__descriptor);
        if (class->idle_ms != 0) {
            const struct key idle = key_u64_u64(class->idle_ms, class->id);
            tx_del(w->tx, T_CLASS_IDLE, &idle);
        }
        class->jobs = class->unfinished = class->idle_ms = 0;
        tx_put_msg(w->tx, T_CLASS, &keys[i], &class->base);
    }
    meta->schema_version = 1;
    meta->n_job_counts = 0;
    set_meta(w->tx, meta);
}

/* Jobs that wait, run and have ended, of four classes, and a class that no job names any more. */
static void fill(struct world *w)
{
    const uint64_t worker = world_worker(w, "w1", "a,b", "shell", 9, true);
    struct buf plan = BUF_INIT;
    uint64_t p;

    assert_int_equal(world_enqueue(w, plan_from_text(tx_arena(w->tx), "gone: tags=a,b\n"), 0), 0);
    world_run(w, w->reply.jobs[0].job_id, worker, JOB_SUCCESS);
    assert_int_equal(
        world_submit(
            w, plan_from_text(tx_arena(w->tx), "a: tags=a\nb: tags=b\nc: tags=b priority=3\nd:\n"),
            "main", "1"),
        0);
    p = w->reply.pipeline_id;
    world_run(w, world_job_id(w, p, "a"), worker, JOB_SUCCESS);
    assert_int_equal(world_assign(w, world_job_id(w, p, "b"), worker), 0);
    for (unsigned i = 0; i < MANY_JOBS; i++) {
        buf_addf(&plan, "j%u: tags=a\n", i);
    }
    assert_int_equal(world_submit(w, plan_from_text(tx_arena(w->tx), buf_cstr(&plan)), "main", "2"),
                     0);
    buf_release(&plan);
}

static void a_store_of_schema_1_becomes_what_it_would_be(void **state)
{
    struct world *w = *state;
    uint8_t before[32], after[32];

    fill(w);
    world_hash(w, before);
    make_schema_1(w);
    world_reopen(w);
    assert_int_equal(meta_of(w->tx)->schema_version, STORE_SCHEMA_VERSION);
    assert_int_equal(core_audit(w->tx, no_breach, NULL), 0);
    assert_int_equal(tx_count(w->tx, T_CLASS_IDLE), 1);
    world_hash(w, after);
    assert_memory_equal(before, after, sizeof(before)); /* time has not gone on in between */
}

/* The first step, as if the process had been killed after it. */
static void make_first_step(struct world *w)
{
    struct migration m = {.tx = w->tx, .now_ms = w->now_ms};
    Pb__MetaRecord *meta = meta_of(w->tx);
    struct key k;
    unsigned steps = 0;

    while (m.phase < 1 || m.after.n == 0) { /* in the middle of the jobs */
        assert_false(migrate_1(&m));
        assert_true(++steps < 5);
    }
    k = key_u64(m.phase + 1);
    key_add_bytes(&k, m.after.p, m.after.n);
    meta->schema_version = 1 | MIGRATION_UNDERWAY;
    meta->migration = pb_bytes(tx_arena(w->tx), key_str(&k));
    set_meta(w->tx, meta);
}

static void a_migration_that_was_killed_goes_on(void **state)
{
    struct world *w = *state;
    uint8_t before[32], after[32];

    fill(w);
    world_hash(w, before);
    make_schema_1(w);
    make_first_step(w);
    world_reopen(w);
    assert_int_equal(meta_of(w->tx)->schema_version, STORE_SCHEMA_VERSION);
    assert_int_equal(meta_of(w->tx)->migration.len, 0);
    world_hash(w, after);
    assert_memory_equal(before, after, sizeof(before));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_store_of_schema_1_becomes_what_it_would_be),
        TEST(a_migration_that_was_killed_goes_on),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
