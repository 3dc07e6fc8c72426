#include "common/base.h"

#include "broker/net/state.h"
#include "common/log.h"

int command_apply(struct fleet *f, const char *actor, Pb__Command *cmd, struct reply *ret_reply)
{
    cmd->actor = (char *)actor;
    return f->turn.apply(f->turn.ctx, cmd, ret_reply);
}

static int apply_job(struct fleet *f, const struct peer *p, uint64_t job_id, Pb__Command *cmd)
{
    struct reply reply;
    int r = command_apply(f, p->actor, cmd, &reply);

    if (r < 0 && tx_ok(f->turn.tx)) {
        log_debug("net: %s, job %" PRIu64 ": %s: %s", p->actor, job_id, err_text(r), reply.text);
    }
    return r;
}

/* The four messages have the same fields under the same names, but are four types. */
#define FILL(m, a)                       \
    do {                                 \
        (m)->job_id = (a)->job_id;       \
        (m)->attempt = (a)->attempt;     \
        (m)->epoch = (a)->epoch;         \
        (m)->worker_id = (a)->worker_id; \
    } while (0)

int command_job(struct fleet *f, const struct peer *p, const Pb__AssignmentRecord *a,
                Pb__Command__BodyCase which)
{
    Pb__Command cmd = PB__COMMAND__INIT;
    Pb__AssignAcked acked = PB__ASSIGN_ACKED__INIT;
    Pb__JobStarted started = PB__JOB_STARTED__INIT;
    Pb__JobReturned returned = PB__JOB_RETURNED__INIT;
    Pb__WorkerReclaimed reclaimed = PB__WORKER_RECLAIMED__INIT;

    cmd.body_case = which;
    if (which == PB__COMMAND__BODY_ASSIGN_ACKED) {
        FILL(&acked, a);
        cmd.assign_acked = &acked;
    } else if (which == PB__COMMAND__BODY_JOB_STARTED) {
        FILL(&started, a);
        cmd.job_started = &started;
    } else if (which == PB__COMMAND__BODY_JOB_RETURNED) {
        FILL(&returned, a);
        cmd.job_returned = &returned;
    } else {
        check(which == PB__COMMAND__BODY_WORKER_RECLAIMED);
        FILL(&reclaimed, a);
        cmd.worker_reclaimed = &reclaimed;
    }
    return apply_job(f, p, a->job_id, &cmd);
}

int command_lost(struct fleet *f, const struct peer *p, const Pb__AssignmentRecord *a,
                 bool returned_without)
{
    Pb__Command cmd = PB__COMMAND__INIT;
    Pb__JobLost lost = PB__JOB_LOST__INIT;

    lost.job_id = a->job_id;
    lost.epoch = a->epoch;
    lost.worker_id = a->worker_id;
    lost.returned_without = returned_without;
    cmd.body_case = PB__COMMAND__BODY_JOB_LOST;
    cmd.job_lost = &lost;
    return apply_job(f, p, a->job_id, &cmd);
}

int command_finished(struct fleet *f, const struct peer *p, const Pb__AssignmentRecord *a,
                     Pb__Outcome *outcome)
{
    Pb__Command cmd = PB__COMMAND__INIT;
    Pb__JobFinished finished = PB__JOB_FINISHED__INIT;

    FILL(&finished, a);
    finished.outcome = outcome;
    cmd.body_case = PB__COMMAND__BODY_JOB_FINISHED;
    cmd.job_finished = &finished;
    return apply_job(f, p, a->job_id, &cmd);
}

int command_all_finished(struct fleet *f, const struct peer *p, Pb__FinishedJob **jobs,
                         size_t count)
{
    Pb__Command cmd = PB__COMMAND__INIT;
    Pb__JobsFinished finished = PB__JOBS_FINISHED__INIT;
    struct reply reply;

    finished.worker_id = p->worker_id;
    finished.jobs = jobs;
    finished.n_jobs = count;
    cmd.body_case = PB__COMMAND__BODY_JOBS_FINISHED;
    cmd.jobs_finished = &finished;
    return command_apply(f, p->actor, &cmd, &reply);
}
