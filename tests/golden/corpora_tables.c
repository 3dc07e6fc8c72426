/* GitLab's own unit tests as tables: rules:if, changes, extends, !reference, inputs, interpolation,
 * create-pipeline; and the configurations of the processing cases, which must compile. A case that
 * needs a keyword that is not supported yet is counted as such; any other difference fails. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "pipeline/front.h"
#include "pipeline/yaml.h"
#include "tests/golden/case_input.h"
#include "tests/golden/corpus.h"

static const char *text_of(const json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static void set_vars(struct vars *vars, const json_t *object)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value)
    {
        vars_set(vars,
                 (struct var){.name = str_from(name), .value = str_from(json_string_value(value))});
    }
}

/* rules:if */

static bool same_value(struct expr_value v, const json_t *want)
{
    if (json_is_null(want)) {
        return v.kind == EXPR_NULL;
    }
    if (json_is_boolean(want)) {
        return v.kind == EXPR_BOOL && v.truth == json_is_true(want);
    }
    return v.kind == EXPR_TEXT && str_eqz(v.text, json_string_value(want));
}

/* A JSON value as the compiler's tree; NULL: it is null. */
static const struct node *json_node(struct compile *c, const json_t *j)
{
    struct yaml_file file = {0};
    char *text = json_dumps(j, JSON_ENCODE_ANY);
    check(yaml_read(c->arena, "value", str_from(text), c->diags, &file) == 0);
    free(text);
    return file.body;
}

/* What an input's rule sees in place of `$[[ inputs.NAME ]]`. */
static struct str expression_of_inputs(struct arena *arena, struct str text, const json_t *inputs,
                                       struct vars *vars)
{
    struct diags diags;
    struct pipeline_input in = {.file = "table.yml"};
    struct compile compile = {.arena = arena, .in = &in, .diags = &diags};
    diags_init(&diags);
    text = input_expression(&compile, text, json_node(&compile, inputs), vars, NULL);
    diags_release(&diags);
    return text;
}

static enum outcome run_expression(const json_t *c)
{
    struct arena arena;
    struct vars vars;
    struct expr *e = NULL;
    struct expr_error error;
    struct expr_value v = {0};
    const json_t *want = json_object_get(c, "value");
    struct str text = str_from(text_of(c, "expr"));
    arena_init(&arena, 0);
    vars_init(&vars, &arena);
    set_vars(&vars, json_object_get(c, "vars"));
    if (json_object_get(c, "inputs")) {
        text = expression_of_inputs(&arena, text, json_object_get(c, "inputs"), &vars);
    }
    bool parsed = expr_parse(&arena, text, &e, &error) == 0;
    bool ok = parsed && expr_evaluate(e, &vars, &v) == 0;
    bool same = strcmp(text_of(c, "kind"), "truthful") == 0
                    ? (ok && expr_holds(v)) == json_is_true(want)
                    : ok && same_value(v, want);
    arena_release(&arena);
    return same ? CASE_PASSED : CASE_DIFFERS;
}

static enum outcome run_literal(const json_t *c)
{
    struct arena arena;
    struct str pattern;
    struct str flags;
    struct regex *re;
    const char *reason;
    size_t at;
    const char *want = text_of(c, "re2");
    arena_init(&arena, 0);
    bool literal = regex_split_literal(str_from(text_of(c, "token")), &pattern, &flags);
    bool valid = literal && regex_compile(&arena, pattern, flags, &re, &reason, &at) == 0;
    arena_release(&arena);
    bool want_valid = want && strcmp(want, "error") != 0;
    return valid == want_valid ? CASE_PASSED : CASE_DIFFERS;
}

static enum outcome run_expand(const json_t *c)
{
    struct arena arena;
    struct vars vars;
    struct buf out = BUF_INIT;
    unsigned flags = EXPAND_PERCENT;
    size_t i;
    json_t *v;
    arena_init(&arena, 0);
    vars_init(&vars, &arena);
    json_array_foreach(json_object_get(c, "variables"), i, v)
    {
        vars_set(&vars, (struct var){.name = str_from(text_of(v, "key")),
                                     .value = str_from(text_of(v, "value")),
                                     .file = json_is_true(json_object_get(v, "file"))});
    }
    flags |= json_is_false(json_object_get(c, "expand_file_refs")) ? EXPAND_KEEP_FILE : 0;
    flags |= strcmp(text_of(c, "fn"), "expand_existing") == 0 ? EXPAND_KEEP_UNKNOWN : 0;
    bool ok = vars_expand_with(&vars, str_from(text_of(c, "value")), flags, &out) == 0 &&
              str_eqz(buf_str(&out), text_of(c, "result"));
    buf_release(&out);
    arena_release(&arena);
    return ok ? CASE_PASSED : CASE_DIFFERS;
}

