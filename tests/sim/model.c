#include "common/base.h"

#include <stdio.h>

#include "common/crypto.h"
#include "common/limits.h"
#include "tests/sim/sim.h"

/* The commands, as their users understand them. Times are those of docs/protocol.md and
 * docs/operating.md. */

#define UNACKED_MS      10000u
#define GRACE_MS        480000u
#define CANCELING_MS    90000u
#define WAIT_WORKER_MS  600000u
#define LOSSES          2u
#define DEFAULT_TIMEOUT 3600000u
#define KEY_MS          86400000u

struct model_job *model_job(struct model *m, uint64_t id, struct model_pipeline **ret)
{
    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        struct model_pipeline *p = &m->pipelines[i];
        for (uint32_t k = 0; k < p->count; k++) {
            if (p->jobs[k].id == id) {
                if (ret != NULL) {
                    *ret = p;
                }
                return &p->jobs[k];
            }
        }
    }
    return NULL;
}

void model_copy(struct model *to, const struct model *from)
{
    memcpy(to, from, offsetof(struct model, pipelines));
    memcpy(to->pipelines, from->pipelines, from->pipeline_count * sizeof(from->pipelines[0]));
}

static struct model_pipeline *pipeline(struct model *m, uint64_t id)
{
    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        if (m->pipelines[i].id == id) {
            return &m->pipelines[i];
        }
    }
    return NULL;
}

struct model_worker *model_worker(struct model *m, uint64_t id)
{
    for (uint32_t i = 0; i < m->worker_count; i++) {
        if (m->workers[i].id == id) {
            return &m->workers[i];
        }
    }
    return NULL;
}

uint32_t model_used(const struct model *m, uint64_t worker_id)
{
    uint32_t used = 0;

    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        for (uint32_t k = 0; k < m->pipelines[i].count; k++) {
            used += model_held(m->pipelines[i].jobs[k].state) &&
                    m->pipelines[i].jobs[k].worker == worker_id;
        }
    }
    return used;
}

bool model_serves(const struct model_worker *w, const struct model_job *j)
{
    return j->tags == 0 ? w->untagged : (j->tags & ~w->tags) == 0;
}

static struct model_key *key_of(const struct model *m, uint8_t key)
{
    for (uint32_t i = 0; i < MODEL_KEYS; i++) {
        if (key != 0 && m->keys[i].key == key) {
            return (struct model_key *)&m->keys[i];
        }
    }
    return NULL;
}

/* ---- whether it is refused ---- */

static int foretell_create(const struct model *m, const Pb__PipelineCreate *c)
{
    const struct model_key *k;

    if (c->project[0] == '\0') {
        return -E_INVALID;
    }
    k = c->idempotency_key.len > 0 ? key_of(m, c->idempotency_key.data[0]) : NULL;
    return k != NULL && k->hash != c->body_hash.data[0] ? -E_KEY_REUSED : 0;
}

static int foretell_pipeline(const struct model *m, uint64_t id, bool retry)
{
    const struct model_pipeline *p = pipeline((struct model *)m, id);
    uint32_t again = 0;

    if (p == NULL) {
        return -E_NOT_FOUND;
    }
    for (uint32_t i = 0; i < p->count; i++) {
        again += p->jobs[i].state == JOB_FAILED || p->jobs[i].state == JOB_CANCELED;
    }
    if (retry) {
        return again == 0 ? -E_CONFLICT : 0;
    }
    return model_pipeline_ended(p) ? -E_CONFLICT : 0;
}

static int foretell_job(const struct model *m, const Pb__Command *cmd, uint64_t id)
{
    const struct model_job *j = model_job((struct model *)m, id, NULL);
    bool fine;

    if (j == NULL) {
        return -E_NOT_FOUND;
    }
    if (cmd->body_case == PB__COMMAND__BODY_JOB_CANCEL) {
        fine = !model_ended(j->state);
    } else if (cmd->body_case == PB__COMMAND__BODY_JOB_RETRY) {
        fine = model_ended(j->state) && j->state != JOB_SKIPPED;
    } else {
        fine = j->state == JOB_MANUAL || j->state == JOB_SCHEDULED;
    }
    return fine ? 0 : -E_CONFLICT;
}

