#include "common/base.h"

#include "broker/sched/state.h"

#include <stdlib.h>

/* Workers, in groups of those that offer the same. */

static uint32_t free_slots(const struct worker *w)
{
    return w->open && !w->shut && w->used < w->record->slots ? w->record->slots - w->used : 0;
}

/* The load is spread. */
static bool worker_before(const struct heap_node *a, const struct heap_node *b)
{
    const struct worker *x = HEAP_ITEM(a, struct worker, node);
    const struct worker *y = HEAP_ITEM(b, struct worker, node);
    const uint32_t i = free_slots(x), j = free_slots(y);

    return i != j ? i > j : x->id < y->id;
}

static bool bid_before(const struct heap_node *a, const struct heap_node *b)
{
    return ask_before(demand_top(HEAP_ITEM(a, struct bid, node)->demand),
                      demand_top(HEAP_ITEM(b, struct bid, node)->demand));
}

bool word_known(struct sched *s, const char *text)
{
    struct word *w;

    HASH_FIND(hh, s->words, text, (unsigned)strlen(text), w);
    return w != NULL;
}

static bool worker_has_word(const struct worker *w, const char *text)
{
    for (size_t i = 0; i < w->record->n_tags; i++) {
        if (strcmp(w->record->tags[i], text) == 0) {
            return true;
        }
    }
    return false;
}

/* A tag that nobody asked for before: those who have it are a group of their own from now on. */
void word_add(struct sched *s, const char *text)
{
    struct worker *w;
    struct worker *tmp;
    struct word *word;

    if (word_known(s, text)) {
        return;
    }
    word = arena_alloc(&s->arena, sizeof(*word));
    word->text = arena_strdup(&s->arena, str_from(text));
    HASH_ADD_KEYPTR(hh, s->words, word->text, (unsigned)strlen(word->text), word);
    HASH_ITER (hh, s->workers, w, tmp) {
        if (w->group != NULL && worker_has_word(w, text)) {
            worker_regroup(s, w);
        }
        if (w->twin != NULL && w->twin->group != NULL && worker_has_word(w->twin, text)) {
            worker_regroup(s, w->twin);
        }
    }
}

static struct pool *pool_of(struct sched *s, const char *name)
{
    const Pb__PoolRecord *r;
    struct class *c;
    struct class *tmp;
    struct pool *p;

    HASH_FIND(hh, s->pools, name, (unsigned)strlen(name), p);
    if (p != NULL) {
        return p;
    }
    r = pool_get(s->tx, name);
    p = arena_alloc(&s->arena, sizeof(*p));
    p->name = arena_strdup(&s->arena, str_from(name));
    p->record = r != NULL ? (const Pb__PoolRecord *)pb_copy(&s->arena, &r->base) : NULL;
    p->yields.before = group_yields_before;
    HASH_ADD_KEYPTR(hh, s->pools, p->name, (unsigned)strlen(p->name), p);
    HASH_ITER (hh, s->classes, c, tmp) {
        demand_add(s, p, c);
    }
    return p;
}

const char *sched_pool_of(const struct sched *s, uint64_t worker_id)
{
    const struct worker *w;

    HASH_FIND(hh, s->workers, &worker_id, sizeof(worker_id), w);
    return w != NULL && w->pool != NULL && w->pool->record != NULL ? w->pool->name : "";
}

static void add_word(struct buf *b, const char *word)
{
    buf_addf(b, "%zu:%s", strlen(word), word);
}

/* What tells the group of a worker: pool, executors, tags that somebody asks for. */
static void offer_text(struct sched *s, const struct worker *w, struct buf *b)
{
    const Pb__WorkerRecord *r = w->record;

    add_word(b, r->pool);
    buf_addf(b, "%c%zu;", r->run_untagged ? 'u' : 't', r->n_executors);
    for (size_t i = 0; i < r->n_executors; i++) {
        add_word(b, r->executors[i]);
    }
    for (size_t i = 0; i < r->n_tags; i++) {
        if (word_known(s, r->tags[i])) {
            add_word(b, r->tags[i]);
        }
    }
}

