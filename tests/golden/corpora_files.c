/* Compiles pipeline files of real projects and GitLab's templates, and counts what becomes of them:
 *   compiled      a plan, or rightly none for this ref
 *   not yet       refused only for keywords and includes that are not supported yet
 *   WRONG         anything else: a right file that we misread
 * Fails for a WRONG file that is not in the list of known differences (FILE CODE, then the reason),
 * and for one in the list that is right by now. corpora_files KNOWN [--all] */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/os.h"
#include "tests/golden/merged.h"
#include "tests/golden/tree_input.h"

struct counts {
    unsigned compiled;
    unsigned not_yet;
    unsigned wrong;
    unsigned known;
};

struct run {
    struct buf known; /* the list of known differences */
    struct counts counts;
    bool all; /* print what is not supported, too */
    uint64_t slowest_us;
    bool failed;
};

static bool is_not_yet(const char *code)
{
    return strcmp(code, "not-supported") == 0 || strcmp(code, "include-offline") == 0;
}

static bool is_no_pipeline(const char *code)
{
    return strcmp(code, "no-jobs") == 0 || strcmp(code, "workflow-false") == 0;
}

/* Is there a line "NAME CODE ..."? */
static bool is_known(const struct run *run, const char *name, const char *code)
{
    struct str rest = buf_str(&run->known);
    struct str line;
    while (str_split(&rest, '\n', &line)) {
        struct str file;
        struct str what;
        if (str_split(&line, ' ', &file) && str_split(&line, ' ', &what) && str_eqz(file, name) &&
            str_eqz(what, code)) {
            return true;
        }
    }
    return false;
}

static void judge(struct run *run, const char *name, const struct diags *diags)
{
    bool not_yet = false;
    bool wrong = false;
    bool known = false;
    for (size_t i = 0; i < diags->count; i++) {
        const struct diag *d = &diags->items[i];
        if (d->level != DIAG_ERROR || is_no_pipeline(d->code)) {
            continue;
        }
        if (is_not_yet(d->code)) {
            not_yet = true;
            if (run->all) {
                printf("%-8s %s: %s:%u:%u: %s\n", "not yet", name, d->file, d->line, d->column,
                       d->message);
            }
        } else if (is_known(run, name, d->code)) {
            known = true;
        } else {
            wrong = true;
            printf("%-8s %s: %s:%u:%u: %s [%s]\n", "WRONG", name, d->file, d->line, d->column,
                   d->message, d->code);
        }
    }
    run->counts.wrong += wrong;
    run->counts.known += !wrong && known;
    run->counts.not_yet += !wrong && !known && not_yet;
    run->counts.compiled += !wrong && !known && !not_yet;
    run->failed |= wrong;
}

/* Merged to one file it must be the same pipeline. */
static void judge_merged(struct run *run, const char *name, const struct pipeline_input *in)
{
    struct buf merged = BUF_INIT;
    if (!merged_compiles_alike(in, &merged)) {
        run->counts.wrong++;
        run->failed = true;
        printf("%-8s %s: merged:\n%s", "WRONG", name, buf_cstr(&merged));
    }
    buf_release(&merged);
}

static void run_file(struct run *run, struct tree *tree, const char *name, const char *path)
{
    struct diags diags;
    Pb__Plan *plan = NULL;
    struct case_input *c = xmalloc(sizeof(*c));
    diags_init(&diags);
    tree_prepare(tree, path, c);
    uint64_t before_us = os_monotonic_us();
    int r = pipeline_compile(&c->arena, &c->in, &diags, &plan);
    run->slowest_us = MAX(run->slowest_us, os_monotonic_us() - before_us);
    check(r == 0 || diags.errors > 0);
    check(r < 0 || plan->n_jobs > 0);
    judge(run, name, &diags);
    judge_merged(run, name, &c->in);
    diags_release(&diags);
    case_input_release(c);
    free(c);
}

static void print_counts(struct run *run, const char *title)
{
    const struct counts *n = &run->counts;
    printf("%s: %u files: %u compiled, %u not yet, %u WRONG, %u known differences; "
           "slowest %" PRIu64 " ms\n",
           title, n->compiled + n->not_yet + n->wrong + n->known, n->compiled, n->not_yet, n->wrong,
           n->known, run->slowest_us / 1000);
    run->counts = (struct counts){0};
    run->slowest_us = 0;
}

/* The files from which a pipeline starts, not those that others include. */
static bool is_root(const char *path)
{
    struct str s = str_from(path);
    return strcmp(path, "debian/salsa-ci.yml") == 0 || strcmp(path, "salsa-ci.yml") == 0 ||
           (str_chr(s, '/') < 0 &&
            (str_starts(s, STR(".gitlab-ci")) || str_eqz(s, "gitlab-ci.yml")));
}

static void run_projects(struct run *run, const char *root)
{
    struct file_list all;
    char project[256] = "";
    file_list_read(&all, root);
    for (size_t i = 0; i < all.count; i++) {
        struct str rest = str_from(all.items[i]);
        struct str first;
        check(str_split(&rest, '/', &first));
        if (str_eqz(first, project)) {
            continue;
        }
        snprintf(project, sizeof(project), STR_FMT, STR_ARG(first));
        char *folder = os_path_join(root, project);
        struct tree tree;
        tree_open(&tree, folder);
        for (size_t k = 0; k < tree.files.count; k++) {
            if (is_root(tree.files.items[k])) {
                char name[512];
                snprintf(name, sizeof(name), "%s/%s", project, tree.files.items[k]);
                run_file(run, &tree, name, tree.files.items[k]);
            }
        }
        tree_release(&tree);
        free(folder);
    }
    file_list_release(&all);
    print_counts(run, "real-world");
}

static void run_templates(struct run *run, const char *folder)
{
    struct tree tree;
    tree_open(&tree, folder);
    for (size_t i = 0; i < tree.files.count; i++) {
        char name[512];
        snprintf(name, sizeof(name), "templates/%s", tree.files.items[i]);
        run_file(run, &tree, name, tree.files.items[i]);
    }
    tree_release(&tree);
    print_counts(run, "templates");
}

int main(int argc, char **argv)
{
    struct run run = {.all = argc == 3};
    check(argc >= 2 && os_read_file(argv[1], MIB, &run.known) == 0);
    char *projects = corpora_path("real-world");
    char *templates = corpora_path("templates");
    bool there = projects && templates;
    if (there) {
        run_projects(&run, projects);
        run_templates(&run, templates);
    }
    free(projects);
    free(templates);
    buf_release(&run.known);
    return !there ? EXIT_SKIPPED : run.failed ? 1 : 0;
}
