#include "common/base.h"

#include "broker/core/run.h"
#include "common/crypto.h"
#include "common/limits.h"

#include <stdlib.h>

/* Taking jobs without a pipeline. */

/* What only a pipeline gives a meaning to. */
static bool needs_pipeline(const Pb__PlanJob *p)
{
    return p->stage != 0 || p->n_after_script != 0 || p->image != NULL || p->n_services != 0 ||
           p->when != WHEN_ON_SUCCESS || p->start_in_ms != 0 || p->allow_failure ||
           p->n_allow_failure_exit_codes != 0 || p->dag || p->n_needs != 0 || p->has_dependencies ||
           p->n_dependencies != 0 || p->artifacts != NULL || p->node_index != 0 ||
           p->node_total != 0 || p->base_name[0] != '\0' || p->n_pre_get_sources != 0 ||
           p->n_caches != 0 || p->environment != NULL || p->trigger != NULL || p->rollout != NULL ||
           p->coverage.len != 0 || p->manual_confirmation[0] != '\0' || p->release != NULL ||
           p->pages != NULL || p->n_id_tokens != 0 || p->n_outer_needs != 0 ||
           p->n_unsupported != 0;
}

static int times_check(struct core *c, size_t i, const Pb__EnqueueJob *e)
{
    if (e->not_before_ms > c->now_ms + LIMIT_NOT_BEFORE_MS) {
        return reject(c, -E_LIMIT, "jobs[%zu]: a start that is too far away", i);
    }
    if (e->keep_ms > LIMIT_EXPIRE_MS) {
        return reject(c, -E_LIMIT, "jobs[%zu]: kept for too long", i);
    }
    return 0;
}

static int job_check(struct core *c, size_t i, const Pb__EnqueueJob *e)
{
    const Pb__PlanJob *p = e->plan;

    if (p == NULL || !name_ok(p->name)) {
        return reject(c, -E_INVALID, "jobs[%zu]: no job, or a bad name", i);
    }
    if (p->n_script == 0 && p->action == NULL) {
        return reject(c, -E_INVALID, "jobs[%zu]: no script", i);
    }
    if (needs_pipeline(p)) {
        return reject(c, -E_INVALID, "jobs[%zu]: a keyword that needs a pipeline", i);
    }
    if (e->idempotency_key.len != 0 &&
        (e->idempotency_key.len != SHA256_BYTES || e->body_hash.len != SHA256_BYTES)) {
        return reject(c, -E_INVALID, "jobs[%zu]: bad idempotency key", i);
    }
    return times_check(c, i, e);
}

static int by_key(const void *a, const void *b)
{
    const Pb__EnqueueJob *x = *(const Pb__EnqueueJob *const *)a;
    const Pb__EnqueueJob *y = *(const Pb__EnqueueJob *const *)b;

    return memcmp(x->idempotency_key.data, y->idempotency_key.data, SHA256_BYTES);
}

static bool same_body(const Pb__EnqueueJob *a, const ProtobufCBinaryData *hash)
{
    return str_eq(pb_str(a->body_hash), pb_str(*hash));
}

void core_enqueue_hash(const char *project, const Pb__EnqueueJob *job, uint64_t delay_ms,
                       uint8_t ret[SHA256_BYTES])
{
    Pb__EnqueueJob wish = *job;
    struct buf b = BUF_INIT;

    wish.idempotency_key = wish.body_hash = pb_bytes_ref(STR_NULL);
    wish.not_before_ms = delay_ms != 0 ? 0 : job->not_before_ms;
    buf_addf(&b, "%zu:%s;%" PRIu64 ";", strlen(project), project, delay_ms);
    PB_PACK(&wish, &b);
    crypto_sha256(b.p, b.n, ret);
    buf_release(&b);
}

