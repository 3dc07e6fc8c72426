#include "common/base.h"

#include "broker/core/spec.h"
#include "common/limits.h"

/* The whole of what a worker needs for one job, gathered when it is sent. */

void *spec_grown(struct arena *a, void *items, size_t n, size_t *cap)
{
    void *copy;

    if (n < *cap) {
        return items;
    }
    *cap = MAX(2 * *cap, 32);
    copy = arena_array(a, *cap, sizeof(void *));
    if (n > 0) {
        memcpy(copy, items, n * sizeof(void *));
    }
    return copy;
}

/* What to keep of the job, with the broker's default for how long. */
static Pb__ArtifactSpec *artifact_spec(struct spec *s)
{
    Pb__ArtifactSpec *copy;

    if (s->plan->artifacts == NULL) {
        return NULL;
    }
    copy = arena_alloc(s->arena, sizeof(*copy));
    *copy = *s->plan->artifacts;
    if (copy->expire_in_ms == 0 && !copy->never_expires) {
        copy->expire_in_ms = CORE_DEFAULT_EXPIRE_MS;
    }
    return copy;
}

static void copy_plan(struct spec *s)
{
    Pb__JobSpec *out = s->out;
    const Pb__PlanJob *plan = s->plan;

    out->n_pre_get_sources = plan->n_pre_get_sources;
    out->pre_get_sources = plan->pre_get_sources;
    out->n_script = plan->n_script;
    out->script = plan->script;
    out->n_after_script = plan->n_after_script;
    out->after_script = plan->after_script;
    out->image = plan->image;
    out->n_services = plan->n_services;
    out->services = plan->services;
    out->executor = plan->executor;
    out->action = plan->action;
    out->n_caches = plan->n_caches;
    out->caches = plan->caches;
    out->coverage = plan->coverage;
    out->release = plan->release;
    out->pages = plan->pages;
    out->n_id_tokens = plan->n_id_tokens;
    out->id_tokens = plan->id_tokens;
    out->action = plan->action;
    out->artifacts = artifact_spec(s);
}

static void add_rest(struct spec *s)
{
    if (s->job->rollout_action != 0) {
        spec_add_rollout(s);
        return;
    }
    if (s->pipeline == NULL) {
        spec_add_lone_variables(s);
        return;
    }
    spec_add_inputs(s); /* for what their dotenv reports said, too */
    spec_add_variables(s);
}

static void fill(struct spec *s, const Pb__AssignmentRecord *a)
{
    Pb__JobSpec *out = s->out;

    out->key = arena_alloc(s->arena, sizeof(*out->key));
    pb__job_key__init(out->key);
    out->key->job_id = a->job_id;
    out->key->attempt = a->attempt;
    out->key->epoch = a->epoch;
    out->pipeline_id = s->job->pipeline_id;
    out->project_id = s->job->project_id;
    out->project = (char *)s->project;
    out->name = s->job->name;
    out->stage = (char *)s->stage;
    out->source = s->pipeline != NULL ? s->pipeline->source : NULL;
    out->timeout_ms = s->job->timeout_ms;
    copy_plan(s);
    add_rest(s);
}

static bool open_pipeline(struct spec *s)
{
    const Pb__JobRecord *job = s->job;
    const Pb__StageRecord *stage = stage_get(s->tx, job->pipeline_id, job->stage);
    const Pb__AttemptRecord *attempt = attempt_get(s->tx, job->id, job->attempt);

    s->pipeline = pipeline_get(s->tx, job->pipeline_id);
    s->plan = plan_job_get(s->tx, job->pipeline_id, job->index);
    s->stage = stage != NULL ? stage->name : "";
    s->assigned_ms = attempt != NULL ? attempt->assigned_ms : 0;
    return s->pipeline != NULL && stage != NULL && (attempt != NULL || job->attempt == 0);
}

/* Everything that a spec is made of, but for who holds the job. */
static int open_spec(struct spec *s, struct tx *tx, uint64_t job_id)
{
    const Pb__JobRecord *job = job_get(tx, job_id);
    const Pb__ProjectRecord *project;
    bool whole = true;

    if (job == NULL) {
        return tx_ok(tx) ? -E_NOT_FOUND : tx_error(tx);
    }
    *s = (struct spec){.tx = tx, .arena = tx_arena(tx), .job = job, .stage = ""};
    if (job->pipeline_id == 0) {
        s->plan = lone_plan_get(tx, job_id);
    } else {
        whole = open_pipeline(s);
    }
    project = project_get(tx, job->project_id);
    if (!whole || s->plan == NULL || project == NULL) {
        tx_fail(tx, -E_CORRUPT);
        return tx_error(tx);
    }
    s->project = project->name;
    s->out = arena_alloc(s->arena, sizeof(*s->out));
    pb__job_spec__init(s->out);
    return 0;
}

/* Where stored variables make it too large, they are left out but for their names: the worker fails
 * the job for that. */
static int fit(struct spec *s)
{
    Pb__JobSpec *out = s->out;

    if (pb_size_bound(&out->base) <= LIMIT_JOB_SPEC ||
        pb__job_spec__get_packed_size(out) <= LIMIT_JOB_SPEC) {
        return 0;
    }
    for (size_t i = 0; i < out->n_variables; i++) {
        if (out->variables[i]->sealed.len > 0) {
            out->variables[i]->sealed = pb_bytes(s->arena, STR("-"));
        }
    }
    return pb__job_spec__get_packed_size(out) <= LIMIT_JOB_SPEC ? 0 : -E_TOO_BIG;
}

int core_job_spec(struct tx *tx, uint64_t job_id, const char *token, Pb__JobSpec **ret)
{
    const Pb__AssignmentRecord *a = assignment_get(tx, job_id);
    struct spec s;
    int r;

    if (a == NULL) {
        return tx_ok(tx) ? -E_NOT_FOUND : tx_error(tx);
    }
    r = open_spec(&s, tx, job_id);
    if (r < 0) {
        return r;
    }
    s.out->token = arena_strdup(s.arena, str_from(token));
    fill(&s, a);
    if (!tx_ok(tx)) {
        return tx_error(tx);
    }
    r = fit(&s);
    if (r < 0) {
        return r;
    }
    *ret = s.out;
    return 0;
}

int spec_gather(struct spec *s, struct tx *tx, uint64_t job_id)
{
    const int r = open_spec(s, tx, job_id);

    if (r < 0) {
        return r;
    }
    add_rest(s);
    return tx_error(tx);
}

int core_job_variables(struct tx *tx, uint64_t job_id, Pb__Variable ***ret, size_t *ret_count)
{
    struct spec s;
    const int r = spec_gather(&s, tx, job_id);

    if (r < 0) {
        return r;
    }
    *ret = s.out->variables;
    *ret_count = s.out->n_variables;
    return 0;
}
