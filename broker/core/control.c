#include "common/base.h"

#include "broker/core/run.h"

static void cancel_held(struct run *run, Pb__JobRecord *job, Pb__CancelKind kind)
{
    const Pb__AssignmentRecord *a = run_assignment(run, job);

    check(a != NULL || !tx_ok(run->core->tx));
    if (a != NULL) {
        effect_add(run->core->fx, (struct effect){
                                      .kind = EFFECT_CANCEL,
                                      .worker_id = a->worker_id,
                                      .job_id = job->id,
                                      .attempt = a->attempt,
                                      .epoch = a->epoch,
                                      .cancel_kind = kind,
                                  });
    }
}

void job_fence(struct run *run, Pb__JobRecord *job)
{
    cancel_held(run, job, PB__CANCEL_KIND__CANCEL_FENCED);
}

void job_start_canceling(struct run *run, Pb__JobRecord *job, bool force, const char *detail)
{
    check(job->state != JOB_CANCELING || !tx_ok(run->core->tx));
    job->cancel_forced = force;
    attempt_set_state(run, job, JOB_CANCELING);
    job_move(run, job, JOB_CANCELING, detail);
    job_timer_set(run, job, PB__JOB_TIMER_KIND__JOB_TIMER_CANCELING,
                  run->core->now_ms + CORE_CANCELING_MS);
    cancel_held(run, job, force ? PB__CANCEL_KIND__CANCEL_FORCE : PB__CANCEL_KIND__CANCEL_GRACEFUL);
}

/* A job whose worker is away has nobody to confirm the cancel. */
static bool waits_for_worker(struct run *run, const Pb__JobRecord *job)
{
    const Pb__AssignmentRecord *a = run_assignment(run, job);

    return a != NULL && a->waiting;
}

void job_cancel(struct run *run, Pb__JobRecord *job, Pb__Reason reason, const char *by, bool force)
{
    const bool held = (job_flags(job, job->state) & STATE_HELD) != 0;

    check(!job_state_terminal(job->state));
    job->cancel_requested = true;
    job->reason = reason;
    job->canceled_by = (char *)by;
    run_job_changed(run, job);
    if (job->trigger && job->state == JOB_RUNNING) {
        trigger_cancel(run, job);
    } else if (job->rollout && job->state == JOB_RUNNING) {
        rollout_job_cancel(run, job);
    } else if (!held) {
        job_move(run, job, JOB_CANCELED, by);
    } else if (waits_for_worker(run, job)) {
        job_fence(run, job);
        job_move(run, job, JOB_CANCELING, by);
        job_end_canceling(run, job, NULL, "its worker is away");
    } else if (job->state != JOB_CANCELING) {
        job_start_canceling(run, job, false, by);
    } else if (force) {
        job->cancel_forced = true;
        cancel_held(run, job, PB__CANCEL_KIND__CANCEL_FORCE);
    }
    cancel_child(run, job, reason, by, force); /* also of one that waits to run beside it again */
}

void run_cancel(struct run *run, Pb__Reason reason, const char *by, bool force)
{
    for (uint32_t i = 0; i < run->pipeline->job_count; i++) {
        Pb__JobRecord *job = run_job(run, i);
        const bool optional = run->jobs[i].kind == KIND_IGNORED;
        if (!job_state_terminal(job->state) && !optional &&
            (job->state != JOB_CANCELING || force)) {
            job_cancel(run, job, reason, by, force);
        } else if (job_state_terminal(job->state)) { /* a trigger job that did not wait for it */
            cancel_child(run, job, reason, by, force);
        }
    }
}

void run_cancel_interruptible(struct run *run, const char *by)
{
    for (uint32_t i = 0; i < run->pipeline->job_count; i++) {
        Pb__JobRecord *job = run_job(run, i);
        if (job->interruptible && !job_state_terminal(job->state) && job->state != JOB_CANCELING &&
            run->jobs[i].kind != KIND_IGNORED) {
            job_cancel(run, job, REASON_SUPERSEDED, by, false);
        }
    }
}

int apply_pipeline_cancel(struct core *c, const Pb__PipelineCancel *cmd)
{
    struct run run;
    int r = run_load(&run, c, cmd->pipeline_id);

    if (r < 0) {
        return r;
    }
    if (status_terminal(run.pipeline->status)) {
        r = reject(c, -E_CONFLICT, "pipeline %" PRIu64 " has ended: %s", cmd->pipeline_id,
                   status_text(run.pipeline->status));
    } else {
        run_cancel(&run, REASON_CANCELED_BY_USER, c->actor, true);
        c->reply->pipeline_id = cmd->pipeline_id;
    }
    return run_close(&run, r);
}

int apply_job_cancel(struct core *c, const Pb__JobCancel *cmd)
{
    struct run run;
    Pb__JobRecord *job;
    int r = run_load_job(&run, c, cmd->job_id, &job);

    if (r < 0) {
        return r;
    }
    if (job_state_terminal(job->state)) {
        r = reject(c, -E_CONFLICT, "job %" PRIu64 " has ended: %s", cmd->job_id,
                   job_state_text(job->state));
    } else {
        job_cancel(&run, job, REASON_CANCELED_BY_USER, c->actor, true);
        c->reply->job_id = job->id;
        c->reply->pipeline_id = job->pipeline_id;
    }
    return run_close(&run, r);
}

