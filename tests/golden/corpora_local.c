/* The cases of gitlab-ci-local: CASE/input is a repository; CASE/golden/FILE holds what that
 * program says to the root file FILE: list.rc its exit code, list.json the jobs, where it is 0. The
 * same must be accepted and refused, and the jobs must be the same by name, stage, when,
 * allow_failure and needs. Where GitLab's rules say otherwise, the case is a known difference. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/os.h"
#include "tests/golden/corpus.h"
#include "tests/golden/tree_input.h"

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static bool same_need(const Pb__Plan *plan, const Pb__Need *need, const json_t *want)
{
    const Pb__PlanJob *job = plan->jobs[need->job];
    bool same_name = strcmp(job->name, text_of(want, "job")) == 0 ||
                     strcmp(job->base_name, text_of(want, "job")) == 0;
    return same_name && need->artifacts == !json_is_false(json_object_get(want, "artifacts"));
}

/* Each of the plan's needs is wanted, and each wanted one is there unless it is optional. */
static bool same_needs(const Pb__Plan *plan, const Pb__PlanJob *job, const json_t *wanted)
{
    size_t i;
    const json_t *want;
    if (job->dag != (wanted != NULL)) {
        return false;
    }
    for (size_t n = 0; n < job->n_needs; n++) {
        bool found = false;
        json_array_foreach(wanted, i, want)
        {
            found |= same_need(plan, job->needs[n], want);
        }
        if (!found) {
            return false;
        }
    }
    json_array_foreach(wanted, i, want)
    {
        bool found = json_is_true(json_object_get(want, "optional"));
        for (size_t n = 0; n < job->n_needs; n++) {
            found |= same_need(plan, job->needs[n], want);
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

static bool same_failure(const Pb__PlanJob *job, const json_t *want)
{
    return json_is_object(want) ? job->n_allow_failure_exit_codes > 0
                                : job->allow_failure == json_is_true(want);
}

/* What differs between the job and what is wanted; NULL: nothing. */
static const char *difference(const Pb__Plan *plan, const Pb__PlanJob *job, const json_t *want)
{
    static const char *const whens[] = {"on_success", "on_failure", "always", "manual", "delayed"};
    return strcmp(plan->stages[job->stage], text_of(want, "stage")) != 0 ? "stage"
           : strcmp(whens[job->when], text_of(want, "when")) != 0        ? "when"
           : !same_failure(job, json_object_get(want, "allow_failure"))  ? "allow_failure"
           : !same_needs(plan, job, json_object_get(want, "needs"))      ? "needs"
                                                                         : NULL;
}

static const Pb__PlanJob *find_job(const Pb__Plan *plan, const char *name)
{
    for (size_t i = 0; i < plan->n_jobs; i++) {
        if (strcmp(plan->jobs[i]->name, name) == 0) {
            return plan->jobs[i];
        }
    }
    return NULL;
}

/* That program lists jobs that rules leave out as well, as `when: never`. */
static bool is_left_out(const json_t *want)
{
    return strcmp(text_of(want, "when"), "never") == 0;
}

static bool same_list(const char *name, const Pb__Plan *plan, const json_t *list)
{
    size_t i;
    size_t count = 0;
    const json_t *want;
    bool same = true;
    json_array_foreach(list, i, want)
    {
        if (is_left_out(want)) {
            continue;
        }
        const Pb__PlanJob *job = find_job(plan, text_of(want, "name"));
        const char *what = job ? difference(plan, job, want) : "it is absent";
        count++;
        if (what) {
            fprintf(stderr, "%s: job %s: %s\n", name, text_of(want, "name"), what);
            same = false;
        }
    }
    if (count != plan->n_jobs) {
        fprintf(stderr, "%s: %zu jobs, %zu wanted\n", name, plan->n_jobs, count);
        same = false;
    }
    return same;
}

static bool no_pipeline(const struct diags *d)
{
    for (size_t i = 0; i < d->count; i++) {
        if (d->items[i].level == DIAG_ERROR && strcmp(d->items[i].code, "no-jobs") != 0 &&
            strcmp(d->items[i].code, "workflow-false") != 0) {
            return false;
        }
    }
    return d->errors > 0;
}

static enum outcome judge(const char *name, const Pb__Plan *plan, const struct diags *diags,
                          bool refused, const json_t *list)
{
    if (refused) {
        return plan || no_pipeline(diags) ? CASE_DIFFERS : CASE_PASSED;
    }
    if (plan) {
        return same_list(name, plan, list) ? CASE_PASSED : CASE_DIFFERS;
    }
    bool none = true;
    for (size_t i = 0; i < json_array_size(list); i++) {
        none &= is_left_out(json_array_get(list, i));
    }
    if (none && no_pipeline(diags)) {
        return CASE_PASSED;
    }
    fprintf(stderr, "%s:\n", name);
    corpus_print_errors(diags);
    return corpus_only_not_yet(diags) ? CASE_NOT_YET : CASE_DIFFERS;
}

/* Warnings may stand before the list. */
static json_t *read_list(const char *path)
{
    struct buf text = BUF_INIT;
    check(os_read_file(path, MIB, &text) == 0);
    struct str rest = buf_str(&text);
    struct str line;
    struct str list = rest;
    while (!str_starts(list, STR("[\n")) && str_split(&rest, '\n', &line)) {
        list = rest;
    }
    json_t *json = json_loadb(list.p ? list.p : "", list.n, 0, NULL);
    buf_release(&text);
    return json;
}

static void run_file(struct corpus *k, struct tree *tree, const char *name, const char *file,
                     const char *golden)
{
    struct case_input *c = xmalloc(sizeof(*c));
    struct diags diags;
    struct buf code = BUF_INIT;
    Pb__Plan *plan = NULL;
    char *code_path = os_path_join(golden, "list.rc");
    char *list_path = os_path_join(golden, "list.json");
    check(os_read_file(code_path, 1024, &code) == 0);
    bool refused = !str_eqz(str_trim(buf_str(&code)), "0");
    json_t *list = refused ? NULL : read_list(list_path);
    diags_init(&diags);
    tree_prepare(tree, file, "master", c); /* as it was when that program listed them */
    pipeline_compile(&c->arena, &c->in, &diags, &plan);
    corpus_case(k, name, judge(name, plan, &diags, refused, list));
    json_decref(list);
    diags_release(&diags);
    case_input_release(c);
    buf_release(&code);
    free(code_path);
    free(list_path);
    free(c);
}

/* "CASE/golden/FILE/list.rc" gives CASE and FILE. */
static bool split_path(struct str path, struct str *ret_case, struct str *ret_file)
{
    struct str part;
    struct str rest = path;
    if (!str_split(&rest, '/', ret_case) || !str_split(&rest, '/', &part) ||
        !str_eqz(part, "golden") || !str_ends(rest, STR("/list.rc"))) {
        return false;
    }
    *ret_file = str_sub(rest, 0, rest.n - strlen("/list.rc"));
    return true;
}

bool local_run(struct corpus *k)
{
    char *folder = corpora_path(k->root, "gitlab-ci-local");
    struct file_list all;
    if (!folder) {
        return false;
    }
    corpus_begin(k, "gitlab-ci-local");
    file_list_read(&all, folder);
    for (size_t i = 0; i < all.count; i++) {
        struct str name;
        struct str file;
        if (!split_path(str_from(all.items[i]), &name, &file)) {
            continue;
        }
        struct tree tree;
        char *input = os_path_join(folder,
                                   arena_printf(&k->arena, STR_FMT "/input", STR_ARG(name)));
        char *golden = os_path_join(folder, arena_printf(&k->arena, STR_FMT "/golden/" STR_FMT,
                                                         STR_ARG(name), STR_ARG(file)));
        tree_open(&tree, input);
        run_file(k, &tree,
                 arena_printf(&k->arena, STR_FMT "/" STR_FMT, STR_ARG(name), STR_ARG(file)),
                 arena_strdup(&k->arena, file), golden);
        tree_release(&tree);
        free(input);
        free(golden);
    }
    file_list_release(&all);
    free(folder);
    return true;
}