static int foretell_assign(const struct model *m, const Pb__Assign *c)
{
    const struct model_worker *w = model_worker((struct model *)m, c->worker_id);

    if (w == NULL) {
        return -E_NOT_FOUND;
    }
    if (w->paused || w->draining) {
        return -E_CONFLICT;
    }
    for (size_t i = 0; i < c->n_job_ids; i++) {
        const struct model_job *j = model_job((struct model *)m, c->job_ids[i], NULL);
        if (j == NULL) {
            return -E_NOT_FOUND;
        }
        if (j->state != JOB_PENDING || !model_serves(w, j)) {
            return -E_CONFLICT;
        }
    }
    return model_used(m, w->id) + c->n_job_ids > w->slots ? -E_CONFLICT : 0;
}

static const struct model_job *holder(const struct model *m, uint64_t id, uint64_t attempt,
                                      uint64_t epoch, uint64_t worker)
{
    const struct model_job *j = model_job((struct model *)m, id, NULL);

    return j != NULL && model_held(j->state) && j->epoch == epoch && j->worker == worker &&
                   (attempt == 0 || j->attempt == attempt)
               ? j
               : NULL;
}

/* All of them or none; none may be named twice. */
static int foretell_ends(const struct model *m, const Pb__JobsFinished *c)
{
    for (size_t i = 0; i < c->n_jobs; i++) {
        const Pb__FinishedJob *f = c->jobs[i];
        for (size_t k = 0; k < i; k++) {
            if (c->jobs[k]->job_id == f->job_id) {
                return -E_INVALID;
            }
        }
        if (holder(m, f->job_id, f->attempt, f->epoch, c->worker_id) == NULL) {
            return -E_STALE_EPOCH;
        }
    }
    return 0;
}

static int foretell_held(const struct model *m, const Pb__Command *cmd)
{
    const struct model_job *j;

    switch ((int)cmd->body_case) {
    case PB__COMMAND__BODY_ASSIGN_ACKED:
        j = holder(m, cmd->assign_acked->job_id, cmd->assign_acked->attempt,
                   cmd->assign_acked->epoch, cmd->assign_acked->worker_id);
        return j == NULL ? -E_STALE_EPOCH : j->acked ? -E_CONFLICT : 0;
    case PB__COMMAND__BODY_JOB_STARTED:
        j = holder(m, cmd->job_started->job_id, cmd->job_started->attempt, cmd->job_started->epoch,
                   cmd->job_started->worker_id);
        return j == NULL ? -E_STALE_EPOCH : j->started ? -E_CONFLICT : 0;
    case PB__COMMAND__BODY_JOB_FINISHED:
        j = holder(m, cmd->job_finished->job_id, cmd->job_finished->attempt,
                   cmd->job_finished->epoch, cmd->job_finished->worker_id);
        return j == NULL ? -E_STALE_EPOCH : 0;
    case PB__COMMAND__BODY_JOBS_FINISHED:
        return foretell_ends(m, cmd->jobs_finished);
    case PB__COMMAND__BODY_JOB_LOST:
        j = holder(m, cmd->job_lost->job_id, 0, cmd->job_lost->epoch, cmd->job_lost->worker_id);
        return j == NULL                                        ? -E_STALE_EPOCH
               : j->waiting && !cmd->job_lost->returned_without ? -E_CONFLICT
                                                                : 0;
    case PB__COMMAND__BODY_JOB_RETURNED:
        j = holder(m, cmd->job_returned->job_id, cmd->job_returned->attempt,
                   cmd->job_returned->epoch, cmd->job_returned->worker_id);
        return j == NULL ? -E_STALE_EPOCH : j->started ? -E_CONFLICT : 0;
    default:
        j = holder(m, cmd->worker_reclaimed->job_id, cmd->worker_reclaimed->attempt,
                   cmd->worker_reclaimed->epoch, cmd->worker_reclaimed->worker_id);
        return j == NULL ? -E_STALE_EPOCH : !j->waiting ? -E_CONFLICT : 0;
    }
}

