/* Inside of the compiler: what its phases share. Only pipeline.h is for others.
 *
 * The phases, in the order in which compile.c runs them, and their files:
 *   read (yaml.c), include (include.c), !reference (reference.c), extends (extends.c),
 *   the file's own keywords (config.c), keywords of jobs (job*.c), workflow and rules (rules.c,
 *   policy.c), the graph of needs and the plan (plan.c).
 * A phase reports what is wrong and goes on with what is left, so that all errors of a file come at
 * once; rules are judged only where nothing was wrong. */
#ifndef DAVIT_PIPELINE_COMPILE_H
#define DAVIT_PIPELINE_COMPILE_H

#include "common/glob.h"
#include "common/limits.h"
#include "common/regex.h"
#include "pipeline/expr.h"
#include "pipeline/keyword.h"
#include "pipeline/node.h"
#include "pipeline/pipeline.h"

#define SCRIPT_NESTING 10 /* lists in lists */

struct texts {
    struct str *items;
    size_t count;
};

struct variables {
    const struct node *at; /* the mapping; NULL: none is written */
    struct var *items;
    size_t count;
};

/* parallel:matrix, written out. */
struct combination {
    struct variables variables;
    struct str label; /* "[linux, amd64]" */
};

struct matrix {
    struct combination *items;
    size_t count;
};

struct need {
    const struct node *at;
    struct str job;
    bool artifacts;
    bool optional;
    struct matrix matrix; /* empty: the whole job */
};

struct needs {
    bool present; /* an empty list too */
    struct need *items;
    size_t count;
    Pb__OuterNeed **outer;
    size_t outer_count;
    bool has_matrix; /* one of the items has */
};

enum choice { UNSET, NO, YES };

/* auto_cancel: what of it is written. */
struct auto_cancel {
    bool has_failure;
    Pb__AutoCancelOnFailure on_failure;
    bool has_commit;
    Pb__AutoCancelOnNewCommit on_commit;
};

struct rule {
    const struct node *at;
    const struct node *if_at;
    struct expr *condition; /* NULL: none */
    bool has_changes;
    struct texts changes;
    const struct node *compare_to; /* NULL: what the pipeline's commits changed */
    bool has_exists;
    struct texts exists;
    const struct node *exists_project; /* NULL: the pipeline's own */
    const struct node *exists_ref;
    bool has_when;
    bool never;
    Pb__When when;
    uint64_t start_in_ms;
    enum choice allow_failure;
    int32_t *exit_codes; /* of allow_failure */
    size_t exit_code_count;
    enum choice interruptible;
    struct variables variables;
    struct needs needs;
    struct auto_cancel auto_cancel; /* workflow */
};

struct rules {
    bool present; /* an empty list too: nothing matches then */
    struct rule *items;
    size_t count;
};

/* only, except */
struct policy_ref {
    const struct node *at;
    struct str text; /* without @path */
    struct str path; /* of the project, or empty */
    struct regex *regex;
};

struct policy_condition {
    const struct node *at;
    struct expr *expr;
};

struct policy {
    const struct node *at; /* NULL: it is not written */
    bool present;
    bool kubernetes; /* only with a cluster */
    bool has_refs;
    struct policy_ref *refs;
    size_t ref_count;
    bool has_conditions;
    struct policy_condition *conditions;
    size_t condition_count;
    bool has_changes;
    struct texts changes;
};

/* inherit: what a job takes over of `default`, or of the file's variables. */
struct inherit {
    bool all;
    struct texts names; /* when not all */
};

/* environment: what is not expanded yet. */
struct environment {
    const struct node *at; /* NULL: none */
    struct str name;
    Pb__EnvironmentSpec spec; /* but for the name and on_stop */
    struct str on_stop;
    const struct node *on_stop_at;   /* NULL: none */
    const struct node *auto_stop_at; /* a text with variables, or NULL */
};

struct job {
    Pb__PlanJob plan; /* grows from phase to phase */
    struct str name;
    const struct node *at; /* its name in the file */
    const struct node *body;
    const struct node *stage_at;
    uint32_t stage;  /* index into compile.stages */
    bool misspelled; /* has keys that are no keywords, or not supported: one of them may be meant */
    bool has_when;
    enum choice allow_failure;
    struct rules rules;
    struct policy only;
    struct policy except;
    struct variables variables;        /* those of the matrix among them */
    struct variables matrix_variables; /* of this part of a `parallel:matrix` */
    struct inherit inherit_defaults;
    struct inherit inherit_variables;
    struct texts before_script;
    struct texts script;
    struct texts tags;
    struct str resource_group;
    struct needs needs;
    struct environment environment;
    struct str publish; /* the old name of pages:publish; else empty */
    bool has_dependencies;
    struct need *dependencies;
    size_t dependency_count;
    struct matrix matrix;
    struct str long_name; /* of a part of a matrix whose `name` had to be cut; else empty */
    uint32_t parallel;    /* how many parts there are; 0: not written */
    bool selected;        /* its rules take it into the pipeline */
    uint32_t plan_index;  /* when selected */
};

