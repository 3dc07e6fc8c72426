#include "common/base.h"

#include "broker/core/spec.h"
#include "common/limits.h"

#include <stdlib.h>

static void add_artifact(struct spec *s, const char *job_name, const Pb__ArtifactRecord *a)
{
    Pb__ArtifactIn *in = arena_alloc(s->arena, sizeof(*in));

    pb__artifact_in__init(in);
    in->job_name = (char *)job_name;
    if (a != NULL) {
        in->digest = a->digest;
        in->size = a->size;
    }
    s->out->artifacts_in = spec_grown(s->arena, s->out->artifacts_in, s->out->n_artifacts_in,
                                      &s->artifact_cap);
    s->out->artifacts_in[s->out->n_artifacts_in++] = in;
}

void spec_add_artifact(struct spec *s, const char *job_name, const Pb__SnapshotArtifact *a)
{
    Pb__ArtifactRecord row = PB__ARTIFACT_RECORD__INIT;

    row.digest = a->digest;
    row.size = a->size;
    add_artifact(s, job_name, &row);
}

static void add_dotenv(struct spec *s, const Pb__DotenvRecord *d)
{
    for (size_t i = 0; i < d->n_variables; i++) {
        s->dotenv = spec_grown(s->arena, s->dotenv, s->dotenv_count, &s->dotenv_cap);
        s->dotenv[s->dotenv_count++] = d->variables[i];
    }
}

/* What a job's newest attempt left behind, as far as it is still kept. False: nothing. */
static bool add_of(struct spec *s, const Pb__JobRecord *from)
{
    const Pb__ArtifactRecord *list[LIMIT_JOB_ARTIFACTS];
    const size_t n = artifacts_of(s->tx, from->id, from->attempt, "archive", ARRAY_LEN(list), list);
    const Pb__DotenvRecord *dotenv = dotenv_get(s->tx, from->id);
    const bool fresh = dotenv != NULL && dotenv->attempt == from->attempt;

    for (size_t i = 0; i < n; i++) {
        add_artifact(s, from->name, list[i]);
    }
    if (fresh) {
        add_dotenv(s, dotenv);
    }
    return n > 0 || fresh;
}

static bool depends_on(const Pb__PlanJob *plan, uint32_t index)
{
    for (size_t i = 0; i < plan->n_dependencies; i++) {
        if (plan->dependencies[i] == index) {
            return true;
        }
    }
    return !plan->has_dependencies;
}

/* Without needs: all jobs of earlier stages. With needs: those of them that say artifacts. In both
 * cases `dependencies` takes its choice. */
static void add_inner(struct spec *s)
{
    const Pb__StageRecord *stage = stage_get(s->tx, s->pipeline->id, s->job->stage);
    bool *wanted = xcalloc(s->pipeline->job_count, sizeof(*wanted));

    for (size_t i = 0; i < s->plan->n_needs; i++) {
        if (s->plan->needs[i]->artifacts) {
            wanted[s->plan->needs[i]->job] = true;
        }
    }
    for (uint32_t i = 0; i < s->pipeline->job_count && stage != NULL; i++) {
        const bool earlier = i < stage->first_job;
        if ((s->plan->dag ? wanted[i] : earlier) && depends_on(s->plan, i)) {
            const Pb__JobRecord *from = job_get(s->tx, s->pipeline->first_job_id + i);
            if (from != NULL) {
                add_of(s, from);
            }
        }
    }
    free(wanted);
}

/* One of the pipelines above this one, by its id. */
static const Pb__PipelineRecord *ancestor(struct spec *s, struct str id_text)
{
    const Pb__PipelineRecord *p = s->pipeline;
    uint64_t id;

    if (str_to_u64(id_text, &id) < 0) {
        return NULL;
    }
    while (p != NULL && p->parent_job_id != 0) {
        const Pb__JobRecord *job = pipeline_parent_job(s->tx, p);
        p = job != NULL ? pipeline_get(s->tx, job->pipeline_id) : NULL;
        if (p != NULL && p->id == id) {
            return p;
        }
    }
    return NULL;
}

/* Of the project's newest pipelines those that ended well on that ref, until `fn` says true. */
typedef bool (*good_fn)(struct spec *s, const Pb__PipelineRecord *p, void *ctx);
static const Pb__PipelineRecord *find_good(struct spec *s, struct str project, struct str ref,
                                           good_fn fn, void *ctx)
{
    const Pb__ProjectRecord *of = project_by_name(s->tx, arena_strdup(s->arena, project));
    const struct key prefix = key_u64(of != NULL ? of->id : 0);
    const Pb__PipelineRecord *found = NULL;
    struct cursor cur;

    if (of == NULL) {
        return NULL;
    }
    tx_seek_last(&cur, s->tx, T_PROJECT_PIPELINE, key_str(&prefix));
    for (unsigned i = 0; cur.valid && found == NULL && i < LIMIT_OUTER_NEED_SEARCH; i++) {
        const Pb__PipelineRecord *p = pipeline_get(s->tx, key_read_u64(cur.key, sizeof(uint64_t)));
        if (p != NULL && p->status == STATUS_SUCCESS && p->parent_job_id == 0 &&
            str_eqz(ref, p->ref) && fn(s, p, ctx)) {
            found = p;
        }
        tx_prev(&cur);
    }
    cursor_end(&cur);
    return found;
}

