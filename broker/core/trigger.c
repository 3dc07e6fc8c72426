#include "common/base.h"

#include "broker/core/run.h"
#include "common/limits.h"

/* A trigger job runs without a worker: first until its child pipeline is there, then, unless its
 * strategy is not to wait, until the child has ended. A pipeline and its child are never open at
 * once: what one means to the other waits until the command's runs are closed. */

#define TRIGGER_DETAIL_BYTES 200u

bool trigger_is_open(const Pb__JobRecord *job)
{
    return job->trigger && job->state == JOB_RUNNING && job->child_pipeline_id == 0;
}

static bool waits_for_child(const Pb__JobRecord *job)
{
    return job->trigger_strategy != PB__TRIGGER_STRATEGY__TRIGGER_STRATEGY_NONE;
}

static void fail(struct run *run, Pb__JobRecord *job, Pb__Reason reason, const char *detail)
{
    attempt_end(run, job, JOB_FAILED, reason, NULL, detail);
    job_fail_for_good(run, job, reason, 0);
}

static void end(struct run *run, Pb__JobRecord *job, Pb__JobState state, const char *detail)
{
    attempt_end(run, job, state, REASON_NONE, NULL, detail);
    job_move(run, job, state, detail);
}

/* What the end of the child means. `depend` knows good and bad only. */
static void end_as(struct run *run, Pb__JobRecord *job, const Pb__PipelineRecord *child)
{
    const bool mirror = job->trigger_strategy == PB__TRIGGER_STRATEGY__TRIGGER_STRATEGY_MIRROR;
    const char *detail = arena_printf(run->core->arena, "pipeline %" PRIu64 " is %s", child->id,
                                      status_text(child->status));

    if (child->status == STATUS_SUCCESS) {
        end(run, job, JOB_SUCCESS, detail);
    } else if (mirror && child->status == STATUS_CANCELED) {
        end(run, job, JOB_CANCELED, detail);
    } else if (mirror && child->status == STATUS_SKIPPED) {
        end(run, job, JOB_SKIPPED, detail);
    } else {
        fail(run, job, REASON_CHILD_FAILED, detail);
    }
}

/* Its child is there already when the child goes on after both had ended. */
void trigger_start(struct run *run, Pb__JobRecord *job)
{
    struct core *c = run->core;
    const Pb__PipelineRecord *child = job->child_pipeline_id != 0
                                          ? pipeline_get(c->tx, job->child_pipeline_id)
                                          : NULL;

    attempt_begin(run, job, JOB_RUNNING, NULL);
    job_move(run, job, JOB_RUNNING, NULL);
    if (child == NULL) {
        effect_add(c->fx, (struct effect){.kind = EFFECT_TRIGGER,
                                          .job_id = job->id,
                                          .attempt = job->attempt,
                                          .epoch = job->epoch});
    } else if (status_terminal(child->status)) { /* while the job waited for its resource group */
        end_as(run, job, child);
    }
}

void trigger_set_child(struct core *c, const Pb__PipelineRecord *child)
{
    const struct key k = key_u64(child->parent_job_id);
    struct run run;
    Pb__JobRecord *job;

    if (run_load_job(&run, c, child->parent_job_id, &job) < 0) {
        tx_fail(c->tx, -E_CORRUPT); /* it was there a moment ago */
        return;
    }
    check(trigger_is_open(job) || !tx_ok(c->tx));
    tx_del(c->tx, T_TRIGGER, &k);
    job->child_pipeline_id = child->id;
    run_job_changed(&run, job);
    event_add(c, &(struct event){.kind = EVENT_CHILD,
                                 .project_id = job->project_id,
                                 .pipeline_id = job->pipeline_id,
                                 .job_id = job->id,
                                 .attempt = job->attempt,
                                 .to = "created",
                                 .name = job->name,
                                 .detail = arena_printf(c->arena, "%" PRIu64, child->id)});
    if (!waits_for_child(job)) {
        end(&run, job, JOB_SUCCESS, arena_printf(c->arena, "pipeline %" PRIu64, child->id));
    }
    run_close(&run, 0);
}

