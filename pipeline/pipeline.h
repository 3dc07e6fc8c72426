/* The compiler: the text of a pipeline file to a plan (proto/plan.proto) and diagnostics. Pure: it
 * does no I/O, reads no clock; included files and facts of the repository are handed in. It never
 * crashes on any input, and every size is bounded by common/limits.h.
 *
 * Phases: read (yaml.h) -> include -> !reference -> extends -> default/inherit -> keywords ->
 * parallel -> workflow rules -> rules, only/except -> variables -> needs -> plan.
 * All errors of a file are reported at once, with file, line and column.
 * Ownership: everything returned lives in the caller's arena. Threads: separate calls are
 * independent. Used by the broker (the judge), by the CLI (lint, run, submit) and by fuzzers. */
#ifndef DAVIT_PIPELINE_H
#define DAVIT_PIPELINE_H

#include "common/diag.h"
#include "common/expand.h"
#include "proto/pb.h"

/* The text of a file of the repository by its path from the root (no leading slash); false: there
 * is no such file. The text must live as long as the compilation and its diagnostics. */
typedef bool (*pipeline_file_fn)(void *ctx, const char *path, struct str *ret_text);

struct pipeline_input {
    const char *file; /* path of the root file, for messages */
    struct str text;
    pipeline_file_fn read_file;
    void *read_file_ctx;
    /* For rules:exists and include with wildcards: all files of the repository. */
    const struct str *paths;
    size_t path_count;
    /* For rules:changes. Not known (a new branch, a schedule): every `changes` is true. */
    bool changes_known;
    const struct str *changes;
    size_t change_count;
    /* What rules, include, workflow and expansions see before the file's own variables. */
    const struct var *predefined;
    size_t predefined_count;
    const struct var *submitted; /* given at submit: stronger than the file's */
    size_t submitted_count;
    /* Facts behind only/except; also in CI_* of predefined. */
    const char *ref;
    bool tag;
    const char *origin; /* CI_PIPELINE_SOURCE */
};

/* 0 and a plan; -E_PIPELINE with at least one error in `diags`. A file that is right, but whose
 * rules leave no job or whose workflow says no, gives -E_PIPELINE with one of the codes "no-jobs",
 * "workflow-false". Warnings may come with either. */
int pipeline_compile(struct arena *arena, const struct pipeline_input *in, struct diags *diags,
                     Pb__Plan **ret_plan);

/* The facts of one pipeline, from which the CI_* variables are made. NULL text: unknown. */
struct pipeline_facts {
    const char *project; /* "group/name" */
    const char *ref;
    bool tag;
    const char *sha;
    const char *before_sha;
    const char *origin;
    const char *default_branch;
    const char *commit_message;
    const char *commit_author;
    const char *commit_timestamp;
    const char *config_path;
    const char *server_url;
};
/* The CI_*, GITLAB_CI, DAVIT_* variables that are known at submit (ids of pipeline and job, paths
 * and worker facts come later, see docs/pipeline.md) into `ret`, which vars_init made ready. */
void pipeline_predefined(struct vars *ret, const struct pipeline_facts *facts);

#endif
