#include "common/base.h"

#include <stdlib.h>

#include "broker/core/query.h"
#include "broker/net/state.h"
#include "common/crypto.h"
#include "common/log.h"

/* Programs that enqueue jobs and wait for their ends: docs/protocol.md, "Clients". */

/* Numbers of their sessions, apart from those of workers, which the store gives out. */
#define CLIENT_SESSIONS (1ull << 63)
#define UID_BYTES       16u
/* The library's own question, about jobs that it watches, is outside of its program's count. */
#define ANSWERS_MAX (LIMIT_CLIENT_REQUESTS + 1u)

/* As the API: only administrators submit. */
static bool is_admin(const Pb__TokenRecord *token)
{
    return str_eqz(str_from(token->role), "admin");
}

static bool may_submit(const Pb__TokenRecord *token)
{
    const struct str role = str_from(token != NULL ? token->role : "");

    /* Those of some projects alone use the HTTP API, which asks for each request. */
    return token != NULL && token->n_projects == 0 &&
           (is_admin(token) || str_eqz(role, "user") || str_eqz(role, "developer") ||
            str_eqz(role, "maintainer"));
}

static void count(struct fleet *f)
{
    pthread_mutex_lock(&f->lock);
    f->stats.clients = HASH_COUNT(f->clients);
    pthread_mutex_unlock(&f->lock);
}

static void supersede(struct fleet *f, struct str uid)
{
    struct client *old;

    HASH_FIND(hh, f->clients, uid.p, uid.n, old);
    if (old != NULL) {
        log_info("net: client %s came anew, its older session ends", old->name);
        session_end(f, old->session);
    }
}

static void client_new(struct fleet *f, struct session *s, const Pb__ClientHello *hello,
                       const Pb__TokenRecord *token)
{
    struct client *c = xcalloc(1, sizeof(*c));

    c->session = s;
    c->actor = xstrdup(token->name);
    c->admin = is_admin(token);
    c->name = xstrdup(hello->name[0] != '\0' ? hello->name : token->name);
    memcpy(c->uid, hello->uid.data, UID_BYTES);
    HASH_ADD(hh, f->clients, uid, UID_BYTES, c);
    s->client = c;
    count(f);
}

void client_free(struct fleet *f, struct client *c)
{
    watch_drop_all(f, c);
    HASH_DELETE(hh, f->clients, c);
    count(f);
    free(c->actor);
    free(c->name);
    free(c);
}

static void heard(struct fleet *f, struct session *s)
{
    s->close_at_ms = f->turn.mono_ms + f->c.lease_ms;
    s->silence.overdue = false;
    session_look(f, s, s->close_at_ms);
}

void client_hello_take(struct fleet *f, struct session *s, const Pb__Envelope *e)
{
    const Pb__ClientHello *hello = e->client_hello;

    if (!session_take_version(f, s, e->version)) {
        return;
    }
    if (e->session != 0 || e->seq != 1 || e->ack != 0 || hello->uid.len != UID_BYTES ||
        strlen(hello->name) > LIMIT_NAME) {
        session_violation(f, s, "a bad ClientHello");
        return;
    }
    const Pb__TokenRecord *token = session_token(f, s, pb_str(hello->token));
    if (!tx_ok(f->turn.tx)) {
        return;
    }
    if (!may_submit(token)) {
        session_refuse(f, s, -E_UNAUTHORIZED, "the token is not one that may submit jobs", 0);
        return;
    }
    supersede(f, pb_str(hello->uid));
    client_new(f, s, hello, token);
    s->number = CLIENT_SESSIONS | ++f->client_sessions;
    s->close_at_ms = 0;
    s->seq_in = 1;
    heard(f, s);
    log_info("net: client %s is here by token %s", s->client->name, s->client->actor);
    send_welcome(f, s);
}

/* ---- ClientEnqueue ---- */

static bool key_ok(struct str key)
{
    for (size_t i = 0; i < key.n; i++) {
        if ((unsigned char)key.p[i] <= ' ' || (unsigned char)key.p[i] > '~') {
            return false;
        }
    }
    return key.n <= LIMIT_NAME;
}

/* The key of a program counts together with its token, as in the API; what is asked for under it,
 * and for which project, is known again by its hash. */
static void hash_key(struct fleet *f, const struct client *c, const char *project,
                     Pb__EnqueueJob *job)
{
    uint8_t *hashes = arena_array(&f->arena, 2, SHA256_BYTES);
    struct sha256 *h = sha256_new();

    sha256_add(h, c->actor, strlen(c->actor) + 1);
    sha256_add(h, job->idempotency_key.data, job->idempotency_key.len);
    sha256_end(h, hashes);
    sha256_free(h);
    core_enqueue_hash(project, job, 0, hashes + SHA256_BYTES);
    job->idempotency_key = pb_bytes_ref(str_of(hashes, SHA256_BYTES));
    job->body_hash = pb_bytes_ref(str_of(hashes + SHA256_BYTES, SHA256_BYTES));
}

