#include "common/base.h"

#include "broker/core/apply.h"
#include "common/limits.h"

#include <stdlib.h>

/* The whole of what a worker needs for one job, gathered when it is sent. Of variables, a later one
 * of the same name wins. */
struct spec {
    struct tx *tx;
    struct arena *arena;
    Pb__JobSpec *out;
    const Pb__JobRecord *job;
    const Pb__PlanJob *plan;
    const Pb__PipelineRecord *pipeline;
    size_t variable_cap;
    size_t artifact_cap;
};

static void *grown(struct arena *a, void *items, size_t n, size_t *cap)
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

static void add_variable(struct spec *s, const Pb__Variable *v)
{
    Pb__JobSpec *out = s->out;

    out->variables = grown(s->arena, out->variables, out->n_variables, &s->variable_cap);
    out->variables[out->n_variables++] = (Pb__Variable *)v;
}

static void add_variables(struct spec *s, Pb__Variable *const *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        add_variable(s, v[i]);
    }
}

static void add_text(struct spec *s, const char *name, const char *text)
{
    Pb__Variable *v = arena_alloc(s->arena, sizeof(*v));

    pb__variable__init(v);
    v->name = (char *)name;
    v->value = pb_bytes(s->arena, str_from(text));
    v->raw = true;
    add_variable(s, v);
}

static void add_number(struct spec *s, const char *name, uint64_t n)
{
    add_text(s, name, arena_printf(s->arena, "%" PRIu64, n));
}

/* Lower case, at most 63 bytes, all but a-z and 0-9 as a hyphen, none at the ends. */
static const char *slug(struct arena *a, const char *name)
{
    char *s = arena_strdup(a, str_sub(str_from(name), 0, 63));
    size_t n = strlen(s);

    for (size_t i = 0; i < n; i++) {
        if (s[i] >= 'A' && s[i] <= 'Z') {
            s[i] = (char)(s[i] - 'A' + 'a');
        } else if (!((s[i] >= 'a' && s[i] <= 'z') || (s[i] >= '0' && s[i] <= '9'))) {
            s[i] = '-';
        }
    }
    while (n > 0 && s[n - 1] == '-') {
        s[--n] = '\0';
    }
    while (*s == '-') {
        s++;
    }
    return s;
}

static void add_core_variables(struct spec *s, const char *stage)
{
    const Pb__JobRecord *job = s->job;
    char time[32];

    add_number(s, "CI_PIPELINE_ID", s->pipeline->id);
    add_number(s, "CI_PIPELINE_IID", s->pipeline->iid);
    add_text(s, "CI_PIPELINE_CREATED_AT", str_time(s->pipeline->created_ms, time, sizeof(time)));
    add_number(s, "CI_JOB_ID", job->id);
    add_text(s, "CI_JOB_NAME", job->name);
    add_text(s, "CI_JOB_NAME_SLUG", slug(s->arena, job->name));
    add_text(s, "CI_JOB_STAGE", stage);
    add_number(s, "CI_JOB_TIMEOUT", job->timeout_ms / 1000);
    add_number(s, "CI_NODE_TOTAL", MAX(s->plan->node_total, 1));
    if (s->plan->node_index != 0) {
        add_number(s, "CI_NODE_INDEX", s->plan->node_index);
    }
    if (job->when == WHEN_MANUAL) {
        add_text(s, "CI_JOB_MANUAL", "true");
    }
    add_number(s, "DAVIT_JOB_ATTEMPT", job->attempt);
}

static void add_all_variables(struct spec *s, const char *stage)
{
    const struct key of_pipeline = key_u64(s->pipeline->id);
    const struct key of_job = key_u64(s->job->id);
    const Pb__PipelineVariablesRecord *vars = (const Pb__PipelineVariablesRecord *)tx_get_msg(
        s->tx, T_PIPELINE_VARS, &of_pipeline, &pb__pipeline_variables_record__descriptor);
    const Pb__JobVariablesRecord *played = (const Pb__JobVariablesRecord *)tx_get_msg(
        s->tx, T_JOB_VARS, &of_job, &pb__job_variables_record__descriptor);

    if (vars == NULL) {
        tx_fail(s->tx, -E_CORRUPT);
        return;
    }
    add_variables(s, vars->predefined, vars->n_predefined);
    add_core_variables(s, stage);
    add_variables(s, s->plan->variables, s->plan->n_variables);
    add_variables(s, vars->submitted, vars->n_submitted);
    if (played != NULL) {
        add_variables(s, played->variables, played->n_variables);
    }
}

