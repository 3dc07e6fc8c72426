#include "common/base.h"

#include "tests/sim/sim.h"

/* How a pipeline goes on: again and again the whole of it is looked at, until nothing moves. */

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

void model_timer(struct model_job *j, enum model_timer timer, uint64_t due_ms)
{
    j->timer = (uint8_t)timer;
    j->due_ms = due_ms;
}

/* A place in the queue is kept in the hands of workers, and lost by whatever else comes. */
static void take_place(struct model *m, struct model_job *j)
{
    const bool queues = j->state == JOB_PENDING || j->state == JOB_WAITING_FOR_RESOURCE;

    if (queues && j->arrival == 0) {
        j->arrival = m->applied;
        j->queued_ms = m->now_ms;
        j->waited = false;
    } else if (!queues && !model_held(j)) {
        j->arrival = 0;
    }
}

/* All waits for a worker of its pool at the same place together are bounded; what was before the
 * pool had a bound does not count. */
static void wait_in_pool(struct model *m, struct model_job *j, bool was_held)
{
    const struct model_pool *pool = &m->pools[j->pool];
    const bool bounded = j->pool != 0 && pool->there && pool->queue_timeout_ms != 0;

    if (bounded) {
        const uint64_t waited_ms = was_held && j->waited ? j->waited_ms : 0;
        j->waits_from_ms = m->now_ms - waited_ms;
        model_timer(j, TIMER_QUEUE, j->waits_from_ms + pool->queue_timeout_ms);
    }
    j->waited = bounded;
}

void model_move(struct model *m, struct model_job *j, uint8_t state)
{
    const bool was_held = model_held(j);
    const bool ran = j->state == JOB_RUNNING || j->state == JOB_CANCELING;

    if (state == JOB_ASSIGNED) {
        j->waited_ms = m->now_ms - j->waits_from_ms;
    }
    model_timer(j, TIMER_NONE, 0);
    j->state = state;
    take_place(m, j);
    if (!model_held(j)) {
        j->worker = 0;
        j->acked = false;
        j->waiting = false;
    }
    if (state == JOB_PENDING) {
        j->started = false;
        j->pending_at = m->applied;
        wait_in_pool(m, j, was_held);
    }
    model_deploys(m, j, ran);
    if (model_ended(state)) {
        j->ended_ms = m->now_ms;
        watch_end(m, j);
    }
}

/* With a resource group it waits first; model_groups lets it in. */
void model_queue(struct model *m, struct model_job *j)
{
    model_move(m, j, j->group != 0 ? JOB_WAITING_FOR_RESOURCE : JOB_PENDING);
    if (j->trigger && j->state == JOB_PENDING) {
        model_start_trigger(m, j);
    }
}

static void decide_all(struct model *m, struct model_pipeline *p)
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
                model_move(m, j, JOB_SKIPPED);
            } else if (j->when == WHEN_MANUAL) {
                model_move(m, j, JOB_MANUAL);
            } else if (j->when == WHEN_DELAYED) {
                model_move(m, j, JOB_SCHEDULED);
                model_timer(j, TIMER_DELAY, m->now_ms + j->start_in_ms);
            } else {
                model_queue(m, j);
            }
        }
    } while (moved);
}

void model_settle(struct model *m, struct model_pipeline *p)
{
    if (p->id != 0) {
        decide_all(m, p);
    }
    model_touch(p);
}

/* A job runs anew: those after it that were skipped get another chance. */
void model_unskip(struct model *m, struct model_pipeline *p, uint32_t index)
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
            p->jobs[i].child = 0; /* it may have mirrored one: that is of the past */
            model_move(m, &p->jobs[i], JOB_CREATED);
        }
    }
}
