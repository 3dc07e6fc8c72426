#include "common/base.h"

#include "broker/core/rollout_move.h"
#include "common/limits.h"

#include <stdlib.h>

/* Actions: rows of a rollout, each with a job without a pipeline. The job's end is all that the row
 * waits for; what becomes of a lost worker, a cancel, a timeout is the job's matter. */

#define QUICK_MS 60000u
#define SLOW_MS  (10u * 60 * 1000)

static const struct verb {
    const char *name; /* of the job */
    const char *verb; /* of the driver */
    uint64_t timeout_ms;
} verbs[] = {
    [ROLLOUT_ACTION_ENSURE] = {"ensure", "ensure", SLOW_MS},
    [ROLLOUT_ACTION_STATUS] = {"status", "status", QUICK_MS},
    [ROLLOUT_ACTION_REMOVE] = {"remove", "remove", SLOW_MS},
    [ROLLOUT_ACTION_ROUTE] = {"route", "set", QUICK_MS},
    [ROLLOUT_ACTION_READ] = {"read", "read", QUICK_MS},
    [ROLLOUT_ACTION_SAMPLE] = {"sample", "sample", QUICK_MS},
    [ROLLOUT_ACTION_RUN] = {"run", "", CORE_DEFAULT_TIMEOUT_MS},
    [ROLLOUT_ACTION_SYNTHETIC] = {"synthetic", "load", CORE_DEFAULT_TIMEOUT_MS},
    [ROLLOUT_ACTION_NOTIFY] = {"notify", "notify", QUICK_MS},
};

static bool in_a_place(Pb__RolloutActionKind kind)
{
    return kind == ROLLOUT_ACTION_ENSURE || kind == ROLLOUT_ACTION_STATUS ||
           kind == ROLLOUT_ACTION_REMOVE;
}

