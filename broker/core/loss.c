#include "common/base.h"

#include "broker/core/run.h"
#include "common/limits.h"

#define WORKER_JOBS_MAX (LIMIT_WORKER_SLOTS + LIMIT_WORKER_ACTIONS)

/* A lost holder has a budget of its own: what happens to machines must not use up the retries that
 * were meant for the script. */
void job_lose(struct run *run, Pb__JobRecord *job, Pb__Reason reason, const Pb__Outcome *o,
              const char *detail)
{
    attempt_end(run, job, JOB_FAILED, reason, o, detail);
    if (job->losses < CORE_WORKER_LOSS_RETRIES) {
        job->losses++;
        job_requeue(run, job,
                    arena_printf(run->core->arena, "%s, %u of %u",
                                 detail != NULL ? detail : reason_text(reason), job->losses,
                                 CORE_WORKER_LOSS_RETRIES));
    } else {
        job_fail_for_good(run, job, reason, o != NULL ? o->exit_code : 0);
    }
}

/* The job's word, else that of the pool of the worker that had it. */
Pb__OnWorkerLost job_loss_policy(struct run *run, const Pb__JobRecord *job)
{
    const Pb__AssignmentRecord *held;
    const Pb__WorkerRecord *w;
    const Pb__PoolRecord *pool;

    if (job->on_worker_lost == PB__ON_WORKER_LOST__ON_WORKER_LOST_REQUEUE_ALWAYS) {
        return PB__ON_WORKER_LOST__ON_WORKER_LOST_REQUEUE;
    }
    if (job->on_worker_lost != PB__ON_WORKER_LOST__ON_WORKER_LOST_REQUEUE) {
        return job->on_worker_lost;
    }
    held = run_assignment(run, job);
    w = held != NULL ? worker_get(run->core->tx, held->worker_id) : NULL;
    pool = w != NULL ? pool_get(run->core->tx, w->pool) : NULL;
    return pool != NULL ? pool->on_worker_lost : PB__ON_WORKER_LOST__ON_WORKER_LOST_REQUEUE;
}

/* The job may have done half its work: whether it may do it again is its policy. There is no holder
 * left to wait for. */
void job_lose_started(struct run *run, Pb__JobRecord *job, Pb__Reason reason, const Pb__Outcome *o)
{
    if (job_loss_policy(run, job) == PB__ON_WORKER_LOST__ON_WORKER_LOST_REQUEUE) {
        job_lose(run, job, reason, o, NULL);
        return;
    }
    attempt_end(run, job, JOB_FAILED, reason, o, NULL);
    job_fail_for_good(run, job, reason, o != NULL ? o->exit_code : 0);
}

static void note(struct run *run, const Pb__JobRecord *job, uint64_t worker_id, const char *detail)
{
    event_add(run->core, &(struct event){
                             .kind = EVENT_JOB,
                             .project_id = job->project_id,
                             .pipeline_id = job->pipeline_id,
                             .job_id = job->id,
                             .attempt = job->attempt,
                             .worker_id = worker_id,
                             .from = job_state_text(job->state),
                             .to = job_state_text(job->state),
                             .name = job->name,
                             .detail = detail,
                         });
}

static void wait_for_worker(struct holding *h, struct core *c)
{
    h->assignment->waiting = true;
    assignment_put(&h->run, h->assignment);
    job_timer_set(&h->run, h->job, PB__JOB_TIMER_KIND__JOB_TIMER_WAIT_WORKER,
                  c->now_ms + CORE_WAIT_WORKER_MS);
    note(&h->run, h->job, h->assignment->worker_id, "worker lost, the job waits for it");
}

static void lose_running(struct holding *h, struct core *c, bool returned_without)
{
    if (job_loss_policy(&h->run, h->job) == PB__ON_WORKER_LOST__ON_WORKER_LOST_WAIT &&
        !returned_without) {
        wait_for_worker(h, c);
    } else {
        job_lose_started(&h->run, h->job, REASON_WORKER_LOST, NULL);
    }
}

int apply_job_lost(struct core *c, const Pb__JobLost *cmd)
{
    struct holding h;
    int r = holding_load(&h, c, cmd->job_id, 0, cmd->epoch, cmd->worker_id);

    if (r < 0) {
        return r;
    }
    if (h.assignment->waiting && !cmd->returned_without) {
        r = reject(c, -E_CONFLICT, "the job waits for its worker already");
    } else if (h.job->state == JOB_CANCELING) {
        job_end_canceling(&h.run, h.job, NULL, "worker lost");
    } else if (h.job->state == JOB_ASSIGNED) {
        /* Not started: safe to give to another worker, whatever its policy. */
        job_lose(&h.run, h.job, REASON_WORKER_LOST, NULL, NULL);
    } else {
        lose_running(&h, c, cmd->returned_without);
    }
    return run_close(&h.run, r);
}

void worker_lose_jobs(struct core *c, uint64_t worker_id)
{
    const struct key prefix = key_u64(worker_id);
    uint64_t *jobs = arena_array(c->arena, WORKER_JOBS_MAX, sizeof(*jobs));
    size_t count = 0;
    struct cursor cur;

    for (tx_seek(&cur, c->tx, T_WORKER_JOB, key_str(&prefix), NULL);
         cur.valid && count < WORKER_JOBS_MAX; tx_next(&cur)) {
        jobs[count++] = key_read_u64(cur.key, sizeof(uint64_t));
    }
    cursor_end(&cur);
    for (size_t i = 0; i < count && tx_ok(c->tx); i++) {
        const Pb__AssignmentRecord *a = assignment_get(c->tx, jobs[i]);
        Pb__JobLost lost = PB__JOB_LOST__INIT;
        lost.job_id = jobs[i];
        lost.epoch = a != NULL ? a->epoch : 0;
        lost.worker_id = worker_id;
        lost.returned_without = true;
        if (apply_job_lost(c, &lost) < 0) {
            tx_fail(c->tx, -E_CORRUPT);
        }
    }
}

int apply_job_returned(struct core *c, const Pb__JobReturned *cmd)
{
    struct holding h;
    int r = holding_load(&h, c, cmd->job_id, cmd->attempt, cmd->epoch, cmd->worker_id);

    if (r < 0) {
        return r;
    }
    if (h.job->started_ms != 0 && run_plan_job(&h.run, h.job)->action == NULL) {
        r = reject(c, -E_CONFLICT, "a job that was started cannot be given back");
    } else if (h.job->state == JOB_CANCELING) {
        job_end_canceling(&h.run, h.job, NULL, "given back by the worker");
    } else {
        attempt_end(&h.run, h.job, JOB_CANCELED, REASON_WORKER_SHUTDOWN, NULL,
                    "given back by the worker");
        job_requeue(&h.run, h.job, "given back by the worker");
    }
    return run_close(&h.run, r);
}

int apply_worker_reclaimed(struct core *c, const Pb__WorkerReclaimed *cmd)
{
    struct holding h;
    int r = holding_load(&h, c, cmd->job_id, cmd->attempt, cmd->epoch, cmd->worker_id);

    if (r < 0) {
        return r;
    }
    if (!h.assignment->waiting) {
        r = reject(c, -E_CONFLICT, "the job does not wait for its worker");
    } else {
        h.assignment->waiting = false;
        assignment_put(&h.run, h.assignment);
        job_timer_set(&h.run, h.job, PB__JOB_TIMER_KIND__JOB_TIMER_TIMEOUT,
                      job_deadline_ms(c, h.job));
        note(&h.run, h.job, cmd->worker_id, "its worker is back");
    }
    return run_close(&h.run, r);
}
