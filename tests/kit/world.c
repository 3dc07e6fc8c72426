#include "common/base.h"

#include "tests/kit/world.h"

#include "common/os.h"

#include <stdio.h>
#include <stdlib.h>

static void audit_line(void *ctx, const char *text)
{
    fprintf(stderr, "audit: %s\n", text);
}

static void open_store(struct world *w)
{
    struct buf why = BUF_INIT;
    const struct store_options opt = {.map_bytes = w->map_bytes};
    const int r = store_open(w->dir, &opt, &w->store, &why);

    if (r < 0) {
        fprintf(stderr, "%s: %s\n", w->dir, buf_cstr(&why));
    }
    check(r == 0);
    buf_release(&why);
    check(tx_begin(w->store, true, &w->tx) == 0);
}

static void init_store(struct world *w)
{
    static uint8_t id[16] = "store", key[32] = "key";
    Pb__InitStore body = PB__INIT_STORE__INIT;

    body.store_id = (ProtobufCBinaryData){sizeof(id), id};
    body.job_token_key = (ProtobufCBinaryData){sizeof(key), key};
    check(WORLD_APPLY(w, "setup", INIT_STORE, &body) == 0);
}

void world_init(struct world *w)
{
    world_init_small(w, 1ull << 32);
}

void world_init_small(struct world *w, uint64_t map_bytes)
{
    static unsigned serial;
    const char *memory = os_exists("/dev/shm") ? "/dev/shm" : "/tmp"; /* nothing needs to last */
    const char *tmp = getenv("TMPDIR");
    struct buf dir = BUF_INIT;

    buf_addf(&dir, "%s/davit-world-%" PRIu64 "-%u", tmp != NULL ? tmp : memory, os_monotonic_us(),
             serial++);
    *w = (struct world){
        .dir = buf_take(&dir), .map_bytes = map_bytes, .audit = true, .now_ms = 1000};
    effects_init(&w->fx);
    check(os_mkdir_p(w->dir, 0700) == 0);
    open_store(w);
    init_store(w);
}

void world_release(struct world *w)
{
    tx_abort(w->tx);
    store_close(w->store);
    check(os_remove_tree(w->dir) == 0);
    free(w->dir);
    effects_release(&w->fx);
}

void world_commit(struct world *w)
{
    check(tx_commit(w->tx) == 0);
    check(tx_begin(w->store, true, &w->tx) == 0);
}

void world_reopen(struct world *w)
{
    check(tx_commit(w->tx) == 0);
    store_close(w->store);
    open_store(w);
}

void world_hash(struct world *w, uint8_t ret[32])
{
    world_commit(w);
    check(store_hash(w->store, ret) == 0);
}

Pb__Command *world_command(struct world *w, const char *actor)
{
    Pb__Command *cmd = arena_alloc(tx_arena(w->tx), sizeof(*cmd));

    pb__command__init(cmd);
    cmd->version = COMMAND_VERSION;
    cmd->time_ms = w->now_ms;
    cmd->actor = (char *)actor;
    return cmd;
}

static void tell_sched(struct world *w)
{
    for (size_t i = 0; i < w->fx.count; i++) {
        if (w->fx.items[i].kind == EFFECT_SETTINGS) {
            sched_reset(w->sched);
        }
    }
    sched_learn(w->sched, w->tx, w->now_ms, w->fx.changes, w->fx.change_count);
}

static void log_command(struct world *w, const Pb__Command *cmd)
{
    const uint32_t size = (uint32_t)pb__command__get_packed_size(cmd);

    buf_add(w->log, &size, sizeof(size));
    PB_PACK(cmd, w->log);
}

int world_apply(struct world *w, const Pb__Command *cmd)
{
    const uint64_t before = tx_changes(w->tx);
    int r;

    effects_clear(&w->fx);
    r = core_apply(w->tx, cmd, &w->fx, &w->reply);
    check(tx_ok(w->tx));
    if (r < 0) {
        check(tx_changes(w->tx) == before && w->fx.count == 0);
        check(w->reply.text[0] != '\0');
    } else {
        w->applied++;
        w->expired += w->reply.expired;
        if (w->sched != NULL) {
            tell_sched(w);
        }
        if (w->log != NULL) {
            log_command(w, cmd);
        }
    }
    if (w->audit) {
        check(core_audit(w->tx, audit_line, NULL) == 0);
    }
    return r;
}

