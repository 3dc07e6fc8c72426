#include "common/base.h"

#include <uthash.h>

#include "broker/core/query.h"
#include "broker/sched/sched.h"
#include "common/limits.h"

#define COUNTED         10000u /* rows that are counted for one answer */
#define RUNNING_COUNTED 50000u /* of jobs that run, where a limit is to be compared with */
#define CAN_TAKE_IT     "can take it"

static bool listed(char *const *list, size_t n, const char *word)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i], word) == 0) {
            return true;
        }
    }
    return false;
}

static const char *mismatch(struct arena *a, const Pb__WorkerRecord *w,
                            const Pb__ClassRecord *class)
{
    struct buf b = BUF_INIT;
    const char *text;

    if (class->executor[0] != '\0' && !listed(w->executors, w->n_executors, class->executor)) {
        return arena_printf(a, "no executor %s", class->executor);
    }
    if (class->executor[0] == '\0' && !worker_runs_processes(w)) {
        return "runs only actions";
    }
    if (class->n_tags == 0) {
        return "runs no untagged jobs";
    }
    buf_addz(&b, "missing tags: ");
    for (size_t i = 0, n = 0; i < class->n_tags; i++) {
        if (!listed(w->tags, w->n_tags, class->tags[i])) {
            buf_addf(&b, "%s%s", n++ > 0 ? ", " : "", class->tags[i]);
        }
    }
    text = arena_strdup(a, buf_str(&b));
    buf_release(&b);
    return text;
}

/* What the job is judged by, and counts that were made on the way. */
struct asker {
    struct tx *tx;
    const Pb__JobRecord *job;
    const Pb__ClassRecord *class;
    const Pb__ProjectRecord *project;
    struct running *running; /* by pool; NULL: not counted yet */
    uint32_t project_running;
};

/* Jobs that run in a pool. */
struct running {
    const char *pool;
    uint32_t all;
    uint32_t of_project;
    UT_hash_handle hh;
};

static const char *barred(struct asker *q, const Pb__WorkerRecord *w, const Pb__PoolRecord *pool)
{
    struct arena *a = tx_arena(q->tx);
    const char *project = q->project != NULL ? q->project->name : "";

    switch (pool_bar(pool, w->pool, q->class, project)) {
    case POOL_BAR_NONE:
        return NULL;
    case POOL_BAR_OTHER:
        return arena_printf(a, "not in pool %s", q->class->pool);
    case POOL_BAR_LOCKED:
        return arena_printf(a, "pool %s takes only jobs that name it", w->pool);
    case POOL_BAR_PROTECTED:
        return arena_printf(a, "pool %s is for protected refs", w->pool);
    case POOL_BAR_PROJECT:
        break;
    }
    return arena_printf(a, "pool %s is for other projects", w->pool);
}

/* More than the worker has, even when it does nothing else. */
static const char *too_big(struct asker *q, const Pb__WorkerRecord *w)
{
    struct arena *a = tx_arena(q->tx);
    const Pb__ClassRecord *c = q->class;

    if (w->cpu_millis != 0 && c->cpu_millis > w->cpu_millis) {
        return arena_printf(a, "too little cpu: %u of %u thousandths", w->cpu_millis,
                            c->cpu_millis);
    }
    if (w->memory_bytes != 0 && c->memory_bytes > w->memory_bytes) {
        return arena_printf(a, "too little memory: %" PRIu64 " of %" PRIu64 " bytes",
                            w->memory_bytes, c->memory_bytes);
    }
    if (w->disk_bytes != 0 && c->disk_bytes > w->disk_bytes) {
        return arena_printf(a, "too little disk: %" PRIu64 " of %" PRIu64 " bytes", w->disk_bytes,
                            c->disk_bytes);
    }
    return NULL;
}

/* What the worker's jobs take together. */
static Pb__ClassRecord taken_of(struct tx *tx, uint64_t worker_id)
{
    const struct key prefix = key_u64(worker_id);
    Pb__ClassRecord sum = PB__CLASS_RECORD__INIT;
    struct cursor cur;

    for (tx_seek(&cur, tx, T_WORKER_JOB, key_str(&prefix), NULL); cur.valid; tx_next(&cur)) {
        const Pb__JobRecord *job = job_get(tx, key_read_u64(cur.key, sizeof(uint64_t)));
        const Pb__ClassRecord *c = job != NULL ? class_get(tx, job->class_id) : NULL;
        if (c != NULL) {
            sum.cpu_millis += c->cpu_millis;
            sum.memory_bytes += c->memory_bytes;
            sum.disk_bytes += c->disk_bytes;
        }
    }
    cursor_end(&cur);
    return sum;
}