/* A key means one job: before, and within the command. */
static int keys_check(struct core *c, const Pb__JobsEnqueue *cmd)
{
    const Pb__EnqueueJob **keyed = arena_array(c->arena, cmd->n_jobs, sizeof(*keyed));
    size_t n = 0;

    for (size_t i = 0; i < cmd->n_jobs; i++) {
        const Pb__EnqueueJob *e = cmd->jobs[i];
        const Pb__RequestRecord *old;
        if (e->idempotency_key.len == 0) {
            continue;
        }
        keyed[n++] = e;
        old = request_get(c->tx, e->idempotency_key);
        if (old != NULL && (old->job_id == 0 || !same_body(e, &old->body_hash))) {
            return reject(c, -E_KEY_REUSED,
                          "jobs[%zu]: the idempotency key was used for another request", i);
        }
    }
    qsort(keyed, n, sizeof(*keyed), by_key);
    for (size_t i = 1; i < n; i++) {
        if (by_key(&keyed[i - 1], &keyed[i]) == 0 &&
            !same_body(keyed[i], &keyed[i - 1]->body_hash)) {
            return reject(c, -E_KEY_REUSED, "two jobs of one idempotency key");
        }
    }
    return tx_error(c->tx);
}

/* Whether the plans are small enough, by sizes that are rather too large. */
static bool surely_fit(const Pb__JobsEnqueue *cmd)
{
    size_t total = 0;

    for (size_t i = 0; i < cmd->n_jobs; i++) {
        total += pb_size_bound(&cmd->jobs[i]->plan->base);
    }
    /* One that is larger than a job may be is larger than all may be. */
    return total <= MIN(LIMIT_ENQUEUE_BYTES, LIMIT_JOB_SPEC - SPEC_FIXED_BYTES - SPEC_PLAY_BYTES);
}

static int sizes_check(struct core *c, const Pb__JobsEnqueue *cmd)
{
    size_t total = 0;

    if (surely_fit(cmd)) {
        return 0;
    }
    for (size_t i = 0; i < cmd->n_jobs; i++) {
        const size_t n = pb__plan_job__get_packed_size(cmd->jobs[i]->plan);
        total += n;
        if (total > LIMIT_ENQUEUE_BYTES ||
            n + SPEC_FIXED_BYTES + SPEC_PLAY_BYTES > LIMIT_JOB_SPEC) {
            return reject(c, -E_TOO_BIG, "jobs[%zu]: more than %u bytes, or %u in all", i,
                          LIMIT_JOB_SPEC - SPEC_FIXED_BYTES - SPEC_PLAY_BYTES, LIMIT_ENQUEUE_BYTES);
        }
    }
    return 0;
}

static int enqueue_check(struct core *c, const Pb__JobsEnqueue *cmd)
{
    int r = 0;

    if (!name_ok(cmd->project)) {
        return reject(c, -E_INVALID, "bad project name");
    }
    if (cmd->n_jobs == 0 || cmd->n_jobs > LIMIT_ENQUEUE_JOBS) {
        return reject(c, -E_INVALID, "1 to %u jobs are enqueued at once", LIMIT_ENQUEUE_JOBS);
    }
    for (size_t i = 0; i < cmd->n_jobs && r == 0; i++) {
        r = job_check(c, i, cmd->jobs[i]);
        r = r < 0 ? r : plan_job_check(c, NULL, cmd->jobs[i]->plan);
    }
    return r < 0 ? r : keys_check(c, cmd);
}

/* Jobs that were there before ask for nothing new. */
static int room_check(struct core *c, const Pb__JobsEnqueue *cmd)
{
    Pb__PlanJob **plans = arena_array(c->arena, cmd->n_jobs, sizeof(*plans));
    size_t n = 0;

    for (size_t i = 0; i < cmd->n_jobs; i++) {
        const ProtobufCBinaryData key = cmd->jobs[i]->idempotency_key;
        if (key.len == 0 || request_get(c->tx, key) == NULL) {
            plans[n++] = cmd->jobs[i]->plan;
        }
    }
    return classes_check(c, plans, n, false);
}