int world_apply_body(struct world *w, const char *actor, int body_case, void *body)
{
    Pb__Command *cmd = world_command(w, actor);

    cmd->body_case = (Pb__Command__BodyCase)body_case;
    cmd->init_store = body; /* all members of the oneof are pointers in one place */
    return world_apply(w, cmd);
}

int world_submit(struct world *w, Pb__Plan *plan, const char *ref, const char *sha)
{
    Pb__PipelineCreate body = PB__PIPELINE_CREATE__INIT;

    body.project = (char *)"demo";
    body.plan = plan;
    body.ref = (char *)ref;
    body.sha = (char *)sha;
    body.origin = (char *)"push";
    return WORLD_APPLY(w, "tester", PIPELINE_CREATE, &body);
}

static char **words(struct arena *a, const char *text, size_t *ret_n)
{
    char **list = arena_array(a, 64, sizeof(*list));
    struct str rest = str_from(text), word;
    size_t n = 0;

    while (rest.n > 0 && str_split(&rest, ',', &word)) {
        check(n < 64);
        list[n++] = arena_strdup(a, word);
    }
    *ret_n = n;
    return list;
}

uint64_t world_worker(struct world *w, const char *name, const char *tags, const char *executors,
                      uint32_t slots, bool untagged)
{
    return world_worker_in(w, "", 0, name, tags, executors, slots, untagged);
}

uint64_t world_worker_in(struct world *w, const char *pool, uint64_t memory_bytes, const char *name,
                         const char *tags, const char *executors, uint32_t slots, bool untagged)
{
    Pb__WorkerHello body = PB__WORKER_HELLO__INIT;
    struct arena *a = tx_arena(w->tx);

    body.name = (char *)name;
    body.tags = words(a, tags, &body.n_tags);
    body.executors = words(a, executors, &body.n_executors);
    body.pool = (char *)pool;
    body.memory_bytes = memory_bytes;
    body.slots = slots;
    body.run_untagged = untagged;
    check(world_hello(w, &body) == 0);
    return w->reply.worker_id;
}

int world_hello(struct world *w, Pb__WorkerHello *body)
{
    char *uid = arena_printf(tx_arena(w->tx), "%-16.16s", body->name);

    body->uid = (ProtobufCBinaryData){16, (uint8_t *)uid};
    body->version = (char *)"1";
    return WORLD_APPLY(w, body->name, WORKER_HELLO, body);
}

int world_assign(struct world *w, uint64_t job_id, uint64_t worker_id)
{
    return world_assign_all(w, &job_id, 1, worker_id);
}

int world_assign_all(struct world *w, const uint64_t *job_ids, size_t count, uint64_t worker_id)
{
    Pb__Assign body = PB__ASSIGN__INIT;

    body.job_ids = (uint64_t *)job_ids;
    body.n_job_ids = count;
    body.worker_id = worker_id;
    return WORLD_APPLY(w, "scheduler", ASSIGN, &body);
}

/* The key of the job's holder, by the fields that four commands have in common. */
#define HOLDER(w, id, body)                                             \
    do {                                                                \
        const Pb__AssignmentRecord *a_ = assignment_get((w)->tx, (id)); \
        (body)->job_id = (id);                                          \
        if (a_ != NULL) {                                               \
            (body)->attempt = a_->attempt;                              \
            (body)->epoch = a_->epoch;                                  \
            (body)->worker_id = a_->worker_id;                          \
        }                                                               \
    } while (0)

int world_acked(struct world *w, uint64_t job_id)
{
    Pb__AssignAcked body = PB__ASSIGN_ACKED__INIT;

    HOLDER(w, job_id, &body);
    return WORLD_APPLY(w, "worker", ASSIGN_ACKED, &body);
}

int world_started(struct world *w, uint64_t job_id)
{
    Pb__JobStarted body = PB__JOB_STARTED__INIT;

    HOLDER(w, job_id, &body);
    return WORLD_APPLY(w, "worker", JOB_STARTED, &body);
}

int world_finished(struct world *w, uint64_t job_id, Pb__Outcome *outcome)
{
    Pb__JobFinished body = PB__JOB_FINISHED__INIT;

    HOLDER(w, job_id, &body);
    body.outcome = outcome;
    return WORLD_APPLY(w, "worker", JOB_FINISHED, &body);
}

