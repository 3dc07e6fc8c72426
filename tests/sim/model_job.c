#include "common/base.h"

#include "tests/sim/sim.h"

/* What workers, users and time do to a job. Times are those of docs/protocol.md and
 * docs/operating.md. */

#define GRACE_MS       480000u
#define CANCELING_MS   90000u
#define WAIT_WORKER_MS 600000u
#define LOSSES         2u

const struct model_job *model_holder(const struct model *m, uint64_t id, uint64_t attempt,
                                     uint64_t epoch, uint64_t worker)
{
    const struct model_job *j = model_job(m, id, NULL);

    return j != NULL && model_held(j) && j->epoch == epoch && j->worker == worker &&
                   (attempt == 0 || j->attempt == attempt)
               ? j
               : NULL;
}

/* All of them or none; none may be named twice. */
int model_foretell_ends(const struct model *m, const Pb__JobsFinished *c)
{
    for (size_t i = 0; i < c->n_jobs; i++) {
        const Pb__FinishedJob *f = c->jobs[i];
        for (size_t k = 0; k < i; k++) {
            if (c->jobs[k]->job_id == f->job_id) {
                return -E_INVALID;
            }
        }
        if (model_holder(m, f->job_id, f->attempt, f->epoch, c->worker_id) == NULL) {
            return -E_STALE_EPOCH;
        }
    }
    return 0;
}

/* Job, attempt (0: it does not say), epoch and worker of what a worker says, or of what is said
 * about it. */
static struct model_job *named(const struct model *m, const Pb__Command *cmd, int *ret)
{
    uint64_t id, attempt = 0, epoch, worker;

#define TAKE(what) (id = (what)->job_id, epoch = (what)->epoch, worker = (what)->worker_id)
    switch ((int)cmd->body_case) {
    case PB__COMMAND__BODY_ASSIGN_ACKED:
        TAKE(cmd->assign_acked);
        attempt = cmd->assign_acked->attempt;
        break;
    case PB__COMMAND__BODY_JOB_STARTED:
        TAKE(cmd->job_started);
        attempt = cmd->job_started->attempt;
        break;
    case PB__COMMAND__BODY_JOB_FINISHED:
        TAKE(cmd->job_finished);
        attempt = cmd->job_finished->attempt;
        break;
    case PB__COMMAND__BODY_JOB_LOST:
        TAKE(cmd->job_lost);
        break;
    case PB__COMMAND__BODY_JOB_RETURNED:
        TAKE(cmd->job_returned);
        attempt = cmd->job_returned->attempt;
        break;
    default:
        TAKE(cmd->worker_reclaimed);
        attempt = cmd->worker_reclaimed->attempt;
        break;
    }
#undef TAKE
    *ret = model_job(m, id, NULL) == NULL ? -E_NOT_FOUND : -E_STALE_EPOCH;
    return (struct model_job *)model_holder(m, id, attempt, epoch, worker);
}

int model_foretell_held(const struct model *m, const Pb__Command *cmd)
{
    int r;
    const struct model_job *j = named(m, cmd, &r);
    bool fine = true;

    if (j == NULL) {
        return r;
    }
    switch ((int)cmd->body_case) {
    case PB__COMMAND__BODY_ASSIGN_ACKED:
        fine = !j->acked;
        break;
    case PB__COMMAND__BODY_JOB_STARTED:
    case PB__COMMAND__BODY_JOB_RETURNED:
        fine = !j->started;
        break;
    case PB__COMMAND__BODY_JOB_LOST:
        fine = !j->waiting || cmd->job_lost->returned_without;
        break;
    case PB__COMMAND__BODY_WORKER_RECLAIMED:
        fine = j->waiting;
        break;
    default:
        break;
    }
    return fine ? 0 : -E_CONFLICT;
}

void model_back(struct model *m, struct model_job *j)
{
    model_move(m, j, JOB_PENDING);
}