/* Whole files */

struct result {
    struct case_input *c;
    struct diags diags;
    Pb__Plan *plan; /* NULL: errors */
};

/* The repository of the cases with compare_to: each ref has one file more than the one before. */
static bool compare_refs(void *ctx, struct str ref, const struct str **ret, size_t *ret_count)
{
    static const char *const refs[] = {"master", "tag_1", "feature_1", "feature_2"};
    static const struct str files[] = {{"file1.txt", 9}, {"file2.txt", 9}, {"file3.txt", 9}};
    const char *head = ctx;
    size_t from = 0;
    size_t to = 0;
    while (!str_eqz(ref, refs[from])) {
        if (++from == ARRAY_LEN(refs)) {
            return false;
        }
    }
    while (strcmp(head, refs[to]) != 0) {
        to++;
    }
    *ret = files + from;
    *ret_count = to - from;
    return true;
}

static void compile_file(struct result *r, const char *text, const json_t *settings)
{
    const json_t *changed = json_object_get(settings, "changed_files");
    const json_t *files = json_object_get(settings, "repo_files");
    r->c = xmalloc(sizeof(*r->c));
    r->plan = NULL;
    case_input_init(r->c, "table.yml", str_from(text));
    if (text_of(settings, "ref")) {
        r->c->facts.ref = text_of(settings, "ref");
        r->c->facts.origin = text_of(settings, "source");
        case_input_prepare(r->c);
    }
    if (text_of(settings, "compare_to")) {
        r->c->in.compare = compare_refs;
        r->c->in.compare_ctx = (void *)r->c->facts.ref;
    }
    r->c->in.changes_known = changed;
    for (size_t i = 0; i < json_array_size(changed); i++) {
        r->c->changes[r->c->in.change_count++] = str_from(
            json_string_value(json_array_get(changed, i)));
    }
    for (size_t i = 0; i < json_array_size(files); i++) {
        r->c->paths[r->c->in.path_count++] = str_from(json_string_value(json_array_get(files, i)));
    }
    diags_init(&r->diags);
    pipeline_compile(&r->c->arena, &r->c->in, &r->diags, &r->plan);
}

static void release(struct result *r)
{
    diags_release(&r->diags);
    case_input_release(r->c);
    free(r->c);
}

static bool has_error(const struct diags *d, const char *code)
{
    for (size_t i = 0; i < d->count; i++) {
        if (strcmp(d->items[i].code, code) == 0) {
            return true;
        }
    }
    return false;
}

static bool same_jobs(const Pb__Plan *plan, const json_t *names)
{
    bool same = plan && plan->n_jobs == json_array_size(names);
    for (size_t i = 0; same && i < json_array_size(names); i++) {
        bool found = false;
        for (size_t k = 0; k < plan->n_jobs; k++) {
            found |= strcmp(plan->jobs[k]->name, json_string_value(json_array_get(names, i))) == 0;
        }
        same = found;
    }
    return same;
}

static bool has_variable(const Pb__PlanJob *job, const char *name, const char *value)
{
    for (size_t i = 0; i < job->n_variables; i++) {
        if (strcmp(job->variables[i]->name, name) == 0) {
            return str_eqz(pb_str(job->variables[i]->value), value);
        }
    }
    return false;
}

/* Has every job of `wanted` the variables that are listed for it. */
static bool same_variables(const Pb__Plan *plan, const json_t *wanted)
{
    for (size_t i = 0; plan && i < plan->n_jobs; i++) {
        const json_t *variables = json_object_get(wanted, plan->jobs[i]->name);
        const char *name;
        json_t *value;
        json_object_foreach((json_t *)variables, name, value)
        {
            if (!has_variable(plan->jobs[i], name, json_string_value(value))) {
                return false;
            }
        }
    }
    return plan;
}

