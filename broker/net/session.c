#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include "broker/core/query.h"
#include "broker/net/state.h"
#include "common/log.h"

#define ACK_DELAY_MS 50u
#define CLOSE_MS     500u
#define QUEUE_LIMIT  4096u /* messages that wait for a worker's acknowledgements */
#define QUEUE_BYTES  (16u * MIB)
#define CREDIT_BYTES (1u * MIB) /* so many wait: no new work until they are gone */

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
    s->version = WIRE_VERSION;
    s->deadline.session = s;
    s->close_at_ms = f->turn.mono_ms + f->c.hello_ms;
    session_look(f, s, s->close_at_ms);
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

static void out_free(struct out *o)
{
    buf_release(&o->content);
    free(o);
}

static void drop_queue(struct session *s)
{
    while (s->queue != NULL) {
        struct out *next = s->queue->next;
        out_free(s->queue);
        s->queue = next;
    }
    s->queue_last = NULL;
    s->queued = s->answers = 0;
    s->queued_bytes = 0;
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
    deadline_clear(f, &s->deadline);
    s->ended = true;
    LL_PREPEND2(f->ended, s, ended_next);
    if (s->client != NULL) {
        client_free(f, s->client);
        s->client = NULL;
    }
    if (s->peer != NULL) {
        check(s->peer->session == s);
        s->peer->session = NULL;
        s->peer->suspect = true;
        peer_touch(f, s->peer);
        if (s->peer->left) {
            peer_lose(f, s->peer);
        }
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
    const char *who = s->peer != NULL     ? s->peer->actor
                      : s->client != NULL ? s->client->name
                                          : "a stranger";

    log_warn("net: %s broke the protocol: %s", who, what);
    pthread_mutex_lock(&f->lock);
    f->stats.violations++;
    pthread_mutex_unlock(&f->lock);
    session_end(f, s);
}

void session_close_soon(struct fleet *f, struct session *s)
{
    s->closing = true;
    s->close_at_ms = f->turn.mono_ms + CLOSE_MS;
    session_look(f, s, s->close_at_ms);
}

void session_refuse(struct fleet *f, struct session *s, int why, const char *text,
                    uint32_t retry_after_ms)
{
    log_warn("net: a session is refused: %s", text);
    send_refused(f, s, why, text, retry_after_ms);
    session_close_soon(f, s);
    pthread_mutex_lock(&f->lock);
    f->stats.refused++;
    pthread_mutex_unlock(&f->lock);
}

static const Pb__TokenRecord *good_token(struct fleet *f, const uint8_t hash[SHA256_BYTES])
{
    const Pb__TokenRecord *t = token_get(f->turn.tx, hash);

    return t != NULL && !token_has_expired(t, f->turn.now_ms) ? t : NULL;
}

const Pb__TokenRecord *session_token(struct fleet *f, struct session *s, struct str token)
{
    s->by_token = true;
    crypto_sha256(token.p, token.n, s->token_hash);
    return good_token(f, s->token_hash);
}

bool session_may_go_on(struct fleet *f, struct session *s)
{
    const bool good = !s->by_token || good_token(f, s->token_hash) != NULL;

    if (!tx_ok(f->turn.tx)) {
        return false;
    }
    if (!good) {
        session_refuse(f, s, -E_UNAUTHORIZED, "the token was revoked, or its time is over", 0);
    } else if (s->peer != NULL && certify_is_over(f, s->peer)) {
        session_refuse(f, s, -E_UNAUTHORIZED, "the certificate has expired: join again", 0);
        return false;
    }
    return good;
}

bool session_take_version(struct fleet *f, struct session *s, uint32_t version)
{
    char text[96];

    s->version = MIN(version, WIRE_VERSION); /* so that it understands the refusal */
    if (version >= WIRE_VERSION_OLDEST && version <= WIRE_VERSION) {
        return true;
    }
    snprintf(text, sizeof(text), "version %u of the protocol is not served here: %u to %u are",
             version, WIRE_VERSION_OLDEST, WIRE_VERSION);
    session_refuse(f, s, -E_VERSION, text, 0);
    return false;
}

static bool is_answer(Pb__Envelope__BodyCase kind)
{
    return kind == PB__ENVELOPE__BODY_CLIENT_ENQUEUED || kind == PB__ENVELOPE__BODY_CLIENT_ANSWER;
}

static bool is_stale(const Pb__Envelope *body)
{
    return body->body_case == PB__ENVELOPE__BODY_FINISH_ACK && body->finish_ack->stale;
}

/* True: the message that waits last has taken in what was to be sent. */
static bool join_last(struct session *s, const Pb__Envelope *body, struct str content)
{
    struct out *last = s->queue_last;
    size_t count = envelope_count(body);

    if (last == NULL || last->kind != body->body_case || !envelope_is_list(last->kind) ||
        last->stale != is_stale(body) || last->count + count > LIMIT_HELD_JOBS ||
        last->content.n + content.n > ENVELOPE_CONTENT_MAX) {
        return false;
    }
    buf_add(&last->content, content.p, content.n);
    last->count += count;
    return true;
}

/* What waits already about the same thing is out of date. */
static bool replace(struct session *s, const Pb__Envelope *body, const Pb__JobKey *key,
                    struct str content)
{
    if (key == NULL) {
        return false;
    }
    for (struct out *o = s->queue; o != NULL; o = o->next) {
        if (o->kind == body->body_case && o->job_id == key->job_id && o->attempt == key->attempt &&
            o->epoch == key->epoch) {
            s->queued_bytes -= o->content.n;
            buf_clear(&o->content);
            buf_add(&o->content, content.p, content.n);
            return true;
        }
    }
    return false;
}

static void append(struct session *s, const Pb__Envelope *body, const Pb__JobKey *key,
                   struct str content)
{
    struct out *o = xcalloc(1, sizeof(*o));

    o->kind = body->body_case;
    o->stale = is_stale(body);
    o->count = envelope_count(body);
    buf_init(&o->content, 0);
    buf_add(&o->content, content.p, content.n);
    if (key != NULL) {
        o->job_id = key->job_id;
        o->attempt = key->attempt;
        o->epoch = key->epoch;
    }
    *(s->queue_last != NULL ? &s->queue_last->next : &s->queue) = o;
    s->queue_last = o;
    s->queued++;
    s->answers += is_answer(o->kind);
}

void session_send(struct fleet *f, struct session *s, Pb__Envelope *body, const Pb__JobKey *key)
{
    check(body->seq == 0 && body->session == 0);
    if (s->ended) {
        return;
    }
    buf_clear(&f->body);
    envelope_pack_content(body, &f->body);
    struct str content = buf_str(&f->body);
    session_dirty(f, s);
    if (!join_last(s, body, content) && !replace(s, body, key, content)) {
        append(s, body, key, content);
    }
    s->queued_bytes += content.n;
    if (s->peer != NULL && session_credit(s) == 0) {
        peer_touch(f, s->peer);
    }
    /* Assignments are as many as there are slots: it is answers that a silent reader piles up. */
    if (body->body_case != PB__ENVELOPE__BODY_ASSIGN &&
        (s->queued > QUEUE_LIMIT || s->queued_bytes > QUEUE_BYTES)) {
        session_violation(f, s, "acknowledges nothing");
    }
}

uint32_t session_credit(const struct session *s)
{
    uint64_t used = s->seq_out - s->acked + s->queued;

    return used < WIRE_CREDIT && s->queued_bytes < CREDIT_BYTES ? (uint32_t)(WIRE_CREDIT - used)
                                                                : 0;
}

bool session_take_numbers(struct fleet *f, struct session *s, const Pb__Envelope *e)
{
    bool numbered = e->body_case != PB__ENVELOPE__BODY_HEARTBEAT;

    if (e->seq != (numbered ? s->seq_in + 1 : 0) || e->ack < s->acked || e->ack > s->seq_out) {
        return false;
    }
    if (e->ack > s->acked) {
        const bool deaf = session_credit(s) == 0;
        s->acked = e->ack;
        if (deaf && s->peer != NULL) {
            f->capacity_changed = true;
            peer_touch(f, s->peer);
        }
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

static void send_envelope(struct fleet *f, struct session *s, uint64_t seq,
                          Pb__Envelope__BodyCase kind, struct str content)
{
    Pb__Envelope head = PB__ENVELOPE__INIT;

    head.version = s->version;
    head.session = s->number;
    head.seq = seq;
    head.ack = s->seq_in;
    buf_clear(&f->head);
    PB_PACK(&head, &f->head);
    envelope_add_head(kind, content.n, &f->head);
    wire_send(f->wire, s->pipe, buf_str(&f->head), content);
    ack_done(f, s);
    pthread_mutex_lock(&f->lock);
    f->stats.messages_out++;
    f->stats.bytes_out += f->head.n + content.n;
    pthread_mutex_unlock(&f->lock);
}

static void send_beat(struct fleet *f, struct session *s)
{
    Pb__HeartbeatAck beat = PB__HEARTBEAT_ACK__INIT;

    beat.sent_ms = s->beat_due ? s->beat_sent_ms : 0;
    buf_clear(&f->body);
    PB_PACK(&beat, &f->body);
    send_envelope(f, s, 0, PB__ENVELOPE__BODY_HEARTBEAT_ACK, buf_str(&f->body));
    s->beat_due = false;
}

static void flush(struct fleet *f, struct session *s)
{
    const bool deaf = s->peer != NULL && session_credit(s) == 0;

    while (s->queue != NULL) {
        struct out *o = s->queue;
        bool numbered = o->kind != PB__ENVELOPE__BODY_REFUSED;
        if (numbered && s->seq_out - s->acked >= WIRE_CREDIT) {
            break;
        }
        send_envelope(f, s, numbered ? s->seq_out + 1 : 0, o->kind, buf_str(&o->content));
        s->seq_out += numbered;
        s->queue = o->next;
        if (s->queue == NULL) {
            s->queue_last = NULL;
        }
        s->queued--;
        s->answers -= is_answer(o->kind);
        s->queued_bytes -= o->content.n;
        out_free(o);
    }
    if (deaf && session_credit(s) > 0) {
        f->capacity_changed = true;
        peer_touch(f, s->peer);
    }
    if (s->beat_due) {
        send_beat(f, s);
    }
    wire_flush(f->wire, s->pipe);
}

void session_flush_all(struct fleet *f, uint64_t mono_ms)
{
    struct session *s;
    struct session *tmp;

    DL_FOREACH_SAFE2(f->dirty, s, tmp, dirty_next)
    {
        s->spoke = false;
        if (s->peer != NULL) {
            s->peer->unsure = false;
        }
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
        struct session *quiet = f->acks;
        send_beat(f, quiet);
        wire_flush(f->wire, quiet->pipe);
    }
}
