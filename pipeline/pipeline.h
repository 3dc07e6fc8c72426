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

/* What an `include` names. */
enum include_kind {
    INCLUDE_LOCAL,     /* of the repository of the pipeline */
    INCLUDE_PROJECT,   /* of another repository */
    INCLUDE_REMOTE,    /* by URL */
    INCLUDE_TEMPLATE,  /* of those that come with this installation */
    INCLUDE_COMPONENT, /* HOST/GROUP/PROJECT/NAME@VERSION */
    INCLUDE_ARTIFACT,  /* of a job: in child pipelines only */
};

struct include_ref {
    enum include_kind kind;
    struct str name;    /* path from the root of its repository (no leading slash), URL, name of the
                         * template, address of the component, path in the artifact */
    struct str project; /* INCLUDE_PROJECT */
    struct str ref;     /* INCLUDE_PROJECT: branch, tag or commit; empty: the default branch */
    struct str job;     /* INCLUDE_ARTIFACT */
};

struct included {
    struct str text;
    struct str sha;     /* the commit it is from; empty: unknown */
    struct str project; /* of a component: whose files its own includes are */
    struct str version; /* of a component: what its @VERSION came to */
};

/* Gets an included file. 0; -E_NOT_FOUND: there is no such file; -E_UNSUPPORTED: this caller has no
 * files of the kind; else why not, in one line at *ret_why where there is more to say than the
 * error's text. What is returned must live as long as the compilation and its diagnostics. */
typedef int (*pipeline_include_fn)(void *ctx, const struct include_ref *ref, struct included *ret,
                                   const char **ret_why);

/* How an included file is called in messages and in the `files` of a submit: "ci/build.yml",
 * "project:GROUP/NAME@REF:PATH", "https://...", "template:NAME", "component:ADDRESS",
 * "artifact:JOB:PATH". */
const char *pipeline_include_name(struct arena *arena, const struct include_ref *ref);

/* The paths that differ between `ref` and the pipeline's commit (rules:changes:compare_to). False:
 * there is no such ref. */
typedef bool (*pipeline_compare_fn)(void *ctx, struct str ref, const struct str **ret,
                                    size_t *ret_count);

/* A value for one of the inputs of the root file's header. */
struct pipeline_value {
    struct str name;
    struct str text;
    bool json; /* `text` is a JSON value; else it is read as the input's type asks */
};

/* What the target of a rollout has against it in that environment: an error, a warning, each one
 * line in `arena`; untouched: nothing. */
typedef void (*pipeline_rollout_fn)(void *ctx, const char *environment, const Pb__RolloutSpec *spec,
                                    struct arena *arena, const char **ret_error,
                                    const char **ret_warning);

struct explain;

/* Beside the root file, at the root of the repository. */
#define PIPELINE_OVERLAY ".davit.yml"

struct pipeline_input {
    const char *file; /* path of the root file, for messages */
    struct str text;
    const char *overlay_file;    /* what jobs are to Davit alone: PIPELINE_OVERLAY, for messages */
    struct str overlay;          /* its text; empty: there is none */
    pipeline_include_fn include; /* NULL: there are no other files */
    void *include_ctx;
    const struct pipeline_value *inputs;
    size_t input_count;
    pipeline_rollout_fn rollout; /* NULL: nobody knows targets */
    void *rollout_ctx;
    pipeline_compare_fn compare; /* NULL: nobody knows: `changes` with compare_to hold then */
    void *compare_ctx;
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
    const struct var
        *stored; /* kept for the project: stronger than the file's, the weakest first */
    size_t stored_count;
    const struct var *submitted; /* given at submit: stronger than all others */
    size_t submitted_count;
    /* Names of jobs; the one before `parallel` stands for all parts. With any, the pipeline is
     * these and what they need, and they start by themselves where they would be manual. */
    const struct str *only;
    size_t only_count;
    /* Facts behind only/except; also in CI_* of predefined. */
    const char *ref;
    bool tag;
    const char *origin;      /* CI_PIPELINE_SOURCE */
    struct explain *explain; /* gets a record of what was decided (explain.h); NULL: not wanted */
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
    bool knows_protection; /* else the default branch alone is protected */
    bool is_protected;     /* the ref is; a merge request's pipeline never */
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
