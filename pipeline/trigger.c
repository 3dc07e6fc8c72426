/* trigger: jobs that start a child pipeline. They have no script and need no worker. What the child
 * is made of stays as it is written, as the root file of the child, in JSON. */
#include "common/base.h"

#include "pipeline/compile.h"
#include "pipeline/json.h"

#define INCLUDES_MAX 3

/* GROUP/NAME; a part of it, or all, may be a variable. */
static bool is_project(struct str s)
{
    bool inner_slash = false;
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] == ' ' || s.p[i] == '\t' || s.p[i] == '\n') {
            return false;
        }
        inner_slash |= s.p[i] == '/' && i > 0 && i + 1 < s.n;
    }
    return s.n > 0 && s.p[0] != '/' && s.p[s.n - 1] != '/' && (inner_slash || s.p[0] == '$');
}

static void read_project(struct compile *c, const struct node *n, const char *what)
{
    struct str text = STR("");
    if (read_name(c, n, what, &text) && !is_project(text)) {
        report(c, n, "bad-value", NULL, "`%s` must be as `GROUP/NAME`, found `" STR_FMT "`", what,
               STR_ARG(text));
    }
}

/* The keys that say where a file is from: exactly one of them. */
static const char *const sources[] = {"local",    "project",  "remote",
                                      "template", "artifact", "component"};

static void check_source(struct compile *c, const struct node *n)
{
    size_t count = 0;
    struct str text;
    for (size_t i = 0; i < ARRAY_LEN(sources); i++) {
        const struct node *from = key_of(n, sources[i]);
        count += from != NULL;
        if (from && strcmp(sources[i], "project") != 0) {
            read_text(c, from, sources[i], &text);
        }
    }
    if (count != 1) {
        report(c, n, count == 0 ? "missing-key" : "keyword-conflict", NULL,
               "an `include` must have one of `local`, `project`, `remote`, `template`, "
               "`artifact`, `component`, found %zu of them",
               count);
    }
    if (key_of(n, "project")) {
        read_project(c, key_of(n, "project"), "include:project");
        if (!key_of(n, "file")) {
            report(c, n, "missing-key", NULL, "`include:project` needs a `file`");
        }
    }
    if (key_of(n, "artifact") && !key_of(n, "job")) {
        report(c, n, "missing-key", "the job that makes the file",
               "`include:artifact` needs a `job`");
    }
}

