#include "common/base.h"

#include "broker/core/run.h"
#include "common/limits.h"

/* Environments, and what jobs do to them. A job that starts one makes a deployment when it begins
 * to run; the good end of the newest deployment says what the environment is. A job that stops one
 * does so by its good end. */

static void put(struct core *c, const Pb__EnvironmentRecord *e)
{
    const struct key k = key_u64(e->id);

    tx_put_msg(c->tx, T_ENVIRONMENT, &k, &e->base);
}

static Pb__EnvironmentRecord *row_of(struct core *c, uint64_t id)
{
    const struct key k = key_u64(id);

    return (Pb__EnvironmentRecord *)core_row(c, T_ENVIRONMENT, &k,
                                             &pb__environment_record__descriptor);
}

/* `job` NULL: nobody's. */
static void tell(struct core *c, const Pb__EnvironmentRecord *e, const Pb__JobRecord *job,
                 const char *from)
{
    event_add(c, &(struct event){.kind = EVENT_ENVIRONMENT,
                                 .project_id = e->project_id,
                                 .pipeline_id = job != NULL ? job->pipeline_id : 0,
                                 .job_id = job != NULL ? job->id : 0,
                                 .from = from,
                                 .to = environment_state_text(e->state),
                                 .name = e->name,
                                 .detail = c->actor});
}

static void set_state(struct core *c, Pb__EnvironmentRecord *e, Pb__EnvironmentState to,
                      const Pb__JobRecord *job)
{
    const Pb__EnvironmentState from = e->state;

    if (from != to) {
        e->state = to;
        e->stopped_ms = to == ENVIRONMENT_STOPPED ? c->now_ms : 0;
        tell(c, e, job, environment_state_text(from));
    }
}

uint64_t environment_open(struct core *c, uint64_t project_id, const Pb__EnvironmentSpec *spec)
{
    const Pb__EnvironmentRecord *found = environment_by_name(c->tx, project_id, spec->name);
    const struct key by_name = environment_name_key(project_id, spec->name);
    Pb__EnvironmentRecord e = PB__ENVIRONMENT_RECORD__INIT;
    struct key id;

    if (found != NULL) {
        return found->id;
    }
    e.id = core_new_id(c);
    e.project_id = project_id;
    e.name = spec->name;
    e.slug = (char *)environment_slug(c->arena, spec->name);
    e.tier = spec->tier[0] != '\0' ? spec->tier
                                   : (char *)environment_tier_guess(c->arena, spec->name);
    e.created_ms = c->now_ms;
    id = key_u64(e.id);
    put(c, &e);
    tx_put(c->tx, T_ENVIRONMENT_NAME, &by_name, key_str(&id));
    tell(c, &e, NULL, NULL);
    return e.id;
}

static void auto_stop_clear(struct core *c, Pb__EnvironmentRecord *e)
{
    if (e->timer_id != 0) {
        timer_del(c, e->auto_stop_ms, e->timer_id);
        e->auto_stop_ms = 0;
        e->timer_id = 0;
    }
}

/* 0 leaves the timer as it is: what deploys without a word on it does not take it away. */
static void auto_stop_set(struct core *c, Pb__EnvironmentRecord *e, uint64_t in_ms)
{
    Pb__EnvironmentTimer what = PB__ENVIRONMENT_TIMER__INIT;
    Pb__TimerRecord t = PB__TIMER_RECORD__INIT;

    if (in_ms == 0) {
        return;
    }
    auto_stop_clear(c, e);
    what.environment_id = e->id;
    t.what_case = PB__TIMER_RECORD__WHAT_ENVIRONMENT;
    t.environment = &what;
    e->auto_stop_ms = c->now_ms + in_ms;
    e->timer_id = timer_add(c, e->auto_stop_ms, &t);
}

static Pb__DeploymentRecord *deployment_of(struct core *c, uint64_t environment_id, uint64_t id)
{
    const struct key k = key_u64_u64(environment_id, id);

    return (Pb__DeploymentRecord *)core_row(c, T_DEPLOYMENT, &k,
                                            &pb__deployment_record__descriptor);
}

/* The pipeline that made the environment what it is stays for as long as that is so and the
 * environment is not stopped: it may have to be looked at, and its on_stop job has to run. */
static struct key needed_key(struct core *c, const Pb__EnvironmentRecord *e)
{
    return key_u64_u64(deployment_of(c, e->id, e->deployment_id)->pipeline_id, e->id);
}

static void release_pipeline(struct core *c, const Pb__EnvironmentRecord *e)
{
    if (e->deployment_id != 0 && e->state != ENVIRONMENT_STOPPED) {
        const struct key k = needed_key(c, e);
        tx_del(c->tx, T_PIPELINE_NEEDED, &k);
    }
}

static void stop(struct core *c, Pb__EnvironmentRecord *e, const Pb__JobRecord *job)
{
    auto_stop_clear(c, e);
    release_pipeline(c, e);
    set_state(c, e, ENVIRONMENT_STOPPED, job);
    put(c, e);
}

