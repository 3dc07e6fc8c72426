/* Which jobs there are: workflow first, then the rules or only/except of every job, seen with the
 * variables that the job would have. */
#include "common/base.h"

#include <stdlib.h>

#include "pipeline/compile.h"

static void set_text(struct vars *env, const char *name, struct str value)
{
    vars_set_ref(env, (struct var){.name = str_from(name), .value = value, .raw = true});
}

/* What is the same for all jobs, made once: predefined variables; over them the file's, the
 * workflow's, the stored and the submitted ones; and the same without the file's, for jobs that do
 * not inherit them. */
static void shared_envs(struct compile *c)
{
    struct vars *all = &c->inherited_env;
    struct vars *bare = &c->bare_env;
    vars_init(&c->predefined_env, c->arena);
    set_all(&c->predefined_env, c->in->predefined, c->in->predefined_count);
    vars_layer(all, c->arena, &c->predefined_env, 0);
    vars_layer(bare, c->arena, &c->predefined_env, 0);
    set_all(all, c->variables.items, c->variables.count);
    set_all(all, c->workflow_variables.items, c->workflow_variables.count);
    set_all(bare, c->workflow_variables.items, c->workflow_variables.count);
    set_all(all, c->in->stored, c->in->stored_count);
    set_all(bare, c->in->stored, c->in->stored_count);
    set_all(all, c->in->submitted, c->in->submitted_count);
    set_all(bare, c->in->submitted, c->in->submitted_count);
    vars_layer(&c->submitted_env, c->arena, &c->predefined_env, 0);
    set_all(&c->submitted_env, c->in->stored, c->in->stored_count);
    set_all(&c->submitted_env, c->in->submitted, c->in->submitted_count);
}

/* Those of the job itself: stronger than all that is shared but stored and submitted ones. */
static void set_strong(struct compile *c, struct vars *env, const struct variables *v)
{
    for (size_t i = 0; i < v->count; i++) {
        if (!vars_get_own(&c->submitted_env, v->items[i].name)) {
            vars_set_ref(env, v->items[i]);
        }
    }
}

/* Predefined ones of the job: weaker than all that is shared. */
static void set_weak(struct vars *env, const char *name, struct str value)
{
    if (!vars_get_own(env->below, str_from(name))) {
        set_text(env, name, value);
    }
}

/* From weak to strong: predefined, the file's, workflow's, the job's, the rule's, stored,
 * submitted. */
static void job_env(struct compile *c, const struct job *job, const struct rule *rule,
                    struct arena *scratch, struct vars *env)
{
    const struct inherit *inherit = job ? &job->inherit_variables : NULL;
    bool all = !inherit || inherit->all;
    vars_layer(env, scratch, all ? &c->inherited_env : &c->bare_env, 0);
    if (!job) {
        return;
    }
    set_weak(env, "CI_JOB_NAME", job->name);
    set_weak(env, "CI_JOB_STAGE", c->stages.items[job->stage]);
    if (job->parallel > 0) {
        set_weak(env, "CI_NODE_INDEX", str_from(arena_printf(scratch, "%u", job->plan.node_index)));
    }
    set_weak(env, "CI_NODE_TOTAL",
             job->parallel > 1 ? str_from(arena_printf(scratch, "%u", job->parallel)) : STR("1"));
    for (size_t i = 0; !all && inherit->names.count > 0 && i < c->variables.count; i++) {
        struct str name = c->variables.items[i].name;
        if (inherits(inherit, name) && !vars_get_own(&c->bare_env, name)) {
            vars_set_ref(env, c->variables.items[i]);
        }
    }
    set_strong(c, env, &job->variables);
    if (rule) {
        set_strong(c, env, &rule->variables);
    }
}

/* Variables are expanded when they are asked for: only then it shows that one grows too long. */
static void check_env(struct compile *c, const struct vars *env, const struct node *at)
{
    for (size_t i = 0; i < env->count; i++) {
        vars_get(env, env->items[i].name);
    }
    if (vars_failed(env)) {
        report(c, at, "limit", NULL, "a variable has more than %u bytes once it is expanded",
               LIMIT_EXPANDED_VALUE);
    }
}

/* All that is shared, so that it shows also where nothing asks for it. */
static void check_all(struct compile *c, const struct vars *env)
{
    struct arena scratch;
    struct vars copy;
    arena_init(&scratch, 0);
    vars_init(&copy, &scratch);
    for (const struct vars *v = env; v; v = v->below) {
        for (size_t i = 0; i < v->count; i++) {
            if (!vars_get_own(&copy, v->items[i].name)) {
                vars_set_ref(&copy, v->items[i]);
            }
        }
    }
    expand_all(c, &copy, NULL);
    arena_release(&scratch);
}