/* The artifacts of a job's newest attempt, those still kept. */
static void add_artifacts_of(struct spec *s, uint32_t index)
{
    const uint64_t id = s->pipeline->first_job_id + index;
    const Pb__JobRecord *from = job_get(s->tx, id);
    const struct key prefix = key_u64(id);
    struct cursor cur;

    for (tx_seek(&cur, s->tx, T_ARTIFACT, key_str(&prefix), NULL); cur.valid && from != NULL;
         tx_next(&cur)) {
        const struct key k = key_bytes(cur.key.p, cur.key.n);
        const Pb__ArtifactRecord *a = (const Pb__ArtifactRecord *)tx_get_msg(
            s->tx, T_ARTIFACT, &k, &pb__artifact_record__descriptor);
        Pb__ArtifactIn *in;
        if (a == NULL || a->attempt != from->attempt) {
            continue;
        }
        in = arena_alloc(s->arena, sizeof(*in));
        pb__artifact_in__init(in);
        in->job_name = from->name;
        in->digest = a->digest;
        in->size = a->size;
        s->out->artifacts_in = grown(s->arena, s->out->artifacts_in, s->out->n_artifacts_in,
                                     &s->artifact_cap);
        s->out->artifacts_in[s->out->n_artifacts_in++] = in;
    }
    cursor_end(&cur);
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
static void add_artifacts(struct spec *s)
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
            add_artifacts_of(s, i);
        }
    }
    free(wanted);
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

static void fill(struct spec *s, const Pb__AssignmentRecord *a, const char *project,
                 const char *stage)
{
    Pb__JobSpec *out = s->out;

    out->key = arena_alloc(s->arena, sizeof(*out->key));
    pb__job_key__init(out->key);
    out->key->job_id = a->job_id;
    out->key->attempt = a->attempt;
    out->key->epoch = a->epoch;
    out->pipeline_id = s->pipeline->id;
    out->project_id = s->pipeline->project_id;
    out->project = (char *)project;
    out->name = s->job->name;
    out->stage = (char *)stage;
    out->n_script = s->plan->n_script;
    out->script = s->plan->script;
    out->n_after_script = s->plan->n_after_script;
    out->after_script = s->plan->after_script;
    out->image = s->plan->image;
    out->executor = s->plan->executor;
    out->source = s->pipeline->source;
    out->artifacts = artifact_spec(s);
    out->timeout_ms = s->job->timeout_ms;
    add_all_variables(s, stage);
    add_artifacts(s);
}

int core_job_spec(struct tx *tx, uint64_t job_id, const char *token, Pb__JobSpec **ret)
{
    const Pb__AssignmentRecord *a = assignment_get(tx, job_id);
    const Pb__JobRecord *job = job_get(tx, job_id);
    struct spec s = {.tx = tx, .arena = tx_arena(tx), .job = job};
    const Pb__ProjectRecord *project;
    const Pb__StageRecord *stage;

    if (a == NULL || job == NULL) {
        return tx_ok(tx) ? -E_NOT_FOUND : tx_error(tx);
    }
    s.pipeline = pipeline_get(tx, job->pipeline_id);
    s.plan = plan_job_get(tx, job->pipeline_id, job->index);
    stage = stage_get(tx, job->pipeline_id, job->stage);
    project = project_get(tx, job->project_id);
    if (s.pipeline == NULL || s.plan == NULL || stage == NULL || project == NULL) {
        tx_fail(tx, -E_CORRUPT);
        return tx_error(tx);
    }
    s.out = arena_alloc(s.arena, sizeof(*s.out));
    pb__job_spec__init(s.out);
    s.out->token = arena_strdup(s.arena, str_from(token));
    fill(&s, a, project->name, stage->name);
    if (!tx_ok(tx)) {
        return tx_error(tx);
    }
    if (pb__job_spec__get_packed_size(s.out) > LIMIT_JOB_SPEC) {
        return -E_TOO_BIG;
    }
    *ret = s.out;
    return 0;
}
