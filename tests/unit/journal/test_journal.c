#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "broker/journal/format.h"
#include "tests/unit/journal/fake_disk.h"

/* The journal over a disk that loses, tears and refuses. */

#define SEGMENT_BYTES (8u * JOURNAL_BLOCK)

static const uint8_t store_id[] = "0123456789abcdef";

static struct journal_options options(void)
{
    return (struct journal_options){.dir = "journal",
                                    .store_id = store_id,
                                    .secret = STR("nobody knows"),
                                    .command_version = 1,
                                    .segment_bytes = SEGMENT_BYTES};
}

static struct journal *open_journal(void)
{
    const struct journal_options o = options();
    struct buf why = BUF_INIT;
    struct journal *j;

    if (journal_open(&o, &j, &why) < 0) {
        fail_msg("%s", buf_cstr(&why));
    }
    buf_release(&why);
    return j;
}

/* Every command says which it is, and each has a size of its own. */
static void add(struct journal *j, uint64_t index)
{
    char actor[3000];
    Pb__Command cmd = PB__COMMAND__INIT;

    memset(actor, 'a', sizeof(actor));
    actor[index * 7919 % sizeof(actor)] = '\0';
    actor[sizeof(actor) - 1] = '\0';
    cmd.version = 1;
    cmd.time_ms = index;
    cmd.actor = actor;
    journal_add(j, index, &cmd);
}

struct found {
    uint64_t first; /* 0: none */
    uint64_t last;
};

static int take(void *ctx, uint64_t index, struct str packed)
{
    struct found *f = ctx;
    struct arena a;
    ProtobufCMessage *m;

    arena_init(&a, 0);
    assert_int_equal(pb_unpack_own(&a, &pb__command__descriptor, packed, &m), 0);
    const Pb__Command *cmd = (const Pb__Command *)m;
    assert_int_equal(cmd->time_ms, index);
    assert_int_equal(strlen(cmd->actor), MIN(index * 7919 % 3000, 2999u));
    arena_release(&a);
    assert_true(f->last == 0 || index == f->last + 1);
    f->first = f->first == 0 ? index : f->first;
    f->last = index;
    return 0;
}

static int replay(struct journal *j, uint64_t applied, struct found *ret, struct buf *why)
{
    *ret = (struct found){.first = 0};
    return journal_replay(j, applied, take, ret, why);
}

static struct found replay_good(struct journal *j, uint64_t applied)
{
    struct buf why = BUF_INIT;
    struct found f;

    if (replay(j, applied, &f, &why) < 0) {
        fail_msg("%s", buf_cstr(&why));
    }
    buf_release(&why);
    assert_true(f.first == 0 || f.first == applied + 1);
    return f;
}

static void assert_replay_fails(struct journal *j, uint64_t applied, int r, const char *text)
{
    struct buf why = BUF_INIT;
    struct found f;

    assert_int_equal(replay(j, applied, &f, &why), r);
    assert_non_null(strstr(buf_cstr(&why), text));
    buf_release(&why);
}

/* A new one with commands 1 to n, each a record of its own, all of them durable. */
static struct journal *journal_with(uint64_t n)
{
    fake_disk_reset();
    struct journal *j = open_journal();
    assert_int_equal(journal_restart(j, 0), 0);
    for (uint64_t i = 1; i <= n; i++) {
        add(j, i);
        assert_int_equal(journal_write(j), 0);
        assert_int_equal(journal_flush(j), 0);
    }
    return j;
}

static void what_was_written_comes_back_behind_what_was_applied(void **state)
{
    struct journal *j = journal_with(3);

    add(j, 4);
    add(j, 5);
    assert_int_equal(journal_write(j), 0);
    assert_int_equal(journal_flush(j), 0);
    for (uint64_t applied = 0; applied < 5; applied++) {
        assert_int_equal(replay_good(j, applied).last, 5);
    }
    assert_int_equal(replay_good(j, 5).last, 0);
    assert_int_equal(replay_good(j, 77).last, 0);
    journal_close(j);
}

static void a_new_generation_has_nothing_of_the_old_ones(void **state)
{
    struct journal *j = journal_with(6);

    for (unsigned i = 0; i < 3; i++) { /* round the two files that there are */
        assert_int_equal(journal_restart(j, 6), 0);
        assert_int_equal(replay_good(j, 6).last, 0);
        journal_close(j);
        j = open_journal();
    }
    assert_int_equal(journal_restart(j, 1), 0); /* the store was put back: 2 is another one now */
    add(j, 2);
    assert_int_equal(journal_write(j), 0);
    assert_int_equal(replay_good(j, 1).last, 2);
    journal_close(j);
}

