/* davit lint: check pipeline files without a broker. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/request.h"
#include "cli/sarif.h"

#define FILES_MAX 1000u

enum format { FORMAT_TEXT, FORMAT_JSON, FORMAT_SARIF };

struct lint {
    struct cli *c;
    struct request_options request;
    const char *dir;
    const char *format_name;
    enum format format;
    bool strict;   /* warnings are errors */
    json_t *files; /* FORMAT_JSON: what was found, by file */
    json_t *sarif; /* FORMAT_SARIF */
};

static bool has_text(const json_t *list, const char *text)
{
    size_t i;
    const json_t *item;
    json_array_foreach(list, i, item)
    {
        if (strcmp(json_string_value(item), text) == 0) {
            return true;
        }
    }
    return false;
}

static void add_once(json_t *list, const char *keyword)
{
    if (!has_text(list, keyword)) {
        json_array_append_new(list, json_string(keyword));
    }
}

/* The keywords of all jobs that are checked, but that nothing acts on. */
static json_t *not_acted_on(const struct request *r)
{
    json_t *list = json_array();
    for (size_t i = 0; r->plan != NULL && i < r->plan->n_jobs; i++) {
        const Pb__PlanJob *job = r->plan->jobs[i];
        for (size_t k = 0; k < job->n_unsupported; k++) {
            add_once(list, job->unsupported[k]);
        }
    }
    return list;
}

static json_t *file_json(const char *file, const struct request *r, bool valid)
{
    json_t *jobs = json_array();
    for (size_t i = 0; r->plan != NULL && i < r->plan->n_jobs; i++) {
        const Pb__PlanJob *j = r->plan->jobs[i];
        json_array_append_new(
            jobs, json_pack("{s:s, s:s}", "name", j->name, "stage", r->plan->stages[j->stage]));
    }
    return json_pack("{s:s, s:b, s:I, s:I, s:o, s:o, s:o}", "file", file, "valid", (int)valid,
                     "errors", (json_int_t)r->diags.errors, "warnings",
                     (json_int_t)r->diags.warnings, "not_acted_on", not_acted_on(r), "diagnostics",
                     request_diags_json(r), "jobs", jobs);
}

static void print_count(size_t n, const char *what)
{
    printf("%zu %s%s", n, what, n == 1 ? "" : "s");
}

static void print_text(const struct lint *l, const char *file, const struct request *r, bool valid)
{
    json_t *keywords = not_acted_on(r);
    size_t i;
    const json_t *keyword;
    request_print_diags(l->c, r, stdout);
    printf("%s: ", file);
    if (r->plan != NULL) {
        printf("%s: ", valid ? "valid" : "not valid with --strict");
        print_count(r->plan->n_jobs, "job");
        fputs(" in ", stdout);
        print_count(r->plan->n_stages, "stage");
    } else if (r->diags.errors == 0) {
        fputs("nothing wrong in what can be read offline", stdout);
    } else {
        print_count(r->diags.errors, "error");
    }
    if (r->diags.warnings > 0) {
        fputs(", ", stdout);
        print_count(r->diags.warnings, "warning");
    }
    json_array_foreach(keywords, i, keyword)
    {
        printf("%s%s", i == 0 ? "; jobs will fail, since nothing acts yet on: " : ", ",
               json_string_value(keyword));
    }
    putchar('\n');
    json_decref(keywords);
}

/* Who says --offline knows that files are missing: that is no mistake of this one. 0 when nothing
 * else is wrong, though no plan can be made. */
static int excuse_offline(struct diags *d)
{
    for (size_t i = 0; i < d->count; i++) {
        if (d->items[i].level == DIAG_ERROR && strcmp(d->items[i].code, "include-offline") == 0) {
            d->items[i].level = DIAG_WARNING;
            d->errors--;
            d->warnings++;
        }
    }
    return d->errors > 0 ? -E_PIPELINE : 0;
}

static int lint_file(struct lint *l, struct repo *repo, const char *file)
{
    struct request r;
    l->request.file = file;
    int res = request_build(l->c, repo, &l->request, &r);
    if (res < 0 && res != -E_PIPELINE) {
        return res;
    }
    if (res == -E_PIPELINE && l->request.offline) {
        res = excuse_offline(&r.diags);
    }
    const char *shown = r.in.file;
    bool valid = res == 0 && !(l->strict && r.diags.warnings > 0);
    if (l->format == FORMAT_SARIF) {
        sarif_add(l->sarif, &r.diags);
    } else if (l->format == FORMAT_JSON) {
        json_array_append_new(l->files, file_json(shown, &r, valid));
    } else {
        print_text(l, shown, &r, valid);
    }
    request_release(&r);
    return valid ? 0 : -E_PIPELINE;
}

/* One file is its object; several are a list of them. */
static void print_json(const struct lint *l, bool valid)
{
    if (l->format == FORMAT_SARIF) {
        cli_print_json(json_incref(l->sarif));
    } else if (json_array_size(l->files) == 1) {
        cli_print_json(json_incref(json_array_get(l->files, 0)));
    } else {
        cli_print_json(json_pack("{s:b, s:O}", "valid", (int)valid, "files", l->files));
    }
}

static int lint_files(struct lint *l, struct repo *repo, const char **files, size_t count)
{
    int res = 0;
    l->files = json_array();
    l->sarif = l->format == FORMAT_SARIF ? sarif_new() : NULL;
    for (size_t i = 0; i < MAX(count, (size_t)1); i++) {
        int r = lint_file(l, repo, count > 0 ? files[i] : l->request.file);
        res = res == 0 || (res == -E_PIPELINE && r < 0) ? r : res;
    }
    if (l->format == FORMAT_SARIF || json_array_size(l->files) > 0) {
        print_json(l, res == 0);
    }
    json_decref(l->files);
    json_decref(l->sarif);
    return res;
}

static int read_format(struct lint *l)
{
    static const char *const names[] = {"text", "json", "sarif"};
    l->format = l->c->json ? FORMAT_JSON : FORMAT_TEXT;
    if (l->format_name == NULL) {
        return 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(l->format_name, names[i]) == 0) {
            l->format = (enum format)i;
            return 0;
        }
    }
    return cli_fail(l->c, -E_USAGE, "--format wants text, json or sarif, not `%s`", l->format_name);
}

int cmd_lint(struct cli *c, int argc, char **argv)
{
    struct lint l = {.c = c, .dir = "."};
    const char **args;
    size_t count;
    const struct opt opts[] = {
        REQUEST_OPTIONS(&l.request),
        {"strict", 0, OPT_FLAG, &l.strict, NULL, "warnings are errors"},
        {"format", 0, OPT_TEXT, &l.format_name, "FORMAT", "text, json or sarif (SARIF 2.1.0)"},
        {"chdir", 'C', OPT_TEXT, &l.dir, "DIR", "the working tree (.)"},
        {NULL, 0, OPT_FLAG, NULL, NULL, NULL},
    };
    struct repo repo;
    int r = cli_options(c, opts, argc, argv, 0, FILES_MAX, &args, &count);
    if (r < 0) {
        return r;
    }
    r = read_format(&l);
    if (r == 0) {
        r = repo_open(c, l.dir, &repo);
        r = r < 0 ? r : lint_files(&l, &repo, args, count);
        repo_release(&repo);
    }
    request_options_release(&l.request);
    free(args);
    return r;
}
