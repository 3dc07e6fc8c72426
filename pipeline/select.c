/* Which jobs there are: workflow first, then the rules or only/except of every job, seen with the
 * variables that the job would have. */
#include "common/base.h"

#include <stdlib.h>

#include "pipeline/compile.h"

static void set_text(struct vars *env, const char *name, struct str value)
{
    vars_set(env, (struct var){.name = str_from(name), .value = value, .raw = true});
}

/* From weak to strong: predefined, the file's, workflow's, the job's, the rule's, submitted. */
static void job_env(struct compile *c, const struct job *job, const struct rule *rule,
                    struct arena *scratch, struct vars *env)
{
    vars_init(env, scratch);
    set_all(env, c->in->predefined, c->in->predefined_count);
    if (job) {
        set_text(env, "CI_JOB_NAME", job->name);
        set_text(env, "CI_JOB_STAGE", c->stages.items[job->stage]);
        if (job->parallel > 0) {
            set_text(env, "CI_NODE_INDEX",
                     str_from(arena_printf(scratch, "%u", job->plan.node_index)));
        }
        set_text(env, "CI_NODE_TOTAL",
                 str_from(arena_printf(scratch, "%u", MAX(job->parallel, 1u))));
    }
    for (size_t i = 0; i < c->variables.count; i++) {
        if (!job || inherits(&job->inherit_variables, c->variables.items[i].name)) {
            vars_set(env, c->variables.items[i]);
        }
    }
    set_all(env, c->workflow_variables.items, c->workflow_variables.count);
    if (job) {
        set_all(env, job->variables.items, job->variables.count);
    }
    if (rule) {
        set_all(env, rule->variables.items, rule->variables.count);
    }
    set_all(env, c->in->submitted, c->in->submitted_count);
    expand_all(c, env, job ? job->at : NULL);
}

bool select_workflow(struct compile *c)
{
    struct arena scratch;
    struct vars env;
    bool yes = true;
    arena_init(&scratch, 0);
    job_env(c, NULL, NULL, &scratch, &env);
    if (c->workflow.present) {
        const struct rule *rule = rules_match(c, &c->workflow, &env);
        yes = rule && !rule->never;
        if (!yes) {
            report(c, rule ? rule->at : node_get(c->root, "workflow"), "workflow-false", NULL,
                   rule ? "this rule of `workflow` says: no pipeline"
                        : "no rule of `workflow` matches: no pipeline");
        } else {
            c->workflow_variables = rule->variables;
            if (rule->auto_cancel) {
                config_auto_cancel(c, rule->auto_cancel);
            }
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
    (void)c;
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
        job->needs = rule->needs;
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

static Pb__Variable *plan_variable(struct compile *c, const struct var *var)
{
    Pb__Variable *v = arena_alloc(c->arena, sizeof(*v));
    pb__variable__init(v);
    v->name = arena_strdup(c->arena, var->name);
    v->value = pb_bytes_ref(var->value);
    v->raw = var->raw;
    return v;
}

/* From the strongest to the weakest, so that each name is taken once. */
static void set_variables(struct compile *c, struct job *job, const struct rule *rule,
                          struct arena *scratch)
{
    const struct variables sources[] = {rule ? rule->variables : (struct variables){0},
                                        job->variables, c->workflow_variables, c->variables};
    struct vars seen;
    size_t most = 0;
    for (size_t i = 0; i < ARRAY_LEN(sources); i++) {
        most += sources[i].count;
    }
    if (!compile_charge(c, most, job->at)) {
        return;
    }
    vars_init(&seen, scratch);
    job->plan.variables = arena_array(c->arena, most + 1, sizeof(Pb__Variable *));
    for (size_t i = 0; i < ARRAY_LEN(sources); i++) {
        bool inherited = i == ARRAY_LEN(sources) - 1;
        for (size_t k = 0; k < sources[i].count; k++) {
            const struct var *var = &sources[i].items[k];
            if (!vars_get(&seen, var->name) &&
                (!inherited || inherits(&job->inherit_variables, var->name))) {
                vars_set(&seen, (struct var){.name = var->name, .value = STR("")});
                job->plan.variables[job->plan.n_variables++] = plan_variable(c, var);
            }
        }
    }
}

static void select_job(struct compile *c, struct job *job, struct arena *scratch)
{
    struct vars env;
    const struct rule *rule = NULL;
    job_env(c, job, NULL, scratch, &env);
    if (job->rules.present) {
        rule = rules_match(c, &job->rules, &env);
        job->selected = select_by_rules(c, job, rule);
    } else {
        /* Without rules of its own, and without those of a workflow, a job is for branches and
         * tags. */
        bool only = (!job->only.present && c->workflow.present) || policy_all(c, &job->only, &env);
        job->selected = only && !policy_any(c, &job->except, &env);
    }
    if (!job->selected) {
        return;
    }
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
    set_variables(c, job, rule, scratch);
}

void select_jobs(struct compile *c)
{
    for (size_t i = 0; i < c->job_count; i++) {
        struct arena scratch;
        arena_init(&scratch, 0);
        c->job_at = c->jobs[i].at;
        select_job(c, &c->jobs[i], &scratch);
        arena_release(&scratch);
    }
    c->job_at = NULL;
}
