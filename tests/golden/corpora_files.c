/* Compiles pipeline files of real projects and GitLab's templates: each must give a plan, or
 * rightly none for this ref, and the same once it is merged to one file. What needs files of the
 * network is said to be so, and is no miss. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/os.h"
#include "tests/golden/corpus.h"
#include "tests/golden/merged.h"
#include "tests/golden/tree_input.h"

static bool is_no_pipeline(const char *code)
{
    return strcmp(code, "no-jobs") == 0 || strcmp(code, "workflow-false") == 0;
}

static enum outcome judge(const struct diags *diags)
{
    bool not_yet = false;
    bool wrong = false;
    for (size_t i = 0; i < diags->count; i++) {
        const struct diag *d = &diags->items[i];
        if (d->level != DIAG_ERROR || is_no_pipeline(d->code) ||
            strcmp(d->code, "include-offline") == 0) {
            continue;
        }
        bool later = strcmp(d->code, "not-supported") == 0;
        not_yet |= later;
        wrong |= !later;
    }
    return wrong ? CASE_DIFFERS : not_yet ? CASE_NOT_YET : CASE_PASSED;
}

static bool merged_alike(const char *name, const struct pipeline_input *in)
{
    struct buf merged = BUF_INIT;
    bool alike = merged_compiles_alike(in, &merged);
    if (!alike) {
        fprintf(stderr, "%s: merged:\n%s", name, buf_cstr(&merged));
    }
    buf_release(&merged);
    return alike;
}

static void run_file(struct corpus *k, struct tree *tree, const char *name, const char *path)
{
    struct diags diags;
    Pb__Plan *plan = NULL;
    struct case_input *c = xmalloc(sizeof(*c));
    diags_init(&diags);
    tree_prepare(tree, path, NULL, c);
    int r = pipeline_compile(&c->arena, &c->in, &diags, &plan);
    check(r == 0 || diags.errors > 0);
    check(r < 0 || plan->n_jobs > 0);
    enum outcome outcome = judge(&diags);
    if (outcome != CASE_PASSED) {
        fprintf(stderr, "%s:\n", name);
        corpus_print_errors(&diags);
    }
    outcome = merged_alike(name, &c->in) ? outcome : CASE_DIFFERS;
    corpus_case(k, name, outcome);
    diags_release(&diags);
    case_input_release(c);
    free(c);
}

/* The files from which a pipeline starts, not those that others include. */
static bool is_root(const char *path)
{
    struct str s = str_from(path);
    return strcmp(path, "debian/salsa-ci.yml") == 0 || strcmp(path, "salsa-ci.yml") == 0 ||
           (str_chr(s, '/') < 0 &&
            (str_starts(s, STR(".gitlab-ci")) || str_eqz(s, "gitlab-ci.yml")));
}

static void run_project(struct corpus *k, const char *root, const char *project)
{
    struct tree tree;
    char *folder = os_path_join(root, project);
    tree_open(&tree, folder);
    for (size_t i = 0; i < tree.files.count; i++) {
        if (is_root(tree.files.items[i])) {
            run_file(k, &tree, arena_printf(&k->arena, "%s/%s", project, tree.files.items[i]),
                     tree.files.items[i]);
        }
    }
    tree_release(&tree);
    free(folder);
}

bool projects_run(struct corpus *k)
{
    struct file_list all;
    struct str project = STR_NULL;
    char *root = corpora_path(k->root, "real-world");
    if (!root) {
        return false;
    }
    corpus_begin(k, "real-world");
    file_list_read(&all, root);
    for (size_t i = 0; i < all.count; i++) {
        struct str rest = str_from(all.items[i]);
        struct str first;
        check(str_split(&rest, '/', &first));
        if (!str_eq(first, project)) {
            project = first;
            run_project(k, root, arena_strdup(&k->arena, first));
        }
    }
    file_list_release(&all);
    free(root);
    return true;
}

bool templates_run(struct corpus *k)
{
    struct tree tree;
    char *folder = corpora_path(k->root, "templates");
    if (!folder) {
        return false;
    }
    corpus_begin(k, "templates");
    tree_open(&tree, folder);
    for (size_t i = 0; i < tree.files.count; i++) {
        run_file(k, &tree, tree.files.items[i], tree.files.items[i]);
    }
    tree_release(&tree);
    free(folder);
    return true;
}
