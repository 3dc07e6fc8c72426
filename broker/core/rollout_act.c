#include "common/base.h"

#include "broker/core/rollout_move.h"
#include "common/limits.h"

/* What people do to rollouts: wishes, which the decider takes. And what a start does to all. */

#define GATE    UINT32_MAX /* the step of approvals before anything moves */
#define AWAY_MS 120000u    /* workers come back within a minute of a start */

static const char *const verbs[] = {
    [ROLLOUT_VERB_ABORT] = "abort",   [ROLLOUT_VERB_PAUSE] = "pause",
    [ROLLOUT_VERB_RESUME] = "resume", [ROLLOUT_VERB_APPROVE] = "approve",
    [ROLLOUT_VERB_SKIP] = "skip",     [ROLLOUT_VERB_PROMOTE] = "promote",
    [ROLLOUT_VERB_RETRY] = "retry",   [ROLLOUT_VERB_OVERRIDE] = "override",
};

const char *rollout_verb_text(Pb__RolloutVerb v)
{
    return (unsigned)v < ARRAY_LEN(verbs) ? verbs[v] : "";
}

static bool goes_forward(const Pb__RolloutRecord *r)
{
    return (rollout_state_flags(r->state) & (ROLLOUT_ENDED | ROLLOUT_BACK)) == 0 &&
           r->state != ROLLOUT_RETIRE && !r->abort_wanted;
}

static uint32_t approved_step(const Pb__RolloutRecord *r)
{
    return r->state == ROLLOUT_STEPPING ? r->step : GATE;
}

static bool waits_for_approval(const Pb__RolloutRecord *r, const Pb__RolloutPlanRecord *plan)
{
    if (r->state == ROLLOUT_QUEUED || r->state == ROLLOUT_GATED) {
        return plan->target->n_gate > 0;
    }
    return r->state == ROLLOUT_STEPPING && r->step < plan->n_steps &&
           plan->steps[r->step]->kind == ROLLOUT_STEP_APPROVE;
}

static const char *approval_wrong(struct core *c, const Pb__RolloutRecord *r,
                                  const Pb__RolloutPlanRecord *plan, const char *role)
{
    if (!waits_for_approval(r, plan)) {
        return "it waits for no approval";
    }
    if (!name_ok(role)) {
        return "an approval is given with a role";
    }
    if (r->n_approvals >= LIMIT_ROLLOUT_APPROVALS) {
        return "it has enough approvals";
    }
    for (size_t i = 0; i < r->n_approvals; i++) {
        const Pb__RolloutApproval *a = r->approvals[i];
        if (a->step == approved_step(r) && strcmp(a->by, c->actor) == 0 &&
            strcmp(a->role, role) == 0) {
            return "the same person has approved it already";
        }
    }
    return NULL;
}

/* NULL: it may be done now. */
static const char *act_wrong(struct core *c, const Pb__RolloutRecord *r,
                             const Pb__RolloutPlanRecord *plan, const Pb__RolloutAct *cmd)
{
    const bool stepping = r->state == ROLLOUT_STEPPING || r->state == ROLLOUT_BAKE;

    if (cmd->verb == ROLLOUT_VERB_ABORT) {
        return r->abort_wanted              ? "it is aborted already"
               : r->state == ROLLOUT_RETIRE ? "it is stable: undo it instead"
               : !goes_forward(r)           ? "it goes back already"
                                            : NULL;
    }
    if (!goes_forward(r)) {
        return "it goes back, or is stable";
    }
    switch (cmd->verb) {
    case ROLLOUT_VERB_PAUSE:
        return r->paused ? "it is paused already" : NULL;
    case ROLLOUT_VERB_RESUME:
        return r->paused ? NULL : "it is not paused";
    case ROLLOUT_VERB_APPROVE:
        return approval_wrong(c, r, plan, cmd->role);
    case ROLLOUT_VERB_SKIP:
    case ROLLOUT_VERB_PROMOTE:
        return stepping ? NULL : "there is no step to skip";
    case ROLLOUT_VERB_RETRY:
        return r->held ? NULL : "it is not held";
    case ROLLOUT_VERB_OVERRIDE:
        return cmd->reason[0] == '\0' ? "a freeze is overridden with a reason"
               : r->freeze_overridden ? "its freezes are overridden already"
                                      : NULL;
    case ROLLOUT_VERB_ABORT:
    case _PB__ROLLOUT_VERB_IS_INT_SIZE:
    default:
        return "an unknown verb";
    }
}

static void approve(struct core *c, Pb__RolloutRecord *r, const char *role)
{
    Pb__RolloutApproval **all = arena_array(c->arena, r->n_approvals + 1, sizeof(*all));
    Pb__RolloutApproval *a = arena_alloc(c->arena, sizeof(*a));

    pb__rollout_approval__init(a);
    a->by = text_clip(c->arena, c->actor, LIMIT_NAME);
    a->role = (char *)role;
    a->at_ms = c->now_ms;
    a->step = approved_step(r);
    for (size_t i = 0; i < r->n_approvals; i++) {
        all[i] = r->approvals[i];
    }
    all[r->n_approvals++] = a;
    r->approvals = all;
}

static void resume(struct core *c, Pb__RolloutRecord *r)
{
    const uint64_t for_ms = c->now_ms - r->paused_ms;

    r->phase_ms += for_ms;
    r->deadline_ms += r->deadline_ms != 0 ? for_ms : 0;
    r->paused = false;
    r->paused_ms = 0;
}

