#include "common/base.h"

#include "broker/core/audit.h"
#include "common/limits.h"

/* The timer that a job's state calls for; -1: none. */
static int wanted_timer(const Pb__JobRecord *job, const Pb__AssignmentRecord *held)
{
    if (job->state == JOB_SCHEDULED) {
        return PB__JOB_TIMER_KIND__JOB_TIMER_DELAYED;
    }
    if (job->state == JOB_CANCELING) {
        return PB__JOB_TIMER_KIND__JOB_TIMER_CANCELING;
    }
    if (job->state == JOB_PENDING && job->timer_id != 0) { /* its pool had one when it came */
        return PB__JOB_TIMER_KIND__JOB_TIMER_QUEUE;
    }
    if (held == NULL) {
        return -1;
    }
    if (!held->acked) {
        return PB__JOB_TIMER_KIND__JOB_TIMER_UNACKED;
    }
    return held->waiting ? PB__JOB_TIMER_KIND__JOB_TIMER_WAIT_WORKER
                         : PB__JOB_TIMER_KIND__JOB_TIMER_TIMEOUT;
}

static void audit_job_timer(struct audit *a, const Pb__JobRecord *job,
                            const Pb__AssignmentRecord *held)
{
    const int kind = wanted_timer(job, held);
    Pb__JobTimer what = PB__JOB_TIMER__INIT;
    Pb__TimerRecord t = PB__TIMER_RECORD__INIT;

    if ((kind < 0) != (job->timer_id == 0) || (job->timer_id == 0) != (job->timer_due_ms == 0)) {
        breach(a, "job %" PRIu64 " is %s, timer %" PRIu64, job->id, job_state_text(job->state),
               job->timer_id);
    }
    if (kind >= 0 && job->timer_id != 0) {
        what.job_id = job->id;
        what.epoch = job->epoch;
        what.kind = (Pb__JobTimerKind)kind;
        t.what_case = PB__TIMER_RECORD__WHAT_JOB;
        t.job = &what;
        audit_timer(a, job->timer_due_ms, job->timer_id, &t);
    }
}

/* What it takes of its worker is what its class says. */
static void audit_kind(struct audit *a, const Pb__JobRecord *job, const struct key *of_worker)
{
    const Pb__ClassRecord *class = class_get(a->tx, job->class_id);
    const bool action = class != NULL && class_is_action(class);
    struct str value;

    if (tx_get(a->tx, T_WORKER_JOB, of_worker, &value) && (value.n > 0) != action) {
        breach(a, "job %" PRIu64 " is %s action", job->id, action ? "an" : "no");
    }
}

static const Pb__AssignmentRecord *audit_assignment(struct audit *a, const Pb__JobRecord *job)
{
    const struct key k = key_u64(job->id);
    const Pb__AssignmentRecord *held;
    struct key of_worker, worker;

    if (!(job_flags(job, job->state) & STATE_HELD)) {
        audit_index(a, T_ASSIGNMENT, &k, false, job->id);
        return NULL;
    }
    held = (const Pb__AssignmentRecord *)audit_row(a, T_ASSIGNMENT, &k,
                                                   &pb__assignment_record__descriptor, true);
    if (held == NULL) {
        return NULL;
    }
    of_worker = key_u64_u64(held->worker_id, job->id);
    worker = key_u64(held->worker_id);
    audit_index(a, T_WORKER_JOB, &of_worker, true, job->id);
    audit_kind(a, job, &of_worker);
    audit_row(a, T_WORKER, &worker, &pb__worker_record__descriptor, false);
    if (held->epoch != job->epoch || held->attempt != job->attempt ||
        (held->waiting && job->state != JOB_RUNNING) ||
        (!held->acked && job->state == JOB_RUNNING)) {
        breach(a, "job %" PRIu64 " (%s): its assignment does not fit", job->id,
               job_state_text(job->state));
    }
    return held;
}

/* Its newest attempt has not ended. */
static bool is_active(const Pb__JobRecord *job)
{
    return job->state == JOB_ASSIGNED || job->state == JOB_RUNNING || job->state == JOB_CANCELING;
}

