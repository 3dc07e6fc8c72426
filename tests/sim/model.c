#include "common/base.h"

#include "tests/sim/sim.h"

/* The commands, as their users understand them. */

#define UNACKED_MS 10000u

void model_touch(struct model_pipeline *p)
{
    p->touched = true;
    p->stamp = ++sim->stamps;
}

void model_copy(struct model *to, const struct model *from)
{
    memcpy(to, from, offsetof(struct model, keys));
    for (uint32_t i = 0; i < from->key_count; i++) {
        if (to->keys[i].stamp != from->keys[i].stamp) {
            to->keys[i] = from->keys[i];
        }
    }
    for (uint32_t i = 0; i < from->pipeline_count; i++) {
        if (to->pipelines[i].stamp != from->pipelines[i].stamp) {
            to->pipelines[i] = from->pipelines[i];
        }
    }
}

/* ---- whether it is refused ---- */

static int foretell_create(const struct model *m, const Pb__PipelineCreate *c)
{
    const struct model_key *k = model_key(m, c->idempotency_key);

    if (c->project[0] == '\0') {
        return -E_INVALID;
    }
    if (c->parent_job_id != 0) {
        return model_foretell_child(m, c);
    }
    return k != NULL && (k->pipeline_id == 0 || k->hash != model_bytes(c->body_hash))
               ? -E_KEY_REUSED
               : 0;
}

static int foretell_pipeline(const struct model *m, uint64_t id, bool retry)
{
    const struct model_pipeline *p = model_pipeline(m, id);
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
    const struct model_job *j = model_job(m, id, NULL);
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
    const struct model_worker *w = model_worker(m, c->worker_id);

    if (w == NULL) {
        return -E_NOT_FOUND;
    }
    if (w->paused || w->draining) {
        return -E_CONFLICT;
    }
    for (size_t i = 0; i < c->n_job_ids; i++) {
        const struct model_job *j = model_job(m, c->job_ids[i], NULL);
        if (j == NULL) {
            return -E_NOT_FOUND;
        }
        if (j->state != JOB_PENDING || !model_serves(m, w, j)) {
            return -E_CONFLICT;
        }
    }
    return model_used(m, w->id) + c->n_job_ids > w->slots ? -E_CONFLICT : 0;
}

/* Who was displaced was so for one job, which gets the slot at once. */
static void foretell_slot(const struct model *m, const Pb__Command *cmd)
{
    if (m->slot_for != 0 &&
        (cmd->body_case != PB__COMMAND__BODY_ASSIGN || cmd->assign->n_job_ids != 1 ||
         cmd->assign->job_ids[0] != m->slot_for || cmd->assign->worker_id != m->slot_of)) {
        breach_now("a job was displaced for job %" PRIu64 ", which does not get its slot",
                   m->slot_for);
    }
}

int model_foretell(const struct model *m, const Pb__Command *cmd)
{
    foretell_slot(m, cmd);
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
    case PB__COMMAND__BODY_JOBS_ENQUEUE:
        return model_foretell_enqueue(m, cmd->jobs_enqueue);
    case PB__COMMAND__BODY_TRIGGER_FAILED:
        return model_foretell_trigger(m, cmd->trigger_failed);
    case PB__COMMAND__BODY_ENVIRONMENT_STOP:
        return model_foretell_stop(m, cmd->environment_stop);
    case PB__COMMAND__BODY_ASSIGN:
        return foretell_assign(m, cmd->assign);
    case PB__COMMAND__BODY_JOB_PREEMPT:
        return model_foretell_preempt(m, cmd->job_preempt);
    case PB__COMMAND__BODY_WORKER_SET:
        return model_worker(m, cmd->worker_set->worker_id) != NULL ? 0 : -E_NOT_FOUND;
    case PB__COMMAND__BODY_POOL_SET:
    case PB__COMMAND__BODY_POOL_DELETE:
    case PB__COMMAND__BODY_PROJECT_SET:
    case PB__COMMAND__BODY_RESOURCE_GROUP_SET:
        return model_foretell_settings(m, cmd);
    case PB__COMMAND__BODY_ASSIGN_ACKED:
    case PB__COMMAND__BODY_JOB_STARTED:
    case PB__COMMAND__BODY_JOB_FINISHED:
    case PB__COMMAND__BODY_JOB_LOST:
    case PB__COMMAND__BODY_JOB_RETURNED:
    case PB__COMMAND__BODY_WORKER_RECLAIMED:
        return model_foretell_held(m, cmd);
    case PB__COMMAND__BODY_JOBS_FINISHED:
        return model_foretell_ends(m, cmd->jobs_finished);
    default:
        return 0;
    }
}

