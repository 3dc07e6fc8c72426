#include "common/base.h"

#include "worker/held.h"

#include "common/limits.h"
#include "common/log.h"
#include "common/os.h"
#include "worker/agent.h"

static void key_init(Pb__JobKey *wire, const struct held *h)
{
    pb__job_key__init(wire);
    wire->job_id = h->key.job_id;
    wire->attempt = h->key.attempt;
    wire->epoch = h->key.epoch;
}

bool held_is_listed(const struct held *h)
{
    return h->phase != HELD_FENCED;
}

void held_to_wire(const struct held *h, struct arena *arena, Pb__HeldJob *ret)
{
    pb__held_job__init(ret);
    ret->key = arena_alloc(arena, sizeof(*ret->key));
    key_init(ret->key, h);
    if (h->phase == HELD_RUNNING || (h->phase == HELD_ENDED && !h->finish_sent)) {
        ret->state = PB__HELD_STATE__HELD_RUNNING;
    } else if (h->phase == HELD_ENDED) {
        ret->state = PB__HELD_STATE__HELD_FINISHED;
    } else {
        ret->state = PB__HELD_STATE__HELD_ACCEPTED;
    }
}

static void tell_accepted(struct held *h)
{
    Pb__JobKey key, *keys = &key;
    Pb__AssignAck body = PB__ASSIGN_ACK__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    key_init(&key, h);
    body.keys = &keys;
    body.n_keys = 1;
    e.body_case = PB__ENVELOPE__BODY_ASSIGN_ACK;
    e.assign_ack = &body;
    h->accepted.seq = session_send(&h->agent->session, &e);
}

static void tell_started(struct held *h)
{
    Pb__JobKey key, *keys = &key;
    Pb__WireJobStarted body = PB__WIRE_JOB_STARTED__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    key_init(&key, h);
    body.keys = &keys;
    body.n_keys = 1;
    e.body_case = PB__ENVELOPE__BODY_JOB_STARTED;
    e.job_started = &body;
    h->started.seq = session_send(&h->agent->session, &e);
}

static void tell_returned(struct held *h)
{
    Pb__JobKey key;
    Pb__AssignReturn body = PB__ASSIGN_RETURN__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    const char *why = agent_refuses_work(h->agent);
    key_init(&key, h);
    body.key = &key;
    body.why = (char *)(uintptr_t)(why != NULL ? why : "not started");
    e.body_case = PB__ENVELOPE__BODY_ASSIGN_RETURN;
    e.assign_return = &body;
    h->returned.seq = session_send(&h->agent->session, &e);
}

void held_tell_end(struct held *h)
{
    Pb__JobKey key;
    Pb__JobEnd end = PB__JOB_END__INIT, *ends = &end;
    Pb__WireJobFinished body = PB__WIRE_JOB_FINISHED__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    key_init(&key, h);
    h->outcome->log_size = logship_size(&h->log);
    h->outcome->log_crc = h->log.crc;
    end.key = &key;
    end.outcome = h->outcome;
    body.ends = &ends;
    body.n_ends = 1;
    e.body_case = PB__ENVELOPE__BODY_JOB_FINISHED;
    e.job_finished = &body;
    session_send(&h->agent->session, &e);
    h->finish_sent = true;
}

static bool is_news(const struct held_news *n)
{
    return !n->known && n->seq == 0;
}

void held_tell(struct held *h)
{
    if (!session_is_open(&h->agent->session) || h->phase == HELD_FENCED) {
        return;
    }
    if (h->phase == HELD_RETURNING) {
        if (is_news(&h->returned)) {
            tell_returned(h);
        }
        return;
    }
    if (is_news(&h->accepted)) {
        tell_accepted(h);
    }
    if (h->ran && is_news(&h->started)) {
        tell_started(h);
    }
}

void held_session_opened(struct held *h)
{
    logship_new_session(&h->log);
    h->fresh_output = true;
    if (!h->quiet) { /* those are told of at the next tick */
        held_tell(h);
    }
}

static void learn(struct held_news *n, uint64_t acked)
{
    n->known = n->known || (n->seq != 0 && n->seq <= acked);
}

void held_session_closed(struct held *h)
{
    learn(&h->accepted, h->agent->session.acked); /* of a quiet one nobody asked until now */
    learn(&h->started, h->agent->session.acked);
    h->accepted.seq = h->started.seq = h->returned.seq = 0;
    h->finish_sent = false;
}

void held_acked(struct held *h)
{
    uint64_t acked = h->agent->session.acked;
    learn(&h->accepted, acked);
    learn(&h->started, acked);
    learn(&h->returned, acked);
    if (h->phase == HELD_RETURNING && h->returned.known) {
        held_forget(h);
    } else if (h->phase == HELD_WAITING && h->accepted.known && !h->ready) {
        /* Taken over unstarted, and still ours: the broker would have fenced it. */
        if (agent_refuses_work(h->agent) != NULL) {
            held_give_back(h);
        } else {
            held_ready(h);
        }
    }
}

void held_log_acked(struct held *h, uint64_t durable)
{
    logship_acked(&h->log, durable, os_monotonic_ms());
    h->fresh_output = true;
    if (h->finish_sent && !logship_done(&h->log)) {
        h->finish_sent = false; /* the broker wants bytes before it takes the end */
    }
}

static void send_chunk(struct held *h, uint64_t offset, struct str bytes)
{
    Pb__JobKey key;
    Pb__LogChunk body = PB__LOG_CHUNK__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    key_init(&key, h);
    body.key = &key;
    body.offset = offset;
    body.data = pb_bytes_ref(bytes);
    e.body_case = PB__ENVELOPE__BODY_LOG_CHUNK;
    e.log_chunk = &body;
    session_send(&h->agent->session, &e);
}

/* A log that cannot be read is not given up: the job waits here until the disk is well again, or
 * until the broker takes it away. */
static void log_unreadable(struct held *h, int r)
{
    if (!h->unreadable) {
        log_error("job %" PRIu64 ": its log cannot be read: %s", h->key.job_id, err_text(r));
    }
    h->unreadable = true;
    h->fresh_output = false;
}

bool held_ship(struct held *h)
{
    if (!h->fresh_output || (h->phase != HELD_RUNNING && h->phase != HELD_ENDED)) {
        return false;
    }
    struct buf *out = &h->agent->chunk;
    uint64_t offset;
    buf_clear(out);
    int step = logship_next(&h->log, h->agent->session.log_window, os_monotonic_ms(), out, &offset);
    if (step < 0) {
        log_unreadable(h, step);
        return false;
    }
    if (step == LOGSHIP_CHUNK) {
        send_chunk(h, offset, buf_str(out));
    }
    if (step != LOGSHIP_IDLE) {
        return true;
    }
    h->fresh_output = false;
    if (h->phase == HELD_ENDED && !h->finish_sent && logship_done(&h->log)) {
        held_tell_end(h);
    }
    return false;
}
