#include "common/base.h"

#include "broker/sched/state.h"

/* Who wants what, and in which order. */

static struct ask *ask_at(const struct heap_node *n)
{
    return HEAP_ITEM(n, struct ask, node);
}

/* The smaller share of the pool for its weight: first of running jobs, then of time. */
static int share_order(const struct share *a, const struct share *b)
{
    const uint64_t x = (uint64_t)a->running * b->project->weight;
    const uint64_t y = (uint64_t)b->running * a->project->weight;

    if (x != y) {
        return x < y ? -1 : 1;
    }
    return a->used == b->used ? 0 : a->used < b->used ? -1 : 1;
}

bool ask_before(const struct ask *a, const struct ask *b)
{
    const struct waiting *x = &a->want->best->jobs[a->want->best->first];
    const struct waiting *y = &b->want->best->jobs[b->want->best->first];
    const int share = share_order(a->share, b->share);

    if (a->want->band != b->want->band) {
        return a->want->band > b->want->band;
    }
    if (share != 0) {
        return share < 0;
    }
    return x->seq != y->seq ? x->seq < y->seq : x->job_id < y->job_id;
}

static bool ask_node_before(const struct heap_node *a, const struct heap_node *b)
{
    return ask_before(ask_at(a), ask_at(b));
}

bool want_due_before(const struct heap_node *a, const struct heap_node *b)
{
    return HEAP_ITEM(a, struct want, node)->due_ms < HEAP_ITEM(b, struct want, node)->due_ms;
}

struct ask *demand_top(const struct demand *d)
{
    struct heap_node *n = heap_top(&d->asks);

    return n != NULL ? ask_at(n) : NULL;
}

void bid_update(struct bid *b)
{
    if (demand_top(b->demand) != NULL && !b->aside) {
        heap_put(&b->group->bids, &b->node);
    } else {
        heap_remove(&b->group->bids, &b->node);
    }
}

static void bids_update(const struct demand *d)
{
    for (struct bid *b = d->bids; b != NULL; b = b->next_of_demand) {
        bid_update(b);
    }
}

static bool at_limit(const struct share *sh)
{
    const struct project *p = sh->project;
    const Pb__PoolRecord *pool = sh->pool->record;

    return (p->max_running != 0 && p->running >= p->max_running) ||
           (pool != NULL && pool->project_max_running != 0 &&
            sh->running >= pool->project_max_running);
}

static void ask_out(struct ask *a)
{
    if (a->node.at != 0) {
        heap_remove(&a->demand->asks, &a->node);
        bids_update(a->demand);
    }
}

static void ask_update(struct ask *a)
{
    if (a->want->dirty || a->want->best == NULL || at_limit(a->share)) {
        ask_out(a);
    } else {
        heap_put(&a->demand->asks, &a->node);
        bids_update(a->demand);
    }
}

static void share_out(struct share *sh)
{
    for (struct ask *a = sh->asks; a != NULL; a = a->next_of_share) {
        ask_out(a);
    }
}

static void share_update(struct share *sh)
{
    for (struct ask *a = sh->asks; a != NULL; a = a->next_of_share) {
        ask_update(a);
    }
}

/* In its other pools, too, the project may have come to its limit, or have left it. */
static void project_update(struct project *p)
{
    for (struct want *w = p->wants; w != NULL; w = w->next_of_project) {
        for (struct ask *a = w->asks; a != NULL; a = a->next_of_want) {
            ask_update(a);
        }
    }
}

void share_running(struct share *sh, int delta, uint64_t used)
{
    struct project *p = sh->project;
    const bool was_full = p->max_running != 0 && p->running >= p->max_running;

    check(delta > 0 || (sh->running > 0 && p->running > 0 && sh->pool->running > 0));
    share_out(sh);
    sh->running += (uint32_t)delta;
    p->running += (uint32_t)delta;
    sh->pool->running += (uint32_t)delta;
    sh->used += used;
    share_update(sh);
    if (was_full != (p->max_running != 0 && p->running >= p->max_running)) {
        project_update(p);
    }
}

/* A project that begins to want something has no claim from the time when it wanted nothing. */
static void share_waits(struct share *sh, bool more)
{
    if (more && sh->waiting == 0 && sh->running == 0) {
        sh->used = MAX(sh->used, sh->pool->clock);
    }
    check(more || sh->waiting > 0);
    sh->waiting += more ? 1u : (uint32_t)-1;
}

/* The lane whose first job comes first. */
static struct lane *best_lane(struct want *w, uint64_t now_ms, int32_t *ret_band)
{
    struct lane *best = NULL;

    w->due_ms = UINT64_MAX;
    for (struct lane *l = w->lanes; l != NULL; l = l->next) {
        uint64_t due_ms;
        int32_t band;
        if (l->count == 0) {
            continue;
        }
        band = band_at(l->priority, l->jobs[l->first].queued_ms, now_ms, &due_ms);
        w->due_ms = MIN(w->due_ms, due_ms);
        if (best == NULL || band > *ret_band ||
            (band == *ret_band && l->jobs[l->first].seq < best->jobs[best->first].seq)) {
            best = l;
            *ret_band = band;
        }
    }
    return best;
}

static void want_schedule_aging(struct sched *s, struct want *w)
{
    if (w->best != NULL && w->due_ms != UINT64_MAX) {
        heap_put(&s->aging, &w->node);
    } else {
        heap_remove(&s->aging, &w->node);
    }
}