static void a_full_segment_goes_on_in_the_spare_one(void **state)
{
    struct journal *j = journal_with(7);

    add(j, 8);
    assert_int_equal(journal_write(j), -E_FULL);
    assert_true(journal_has_added(j));
    assert_int_equal(journal_extend(j), 0);
    assert_int_equal(journal_write(j), 0);
    assert_int_equal(journal_flush(j), 0);
    assert_int_equal(replay_good(j, 0).last, 8);
    journal_close(j);
    j = open_journal();
    assert_int_equal(replay_good(j, 2).last, 8);
    assert_int_equal(journal_restart(j, 8), 0);
    assert_int_equal(replay_good(j, 8).last, 0);
    journal_close(j);
}

static void indices_may_jump_over_what_the_store_has(void **state)
{
    struct journal *j = journal_with(2);

    add(j, 10);
    assert_int_equal(journal_write(j), 0);
    assert_int_equal(journal_flush(j), 0);
    assert_int_equal(replay_good(j, 9).last, 10);
    assert_replay_fails(j, 8, -E_CORRUPT, "lacks the commands from 9 to 9");
    assert_replay_fails(j, 1, -E_CORRUPT, "lacks the commands from 3 to 9");
    journal_close(j);
}

static void a_store_older_than_the_journal_is_refused(void **state)
{
    struct journal *j = journal_with(3);

    assert_int_equal(journal_restart(j, 3), 0);
    assert_replay_fails(j, 1, -E_CORRUPT, "lacks the commands from 2 to 3");
    journal_close(j);
}

static void assert_open_fails(const struct journal_options *o, int r, const char *text)
{
    struct buf why = BUF_INIT;
    struct journal *j;

    assert_int_equal(journal_open(o, &j, &why), r);
    assert_non_null(strstr(buf_cstr(&why), text));
    buf_release(&why);
}

static void the_journal_of_another_store_is_refused(void **state)
{
    struct journal_options o = options();

    journal_close(journal_with(3));
    o.store_id = (const uint8_t *)"another one's id";
    assert_open_fails(&o, -E_CONFLICT, "belongs to another store");
}

static void commands_of_another_version_are_refused_if_they_are_needed(void **state)
{
    struct journal_options o = options();
    struct journal *j = journal_with(3);
    struct buf why = BUF_INIT;

    journal_close(j);
    o.command_version = 2;
    assert_int_equal(journal_open(&o, &j, &why), 0);
    assert_int_equal(replay_good(j, 3).last, 0);
    assert_replay_fails(j, 2, -E_VERSION, "start davitd " DAVIT_VERSION " once");
    journal_close(j);
    buf_release(&why);
}

static void a_damaged_head_is_refused(void **state)
{
    const struct journal_options o = options();
    uint64_t size;

    journal_close(journal_with(3));
    fake_disk_bytes(fake_disk_last(".journal"), &size)[100] ^= 1;
    assert_open_fails(&o, -E_CORRUPT, "stored data is damaged");
}

/* Every byte of a record counts, but for the padding behind it. */
static void damage_in_the_middle_is_told_from_a_torn_end(void **state)
{
    struct journal *j = journal_with(4); /* one block each */
    uint64_t size;
    uint8_t *p = fake_disk_bytes(fake_disk_last(".journal"), &size);

    for (size_t at = 0; at < RECORD_HEAD_BYTES + 20; at++) {
        uint8_t *second = p + 2 * JOURNAL_BLOCK + at;
        uint8_t *last = p + 4 * JOURNAL_BLOCK + at;
        *second ^= 1;
        assert_replay_fails(j, 0, -E_CORRUPT, "lacks the commands from 2 to 2");
        assert_replay_fails(j, 1, -E_CORRUPT, "lacks the commands from 2 to 2");
        assert_int_equal(replay_good(j, 2).last, 4);
        *second ^= 1;
        *last ^= 1;
        assert_int_equal(replay_good(j, 0).last, 3);
        *last ^= 1;
    }
    assert_int_equal(replay_good(j, 0).last, 4);
    journal_close(j);
}

static void records_that_were_not_flushed_may_be_lost_in_any_order(void **state)
{
    struct journal *j = journal_with(2);
    uint64_t size;

    for (uint64_t i = 3; i <= 5; i++) { /* none of them is flushed */
        add(j, i);
        assert_int_equal(journal_write(j), 0);
    }
    fake_disk_bytes(fake_disk_last(".journal"), &size)[3 * JOURNAL_BLOCK] ^= 1;
    assert_int_equal(replay_good(j, 0).last, 2);
    journal_close(j);
}

