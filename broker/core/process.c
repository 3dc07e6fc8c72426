#include "common/base.h"

#include "broker/core/run.h"

#include <stdlib.h>

/* How a pipeline goes on. A job is decided (queued, scheduled, made manual, or skipped) once what
 * comes before it has ended: its needs, or all stages before its own. What comes before never
 * changes by itself after that, so the order in which jobs are decided does not matter to the
 * outcome. */

static Pb__Status status_before(struct run *run, const Pb__JobRecord *job)
{
    uint32_t kinds = 0;

    if (job->dag) {
        for (size_t i = 0; i < job->n_needs; i++) {
            const uint32_t need = (uint32_t)(job->needs[i] - run->pipeline->first_job_id);
            run_job(run, need);
            kinds |= 1u << run->jobs[need].kind;
        }
        return status_of_needs(kinds);
    }
    for (uint32_t s = 0; s < job->stage; s++) {
        kinds |= run_stage_kinds(run, s);
    }
    return status_of_kinds(kinds);
}

/* Whether a job with this `when` runs after jobs that ended so. */
static bool when_allows(const Pb__JobRecord *job, Pb__Status before)
{
    switch (job->when) {
    case WHEN_ON_FAILURE:
        return before == STATUS_FAILED;
    case WHEN_ALWAYS:
        return before == STATUS_SUCCESS || before == STATUS_FAILED || before == STATUS_SKIPPED;
    case WHEN_ON_SUCCESS:
    case WHEN_MANUAL:
    case WHEN_DELAYED:
        return before == STATUS_SUCCESS || (before == STATUS_SKIPPED && !job->dag);
    case _PB__WHEN_IS_INT_SIZE:
    default:
        check_failed("a known when", __FILE__, __LINE__);
    }
}

static void decide(struct run *run, Pb__JobRecord *job)
{
    const Pb__Status before = status_before(run, job);

    if (job->state != JOB_CREATED || !status_terminal(before) || !tx_ok(run->core->tx)) {
        return;
    }
    if (!when_allows(job, before)) {
        job_move(run, job, JOB_SKIPPED, NULL);
    } else if (job->when == WHEN_MANUAL) {
        job_move(run, job, JOB_MANUAL, NULL);
    } else if (job->when == WHEN_DELAYED) {
        job_move(run, job, JOB_SCHEDULED, NULL);
        job_timer_set(run, job, PB__JOB_TIMER_KIND__JOB_TIMER_DELAYED,
                      run->core->now_ms + job->start_in_ms);
    } else {
        job_queue(run, job, NULL);
    }
}

/* Those that need a job which was settled. */
static void decide_needing(struct run *run)
{
    uint32_t index;

    while (run_next_settled(run, &index)) {
        const Pb__JobRecord *job = run_job(run, index);
        for (size_t i = 0; i < job->n_needed_by; i++) {
            decide(run, run_job(run, job->needed_by[i]));
        }
    }
}

/* Those whose turn comes by stage. True: some job moved, so others may follow. */
static bool decide_stages(struct run *run)
{
    uint32_t kinds = 0;

    for (uint32_t s = 0; s < run->pipeline->stage_count; s++) {
        const Pb__StageRecord *stage = run->stages[s];
        if (stage->undecided > 0) {
            if (!status_terminal(status_of_kinds(kinds))) {
                return false; /* and so it is for all later stages */
            }
            for (uint32_t i = 0; i < stage->job_count; i++) {
                Pb__JobRecord *job = run_job(run, stage->first_job + i);
                if (!job->dag) {
                    decide(run, job);
                }
            }
            return true;
        }
        kinds |= run_stage_kinds(run, s);
    }
    return false;
}

static void update_statuses(struct run *run)
{
    Pb__Status to;
    uint32_t kinds = 0;

    for (uint32_t s = 0; s < run->pipeline->stage_count; s++) {
        const uint32_t of_stage = run_stage_kinds(run, s);
        kinds |= of_stage;
        to = status_of_kinds(of_stage);
        if (run->stage_dirty[s] && status_may_move(MACHINE_STAGE, run->stages[s]->status, to)) {
            stage_move(run, s, to);
        }
    }
    to = status_of_kinds(kinds);
    if (to == STATUS_PENDING && !(status_flags(run->pipeline->status) & STATE_FRESH)) {
        to = STATUS_RUNNING; /* it goes on, it does not begin */
    }
    if (status_may_move(MACHINE_PIPELINE, run->pipeline->status, to)) {
        pipeline_move(run, to);
    }
}

void run_process(struct run *run)
{
    do {
        do {
            decide_needing(run);
        } while (tx_ok(run->core->tx) && decide_stages(run));
        locks_pass_on_within(run);
    } while (tx_ok(run->core->tx) && run->settled_count > 0);
    update_statuses(run);
}

void run_decide_all(struct run *run)
{
    for (uint32_t i = 0; i < run->pipeline->job_count; i++) {
        decide(run, run_job(run, i));
    }
}

void job_revive(struct run *run, Pb__JobRecord *job)
{
    check(job->state == JOB_SKIPPED || !tx_ok(run->core->tx));
    job->child_pipeline_id = 0;
    job_move(run, job, JOB_CREATED, NULL);
}

/* Followers of a job are those that need it or a follower, and those of later stages that wait for
 * stages. A job's needs may stand behind it in its stage, so the walk is a queue. */
void run_reset_followers(struct run *run, const Pb__JobRecord *job)
{
    const uint32_t count = run->pipeline->job_count;
    uint32_t first = 0, end = 0, *queue;
    bool *seen;

    if (run_is_lone(run)) {
        return;
    }
    seen = xcalloc(count, sizeof(*seen));
    queue = xcalloc(count, sizeof(*queue));
    seen[job->index] = true;
    queue[end++] = job->index;
    for (uint32_t i = 0; i < count; i++) {
        const Pb__JobRecord *later = run_job(run, i);
        if (!later->dag && later->stage > job->stage) {
            seen[i] = true;
            queue[end++] = i;
        }
    }
    while (first < end) {
        Pb__JobRecord *follower = run_job(run, queue[first++]);
        for (size_t i = 0; i < follower->n_needed_by; i++) {
            const uint32_t next = follower->needed_by[i];
            if (!seen[next]) {
                seen[next] = true;
                queue[end++] = next;
            }
        }
        if (follower->state == JOB_SKIPPED) {
            job_revive(run, follower);
        }
    }
    for (uint32_t i = 0; i < end; i++) {
        if (run_job(run, queue[i])->dag) {
            decide(run, run_job(run, queue[i])); /* another need of it may still forbid it */
        }
    }
    free(seen);
    free(queue);
}