static void act(struct core *c, Pb__RolloutRecord *r, const Pb__RolloutAct *cmd)
{
    switch (cmd->verb) {
    case ROLLOUT_VERB_PAUSE:
        r->paused = true;
        r->paused_ms = c->now_ms;
        break;
    case ROLLOUT_VERB_RESUME:
        resume(c, r);
        break;
    case ROLLOUT_VERB_APPROVE:
        approve(c, r, cmd->role);
        break;
    case ROLLOUT_VERB_SKIP:
        r->skip_wanted = true;
        break;
    case ROLLOUT_VERB_PROMOTE:
        r->promote_wanted = true;
        break;
    case ROLLOUT_VERB_RETRY:
        r->retry_wanted = true;
        break;
    case ROLLOUT_VERB_OVERRIDE:
        r->freeze_overridden = true;
        break;
    case ROLLOUT_VERB_ABORT:
    case _PB__ROLLOUT_VERB_IS_INT_SIZE:
    default:
        check_failed("a verb that was checked", __FILE__, __LINE__);
    }
}

static int act_check(struct core *c, const Pb__RolloutRecord *r, const Pb__RolloutAct *cmd)
{
    const Pb__RolloutPlanRecord *plan;
    const char *wrong;

    if (r == NULL) {
        return tx_ok(c->tx) ? reject(c, -E_NOT_FOUND, "no rollout %" PRIu64, cmd->rollout_id)
                            : tx_error(c->tx);
    }
    if (!text_ok(cmd->reason, LIMIT_ROLLOUT_TEXT)) {
        return reject(c, -E_INVALID, "a reason is one line of at most %u bytes",
                      LIMIT_ROLLOUT_TEXT);
    }
    if ((rollout_state_flags(r->state) & ROLLOUT_ENDED) != 0) {
        return reject(c, -E_CONFLICT, "rollout %" PRIu64 " has ended: %s", r->id,
                      rollout_state_text(r->state));
    }
    plan = rollout_plan_get(c->tx, r->id);
    if (plan == NULL) {
        tx_fail(c->tx, -E_CORRUPT);
        return tx_error(c->tx);
    }
    wrong = act_wrong(c, r, plan, cmd);
    return wrong != NULL ? reject(c, -E_CONFLICT, "rollout %" PRIu64 " is %s: %s", r->id,
                                  rollout_state_text(r->state), wrong)
                         : 0;
}

int apply_rollout_act(struct core *c, const Pb__RolloutAct *cmd)
{
    Pb__RolloutRecord *r = (Pb__RolloutRecord *)rollout_get(c->tx, cmd->rollout_id);
    const int wrong = act_check(c, r, cmd);
    uint64_t was_look_ms;

    if (wrong < 0) {
        return wrong;
    }
    c->reply->rollout_id = r->id;
    c->reply->project_id = r->project_id;
    if (cmd->verb == ROLLOUT_VERB_ABORT) {
        rollout_abort(c, r->id, ROLLOUT_WHY_PERSON, c->actor,
                      cmd->reason[0] != '\0' ? cmd->reason : "aborted");
        return tx_error(c->tx);
    }
    was_look_ms = r->next_look_ms;
    act(c, r, cmd);
    r->next_look_ms = c->now_ms;
    rollout_note_add(c, r, "person",
                     arena_printf(c->arena, "%s by %s%s%s", rollout_verb_text(cmd->verb), c->actor,
                                  cmd->reason[0] != '\0' ? ": " : "", cmd->reason));
    rollout_put(c, r, was_look_ms);
    return tx_error(c->tx);
}

/* A start: all that was known of the outside is to be read again, under a new epoch. What became
 * late while nobody looked may show first that it is well. */
static void read_again(struct core *c, uint64_t rollout_id)
{
    Pb__RolloutRecord *r = rollout_row(c, rollout_id);
    const uint64_t was_look_ms = r->next_look_ms;
    const uint64_t epoch = r->epoch + 1;

    r->epoch = epoch;
    r->observed_ms = 0;
    r->zero_ms = 0;
    r->evidence_from_ms = MAX(r->evidence_from_ms, c->now_ms);
    if (r->deadline_ms != 0) {
        r->deadline_ms = MAX(r->deadline_ms, c->now_ms + AWAY_MS);
    }
    r->next_look_ms = c->now_ms;
    rollout_put(c, r, was_look_ms);
    rollout_actions_fence(c, rollout_id, epoch);
}

int apply_rollouts_resume(struct core *c, const Pb__RolloutsResume *cmd)
{
    const uint64_t count = tx_count(c->tx, T_ROLLOUT_LIVE);
    uint64_t *ids = arena_array(c->arena, count + 1, sizeof(*ids));
    struct cursor cur;
    size_t n = 0;

    (void)cmd;
    for (tx_seek(&cur, c->tx, T_ROLLOUT_LIVE, STR_NULL, NULL); cur.valid && n < count;
         tx_next(&cur)) {
        ids[n++] = key_read_u64(cur.key, 0);
    }
    cursor_end(&cur);
    for (size_t i = 0; i < n && tx_ok(c->tx); i++) {
        read_again(c, ids[i]);
    }
    return tx_error(c->tx);
}
