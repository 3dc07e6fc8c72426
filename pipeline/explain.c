/* The record of what rules decided: see explain.h. */
#include "common/base.h"

#include "pipeline/compile.h"
#include "pipeline/explain.h"

#define VALUES_MAX 64u /* variables shown of one expression */

void explain_workflow(struct compile *c)
{
    if (c->in->explain) {
        c->in->explain->has_workflow = true;
        c->decision = &c->in->explain->workflow;
    }
}

void explain_job(struct compile *c, const struct job *job)
{
    struct explain *e = c->in->explain;
    if (!e) {
        return;
    }
    if (!e->jobs) {
        e->jobs = arena_array(c->arena, c->job_count, sizeof(*e->jobs));
    }
    check(e->job_count < c->job_count);
    struct explain_job *record = &e->jobs[e->job_count++];
    *record = (struct explain_job){
        .plan = &job->plan, .stage = c->stages.items[job->stage], .at = node_at(job->at)};
    c->decision = &record->decision;
}

/* Makes room for one more in a list that grows at the powers of two. */
static void *grow(struct compile *c, void *items, size_t count, size_t size)
{
    if ((count & (count + 1)) != 0) {
        return items;
    }
    void *more = arena_array(c->arena, 2 * count + 2, size);
    if (count > 0) {
        memcpy(more, items, count * size);
    }
    return more;
}

void explain_rule(struct compile *c, const char *keyword, const struct node *at)
{
    struct explain_decision *d = c->decision;
    if (d) {
        d->rules = grow(c, d->rules, d->rule_count, sizeof(*d->rules));
        d->rules[d->rule_count++] = (struct explain_rule){.keyword = keyword, .at = node_at(at)};
    }
}

static struct explain_rule *last_rule(struct compile *c)
{
    struct explain_decision *d = c->decision;
    return d && d->rule_count > 0 ? &d->rules[d->rule_count - 1] : NULL;
}

/* NULL: nobody asked. */
static struct explain_check *add_check(struct compile *c, enum explain_kind kind, bool holds)
{
    struct explain_rule *rule = last_rule(c);
    if (!rule) {
        return NULL;
    }
    rule->checks = grow(c, rule->checks, rule->check_count, sizeof(*rule->checks));
    struct explain_check *check = &rule->checks[rule->check_count++];
    *check = (struct explain_check){.kind = kind, .holds = holds};
    return check;
}

void explain_condition(struct compile *c, const struct node *at, const struct expr *e,
                       const struct vars *env, bool holds)
{
    struct explain_check *check = add_check(c, EXPLAIN_IF, holds);
    struct str names[VALUES_MAX];
    if (!check) {
        return;
    }
    check->text = at->text;
    check->value_count = expr_variables(e, names, ARRAY_LEN(names));
    check->values = arena_array(c->arena, check->value_count + 1, sizeof(*check->values));
    for (size_t i = 0; i < check->value_count; i++) {
        const struct var *var = vars_get(env, names[i]);
        check->values[i] = (struct explain_value){
            .name = names[i],
            .known = var,
            .value = var && !var->masked ? arena_str(c->arena, var->value) : STR(""),
        };
        if (var && var->masked) {
            check->values[i].value = STR("[masked]");
        }
    }
}

static struct str joined(struct compile *c, const struct texts *t)
{
    struct buf b = BUF_INIT;
    for (size_t i = 0; i < t->count; i++) {
        buf_addf(&b, "%s" STR_FMT, i > 0 ? ", " : "", STR_ARG(t->items[i]));
    }
    struct str text = arena_str(c->arena, buf_str(&b));
    buf_release(&b);
    return text;
}

void explain_globs(struct compile *c, enum globs what, const struct texts *globs,
                   const struct str *found)
{
    bool unknown = (what == GLOBS_CHANGES && !c->in->changes_known) ||
                   (what == GLOBS_COMPARED && !c->in->compare);
    enum explain_kind kind = what == GLOBS_EXISTS ? EXPLAIN_EXISTS : EXPLAIN_CHANGES;
    struct explain_check *check = add_check(c, kind, unknown || found);
    if (check) {
        check->unknown = unknown;
        check->text = joined(c, globs);
        check->found = found ? *found : STR_NULL;
    }
}

