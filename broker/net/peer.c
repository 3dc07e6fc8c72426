#include "common/base.h"

#include <stdlib.h>
#include <utlist.h>

#include "broker/core/query.h"
#include "broker/net/state.h"
#include "common/log.h"

#define REST_MS     30000u
#define REST_MIN_MS 250u /* of one that gave a job back once */
#define RECORD_ROOM 768u /* of the record of most workers, and its name for the log */

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
        p->deadline.peer = p;
        arena_init_small(&p->record_arena, RECORD_ROOM);
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
    peer_look(f, p, f->turn.mono_ms);
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
    peer_look(f, p, p->heard_ms + p->times.suspect_ms + 1);
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
    peer_keep(f, p);
    deadline_clear(f, &p->deadline);
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
        .health = p->health,
    };

    pthread_mutex_lock(&f->lock);
    f->stats.online += (uint32_t)view.online - (uint32_t)p->view.online;
    p->view = view;
    pthread_mutex_unlock(&f->lock);
}

void peer_lose(struct fleet *f, struct peer *p)
{
    if (!p->lost) {
        p->lost = true;
        DL_APPEND2(f->lost, p, lost_prev, lost_next);
    }
}

void peer_keep(struct fleet *f, struct peer *p)
{
    if (p->lost) {
        p->lost = false;
        DL_DELETE2(f->lost, p, lost_prev, lost_next);
        peer_look(f, p, f->turn.mono_ms);
    }
}

static void rest(struct fleet *f, struct peer *p, uint32_t rest_ms)
{
    p->rest_until_ms = f->turn.mono_ms + rest_ms;
    peer_touch(f, p);
    peer_look(f, p, p->rest_until_ms);
}

void peer_rest(struct fleet *f, struct peer *p)
{
    log_warn("net: %s left an order without an answer: no new work for it for %u s", p->actor,
             REST_MS / 1000u);
    rest(f, p, REST_MS);
}

void peer_gave_back(struct fleet *f, struct peer *p)
{
    if (p->rest_until_ms != 0) {
        return; /* all that it got at once is given back once */
    }
    const uint32_t rest_ms = p->given_back < 7 ? REST_MIN_MS << p->given_back : REST_MS;

    if (rest_ms == REST_MS) {
        log_warn("net: %s gives back whatever it gets: no new work for it for %u s", p->actor,
                 REST_MS / 1000u);
    }
    p->given_back++;
    rest(f, p, rest_ms);
}

void peer_worked(struct peer *p)
{
    p->given_back = 0;
}
