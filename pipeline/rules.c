/* rules of jobs, of workflow and of include: reading and judging. */
#include "common/base.h"

#include "pipeline/compile.h"

/* What judging one condition counts for: it may run a regular expression. */
#define CONDITION_WORK 20

static uint32_t count_characters(struct str s)
{
    uint32_t count = 0;
    for (size_t i = 0; i < s.n; i += str_char_length(str_sub(s, i, s.n))) {
        count++;
    }
    return count;
}

/* Points into an expression that is written on one line. */
static struct node *part_of(struct compile *c, const struct node *n, size_t at)
{
    struct node *place = node_new(c->arena, NODE_SCALAR, n);
    uint32_t characters = count_characters(n->text);
    if (n->length >= characters && n->length <= characters + 2) {
        place->column += count_characters(str_sub(n->text, 0, at)) + (n->length - characters) / 2;
        place->length = 1;
    }
    return place;
}

/* Variables that a worker or the start of the job brings: no rule has seen them. */
static bool is_runtime(struct str name)
{
    static const char *const names[] = {
        "CI_BUILDS_DIR",
        "CI_CONCURRENT_ID",
        "CI_CONCURRENT_PROJECT_ID",
        "CI_JOB_ID",
        "CI_JOB_STARTED_AT",
        "CI_JOB_STATUS",
        "CI_JOB_TOKEN",
        "CI_JOB_URL",
        "CI_PIPELINE_CREATED_AT",
        "CI_PIPELINE_ID",
        "CI_PIPELINE_IID",
        "CI_PIPELINE_URL",
        "CI_PROJECT_DIR",
        "CI_PROJECT_ID",
        "CI_RUNNER_ID",
        "CI_RUNNER_DESCRIPTION",
        "CI_RUNNER_EXECUTABLE_ARCH",
        "CI_RUNNER_TAGS",
        "CI_RUNNER_VERSION",
        "CI_RUNNER_SHORT_TOKEN",
        "GITLAB_USER_LOGIN",
        "GITLAB_USER_NAME",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (str_eqz(name, names[i])) {
            return true;
        }
    }
    return false;
}

static void warn_runtime(struct compile *c, const struct node *at, const struct expr *e)
{
    struct str names[16];
    size_t count = expr_variables(e, names, ARRAY_LEN(names));
    for (size_t i = 0; i < count; i++) {
        if (is_runtime(names[i]) && !vars_get(&c->outer, names[i]) &&
            !node_find(c->variables.at, names[i])) {
            report_warning(c, at, "runtime-variable", "move the decision into the `script`",
                           "$" STR_FMT " is not known yet when rules are judged, only in the job",
                           STR_ARG(names[i]));
        }
    }
}

struct expr *condition_read(struct compile *c, const struct node *n)
{
    struct expr *e = memo_get(&c->conditions, n);
    struct expr_error error = {0};
    if (e) {
        return e;
    }
    if (!node_is_string(n)) {
        report(c, n, "wrong-type", "an expression such as `$CI_COMMIT_BRANCH == \"main\"`",
               "`if` must be an expression, found %s", node_what(n));
        return NULL;
    }
    if (expr_parse(c->arena, n->text, &e, &error) < 0) {
        report(c, part_of(c, n, error.at), "bad-expression", NULL, "%s", error.message);
        return NULL;
    }
    memo_set(c->arena, &c->conditions, n, e);
    warn_runtime(c, n, e);
    return e;
}

/* changes, exists: a list of globs, or a mapping with `paths`. */
static bool read_globs(struct compile *c, const struct node *n, enum scope scope, const char *what,
                       struct texts *ret)
{
    const struct node *paths = n;
    if (n->kind == NODE_MAPPING) {
        if (!read_keys(c, n, scope, what)) {
            return false;
        }
        paths = node_get(n, "paths");
        if (node_is_null(paths)) {
            report(c, n, "missing-key", NULL, "`%s` needs `paths`", what);
            return false;
        }
    }
    return read_texts(c, paths, (struct read_texts){.what = what, .single = true, .depth = 10},
                      ret);
}