/* An included file, and where it was asked for first. */
struct inclusion {
    const char *file;
    const struct node *at;
};

/* rules:changes:compare_to: what differs from a ref. */
struct compared {
    struct str ref;
    const struct str *paths;
    size_t count;
};

struct compile {
    struct arena *arena;
    const struct pipeline_input *in;
    struct diags *diags;
    size_t errors_before; /* that diags held when the compilation began */
    size_t work;          /* see compile_charge */
    size_t text_bytes;    /* of all files read */
    size_t includes;
    struct inclusion *inclusions; /* LIMIT_INCLUDES of them; NULL: none yet */
    size_t inclusion_count;
    bool incomplete; /* a file is missing: what refers to it is no error of its own */
    bool exhausted;  /* the work limit was reported */
    struct compared compared[LIMIT_COMPARED_REFS + 1];
    size_t compared_count;
    bool slow_regex;        /* one took too long: no further ones are run */
    struct memo conditions; /* expressions that were read already */
    struct memo rules;      /* lists of rules */
    struct memo retries;
    struct node *globs[2]; /* of exists and of changes: the path that each one matches, or -1 */
    struct vars outer;     /* predefined and submitted variables, expanded: what include sees */
    const struct node *root;
    const struct node *written; /* the root before !reference and extends */
    const struct node *job_at;  /* the job being read, for messages; NULL: none */
    struct texts unsupported;   /* the CHECKED keywords that it has */
    bool below_checked;         /* what is read now stands below such a keyword */
    struct texts stages;
    const char **stage_names;    /* the same, NUL-terminated */
    const struct node *defaults; /* a mapping of what jobs inherit */
    struct variables variables;  /* the file's own */
    struct variables workflow_variables;
    struct vars predefined_env; /* layers of all jobs' variables: see select.c */
    struct vars inherited_env;
    struct vars bare_env;
    struct vars submitted_env;
    Pb__Variable **shared_variables; /* what the plan has of `variables`; NULL: not made yet */
    struct rules workflow;
    const struct node *workflow_name;
    struct str name; /* of the pipeline, expanded */
    Pb__AutoCancelOnFailure on_job_failure;
    Pb__AutoCancelOnNewCommit on_new_commit;
    struct explain_decision *decision; /* being made and recorded; NULL: nobody asked */
    struct job *jobs;
    size_t job_count;
    size_t job_cap;
};

/* Messages. `at` gives the place; the job being read is named. The same mistake at the same place
 * (shared by extends, say) is reported once. */
void report(struct compile *c, const struct node *at, const char *code, const char *hint,
            const char *fmt, ...) PRINTF_LIKE(5, 6);
void report_warning(struct compile *c, const struct node *at, const char *code, const char *hint,
                    const char *fmt, ...) PRINTF_LIKE(5, 6);
/* "did you mean `NAME`?" of the nearest name, or NULL. */
const char *suggest(struct compile *c, struct str word, const char *const *names, size_t count);
const char *suggest_keyword(struct compile *c, struct str word, enum scope scope);
/* The way to a diagnostic's text (trail.c), as notes: extends, !reference, aliases, `default`, then
 * the includes of its file. */
void trail_add(struct compile *c, struct diag *d);
void trail_included(struct compile *c, const char *file, const struct node *at);
bool compile_failed(const struct compile *c);

/* Counts steps against LIMIT_COMPILE_WORK; false and an error once they are used up. */
bool compile_charge(struct compile *c, size_t steps, const struct node *at);

/* Reading values (read.c). `what` names the keyword for messages. False: reported; null nodes are
 * the caller's to sort out before. */
bool read_text(struct compile *c, const struct node *n, const char *what, struct str *ret);
bool read_name(struct compile *c, const struct node *n, const char *what, struct str *ret);
bool read_bool(struct compile *c, const struct node *n, const char *what, bool *ret);
bool read_number(struct compile *c, const struct node *n, const char *what, int64_t min,
                 int64_t max, int64_t *ret);
