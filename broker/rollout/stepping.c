#include "common/base.h"

#include "broker/rollout/inside.h"

#include "common/limits.h"
#include "proto/rollout.h"

/* The state that walks the list of steps. */

static void next_step(struct decision *d)
{
    const Pb__RolloutPlanRecord *p = d->v->plan;

    d->r->step++;
    d->r->skip_wanted = false;
    d->r->deadline_ms = d->now_ms + machine_progress_ms(d);
    d->r->holds = (char *)"";
    machine_phase(d, ROLLOUT_PHASE_ACT);
    if (d->r->step >= p->n_steps) {
        machine_enter(d, ROLLOUT_PROMOTE, machine_progress_ms(d));
    } else {
        rollout_note(d, "step", "%u of %zu: %s", d->r->step, p->n_steps - 1,
                     p->steps[d->r->step]->name);
    }
}

bool step_scaled(struct decision *d, uint32_t *by_place)
{
    struct slot_seen seen;

    if (d->r->n_wanted == 0 ||
        memcmp(d->r->wanted, by_place, rollout_places(d) * sizeof(*by_place)) != 0) {
        machine_want(d, by_place);
    }
    if (!act_instances(d, d->r->slot, by_place, d->v->snapshot)) {
        return false;
    }
    look_slot(d, d->r->slot, by_place, pb_str(d->v->snapshot->digest), &seen);
    return seen.ready >= seen.wanted;
}

/* What it waits for is no fault of the new version: its time counts from when that is over. */
static void no_hurry(struct decision *d, uint64_t from_ms)
{
    const uint64_t ms = machine_progress_ms(d);

    if (d->r->deadline_ms != 0 && d->r->deadline_ms < from_ms + ms / 2) {
        d->r->deadline_ms = from_ms + ms;
        d->changed = true;
    }
}

/* More only outside of freezes and after a look that was good. Where metrics cannot be had it
 * stays: an outage of what measures neither promotes nor rolls back. */
static bool may_rise(struct decision *d)
{
    uint64_t until_ms;
    const Pb__FreezeWindow *w = d->r->undo ? NULL : gate_frozen(d, &until_ms);

    if (w != NULL) {
        rollout_holds(d, arena_printf(d->a, "frozen: %s", w->name));
        rollout_look_at(d, until_ms);
        no_hurry(d, until_ms);
        return false;
    }
    if (machine_is_good(d)) {
        return true;
    }
    const struct judged j = judge_now(d, false, true, false);
    if (j.what == JUDGE_FAIL) {
        machine_fail(d, j.why, j.text);
    } else if (j.what == JUDGE_HOLD || j.what == JUDGE_APPROVE) {
        rollout_holds(d, arena_printf(d->a, "%s; skip or abort", j.text));
        no_hurry(d, d->now_ms);
    }
    return false;
}

/* Less at once. */
bool step_weighed(struct decision *d, uint32_t bp)
{
    if (bp > d->r->weight_bp && !may_rise(d)) {
        return false;
    }
    const bool moved = d->r->weight_bp != bp;
    if (moved) {
        d->r->weight_bp = bp;
        machine_phase(d, ROLLOUT_PHASE_VERIFY);
        rollout_look_at(d, d->now_ms);
    }
    const bool routed = act_route(d, bp, d->r->phase == ROLLOUT_PHASE_VERIFY ? d->r->phase_ms : 0);

    return !moved && routed && d->r->observed_bp == bp; /* first the wish is to be known */
}

static bool approved(struct decision *d, const Pb__RolloutStepRecord *s)
{
    const uint32_t have = gate_approvals(d, d->r->step, s->roles, s->n_roles);

    d->r->deadline_ms = 0; /* people take their time */
    if (have < s->approvals) {
        rollout_holds(d, arena_printf(d->a, "%u of %u approvals: %s", have, s->approvals, s->name));
    }
    return have >= s->approvals;
}

static bool all_here(struct decision *d)
{
    for (size_t i = 0; i < d->v->group_count; i++) {
        const Pb__RolloutRecord *o = d->v->group[i];
        const bool past = o->state == ROLLOUT_PROMOTE || o->state == ROLLOUT_BAKE ||
                          o->state == ROLLOUT_RETIRE || o->state == ROLLOUT_DONE;
        if (!past && (o->state != ROLLOUT_STEPPING || o->step < d->r->step)) {
            rollout_holds(d,
                          arena_printf(d->a, "the others of its group: rollout %" PRIu64 " is %s",
                                       o->id, rollout_state_text(o->state)));
            return false;
        }
    }
    return true;
}

