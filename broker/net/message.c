#include "common/base.h"

#include "broker/core/query.h"
#include "broker/net/state.h"
#include "common/log.h"

/* The worker kills its copy of a job that is no longer its own. */
static const Pb__AssignmentRecord *holder_or_fence(struct fleet *f, struct session *s,
                                                   const Pb__JobKey *key)
{
    const Pb__AssignmentRecord *a = holder_check(f->turn.tx, s->peer->worker_id, key);

    if (a == NULL && tx_ok(f->turn.tx)) {
        send_cancel(f, s, key, PB__CANCEL_KIND__CANCEL_FENCED);
    }
    return a;
}

static void take_job_command(struct fleet *f, struct session *s, const Pb__JobKey *key,
                             Pb__Command__BodyCase which)
{
    const Pb__AssignmentRecord *a = holder_or_fence(f, s, key);

    if (a == NULL || command_job(f, s->peer, a, which) < 0) {
        return;
    }
    if (which == PB__COMMAND__BODY_JOB_STARTED) {
        peer_worked(s->peer);
    } else if (which == PB__COMMAND__BODY_JOB_RETURNED) {
        peer_gave_back(f, s->peer);
    }
}

static void take_job_commands(struct fleet *f, struct session *s, Pb__JobKey *const *keys,
                              size_t count, Pb__Command__BodyCase which)
{
    if (count > LIMIT_HELD_JOBS) {
        session_violation(f, s, "too many jobs in a message");
        return;
    }
    for (size_t i = 0; i < count && tx_ok(f->turn.tx) && !s->ended; i++) {
        take_job_command(f, s, keys[i], which);
    }
}

/* For people alone: nothing is decided by it. */
static void take_health(struct fleet *f, struct peer *p, const Pb__Heartbeat *h)
{
    struct fleet_worker_health *to = &p->health;
    size_t n = strnlen(h->refuses, sizeof(to->refuses) - 1);

    while (n > 0 && ((unsigned char)h->refuses[n] & 0xc0) == 0x80) { /* not within a character */
        n--;
    }
    memcpy(to->refuses, h->refuses, n);
    to->refuses[n] = '\0';
    to->has_clock = h->wall_ms != 0;
    to->clock_skew_ms = to->has_clock ? (int64_t)(h->wall_ms - f->turn.now_ms) : 0;
    to->disk_free_bytes = h->disk_free_bytes;
}

static void take_heartbeat(struct fleet *f, struct session *s, const Pb__Heartbeat *h)
{
    struct peer *p = s->peer;

    if (h->n_jobs > LIMIT_HELD_LIST) {
        session_violation(f, s, "too many jobs in a heartbeat");
        return;
    }
    if (p->draining != h->draining || p->disk_low != h->disk_low) {
        f->capacity_changed = true;
        peer_touch(f, p);
    }
    p->draining = h->draining;
    p->disk_low = h->disk_low;
    take_health(f, p, h);
    s->beat_due = true;
    s->beat_sent_ms = h->sent_ms;
    if (!h->no_list) {
        reconcile(f, s, h->jobs, h->n_jobs, false);
    }
}

static void take_log_chunk(struct fleet *f, struct session *s, const Pb__LogChunk *c)
{
    if (c->data.len > LIMIT_LOG_CHUNK || c->offset > LIMIT_LOG_BYTES + LIMIT_LOG_CHUNK) {
        session_violation(f, s, "a log chunk beyond the bounds");
        return;
    }
    const Pb__AssignmentRecord *a = holder_or_fence(f, s, c->key);
    if (a == NULL) {
        return;
    }
    uint64_t durable = logs_durable(f->c.logs, a->job_id, a->attempt);
    if (c->data.len > 0 && c->offset + c->data.len > durable) {
        int r = logs_append(f->c.logs, a->job_id, a->attempt, a->epoch, c->offset, c->data.data,
                            c->data.len);
        if (r == 0) {
            return; /* the log writer answers, through fleet_item */
        }
        log_debug("net: log of job %" PRIu64 " put off: %s", a->job_id, err_text(r));
    }
    send_log_ack(f, s, c->key, durable);
}

