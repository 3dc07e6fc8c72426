#include "common/base.h"

#include "broker/core/rollout.h"
#include "broker/core/spec.h"
#include "common/expand.h"
#include "common/limits.h"

#define SERVER_URL_BYTES 2048u /* longer ones make no URLs of jobs */

static void add_variable(struct spec *s, const Pb__Variable *v)
{
    Pb__JobSpec *out = s->out;

    out->variables = spec_grown(s->arena, out->variables, out->n_variables, &s->variable_cap);
    out->variables[out->n_variables++] = (Pb__Variable *)v;
}

static void add_variables(struct spec *s, Pb__Variable *const *v, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        add_variable(s, v[i]);
    }
}

static void add_value(struct spec *s, const char *name, struct str value, bool raw)
{
    Pb__Variable *v = arena_alloc(s->arena, sizeof(*v));

    pb__variable__init(v);
    v->name = (char *)name;
    v->value = pb_bytes(s->arena, value);
    v->raw = raw;
    add_variable(s, v);
}

static void add_text(struct spec *s, const char *name, const char *text)
{
    add_value(s, name, str_from(text), true);
}

static void add_known(struct spec *s, const char *name, const char *text)
{
    if (text[0] != '\0') {
        add_text(s, name, text);
    }
}

static void add_number(struct spec *s, const char *name, uint64_t n)
{
    char room[STR_U64_BYTES];

    add_value(s, name, str_of_u64(n, room), true);
}

/* Lower case, at most 63 characters, all but a-z and 0-9 as a hyphen, none at the ends. */
static const char *slug(struct arena *a, const char *name)
{
    char *s = arena_alloc(a, 64);
    size_t n = 0;

    for (const char *p = name; *p != '\0' && n < 63; p++) {
        const char c = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;

        if (((unsigned char)c & 0xc0) != 0x80) { /* the first byte of a character */
            s[n++] = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ? c : '-';
        }
    }
    while (n > 0 && s[n - 1] == '-') {
        n--;
    }
    s[n] = '\0';
    while (*s == '-') {
        s++;
    }
    return s;
}

/* Nobody here can open it; the vault does when the job is sent. */
static void add_stored(void *ctx, const Pb__SealedVariable *stored)
{
    struct spec *s = ctx;
    struct buf packed = BUF_INIT;
    Pb__Variable *v = arena_alloc(s->arena, sizeof(*v));

    pb__variable__init(v);
    PB_PACK(stored, &packed);
    v->name = stored->name;
    v->sealed = pb_bytes(s->arena, buf_str(&packed));
    v->raw = stored->raw;
    v->file = stored->file;
    v->masked = stored->masked;
    buf_release(&packed);
    add_variable(s, v);
}

static void add_all_stored(struct spec *s)
{
    const Pb__EnvironmentRecord *e = environment_get(s->tx, s->job->environment_id);

    stored_choose(s->tx, s->project, e != NULL ? e->name : NULL, s->out->ref_protected, add_stored,
                  s);
}

static void add_pipeline(struct spec *s)
{
    const Pb__PipelineRecord *p = s->pipeline;
    char time[32];

    add_number(s, "CI_PROJECT_ID", p->project_id);
    add_number(s, "CI_PIPELINE_ID", p->id);
    add_number(s, "CI_PIPELINE_IID", p->iid);
    add_text(s, "CI_PIPELINE_CREATED_AT", str_time(p->created_ms, time, sizeof(time)));
    add_known(s, "CI_PIPELINE_NAME", p->name);
    add_known(s, "CI_PIPELINE_SOURCE", p->origin);
    if (strcmp(p->origin, "trigger") == 0) {
        add_text(s, "CI_PIPELINE_TRIGGERED", "true");
        add_text(s, "CI_JOB_TRIGGERED", "true");
    }
    add_known(s, "GITLAB_USER_LOGIN", p->submitted_by);
    add_known(s, "GITLAB_USER_NAME", p->submitted_by);
}