int model_foretell(const struct model *m, const Pb__Command *cmd)
{
    switch ((int)cmd->body_case) {
    case PB__COMMAND__BODY_PIPELINE_CREATE:
        return foretell_create(m, cmd->pipeline_create);
    case PB__COMMAND__BODY_PIPELINE_CANCEL:
        return foretell_pipeline(m, cmd->pipeline_cancel->pipeline_id, false);
    case PB__COMMAND__BODY_PIPELINE_RETRY:
        return foretell_pipeline(m, cmd->pipeline_retry->pipeline_id, true);
    case PB__COMMAND__BODY_JOB_CANCEL:
        return foretell_job(m, cmd, cmd->job_cancel->job_id);
    case PB__COMMAND__BODY_JOB_RETRY:
        return foretell_job(m, cmd, cmd->job_retry->job_id);
    case PB__COMMAND__BODY_JOB_PLAY:
        return foretell_job(m, cmd, cmd->job_play->job_id);
    case PB__COMMAND__BODY_ASSIGN:
        return foretell_assign(m, cmd->assign);
    case PB__COMMAND__BODY_WORKER_SET:
        return model_worker((struct model *)m, cmd->worker_set->worker_id) != NULL ? 0
                                                                                   : -E_NOT_FOUND;
    case PB__COMMAND__BODY_ASSIGN_ACKED:
    case PB__COMMAND__BODY_JOB_STARTED:
    case PB__COMMAND__BODY_JOB_FINISHED:
    case PB__COMMAND__BODY_JOBS_FINISHED:
    case PB__COMMAND__BODY_JOB_LOST:
    case PB__COMMAND__BODY_JOB_RETURNED:
    case PB__COMMAND__BODY_WORKER_RECLAIMED:
        return foretell_held(m, cmd);
    default:
        return 0;
    }
}

/* ---- what it does ---- */

static uint8_t tag_bits(char *const *tags, size_t n)
{
    uint8_t bits = 0;

    for (size_t i = 0; i < n; i++) {
        bits |= (uint8_t)(1u << (tags[i][0] - 'a'));
    }
    return bits;
}

static void make_job(struct model_job *j, const Pb__PlanJob *plan, uint64_t id)
{
    *j = (struct model_job){
        .id = id,
        .state = JOB_CREATED,
        .stage = (uint8_t)plan->stage,
        .when = (uint8_t)plan->when,
        .dag = plan->dag,
        .may_fail = plan->allow_failure,
        .tags = tag_bits(plan->tags, plan->n_tags),
        .group = plan->resource_group[0] != '\0' ? (uint8_t)(plan->resource_group[1] - '0') : 0,
        .on_lost = (uint8_t)plan->on_worker_lost,
        .retry_max = (uint8_t)plan->retry_max,
        .retry_script_only = plan->n_retry_when > 0,
        .timeout_ms = plan->timeout_ms != 0 ? plan->timeout_ms : DEFAULT_TIMEOUT,
        .start_in_ms = plan->start_in_ms,
    };
    for (size_t i = 0; i < plan->n_needs; i++) {
        j->needs |= (uint8_t)(1u << plan->needs[i]->job);
    }
}

static void apply_create(struct model *m, const Pb__Command *cmd, const struct reply *reply,
                         struct tx *tx)
{
    const Pb__PipelineCreate *c = cmd->pipeline_create;
    const uint8_t key = c->idempotency_key.len > 0 ? c->idempotency_key.data[0] : 0;
    const struct model_key *known = key_of(m, key);
    const Pb__PipelineRecord *row = pipeline_get(tx, reply->pipeline_id);

