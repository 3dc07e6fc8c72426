#include "common/base.h"

#include "broker/core/run.h"

/* Whether the one may be taken away for the other: never for nothing, so its worker must be able to
 * take that one at once. */
static int preempt_check(struct holding *h, struct core *c, const Pb__JobPreempt *cmd)
{
    const Pb__JobRecord *other = job_get(c->tx, cmd->for_job_id);
    const Pb__WorkerRecord *w = worker_get(c->tx, h->assignment->worker_id);

    if (other == NULL || w == NULL || other->state != JOB_PENDING) {
        return reject(c, -E_CONFLICT, "job %" PRIu64 " does not wait for a worker",
                      cmd->for_job_id);
    }
    if (!h->job->interruptible || h->job->priority >= other->priority) {
        return reject(c, -E_CONFLICT, "job %" PRIu64 " does not give way", cmd->job_id);
    }
    if (h->job->state == JOB_CANCELING || h->assignment->waiting) {
        return reject(c, -E_CONFLICT, "job %" PRIu64 " is on its way out", cmd->job_id);
    }
    return assign_instead_check(c, other, w);
}

/* It goes back to its old place and costs no budget: nothing went wrong. */
int apply_job_preempt(struct core *c, const Pb__JobPreempt *cmd)
{
    const Pb__AssignmentRecord *a = assignment_get(c->tx, cmd->job_id);
    struct holding h;
    const char *why;
    int r = holding_load(&h, c, cmd->job_id, 0, cmd->epoch, a != NULL ? a->worker_id : 0);

    if (r < 0) {
        return r;
    }
    r = preempt_check(&h, c, cmd);
    if (r == 0) {
        why = arena_printf(c->arena, "gives way to %s", job_get(c->tx, cmd->for_job_id)->name);
        effect_add(c->fx, (struct effect){.kind = EFFECT_CANCEL,
                                          .worker_id = h.assignment->worker_id,
                                          .job_id = h.job->id,
                                          .attempt = h.assignment->attempt,
                                          .epoch = h.assignment->epoch,
                                          .cancel_kind = PB__CANCEL_KIND__CANCEL_FENCED,
                                          .displaced = true});
        attempt_end(&h.run, h.job, JOB_CANCELED, REASON_PREEMPTED, NULL, why);
        job_requeue(&h.run, h.job, why);
    }
    return run_close(&h.run, r);
}