void job_reset(struct run *run, Pb__JobRecord *job)
{
    job->reason = REASON_NONE;
    job->retries = 0;
    job->losses = 0;
    job->queued_ms = 0;
    job->started_ms = 0;
    job->finished_ms = 0;
    job->exit_code = 0;
    job->cancel_requested = false;
    job->cancel_forced = false;
    job->canceled_by = (char *)"";
    job->child_pipeline_id = 0;
    job->has_coverage = false;
    job->coverage_hundredths = 0;
    job_set_allow_failure(run, job, run_plan_job(run, job)->allow_failure);
}

void job_retry(struct run *run, Pb__JobRecord *job)
{
    job_reset(run, job);
    job_queue(run, job, run->core->actor);
    run_reset_followers(run, job);
}

int apply_job_retry(struct core *c, const Pb__JobRetry *cmd)
{
    struct run run;
    Pb__JobRecord *job;
    int r = run_load_job(&run, c, cmd->job_id, &job);

    if (r < 0) {
        return r;
    }
    if (!job_state_may_move(job->state, JOB_PENDING) || !job_state_terminal(job->state)) {
        r = reject(c, -E_CONFLICT, "a job that is %s cannot be retried",
                   job_state_text(job->state));
    } else {
        job_retry(&run, job);
        c->reply->job_id = job->id;
        c->reply->pipeline_id = job->pipeline_id;
    }
    return run_close(&run, r);
}

static bool retryable(const Pb__JobRecord *job)
{
    return job->state == JOB_FAILED || job->state == JOB_CANCELED;
}

int apply_pipeline_retry(struct core *c, const Pb__PipelineRetry *cmd)
{
    struct run run;
    uint32_t found = 0;
    int r = run_load(&run, c, cmd->pipeline_id);

    if (r < 0) {
        return r;
    }
    for (uint32_t i = 0; i < run.pipeline->job_count; i++) {
        found += retryable(run_job(&run, i));
    }
    if (found == 0) {
        r = reject(c, -E_CONFLICT, "pipeline %" PRIu64 " has no failed or canceled job",
                   cmd->pipeline_id);
        return run_close(&run, r);
    }
    for (uint32_t i = 0; i < run.pipeline->job_count; i++) {
        Pb__JobRecord *job = run_job(&run, i);
        if (retryable(job)) {
            job_reset(&run, job);
            job->played = false;
            job_move(&run, job, JOB_CREATED, c->actor);
        } else if (job->state == JOB_SKIPPED) {
            job_revive(&run, job);
        }
    }
    run_decide_all(&run);
    c->reply->pipeline_id = cmd->pipeline_id;
    return run_close(&run, 0);
}

/* The variables of the latest play are those of all attempts that follow. */
static void put_variables(struct core *c, const Pb__JobPlay *cmd)
{
    Pb__JobVariablesRecord row = PB__JOB_VARIABLES_RECORD__INIT;
    const struct key k = key_u64(cmd->job_id);

    if (cmd->n_variables == 0) {
        tx_del(c->tx, T_JOB_VARS, &k);
        return;
    }
    row.n_variables = cmd->n_variables;
    row.variables = cmd->variables;
    tx_put_msg(c->tx, T_JOB_VARS, &k, &row.base);
}

static int play_check(struct run *run, const Pb__JobRecord *job, bool confirmed)
{
    if (job->state != JOB_MANUAL && job->state != JOB_SCHEDULED) {
        return reject(run->core, -E_CONFLICT, "a job that is %s cannot be played",
                      job_state_text(job->state));
    }
    if (job->state == JOB_MANUAL && job->confirm && !confirmed) {
        return reject(run->core, -E_CONFLICT, "to be confirmed: %.120s",
                      run_plan_job(run, job)->manual_confirmation);
    }
    return 0;
}

void job_play(struct run *run, Pb__JobRecord *job)
{
    job->played = job->state == JOB_MANUAL;
    job_queue(run, job, run->core->actor);
    run_reset_followers(run, job);
}

int apply_job_play(struct core *c, const Pb__JobPlay *cmd)
{
    struct run run;
    Pb__JobRecord *job;
    int r = variables_check(c, cmd->variables, cmd->n_variables, "play");

    if (r == 0 && variables_size(cmd->variables, cmd->n_variables) > SPEC_PLAY_BYTES) {
        r = reject(c, -E_TOO_BIG, "the variables have more than %u bytes", SPEC_PLAY_BYTES);
    }
    if (r == 0) {
        r = run_load_job(&run, c, cmd->job_id, &job);
    }
    if (r < 0) {
        return r;
    }
    r = play_check(&run, job, cmd->confirmed);
    if (r == 0) {
        put_variables(c, cmd);
        job_play(&run, job);
        c->reply->job_id = job->id;
        c->reply->pipeline_id = job->pipeline_id;
    }
    return run_close(&run, r);
}
