#include "common/base.h"

#include "broker/sched/state.h"

/* Who gives way to whom. Jobs that may be displaced stand in heaps, the least claim first: those of
 * a worker, the workers of a group, the groups of a pool. So one look tells that a pool or a group
 * has nobody who would have to give way. */

static struct held *held_at(const struct heap_node *n)
{
    return HEAP_ITEM(n, struct held, yield);
}

static struct held *worker_least(const struct worker *w)
{
    return held_at(heap_top(&w->yields));
}

static struct held *group_least(const struct group *g)
{
    return worker_least(HEAP_ITEM(heap_top(&g->yields), struct worker, yield));
}

static struct held *pool_least(const struct pool *p)
{
    return group_least(HEAP_ITEM(heap_top(&p->yields), struct group, yield));
}

/* The least to lose: of the least claim, the one that began last. */
static bool less_to_lose(const struct held *a, const struct held *b)
{
    if (a->claim != b->claim) {
        return a->claim < b->claim;
    }
    return a->since_ms != b->since_ms ? a->since_ms > b->since_ms : a->job_id > b->job_id;
}

bool held_yields_before(const struct heap_node *a, const struct heap_node *b)
{
    return less_to_lose(held_at(a), held_at(b));
}

bool worker_yields_before(const struct heap_node *a, const struct heap_node *b)
{
    return less_to_lose(worker_least(HEAP_ITEM(a, struct worker, yield)),
                        worker_least(HEAP_ITEM(b, struct worker, yield)));
}

bool group_yields_before(const struct heap_node *a, const struct heap_node *b)
{
    return less_to_lose(group_least(HEAP_ITEM(a, struct group, yield)),
                        group_least(HEAP_ITEM(b, struct group, yield)));
}

static void group_yields(struct group *g)
{
    if (g->yields.count > 0) {
        heap_put(&g->pool->yields, &g->yield);
    } else {
        heap_remove(&g->pool->yields, &g->yield);
    }
}

/* One that has more jobs than slots has no slot to give when one of them goes. */
void worker_yields(struct worker *w)
{
    if (w->group == NULL) {
        return;
    }
    if (w->yields.count > 0 && w->open && !w->shut && w->used <= w->record->slots) {
        heap_put(&w->group->yields, &w->yield);
    } else {
        heap_remove(&w->group->yields, &w->yield);
    }
    group_yields(w->group);
}

void worker_yields_not(struct worker *w)
{
    heap_remove(&w->group->yields, &w->yield);
    group_yields(w->group);
}

static void stand(struct held *h)
{
    h->worker->yields.before = held_yields_before;
    heap_put(&h->worker->yields, &h->yield);
    worker_yields(h->worker);
}

static void stand_not(struct held *h)
{
    heap_remove(&h->worker->yields, &h->yield);
    worker_yields(h->worker);
}

void held_make_displaceable(struct held *h)
{
    const struct pool *p = h->share->pool;

    check(h->lane == NULL && !h->displaceable);
    if (p->record != NULL && p->record->preempt) {
        h->displaceable = true;
        stand(h);
    }
}

static void pass_over(struct sched *s, struct held *h)
{
    stand_not(h);
    h->passed_over = true;
    DL_APPEND(s->passed_over, h);
}

static void pass_over_no_more(struct sched *s, struct held *h)
{
    DL_DELETE(s->passed_over, h);
    h->passed_over = false;
}

void held_not_displaceable(struct sched *s, struct held *h)
{
    if (h->passed_over) {
        pass_over_no_more(s, h);
    } else if (h->displaceable) {
        stand_not(h);
    }
    h->displaceable = false;
}

void victims_reconsider(struct sched *s)
{
    while (s->passed_over != NULL) {
        struct held *h = s->passed_over;
        pass_over_no_more(s, h);
        stand(h);
    }
}

/* Whether the worker has enough for one of the class once that job is gone. */
static bool leaves_enough(const struct held *h, const Pb__ClassRecord *class)
{
    const Pb__ClassRecord *gone = h->class->record;
    struct worker without = *h->worker;

    without.cpu_used -= gone->cpu_millis;
    without.memory_used -= gone->memory_bytes;
    without.disk_used -= gone->disk_bytes;
    return worker_fits(&without, class);
}

/* Of those of a lesser claim than the priority, and that leave enough, the one with the least to
 * lose; `best`: one that was found before, or NULL. */
static struct held *victim_of_worker(const struct worker *w, const Pb__ClassRecord *class,
                                     int32_t priority, struct held *best)
{
    for (size_t i = 0; i < w->yields.count; i++) {
        struct held *h = held_at(w->yields.items[i]);
        if (h->claim < priority && (best == NULL || less_to_lose(h, best)) &&
            leaves_enough(h, class)) {
            best = h;
        }
    }
    return best;
}

static struct held *victim_of_group(const struct group *g, const Pb__ClassRecord *class,
                                    int32_t priority, struct held *best)
{
    struct held *least = group_least(g);

    if (least->claim >= priority || (best != NULL && !less_to_lose(least, best))) {
        return best;
    }
    if (class->cpu_millis == 0 && class->memory_bytes == 0 && class->disk_bytes == 0) {
        return least;
    }
    for (size_t i = 0; i < g->yields.count; i++) {
        const struct worker *w = HEAP_ITEM(g->yields.items[i], struct worker, yield);
        if (worker_least(w)->claim < priority) {
            best = victim_of_worker(w, class, priority, best);
        }
    }
    return best;
}

static struct held *victim_for(const struct demand *d, int32_t priority)
{
    struct held *best = NULL;

    for (const struct bid *b = d->bids; b != NULL; b = b->next_of_demand) {
        if (b->group->yields.count > 0) {
            best = victim_of_group(b->group, d->class->record, priority, best);
        }
    }
    return best;
}

/* Of the pool's demands that somebody has to give way to, the one that comes first. */
static struct held *victim_of_pool(struct sched *s, const struct pool *p,
                                   const struct ask **ret_for)
{
    const int32_t least = pool_least(p)->claim;
    struct held *victim = NULL;

    for (struct demand *d = p->demands; d != NULL; d = d->next_of_pool) {
        const struct ask *a = demand_top(d);
        const int32_t priority = a != NULL ? a->want->best->priority : INT32_MIN;
        struct held *h;
        if (a == NULL || priority <= least || (victim != NULL && !ask_before(a, *ret_for))) {
            continue;
        }
        s->weighed++;
        h = victim_for(d, priority);
        if (h != NULL) {
            victim = h;
            *ret_for = a;
        }
    }
    return victim;
}

bool sched_preempt(struct sched *s, struct sched_victim *ret)
{
    struct pool *p;
    struct pool *tmp;

    check(s->dirty == NULL); /* right after a round */
    HASH_ITER (hh, s->pools, p, tmp) {
        const struct ask *a = NULL;
        struct held *h = p->yields.count > 0 ? victim_of_pool(s, p, &a) : NULL;
        if (h != NULL) {
            const struct lane *l = a->want->best;
            *ret = (struct sched_victim){.job_id = h->job_id,
                                         .worker_id = h->worker->id,
                                         .for_job_id = l->jobs[l->first].job_id};
            pass_over(s, h);
            return true;
        }
    }
    return false;
}
