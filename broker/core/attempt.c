#include "common/base.h"

#include "broker/core/run.h"
#include "common/limits.h"

#define ATTEMPT_DETAIL_BYTES 200u

static void attempt_put(struct core *c, const Pb__AttemptRecord *a)
{
    const struct key k = key_u64_u64(a->job_id, a->attempt);

    tx_put_msg(c->tx, T_ATTEMPT, &k, &a->base);
}

/* The row of the newest attempt; of a job without a pipeline the one that it will get. */
static Pb__AttemptRecord *attempt_of(struct run *run, const Pb__JobRecord *job)
{
    const struct key k = key_u64_u64(job->id, job->attempt);
    const Pb__AssignmentRecord *held = run_is_lone(run) ? run_assignment(run, job) : NULL;
    Pb__AttemptRecord *a = NULL;

    if (held != NULL && held->attempt == job->attempt) {
        a = attempt_open(run->core->tx, job, held);
    }
    return a != NULL ? a
                     : (Pb__AttemptRecord *)core_row(run->core, T_ATTEMPT, &k,
                                                     &pb__attempt_record__descriptor);
}

void attempt_set_state(struct run *run, const Pb__JobRecord *job, Pb__JobState state)
{
    Pb__AttemptRecord *a;

    if (!run_is_lone(run)) {
        a = attempt_of(run, job);
        a->state = state;
        attempt_put(run->core, a);
    }
}

void assignment_put(struct run *run, const Pb__AssignmentRecord *a)
{
    const struct key k = key_u64(a->job_id);

    tx_put_msg(run->core->tx, T_ASSIGNMENT, &k, &a->base);
    run->held = a;
}

/* The timeout is the shim's work. This is for a worker that fails at it: the job's timeout bounds
 * the script and then, each by itself, after_script, the upload of caches and that of artifacts. */
uint64_t job_deadline_ms(const struct core *c, const Pb__JobRecord *job)
{
    const uint64_t from = job->started_ms != 0 ? job->started_ms : c->now_ms;

    return from + 4 * job->timeout_ms + CORE_TIMEOUT_GRACE_MS;
}

void attempt_begin(struct run *run, Pb__JobRecord *job, Pb__JobState state,
                   const Pb__WorkerRecord *w)
{
    Pb__AttemptRecord a = PB__ATTEMPT_RECORD__INIT;

    a.job_id = job->id;
    a.attempt = ++job->attempt;
    job->epoch = MAX(job->epoch, run->core->meta->epoch_floor) + 1;
    a.epoch = job->epoch;
    run_job_changed(run, job);
    if (run_is_lone(run)) {
        return;
    }
    a.state = state;
    a.assigned_ms = run->core->now_ms;
    if (w != NULL) {
        a.worker_id = w->id;
        a.worker_name = w->name;
    } else {
        a.started_ms = run->core->now_ms;
        a.log_complete = true; /* there will be none */
    }
    attempt_put(run->core, &a);
}

static int holding_check(struct holding *h, struct core *c, uint64_t attempt, uint64_t epoch,
                         uint64_t worker_id)
{
    int r;

    h->assignment = run_assignment(&h->run, h->job);
    if (h->assignment == NULL || h->assignment->epoch != epoch ||
        h->assignment->worker_id != worker_id ||
        (attempt != 0 && h->assignment->attempt != attempt)) {
        r = h->assignment == NULL || h->assignment->epoch == epoch
                ? reject(c, -E_STALE_EPOCH, "not the holder: the job is %s",
                         job_state_text(h->job->state))
                : reject(c, -E_STALE_EPOCH, "stale epoch %" PRIu64 ", now %" PRIu64, epoch,
                         h->job->epoch);
        return run_close(&h->run, r);
    }
    c->reply->job_id = h->job->id;
    c->reply->pipeline_id = h->job->pipeline_id;
    c->reply->worker_id = worker_id;
    return 0;
}

