#include "common/base.h"

#include "tests/sim/sim.h"

/* Jobs without a pipeline, and what is deleted for its age: decisions 0008 and 0010. */

#define DAY_MS          86400000ull
#define KEY_MS          DAY_MS
#define KEEP_FAILED_MS  (7 * DAY_MS)
#define DEFAULT_TIMEOUT 3600000u

static uint8_t tag_bits(char *const *tags, size_t n)
{
    uint8_t bits = 0;

    for (size_t i = 0; i < n; i++) {
        bits |= (uint8_t)(1u << (tags[i][0] - 'a'));
    }
    return bits;
}

void model_new_job(struct model *m, struct model_job *j, const Pb__PlanJob *plan, uint64_t id,
                   uint8_t project)
{
    const uint8_t group = model_number(plan->resource_group);

    *j = (struct model_job){
        .id = id,
        .state = JOB_CREATED,
        .stage = (uint8_t)plan->stage,
        .when = (uint8_t)plan->when,
        .dag = plan->dag,
        .may_fail = plan->allow_failure,
        .project = project,
        .pool = model_number(plan->pool),
        .tags = tag_bits(plan->tags, plan->n_tags),
        .trigger = plan->trigger != NULL,
        .strategy = plan->trigger != NULL ? (uint8_t)plan->trigger->strategy : 0,
        .group = group != 0 ? (uint8_t)(3 * (project - 1) + group) : 0,
        .cpu_millis = plan->cpu_millis,
        .priority = plan->priority,
        .interruptible = plan->interruptible,
        .on_lost = (uint8_t)plan->on_worker_lost,
        .retry_max = (uint8_t)plan->retry_max,
        .retry_script_only = plan->n_retry_when > 0,
        .timeout_ms = plan->timeout_ms != 0 ? plan->timeout_ms : DEFAULT_TIMEOUT,
        .start_in_ms = plan->start_in_ms,
    };
    for (size_t i = 0; i < plan->n_needs; i++) {
        j->needs |= (uint8_t)(1u << plan->needs[i]->job);
    }
    m->projects[project].there = true;
}

struct model_pipeline *model_new_pipeline(struct model *m)
{
    check(m->pipeline_count < MODEL_PIPELINES);
    struct model_pipeline *p = &m->pipelines[m->pipeline_count++];
    p->id = 0;
    p->ended_ms = 0;
    p->parent_job = p->root = 0;
    p->depth = 0;
    p->told = false;
    p->count = 0;
    model_touch(p);
    return p;
}

void model_add_key(struct model *m, ProtobufCBinaryData key, ProtobufCBinaryData hash,
                   uint64_t pipeline_id, uint64_t job_id)
{
    if (key.len > 0) {
        check(m->key_count < MODEL_KEYS);
        m->keys[m->key_count++] = (struct model_key){.stamp = ++sim->stamps,
                                                     .key = model_bytes(key),
                                                     .hash = model_bytes(hash),
                                                     .pipeline_id = pipeline_id,
                                                     .job_id = job_id,
                                                     .expires_ms = m->now_ms + KEY_MS};
    }
}

/* ---- enqueue ---- */

/* A key means one job: before, and within the command. */
int model_foretell_enqueue(const struct model *m, const Pb__JobsEnqueue *c)
{
    if (c->project[0] == '\0') {
        return -E_INVALID;
    }
    for (size_t i = 0; i < c->n_jobs; i++) {
        const Pb__EnqueueJob *e = c->jobs[i];
        const struct model_key *k = model_key(m, e->idempotency_key);
        if (k != NULL && (k->job_id == 0 || k->hash != model_bytes(e->body_hash))) {
            return -E_KEY_REUSED;
        }
        for (size_t n = 0; n < i && e->idempotency_key.len > 0; n++) {
            const Pb__EnqueueJob *other = c->jobs[n];
            if (other->idempotency_key.len > 0 &&
                model_bytes(other->idempotency_key) == model_bytes(e->idempotency_key) &&
                model_bytes(other->body_hash) != model_bytes(e->body_hash)) {
                return -E_KEY_REUSED;
            }
        }
    }
    return 0;
}

static void add_lone(struct model *m, const Pb__EnqueueJob *e, uint64_t id, uint8_t project)
{
    struct model_pipeline *p = model_new_pipeline(m);
    struct model_job *j = &p->jobs[0];

    p->count = 1;
    model_new_job(m, j, e->plan, id, project);
    j->lone = true;
    j->keep_ms = e->keep_ms;
    if (e->not_before_ms > m->now_ms) {
        model_move(m, j, JOB_SCHEDULED);
        model_timer(j, TIMER_DELAY, e->not_before_ms);
    } else {
        model_queue(m, j);
    }
    model_add_key(m, e->idempotency_key, e->body_hash, 0, id);
}

