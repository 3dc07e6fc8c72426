#include "common/base.h"

#include <stdlib.h>

#include "broker/core/query.h"
#include "broker/net/state.h"
#include "common/log.h"

#define SCAN_MIN_MS 10u /* however many leases end close to each other */
#define REST_MS     30000u
#define STALL_MS    2000u /* the turn ticks every second: a longer gap means that we slept */

struct peer *peer_find(struct fleet *f, uint64_t worker_id)
{
    struct peer *p;

    HASH_FIND(hh, f->peers, &worker_id, sizeof(worker_id), p);
    return p;
}

struct peer *peer_get(struct fleet *f, uint64_t worker_id)
{
    struct peer *p = peer_find(f, worker_id);

    if (p == NULL) {
        check(worker_id != 0);
        p = xcalloc(1, sizeof(*p));
        p->worker_id = worker_id;
        p->record_stale = true;
        arena_init(&p->record_arena, 0);
        pthread_mutex_lock(&f->lock);
        HASH_ADD(hh, f->peers, worker_id, sizeof(p->worker_id), p);
        pthread_mutex_unlock(&f->lock);
    }
    return p;
}

void peer_load(struct peer *p, struct tx *tx)
{
    const Pb__WorkerRecord *record = worker_get(tx, p->worker_id);

    if (record == NULL) {
        check(!tx_ok(tx)); /* a peer comes from a Hello or an assignment: both have a record */
        return;
    }
    arena_release(&p->record_arena);
    p->record = (const Pb__WorkerRecord *)pb_copy(&p->record_arena, &record->base);
    p->actor = arena_printf(&p->record_arena, "worker %s", record->name);
    p->record_stale = false;
}

struct times peer_pool_times(const struct fleet *f, const struct peer *p, struct tx *tx)
{
    const Pb__PoolRecord *pool = p->record != NULL ? pool_get(tx, p->record->pool) : NULL;
    struct times t = {.heartbeat_ms = f->c.heartbeat_ms, .lease_ms = f->c.lease_ms};

    if (pool != NULL && pool->heartbeat_ms != 0) {
        t = (struct times){.heartbeat_ms = pool->heartbeat_ms,
                           .suspect_ms = pool->suspect_ms,
                           .lease_ms = pool->lease_ms};
    }
    t.suspect_ms = t.suspect_ms != 0 ? t.suspect_ms : t.heartbeat_ms + t.heartbeat_ms / 2;
    return t;
}

/* Until it has heard of its new times the worker may beat at the old pace: the longer lease counts,
 * and it begins now. */
static void change_times(struct fleet *f, struct peer *p, struct times t)
{
    p->times.lease_ms = MAX(p->times.lease_ms, t.lease_ms);
    p->times.suspect_ms = MAX(p->times.suspect_ms, t.suspect_ms);
    p->heard_ms = f->turn.mono_ms;
    f->next_scan_ms = f->turn.mono_ms;
    if (p->session != NULL) {
        log_info("net: %s comes anew for the times of its pool", p->actor);
        session_end(f, p->session);
    }
}

void peer_settings_changed(struct fleet *f, struct tx *tx)
{
    struct peer *p;
    struct peer *tmp;

    HASH_ITER (hh, f->peers, p, tmp) {
        struct times t = peer_pool_times(f, p, tx);
        if (p->session != NULL ? memcmp(&t, &p->times, sizeof(t)) != 0
                               : t.lease_ms > p->times.lease_ms) {
            change_times(f, p, t);
        }
    }
}

void peer_heard(struct fleet *f, struct peer *p)
{
    p->heard_ms = f->turn.mono_ms;
    p->heard_real_ms = f->turn.now_ms;
    p->silence.overdue = false;
    f->next_scan_ms = MIN(f->next_scan_ms, p->heard_ms + p->times.suspect_ms + 1);
    if (p->suspect && p->session != NULL) {
        p->suspect = false;
        peer_touch(f, p);
        f->capacity_changed = true;
    }
}

void peer_touch(struct fleet *f, struct peer *p)
{
    if (p->touched) {
        return;
    }
    p->touched = true;
    if (f->touched_count == f->touched_cap) {
        f->touched_cap = MAX(2 * f->touched_cap, 64);
        f->touched = xrealloc(f->touched, f->touched_cap * sizeof(*f->touched));
    }
    f->touched[f->touched_count++] = p->worker_id;
}

void peer_forget(struct fleet *f, struct peer *p)
{
    peer_touch(f, p);
    if (p->session != NULL) {
        session_end(f, p->session);
    }
    pthread_mutex_lock(&f->lock);
    HASH_DELETE(hh, f->peers, p);
    f->stats.online -= p->view.online;
    pthread_mutex_unlock(&f->lock);
    arena_release(&p->record_arena);
    free(p);
}

void peer_publish(struct fleet *f, struct peer *p)
{
    const struct session *s = p->session;
    struct fleet_worker view = {
        .worker_id = p->worker_id,
        .online = s != NULL,
        .suspect = p->suspect,
        .session = s != NULL ? s->number : 0,
        .last_heard_ms = p->heard_real_ms,
        .unacked = s != NULL ? (uint32_t)(s->seq_out - s->acked) : 0,
        .queued = s != NULL ? s->queued : 0,
    };

    pthread_mutex_lock(&f->lock);
    f->stats.online += (uint32_t)view.online - (uint32_t)p->view.online;
    p->view = view;
    pthread_mutex_unlock(&f->lock);
}