void want_update(struct sched *s, struct want *w, uint64_t now_ms)
{
    const bool waited = w->best != NULL;

    w->dirty = false;
    for (struct lane *l = w->lanes; l != NULL; l = l->next) {
        lane_fill(s, l);
    }
    w->best = best_lane(w, now_ms, &w->band);
    for (struct ask *a = w->asks; a != NULL; a = a->next_of_want) {
        if (waited != (w->best != NULL)) {
            share_waits(a->share, w->best != NULL);
        }
        ask_update(a);
    }
    want_schedule_aging(s, w);
}

void want_mark(struct sched *s, struct want *w)
{
    if (w->dirty) {
        return;
    }
    for (struct ask *a = w->asks; a != NULL; a = a->next_of_want) {
        ask_out(a);
    }
    w->dirty = true;
    LL_PREPEND2(s->dirty, w, next_dirty);
}

struct project *project_of(struct sched *s, uint64_t id)
{
    const Pb__ProjectRecord *r;
    struct project *p;

    HASH_FIND(hh, s->projects, &id, sizeof(id), p);
    if (p != NULL) {
        return p;
    }
    r = project_get(s->tx, id);
    p = arena_alloc(&s->arena, sizeof(*p));
    p->id = id;
    p->name = r != NULL ? arena_strdup(&s->arena, str_from(r->name)) : "";
    p->weight = r != NULL && r->weight != 0 ? r->weight : SCHED_WEIGHT;
    p->max_running = r != NULL ? r->max_running : 0;
    HASH_ADD(hh, s->projects, id, sizeof(p->id), p);
    return p;
}

struct share *share_of(struct sched *s, struct pool *pool, struct project *project)
{
    struct share *sh;

    HASH_FIND(hh, pool->shares, &project->id, sizeof(project->id), sh);
    if (sh == NULL) {
        sh = arena_alloc(&s->arena, sizeof(*sh));
        sh->project_id = project->id;
        sh->project = project;
        sh->pool = pool;
        HASH_ADD(hh, pool->shares, project_id, sizeof(sh->project_id), sh);
    }
    return sh;
}

static void ask_add(struct sched *s, struct want *w, struct demand *d)
{
    const enum pool_bar bar = pool_bar(d->pool->record, d->pool->name, w->class->record,
                                       w->project->name);
    struct ask *a;

    if (bar != POOL_BAR_NONE) {
        return;
    }
    a = arena_alloc(&s->arena, sizeof(*a));
    a->want = w;
    a->demand = d;
    a->share = share_of(s, d->pool, w->project);
    LL_PREPEND2(w->asks, a, next_of_want);
    LL_PREPEND2(a->share->asks, a, next_of_share);
    if (w->best != NULL) { /* of which its other shares know */
        share_waits(a->share, true);
        ask_update(a);
    }
}

void bid_add(struct sched *s, struct demand *d, struct group *g)
{
    struct bid *b;

    if (!worker_serves(g->as, d->class->record)) {
        return;
    }
    b = arena_alloc(&s->arena, sizeof(*b));
    b->demand = d;
    b->group = g;
    LL_PREPEND2(d->bids, b, next_of_demand);
    bid_update(b);
}

void demand_add(struct sched *s, struct pool *pool, struct class *class)
{
    const enum pool_bar bar = pool_bar(pool->record, pool->name, class->record, "");
    struct demand *d;
    struct want *w;
    struct want *tmp;

    if (bar != POOL_BAR_NONE && bar != POOL_BAR_PROJECT) { /* which project is each want's matter */
        return;
    }
    d = arena_alloc(&s->arena, sizeof(*d));
    d->pool = pool;
    d->class = class;
    d->asks.before = ask_node_before;
    LL_PREPEND2(pool->demands, d, next_of_pool);
    LL_PREPEND2(class->demands, d, next_of_class);
    for (struct group *g = pool->groups; g != NULL; g = g->next_of_pool) {
        bid_add(s, d, g);
    }
    HASH_ITER (hh, class->wants, w, tmp) {
        ask_add(s, w, d);
    }
}

struct class *class_of(struct sched *s, uint64_t id)
{
    static const Pb__ClassRecord none = PB__CLASS_RECORD__INIT;
    const Pb__ClassRecord *r;
    struct class *c;
    struct pool *p;
    struct pool *tmp;

    HASH_FIND(hh, s->classes, &id, sizeof(id), c);
    if (c != NULL) {
        return c;
    }
    r = class_get(s->tx, id);
    if (r == NULL && tx_ok(s->tx)) {
        return NULL;
    }
    c = arena_alloc(&s->arena, sizeof(*c));
    c->id = id;
    c->record = (const Pb__ClassRecord *)pb_copy(&s->arena, r != NULL ? &r->base : &none.base);
    HASH_ADD(hh, s->classes, id, sizeof(c->id), c);
    for (size_t i = 0; i < c->record->n_tags; i++) {
        word_add(s, c->record->tags[i]);
    }
    HASH_ITER (hh, s->pools, p, tmp) {
        demand_add(s, p, c);
    }
    return c;
}

struct want *want_of(struct sched *s, struct class *class, uint64_t project_id)
{
    struct want *w;

    HASH_FIND(hh, class->wants, &project_id, sizeof(project_id), w);
    if (w != NULL) {
        return w;
    }
    w = arena_alloc(&s->arena, sizeof(*w));
    w->project_id = project_id;
    w->class = class;
    w->project = project_of(s, project_id);
    w->due_ms = UINT64_MAX;
    HASH_ADD(hh, class->wants, project_id, sizeof(w->project_id), w);
    LL_PREPEND2(w->project->wants, w, next_of_project);
    for (struct demand *d = class->demands; d != NULL; d = d->next_of_class) {
        ask_add(s, w, d);
    }
    return w;
}