bool read_duration(struct compile *c, const struct node *n, const char *what, uint64_t *ret_ms);
bool read_choice(struct compile *c, const struct node *n, const char *what,
                 const char *const *names, size_t count, size_t *ret);
/* A list of texts; a single text where `single` allows it; lists in lists up to `depth`. */
struct read_texts {
    const char *what;
    bool single;
    unsigned depth;
    size_t max; /* 0: no limit of its own */
};
bool read_texts(struct compile *c, const struct node *n, struct read_texts how, struct texts *ret);
bool read_exit_codes(struct compile *c, const struct node *n, int32_t **ret, size_t *ret_count);
/* The same of one key of a mapping, with `what` as "image:name"; nothing where it is not there, or
 * null. False: reported. */
bool read_text_of(struct compile *c, const struct node *m, const char *what, struct str *ret);
bool read_name_of(struct compile *c, const struct node *m, const char *what, struct str *ret);
bool read_bool_of(struct compile *c, const struct node *m, const char *what, bool *ret);
bool read_texts_of(struct compile *c, const struct node *m, struct read_texts how,
                   struct texts *ret);
/* on_success, on_failure, always */
bool read_keep_of(struct compile *c, const struct node *m, const char *what, Pb__ArtifactWhen *ret);
/* What stands behind the last colon of `what`; NULL: not there, or null. */
const struct node *key_of(const struct node *m, const char *what);
/* Reports keys that the scope does not know, or that nothing acts on yet. False: no mapping. */
bool read_keys(struct compile *c, const struct node *n, enum scope scope, const char *what);
/* Warns that nothing acts on a keyword yet; the job being read has `name` in its list then. */
void note_checked(struct compile *c, const struct node *key, const char *name);
/* scope: of what stands in a variable's long form */
bool read_variables(struct compile *c, const struct node *n, enum scope scope,
                    struct variables *ret);
bool read_start_in(struct compile *c, const struct node *n, uint64_t *ret_ms);
bool read_needs(struct compile *c, const struct node *n, struct needs *ret);
/* The same with every entry of parallel:matrix written out, as `job` sees it. */
struct needs needs_unfold(struct compile *c, const struct job *job, const struct needs *needs);
bool read_when(struct compile *c, const struct node *n, bool allow_never, bool *ret_never,
               Pb__When *ret);
ProtobufCBinaryData *texts_to_bytes(struct arena *a, struct texts t);
char **texts_to_strings(struct arena *a, struct texts t);

/* Phases */
const struct node *include_all(struct compile *c); /* the merged file; NULL: reported, or empty */
const struct node *reference_resolve(struct compile *c, const struct node *root);
const struct node *extends_resolve(struct compile *c, const struct node *root);
void config_read(struct compile *c); /* all but the jobs */
void auto_cancel_read(struct compile *c, const struct node *n, struct auto_cancel *ret);
void auto_cancel_apply(struct compile *c, const struct auto_cancel *a);
void jobs_read(struct compile *c);
/* The value of one keyword of a job into `job`; false: the compiler has no code for it. */
bool job_read_keyword(struct compile *c, struct job *job, const char *name, const struct node *n);
bool inherits(const struct inherit *i, struct str name);
/* Does a default count for the job: where it says nothing itself, and inherits it. */
bool job_takes_default(const struct job *job, const struct pair *p);
bool has_job_key(const struct job *job, const char *name); /* written in the job, and not null */
/* Keywords that are checked only (checked.c). */
void secrets_read(struct compile *c, const struct node *n, struct job *job);
void identity_read(struct compile *c, const struct node *n, struct job *job);
void run_read(struct compile *c, const struct node *n, struct job *job);
void job_inputs_read(struct compile *c, const struct node *n, struct job *job);
void dast_configuration_read(struct compile *c, const struct node *n, struct job *job);
void artifacts_read(struct compile *c, const struct node *n, struct job *job);
void cache_read(struct compile *c, const struct node *n, struct job *job);
void coverage_read(struct compile *c, const struct node *n, struct job *job);
void hooks_read(struct compile *c, const struct node *n, struct job *job);
void id_tokens_read(struct compile *c, const struct node *n, struct job *job);
void image_read(struct compile *c, const struct node *n, struct job *job);
void manual_confirmation_read(struct compile *c, const struct node *n, struct job *job);
void pages_read(struct compile *c, const struct node *n, struct job *job);
void pages_finish(struct compile *c, struct job *job); /* once all of the job is read */
void publish_read(struct compile *c, const struct node *n, struct job *job);
void release_read(struct compile *c, const struct node *n, struct job *job);
void retry_read(struct compile *c, const struct node *n, struct job *job);
void services_read(struct compile *c, const struct node *n, struct job *job);
void environment_read(struct compile *c, const struct node *n, struct job *job);
void environment_select(struct compile *c, struct job *job, const struct vars *env);
/* The job that `on_stop` names; NULL: there is none. */
void environment_check_stop(struct compile *c, const struct job *job, const struct job *stop);
void trigger_read(struct compile *c, const struct node *n, struct job *job);
void trigger_check(struct compile *c, const struct job *job); /* what stands beside it */
bool trigger_allows(const char *keyword);
/* The root with what .davit.yml says of its jobs (overlay.c). */
const struct node *overlay_apply(struct compile *c);

