#include "common/base.h"

#include "broker/core/run.h"
#include "common/limits.h"

#include <stdlib.h>

/* Giving jobs to a worker. */

static bool pool_admits(struct core *c, const Pb__JobRecord *job, const Pb__ClassRecord *class,
                        const char *name)
{
    const Pb__PoolRecord *pool = pool_get(c->tx, name);
    const Pb__ProjectRecord *project = NULL;

    if (pool != NULL && pool->n_projects > 0) {
        project = project_get(c->tx, job->project_id);
    }
    return pool_bar(pool, name, class, project != NULL ? project->name : "") == POOL_BAR_NONE;
}

/* Jobs in a row mostly ask for the same: what was looked up for the one before. */
struct lookup {
    const Pb__ClassRecord *class;
    uint64_t project_id;
};

/* Whether the worker may be given the job now. The scheduler saw it so, perhaps before other
 * commands of its turn. */
static int assign_job_check(struct core *c, const Pb__JobRecord *job, const Pb__WorkerRecord *w,
                            struct lookup *last)
{
    const Pb__ClassRecord *class = last->class;

    if (job->state != JOB_PENDING) {
        return reject(c, -E_CONFLICT, "job %" PRIu64 " is %s", job->id, job_state_text(job->state));
    }
    if (class != NULL && class->id == job->class_id && last->project_id == job->project_id) {
        return 0;
    }
    class = class_get(c->tx, job->class_id);
    if (class == NULL || !worker_serves(w, class)) {
        return reject(c, -E_CONFLICT, "worker %.60s cannot run job %" PRIu64, w->name, job->id);
    }
    if (!pool_admits(c, job, class, w->pool)) {
        return reject(c, -E_CONFLICT, "pool %.60s does not take job %" PRIu64, w->pool, job->id);
    }
    *last = (struct lookup){.class = class, .project_id = job->project_id};
    return 0;
}

int assign_instead_check(struct core *c, const Pb__JobRecord *job, const Pb__WorkerRecord *w)
{
    struct lookup last = {0};

    const struct worker_load load = worker_load(c->tx, w->id);
    const Pb__ClassRecord *class = class_get(c->tx, job->class_id);
    const bool action = class != NULL && class_is_action(class);

    if (w->paused || w->draining || (action ? load.actions > w->actions : load.slots > w->slots)) {
        return reject(c, -E_CONFLICT, "worker %.60s takes no work", w->name);
    }
    return assign_job_check(c, job, w, &last);
}

static int by_id(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a;
    const uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

bool any_twice(struct arena *a, const uint64_t *ids, size_t n)
{
    bool ascending = true; /* as they mostly are */
    uint64_t *sorted;

    for (size_t i = 1; i < n && ascending; i++) {
        ascending = ids[i - 1] < ids[i];
    }
    if (ascending) {
        return false;
    }
    sorted = arena_array(a, n, sizeof(*sorted));
    memcpy(sorted, ids, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), by_id);
    for (size_t i = 1; i < n; i++) {
        if (sorted[i] == sorted[i - 1]) {
            return true;
        }
    }
    return false;
}

/* Whether the worker has room for these beside what it has. */
static int room_check(struct core *c, const Pb__WorkerRecord *w, size_t slots, size_t actions)
{
    const struct worker_load load = worker_load(c->tx, w->id);

    if (slots > 0 && load.slots + slots > w->slots) {
        return reject(c, -E_CONFLICT, "worker %.60s has no free slot", w->name);
    }
    if (actions > 0 && load.actions + actions > w->actions) {
        return reject(c, -E_CONFLICT, "worker %.60s has as many actions as it takes", w->name);
    }
    return 0;
}

/* `ret` gets the jobs' rows, `ret_action` which of them are actions. */
static int assign_check(struct core *c, const Pb__Assign *cmd, const Pb__WorkerRecord *w,
                        Pb__JobRecord **ret, bool *ret_action)
{
    struct lookup last = {0};
    size_t actions = 0;
    int r = 0;

    if (cmd->n_job_ids == 0 || cmd->n_job_ids > LIMIT_WORKER_SLOTS ||
        any_twice(c->arena, cmd->job_ids, cmd->n_job_ids)) {
        return reject(c, -E_INVALID, "no list of jobs");
    }
    if (w->paused || w->draining) {
        return reject(c, -E_CONFLICT, "worker %.60s takes no work", w->name);
    }
    for (size_t i = 0; r == 0 && i < cmd->n_job_ids; i++) {
        ret[i] = (Pb__JobRecord *)job_get(c->tx, cmd->job_ids[i]);
        r = ret[i] != NULL ? assign_job_check(c, ret[i], w, &last)
                           : reject(c, -E_NOT_FOUND, "no job %" PRIu64, cmd->job_ids[i]);
        ret_action[i] = r == 0 && class_is_action(last.class);
        actions += ret_action[i];
    }
    return r < 0 ? r : room_check(c, w, cmd->n_job_ids - actions, actions);
}

static void assign(struct run *run, Pb__JobRecord *job, const Pb__WorkerRecord *w, bool action)
{
    struct core *c = run->core;
    Pb__AssignmentRecord *a = arena_alloc(c->arena, sizeof(*a));
    const struct key of_worker = key_u64_u64(w->id, job->id);

    attempt_begin(run, job, JOB_ASSIGNED, w);
    pb__assignment_record__init(a);
    a->job_id = job->id;
    a->worker_id = w->id;
    a->attempt = job->attempt;
    a->epoch = job->epoch;
    a->assigned_ms = c->now_ms;
    assignment_put(run, a);
    tx_put(c->tx, T_WORKER_JOB, &of_worker, action ? STR("a") : STR_NULL);
    job_move(run, job, JOB_ASSIGNED, w->name);
    job_timer_set(run, job, PB__JOB_TIMER_KIND__JOB_TIMER_UNACKED, c->now_ms + CORE_UNACKED_MS);
    effect_add(c->fx, (struct effect){.kind = EFFECT_ASSIGN,
                                      .worker_id = w->id,
                                      .job_id = job->id,
                                      .attempt = job->attempt,
                                      .epoch = job->epoch});
}

int apply_assign(struct core *c, const Pb__Assign *cmd)
{
    const Pb__WorkerRecord *w = worker_get(c->tx, cmd->worker_id);
    Pb__JobRecord **jobs = arena_array(c->arena, cmd->n_job_ids + 1, sizeof(*jobs));
    bool *actions = arena_array(c->arena, cmd->n_job_ids + 1, sizeof(*actions));
    int r;

    if (w == NULL) {
        return reject(c, -E_NOT_FOUND, "no worker %" PRIu64, cmd->worker_id);
    }
    if (w->revoked) { /* its session ends after the commit: until then it looks ready */
        return reject(c, -E_CONFLICT, "worker %.60s was revoked", w->name);
    }
    r = assign_check(c, cmd, w, jobs, actions);
    for (size_t i = 0; r == 0 && i < cmd->n_job_ids; i++) {
        struct run run;
        /* The row of a pipeline's job may have been written by the run of the job before it. */
        if (jobs[i]->pipeline_id == 0) {
            run_init_lone(&run, c, jobs[i]);
        } else {
            r = run_load_job(&run, c, cmd->job_ids[i], &jobs[i]);
        }
        check(r == 0 || !tx_ok(c->tx));
        if (r == 0) {
            assign(&run, jobs[i], w, actions[i]);
            r = run_close(&run, 0);
        }
    }
    c->reply->job_id = r == 0 ? cmd->job_ids[0] : 0;
    c->reply->worker_id = r == 0 ? w->id : 0;
    return r;
}