static void deployment_put(struct run *run, const Pb__DeploymentRecord *d, const char *from)
{
    const struct key k = key_u64_u64(d->environment_id, d->id);

    tx_put_msg(run->core->tx, T_DEPLOYMENT, &k, &d->base);
    event_add(run->core, &(struct event){.kind = EVENT_DEPLOYMENT,
                                         .project_id = d->project_id,
                                         .pipeline_id = d->pipeline_id,
                                         .job_id = d->job_id,
                                         .from = from,
                                         .to = job_state_text(d->status),
                                         .name = row_of(run->core, d->environment_id)->name});
}

static void deployment_begin(struct run *run, Pb__JobRecord *job)
{
    Pb__DeploymentRecord d = PB__DEPLOYMENT_RECORD__INIT;
    struct key of_job;

    d.id = job->deployment_id = core_new_id(run->core);
    d.environment_id = job->environment_id;
    d.project_id = job->project_id;
    d.pipeline_id = job->pipeline_id;
    d.job_id = job->id;
    d.ref = run->pipeline->ref;
    d.sha = run->pipeline->sha;
    d.tag = run->pipeline->tag;
    d.status = JOB_RUNNING;
    d.created_ms = run->core->now_ms;
    deployment_put(run, &d, NULL);
    of_job = key_u64_u64(job->id, d.id);
    tx_put(run->core->tx, T_JOB_DEPLOYMENT, &of_job, STR_NULL);
}

static void deployment_end(struct run *run, const Pb__JobRecord *job, Pb__JobState status)
{
    Pb__DeploymentRecord *d = deployment_of(run->core, job->environment_id, job->deployment_id);

    d->status = status;
    d->finished_ms = run->core->now_ms;
    deployment_put(run, d, job_state_text(JOB_RUNNING));
}

/* The job's deployment runs as long as it does; when it starts anew, the next one is another. */
static void follow(struct run *run, Pb__JobRecord *job, Pb__JobState from)
{
    const bool ran = from == JOB_RUNNING || from == JOB_CANCELING;
    const bool ended = job_state_terminal(job->state);

    if (job->state == JOB_RUNNING || (job->state == JOB_SUCCESS && !ran)) {
        deployment_begin(run, job); /* the start of a job that was quick may not have been told */
    }
    if (job->deployment_id != 0 && job->state != JOB_RUNNING && job->state != JOB_CANCELING &&
        (ran || job->state == JOB_SUCCESS)) {
        deployment_end(run, job, ended ? job->state : JOB_FAILED);
    }
    if (!ended && job->state != JOB_RUNNING && job->state != JOB_CANCELING) {
        job->deployment_id = 0;
    }
}

/* Of a stopped environment the newest good deployment stays when its job goes, until there is
 * another. */
static void forget_outlived(struct core *c, const Pb__EnvironmentRecord *e)
{
    const struct key k = key_u64_u64(e->id, e->deployment_id);
    struct key of_job;

    if (e->deployment_id != 0) {
        of_job = key_u64_u64(deployment_of(c, e->id, e->deployment_id)->job_id, e->deployment_id);
        if (!tx_has(c->tx, T_JOB_DEPLOYMENT, &of_job)) {
            tx_del(c->tx, T_DEPLOYMENT, &k);
        }
    }
}

/* The newest deployment counts, also when an older one ends after it. */
static void deployed(struct run *run, const Pb__JobRecord *job, const Pb__EnvironmentSpec *spec)
{
    struct core *c = run->core;
    Pb__EnvironmentRecord *e = row_of(c, job->environment_id);
    struct key needed;

    if (job->deployment_id < e->deployment_id) {
        return;
    }
    release_pipeline(c, e);
    forget_outlived(c, e);
    e->deployment_id = job->deployment_id;
    e->on_stop_job_id = spec->has_on_stop ? run->pipeline->first_job_id + spec->on_stop : 0;
    e->tier = spec->tier[0] != '\0' ? spec->tier : e->tier;
    auto_stop_set(c, e, spec->auto_stop_in_ms);
    set_state(c, e, ENVIRONMENT_AVAILABLE, job);
    put(c, e);
    needed = needed_key(c, e);
    tx_put(c->tx, T_PIPELINE_NEEDED, &needed, STR_NULL);
}

/* Its job goes: what is left of it is the newest good deployment of a stopped environment. */
void environment_forget_job(struct core *c, const Pb__JobRecord *job)
{
    Pb__EnvironmentRecord *e = row_of(c, job->environment_id);

    if (e->on_stop_job_id == job->id) {
        e->on_stop_job_id = 0;
        put(c, e);
    }
}

void environment_forget_deployment(struct core *c, const Pb__JobRecord *job, uint64_t id)
{
    const struct key k = key_u64_u64(job->environment_id, id);
    const struct key of_job = key_u64_u64(job->id, id);

    if (row_of(c, job->environment_id)->deployment_id != id) {
        tx_del(c->tx, T_DEPLOYMENT, &k);
    }
    tx_del(c->tx, T_JOB_DEPLOYMENT, &of_job);
}

