#include "common/base.h"

#include "broker/core/run.h"
#include "common/crypto.h"

struct key ready_key(const Pb__JobRecord *job)
{
    struct key k = key_u64(job->class_id);

    key_add_u32(&k, (uint32_t)(INT32_MAX - (int64_t)job->priority));
    key_add_u64(&k, job->project_id);
    key_add_u64(&k, job->ready_seq);
    key_add_u64(&k, job->id);
    return k;
}

void job_timer_clear(struct run *run, Pb__JobRecord *job)
{
    if (job->timer_id != 0) {
        timer_del(run->core, job->timer_due_ms, job->timer_id);
        job->timer_due_ms = 0;
        job->timer_id = 0;
        run_job_changed(run, job);
    }
}

void job_timer_set(struct run *run, Pb__JobRecord *job, Pb__JobTimerKind kind, uint64_t due_ms)
{
    Pb__JobTimer what = PB__JOB_TIMER__INIT;
    Pb__TimerRecord t = PB__TIMER_RECORD__INIT;

    job_timer_clear(run, job);
    what.job_id = job->id;
    what.epoch = job->epoch;
    what.kind = kind;
    t.what_case = PB__TIMER_RECORD__WHAT_JOB;
    t.job = &what;
    job->timer_due_ms = due_ms;
    job->timer_id = timer_add(run->core, due_ms, &t);
    run_job_changed(run, job);
}

/* Takes the job out of the indexes that only its old state is in. */
static void leave(struct run *run, Pb__JobRecord *job, uint32_t next_flags,
                  const Pb__AssignmentRecord *held)
{
    struct tx *tx = run->core->tx;
    const uint32_t flags = job_flags(job, job->state);

    if (flags & STATE_READY) {
        const struct key k = ready_key(job);
        tx_del(tx, T_READY, &k);
    }
    if (job->state == JOB_WAITING_FOR_RESOURCE) {
        const struct key k = lock_wait_key(job);
        tx_del(tx, T_RESOURCE_WAIT, &k);
    }
    if ((flags & STATE_HELD) && !(next_flags & STATE_HELD) && held != NULL) {
        const struct key k = key_u64(job->id);
        const struct key of_worker = key_u64_u64(held->worker_id, job->id);
        tx_del(tx, T_ASSIGNMENT, &k);
        tx_del(tx, T_WORKER_JOB, &of_worker);
        run->held = NULL;
    }
    if ((flags & ~next_flags & STATE_LOCKS) && job->resource_group[0] != '\0') {
        const struct key k = lock_hold_key(job);
        tx_del(tx, T_RESOURCE_HOLD, &k);
        lock_freed(run->core, job);
    }
    if (trigger_is_open(job)) {
        const struct key k = key_u64(job->id);
        tx_del(tx, T_TRIGGER, &k);
    }
    if (rollout_job_is_open(job)) {
        const struct key k = key_u64(job->id);
        tx_del(tx, T_ROLLOUT_OPEN, &k);
    }
}

/* Puts the job, whose state is the new one, where that state belongs. */
static void enter(struct run *run, Pb__JobRecord *job, uint32_t old_flags)
{
    struct core *c = run->core;
    const uint32_t flags = job_flags(job, job->state);
    const bool waits = job->state == JOB_WAITING_FOR_RESOURCE;

    if (waits || (flags & STATE_READY)) {
        if (job->ready_seq == 0) { /* one that comes back to its old place keeps its age, too */
            job->ready_seq = core_new_id(c);
            job->queued_ms = c->now_ms;
        }
    } else if (!(flags & STATE_HELD)) {
        job->ready_seq = 0;
    }
    if (waits) {
        const struct key k = lock_wait_key(job);
        tx_put(c->tx, T_RESOURCE_WAIT, &k, STR_NULL);
    }
    if (flags & STATE_READY) {
        const struct key k = ready_key(job);
        const struct key queued = key_u64(job->queued_ms);
        tx_put(c->tx, T_READY, &k, key_str(&queued));
    }
    if ((flags & ~old_flags & STATE_LOCKS) && job->resource_group[0] != '\0') {
        const struct key k = lock_hold_key(job);
        tx_put(c->tx, T_RESOURCE_HOLD, &k, STR_NULL);
    }
    if (trigger_is_open(job)) {
        const struct key k = key_u64(job->id);
        tx_put(c->tx, T_TRIGGER, &k, STR_NULL);
    }
    if (rollout_job_is_open(job)) {
        const struct key k = key_u64(job->id);
        tx_put(c->tx, T_ROLLOUT_OPEN, &k, STR_NULL);
    }
    if (job->state == JOB_RUNNING) {
        job->started_ms = c->now_ms;
    }
    if (job->state == JOB_RUNNING && !run_is_lone(run)) {
        run->dirty = run->dirty || (!job->interruptible && !run->pipeline->pinned);
        run->pipeline->pinned = run->pipeline->pinned || !job->interruptible;
    }
    job->finished_ms = (flags & STATE_ENDED) ? c->now_ms : 0;
}

