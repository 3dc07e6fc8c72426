/* What explain.h recorded, as text for people and as JSON. */
#include "common/base.h"

#include "pipeline/explain.h"

#define VALUE_SHOWN 200 /* bytes of a value in the text */

static const char *const kinds[] = {
    [EXPLAIN_IF] = "if",
    [EXPLAIN_CHANGES] = "changes",
    [EXPLAIN_EXISTS] = "exists",
    [EXPLAIN_REFS] = "refs",
};

static const char *when_name(Pb__When when)
{
    static const char *const names[] = {"on_success", "on_failure", "always", "manual", "delayed"};
    return (size_t)when < ARRAY_LEN(names) ? names[when] : "on_success";
}

static bool is_shown(const struct explain_view *v, const struct explain_job *job)
{
    return !v->job || strcmp(job->plan->name, v->job) == 0 ||
           strcmp(job->plan->base_name, v->job) == 0;
}

bool explain_has_job(const struct explain *e, const char *job)
{
    struct explain_view v = {.job = job};
    for (size_t i = 0; i < e->job_count; i++) {
        if (is_shown(&v, &e->jobs[i])) {
            return true;
        }
    }
    return false;
}

static size_t count_in(const struct explain *e)
{
    size_t count = 0;
    for (size_t i = 0; i < e->job_count; i++) {
        count += e->jobs[i].decision.in;
    }
    return count;
}

/* A text of others on one line: no control character reaches the terminal. */
static void add_line_text(struct buf *out, struct str s)
{
    struct str shown = str_sub(s, 0, VALUE_SHOWN);
    while (shown.n < s.n && shown.n > 0 && ((unsigned char)s.p[shown.n] & 0xc0) == 0x80) {
        shown.n--; /* not in the middle of a character */
    }
    for (size_t i = 0; i < shown.n; i++) {
        unsigned char c = (unsigned char)shown.p[i];
        if (c == '\n') {
            buf_addz(out, i + 1 < s.n ? "\\n" : "");
        } else {
            buf_add_char(out, c < ' ' || c == 0x7f ? '?' : (char)c);
        }
    }
    buf_addz(out, shown.n < s.n ? "..." : "");
}

static void add_place(struct buf *out, struct diag_at at)
{
    if (at.line > 0) {
        buf_addf(out, "%s:%" PRIu32 ":%" PRIu32, at.file, at.line, at.column);
    }
}

static void check_text(const struct explain_check *c, struct buf *out)
{
    buf_addf(out, "      %s `", kinds[c->kind]);
    add_line_text(out, c->text);
    if (c->unknown) {
        buf_addz(out, "` holds: it is not known what changed\n");
    } else if (c->found.p) {
        buf_addz(out, "` holds: ");
        add_line_text(out, c->found);
        buf_add_char(out, '\n');
    } else if (c->holds) {
        buf_addz(out, "` holds\n");
    } else {
        static const char *const why[] = {
            [EXPLAIN_IF] = "does not hold",
            [EXPLAIN_CHANGES] = "does not hold: no changed path matches",
            [EXPLAIN_EXISTS] = "does not hold: no file of the repository matches",
            [EXPLAIN_REFS] = "does not hold: this is none of them",
        };
        buf_addf(out, "` %s\n", why[c->kind]);
    }
    for (size_t i = 0; i < c->value_count; i++) {
        const struct explain_value *value = &c->values[i];
        buf_addf(out, "        $" STR_FMT, STR_ARG(value->name));
        if (value->known) {
            buf_addz(out, " is \"");
            add_line_text(out, value->value);
            buf_addz(out, "\"\n");
        } else {
            buf_addz(out, " is not set\n");
        }
    }
}

static void decision_text(const struct explain_decision *d, struct buf *out)
{
    for (size_t i = 0; i < d->rule_count; i++) {
        const struct explain_rule *r = &d->rules[i];
        if (strcmp(r->keyword, "rules") == 0) {
            buf_addf(out, "    rule %zu", i + 1);
        } else {
            buf_addf(out, "    `%s`", r->keyword);
        }
        buf_addz(out, " (");
        add_place(out, r->at);
        buf_addf(out, ") %s%s\n", r->matched ? "matches" : "does not match",
                 r->matched && r->check_count == 0 ? ": it has no condition" : "");
        for (size_t k = 0; k < r->check_count; k++) {
            check_text(&r->checks[k], out);
        }
    }
}