static bool same_class(const Pb__PlanJob *a, const Pb__PlanJob *b)
{
    if (a->n_tags != b->n_tags || a->cpu_millis != b->cpu_millis ||
        a->memory_bytes != b->memory_bytes || a->disk_bytes != b->disk_bytes ||
        strcmp(a->executor, b->executor) != 0 || strcmp(a->pool, b->pool) != 0 ||
        !action_same_executor(a->action, b->action)) {
        return false;
    }
    for (size_t i = 0; i < a->n_tags; i++) {
        if (strcmp(a->tags[i], b->tags[i]) != 0) {
            return false;
        }
    }
    return true;
}

static Pb__JobRecord *make_job(struct core *c, uint64_t project_id, const Pb__EnqueueJob *e,
                               uint64_t class_id)
{
    Pb__JobRecord *job = arena_alloc(c->arena, sizeof(*job));
    const Pb__PlanJob *plan = e->plan;

    pb__job_record__init(job);
    job->id = core_new_id(c);
    job->project_id = project_id;
    job->name = plan->name;
    job->state = JOB_CREATED;
    job->class_id = class_id;
    job->priority = plan->priority;
    job->resource_group = plan->resource_group;
    job->interruptible = plan->interruptible;
    job->on_worker_lost = plan->on_worker_lost;
    job->retry_max = plan->retry_max;
    job->created_ms = c->now_ms;
    job->timeout_ms = plan->timeout_ms != 0 ? plan->timeout_ms : action_timeout_ms(plan);
    job->keep_ms = e->keep_ms;
    job->submitted_by = (char *)c->actor;
    return job;
}

static void enqueue(struct core *c, Pb__JobRecord *job, const Pb__EnqueueJob *e)
{
    const struct key k = key_u64(job->id);
    struct run run;

    class_count(c, job->class_id, 1, 1);
    job_count(c, job->state, 1);
    tx_put_msg(c->tx, T_JOB_PLAN, &k, &e->plan->base);
    run_init_new_lone(&run, c, job);
    if (e->not_before_ms > c->now_ms) {
        job_move(&run, job, JOB_SCHEDULED, NULL);
        job_timer_set(&run, job, PB__JOB_TIMER_KIND__JOB_TIMER_DELAYED, e->not_before_ms);
    } else {
        job_queue(&run, job, NULL);
    }
    run_close(&run, 0);
    if (e->idempotency_key.len != 0) {
        Pb__RequestRecord row = PB__REQUEST_RECORD__INIT;
        row.job_id = job->id;
        row.body_hash = e->body_hash;
        request_add(c, e->idempotency_key, &row);
    }
}

int apply_jobs_enqueue(struct core *c, const Pb__JobsEnqueue *cmd)
{
    const Pb__PlanJob *last = NULL; /* of whom class_id is */
    struct reply_job *made;
    uint64_t project_id, class_id = 0;
    int r = enqueue_check(c, cmd);

    if (r < 0) {
        return r;
    }
    r = sizes_check(c, cmd);
    r = r < 0 ? r : room_check(c, cmd);
    if (r < 0) {
        return r;
    }
    made = arena_array(c->arena, cmd->n_jobs, sizeof(*made));
    project_id = project_open(c, cmd->project)->id;
    for (size_t i = 0; i < cmd->n_jobs; i++) {
        const Pb__EnqueueJob *e = cmd->jobs[i];
        const Pb__RequestRecord *old = e->idempotency_key.len != 0
                                           ? request_get(c->tx, e->idempotency_key)
                                           : NULL;
        if (old != NULL) {
            made[i] = (struct reply_job){.job_id = old->job_id, .duplicate = true};
            continue;
        }
        if (last == NULL || !same_class(e->plan, last)) {
            class_id = class_open(c, e->plan, false);
        }
        last = e->plan;
        Pb__JobRecord *job = make_job(c, project_id, e, class_id);
        made[i] = (struct reply_job){.job_id = job->id};
        enqueue(c, job, e);
    }
    c->reply->project_id = project_id;
    c->reply->jobs = made;
    c->reply->job_count = cmd->n_jobs;
    c->reply->job_id = made[0].job_id;
    return tx_error(c->tx);
}