static bool lacks(uint64_t has, uint64_t taken, uint64_t wanted)
{
    return has != 0 && wanted != 0 && (taken > has || has - taken < wanted);
}

static const char *not_enough_left(struct asker *q, const Pb__WorkerRecord *w)
{
    const Pb__ClassRecord *c = q->class;
    Pb__ClassRecord taken;

    if (c->cpu_millis == 0 && c->memory_bytes == 0 && c->disk_bytes == 0) {
        return NULL;
    }
    taken = taken_of(q->tx, w->id);
    if (lacks(w->cpu_millis, taken.cpu_millis, c->cpu_millis)) {
        return "not enough cpu left";
    }
    if (lacks(w->memory_bytes, taken.memory_bytes, c->memory_bytes)) {
        return "not enough memory left";
    }
    return lacks(w->disk_bytes, taken.disk_bytes, c->disk_bytes) ? "not enough disk left" : NULL;
}

static struct running *running_in(struct asker *q, const char *pool)
{
    struct running *r;

    HASH_FIND(hh, q->running, pool, (unsigned)strlen(pool), r);
    if (r == NULL) {
        r = arena_alloc(tx_arena(q->tx), sizeof(*r));
        r->pool = arena_strdup(tx_arena(q->tx), str_from(pool));
        HASH_ADD_KEYPTR(hh, q->running, r->pool, (unsigned)strlen(r->pool), r);
    }
    return r;
}

/* One pass for all pools, of at most RUNNING_COUNTED jobs: there may be as many workers to judge as
 * there are jobs that run. */
static void count_running(struct asker *q)
{
    struct cursor cur;
    uint32_t seen = 0;

    for (tx_seek(&cur, q->tx, T_ASSIGNMENT, STR_NULL, NULL); cur.valid && seen < RUNNING_COUNTED;
         tx_next(&cur), seen++) {
        const uint64_t id = key_read_u64(cur.key, 0);
        const Pb__AssignmentRecord *a = assignment_get(q->tx, id);
        const Pb__JobRecord *job = job_get(q->tx, id);
        const Pb__WorkerRecord *w = a != NULL ? worker_get(q->tx, a->worker_id) : NULL;
        const bool own = job != NULL && job->project_id == q->job->project_id;
        struct running *r;
        if (w == NULL) {
            break; /* the tx failed */
        }
        r = running_in(q, w->pool);
        r->all++;
        r->of_project += own;
        q->project_running += own;
    }
    cursor_end(&cur);
    running_in(q, ""); /* counted, though nothing may run */
}

static const char *limited(struct asker *q, const Pb__PoolRecord *pool)
{
    struct arena *a = tx_arena(q->tx);
    const Pb__ProjectRecord *p = q->project;
    const bool bounded = p != NULL && p->max_running != 0;
    const struct running *r;

    if (!bounded && (pool == NULL || (pool->max_running == 0 && pool->project_max_running == 0))) {
        return NULL;
    }
    if (q->running == NULL) {
        count_running(q);
    }
    if (bounded && q->project_running >= p->max_running) {
        return arena_printf(a, "its project runs %u of %u jobs", q->project_running,
                            p->max_running);
    }
    r = running_in(q, pool != NULL ? pool->name : "");
    if (pool != NULL && pool->max_running != 0 && r->all >= pool->max_running) {
        return arena_printf(a, "pool %s runs %u of %u jobs", pool->name, r->all, pool->max_running);
    }
    if (pool != NULL && pool->project_max_running != 0 &&
        r->of_project >= pool->project_max_running) {
        return arena_printf(a, "its project runs %u of %u jobs in pool %s", r->of_project,
                            pool->project_max_running, pool->name);
    }
    return NULL;
}

static const char *not_now(struct asker *q, const Pb__WorkerRecord *w, const Pb__PoolRecord *pool,
                           bool online)
{
    const char *text;

    if (!online) {
        return "offline";
    }
    if (w->paused) {
        return "paused";
    }
    if (w->draining) {
        return "draining";
    }
    const struct worker_load load = worker_load(q->tx, w->id);
    if (class_is_action(q->class) && load.actions >= w->actions) {
        return arena_printf(tx_arena(q->tx), "has %u of %u actions", load.actions, w->actions);
    }
    if (!class_is_action(q->class) && load.slots >= w->slots) {
        return "no free slot";
    }
    text = not_enough_left(q, w);
    text = text != NULL ? text : limited(q, pool);
    return text != NULL ? text : CAN_TAKE_IT;
}