bool inputs_check(struct compile *c, const struct node *n)
{
    if (n->kind != NODE_MAPPING) {
        report(c, n, "wrong-type", "inputs: { NAME: VALUE }",
               "`inputs` must be a mapping of names to values, found %s", node_what(n));
        return false;
    }
    for (uint32_t i = 0; i < n->count; i++) {
        struct str name = n->pairs[i].key->text;
        bool ok = name.n > 0 && name.n <= LIMIT_NAME;
        for (size_t k = 0; k < name.n; k++) {
            char ch = name.p[k];
            ok &= (ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
                  (ch >= '0' && ch <= '9') || ch == '_' || ch == '-';
        }
        if (!ok) {
            report(c, n->pairs[i].key, "bad-value", NULL,
                   "`" STR_FMT "` is no name for an input: letters, digits, _ and - only",
                   STR_ARG(name));
            return false;
        }
    }
    return true;
}

static void read_source(struct compile *c, const struct node *n)
{
    struct str text;
    if (n->kind != NODE_MAPPING) {
        read_text(c, n, "trigger:include", &text);
        return;
    }
    /* What the rest of it says is judged when the child is compiled. */
    for (uint32_t i = 0; i < n->count; i++) {
        const struct keyword *k = keyword_find(SCOPE_INCLUDE, n->pairs[i].key->text);
        if (!k || strcmp(k->name.p, "rules") == 0) {
            report(c, n->pairs[i].key, "unknown-keyword",
                   suggest_keyword(c, n->pairs[i].key->text, SCOPE_INCLUDE),
                   "unknown keyword `" STR_FMT "` in `trigger:include`",
                   STR_ARG(n->pairs[i].key->text));
        }
    }
    check_source(c, n);
    if (key_of(n, "inputs")) {
        inputs_check(c, key_of(n, "inputs"));
    }
}

/* JSON in the arena; empty: reported. */
static ProtobufCBinaryData to_json(struct compile *c, const struct node *n, const char *before,
                                   const char *after, size_t limit)
{
    struct buf b;
    ProtobufCBinaryData data = {0};
    buf_init(&b, limit);
    buf_addz(&b, before);
    json_add_node(&b, n);
    buf_addz(&b, after);
    if (buf_ok(&b)) {
        data = pb_bytes(c->arena, buf_str(&b));
    } else {
        report(c, n, "limit", NULL, "`trigger`: more than %zu bytes", limit);
    }
    buf_release(&b);
    return data;
}

static void read_includes(struct compile *c, const struct node *n, Pb__TriggerSpec *spec)
{
    bool list = n->kind == NODE_LIST;
    if (list && (n->count == 0 || n->count > INCLUDES_MAX)) {
        report(c, n, "limit", NULL, "`trigger:include` must have 1 to %u entries, found %u",
               INCLUDES_MAX, n->count);
        return;
    }
    for (uint32_t i = 0; i < (list ? n->count : 1); i++) {
        read_source(c, list ? n->items[i] : n);
    }
    spec->config = to_json(c, n, list ? "{\"include\":" : "{\"include\":[", list ? "}" : "]}",
                           LIMIT_TRIGGER_CONFIG);
}

static void read_forward(struct compile *c, const struct node *n, Pb__TriggerSpec *spec)
{
    bool yaml = true;
    bool pipeline = false;
    if (read_keys(c, n, SCOPE_FORWARD, "forward")) {
        read_bool_of(c, n, "forward:yaml_variables", &yaml);
        read_bool_of(c, n, "forward:pipeline_variables", &pipeline);
        spec->forward_yaml_variables = yaml;
        spec->forward_pipeline_variables = pipeline;
    }
}

static void read_what(struct compile *c, const struct node *n, Pb__TriggerSpec *spec)
{
    const struct node *include = key_of(n, "include");
    const struct node *project = key_of(n, "project");
    struct str branch;
    if (!include == !project) {
        report(c, n, include ? "keyword-conflict" : "missing-key", NULL,
               "`trigger` needs one of `include` and `project`%s", include ? ", found both" : "");
        return;
    }
    if (project) {
        read_project(c, project, "trigger:project");
        read_name_of(c, n, "trigger:branch", &branch);
        return;
    }
    if (key_of(n, "branch")) {
        report(c, key_of(n, "branch"), "keyword-conflict", NULL,
               "`trigger:branch` cannot stand beside `include`");
    }
    read_includes(c, include, spec);
}

void trigger_read(struct compile *c, const struct node *n, struct job *job)
{
    static const char *const strategies[] = {"depend", "mirror"};
    Pb__TriggerSpec *spec = arena_alloc(c->arena, sizeof(*spec));
    size_t i;
    pb__trigger_spec__init(spec);
    spec->forward_yaml_variables = true;
    if (n->kind != NODE_MAPPING) {
        read_project(c, n, "trigger");
        note_checked(c, n, "trigger:project");
        return;
    }
    if (!read_keys(c, n, SCOPE_TRIGGER, "trigger")) {
        return;
    }
    const struct node *strategy = key_of(n, "strategy");
    const struct node *inputs = key_of(n, "inputs");
    if (strategy &&
        read_choice(c, strategy, "trigger:strategy", strategies, ARRAY_LEN(strategies), &i)) {
        spec->strategy = (Pb__TriggerStrategy)(i + 1);
    }
    if (key_of(n, "forward")) {
        read_forward(c, key_of(n, "forward"), spec);
    }
    if (inputs && inputs_check(c, inputs)) {
        spec->inputs = to_json(c, inputs, "", "", LIMIT_VARIABLE_VALUE);
    }
    read_what(c, n, spec);
    if (key_of(n, "include")) {
        job->plan.trigger = spec;
    }
}

/* What a job without a script and a worker can do nothing with. */
void trigger_check(struct compile *c, const struct job *job)
{
    for (uint32_t i = 0; i < job->body->count; i++) {
        const struct pair *p = &job->body->pairs[i];
        const struct keyword *k = keyword_find(SCOPE_JOB, p->key->text);
        if (k && !node_is_null(p->value) && !trigger_allows(k->name.p)) {
            report(c, p->key, "keyword-conflict", "a job that triggers a pipeline runs nothing",
                   "`%s` cannot stand beside `trigger`", k->name.p);
        }
    }
}

bool trigger_allows(const char *keyword)
{
    static const char *const names[] = {
        "allow_failure", "environment",    "except",    "extends",  "inherit",
        "interruptible", "needs",          "only",      "parallel", "manual_confirmation",
        "priority",      "resource_group", "rules",     "stage",    "start_in",
        "trigger",       "type",           "variables", "when",
    };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(names[i], keyword) == 0) {
            return true;
        }
    }
    return false;
}
