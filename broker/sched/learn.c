#include "common/base.h"

#include "broker/sched/state.h"
#include "common/limits.h"

#include <stdlib.h>

#define LANES_KEPT   65536u /* empty ones with the others, before a new beginning drops those */
#define WEIGHT_SCALE 1000u  /* the greatest weight: time divided by any is still a number */

struct held *held_find(struct sched *s, uint64_t job_id)
{
    struct held *h;

    HASH_FIND(hh, s->held, &job_id, sizeof(job_id), h);
    return h;
}

static void take(struct worker *w, const Pb__ClassRecord *class)
{
    w->used++;
    w->cpu_used += class->cpu_millis;
    w->memory_used += class->memory_bytes;
    w->disk_used += class->disk_bytes;
}

static void give_back(struct worker *w, const Pb__ClassRecord *class)
{
    check(w->used > 0);
    w->used--;
    w->cpu_used -= class->cpu_millis;
    w->memory_used -= class->memory_bytes;
    w->disk_used -= class->disk_bytes;
}

void held_add(struct sched *s, struct held what)
{
    struct held *h = s->unused;

    if (h != NULL) {
        s->unused = h->next_unused;
    } else {
        h = arena_alloc(&s->arena, sizeof(*h));
    }
    *h = what;
    HASH_ADD(hh, s->held, job_id, sizeof(h->job_id), h);
    h->displaceable = false;
    take(h->worker, h->class->record);
    if (what.displaceable) {
        held_make_displaceable(h);
    }
    worker_update(s, h->worker);
    share_running(h->share, 1, 0);
}

void held_remove(struct sched *s, struct held *h, uint64_t now_ms, bool charge)
{
    const uint64_t took_ms = now_ms > h->since_ms ? now_ms - h->since_ms : 1;

    HASH_DEL(s->held, h);
    held_not_displaceable(s, h);
    give_back(h->worker, h->class->record);
    worker_update(s, h->worker);
    share_running(h->share, -1, charge ? took_ms * WEIGHT_SCALE / h->share->project->weight : 0);
    h->next_unused = s->unused;
    s->unused = h;
}

static struct held holding(struct sched *s, uint64_t job_id, uint64_t worker_id,
                           struct class *class, uint64_t project_id)
{
    struct worker *w = worker_for(s, worker_id, class->record);

    return (struct held){
        .job_id = job_id,
        .worker = w,
        .class = class,
        .share = share_of(s, w->pool, project_of(s, project_id)),
    };
}

/* True: it was proposed, and so it came. */
static bool confirmed(struct sched *s, const struct queue_change *q)
{
    struct held *h;

    if (!(q->entered & STATE_HELD)) {
        return false;
    }
    h = held_find(s, q->job_id);
    if (h == NULL || h->lane == NULL || h->worker->id != q->worker_id) {
        return false;
    }
    h->lane = NULL;
    if (q->interruptible) {
        held_make_displaceable(h);
    }
    return true;
}

static void learn_held(struct sched *s, struct class *class, const struct queue_change *q,
                       uint64_t now_ms)
{
    struct held *old = held_find(s, q->job_id);
    struct held h;

    if (old != NULL) {
        held_remove(s, old, now_ms, old->lane == NULL);
    }
    if (q->entered & STATE_HELD) {
        h = holding(s, q->job_id, q->worker_id, class, q->project_id);
        h.claim = band_at(q->priority, q->queued_ms, now_ms, &(uint64_t){0});
        h.displaceable = q->interruptible;
        h.since_ms = now_ms;
        held_add(s, h);
    }
}

/* It stays in its worker's hands, but is on its way out. */
static void learn_canceling(struct sched *s, const struct queue_change *q)
{
    struct held *h = held_find(s, q->job_id);

    if (h != NULL) {
        held_not_displaceable(s, h);
    }
}

static void learn_ready(struct sched *s, struct class *class, const struct queue_change *q)
{
    struct want *w = want_of(s, class, q->project_id);
    struct lane *l = lane_of(s, w, q->priority);

    want_mark(s, w);
    if (q->left & STATE_READY) {
        lane_remove(l, q->ready_seq, q->job_id);
    } else {
        lane_insert(
            s, l,
            (struct waiting){.seq = q->ready_seq, .job_id = q->job_id, .queued_ms = q->queued_ms});
    }
}

void sched_learn(struct sched *s, struct tx *tx, uint64_t now_ms,
                 const struct queue_change *changes, size_t count)
{
    s->tx = tx;
    for (size_t i = 0; i < count && !s->stale; i++) {
        const struct queue_change *q = &changes[i];
        struct class *class;
        if (confirmed(s, q)) {
            continue;
        }
        if ((q->left | q->entered) == 0) {
            learn_canceling(s, q);
            continue;
        }
        class = class_of(s, q->class_id);
        if (class == NULL) {
            continue; /* it came and went, and so did all its jobs */
        }
        if ((q->left | q->entered) & STATE_HELD) {
            learn_held(s, class, q, now_ms);
        }
        if ((q->left | q->entered) & STATE_READY) {
            learn_ready(s, class, q);
        }
    }
    s->tx = NULL;
}