static struct group *group_new(struct sched *s, struct str offer, const struct worker *w)
{
    struct group *g = arena_alloc(&s->arena, sizeof(*g));

    g->offer = arena_str(&s->arena, offer);
    g->as = (Pb__WorkerRecord *)pb_copy(&s->arena, &w->record->base);
    g->as->n_tags = 0;
    for (size_t i = 0; i < w->record->n_tags; i++) {
        if (word_known(s, w->record->tags[i])) {
            g->as->tags[g->as->n_tags++] = arena_strdup(&s->arena, str_from(w->record->tags[i]));
        }
    }
    g->pool = w->pool;
    g->workers.before = worker_before;
    g->bids.before = bid_before;
    g->yields.before = worker_yields_before;
    g->serial = s->next_serial++;
    HASH_ADD_KEYPTR(hh, s->groups, g->offer.p, (unsigned)g->offer.n, g);
    LL_PREPEND2(g->pool->groups, g, next_of_pool);
    for (struct demand *d = g->pool->demands; d != NULL; d = d->next_of_pool) {
        bid_add(s, d, g);
    }
    return g;
}

static void group_freedom(struct sched *s, struct group *g)
{
    const bool is_free = g->workers.count > 0;

    if (is_free && !g->is_free) {
        DL_APPEND2(s->free_groups, g, free_prev, free_next);
    } else if (!is_free && g->is_free) {
        DL_DELETE2(s->free_groups, g, free_prev, free_next);
    }
    g->is_free = is_free;
}

/* It alone: its twin stays where it is. */
static void leave(struct sched *s, struct worker *w)
{
    if (w->group != NULL) {
        worker_yields_not(w);
        heap_remove(&w->group->workers, &w->node);
        group_freedom(s, w->group);
        w->group = NULL;
    }
}

void worker_leave(struct sched *s, struct worker *w)
{
    leave(s, w);
    if (w->twin != NULL) {
        leave(s, w->twin);
    }
}

void worker_regroup(struct sched *s, struct worker *w)
{
    struct buf offer = BUF_INIT;
    struct group *g;

    leave(s, w);
    offer_text(s, w, &offer);
    HASH_FIND(hh, s->groups, offer.p, (unsigned)offer.n, g);
    w->group = g != NULL ? g : group_new(s, buf_str(&offer), w);
    buf_release(&offer);
    worker_update(s, w);
}

static bool has_room(uint64_t has, uint64_t used, uint64_t wants)
{
    return has == 0 || wants == 0 || (used <= has && has - used >= wants);
}

bool worker_fits(const struct worker *w, const Pb__ClassRecord *class)
{
    return has_room(w->record->cpu_millis, w->cpu_used, class->cpu_millis) &&
           has_room(w->record->memory_bytes, w->memory_used, class->memory_bytes) &&
           has_room(w->record->disk_bytes, w->disk_used, class->disk_bytes);
}

/* The worker may have more to give than before. What it has too little for stays aside: all others
 * of the group had too little when they were looked through, and each of them comes here, too,
 * before it has more. */
static void reopen(struct group *g, const struct worker *w)
{
    struct bid **at = &g->aside;

    while (*at != NULL) {
        struct bid *b = *at;
        if (worker_fits(w, b->demand->class->record)) {
            *at = b->next_aside;
            b->aside = false;
            bid_update(b);
        } else {
            at = &b->next_aside;
        }
    }
}

void worker_update(struct sched *s, struct worker *w)
{
    struct group *g = w->group;

    if (g == NULL) {
        return; /* it changed, and is placed again before the next proposal */
    }
    if (free_slots(w) > 0) {
        heap_put(&g->workers, &w->node);
        reopen(g, w);
    } else {
        heap_remove(&g->workers, &w->node);
    }
    group_freedom(s, g);
    worker_yields(w);
}