/* A user may well have put the bytes of a record into a command. */
static void what_looks_like_a_record_in_a_command_is_none(void **state)
{
    struct journal *j = journal_with(2);
    uint8_t forged[3 * JOURNAL_BLOCK];
    uint64_t size;
    Pb__Command cmd = PB__COMMAND__INIT;
    Pb__InitStore init = PB__INIT_STORE__INIT;

    memset(forged, 0, sizeof(forged));
    for (size_t at = 0; at + RECORD_HEAD_BYTES < JOURNAL_BLOCK; at++) { /* one lies at a block */
        const struct record_head h = {.length = 0, .count = 0, .first_index = 3, .version = 1};
        record_seal(&h, forged + at);
    }
    init.store_id = pb_bytes_ref(str_of(forged, sizeof(forged)));
    cmd.body_case = PB__COMMAND__BODY_INIT_STORE;
    cmd.init_store = &init;
    journal_add(j, 3, &cmd);
    assert_int_equal(journal_write(j), 0);
    fake_disk_bytes(fake_disk_last(".journal"), &size)[3 * JOURNAL_BLOCK] ^= 1;
    assert_int_equal(replay_good(j, 0).last, 2);
    journal_close(j);
}

/* Whatever fails on the way: a restart that says so has not begun, and one that has begun goes on.
 */
static void a_restart_that_fails_takes_nothing_until_the_next(void **state)
{
    unsigned begun = 0;
    unsigned failed = 0;

    for (uint64_t n = 1; n <= 8; n++) {
        struct journal *j = journal_with(3);
        fake_disk_fail(fake_disk_calls() + n, -E_IO, false);
        const int r = journal_restart(j, 3);
        fake_disk_fail(0, 0, false);
        add(j, 4);
        assert_int_equal(journal_write(j), r == 0 ? 0 : -E_FULL);
        assert_int_equal(journal_flush(j), 0);
        begun += r == 0;
        failed += r != 0;
        assert_int_equal(replay_good(j, 3).last, r == 0 ? 4 : 0);
        assert_int_equal(journal_restart(j, 4), 0);
        add(j, 5);
        assert_int_equal(journal_write(j), 0);
        assert_int_equal(replay_good(j, 4).last, 5);
        journal_close(j);
    }
    assert_true(begun > 0 && failed > 0);
}

/* A process that died left the name of the spare segment to the next one, perhaps not yet safe. The
 * new head must not be in that file when the power brings it back under its old name. */
static void a_spare_segment_of_a_dead_process_never_comes_back_with_a_new_head(void **state)
{
    unsigned died = 0;

    for (uint64_t n = 1; n <= 8; n++) {
        for (uint64_t seed = 0; seed < 16; seed++) {
            struct journal *j = journal_with(3);
            assert_int_equal(journal_restart(j, 3), 0); /* the last thing: a name for the spare */
            journal_close(j);
            j = open_journal();
            fake_disk_fail(fake_disk_calls() + n, -E_IO, true);
            died += journal_restart(j, 3) < 0;
            journal_close(j);
            fake_disk_crash(seed);
            j = open_journal(); /* or it says why not */
            assert_int_equal(replay_good(j, 3).last, 0);
            assert_int_equal(journal_restart(j, 3), 0);
            add(j, 4);
            assert_int_equal(journal_write(j), 0);
            assert_int_equal(replay_good(j, 3).last, 4);
            journal_close(j);
        }
    }
    assert_true(died > 0);
}

/* Without flushes a record can be lost and the one behind it be there. Whoever goes on before both
 * has given their numbers to other commands. */
static void what_was_behind_a_lost_record_never_comes_back(void **state)
{
    struct journal *j = journal_with(3);
    uint64_t size;

    for (uint64_t i = 4; i <= 5; i++) {
        add(j, i);
        assert_int_equal(journal_write(j), 0);
    }
    journal_close(j);
    memset(fake_disk_bytes(fake_disk_last(".journal"), &size) + 4u * JOURNAL_BLOCK, 0,
           JOURNAL_BLOCK); /* that is the fourth */
    fake_disk_crash(1);    /* all else is there */
    j = open_journal();
    assert_int_equal(replay_good(j, 3).last, 0);
    assert_int_equal(journal_restart(j, 3), 0);
    add(j, 4); /* another one, and the store has it: the journal's bytes may go */
    assert_int_equal(journal_write(j), 0);
    journal_close(j);
    fake_disk_crash(4); /* names, too: the old segment is back */
    j = open_journal();
    assert_int_equal(replay_good(j, 4).last, 0);
    journal_close(j);
}

/* A broker's life in short: turns, commits, starts; what is acknowledged is never lost. */
struct life {
    struct journal *j;
    uint64_t random;
    uint64_t index;   /* the last one given out */
    uint64_t acked;   /* heard of by somebody */
    uint64_t applied; /* in the store */
    bool relaxed;
};

static uint32_t roll(struct life *l, uint32_t n)
{
    l->random = l->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(l->random >> 33) % n;
}