const char *rollout_action_wrong(const Pb__RolloutActionRecord *a,
                                 const Pb__RolloutPlanRecord *plan)
{
    const Pb__RolloutTarget *t = plan->target;

    if ((unsigned)a->kind >= ARRAY_LEN(verbs) || (unsigned)a->slot > ROLLOUT_SLOT_B) {
        return "an action of an unknown kind or slot";
    }
    if (in_a_place(a->kind) && a->place >= MAX(t->n_places, 1u)) {
        return "an action in a place that the target has not";
    }
    if ((a->kind == ROLLOUT_ACTION_SAMPLE && a->metric >= t->n_metrics) ||
        (a->kind == ROLLOUT_ACTION_NOTIFY && a->metric >= t->n_notify)) {
        return "an action for a metric or notice that the target has not";
    }
    if (a->args.len > LIMIT_ROLLOUT_ARGS) {
        return "an action whose arguments are too long";
    }
    if (a->kind == ROLLOUT_ACTION_RUN
            ? a->driver[0] != '\0'
            : !name_ok(a->driver) || strlen(a->driver) > LIMIT_NAME - sizeof("action/")) {
        return "an action without a driver, or a script with one";
    }
    return a->state == ROLLOUT_ACTION_RUNNING && a->job_id == 0 && a->ended_ms == 0 &&
                   a->answer.len == 0
               ? NULL
               : "an action that is begun has not ended";
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The target's tags and that of the place, sorted and unique. */
static void set_tags(struct core *c, Pb__PlanJob *job, const Pb__RolloutTarget *t,
                     const Pb__RolloutActionRecord *a)
{
    size_t n = 0, kept = 0;

    job->tags = arena_array(c->arena, t->n_tags + 1, sizeof(*job->tags));
    for (size_t i = 0; i < t->n_tags; i++) {
        job->tags[n++] = t->tags[i];
    }
    if (in_a_place(a->kind) && a->place < t->n_places) {
        job->tags[n++] = t->places[a->place];
    }
    if (n > 1) {
        qsort(job->tags, n, sizeof(*job->tags), by_text);
    }
    for (size_t i = 0; i < n; i++) {
        if (kept == 0 || strcmp(job->tags[kept - 1], job->tags[i]) != 0) {
            job->tags[kept++] = job->tags[i];
        }
    }
    job->n_tags = kept;
}

static char *service_text(struct core *c, const Pb__RolloutRecord *r)
{
    const Pb__ProjectRecord *p = project_get(c->tx, r->project_id);
    const Pb__EnvironmentRecord *e = environment_get(c->tx, r->environment_id);

    if (p == NULL || e == NULL) {
        tx_fail(c->tx, -E_CORRUPT);
        return (char *)"";
    }
    return arena_printf(c->arena, "%s/%s/%s", p->name, e->name,
                        service_row(c, r->service_id)->target);
}

static Pb__ActionSpec *driver_action(struct core *c, const Pb__RolloutRecord *r,
                                     const Pb__RolloutActionRecord *a)
{
    Pb__ActionSpec *spec = arena_alloc(c->arena, sizeof(*spec));
    Pb__DriverAction *d = arena_alloc(c->arena, sizeof(*d));
    Pb__ActionFence *fence = arena_alloc(c->arena, sizeof(*fence));

    pb__action_spec__init(spec);
    pb__driver_action__init(d);
    pb__action_fence__init(fence);
    fence->rollout = r->id;
    fence->generation = r->generation;
    fence->epoch = a->epoch;
    d->driver = a->driver;
    d->verb = (char *)verbs[a->kind].verb;
    d->target = service_text(c, r);
    d->fence = fence;
    d->args = a->args;
    spec->what_case = PB__ACTION_SPEC__WHAT_DRIVER;
    spec->driver = d;
    return spec;
}

Pb__PlanJob *rollout_action_plan(struct core *c, const Pb__RolloutRecord *r,
                                 const Pb__RolloutPlanRecord *plan,
                                 const Pb__RolloutActionRecord *a, const Pb__RolloutRun *run)
{
    Pb__PlanJob *job = arena_alloc(c->arena, sizeof(*job));

    pb__plan_job__init(job);
    job->name = arena_printf(c->arena, "rollout %" PRIu64 " %s", r->id, verbs[a->kind].name);
    job->pool = plan->target->pool;
    job->priority = LIMIT_PRIORITY_ADMIN;
    job->timeout_ms = verbs[a->kind].timeout_ms;
    set_tags(c, job, plan->target, a);
    if (a->kind == ROLLOUT_ACTION_RUN) { /* it may not be idempotent: nobody but its policy says */
        job->script = run->script;
        job->n_script = run->n_script;
        return job;
    }
    job->on_worker_lost = PB__ON_WORKER_LOST__ON_WORKER_LOST_REQUEUE_ALWAYS;
    job->executor = arena_printf(c->arena, "action/%s", a->driver);
    job->action = driver_action(c, r, a);
    return job;
}

static Pb__JobRecord *make_job(struct core *c, const Pb__RolloutRecord *r,
                               const Pb__RolloutActionRecord *a, const Pb__PlanJob *plan)
{
    Pb__JobRecord *job = arena_alloc(c->arena, sizeof(*job));

    pb__job_record__init(job);
    job->id = core_new_id(c);
    job->project_id = r->project_id;
    job->name = plan->name;
    job->state = JOB_CREATED;
    job->class_id = class_open(c, plan, r->protected_);
    job->priority = plan->priority;
    job->on_worker_lost = plan->on_worker_lost;
    job->created_ms = c->now_ms;
    job->timeout_ms = plan->timeout_ms;
    job->keep_ms = a->kind == ROLLOUT_ACTION_RUN ? CORE_KEEP_FAILED_MS : 0;
    job->submitted_by = (char *)ROLLOUT_ACTOR;
    job->rollout_id = r->id;
    job->rollout_action = a->seq;
    return job;
}

void rollout_action_begin(struct core *c, const Pb__RolloutRecord *r, Pb__RolloutActionRecord *a,
                          Pb__PlanJob *plan)
{
    Pb__JobRecord *job = make_job(c, r, a, plan);
    const struct key k = key_u64(job->id);
    const struct key row = rollout_seq_key(r->id, a->seq);
    struct run run;

    a->job_id = job->id;
    a->begun_ms = c->now_ms;
    tx_put_msg(c->tx, T_ROLLOUT_ACTION, &row, &a->base);
    class_count(c, job->class_id, 1, 1);
    job_count(c, job->state, 1);
    tx_put_msg(c->tx, T_JOB_PLAN, &k, &plan->base);
    run_init_new_lone(&run, c, job);
    job_queue(&run, job, NULL);
    run_close(&run, 0);
}

static void read_result(struct core *c, Pb__RolloutActionRecord *a, const Pb__JobRecord *job,
                        const Pb__Outcome *o)
{
    const Pb__ActionResult *result = o != NULL ? o->action : NULL;
    const bool good = job->state == JOB_SUCCESS && (result == NULL || result->ok) &&
                      (result != NULL || a->kind == ROLLOUT_ACTION_RUN);
    const char *error = good                                        ? ""
                        : result != NULL && result->text[0] != '\0' ? result->text
                        : job->state == JOB_SUCCESS                 ? "no answer came"
                        : o != NULL && o->detail[0] != '\0'         ? o->detail
                        : job->state == JOB_CANCELED                ? "canceled"
                                                                    : reason_text(job->reason);

    a->state = good ? ROLLOUT_ACTION_GOOD : ROLLOUT_ACTION_BAD;
    a->ended_ms = c->now_ms;
    a->error = text_clip(c->arena, error, LIMIT_ROLLOUT_TEXT);
    a->stale = !good && result != NULL && strcmp(result->code, "stale") == 0;
    if (good && result != NULL) {
        a->answer = result->data;
    }
}

/* One whose row is gone was of a rollout that has ended. */
void rollout_action_ended(struct core *c, const Pb__JobRecord *job, const Pb__Outcome *o)
{
    const struct key k = rollout_seq_key(job->rollout_id, job->rollout_action);
    Pb__RolloutActionRecord *a;
    const Pb__RolloutRecord *r;

    if (job->rollout_action == 0) {
        return;
    }
    a = (Pb__RolloutActionRecord *)tx_get_msg(c->tx, T_ROLLOUT_ACTION, &k,
                                              &pb__rollout_action_record__descriptor);
    if (a == NULL || a->job_id != job->id || a->state != ROLLOUT_ACTION_RUNNING) {
        return;
    }
    r = rollout_row(c, job->rollout_id);
    if ((rollout_state_flags(r->state) & ROLLOUT_ENDED) != 0) {
        tx_del(c->tx, T_ROLLOUT_ACTION, &k); /* nobody takes it */
        return;
    }
    read_result(c, a, job, o);
    tx_put_msg(c->tx, T_ROLLOUT_ACTION, &k, &a->base);
    rollout_make_due(c, r->id);
}

static size_t running_jobs(struct core *c, uint64_t rollout_id, uint64_t below_epoch,
                           uint64_t **ret)
{
    const struct key prefix = key_u64(rollout_id);
    uint64_t *jobs = arena_array(c->arena, LIMIT_ROLLOUT_ACTIONS, sizeof(*jobs));
    struct cursor cur;
    size_t n = 0;

    for (tx_seek(&cur, c->tx, T_ROLLOUT_ACTION, key_str(&prefix), NULL);
         cur.valid && n < LIMIT_ROLLOUT_ACTIONS; tx_next(&cur)) {
        const struct key k = key_bytes(cur.key.p, cur.key.n);
        const Pb__RolloutActionRecord *a = (const Pb__RolloutActionRecord *)core_row(
            c, T_ROLLOUT_ACTION, &k, &pb__rollout_action_record__descriptor);
        if (a->state == ROLLOUT_ACTION_RUNNING && a->epoch < below_epoch &&
            a->kind != ROLLOUT_ACTION_NOTIFY &&
            (a->kind != ROLLOUT_ACTION_RUN || below_epoch == UINT64_MAX)) {
            jobs[n++] = a->job_id;
        }
    }
    cursor_end(&cur);
    *ret = jobs;
    return n;
}

static void cancel_jobs(struct core *c, const uint64_t *jobs, size_t count)
{
    for (size_t i = 0; i < count && tx_ok(c->tx); i++) {
        Pb__JobRecord *job;
        struct run run;
        if (run_load_job(&run, c, jobs[i], &job) == 0) {
            if (!job_state_terminal(job->state) && job->state != JOB_CANCELING) {
                job_cancel(&run, job, REASON_SUPERSEDED, ROLLOUT_ACTOR, true);
            }
            run_close(&run, 0);
        }
    }
}

void rollout_actions_fence(struct core *c, uint64_t rollout_id, uint64_t epoch)
{
    uint64_t *jobs;
    const size_t n = running_jobs(c, rollout_id, epoch, &jobs);

    cancel_jobs(c, jobs, n);
}

static void forget_rows(struct core *c, uint64_t rollout_id)
{
    const struct key prefix = key_u64(rollout_id);
    uint64_t *seqs = arena_array(c->arena, LIMIT_ROLLOUT_ACTIONS, sizeof(*seqs));
    struct cursor cur;
    size_t n = 0;

    for (tx_seek(&cur, c->tx, T_ROLLOUT_ACTION, key_str(&prefix), NULL);
         cur.valid && n < LIMIT_ROLLOUT_ACTIONS; tx_next(&cur)) {
        const struct key k = key_bytes(cur.key.p, cur.key.n);
        const Pb__RolloutActionRecord *a = (const Pb__RolloutActionRecord *)core_row(
            c, T_ROLLOUT_ACTION, &k, &pb__rollout_action_record__descriptor);
        if (a->kind != ROLLOUT_ACTION_NOTIFY || a->state != ROLLOUT_ACTION_RUNNING) {
            seqs[n++] = a->seq;
        }
    }
    cursor_end(&cur);
    for (size_t i = 0; i < n; i++) {
        const struct key k = rollout_seq_key(rollout_id, seqs[i]);
        tx_del(c->tx, T_ROLLOUT_ACTION, &k);
    }
}

void rollout_actions_end(struct core *c, uint64_t rollout_id)
{
    uint64_t *jobs;
    const size_t n = running_jobs(c, rollout_id, UINT64_MAX, &jobs);

    forget_rows(c, rollout_id);
    cancel_jobs(c, jobs, n);
}