    if (known != NULL) {
        if (!reply->duplicate || reply->pipeline_id != known->pipeline_id) {
            breach_now("key %u was answered with pipeline %" PRIu64 " instead of %" PRIu64, key,
                       reply->pipeline_id, known->pipeline_id);
        }
        return;
    }
    if (reply->duplicate || row == NULL || pipeline(m, reply->pipeline_id) != NULL) {
        breach_now("a new pipeline has no id of its own");
    }
    check(m->pipeline_count < MODEL_PIPELINES && c->plan->n_jobs <= MODEL_PLAN);
    struct model_pipeline *p = &m->pipelines[m->pipeline_count++];
    p->id = row->id;
    p->count = (uint32_t)c->plan->n_jobs;
    for (uint32_t i = 0; i < p->count; i++) {
        make_job(&p->jobs[i], c->plan->jobs[i], row->first_job_id + i);
    }
    for (uint32_t i = 0; i < MODEL_KEYS && key != 0; i++) {
        if (m->keys[i].key == 0) {
            m->keys[i] = (struct model_key){key, c->body_hash.data[0], p->id,
                                            cmd->time_ms + KEY_MS};
            break;
        }
    }
    model_settle(m, p, cmd->time_ms);
    m->touched |= 1ull << (m->pipeline_count - 1);
}

static void again(struct model_job *j, uint8_t state)
{
    model_move(j, state);
    j->started = false;
}

static void fail(struct model_job *j, uint32_t reason)
{
    const bool meant = !j->retry_script_only || reason == REASON_SCRIPT_FAILURE;

    if (j->retries < j->retry_max && meant) {
        j->retries++;
        again(j, JOB_PENDING);
    } else {
        model_move(j, JOB_FAILED);
    }
}

static void lose(struct model_job *j)
{
    if (j->losses < LOSSES) {
        j->losses++;
        again(j, JOB_PENDING);
    } else {
        model_move(j, JOB_FAILED);
    }
}

static void lose_started(struct model_job *j)
{
    if (j->on_lost == PB__ON_WORKER_LOST__ON_WORKER_LOST_REQUEUE) {
        lose(j);
    } else {
        model_move(j, JOB_FAILED);
    }
}

static void end_canceling(struct model_job *j)
{
    if (j->cancel) {
        model_move(j, JOB_CANCELED);
    } else {
        fail(j, REASON_JOB_TIMEOUT);
    }
}

static void set_timer(struct model_job *j, enum model_timer timer, uint64_t due_ms)
{
    j->timer = (uint8_t)timer;
    j->due_ms = due_ms;
}

static void set_deadline(struct model_job *j, uint64_t now_ms)
{
    set_timer(j, TIMER_TIMEOUT,
              (j->started ? j->started_ms : now_ms) + 4 * j->timeout_ms + GRACE_MS);
}

static void cancel(struct model_job *j, uint64_t now_ms)
{
    j->cancel = true;
    if (!model_held(j->state) || j->waiting) {
        model_move(j, JOB_CANCELED);
    } else if (j->state != JOB_CANCELING) {
        model_move(j, JOB_CANCELING);
        set_timer(j, TIMER_CANCELING, now_ms + CANCELING_MS);
    }
}

static void afresh(struct model_job *j)
{
    j->retries = 0;
    j->losses = 0;
    j->cancel = false;
    j->started = false;
}

static void touch(struct model *m, uint64_t job_id, uint64_t now_ms)
{
    struct model_pipeline *p = NULL;

    if (model_job(m, job_id, &p) != NULL) {
        model_settle(m, p, now_ms);
        m->touched |= 1ull << (p - m->pipelines);
    }
}