static void audit_attempts(struct audit *a, const Pb__JobRecord *job)
{
    for (uint64_t i = 1; i <= job->attempt; i++) {
        const struct key k = key_u64_u64(job->id, i);
        if (i == job->attempt && is_active(job) && job->pipeline_id == 0) {
            audit_index(a, T_ATTEMPT, &k, false, job->id); /* it gets its row when it ends */
            continue;
        }
        const Pb__AttemptRecord *at = (const Pb__AttemptRecord *)audit_row(
            a, T_ATTEMPT, &k, &pb__attempt_record__descriptor, true);
        const bool open = i == job->attempt && is_active(job);
        if (at != NULL && (open ? at->state != job->state : !job_state_terminal(at->state))) {
            breach(a, "job %" PRIu64 " (%s): attempt %" PRIu64 " is %s", job->id,
                   job_state_text(job->state), i, job_state_text(at->state));
        }
    }
}

void audit_artifacts(struct audit *a, uint64_t job_id, uint64_t attempts)
{
    const struct key prefix = key_u64(job_id);
    struct cursor cur;

    for (tx_seek(&cur, a->tx, T_ARTIFACT, key_str(&prefix), NULL); cur.valid; tx_next(&cur)) {
        const struct key k = key_bytes(cur.key.p, cur.key.n);
        const Pb__ArtifactRecord *art = (const Pb__ArtifactRecord *)audit_row(
            a, T_ARTIFACT, &k, &pb__artifact_record__descriptor, true);
        Pb__ArtifactTimer what = PB__ARTIFACT_TIMER__INIT;
        Pb__TimerRecord t = PB__TIMER_RECORD__INIT;
        struct key ref;
        if (art == NULL) {
            continue;
        }
        ref = blob_ref_key(pb_str(art->digest), BLOB_ARTIFACT, art->id);
        audit_index(a, T_BLOB_REF, &ref, true, art->id);
        if (art->attempt == 0 || art->attempt > attempts || art->job_id != job_id) {
            breach(a, "artifact %" PRIu64 " is of no attempt of job %" PRIu64, art->id, job_id);
        }
        if (art->expires_ms != 0) {
            what.job_id = job_id;
            what.artifact_id = art->id;
            t.what_case = PB__TIMER_RECORD__WHAT_ARTIFACT;
            t.artifact = &what;
            audit_timer(a, art->expires_ms, art->timer_id, &t);
        }
    }
}

static uint64_t root_of(struct tx *tx, uint64_t pipeline_id)
{
    const Pb__PipelineRecord *p = pipeline_get(tx, pipeline_id);

    for (uint32_t i = 0; p != NULL && p->parent_job_id != 0 && i < LIMIT_PIPELINE_DEPTH; i++) {
        const Pb__JobRecord *above = job_get(tx, p->parent_job_id);
        p = above != NULL ? pipeline_get(tx, above->pipeline_id) : NULL;
    }
    return p != NULL && p->id != pipeline_id ? p->id : 0;
}

static void audit_next(struct audit *a, const Pb__JobRecord *job)
{
    const struct key next = lock_next_key(job);
    struct str v;

    if (job->root_pipeline_id != 0 && job->root_pipeline_id != root_of(a->tx, job->pipeline_id)) {
        breach(a, "job %" PRIu64 " stands in line for another pipeline", job->id);
    }
    audit_index(a, T_RESOURCE_NEXT, &next, lock_is_next(job), job->id);
    if (tx_get(a->tx, T_RESOURCE_NEXT, &next, &v) && !str_eq(v, lock_next_value(job))) {
        breach(a, "job %" PRIu64 " (%s) is otherwise among those that are next", job->id,
               job_state_text(job->state));
    }
}

