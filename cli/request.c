#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/client.h"
#include "cli/request.h"
#include "common/limits.h"
#include "common/os.h"

#define REQUEST_STDIN "<stdin>"
#define CHILD_DEPTH   2 /* a child may have children, those may not */

/* What stands on standard input is a file that was read already. */
static int read_stdin(struct request *r, struct str *ret_text)
{
    struct buf text = BUF_INIT;
    int res = os_read_file("/dev/stdin", LIMIT_YAML_BYTES + 1, &text);
    if (res == 0) {
        *ret_text = files_add(&r->files, REQUEST_STDIN, buf_str(&text));
    }
    buf_release(&text);
    return res;
}

static json_t *text_or_null(const char *s)
{
    return s != NULL ? json_string(s) : NULL;
}

static json_t *names(const struct str *items, size_t count)
{
    json_t *a = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(a, json_stringn(items[i].p, items[i].n));
    }
    return a;
}

/* Splits NAME=VALUE options into the arena. */
static int parse_variables(struct cli *c, struct request *r, const struct opt_list *l,
                           struct var **ret, size_t *ret_count)
{
    struct var *v = arena_array(&r->arena, l->count + 1, sizeof(*v));
    for (size_t i = 0; i < l->count; i++) {
        struct str s = str_from(l->items[i]);
        ptrdiff_t eq = str_chr(s, '=');
        v[i].name = str_sub(s, 0, eq < 0 ? 0 : (size_t)eq);
        if (eq < 0 || !var_name_valid(v[i].name)) {
            return cli_fail(c, -E_USAGE, "--variable wants NAME=VALUE, not `%s`", l->items[i]);
        }
        v[i].value = str_sub(s, (size_t)eq + 1, s.n);
    }
    *ret = v;
    *ret_count = l->count;
    return 0;
}

/* Texts; the types of the inputs say what they are read as. */
static int parse_inputs(struct cli *c, struct request *r, const struct opt_list *l)
{
    struct pipeline_value *v = arena_array(&r->arena, l->count + 1, sizeof(*v));
    for (size_t i = 0; i < l->count; i++) {
        struct str s = str_from(l->items[i]);
        ptrdiff_t eq = str_chr(s, '=');
        if (eq <= 0) {
            return cli_fail(c, -E_USAGE, "--input wants NAME=VALUE, not `%s`", l->items[i]);
        }
        v[i] = (struct pipeline_value){.name = str_sub(s, 0, (size_t)eq),
                                       .text = str_sub(s, (size_t)eq + 1, s.n)};
    }
    r->in.inputs = v;
    r->in.input_count = l->count;
    return 0;
}

/* The map of projects: options before the configuration file's `include_projects`. */
static int read_projects(struct cli *c, struct request *r, const struct opt_list *l,
                         const json_t *config, struct fetch_config *ret)
{
    json_t *known = json_object_get(config, "include_projects");
    struct fetch_project *all = arena_array(&r->arena, l->count + json_object_size(known) + 1,
                                            sizeof(*all));
    const char *name;
    json_t *from;
    for (size_t i = 0; i < l->count; i++) {
        if (!fetch_project_parse(l->items[i], &all[ret->project_count++])) {
            return cli_fail(c, -E_USAGE, "--include-project wants NAME=PATH_OR_URL, not `%s`",
                            l->items[i]);
        }
    }
    json_object_foreach(known, name, from)
    {
        const char *text = arena_printf(&r->arena, "%s=%s", name,
                                        json_is_string(from) ? json_string_value(from) : "");
        if (!fetch_project_parse(text, &all[ret->project_count++])) {
            return cli_fail(c, -E_INVALID, "config.json: include_projects: `%s` is no project",
                            text);
        }
    }
    ret->projects = all;
    return 0;
}

static const char *keep(struct arena *a, char *heap)
{
    const char *kept = heap != NULL ? arena_strdup(a, str_from(heap)) : NULL;
    free(heap);
    return kept;
}

/* Who gets the files that are not in the tree. */
static int open_fetcher(struct cli *c, const struct repo *repo, const struct request_options *o,
                        struct request *r)
{
    json_t *config = client_config();
    const char *templates = json_text(config, "templates");
    struct fetch_config f = {.origin = repo->origin, .offline = o->offline};
    f.cache = keep(&r->arena, client_cache_dir());
    if (o->templates != NULL) {
        f.templates = o->templates;
    } else if (templates[0] != 0 && getenv("DAVIT_TEMPLATES") == NULL) {
        f.templates = arena_strdup(&r->arena, str_from(templates));
    } else {
        f.templates = keep(&r->arena, fetch_find_templates());
    }
    int res = read_projects(c, r, &o->projects, config, &f);
    json_decref(config);
    r->fetcher = fetch_new(&f);
    files_init(&r->files, &r->arena, repo, r->fetcher);
    return res;
}