int holding_load(struct holding *h, struct core *c, uint64_t job_id, uint64_t attempt,
                 uint64_t epoch, uint64_t worker_id)
{
    const int r = run_load_job(&h->run, c, job_id, &h->job);

    return r < 0 ? r : holding_check(h, c, attempt, epoch, worker_id);
}

int apply_assign_acked(struct core *c, const Pb__AssignAcked *cmd)
{
    struct holding h;
    int r = holding_load(&h, c, cmd->job_id, cmd->attempt, cmd->epoch, cmd->worker_id);

    if (r < 0) {
        return r;
    }
    if (h.assignment->acked) {
        r = reject(c, -E_CONFLICT, "acknowledged already");
    } else {
        h.assignment->acked = true;
        assignment_put(&h.run, h.assignment);
        if (h.job->state == JOB_ASSIGNED) {
            job_timer_set(&h.run, h.job, PB__JOB_TIMER_KIND__JOB_TIMER_TIMEOUT,
                          job_deadline_ms(c, h.job));
        }
    }
    return run_close(&h.run, r);
}

static void attempt_start(struct run *run, const Pb__JobRecord *job)
{
    Pb__AttemptRecord *a;

    if (!run_is_lone(run)) {
        a = attempt_of(run, job);
        a->started_ms = run->core->now_ms;
        a->state = job->state == JOB_ASSIGNED ? JOB_RUNNING : a->state;
        attempt_put(run->core, a);
    }
}

static void start(struct holding *h, struct core *c)
{
    h->assignment->acked = true;
    assignment_put(&h->run, h->assignment);
    attempt_start(&h->run, h->job);
    if (h->job->state == JOB_ASSIGNED) {
        job_move(&h->run, h->job, JOB_RUNNING, NULL);
        job_timer_set(&h->run, h->job, PB__JOB_TIMER_KIND__JOB_TIMER_TIMEOUT,
                      job_deadline_ms(c, h->job));
    } else { /* the cancel crossed it on the way */
        h->job->started_ms = c->now_ms;
        run_job_changed(&h->run, h->job);
    }
}

int apply_job_started(struct core *c, const Pb__JobStarted *cmd)
{
    struct holding h;
    int r = holding_load(&h, c, cmd->job_id, cmd->attempt, cmd->epoch, cmd->worker_id);

    if (r < 0) {
        return r;
    }
    if (h.job->started_ms != 0) {
        r = reject(c, -E_CONFLICT, "started already");
    } else {
        start(&h, c);
    }
    return run_close(&h.run, r);
}

static void tell_ended(struct run *run, const Pb__JobRecord *job, uint64_t worker_id)
{
    effect_add(run->core->fx, (struct effect){.kind = EFFECT_TERMINAL,
                                              .worker_id = worker_id,
                                              .job_id = job->id,
                                              .attempt = job->attempt,
                                              .epoch = job->epoch});
}

void attempt_end(struct run *run, Pb__JobRecord *job, Pb__JobState state, Pb__Reason reason,
                 const Pb__Outcome *o, const char *detail)
{
    struct core *c = run->core;
    Pb__AttemptRecord *a;

    check(job_state_terminal(state));
    if (run_is_lone(run) && state == JOB_SUCCESS && job->keep_ms == 0) { /* nobody could read it */
        const Pb__AssignmentRecord *held = run_assignment(run, job);
        tell_ended(run, job, held != NULL ? held->worker_id : 0);
        return;
    }
    a = attempt_of(run, job);
    a->state = state;
    a->reason = reason;
    a->finished_ms = c->now_ms;
    a->detail = text_clip(c->arena, detail != NULL ? detail : "", ATTEMPT_DETAIL_BYTES);
    if (o != NULL) {
        a->exit_code = o->exit_code;
        a->log_size = o->log_size;
        a->log_crc = o->log_crc;
        a->log_complete = true;
        a->detail = text_clip(c->arena, detail != NULL ? detail : o->detail, ATTEMPT_DETAIL_BYTES);
        a->action = o->action;
    }
    attempt_put(c, a);
    if (a->worker_id != 0) {
        tell_ended(run, job, a->worker_id);
    }
}