/* What changes a target comes from rollouts alone, which know what is under way there. */
static bool is_driver_action(const Pb__EnqueueJob *job)
{
    return job->plan != NULL && job->plan->action != NULL &&
           job->plan->action->what_case == PB__ACTION_SPEC__WHAT_DRIVER;
}

/* 0, or why the request cannot be. */
static int prepare(struct fleet *f, struct session *s, const Pb__ClientEnqueue *m,
                   const char **ret_text)
{
    const Pb__JobsEnqueue *jobs = m->jobs;

    if (jobs == NULL || jobs->n_jobs == 0 || jobs->n_jobs > LIMIT_ENQUEUE_JOBS) {
        *ret_text = "a request has 1 to 1024 jobs";
        return -E_LIMIT;
    }
    if (m->notify && !watch_has_room(f, s->client, jobs->n_jobs)) {
        *ret_text = "too many jobs are waited for";
        return -E_LIMIT;
    }
    for (size_t i = 0; i < jobs->n_jobs; i++) {
        Pb__EnqueueJob *job = jobs->jobs[i];
        if (job->body_hash.len != 0 || !key_ok(pb_str(job->idempotency_key))) {
            *ret_text = "an idempotency key is 1 to 255 printable characters";
            return -E_INVALID;
        }
        if (job->plan != NULL && job->plan->priority > LIMIT_PRIORITY && !s->client->admin) {
            *ret_text = arena_printf(
                &f->arena, "jobs[%zu].priority: above %d is for administrators", i, LIMIT_PRIORITY);
            return -E_FORBIDDEN;
        }
        if (is_driver_action(job)) {
            *ret_text = arena_printf(&f->arena, "jobs[%zu].action: drivers are for rollouts", i);
            return -E_FORBIDDEN;
        }
        if (job->idempotency_key.len > 0) {
            hash_key(f, s->client, jobs->project, job);
        }
    }
    return 0;
}

static bool has_ended(const Pb__JobRecord *job)
{
    return job->state == JOB_SUCCESS || job->state == JOB_FAILED || job->state == JOB_CANCELED ||
           job->state == JOB_SKIPPED;
}

static void describe(const Pb__JobRecord *job, Pb__ClientJob *ret)
{
    pb__client_job__init(ret);
    ret->job_id = job->id;
    ret->state = job->state;
    ret->reason = job->reason;
    ret->exit_code = job->exit_code;
    ret->attempt = job->attempt;
}

/* A job of an older request may have ended long ago, and its rows may be gone. */
static void watch_duplicate(struct fleet *f, struct session *s, uint64_t job_id)
{
    const Pb__JobRecord *job = job_get(f->turn.tx, job_id);
    Pb__ClientJob said = PB__CLIENT_JOB__INIT;

    if (job != NULL && !has_ended(job)) {
        watch_add(f, s->client, job_id);
        return;
    }
    said.job_id = job_id;
    if (job != NULL) {
        describe(job, &said);
    }
    send_job_ended(f, s, &said);
}

static void take_enqueue(struct fleet *f, struct session *s, const Pb__ClientEnqueue *m)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;
    Pb__ClientEnqueued answer = PB__CLIENT_ENQUEUED__INIT;
    Pb__Command cmd = PB__COMMAND__INIT;
    struct reply reply = {.job_count = 0};
    const char *text = "";
    int r = prepare(f, s, m, &text);

    if (r == 0) {
        cmd.body_case = PB__COMMAND__BODY_JOBS_ENQUEUE;
        cmd.jobs_enqueue = m->jobs;
        r = command_apply(f, s->client->actor, &cmd, &reply);
        text = reply.text;
    }
    if (!tx_ok(f->turn.tx)) {
        return;
    }
    answer.request = m->request;
    if (r < 0) {
        answer.code = (char *)err_code(r);
        answer.text = (char *)(text[0] != '\0' ? text : err_text(r));
    }
    answer.job_ids = arena_array(&f->arena, reply.job_count + 1, sizeof(*answer.job_ids));
    answer.duplicates = arena_array(&f->arena, reply.job_count + 1, sizeof(*answer.duplicates));
    for (size_t i = 0; r == 0 && i < reply.job_count; i++) {
        answer.job_ids[answer.n_job_ids++] = reply.jobs[i].job_id;
        answer.duplicates[answer.n_duplicates++] = reply.jobs[i].duplicate;
    }
    body.body_case = PB__ENVELOPE__BODY_CLIENT_ENQUEUED;
    body.client_enqueued = &answer;
    session_send(f, s, &body, NULL);
    for (size_t i = 0; r == 0 && m->notify && i < reply.job_count && !s->ended; i++) {
        if (reply.jobs[i].duplicate) {
            watch_duplicate(f, s, reply.jobs[i].job_id);
        } else {
            watch_add(f, s->client, reply.jobs[i].job_id);
        }
    }
}