bool select_workflow(struct compile *c)
{
    struct arena scratch;
    struct vars env;
    bool yes = true;
    arena_init(&scratch, 0);
    shared_envs(c);
    job_env(c, NULL, NULL, &scratch, &env);
    check_all(c, &env);
    if (c->workflow.present) {
        explain_workflow(c);
        const struct rule *rule = rules_match(c, &c->workflow, &env);
        yes = rule && !rule->never;
        explain_decided(c, yes);
        if (!yes) {
            report(c, rule ? rule->at : node_get(c->root, "workflow"), "workflow-false", NULL,
                   rule ? "this rule of `workflow` says: no pipeline"
                        : "no rule of `workflow` matches: no pipeline");
        } else {
            c->workflow_variables = rule->variables;
            shared_envs(c);
            auto_cancel_apply(c, &rule->auto_cancel);
        }
    }
    if (yes && c->workflow_name) {
        job_env(c, NULL, NULL, &scratch, &env); /* now with the variables of the rule */
        c->name = expand_text(c, &env, c->workflow_name->text, EXPAND_KEEP_UNKNOWN);
    }
    arena_release(&scratch);
    return yes;
}

static bool select_by_rules(struct compile *c, struct job *job, const struct rule *rule)
{
    if (!rule || rule->never) {
        return false;
    }
    if (rule->has_when) {
        job->plan.when = rule->when;
        job->has_when = true;
        job->plan.start_in_ms = rule->start_in_ms;
    }
    if (rule->allow_failure != UNSET) {
        job->allow_failure = rule->allow_failure;
        job->plan.allow_failure_exit_codes = rule->exit_codes;
        job->plan.n_allow_failure_exit_codes = rule->exit_code_count;
    }
    if (rule->interruptible != UNSET) {
        job->plan.interruptible = rule->interruptible == YES;
    }
    if (rule->needs.present) {
        job->needs = needs_unfold(c, job, &rule->needs);
    }
    return true;
}