/* Whatever the worker did wrong: the attempt has ended, and must not hang for it. */
static void finish_impossible(struct fleet *f, const struct peer *p, const Pb__AssignmentRecord *a,
                              const Pb__Outcome *said, int why)
{
    Pb__Outcome outcome = PB__OUTCOME__INIT;

    log_warn("net: %s reports an impossible end of job %" PRIu64 ": %s", p->actor, a->job_id,
             err_text(why));
    outcome.result = JOB_FAILED;
    outcome.reason = REASON_SYSTEM_FAILURE;
    outcome.exit_code = said->exit_code;
    outcome.log_size = said->log_size;
    outcome.log_crc = said->log_crc;
    outcome.detail = (char *)"the worker reported an end that cannot be";
    command_finished(f, p, a, &outcome);
}

/* NULL: the end is not to be recorded (again), or not yet; the worker learns which. */
static const Pb__AssignmentRecord *end_due(struct fleet *f, struct session *s,
                                           const Pb__JobEnd *end)
{
    const Pb__AssignmentRecord *a = holder_check(f->turn.tx, s->peer->worker_id, end->key);
    const uint64_t log_size = end->outcome->log_size;

    if (a == NULL) {
        if (tx_ok(f->turn.tx)) {
            send_finish_ack(f, s, end->key, true);
        }
        return NULL;
    }
    if (log_size == 0) {
        return a; /* most jobs without a log have no file to look at */
    }
    uint64_t durable = logs_durable(f->c.logs, a->job_id, a->attempt);
    if (durable < log_size) {
        send_log_ack(f, s, end->key, durable);
        return NULL;
    }
    if (durable > log_size) {
        log_warn("net: %s has %" PRIu64 " bytes of the log of job %" PRIu64 ", we have %" PRIu64,
                 s->peer->actor, log_size, a->job_id, durable);
    }
    return a;
}

static void take_end(struct fleet *f, struct session *s, const Pb__JobEnd *end)
{
    const Pb__AssignmentRecord *a = end_due(f, s, end);

    if (a != NULL) {
        int r = command_finished(f, s->peer, a, end->outcome);
        if (r == 0) {
            peer_worked(s->peer);
        } else if (tx_ok(f->turn.tx)) {
            finish_impossible(f, s->peer, a, end->outcome, r);
        }
    }
}

/* As many ends as one command takes; where one of them stands in the way, each by itself. */
static void take_ends(struct fleet *f, struct session *s, Pb__JobEnd *const *ends, size_t count)
{
    Pb__FinishedJob **jobs = arena_array(&f->arena, count, sizeof(Pb__FinishedJob *));
    size_t n = 0;

    for (size_t i = 0; i < count && tx_ok(f->turn.tx); i++) {
        const Pb__AssignmentRecord *a = end_due(f, s, ends[i]);
        if (a != NULL) {
            Pb__FinishedJob *job = jobs[n++] = arena_alloc(&f->arena, sizeof(*job));
            pb__finished_job__init(job);
            job->job_id = a->job_id;
            job->attempt = a->attempt;
            job->epoch = a->epoch;
            job->outcome = ends[i]->outcome;
        }
    }
    if (n == 0 || !tx_ok(f->turn.tx)) {
        return;
    }
    if (command_all_finished(f, s->peer, jobs, n) == 0) {
        peer_worked(s->peer);
        return;
    }
    for (size_t i = 0; i < count && tx_ok(f->turn.tx) && !s->ended; i++) {
        take_end(f, s, ends[i]);
    }
}

static void take_finished(struct fleet *f, struct session *s, const Pb__WireJobFinished *m)
{
    if (m->n_ends > LIMIT_HELD_JOBS) {
        session_violation(f, s, "too many jobs in a message");
        return;
    }
    for (size_t i = 0; i < m->n_ends; i++) {
        if (m->ends[i]->key == NULL || m->ends[i]->outcome == NULL) {
            session_violation(f, s, "an end of no job");
            return;
        }
    }
    for (size_t i = 0, n; i < m->n_ends && tx_ok(f->turn.tx) && !s->ended; i += n) {
        n = MIN(m->n_ends - i, LIMIT_FINISHED_JOBS);
        take_ends(f, s, &m->ends[i], n);
    }
}

