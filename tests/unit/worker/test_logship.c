#include "common/base.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/crypto.h"
#include "common/limits.h"
#include "worker/logship.h"

#define WINDOW (256u * KIB)

/* A spool in memory, and a broker that appends what comes at the right offset. */
struct world {
    struct buf spool;
    struct buf broker;
    struct logship ship;
    uint64_t now_ms;
    bool full; /* the broker's disk */
};

static int read_spool(void *ctx, uint64_t offset, size_t max, struct buf *out)
{
    const struct world *w = ctx;
    buf_add_str(out, str_sub(buf_str(&w->spool), (size_t)offset, max));
    return 0;
}

static int set_up(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));
    w->now_ms = 1;
    logship_init(&w->ship, read_spool, w, true);
    *state = w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    logship_release(&w->ship);
    buf_release(&w->spool);
    buf_release(&w->broker);
    free(w);
    return 0;
}

static void fill(struct buf *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        buf_add_char(b, (char)('a' + (b->n * 7 + i / 1000) % 26));
    }
}

/* Sends what there is to send; the broker answers each chunk when `answers`. Returns the chunks. */
static size_t pump(struct world *w, bool answers)
{
    size_t chunks = 0;
    for (;;) {
        struct buf out = BUF_INIT;
        uint64_t offset;
        int step = logship_next(&w->ship, WINDOW, w->now_ms, &out, &offset);
        assert_true(step >= 0);
        assert_true(out.n <= LIMIT_LOG_CHUNK);
        if (step == LOGSHIP_CHUNK) {
            chunks++;
            if (!w->full && offset <= w->broker.n && offset + out.n > w->broker.n) {
                size_t skip = w->broker.n - (size_t)offset;
                buf_add(&w->broker, out.p + skip, out.n - skip);
            }
            if (answers) {
                logship_acked(&w->ship, w->broker.n, w->now_ms);
            }
        }
        buf_release(&out);
        if (step == LOGSHIP_IDLE) {
            return chunks;
        }
    }
}

static void assert_shipped(struct world *w, const char *tail)
{
    buf_addz(&w->spool, tail);
    assert_true(logship_done(&w->ship));
    assert_int_equal(logship_size(&w->ship), w->spool.n);
    assert_int_equal(w->broker.n, w->spool.n);
    assert_memory_equal(w->broker.p, w->spool.p, w->spool.n);
    assert_int_equal(w->ship.crc, crypto_crc32(0, w->spool.p, w->spool.n));
}

static void head_and_tail_arrive_in_order(void **state)
{
    struct world *w = *state;
    fill(&w->spool, 300000);
    pump(w, true);
    assert_false(logship_done(&w->ship));
    logship_end(&w->ship, STR("the end\n"));
    pump(w, true);
    assert_shipped(w, "the end\n");
}

static void an_empty_log_is_done_without_a_word(void **state)
{
    struct world *w = *state;
    logship_end(&w->ship, STR_NULL);
    assert_int_equal(pump(w, true), 0);
    assert_shipped(w, "");
}

static void no_more_than_the_window_is_on_its_way(void **state)
{
    struct world *w = *state;
    fill(&w->spool, 1000000);
    pump(w, false);
    assert_int_equal(w->ship.at, WINDOW);
    logship_acked(&w->ship, 1000, w->now_ms);
    pump(w, false);
    assert_int_equal(w->ship.at, WINDOW + 1000);
}

static void a_new_session_begins_at_what_the_broker_has(void **state)
{
    struct world *w = *state;
    fill(&w->spool, 200000);
    pump(w, false);
    logship_acked(&w->ship, 70000, w->now_ms);
    buf_truncate(&w->broker, 70000); /* the rest was lost on the way */
    logship_new_session(&w->ship);
    logship_end(&w->ship, STR_NULL);
    pump(w, true);
    assert_shipped(w, "");
}

static void a_new_process_asks_and_sums_what_was_shipped_before(void **state)
{
    struct world *w = *state;
    fill(&w->spool, 500000);
    buf_add(&w->broker, w->spool.p, 333333);
    logship_init(&w->ship, read_spool, w, false);
    logship_end(&w->ship, STR("tail"));
    assert_int_equal(pump(w, false), 1); /* the question alone */
    assert_false(logship_done(&w->ship));
    logship_acked(&w->ship, w->broker.n, w->now_ms);
    assert_int_equal(pump(w, true), 4); /* the rest of the spool, and the tail */
    assert_shipped(w, "tail");
}

static void a_new_process_whose_log_is_all_shipped_sends_nothing_again(void **state)
{
    struct world *w = *state;
    fill(&w->spool, 100000);
    buf_add(&w->broker, w->spool.p, w->spool.n);
    buf_addz(&w->broker, "tail");
    logship_init(&w->ship, read_spool, w, false);
    logship_end(&w->ship, STR("tail"));
    assert_int_equal(pump(w, true), 1);
    assert_shipped(w, "tail");
}

static void a_full_disk_of_the_broker_is_tried_again_later(void **state)
{
    struct world *w = *state;
    fill(&w->spool, 100000);
    logship_end(&w->ship, STR_NULL);
    w->full = true;
    size_t chunks = pump(w, true);
    assert_int_equal(pump(w, true), 0);
    w->now_ms += LOGSHIP_RETRY_MS;
    w->full = false;
    assert_int_equal(pump(w, true), chunks);
    assert_shipped(w, "");
}

static void silence_about_a_chunk_is_not_waited_for_without_end(void **state)
{
    struct world *w = *state;
    fill(&w->spool, 1000);
    logship_end(&w->ship, STR_NULL);
    pump(w, false);
    w->now_ms += LOGSHIP_STALLED_MS - 1;
    assert_int_equal(pump(w, true), 0);
    w->now_ms += 1;
    assert_int_equal(pump(w, true), 1);
    assert_shipped(w, "");
}

static void a_broker_that_lost_bytes_gets_them_again(void **state)
{
    struct world *w = *state;
    fill(&w->spool, 150000);
    logship_end(&w->ship, STR_NULL);
    pump(w, true);
    buf_truncate(&w->broker, 4711);
    logship_new_session(&w->ship);
    logship_acked(&w->ship, 4711, w->now_ms);
    assert_false(logship_done(&w->ship));
    pump(w, true);
    assert_shipped(w, "");
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        T(head_and_tail_arrive_in_order),
        T(an_empty_log_is_done_without_a_word),
        T(no_more_than_the_window_is_on_its_way),
        T(a_new_session_begins_at_what_the_broker_has),
        T(a_new_process_asks_and_sums_what_was_shipped_before),
        T(a_new_process_whose_log_is_all_shipped_sends_nothing_again),
        T(a_full_disk_of_the_broker_is_tried_again_later),
        T(silence_about_a_chunk_is_not_waited_for_without_end),
        T(a_broker_that_lost_bytes_gets_them_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