/* What differs from a ref, asked of git once. */
static bool compare(void *ctx, struct str ref, const struct str **ret, size_t *ret_count)
{
    struct request *r = ctx;
    struct compared *known = r->compared;
    while (known != NULL && !str_eqz(ref, known->ref)) {
        known = known->next;
    }
    if (known == NULL) {
        known = arena_alloc(&r->arena, sizeof(*known));
        known->ref = arena_strdup(&r->arena, ref);
        known->known = repo_compare(r->repo, known->ref, &known->paths, &known->count);
        known->next = r->compared;
        r->compared = known;
    }
    *ret = known->paths;
    *ret_count = known->count;
    return known->known;
}

static const struct str *list_names(struct request *r, const struct opt_list *l)
{
    struct str *items = arena_array(&r->arena, l->count + 1, sizeof(*items));
    for (size_t i = 0; i < l->count; i++) {
        items[i] = str_from(l->items[i]);
    }
    return items;
}

/* The values that a trigger gives the inputs of its child. */
static size_t child_inputs(struct request *r, const Pb__TriggerSpec *t,
                           const struct pipeline_value **ret)
{
    json_t *inputs = json_loadb((const char *)t->inputs.data, t->inputs.len, 0, NULL);
    struct pipeline_value *v = arena_array(&r->arena, json_object_size(inputs) + 1, sizeof(*v));
    size_t count = 0;
    const char *name;
    json_t *value;
    json_object_foreach(inputs, name, value)
    {
        char *text = json_dumps(value, JSON_ENCODE_ANY);
        v[count++] = (struct pipeline_value){
            .name = arena_str(&r->arena, str_from(name)),
            .text = str_from(keep(&r->arena, text)),
            .json = true,
        };
    }
    json_decref(inputs);
    *ret = v;
    return count;
}

/* Compiles the children of the plan's trigger jobs, so that what they include is read now and goes
 * along. What is wrong with a child shows when its turn comes: here its messages are dropped. */
static void compile_children(struct request *r, const struct pipeline_input *parent,
                             const Pb__Plan *plan, unsigned depth)
{
    struct vars predefined;
    vars_init(&predefined, &r->arena);
    for (size_t i = 0; i < parent->predefined_count; i++) {
        vars_set(&predefined, parent->predefined[i]);
    }
    vars_set(&predefined,
             (struct var){.name = STR("CI_PIPELINE_SOURCE"), .value = STR("parent_pipeline")});
    for (size_t i = 0; i < plan->n_jobs; i++) {
        const Pb__PlanJob *job = plan->jobs[i];
        struct pipeline_input in = *parent;
        struct diags diags;
        Pb__Plan *child = NULL;
        if (!job->trigger || job->trigger->config.len == 0) {
            continue;
        }
        in.file = arena_printf(&r->arena, "child of %s", job->name);
        in.text = pb_str(job->trigger->config);
        in.overlay = STR_NULL; /* it is of the root file's jobs */
        in.input_count = child_inputs(r, job->trigger, &in.inputs);
        in.predefined = predefined.items;
        in.predefined_count = predefined.count;
        in.origin = "parent_pipeline";
        in.only_count = 0;
        in.explain = NULL;
        diags_init(&diags);
        if (pipeline_compile(&r->arena, &in, &diags, &child) == 0 && depth > 1) {
            compile_children(r, &in, child, depth - 1);
        }
        diags_release(&diags);
    }
}

/* Nothing was pushed for a tag, a schedule and the like: `changes` holds there. */
static bool is_push(const struct pipeline_facts *f)
{
    return !f->tag &&
           (strcmp(f->origin, "push") == 0 || strcmp(f->origin, "merge_request_event") == 0);
}

