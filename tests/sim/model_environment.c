#include "common/base.h"

#include "tests/sim/sim.h"

/* Environments: three names in each project. docs/architecture.md: a deployment is made when a job
 * that starts one begins to run, and ends with that attempt; the newest good one says what the
 * environment is, and keeps its pipeline from being deleted until the environment is stopped. */

#define LOOK_AGAIN_MS 86400000ull /* at what is needed when its time has come */

static struct model_environment *environment_of(struct model *m, const struct model_job *j)
{
    return &m->environments[j->environment];
}

void model_open_environment(struct model *m, struct model_job *j, const Pb__EnvironmentSpec *spec,
                            struct tx *tx)
{
    char name[] = "p0";

    if (spec == NULL) {
        return;
    }
    j->environment = (uint8_t)(3 * (j->project - 1) + model_number(spec->name));
    j->action = (uint8_t)spec->action;
    j->auto_stop_ms = spec->auto_stop_in_ms;
    struct model_environment *e = environment_of(m, j);
    if (e->id == 0) {
        name[1] = (char)('0' + j->project);
        const Pb__ProjectRecord *project = project_by_name(tx, name);
        const Pb__EnvironmentRecord *row = project != NULL
                                               ? environment_by_name(tx, project->id, spec->name)
                                               : NULL;
        if (row == NULL) {
            breach_now("environment %s of project %u is not there", spec->name, j->project);
        }
        *e = (struct model_environment){.id = row->id};
    }
}

static void stop(struct model_environment *e)
{
    e->state = ENVIRONMENT_STOPPED;
    e->auto_stop_ms = 0;
}

static void ended_well(struct model *m, const struct model_job *j)
{
    struct model_environment *e = environment_of(m, j);
    const bool starts = j->action == ENVIRONMENT_START;

    if (starts && j->deployment > e->deployment) {
        e->deployment = j->deployment;
        e->job = j->id;
        e->state = ENVIRONMENT_AVAILABLE;
    } else if (starts) {
        return; /* a newer one was good before */
    }
    if (j->action == ENVIRONMENT_STOP) {
        stop(e);
    } else if (j->auto_stop_ms != 0 && e->state == ENVIRONMENT_AVAILABLE) {
        e->auto_stop_ms = m->now_ms + j->auto_stop_ms;
    }
}

/* `ran`: it did when the move began. */
void model_deploys(struct model *m, struct model_job *j, bool ran)
{
    if (j->environment == 0) {
        return;
    }
    if (j->state == JOB_RUNNING || (j->state == JOB_SUCCESS && !ran)) {
        j->deployment = ++m->deployments; /* that it started may not have been told */
    }
    if (j->state == JOB_SUCCESS) {
        ended_well(m, j);
    }
}

static struct model_environment *by_id(const struct model *m, uint64_t id)
{
    for (uint32_t i = 1; i <= MODEL_GROUPS; i++) {
        if (id != 0 && m->environments[i].id == id) {
            return (struct model_environment *)&m->environments[i];
        }
    }
    return NULL;
}

int model_foretell_stop(const struct model *m, const Pb__EnvironmentStop *c)
{
    const struct model_environment *e = by_id(m, c->environment_id);

    return e == NULL ? -E_NOT_FOUND : e->state == ENVIRONMENT_STOPPED ? -E_CONFLICT : 0;
}

void model_stop(struct model *m, const Pb__EnvironmentStop *c)
{
    stop(by_id(m, c->environment_id));
}

bool model_stop_timer(struct model *m, uint64_t due_ms)
{
    for (uint32_t i = 1; i <= MODEL_GROUPS; i++) {
        struct model_environment *e = &m->environments[i];
        if (e->auto_stop_ms == due_ms && due_ms != 0) {
            stop(e);
            return true;
        }
    }
    return false;
}

static bool is_needed(const struct model *m, const struct model_pipeline *root)
{
    for (uint32_t i = 1; i <= MODEL_GROUPS; i++) {
        const struct model_environment *e = &m->environments[i];
        struct model_pipeline *p;
        if (e->job != 0 && e->state != ENVIRONMENT_STOPPED && model_job(m, e->job, &p) != NULL &&
            model_root(m, p) == root) {
            return true;
        }
    }
    return false;
}

/* What is old and needed is looked at again a day later; or its turn has not come. */
void model_look_again(struct model *m, uint64_t before_ms, struct tx *tx)
{
    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        struct model_pipeline *p = &m->pipelines[i];
        const Pb__PipelineRecord *row;
        if (p->id == 0 || p->root != 0 || p->ended_ms == 0 || p->ended_ms > before_ms ||
            !is_needed(m, p)) {
            continue;
        }
        row = pipeline_get(tx, p->id);
        if (row == NULL) {
            breach_now("pipeline %" PRIu64 " is deleted, and an environment needs it", p->id);
        }
        if (row->family_ended_ms == before_ms + LOOK_AGAIN_MS) {
            p->ended_ms = row->family_ended_ms;
            model_touch(p);
        }
    }
}

void model_compare_environments(const struct model *m, struct tx *tx)
{
    for (uint32_t i = 1; i <= MODEL_GROUPS; i++) {
        const struct model_environment *e = &m->environments[i];
        const Pb__EnvironmentRecord *row = e->id != 0 ? environment_get(tx, e->id) : NULL;
        const Pb__DeploymentRecord *d = NULL;
        if (e->id == 0) {
            continue;
        }
        if (row != NULL && row->deployment_id != 0) {
            d = deployment_get(tx, e->id, row->deployment_id);
        }
        if (row == NULL || row->state != (Pb__EnvironmentState)e->state ||
            row->auto_stop_ms != e->auto_stop_ms || (d != NULL ? d->job_id : 0) != e->job) {
            breach_now("environment %u is not as the jobs left it: state %d, it should be %d;"
                       " deployed by job %" PRIu64 ", it should be %" PRIu64 "; stops at %" PRIu64
                       ", it should be %" PRIu64,
                       i, row != NULL ? (int)row->state : -1, (int)e->state,
                       d != NULL ? d->job_id : 0, e->job, row != NULL ? row->auto_stop_ms : 0,
                       e->auto_stop_ms);
        }
    }
}