static enum outcome run_create(const json_t *c)
{
    struct result r;
    compile_file(&r, text_of(c, "config"), c);
    bool same = same_jobs(r.plan, json_object_get(c, "jobs")) &&
                same_variables(r.plan, json_object_get(c, "job_variables"));
    enum outcome outcome = same                            ? CASE_PASSED
                           : corpus_only_not_yet(&r.diags) ? CASE_NOT_YET
                                                           : CASE_DIFFERS;
    if (outcome == CASE_DIFFERS) {
        corpus_print_errors(&r.diags);
    }
    release(&r);
    return outcome;
}

/* Has the job the needs that are wanted, and no others. */
static bool same_needs(const Pb__Plan *plan, const char *name, const json_t *wanted)
{
    for (size_t i = 0; i < plan->n_jobs; i++) {
        const Pb__PlanJob *job = plan->jobs[i];
        if (strcmp(job->name, name) != 0) {
            continue;
        }
        bool same = job->n_needs == json_array_size(wanted);
        for (size_t k = 0; same && k < job->n_needs; k++) {
            same = strcmp(plan->jobs[job->needs[k]->job]->name,
                          json_string_value(json_array_get(wanted, k))) == 0;
        }
        return same;
    }
    return false;
}

static bool matrix_as_wanted(const struct result *r, const json_t *c)
{
    const char *name;
    json_t *wanted;
    if (json_object_get(c, "error")) {
        return has_error(&r->diags, "unknown-matrix-variable");
    }
    if (json_object_get(c, "names")) {
        return same_jobs(r->plan, json_object_get(c, "names"));
    }
    bool same = r->plan != NULL;
    json_object_foreach(json_object_get(c, "needs_of"), name, wanted)
    {
        same = same && same_needs(r->plan, name, wanted);
    }
    return same;
}

static enum outcome run_matrix(const json_t *c)
{
    struct result r;
    json_t *parallel = json_object_get(c, "parallel");
    json_t *needs = json_object_get(c, "needs_expr");
    json_t *matrix = json_pack("{s:[{s:[s],s:[s,s]}]}", "matrix", "OS", "linux", "ARCH", "amd64",
                               "arm64");
    json_t *job = json_pack("{s:s,s:O}", "script", "a", "parallel", parallel ? parallel : matrix);
    json_t *config = json_pack("{s:o}", text_of(c, "job"), job);
    if (needs) {
        json_object_set_new(job, "needs", json_pack("[O]", needs));
        json_object_set_new(config, "build",
                            json_pack("{s:s,s:O}", "script", "b", "parallel", matrix));
    }
    char *text = json_dumps(config, 0);
    compile_file(&r, text, NULL);
    bool ok = matrix_as_wanted(&r, c);
    release(&r);
    free(text);
    json_decref(config);
    json_decref(matrix);
    return ok ? CASE_PASSED : CASE_DIFFERS;
}

/* The globs as `rules:changes` of a job: is it there. */
static enum outcome run_changes(const json_t *c)
{
    struct result r;
    json_t *changes = json_pack("{s:O,s:s*}", "paths", json_object_get(c, "paths"), "compare_to",
                                text_of(c, "compare_to"));
    json_t *config = json_pack("{s:O*,s:{s:s,s:[{s:o}]},s:{s:s}}", "variables",
                               json_object_get(c, "vars"), "job", "script", "a", "rules", "changes",
                               changes, "other", "script", "b");
    json_t *settings = json_pack("{s:O*,s:s*,s:s*}", "changed_files", json_object_get(c, "changed"),
                                 "ref", text_of(c, "ref"), "compare_to", text_of(c, "compare_to"));
    check(config && settings);
    char *text = json_dumps(config, 0);
    compile_file(&r, text, settings);
    bool there = r.plan && r.plan->n_jobs == 2;
    bool ok = r.plan && there == json_is_true(json_object_get(c, "satisfied"));
    if (!ok) {
        corpus_print_errors(&r.diags);
    }
    release(&r);
    free(text);
    json_decref(config);
    json_decref(settings);
    return ok ? CASE_PASSED : CASE_DIFFERS;
}

bool processing_compiles(const json_t *c)
{
    struct result r;
    char *text = json_dumps(json_object_get(c, "config"), 0);
    const json_t *jobs = json_object_get(json_object_get(json_object_get(c, "init"), "expect"),
                                         "jobs");
    compile_file(&r, text, NULL);
    bool same = r.plan && r.plan->n_jobs == json_object_size(jobs);
    for (size_t i = 0; same && i < r.plan->n_jobs; i++) {
        same = json_object_get(jobs, r.plan->jobs[i]->name);
    }
    if (!same) {
        corpus_print_errors(&r.diags);
    }
    release(&r);
    free(text);
    return same;
}