/* The metrics have the word; what cannot be told waits, at most to the step's deadline. */
static bool analysed(struct decision *d, const Pb__RolloutStepRecord *s)
{
    const uint64_t over_ms = d->r->phase_ms + s->for_ms;
    const uint64_t last_ms = over_ms + machine_progress_ms(d) / 2;
    const struct judged j = judge_now(d, s->until_good, d->now_ms >= over_ms, d->now_ms >= last_ms);

    rollout_look_at(d, d->now_ms < over_ms ? over_ms : last_ms);
    if (j.synthetic) {
        act_load(d);
    }
    switch (j.what) {
    case JUDGE_GO:
        return true;
    case JUDGE_FAIL:
        machine_fail(d, j.why, j.text);
        return false;
    case JUDGE_HOLD:
    case JUDGE_APPROVE:
        d->r->deadline_ms = 0; /* an outage of what measures neither promotes nor rolls back */
        rollout_holds(d, arena_printf(d->a, "%s; skip or abort", j.text));
        return false;
    case JUDGE_WAIT:
        rollout_holds(d, d->now_ms >= over_ms ? j.text : "");
        return false;
    }
    return false;
}

static bool held_long_enough(struct decision *d, const Pb__RolloutStepRecord *s)
{
    rollout_look_at(d, d->r->phase_ms + s->for_ms);
    return d->now_ms >= d->r->phase_ms + s->for_ms;
}

static bool script_ended(struct decision *d, const Pb__RolloutStepRecord *s)
{
    const char *why = "";
    const int r = act_script(d, s, &why);

    if (r < 0) {
        machine_fail(d, ROLLOUT_WHY_SCRIPT,
                     arena_printf(d->a, "%s: %s", s->name, why[0] != '\0' ? why : "it failed"));
    }
    return r > 0;
}

/* Fewer of the old version, by a rolling rollout. */
static bool shrunk(struct decision *d, uint32_t *by_place)
{
    if (memcmp(d->r->wanted_old, by_place, rollout_places(d) * sizeof(*by_place)) != 0) {
        machine_want_old(d, by_place);
    }
    return act_instances(d, other_slot(d->r->slot), by_place, d->v->stable);
}

static bool mirrored(struct decision *d, uint32_t bp)
{
    if (d->r->mirror_bp != bp) {
        d->r->mirror_bp = bp;
        machine_phase(d, ROLLOUT_PHASE_VERIFY);
        d->r->observed_ms = 0;
    }
    return act_route(d, d->r->weight_bp, d->r->phase_ms);
}

static bool step_is_done(struct decision *d, const Pb__RolloutStepRecord *s)
{
    switch (s->kind) {
    case PB__ROLLOUT_STEP_KIND__ROLLOUT_STEP_SCALE:
        return step_scaled(d, s->instances);
    case PB__ROLLOUT_STEP_KIND__ROLLOUT_STEP_WEIGHT:
        return step_weighed(d, s->weight_bp);
    case PB__ROLLOUT_STEP_KIND__ROLLOUT_STEP_HOLD:
        return held_long_enough(d, s);
    case PB__ROLLOUT_STEP_KIND__ROLLOUT_STEP_ANALYZE:
        return analysed(d, s);
    case PB__ROLLOUT_STEP_KIND__ROLLOUT_STEP_APPROVE:
        return approved(d, s);
    case PB__ROLLOUT_STEP_KIND__ROLLOUT_STEP_RUN:
        return script_ended(d, s);
    case PB__ROLLOUT_STEP_KIND__ROLLOUT_STEP_MIRROR:
        return mirrored(d, s->weight_bp);
    case PB__ROLLOUT_STEP_KIND__ROLLOUT_STEP_SHRINK:
        return shrunk(d, s->instances);
    case PB__ROLLOUT_STEP_KIND__ROLLOUT_STEP_BARRIER:
        return all_here(d);
    case _PB__ROLLOUT_STEP_KIND_IS_INT_SIZE:
    default:
        return false;
    }
}

/* What takes as long as was asked for, or as a person needs, has no deadline of its own. */
static uint64_t step_within_ms(const struct decision *d, const Pb__RolloutStepRecord *s)
{
    return machine_progress_ms(d) + s->for_ms;
}

void state_stepping(struct decision *d)
{
    const Pb__RolloutPlanRecord *p = d->v->plan;

    act_look(d);
    act_sample(d);
    if (machine_is_bad(d) || d->r->held || d->r->paused) {
        return;
    }
    if (d->r->promote_wanted) {
        rollout_note(d, "person", "the steps that are left are skipped");
        d->r->promote_wanted = false;
        machine_enter(d, ROLLOUT_PROMOTE, machine_progress_ms(d));
        return;
    }
    if (d->r->step >= p->n_steps) {
        machine_enter(d, ROLLOUT_PROMOTE, machine_progress_ms(d));
        return;
    }
    const Pb__RolloutStepRecord *s = p->steps[d->r->step];
    if (s->for_ms > 0 && d->r->deadline_ms != 0 &&
        d->r->deadline_ms < d->r->phase_ms + step_within_ms(d, s)) {
        d->r->deadline_ms = d->r->phase_ms + step_within_ms(d, s);
        d->changed = true;
    }
    if (d->r->skip_wanted || step_is_done(d, s)) {
        next_step(d);
    } else if (d->r->state == ROLLOUT_STEPPING && !d->r->held) {
        machine_is_late(
            d, arena_printf(d->a, "step %u (%s) did not end in time", d->r->step, s->name));
    }
}