/* *ret_never: whatever changes by itself, it will not be this worker. */
static const char *reason(struct asker *q, const Pb__WorkerRecord *w, bool online, bool *ret_never)
{
    const Pb__PoolRecord *pool = pool_get(q->tx, w->pool);
    const char *text = barred(q, w, pool);

    if (text == NULL && !worker_serves(w, q->class)) {
        text = mismatch(tx_arena(q->tx), w, q->class);
    }
    text = text != NULL ? text : too_big(q, w);
    *ret_never = text != NULL;
    return text != NULL ? text : not_now(q, w, pool, online);
}

/* Its place among the ready jobs of its class, as the order of the table has it: the higher
 * priority first, then by project; of more than COUNTED it is only known that they come before. */
static void find_position(struct tx *tx, const Pb__JobRecord *job, struct sched_outlook *o)
{
    const struct key prefix = key_u64(job->class_id);
    struct cursor cur;
    uint64_t n = 0;
    bool found = false;

    if (job->state != JOB_PENDING) {
        return;
    }
    for (tx_seek(&cur, tx, T_READY, key_str(&prefix), NULL); cur.valid && !found && n < COUNTED;
         tx_next(&cur)) {
        n++;
        found = key_read_u64(cur.key, cur.key.n - sizeof(uint64_t)) == job->id;
    }
    cursor_end(&cur);
    o->position = n;
    o->position_or_more = !found;
}

/* Pools that would take the job, in the order of their names. */
struct pools {
    const char **names; /* NULL: a worker is in it */
    size_t count;
};

static struct pools pools_for(struct asker *q)
{
    struct arena *a = tx_arena(q->tx);
    struct pools p = {.names = arena_array(a, LIMIT_POOLS + 1, sizeof(*p.names))};
    const char *project = q->project != NULL ? q->project->name : "";
    struct cursor cur;

    for (tx_seek(&cur, q->tx, T_POOL, STR_NULL, NULL); cur.valid && p.count < LIMIT_POOLS;
         tx_next(&cur)) {
        const char *name = arena_strdup(a, cur.key);
        if (pool_bar(pool_get(q->tx, name), name, q->class, project) == POOL_BAR_NONE) {
            p.names[p.count++] = name;
        }
    }
    cursor_end(&cur);
    return p;
}

static void pools_strike(struct pools *p, const char *name)
{
    for (size_t i = 0; i < p->count; i++) {
        if (strcmp(p->names[i], name) == 0) {
            memmove(&p->names[i], &p->names[i + 1], (--p->count - i) * sizeof(*p->names));
            return;
        }
    }
}

static void tell_pools(const struct pools *p, struct sched_outlook *o)
{
    o->pool_count = p->count;
    for (size_t i = 0; i < p->count && i < SCHED_WHY_POOLS; i++) {
        o->pools[i] = p->names[i];
    }
}

size_t sched_why(struct tx *tx, const Pb__JobRecord *job,
                 bool (*online)(void *ctx, uint64_t worker_id), void *ctx, struct sched_why *ret,
                 size_t max, struct sched_outlook *ret_outlook)
{
    struct asker q = {
        .tx = tx,
        .job = job,
        .class = class_get(tx, job->class_id),
        .project = project_get(tx, job->project_id),
    };
    struct sched_outlook o = {.never = true};
    struct pools pools = {.count = 0};
    struct cursor cur;
    size_t n = 0;

    if (q.class != NULL) {
        pools = pools_for(&q);
    }
    for (tx_seek(&cur, tx, T_WORKER, STR_NULL, NULL); cur.valid && q.class != NULL; tx_next(&cur)) {
        const uint64_t id = key_read_u64(cur.key, 0);
        const Pb__WorkerRecord *w = worker_get(tx, id);
        if (w == NULL) {
            break; /* the tx failed */
        }
        const bool on = online(ctx, id);
        bool bad;
        const char *text = reason(&q, w, on, &bad);
        o.never = o.never && bad;
        o.now = o.now || strcmp(text, CAN_TAKE_IT) == 0;
        o.slots += bad || !on || w->paused || w->draining ? 0
                   : class_is_action(q.class)             ? w->actions
                                                          : w->slots;
        pools_strike(&pools, w->pool);
        if (n < max) {
            ret[n++] = (struct sched_why){.worker_id = id, .worker = w->name, .reason = text};
        }
    }
    cursor_end(&cur);
    HASH_CLEAR(hh, q.running);
    find_position(tx, job, &o);
    tell_pools(&pools, &o);
    *ret_outlook = o;
    return n;
}

/* Of so many slots that are all in use, one is free every typical_ms / slots; the job needs the one
 * behind those of all before it. */
uint64_t sched_wait_ms(const struct sched_outlook *o, uint64_t typical_ms)
{
    if (o->position == 0 || o->slots == 0) {
        return UINT64_MAX;
    }
    check(typical_ms <= LIMIT_TIMEOUT_MS);
    return o->now && o->position == 1 ? 0 : o->position * typical_ms / o->slots;
}
