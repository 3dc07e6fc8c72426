#include "common/base.h"

#include "broker/core/query.h"
#include "broker/core/rollout.h"
#include "broker/rollout/decide.h"
#include "broker/rollout/steps.h"
#include "broker/turn_state.h"
#include "common/limits.h"
#include "common/log.h"

/* Rollouts within a round: those whose jobs' turn came get a plan and begin; those that are due are
 * decided, and what is proposed is applied in the same transaction. */

#define REFUSED_MS 1000u /* what was refused is decided again after so long */

static int begin(struct turn *t, const Pb__JobRecord *job, Pb__RolloutPlanRecord *plan,
                 const char *refused)
{
    Pb__Command cmd = PB__COMMAND__INIT;
    Pb__RolloutBegin body = PB__ROLLOUT_BEGIN__INIT;
    struct reply reply;

    body.job_id = job->id;
    body.epoch = job->epoch;
    body.plan = plan;
    body.refused = (char *)refused;
    cmd.actor = (char *)"rollout";
    cmd.body_case = PB__COMMAND__BODY_ROLLOUT_BEGIN;
    cmd.rollout_begin = &body;
    int r = turn_apply(t, &cmd, &reply);
    if (r < 0 && tx_ok(t->tx)) {
        log_error("turn: job %" PRIu64 ": its rollout was refused: %s %s", job->id, err_text(r),
                  reply.text);
    }
    return r;
}

/* 0; else *ret_why says why there is no plan. */
static int compile(struct turn *t, const Pb__JobRecord *job, Pb__RolloutPlanRecord **ret,
                   const char **ret_why)
{
    struct tx *tx = t->tx;
    const Pb__PlanJob *planned = plan_job_get(tx, job->pipeline_id, job->index);
    const Pb__EnvironmentRecord *e = environment_get(tx, job->environment_id);
    const Pb__ProjectRecord *p = project_get(tx, job->project_id);
    const Pb__RolloutSpec *spec = planned != NULL ? planned->rollout : NULL;
    const Pb__ServiceRecord *service;
    const Pb__RolloutTarget *target;
    bool others;

    if (spec == NULL || e == NULL || p == NULL) {
        tx_fail(tx, -E_CORRUPT);
        return -E_CORRUPT;
    }
    target = target_find(tx, e->name, spec->target, p->name, &others);
    if (target == NULL) {
        *ret_why = arena_printf(tx_arena(tx),
                                others ? "target %s of environment %s is for other projects"
                                       : "no target %s is declared for environment %s",
                                spec->target, e->name);
        return -E_NOT_FOUND;
    }
    service = service_by_name(tx, e->id, spec->target);
    return rollout_compile(spec, target, service == NULL || service->stable_snapshot_id == 0,
                           tx_arena(tx), ret, ret_why);
}

static void begin_all(struct turn *t)
{
    for (size_t n = 0; n < LIMIT_ROLLOUT_ROUND && tx_ok(t->tx); n++) {
        const uint64_t job_id = core_open_rollout(t->tx);
        const Pb__JobRecord *job = job_id != 0 ? job_get(t->tx, job_id) : NULL;
        Pb__RolloutPlanRecord *plan = NULL;
        const char *why = "";
        if (job == NULL) {
            return;
        }
        int r = compile(t, job, &plan, &why);
        if (!tx_ok(t->tx)) {
            return;
        }
        r = begin(t, job, r < 0 ? NULL : plan, r < 0 ? why : "");
        if (r < 0 && tx_ok(t->tx) && begin(t, job, NULL, "its plan was refused by the core") < 0) {
            turn_rest(t); /* it stays there: do not spin on it */
            return;
        }
    }
}

static int apply_step(struct turn *t, Pb__RolloutStep *step, struct reply *reply)
{
    Pb__Command cmd = PB__COMMAND__INIT;

    cmd.actor = (char *)"rollout";
    cmd.body_case = PB__COMMAND__BODY_ROLLOUT_STEP;
    cmd.rollout_step = step;
    return turn_apply(t, &cmd, reply);
}

/* What was proposed breaks a rule: nothing is done, people are told, and it is decided again later,
 * when more may be known. */
