/* only and except: the older way to say when a job runs. */
#include "common/base.h"

#include "pipeline/compile.h"

static bool read_ref(struct compile *c, const struct node *n, struct policy_ref *ret)
{
    struct str text;
    struct str pattern;
    struct str flags;
    const char *reason;
    size_t at;
    if (!read_text(c, n, "refs", &text)) {
        return false;
    }
    *ret = (struct policy_ref){.at = n, .text = text};
    bool regex = text.n > 1 && text.p[0] == '/';
    ptrdiff_t split = -1;
    for (size_t i = text.n; i > 0 && split < 0 && (!regex || text.p[i - 1] != '/'); i--) {
        split = text.p[i - 1] == '@' ? (ptrdiff_t)i - 1 : -1;
    }
    if (split >= 0) {
        ret->text = str_sub(text, 0, (size_t)split);
        ret->path = str_sub(text, (size_t)split + 1, text.n);
    }
    if (!regex_split_literal(ret->text, &pattern, &flags)) {
        if (regex) {
            report(c, n, "bad-regex", "write it as /pattern/, in quotes if a comma is in it",
                   "`" STR_FMT "` begins with a slash, but is no regular expression",
                   STR_ARG(text));
        }
        return !regex;
    }
    if (regex_compile(c->arena, pattern, flags, &ret->regex, &reason, &at) < 0) {
        report(c, n, "bad-regex", NULL, "`" STR_FMT "`: %s", STR_ARG(text), reason);
        return false;
    }
    return true;
}

static void read_refs(struct compile *c, const struct node *n, struct policy *ret)
{
    bool list = n->kind == NODE_LIST;
    size_t count = list ? n->count : 1;
    ret->has_refs = true;
    ret->refs = arena_array(c->arena, count + 1, sizeof(*ret->refs));
    for (size_t i = 0; i < count && compile_charge(c, 1, n); i++) {
        if (read_ref(c, list ? n->items[i] : n, &ret->refs[ret->ref_count])) {
            ret->ref_count++;
        }
    }
}

/* Of `only` alone: without `refs` it is for branches and tags, whatever else it says. */
static void default_refs(struct compile *c, const struct node *n, struct policy *ret)
{
    static const struct str names[] = {{"branches", 8}, {"tags", 4}};
    ret->has_refs = true;
    ret->refs = arena_array(c->arena, ARRAY_LEN(names), sizeof(*ret->refs));
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        ret->refs[ret->ref_count++] = (struct policy_ref){.at = n, .text = names[i]};
    }
}

static void read_conditions(struct compile *c, const struct node *n, struct policy *ret)
{
    if (n->kind != NODE_LIST) {
        report(c, n, "wrong-type", NULL, "`variables` must be a list of expressions, found %s",
               node_what(n));
        return;
    }
    ret->has_conditions = true;
    ret->conditions = arena_array(c->arena, n->count + 1, sizeof(*ret->conditions));
    for (uint32_t i = 0; i < n->count && compile_charge(c, 1, n); i++) {
        struct expr *e = condition_read(c, n->items[i]);
        if (e) {
            ret->conditions[ret->condition_count++] = (struct policy_condition){.at = n->items[i],
                                                                                .expr = e};
        }
    }
}

/* No cluster belongs to a project here, so none is ever active. */
static void read_kubernetes(struct compile *c, const struct node *n, const char *what,
                            struct policy *ret)
{
    static const char *const names[] = {"active"};
    size_t i;
    if (read_choice(c, n, "kubernetes", names, ARRAY_LEN(names), &i)) {
        ret->kubernetes = true;
        report_warning(
            c, n, "never-active", NULL, "`%s:kubernetes`: no cluster is ever active: %s", what,
            strcmp(what, "only") == 0 ? "the job is in no pipeline" : "this says nothing");
    }
}

