#include "common/base.h"

#include "broker/core/run.h"

/* Jobs without a pipeline. Nothing comes before or after one, nobody counts it, and it writes no
 * events: its own row and those of its attempts say all. So that there can be very many, a success
 * that is not kept leaves nothing behind, and an attempt has a row only once it has ended. */

/* When the rows of an ended job are deleted; 0: at its end. */
static uint64_t due_ms(const Pb__JobRecord *job)
{
    if (job->state == JOB_SUCCESS || job->rollout_action != 0) { /* its rollout has the answer */
        return job->keep_ms != 0 ? job->finished_ms + job->keep_ms : 0;
    }
    return job->finished_ms + MAX(job->keep_ms, CORE_KEEP_FAILED_MS);
}

struct key lone_expire_key(const Pb__JobRecord *job)
{
    check(job->pipeline_id == 0 && job_state_terminal(job->state));
    return key_u64_u64(due_ms(job), job->id);
}

bool lone_is_kept(const Pb__JobRecord *job)
{
    return due_ms(job) != 0;
}

static struct run *init(struct run *run, struct core *c, Pb__JobRecord *job)
{
    check(job->pipeline_id == 0);
    run->core = c;
    run->pipeline = &c->no_pipeline;
    run->stages = NULL;
    run->stage_dirty = NULL;
    run->jobs = &run->lone;
    run->settled = NULL;
    run->settled_first = run->settled_count = 0;
    run->dirty = false;
    run->held = NULL;
    run->outcome = NULL;
    run->lone = (struct run_job){.record = job};
    run->lone_expire_ms = job_state_terminal(job->state) ? due_ms(job) : 0;
    if (c->no_pipeline.base.descriptor == NULL) {
        pb__pipeline_record__init(&c->no_pipeline);
        c->no_pipeline.job_count = 1;
    }
    return run;
}

void run_init_lone(struct run *run, struct core *c, Pb__JobRecord *job)
{
    init(run, c, job);
}

void run_init_new_lone(struct run *run, struct core *c, Pb__JobRecord *job)
{
    init(run, c, job)->lone.dirty = true;
}

static void expire_del(struct core *c, uint64_t expire_ms, uint64_t job_id)
{
    const struct key k = key_u64_u64(expire_ms, job_id);

    if (expire_ms != 0) {
        tx_del(c->tx, T_EXPIRE, &k);
    }
}

void job_forget(struct core *c, const Pb__JobRecord *job)
{
    const struct key k = key_u64(job->id);

    check(job->pipeline_id == 0 && job_state_terminal(job->state));
    expire_del(c, due_ms(job), job->id);
    for (uint64_t i = 1; i <= job->attempt; i++) {
        const struct key of_attempt = key_u64_u64(job->id, i);
        tx_del(c->tx, T_ATTEMPT, &of_attempt);
    }
    tx_del(c->tx, T_JOB_VARS, &k);
    tx_del(c->tx, T_JOB_PLAN, &k);
    tx_del(c->tx, T_JOB, &k);
    class_count(c, job->class_id, -1, 0);
    job_count(c, job->state, -1);
}

static void ended(struct core *c, const Pb__JobRecord *job)
{
    effect_add(c->fx, (struct effect){.kind = EFFECT_ENDED,
                                      .job_id = job->id,
                                      .attempt = job->attempt,
                                      .epoch = job->epoch,
                                      .state = job->state,
                                      .reason = job->reason,
                                      .exit_code = job->exit_code});
}

/* Writes what the command made of the job. */
void lone_write(struct run *run)
{
    struct core *c = run->core;
    const Pb__JobRecord *job = run->lone.record;
    const struct key k = key_u64(job->id);

    if (!run->lone.dirty) {
        return;
    }
    expire_del(c, run->lone_expire_ms, job->id); /* of an end that is none any more */
    if (job_state_terminal(job->state)) {
        rollout_action_ended(c, job, run->outcome);
        ended(c, job);
        if (!lone_is_kept(job)) {
            job_forget(c, job);
            return;
        }
        const struct key expire = lone_expire_key(job);
        tx_put(c->tx, T_EXPIRE, &expire, STR_NULL);
    }
    tx_put_msg(c->tx, T_JOB, &k, &job->base);
}
