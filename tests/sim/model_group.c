#include "common/base.h"

#include "tests/sim/sim.h"

/* Who gets a resource group, by its mode: GitLab's words for it. */

struct line {
    bool held;
    uint64_t first;   /* since when the oldest waits, as a number of a command */
    uint64_t oldest;  /* pipeline that has a job that waits, or may come to */
    uint64_t newest;  /* likewise */
    uint64_t waiting; /* the newest that waits */
    uint64_t listed;  /* the first of those that were enqueued together just now, as a job; or 0 */
};

static bool holds(const struct model_job *j)
{
    return j->state == JOB_PENDING || j->state == JOB_ASSIGNED || j->state == JOB_RUNNING ||
           j->state == JOB_CANCELING;
}

static bool may_come(const struct model_job *j)
{
    return j->state == JOB_CREATED || j->state == JOB_SCHEDULED ||
           j->state == JOB_WAITING_FOR_RESOURCE;
}

/* A job without a pipeline stands for itself, a child pipeline where its parent does. */
static uint64_t order_of(const struct model_pipeline *p)
{
    return p->root != 0 ? p->root : p->id != 0 ? p->id : p->jobs[0].id;
}

static struct line look(const struct model *m, uint8_t group)
{
    struct line l = {.first = UINT64_MAX, .oldest = UINT64_MAX};

    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        const struct model_pipeline *p = &m->pipelines[i];
        for (uint32_t k = 0; k < p->count; k++) {
            const struct model_job *j = &p->jobs[k];
            if (j->group != group) {
                continue;
            }
            l.held = l.held || holds(j);
            if (may_come(j)) {
                l.oldest = MIN(l.oldest, order_of(p));
                l.newest = MAX(l.newest, order_of(p));
            }
            if (j->state == JOB_WAITING_FOR_RESOURCE) {
                l.first = MIN(l.first, j->arrival);
                l.waiting = MAX(l.waiting, order_of(p));
                if (m->enqueues && j->lone && j->arrival == m->applied && l.listed == 0) {
                    l.listed = j->id;
                }
            }
        }
    }
    return l;
}

/* Those of one list come one after the other: the first of them found nobody newer. */
static bool is_next(const struct line *l, const struct model_pipeline *p, const struct model_job *j,
                    uint8_t mode)
{
    if (j->state != JOB_WAITING_FOR_RESOURCE) {
        return false;
    }
    switch (mode) {
    case PB__PROCESS_MODE__PROCESS_OLDEST_FIRST:
        return order_of(p) == l->oldest;
    case PB__PROCESS_MODE__PROCESS_NEWEST_FIRST:
        return l->listed != 0 ? j->id == l->listed : order_of(p) == l->newest;
    case PB__PROCESS_MODE__PROCESS_NEWEST_READY_FIRST:
        return l->listed != 0 ? j->id == l->listed : order_of(p) == l->waiting;
    default:
        return j->arrival == l->first;
    }
}

static void take(struct model *m, struct model_pipeline *p, struct model_job *j)
{
    model_move(m, j, JOB_PENDING);
    if (j->trigger) {
        model_start_trigger(m, j);
        model_settle(m, p);
    }
    model_touch(p);
}

/* Of those whose turn it is one must have got a free group: which, says the store. */
static bool admit(struct model *m, struct tx *tx, uint8_t group)
{
    const struct line l = look(m, group);
    const uint8_t mode = m->projects[1 + (group - 1) / 3].modes[1 + (group - 1) % 3];
    uint32_t next = 0;

    if (l.held || l.first == UINT64_MAX) {
        return false;
    }
    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        for (uint32_t k = 0; k < m->pipelines[i].count; k++) {
            struct model_job *j = &m->pipelines[i].jobs[k];
            if (j->group != group || !is_next(&l, &m->pipelines[i], j, mode)) {
                continue;
            }
            const Pb__JobRecord *row = job_get(tx, j->id);
            next++;
            if (row != NULL &&
                (j->trigger ? row->state != JOB_WAITING_FOR_RESOURCE : row->state == JOB_PENDING)) {
                take(m, &m->pipelines[i], j);
                return true;
            }
        }
    }
    if (next > 0) {
        breach_now("resource group %u is free, and none of those whose turn it is has got it",
                   group);
    }
    return false;
}

bool model_groups(struct model *m, struct tx *tx)
{
    bool any = false;

    for (uint8_t g = 1; g <= MODEL_GROUPS; g++) {
        any = admit(m, tx, g) || any;
    }
    return any;
}
