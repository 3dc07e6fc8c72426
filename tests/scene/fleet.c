#include "common/base.h"

#include "tests/scene/scene.h"

#include <stdlib.h>

struct actor *actor_find(struct stage *s, struct str name)
{
    for (size_t i = 0; i < s->actor_count; i++) {
        if (str_eqz(name, s->actors[i].name)) {
            return &s->actors[i];
        }
    }
    return NULL;
}

static struct actor *actor_by_id(struct stage *s, uint64_t worker_id)
{
    for (size_t i = 0; i < s->actor_count; i++) {
        if (s->actors[i].worker_id == worker_id) {
            return &s->actors[i];
        }
    }
    return NULL;
}

bool actor_online(void *ctx, uint64_t worker_id)
{
    const struct actor *a = actor_by_id(ctx, worker_id);

    return a != NULL && a->online;
}

/* Hello, then what its connection calls for. */
void actor_connect(struct stage *s, struct actor *a)
{
    a->worker_id = world_worker_in(&s->world, a->pool, a->memory, a->name, a->tags, a->executors,
                                   a->slots, a->untagged);
    a->online = true;
    a->lost_at_ms = 0;
    trace_result(s, 0);
    effects_clear(&s->world.fx);
    core_recover_worker(s->world.tx, a->worker_id, &s->world.fx);
    trace_result(s, 0);
}

/* The jobs of a worker, copied out: commands follow that change the table. */
static size_t jobs_of(struct stage *s, uint64_t worker_id, uint64_t *ret, size_t max)
{
    const struct key prefix = key_u64(worker_id);
    struct cursor cur;
    size_t n = 0;

    for (tx_seek(&cur, s->world.tx, T_WORKER_JOB, key_str(&prefix), NULL); cur.valid && n < max;
         tx_next(&cur)) {
        ret[n++] = key_read_u64(cur.key, sizeof(uint64_t));
    }
    cursor_end(&cur);
    return n;
}

static void lose_one(struct stage *s, const Pb__AssignmentRecord *held)
{
    Pb__JobLost body = PB__JOB_LOST__INIT;

    body.job_id = held->job_id;
    body.epoch = held->epoch;
    body.worker_id = held->worker_id;
    body.returned_without = true;
    trace_result(s, WORLD_APPLY(&s->world, "fleet", JOB_LOST, &body));
}

/* What waited for it goes on, or has waited in vain. */
void actor_return(struct stage *s, struct actor *a, uint64_t without)
{
    uint64_t jobs[64];
    size_t n;

    actor_connect(s, a);
    n = jobs_of(s, a->worker_id, jobs, ARRAY_LEN(jobs));
    for (size_t i = 0; i < n; i++) {
        const Pb__AssignmentRecord *held = assignment_get(s->world.tx, jobs[i]);
        Pb__WorkerReclaimed body = PB__WORKER_RECLAIMED__INIT;
        body.job_id = jobs[i];
        body.attempt = held->attempt;
        body.epoch = held->epoch;
        body.worker_id = a->worker_id;
        if (jobs[i] == without) {
            lose_one(s, held);
        } else if (held->waiting) {
            trace_result(s, WORLD_APPLY(&s->world, "fleet", WORKER_RECLAIMED, &body));
        }
    }
}

static void lose(struct stage *s, struct actor *a)
{
    uint64_t jobs[64];
    const size_t n = jobs_of(s, a->worker_id, jobs, ARRAY_LEN(jobs));

    a->lost_at_ms = 0;
    trace(s, "worker %s is lost", a->name);
    for (size_t i = 0; i < n; i++) {
        trace_result(s, world_lost(&s->world, jobs[i]));
    }
}

static int by_order(const void *a, const void *b)
{
    const struct sched_proposal *x = a, *y = b;

    return x->order < y->order ? -1 : x->order > y->order;
}

/* What the fleet of the broker says when a session or a record changes. */
static void tell_workers(struct stage *s)
{
    for (size_t i = 0; i < s->actor_count; i++) {
        const struct actor *a = &s->actors[i];
        const Pb__WorkerRecord *w = worker_get(s->world.tx, a->worker_id);
        sched_worker(s->world.sched, a->worker_id, w, a->online && !w->paused && !w->draining);
    }
}

static bool make_way(struct stage *s)
{
    Pb__JobPreempt body = PB__JOB_PREEMPT__INIT;
    struct sched_victim v;

    while (sched_preempt(s->world.sched, &v)) {
        body.job_id = v.job_id;
        body.epoch = job_get(s->world.tx, v.job_id)->epoch;
        body.for_job_id = v.for_job_id;
        const int r = WORLD_APPLY(&s->world, "scheduler", JOB_PREEMPT, &body);
        trace_result(s, r);
        if (r == 0) {
            trace_result(s, world_assign(&s->world, v.for_job_id, v.worker_id));
            return true;
        }
    }
    return false;
}

/* As the turn does it after every batch; each assignment by itself, so that the trace tells in
 * which order they were found. */
void stage_schedule(struct stage *s)
{
    struct sched_proposal todo[16];
    size_t n;

    tell_workers(s);
    while ((n = sched_propose(s->world.sched, s->world.tx, s->world.now_ms, todo,
                              ARRAY_LEN(todo))) > 0 ||
           make_way(s)) {
        qsort(todo, n, sizeof(*todo), by_order);
        for (size_t i = 0; i < n; i++) {
            trace_result(s, world_assign(&s->world, todo[i].job_id, todo[i].worker_id));
        }
    }
}

static struct actor *next_lost(struct stage *s)
{
    struct actor *first = NULL;

    for (size_t i = 0; i < s->actor_count; i++) {
        struct actor *a = &s->actors[i];
        if (a->lost_at_ms != 0 && (first == NULL || a->lost_at_ms < first->lost_at_ms)) {
            first = a;
        }
    }
    return first;
}

void stage_elapse(struct stage *s, uint64_t ms)
{
    struct world *w = &s->world;
    const uint64_t end = w->now_ms + ms;

    for (;;) {
        struct actor *lost = next_lost(s);
        const uint64_t lost_ms = lost != NULL ? lost->lost_at_ms : UINT64_MAX;
        const uint64_t due_ms = core_next_due_ms(w->tx);
        Pb__TimerFired fired;
        if (MIN(lost_ms, due_ms) > end) {
            break;
        }
        w->now_ms = MAX(w->now_ms, MIN(lost_ms, due_ms));
        if (lost_ms <= due_ms) {
            lose(s, lost);
        } else {
            check(core_due_timer(w->tx, w->now_ms, &fired));
            trace_result(s, WORLD_APPLY(w, "timer", TIMER_FIRED, &fired));
        }
        stage_schedule(s);
    }
    w->now_ms = end;
}