/* Trees: what a phase makes of a file, as JSON. */

static json_t *node_json(const struct node *n)
{
    json_t *j;
    switch (n->kind) {
    case NODE_LIST:
        j = json_array();
        for (uint32_t i = 0; i < n->count; i++) {
            json_array_append_new(j, node_json(n->items[i]));
        }
        return j;
    case NODE_MAPPING:
        j = json_object();
        for (uint32_t i = 0; i < n->count; i++) {
            json_object_setn_new(j, n->pairs[i].key->text.p, n->pairs[i].key->text.n,
                                 node_json(n->pairs[i].value));
        }
        return j;
    case NODE_SCALAR:
        break;
    }
    if (n->type == SCALAR_INT) {
        return json_integer(n->integer);
    }
    if (n->type == SCALAR_BOOL) {
        return json_boolean(n->truth);
    }
    return json_stringn(n->text.p, n->text.n);
}

typedef const struct node *(*phase_fn)(struct compile *c, const struct node *root);

/* The file after one phase, a new reference; NULL: errors, then has_error says which. */
static json_t *run_phase(phase_fn phase, const char *text, struct diags *diags)
{
    struct arena arena;
    struct yaml_file file = {0};
    struct pipeline_input in = {.file = "table.yml"};
    struct compile c = {.arena = &arena, .in = &in, .diags = diags};
    json_t *j = NULL;
    arena_init(&arena, 0);
    diags_init(diags);
    if (yaml_read(&arena, in.file, str_from(text), diags, &file) == 0) {
        const struct node *root = phase(&c, file.body);
        j = diags->errors == 0 ? node_json(root) : NULL;
    }
    arena_release(&arena);
    return j;
}

static enum outcome run_extends(const json_t *c)
{
    struct diags diags;
    char *text = json_dumps(json_object_get(c, "input"), 0);
    json_t *got = run_phase(extends_resolve, text, &diags);
    const json_t *want = json_object_get(c, json_object_get(c, "same") ? "input" : "output");
    bool ok = json_object_get(c, "error")
                  ? has_error(&diags, "extends-circular") || has_error(&diags, "wrong-type")
                  : got && json_equal(got, want);
    if (!ok) {
        corpus_print_errors(&diags);
    }
    json_decref(got);
    diags_release(&diags);
    free(text);
    return ok ? CASE_PASSED : CASE_DIFFERS;
}

/* spec:inputs with given values: what they come to. */
static enum outcome run_inputs(const json_t *c)
{
    struct arena arena;
    struct diags diags;
    struct pipeline_input in = {.file = "table.yml"};
    struct compile compile = {.arena = &arena, .in = &in, .diags = &diags};
    arena_init(&arena, 0);
    diags_init(&diags);
    const struct given given = {.values = json_node(&compile, json_object_get(c, "args"))};
    const struct node *spec = json_node(&compile, json_object_get(c, "spec"));
    json_t *got = node_json(inputs_read(&compile, spec, &given));
    const json_t *errors = json_object_get(c, "errors");
    bool ok = errors ? diags.errors == json_array_size(errors)
                     : diags.errors == 0 && json_equal(got, json_object_get(c, "merged"));
    if (!ok) {
        corpus_print_errors(&diags);
    }
    json_decref(got);
    diags_release(&diags);
    arena_release(&arena);
    return ok ? CASE_PASSED : CASE_DIFFERS;
}

/* One function of interpolation: its syntax, or what it makes of a value. */
static enum outcome run_function(const json_t *c)
{
    struct arena arena;
    struct diags diags;
    struct pipeline_input in = {.file = "table.yml"};
    struct compile compile = {.arena = &arena, .in = &in, .diags = &diags};
    if (text_of(c, "syntax")) {
        bool valid = interpolate_call_valid(str_from(text_of(c, "syntax")));
        return valid == json_is_true(json_object_get(c, "valid")) ? CASE_PASSED : CASE_DIFFERS;
    }
    arena_init(&arena, 0);
    diags_init(&diags);
    const struct node nothing = {.file = in.file};
    const struct node *value = json_node(&compile, json_object_get(c, "input"));
    const struct node *made = interpolate_call(&compile, str_from(text_of(c, "call")),
                                               value ? value : &nothing, &nothing);
    json_t *got = made ? node_json(made) : NULL;
    bool ok = text_of(c, "error") ? !made && has_error(&diags, "interpolation")
                                  : made && json_equal(got, json_object_get(c, "output"));
    json_decref(got);
    diags_release(&diags);
    arena_release(&arena);
    return ok ? CASE_PASSED : CASE_DIFFERS;
}