static int compile(struct repo *repo, const struct pipeline_facts *facts,
                   const struct var *variables, size_t variable_count,
                   const struct request_options *o, struct request *r)
{
    struct pipeline_input *in = &r->in;
    struct vars predefined;
    int res = 0;
    in->file = facts->config_path;
    if (strcmp(in->file, REQUEST_STDIN) == 0) {
        res = read_stdin(r, &in->text);
    } else if (!files_read(&r->files, in->file, &in->text)) {
        res = -E_NOT_FOUND;
    }
    if (res < 0) {
        return res;
    }
    in->overlay_file = PIPELINE_OVERLAY;
    if (strcmp(in->file, PIPELINE_OVERLAY) != 0) {
        files_read(&r->files, PIPELINE_OVERLAY, &in->overlay); /* there may be none */
    }
    in->include = files_include;
    in->include_ctx = &r->files;
    in->compare = compare;
    in->compare_ctx = r;
    in->paths = repo->files;
    in->path_count = repo->file_count;
    in->changes_known = o->changes.count > 0 || (repo->changes_known && is_push(facts));
    in->changes = o->changes.count > 0 ? list_names(r, &o->changes) : repo->changes;
    in->change_count = o->changes.count > 0 ? o->changes.count : repo->change_count;
    in->submitted = variables;
    in->submitted_count = variable_count;
    in->ref = facts->ref;
    in->tag = facts->tag;
    in->origin = facts->origin;
    in->only = list_names(r, &o->jobs);
    in->only_count = o->jobs.count;
    in->explain = o->explain ? &r->explain : NULL;
    vars_init(&predefined, &r->arena);
    pipeline_predefined(&predefined, facts);
    in->predefined = predefined.items;
    in->predefined_count = predefined.count;
    res = pipeline_compile(&r->arena, in, &r->diags, &r->plan);
    if (res == 0) {
        compile_children(r, in, r->plan, CHILD_DEPTH);
    }
    return res;
}

static json_t *pairs_json(const struct pipeline_value *values, size_t count)
{
    json_t *o = json_object();
    for (size_t i = 0; i < count; i++) {
        json_object_setn_new(o, values[i].name.p, values[i].name.n,
                             json_stringn(values[i].text.p, values[i].text.n));
    }
    return o;
}

/* A ref that is not there is left out: the broker comes to the same. */
static json_t *compared_json(const struct compared *c)
{
    json_t *o = json_object();
    for (; c != NULL; c = c->next) {
        if (c->known) {
            json_object_set_new(o, c->ref, names(c->paths, c->count));
        }
    }
    return o;
}

static json_t *build_body(const struct repo *repo, const struct pipeline_facts *f,
                          const struct var *variables, size_t variable_count,
                          const struct request *r)
{
    json_t *body = json_pack("{s:s, s:s, s:b, s:s, s:s, s:s}", "project", f->project, "ref", f->ref,
                             "tag", f->tag, "origin", f->origin, "default_branch",
                             f->default_branch, "file", f->config_path);
    json_t *vars = json_array();
    check(body != NULL);
    for (size_t i = 0; i < variable_count; i++) {
        json_t *v = json_object();
        json_object_set_new(v, "name", json_stringn(variables[i].name.p, variables[i].name.n));
        json_object_set_new(v, "value", json_stringn(variables[i].value.p, variables[i].value.n));
        json_array_append_new(vars, v);
    }
    json_object_set_new(body, "files", files_json(&r->files));
    json_object_set_new(body, "variables", vars);
    if (r->in.input_count > 0) {
        json_object_set_new(body, "inputs", pairs_json(r->in.inputs, r->in.input_count));
    }
    if (r->compared != NULL) {
        json_object_set_new(body, "compared", compared_json(r->compared));
    }
    json_object_set_new(body, "paths", names(repo->files, repo->file_count));
    if (r->in.changes_known) {
        json_object_set_new(body, "changes", names(r->in.changes, r->in.change_count));
    }
    if (f->sha != NULL) {
        json_t *commit = json_object();
        json_object_set_new(body, "sha", json_string(f->sha));
        json_object_set_new(body, "before_sha", text_or_null(f->before_sha));
        json_object_set_new(commit, "message", text_or_null(f->commit_message));
        json_object_set_new(commit, "author", text_or_null(f->commit_author));
        json_object_set_new(commit, "timestamp", text_or_null(f->commit_timestamp));
        json_object_set_new(body, "commit", commit);
    }
    return body;
}

void request_options_release(struct request_options *o)
{
    free(o->variables.items);
    free(o->inputs.items);
    free(o->projects.items);
    free(o->jobs.items);
    free(o->changes.items);
}