/* It holds nothing, by its own word: what was on its way to it goes to somebody else at once. */
static void take_bye(struct fleet *f, struct session *s)
{
    const Pb__AssignmentRecord **list;
    struct peer *p = s->peer;
    size_t count = worker_assignments(f->turn.tx, p->worker_id, &list);

    for (size_t i = 0; i < count; i++) {
        if (list[i]->acked) {
            command_lost(f, p, list[i], true);
        } else {
            command_job(f, p, list[i], PB__COMMAND__BODY_JOB_RETURNED);
        }
    }
    log_info("net: %s says good-bye", p->actor);
    send_bye_ack(f, s);
    p->left = true;
    peer_touch(f, p);
    session_close_soon(f, s);
}

/* Messages about one job. */
static void take_one(struct fleet *f, struct session *s, const Pb__Envelope *e)
{
    bool chunk = e->body_case == PB__ENVELOPE__BODY_LOG_CHUNK;
    const Pb__JobKey *key = chunk ? e->log_chunk->key : e->assign_return->key;

    if (key == NULL) {
        session_violation(f, s, "a message about no job");
    } else if (chunk) {
        take_log_chunk(f, s, e->log_chunk);
    } else {
        take_job_command(f, s, key, PB__COMMAND__BODY_JOB_RETURNED);
    }
}

static void take_body(struct fleet *f, struct session *s, const Pb__Envelope *e)
{
    if (e->body_case == PB__ENVELOPE__BODY_HEARTBEAT) {
        take_heartbeat(f, s, e->heartbeat);
    } else if (e->body_case == PB__ENVELOPE__BODY_JOB_FINISHED) {
        take_finished(f, s, e->job_finished);
    } else if (e->body_case == PB__ENVELOPE__BODY_ASSIGN_ACK) {
        take_job_commands(f, s, e->assign_ack->keys, e->assign_ack->n_keys,
                          PB__COMMAND__BODY_ASSIGN_ACKED);
    } else if (e->body_case == PB__ENVELOPE__BODY_JOB_STARTED) {
        take_job_commands(f, s, e->job_started->keys, e->job_started->n_keys,
                          PB__COMMAND__BODY_JOB_STARTED);
    } else if (e->body_case == PB__ENVELOPE__BODY_LOG_CHUNK ||
               e->body_case == PB__ENVELOPE__BODY_ASSIGN_RETURN) {
        take_one(f, s, e);
    } else if (e->body_case == PB__ENVELOPE__BODY_BYE) {
        take_bye(f, s);
    } else if (e->body_case == PB__ENVELOPE__BODY_CERTIFICATE_REQUEST) {
        certify_take(f, s, e->certificate_request);
    } else {
        session_violation(f, s, "a message that workers do not send");
    }
}

static void take_first(struct fleet *f, struct session *s, const Pb__Envelope *e)
{
    if (e->body_case == PB__ENVELOPE__BODY_HELLO) {
        hello_take(f, s, e);
    } else if (e->body_case == PB__ENVELOPE__BODY_CLIENT_HELLO) {
        client_hello_take(f, s, e);
    } else {
        session_violation(f, s, "no Hello");
    }
}

void message_take(struct fleet *f, struct session *s, struct str bytes)
{
    Pb__Envelope *e;

    arena_clear(&f->arena);
    int r = PB_UNPACK(&f->arena, envelope, bytes.p, bytes.n, LIMIT_WIRE_MESSAGE, &e);
    if (r < 0) {
        session_violation(f, s, "no message of ours");
        return;
    }
    s->spoke = true;
    session_dirty(f, s);
    if (s->peer == NULL && s->client == NULL) {
        take_first(f, s, e);
        return;
    }
    if (e->version != s->version || e->session != s->number || !session_take_numbers(f, s, e)) {
        session_violation(f, s, "wrong numbers");
        return;
    }
    if (!session_may_go_on(f, s)) {
        return;
    }
    if (s->client != NULL) {
        client_take(f, s, e);
        return;
    }
    peer_heard(f, s->peer);
    take_body(f, s, e);
}
