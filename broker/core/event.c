#include "common/base.h"

#include "broker/core/apply.h"
#include "common/limits.h"

#define EVENT_DETAIL_BYTES 200u

static char *or_empty(const char *s)
{
    return (char *)(s != NULL ? s : "");
}

void event_forget(struct core *c, uint64_t seq)
{
    const struct key k = key_u64(seq);
    const Pb__EventRecord *e = (const Pb__EventRecord *)tx_get_msg(c->tx, T_EVENT, &k,
                                                                   &pb__event_record__descriptor);

    if (e == NULL) { /* it went with its pipeline */
        return;
    }
    if (e->pipeline_id != 0) {
        const struct key of_pipeline = key_u64_u64(e->pipeline_id, seq);
        tx_del(c->tx, T_PIPELINE_EVENT, &of_pipeline);
    }
    tx_del(c->tx, T_EVENT, &k);
    c->meta->event_count--;
}

/* Sequence numbers are given without gaps, so the oldest event to keep is known without looking. */
static void event_put(struct core *c, const struct event *e)
{
    Pb__EventRecord row = PB__EVENT_RECORD__INIT;
    const uint64_t seq = c->meta->next_event++;
    const struct key k = key_u64(seq);

    row.seq = seq;
    row.time_ms = c->now_ms;
    row.kind = (char *)event_text(e->kind);
    row.project_id = e->project_id;
    row.pipeline_id = e->pipeline_id;
    row.job_id = e->job_id;
    row.attempt = e->attempt;
    row.worker_id = e->worker_id;
    row.rollout_id = e->rollout_id;
    row.from = or_empty(e->from);
    row.to = or_empty(e->to);
    row.name = or_empty(e->name);
    row.detail = text_clip(c->arena, or_empty(e->detail), EVENT_DETAIL_BYTES);
    tx_put_msg(c->tx, T_EVENT, &k, &row.base);
    c->meta->event_count++;
    if (e->pipeline_id != 0) {
        const struct key of_pipeline = key_u64_u64(e->pipeline_id, seq);
        tx_put(c->tx, T_PIPELINE_EVENT, &of_pipeline, STR_NULL);
    }
    if (seq > LIMIT_EVENTS) {
        event_forget(c, seq - LIMIT_EVENTS);
    }
}

void event_add(struct core *c, const struct event *e)
{
    if (e->job_id != 0 && e->pipeline_id == 0) {
        return; /* of jobs without a pipeline their own rows tell: lone.c */
    }
    event_put(c, e);
}
