#include "common/base.h"

#include "broker/trigger/child.h"

#include <jansson.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker/core/query.h"
#include "broker/trigger/bundle.h"
#include "broker/trigger/forward.h"
#include "common/archive.h"
#include "common/limits.h"
#include "pipeline/pipeline.h"

#define ORIGIN "parent_pipeline"

struct child {
    const struct child_sources *from;
    struct arena *arena; /* of the post: everything that outlives the read transaction */
    struct buf *why;
    const Pb__JobRecord *job;
    const Pb__PipelineRecord *parent;
    const Pb__TriggerSpec *trigger;
    const char *project;
    struct forward forward;
    const struct var *stored; /* variables */
    size_t stored_count;
    const Pb__Bundle *bundle;
    struct fetcher *fetcher; /* NULL: none */
    int hindered;            /* what kept a file from being read that is there; 0: nothing did */
};

static int fail(struct child *c, int r, const char *text)
{
    buf_addz(c->why, text);
    return r;
}

/* --- the parent --- */

static bool still_wanted(const Pb__JobRecord *job, uint64_t epoch)
{
    return job != NULL && job->trigger && job->state == JOB_RUNNING && job->epoch == epoch &&
           job->child_pipeline_id == 0;
}

#define COPY(c, type, message) ((const type *)pb_copy((c)->arena, &(message)->base))

static int read_stored(struct child *c, struct tx *tx)
{
    const Pb__PipelineVariablesRecord *vars = pipeline_variables_get(tx, c->parent->id);
    bool protected = vars != NULL && ref_is_protected(c->parent, vars);
    return vault_known(c->from->vault, tx, c->arena, c->project, protected, &c->stored,
                       &c->stored_count, c->why);
}

static int read_rows(struct child *c, struct tx *tx, const Pb__JobRecord *job)
{
    const Pb__PipelineRecord *parent = pipeline_get(tx, job->pipeline_id);
    const Pb__PlanJob *plan = plan_job_get(tx, job->pipeline_id, job->index);
    const Pb__ProjectRecord *project = project_get(tx, job->project_id);
    if (parent == NULL || plan == NULL || plan->trigger == NULL || project == NULL) {
        return tx_ok(tx) ? -E_CORRUPT : tx_error(tx);
    }
    c->job = COPY(c, Pb__JobRecord, job);
    c->parent = COPY(c, Pb__PipelineRecord, parent);
    c->trigger = COPY(c, Pb__TriggerSpec, plan->trigger);
    c->project = arena_strdup(c->arena, str_from(project->name));
    int r = read_stored(c, tx);
    return r < 0 ? r : forward_read(&c->forward, tx, c->arena, job->id, plan);
}

/* 0 with c->job NULL: there is nothing to do. */
static int read_parent(struct child *c, uint64_t job_id, uint64_t epoch)
{
    struct tx *tx;
    int r = tx_begin(c->from->store, false, &tx);
    if (r < 0) {
        return r;
    }
    const Pb__JobRecord *job = job_get(tx, job_id);
    if (still_wanted(job, epoch)) {
        r = read_rows(c, tx, job);
    }
    r = r == 0 ? tx_error(tx) : r;
    tx_abort(tx);
    return r;
}

static int read_bundle(struct child *c)
{
    Pb__Bundle *bundle;
    if (c->parent->bundle == NULL) {
        return fail(c, -E_NOT_FOUND, "the files of the pipeline were not kept");
    }
    int r = bundle_load(c->from->blobs, c->parent->bundle, c->arena, &bundle);
    if (r < 0) {
        buf_addf(c->why, "the files of the pipeline cannot be read: %s", err_text(r));
        return r;
    }
    c->bundle = bundle;
    return 0;
}

/* --- files --- */

/* The archives of the job of that name in the parent, of its newest attempt. */
static size_t find_archives(struct child *c, struct tx *tx, struct str name,
                            const Pb__ArtifactRecord **ret)
{
    for (uint32_t i = 0; i < c->parent->job_count; i++) {
        const Pb__JobRecord *job = job_get(tx, c->parent->first_job_id + i);
        if (job == NULL || !str_eqz(name, job->name)) {
            continue;
        }
        return artifacts_of(tx, job->id, job->attempt, "archive", LIMIT_JOB_ARTIFACTS, ret);
    }
    return 0;
}