static void fail(struct model *m, struct model_job *j, uint32_t reason)
{
    const bool meant = !j->retry_script_only || reason == REASON_SCRIPT_FAILURE;

    if (j->retries < j->retry_max && meant) {
        j->retries++;
        model_back(m, j);
    } else {
        model_move(m, j, JOB_FAILED);
    }
}

static void lose(struct model *m, struct model_job *j)
{
    if (j->losses < LOSSES) {
        j->losses++;
        model_back(m, j);
    } else {
        model_move(m, j, JOB_FAILED);
    }
}

/* The job's word, or else that of its worker's pool. */
static uint8_t policy(const struct model *m, const struct model_job *j)
{
    const struct model_worker *w = model_worker(m, j->worker);

    if (j->on_lost == PB__ON_WORKER_LOST__ON_WORKER_LOST_REQUEUE) {
        return m->pools[w->pool].on_lost;
    }
    return j->on_lost == PB__ON_WORKER_LOST__ON_WORKER_LOST_REQUEUE_ALWAYS
               ? (uint8_t)PB__ON_WORKER_LOST__ON_WORKER_LOST_REQUEUE
               : j->on_lost;
}

static void lose_started(struct model *m, struct model_job *j)
{
    if (policy(m, j) == PB__ON_WORKER_LOST__ON_WORKER_LOST_REQUEUE) {
        lose(m, j);
    } else {
        model_move(m, j, JOB_FAILED);
    }
}

static void end_canceling(struct model *m, struct model_job *j)
{
    if (j->cancel) {
        model_move(m, j, JOB_CANCELED);
    } else {
        fail(m, j, REASON_JOB_TIMEOUT);
    }
}

static void set_deadline(struct model_job *j, uint64_t now_ms)
{
    model_timer(j, TIMER_TIMEOUT,
                (j->started ? j->started_ms : now_ms) + 4 * j->timeout_ms + GRACE_MS);
}

void model_cancel(struct model *m, struct model_job *j)
{
    j->cancel = true;
    if (!model_held(j) || j->waiting) {
        model_move(m, j, JOB_CANCELED);
    } else if (j->state != JOB_CANCELING) {
        model_move(m, j, JOB_CANCELING);
        model_timer(j, TIMER_CANCELING, m->now_ms + CANCELING_MS);
    }
    model_cancel_child(m, j);
}

void model_afresh(struct model_job *j)
{
    j->retries = 0;
    j->losses = 0;
    j->cancel = false;
    j->started = false;
    j->child = 0;
}

static void finish(struct model *m, struct model_job *j, const Pb__Outcome *o)
{
    if (j->state == JOB_CANCELING) {
        end_canceling(m, j);
    } else if (o->result == JOB_SUCCESS) {
        model_move(m, j, JOB_SUCCESS);
    } else if (o->result == JOB_CANCELED || o->reason == REASON_WORKER_LOST ||
               o->reason == REASON_WORKER_SHUTDOWN) {
        lose_started(m, j);
    } else {
        fail(m, j, o->reason);
    }
}

static void lost(struct model *m, struct model_job *j, bool returned_without)
{
    if (j->state == JOB_CANCELING) {
        end_canceling(m, j);
    } else if (j->state == JOB_ASSIGNED) {
        lose(m, j);
    } else if (policy(m, j) == PB__ON_WORKER_LOST__ON_WORKER_LOST_WAIT && !returned_without) {
        j->waiting = true;
        model_timer(j, TIMER_WAIT, m->now_ms + WAIT_WORKER_MS);
    } else {
        lose_started(m, j);
    }
}

static void start(struct model *m, struct model_job *j)
{
    j->acked = true;
    if (j->state == JOB_ASSIGNED) {
        model_move(m, j, JOB_RUNNING);
        j->started = true;
        j->started_ms = m->now_ms;
        set_deadline(j, m->now_ms);
    }
    j->started = true;
    j->started_ms = m->now_ms;
}

