#include "common/base.h"

#include "broker/core/query.h"
#include "broker/net/state.h"
#include "common/log.h"

#define REFUSED_RETRY_MS 5000u

static bool token_ok(struct fleet *f, struct session *s, struct str token)
{
    const Pb__TokenRecord *record = session_token(f, s, token);

    return record != NULL && str_eqz(str_from(record->role), "worker");
}

static bool admit(struct fleet *f, struct session *s, const Pb__Envelope *e)
{
    if (!session_take_version(f, s, e->version)) {
        return false;
    }
    if (e->session != 0 || e->seq != 1 || e->ack != 0 || e->hello->worker == NULL ||
        e->hello->n_jobs > LIMIT_HELD_LIST) {
        session_violation(f, s, "a bad Hello");
    } else if (s->secured && e->hello->worker->serial.len == 0) {
        session_refuse(f, s, -E_UNAUTHORIZED,
                       "workers come with a certificate: `davit-worker join` gets one", 0);
    } else if (!s->secured && !token_ok(f, s, pb_str(e->hello->token))) {
        session_refuse(f, s, -E_UNAUTHORIZED, "the worker token is not valid", 0);
    } else {
        return true;
    }
    return false;
}

/* From here on the worker's older session is nobody's. */
static void take_over(struct fleet *f, struct session *s, const struct reply *reply)
{
    const bool known = peer_find(f, reply->worker_id) != NULL;
    struct peer *p = peer_get(f, reply->worker_id);

    p->unsure |= !known;
    if (p->session != NULL) {
        log_info("net: %s came anew, its older session ends", p->actor);
        session_end(f, p->session);
    }
    s->number = reply->session;
    s->close_at_ms = 0;
    s->seq_in = 1;
    s->peer = p;
    p->session = s;
    p->suspect = false;
    p->draining = false;
    p->disk_low = false;
    p->health = (struct fleet_worker_health){0};
    p->left = false;
    peer_keep(f, p);
    peer_load(p, f->turn.tx);
    p->times = peer_pool_times(f, p, f->turn.tx);
    peer_touch(f, p);
    peer_heard(f, p);
    f->capacity_changed = true;
}

static void recover(struct fleet *f, struct session *s)
{
    struct effects fx;

    effects_init(&fx);
    core_recover_worker(f->turn.tx, s->peer->worker_id, &fx);
    for (size_t i = 0; i < fx.count; i++) {
        effect_take(f, f->turn.tx, &fx.items[i]);
    }
    effects_release(&fx);
}

void hello_take(struct fleet *f, struct session *s, const Pb__Envelope *e)
{
    Pb__Command cmd = PB__COMMAND__INIT;
    struct reply reply;

    if (e->hello->worker != NULL) {
        certify_session(f, s, e->hello->worker);
    }
    if (!admit(f, s, e)) {
        return;
    }
    cmd.body_case = PB__COMMAND__BODY_WORKER_HELLO;
    cmd.worker_hello = e->hello->worker;
    int r = command_apply(f, "worker", &cmd, &reply);
    if (!tx_ok(f->turn.tx)) {
        return;
    }
    if (r < 0) {
        bool for_good = r == -E_INVALID || r == -E_UNAUTHORIZED || r == -E_LIMIT || r == -E_TOO_BIG;
        session_refuse(f, s, r, reply.text[0] != '\0' ? reply.text : err_text(r),
                       for_good ? 0 : REFUSED_RETRY_MS);
        return;
    }
    take_over(f, s, &reply);
    if (!tx_ok(f->turn.tx)) {
        return;
    }
    pthread_mutex_lock(&f->lock);
    f->stats.hellos++;
    pthread_mutex_unlock(&f->lock);
    log_info("net: %s is here, session %" PRIu64 ", with %zu jobs", s->peer->actor, s->number,
             e->hello->n_jobs);
    send_welcome(f, s);
    if (s->peer->record->draining) {
        send_drain(f, s, s->peer->record);
    }
    reconcile(f, s, e->hello->jobs, e->hello->n_jobs, true);
    if (!s->ended) {
        recover(f, s);
    }
}