/* ---- ClientCancel, ClientQuery ---- */

static void send_answer(struct fleet *f, struct session *s, Pb__ClientAnswer *answer)
{
    Pb__Envelope body = PB__ENVELOPE__INIT;

    body.body_case = PB__ENVELOPE__BODY_CLIENT_ANSWER;
    body.client_answer = answer;
    session_send(f, s, &body, NULL);
}

/* Whether it was done already, who asks again does not know: a second one would be a force. */
static bool was_canceled(struct fleet *f, const Pb__ClientCancel *m)
{
    const Pb__JobRecord *job = m->again ? job_get(f->turn.tx, m->job_id) : NULL;

    return job != NULL && (job->state == JOB_CANCELING || has_ended(job));
}

static void take_cancel(struct fleet *f, struct session *s, const Pb__ClientCancel *m)
{
    Pb__ClientAnswer answer = PB__CLIENT_ANSWER__INIT;
    Pb__Command cmd = PB__COMMAND__INIT;
    Pb__JobCancel cancel = PB__JOB_CANCEL__INIT;
    Pb__ClientJob said;
    Pb__ClientJob *list = &said;
    struct reply reply;

    cancel.job_id = m->job_id;
    cmd.body_case = PB__COMMAND__BODY_JOB_CANCEL;
    cmd.job_cancel = &cancel;
    int r = was_canceled(f, m) ? 0 : command_apply(f, s->client->actor, &cmd, &reply);
    if (!tx_ok(f->turn.tx)) {
        return;
    }
    answer.request = m->request;
    if (r < 0) {
        answer.code = (char *)err_code(r);
        answer.text = (char *)(reply.text[0] != '\0' ? reply.text : err_text(r));
    }
    const Pb__JobRecord *job = job_get(f->turn.tx, m->job_id);
    if (job != NULL) {
        describe(job, &said);
        answer.jobs = &list;
        answer.n_jobs = 1;
    }
    send_answer(f, s, &answer);
}

/* Only the ends of jobs without a pipeline are told: those of pipelines have their events. */
static void watch_one(struct fleet *f, struct session *s, const Pb__JobRecord *job,
                      Pb__ClientJob *said)
{
    if (job->pipeline_id == 0) {
        watch_add(f, s->client, job->id);
    } else {
        said->unwatched = true;
    }
}

static void take_query(struct fleet *f, struct session *s, const Pb__ClientQuery *m)
{
    Pb__ClientAnswer answer = PB__CLIENT_ANSWER__INIT;

    answer.request = m->request;
    if (m->n_job_ids > LIMIT_ENQUEUE_JOBS ||
        (m->notify && !watch_has_room(f, s->client, m->n_job_ids))) {
        answer.code = (char *)err_code(-E_LIMIT);
        answer.text = (char *)"too many jobs are asked or waited for";
        send_answer(f, s, &answer);
        return;
    }
    answer.jobs = arena_array(&f->arena, m->n_job_ids + 1, sizeof(*answer.jobs));
    for (size_t i = 0; i < m->n_job_ids && tx_ok(f->turn.tx); i++) {
        const Pb__JobRecord *job = job_get(f->turn.tx, m->job_ids[i]);
        if (job == NULL) {
            continue;
        }
        Pb__ClientJob *said = arena_alloc(&f->arena, sizeof(*said));
        describe(job, said);
        answer.jobs[answer.n_jobs++] = said;
        if (m->notify && !has_ended(job)) {
            watch_one(f, s, job, said);
        }
    }
    if (tx_ok(f->turn.tx)) {
        send_answer(f, s, &answer);
    }
}

static void take_bye(struct fleet *f, struct session *s)
{
    log_info("net: client %s says good-bye", s->client->name);
    send_bye_ack(f, s);
    session_close_soon(f, s);
}

void client_take(struct fleet *f, struct session *s, const Pb__Envelope *e)
{
    heard(f, s);
    if (e->body_case == PB__ENVELOPE__BODY_HEARTBEAT) {
        s->beat_due = true;
        s->beat_sent_ms = e->heartbeat->sent_ms;
        return;
    }
    if (s->answers >= ANSWERS_MAX && e->body_case != PB__ENVELOPE__BODY_BYE) {
        session_violation(f, s, "asks more than it reads answers");
    } else if (e->body_case == PB__ENVELOPE__BODY_CLIENT_ENQUEUE) {
        take_enqueue(f, s, e->client_enqueue);
    } else if (e->body_case == PB__ENVELOPE__BODY_CLIENT_CANCEL) {
        take_cancel(f, s, e->client_cancel);
    } else if (e->body_case == PB__ENVELOPE__BODY_CLIENT_QUERY) {
        take_query(f, s, e->client_query);
    } else if (e->body_case == PB__ENVELOPE__BODY_BYE) {
        take_bye(f, s);
    } else {
        session_violation(f, s, "a message that clients do not send");
    }
}
