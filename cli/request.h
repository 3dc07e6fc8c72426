/* From a working tree to the body of POST /pipelines and /lint (docs/http-api.md): compiles the
 * pipeline file here first, which finds the files it includes and all its errors without a broker.
 * Threads: one at a time. */
#ifndef DAVIT_CLI_REQUEST_H
#define DAVIT_CLI_REQUEST_H

#include "cli/files.h"
#include "cli/repo.h"
#include "pipeline/explain.h"
#include "pipeline/pipeline.h"

/* How a pipeline is asked for: the options shared by run, submit, lint and explain. The file `-` is
 * standard input. */
struct request_options {
    const char *file;          /* NULL: .gitlab-ci.yml */
    const char *ref;           /* NULL: the tree's own */
    const char *origin;        /* NULL: push */
    const char *project;       /* NULL: the tree's own */
    struct opt_list variables; /* NAME=VALUE */
    struct opt_list inputs;    /* NAME=VALUE */
    struct opt_list projects;  /* NAME=PATH_OR_URL of include:project */
    const char *templates;     /* NULL: the installed ones */
    bool offline;              /* nothing is fetched */
    struct opt_list jobs;      /* none: all */
    struct opt_list changes;   /* paths that changed; none: what git says */
    bool explain;              /* record why it is as it is */
};

#define REQUEST_OPTIONS(o)                                                                       \
    {"file", 'f', OPT_TEXT, &(o)->file, "FILE", "the pipeline file (.gitlab-ci.yml)"},           \
        {"ref", 0, OPT_TEXT, &(o)->ref, "REF", "the branch, or refs/tags/TAG, it runs for"},     \
        {"origin", 0, OPT_TEXT, &(o)->origin, "ORIGIN", "CI_PIPELINE_SOURCE (push)"},            \
        {"project", 0, OPT_TEXT, &(o)->project, "NAME", "the project's name"},                   \
        {"input", 0, OPT_LIST, &(o)->inputs, "NAME=VALUE", "an input of the pipeline file"},     \
        {"include-project", 0, OPT_LIST, &(o)->projects, "NAME=URL", "where a project is"},      \
        {"templates", 0, OPT_TEXT, &(o)->templates, "DIR", "templates (DAVIT_TEMPLATES)"},       \
        {"offline", 0, OPT_FLAG, &(o)->offline, NULL, "fetch nothing that it includes"},         \
        {"job", 0, OPT_LIST, &(o)->jobs, "JOB", "only this and what it needs; repeat for more"}, \
    {                                                                                            \
        "variable", 'v', OPT_LIST, &(o)->variables, "NAME=VALUE", "a variable; may be repeated"  \
    }

/* An answer to rules:changes:compare_to. */
struct compared {
    struct compared *next;
    const char *ref;
    bool known;
    struct str *paths;
    size_t count;
};

struct request {
    struct arena arena;
    struct diags diags;
    Pb__Plan *plan;           /* NULL: the file has errors */
    struct pipeline_input in; /* what it was made of */
    struct explain explain;   /* when asked for */
    json_t *body;             /* without `source` */
    struct fetcher *fetcher;
    struct files files; /* that were read, the root file first */
    struct compared *compared;
    struct repo *repo;
};

void request_options_release(struct request_options *o);

/* 0: compiled; -E_PIPELINE: `diags` says why; else an error that was printed. In the first two
 * cases the caller releases. */
int request_build(struct cli *c, struct repo *repo, const struct request_options *o,
                  struct request *ret);
/* -E_PIPELINE, and all that is wrong is that its rules leave no job: with the variables that the
 * broker keeps for the project they may decide otherwise. */
bool request_is_empty(const struct request *r);
void request_release(struct request *r);
/* Prints the diagnostics to `out` with the lines they speak of. */
void request_print_diags(const struct cli *c, const struct request *r, FILE *out);
json_t *request_diags_json(const struct request *r); /* as in docs/http-api.md */

#endif
