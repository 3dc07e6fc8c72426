/* What stands at the top of a file beside the jobs: stages, variables, default, workflow. */
#include "common/base.h"

#include "pipeline/compile.h"

bool stage_find(const struct compile *c, struct str name, uint32_t *ret)
{
    for (size_t i = 0; i < c->stages.count; i++) {
        if (str_eq(c->stages.items[i], name)) {
            *ret = (uint32_t)i;
            return true;
        }
    }
    return false;
}

static void add_stage(struct compile *c, struct str name)
{
    uint32_t at;
    if (!stage_find(c, name, &at)) {
        c->stages.items[c->stages.count++] = name;
    }
}

static void read_stages(struct compile *c, const struct node *n)
{
    static const struct str usual[] = {{"build", 5}, {"test", 4}, {"deploy", 6}};
    struct texts t = {.items = (struct str *)usual, .count = ARRAY_LEN(usual)};
    if (!node_is_null(n)) {
        read_texts(c, n, (struct read_texts){.what = "stages", .depth = 10}, &t);
    }
    if (t.count > LIMIT_PIPELINE_JOBS) {
        report(c, n, "limit", NULL, "more than %u stages", LIMIT_PIPELINE_JOBS);
        t.count = 0;
    }
    c->stages.items = arena_array(c->arena, t.count + 2, sizeof(*c->stages.items));
    add_stage(c, STR(".pre"));
    for (size_t i = 0; i < t.count; i++) {
        if (t.items[i].n == 0 || t.items[i].n > LIMIT_NAME || !str_is_utf8(t.items[i], NULL)) {
            report(c, n, "bad-value", NULL, "the name of a stage must have 1 to %u bytes",
                   LIMIT_NAME);
        } else if (!str_eqz(t.items[i], ".post")) {
            add_stage(c, t.items[i]);
        }
    }
    add_stage(c, STR(".post"));
    c->stage_names = arena_array(c->arena, c->stages.count, sizeof(*c->stage_names));
    for (size_t i = 0; i < c->stages.count; i++) {
        c->stage_names[i] = arena_strdup(c->arena, c->stages.items[i]);
    }
}

/* What jobs inherit: the keys of `default`, and the same written at the top of the file. */
static void read_defaults(struct compile *c)
{
    struct node *all = node_new(c->arena, NODE_MAPPING, c->root);
    const struct node *section = node_get(c->root, "default");
    if (!node_is_null(section) && read_keys(c, section, SCOPE_DEFAULT, "default")) {
        for (uint32_t i = 0; i < section->count; i++) {
            node_set(c->arena, all, section->pairs[i].key, section->pairs[i].value);
        }
    }
    for (uint32_t i = 0; i < c->root->count; i++) {
        const struct pair *p = &c->root->pairs[i];
        if (!keyword_find(SCOPE_TOP, p->key->text) || !keyword_find(SCOPE_DEFAULT, p->key->text) ||
            node_is_null(p->value)) {
            continue;
        }
        if (!node_is_null(node_get(section, keyword_find(SCOPE_TOP, p->key->text)->name.p))) {
            report(c, p->key, "duplicate-default", "keep the one in `default`",
                   "`" STR_FMT "` stands in `default`, too", STR_ARG(p->key->text));
        }
        node_set(c->arena, all, p->key, p->value);
    }
    c->defaults = all;
}

void auto_cancel_read(struct compile *c, const struct node *n, struct auto_cancel *ret)
{
    static const char *const failure[] = {"none", "all"};
    static const char *const commit[] = {"none", "conservative", "interruptible"};
    size_t i;
    if (!read_keys(c, n, SCOPE_AUTO_CANCEL, "auto_cancel")) {
        return;
    }
    const struct node *on_failure = key_of(n, "on_job_failure");
    const struct node *on_commit = key_of(n, "on_new_commit");
    if (on_failure &&
        read_choice(c, on_failure, "on_job_failure", failure, ARRAY_LEN(failure), &i)) {
        ret->has_failure = true;
        ret->on_failure = (Pb__AutoCancelOnFailure)i;
    }
    if (on_commit && read_choice(c, on_commit, "on_new_commit", commit, ARRAY_LEN(commit), &i)) {
        ret->has_commit = true;
        ret->on_commit = (Pb__AutoCancelOnNewCommit)i;
    }
}

void auto_cancel_apply(struct compile *c, const struct auto_cancel *a)
{
    if (a->has_failure) {
        c->on_job_failure = a->on_failure;
    }
    if (a->has_commit) {
        c->on_new_commit = a->on_commit;
    }
}

static void read_workflow(struct compile *c, const struct node *n)
{
    if (!read_keys(c, n, SCOPE_WORKFLOW, "workflow")) {
        return;
    }
    const struct node *rules = node_get(n, "rules");
    const struct node *name = node_get(n, "name");
    const struct node *auto_cancel = node_get(n, "auto_cancel");
    struct str text;
    if (!node_is_null(rules)) {
        rules_read(c, rules, SCOPE_WORKFLOW_RULE, &c->workflow);
    }
    if (!node_is_null(name) && read_name(c, name, "workflow:name", &text)) {
        c->workflow_name = name;
    }
    if (!node_is_null(auto_cancel)) {
        struct auto_cancel a = {0};
        auto_cancel_read(c, auto_cancel, &a);
        auto_cancel_apply(c, &a);
    }
}

void config_read(struct compile *c)
{
    const struct node *variables = node_get(c->root, "variables");
    const struct node *workflow = node_get(c->root, "workflow");
    const struct node *types = node_get(c->root, "types");
    const struct node *stages = node_get(c->root, "stages");
    if (!node_is_null(types)) {
        report_warning(c, types, "deprecated", "write `stages`",
                       "`types` is the old name of `stages`");
    }
    read_stages(c, node_is_null(stages) ? types : stages);
    read_defaults(c);
    if (!node_is_null(variables)) {
        read_variables(c, variables, SCOPE_VARIABLE, &c->variables);
    }
    if (!node_is_null(workflow)) {
        read_workflow(c, workflow);
    }
}
