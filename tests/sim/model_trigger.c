#include "common/base.h"

#include "common/limits.h"
#include "tests/sim/sim.h"

/* Trigger jobs and their child pipelines: docs/architecture.md, "Pipelines that make pipelines".
 * What the end of one means for the other is looked for again and again, until nothing moves. */

static bool waits_for_child(const struct model_job *j)
{
    return j->strategy != PB__TRIGGER_STRATEGY__TRIGGER_STRATEGY_NONE;
}

static bool is_open(const struct model_job *j)
{
    return j->trigger && j->state == JOB_RUNNING && j->child == 0;
}

const struct model_pipeline *model_root(const struct model *m, const struct model_pipeline *p)
{
    return p->root != 0 ? model_pipeline(m, p->root) : p;
}

/* ---- whether it is refused ---- */

/* One that holds its group while it waits for what is below it. */
static bool wants_group_above(const struct model *m, const Pb__Plan *plan, uint64_t job_id)
{
    while (job_id != 0) {
        struct model_pipeline *p;
        const struct model_job *j = model_job(m, job_id, &p);
        for (size_t i = 0; i < plan->n_jobs && waits_for_child(j); i++) {
            const uint8_t group = model_number(plan->jobs[i]->resource_group);
            if (group != 0 && 3 * (j->project - 1) + group == j->group) {
                return true;
            }
        }
        job_id = p->parent_job;
    }
    return false;
}

int model_foretell_child(const struct model *m, const Pb__PipelineCreate *c)
{
    struct model_pipeline *p;
    const struct model_job *j = model_job(m, c->parent_job_id, &p);

    if (j == NULL || j->lone) {
        return -E_NOT_FOUND;
    }
    if (!is_open(j) || j->epoch != c->parent_epoch) {
        return -E_STALE_EPOCH;
    }
    if (model_number(c->project) != j->project || c->idempotency_key.len != 0) {
        return -E_INVALID;
    }
    if (p->depth >= LIMIT_PIPELINE_DEPTH) {
        return -E_LIMIT;
    }
    return wants_group_above(m, c->plan, c->parent_job_id) ? -E_INVALID : 0;
}

int model_foretell_trigger(const struct model *m, const Pb__TriggerFailed *c)
{
    const struct model_job *j = model_job(m, c->job_id, NULL);

    if (j == NULL) {
        return -E_NOT_FOUND;
    }
    return is_open(j) && j->epoch == c->epoch ? 0 : -E_STALE_EPOCH;
}

/* ---- what it does ---- */

static void end_as(struct model *m, struct model_job *j, const struct model_pipeline *child)
{
    const bool mirror = j->strategy == PB__TRIGGER_STRATEGY__TRIGGER_STRATEGY_MIRROR;
    const Pb__Status came = model_outcome(child, (1u << child->count) - 1);

    if (came == STATUS_SUCCESS) {
        model_move(m, j, JOB_SUCCESS);
    } else if (mirror && came == STATUS_CANCELED) {
        model_move(m, j, JOB_CANCELED);
    } else if (mirror && came == STATUS_SKIPPED) {
        model_move(m, j, JOB_SKIPPED);
    } else {
        model_move(m, j, JOB_FAILED);
    }
}

/* Its turn has come: it needs no worker. */
void model_start_trigger(struct model *m, struct model_job *j)
{
    const struct model_pipeline *child = model_pipeline(m, j->child);

    j->attempt++;
    j->epoch = MAX(j->epoch, m->epoch_floor) + 1;
    model_move(m, j, JOB_RUNNING);
    if (child != NULL && model_pipeline_ended(child)) {
        end_as(m, j, child);
    }
}

void model_add_child(struct model *m, struct model_pipeline *child, uint64_t parent_job)
{
    struct model_pipeline *p;
    struct model_job *j = model_job(m, parent_job, &p);

    child->parent_job = parent_job;
    child->root = p->root != 0 ? p->root : p->id;
    child->depth = p->depth + 1;
    j->child = child->id;
    if (!waits_for_child(j)) {
        model_move(m, j, JOB_SUCCESS);
    }
    model_settle(m, p);
}

void model_trigger_failed(struct model *m, const Pb__TriggerFailed *c)
{
    model_move(m, model_job(m, c->job_id, NULL), JOB_FAILED);
}

/* A child that goes on after its end takes its trigger job with it, and all that came after. */
static void go_on(struct model *m, struct model_pipeline *p, struct model_job *j)
{
    const uint64_t child = j->child;

    model_afresh(j);
    j->child = child;
    if (j->state == JOB_SKIPPED) {
        model_move(m, j, JOB_CREATED);
    }
    model_queue(m, j);
    model_unskip(m, p, (uint32_t)(j - p->jobs));
}

static void tell_parent(struct model *m, const struct model_pipeline *child, bool ended)
{
    struct model_pipeline *p;
    struct model_job *j = model_job(m, child->parent_job, &p);

    if (j == NULL || j->child != child->id || !waits_for_child(j)) {
        return;
    }
    if (ended && j->state == JOB_RUNNING) {
        end_as(m, j, child);
    } else if (!ended && model_ended(j->state)) {
        go_on(m, p, j);
    }
    model_settle(m, p);
}

/* All jobs of it that have not ended, and what stands below it. */
void model_cancel_all(struct model *m, struct model_pipeline *p)
{
    for (uint32_t i = 0; i < p->count; i++) {
        struct model_job *j = &p->jobs[i];
        if (model_ended(j->state)) {
            model_cancel_child(m, j);
        } else if (!(j->state == JOB_MANUAL && j->may_fail)) {
            model_cancel(m, j);
        }
    }
    model_settle(m, p);
}

void model_cancel_child(struct model *m, const struct model_job *j)
{
    struct model_pipeline *child = model_pipeline(m, j->child);

    if (child != NULL && !model_pipeline_ended(child)) {
        model_cancel_all(m, child);
    }
}

static bool told_any(struct model *m)
{
    bool any = false;

    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        struct model_pipeline *p = &m->pipelines[i];
        const bool ended = p->parent_job != 0 && model_pipeline_ended(p);
        if (ended != p->told) {
            p->told = ended;
            model_touch(p);
            tell_parent(m, p, ended);
            any = true;
        }
    }
    return any;
}

static bool family_ended(const struct model *m, const struct model_pipeline *root)
{
    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        if (m->pipelines[i].root == root->id && !model_pipeline_ended(&m->pipelines[i])) {
            return false;
        }
    }
    return model_pipeline_ended(root);
}

/* Parents hear of their children; and of each family it is known whether it has ended. */
void model_families(struct model *m)
{
    while (told_any(m)) {
    }
    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        struct model_pipeline *p = &m->pipelines[i];
        const bool ended = p->id != 0 && p->root == 0 && family_ended(m, p);
        if (ended != (p->ended_ms != 0)) {
            p->ended_ms = ended ? m->now_ms : 0;
            model_touch(p);
        }
    }
}