/* A key with a text that is expanded later. NULL: none, or reported. */
static const struct node *read_text_key(struct compile *c, const struct node *m, const char *what)
{
    const struct node *n = key_of(m, what);
    struct str text;
    return n && read_name(c, n, what, &text) ? n : NULL;
}

static void read_exists_project(struct compile *c, const struct node *n, struct rule *rule)
{
    rule->exists_project = read_text_key(c, n, "exists:project");
    rule->exists_ref = read_text_key(c, n, "exists:ref");
    if (key_of(n, "ref") && !key_of(n, "project")) {
        report(c, n, "missing-key", NULL, "`exists:ref` needs a `project`");
    }
}

static void read_rule_failure(struct compile *c, const struct node *n, struct rule *rule)
{
    bool b = false;
    if (n->kind == NODE_MAPPING) {
        const struct node *codes = node_get(n, "exit_codes");
        if (read_keys(c, n, SCOPE_ALLOW_FAILURE, "allow_failure") && !node_is_null(codes)) {
            rule->allow_failure = NO;
            read_exit_codes(c, codes, &rule->exit_codes, &rule->exit_code_count);
        }
    } else if (read_bool(c, n, "allow_failure", &b)) {
        rule->allow_failure = b ? YES : NO;
    }
}

static void read_rule_when(struct compile *c, const struct node *n, enum scope scope,
                           struct rule *rule)
{
    static const char *const names[] = {"always", "never"};
    size_t i = 0;
    if (scope == SCOPE_RULE) {
        rule->has_when = read_when(c, n, true, &rule->never, &rule->when);
    } else if (read_choice(c, n, "when", names, ARRAY_LEN(names), &i)) {
        rule->has_when = true;
        rule->never = i == 1;
    }
}

static void read_rule_key(struct compile *c, const char *name, const struct node *n,
                          enum scope scope, struct rule *rule)
{
    bool b = false;
    if (strcmp(name, "if") == 0) {
        rule->if_at = n;
        rule->condition = condition_read(c, n);
    } else if (strcmp(name, "changes") == 0) {
        rule->has_changes = read_globs(c, n, SCOPE_CHANGES, "changes", &rule->changes);
        rule->compare_to = read_text_key(c, n, "changes:compare_to");
    } else if (strcmp(name, "exists") == 0) {
        rule->has_exists = read_globs(c, n, SCOPE_EXISTS, "exists", &rule->exists);
        read_exists_project(c, n, rule);
    } else if (strcmp(name, "when") == 0) {
        read_rule_when(c, n, scope, rule);
    } else if (strcmp(name, "start_in") == 0) {
        read_start_in(c, n, &rule->start_in_ms);
    } else if (strcmp(name, "allow_failure") == 0) {
        read_rule_failure(c, n, rule);
    } else if (strcmp(name, "interruptible") == 0) {
        if (read_bool(c, n, "interruptible", &b)) {
            rule->interruptible = b ? YES : NO;
        }
    } else if (strcmp(name, "variables") == 0) {
        read_variables(c, n, SCOPE_JOB_VARIABLE, &rule->variables);
    } else if (strcmp(name, "needs") == 0) {
        read_needs(c, n, &rule->needs);
    } else if (strcmp(name, "auto_cancel") == 0) {
        auto_cancel_read(c, n, &rule->auto_cancel);
    }
}

static void read_rule(struct compile *c, const struct node *n, enum scope scope, struct rule *rule)
{
    *rule = (struct rule){.at = n};
    if (n->kind == NODE_MAPPING && n->count == 0) {
        report(c, n, "wrong-type", NULL, "a rule must say something");
        return;
    }
    if (n->kind != NODE_MAPPING) {
        report(c, n, "wrong-type", node_is_string(n) ? "write `- if: EXPRESSION`" : NULL,
               "a rule must be a mapping, found %s", node_what(n));
        return;
    }
    read_keys(c, n, scope, "rules");
    for (uint32_t i = 0; i < n->count; i++) {
        const struct pair *p = &n->pairs[i];
        const struct keyword *k = keyword_find(scope, p->key->text);
        if (k && !node_is_null(p->value)) {
            read_rule_key(c, k->name.p, p->value, scope, rule);
        } else if (str_eqz(p->key->text, "if") && !p->value->reference) {
            report(c, p->key, "wrong-type", NULL, "`if` must be an expression, found nothing");
        }
    }
    bool delayed = rule->has_when && !rule->never && rule->when == WHEN_DELAYED;
    if (scope == SCOPE_RULE && delayed != (rule->start_in_ms > 0)) {
        report(c, n, "bad-value", NULL, "`when: delayed` and `start_in` go together");
    }
}