static void apply_pipeline(struct model *m, const Pb__Command *cmd)
{
    const bool retry = cmd->body_case == PB__COMMAND__BODY_PIPELINE_RETRY;
    struct model_pipeline *p = pipeline(m, retry ? cmd->pipeline_retry->pipeline_id
                                                 : cmd->pipeline_cancel->pipeline_id);

    for (uint32_t i = 0; i < p->count; i++) {
        struct model_job *j = &p->jobs[i];
        if (retry && (j->state == JOB_FAILED || j->state == JOB_CANCELED)) {
            afresh(j);
            model_move(j, JOB_CREATED);
        } else if (retry && j->state == JOB_SKIPPED) {
            model_move(j, JOB_CREATED);
        } else if (!retry && !model_ended(j->state) && !(j->state == JOB_MANUAL && j->may_fail)) {
            cancel(j, cmd->time_ms);
        }
    }
    touch(m, p->jobs[0].id, cmd->time_ms);
}

static void apply_user(struct model *m, const Pb__Command *cmd)
{
    struct model_pipeline *p = NULL;
    struct model_job *j;

    switch ((int)cmd->body_case) {
    case PB__COMMAND__BODY_JOB_CANCEL:
        cancel(model_job(m, cmd->job_cancel->job_id, NULL), cmd->time_ms);
        return;
    case PB__COMMAND__BODY_JOB_RETRY:
        j = model_job(m, cmd->job_retry->job_id, &p);
        afresh(j);
        break;
    default:
        j = model_job(m, cmd->job_play->job_id, &p);
        break;
    }
    model_queue(m, j);
    model_unskip(p, (uint32_t)(j - p->jobs));
}

static void apply_finished(struct model *m, const Pb__JobFinished *c)
{
    struct model_job *j = model_job(m, c->job_id, NULL);
    const uint32_t reason = c->outcome->reason;

    if (j->state == JOB_CANCELING) {
        end_canceling(j);
    } else if (c->outcome->result == JOB_SUCCESS) {
        model_move(j, JOB_SUCCESS);
    } else if (c->outcome->result == JOB_CANCELED || reason == REASON_WORKER_LOST ||
               reason == REASON_WORKER_SHUTDOWN) {
        lose_started(j);
    } else {
        fail(j, reason);
    }
}

static void apply_lost(struct model *m, const Pb__Command *cmd)
{
    struct model_job *j = model_job(m, cmd->job_lost->job_id, NULL);

    if (j->state == JOB_CANCELING) {
        end_canceling(j);
    } else if (j->state == JOB_ASSIGNED) {
        lose(j);
    } else if (j->on_lost == PB__ON_WORKER_LOST__ON_WORKER_LOST_WAIT &&
               !cmd->job_lost->returned_without) {
        j->waiting = true;
        set_timer(j, TIMER_WAIT, cmd->time_ms + WAIT_WORKER_MS);
    } else {
        lose_started(j);
    }
}

static void apply_assign(struct model *m, const Pb__Command *cmd)
{
    const Pb__Assign *c = cmd->assign;

    for (size_t i = 0; i < c->n_job_ids; i++) {
        struct model_job *j = model_job(m, c->job_ids[i], NULL);
        model_move(j, JOB_ASSIGNED);
        j->attempt++;
        j->epoch++;
        j->worker = c->worker_id;
        set_timer(j, TIMER_UNACKED, cmd->time_ms + UNACKED_MS);
        touch(m, j->id, cmd->time_ms);
    }
}

static void apply_started(struct model *m, const Pb__Command *cmd)
{
    struct model_job *j = model_job(m, cmd->job_started->job_id, NULL);

    j->acked = true;
    if (j->state == JOB_ASSIGNED) {
        model_move(j, JOB_RUNNING);
        j->started = true;
        j->started_ms = cmd->time_ms;
        set_deadline(j, cmd->time_ms);
    }
    j->started = true;
    j->started_ms = cmd->time_ms;
}

