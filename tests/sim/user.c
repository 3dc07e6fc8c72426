#include "common/base.h"

#include <stdlib.h>

#include "broker/turn.h"
#include "tests/sim/sim.h"

/* People and programs that use the broker: they submit, cancel, retry, play, pause workers. Who
 * hears no answer to a submit asks again under the same key, until it hears one. */

#define HASH_BYTES 32u

uint64_t user_next(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

bool user_chance(uint64_t *seed, uint32_t n)
{
    return n != 0 && user_next(seed) % n == 0;
}

/* ---- plans ---- */

static void add_needs(struct arena *a, Pb__PlanJob *job, uint32_t index, uint64_t *seed)
{
    job->dag = true;
    job->needs = arena_array(a, index + 1, sizeof(*job->needs));
    for (uint32_t i = 0; i < index; i++) {
        if (user_chance(seed, 2)) {
            Pb__Need *need = arena_alloc(a, sizeof(*need));
            pb__need__init(need);
            need->job = i;
            job->needs[job->n_needs++] = need;
        }
    }
}

/* A pool that some worker is of, or none. */
static void wish_pool(struct arena *a, Pb__PlanJob *job, uint64_t *seed)
{
    const uint64_t pool = 1 + user_next(seed) % MODEL_POOLS;

    if (user_chance(seed, sim->swarm.pools) && (sim->pools_served & (1u << pool))) {
        job->pool = arena_printf(a, "x%u", (unsigned)pool);
    }
}

void user_script(struct arena *a, Pb__PlanJob *job)
{
    job->script = arena_array(a, 1, sizeof(*job->script));
    job->script[0] = pb_bytes(a, STR("true"));
    job->n_script = 1;
}

void user_wish(struct arena *a, Pb__PlanJob *job, uint64_t *seed)
{
    static char *const tags[] = {(char *)"a", (char *)"b", (char *)"c"};
    const struct swarm *s = &sim->swarm;

    if (user_chance(seed, s->groups)) {
        job->resource_group = arena_printf(a, "g%u",
                                           s->triggers != 0 ? 2 + (unsigned)(user_next(seed) % 2)
                                                            : 1 + (unsigned)(user_next(seed) % 3));
    }
    job->tags = arena_array(a, 3, sizeof(*job->tags));
    for (uint32_t i = 0; i < 3; i++) {
        if (user_chance(seed, s->tags) && user_chance(seed, 2)) {
            job->tags[job->n_tags++] = tags[i];
        }
    }
    if (user_chance(seed, s->wait_policy)) {
        job->on_worker_lost = (Pb__OnWorkerLost)(1 + user_next(seed) % 3);
    }
    if (user_chance(seed, s->cpus)) {
        job->cpu_millis = 500 * (1 + (uint32_t)(user_next(seed) % 6));
    }
    job->retry_max = (uint32_t)(user_next(seed) % 3);
    if (user_chance(seed, 4)) {
        job->retry_when = arena_alloc(a, sizeof(*job->retry_when));
        job->retry_when[0] = (char *)"script_failure";
        job->n_retry_when = 1;
    }
    job->priority = (int32_t)(user_next(seed) % (2 * s->rank + 1)) - (int32_t)s->rank;
    wish_pool(a, job, seed);
    job->timeout_ms = user_chance(seed, 3) ? 60000 : 0;
    job->interruptible = user_chance(seed, 2);
}

static void set_when(Pb__PlanJob *job, uint64_t *seed)
{
    if (user_chance(seed, sim->swarm.manual)) {
        job->when = WHEN_MANUAL;
    } else if (user_chance(seed, sim->swarm.delayed)) {
        job->when = WHEN_DELAYED;
        job->start_in_ms = 1000 * (1 + user_next(seed) % 40);
    } else if (user_chance(seed, 4)) {
        job->when = user_chance(seed, 2) ? WHEN_ALWAYS : WHEN_ON_FAILURE;
    }
    job->allow_failure = user_chance(seed, 4);
}

/* It may hold a group while it waits for its child: one that no other job wants, or they might wait
 * for each other. */
static void make_trigger(struct arena *a, Pb__PlanJob *job, uint64_t *seed)
{
    job->trigger = arena_alloc(a, sizeof(*job->trigger));
    pb__trigger_spec__init(job->trigger);
    job->trigger->config = pb_bytes(a, STR("{}"));
    job->trigger->strategy = (Pb__TriggerStrategy)(user_next(seed) % 3);
    if (user_chance(seed, sim->swarm.groups)) {
        job->resource_group = (char *)"g1";
    }
}

static void deploy(struct arena *a, Pb__PlanJob *job, uint64_t *seed)
{
    job->environment = arena_alloc(a, sizeof(*job->environment));
    pb__environment_spec__init(job->environment);
    job->environment->name = arena_printf(a, "e%u", 1 + (unsigned)(user_next(seed) % 3));
    if (user_chance(seed, 3)) {
        job->environment->action = (Pb__EnvironmentAction)(1 + user_next(seed) % 4);
    }
    if (user_chance(seed, 3) && job->environment->action != ENVIRONMENT_STOP) {
        job->environment->auto_stop_in_ms = 1000 * (1 + user_next(seed) % 90);
    }
}

static Pb__PlanJob *make_job(struct arena *a, uint32_t index, uint64_t *seed)
{
    Pb__PlanJob *job = arena_alloc(a, sizeof(*job));

    pb__plan_job__init(job);
    job->name = arena_printf(a, "job %u", index);
    job->base_name = job->name;
    if (user_chance(seed, 3)) {
        add_needs(a, job, index, seed);
    }
    set_when(job, seed);
    if (user_chance(seed, sim->swarm.triggers)) {
        make_trigger(a, job, seed);
        return job;
    }
    user_script(a, job);
    user_wish(a, job, seed);
    if (user_chance(seed, sim->swarm.environments)) {
        deploy(a, job, seed);
    }
    return job;
}

Pb__Plan *user_plan(struct arena *a, uint64_t seed, uint32_t max)
{
    Pb__Plan *plan = arena_alloc(a, sizeof(*plan));
    const uint32_t count = 1 + (uint32_t)(user_next(&seed) % max);
    uint32_t stage = 0;

    pb__plan__init(plan);
    plan->stages = arena_array(a, MODEL_PLAN, sizeof(*plan->stages));
    plan->jobs = arena_array(a, MODEL_PLAN, sizeof(*plan->jobs));
    for (uint32_t i = 0; i < count; i++) {
        stage += i > 0 && user_chance(&seed, 3);
        if (plan->n_stages <= stage) {
            plan->stages[plan->n_stages++] = arena_printf(a, "stage %u", stage);
        }
        plan->jobs[i] = make_job(a, i, &seed);
        plan->jobs[i]->stage = stage;
        plan->n_jobs++;
    }
    return plan;
}

/* ---- posts ---- */

static void submit(struct post *p, turn_done_fn done, void *ctx)
{
    turn_submit(sim->turn, p, done, ctx);
    broker_wish(sim->now_us + below(300));
}

/* An answer: what it tells of is safe. */
static void judge(int r)
{
    hash_in(&r, sizeof(r));
    if (r == 0) {
        broker_acknowledge("an answer");
    }
}

static void answered(void *ctx, int r, const struct reply *reply)
{
    if (!sim->dead && r != -E_SHUTDOWN) {
        judge(r);
    }
}

void user_submit(struct post *p)
{
    submit(p, answered, NULL);
}

static void submitted(void *ctx, int r, const struct reply *reply)
{
    struct request *q = ctx;

    q->waits = false;
    if (sim->dead || r == -E_SHUTDOWN || r == -E_FULL || r == -E_NO_SPACE) {
        q->used = q->key != 0; /* without a key nobody may ask again */
        return;
    }
    judge(r);
    trace("user: pipeline %" PRIu64 " %s", reply->pipeline_id, err_code(r));
    if (r == 0 && q->id != 0 && q->id != reply->pipeline_id && sim->leaps == 0) {
        breach_now("a submit under the same key made another pipeline");
    }
    /* A key that was forgotten meanwhile may have been taken for something else. */
    q->acknowledged = r == 0 || (r == -E_KEY_REUSED && sim->leaps > 0);
    q->id = r == 0 ? reply->pipeline_id : 0;
    q->used = true;
}

static void make_protected(struct arena *a, Pb__PipelineCreate *c)
{
    c->predefined = arena_array(a, 1, sizeof(*c->predefined));
    c->predefined[0] = arena_alloc(a, sizeof(*c->predefined[0]));
    pb__variable__init(c->predefined[0]);
    c->predefined[0]->name = (char *)"CI_COMMIT_REF_PROTECTED";
    c->predefined[0]->value = pb_bytes(a, STR("true"));
    c->n_predefined = 1;
}

static void post_pipeline(struct request *q, uint8_t key, uint8_t hash)
{
    struct post *p = post_new("user");
    struct arena *a = post_arena(p);
    Pb__PipelineCreate *c = arena_alloc(a, sizeof(*c));
    uint8_t bytes[HASH_BYTES] = {0};

    pb__pipeline_create__init(c);
    c->plan = user_plan(a, q->seed, MODEL_PLAN);
    c->project = arena_printf(a, "p%u", 1 + (unsigned)(q->seed % MODEL_PROJECTS));
    if (q->seed / 64 % 4 == 0) {
        make_protected(a, c);
    }
    c->ref = arena_strdup(a, STR("main"));
    c->origin = arena_strdup(a, STR("api"));
    if (key != 0) {
        bytes[0] = key;
        c->idempotency_key = pb_bytes(a, str_of(bytes, sizeof(bytes)));
        bytes[0] = hash;
        c->body_hash = pb_bytes(a, str_of(bytes, sizeof(bytes)));
    }
    post_command(p)->body_case = PB__COMMAND__BODY_PIPELINE_CREATE;
    post_command(p)->pipeline_create = c;
    if (hash != q->key) { /* somebody else, with a key that was used */
        submit(p, answered, NULL);
        return;
    }
    q->waits = true;
    submit(p, submitted, q);
}

static void submit_one(void)
{
    if (sim->submitted == MIN(sim->swarm.pipelines, SIM_REQUESTS)) {
        return;
    }
    struct request *q = &sim->requests[sim->submitted++];
    q->used = true;
    q->seed = rnd();
    q->key = one_in(4) ? 0 : (uint8_t)sim->submitted;
    post_pipeline(q, q->key, q->key);
}

/* Asks again for what it has no answer to, or, at times, though it has. */
static void submit_again(void)
{
    for (uint32_t i = 0; i < sim->submitted; i++) {
        struct request *q = &sim->requests[i];
        if (q->used && q->key != 0 && !q->waits && (!q->acknowledged || one_in(8))) {
            post_pipeline(q, q->key, q->key);
            return;
        }
    }
}

static uint64_t some_pipeline(void)
{
    const struct model *m = sim->model;

    return m->pipeline_count > 0 ? MAX(1u, m->pipelines[below(m->pipeline_count)].id) : 1;
}

static uint64_t some_job(void)
{
    const struct model *m = sim->model;

    if (m->pipeline_count == 0) {
        return 1;
    }
    const struct model_pipeline *p = &m->pipelines[below(m->pipeline_count)];
    return p->jobs[below(p->count)].id + (one_in(30) ? 1000 : 0);
}

static void post_play(uint64_t job_id)
{
    struct post *p = post_new("user");

    POST_BODY(p, job_play, JOB_PLAY, pb__job_play__init)->job_id = job_id;
    submit(p, answered, NULL);
}

static void post_worker(uint64_t worker_id, bool paused, bool draining)
{
    struct post *p = post_new("user");
    Pb__WorkerSet *set = POST_BODY(p, worker_set, WORKER_SET, pb__worker_set__init);

    set->worker_id = worker_id;
    set->has_paused = set->has_draining = true;
    set->paused = paused;
    set->draining = draining;
    submit(p, answered, NULL);
}

static void change_job(void)
{
    struct post *p = post_new("user");
    const uint64_t id = some_job();

    if (one_in(2)) {
        POST_BODY(p, job_cancel, JOB_CANCEL, pb__job_cancel__init)->job_id = id;
    } else {
        POST_BODY(p, job_retry, JOB_RETRY, pb__job_retry__init)->job_id = id;
    }
    submit(p, answered, NULL);
}

static void change_pipeline(void)
{
    struct post *p = post_new("user");
    const uint64_t id = some_pipeline();

    if (one_in(2)) {
        POST_BODY(p, pipeline_cancel, PIPELINE_CANCEL, pb__pipeline_cancel__init)->pipeline_id = id;
    } else {
        POST_BODY(p, pipeline_retry, PIPELINE_RETRY, pb__pipeline_retry__init)->pipeline_id = id;
    }
    submit(p, answered, NULL);
}

static void stop_environment(void)
{
    const struct model_environment *e = &sim->model->environments[between(1, MODEL_GROUPS)];
    struct post *p = post_new("user");
    Pb__EnvironmentStop *c = POST_BODY(p, environment_stop, ENVIRONMENT_STOP,
                                       pb__environment_stop__init);

    c->environment_id = e->id;
    c->force = one_in(2);
    submit(p, answered, NULL);
}

static void play_some(void)
{
    const uint64_t id = some_job();
    const struct model_job *j = model_job(sim->model, id, NULL);

    for (uint32_t i = 0; i < 4 && j != NULL && j->state != JOB_MANUAL; i++) {
        j = model_job(sim->model, some_job(), NULL);
    }
    post_play(j != NULL ? j->id : id);
}

static void reuse_key(void)
{
    struct request *q = &sim->requests[below(SIM_REQUESTS)];

    if (q->used && q->key != 0 && q->acknowledged) {
        post_pipeline(q, q->key, 200);
    }
}

void user_was_lost(void)
{
    for (uint32_t i = 0; i < SIM_REQUESTS; i++) {
        struct request *q = &sim->requests[i];
        if (q->id != 0 && model_pipeline(sim->model, q->id) == NULL) {
            q->used = false;
            q->id = 0;
        }
    }
}

void user_event(void)
{
    event_add_us(sim->now_us + SIM_MS * between(1, 2 * sim->swarm.user_ms), EV_USER, 0, 0);
    if (!sim->up || sim->durable_index < 3) {
        return;
    }
    if (sim->faults && one_in(sim->swarm.settings)) {
        settings_change();
        return;
    }
    if (one_in(4 * sim->swarm.environments)) {
        stop_environment();
        return;
    }
    switch (below(12)) {
    case 0:
        change_job();
        break;
    case 1:
        change_pipeline();
        break;
    case 2:
    case 3:
        play_some();
        break;
    case 4:
        if (sim->model->worker_count > 0 && sim->faults) {
            post_worker(sim->model->workers[below(sim->model->worker_count)].id, one_in(3),
                        one_in(4));
        }
        break;
    case 5:
    case 6:
        submit_again();
        break;
    case 7:
        reuse_key();
        break;
    default:
        submit_one();
        break;
    }
}

void user_finish(void)
{
    const struct model *m = sim->model;

    if (!sim->up) {
        return;
    }
    submit_again();
    settings_open();
    for (uint32_t i = 0; i < m->worker_count; i++) {
        if (m->workers[i].paused || m->workers[i].draining) {
            post_worker(m->workers[i].id, false, false);
        }
    }
    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        for (uint32_t k = 0; k < m->pipelines[i].count; k++) {
            if (m->pipelines[i].jobs[k].state == JOB_MANUAL) {
                post_play(m->pipelines[i].jobs[k].id);
            }
        }
    }
}