static void add_job(struct spec *s)
{
    const Pb__JobRecord *job = s->job;
    char time[32];

    add_number(s, "CI_JOB_ID", job->id);
    add_text(s, "CI_JOB_NAME", job->name);
    add_text(s, "CI_JOB_NAME_SLUG", slug(s->arena, job->name));
    add_known(s, "CI_JOB_GROUP_NAME", s->plan->base_name);
    add_text(s, "CI_JOB_STAGE", s->stage);
    add_text(s, "CI_JOB_STARTED_AT", str_time(s->assigned_ms, time, sizeof(time)));
    add_number(s, "CI_JOB_TIMEOUT", job->timeout_ms / 1000);
    if (s->plan->image != NULL) {
        add_value(s, "CI_JOB_IMAGE", str_from(s->plan->image->name), false);
    }
    add_number(s, "CI_NODE_TOTAL", MAX(s->plan->node_total, 1));
    if (s->plan->node_index != 0) {
        add_number(s, "CI_NODE_INDEX", s->plan->node_index);
    }
    if (job->when == WHEN_MANUAL) {
        add_text(s, "CI_JOB_MANUAL", "true");
    }
    add_number(s, "DAVIT_JOB_ATTEMPT", job->attempt);
}

static void add_urls(struct spec *s, const Pb__PipelineVariablesRecord *vars)
{
    const struct str url = predefined_value(vars, "CI_SERVER_URL");

    if (url.n == 0 || url.n > SERVER_URL_BYTES) {
        return;
    }
    add_text(s, "CI_PIPELINE_URL",
             arena_printf(s->arena, STR_FMT "/api/v1/pipelines/%" PRIu64, STR_ARG(url),
                          s->pipeline->id));
    add_text(s, "CI_JOB_URL",
             arena_printf(s->arena, STR_FMT "/api/v1/jobs/%" PRIu64, STR_ARG(url), s->job->id));
    add_text(s, "CI_PAGES_URL",
             arena_printf(s->arena, STR_FMT "/pages/%s", STR_ARG(url), s->project));
}

static void add_protection(struct spec *s, const Pb__PipelineVariablesRecord *vars)
{
    s->out->ref_protected = ref_is_protected(s->pipeline, vars);
    if (predefined_value(vars, "CI_COMMIT_REF_PROTECTED").n == 0) {
        add_text(s, "CI_COMMIT_REF_PROTECTED", s->out->ref_protected ? "true" : "false");
    }
}

static void add_environment(struct spec *s)
{
    static const char *const actions[] = {"start", "prepare", "stop", "verify", "access"};
    const Pb__EnvironmentRecord *e = environment_get(s->tx, s->job->environment_id);
    const unsigned action = s->job->environment_action;

    if (s->job->environment_id == 0 || s->plan->environment == NULL) {
        return;
    }
    if (e == NULL || action >= ARRAY_LEN(actions)) {
        tx_fail(s->tx, -E_CORRUPT);
        return;
    }
    add_text(s, "CI_ENVIRONMENT_NAME", e->name);
    add_text(s, "CI_ENVIRONMENT_SLUG", e->slug);
    add_text(s, "CI_ENVIRONMENT_TIER",
             s->plan->environment->tier[0] != '\0' ? s->plan->environment->tier : e->tier);
    add_text(s, "CI_ENVIRONMENT_ACTION", actions[action]);
    s->out->environment_url = s->plan->environment->url;
    if (s->plan->environment->url.len > 0) {
        add_value(s, "CI_ENVIRONMENT_URL", pb_str(s->plan->environment->url), false);
    } else if (e->url.len > 0) {
        add_value(s, "CI_ENVIRONMENT_URL", pb_str(e->url), true);
    }
}

static const Pb__PipelineVariablesRecord *of_pipeline(struct spec *s)
{
    const Pb__PipelineVariablesRecord *vars = pipeline_variables_get(s->tx, s->pipeline->id);

    if (vars == NULL) {
        tx_fail(s->tx, -E_CORRUPT);
    }
    return vars;
}

