#include "common/base.h"

#include "broker/core/rollout_move.h"
#include "common/limits.h"

/* Jobs of pipelines that wait for a rollout: they run from their turn on until it has ended. */

bool rollout_job_is_open(const Pb__JobRecord *job)
{
    return job->rollout && job->state == JOB_RUNNING && job->rollout_id == 0;
}

void rollout_job_start(struct run *run, Pb__JobRecord *job)
{
    job->rollout_id = 0; /* of an attempt before */
    attempt_begin(run, job, JOB_RUNNING, NULL);
    job_move(run, job, JOB_RUNNING, NULL);
}

/* Once it is under way, the way back takes its time, and the job runs until it is over. */
void rollout_job_cancel(struct run *run, Pb__JobRecord *job)
{
    if (job->rollout_id == 0) {
        attempt_end(run, job, JOB_CANCELED, job->reason, NULL, job->canceled_by);
        job_move(run, job, JOB_CANCELED, job->canceled_by);
    } else {
        rollout_abort(run->core, job->rollout_id, ROLLOUT_WHY_PERSON, job->canceled_by,
                      "its job is canceled");
    }
}

static void end(struct run *run, Pb__JobRecord *job, const Pb__RolloutRecord *r)
{
    const char *detail = arena_printf(run->core->arena, "rollout %" PRIu64 " is %s%s%s", r->id,
                                      rollout_state_text(r->state),
                                      r->why_text[0] != '\0' ? ": " : "", r->why_text);

    if (r->state == ROLLOUT_DONE) {
        attempt_end(run, job, JOB_SUCCESS, REASON_NONE, NULL, detail);
        job_move(run, job, JOB_SUCCESS, detail);
    } else if (job->cancel_requested) {
        attempt_end(run, job, JOB_CANCELED, job->reason, NULL, detail);
        job_move(run, job, JOB_CANCELED, job->canceled_by);
    } else {
        attempt_end(run, job, JOB_FAILED, REASON_ROLLOUT_FAILED, NULL, detail);
        job_fail_saying(run, job, REASON_ROLLOUT_FAILED, 0, detail);
    }
}

void rollout_job_end(struct core *c, uint64_t rollout_id)
{
    const Pb__RolloutRecord *r = rollout_get(c->tx, rollout_id);
    struct run run;
    Pb__JobRecord *job;

    if (r == NULL || r->job_id == 0 || job_get(c->tx, r->job_id) == NULL ||
        run_load_job(&run, c, r->job_id, &job) < 0) {
        return;
    }
    if (job->state == JOB_RUNNING && job->rollout_id == rollout_id) {
        end(&run, job, r);
    }
    run_close(&run, 0);
}