static int read_archived(struct child *c, const Pb__ArtifactRecord *a, struct str path,
                         struct buf *out, struct buf *why)
{
    uint64_t size;
    int fd;
    if (a->digest.len != SHA256_BYTES) {
        return -E_CORRUPT;
    }
    int r = blob_open(c->from->blobs, a->digest.data, &fd, &size);
    if (r < 0) {
        buf_addz(why, r == -E_NOT_FOUND ? "the artifacts are gone" : err_text(r));
        c->hindered = r == -E_NOT_FOUND ? c->hindered : r;
        return r;
    }
    char *name = str_dup(path);
    r = archive_read_file(fd, name, LIMIT_YAML_BYTES, out, why);
    free(name);
    close(fd);
    return r;
}

static int include_artifact(struct child *c, const struct include_ref *ref, struct included *ret,
                            const char **ret_why)
{
    const Pb__ArtifactRecord *found[LIMIT_JOB_ARTIFACTS];
    const Pb__ArtifactRecord *copies[LIMIT_JOB_ARTIFACTS];
    struct buf text = BUF_INIT;
    struct buf why = BUF_INIT;
    struct tx *tx;
    int r = tx_begin(c->from->store, false, &tx);
    if (r < 0) {
        return r;
    }
    size_t n = find_archives(c, tx, ref->job, found);
    for (size_t i = 0; i < n; i++) {
        copies[i] = COPY(c, Pb__ArtifactRecord, found[i]);
    }
    tx_abort(tx);
    r = -E_NOT_FOUND;
    for (size_t i = 0; i < n && r == -E_NOT_FOUND; i++) {
        buf_clear(&why);
        r = read_archived(c, copies[i], ref->name, &text, &why);
    }
    if (r == 0) {
        ret->text = arena_str(c->arena, buf_str(&text));
    } else if (n == 0) {
        *ret_why = "the job has no artifacts";
    } else {
        *ret_why = arena_strdup(c->arena, buf_str(&why));
    }
    buf_release(&text);
    buf_release(&why);
    return r;
}

/* What is fetched goes with the fetcher: the plan needs it longer. */
static int include_fetched(struct child *c, const struct include_ref *ref, struct included *ret,
                           const char **ret_why)
{
    int r = fetch_include(c->fetcher, ref, ret, ret_why);
    if (r == 0) {
        ret->text = arena_str(c->arena, ret->text);
        ret->sha = arena_str(c->arena, ret->sha);
        ret->project = arena_str(c->arena, ret->project);
        ret->version = arena_str(c->arena, ret->version);
    }
    return r;
}

static int include_file(void *ctx, const struct include_ref *ref, struct included *ret,
                        const char **ret_why)
{
    struct child *c = ctx;
    if (ref->kind == INCLUDE_ARTIFACT) {
        return include_artifact(c, ref, ret, ret_why);
    }
    const Pb__BundleFile *file = bundle_file(c->bundle,
                                             str_from(pipeline_include_name(c->arena, ref)));
    if (file == NULL && c->fetcher != NULL && ref->kind != INCLUDE_LOCAL) {
        return include_fetched(c, ref, ret, ret_why);
    }
    if (file == NULL) {
        *ret_why = "it did not come with the submitted pipeline";
        return -E_NOT_FOUND;
    }
    *ret = (struct included){
        .text = pb_str(file->text), .sha = str_from(file->sha), .version = str_from(file->version)};
    return 0;
}

static bool compare_with(void *ctx, struct str ref, const struct str **ret, size_t *ret_count)
{
    struct child *c = ctx;
    for (size_t i = 0; i < c->bundle->n_compared; i++) {
        const Pb__ComparedChanges *compared = c->bundle->compared[i];
        if (str_eq(pb_str(compared->ref), ref)) {
            struct str *paths = arena_array(c->arena, MAX(compared->n_changes, 1u), sizeof(*paths));
            for (size_t k = 0; k < compared->n_changes; k++) {
                paths[k] = pb_str(compared->changes[k]);
            }
            *ret = paths;
            *ret_count = compared->n_changes;
            return true;
        }
    }
    return false;
}

/* --- the compilation --- */

static const struct str *texts(struct arena *a, const ProtobufCBinaryData *items, size_t n)
{
    struct str *list = arena_array(a, MAX(n, 1u), sizeof(*list));
    for (size_t i = 0; i < n; i++) {
        list[i] = pb_str(items[i]);
    }
    return list;
}

static int set_inputs(struct child *c, struct pipeline_input *in)
{
    struct str text = pb_str(c->trigger->inputs);
    if (text.n == 0) {
        return 0;
    }
    json_t *all = json_loadb(text.p, text.n, 0, NULL);
    if (!json_is_object(all)) {
        json_decref(all);
        return fail(c, -E_CORRUPT, "the inputs of the trigger job are damaged");
    }
    struct pipeline_value *values = arena_array(c->arena, MAX(json_object_size(all), 1u),
                                                sizeof(*values));
    size_t n = 0;
    const char *name;
    json_t *value;
    json_object_foreach(all, name, value)
    {
        char *dump = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
        values[n++] = (struct pipeline_value){.name = arena_str(c->arena, str_from(name)),
                                              .text = arena_str(c->arena, str_from(dump)),
                                              .json = true};
        free(dump);
    }
    json_decref(all);
    in->inputs = values;
    in->input_count = n;
    return 0;
}

