#include "common/base.h"

#include "tests/sim/sim.h"

/* The model's account beside the store's. */

#define SAME(what, have, want)                                                                \
    do {                                                                                      \
        if ((uint64_t)(have) != (uint64_t)(want)) {                                           \
            breach_now("job %" PRIu64 ": its " what " is %" PRIu64 ", it should be %" PRIu64, \
                       j->id, (uint64_t)(have), (uint64_t)(want));                            \
        }                                                                                     \
    } while (0)

static void compare_holder(const struct model_job *j, const Pb__AssignmentRecord *a)
{
    SAME("assignment", a != NULL, model_held(j));
    if (a != NULL) {
        SAME("worker", a->worker_id, j->worker);
        SAME("holder's epoch", a->epoch, j->epoch);
        SAME("holder's attempt", a->attempt, j->attempt);
        SAME("acknowledgement", a->acked, j->acked);
        SAME("waiting", a->waiting, j->waiting);
    }
}

static void compare_job(const struct model_job *j, struct tx *tx)
{
    const Pb__JobRecord *row = job_get(tx, j->id);

    if (row == NULL) {
        breach_now("job %" PRIu64 " is not there", j->id);
    }
    if (row->state != (Pb__JobState)j->state) {
        breach_now("job %" PRIu64 " is %s, it should be %s", j->id, job_state_text(row->state),
                   job_state_text((Pb__JobState)j->state));
    }
    SAME("attempt", row->attempt, j->attempt);
    SAME("epoch", row->epoch, j->epoch);
    SAME("count of retries", row->retries, j->retries);
    SAME("count of losses", row->losses, j->losses);
    SAME("cancel", row->cancel_requested, j->cancel);
    SAME("child pipeline", row->child_pipeline_id, j->child);
    SAME("timer", row->timer_due_ms, j->due_ms);
    compare_holder(j, assignment_get(tx, j->id));
}

static void compare_pipeline(const struct model_pipeline *p, struct tx *tx)
{
    const Pb__PipelineRecord *row = p->id != 0 ? pipeline_get(tx, p->id) : NULL;
    const bool ended = model_pipeline_ended(p);

    if (p->id == 0) {
        compare_job(&p->jobs[0], tx);
        return;
    }
    if (row == NULL) {
        breach_now("pipeline %" PRIu64 " is not there", p->id);
    }
    for (uint32_t i = 0; i < p->count; i++) {
        compare_job(&p->jobs[i], tx);
    }
    if (status_terminal(row->status) != ended ||
        (ended && row->status != model_outcome(p, (1u << p->count) - 1))) {
        breach_now("pipeline %" PRIu64 " is %s, its jobs say %s", p->id, status_text(row->status),
                   ended ? status_text(model_outcome(p, (1u << p->count) - 1)) : "not ended");
    }
    if (row->family_ended_ms != p->ended_ms) {
        breach_now("pipeline %" PRIu64 " ended at %" PRIu64 ", it should be %" PRIu64, p->id,
                   row->family_ended_ms, p->ended_ms);
    }
}

void model_compare(struct model *m, struct tx *tx)
{
    model_compare_environments(m, tx);
    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        if (m->pipelines[i].touched) {
            compare_pipeline(&m->pipelines[i], tx);
        }
    }
}

static void compare_worker(const struct model_worker *w, struct tx *tx)
{
    const Pb__WorkerRecord *row = worker_get(tx, w->id);

    if (row == NULL || row->session != w->session || row->slots != w->slots ||
        row->paused != w->paused || row->draining != w->draining) {
        breach_now("worker %" PRIu64 " is not what it said", w->id);
    }
}

void model_compare_all(struct model *m, struct tx *tx)
{
    model_compare_environments(m, tx);
    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        compare_pipeline(&m->pipelines[i], tx);
    }
    for (uint32_t i = 0; i < m->worker_count; i++) {
        compare_worker(&m->workers[i], tx);
    }
}