void explain_refs(struct compile *c, const struct policy *p, const struct str *found)
{
    struct explain_check *check = add_check(c, EXPLAIN_REFS, found);
    if (!check) {
        return;
    }
    struct texts refs = {.items = arena_array(c->arena, p->ref_count + 1, sizeof(*refs.items)),
                         .count = p->ref_count};
    for (size_t i = 0; i < p->ref_count; i++) {
        refs.items[i] = p->refs[i].text;
    }
    check->text = joined(c, &refs);
    check->found = found ? *found : STR_NULL;
}

void explain_matched(struct compile *c)
{
    struct explain_rule *rule = last_rule(c);
    if (rule) {
        rule->matched = true;
    }
}

static const char *why_without_rules(const struct compile *c, bool in)
{
    if (!in) {
        return "a job without rules is for branches and tags, and this pipeline is for neither";
    }
    return c->workflow.present ? "it has no rules of its own: `workflow` decides for it"
                               : "it has no rules: it runs for branches and tags";
}

static const char *why_by_rules(struct compile *c, const struct explain_decision *d)
{
    if (!d->rules[d->rule_count - 1].matched) {
        return "no rule matches";
    }
    return arena_printf(c->arena, "rule %zu matches%s", d->rule_count,
                        d->in ? "" : ", and says `when: never`");
}

void explain_decided(struct compile *c, bool in)
{
    struct explain_decision *d = c->decision;
    const struct explain *e = c->in->explain;
    if (!d) {
        return;
    }
    const struct explain_rule *last = last_rule(c);
    bool rules = d == &e->workflow || c->jobs[e->job_count - 1].rules.present;
    d->in = in;
    if (!last) {
        d->why = rules ? "`rules` is empty: nothing can match" : why_without_rules(c, in);
    } else if (rules) {
        d->why = why_by_rules(c, d);
    } else if (strcmp(last->keyword, "only") == 0) {
        d->why = in ? "`only` lets it in" : "`only` does not let it in";
    } else {
        d->why = in ? "`except` does not keep it out" : "`except` keeps it out";
    }
    c->decision = NULL;
}

/* The variables of a job that is in, from the strongest source to the weakest. */
struct gatherer {
    struct compile *c;
    struct explain_job *job;
    const struct vars *env;
    struct vars seen;
};

static void add_variable(struct gatherer *g, const struct var *var, const struct node *written,
                         const char *from)
{
    struct explain_job *job = g->job;
    const struct pair *pair = node_find(written, var->name);
    const struct var *known = vars_get(g->env, var->name);
    bool expanded = known && !known->masked && !str_eq(known->value, var->value);
    if (vars_get(&g->seen, var->name)) {
        return;
    }
    vars_set(&g->seen, (struct var){.name = var->name, .value = STR("")});
    job->variables = grow(g->c, job->variables, job->variable_count, sizeof(*job->variables));
    job->variables[job->variable_count++] = (struct explain_variable){
        .name = var->name,
        .value = var->masked ? STR("[masked]") : var->value,
        .expanded = expanded ? arena_str(g->c->arena, known->value) : STR_NULL,
        .from = from,
        .at = pair ? pair->key : NULL,
    };
}

static void add_variables(struct gatherer *g, const struct variables *v, const char *from)
{
    for (size_t i = 0; i < v->count && compile_charge(g->c, 1, NULL); i++) {
        add_variable(g, &v->items[i], v->at, from);
    }
}

void explain_variables(struct compile *c, const struct job *job, const struct rule *rule,
                       const struct vars *env)
{
    struct explain *e = c->in->explain;
    struct arena scratch;
    if (!e) {
        return;
    }
    struct gatherer g = {.c = c, .job = &e->jobs[e->job_count - 1], .env = env};
    arena_init(&scratch, 0);
    vars_init(&g.seen, &scratch);
    for (size_t i = 0; i < c->in->submitted_count; i++) {
        add_variable(&g, &c->in->submitted[i], NULL, "submitted");
    }
    for (size_t i = c->in->stored_count; i-- > 0;) {
        add_variable(&g, &c->in->stored[i], NULL, "stored");
    }
    if (rule) {
        add_variables(&g, &rule->variables, "rule");
    }
    add_variables(&g, &job->variables, "job");
    add_variables(&g, &c->workflow_variables, "workflow rule");
    for (size_t i = 0; i < c->variables.count && compile_charge(c, 1, NULL); i++) {
        if (inherits(&job->inherit_variables, c->variables.items[i].name)) {
            add_variable(&g, &c->variables.items[i], c->variables.at, "file");
        }
    }
    arena_release(&scratch);
}