void model_apply_held(struct model *m, const Pb__Command *cmd)
{
    int r;
    struct model_job *j = named(m, cmd, &r);

    switch ((int)cmd->body_case) {
    case PB__COMMAND__BODY_ASSIGN_ACKED:
        j->acked = true;
        if (j->state == JOB_ASSIGNED) {
            set_deadline(j, m->now_ms);
        }
        break;
    case PB__COMMAND__BODY_JOB_STARTED:
        start(m, j);
        break;
    case PB__COMMAND__BODY_JOB_FINISHED:
        finish(m, j, cmd->job_finished->outcome);
        break;
    case PB__COMMAND__BODY_JOB_LOST:
        lost(m, j, cmd->job_lost->returned_without);
        break;
    case PB__COMMAND__BODY_JOB_RETURNED:
        if (j->state == JOB_CANCELING) {
            end_canceling(m, j);
        } else {
            model_back(m, j);
        }
        break;
    default:
        j->waiting = false;
        set_deadline(j, m->now_ms);
        break;
    }
}

/* One after the other; the failure of one may have canceled the next. */
void model_apply_ends(struct model *m, const Pb__JobsFinished *c)
{
    struct model_pipeline *p;

    for (size_t i = 0; i < c->n_jobs; i++) {
        const Pb__FinishedJob *f = c->jobs[i];
        struct model_job *j = (struct model_job *)model_holder(m, f->job_id, f->attempt, f->epoch,
                                                               c->worker_id);
        if (j != NULL) {
            finish(m, j, f->outcome);
        }
        if (model_job(m, f->job_id, &p) != NULL) {
            model_settle(m, p);
        }
    }
}

static void forget_key(struct model *m, uint64_t due_ms)
{
    for (uint32_t i = 0; i < m->key_count; i++) {
        if (m->keys[i].expires_ms == due_ms) {
            m->keys[i] = m->keys[--m->key_count];
            m->keys[i].stamp = ++sim->stamps;
            return;
        }
    }
    breach_now("a timer fired that nothing waits for");
}

/* By what its pool says now. */
static void waited_too_long(struct model *m, struct model_job *j)
{
    const struct model_pool *pool = &m->pools[j->pool];
    const bool bounded = pool->there && pool->queue_timeout_ms != 0;
    const uint64_t due_ms = j->waits_from_ms + pool->queue_timeout_ms;

    if (bounded && due_ms <= m->now_ms) {
        model_move(m, j, JOB_FAILED);
    } else {
        model_timer(j, bounded ? TIMER_QUEUE : TIMER_NONE, bounded ? due_ms : 0);
    }
}

void model_apply_timer(struct model *m, const Pb__TimerFired *c, const struct reply *reply)
{
    struct model_job *j = model_job(m, reply->job_id, NULL);

    if (reply->job_id == 0) { /* of an environment, or of a key */
        if (!model_stop_timer(m, c->due_ms)) {
            forget_key(m, c->due_ms);
        }
        return;
    }
    if (j == NULL || j->timer == TIMER_NONE || j->due_ms != c->due_ms || c->due_ms > m->now_ms) {
        breach_now("job %" PRIu64 ": a timer fired that should not", reply->job_id);
    }
    switch ((enum model_timer)j->timer) {
    case TIMER_DELAY:
        model_queue(m, j);
        break;
    case TIMER_UNACKED:
        lose(m, j);
        break;
    case TIMER_TIMEOUT:
        model_move(m, j, JOB_CANCELING);
        model_timer(j, TIMER_CANCELING, m->now_ms + CANCELING_MS);
        break;
    case TIMER_CANCELING:
        end_canceling(m, j);
        break;
    case TIMER_WAIT:
        model_move(m, j, JOB_FAILED);
        break;
    case TIMER_QUEUE:
        waited_too_long(m, j);
        break;
    case TIMER_NONE:
        break;
    }
}

/* What is in a worker's hands keeps its time. */
void model_apply_jump(struct model *m, uint64_t by_ms)
{
    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        struct model_pipeline *p = &m->pipelines[i];
        for (uint32_t k = 0; k < p->count; k++) {
            struct model_job *j = &p->jobs[k];
            if (model_held(j) && j->timer != TIMER_NONE) {
                j->due_ms += by_ms;
                model_touch(p);
            }
        }
    }
}