static bool includes(const json_t *whole, const json_t *part)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)part, key, value)
    {
        if (!json_equal(json_object_get(whole, key), value)) {
            return false;
        }
    }
    return true;
}

static enum outcome run_reference(const json_t *c)
{
    struct diags diags;
    json_t *got = run_phase(reference_resolve, text_of(c, "yaml"), &diags);
    bool ok = json_object_get(c, "error") ? !got && (has_error(&diags, "reference-circular") ||
                                                     has_error(&diags, "reference-invalid") ||
                                                     has_error(&diags, "reference-not-found"))
                                          : got && includes(got, json_object_get(c, "includes"));
    if (!ok) {
        corpus_print_errors(&diags);
    }
    json_decref(got);
    diags_release(&diags);
    return ok ? CASE_PASSED : CASE_DIFFERS;
}

/* Single keywords out of their job: that the job around them is not whole is no matter. */
static enum outcome run_schema(const json_t *c)
{
    static const char *const whole[] = {"no-script", "no-jobs", "unknown-need", "include-not-found",
                                        "unknown-stage"};
    struct result r;
    bool refused = false;
    bool not_yet = false;
    char *text = json_dumps(json_object_get(c, "config"), 0);
    compile_file(&r, text, NULL);
    for (size_t i = 0; i < r.diags.count; i++) {
        const struct diag *d = &r.diags.items[i];
        bool counts = d->level == DIAG_ERROR;
        for (size_t k = 0; k < ARRAY_LEN(whole); k++) {
            counts &= strcmp(d->code, whole[k]) != 0;
        }
        bool later = strcmp(d->code, "not-supported") == 0;
        not_yet |= counts && later;
        refused |= counts && !later;
    }
    bool ok = refused != json_is_true(json_object_get(c, "valid"));
    if (!ok && !not_yet) {
        corpus_print_errors(&r.diags);
    }
    release(&r);
    free(text);
    return not_yet && !refused ? CASE_NOT_YET : ok ? CASE_PASSED : CASE_DIFFERS;
}

typedef enum outcome (*run_fn)(const json_t *c);

/* Cases are known by their name or key, else by their number. */
static bool run_table(struct corpus *k, const char *name, const char *file, run_fn run)
{
    json_t *table = corpora_json(k->root, file);
    size_t i;
    json_t *c;
    if (!table) {
        return false;
    }
    corpus_begin(k, name);
    json_array_foreach(table, i, c)
    {
        enum outcome outcome = run(c);
        if (outcome != CASE_PASSED) {
            char *text = json_dumps(c, 0);
            fprintf(stderr, "%s: %s\n", name, text);
            free(text);
        }
        corpus_case(k, text_of(c, "name") ? text_of(c, "name") : text_of(c, "key"), outcome);
    }
    json_decref(table);
    return true;
}

bool tables_run(struct corpus *k)
{
    static const struct {
        const char *name;
        run_fn run;
    } tables[] = {
        {"create_pipeline", run_create},
        {"cron_gitlab", cron_run_case},
        {"expand_variables", run_expand},
        {"extends", run_extends},
        {"inputs", run_inputs},
        {"interpolation_functions", run_function},
        {"parallel_matrix", run_matrix},
        {"reference_tag", run_reference},
        {"regex_literal", run_literal},
        {"rules_changes", run_changes},
        {"rules_if_expressions", run_expression},
    };
    char *folder = corpora_path(k->root, "tables");
    if (!folder) {
        return false;
    }
    corpus_begin(k, "tables"); /* the sum of those below */
    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        char *name = arena_printf(&k->arena, "tables/%s", tables[i].name);
        run_table(k, name, arena_printf(&k->arena, "%s.json", name), tables[i].run);
    }
    free(folder);
    return true;
}

bool schema_run(struct corpus *k)
{
    return run_table(k, "schema-items", "schema-items/items.json", run_schema);
}