static int compare_texts(const void *a, const void *b)
{
    return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

static void set_tags(struct compile *c, struct job *job, const struct vars *env)
{
    struct texts t = {.items = arena_array(c->arena, job->tags.count + 1, sizeof(*t.items))};
    for (size_t i = 0; i < job->tags.count; i++) {
        struct str tag = expand_text(c, env, job->tags.items[i], EXPAND_KEEP_UNKNOWN);
        if (tag.n == 0 || tag.n > LIMIT_NAME || !str_is_utf8(tag, NULL)) {
            report(c, job->at, "bad-value", NULL,
                   "the tag `" STR_FMT "` must have 1 to %u bytes of text once it is expanded",
                   STR_ARG(job->tags.items[i]), LIMIT_NAME);
            return;
        }
        t.items[i] = tag;
    }
    qsort(t.items, job->tags.count, sizeof(*t.items), compare_texts);
    for (size_t i = 0; i < job->tags.count; i++) {
        if (t.count == 0 || !str_eq(t.items[i], t.items[t.count - 1])) {
            t.items[t.count++] = t.items[i];
        }
    }
    job->plan.tags = texts_to_strings(c->arena, t);
    job->plan.n_tags = t.count;
}

static void set_resource_group(struct compile *c, struct job *job, const struct vars *env)
{
    struct str group = expand_text(c, env, job->resource_group, 0);
    if (group.n > LIMIT_NAME || !str_is_utf8(group, NULL)) {
        report(c, job->at, "bad-value", NULL,
               "the resource group must have at most %u bytes of text", LIMIT_NAME);
        return;
    }
    job->plan.resource_group = arena_strdup(c->arena, group);
}

static void set_pool(struct compile *c, struct job *job, const struct vars *env)
{
    struct str pool = expand_text(c, env, STR("$DAVIT_POOL"), 0);
    if (pool.n > LIMIT_NAME || !str_is_utf8(pool, NULL)) {
        report(c, job->at, "bad-value", NULL, "DAVIT_POOL must have at most %u bytes of text",
               LIMIT_NAME);
        return;
    }
    job->plan.pool = arena_strdup(c->arena, pool);
}

static uint64_t size_of(struct compile *c, const struct job *job, const struct vars *env,
                        const char *name, struct str reference)
{
    struct str text = expand_text(c, env, reference, 0);
    uint64_t bytes = 0;
    if (text.n > 0 && str_to_size(text, &bytes) < 0) {
        report(c, job->at, "bad-value", NULL, "%s must be a size, as 512Mi or 2G", name);
    }
    return bytes;
}

/* What GitLab has no keywords for: a file that says it in variables stays valid there. */
static void set_wants(struct compile *c, struct job *job, const struct vars *env)
{
    struct str cpu = expand_text(c, env, STR("$DAVIT_CPU"), 0);
    set_pool(c, job, env);
    if (cpu.n > 0 && str_to_cpu_millis(cpu, &job->plan.cpu_millis) < 0) {
        report(c, job->at, "bad-value", NULL, "DAVIT_CPU must be processors, as 2, 0.5 or 500m");
    }
    job->plan.memory_bytes = size_of(c, job, env, "DAVIT_MEMORY", STR("$DAVIT_MEMORY"));
    job->plan.disk_bytes = size_of(c, job, env, "DAVIT_DISK", STR("$DAVIT_DISK"));
}

Pb__Variable *plan_variable(struct compile *c, const struct var *var)
{
    Pb__Variable *v = arena_alloc(c->arena, sizeof(*v));
    pb__variable__init(v);
    v->name = arena_strdup(c->arena, var->name);
    v->value = pb_bytes_ref(var->value);
    v->raw = var->raw;
    return v;
}

/* The file's variable at this place, one message for all jobs. */
static Pb__Variable *shared_variable(struct compile *c, size_t place)
{
    if (!c->shared_variables) {
        c->shared_variables = arena_array(c->arena, c->variables.count, sizeof(Pb__Variable *));
    }
    if (!c->shared_variables[place]) {
        c->shared_variables[place] = plan_variable(c, &c->variables.items[place]);
    }
    return c->shared_variables[place];
}

/* From the strongest to the weakest, so that each name is taken once. */
static void set_variables(struct compile *c, struct job *job, const struct rule *rule,
                          struct arena *scratch)
{
    const struct variables sources[] = {rule ? rule->variables : (struct variables){0},
                                        job->variables, c->workflow_variables};
    struct vars seen;
    size_t most = c->variables.count;
    for (size_t i = 0; i < ARRAY_LEN(sources); i++) {
        most += sources[i].count;
    }
    if (!compile_charge(c, most, job->at)) {
        return;
    }
    vars_init(&seen, scratch);
    job->plan.variables = arena_array(c->arena, most + 1, sizeof(Pb__Variable *));
    for (size_t i = 0; i < ARRAY_LEN(sources); i++) {
        for (size_t k = 0; k < sources[i].count; k++) {
            const struct var *var = &sources[i].items[k];
            if (!vars_get(&seen, var->name)) {
                vars_set_ref(&seen, *var);
                job->plan.variables[job->plan.n_variables++] = plan_variable(c, var);
            }
        }
    }
    for (size_t i = 0; i < c->variables.count; i++) {
        struct str name = c->variables.items[i].name;
        if (inherits(&job->inherit_variables, name) && !vars_get(&seen, name)) {
            job->plan.variables[job->plan.n_variables++] = shared_variable(c, i);
        }
    }
}

static void select_job(struct compile *c, struct job *job, struct arena *scratch)
{
    struct vars env;
    const struct rule *rule = NULL;
    job_env(c, job, NULL, scratch, &env);
    explain_job(c, job);
    if (job->rules.present) {
        rule = rules_match(c, &job->rules, &env);
        job->selected = select_by_rules(c, job, rule);
    } else {
        /* Without rules of its own, and without those of a workflow, a job is for branches and
         * tags. */
        bool only = (!job->only.present && c->workflow.present) || policy_all(c, &job->only, &env);
        job->selected = only && !policy_any(c, &job->except, &env);
    }
    explain_decided(c, job->selected);
    if (!job->selected) {
        return;
    }
    check_env(c, &env, job->at);
    if (rule && rule->variables.count > 0) {
        job_env(c, job, rule, scratch, &env);
    }
    /* A job that a person starts blocks nobody, unless its rules or allow_failure say otherwise. */
    bool from_rule = rule && rule->has_when;
    job->plan.allow_failure = job->allow_failure == YES ||
                              (job->allow_failure == UNSET && job->plan.when == WHEN_MANUAL &&
                               !from_rule);
    set_tags(c, job, &env);
    set_resource_group(c, job, &env);
    set_wants(c, job, &env);
    environment_select(c, job, &env);
    rollout_select(c, job, &env);
    set_variables(c, job, rule, scratch);
    check_env(c, &env, job->at);
    explain_variables(c, job, rule, &env);
}

void select_jobs(struct compile *c)
{
    struct arena scratch;
    arena_init(&scratch, 0);
    for (size_t i = 0; i < c->job_count; i++) {
        c->job_at = c->jobs[i].at;
        select_job(c, &c->jobs[i], &scratch);
        arena_clear(&scratch);
    }
    c->job_at = NULL;
    arena_release(&scratch);
}
