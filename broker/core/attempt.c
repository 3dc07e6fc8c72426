#include "common/base.h"

#include "broker/core/run.h"
#include "common/limits.h"

#include <stdlib.h>

#define ATTEMPT_DETAIL_BYTES 200u

static void attempt_put(struct core *c, const Pb__AttemptRecord *a)
{
    const struct key k = key_u64_u64(a->job_id, a->attempt);

    tx_put_msg(c->tx, T_ATTEMPT, &k, &a->base);
}

static Pb__AttemptRecord *attempt_of(struct core *c, const Pb__JobRecord *job)
{
    const struct key k = key_u64_u64(job->id, job->attempt);

    return (Pb__AttemptRecord *)core_row(c, T_ATTEMPT, &k, &pb__attempt_record__descriptor);
}

void attempt_set_state(struct run *run, const Pb__JobRecord *job, Pb__JobState state)
{
    Pb__AttemptRecord *a = attempt_of(run->core, job);

    a->state = state;
    attempt_put(run->core, a);
}

void assignment_put(struct core *c, const Pb__AssignmentRecord *a)
{
    const struct key k = key_u64(a->job_id);

    tx_put_msg(c->tx, T_ASSIGNMENT, &k, &a->base);
}

/* The timeout is the shim's work. This is for a worker that fails at it: the job's timeout bounds
 * the script and then, each by itself, after_script, the upload of caches and that of artifacts. */
uint64_t job_deadline_ms(const struct core *c, const Pb__JobRecord *job)
{
    const uint64_t from = job->started_ms != 0 ? job->started_ms : c->now_ms;

    return from + 4 * job->timeout_ms + CORE_TIMEOUT_GRACE_MS;
}

static bool pool_admits(struct core *c, const Pb__JobRecord *job, const Pb__ClassRecord *class,
                        const char *name)
{
    const Pb__PoolRecord *pool = pool_get(c->tx, name);
    const Pb__ProjectRecord *project = NULL;

    if (pool != NULL && pool->n_projects > 0) {
        project = project_get(c->tx, job->project_id);
    }
    return pool_bar(pool, name, class, project != NULL ? project->name : "") == POOL_BAR_NONE;
}

/* Whether the worker may be given the jobs now. The scheduler saw it so, perhaps before other
 * commands of its turn. */
static int assign_job_check(struct core *c, uint64_t job_id, const Pb__WorkerRecord *w)
{
    const Pb__JobRecord *job = job_get(c->tx, job_id);
    const Pb__ClassRecord *class = job != NULL ? class_get(c->tx, job->class_id) : NULL;

    if (job == NULL) {
        return reject(c, -E_NOT_FOUND, "no job %" PRIu64, job_id);
    }
    if (job->state != JOB_PENDING) {
        return reject(c, -E_CONFLICT, "job %" PRIu64 " is %s", job->id, job_state_text(job->state));
    }
    if (class == NULL || !worker_serves(w, class)) {
        return reject(c, -E_CONFLICT, "worker %.60s cannot run job %" PRIu64, w->name, job->id);
    }
    if (!pool_admits(c, job, class, w->pool)) {
        return reject(c, -E_CONFLICT, "pool %.60s does not take job %" PRIu64, w->pool, job->id);
    }
    return 0;
}