void job_refuse(struct run *run, Pb__JobRecord *job, const char *detail)
{
    const Pb__PlanJob *plan = run_plan_job(run, job);
    const char *keyword = plan->n_unsupported > 0 ? plan->unsupported[0] : "";

    job_move(run, job, JOB_PENDING, detail);
    attempt_begin(run, job, JOB_RUNNING, NULL);
    attempt_end(run, job, JOB_FAILED, REASON_CONFIG_ERROR, NULL,
                arena_printf(run->core->arena,
                             "nothing acts on `%.100s`, and the job is not run without it",
                             keyword));
    job_fail_for_good(run, job, REASON_CONFIG_ERROR, 0);
}

void job_requeue(struct run *run, Pb__JobRecord *job, const char *detail)
{
    job->reason = REASON_NONE;
    job->started_ms = 0;
    job->exit_code = 0;
    job->has_coverage = false;
    job->coverage_hundredths = 0;
    job->cancel_forced = false;
    job_move(run, job, JOB_PENDING, detail);
}

static bool may_retry(const Pb__JobRecord *job, const Pb__PlanJob *plan, Pb__Reason reason,
                      int32_t exit_code)
{
    if (job->retries >= job->retry_max) {
        return false;
    }
    if (plan->n_retry_when == 0 && plan->n_retry_exit_codes == 0) {
        return true;
    }
    for (size_t i = 0; i < plan->n_retry_when; i++) {
        if (reason_matches(reason, plan->retry_when[i])) {
            return true;
        }
    }
    for (size_t i = 0; i < plan->n_retry_exit_codes; i++) {
        if (reason == REASON_SCRIPT_FAILURE && plan->retry_exit_codes[i] == exit_code) {
            return true;
        }
    }
    return false;
}

void job_fail_for_good(struct run *run, Pb__JobRecord *job, Pb__Reason reason, int32_t exit_code)
{
    job_fail_saying(run, job, reason, exit_code, reason_text(reason));
}

void job_fail_saying(struct run *run, Pb__JobRecord *job, Pb__Reason reason, int32_t exit_code,
                     const char *detail)
{
    const Pb__PlanJob *plan = run_plan_job(run, job);

    job->reason = reason;
    job->exit_code = exit_code;
    for (size_t i = 0; i < plan->n_allow_failure_exit_codes; i++) {
        if (reason == REASON_SCRIPT_FAILURE && plan->allow_failure_exit_codes[i] == exit_code) {
            job_set_allow_failure(run, job, true);
        }
    }
    job_move(run, job, JOB_FAILED, detail);
    if (!job->allow_failure &&
        run->pipeline->on_job_failure == PB__AUTO_CANCEL_ON_FAILURE__AUTO_CANCEL_ON_FAILURE_ALL) {
        run_cancel(run, REASON_DEPENDENCY_FAILED,
                   arena_printf(run->core->arena, "failure of %s", job->name), false);
    }
}

void job_fail(struct run *run, Pb__JobRecord *job, Pb__Reason reason, int32_t exit_code)
{
    if (may_retry(job, run_plan_job(run, job), reason, exit_code)) {
        job->retries++;
        job_requeue(run, job,
                    arena_printf(run->core->arena, "retry %u of %u after %s", job->retries,
                                 job->retry_max, reason_text(reason)));
    } else {
        job_fail_for_good(run, job, reason, exit_code);
    }
}

void job_end_canceling(struct run *run, Pb__JobRecord *job, const Pb__Outcome *o,
                       const char *detail)
{
    check(job->state == JOB_CANCELING || !tx_ok(run->core->tx));
    if (job->cancel_requested) {
        attempt_end(run, job, JOB_CANCELED, job->reason, o, detail);
        job->exit_code = o != NULL ? o->exit_code : 0;
        job_move(run, job, JOB_CANCELED, job->canceled_by);
    } else {
        attempt_end(run, job, JOB_FAILED, REASON_JOB_TIMEOUT, o, detail);
        job_fail(run, job, REASON_JOB_TIMEOUT, 0);
    }
}

