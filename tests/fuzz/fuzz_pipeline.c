/* A pipeline file of a stranger's repository. It may be several files: tests/golden/case_input.h.
 */
#include "common/base.h"

#include <stdlib.h>

#include "common/limits.h"
#include "pipeline/code.h"
#include "tests/fuzz/fuzz.h"
#include "tests/golden/case_input.h"

/* What the core and the workers rely on. */
static void check_job(const Pb__Plan *plan, const Pb__PlanJob *job)
{
    check(job->stage < plan->n_stages);
    check(job->n_script > 0 || job->trigger || job->n_unsupported > 0); /* trigger, run */
    check(job->retry_max <= 2);
    for (size_t i = 0; i < job->n_needs; i++) {
        check(job->needs[i]->job < plan->n_jobs);
        check(plan->jobs[job->needs[i]->job]->stage <= job->stage);
    }
    check(!job->environment || !job->environment->has_on_stop ||
          job->environment->on_stop < plan->n_jobs);
    check(job->n_outer_needs <= LIMIT_OUTER_NEEDS && job->n_caches <= LIMIT_CACHES);
    check(!job->trigger || (job->trigger->config.len > 0 && job->n_script == 0));
    for (size_t i = 0; i < job->n_dependencies; i++) {
        check(job->dependencies[i] < plan->n_jobs);
    }
}

/* The plan must survive the way through the store: packed, and unpacked behind the safe door. */
static void check_plan(const Pb__Plan *plan)
{
    struct arena arena;
    check(plan->n_jobs > 0 && plan->n_jobs <= LIMIT_PIPELINE_JOBS);
    for (size_t i = 0; i < plan->n_jobs; i++) {
        check_job(plan, plan->jobs[i]);
    }
    arena_init(&arena, 0);
    check(pb_copy(&arena, &plan->base));
    arena_release(&arena);
}

static void compile(struct case_input *c)
{
    struct diags diags;
    struct buf out = BUF_INIT;
    Pb__Plan *plan = NULL;
    diags_init(&diags);
    int r = pipeline_compile(&c->arena, &c->in, &diags, &plan);
    if (r == 0) {
        check_plan(plan);
    } else {
        check(r == -E_PIPELINE && diags.errors > 0);
    }
    for (size_t i = 0; i < diags.count; i++) {
        check(code_find(diags.items[i].code));
        diag_render(&diags.items[i], case_text_of, c, false, &out);
    }
    buf_release(&out);
    diags_release(&diags);
}

void fuzz_one(const uint8_t *p, size_t n)
{
    struct case_input *c = xmalloc(sizeof(*c));
    if (case_input_try(c, "fuzz.yml", str_of(p, n))) {
        compile(c);
    }
    case_input_release(c);
    free(c);
}
