#include "common/base.h"

#include "broker/vault/id_token.h"

#include <jansson.h>
#include <stdlib.h>

#include "broker/core/query.h"
#include "common/crypto.h"
#include "common/expand.h"
#include "common/limits.h"
#include "common/os.h"

#define EARLY_SECONDS  5u   /* clocks of others may be behind */
#define MARGIN_SECONDS 300u /* after the job's time: its after_script may still show the token */
#define ID_BYTES       16u

const char *const id_token_claims[] = {
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "namespace_path",
    "project_id",
    "project_path",
    "user_login",
    "pipeline_id",
    "pipeline_source",
    "job_id",
    "ref",
    "ref_type",
    "ref_path",
    "ref_protected",
    "sha",
    "environment",
    "deployment_tier",
    "environment_action",
    "runner_environment",
    NULL,
};

struct subject {
    const Pb__JobSpec *spec;
    const Pb__PipelineRecord *pipeline;
    const Pb__PlanJob *plan;
    const char *tier; /* of the environment, as CI_ENVIRONMENT_TIER has it */
    const char *issuer;
    uint64_t now_s;
};

static void set_text(json_t *claims, const char *name, const char *text)
{
    json_t *value = json_string(text);
    if (value != NULL && text[0] != '\0') {
        json_object_set_new(claims, name, value);
    } else {
        json_decref(value);
    }
}

/* Ids are texts, as GitLab's are. */
static void set_id(json_t *claims, const char *name, uint64_t id)
{
    json_object_set_new(claims, name, json_sprintf("%" PRIu64, id));
}

/* "group/sub/name" is below "group/sub". */
static void set_project(json_t *claims, const struct subject *s)
{
    const char *path = s->spec->project;
    const char *slash = strrchr(path, '/');
    set_id(claims, "project_id", s->spec->project_id);
    set_text(claims, "project_path", path);
    if (slash != NULL) {
        json_object_set_new(claims, "namespace_path", json_stringn(path, (size_t)(slash - path)));
    }
}

static void set_ref(json_t *claims, const struct subject *s)
{
    const Pb__PipelineRecord *p = s->pipeline;
    const char *type = p->tag ? "tag" : "branch";
    set_text(claims, "ref", p->ref);
    set_text(claims, "ref_type", type);
    json_object_set_new(claims, "ref_path",
                        json_sprintf("refs/%s/%s", p->tag ? "tags" : "heads", p->ref));
    set_text(claims, "ref_protected", s->spec->ref_protected ? "true" : "false");
    set_text(claims, "sha", p->sha);
    json_object_set_new(
        claims, "sub",
        json_sprintf("project_path:%s:ref_type:%s:ref:%s", s->spec->project, type, p->ref));
}

static const char *action_text(Pb__EnvironmentAction action)
{
    static const char *const texts[] = {"start", "prepare", "stop", "verify", "access"};
    return (size_t)action < ARRAY_LEN(texts) ? texts[action] : "start";
}

static void set_environment(json_t *claims, const struct subject *s)
{
    const Pb__EnvironmentSpec *e = s->plan->environment;
    if (e != NULL) {
        set_text(claims, "environment", e->name);
        set_text(claims, "deployment_tier", s->tier);
        set_text(claims, "environment_action", action_text(e->action));
    }
}

static void set_times(json_t *claims, const struct subject *s)
{
    uint64_t end_s = s->now_s + s->spec->timeout_ms / 1000 + MARGIN_SECONDS;
    json_object_set_new(claims, "iat", json_integer((json_int_t)s->now_s));
    json_object_set_new(claims, "nbf", json_integer((json_int_t)(s->now_s - EARLY_SECONDS)));
    json_object_set_new(claims, "exp", json_integer((json_int_t)end_s));
}

static json_t *new_claims(const struct subject *s, json_t *audience)
{
    json_t *claims = json_object();
    uint8_t id[ID_BYTES];
    char hex[2 * ID_BYTES + 1];
    os_random(id, sizeof(id));
    str_to_hex(id, sizeof(id), hex);
    set_text(claims, "iss", s->issuer);
    set_text(claims, "jti", hex);
    json_object_set_new(claims, "aud", audience);
    set_times(claims, s);
    set_project(claims, s);
    set_text(claims, "user_login", s->pipeline->submitted_by);
    set_id(claims, "pipeline_id", s->spec->pipeline_id);
    set_text(claims, "pipeline_source", s->pipeline->origin);
    set_id(claims, "job_id", s->spec->key->job_id);
    set_ref(claims, s);
    set_environment(claims, s);
    set_text(claims, "runner_environment", "self-hosted");
    return claims;
}

