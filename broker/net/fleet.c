#include "common/base.h"

#include <stdlib.h>

#include "broker/core/query.h"
#include "broker/net/state.h"
#include "common/log.h"

struct fleet *fleet_new(const struct fleet_config *config)
{
    struct fleet *f = xcalloc(1, sizeof(*f));

    f->c = *config;
    f->c.heartbeat_ms = config->heartbeat_ms != 0 ? config->heartbeat_ms : FLEET_HEARTBEAT_MS;
    f->c.lease_ms = config->lease_ms != 0 ? config->lease_ms : FLEET_LEASE_MS;
    f->c.hello_ms = config->hello_ms != 0 ? config->hello_ms : FLEET_HELLO_MS;
    deadlines_init(f);
    arena_init(&f->arena, 0);
    buf_init(&f->head, 0);
    buf_init(&f->body, 0);
    check(pthread_mutex_init(&f->lock, NULL) == 0);
    return f;
}

void fleet_free(struct fleet *f)
{
    struct session *s;
    struct session *s_tmp;
    struct peer *p;
    struct peer *p_tmp;

    if (f == NULL) {
        return;
    }
    fleet_close(f);
    HASH_ITER (hh, f->sessions, s, s_tmp) {
        session_end(f, s);
    }
    session_reap(f);
    HASH_ITER (hh, f->peers, p, p_tmp) {
        peer_forget(f, p);
    }
    deadlines_release(f);
    arena_release(&f->arena);
    buf_release(&f->head);
    buf_release(&f->body);
    pthread_mutex_destroy(&f->lock);
    free(f->api_url);
    free(f->touched);
    free(f);
}

int fleet_listen(struct fleet *f, const char *url, const char *api_url, uint16_t *ret_port,
                 struct buf *why)
{
    check(f->wire == NULL);
    f->api_url = xstrdup(api_url);
    return wire_listen(f->c.inbox, url, f->c.tls, &f->wire, ret_port, why);
}

void fleet_close(struct fleet *f)
{
    wire_close(f->wire);
    f->wire = NULL;
}

static void note_holder(void *ctx, const Pb__AssignmentRecord *a)
{
    struct fleet *f = ctx;

    peer_get(f, a->worker_id)->suspect = true;
}

uint64_t fleet_recover(struct fleet *f, struct tx *tx, uint64_t now_ms, uint64_t mono_ms)
{
    struct peer *p;
    struct peer *tmp;
    uint64_t lease_ms = 0;

    f->turn = (struct fleet_turn){.tx = tx, .now_ms = now_ms, .mono_ms = mono_ms};
    f->awake_ms = mono_ms;
    core_recover(tx, note_holder, f);
    HASH_ITER (hh, f->peers, p, tmp) {
        peer_load(p, tx);
        p->times = peer_pool_times(f, p, tx);
        lease_ms = MAX(lease_ms, p->times.lease_ms);
        peer_touch(f, p);
        peer_heard(f, p);
        peer_publish(f, p);
    }
    f->turn.tx = NULL;
    return f->peers != NULL ? mono_ms + lease_ms : 0;
}

uint64_t fleet_next_due_ms(const struct fleet *f)
{
    uint64_t due_ms = deadlines_next_ms(f);

    if (f->capacity_changed) {
        return 0;
    }
    return f->acks != NULL ? MIN(due_ms, f->acks->ack_due_ms) : due_ms;
}

bool fleet_due(const struct fleet *f, uint64_t mono_ms)
{
    return fleet_next_due_ms(f) <= mono_ms;
}

void fleet_begin(struct fleet *f, const struct fleet_turn *turn)
{
    session_reap(f);
    f->turn = *turn;
}

static void take_message(struct fleet *f, struct item *item)
{
    struct session *s = session_find(f, item->pipe);

    pthread_mutex_lock(&f->lock);
    f->stats.messages_in++;
    f->stats.bytes_in += item->bytes;
    pthread_mutex_unlock(&f->lock);
    if (s == NULL || s->closing) {
        return;
    }
    if (!tx_ok(f->turn.tx)) {
        s->spoke = true; /* unheard: fleet_failed ends the session */
        return;
    }
    message_take(f, s, wire_msg_body(item->msg));
}

static void pipe_up(struct fleet *f, uint32_t pipe)
{
    session_new(f, pipe);
}

static void pipe_down(struct fleet *f, uint32_t pipe)
{
    struct session *s = session_find(f, pipe);

    if (s == NULL) {
        wire_close_pipe(f->wire, pipe);
        return;
    }
    certify_say_failure(f, s);
    if (s->peer != NULL && !s->closing) {
        log_info("net: %s is gone, its lease runs on", s->peer->actor);
    }
    session_end(f, s);
}