static int by_id(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a;
    const uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static bool any_twice(struct core *c, const Pb__Assign *cmd)
{
    uint64_t *ids = arena_array(c->arena, cmd->n_job_ids, sizeof(*ids));

    memcpy(ids, cmd->job_ids, cmd->n_job_ids * sizeof(*ids));
    qsort(ids, cmd->n_job_ids, sizeof(*ids), by_id);
    for (size_t i = 1; i < cmd->n_job_ids; i++) {
        if (ids[i] == ids[i - 1]) {
            return true;
        }
    }
    return false;
}

static int assign_check(struct core *c, const Pb__Assign *cmd, const Pb__WorkerRecord *w)
{
    int r = 0;

    if (cmd->n_job_ids == 0 || cmd->n_job_ids > LIMIT_WORKER_SLOTS || any_twice(c, cmd)) {
        return reject(c, -E_INVALID, "no list of jobs");
    }
    if (w->paused || w->draining) {
        return reject(c, -E_CONFLICT, "worker %.60s takes no work", w->name);
    }
    for (size_t i = 0; r == 0 && i < cmd->n_job_ids; i++) {
        r = assign_job_check(c, cmd->job_ids[i], w);
    }
    if (r == 0 && worker_job_count(c->tx, w->id) + cmd->n_job_ids > w->slots) {
        r = reject(c, -E_CONFLICT, "worker %.60s has no free slot", w->name);
    }
    return r;
}

void attempt_begin(struct run *run, Pb__JobRecord *job, Pb__JobState state,
                   const Pb__WorkerRecord *w)
{
    Pb__AttemptRecord a = PB__ATTEMPT_RECORD__INIT;

    a.job_id = job->id;
    a.attempt = ++job->attempt;
    a.epoch = ++job->epoch;
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
    run_job_changed(run, job);
}

static void assign(struct run *run, Pb__JobRecord *job, const Pb__WorkerRecord *w)
{
    struct core *c = run->core;
    Pb__AssignmentRecord a = PB__ASSIGNMENT_RECORD__INIT;
    const struct key of_worker = key_u64_u64(w->id, job->id);

    attempt_begin(run, job, JOB_ASSIGNED, w);
    a.job_id = job->id;
    a.worker_id = w->id;
    a.attempt = job->attempt;
    a.epoch = job->epoch;
    assignment_put(c, &a);
    tx_put(c->tx, T_WORKER_JOB, &of_worker, STR_NULL);
    job_move(run, job, JOB_ASSIGNED, w->name);
    job_timer_set(run, job, PB__JOB_TIMER_KIND__JOB_TIMER_UNACKED, c->now_ms + CORE_UNACKED_MS);
    effect_add(c->fx, (struct effect){.kind = EFFECT_ASSIGN,
                                      .worker_id = w->id,
                                      .job_id = job->id,
                                      .attempt = job->attempt,
                                      .epoch = job->epoch});
}

int apply_assign(struct core *c, const Pb__Assign *cmd)
{
    const Pb__WorkerRecord *w = worker_get(c->tx, cmd->worker_id);
    int r;

    if (w == NULL) {
        return reject(c, -E_NOT_FOUND, "no worker %" PRIu64, cmd->worker_id);
    }
    r = assign_check(c, cmd, w);
    for (size_t i = 0; r == 0 && i < cmd->n_job_ids; i++) {
        struct run run;
        Pb__JobRecord *job;
        r = run_load_job(&run, c, cmd->job_ids[i], &job);
        check(r == 0 || !tx_ok(c->tx));
        if (r == 0) {
            assign(&run, job, w);
            r = run_close(&run, 0);
        }
    }
    c->reply->job_id = r == 0 ? cmd->job_ids[0] : 0;
    c->reply->worker_id = r == 0 ? w->id : 0;
    return r;
}

int holding_load(struct holding *h, struct core *c, uint64_t job_id, uint64_t attempt,
                 uint64_t epoch, uint64_t worker_id)
{
    int r = run_load_job(&h->run, c, job_id, &h->job);

    if (r < 0) {
        return r;
    }
    h->assignment = (Pb__AssignmentRecord *)assignment_get(c->tx, job_id);
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
    c->reply->job_id = job_id;
    c->reply->pipeline_id = h->job->pipeline_id;
    c->reply->worker_id = worker_id;
    return 0;
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
        assignment_put(c, h.assignment);
        if (h.job->state == JOB_ASSIGNED) {
            job_timer_set(&h.run, h.job, PB__JOB_TIMER_KIND__JOB_TIMER_TIMEOUT,
                          job_deadline_ms(c, h.job));
        }
    }
    return run_close(&h.run, r);
}

