#include "common/base.h"

#include "broker/core/rollout_move.h"
#include "common/limits.h"

/* What has outlived its time is deleted. A family of pipelines is hidden as a whole: its rows in
 * the table pipeline move to pipeline_gone, and from then on nobody finds it, nor its jobs. The
 * rest goes row by row, in this command or in later ones, the row of a thing after all that hangs
 * on it; so a step can end anywhere, and the next one finds what is left. */

/* A family that an environment still needs is looked at again after so long. */
#define LOOK_AGAIN_MS (24ull * 3600 * 1000)

struct sweep {
    struct core *c;
    uint64_t until; /* changes of the tx at which it stops */
};

static bool spent(const struct sweep *s)
{
    return !tx_ok(s->c->tx) || tx_changes(s->c->tx) >= s->until;
}

static void forget_attempts(struct sweep *s, struct str of_job)
{
    struct key k;

    while (!spent(s) && tx_first_key(s->c->tx, T_ATTEMPT, of_job, &k)) {
        tx_del(s->c->tx, T_ATTEMPT, &k);
    }
}

static void forget_artifacts(struct sweep *s, struct str of_job)
{
    struct key k;

    while (!spent(s) && tx_first_key(s->c->tx, T_ARTIFACT, of_job, &k)) {
        artifact_drop(s->c, &k);
    }
}

static void forget_deployments(struct sweep *s, const Pb__JobRecord *job, struct str of_job)
{
    struct key k;

    while (!spent(s) && tx_first_key(s->c->tx, T_JOB_DEPLOYMENT, of_job, &k)) {
        environment_forget_deployment(s->c, job, key_read_u64(key_str(&k), sizeof(uint64_t)));
    }
}

/* False: something of it is left. */
static bool forget_job(struct sweep *s, const Pb__PipelineRecord *p, uint32_t index)
{
    struct core *c = s->c;
    const struct key k = key_u64(p->first_job_id + index);
    const struct key plan = key_u64_u64(p->id, index);
    const Pb__JobRecord *job = (const Pb__JobRecord *)core_row(c, T_JOB, &k,
                                                               &pb__job_record__descriptor);

    check(job->timer_id == 0 || !tx_ok(c->tx));
    forget_attempts(s, key_str(&k));
    forget_artifacts(s, key_str(&k));
    forget_deployments(s, job, key_str(&k));
    if (spent(s)) {
        return false;
    }
    if (job->environment_id != 0) {
        environment_forget_job(c, job);
    }
    tx_del(c->tx, T_JOB_DOTENV, &k);
    tx_del(c->tx, T_JOB_VARS, &k);
    tx_del(c->tx, T_PLAN, &plan);
    tx_del(c->tx, T_JOB, &k);
    class_count(c, job->class_id, -1, job_state_terminal(job->state) ? 0 : -1);
    job_count(c, job->state, -1);
    return true;
}

static void forget_events(struct sweep *s, struct str of_pipeline)
{
    struct key k;

    while (!spent(s) && tx_first_key(s->c->tx, T_PIPELINE_EVENT, of_pipeline, &k)) {
        event_forget(s->c, key_read_u64(key_str(&k), sizeof(uint64_t)));
    }
}

/* The counts in its row say how much is left of jobs and stages. */
static void forget_hidden(struct sweep *s, const struct key *k)
{
    struct tx *tx = s->c->tx;
    Pb__PipelineRecord *p = (Pb__PipelineRecord *)core_row(s->c, T_PIPELINE_GONE, k,
                                                           &pb__pipeline_record__descriptor);

    while (!spent(s) && p->job_count > 0 && forget_job(s, p, p->job_count - 1)) {
        p->job_count--;
    }
    while (!spent(s) && p->job_count == 0 && p->stage_count > 0) {
        const struct key stage = key_u64_u64(p->id, --p->stage_count);
        tx_del(tx, T_STAGE, &stage);
    }
    if (p->job_count == 0 && p->stage_count == 0) {
        forget_events(s, key_str(k));
    }
    if (spent(s)) {
        tx_put_msg(tx, T_PIPELINE_GONE, k, &p->base);
    } else {
        tx_del(tx, T_PIPELINE_GONE, k);
    }
}

static void hide(struct core *c, uint64_t id)
{
    const struct key k = key_u64(id);
    const Pb__PipelineRecord *p = (const Pb__PipelineRecord *)core_row(
        c, T_PIPELINE, &k, &pb__pipeline_record__descriptor);
    const struct key of_project = key_u64_u64(p->project_id, p->id);

    if (!tx_ok(c->tx)) {
        return;
    }
    check(status_terminal(p->status));
    if (p->source != NULL && p->source->from_case == PB__SOURCE__FROM_SNAPSHOT) {
        blob_ref_del(c, pb_str(p->source->snapshot->digest), BLOB_SOURCE, p->id);
    }
    if (p->bundle != NULL) {
        blob_ref_del(c, pb_str(p->bundle->digest), BLOB_BUNDLE, p->id);
    }
    tx_del(c->tx, T_PIPELINE_VARS, &k);
    tx_del(c->tx, T_PROJECT_PIPELINE, &of_project);
    tx_del(c->tx, T_PIPELINE, &k);
    tx_put_msg(c->tx, T_PIPELINE_GONE, &k, &p->base);
    c->reply->expired++;
}

/* The ids of all that stand below it. */
static uint64_t *members_of(struct core *c, const Pb__PipelineRecord *root, size_t *ret_count)
{
    const struct key prefix = key_u64(root->id);
    uint64_t *list = arena_array(c->arena, root->family + 1, sizeof(*list));
    struct cursor cur;
    size_t n = 0;

    for (tx_seek(&cur, c->tx, T_FAMILY, key_str(&prefix), NULL); cur.valid && n < root->family;
         tx_next(&cur)) {
        list[n++] = key_read_u64(cur.key, sizeof(uint64_t));
    }
    cursor_end(&cur);
    *ret_count = n;
    return list;
}

