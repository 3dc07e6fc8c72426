#include "common/base.h"

#include "tests/sim/sim.h"

/* Pools, projects and resource groups as people set them, and who is displaced by whom. */

static bool is_named(const struct model *m, uint8_t pool)
{
    for (uint32_t i = 0; i < m->worker_count; i++) {
        if (m->workers[i].pool == pool) {
            return true;
        }
    }
    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        for (uint32_t k = 0; k < m->pipelines[i].count; k++) {
            const struct model_job *j = &m->pipelines[i].jobs[k];
            if (j->pool == pool && !model_ended(j->state)) {
                return true;
            }
        }
    }
    return false;
}

int model_foretell_settings(const struct model *m, const Pb__Command *cmd)
{
    switch ((int)cmd->body_case) {
    case PB__COMMAND__BODY_POOL_DELETE: {
        const uint8_t pool = model_number(cmd->pool_delete->name);
        return !m->pools[pool].there ? -E_NOT_FOUND : is_named(m, pool) ? -E_CONFLICT : 0;
    }
    case PB__COMMAND__BODY_RESOURCE_GROUP_SET:
        return m->projects[model_number(cmd->resource_group_set->project)].there ? 0 : -E_NOT_FOUND;
    default:
        return 0;
    }
}

static void set_pool(struct model_pool *p, const Pb__PoolSet *c)
{
    p->there = true;
    if (c->has_projects) {
        p->projects = 0;
        for (size_t i = 0; i < c->n_projects; i++) {
            p->projects |= (uint8_t)(1u << model_number(c->projects[i]));
        }
    }
    p->is_protected = c->has_protected ? c->protected_ : p->is_protected;
    p->locked = c->has_locked ? c->locked : p->locked;
    p->preempt = c->has_preempt ? c->preempt : p->preempt;
    p->on_lost = c->has_on_worker_lost ? (uint8_t)c->on_worker_lost : p->on_lost;
    p->max_running = c->has_max_running ? c->max_running : p->max_running;
    p->project_max_running = c->has_project_max_running ? c->project_max_running
                                                        : p->project_max_running;
    p->queue_timeout_ms = c->has_queue_timeout ? c->queue_timeout_ms : p->queue_timeout_ms;
}

void model_apply_settings(struct model *m, const Pb__Command *cmd)
{
    struct model_project *p;

    switch ((int)cmd->body_case) {
    case PB__COMMAND__BODY_POOL_SET:
        set_pool(&m->pools[model_number(cmd->pool_set->name)], cmd->pool_set);
        break;
    case PB__COMMAND__BODY_POOL_DELETE:
        m->pools[model_number(cmd->pool_delete->name)] = (struct model_pool){0};
        break;
    case PB__COMMAND__BODY_RESOURCE_GROUP_SET:
        p = &m->projects[model_number(cmd->resource_group_set->project)];
        p->modes[model_number(cmd->resource_group_set->name)] = (uint8_t)
                                                                    cmd->resource_group_set->mode;
        break;
    default:
        p = &m->projects[model_number(cmd->project_set->name)];
        p->there = true;
        p->weight = cmd->project_set->has_weight ? cmd->project_set->weight : p->weight;
        p->max_running = cmd->project_set->has_max_running ? cmd->project_set->max_running
                                                           : p->max_running;
        break;
    }
}

int model_foretell_preempt(const struct model *m, const Pb__JobPreempt *c)
{
    const struct model_job *j = model_job(m, c->job_id, NULL);
    const struct model_job *other = model_job(m, c->for_job_id, NULL);

    if (j == NULL) {
        return -E_NOT_FOUND;
    }
    if (!model_held(j) || j->epoch != c->epoch) {
        return -E_STALE_EPOCH;
    }
    const struct model_worker *w = model_worker(m, j->worker);
    if (w->paused || w->draining || model_used(m, w->id) > w->slots ||
        (other != NULL && !model_serves(m, w, other))) {
        return -E_CONFLICT;
    }
    return other != NULL && other->state == JOB_PENDING && j->interruptible &&
                   j->priority < other->priority && j->state != JOB_CANCELING && !j->waiting
               ? 0
               : -E_CONFLICT;
}

/* Only where the pool says so, only for one that is more than what the other got its slot by, and
 * only for one that cannot have a slot otherwise: it gets this one, and with the next command. */
void model_apply_preempt(struct model *m, const Pb__JobPreempt *c)
{
    struct model_job *j = model_job(m, c->job_id, NULL);
    const struct model_job *other = model_job(m, c->for_job_id, NULL);
    const struct model_worker *w = model_worker(m, j->worker);

    if (!m->pools[w->pool].there || !m->pools[w->pool].preempt || other->priority <= j->claim ||
        !model_serves(m, w, other) || model_used(m, w->id) > w->slots) {
        breach_now("job %" PRIu64 " gives way to job %" PRIu64 " and should not", j->id, other->id);
    }
    m->slot_for = other->id;
    m->slot_of = w->id;
    model_back(m, j);
}
