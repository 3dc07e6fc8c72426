/* Compiles every DIR/NAME.yml and compares plan or errors with DIR/NAME.expected. What compiles
 * must do so once everything in it is merged, too. golden_pipeline [--bless] [--explain] DIR
 * --bless writes the expected files anew; --explain compares what is said of the rules, and the
 * graph golden_pipeline --show FILE       prints what one file gives */
#include "common/base.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/os.h"
#include "pipeline/code.h"
#include "pipeline/explain.h"
#include "tests/golden/case_input.h"
#include "tests/golden/merged.h"
#include "tests/golden/plan_text.h"

static void add_explanation(const struct case_input *c, const struct explain *explain,
                            const Pb__Plan *plan, struct buf *out)
{
    const struct explain_view view = {.in = &c->in, .explain = explain, .plan = plan};
    explain_text(&view, out);
    if (plan) {
        buf_addz(out, "\n");
        explain_graph_text(plan, out);
        buf_addz(out, "\n");
        explain_graph_dot(plan, out);
    }
}

static void compile_text(const char *file, struct str text, bool explained, struct buf *out)
{
    struct explain explain = {0};
    struct case_input *c = xmalloc(sizeof(*c));
    struct diags diags;
    Pb__Plan *plan = NULL;
    case_input_init(c, file, text);
    diags_init(&diags);
    c->in.explain = explained ? &explain : NULL;
    int r = pipeline_compile(&c->arena, &c->in, &diags, &plan);
    for (size_t i = 0; i < diags.count; i++) {
        check(code_find(diags.items[i].code));
        check(code_find(diags.items[i].code)->level == diags.items[i].level);
        diag_render(&diags.items[i], case_text_of, c, false, out);
    }
    if (explained) {
        add_explanation(c, &explain, plan, out);
    } else if (r == 0) {
        plan_text(plan, out);
    } else {
        buf_addf(out, "errors: %zu\n", diags.errors);
    }
    diags_release(&diags);
    case_input_release(c);
    free(c);
}

static void show_difference(struct str want, struct str got)
{
    struct str a = STR_NULL;
    struct str b = STR_NULL;
    bool more_a;
    bool more_b;
    for (int line = 1;; line++) {
        more_a = str_split(&want, '\n', &a);
        more_b = str_split(&got, '\n', &b);
        if (!more_a && !more_b) {
            return;
        }
        if (more_a != more_b || !str_eq(a, b)) {
            printf("  line %d\n  - " STR_FMT "\n  + " STR_FMT "\n", line, STR_ARG(a), STR_ARG(b));
            return;
        }
    }
}

static bool check_merged(const char *name, struct str text)
{
    struct case_input *c = xmalloc(sizeof(*c));
    struct buf merged = BUF_INIT;
    case_input_init(c, ".gitlab-ci.yml", text);
    bool ok = merged_compiles_alike(&c->in, &merged);
    if (!ok) {
        printf("FAIL %s, merged:\n%s", name, buf_cstr(&merged));
    }
    buf_release(&merged);
    case_input_release(c);
    free(c);
    return ok;
}

static bool run_case(const char *dir, const char *name, bool bless, bool explained)
{
    struct buf text = BUF_INIT;
    struct buf got = BUF_INIT;
    struct buf want = BUF_INIT;
    char path[1024];
    char expected[1024];
    snprintf(path, sizeof(path), "%s/%s.yml", dir, name);
    snprintf(expected, sizeof(expected), "%s/%s.expected", dir, name);
    check(os_read_file(path, LIMIT_YAML_BYTES, &text) == 0);
    compile_text(".gitlab-ci.yml", buf_str(&text), explained, &got);
    bool ok = check_merged(name, buf_str(&text));
    if (bless) {
        check(os_write_file(expected, got.p, got.n, 0644) == 0);
    } else {
        ok &= os_read_file(expected, MIB, &want) == 0 && str_eq(buf_str(&want), buf_str(&got));
        printf("%s %s\n", ok ? "ok  " : "FAIL", name);
        if (!ok) {
            show_difference(buf_str(&want), buf_str(&got));
        }
    }
    buf_release(&text);
    buf_release(&got);
    buf_release(&want);
    return ok;
}

static int only_yml(const struct dirent *e)
{
    return str_ends(str_from(e->d_name), STR(".yml"));
}

int main(int argc, char **argv)
{
    bool bless = argc > 2 && strcmp(argv[1], "--bless") == 0;
    bool explained = argc > 2 && strcmp(argv[argc - 2], "--explain") == 0;
    bool show = argc == 3 && strcmp(argv[1], "--show") == 0;
    if (argc != 2 + bless + explained + show) {
        fprintf(stderr, "usage: golden_pipeline [--bless] [--explain] DIR | --show FILE\n");
        return 64;
    }
    if (show) {
        struct buf text = BUF_INIT;
        struct buf out = BUF_INIT;
        if (os_read_file(argv[2], 4 * LIMIT_YAML_BYTES, &text) < 0) {
            return 66;
        }
        compile_text(argv[2], buf_str(&text), false, &out);
        fputs(buf_cstr(&out), stdout);
        buf_release(&text);
        buf_release(&out);
        return 0;
    }
    struct dirent **entries = NULL;
    int count = scandir(argv[argc - 1], &entries, only_yml, alphasort);
    int failed = count <= 0;
    for (int i = 0; i < count; i++) {
        entries[i]->d_name[strlen(entries[i]->d_name) - 4] = '\0';
        failed += !run_case(argv[argc - 1], entries[i]->d_name, bless, explained);
        free(entries[i]);
    }
    free(entries);
    printf("%d cases, %d failed\n", count, failed);
    return failed ? 1 : 0;
}