static bool is_needed(struct core *c, uint64_t pipeline_id)
{
    const struct key prefix = key_u64(pipeline_id);
    struct key k;

    return tx_first_key(c->tx, T_PIPELINE_NEEDED, key_str(&prefix), &k);
}

static void expire_family(struct core *c, const struct key *ended, uint64_t before_ms)
{
    const uint64_t id = key_read_u64(key_str(ended), sizeof(uint64_t));
    const struct key k = key_u64(id);
    Pb__PipelineRecord *root = (Pb__PipelineRecord *)core_row(c, T_PIPELINE, &k,
                                                              &pb__pipeline_record__descriptor);
    size_t n;
    const uint64_t *members = members_of(c, root, &n);
    bool needed = is_needed(c, id);

    for (size_t i = 0; i < n; i++) {
        needed = needed || is_needed(c, members[i]);
    }
    tx_del(c->tx, T_PIPELINE_ENDED, ended);
    if (needed) {
        struct key again;
        root->family_ended_ms = before_ms + LOOK_AGAIN_MS;
        again = family_ended_key(root->family_ended_ms, id);
        tx_put(c->tx, T_PIPELINE_ENDED, &again, STR_NULL);
        tx_put_msg(c->tx, T_PIPELINE, &k, &root->base);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        const struct key of_family = key_u64_u64(id, members[i]);
        hide(c, members[i]);
        tx_del(c->tx, T_FAMILY, &of_family);
    }
    hide(c, id);
}

static void expire_pipelines(struct sweep *s, uint64_t before_ms)
{
    struct tx *tx = s->c->tx;
    struct key k;

    while (!spent(s)) {
        if (tx_first_key(tx, T_PIPELINE_GONE, STR_NULL, &k)) {
            forget_hidden(s, &k);
        } else if (before_ms != 0 && tx_first_key(tx, T_PIPELINE_ENDED, STR_NULL, &k) &&
                   key_read_u64(key_str(&k), 0) <= before_ms) {
            expire_family(s->c, &k, before_ms);
        } else {
            return;
        }
    }
}

/* Jobs without a pipeline: each has its own time. */
static void expire_jobs(struct sweep *s)
{
    struct core *c = s->c;
    struct key k;

    while (!spent(s) && tx_first_key(c->tx, T_EXPIRE, STR_NULL, &k) &&
           key_read_u64(key_str(&k), 0) <= c->now_ms) {
        const struct key id = key_u64(key_read_u64(key_str(&k), sizeof(uint64_t)));
        const Pb__JobRecord *job = (const Pb__JobRecord *)core_row(c, T_JOB, &id,
                                                                   &pb__job_record__descriptor);
        if (tx_ok(c->tx)) {
            job_forget(c, job);
            c->reply->expired++;
        }
    }
}

/* Rollouts that ended so long ago. What a service keeps of them stays. */
static void expire_rollouts(struct sweep *s, uint64_t before_ms)
{
    struct core *c = s->c;
    struct key k;

    while (before_ms != 0 && !spent(s) && tx_first_key(c->tx, T_ROLLOUT_ENDED, STR_NULL, &k) &&
           key_read_u64(key_str(&k), 0) <= before_ms) {
        rollout_forget(c, key_read_u64(key_str(&k), sizeof(uint64_t)));
    }
}

static void expire_classes(struct sweep *s)
{
    while (!spent(s) && class_expire(s->c)) {
    }
}

int apply_expire(struct core *c, const Pb__Expire *cmd)
{
    struct sweep s = {.c = c, .until = tx_changes(c->tx) + cmd->max};

    if (cmd->max == 0 || cmd->max > LIMIT_EXPIRE_BATCH) {
        return reject(c, -E_LIMIT, "expire 1 to %u rows at a time", LIMIT_EXPIRE_BATCH);
    }
    if (cmd->pipelines_before_ms >= c->now_ms) {
        return reject(c, -E_INVALID, "nothing may expire before it has ended");
    }
    expire_pipelines(&s, cmd->pipelines_before_ms);
    expire_rollouts(&s, cmd->pipelines_before_ms);
    expire_jobs(&s);
    expire_classes(&s);
    return tx_error(c->tx);
}

uint64_t core_next_expiry_ms(struct tx *tx, uint64_t keep_pipelines_ms)
{
    uint64_t due_ms = UINT64_MAX;
    struct key k;

    if (tx_count(tx, T_PIPELINE_GONE) > 0) {
        return 0;
    }
    if (tx_first_key(tx, T_EXPIRE, STR_NULL, &k)) {
        due_ms = key_read_u64(key_str(&k), 0);
    }
    if (tx_first_key(tx, T_CLASS_IDLE, STR_NULL, &k)) {
        due_ms = MIN(due_ms, key_read_u64(key_str(&k), 0) + CORE_KEEP_CLASS_MS);
    }
    if (keep_pipelines_ms != 0 && tx_first_key(tx, T_PIPELINE_ENDED, STR_NULL, &k)) {
        const uint64_t ended_ms = key_read_u64(key_str(&k), 0);
        due_ms = MIN(due_ms, ended_ms + MIN(keep_pipelines_ms, UINT64_MAX - ended_ms));
    }
    if (keep_pipelines_ms != 0 && tx_first_key(tx, T_ROLLOUT_ENDED, STR_NULL, &k)) {
        const uint64_t ended_ms = key_read_u64(key_str(&k), 0);
        due_ms = MIN(due_ms, ended_ms + MIN(keep_pipelines_ms, UINT64_MAX - ended_ms));
    }
    return due_ms;
}
