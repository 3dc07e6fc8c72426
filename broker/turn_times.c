#include "common/base.h"

#include <stdlib.h>
#include <uthash.h>

#include "broker/core/state.h"
#include "broker/turn_state.h"

/* How long jobs waited, and were in the hands of workers, by pool, for /metrics. Soft state: a turn
 * that is undone counts, too. */

const uint64_t turn_bucket_ms[TURN_BUCKETS - 1] = {
    10, 50, 200, 1000, 5000, 15000, 60000, 300000, 900000, 3600000, 14400000, 86400000};

struct pool_times {
    struct turn_pool view;
    UT_hash_handle hh; /* by view.name */
};

static struct pool_times *find(const struct turn *t, const char *name)
{
    struct pool_times *p;

    HASH_FIND_STR(t->times, name, p);
    return p;
}

/* Names are others' to choose: the last place is for all that have none of their own. */
static struct pool_times *times_of(struct turn *t, const char *name)
{
    struct pool_times *p = find(t, name);

    if (p == NULL && HASH_COUNT(t->times) + 1 >= TURN_POOLS) {
        name = "";
        p = find(t, name);
    }
    if (p == NULL) {
        check(strlen(name) < sizeof(p->view.name));
        p = xcalloc(1, sizeof(*p));
        memcpy(p->view.name, name, strlen(name) + 1);
        HASH_ADD_STR(t->times, view.name, p);
    }
    return p;
}

static void add(struct turn_histogram *h, uint64_t ms)
{
    size_t i = 0;

    while (i < TURN_BUCKETS - 1 && ms > turn_bucket_ms[i]) {
        i++;
    }
    h->counts[i]++;
    h->sum_ms += ms;
}

void turn_count_times(struct turn *t, const struct queue_change *q)
{
    if (!((q->left | q->entered) & STATE_HELD)) {
        return;
    }
    struct pool_times *p = times_of(t, sched_pool_of(t->sched, q->worker_id));
    if (q->left & STATE_HELD) {
        add(&p->view.held, q->held_ms);
    } else if (q->first) {
        add(&p->view.waited, t->now_ms > q->queued_ms ? t->now_ms - q->queued_ms : 0);
    }
}

size_t turn_get_pools(struct turn *t, struct turn_pool *ret, size_t max)
{
    struct pool_times *p;
    struct pool_times *tmp;
    size_t n = 0;

    pthread_mutex_lock(&t->lock);
    HASH_ITER (hh, t->times, p, tmp) {
        if (n < max) {
            ret[n++] = p->view;
        }
    }
    pthread_mutex_unlock(&t->lock);
    return n;
}

void turn_forget_times(struct turn *t)
{
    struct pool_times *p;
    struct pool_times *tmp;

    HASH_ITER (hh, t->times, p, tmp) {
        HASH_DEL(t->times, p);
        free(p);
    }
}