/* ---- what it does ---- */

static bool is_protected(const Pb__PipelineCreate *c)
{
    return c->n_predefined > 0; /* the only one that there is in this world */
}

static void apply_create(struct model *m, const Pb__Command *cmd, const struct reply *reply,
                         struct tx *tx)
{
    const Pb__PipelineCreate *c = cmd->pipeline_create;
    const struct model_key *known = model_key(m, c->idempotency_key);
    const Pb__PipelineRecord *row = pipeline_get(tx, reply->pipeline_id);

    if (known != NULL) {
        if (!reply->duplicate || reply->pipeline_id != known->pipeline_id) {
            breach_now("a key was answered with pipeline %" PRIu64 " instead of %" PRIu64,
                       reply->pipeline_id, known->pipeline_id);
        }
        return;
    }
    if (reply->duplicate || row == NULL || model_pipeline(m, reply->pipeline_id) != NULL) {
        breach_now("a new pipeline has no id of its own");
    }
    check(c->plan->n_jobs <= MODEL_PLAN);
    struct model_pipeline *p = model_new_pipeline(m);
    p->id = row->id;
    p->count = (uint32_t)c->plan->n_jobs;
    for (uint32_t i = 0; i < p->count; i++) {
        model_new_job(m, &p->jobs[i], c->plan->jobs[i], row->first_job_id + i,
                      model_number(c->project));
        p->jobs[i].is_protected = is_protected(c);
        model_open_environment(m, &p->jobs[i], c->plan->jobs[i]->environment, tx);
    }
    model_add_key(m, c->idempotency_key, c->body_hash, p->id, 0);
    model_settle(m, p);
    if (c->parent_job_id != 0) {
        model_add_child(m, p, c->parent_job_id);
    }
}

static void touch(struct model *m, uint64_t job_id)
{
    struct model_pipeline *p = NULL;

    if (model_job(m, job_id, &p) != NULL) {
        model_settle(m, p);
    }
}

static void apply_pipeline(struct model *m, const Pb__Command *cmd)
{
    const bool retry = cmd->body_case == PB__COMMAND__BODY_PIPELINE_RETRY;
    struct model_pipeline *p = model_pipeline(m, retry ? cmd->pipeline_retry->pipeline_id
                                                       : cmd->pipeline_cancel->pipeline_id);

    if (!retry) {
        model_cancel_all(m, p);
        return;
    }
    for (uint32_t i = 0; i < p->count; i++) {
        struct model_job *j = &p->jobs[i];
        if (j->state == JOB_FAILED || j->state == JOB_CANCELED) {
            model_afresh(j);
            model_move(m, j, JOB_CREATED);
        } else if (j->state == JOB_SKIPPED) {
            j->child = 0;
            model_move(m, j, JOB_CREATED);
        }
    }
    model_settle(m, p);
}

static void apply_user(struct model *m, const Pb__Command *cmd)
{
    struct model_pipeline *p = NULL;
    struct model_job *j;

    switch ((int)cmd->body_case) {
    case PB__COMMAND__BODY_JOB_CANCEL:
        model_cancel(m, model_job(m, cmd->job_cancel->job_id, NULL));
        return;
    case PB__COMMAND__BODY_JOB_RETRY:
        j = model_job(m, cmd->job_retry->job_id, &p);
        model_afresh(j);
        break;
    default:
        j = model_job(m, cmd->job_play->job_id, &p);
        break;
    }
    model_queue(m, j);
    model_unskip(m, p, (uint32_t)(j - p->jobs));
}

