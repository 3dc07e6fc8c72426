/* The graph of a plan: which job waits for what. */
#include "common/base.h"

#include "pipeline/explain.h"

void explain_graph_text(const Pb__Plan *plan, struct buf *out)
{
    size_t width = 0;
    for (size_t i = 0; i < plan->n_jobs; i++) {
        width = MAX(width, strlen(plan->jobs[i]->name));
    }
    width = MIN(width, (size_t)40);
    for (size_t i = 0; i < plan->n_jobs; i++) {
        const Pb__PlanJob *job = plan->jobs[i];
        if (i == 0 || job->stage != plan->jobs[i - 1]->stage) {
            buf_addf(out, "%s\n", plan->stages[job->stage]);
        }
        if (!job->dag) {
            buf_addf(out, "    %s\n", job->name);
            continue;
        }
        buf_addf(out, "    %-*s  <- %s", (int)width, job->name, job->n_needs == 0 ? "nothing" : "");
        for (size_t k = 0; k < job->n_needs; k++) {
            buf_addf(out, "%s%s", k > 0 ? ", " : "", plan->jobs[job->needs[k]->job]->name);
        }
        buf_add_char(out, '\n');
    }
}

static void add_quoted(struct buf *out, const char *s)
{
    buf_add_char(out, '"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') {
            buf_add_char(out, '\\');
        }
        buf_add_char(out, (unsigned char)*s < ' ' ? ' ' : *s);
    }
    buf_add_char(out, '"');
}

static void add_stages(const Pb__Plan *plan, struct buf *out)
{
    for (size_t s = 0; s < plan->n_stages; s++) {
        buf_addf(out, "    subgraph cluster_%zu {\n        label=", s);
        add_quoted(out, plan->stages[s]);
        buf_addz(out, ";\n");
        for (size_t i = 0; i < plan->n_jobs; i++) {
            if (plan->jobs[i]->stage == s) {
                buf_addf(out, "        j%zu [label=", i);
                add_quoted(out, plan->jobs[i]->name);
                buf_addf(out, "%s];\n", plan->jobs[i]->when == WHEN_MANUAL ? ", style=dashed" : "");
            }
        }
        buf_addz(out, "    }\n");
    }
}

/* A job without needs waits for all of the stage before: one dashed line stands for those. */
static void add_edges(const Pb__Plan *plan, struct buf *out)
{
    size_t before = 0; /* a job of the stage before */
    for (size_t i = 0; i < plan->n_jobs; i++) {
        const Pb__PlanJob *job = plan->jobs[i];
        if (i > 0 && job->stage != plan->jobs[i - 1]->stage) {
            before = i - 1;
        }
        for (size_t k = 0; k < job->n_needs; k++) {
            buf_addf(out, "    j%" PRIu32 " -> j%zu;\n", job->needs[k]->job, i);
        }
        if (!job->dag && job->stage > 0) {
            buf_addf(out, "    j%zu -> j%zu [ltail=cluster_%" PRIu32 ", style=dashed];\n", before,
                     i, job->stage - 1);
        }
    }
}

void explain_graph_dot(const Pb__Plan *plan, struct buf *out)
{
    buf_addz(out, "digraph pipeline {\n"
                  "    rankdir=LR;\n"
                  "    compound=true;\n"
                  "    node [shape=box];\n");
    add_stages(plan, out);
    add_edges(plan, out);
    buf_addz(out, "}\n");
}