static bool is_any(struct spec *s, const Pb__PipelineRecord *p, void *ctx)
{
    (void)s, (void)p, (void)ctx;
    return true;
}

static const Pb__JobRecord *job_by_name(struct spec *s, const Pb__PipelineRecord *p,
                                        struct str name)
{
    for (uint32_t i = 0; p != NULL && i < p->job_count; i++) {
        const Pb__JobRecord *job = job_get(s->tx, p->first_job_id + i);
        if (job != NULL && str_eqz(name, job->name)) {
            return job;
        }
    }
    return NULL;
}

/* A job takes nothing of a project that whoever submitted its pipeline may not see. */
static bool reaches(struct spec *s, struct str project)
{
    const Pb__PipelineVariablesRecord *vars = pipeline_variables_get(s->tx, s->pipeline->id);
    const char *name = arena_strdup(s->arena, project);

    if (vars == NULL || !vars->reach_some || strcmp(name, s->project) == 0) {
        return vars != NULL;
    }
    for (size_t i = 0; i < vars->n_reach; i++) {
        if (project_matches(str_from(vars->reach[i]), name)) {
            return true;
        }
    }
    return false;
}

static const Pb__JobRecord *outer_job(struct spec *s, const Pb__OuterNeed *need, struct str name)
{
    struct str project = STR_NULL;

    if (need->pipeline.len > 0) {
        return job_by_name(s, ancestor(s, spec_expand(s, need->pipeline)), name);
    }
    project = need->project.len > 0 ? spec_expand(s, need->project) : str_from(s->project);
    return reaches(s, project)
               ? job_by_name(s, find_good(s, project, spec_expand(s, need->ref), is_any, NULL),
                             name)
               : NULL;
}

/* What is not there is said to the worker, so that the job fails with a word on it. */
static void add_outer(struct spec *s)
{
    for (size_t i = 0; i < s->plan->n_outer_needs; i++) {
        const Pb__OuterNeed *need = s->plan->outer_needs[i];
        const struct str name = spec_expand(s, need->job);
        const Pb__JobRecord *from = outer_job(s, need, name);
        const bool found = from != NULL && from->state == JOB_SUCCESS && add_of(s, from);
        if (!found && !need->optional) {
            add_artifact(s, text_clip(s->arena, arena_strdup(s->arena, name), LIMIT_NAME), NULL);
        }
    }
}

void spec_add_inputs(struct spec *s)
{
    if (s->plan->n_outer_needs > 0) {
        spec_add_variables(s); /* their texts may hold any of them, but for dotenv */
    }
    add_inner(s);
    add_outer(s);
}

struct taken {
    struct str name; /* of the job */
    struct str digest;
};

static bool has_artifact(struct spec *s, const Pb__PipelineRecord *p, void *ctx)
{
    const struct taken *t = ctx;
    const Pb__ArtifactRecord *list[LIMIT_JOB_ARTIFACTS];
    const Pb__JobRecord *from = job_by_name(s, p, t->name);
    size_t n = 0;

    if (from != NULL && from->state == JOB_SUCCESS) {
        n = artifacts_of(s->tx, from->id, from->attempt, "archive", ARRAY_LEN(list), list);
    }
    for (size_t i = 0; i < n; i++) {
        if (str_eq(pb_str(list[i]->digest), t->digest)) {
            return true;
        }
    }
    return false;
}

static bool was_sent(const struct spec *s, struct str digest)
{
    for (size_t i = 0; i < s->out->n_artifacts_in; i++) {
        if (str_eq(pb_str(s->out->artifacts_in[i]->digest), digest)) {
            return true;
        }
    }
    return false;
}

bool core_job_takes(struct tx *tx, uint64_t job_id, struct str digest)
{
    struct spec s;
    bool found = false;

    if (spec_gather(&s, tx, job_id) < 0 || s.pipeline == NULL) {
        return false;
    }
    found = was_sent(&s, digest);
    for (size_t i = 0; i < s.plan->n_outer_needs && !found; i++) {
        const Pb__OuterNeed *need = s.plan->outer_needs[i];
        struct taken t = {.name = spec_expand(&s, need->job), .digest = digest};
        const struct str project = need->project.len > 0 ? spec_expand(&s, need->project)
                                                         : str_from(s.project);
        found = need->pipeline.len == 0 && reaches(&s, project) &&
                find_good(&s, project, spec_expand(&s, need->ref), has_artifact, &t) != NULL;
    }
    return found;
}
