#include "common/base.h"

#include <stdlib.h>
#include <utlist.h>

#include "broker/net/state.h"
#include "common/log.h"

#define ACK_DELAY_MS 50u
#define QUEUE_LIMIT  4096u /* messages that wait for a worker's acknowledgements */

static void session_count(struct fleet *f)
{
    pthread_mutex_lock(&f->lock);
    f->stats.sessions = HASH_COUNT(f->sessions);
    pthread_mutex_unlock(&f->lock);
}

struct session *session_new(struct fleet *f, uint32_t pipe)
{
    struct session *s = xcalloc(1, sizeof(*s));

    s->pipe = pipe;
    s->close_at_ms = f->turn.mono_ms + f->c.hello_ms;
    s->queue_tail = &s->queue;
    f->next_scan_ms = MIN(f->next_scan_ms, s->close_at_ms);
    HASH_ADD(hh, f->sessions, pipe, sizeof(s->pipe), s);
    session_count(f);
    return s;
}

struct session *session_find(struct fleet *f, uint32_t pipe)
{
    struct session *s;

    HASH_FIND(hh, f->sessions, &pipe, sizeof(pipe), s);
    return s;
}

static void ack_done(struct fleet *f, struct session *s)
{
    if (s->ack_due_ms != 0) {
        DL_DELETE2(f->acks, s, ack_prev, ack_next);
        s->ack_due_ms = 0;
    }
}

static void not_dirty(struct fleet *f, struct session *s)
{
    if (s->dirty) {
        DL_DELETE2(f->dirty, s, dirty_prev, dirty_next);
        s->dirty = false;
    }
}

void session_dirty(struct fleet *f, struct session *s)
{
    if (!s->dirty && !s->ended) {
        DL_APPEND2(f->dirty, s, dirty_prev, dirty_next);
        s->dirty = true;
    }
}

static void drop_queue(struct session *s)
{
    while (s->queue != NULL) {
        struct out *next = s->queue->next;
        free(s->queue);
        s->queue = next;
    }
    s->queue_tail = &s->queue;
    s->queued = 0;
}

void session_end(struct fleet *f, struct session *s)
{
    if (s->ended) {
        return;
    }
    if (f->wire != NULL) {
        wire_close_pipe(f->wire, s->pipe);
    }
    HASH_DELETE(hh, f->sessions, s);
    session_count(f);
    ack_done(f, s);
    not_dirty(f, s);
    drop_queue(s);
    s->ended = true;
    LL_PREPEND2(f->ended, s, ended_next);
    if (s->peer != NULL) {
        check(s->peer->session == s);
        s->peer->session = NULL;
        s->peer->suspect = true;
        s->peer->lost |= s->peer->left;
        f->lost_now |= s->peer->left;
        peer_publish(f, s->peer);
        s->peer = NULL;
    }
}

void session_reap(struct fleet *f)
{
    while (f->ended != NULL) {
        struct session *next = f->ended->ended_next;
        free(f->ended);
        f->ended = next;
    }
}

void session_violation(struct fleet *f, struct session *s, const char *what)
{
    log_warn("net: %s broke the protocol: %s", s->peer != NULL ? s->peer->actor : "a stranger",
             what);
    pthread_mutex_lock(&f->lock);
    f->stats.violations++;
    pthread_mutex_unlock(&f->lock);
    session_end(f, s);
}

static struct out *out_new(struct fleet *f, const Pb__Envelope *body, const Pb__JobKey *key)
{
    buf_clear(&f->pack);
    PB_PACK(body, &f->pack);
    struct out *o = xcalloc(1, sizeof(*o) + f->pack.n);
    o->kind = body->body_case;
    o->n = f->pack.n;
    memcpy(o->body, f->pack.p, f->pack.n);
    if (key != NULL) {
        o->job_id = key->job_id;
        o->attempt = key->attempt;
        o->epoch = key->epoch;
    }
    return o;
}

/* What waits already about the same thing is out of date. */
static bool replace(struct session *s, struct out *o)
{
    for (struct out **at = &s->queue; o->job_id != 0 && *at != NULL; at = &(*at)->next) {
        struct out *old = *at;
        if (old->kind != o->kind || old->job_id != o->job_id || old->attempt != o->attempt ||
            old->epoch != o->epoch) {
            continue;
        }
        o->next = old->next;
        *at = o;
        if (s->queue_tail == &old->next) {
            s->queue_tail = &o->next;
        }
        free(old);
        return true;
    }
    return false;
}