static size_t count_rules(const struct node *n)
{
    size_t count = 0;
    for (uint32_t i = 0; i < n->count; i++) {
        const struct node *item = n->items[i];
        count += item->kind == NODE_LIST && !item->reference ? count_rules(item) : 1;
    }
    return count;
}

/* Lists in lists come from !reference; they are as deep as references are nested. */
static void read_list(struct compile *c, const struct node *n, enum scope scope, struct rules *ret)
{
    for (uint32_t i = 0; i < n->count && compile_charge(c, 1, n); i++) {
        const struct node *item = n->items[i];
        if (item->reference) {
            continue;
        }
        if (item->kind == NODE_LIST) {
            read_list(c, item, scope, ret);
        } else {
            read_rule(c, item, scope, &ret->items[ret->count++]);
        }
    }
}

static void read_rules(struct compile *c, const struct node *n, enum scope scope, struct rules *ret)
{
    ret->present = true;
    if (n->kind != NODE_LIST) {
        report(c, n, "wrong-type", "begin each rule with `- `: `- if: EXPRESSION`",
               "`rules` must be a list, found %s", node_what(n));
        return;
    }
    size_t count = count_rules(n);
    if (!compile_charge(c, count, n)) {
        return;
    }
    if (n->count == 0) {
        report_warning(c, n, "rules-empty", NULL, "`rules` without a rule: nothing can match");
    }
    ret->items = arena_array(c->arena, count + 1, sizeof(*ret->items));
    read_list(c, n, scope, ret);
}

/* What many jobs extend is read once, where there was nothing to say about it. */
void rules_read(struct compile *c, const struct node *n, enum scope scope, struct rules *ret)
{
    const struct rules *known = scope == SCOPE_RULE ? memo_get(&c->rules, n) : NULL;
    if (known) {
        *ret = *known;
        return;
    }
    size_t messages = c->diags->errors + c->diags->warnings;
    read_rules(c, n, scope, ret);
    if (scope == SCOPE_RULE && c->diags->errors + c->diags->warnings == messages) {
        struct rules *made = arena_alloc(c->arena, sizeof(*made));
        *made = *ret;
        memo_set(c->arena, &c->rules, n, made);
    }
}

bool condition_holds(struct compile *c, const struct node *at, struct expr *e,
                     const struct vars *env)
{
    struct expr_value v;
    if (c->slow_regex || !compile_charge(c, CONDITION_WORK, at)) {
        return false;
    }
    if (expr_evaluate(e, env, &v) < 0) {
        report(c, at, "regex-limit", "simplify it: repetitions inside of repetitions take long",
               "a regular expression takes too long on this text");
        c->slow_regex = true;
        return false;
    }
    bool holds = expr_holds(v);
    explain_condition(c, at, e, env, holds);
    return holds;
}

static bool rule_matches(struct compile *c, const struct rule *rule, const struct vars *env)
{
    return (!rule->condition || condition_holds(c, rule->if_at, rule->condition, env)) &&
           (!rule->has_changes || (rule->compare_to ? compared_hold(c, rule, env)
                                                    : changes_hold(c, &rule->changes, env))) &&
           (!rule->has_exists || exists_hold(c, rule, env));
}

const struct rule *rules_match(struct compile *c, const struct rules *rules, const struct vars *env)
{
    for (size_t i = 0; i < rules->count; i++) {
        explain_rule(c, "rules", rules->items[i].at);
        if (rule_matches(c, &rules->items[i], env)) {
            explain_matched(c);
            return &rules->items[i];
        }
    }
    return NULL;
}
