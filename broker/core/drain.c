/* A worker drains, and the time that it has for it. */
#include "common/base.h"

#include "broker/core/run.h"
#include "common/limits.h"

#define JOBS_AT_ONCE 64u /* of one command; the timer comes again for the others */

void worker_drain_timer_clear(struct core *c, Pb__WorkerRecord *w)
{
    if (w->drain_timer_id != 0) {
        timer_del(c, w->drain_until_ms, w->drain_timer_id);
    }
    w->drain_timer_id = 0;
    w->drain_until_ms = 0;
}

void worker_drain_timer_set(struct core *c, Pb__WorkerRecord *w, uint64_t due_ms)
{
    Pb__WorkerTimer what = PB__WORKER_TIMER__INIT;
    Pb__TimerRecord t = PB__TIMER_RECORD__INIT;

    worker_drain_timer_clear(c, w);
    what.worker_id = w->id;
    t.what_case = PB__TIMER_RECORD__WHAT_WORKER;
    t.worker = &what;
    w->drain_until_ms = due_ms;
    w->drain_timer_id = timer_add(c, due_ms, &t);
}

/* The jobs that do not end by themselves already. */
static size_t list_jobs(struct core *c, uint64_t worker_id, uint64_t *jobs)
{
    const struct key prefix = key_u64(worker_id);
    struct cursor cur;
    size_t n = 0;

    for (tx_seek(&cur, c->tx, T_WORKER_JOB, key_str(&prefix), NULL); cur.valid && n < JOBS_AT_ONCE;
         tx_next(&cur)) {
        const uint64_t id = key_read_u64(cur.key, sizeof(uint64_t));
        const Pb__JobRecord *job = job_get(c->tx, id);
        if (job != NULL && job->state != JOB_CANCELING) {
            jobs[n++] = id;
        }
    }
    cursor_end(&cur);
    return n;
}

/* It goes to another worker and costs no budget, as somebody wanted it so; one that must not run
 * twice fails, for people to look at. */
static void take_away(struct core *c, uint64_t job_id, uint64_t worker_id)
{
    static const char why[] = "its worker was drained, and the time for that is over";
    const Pb__AssignmentRecord *a = assignment_get(c->tx, job_id);
    struct holding h;

    if (a == NULL || holding_load(&h, c, job_id, a->attempt, a->epoch, worker_id) < 0) {
        tx_fail(c->tx, -E_CORRUPT);
        return;
    }
    effect_add(c->fx, (struct effect){.kind = EFFECT_CANCEL,
                                      .worker_id = worker_id,
                                      .job_id = job_id,
                                      .attempt = h.assignment->attempt,
                                      .epoch = h.assignment->epoch,
                                      .cancel_kind = PB__CANCEL_KIND__CANCEL_FENCED,
                                      .displaced = true});
    if (h.job->started_ms == 0 ||
        job_loss_policy(&h.run, h.job) == PB__ON_WORKER_LOST__ON_WORKER_LOST_REQUEUE) {
        attempt_end(&h.run, h.job, JOB_CANCELED, REASON_WORKER_SHUTDOWN, NULL, why);
        job_requeue(&h.run, h.job, why);
    } else {
        attempt_end(&h.run, h.job, JOB_FAILED, REASON_WORKER_SHUTDOWN, NULL, why);
        job_fail_for_good(&h.run, h.job, REASON_WORKER_SHUTDOWN, 0);
    }
    if (run_close(&h.run, 0) < 0) {
        check(!tx_ok(c->tx));
    }
}

void worker_drain_over(struct core *c, const Pb__WorkerTimer *t)
{
    const struct key k = key_u64(t->worker_id);
    Pb__WorkerRecord *w = (Pb__WorkerRecord *)core_row(c, T_WORKER, &k,
                                                       &pb__worker_record__descriptor);
    uint64_t jobs[JOBS_AT_ONCE];
    const size_t n = list_jobs(c, w->id, jobs);

    worker_drain_timer_clear(c, w);
    for (size_t i = 0; i < n && tx_ok(c->tx); i++) {
        take_away(c, jobs[i], w->id);
    }
    if (n == JOBS_AT_ONCE) {
        worker_drain_timer_set(c, w, c->now_ms);
    }
    tx_put_msg(c->tx, T_WORKER, &k, &w->base);
    c->reply->worker_id = w->id;
}
