#include "common/base.h"

#include <stdlib.h>

#include "broker/core/query.h"
#include "broker/net/state.h"
#include "broker/vault/id_token.h"
#include "common/log.h"

/* What the core wants said to workers. */

static Pb__JobKey key_of(const struct effect *e)
{
    Pb__JobKey key = PB__JOB_KEY__INIT;

    key.job_id = e->job_id;
    key.attempt = e->attempt;
    key.epoch = e->epoch;
    return key;
}

/* A job whose variables cannot be opened is sent all the same: the worker fails it, and a good
 * worker does not look lost. */
static void open_variables(struct fleet *f, struct tx *tx, Pb__JobSpec *spec)
{
    int r = f->c.vault != NULL ? vault_open_spec(f->c.vault, tx_arena(tx), spec) : 0;

    if (r < 0) {
        log_error("net: job %" PRIu64 " gets no stored variables: %s", spec->key->job_id,
                  r == -E_NOT_FOUND ? "their master key is not known" : err_text(r));
    }
}

/* What the broker alone can add to a spec. Tokens that cannot be made stay in it: the worker fails
 * the job for that. An order that is not sent at all would make a good worker look lost. */
static int complete_spec(struct fleet *f, struct tx *tx, Pb__JobSpec *spec)
{
    int r = 0;

    if (spec->n_id_tokens > 0) {
        check(f->c.signer != NULL);
        r = id_tokens_issue(f->c.signer, tx, f->api_url, f->turn.now_ms, spec);
    }
    if (r < 0 && tx_ok(tx)) {
        log_warn("net: job %" PRIu64 " gets no id tokens: %s", spec->key->job_id, err_text(r));
        return 0;
    }
    return r;
}

static void send_assign(struct fleet *f, struct session *s, struct tx *tx, const struct effect *e)
{
    const Pb__MetaRecord *meta = meta_get(tx);
    Pb__JobSpec *spec;

    if (meta == NULL) {
        return;
    }
    int r = core_job_spec(tx, e->job_id, "", &spec);
    if (r == 0) {
        open_variables(f, tx, spec);
    }
    if (r == 0 && (spec->pipeline_id != 0 || spec->n_artifacts_in > 0)) { /* others fetch nothing */
        char *token = f->c.job_token(pb_str(meta->job_token_key), e->job_id, e->attempt, e->epoch);
        spec->token = arena_strdup(tx_arena(tx), str_from(token));
        free(token);
        r = complete_spec(f, tx, spec);
    }
    if (r < 0) { /* that it fits was checked when its pipeline was made */
        log_error("net: job %" PRIu64 " cannot be sent: %s", e->job_id, err_text(r));
        return;
    }
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__WireAssign assign = PB__WIRE_ASSIGN__INIT;
    assign.specs = &spec;
    assign.n_specs = 1;
    body.body_case = PB__ENVELOPE__BODY_ASSIGN;
    body.assign = &assign;
    session_send(f, s, &body, NULL);
    vault_wipe_spec(spec);
}

static void worker_changed(struct fleet *f, struct peer *p, struct tx *tx)
{
    peer_load(p, tx);
    f->capacity_changed = true;
    peer_touch(f, p);
    if (p->session != NULL && p->record != NULL && p->record->revoked) {
        log_warn("net: %s was revoked, its session ends", p->actor);
        session_end(f, p->session);
    }
    if (p->session != NULL && p->record != NULL &&
        (p->record->draining != p->session->told_draining ||
         p->record->leave != p->session->told_leave)) {
        send_drain(f, p->session, p->record);
    }
}

void effect_take(struct fleet *f, struct tx *tx, const struct effect *e)
{
    struct peer *p = peer_find(f, e->worker_id);
    struct session *s = p != NULL ? p->session : NULL;
    Pb__JobKey key = key_of(e);

    switch (e->kind) {
    case EFFECT_ASSIGN:
        if (s != NULL) {
            send_assign(f, s, tx, e);
        }
        break;
    case EFFECT_CANCEL:
        if (s != NULL) {
            send_cancel(f, s, &key, e->cancel_kind);
            if (e->cancel_kind == PB__CANCEL_KIND__CANCEL_FENCED && !e->displaced) {
                /* its time for it was over */
                peer_rest(f, p);
            }
        }
        break;
    case EFFECT_FINISHED:
        if (s != NULL) {
            send_finish_ack(f, s, &key, false);
        }
        break;
    case EFFECT_WORKER:
        if (p != NULL) {
            worker_changed(f, p, tx);
        }
        break;
    case EFFECT_TERMINAL:
        logs_close_one(f->c.logs, e->job_id, e->attempt);
        break;
    case EFFECT_ENDED:
        watch_ended(f, e);
        break;
    case EFFECT_TRIGGER: /* the turn's, and the scheduler's */
    case EFFECT_SETTINGS:
        break;
    }
}