/* The first error with its place: the job's detail has room for one line. */
static void tell_diags(struct child *c, const struct diags *diags)
{
    if (diags->errors > 1) {
        buf_addf(c->why, "%zu errors; ", diags->errors);
    }
    for (size_t i = 0; i < diags->count; i++) {
        const struct diag *d = &diags->items[i];
        if (d->level == DIAG_ERROR) {
            buf_addz(c->why, d->file);
            if (d->line > 0) { /* else it is of the pipeline as a whole */
                buf_addf(c->why, ":%u:%u", d->line, d->column);
            }
            buf_addf(c->why, ": %s", d->message);
            return;
        }
    }
}

static int compile(struct child *c, Pb__Plan **ret)
{
    struct diags diags;
    struct pipeline_input in = {
        .file = arena_printf(c->arena, "trigger of %s", c->job->name),
        .text = pb_str(c->trigger->config),
        .include = include_file,
        .include_ctx = c,
        .compare = compare_with,
        .compare_ctx = c,
        .paths = texts(c->arena, c->bundle->paths, c->bundle->n_paths),
        .path_count = c->bundle->n_paths,
        .changes_known = c->bundle->changes_known,
        .changes = texts(c->arena, c->bundle->changes, c->bundle->n_changes),
        .change_count = c->bundle->n_changes,
        .ref = c->parent->ref,
        .tag = c->parent->tag,
        .origin = ORIGIN,
        .stored = c->stored,
        .stored_count = c->stored_count,
    };
    forward_as_vars(&c->forward, c->arena, &in);
    int r = set_inputs(c, &in);
    if (r < 0) {
        return r;
    }
    diags_init(&diags);
    c->fetcher = c->from->includes != NULL ? fetch_new(c->from->includes) : NULL;
    r = pipeline_compile(c->arena, &in, &diags, ret);
    if (r < 0) {
        tell_diags(c, &diags);
        r = c->hindered < 0 ? c->hindered : r;
    }
    diags_release(&diags);
    fetch_free(c->fetcher);
    c->fetcher = NULL;
    return r;
}

/* --- the command --- */

static int fill(struct child *c, struct post *post, uint64_t epoch, Pb__Plan *plan)
{
    Pb__PipelineCreate *create = arena_alloc(c->arena, sizeof(*create));
    pb__pipeline_create__init(create);
    create->project = (char *)c->project;
    create->plan = plan;
    create->source = c->parent->source;
    create->ref = c->parent->ref;
    create->sha = c->parent->sha;
    create->origin = (char *)ORIGIN;
    create->tag = c->parent->tag;
    create->predefined = c->forward.predefined;
    create->n_predefined = c->forward.predefined_count;
    create->submitted = c->forward.submitted;
    create->n_submitted = c->forward.submitted_count;
    create->parent_job_id = c->job->id;
    create->parent_epoch = epoch;
    create->bundle = plan_has_triggers(plan) ? c->parent->bundle : NULL;
    size_t size = pb__pipeline_create__get_packed_size(create);
    if (size > LIMIT_COMMAND) {
        buf_addf(c->why, "the pipeline comes to %zu bytes, %u are allowed", size, LIMIT_COMMAND);
        return -E_TOO_BIG;
    }
    post_command(post)->actor = c->parent->submitted_by; /* the child is the parent's user's */
    post_command(post)->body_case = PB__COMMAND__BODY_PIPELINE_CREATE;
    post_command(post)->pipeline_create = create;
    return 0;
}

int child_build(const struct child_sources *s, uint64_t job_id, uint64_t epoch, struct post **ret,
                struct buf *why)
{
    struct post *post = post_new("trigger");
    struct child c = {.from = s, .arena = post_arena(post), .why = why};
    Pb__Plan *plan;
    int r = read_parent(&c, job_id, epoch);
    if (r == 0 && c.job == NULL) {
        post_free(post);
        return 0;
    }
    if (r == 0) {
        r = read_bundle(&c);
    }
    if (r == 0) {
        r = compile(&c, &plan);
    }
    if (r == 0) {
        r = fill(&c, post, epoch, plan);
    }
    if (r < 0) {
        post_free(post);
        return r;
    }
    *ret = post;
    return 0;
}