/* One audience is a text, several are a list. */
static int read_audience(const Pb__IdTokenSpec *t, const struct vars *vars, json_t **ret)
{
    json_t *list = json_array();
    struct buf text = BUF_INIT;
    int r = 0;
    for (size_t i = 0; i < t->n_audiences && r == 0; i++) {
        buf_release(&text);
        buf_init(&text, LIMIT_ID_TOKEN_AUDIENCE);
        r = vars_expand(vars, pb_str(t->audiences[i]), &text);
        json_t *item = r == 0 ? json_stringn(buf_cstr(&text), text.n) : NULL;
        if (r == 0 && (item == NULL || json_array_append_new(list, item) < 0)) {
            r = -E_INVALID;
        }
    }
    buf_release(&text);
    if (r < 0) {
        json_decref(list);
        return r;
    }
    bool one = json_array_size(list) == 1;
    *ret = one ? json_incref(json_array_get(list, 0)) : json_incref(list);
    json_decref(list);
    return 0;
}

static Pb__Variable *new_variable(struct arena *a, const char *name, struct str token)
{
    Pb__Variable *v = arena_alloc(a, sizeof(*v));
    pb__variable__init(v);
    v->name = arena_strdup(a, str_from(name));
    v->value = pb_bytes(a, token);
    v->raw = true;
    v->masked = true;
    return v;
}

static int issue(const struct signer *signer, struct arena *a, const struct subject *s,
                 const Pb__IdTokenSpec *t, const struct vars *vars, Pb__Variable **ret)
{
    struct buf token = BUF_INIT;
    json_t *audience;
    int r = read_audience(t, vars, &audience);
    if (r < 0) {
        return r;
    }
    json_t *claims = new_claims(s, audience);
    char *text = json_dumps(claims, JSON_COMPACT);
    json_decref(claims);
    check(text != NULL);
    signer_sign(signer, str_from(text), &token);
    *ret = new_variable(a, t->name, buf_str(&token));
    crypto_wipe(token.p, token.n);
    buf_release(&token);
    free(text);
    return 0;
}

/* The job's variables with their values. Too long ones stay as they are written. */
static void read_variables(struct vars *vars, const Pb__JobSpec *spec)
{
    for (size_t i = 0; i < spec->n_variables; i++) {
        const Pb__Variable *v = spec->variables[i];
        vars_set(vars,
                 (struct var){.name = str_from(v->name), .value = pb_str(v->value), .raw = v->raw});
    }
    (void)vars_expand_all(vars);
}

/* All tokens or none. */
static int put_tokens(Pb__JobSpec *spec, Pb__Variable **all, size_t count)
{
    Pb__JobSpec before = *spec;
    spec->variables = all;
    spec->n_variables = count;
    spec->id_tokens = NULL;
    spec->n_id_tokens = 0;
    if (pb__job_spec__get_packed_size(spec) > LIMIT_JOB_SPEC) {
        *spec = before;
        return -E_TOO_BIG;
    }
    return 0;
}

/* Where the file does not say it, the environment knows. */
static const char *tier_of(struct tx *tx, const Pb__JobRecord *job, const Pb__PlanJob *plan)
{
    const Pb__EnvironmentSpec *spec = plan->environment;
    const Pb__EnvironmentRecord *e = environment_get(tx, job->environment_id);
    return spec != NULL && spec->tier[0] != '\0' ? spec->tier : e != NULL ? e->tier : "";
}

int id_tokens_issue(const struct signer *signer, struct tx *tx, const char *issuer, uint64_t now_ms,
                    Pb__JobSpec *spec)
{
    struct arena *a = tx_arena(tx);
    const Pb__JobRecord *job = job_get(tx, spec->key->job_id);
    struct subject s = {.spec = spec, .issuer = issuer, .now_s = now_ms / 1000};
    struct vars vars;
    size_t n = spec->n_variables;
    int r = 0;
    if (spec->n_id_tokens == 0) {
        return 0;
    }
    s.pipeline = pipeline_get(tx, spec->pipeline_id);
    s.plan = job != NULL ? plan_job_get(tx, spec->pipeline_id, job->index) : NULL;
    if (s.pipeline == NULL || s.plan == NULL) {
        return tx_ok(tx) ? -E_NOT_FOUND : tx_error(tx);
    }
    s.tier = tier_of(tx, job, s.plan);
    Pb__Variable **all = arena_array(a, n + spec->n_id_tokens, sizeof(*all));
    if (n > 0) {
        memcpy(all, spec->variables, n * sizeof(*all));
    }
    vars_init(&vars, a);
    read_variables(&vars, spec);
    for (size_t i = 0; i < spec->n_id_tokens && r == 0; i++) {
        r = issue(signer, a, &s, spec->id_tokens[i], &vars, &all[n + i]);
    }
    return r < 0 ? r : put_tokens(spec, all, n + spec->n_id_tokens);
}