static void start(struct holding *h, struct core *c)
{
    Pb__AttemptRecord *a = attempt_of(c, h->job);

    h->assignment->acked = true;
    assignment_put(c, h->assignment);
    a->started_ms = c->now_ms;
    if (h->job->state == JOB_ASSIGNED) {
        a->state = JOB_RUNNING;
        job_move(&h->run, h->job, JOB_RUNNING, NULL);
        job_timer_set(&h->run, h->job, PB__JOB_TIMER_KIND__JOB_TIMER_TIMEOUT,
                      job_deadline_ms(c, h->job));
    } else { /* the cancel crossed it on the way */
        h->job->started_ms = c->now_ms;
        run_job_changed(&h->run, h->job);
    }
    attempt_put(c, a);
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

void attempt_end(struct run *run, Pb__JobRecord *job, Pb__JobState state, Pb__Reason reason,
                 const Pb__Outcome *o, const char *detail)
{
    struct core *c = run->core;
    Pb__AttemptRecord *a = attempt_of(c, job);

    check(job_state_terminal(state));
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
    }
    attempt_put(c, a);
    if (a->worker_id != 0) {
        effect_add(c->fx, (struct effect){.kind = EFFECT_TERMINAL,
                                          .worker_id = a->worker_id,
                                          .job_id = job->id,
                                          .attempt = a->attempt,
                                          .epoch = a->epoch});
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

/* It ended well, but not all that it brings may be kept. */
static void fail_to_keep(struct run *run, Pb__JobRecord *job, const Pb__Outcome *o,
                         const char *detail)
{
    attempt_end(run, job, JOB_FAILED, REASON_ARTIFACT_FAILURE, o, detail);
    job_fail_for_good(run, job, REASON_ARTIFACT_FAILURE, o->exit_code);
}

static void finish(struct run *run, Pb__JobRecord *job, const Pb__Outcome *o)
{
    const Pb__Reason reason = outcome_reason(o);
    const bool kept = outcome_keep_dotenv(run, job, o);

    artifacts_add(run->core, job, o);
    job->has_coverage = o->has_coverage;
    job->coverage_hundredths = o->has_coverage ? o->coverage_hundredths : 0;
    if (job->state == JOB_CANCELING) {
        job_end_canceling(run, job, o, NULL);
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
    } else if (o->result == JOB_SUCCESS) {
        succeed(run, job, o);
    } else if (reason == REASON_WORKER_SHUTDOWN || reason == REASON_WORKER_LOST) {
        job_lose_started(run, job, reason, o);
    } else {
        attempt_end(run, job, JOB_FAILED, reason, o, NULL);
        job_fail(run, job, reason, o->exit_code);
    }
}

int apply_job_finished(struct core *c, const Pb__JobFinished *cmd)
{
    struct holding h;
    const Pb__Outcome *o = cmd->outcome;
    int r;

    if (o == NULL ||
        (o->result != JOB_SUCCESS && o->result != JOB_FAILED && o->result != JOB_CANCELED)) {
        return reject(c, -E_INVALID, "no such outcome");
    }
    r = artifacts_check(c, o);
    r = r < 0 ? r : outcome_check(c, o);
    if (r < 0) {
        return r;
    }
    r = holding_load(&h, c, cmd->job_id, cmd->attempt, cmd->epoch, cmd->worker_id);
    if (r < 0) {
        return r;
    }
    effect_add(c->fx, (struct effect){.kind = EFFECT_FINISHED,
                                      .worker_id = cmd->worker_id,
                                      .job_id = cmd->job_id,
                                      .attempt = h.assignment->attempt,
                                      .epoch = cmd->epoch});
    finish(&h.run, h.job, o);
    return run_close(&h.run, 0);
}
