#include "common/base.h"

#include "tests/sim/sim.h"

/* How a pipeline goes on: again and again the whole of it is looked at, until nothing moves. */

bool model_ended(uint8_t state)
{
    return state == JOB_SUCCESS || state == JOB_FAILED || state == JOB_CANCELED ||
           state == JOB_SKIPPED;
}

bool model_held(uint8_t state)
{
    return state == JOB_ASSIGNED || state == JOB_RUNNING || state == JOB_CANCELING;
}

static bool optional(const struct model_job *j)
{
    return j->state == JOB_MANUAL && j->may_fail;
}

static bool settled(const struct model_job *j)
{
    return model_ended(j->state) || optional(j);
}

bool model_pipeline_ended(const struct model_pipeline *p)
{
    for (uint32_t i = 0; i < p->count; i++) {
        if (!settled(&p->jobs[i])) {
            return false;
        }
    }
    return true;
}

/* What a set of settled jobs amounts to. */
Pb__Status model_outcome(const struct model_pipeline *p, uint32_t set)
{
    uint32_t ran = 0, failed = 0, canceled = 0;

    for (uint32_t i = 0; i < p->count; i++) {
        const struct model_job *j = &p->jobs[i];
        if (!(set & (1u << i))) {
            continue;
        }
        ran += j->state != JOB_SKIPPED && !optional(j);
        failed += j->state == JOB_FAILED && !j->may_fail;
        canceled += j->state == JOB_CANCELED && !j->may_fail;
    }
    if (failed > 0) {
        return STATUS_FAILED;
    }
    if (canceled > 0) {
        return STATUS_CANCELED;
    }
    return set != 0 && ran == 0 ? STATUS_SKIPPED : STATUS_SUCCESS;
}

/* The jobs that stand before this one. */
static uint32_t before(const struct model_pipeline *p, const struct model_job *j)
{
    uint32_t set = 0;

    for (uint32_t i = 0; i < p->count; i++) {
        if (j->dag ? (j->needs & (1u << i)) != 0 : p->jobs[i].stage < j->stage) {
            set |= 1u << i;
        }
    }
    return set;
}

/* Whether the time of a created job has come, and what comes before it then amounts to. */
static bool decided(const struct model_pipeline *p, const struct model_job *j, Pb__Status *ret)
{
    const uint32_t set = before(p, j);
    bool all = true;

    for (uint32_t i = 0; i < p->count; i++) {
        const struct model_job *other = &p->jobs[i];
        if (!(set & (1u << i))) {
            continue;
        }
        if (j->dag && (other->state == JOB_SKIPPED || optional(other))) {
            *ret = STATUS_SKIPPED; /* one need that does not run is enough */
            return true;
        }
        all = all && settled(other);
    }
    *ret = all ? model_outcome(p, set) : STATUS_RUNNING;
    return all;
}

static bool wanted(const struct model_job *j, Pb__Status came)
{
    if (j->when == WHEN_ALWAYS) {
        return came != STATUS_CANCELED;
    }
    if (j->when == WHEN_ON_FAILURE) {
        return came == STATUS_FAILED;
    }
    return came == STATUS_SUCCESS || (came == STATUS_SKIPPED && !j->dag);
}

void model_move(struct model_job *j, uint8_t state)
{
    j->state = state;
    j->timer = TIMER_NONE;
    j->due_ms = 0;
    if (!model_held(state)) {
        j->worker = 0;
        j->acked = false;
        j->waiting = false;
    }
    if (state == JOB_PENDING) {
        j->started = false;
    }
}

/* With a resource group it waits first; model_groups lets it in. */
void model_queue(struct model *m, struct model_job *j)
{
    j->arrival = m->applied;
    model_move(j, j->group != 0 ? JOB_WAITING_FOR_RESOURCE : JOB_PENDING);
}

void model_settle(struct model *m, struct model_pipeline *p, uint64_t now_ms)
{
    bool moved;

    do {
        moved = false;
        for (uint32_t i = 0; i < p->count; i++) {
            struct model_job *j = &p->jobs[i];
            Pb__Status came;
            if (j->state != JOB_CREATED || !decided(p, j, &came)) {
                continue;
            }
            moved = true;
            if (!wanted(j, came)) {
                model_move(j, JOB_SKIPPED);
            } else if (j->when == WHEN_MANUAL) {
                model_move(j, JOB_MANUAL);
            } else if (j->when == WHEN_DELAYED) {
                model_move(j, JOB_SCHEDULED);
                j->timer = TIMER_DELAY;
                j->due_ms = now_ms + j->start_in_ms;
            } else {
                model_queue(m, j);
            }
        }
    } while (moved);
}

/* A job runs anew: those after it that were skipped get another chance. */
void model_unskip(struct model_pipeline *p, uint32_t index)
{
    uint32_t after = 1u << index;
    uint32_t old;

    for (uint32_t i = 0; i < p->count; i++) {
        if (!p->jobs[i].dag && p->jobs[i].stage > p->jobs[index].stage) {
            after |= 1u << i;
        }
    }
    do {
        old = after;
        for (uint32_t i = 0; i < p->count; i++) {
            after |= (p->jobs[i].dag && (p->jobs[i].needs & after)) ? 1u << i : 0;
        }
    } while (after != old);
    for (uint32_t i = 0; i < p->count; i++) {
        if (i != index && (after & (1u << i)) && p->jobs[i].state == JOB_SKIPPED) {
            model_move(&p->jobs[i], JOB_CREATED);
        }
    }
}

static bool holds(const struct model_job *j)
{
    return j->state == JOB_PENDING || model_held(j->state);
}

/* Who holds the group, and since when the oldest waits for it; UINT64_MAX: nobody does. */
static bool taken(const struct model *m, uint8_t group, uint64_t *ret_first)
{
    bool held = false;

    *ret_first = UINT64_MAX;
    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        for (uint32_t k = 0; k < m->pipelines[i].count; k++) {
            const struct model_job *j = &m->pipelines[i].jobs[k];
            if (j->group == group && j->state == JOB_WAITING_FOR_RESOURCE) {
                *ret_first = MIN(*ret_first, j->arrival);
            }
            held = held || (j->group == group && holds(j));
        }
    }
    return held;
}

/* Of those who wait longest for a free group one must have got it: which, says the store. */
static void admit(struct model *m, struct tx *tx, uint8_t group)
{
    uint64_t first;

    if (taken(m, group, &first) || first == UINT64_MAX) {
        return;
    }
    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        for (uint32_t k = 0; k < m->pipelines[i].count; k++) {
            struct model_job *j = &m->pipelines[i].jobs[k];
            if (j->group != group || j->state != JOB_WAITING_FOR_RESOURCE || j->arrival != first) {
                continue;
            }
            const Pb__JobRecord *row = job_get(tx, j->id);
            if (row != NULL && row->state == JOB_PENDING) {
                model_move(j, JOB_PENDING);
                m->touched |= 1ull << i;
                return;
            }
        }
    }
    breach_now("resource group %u is free, and none of those who wait longest has got it", group);
}

void model_groups(struct model *m, struct tx *tx)
{
    for (uint8_t g = 1; g <= MODEL_GROUPS; g++) {
        admit(m, tx, g);
    }
}
