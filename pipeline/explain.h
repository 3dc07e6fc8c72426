/* Why a pipeline is as it is: for every job, whether it is in, which of its rules matched, what of
 * the others did not hold and with which values; and where its variables come from.
 *
 * A record is made beside a compilation that was asked for one (pipeline_input.explain); one that
 * was not pays a comparison a rule. The record is right for a compilation that fails after its
 * rules were judged, too; where the file itself is wrong, it holds no jobs.
 * Ownership: all in the arena of the compilation, and of the plan that came of it. Threads: pure.
 */
#ifndef DAVIT_PIPELINE_EXPLAIN_H
#define DAVIT_PIPELINE_EXPLAIN_H

#include <jansson.h>

#include "pipeline/node.h"
#include "pipeline/pipeline.h"

enum explain_kind {
    EXPLAIN_IF,      /* rules:if, only:variables */
    EXPLAIN_CHANGES, /* globs */
    EXPLAIN_EXISTS,
    EXPLAIN_REFS, /* only:refs */
};

/* A variable of an expression, as it was when the expression was judged. */
struct explain_value {
    struct str name;
    bool known;
    struct str value;
};

/* One thing that was looked at. What stands behind one that did not hold was not. */
struct explain_check {
    enum explain_kind kind;
    bool holds;
    bool unknown;     /* changes: it is not known what changed, so it holds */
    struct str text;  /* the expression; patterns with ", " between them */
    struct str found; /* the path, or the entry of `refs`, that made it hold */
    struct explain_value *values;
    size_t value_count;
};

struct explain_rule {
    const char *keyword; /* "rules", "only", "except" */
    struct diag_at at;
    bool matched; /* only, except: it says what is written there */
    struct explain_check *checks;
    size_t check_count;
};

struct explain_decision {
    bool in;
    const char *why;            /* a sentence without a point */
    struct explain_rule *rules; /* those that were judged, the last one decided */
    size_t rule_count;
};

struct explain_variable {
    struct str name;
    struct str value;      /* as it is written */
    struct str expanded;   /* as rules see it, where that is something else; else NULL */
    const char *from;      /* "file", "workflow rule", "job", "rule", "stored", "submitted" */
    const struct node *at; /* NULL: it is not of a file */
};

struct explain_job {
    const Pb__PlanJob *plan; /* its place among the stages is set once it is in a plan */
    struct str stage;
    struct diag_at at;
    struct explain_decision decision;
    struct explain_variable *variables; /* of one that is in */
    size_t variable_count;
};

struct explain {
    bool has_workflow;
    struct explain_decision workflow;
    struct explain_job *jobs; /* in the order of the file */
    size_t job_count;
    const struct node *merged; /* see emit.h; NULL: the file is wrong */
};

/* What is shown of a record. */
struct explain_view {
    const struct pipeline_input *in;
    const struct explain *explain;
    const Pb__Plan *plan; /* NULL: none was made */
    const char *job;      /* its name, or the one before `parallel` unfolded it; NULL: all jobs */
};

bool explain_has_job(const struct explain *e, const char *job);
void explain_text(const struct explain_view *v, struct buf *out);
json_t *explain_json(const struct explain_view *v); /* the caller's */

/* The jobs by stage with what they wait for: as text, or for Graphviz' dot. */
void explain_graph_text(const Pb__Plan *plan, struct buf *out);
void explain_graph_dot(const Pb__Plan *plan, struct buf *out);

#endif