/* The log writer has more of a log on the disk: its worker may forget those bytes. */
static void log_durable(struct fleet *f, const struct item *item)
{
    Pb__JobKey key = PB__JOB_KEY__INIT;
    const Pb__AssignmentRecord *a = assignment_get(f->turn.tx, item->job_id);

    if (a == NULL || a->attempt != item->attempt || a->epoch != item->epoch) {
        return;
    }
    struct peer *p = peer_find(f, a->worker_id);
    if (p != NULL && p->session != NULL) {
        key.job_id = item->job_id;
        key.attempt = item->attempt;
        key.epoch = item->epoch;
        send_log_ack(f, p->session, &key, item->durable);
    }
}

void fleet_item(struct fleet *f, struct item *item)
{
    switch (item->kind) {
    case ITEM_POST:
        check(false);
        break;
    case ITEM_MESSAGE:
        take_message(f, item);
        break;
    case ITEM_PIPE_UP:
        pipe_up(f, item->pipe);
        break;
    case ITEM_PIPE_DOWN:
        pipe_down(f, item->pipe);
        break;
    case ITEM_LOG:
        log_durable(f, item);
        break;
    }
}

void fleet_drop_item(struct item *item)
{
    wire_msg_free(item->msg);
    item->msg = NULL;
}

void fleet_tick(struct fleet *f)
{
    deadlines_pass(f);
}

bool fleet_take_capacity_change(struct fleet *f)
{
    bool changed = f->capacity_changed;

    f->capacity_changed = false;
    return changed;
}

static bool is_open(const struct peer *p)
{
    const struct session *s = p->session;

    return s != NULL && !s->closing && !p->suspect && !p->draining && !p->disk_low &&
           p->rest_until_ms == 0 && !p->record->paused && !p->record->draining &&
           session_credit(s) > 0; /* one message takes them all */
}

size_t fleet_changes(struct fleet *f, struct fleet_change **ret)
{
    struct fleet_change *list = arena_array(tx_arena(f->turn.tx), f->touched_count + 1,
                                            sizeof(*list));
    size_t count = 0;

    for (size_t i = 0; i < f->touched_count; i++) {
        struct peer *p = peer_find(f, f->touched[i]);
        struct fleet_change *c = &list[count];
        c->worker_id = f->touched[i];
        if (p != NULL) {
            p->touched = false;
            if (p->record_stale) {
                peer_load(p, f->turn.tx);
            }
            if (p->record == NULL) {
                continue; /* the transaction failed: all is told again */
            }
            c->record = p->record;
            c->open = is_open(p);
        }
        count++;
    }
    f->touched_count = 0;
    *ret = list;
    return count;
}

void fleet_committed(struct fleet *f, struct tx *tx, const struct effects *fx)
{
    bool settings = false;

    for (size_t i = 0; i < fx->count; i++) {
        effect_take(f, tx, &fx->items[i]);
        settings |= fx->items[i].kind == EFFECT_SETTINGS;
    }
    if (settings) {
        peer_settings_changed(f, tx);
    }
}

static void forget_lost(struct fleet *f)
{
    while (f->lost != NULL) {
        struct peer *p = f->lost;
        pthread_mutex_lock(&f->lock);
        f->stats.lost += !p->left;
        pthread_mutex_unlock(&f->lock);
        peer_forget(f, p);
    }
}

void fleet_flush(struct fleet *f, uint64_t now_ms, uint64_t mono_ms)
{
    forget_lost(f);
    session_flush_all(f, mono_ms);
}

void fleet_failed(struct fleet *f)
{
    struct session *s;
    struct session *s_tmp;
    struct peer *p;
    struct peer *p_tmp;

    HASH_ITER (hh, f->sessions, s, s_tmp) {
        if (s->spoke) {
            session_end(f, s);
        }
    }
    HASH_ITER (hh, f->peers, p, p_tmp) {
        peer_keep(f, p);
        p->record_stale = true;
        peer_touch(f, p);
        if (p->unsure) { /* its worker may never have been: another may get the id */
            peer_forget(f, p);
        }
    }
    f->capacity_changed = true;
}

void fleet_resume(struct fleet *f)
{
    wire_resume(f->wire);
}

bool fleet_worker_state(struct fleet *f, uint64_t worker_id, struct fleet_worker *ret)
{
    pthread_mutex_lock(&f->lock);
    const struct peer *p = peer_find(f, worker_id);
    if (p != NULL) {
        *ret = p->view;
    }
    pthread_mutex_unlock(&f->lock);
    return p != NULL;
}

uint32_t fleet_online_count(struct fleet *f)
{
    struct fleet_stats stats;

    fleet_get_stats(f, &stats);
    return stats.online;
}

void fleet_get_stats(struct fleet *f, struct fleet_stats *ret)
{
    pthread_mutex_lock(&f->lock);
    *ret = f->stats;
    pthread_mutex_unlock(&f->lock);
}