void session_send(struct fleet *f, struct session *s, Pb__Envelope *body, const Pb__JobKey *key)
{
    check(body->seq == 0 && body->session == 0);
    if (s->ended) {
        return;
    }
    struct out *o = out_new(f, body, key);
    session_dirty(f, s);
    if (replace(s, o)) {
        return;
    }
    *s->queue_tail = o;
    s->queue_tail = &o->next;
    s->queued++;
    if (s->queued > QUEUE_LIMIT) {
        session_violation(f, s, "acknowledges nothing");
    }
}

uint32_t session_credit(const struct session *s)
{
    uint64_t used = s->seq_out - s->acked + s->queued;

    return used < WIRE_CREDIT ? (uint32_t)(WIRE_CREDIT - used) : 0;
}

bool session_take_numbers(struct fleet *f, struct session *s, const Pb__Envelope *e)
{
    bool numbered = e->body_case != PB__ENVELOPE__BODY_HEARTBEAT;

    if (e->seq != (numbered ? s->seq_in + 1 : 0) || e->ack < s->acked || e->ack > s->seq_out) {
        return false;
    }
    if (e->ack > s->acked) {
        f->capacity_changed |= session_credit(s) == 0;
        s->acked = e->ack;
    }
    if (numbered) {
        s->seq_in = e->seq;
        if (s->ack_due_ms == 0) {
            s->ack_due_ms = f->turn.mono_ms + ACK_DELAY_MS;
            DL_APPEND2(f->acks, s, ack_prev, ack_next);
        }
    }
    return true;
}

/* Says everything but the body. */
static void send_body(struct fleet *f, struct session *s, uint64_t seq, struct str body)
{
    Pb__Envelope head = PB__ENVELOPE__INIT;

    head.version = WIRE_VERSION;
    head.session = s->number;
    head.seq = seq;
    head.ack = s->seq_in;
    buf_clear(&f->pack);
    PB_PACK(&head, &f->pack);
    wire_send(f->wire, s->pipe, buf_str(&f->pack), body);
    ack_done(f, s);
    pthread_mutex_lock(&f->lock);
    f->stats.messages_out++;
    f->stats.bytes_out += f->pack.n + body.n;
    pthread_mutex_unlock(&f->lock);
}

static void send_beat(struct fleet *f, struct session *s)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__HeartbeatAck beat = PB__HEARTBEAT_ACK__INIT;
    struct buf packed = BUF_INIT;

    beat.sent_ms = s->beat_due ? s->beat_sent_ms : 0;
    body.body_case = PB__ENVELOPE__BODY_HEARTBEAT_ACK;
    body.heartbeat_ack = &beat;
    PB_PACK(&body, &packed);
    send_body(f, s, 0, buf_str(&packed));
    buf_release(&packed);
    s->beat_due = false;
}

static void flush(struct fleet *f, struct session *s)
{
    while (s->queue != NULL) {
        struct out *o = s->queue;
        bool numbered = o->kind != PB__ENVELOPE__BODY_REFUSED;
        if (numbered && s->seq_out - s->acked >= WIRE_CREDIT) {
            break;
        }
        send_body(f, s, numbered ? s->seq_out + 1 : 0, str_of(o->body, o->n));
        s->seq_out += numbered;
        s->queue = o->next;
        s->queue_tail = s->queue != NULL ? s->queue_tail : &s->queue;
        s->queued--;
        free(o);
    }
    if (s->beat_due) {
        send_beat(f, s);
    }
}

void session_flush_all(struct fleet *f, uint64_t mono_ms)
{
    struct session *s;
    struct session *tmp;

    DL_FOREACH_SAFE2(f->dirty, s, tmp, dirty_next)
    {
        s->spoke = false;
        if (s->peer != NULL && !s->peer->view.online) {
            peer_publish(f, s->peer); /* whoever reads its Welcome finds it online */
        }
        flush(f, s);
        not_dirty(f, s);
        if (s->peer != NULL) {
            peer_publish(f, s->peer);
        }
    }
    while (f->acks != NULL && f->acks->ack_due_ms <= mono_ms) {
        send_beat(f, f->acks);
    }
}