static void commit(struct life *l)
{
    l->applied = l->index;
    l->acked = l->index;
}

/* As the turn does: where the journal cannot take it, the store does. */
static int one_turn(struct life *l)
{
    const uint32_t count = 1 + roll(l, 3);

    for (uint32_t i = 0; i < count; i++) {
        add(l->j, l->index + 1 + i);
    }
    int r = journal_write(l->j);
    if (r == -E_FULL && roll(l, 4) == 0) {
        r = journal_extend(l->j);
        r = r < 0 ? r : journal_write(l->j);
    }
    if (r == -E_FULL || r == -E_NO_SPACE) {
        l->index += count;
        commit(l);
        r = journal_restart(l->j, l->index);
        return r == -E_NO_SPACE ? 0 : r;
    }
    if (r < 0) {
        return r;
    }
    l->index += count;
    if (!l->relaxed || roll(l, 3) == 0) {
        r = journal_flush(l->j);
        l->acked = r == 0 ? l->index : l->acked;
    }
    return r;
}

/* 0, or the error that ended the process. */
static int live(struct life *l, unsigned turns)
{
    struct found f = replay_good(l->j, l->applied);

    l->index = MAX(l->applied, f.last);
    assert_true(l->index >= l->acked);
    commit(l);
    int r = journal_restart(l->j, l->index);
    r = r == -E_NO_SPACE ? 0 : r;
    for (unsigned i = 0; i < turns && r == 0; i++) {
        r = one_turn(l);
        if (r == 0 && roll(l, 6) == 0) {
            commit(l);
        }
    }
    return r;
}

/* Three lives with the given fault in the first; returns how many calls that one made. */
static uint64_t three_lives(uint64_t seed, uint64_t fail_at, int error, bool dead)
{
    struct life l = {.random = seed, .relaxed = seed % 2 == 0};
    uint64_t calls = 0;

    fake_disk_reset();
    fake_disk_fail(fail_at, error, dead);
    for (unsigned i = 0; i < 3; i++) {
        l.j = open_journal();
        int r = live(&l, 20);
        assert_true(r == 0 || i == 0);
        journal_close(l.j);
        calls = i == 0 ? fake_disk_calls() : calls;
        fake_disk_crash(seed + fail_at + i);
    }
    return calls;
}

static void a_crash_at_any_call_loses_nothing_acknowledged(void **state)
{
    for (uint64_t seed = 0; seed < 8; seed++) {
        const uint64_t calls = three_lives(seed, 0, 0, false);
        for (uint64_t n = 1; n <= calls; n++) {
            three_lives(seed, n, -E_IO, true);
        }
    }
}

static void a_full_disk_at_any_call_loses_nothing_acknowledged(void **state)
{
    for (uint64_t seed = 0; seed < 8; seed++) {
        const uint64_t calls = three_lives(seed, 0, 0, false);
        for (uint64_t n = 1; n <= calls; n++) {
            three_lives(seed, n, -E_NO_SPACE, false);
        }
    }
}

static void an_error_of_the_disk_at_any_call_loses_nothing_acknowledged(void **state)
{
    for (uint64_t seed = 0; seed < 8; seed++) {
        const uint64_t calls = three_lives(seed, 0, 0, false);
        for (uint64_t n = 1; n <= calls; n++) {
            three_lives(seed, n, -E_IO, false);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_comes_back_behind_what_was_applied),
        cmocka_unit_test(a_new_generation_has_nothing_of_the_old_ones),
        cmocka_unit_test(a_full_segment_goes_on_in_the_spare_one),
        cmocka_unit_test(indices_may_jump_over_what_the_store_has),
        cmocka_unit_test(a_store_older_than_the_journal_is_refused),
        cmocka_unit_test(the_journal_of_another_store_is_refused),
        cmocka_unit_test(commands_of_another_version_are_refused_if_they_are_needed),
        cmocka_unit_test(a_damaged_head_is_refused),
        cmocka_unit_test(damage_in_the_middle_is_told_from_a_torn_end),
        cmocka_unit_test(records_that_were_not_flushed_may_be_lost_in_any_order),
        cmocka_unit_test(what_looks_like_a_record_in_a_command_is_none),
        cmocka_unit_test(a_restart_that_fails_takes_nothing_until_the_next),
        cmocka_unit_test(a_spare_segment_of_a_dead_process_never_comes_back_with_a_new_head),
        cmocka_unit_test(what_was_behind_a_lost_record_never_comes_back),
        cmocka_unit_test(a_crash_at_any_call_loses_nothing_acknowledged),
        cmocka_unit_test(a_full_disk_at_any_call_loses_nothing_acknowledged),
        cmocka_unit_test(an_error_of_the_disk_at_any_call_loses_nothing_acknowledged),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);

    fake_disk_reset();
    return failed;
}