int world_finished_all(struct world *w, const uint64_t *job_ids, size_t count, Pb__Outcome *outcome)
{
    struct arena *a = tx_arena(w->tx);
    Pb__JobsFinished body = PB__JOBS_FINISHED__INIT;

    body.n_jobs = count;
    body.jobs = arena_array(a, count + 1, sizeof(Pb__FinishedJob *));
    for (size_t i = 0; i < count; i++) {
        const Pb__AssignmentRecord *held = assignment_get(w->tx, job_ids[i]);
        Pb__FinishedJob *f = arena_alloc(a, sizeof(*f));
        pb__finished_job__init(f);
        f->job_id = job_ids[i];
        f->outcome = outcome;
        if (held != NULL) {
            f->attempt = held->attempt;
            f->epoch = held->epoch;
            body.worker_id = i == 0 ? held->worker_id : body.worker_id;
        }
        body.jobs[i] = f;
    }
    return WORLD_APPLY(w, "fleet", JOBS_FINISHED, &body);
}

int world_lost(struct world *w, uint64_t job_id)
{
    Pb__JobLost body = PB__JOB_LOST__INIT;
    const Pb__AssignmentRecord *a = assignment_get(w->tx, job_id);

    body.job_id = job_id;
    body.epoch = a != NULL ? a->epoch : 0;
    body.worker_id = a != NULL ? a->worker_id : 0;
    return WORLD_APPLY(w, "fleet", JOB_LOST, &body);
}

int world_expire(struct world *w, uint32_t max, uint64_t pipelines_before_ms)
{
    Pb__Expire body = PB__EXPIRE__INIT;

    body.max = max;
    body.pipelines_before_ms = pipelines_before_ms;
    return WORLD_APPLY(w, "turn", EXPIRE, &body);
}

int world_cancel_job(struct world *w, uint64_t job_id)
{
    Pb__JobCancel body = PB__JOB_CANCEL__INIT;

    body.job_id = job_id;
    return WORLD_APPLY(w, "ann", JOB_CANCEL, &body);
}

int world_retry_job(struct world *w, uint64_t job_id)
{
    Pb__JobRetry body = PB__JOB_RETRY__INIT;

    body.job_id = job_id;
    return WORLD_APPLY(w, "ann", JOB_RETRY, &body);
}

int world_play(struct world *w, uint64_t job_id)
{
    Pb__JobPlay body = PB__JOB_PLAY__INIT;

    body.job_id = job_id;
    return WORLD_APPLY(w, "ann", JOB_PLAY, &body);
}

int world_play_confirmed(struct world *w, uint64_t job_id)
{
    Pb__JobPlay body = PB__JOB_PLAY__INIT;

    body.job_id = job_id;
    body.confirmed = true;
    return WORLD_APPLY(w, "ann", JOB_PLAY, &body);
}

int world_child(struct world *w, uint64_t job_id, Pb__Plan *plan)
{
    Pb__PipelineCreate body = PB__PIPELINE_CREATE__INIT;
    const Pb__JobRecord *job = job_get(w->tx, job_id);
    const Pb__PipelineRecord *p = job != NULL ? pipeline_get(w->tx, job->pipeline_id) : NULL;

    body.project = (char *)"demo";
    if (p != NULL) {
        body.project = project_get(w->tx, p->project_id)->name;
        body.ref = p->ref;
        body.sha = p->sha;
        body.parent_epoch = job->epoch;
    }
    body.plan = plan;
    body.parent_job_id = job_id;
    return WORLD_APPLY(w, "trigger", PIPELINE_CREATE, &body);
}

int world_trigger_failed(struct world *w, uint64_t job_id, const char *detail)
{
    Pb__TriggerFailed body = PB__TRIGGER_FAILED__INIT;
    const Pb__JobRecord *job = job_get(w->tx, job_id);

    body.job_id = job_id;
    body.epoch = job != NULL ? job->epoch : 0;
    body.detail = (char *)detail;
    return WORLD_APPLY(w, "trigger", TRIGGER_FAILED, &body);
}

