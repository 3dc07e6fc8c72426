#include "common/base.h"

#include <stdlib.h>

#include "pipeline/compile.h"

/* By file, line and column: people mend from top to bottom. */
static int compare_diags(const void *a, const void *b)
{
    const struct diag *x = a;
    const struct diag *y = b;
    int files = strcmp(x->file, y->file);
    if (files != 0) {
        return files;
    }
    if (x->line != y->line) {
        return x->line < y->line ? -1 : 1;
    }
    return x->column < y->column ? -1 : x->column > y->column;
}

static int compile(struct compile *c, Pb__Plan **ret_plan)
{
    vars_init(&c->outer, c->arena);
    set_all(&c->outer, c->in->predefined, c->in->predefined_count);
    set_all(&c->outer, c->in->stored, c->in->stored_count);
    set_all(&c->outer, c->in->submitted, c->in->submitted_count);
    expand_all(c, &c->outer, NULL);
    c->root = include_all(c);
    if (!c->root) {
        if (!compile_failed(c)) {
            report(c, NULL, "no-jobs", NULL, "the file is empty");
        }
        return -E_PIPELINE;
    }
    c->written = c->root;
    c->root = reference_resolve(c, c->root);
    c->root = extends_resolve(c, c->root);
    c->root = overlay_apply(c);
    config_read(c);
    jobs_read(c);
    explain_merged(c);
    Pb__Plan *plan = plan_build(c);
    if (!plan) {
        check(compile_failed(c));
        return -E_PIPELINE;
    }
    if (c->in->only_count > 0) {
        plan_only(c, plan);
    }
    if (compile_failed(c)) {
        return -E_PIPELINE;
    }
    *ret_plan = plan;
    return 0;
}

int pipeline_compile(struct arena *arena, const struct pipeline_input *in, struct diags *diags,
                     Pb__Plan **ret_plan)
{
    struct compile c = {.arena = arena, .in = in, .diags = diags, .errors_before = diags->errors};
    size_t first = diags->count;
    int r = compile(&c, ret_plan);
    if (diags->count > first) {
        qsort(diags->items + first, diags->count - first, sizeof(*diags->items), compare_diags);
    }
    return r;
}