static void put_off(struct turn *t, uint64_t id, const char *why)
{
    Pb__RolloutStep step = PB__ROLLOUT_STEP__INIT;
    Pb__RolloutNoteRecord note = PB__ROLLOUT_NOTE_RECORD__INIT;
    Pb__RolloutNoteRecord *notes[] = {&note};
    const Pb__RolloutRecord *r = rollout_get(t->tx, id);
    Pb__RolloutRecord next;
    struct reply reply;

    if (r == NULL) {
        return;
    }
    log_error("turn: a step of rollout %" PRIu64 " was refused: %s", id, why);
    next = *r;
    next.next_look_ms = t->now_ms + REFUSED_MS;
    note.kind = (char *)"refused";
    note.text = (char *)why;
    step.rollout_id = id;
    step.revision = r->revision;
    step.next = &next;
    step.notes = notes;
    step.n_notes = 1;
    if (apply_step(t, &step, &reply) < 0 && tx_ok(t->tx)) {
        log_error("turn: rollout %" PRIu64 " cannot be put off: %s", id, reply.text);
        turn_rest(t);
    }
}

static uint32_t verdict_before(const struct rollout_view *v, uint32_t index)
{
    for (size_t i = 0; i < v->metric_count; i++) {
        if (v->metrics[i]->index == index) {
            return v->metrics[i]->verdict;
        }
    }
    return UINT32_MAX;
}

/* Of a step that was applied to what the view shows. */
static void count(struct turn *t, const struct rollout_view *v, const Pb__RolloutStep *step)
{
    struct turn_rollouts *s = &t->stats.rollouts;
    const Pb__RolloutRecord *was = v->record;
    const Pb__RolloutRecord *next = step->next;

    _Static_assert(TURN_ROLLOUT_STATES == (unsigned)ROLLOUT_REFUSED + 1, "each has its count");
    _Static_assert(TURN_ROLLOUT_WHYS == (unsigned)ROLLOUT_WHY_ACTION + 1, "each has its count");
    if (next->state != was->state) {
        check((unsigned)was->state < TURN_ROLLOUT_STATES &&
              (unsigned)next->state < TURN_ROLLOUT_STATES &&
              (unsigned)next->why < TURN_ROLLOUT_WHYS);
        s->entered[next->state]++;
        s->state_ms[was->state] += t->now_ms - MIN(was->state_ms, t->now_ms);
        s->back[next->why] += next->state == ROLLOUT_ROLLBACK &&
                              (rollout_state_flags(was->state) & ROLLOUT_BACK) == 0;
    }
    for (size_t i = 0; i < step->n_metrics; i++) {
        const Pb__RolloutMetricRecord *m = step->metrics[i];
        if (m->verdict < TURN_ROLLOUT_VERDICTS && m->verdict != verdict_before(v, m->index)) {
            s->verdicts[m->verdict]++;
        }
    }
}

static void decide(struct turn *t, uint64_t id)
{
    for (unsigned n = 0; n < LIMIT_ROLLOUT_STEPS && tx_ok(t->tx); n++) {
        struct rollout_view view;
        struct reply reply;
        Pb__RolloutStep *step;
        if (!rollout_view_load(t->tx, id, &view) || view.record->next_look_ms == 0 ||
            view.record->next_look_ms > t->now_ms) {
            return;
        }
        step = rollout_decide(&view, t->now_ms, tx_arena(t->tx));
        if (step == NULL) {
            put_off(t, id, "it is due, and nothing was proposed");
            return;
        }
        int r = apply_step(t, step, &reply);
        if (r < 0 && tx_ok(t->tx)) {
            put_off(t, id, reply.text[0] != '\0' ? reply.text : err_text(r));
            return;
        }
        if (r == 0) {
            count(t, &view, step);
        }
    }
}

void turn_apply_rollouts(struct turn *t)
{
    uint64_t due[LIMIT_ROLLOUT_ROUND];

    begin_all(t);
    size_t n = tx_ok(t->tx) ? core_due_rollouts(t->tx, t->now_ms, ARRAY_LEN(due), due) : 0;
    for (size_t i = 0; i < n && tx_ok(t->tx); i++) {
        decide(t, due[i]);
    }
}

void turn_apply_resume(struct turn *t)
{
    Pb__Command cmd = PB__COMMAND__INIT;
    Pb__RolloutsResume resume = PB__ROLLOUTS_RESUME__INIT;
    struct reply reply;

    if (!t->resuming || meta_get(t->tx) == NULL) {
        return;
    }
    cmd.actor = (char *)"start";
    cmd.body_case = PB__COMMAND__BODY_ROLLOUTS_RESUME;
    cmd.rollouts_resume = &resume;
    t->resumes = turn_apply(t, &cmd, &reply) == 0;
}