Pb__EnqueueJob *enqueue_job(struct arena *a, Pb__PlanJob *plan, uint64_t keep_ms)
{
    Pb__EnqueueJob *e = arena_alloc(a, sizeof(*e));

    pb__enqueue_job__init(e);
    e->plan = plan;
    plan->base_name = (char *)"";
    e->keep_ms = keep_ms;
    if (plan->n_script == 0) {
        plan->script = arena_alloc(a, sizeof(*plan->script));
        plan->script[plan->n_script++] = pb_bytes_ref(STR("true"));
    }
    return e;
}

int world_enqueue_jobs(struct world *w, Pb__EnqueueJob **jobs, size_t count)
{
    Pb__JobsEnqueue body = PB__JOBS_ENQUEUE__INIT;

    body.project = (char *)"demo";
    body.n_jobs = count;
    body.jobs = jobs;
    return WORLD_APPLY(w, "ann", JOBS_ENQUEUE, &body);
}

int world_enqueue(struct world *w, Pb__Plan *plan, uint64_t keep_ms)
{
    struct arena *a = tx_arena(w->tx);
    Pb__EnqueueJob **jobs = arena_array(a, plan->n_jobs + 1, sizeof(*jobs));

    for (size_t i = 0; i < plan->n_jobs; i++) {
        jobs[i] = enqueue_job(a, plan->jobs[i], keep_ms);
    }
    return world_enqueue_jobs(w, jobs, plan->n_jobs);
}

int world_stop_environment(struct world *w, uint64_t environment_id, bool force)
{
    Pb__EnvironmentStop body = PB__ENVIRONMENT_STOP__INIT;

    body.environment_id = environment_id;
    body.force = force;
    return WORLD_APPLY(w, "ann", ENVIRONMENT_STOP, &body);
}

int world_cancel(struct world *w, uint64_t pipeline_id)
{
    Pb__PipelineCancel body = PB__PIPELINE_CANCEL__INIT;

    body.pipeline_id = pipeline_id;
    return WORLD_APPLY(w, "ann", PIPELINE_CANCEL, &body);
}

int world_retry(struct world *w, uint64_t pipeline_id)
{
    Pb__PipelineRetry body = PB__PIPELINE_RETRY__INIT;

    body.pipeline_id = pipeline_id;
    return WORLD_APPLY(w, "ann", PIPELINE_RETRY, &body);
}

void world_elapse(struct world *w, uint64_t ms)
{
    const uint64_t end = w->now_ms + ms;
    Pb__TimerFired fired;

    while (core_next_due_ms(w->tx) <= end) {
        w->now_ms = MAX(w->now_ms, core_next_due_ms(w->tx));
        check(core_due_timer(w->tx, w->now_ms, &fired));
        check(WORLD_APPLY(w, "timer", TIMER_FIRED, &fired) == 0);
    }
    w->now_ms = end;
}

void world_run(struct world *w, uint64_t job_id, uint64_t worker_id, Pb__JobState result)
{
    Pb__Outcome o = PB__OUTCOME__INIT;

    o.result = result;
    o.reason = result == JOB_FAILED ? REASON_SCRIPT_FAILURE : REASON_NONE;
    o.exit_code = result == JOB_FAILED ? 1 : 0;
    check(world_assign(w, job_id, worker_id) == 0);
    check(world_acked(w, job_id) == 0);
    check(world_started(w, job_id) == 0);
    check(world_finished(w, job_id, &o) == 0);
}

uint64_t world_job_id(struct world *w, uint64_t pipeline_id, const char *name)
{
    const Pb__PipelineRecord *p = pipeline_get(w->tx, pipeline_id);

    for (uint32_t i = 0; p != NULL && i < p->job_count; i++) {
        const Pb__JobRecord *job = job_get(w->tx, p->first_job_id + i);
        if (strcmp(job->name, name) == 0) {
            return job->id;
        }
    }
    return 0;
}

const Pb__JobRecord *world_job(struct world *w, uint64_t pipeline_id, const char *name)
{
    const Pb__JobRecord *job = job_get(w->tx, world_job_id(w, pipeline_id, name));

    check(job != NULL);
    return job;
}

const char *world_state(struct world *w, uint64_t pipeline_id, const char *name)
{
    return job_state_text(world_job(w, pipeline_id, name)->state);
}

const char *world_status(struct world *w, uint64_t pipeline_id)
{
    return status_text(pipeline_get(w->tx, pipeline_id)->status);
}