void trigger_cancel(struct run *run, Pb__JobRecord *job)
{
    attempt_end(run, job, JOB_CANCELED, job->reason, NULL, job->canceled_by);
    job_move(run, job, JOB_CANCELED, job->canceled_by);
}

int apply_trigger_failed(struct core *c, const Pb__TriggerFailed *cmd)
{
    struct run run;
    Pb__JobRecord *job;
    int r = run_load_job(&run, c, cmd->job_id, &job);

    if (r < 0) {
        return r;
    }
    if (!trigger_is_open(job) || job->epoch != cmd->epoch) {
        r = reject(c, -E_STALE_EPOCH,
                   "job %" PRIu64 " waits for no child pipeline of epoch %" PRIu64, job->id,
                   cmd->epoch);
    } else {
        fail(&run, job, REASON_CONFIG_ERROR,
             text_clip(c->arena, cmd->detail, TRIGGER_DETAIL_BYTES));
        c->reply->job_id = job->id;
        c->reply->pipeline_id = job->pipeline_id;
    }
    return run_close(&run, r);
}

struct later *later_add(struct core *c)
{
    struct later *l = arena_alloc(c->arena, sizeof(*l));

    *c->later_end = l;
    c->later_end = &l->next;
    return l;
}

/* A newer commit cancels every pipeline of the ref by its own policy: children, too, are pipelines
 * of the ref. */
void cancel_child(struct run *run, const Pb__JobRecord *job, Pb__Reason reason, const char *by,
                  bool force)
{
    struct later *l;

    if (job->child_pipeline_id == 0 || reason == REASON_SUPERSEDED) {
        return;
    }
    l = later_add(run->core);
    l->kind = LATER_CANCEL;
    l->pipeline_id = job->child_pipeline_id;
    l->reason = reason;
    l->by = by;
    l->force = force;
}

void tell_parent(struct core *c, const Pb__PipelineRecord *p)
{
    if (p->parent_job_id != 0) {
        struct later *l = later_add(c);
        l->kind = LATER_TELL_PARENT;
        l->pipeline_id = p->id;
    }
}

static void cancel_pipeline(struct core *c, const struct later *l)
{
    struct run run;

    if (run_load(&run, c, l->pipeline_id) == 0) {
        if (!status_terminal(run.pipeline->status)) {
            run_cancel(&run, l->reason, l->by, l->force);
        }
        run_close(&run, 0);
    }
}

/* A child that goes on after its end takes its trigger job with it, and all that came after. */
static void go_on(struct run *run, Pb__JobRecord *job)
{
    const uint64_t child = job->child_pipeline_id;

    job_reset(run, job);
    job->child_pipeline_id = child;
    if (job->state == JOB_SKIPPED) {
        job_move(run, job, JOB_CREATED, NULL);
    }
    job_queue(run, job, arena_printf(run->core->arena, "pipeline %" PRIu64 " goes on", child));
    run_reset_followers(run, job);
}

static void told_by_child(struct core *c, uint64_t child_id)
{
    const Pb__PipelineRecord *child = pipeline_get(c->tx, child_id);
    struct run run;
    Pb__JobRecord *job;

    if (child == NULL || run_load_job(&run, c, child->parent_job_id, &job) < 0) {
        return;
    }
    if (job->child_pipeline_id == child->id && waits_for_child(job)) {
        const bool ended = status_terminal(child->status);
        if (ended && job->state == JOB_RUNNING) {
            end_as(&run, job, child);
        } else if (!ended && job_state_terminal(job->state)) {
            go_on(&run, job);
        }
    }
    run_close(&run, 0);
}

bool later_do(struct core *c)
{
    const struct later *l = c->later_first;

    c->later_first = NULL;
    c->later_end = &c->later_first;
    if (l == NULL) {
        return false;
    }
    for (; l != NULL; l = l->next) {
        switch (l->kind) {
        case LATER_CANCEL:
            cancel_pipeline(c, l);
            break;
        case LATER_TELL_PARENT:
            told_by_child(c, l->pipeline_id);
            break;
        case LATER_COUNT:
            family_count(c, l->pipeline_id, l->ended);
            break;
        case LATER_ROLLOUT_ENDED:
            rollout_job_end(c, l->rollout_id);
            break;
        }
    }
    return true;
}
