#include "common/base.h"

#include "broker/net/state.h"

/* The bodies that the broker says; session.c numbers and sends them. */

void send_cancel(struct fleet *f, struct session *s, const Pb__JobKey *key, Pb__CancelKind kind)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__WireCancel cancel = PB__WIRE_CANCEL__INIT;

    cancel.key = (Pb__JobKey *)key;
    cancel.kind = kind;
    body.body_case = PB__ENVELOPE__BODY_CANCEL;
    body.cancel = &cancel;
    session_send(f, s, &body, key);
}

void send_finish_ack(struct fleet *f, struct session *s, const Pb__JobKey *key, bool stale)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__FinishAck ack = PB__FINISH_ACK__INIT;

    ack.keys = (Pb__JobKey *[]){(Pb__JobKey *)key};
    ack.n_keys = 1;
    ack.stale = stale;
    body.body_case = PB__ENVELOPE__BODY_FINISH_ACK;
    body.finish_ack = &ack;
    session_send(f, s, &body, NULL);
}

void send_log_ack(struct fleet *f, struct session *s, const Pb__JobKey *key, uint64_t durable)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__LogAck ack = PB__LOG_ACK__INIT;

    ack.key = (Pb__JobKey *)key;
    ack.durable = durable;
    body.body_case = PB__ENVELOPE__BODY_LOG_ACK;
    body.log_ack = &ack;
    session_send(f, s, &body, key);
}

void send_drain(struct fleet *f, struct session *s, const Pb__WorkerRecord *w)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__Drain drain = PB__DRAIN__INIT;

    drain.undo = !w->draining;
    drain.leave = w->leave;
    body.body_case = PB__ENVELOPE__BODY_DRAIN;
    body.drain = &drain;
    session_send(f, s, &body, NULL);
    s->told_draining = w->draining;
    s->told_leave = w->leave;
}

void send_welcome(struct fleet *f, struct session *s)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__Welcome welcome = PB__WELCOME__INIT;

    welcome.session = s->number;
    welcome.worker_id = s->peer != NULL ? s->peer->worker_id : 0;
    welcome.heartbeat_ms = s->peer != NULL ? s->peer->times.heartbeat_ms : f->c.heartbeat_ms;
    welcome.lease_ms = s->peer != NULL ? s->peer->times.lease_ms : f->c.lease_ms;
    welcome.api_url = f->api_url;
    welcome.log_window = s->peer != NULL ? LIMIT_LOG_WINDOW : 0;
    body.body_case = PB__ENVELOPE__BODY_WELCOME;
    body.welcome = &welcome;
    session_send(f, s, &body, NULL);
}

void send_job_ended(struct fleet *f, struct session *s, Pb__ClientJob *job)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__ClientJobEnded ended = PB__CLIENT_JOB_ENDED__INIT;

    ended.jobs = &job;
    ended.n_jobs = 1;
    body.body_case = PB__ENVELOPE__BODY_CLIENT_JOB_ENDED;
    body.client_job_ended = &ended;
    session_send(f, s, &body, NULL);
}

void send_bye_ack(struct fleet *f, struct session *s)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__ByeAck ack = PB__BYE_ACK__INIT;

    body.body_case = PB__ENVELOPE__BODY_BYE_ACK;
    body.bye_ack = &ack;
    session_send(f, s, &body, NULL);
}

void send_refused(struct fleet *f, struct session *s, int why, const char *text,
                  uint32_t retry_after_ms)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__Refused refused = PB__REFUSED__INIT;

    refused.code = (char *)err_code(why);
    refused.text = (char *)text;
    refused.retry_after_ms = retry_after_ms;
    refused.final = retry_after_ms == 0;
    body.body_case = PB__ENVELOPE__BODY_REFUSED;
    body.refused = &refused;
    session_send(f, s, &body, NULL);
}