/* Its jobs are somebody else's from the commit on; the peer itself goes after it. */
static void lose(struct fleet *f, struct peer *p)
{
    const Pb__AssignmentRecord **list;
    size_t count = worker_assignments(f->turn.tx, p->worker_id, &list);

    log_write(count > 0 ? LOG_WARN : LOG_INFO,
              "net: %s is lost, silent for %" PRIu64 " ms, with %zu jobs", p->actor,
              f->turn.mono_ms - p->heard_ms, count);
    for (size_t i = 0; i < count; i++) {
        if (!list[i]->waiting) {
            command_lost(f, p, list[i], false);
        }
    }
    p->lost = true;
    f->lost_now = true;
}

void peer_rest(struct fleet *f, struct peer *p)
{
    log_warn("net: %s left an order without an answer: no new work for it for %u s", p->actor,
             REST_MS / 1000u);
    p->rest_until_ms = f->turn.mono_ms + REST_MS;
    peer_touch(f, p);
    f->next_scan_ms = MIN(f->next_scan_ms, p->rest_until_ms);
}

/* Returns when to look again. */
static uint64_t rest_check(struct fleet *f, struct peer *p)
{
    if (p->rest_until_ms > f->turn.mono_ms) {
        return p->rest_until_ms;
    }
    if (p->rest_until_ms != 0) {
        f->capacity_changed = true;
        peer_touch(f, p);
    }
    p->rest_until_ms = 0;
    return UINT64_MAX;
}

/* Silence is silence only once all is read that came before the time was over: a busy turn must not
 * take somebody for lost whose heartbeat lies in the inbox. */
static bool is_silent(struct fleet *f, struct silence *silence)
{
    if (!silence->overdue) {
        silence->overdue = true;
        silence->mark = inbox_pushed(f->c.inbox);
    }
    return inbox_taken(f->c.inbox) >= silence->mark;
}

/* Returns when to look again. */
static uint64_t peer_check(struct fleet *f, struct peer *p)
{
    uint64_t silence_ms = f->turn.mono_ms - p->heard_ms;

    if (!p->suspect && silence_ms > p->times.suspect_ms) {
        log_info("net: %s is suspect, silent for %" PRIu64 " ms", p->actor, silence_ms);
        p->suspect = true;
        peer_touch(f, p);
        peer_publish(f, p);
    }
    if (silence_ms < p->times.lease_ms) {
        return p->heard_ms + (p->suspect ? p->times.lease_ms : p->times.suspect_ms + 1);
    }
    if (!is_silent(f, &p->silence)) {
        return f->turn.mono_ms;
    }
    lose(f, p);
    return UINT64_MAX;
}

/* We were stopped, or the machine slept: that is nobody else's silence. */
void fleet_awake(struct fleet *f, uint64_t mono_ms)
{
    uint64_t gap_ms = mono_ms - f->awake_ms;
    struct session *s;
    struct session *s_tmp;
    struct peer *p;
    struct peer *p_tmp;

    f->awake_ms = mono_ms;
    if (gap_ms <= STALL_MS) {
        return;
    }
    log_warn("net: the broker stood still for %" PRIu64 " ms: leases are longer by that", gap_ms);
    HASH_ITER (hh, f->sessions, s, s_tmp) {
        s->close_at_ms += s->close_at_ms != 0 ? gap_ms : 0;
    }
    HASH_ITER (hh, f->peers, p, p_tmp) {
        p->heard_ms = MIN(p->heard_ms + gap_ms, mono_ms);
    }
    f->next_scan_ms = mono_ms;
}

static void session_overdue(struct fleet *f, struct session *s)
{
    if (s->client != NULL && !s->closing) {
        log_info("net: client %s is silent, its session ends", s->client->name);
        session_end(f, s);
    } else if (!s->closing) {
        session_violation(f, s, "said no Hello in time");
    } else {
        session_end(f, s);
    }
}

/* Returns when to look again. */
static uint64_t session_check(struct fleet *f, struct session *s)
{
    if (s->close_at_ms == 0) {
        return UINT64_MAX;
    }
    if (s->close_at_ms > f->turn.mono_ms) {
        return s->close_at_ms;
    }
    if (!s->closing && !is_silent(f, &s->silence)) {
        return f->turn.mono_ms;
    }
    session_overdue(f, s);
    return UINT64_MAX;
}

void peer_scan(struct fleet *f)
{
    uint64_t next_ms = UINT64_MAX;
    struct session *s;
    struct session *s_tmp;
    struct peer *p;
    struct peer *p_tmp;

    if (f->turn.mono_ms < f->next_scan_ms) {
        return;
    }
    HASH_ITER (hh, f->sessions, s, s_tmp) {
        uint64_t due_ms = session_check(f, s);
        next_ms = MIN(next_ms, due_ms);
    }
    HASH_ITER (hh, f->peers, p, p_tmp) {
        uint64_t rested_ms = rest_check(f, p);
        uint64_t due_ms = peer_check(f, p);
        next_ms = MIN(next_ms, MIN(rested_ms, due_ms));
    }
    f->next_scan_ms = MAX(next_ms, f->turn.mono_ms + SCAN_MIN_MS);
}