void rollout_read(struct compile *c, const struct node *n, struct job *job);
void rollout_select(struct compile *c, struct job *job, const struct vars *env);
void rollout_check(struct compile *c, const struct job *job); /* what stands beside it */
bool rollout_allows(const char *keyword);
/* Values for inputs of another file. False: reported. */
bool inputs_check(struct compile *c, const struct node *n);
Pb__Variable *plan_variable(struct compile *c, const struct var *var);

bool matrix_read(struct compile *c, const struct node *n, struct matrix *ret);
/* "JOB: [linux, amd64]" */
struct str matrix_name(struct compile *c, struct str job, const struct combination *combination);
/* The text with `$[[ matrix.NAME ]]` replaced by what `job` has there. False: reported. */
bool matrix_interpolate(struct compile *c, const struct job *job, const struct node *at,
                        struct str text, struct str *ret);
struct variables matrix_merge(struct compile *c, const struct variables *own,
                              const struct variables *matrix);

void rules_read(struct compile *c, const struct node *n, enum scope scope, struct rules *ret);
struct expr *condition_read(struct compile *c, const struct node *n); /* NULL: reported */
/* The first rule that matches, or NULL. */
const struct rule *rules_match(struct compile *c, const struct rules *rules,
                               const struct vars *env);
bool condition_holds(struct compile *c, const struct node *at, struct expr *e,
                     const struct vars *env);
bool changes_hold(struct compile *c, const struct texts *globs, const struct vars *env);
bool compared_hold(struct compile *c, const struct rule *rule, const struct vars *env);
bool exists_hold(struct compile *c, const struct rule *rule, const struct vars *env);

void policy_read(struct compile *c, const struct node *n, const char *what, struct policy *ret);
bool policy_all(struct compile *c, const struct policy *p, const struct vars *env); /* only */
bool policy_any(struct compile *c, const struct policy *p, const struct vars *env); /* except */

/* Workflow: false when it says that there is no pipeline (reported). */
bool select_workflow(struct compile *c);
void select_jobs(struct compile *c);
/* The text with its variables replaced; flags of expand_flags. */
struct str expand_text(struct compile *c, const struct vars *env, struct str text, unsigned flags);
void set_all(struct vars *env, const struct var *items, size_t count);
void expand_all(struct compile *c, struct vars *env, const struct node *at);

/* The record for explain.h; each does nothing when nobody asked for one. */
void explain_workflow(struct compile *c);                   /* its rules are judged next */
void explain_job(struct compile *c, const struct job *job); /* this one's */
void explain_rule(struct compile *c, const char *keyword, const struct node *at);
void explain_condition(struct compile *c, const struct node *at, const struct expr *e,
                       const struct vars *env, bool holds);
enum globs { GLOBS_CHANGES, GLOBS_COMPARED, GLOBS_EXISTS };
void explain_globs(struct compile *c, enum globs what, const struct texts *globs,
                   const struct str *found); /* the path that matches, or NULL */
void explain_refs(struct compile *c, const struct policy *p, const struct str *found);
void explain_matched(struct compile *c); /* the last rule does */
void explain_decided(struct compile *c, bool in);
void explain_merged(struct compile *c); /* the jobs are read: the file as it came to be */
/* Of a job that is in: where its variables are from. */
void explain_variables(struct compile *c, const struct job *job, const struct rule *rule,
                       const struct vars *env);

bool stage_find(const struct compile *c, struct str name, uint32_t *ret);
Pb__Plan *plan_build(struct compile *c); /* NULL: reported */
/* Takes out what was not asked for (only.c); what was asked for in vain is reported. */
void plan_only(struct compile *c, Pb__Plan *plan);

#endif