static void apply_assign(struct model *m, const Pb__Assign *c)
{
    const struct model_worker *w = model_worker(m, c->worker_id);

    for (size_t i = 0; i < c->n_job_ids; i++) {
        struct model_job *j = model_job(m, c->job_ids[i], NULL);
        watch_assign(m, w, j, m->slot_for != 0);
        model_move(m, j, JOB_ASSIGNED);
        j->attempt++;
        j->epoch = MAX(j->epoch, m->epoch_floor) + 1;
        j->worker = c->worker_id;
        j->claim = model_band(j, m->now_ms);
        model_timer(j, TIMER_UNACKED, m->now_ms + UNACKED_MS);
        touch(m, j->id);
    }
    m->slot_for = m->slot_of = 0;
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
    w->pool = model_number(c->pool);
    w->cpu_millis = c->cpu_millis;
    w->tags = 0;
    for (size_t i = 0; i < c->n_tags; i++) {
        w->tags |= (uint8_t)(1u << (c->tags[i][0] - 'a'));
    }
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
    case PB__COMMAND__BODY_JOB_PREEMPT:
        return cmd->job_preempt->job_id;
    case PB__COMMAND__BODY_ASSIGN:
    case PB__COMMAND__BODY_JOBS_FINISHED:
    case PB__COMMAND__BODY_PIPELINE_CREATE:
    case PB__COMMAND__BODY_PIPELINE_CANCEL:
    case PB__COMMAND__BODY_PIPELINE_RETRY:
    case PB__COMMAND__BODY_JOBS_ENQUEUE:
        return 0; /* touched already */
    default:
        return reply->job_id;
    }
}

static void apply_body(struct model *m, const Pb__Command *cmd, const struct reply *reply,
                       struct tx *tx)
{
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
    case PB__COMMAND__BODY_JOBS_ENQUEUE:
        model_apply_enqueue(m, cmd->jobs_enqueue, reply);
        break;
    case PB__COMMAND__BODY_TRIGGER_FAILED:
        model_trigger_failed(m, cmd->trigger_failed);
        break;
    case PB__COMMAND__BODY_ENVIRONMENT_STOP:
        model_stop(m, cmd->environment_stop);
        break;
    case PB__COMMAND__BODY_ASSIGN:
        apply_assign(m, cmd->assign);
        break;
    case PB__COMMAND__BODY_JOB_PREEMPT:
        model_apply_preempt(m, cmd->job_preempt);
        break;
    case PB__COMMAND__BODY_JOBS_FINISHED:
        model_apply_ends(m, cmd->jobs_finished);
        break;
    case PB__COMMAND__BODY_TIMER_FIRED:
        model_apply_timer(m, cmd->timer_fired, reply);
        break;
    case PB__COMMAND__BODY_CLOCK_JUMPED:
        model_apply_jump(m, cmd->clock_jumped->by_ms);
        break;
    case PB__COMMAND__BODY_IDS_SKIPPED: /* the model takes ids as they come */
        m->epoch_floor += cmd->ids_skipped->count;
        break;
    case PB__COMMAND__BODY_EXPIRE:
        model_apply_expire(m, cmd->expire, tx);
        break;
    case PB__COMMAND__BODY_WORKER_HELLO:
        apply_hello(m, cmd->worker_hello, reply);
        break;
    case PB__COMMAND__BODY_WORKER_SET:
        apply_set(m, cmd->worker_set);
        break;
    case PB__COMMAND__BODY_POOL_SET:
    case PB__COMMAND__BODY_POOL_DELETE:
    case PB__COMMAND__BODY_PROJECT_SET:
    case PB__COMMAND__BODY_RESOURCE_GROUP_SET:
        model_apply_settings(m, cmd);
        break;
    case PB__COMMAND__BODY_ASSIGN_ACKED:
    case PB__COMMAND__BODY_JOB_STARTED:
    case PB__COMMAND__BODY_JOB_FINISHED:
    case PB__COMMAND__BODY_JOB_LOST:
    case PB__COMMAND__BODY_JOB_RETURNED:
    case PB__COMMAND__BODY_WORKER_RECLAIMED:
        model_apply_held(m, cmd);
        break;
    default: /* the first ones of a store */
        break;
    }
}

void model_apply(struct model *m, const Pb__Command *cmd, const struct reply *reply, struct tx *tx)
{
    m->applied++;
    m->now_ms = cmd->time_ms;
    m->enqueues = cmd->body_case == PB__COMMAND__BODY_JOBS_ENQUEUE;
    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        m->pipelines[i].touched = false;
    }
    apply_body(m, cmd, reply, tx);
    touch(m, job_of(cmd, reply));
    do {
        model_families(m);
    } while (model_groups(m, tx));
    model_sweep(m, tx);
}