static void ended_well(struct run *run, const Pb__JobRecord *job)
{
    struct core *c = run->core;
    const Pb__EnvironmentSpec *spec = run_plan_job(run, job)->environment;
    Pb__EnvironmentRecord *e;

    if (spec == NULL) {
        tx_fail(c->tx, -E_CORRUPT);
    } else if (job->environment_action == ENVIRONMENT_START) {
        deployed(run, job, spec);
    } else if (job->environment_action == ENVIRONMENT_STOP) {
        e = row_of(c, job->environment_id);
        if (e->state != ENVIRONMENT_STOPPED) {
            stop(c, e, job);
        }
    } else if (spec->auto_stop_in_ms != 0) { /* who prepares, verifies or uses it, keeps it */
        e = row_of(c, job->environment_id);
        if (e->state == ENVIRONMENT_AVAILABLE) {
            auto_stop_set(c, e, spec->auto_stop_in_ms);
            put(c, e);
        }
    }
}

/* It did not stop: another try must be possible. */
static void stop_failed(struct core *c, const Pb__JobRecord *job)
{
    Pb__EnvironmentRecord *e = row_of(c, job->environment_id);

    if (e->state == ENVIRONMENT_STOPPING && e->on_stop_job_id == job->id) {
        set_state(c, e, ENVIRONMENT_AVAILABLE, job);
        put(c, e);
    }
}

void environment_job_moved(struct run *run, Pb__JobRecord *job, Pb__JobState from)
{
    if (job->environment_id == 0) {
        return;
    }
    if (job->environment_action == ENVIRONMENT_START) {
        follow(run, job, from);
    }
    if (job->state == JOB_SUCCESS) {
        ended_well(run, job);
    } else if (job_state_terminal(job->state) && job->environment_action == ENVIRONMENT_STOP) {
        stop_failed(run->core, job);
    }
}

void environment_set_url(struct core *c, const Pb__JobRecord *job, ProtobufCBinaryData url)
{
    Pb__EnvironmentRecord *e;

    if (job->deployment_id == 0 || url.len == 0) {
        return;
    }
    e = row_of(c, job->environment_id);
    if (e->deployment_id == job->deployment_id) {
        e->url = url;
        put(c, e);
    }
}

/* Starts the job, whatever became of it before. */
static void start_on_stop(struct core *c, uint64_t job_id)
{
    struct run run;
    Pb__JobRecord *job;

    if (run_load_job(&run, c, job_id, &job) < 0) {
        tx_fail(c->tx, -E_CORRUPT);
        return;
    }
    if (job->state == JOB_MANUAL || job->state == JOB_SCHEDULED) {
        job_play(&run, job);
    } else if (job_state_terminal(job->state)) {
        job_retry(&run, job);
    } /* or it runs already */
    run_close(&run, 0);
}

/* A job that nobody could start now leaves nothing to do but to call it stopped. */
static bool can_start(struct core *c, uint64_t job_id)
{
    const Pb__JobRecord *job = job_id != 0 ? job_get(c->tx, job_id) : NULL;

    return job != NULL && job->state != JOB_CREATED && job->state != JOB_SKIPPED;
}

static void stop_by_job(struct core *c, Pb__EnvironmentRecord *e, bool force)
{
    if (force || !can_start(c, e->on_stop_job_id)) {
        stop(c, e, NULL);
        return;
    }
    auto_stop_clear(c, e);
    set_state(c, e, ENVIRONMENT_STOPPING, NULL);
    put(c, e);
    start_on_stop(c, e->on_stop_job_id);
}

int apply_environment_stop(struct core *c, const Pb__EnvironmentStop *cmd)
{
    Pb__EnvironmentRecord *e = (Pb__EnvironmentRecord *)environment_get(c->tx, cmd->environment_id);

    if (e == NULL) {
        return reject(c, -E_NOT_FOUND, "no environment %" PRIu64, cmd->environment_id);
    }
    if (e->state == ENVIRONMENT_STOPPED || (e->state == ENVIRONMENT_STOPPING && !cmd->force)) {
        return reject(c, -E_CONFLICT, "environment %.100s is %s", e->name,
                      environment_state_text(e->state));
    }
    c->reply->project_id = e->project_id;
    stop_by_job(c, e, cmd->force);
    c->reply->job_id = e->state == ENVIRONMENT_STOPPING ? e->on_stop_job_id : 0;
    return tx_error(c->tx);
}

/* Its timer's row is gone already. */
void environment_timer_fired(struct core *c, const Pb__EnvironmentTimer *t)
{
    Pb__EnvironmentRecord *e = row_of(c, t->environment_id);

    e->auto_stop_ms = 0;
    e->timer_id = 0;
    if (e->state == ENVIRONMENT_AVAILABLE) {
        stop_by_job(c, e, false);
    } else {
        put(c, e);
    }
}