static void audit_indexes(struct audit *a, const Pb__JobRecord *job)
{
    const uint32_t flags = job_flags(job, job->state);
    const bool waits = job->state == JOB_WAITING_FOR_RESOURCE;
    const struct key ready = ready_key(job);
    struct str queued;

    audit_index(a, T_READY, &ready, (flags & STATE_READY) != 0, job->id);
    if (tx_get(a->tx, T_READY, &ready, &queued) &&
        (queued.n != sizeof(uint64_t) || key_read_u64(queued, 0) != job->queued_ms)) {
        breach(a, "job %" PRIu64 " is ready since another time than %" PRIu64, job->id,
               job->queued_ms);
    }
    if (job->resource_group[0] != '\0') {
        const struct key hold = lock_hold_key(job);
        const struct key wait = lock_wait_key(job);
        audit_index(a, T_RESOURCE_HOLD, &hold, (flags & STATE_LOCKS) != 0, job->id);
        audit_index(a, T_RESOURCE_WAIT, &wait, waits, job->id);
        audit_next(a, job);
    } else if (waits) {
        breach(a, "job %" PRIu64 " waits for no resource group", job->id);
    }
    if ((job->ready_seq != 0) != (waits || (flags & (STATE_READY | STATE_HELD)))) {
        breach(a, "job %" PRIu64 " is %s, place %" PRIu64, job->id, job_state_text(job->state),
               job->ready_seq);
    }
}

/* What comes before it, counted anew from the jobs. */
static Pb__Status status_before(const struct audit_pipeline *p, const Pb__JobRecord *job)
{
    uint32_t kinds = 0;

    if (job->dag) {
        for (size_t i = 0; i < job->n_needs; i++) {
            const Pb__JobRecord *need = p->jobs[job->needs[i] - p->row->first_job_id];
            kinds |= 1u << job_kind(need->state, need->allow_failure);
        }
        return status_of_needs(kinds);
    }
    for (uint32_t i = 0; i < p->row->job_count && p->jobs[i]->stage < job->stage; i++) {
        kinds |= 1u << job_kind(p->jobs[i]->state, p->jobs[i]->allow_failure);
    }
    return status_of_kinds(kinds);
}

static void audit_plan(struct audit *a, const struct audit_pipeline *p, const Pb__JobRecord *job)
{
    const struct key k = key_u64_u64(p->row->id, job->index);
    const Pb__PlanJob *plan = (const Pb__PlanJob *)audit_row(a, T_PLAN, &k,
                                                             &pb__plan_job__descriptor, true);
    bool fits = plan != NULL && plan->n_needs == job->n_needs && plan->stage == job->stage &&
                strcmp(plan->name, job->name) == 0;

    for (size_t i = 0; fits && i < job->n_needs; i++) {
        fits = job->needs[i] == p->row->first_job_id + plan->needs[i]->job &&
               plan->needs[i]->job < p->row->job_count;
    }
    if (!fits) {
        breach(a, "job %" PRIu64 " is not the one of the plan", job->id);
    } else if (job->state == JOB_CREATED && status_terminal(status_before(p, job))) {
        breach(a, "job %" PRIu64 " is created, but its turn has come", job->id);
    }
}

/* A trigger job and its child know each other; who waits for a child waits no longer than it runs.
 */
static void audit_trigger(struct audit *a, const Pb__JobRecord *job)
{
    const struct key of_job = key_u64(job->id);
    const struct key of_child = key_u64(job->child_pipeline_id);
    const bool waits = job->state == JOB_RUNNING && job->child_pipeline_id != 0;
    const Pb__PipelineRecord *child;

    audit_index(a, T_TRIGGER, &of_job, trigger_is_open(job), job->id);
    audit_index(a, T_ROLLOUT_OPEN, &of_job, rollout_job_is_open(job), job->id);
    if ((job_is_alone(job) || job->unsupported) &&
        (job->state == JOB_PENDING || job->state == JOB_ASSIGNED || job->state == JOB_CANCELING)) {
        breach(a, "job %" PRIu64 " has no worker, and is %s", job->id, job_state_text(job->state));
    }
    if (job->child_pipeline_id == 0) {
        return;
    }
    child = (const Pb__PipelineRecord *)audit_row(a, T_PIPELINE, &of_child,
                                                  &pb__pipeline_record__descriptor, false);
    if (child == NULL || !job->trigger || child->parent_job_id != job->id ||
        (waits && (status_terminal(child->status) ||
                   job->trigger_strategy == PB__TRIGGER_STRATEGY__TRIGGER_STRATEGY_NONE))) {
        breach(a, "job %" PRIu64 " (%s) is at odds with pipeline %" PRIu64, job->id,
               job_state_text(job->state), job->child_pipeline_id);
    }
}

