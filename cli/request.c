#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/request.h"
#include "common/limits.h"
#include "common/os.h"

#define REQUEST_STDIN "<stdin>"

struct request_file {
    const char *path;
    struct str text;
};

/* What include_file needs while the compiler runs. */
struct reader {
    struct repo *repo;
    struct request *request;
};

static const struct request_file *find_file(const struct request *r, const char *path)
{
    for (size_t i = 0; i < r->file_count; i++) {
        if (strcmp(r->files[i].path, path) == 0) {
            return &r->files[i];
        }
    }
    return NULL;
}

static bool leaves_tree(const char *path)
{
    struct str rest = str_from(path);
    struct str part;
    while (str_split(&rest, '/', &part)) {
        if (str_eqz(part, "..")) {
            return true;
        }
    }
    return false;
}

/* Reads a file of the tree once; it stays in the request's arena. */
static bool read_file(struct reader *reader, const char *path, struct str *ret_text)
{
    struct request *r = reader->request;
    const struct request_file *known = find_file(r, path);
    if (known != NULL) {
        *ret_text = known->text;
        return true;
    }
    struct buf text = BUF_INIT;
    char *full = path[0] == '/' ? xstrdup(path) : os_path_join(reader->repo->root, path);
    bool inside = !leaves_tree(path);
    bool ok = inside && r->file_count < LIMIT_INCLUDES + 1 &&
              os_read_file(full, LIMIT_YAML_BYTES + 1, &text) == 0;
    if (ok) {
        struct request_file *f = &r->files[r->file_count++];
        f->path = arena_strdup(&r->arena, str_from(path));
        f->text = arena_str(&r->arena, buf_str(&text));
        *ret_text = f->text;
    }
    free(full);
    buf_release(&text);
    return ok;
}

/* What stands on standard input is a file that was read already. */
static int read_stdin(struct request *r, struct str *ret_text)
{
    struct buf text = BUF_INIT;
    int res = os_read_file("/dev/stdin", LIMIT_YAML_BYTES + 1, &text);
    if (res == 0) {
        struct request_file *f = &r->files[r->file_count++];
        f->path = REQUEST_STDIN;
        f->text = arena_str(&r->arena, buf_str(&text));
        *ret_text = f->text;
    }
    buf_release(&text);
    return res;
}

static int include_file(void *ctx, const struct include_ref *ref, struct included *ret,
                        const char **ret_why)
{
    struct reader *reader = ctx;
    (void)ret_why;
    if (ref->kind != INCLUDE_LOCAL) {
        return -E_UNSUPPORTED;
    }
    const char *path = pipeline_include_name(&reader->request->arena, ref);
    return read_file(reader, path, &ret->text) ? 0 : -E_NOT_FOUND;
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

static const struct str *list_names(struct request *r, const struct opt_list *l)
{
    struct str *items = arena_array(&r->arena, l->count + 1, sizeof(*items));
    for (size_t i = 0; i < l->count; i++) {
        items[i] = str_from(l->items[i]);
    }
    return items;
}

static int compile(struct repo *repo, const struct pipeline_facts *facts,
                   const struct var *variables, size_t variable_count,
                   const struct request_options *o, struct request *r)
{
    struct reader reader = {.repo = repo, .request = r};
    struct vars predefined;
    struct pipeline_input in = {
        .file = facts->config_path,
        .include = include_file,
        .include_ctx = &reader,
        .paths = repo->files,
        .path_count = repo->file_count,
        .changes_known = repo->changes_known,
        .changes = repo->changes,
        .change_count = repo->change_count,
        .submitted = variables,
        .submitted_count = variable_count,
        .ref = facts->ref,
        .tag = facts->tag,
        .origin = facts->origin,
    };
    int res = 0;
    if (strcmp(in.file, REQUEST_STDIN) == 0) {
        res = read_stdin(r, &in.text);
    } else if (!read_file(&reader, in.file, &in.text)) {
        res = -E_NOT_FOUND;
    }
    if (res < 0) {
        return res;
    }
    in.only = list_names(r, &o->jobs);
    in.only_count = o->jobs.count;
    if (o->changes.count > 0) {
        in.changes_known = true;
        in.changes = list_names(r, &o->changes);
        in.change_count = o->changes.count;
    }
    in.explain = o->explain ? &r->explain : NULL;
    vars_init(&predefined, &r->arena);
    pipeline_predefined(&predefined, facts);
    in.predefined = predefined.items;
    in.predefined_count = predefined.count;
    r->in = in;
    return pipeline_compile(&r->arena, &in, &r->diags, &r->plan);
}

static json_t *build_body(const struct repo *repo, const struct pipeline_facts *f,
                          const struct var *variables, size_t variable_count,
                          const struct request *r)
{
    json_t *body = json_pack("{s:s, s:s, s:b, s:s, s:s, s:s}", "project", f->project, "ref", f->ref,
                             "tag", f->tag, "origin", f->origin, "default_branch",
                             f->default_branch, "file", f->config_path);
    json_t *files = json_object();
    json_t *vars = json_array();
    check(body != NULL);
    for (size_t i = 0; i < r->file_count; i++) {
        json_object_set_new(files, r->files[i].path,
                            json_stringn(r->files[i].text.p, r->files[i].text.n));
    }
    for (size_t i = 0; i < variable_count; i++) {
        json_t *v = json_object();
        json_object_set_new(v, "name", json_stringn(variables[i].name.p, variables[i].name.n));
        json_object_set_new(v, "value", json_stringn(variables[i].value.p, variables[i].value.n));
        json_array_append_new(vars, v);
    }
    json_object_set_new(body, "files", files);
    json_object_set_new(body, "variables", vars);
    json_object_set_new(body, "paths", names(repo->files, repo->file_count));
    if (repo->changes_known) {
        json_object_set_new(body, "changes", names(repo->changes, repo->change_count));
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
    ret->files = arena_array(&ret->arena, LIMIT_INCLUDES + 1, sizeof(*ret->files));
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
    int r = parse_variables(c, ret, &o->variables, &variables, &count);
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
    diags_release(&r->diags);
    arena_release(&r->arena);
    *r = (struct request){0};
}

static struct str text_of(void *ctx, const char *file)
{
    const struct request_file *f = find_file(ctx, file);
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
    return json_pack("{s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:I, s:s, s:s?, s:o}", "level",
                     d->level == DIAG_ERROR ? "error" : "warning", "code", d->code, "file", d->file,
                     "line", (int)d->line, "column", (int)d->column, "length", (int)d->length,
                     "end_line", (int)d->end_line, "end_column", (json_int_t)d->end_column,
                     "message", d->message, "hint", d->hint, "notes", notes);
}

json_t *request_diags_json(const struct request *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->diags.count; i++) {
        json_array_append_new(list, diag_json(&r->diags.items[i]));
    }
    return list;
}
