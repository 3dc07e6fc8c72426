/* Following events: of one pipeline, or all. */
#include "common/base.h"

#include <stdio.h>

#include "broker/api/handlers.h"
#include "broker/api/stream.h"
#include "broker/api/view.h"
#include "broker/core/query.h"

#define EVENTS_BLOCK 32u

/* The oldest sequence number that is kept; 0: there are no events. */
static uint64_t oldest_event(struct tx *tx)
{
    struct cursor c;
    tx_seek(&c, tx, T_EVENT, STR_NULL, NULL);
    uint64_t seq = c.valid ? key_read_u64(c.key, 0) : 0;
    cursor_end(&c);
    return seq;
}

static uint64_t newest_event(struct tx *tx)
{
    const Pb__MetaRecord *meta = meta_get(tx);
    return meta && meta->next_event > 0 ? meta->next_event - 1 : 0;
}

/* A follower who fell behind what is kept, or who comes with a number from another store, is told
 * to read anew, and goes on from what there is. */
static void resync(struct stream *s, struct tx *tx)
{
    uint64_t oldest = oldest_event(tx);
    uint64_t newest = newest_event(tx);
    bool behind = s->seq > 0 && oldest > s->seq + 1;
    if (!behind && s->seq <= newest) {
        return;
    }
    s->seq = behind ? oldest - 1 : newest;
    char id[24];
    snprintf(id, sizeof(id), "%" PRIu64, s->seq);
    stream_event(s, id, "resync", json_pack("{s:I}", "seq", (json_int_t)s->seq));
}

static void tell(struct stream *s, const Pb__EventRecord *e)
{
    char id[24];
    snprintf(id, sizeof(id), "%" PRIu64, e->seq);
    stream_event(s, id, e->kind, view_event(e));
    s->seq = e->seq;
}

static bool pipeline_ended(struct tx *tx, uint64_t pipeline_id, const char **ret_status)
{
    const Pb__PipelineRecord *p = pipeline_get(tx, pipeline_id);
    *ret_status = p ? status_text(p->status) : NULL;
    return !p || status_terminal(p->status);
}

static enum stream_state fill_events(struct stream *s)
{
    const Pb__EventRecord *events[EVENTS_BLOCK];
    const char *status;
    struct tx *tx;
    if (api_read_stored(s->api, &tx) < 0) {
        return STREAM_END; /* the client comes back with Last-Event-ID */
    }
    resync(s, tx);
    size_t n = events_after(tx, s->pipeline_id, s->seq, ARRAY_LEN(events), events);
    enum stream_state state = n > 0 ? STREAM_MORE : STREAM_WAIT;
    for (size_t i = 0; i < n && tx_ok(tx); i++) {
        tell(s, events[i]);
    }
    if (n == 0 && s->pipeline_id > 0 && pipeline_ended(tx, s->pipeline_id, &status)) {
        stream_event(s, NULL, "end", json_pack("{s:o}", "status", json_text(status)));
        state = STREAM_END;
    }
    if (!tx_ok(tx)) {
        state = STREAM_END;
    }
    tx_abort(tx);
    return state;
}

/* Where to begin: behind Last-Event-ID, or at `absent`. */
static int first_seq(struct request *rq, uint64_t absent, uint64_t *ret)
{
    const char *last = request_header(rq, "Last-Event-ID");
    if (!last || last[0] == '\0') {
        *ret = absent;
        return 0;
    }
    if (str_to_u64(str_from(last), ret) < 0) {
        return request_fail(rq, -E_INVALID, "Last-Event-ID is no event's number");
    }
    return 0;
}

static int follow_events(struct request *rq, uint64_t pipeline_id)
{
    struct stream s = {.fill = fill_events, .pipeline_id = pipeline_id};
    struct tx *tx;
    int r = api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    if (pipeline_id > 0 && !pipeline_get(tx, pipeline_id)) {
        r = request_fail(rq, -E_NOT_FOUND, "there is no pipeline %" PRIu64, pipeline_id);
    }
    uint64_t newest = newest_event(tx);
    r = tx_ok(tx) ? r : tx_error(tx);
    tx_abort(tx);
    if (r == 0) {
        r = first_seq(rq, pipeline_id > 0 ? 0 : newest, &s.seq);
    }
    return r < 0 ? r : stream_answer(rq, &s);
}

int get_pipeline_events(struct request *rq)
{
    return follow_events(rq, rq->args.id);
}

int get_events(struct request *rq)
{
    return follow_events(rq, 0);
}
