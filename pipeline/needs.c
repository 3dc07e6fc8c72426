/* needs: jobs of this pipeline, parts of a matrix, and jobs of other pipelines. */
#include "common/base.h"

#include "pipeline/compile.h"

/* needs:project and needs:pipeline: nothing is waited for, artifacts are fetched. */
static bool read_outer(struct compile *c, const struct node *n, struct needs *ret)
{
    struct str project = STR(""), ref = STR(""), pipeline = STR(""), job = STR("");
    bool artifacts = true;
    bool optional = false;
    bool from_project = key_of(n, "project") != NULL;
    if (key_of(n, "parallel") || (from_project && key_of(n, "pipeline"))) {
        report(c, n, "keyword-conflict", NULL, "`needs:%s` cannot stand beside `%s`",
               from_project ? "project" : "pipeline",
               key_of(n, "parallel") ? "parallel" : "pipeline");
        return false;
    }
    if (from_project && (!key_of(n, "job") || !key_of(n, "ref"))) {
        report(c, n, "missing-key", "needs: [{ project: GROUP/NAME, ref: main, job: build }]",
               "`needs:project` needs a `job` and a `ref`");
        return false;
    }
    if (ret->outer_count == LIMIT_OUTER_NEEDS) {
        report(c, n, "limit", NULL, "more than %u `needs` outside of the pipeline",
               LIMIT_OUTER_NEEDS);
        return false;
    }
    if (!read_name_of(c, n, "needs:project", &project) || !read_name_of(c, n, "needs:ref", &ref) ||
        !read_name_of(c, n, "needs:pipeline", &pipeline) ||
        !read_name_of(c, n, "needs:job", &job) ||
        !read_bool_of(c, n, "needs:artifacts", &artifacts) ||
        !read_bool_of(c, n, "needs:optional", &optional)) {
        return false;
    }
    if (artifacts) { /* else there is nothing to do */
        Pb__OuterNeed *outer = arena_alloc(c->arena, sizeof(*outer));
        pb__outer_need__init(outer);
        outer->project = pb_bytes_ref(project);
        outer->ref = pb_bytes_ref(ref);
        outer->pipeline = pb_bytes_ref(pipeline);
        outer->job = pb_bytes_ref(job);
        outer->optional = optional;
        ret->outer[ret->outer_count++] = outer;
    }
    return true;
}

static bool read_part(struct compile *c, const struct node *n, struct need *need)
{
    const struct node *matrix = key_of(n, "matrix");
    if (!read_keys(c, n, SCOPE_PARALLEL, "needs:parallel")) {
        return false;
    }
    if (!matrix) {
        report(c, n, "missing-key", NULL, "`needs:parallel` needs a `matrix`");
        return false;
    }
    return matrix_read(c, matrix, &need->matrix);
}

static bool read_inner(struct compile *c, const struct node *n, struct need *need)
{
    const struct node *parallel = key_of(n, "parallel");
    if (!key_of(n, "job")) {
        report(c, n, "missing-key", NULL, "an entry of `needs` must name a `job`");
        return false;
    }
    if (key_of(n, "ref")) {
        report(c, n, "missing-key", NULL, "`needs:ref` needs a `project`");
        return false;
    }
    return read_name_of(c, n, "needs:job", &need->job) &&
           read_bool_of(c, n, "needs:artifacts", &need->artifacts) &&
           read_bool_of(c, n, "needs:optional", &need->optional) &&
           (!parallel || read_part(c, parallel, need));
}

static bool push_inner(struct compile *c, const struct node *n, struct needs *ret)
{
    struct need need = {.at = n, .artifacts = true};
    if (ret->count == LIMIT_JOB_NEEDS) {
        report(c, n, "limit", NULL, "more than %u `needs`", LIMIT_JOB_NEEDS);
        return false;
    }
    bool ok = n->kind == NODE_MAPPING ? read_inner(c, n, &need)
                                      : read_name(c, n, "needs", &need.job);
    if (ok) {
        ret->items[ret->count++] = need;
        ret->has_matrix |= need.matrix.count > 0;
    }
    return ok;
}

/* False: nothing more is read. */
static bool push_need(struct compile *c, const struct node *n, struct needs *ret)
{
    if (node_is_null(n)) {
        report(c, n, "wrong-type", NULL, "`needs` holds an empty entry");
        return true;
    }
    if (n->kind == NODE_MAPPING) {
        size_t errors = c->diags->errors;
        read_keys(c, n, SCOPE_NEED, "needs");
        if (c->diags->errors > errors) {
            return true;
        }
        if (key_of(n, "project") || (key_of(n, "pipeline") && key_of(n, "job"))) {
            read_outer(c, n, ret);
            return true;
        }
        if (key_of(n, "pipeline")) { /* to mirror the status of another project's pipeline */
            note_checked(c, n, "needs:pipeline");
            return true;
        }
    }
    return push_inner(c, n, ret) || ret->count < LIMIT_JOB_NEEDS;
}

/* Lists in lists come from !reference; they are as deep as references are nested. */
static bool push_needs(struct compile *c, const struct node *n, struct needs *ret)
{
    bool ok = true;
    for (uint32_t i = 0; ok && i < n->count && compile_charge(c, 1, n); i++) {
        const struct node *item = n->items[i];
        if (item->reference) {
            continue;
        }
        ok = item->kind == NODE_LIST ? push_needs(c, item, ret) : push_need(c, item, ret);
    }
    return ok;
}

bool read_needs(struct compile *c, const struct node *n, struct needs *ret)
{
    struct needs needs = {.present = true};
    if (n->kind == NODE_SCALAR) {
        report(c, n, "wrong-type", "needs: [job]", "`needs` must be a list, found %s",
               node_what(n));
        return false;
    }
    size_t most = n->kind == NODE_LIST && n->weight < LIMIT_JOB_NEEDS ? n->weight : LIMIT_JOB_NEEDS;
    needs.items = arena_array(c->arena, most + 1, sizeof(*needs.items));
    needs.outer = arena_array(c->arena, MIN(most, LIMIT_OUTER_NEEDS) + 1, sizeof(*needs.outer));
    bool ok = n->kind == NODE_LIST ? push_needs(c, n, &needs) : push_need(c, n, &needs);
    *ret = needs;
    return ok;
}

static void unfold_one(struct compile *c, const struct job *job, const struct need *need,
                       struct needs *ret)
{
    for (size_t i = 0; i < need->matrix.count; i++) {
        struct combination part = need->matrix.items[i];
        struct need *new = &ret->items[ret->count];
        *new = *need;
        if (matrix_interpolate(c, job, need->at, part.label, &part.label)) {
            new->job = matrix_name(c, need->job, &part);
            new->matrix = (struct matrix){0};
            ret->count++;
        }
    }
}

struct needs needs_unfold(struct compile *c, const struct job *job, const struct needs *needs)
{
    struct needs all = *needs;
    size_t most = 0;
    if (!needs->has_matrix) {
        return all;
    }
    for (size_t i = 0; i < needs->count; i++) {
        most += MAX(needs->items[i].matrix.count, (size_t)1);
    }
    all.count = 0;
    if (!compile_charge(c, most, job->at)) {
        return all;
    }
    all.items = arena_array(c->arena, most + 1, sizeof(*all.items));
    for (size_t i = 0; i < needs->count; i++) {
        if (needs->items[i].matrix.count > 0) {
            unfold_one(c, job, &needs->items[i], &all);
        } else {
            all.items[all.count++] = needs->items[i];
        }
    }
    return all;
}