void sched_refused(struct sched *s, uint64_t worker_id)
{
    struct worker *w;

    HASH_FIND(hh, s->workers, &worker_id, sizeof(worker_id), w);
    for (; w != NULL; w = w->twin) {
        w->shut = true;
        worker_update(s, w);
    }
}

/* Places a worker whose record is there. */
static void settle(struct sched *s, struct worker *w)
{
    w->pool = pool_of(s, w->record->pool);
    worker_regroup(s, w);
    if (w->twin != NULL) {
        settle(s, w->twin);
    }
}

static struct worker *make(uint64_t id)
{
    struct worker *w = xcalloc(1, sizeof(*w));

    w->id = id;
    arena_init_small(&w->arena, WORKER_ROOM);
    return w;
}

struct worker *worker_new(struct sched *s, uint64_t id)
{
    struct worker *w = make(id);

    HASH_ADD(hh, s->workers, id, sizeof(w->id), w);
    return w;
}

void worker_free(struct worker *w)
{
    if (w != NULL) {
        worker_free(w->twin);
        arena_release(&w->arena);
        free(w);
    }
}

/* Only actions, or all but actions. */
static void copy_offer(struct worker *w, const Pb__WorkerRecord *record)
{
    Pb__WorkerRecord *copy;
    size_t n = 0;

    arena_release(&w->arena);
    copy = (Pb__WorkerRecord *)pb_copy(&w->arena, &record->base);
    for (size_t i = 0; i < copy->n_executors; i++) {
        if (executor_is_action(copy->executors[i]) == w->is_twin) {
            copy->executors[n++] = copy->executors[i];
        }
    }
    copy->n_executors = n;
    copy->slots = w->is_twin ? copy->actions : copy->slots;
    w->record = copy;
}

static void add_twin(struct worker *w, const Pb__WorkerRecord *record)
{
    if (w->twin == NULL) {
        w->twin = make(w->id);
        w->twin->is_twin = true;
        w->twin->open = w->open;
        w->twin->shut = w->shut;
    }
    copy_offer(w->twin, record);
}

void worker_offers(struct worker *w, const Pb__WorkerRecord *record)
{
    copy_offer(w, record);
    if (w->twin != NULL || record->actions > 0) {
        add_twin(w, record);
    }
}

/* One that takes actions no more may still have some. */
struct worker *worker_for(struct sched *s, uint64_t id, const Pb__ClassRecord *class)
{
    struct worker *w = worker_of(s, id);

    if (!class_is_action(class)) {
        return w;
    }
    if (w->twin == NULL) {
        add_twin(w, w->record);
        settle(s, w->twin);
    }
    return w->twin;
}

struct worker *worker_of(struct sched *s, uint64_t id)
{
    static const Pb__WorkerRecord none = PB__WORKER_RECORD__INIT;
    const Pb__WorkerRecord *r;
    struct worker *w;

    HASH_FIND(hh, s->workers, &id, sizeof(id), w);
    if (w == NULL) {
        w = worker_new(s, id);
    }
    if (w->record == NULL) {
        r = worker_get(s->tx, id);
        check(r != NULL || !tx_ok(s->tx));
        worker_offers(w, r != NULL ? r : &none);
    }
    if (w->group == NULL) {
        settle(s, w);
    }
    return w;
}

void workers_settle(struct sched *s)
{
    while (s->changed != NULL) {
        struct worker *w = s->changed;
        s->changed = w->next_changed;
        w->changed = false;
        worker_of(s, w->id);
    }
}

struct worker *group_pick(struct sched *s, const struct group *g, const Pb__ClassRecord *class)
{
    struct worker *best = NULL;

    for (size_t i = 0; i < g->workers.count; i++) {
        struct worker *w = HEAP_ITEM(g->workers.items[i], struct worker, node);
        s->fitted++;
        if (worker_fits(w, class) && (best == NULL || worker_before(&w->node, &best->node))) {
            best = w;
            if (i == 0) {
                return best;
            }
        }
    }
    return best;
}