void spec_add_variables(struct spec *s)
{
    const struct key of_job = key_u64(s->job->id);
    const Pb__PipelineVariablesRecord *vars = of_pipeline(s);
    const Pb__JobVariablesRecord *played = (const Pb__JobVariablesRecord *)tx_get_msg(
        s->tx, T_JOB_VARS, &of_job, &pb__job_variables_record__descriptor);

    if (vars == NULL) {
        return;
    }
    s->out->n_variables = 0;
    add_variables(s, vars->predefined, vars->n_predefined);
    add_pipeline(s);
    add_job(s);
    add_urls(s, vars);
    add_protection(s, vars);
    add_environment(s);
    add_variables(s, s->plan->variables, s->plan->n_variables);
    add_variables(s, s->dotenv, s->dotenv_count);
    add_all_stored(s);
    add_variables(s, vars->submitted, vars->n_submitted);
    if (played != NULL) {
        add_variables(s, played->variables, played->n_variables);
    }
}

void spec_add_lone_variables(struct spec *s)
{
    const struct key of_job = key_u64(s->job->id);
    const Pb__JobVariablesRecord *played = (const Pb__JobVariablesRecord *)tx_get_msg(
        s->tx, T_JOB_VARS, &of_job, &pb__job_variables_record__descriptor);

    add_number(s, "CI_JOB_ID", s->job->id);
    add_text(s, "CI_JOB_NAME", s->job->name);
    add_number(s, "DAVIT_JOB_ATTEMPT", s->job->attempt);
    add_all_stored(s);
    add_variables(s, s->plan->variables, s->plan->n_variables);
    if (played != NULL) {
        add_variables(s, played->variables, played->n_variables);
    }
}

static const Pb__SnapshotRecord *version_of(struct spec *s, const Pb__RolloutRecord *r,
                                            const Pb__RolloutActionRecord *a)
{
    const bool old = a->kind == ROLLOUT_ACTION_ENSURE && a->slot != r->slot;

    if (a->kind != ROLLOUT_ACTION_ENSURE && a->kind != ROLLOUT_ACTION_RUN) {
        return NULL;
    }
    return snapshot_get(s->tx, old ? r->from_snapshot_id : r->snapshot_id);
}

void spec_add_rollout(struct spec *s)
{
    const Pb__RolloutRecord *r = rollout_get(s->tx, s->job->rollout_id);
    const Pb__RolloutActionRecord *a = rollout_action_get(s->tx, s->job->rollout_id,
                                                          s->job->rollout_action);
    const Pb__SnapshotRecord *version = r != NULL && a != NULL ? version_of(s, r, a) : NULL;

    if (version != NULL) {
        add_variables(s, version->variables, version->n_variables);
        for (size_t i = 0; i < version->n_artifacts; i++) {
            spec_add_artifact(s, version->artifacts[i]->job_name, version->artifacts[i]);
        }
        add_text(s, "DAVIT_VERSION", version->version);
    }
    add_number(s, "DAVIT_ROLLOUT_ID", s->job->rollout_id);
    add_number(s, "CI_JOB_ID", s->job->id);
    add_text(s, "CI_JOB_NAME", s->job->name);
    add_number(s, "DAVIT_JOB_ATTEMPT", s->job->attempt);
}

/* What cannot be expanded within the limits stays as it is written, and then names nothing. */
struct str spec_expand(struct spec *s, ProtobufCBinaryData text)
{
    struct buf out = BUF_INIT;
    struct vars vars;
    struct str copy;

    vars_init(&vars, s->arena);
    for (size_t i = 0; i < s->out->n_variables; i++) {
        const Pb__Variable *v = s->out->variables[i];
        if (v->sealed.len > 0) {
            continue; /* nobody can know it here */
        }
        vars_set(&vars, (struct var){.name = str_from(v->name),
                                     .value = pb_str(v->value),
                                     .raw = v->raw,
                                     .file = v->file});
    }
    if (vars_expand_all(&vars) < 0 || vars_expand(&vars, pb_str(text), &out) < 0) {
        buf_release(&out);
        return pb_str(text);
    }
    copy = str_from(arena_strdup(s->arena, buf_str(&out)));
    buf_release(&out);
    return copy;
}