/* Outcomes come from workers of other versions: what they do not name rightly is a failure around
 * the script. A job that its worker canceled unasked was cut off by the worker's own end. */
static Pb__Reason outcome_reason(const Pb__Outcome *o)
{
    if (o->result == JOB_CANCELED) {
        return REASON_WORKER_SHUTDOWN;
    }
    if (o->reason == REASON_NONE || o->reason >= REASON_COUNT ||
        reason_class((Pb__Reason)o->reason) == REASON_CLASS_DECISION) {
        return REASON_SYSTEM_FAILURE;
    }
    return (Pb__Reason)o->reason;
}

static void succeed(struct run *run, Pb__JobRecord *job, const Pb__Outcome *o)
{
    attempt_end(run, job, JOB_SUCCESS, REASON_NONE, o, NULL);
    job->exit_code = o->exit_code;
    job_move(run, job, JOB_SUCCESS, NULL);
    environment_set_url(run->core, job, o->environment_url);
    outcome_publish(run, job, o);
}

/* The job's end, once what it brought is booked. */
static void conclude(struct run *run, Pb__JobRecord *job, const Pb__Outcome *o)
{
    const Pb__Reason reason = outcome_reason(o);

    if (job->state == JOB_CANCELING) {
        job_end_canceling(run, job, o, NULL);
    } else if (o->result == JOB_SUCCESS) {
        succeed(run, job, o);
    } else if (reason == REASON_WORKER_SHUTDOWN || reason == REASON_WORKER_LOST) {
        job_lose_started(run, job, reason, o);
    } else {
        attempt_end(run, job, JOB_FAILED, reason, o, NULL);
        job_fail(run, job, reason, o->exit_code);
    }
}

/* It ended well, but not all that it brings may be kept. */
static void fail_to_keep(struct run *run, Pb__JobRecord *job, const Pb__Outcome *o,
                         const char *detail)
{
    attempt_end(run, job, JOB_FAILED, REASON_ARTIFACT_FAILURE, o, detail);
    job_fail_for_good(run, job, REASON_ARTIFACT_FAILURE, o->exit_code);
}

static void finish(struct run *run, Pb__JobRecord *job, const Pb__Outcome *o)
{
    const bool kept = outcome_keep_dotenv(run, job, o);

    artifacts_add(run->core, job, o);
    job->has_coverage = o->has_coverage;
    job->coverage_hundredths = o->has_coverage ? o->coverage_hundredths : 0;
    if (job->state == JOB_CANCELING) {
        conclude(run, job, o);
    } else if (!kept) {
        fail_to_keep(run, job, o,
                     arena_printf(run->core->arena,
                                  "the dotenv variables of the pipeline have more than %u bytes",
                                  LIMIT_PIPELINE_DOTENV));
    } else if (o->result == JOB_SUCCESS && !outcome_pages_fit(run, job, o)) {
        fail_to_keep(run, job, o,
                     arena_printf(run->core->arena,
                                  "the project publishes under %u path prefixes already",
                                  LIMIT_PROJECT_PAGES));
    } else {
        conclude(run, job, o);
    }
}

/* What only jobs of a pipeline can bring: here there is nobody that it would be for. */
static bool brings_files(const Pb__Outcome *o)
{
    return o->n_artifacts > 0 || o->n_dotenv > 0 || o->environment_url.len > 0 ||
           o->release != NULL || o->pages != NULL;
}

/* Its worker need not have said before that it has it, nor that it started. */
static void finish_lone(struct run *run, Pb__JobRecord *job, const Pb__AssignmentRecord *held,
                        const Pb__Outcome *o)
{
    if (job->started_ms == 0) {
        job->started_ms = held->assigned_ms;
    }
    if (brings_files(o) && job->state != JOB_CANCELING) {
        attempt_end(run, job, JOB_FAILED, REASON_SYSTEM_FAILURE, o,
                    "the worker brings files of a job that can have none");
        job_fail_for_good(run, job, REASON_SYSTEM_FAILURE, o->exit_code);
        return;
    }
    conclude(run, job, o);
}

