#include "common/base.h"

#include "broker/sched/state.h"

#include <stdlib.h>

static struct demand *group_demand(const struct group *g)
{
    struct heap_node *n = heap_top(&g->bids);

    return n != NULL ? HEAP_ITEM(n, struct bid, node)->demand : NULL;
}

static struct worker *group_first(const struct group *g)
{
    return HEAP_ITEM(heap_top(&g->workers), struct worker, node);
}

static bool pool_is_full(const struct pool *p)
{
    return p->record != NULL && p->record->max_running != 0 && p->running >= p->record->max_running;
}

/* Whether a should be served before b; both have a free worker and somebody who asks. */
static bool group_before(const struct group *a, const struct group *b)
{
    const int32_t x = demand_top(group_demand(a))->want->band;
    const int32_t y = demand_top(group_demand(b))->want->band;
    const struct worker *v = group_first(a), *w = group_first(b);
    const uint32_t i = v->record->slots - v->used, j = w->record->slots - w->used;

    if (x != y) {
        return x > y;
    }
    if (a->as->n_tags != b->as->n_tags) {
        return a->as->n_tags < b->as->n_tags;
    }
    return i != j ? i > j : v->id < w->id;
}

static struct group *best_group(const struct sched *s)
{
    struct group *best = NULL;
    struct group *g;

    DL_FOREACH2(s->free_groups, g, free_next)
    {
        if (g->bids.count > 0 && !pool_is_full(g->pool) &&
            (best == NULL || group_before(g, best))) {
            best = g;
        }
    }
    return best;
}

/* No worker of the group has enough left for the class. */
static void set_aside(struct group *g)
{
    struct bid *b = HEAP_ITEM(heap_top(&g->bids), struct bid, node);

    b->aside = true;
    b->next_aside = g->aside;
    g->aside = b;
    bid_update(b);
}

static void remember(struct sched *s, uint64_t job_id)
{
    if (s->proposed_count == s->proposed_cap) {
        s->proposed_cap = MAX(2 * s->proposed_cap, 64);
        s->proposed = xrealloc(s->proposed, s->proposed_cap * sizeof(*s->proposed));
    }
    s->proposed[s->proposed_count++] = job_id;
}

static struct sched_proposal book(struct sched *s, struct ask *a, struct worker *w, uint64_t now_ms)
{
    struct want *want = a->want;
    struct share *share = a->share;
    struct lane *lane = want->best;
    struct held h = {
        .job_id = lane->jobs[lane->first].job_id,
        .worker = w,
        .share = share,
        .class = want->class,
        .lane = lane,
        .claim = want->band,
        .since_ms = now_ms,
    };

    share->pool->clock = share->used;
    lane_take(s, lane);
    want_update(s, want, now_ms);
    held_add(s, h);
    remember(s, h.job_id);
    return (struct sched_proposal){.job_id = h.job_id, .worker_id = w->id};
}

/* What was proposed and did not come: the lane is read again. */
static void take_back(struct sched *s, uint64_t now_ms)
{
    for (size_t i = 0; i < s->proposed_count; i++) {
        struct held *h = held_find(s, s->proposed[i]);
        if (h != NULL && h->lane != NULL) {
            struct lane *l = h->lane;
            held_remove(s, h, now_ms, false);
            want_mark(s, l->want);
            lane_forget(l);
        }
    }
    s->proposed_count = 0;
}

static void settle(struct sched *s, uint64_t now_ms)
{
    struct heap_node *n;

    take_back(s, now_ms);
    victims_reconsider(s);
    s->round++;
    if (s->stale || s->lane_count > s->lane_limit || HASH_COUNT(s->classes) > s->class_limit) {
        sched_rebuild(s, now_ms);
    }
    workers_settle(s);
    while (s->dirty != NULL) {
        struct want *w = s->dirty;
        s->dirty = w->next_dirty;
        want_update(s, w, now_ms);
    }
    while ((n = heap_top(&s->aging)) != NULL && HEAP_ITEM(n, struct want, node)->due_ms <= now_ms) {
        want_update(s, HEAP_ITEM(n, struct want, node), now_ms);
    }
}

static int by_worker(const void *a, const void *b)
{
    const struct sched_proposal *x = a, *y = b;

    if (x->worker_id != y->worker_id) {
        return x->worker_id < y->worker_id ? -1 : 1;
    }
    return x->order < y->order ? -1 : x->order > y->order;
}

size_t sched_propose(struct sched *s, struct tx *tx, uint64_t now_ms, struct sched_proposal *ret,
                     size_t max)
{
    struct group *g;
    size_t n = 0;

    s->tx = tx;
    settle(s, now_ms);
    while (n < max && tx_ok(tx) && (g = best_group(s)) != NULL) {
        struct ask *a = demand_top(group_demand(g));
        struct worker *w = group_pick(s, g, a->want->class->record);
        if (w == NULL) {
            set_aside(g);
            continue;
        }
        ret[n] = book(s, a, w, now_ms);
        ret[n].order = (uint32_t)n;
        n++;
    }
    qsort(ret, n, sizeof(*ret), by_worker);
    s->tx = NULL;
    return n;
}

void sched_stat(const struct sched *s, struct sched_stat *ret)
{
    struct class *c;
    struct class *c_tmp;
    struct want *w;
    struct want *w_tmp;

    *ret = (struct sched_stat){
        .groups = HASH_COUNT(s->groups),
        .workers = HASH_COUNT(s->workers),
        .running = HASH_COUNT(s->held),
        .rows = s->rows,
        .weighed = s->weighed,
        .fitted = s->fitted,
    };
    HASH_ITER (hh, s->classes, c, c_tmp) {
        HASH_ITER (hh, c->wants, w, w_tmp) {
            for (const struct lane *l = w->lanes; l != NULL; l = l->next) {
                ret->lanes += l->count > 0;
            }
        }
    }
}