int request_build(struct cli *c, struct repo *repo, const struct request_options *o,
                  struct request *ret)
{
    struct var *variables = NULL;
    size_t count = 0;
    *ret = (struct request){0};
    arena_init(&ret->arena, 0);
    diags_init(&ret->diags);
    ret->repo = repo;
    struct pipeline_facts facts = {
        .project = o->project != NULL ? o->project : repo->project,
        .ref = repo->ref,
        .tag = repo->tag,
        .sha = repo->sha,
        .before_sha = repo->before_sha,
        .origin = o->origin != NULL ? o->origin : "push",
        .default_branch = repo->default_branch,
        .commit_message = repo->message,
        .commit_author = repo->author,
        .commit_timestamp = repo->timestamp,
        .config_path = o->file != NULL ? o->file : ".gitlab-ci.yml",
    };
    if (o->file != NULL && strcmp(o->file, "-") == 0) {
        facts.config_path = REQUEST_STDIN;
    }
    if (o->ref != NULL) {
        facts.ref = repo_ref_name(o->ref, &facts.tag);
    }
    int r = open_fetcher(c, repo, o, ret);
    r = r < 0 ? r : parse_variables(c, ret, &o->variables, &variables, &count);
    r = r < 0 ? r : parse_inputs(c, ret, &o->inputs);
    if (r == 0) {
        r = compile(repo, &facts, variables, count, o, ret);
        if (r == -E_NOT_FOUND) {
            cli_fail(c, r, "there is no %s in %s", facts.config_path, repo->root);
        } else if (r < 0 && r != -E_PIPELINE) {
            cli_fail(c, r, "%s: %s", facts.config_path, err_text(r));
        }
    }
    if (r < 0 && r != -E_PIPELINE) {
        request_release(ret);
        return r;
    }
    ret->body = build_body(repo, &facts, variables, count, ret);
    if (o->jobs.count > 0) {
        json_object_set_new(ret->body, "only", names(list_names(ret, &o->jobs), o->jobs.count));
    }
    return r;
}

void request_release(struct request *r)
{
    json_decref(r->body);
    fetch_free(r->fetcher);
    diags_release(&r->diags);
    arena_release(&r->arena);
    *r = (struct request){0};
}

static struct str text_of(void *ctx, const char *file)
{
    const struct request *r = ctx;
    const struct file *f = files_find(&r->files, file);
    return f != NULL ? f->text : STR_NULL;
}

void request_print_diags(const struct cli *c, const struct request *r, FILE *out)
{
    struct buf text = BUF_INIT;
    for (size_t i = 0; i < r->diags.count; i++) {
        diag_render(&r->diags.items[i], text_of, (void *)(uintptr_t)r, c->color, &text);
    }
    if (r->diags.errors + r->diags.warnings > r->diags.count) {
        buf_addf(&text, "... and %zu more\n", r->diags.errors + r->diags.warnings - r->diags.count);
    }
    fputs(buf_cstr(&text), out);
    buf_release(&text);
}

static json_t *diag_json(const struct diag *d)
{
    json_t *notes = json_array();
    for (size_t i = 0; i < d->note_count; i++) {
        const struct diag_note *n = &d->notes[i];
        json_array_append_new(notes,
                              json_pack("{s:s, s:s, s:i, s:i}", "message", n->message, "file",
                                        n->file, "line", (int)n->line, "column", (int)n->column));
    }
    return json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:i, s:s, s:s?, s:o}", "level",
                     d->level == DIAG_ERROR ? "error" : "warning", "code", d->code, "file", d->file,
                     "line", (int)d->line, "column", (int)d->column, "length", (int)d->length,
                     "end_line", (int)d->end_line, "end_column",
                     d->end_column == UINT32_MAX ? 0 : (int)d->end_column, "message", d->message,
                     "hint", d->hint, "notes", notes);
}

json_t *request_diags_json(const struct request *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->diags.count; i++) {
        json_array_append_new(list, diag_json(&r->diags.items[i]));
    }
    return list;
}

bool request_is_empty(const struct request *r)
{
    for (size_t i = 0; i < r->diags.count; i++) {
        const struct diag *d = &r->diags.items[i];
        if (d->level == DIAG_ERROR && strcmp(d->code, "no-jobs") != 0 &&
            strcmp(d->code, "workflow-false") != 0) {
            return false;
        }
    }
    return r->diags.errors <= r->diags.count;
}