void policy_read(struct compile *c, const struct node *n, const char *what, struct policy *ret)
{
    ret->at = n;
    ret->present = true;
    if (n->kind != NODE_MAPPING) {
        read_refs(c, n, ret);
        return;
    }
    if (!read_keys(c, n, SCOPE_POLICY, what)) {
        return;
    }
    const struct node *kubernetes = key_of(n, "kubernetes");
    const struct node *refs = node_get(n, "refs");
    const struct node *variables = node_get(n, "variables");
    const struct node *changes = node_get(n, "changes");
    if (kubernetes) {
        read_kubernetes(c, kubernetes, what, ret);
    }
    if (!node_is_null(refs)) {
        read_refs(c, refs, ret);
    } else if (strcmp(what, "only") == 0) {
        default_refs(c, n, ret);
    }
    if (!node_is_null(variables)) {
        read_conditions(c, variables, ret);
    }
    if (!node_is_null(changes)) {
        ret->has_changes = read_texts(
            c, changes, (struct read_texts){.what = "changes", .depth = 10}, &ret->changes);
    }
}

/* The words for where a pipeline comes from are the origin, or its plural. */
static bool is_origin(struct str word, const char *origin)
{
    static const struct {
        const char *word;
        const char *origin;
    } special[] = {
        {"merge_requests", "merge_request_event"},
        {"external_pull_requests", "external_pull_request_event"},
        {"pushes", "push"},
    };
    if (!origin) {
        return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(special); i++) {
        if (str_eqz(word, special[i].word)) {
            return strcmp(origin, special[i].origin) == 0;
        }
    }
    return str_eqz(word, origin) ||
           (str_ends(word, STR("s")) && str_eqz(str_sub(word, 0, word.n - 1), origin));
}

static bool is_branch(const struct pipeline_input *in)
{
    return !in->tag && in->ref && !(in->origin && strcmp(in->origin, "merge_request_event") == 0);
}

/* Names and expressions speak of branches and tags: they meet no merge request. */
static bool has_name(const struct pipeline_input *in)
{
    return in->ref && (in->tag || is_branch(in));
}

static bool ref_matches(struct compile *c, const struct policy_ref *ref, const struct vars *env)
{
    const struct var *project = vars_get(env, STR("CI_PROJECT_PATH"));
    bool found = false;
    if (ref->path.n > 0 && !(project && str_eq(project->value, ref->path))) {
        return false;
    }
    if (ref->regex && has_name(c->in)) {
        struct str name = str_from(c->in->ref);
        if (regex_search(ref->regex, name, &found) < 0) {
            report(c, ref->at, "regex-limit", NULL, "this takes too long on the name of the ref");
        }
        return found;
    }
    return (c->in->tag && str_eqz(ref->text, "tags")) ||
           (is_branch(c->in) && str_eqz(ref->text, "branches")) ||
           is_origin(ref->text, c->in->origin) ||
           (has_name(c->in) && str_eqz(ref->text, c->in->ref));
}

static bool any_ref(struct compile *c, const struct policy *p, const struct vars *env)
{
    for (size_t i = 0; i < p->ref_count; i++) {
        if (ref_matches(c, &p->refs[i], env)) {
            explain_refs(c, p, &p->refs[i].text);
            return true;
        }
    }
    explain_refs(c, p, NULL);
    return false;
}

static bool any_condition(struct compile *c, const struct policy *p, const struct vars *env)
{
    for (size_t i = 0; i < p->condition_count; i++) {
        if (condition_holds(c, p->conditions[i].at, p->conditions[i].expr, env)) {
            return true;
        }
    }
    return false;
}

bool policy_all(struct compile *c, const struct policy *p, const struct vars *env)
{
    if (!p->present) {
        return c->in->tag || is_branch(c->in); /* as if it said [branches, tags] */
    }
    explain_rule(c, "only", p->at);
    bool holds = !p->kubernetes && (!p->has_refs || any_ref(c, p, env)) &&
                 (!p->has_conditions || any_condition(c, p, env)) &&
                 (!p->has_changes || changes_hold(c, &p->changes, env));
    if (holds) {
        explain_matched(c);
    }
    return holds;
}

bool policy_any(struct compile *c, const struct policy *p, const struct vars *env)
{
    if (!p->present) {
        return false;
    }
    explain_rule(c, "except", p->at);
    bool holds = (p->has_refs && any_ref(c, p, env)) ||
                 (p->has_conditions && any_condition(c, p, env)) ||
                 (p->has_changes && changes_hold(c, &p->changes, env));
    if (holds) {
        explain_matched(c);
    }
    return holds;
}