static void apply_held(struct model *m, const Pb__Command *cmd)
{
    struct model_job *j;

    switch ((int)cmd->body_case) {
    case PB__COMMAND__BODY_ASSIGN_ACKED:
        j = model_job(m, cmd->assign_acked->job_id, NULL);
        j->acked = true;
        if (j->state == JOB_ASSIGNED) {
            set_deadline(j, cmd->time_ms);
        }
        break;
    case PB__COMMAND__BODY_JOB_STARTED:
        apply_started(m, cmd);
        break;
    case PB__COMMAND__BODY_JOB_FINISHED:
        apply_finished(m, cmd->job_finished);
        break;
    case PB__COMMAND__BODY_JOB_LOST:
        apply_lost(m, cmd);
        break;
    case PB__COMMAND__BODY_JOB_RETURNED:
        j = model_job(m, cmd->job_returned->job_id, NULL);
        if (j->state == JOB_CANCELING) {
            end_canceling(j);
        } else {
            again(j, JOB_PENDING);
        }
        break;
    default:
        j = model_job(m, cmd->worker_reclaimed->job_id, NULL);
        j->waiting = false;
        set_deadline(j, cmd->time_ms);
        break;
    }
}

static void apply_timer(struct model *m, const Pb__Command *cmd, const struct reply *reply)
{
    struct model_job *j = model_job(m, reply->job_id, NULL);

    if (reply->job_id == 0) { /* of a key: what else has timers is not in this world */
        for (uint32_t i = 0; i < MODEL_KEYS; i++) {
            if (m->keys[i].key != 0 && m->keys[i].expires_ms == cmd->timer_fired->due_ms) {
                m->keys[i].key = 0;
                return;
            }
        }
        breach_now("a timer fired that nothing waits for");
    }
    if (j == NULL || j->timer == TIMER_NONE || j->due_ms != cmd->timer_fired->due_ms ||
        cmd->timer_fired->due_ms > cmd->time_ms) {
        breach_now("job %" PRIu64 ": a timer fired that should not", reply->job_id);
    }
    switch ((enum model_timer)j->timer) {
    case TIMER_DELAY:
        model_queue(m, j);
        break;
    case TIMER_UNACKED:
        lose(j);
        break;
    case TIMER_TIMEOUT:
        model_move(j, JOB_CANCELING);
        set_timer(j, TIMER_CANCELING, cmd->time_ms + CANCELING_MS);
        break;
    case TIMER_CANCELING:
        end_canceling(j);
        break;
    case TIMER_WAIT:
        model_move(j, JOB_FAILED);
        break;
    case TIMER_NONE:
        break;
    }
}

/* One after the other; the failure of one may have canceled the next. */
static void apply_ends(struct model *m, const Pb__Command *cmd)
{
    const Pb__JobsFinished *c = cmd->jobs_finished;

    for (size_t i = 0; i < c->n_jobs; i++) {
        const Pb__FinishedJob *f = c->jobs[i];
        Pb__JobFinished one = PB__JOB_FINISHED__INIT;
        one.job_id = f->job_id;
        one.outcome = f->outcome;
        if (holder(m, f->job_id, f->attempt, f->epoch, c->worker_id) != NULL) {
            apply_finished(m, &one);
        }
        touch(m, f->job_id, cmd->time_ms);
    }
}

/* What is in a worker's hands keeps its time. */
static void apply_jump(struct model *m, uint64_t by_ms)
{
    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        for (uint32_t k = 0; k < m->pipelines[i].count; k++) {
            struct model_job *j = &m->pipelines[i].jobs[k];
            if (model_held(j->state) && j->timer != TIMER_NONE) {
                j->due_ms += by_ms;
                m->touched |= 1ull << i;
            }
        }
    }
}