static void job_event(struct run *run, const Pb__JobRecord *job, Pb__JobState from,
                      uint64_t worker_id, const char *detail)
{
    event_add(run->core, &(struct event){
                             .kind = EVENT_JOB,
                             .project_id = job->project_id,
                             .pipeline_id = job->pipeline_id,
                             .job_id = job->id,
                             .attempt = job->attempt,
                             .worker_id = worker_id,
                             .from = job_state_text(from),
                             .to = job_state_text(job->state),
                             .name = job->name,
                             .detail = detail,
                         });
}

static bool may_be_next(Pb__JobState s)
{
    return s == JOB_CREATED || s == JOB_SCHEDULED || s == JOB_WAITING_FOR_RESOURCE;
}

/* As the job's pool says now; 0: it has no pool, or that waits for ever. */
static uint64_t queue_timeout_of(struct core *c, const Pb__JobRecord *job)
{
    const Pb__ClassRecord *class = NULL;
    const Pb__PoolRecord *pool;

    if (tx_count(c->tx, T_POOL) > 0) {
        class = class_get(c->tx, job->class_id);
    }
    pool = class != NULL ? pool_get(c->tx, class->pool) : NULL;
    return pool != NULL ? pool->queue_timeout_ms : 0;
}

uint64_t job_queue_deadline_ms(struct core *c, const Pb__JobRecord *job)
{
    const uint64_t timeout_ms = queue_timeout_of(c, job);

    return timeout_ms != 0 ? job->waits_from_ms + timeout_ms : 0;
}

/* A job that names its pool waits no longer than the pool says, all its waits at the same place
 * together: one that is given back or displaced again and again must end, too. Neither the time in
 * the hands of workers nor the wait for a resource group is the pool's. Others may be taken by any
 * worker that comes, also of no pool at all. */
static void queue_timeout(struct run *run, Pb__JobRecord *job, const Pb__AssignmentRecord *held)
{
    struct core *c = run->core;

    if ((job_flags(job, job->state) & STATE_READY) && queue_timeout_of(c, job) != 0) {
        job->waits_from_ms = held != NULL && job->waits_from_ms >= job->queued_ms
                                 ? job->waits_from_ms + (c->now_ms - held->assigned_ms)
                                 : c->now_ms;
        job_timer_set(run, job, PB__JOB_TIMER_KIND__JOB_TIMER_QUEUE, job_queue_deadline_ms(c, job));
    }
}

/* What the scheduler is to know of a move; `place` is the job's in the ready index before it. */
static void queue_changed(struct run *run, const Pb__JobRecord *job, uint32_t old_flags,
                          uint64_t place, const Pb__AssignmentRecord *held)
{
    const uint32_t seen = STATE_READY | STATE_HELD;
    const uint32_t flags = job_flags(job, job->state);
    const uint64_t now_ms = run->core->now_ms;
    const bool yields_no_more = job->state == JOB_CANCELING && job->interruptible;

    if (((old_flags ^ flags) & seen) == 0 && !yields_no_more) {
        return;
    }
    queue_change_add(run->core->fx, &(struct queue_change){
                                        .job_id = job->id,
                                        .class_id = job->class_id,
                                        .project_id = job->project_id,
                                        .worker_id = held != NULL ? held->worker_id : 0,
                                        .ready_seq = place != 0 ? place : job->ready_seq,
                                        .queued_ms = job->queued_ms,
                                        .held_ms = held != NULL ? now_ms - held->assigned_ms : 0,
                                        .priority = job->priority,
                                        .left = (uint8_t)(old_flags & ~flags & seen),
                                        .entered = (uint8_t)(flags & ~old_flags & seen),
                                        .interruptible = job->interruptible,
                                        .first = job->attempt == 1,
                                    });
}

