/* What the broker says, message by message. */
#include "common/base.h"

#include "common/log.h"
#include "worker/agent.h"

static void send_return(struct agent *a, Pb__JobKey *key, const char *why)
{
    Pb__AssignReturn body = PB__ASSIGN_RETURN__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    log_warn("job %" PRIu64 " is given back: %s", key->job_id, why);
    body.key = key;
    body.why = (char *)(uintptr_t)why;
    e.body_case = PB__ENVELOPE__BODY_ASSIGN_RETURN;
    e.assign_return = &body;
    session_send(&a->session, &e);
}

/* The same job under an older fence is not ours any more, as the broker will say too. */
static void fence_older(struct agent *a, struct job_key key)
{
    struct held *h = agent_find_action(a, key.job_id);
    if (h != NULL && h->key.epoch < key.epoch) {
        held_fence(h);
    }
    h = a->jobs;
    while (h != NULL) {
        struct held *next = h->next;
        if (h->key.job_id == key.job_id && h->key.epoch < key.epoch) {
            held_fence(h);
        }
        h = next;
    }
}

static void take_again(struct agent *a, struct held *h, Pb__JobKey *key)
{
    if (h->phase == HELD_FENCED) {
        send_return(a, key, "it was taken away before");
        return;
    }
    h->accepted = h->returned = (struct held_news){0};
    held_tell(h);
}

static void take_spec(struct agent *a, const Pb__JobSpec *spec)
{
    if (spec->key == NULL) {
        log_warn("the broker assigned a job without a name");
        return;
    }
    struct job_key key = job_key_of(spec->key);
    struct held *h = agent_find(a, key);
    if (h != NULL) {
        take_again(a, h, spec->key);
        return;
    }
    fence_older(a, key);
    const char *why = agent_refuses_work(a);
    bool is_action = held_wants_action(spec);
    if (why == NULL && is_action && agent_actions_taken(a) >= a->config->actions) {
        why = "it has as many actions as it takes";
    } else if (why == NULL && !is_action && agent_slots_taken(a) >= a->config->slots) {
        why = "its slots are taken";
    }
    if (why != NULL) {
        send_return(a, spec->key, why);
        return;
    }
    if (is_action) {
        held_accept_action(a, spec);
        return;
    }
    int r = held_accept(a, spec, &h);
    if (r < 0) {
        send_return(a, spec->key, "cannot write it down");
        agent_job_ended(a, true);
        return;
    }
    held_tell(h);
    held_ready(h);
}

static void take_assign(struct agent *a, const Pb__WireAssign *m)
{
    for (size_t i = 0; i < m->n_specs; i++) {
        take_spec(a, m->specs[i]);
    }
}

static void take_cancel(struct agent *a, const Pb__WireCancel *m)
{
    struct held *h = agent_find(a, job_key_of(m->key));
    if (h == NULL) {
        agent_beat(a); /* the list shows that it is not here */
        return;
    }
    switch ((int)m->kind) {
    case PB__CANCEL_KIND__CANCEL_GRACEFUL:
        held_cancel(h, HELD_CANCEL_GRACEFUL);
        break;
    case PB__CANCEL_KIND__CANCEL_FORCE:
        held_cancel(h, HELD_CANCEL_FORCE);
        break;
    case PB__CANCEL_KIND__CANCEL_FENCED:
        held_fence(h);
        break;
    default: /* of a newer broker */
        log_warn("the broker cancels job %" PRIu64 " in an unknown way", h->key.job_id);
        break;
    }
}

static void take_log_ack(struct agent *a, const Pb__LogAck *m)
{
    struct held *h = agent_find(a, job_key_of(m->key));
    if (h != NULL) {
        held_log_acked(h, m->durable);
        agent_pump(a);
    }
}

static void take_finish_ack(struct agent *a, const Pb__FinishAck *m)
{
    for (size_t i = 0; i < m->n_keys; i++) {
        struct held *h = agent_find(a, job_key_of(m->keys[i]));
        if (h == NULL) {
            continue;
        }
        if (h->phase == HELD_ENDED) {
            log_debug("job %" PRIu64 ": the broker has its end%s", h->key.job_id,
                      m->stale ? ", and did not want it" : "");
            held_forget(h);
        } else {
            held_fence(h); /* it ended for the broker without us */
        }
    }
}

static void take_drain(struct agent *a, const Pb__Drain *m)
{
    log_info("the broker %s", m->undo ? "gives work again" : "wants no new work taken");
    a->drained = !m->undo;
    a->sent_away = false;
    agent_beat(a);
    if (m->leave && !m->undo) {
        agent_send_away(a);
    }
}

void agent_take_message(struct agent *a, const Pb__Envelope *e)
{
    switch ((int)e->body_case) {
    case PB__ENVELOPE__BODY_ASSIGN:
        take_assign(a, e->assign);
        break;
    case PB__ENVELOPE__BODY_CANCEL:
        take_cancel(a, e->cancel);
        break;
    case PB__ENVELOPE__BODY_LOG_ACK:
        take_log_ack(a, e->log_ack);
        break;
    case PB__ENVELOPE__BODY_FINISH_ACK:
        take_finish_ack(a, e->finish_ack);
        break;
    case PB__ENVELOPE__BODY_DRAIN:
        take_drain(a, e->drain);
        break;
    case PB__ENVELOPE__BODY_CERTIFICATE:
        if (a->tls != NULL) {
            renewal_take(&a->renewal, a->config->identity, a->tls, a->tls_host, e->certificate);
        }
        break;
    default:
        log_warn("the broker sent a message of an unknown kind (%d)", (int)e->body_case);
        break;
    }
}