static int outcome_ok(struct core *c, const Pb__Outcome *o)
{
    int r;

    if (o == NULL ||
        (o->result != JOB_SUCCESS && o->result != JOB_FAILED && o->result != JOB_CANCELED)) {
        return reject(c, -E_INVALID, "no such outcome");
    }
    r = artifacts_check(c, o);
    return r < 0 ? r : outcome_check(c, o);
}

/* The outcome was checked. `held`: the job's assignment, if it was read; no other job's end has a
 * part in that of a job without a pipeline. */
static int finish_one(struct core *c, uint64_t worker_id, const Pb__FinishedJob *f,
                      const Pb__AssignmentRecord *held)
{
    struct holding h;
    int r = run_load_job(&h.run, c, f->job_id, &h.job);

    if (r < 0) {
        return r;
    }
    h.run.held = run_is_lone(&h.run) ? held : NULL;
    r = holding_check(&h, c, f->attempt, f->epoch, worker_id);
    if (r < 0) {
        return r;
    }
    effect_add(c->fx, (struct effect){.kind = EFFECT_FINISHED,
                                      .worker_id = worker_id,
                                      .job_id = f->job_id,
                                      .attempt = h.assignment->attempt,
                                      .epoch = f->epoch});
    if (run_is_lone(&h.run)) {
        h.run.outcome = f->outcome;
        finish_lone(&h.run, h.job, h.assignment, f->outcome);
    } else {
        finish(&h.run, h.job, f->outcome);
    }
    return run_close(&h.run, 0);
}

int apply_job_finished(struct core *c, const Pb__JobFinished *cmd)
{
    Pb__FinishedJob f = PB__FINISHED_JOB__INIT;
    const int r = outcome_ok(c, cmd->outcome);

    if (r < 0) {
        return r;
    }
    f.job_id = cmd->job_id;
    f.attempt = cmd->attempt;
    f.epoch = cmd->epoch;
    f.outcome = cmd->outcome;
    return finish_one(c, cmd->worker_id, &f, NULL);
}

/* `ret` gets the assignments. */
static int finished_check(struct core *c, const Pb__JobsFinished *cmd,
                          const Pb__AssignmentRecord **ret)
{
    uint64_t *ids = arena_array(c->arena, cmd->n_jobs + 1, sizeof(*ids));

    if (cmd->n_jobs == 0 || cmd->n_jobs > LIMIT_FINISHED_JOBS) {
        return reject(c, -E_INVALID, "1 to %u jobs end at once", LIMIT_FINISHED_JOBS);
    }
    for (size_t i = 0; i < cmd->n_jobs; i++) {
        const Pb__FinishedJob *f = cmd->jobs[i];
        const Pb__AssignmentRecord *a = ret[i] = assignment_get(c->tx, f->job_id);
        const int r = outcome_ok(c, f->outcome);
        ids[i] = f->job_id;
        if (r < 0) {
            return r;
        }
        if (a == NULL || a->epoch != f->epoch || a->worker_id != cmd->worker_id ||
            a->attempt != f->attempt) {
            return reject(c, -E_STALE_EPOCH, "not the holder of job %" PRIu64, f->job_id);
        }
    }
    if (any_twice(c->arena, ids, cmd->n_jobs)) {
        return reject(c, -E_INVALID, "a job is named twice");
    }
    return tx_error(c->tx);
}

int apply_jobs_finished(struct core *c, const Pb__JobsFinished *cmd)
{
    const Pb__AssignmentRecord **held = arena_array(c->arena, cmd->n_jobs + 1, sizeof(*held));
    int r = finished_check(c, cmd, held);

    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < cmd->n_jobs && tx_ok(c->tx); i++) {
        r = finish_one(c, cmd->worker_id, cmd->jobs[i], held[i]);
        /* The failure of one before it may have canceled it, and fenced the worker. */
        check(r == 0 || (r == -E_STALE_EPOCH && i > 0) || !tx_ok(c->tx));
    }
    return tx_error(c->tx);
}