static void audit_job_environment(struct audit *a, const Pb__JobRecord *job)
{
    const struct key of_environment = key_u64(job->environment_id);
    const struct key of_deployment = key_u64_u64(job->environment_id, job->deployment_id);
    const Pb__EnvironmentRecord *e;

    if (job->environment_id == 0) {
        return;
    }
    e = (const Pb__EnvironmentRecord *)audit_row(a, T_ENVIRONMENT, &of_environment,
                                                 &pb__environment_record__descriptor, false);
    if (e != NULL && e->project_id != job->project_id) {
        breach(a, "job %" PRIu64 ": its environment is of another project", job->id);
    }
    if (job->deployment_id != 0) {
        audit_row(a, T_DEPLOYMENT, &of_deployment, &pb__deployment_record__descriptor, false);
    } else if (job->environment_action == ENVIRONMENT_START &&
               (job->state == JOB_RUNNING || job->state == JOB_SUCCESS)) {
        breach(a, "job %" PRIu64 " is %s, and no deployment", job->id, job_state_text(job->state));
    }
}

static void audit_dotenv(struct audit *a, const Pb__JobRecord *job, uint64_t *bytes)
{
    const struct key k = key_u64(job->id);
    const Pb__DotenvRecord *d;

    if (!tx_has(a->tx, T_JOB_DOTENV, &k)) {
        return;
    }
    d = (const Pb__DotenvRecord *)audit_row(a, T_JOB_DOTENV, &k, &pb__dotenv_record__descriptor,
                                            true);
    if (d != NULL) {
        *bytes += variables_size(d->variables, d->n_variables);
        if (d->attempt == 0 || d->attempt > job->attempt) {
            breach(a, "job %" PRIu64 ": its variables are of no attempt", job->id);
        }
    }
}

static void audit_state(struct audit *a, const Pb__JobRecord *job)
{
    audit_indexes(a, job);
    audit_job_timer(a, job, audit_assignment(a, job));
    audit_attempts(a, job);
    if (job_state_terminal(job->state) != (job->finished_ms != 0)) {
        breach(a, "job %" PRIu64 " is %s, finished at %" PRIu64, job->id,
               job_state_text(job->state), job->finished_ms);
    }
}

void audit_job(struct audit *a, struct audit_pipeline *p, uint32_t index)
{
    const Pb__JobRecord *job = p->jobs[index];

    audit_id(a, job->id, "job");
    if (job->id != p->row->first_job_id + index || job->project_id != p->row->project_id) {
        breach(a, "job %" PRIu64 " has a wrong id or project", job->id);
    }
    audit_count(a, job);
    audit_trigger(a, job);
    audit_job_environment(a, job);
    audit_dotenv(a, job, &p->dotenv_bytes);
    audit_plan(a, p, job);
    audit_state(a, job);
    audit_artifacts(a, job->id, job->attempt);
    if (job->state == JOB_RUNNING && !job->interruptible && !p->row->pinned) {
        breach(a, "pipeline %" PRIu64 " is not pinned by job %" PRIu64, p->row->id, job->id);
    }
}

void audit_lone(struct audit *a, uint64_t job_id)
{
    const struct key k = key_u64(job_id);
    const Pb__JobRecord *job = (const Pb__JobRecord *)audit_row(a, T_JOB, &k,
                                                                &pb__job_record__descriptor, true);
    const Pb__PlanJob *plan = (const Pb__PlanJob *)audit_row(a, T_JOB_PLAN, &k,
                                                             &pb__plan_job__descriptor, true);
    struct key project;

    if (job == NULL || plan == NULL) {
        return;
    }
    audit_id(a, job->id, "job");
    if (job->id != job_id || job->pipeline_id != 0 || strcmp(plan->name, job->name) != 0 ||
        job->state == JOB_CREATED || job_is_alone(job) || job->environment_id != 0) {
        breach(a, "job %" PRIu64 " (%s) is none without a pipeline", job_id,
               job_state_text(job->state));
        return;
    }
    project = key_u64(job->project_id);
    audit_count(a, job);
    audit_row(a, T_PROJECT, &project, &pb__project_record__descriptor, false);
    audit_state(a, job);
    if (job_state_terminal(job->state)) {
        const struct key expire = lone_expire_key(job);
        audit_index(a, T_EXPIRE, &expire, true, job->id);
        if (!lone_is_kept(job)) {
            breach(a, "job %" PRIu64 " was not to be kept", job->id);
        }
    }
}