static void needs_text(const struct explain_view *v, const Pb__PlanJob *job, struct buf *out)
{
    if (!v->plan) {
        return;
    }
    if (!job->dag) {
        buf_addf(out, "    %s\n",
                 job->stage == 0 ? "in the first stage: starts at once"
                                 : "waits for the stages before");
        return;
    }
    buf_addz(out, job->n_needs == 0 ? "    needs nothing: starts at once\n" : "    needs ");
    for (size_t i = 0; i < job->n_needs; i++) {
        buf_addf(out, "%s%s%s", v->plan->jobs[job->needs[i]->job]->name,
                 job->needs[i]->artifacts ? "" : " (without artifacts)",
                 i + 1 < job->n_needs ? ", " : "\n");
    }
}

static void result_text(const struct explain_view *v, const struct explain_job *job,
                        struct buf *out)
{
    const Pb__PlanJob *plan = job->plan;
    buf_addf(out, "    when: %s%s\n", when_name(plan->when),
             plan->allow_failure ? ", may fail" : "");
    needs_text(v, plan, out);
    for (size_t i = 0; i < plan->n_tags; i++) {
        buf_addf(out, "%s%s%s", i == 0 ? "    tags: " : ", ", plan->tags[i],
                 i + 1 == plan->n_tags ? "\n" : "");
    }
    if (plan->environment) {
        buf_addf(out, "    environment: %s\n", plan->environment->name);
    }
    for (size_t i = 0; i < plan->n_unsupported; i++) {
        buf_addf(out, "    `%s` is checked, but nothing acts on it: the job will fail\n",
                 plan->unsupported[i]);
    }
    for (size_t i = 0; i < job->variable_count; i++) {
        const struct explain_variable *x = &job->variables[i];
        buf_addf(out, "    $" STR_FMT " = \"", STR_ARG(x->name));
        add_line_text(out, x->value);
        buf_addz(out, "\"");
        if (x->expanded.p) {
            buf_addz(out, ", which is \"");
            add_line_text(out, x->expanded);
            buf_addz(out, "\"");
        }
        buf_addf(out, " (%s%s", x->from, x->at ? ", " : "");
        add_place(out, node_at(x->at));
        buf_addz(out, ")\n");
    }
}

void explain_text(const struct explain_view *v, struct buf *out)
{
    const struct explain *e = v->explain;
    if (!v->job) {
        bool none = e->has_workflow && !e->workflow.in;
        buf_addf(out, "%s `%s` (%s): ", v->in->tag ? "tag" : "branch", v->in->ref ? v->in->ref : "",
                 v->in->origin ? v->in->origin : "");
        if (none) {
            buf_addz(out, "no pipeline\n");
        } else {
            buf_addf(out, "%zu of %zu jobs\n", count_in(e), e->job_count);
        }
        if (e->has_workflow) {
            buf_addf(out, "workflow: %s\n", e->workflow.why);
            decision_text(&e->workflow, out);
        }
    }
    for (size_t i = 0; i < e->job_count; i++) {
        const struct explain_job *job = &e->jobs[i];
        if (!is_shown(v, job)) {
            continue;
        }
        buf_addf(out, "%s %s [" STR_FMT "] ", job->decision.in ? "+" : "-", job->plan->name,
                 STR_ARG(job->stage));
        add_place(out, job->at);
        buf_addf(out, "\n    %s: %s\n", job->decision.in ? "in" : "absent", job->decision.why);
        decision_text(&job->decision, out);
        if (job->decision.in) {
            result_text(v, job, out);
        }
    }
}

/* Texts that are no UTF-8 come from command lines only: their other bytes are shown. */
static json_t *text(struct str s)
{
    json_t *o = json_stringn(s.p ? s.p : "", s.n);
    if (o) {
        return o;
    }
    struct buf b = BUF_INIT;
    for (size_t i = 0; i < s.n; i++) {
        buf_add_char(&b, s.p[i] > 0 ? s.p[i] : '?');
    }
    o = json_stringn(buf_cstr(&b), b.n);
    buf_release(&b);
    return o;
}

static void set_place(json_t *o, struct diag_at at)
{
    json_object_set_new(o, "file", at.line > 0 ? text(str_from(at.file)) : json_null());
    json_object_set_new(o, "line", at.line > 0 ? json_integer(at.line) : json_null());
    json_object_set_new(o, "column", at.line > 0 ? json_integer(at.column) : json_null());
}

