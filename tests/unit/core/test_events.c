/* Events are kept up to LIMIT_EVENTS; the oldest goes, with its row in the pipeline's index. */
#include "common/base.h"

#include "tests/kit/world.h"

#include "common/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* A store that is full of events of pipeline 9, as its own commands would have left it. */
static void fill(struct world *w, uint64_t pipeline_id)
{
    const struct key meta_key = key_bytes("meta", 4);
    Pb__MetaRecord *meta = (Pb__MetaRecord *)meta_get(w->tx);
    Pb__EventRecord e = PB__EVENT_RECORD__INIT;

    e.kind = (char *)"job";
    e.pipeline_id = pipeline_id;
    for (; meta->next_event <= LIMIT_EVENTS; meta->next_event++) {
        const struct key k = key_u64(meta->next_event);
        const struct key of_pipeline = key_u64_u64(pipeline_id, meta->next_event);
        e.seq = meta->next_event;
        meta->event_count++;
        tx_put_msg(w->tx, T_EVENT, &k, &e.base);
        tx_put(w->tx, T_PIPELINE_EVENT, &of_pipeline, STR_NULL);
    }
    tx_put_msg(w->tx, T_META, &meta_key, &meta->base);
}

static void the_oldest_events_go_with_their_index(void **state)
{
    const Pb__EventRecord *got[4];
    struct world w;
    uint64_t pipeline_id;

    world_init(&w);
    w.audit = false;
    assert_int_equal(
        world_submit(&w, plan_from_text(tx_arena(w.tx), "build: stage=build\n"), "main", "1"), 0);
    pipeline_id = w.reply.pipeline_id;
    fill(&w, pipeline_id);
    assert_int_equal(tx_count(w.tx, T_EVENT), LIMIT_EVENTS);
    w.audit = true;
    assert_int_equal(world_cancel(&w, pipeline_id), 0); /* audits: three events more */
    assert_int_equal(tx_count(w.tx, T_EVENT), LIMIT_EVENTS);
    assert_int_equal(events_after(w.tx, 0, 0, 4, got), 4);
    assert_int_equal(got[0]->seq, meta_get(w.tx)->next_event - LIMIT_EVENTS);
    assert_int_equal(events_after(w.tx, pipeline_id, LIMIT_EVENTS, 4, got), 3);
    assert_string_equal(got[0]->to, "canceled");
    assert_string_equal(got[2]->kind, "pipeline");
    assert_int_equal(events_after(w.tx, pipeline_id, got[2]->seq, 4, got), 0);
    world_release(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_oldest_events_go_with_their_index),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
