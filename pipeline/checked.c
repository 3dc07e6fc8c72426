/* Keywords that are read and checked, but that nothing acts on yet: secrets, identity, inputs, run,
 * dast_configuration. What is wrong with them is said now; the job itself fails (PlanJob.
 * unsupported) rather than run without them. */
#include "common/base.h"

#include "pipeline/compile.h"

void identity_read(struct compile *c, const struct node *n, struct job *job)
{
    static const char *const names[] = {"google_cloud"};
    size_t i;
    (void)job;
    read_choice(c, n, "identity", names, ARRAY_LEN(names), &i);
}

void dast_configuration_read(struct compile *c, const struct node *n, struct job *job)
{
    struct str text;
    (void)job;
    if (read_keys(c, n, SCOPE_DAST, "dast_configuration")) {
        read_name_of(c, n, "dast_configuration:site_profile", &text);
        read_name_of(c, n, "dast_configuration:scanner_profile", &text);
    }
}

/* inputs: what a person may choose when a job is started by hand. */
static void read_job_input(struct compile *c, const struct pair *p)
{
    static const char *const types[] = {"string", "number", "boolean", "array"};
    const struct node *type = key_of(p->value, "type");
    const struct node *options = key_of(p->value, "options");
    struct str text;
    size_t i;
    if (!read_keys(c, p->value, SCOPE_JOB_INPUT, "inputs")) {
        return;
    }
    if (!key_of(p->value, "default")) {
        report(c, p->key, "missing-key", NULL, "the input `" STR_FMT "` of a job needs a `default`",
               STR_ARG(p->key->text));
    }
    read_text_of(c, p->value, "inputs:description", &text);
    read_text_of(c, p->value, "inputs:regex", &text);
    if (type) {
        read_choice(c, type, "inputs:type", types, ARRAY_LEN(types), &i);
    }
    if (options && options->kind != NODE_LIST) {
        report(c, options, "wrong-type", NULL, "`inputs:options` must be a list, found %s",
               node_what(options));
    }
}

void job_inputs_read(struct compile *c, const struct node *n, struct job *job)
{
    (void)job;
    if (inputs_check(c, n)) {
        for (uint32_t i = 0; i < n->count; i++) {
            read_job_input(c, &n->pairs[i]);
        }
    }
}

/* secrets */

/* A mapping whose values are texts; numbers count as such. Those in `needed` must be there. */
static void read_fields(struct compile *c, const struct node *n, enum scope scope, const char *what,
                        const char *const *needed, size_t count)
{
    struct str text;
    if (!read_keys(c, n, scope, what)) {
        return;
    }
    for (uint32_t i = 0; i < n->count; i++) {
        const struct pair *p = &n->pairs[i];
        if (!node_is_null(p->value) && p->value->kind != NODE_MAPPING) {
            read_text(c, p->value,
                      arena_printf(c->arena, "%s:" STR_FMT, what, STR_ARG(p->key->text)), &text);
        }
    }
    for (size_t i = 0; i < count; i++) {
        if (node_is_null(node_get(n, needed[i]))) {
            report(c, n, "missing-key", NULL, "`%s` needs a `%s`", what, needed[i]);
        }
    }
}

static void read_vault(struct compile *c, const struct node *n)
{
    static const char *const needed[] = {"engine", "path", "field"};
    static const char *const of_engine[] = {"name", "path"};
    struct str text;
    if (n->kind != NODE_MAPPING) {
        read_name(c, n, "vault", &text);
        return;
    }
    read_fields(c, n, SCOPE_VAULT, "vault", needed, ARRAY_LEN(needed));
    if (key_of(n, "vault:engine")) {
        read_fields(c, node_get(n, "engine"), SCOPE_VAULT_ENGINE, "vault:engine", of_engine,
                    ARRAY_LEN(of_engine));
    }
}

static void read_provider(struct compile *c, const char *name, const struct node *n)
{
    static const struct {
        const char *name;
        enum scope scope;
        const char *needed; /* in the mapping, or NULL */
        bool text;          /* may be a text, too */
    } providers[] = {
        {"akeyless", SCOPE_AKEYLESS, NULL, false},
        {"aws_secrets_manager", SCOPE_AWS_SECRET, "secret_id", true},
        {"azure_key_vault", SCOPE_AZURE_SECRET, "name", false},
        {"gcp_secret_manager", SCOPE_GCP_SECRET, "name", true},
        {"gitlab_secrets_manager", SCOPE_GITLAB_SECRET, "name", false},
    };
    struct str text;
    if (strcmp(name, "vault") == 0) {
        read_vault(c, n);
    }
    for (size_t i = 0; i < ARRAY_LEN(providers); i++) {
        if (strcmp(name, providers[i].name) != 0) {
            continue;
        }
        if (providers[i].text && n->kind == NODE_SCALAR) {
            read_name(c, n, name, &text);
        } else {
            read_fields(c, n, providers[i].scope, name, &providers[i].needed,
                        providers[i].needed != NULL);
        }
    }
}