void model_apply_enqueue(struct model *m, const Pb__JobsEnqueue *c, const struct reply *reply)
{
    const uint8_t project = model_number(c->project);

    if (reply->job_count != c->n_jobs) {
        breach_now("%zu jobs were enqueued, %zu answered", c->n_jobs, reply->job_count);
    }
    for (size_t i = 0; i < c->n_jobs; i++) {
        const struct reply_job *said = &reply->jobs[i];
        const struct model_key *k = model_key(m, c->jobs[i]->idempotency_key);
        if (said->duplicate != (k != NULL) || (k != NULL && said->job_id != k->job_id) ||
            (k == NULL && model_job(m, said->job_id, NULL) != NULL)) {
            breach_now("job %zu of a request has the id %" PRIu64 "%s", i, said->job_id,
                       said->duplicate ? ", of a duplicate" : "");
        }
        if (k == NULL) {
            add_lone(m, c->jobs[i], said->job_id, project);
        }
    }
    m->projects[project].there = true;
}

/* ---- what is old ---- */

uint64_t model_old_ms(const struct model *m, const struct model_pipeline *p, uint64_t keep_ms)
{
    const struct model_job *j = &p->jobs[0];

    if (p->id != 0) {
        const uint64_t ended_ms = model_root(m, p)->ended_ms;
        return ended_ms != 0 && keep_ms != 0 ? ended_ms + keep_ms : UINT64_MAX;
    }
    if (!model_ended(j->state)) {
        return UINT64_MAX;
    }
    return j->ended_ms + (j->state == JOB_SUCCESS ? j->keep_ms : MAX(j->keep_ms, KEEP_FAILED_MS));
}

static void drop(struct model *m, uint32_t i)
{
    m->pipelines[i] = m->pipelines[--m->pipeline_count];
    m->pipelines[i].stamp = ++sim->stamps;
}

void model_sweep(struct model *m, struct tx *tx)
{
    for (uint32_t i = m->pipeline_count; i-- > 0;) {
        const struct model_job *j = &m->pipelines[i].jobs[0];
        if (j->lone && j->state == JOB_SUCCESS && j->keep_ms == 0) {
            if (job_get(tx, j->id) != NULL) {
                breach_now("job %" PRIu64 " ended well, and is kept", j->id);
            }
            drop(m, i);
        }
    }
}

static bool is_there(const struct model_pipeline *p, struct tx *tx)
{
    return p->id != 0 ? pipeline_get(tx, p->id) != NULL : job_get(tx, p->jobs[0].id) != NULL;
}

/* The oldest first, and never before its time: of pipelines and of jobs without one, each. */
void model_apply_expire(struct model *m, const Pb__Expire *c, struct tx *tx)
{
    const uint64_t keep_ms = c->pipelines_before_ms != 0 ? m->now_ms - c->pipelines_before_ms : 0;
    uint64_t kept_ms[2] = {UINT64_MAX, UINT64_MAX}, gone_ms[2] = {0, 0};
    uint64_t old_ms_of[MODEL_PIPELINES];

    model_look_again(m, c->pipelines_before_ms, tx);
    for (uint32_t i = 0; i < m->pipeline_count; i++) { /* while all of a family are there */
        old_ms_of[i] = model_old_ms(m, &m->pipelines[i], keep_ms);
    }
    for (uint32_t i = m->pipeline_count; i-- > 0;) {
        const struct model_pipeline *p = &m->pipelines[i];
        const bool lone = p->id == 0;
        const uint64_t old_ms = old_ms_of[i];
        if (is_there(p, tx)) {
            kept_ms[lone] = MIN(kept_ms[lone], old_ms);
        } else if (old_ms > m->now_ms) {
            breach_now("%s %" PRIu64 " is deleted before its time", lone ? "job" : "pipeline",
                       lone ? p->jobs[0].id : p->id);
        } else {
            gone_ms[lone] = MAX(gone_ms[lone], old_ms);
            drop(m, i);
        }
    }
    if (gone_ms[0] > kept_ms[0] || gone_ms[1] > kept_ms[1]) {
        breach_now("what is younger is deleted before what is older");
    }
}