/* The only writer of a job's state. */
void job_move(struct run *run, Pb__JobRecord *job, Pb__JobState to, const char *detail)
{
    struct core *c = run->core;
    const Pb__JobState from = job->state;
    const uint32_t old_flags = job_flags(job, from);
    const uint32_t flags = job_flags(job, to);
    const Pb__AssignmentRecord *held = NULL;
    const uint64_t place = job->ready_seq;

    check(job_may_move(job, to) || !tx_ok(c->tx));
    if ((old_flags | flags) & STATE_HELD) {
        held = run_assignment(run, job);
        check(held != NULL || !tx_ok(c->tx));
    }
    job_timer_clear(run, job);
    leave(run, job, flags, held);
    if ((old_flags ^ flags) & STATE_ENDED) {
        class_count(c, job->class_id, 0, (flags & STATE_ENDED) ? -1 : 1);
    }
    job_count(c, from, -1);
    job_count(c, to, 1);
    job->state = to;
    enter(run, job, old_flags);
    if (job->resource_group[0] != '\0' && (may_be_next(from) || may_be_next(to))) {
        lock_note(c, job);
    }
    queue_timeout(run, job, held);
    queue_changed(run, job, old_flags, place, held);
    environment_job_moved(run, job, from);
    run_job_changed(run, job);
    job_event(run, job, from, held != NULL ? held->worker_id : 0, detail);
}

void job_set_allow_failure(struct run *run, Pb__JobRecord *job, bool allow)
{
    job->allow_failure = allow;
    run_job_changed(run, job);
}

/* The only writer of a stage's status. */
void stage_move(struct run *run, uint32_t stage, Pb__Status to)
{
    Pb__StageRecord *s = run->stages[stage];

    check(status_may_move(MACHINE_STAGE, s->status, to) || !tx_ok(run->core->tx));
    event_add(run->core, &(struct event){
                             .kind = EVENT_STAGE,
                             .project_id = run->pipeline->project_id,
                             .pipeline_id = run->pipeline->id,
                             .from = status_text(s->status),
                             .to = status_text(to),
                             .name = s->name,
                         });
    s->status = to;
    run->stage_dirty[stage] = true;
}

void pipeline_index(struct tx *tx, const Pb__PipelineRecord *p)
{
    const struct key live = key_u64(p->id);
    const struct key of_ref = pipeline_ref_key(p->project_id, p->ref, p->id);

    if (status_terminal(p->status)) {
        tx_del(tx, T_PIPELINE_LIVE, &live);
        tx_del(tx, T_REF_LIVE, &of_ref);
    } else {
        tx_put(tx, T_PIPELINE_LIVE, &live, STR_NULL);
        if (p->on_new_commit != AUTO_CANCEL_NONE) {
            tx_put(tx, T_REF_LIVE, &of_ref, STR_NULL);
        }
    }
}

/* The only writer of a pipeline's status. */
void pipeline_move(struct run *run, Pb__Status to)
{
    Pb__PipelineRecord *p = run->pipeline;
    const Pb__Status from = p->status;

    check(status_may_move(MACHINE_PIPELINE, from, to) || !tx_ok(run->core->tx));
    p->status = to;
    if (status_terminal(from) != status_terminal(to)) {
        pipeline_index(run->core->tx, p);
        family_moved(run->core, p);
        tell_parent(run->core, p);
    }
    p->finished_ms = status_terminal(to) ? run->core->now_ms : 0;
    if (to == STATUS_RUNNING && p->started_ms == 0) {
        p->started_ms = run->core->now_ms;
    }
    run->dirty = true;
    event_add(run->core, &(struct event){
                             .kind = EVENT_PIPELINE,
                             .project_id = p->project_id,
                             .pipeline_id = p->id,
                             .from = status_text(from),
                             .to = status_text(to),
                             .name = p->name,
                         });
}

struct key pipeline_ref_prefix(uint64_t project_id, const char *ref)
{
    struct key k = key_u64(project_id);
    uint8_t hash[SHA256_BYTES];

    crypto_sha256(ref, strlen(ref), hash);
    key_add_bytes(&k, hash, sizeof(hash));
    return k;
}

struct key pipeline_ref_key(uint64_t project_id, const char *ref, uint64_t pipeline_id)
{
    struct key k = pipeline_ref_prefix(project_id, ref);

    key_add_u64(&k, pipeline_id);
    return k;
}