static void forget_tables(struct sched *s)
{
    struct pool *p;
    struct pool *p_tmp;
    struct class *c;
    struct class *c_tmp;
    struct group *g;
    struct group *g_tmp;

    HASH_ITER (hh, s->groups, g, g_tmp) {
        heap_release(&g->workers);
        heap_release(&g->bids);
        heap_release(&g->yields);
    }
    HASH_ITER (hh, s->pools, p, p_tmp) {
        for (struct demand *d = p->demands; d != NULL; d = d->next_of_pool) {
            heap_release(&d->asks);
        }
        heap_release(&p->yields);
        HASH_CLEAR(hh, p->shares);
    }
    HASH_ITER (hh, s->classes, c, c_tmp) {
        HASH_CLEAR(hh, c->wants);
    }
    HASH_CLEAR(hh, s->groups);
    HASH_CLEAR(hh, s->pools);
    HASH_CLEAR(hh, s->classes);
    HASH_CLEAR(hh, s->projects);
    HASH_CLEAR(hh, s->words);
    HASH_CLEAR(hh, s->held);
    heap_release(&s->aging);
}

static void forget_worker(struct sched *s, struct worker *w)
{
    HASH_DEL(s->workers, w);
    worker_free(w);
}

static void forget_place(struct worker *w)
{
    w->pool = NULL;
    w->group = NULL;
    w->changed = false;
    w->shut = false;
    w->node.at = 0;
    w->yield.at = 0;
    heap_release(&w->yields);
    w->used = 0;
    w->cpu_used = w->memory_used = w->disk_used = 0;
}

/* All but the workers, and what they say of themselves. */
static void forget(struct sched *s)
{
    struct worker *w;
    struct worker *tmp;

    forget_tables(s);
    arena_release(&s->arena);
    s->free_groups = NULL;
    s->unused = NULL;
    s->passed_over = NULL;
    s->dirty = NULL;
    s->changed = NULL;
    s->proposed_count = 0;
    s->lane_count = 0;
    HASH_ITER (hh, s->workers, w, tmp) {
        forget_place(w);
        if (w->twin != NULL) {
            forget_place(w->twin);
        }
        if (w->gone) {
            forget_worker(s, w);
        }
    }
}

static void find_holders(struct sched *s, uint64_t now_ms)
{
    struct cursor cur;

    for (tx_seek(&cur, s->tx, T_ASSIGNMENT, STR_NULL, NULL); cur.valid; tx_next(&cur)) {
        const uint64_t id = key_read_u64(cur.key, 0);
        const Pb__AssignmentRecord *a = assignment_get(s->tx, id);
        const Pb__JobRecord *job = job_get(s->tx, id);
        struct held h;
        if (a == NULL || job == NULL) {
            check(!tx_ok(s->tx));
            break;
        }
        h = holding(s, id, a->worker_id, class_of(s, job->class_id), job->project_id);
        h.claim = band_at(job->priority, job->queued_ms, a->assigned_ms, &(uint64_t){0});
        h.displaceable = job->interruptible && job->state != JOB_CANCELING;
        h.since_ms = job->started_ms != 0 ? job->started_ms : now_ms;
        held_add(s, h);
    }
    cursor_end(&cur);
}

void sched_rebuild(struct sched *s, uint64_t now_ms)
{
    struct worker *w;
    struct worker *tmp;

    forget(s);
    s->stale = false;
    s->aging.before = want_due_before;
    HASH_ITER (hh, s->workers, w, tmp) {
        worker_of(s, w->id);
    }
    find_holders(s, now_ms);
    lanes_open(s);
    s->lane_limit = MAX(2 * s->lane_count, LANES_KEPT);
    s->class_limit = HASH_COUNT(s->classes) + LIMIT_CLASSES; /* gone ones with the others */
}

struct sched *sched_new(void)
{
    struct sched *s = xcalloc(1, sizeof(*s));

    arena_init(&s->arena, 0);
    s->stale = true;
    return s;
}

void sched_free(struct sched *s)
{
    struct worker *w;
    struct worker *tmp;

    if (s == NULL) {
        return;
    }
    forget(s);
    HASH_ITER (hh, s->workers, w, tmp) {
        forget_worker(s, w);
    }
    free(s->proposed);
    free(s);
}

void sched_reset(struct sched *s)
{
    s->stale = true;
}

/* One that moves to another pool takes its jobs along: that is a matter for a new beginning. */
void sched_worker(struct sched *s, uint64_t worker_id, const Pb__WorkerRecord *record, bool open)
{
    struct worker *w;

    HASH_FIND(hh, s->workers, &worker_id, sizeof(worker_id), w);
    check(record != NULL || !open);
    if (record == NULL && w == NULL) {
        return; /* it was never heard of */
    }
    if (w == NULL) {
        w = worker_new(s, worker_id);
    }
    worker_leave(s, w);
    w->gone = record == NULL;
    if (record != NULL) {
        s->stale |= w->pool != NULL && strcmp(w->pool->name, record->pool) != 0;
        worker_offers(w, record);
    }
    w->open = open;
    w->shut = false;
    if (w->twin != NULL) {
        w->twin->open = open;
        w->twin->shut = false;
    }
    if (!w->changed) {
        w->changed = true;
        LL_PREPEND2(s->changed, w, next_changed);
    }
}