static void read_secret(struct compile *c, const struct pair *p)
{
    const struct node *n = p->value;
    size_t providers = 0;
    struct str text;
    bool b;
    if (!read_keys(c, n, SCOPE_SECRET, "secrets")) {
        return;
    }
    for (uint32_t i = 0; i < n->count; i++) {
        const struct keyword *k = keyword_find(SCOPE_SECRET, n->pairs[i].key->text);
        if (!k || node_is_null(n->pairs[i].value)) {
            continue;
        }
        if (strcmp(k->name.p, "file") == 0) {
            read_bool_of(c, n, "secrets:file", &b);
        } else if (strcmp(k->name.p, "token") == 0) {
            read_name_of(c, n, "secrets:token", &text);
        } else {
            providers++;
            read_provider(c, k->name.p, n->pairs[i].value);
        }
    }
    if (providers != 1) {
        report(c, p->key, providers == 0 ? "missing-key" : "keyword-conflict",
               "vault, gcp_secret_manager, azure_key_vault, aws_secrets_manager, akeyless, "
               "gitlab_secrets_manager",
               "the secret `" STR_FMT "` must come from one provider, found %zu",
               STR_ARG(p->key->text), providers);
    }
}

void secrets_read(struct compile *c, const struct node *n, struct job *job)
{
    (void)job;
    if (n->kind != NODE_MAPPING) {
        report(c, n, "wrong-type", NULL,
               "`secrets` must be a mapping of names to secrets, found %s", node_what(n));
        return;
    }
    for (uint32_t i = 0; i < n->count && compile_charge(c, 1, n); i++) {
        const struct pair *p = &n->pairs[i];
        if (!var_name_valid(p->key->text)) {
            report(c, p->key, "bad-variable-name", NULL,
                   "`" STR_FMT "` is no name for a variable: letters, digits and _ only",
                   STR_ARG(p->key->text));
        } else {
            read_secret(c, p);
        }
    }
}

/* run */

static void read_step_from(struct compile *c, const struct node *n)
{
    static const char *const git[] = {"url", "rev"};
    static const char *const oci[] = {"registry", "repository", "tag"};
    struct str text;
    if (n->kind == NODE_SCALAR && n->type == SCALAR_STRING) {
        read_name(c, n, "step", &text);
        return;
    }
    if (n->kind != NODE_MAPPING) {
        report(c, n, "wrong-type", "step: ./path, or { git: { url, dir, rev } }",
               "`step` must be a text or a mapping, found %s", node_what(n));
        return;
    }
    if (!read_keys(c, n, SCOPE_STEP_FROM, "step")) {
        return;
    }
    const struct node *from_git = key_of(n, "git");
    const struct node *from_oci = key_of(n, "oci");
    if (from_git) {
        read_fields(c, from_git, SCOPE_STEP_GIT, "step:git", git, ARRAY_LEN(git));
    }
    if (from_oci) {
        read_fields(c, from_oci, SCOPE_STEP_OCI, "step:oci", oci, ARRAY_LEN(oci));
    }
    if (!from_git == !from_oci) {
        report(c, n, "missing-key", NULL, "`step` needs one of `git` and `oci`");
    }
}

static void read_step_env(struct compile *c, const struct node *n)
{
    struct str text;
    if (n->kind != NODE_MAPPING) {
        report(c, n, "wrong-type", NULL, "`env` must be a mapping of names to texts, found %s",
               node_what(n));
        return;
    }
    for (uint32_t i = 0; i < n->count; i++) {
        read_text(c, n->pairs[i].value, "env", &text);
    }
}

static void read_step(struct compile *c, const struct node *n)
{
    static const char *const work[] = {"run:step", "run:script", "run:func"};
    const struct node *env = key_of(n, "env");
    const struct node *inputs = key_of(n, "inputs");
    const struct node *script = key_of(n, "script");
    struct str text;
    size_t count = 0;
    if (!read_keys(c, n, SCOPE_STEP, "run")) {
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(work); i++) {
        count += key_of(n, work[i]) != NULL;
    }
    if (count != 1) {
        report(c, n, count == 0 ? "missing-key" : "keyword-conflict", NULL,
               "a step must have one of `step`, `script` and `func`, found %zu of them", count);
    }
    if (!key_of(n, "name")) {
        report(c, n, "missing-key", NULL, "a step needs a `name`");
    }
    read_name_of(c, n, "run:name", &text);
    if (key_of(n, "step")) {
        read_step_from(c, key_of(n, "step"));
    }
    if (script && !node_is_string(script)) {
        report(c, script, "wrong-type", NULL, "`run:script` must be a text, found %s",
               node_what(script));
    }
    if (env) {
        read_step_env(c, env);
    }
    if (inputs && inputs->kind != NODE_MAPPING) {
        report(c, inputs, "wrong-type", NULL, "`inputs` must be a mapping, found %s",
               node_what(inputs));
    }
}

void run_read(struct compile *c, const struct node *n, struct job *job)
{
    static const char *const others[] = {"script", "before_script", "after_script"};
    if (n->kind != NODE_LIST) {
        report(c, n, "wrong-type", "run: [{ name: NAME, script: TEXT }]",
               "`run` must be a list of steps, found %s", node_what(n));
        return;
    }
    for (uint32_t i = 0; i < n->count && compile_charge(c, 1, n); i++) {
        read_step(c, n->items[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        if (has_job_key(job, others[i])) {
            report(c, node_get(job->body, others[i]), "keyword-conflict", NULL,
                   "`%s` cannot stand beside `run`", others[i]);
        }
    }
}
