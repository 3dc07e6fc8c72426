#include "common/base.h"

#include "broker/core/query.h"
#include "broker/sched/sched.h"

#include <stdlib.h>

/* A class that has ready jobs and at least one worker to serve it. Its cursor stands on its first
 * job that was not proposed yet. */
struct line {
    struct cursor cur;
    uint32_t *workers; /* indices of those that serve it */
    size_t worker_count;
};

/* The lines as a binary heap: the best first job on top. */
struct lines {
    struct line **items;
    size_t count;
    size_t cap;
};

/* Key of T_READY: class, inverted priority, project, sequence, job. Behind the class, smaller is
 * better. */
static struct str place(const struct line *l)
{
    return str_sub(l->cur.key, sizeof(uint64_t), l->cur.key.n);
}

static bool before(const struct line *a, const struct line *b)
{
    return str_cmp(place(a), place(b)) < 0;
}

static void swap(struct lines *h, size_t a, size_t b)
{
    struct line *l = h->items[a];

    h->items[a] = h->items[b];
    h->items[b] = l;
}

static void sink(struct lines *h)
{
    size_t i = 0;

    for (;;) {
        size_t best = i;
        for (size_t child = 2 * i + 1; child <= 2 * i + 2 && child < h->count; child++) {
            best = before(h->items[child], h->items[best]) ? child : best;
        }
        if (best == i) {
            return;
        }
        swap(h, i, best);
        i = best;
    }
}

static void push(struct lines *h, struct line *l)
{
    size_t i = h->count;

    if (h->count == h->cap) {
        h->cap = MAX(2 * h->cap, 16);
        h->items = xrealloc(h->items, h->cap * sizeof(struct line *));
    }
    h->items[h->count++] = l;
    for (; i > 0 && before(h->items[i], h->items[(i - 1) / 2]); i = (i - 1) / 2) {
        swap(h, i, (i - 1) / 2);
    }
}

static void line_free(struct line *l)
{
    cursor_end(&l->cur);
    free(l->workers);
    free(l);
}

static void drop_top(struct lines *h)
{
    line_free(h->items[0]);
    h->items[0] = h->items[--h->count];
    sink(h);
}

static bool takes_work(const struct sched_worker *w)
{
    return w->free_slots > 0 && !w->record->paused && !w->record->draining;
}

/* NULL: no worker serves the class now. */
static struct line *line_new(struct tx *tx, uint64_t class_id, const struct sched_worker *workers,
                             size_t count)
{
    const struct key prefix = key_u64(class_id);
    const Pb__ClassRecord *class = class_get(tx, class_id);
    struct line *l = xcalloc(1, sizeof(*l));

    l->workers = xcalloc(count, sizeof(*l->workers));
    for (size_t i = 0; i < count && class != NULL; i++) {
        if (takes_work(&workers[i]) && worker_serves(workers[i].record, class)) {
            l->workers[l->worker_count++] = (uint32_t)i;
        }
    }
    if (l->worker_count > 0) {
        tx_seek(&l->cur, tx, T_READY, key_str(&prefix), NULL);
    }
    if (!l->cur.valid) {
        line_free(l);
        return NULL;
    }
    return l;
}

/* Steps from class to class by seeking behind the last one: never through the jobs. */
static void open_lines(struct lines *h, struct tx *tx, const struct sched_worker *workers,
                       size_t count)
{
    struct key from = key_u64(0);
    struct cursor cur;

    for (;;) {
        uint64_t class_id;
        struct line *l;
        tx_seek(&cur, tx, T_READY, STR_NULL, &from);
        if (!cur.valid) {
            return;
        }
        class_id = key_read_u64(cur.key, 0);
        cursor_end(&cur);
        l = line_new(tx, class_id, workers, count);
        if (l != NULL) {
            push(h, l);
        }
        from = key_u64(class_id + 1);
    }
}

/* Specialists are kept for those who need them; among equals the load is spread. */
static bool better(const struct sched_worker *a, const struct sched_worker *b)
{
    if (a->record->n_tags != b->record->n_tags) {
        return a->record->n_tags < b->record->n_tags;
    }
    if (a->free_slots != b->free_slots) {
        return a->free_slots > b->free_slots;
    }
    return a->worker_id < b->worker_id;
}

static struct sched_worker *pick(const struct line *l, struct sched_worker *workers)
{
    struct sched_worker *best = NULL;

    for (size_t i = 0; i < l->worker_count; i++) {
        struct sched_worker *w = &workers[l->workers[i]];
        if (w->free_slots > 0 && (best == NULL || better(w, best))) {
            best = w;
        }
    }
    return best;
}

size_t sched_propose(struct tx *tx, struct sched_worker *workers, size_t count,
                     struct sched_proposal *ret, size_t max)
{
    struct lines h = {0};
    size_t n = 0, free_workers = 0;

    for (size_t i = 0; i < count; i++) {
        free_workers += takes_work(&workers[i]);
    }
    if (free_workers > 0 && max > 0) {
        open_lines(&h, tx, workers, count);
    }
    while (h.count > 0 && n < max) {
        struct line *l = h.items[0];
        struct sched_worker *w = pick(l, workers);
        if (w == NULL) {
            drop_top(&h);
            continue;
        }
        w->free_slots--;
        ret[n++] = (struct sched_proposal){
            .job_id = key_read_u64(l->cur.key, l->cur.key.n - sizeof(uint64_t)),
            .worker_id = w->worker_id,
        };
        tx_next(&l->cur);
        if (l->cur.valid) {
            sink(&h);
        } else {
            drop_top(&h);
        }
    }
    for (size_t i = 0; i < h.count; i++) {
        line_free(h.items[i]);
    }
    free(h.items);
    return n;
}