static json_t *check_json(const struct explain_check *c)
{
    json_t *o = json_pack("{s:s, s:o, s:b}", "kind", kinds[c->kind], "text", text(c->text), "holds",
                          c->holds);
    if (c->kind == EXPLAIN_IF) {
        json_t *values = json_object();
        for (size_t i = 0; i < c->value_count; i++) {
            const struct explain_value *value = &c->values[i];
            json_object_setn_new(values, value->name.p, value->name.n,
                                 value->known ? text(value->value) : json_null());
        }
        json_object_set_new(o, "variables", values);
    } else {
        json_object_set_new(o, "found", c->found.p ? text(c->found) : json_null());
    }
    if (c->kind == EXPLAIN_CHANGES) {
        json_object_set_new(o, "known", json_boolean(!c->unknown));
    }
    return o;
}

static json_t *decision_json(const struct explain_decision *d)
{
    json_t *rules = json_array();
    for (size_t i = 0; i < d->rule_count; i++) {
        const struct explain_rule *r = &d->rules[i];
        json_t *checks = json_array();
        for (size_t k = 0; k < r->check_count; k++) {
            json_array_append_new(checks, check_json(&r->checks[k]));
        }
        json_t *o = json_pack("{s:s, s:b, s:o}", "keyword", r->keyword, "matched", r->matched,
                              "checks", checks);
        set_place(o, r->at);
        json_array_append_new(rules, o);
    }
    return json_pack("{s:b, s:s, s:o}", "in", d->in, "why", d->why, "rules", rules);
}

static json_t *needs_json(const struct explain_view *v, const Pb__PlanJob *job)
{
    json_t *list = json_array();
    for (size_t i = 0; i < job->n_needs; i++) {
        json_array_append_new(list, json_pack("{s:s, s:b}", "job",
                                              v->plan->jobs[job->needs[i]->job]->name, "artifacts",
                                              (int)job->needs[i]->artifacts));
    }
    return list;
}

static json_t *variables_json(const struct explain_job *job)
{
    json_t *list = json_array();
    for (size_t i = 0; i < job->variable_count; i++) {
        const struct explain_variable *x = &job->variables[i];
        json_t *o = json_pack("{s:o, s:o, s:o, s:s}", "name", text(x->name), "value",
                              text(x->value), "expanded",
                              text(x->expanded.p ? x->expanded : x->value), "from", x->from);
        set_place(o, node_at(x->at));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *names_json(char **names, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(list, text(str_from(names[i])));
    }
    return list;
}

static json_t *job_json(const struct explain_view *v, const struct explain_job *job)
{
    const Pb__PlanJob *plan = job->plan;
    json_t *o = decision_json(&job->decision);
    json_object_set_new(o, "name", text(str_from(plan->name)));
    json_object_set_new(o, "stage", text(job->stage));
    set_place(o, job->at);
    if (!job->decision.in) {
        return o;
    }
    json_object_set_new(o, "when", json_string(when_name(plan->when)));
    json_object_set_new(o, "allow_failure", json_boolean(plan->allow_failure));
    json_object_set_new(o, "tags", names_json(plan->tags, plan->n_tags));
    json_object_set_new(o, "environment",
                        plan->environment ? text(str_from(plan->environment->name)) : json_null());
    json_object_set_new(o, "needs", v->plan && plan->dag ? needs_json(v, plan) : json_null());
    json_object_set_new(o, "not_acted_on", names_json(plan->unsupported, plan->n_unsupported));
    json_object_set_new(o, "variables", variables_json(job));
    return o;
}

json_t *explain_json(const struct explain_view *v)
{
    const struct explain *e = v->explain;
    json_t *jobs = json_array();
    for (size_t i = 0; i < e->job_count; i++) {
        if (is_shown(v, &e->jobs[i])) {
            json_array_append_new(jobs, job_json(v, &e->jobs[i]));
        }
    }
    return json_pack("{s:o, s:b, s:o, s:o, s:o}", "ref", text(str_from(v->in->ref)), "tag",
                     (int)v->in->tag, "origin", text(str_from(v->in->origin)), "workflow",
                     e->has_workflow && e->workflow.why ? decision_json(&e->workflow) : json_null(),
                     "jobs", jobs);
}