static void apply_hello(struct model *m, const Pb__WorkerHello *c, const struct reply *reply)
{
    struct model_worker *w = model_worker(m, reply->worker_id);

    for (uint32_t i = 0; i < m->worker_count; i++) {
        const bool same_uid = m->workers[i].uid == c->uid.data[0];
        if (same_uid != (m->workers[i].id == reply->worker_id)) {
            breach_now("worker %s got another's id", c->name);
        }
        if (m->workers[i].session >= reply->session) {
            breach_now("a session's number is not new");
        }
    }
    if (w == NULL) {
        check(m->worker_count < MODEL_WORKERS);
        w = &m->workers[m->worker_count++];
        *w = (struct model_worker){.id = reply->worker_id, .uid = c->uid.data[0]};
    }
    w->session = reply->session;
    w->slots = c->slots;
    w->tags = tag_bits(c->tags, c->n_tags);
    w->untagged = c->run_untagged;
}

static void apply_set(struct model *m, const Pb__WorkerSet *c)
{
    struct model_worker *w = model_worker(m, c->worker_id);

    w->paused = c->has_paused ? c->paused : w->paused;
    w->draining = c->has_draining ? c->draining : w->draining;
}

static uint64_t job_of(const Pb__Command *cmd, const struct reply *reply)
{
    switch ((int)cmd->body_case) {
    case PB__COMMAND__BODY_JOB_CANCEL:
        return cmd->job_cancel->job_id;
    case PB__COMMAND__BODY_JOB_RETRY:
        return cmd->job_retry->job_id;
    case PB__COMMAND__BODY_JOB_PLAY:
        return cmd->job_play->job_id;
    case PB__COMMAND__BODY_ASSIGN:
    case PB__COMMAND__BODY_JOBS_FINISHED:
    case PB__COMMAND__BODY_PIPELINE_CREATE:
    case PB__COMMAND__BODY_PIPELINE_CANCEL:
    case PB__COMMAND__BODY_PIPELINE_RETRY:
        return 0; /* touched already */
    default:
        return reply->job_id;
    }
}

void model_apply(struct model *m, const Pb__Command *cmd, const struct reply *reply, struct tx *tx)
{
    m->applied++;
    m->touched = 0;
    switch ((int)cmd->body_case) {
    case PB__COMMAND__BODY_PIPELINE_CREATE:
        apply_create(m, cmd, reply, tx);
        break;
    case PB__COMMAND__BODY_PIPELINE_CANCEL:
    case PB__COMMAND__BODY_PIPELINE_RETRY:
        apply_pipeline(m, cmd);
        break;
    case PB__COMMAND__BODY_JOB_CANCEL:
    case PB__COMMAND__BODY_JOB_RETRY:
    case PB__COMMAND__BODY_JOB_PLAY:
        apply_user(m, cmd);
        break;
    case PB__COMMAND__BODY_ASSIGN:
        apply_assign(m, cmd);
        break;
    case PB__COMMAND__BODY_ASSIGN_ACKED:
    case PB__COMMAND__BODY_JOB_STARTED:
    case PB__COMMAND__BODY_JOB_FINISHED:
    case PB__COMMAND__BODY_JOB_LOST:
    case PB__COMMAND__BODY_JOB_RETURNED:
    case PB__COMMAND__BODY_WORKER_RECLAIMED:
        apply_held(m, cmd);
        break;
    case PB__COMMAND__BODY_JOBS_FINISHED:
        apply_ends(m, cmd);
        break;
    case PB__COMMAND__BODY_TIMER_FIRED:
        apply_timer(m, cmd, reply);
        break;
    case PB__COMMAND__BODY_CLOCK_JUMPED:
        apply_jump(m, cmd->clock_jumped->by_ms);
        break;
    case PB__COMMAND__BODY_WORKER_HELLO:
        apply_hello(m, cmd->worker_hello, reply);
        break;
    case PB__COMMAND__BODY_WORKER_SET:
        apply_set(m, cmd->worker_set);
        break;
    default: /* the first ones of a store */
        break;
    }
    touch(m, job_of(cmd, reply), cmd->time_ms);
    model_groups(m, tx);
}
