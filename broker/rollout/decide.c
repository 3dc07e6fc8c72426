#include "common/base.h"

#include "broker/rollout/inside.h"

#include "common/limits.h"
#include "proto/rollout.h"

/* The one machine that walks the list of steps. Each state is a function that makes sure of what
 * has to be so, and goes on when it is. */

#define GATE UINT32_MAX /* the step of approvals that the gate asks for */

static void queued(struct decision *d)
{
    if (d->v->before == NULL) {
        machine_enter(d, ROLLOUT_GATED, 0);
    } else {
        rollout_holds(d, arena_printf(d->a, "rollout %" PRIu64 " of the service is %s",
                                      d->v->before->id, rollout_state_text(d->v->before->state)));
    }
}

static bool gate_is_open(struct decision *d)
{
    const Pb__RolloutTarget *t = d->v->plan->target;
    const uint32_t need = t->n_gate > 0 ? MAX(t->gate_approvals, 1u) : 0;
    const uint32_t have = gate_approvals(d, GATE, t->gate, t->n_gate);
    uint64_t until_ms;
    const Pb__FreezeWindow *w = gate_frozen(d, &until_ms);

    if (d->r->undo) { /* going back waits for nobody */
        return true;
    }
    if (have < need) {
        rollout_holds(d, arena_printf(d->a, "%u of %u approvals before it may begin", have, need));
        return false;
    }
    if (w != NULL) {
        rollout_holds(d, arena_printf(d->a, "frozen: %s", w->name));
        rollout_look_at(d, until_ms);
        return false;
    }
    return true;
}

static void gated(struct decision *d)
{
    if (!gate_is_open(d)) {
        return;
    }
    const char *missing = gate_metrics(d);
    if (missing != NULL) {
        rollout_holds(d, missing);
        return;
    }
    const Pb__RolloutPlanRecord *p = d->v->plan;
    const bool all = d->r->undo || d->v->stable == NULL || p->n_steps == 0;

    machine_want(d, all ? machine_counts(d, d->r->undo ? MAX(d->v->snapshot->instances, 1u)
                                                       : rollout_each(d))
                        : p->steps[0]->instances);
    if (d->v->stable != NULL) {
        machine_want_old(d, machine_counts(d, d->v->stable->instances));
    }
    d->r->weight_bp = 0;
    machine_enter(d, ROLLOUT_PROVISION, machine_progress_ms(d));
}

/* Instances of the new version without traffic. */
static void provision(struct decision *d)
{
    struct slot_seen seen;
    const bool there = act_instances(d, d->r->slot, d->r->wanted, d->v->snapshot);

    if (d->v->stable != NULL) {
        act_look(d);
    }
    look_slot(d, d->r->slot, d->r->wanted, pb_str(d->v->snapshot->digest), &seen);
    if (there && seen.ready >= seen.wanted) {
        d->r->unready_looks = 0;
        d->r->counted_ms = seen.seen_ms;
        machine_enter(d, ROLLOUT_WARMUP, machine_progress_ms(d));
        return;
    }
    act_look(d);
    if (!machine_is_late(d, arena_printf(d->a, "%u of %u instances became ready: %s", seen.ready,
                                         seen.wanted, seen.detail))) {
        rollout_holds(d, arena_printf(d->a, "%u of %u instances ready", seen.ready, seen.wanted));
    }
}

static void warmup(struct decision *d)
{
    const uint64_t settle_ms = d->v->plan->target->settle_ms;
    struct slot_seen seen;

    act_look(d);
    act_sample(d);
    if (machine_is_bad(d) || machine_is_late(d, "the new version did not stay ready")) {
        return;
    }
    look_slot(d, d->r->slot, d->r->wanted, pb_str(d->v->snapshot->digest), &seen);
    if (!act_route(d, 0, d->r->state_ms) && d->v->stable != NULL) {
        return; /* the router is to know its servers before any traffic */
    }
    if (seen.ready < seen.wanted || seen.ready_for_ms < settle_ms) {
        return;
    }
    d->r->verdict_ms = d->now_ms;
    if (d->r->undo || d->v->stable == NULL) {
        machine_enter(d, ROLLOUT_PROMOTE, machine_progress_ms(d));
    } else {
        machine_enter(d, ROLLOUT_STEPPING, machine_progress_ms(d));
        d->r->step = 1;
    }
}

/* All instances, then all traffic. */
static void promote(struct decision *d)
{
    const uint32_t each = d->r->undo ? MAX(d->v->snapshot->instances, 1u) : rollout_each(d);

    act_look(d);
    act_sample(d);
    if (machine_is_bad(d) || d->r->held || d->r->paused) {
        return;
    }
    if (!step_scaled(d, machine_counts(d, each)) || !step_weighed(d, ROLLOUT_FULL_BP)) {
        machine_is_late(d, "the new version did not get all traffic in time");
        return;
    }
    machine_enter(d, ROLLOUT_BAKE, 0);
}

static void bake(struct decision *d)
{
    const uint64_t bake_ms = d->r->undo ? 0 : d->v->plan->spec->bake_ms;

    act_look(d);
    act_sample(d);
    if (machine_is_bad(d) || d->r->held || d->r->paused) {
        return;
    }
    if (!act_route(d, ROLLOUT_FULL_BP, 0)) {
        return;
    }
    rollout_look_at(d, d->r->state_ms + bake_ms);
    if (d->now_ms >= d->r->state_ms + bake_ms || d->r->skip_wanted || d->r->promote_wanted) {
        const struct judged j = judge_now(d, false, true, true);
        if (j.what == JUDGE_FAIL) {
            machine_fail(d, j.why, j.text);
            return;
        }
        if ((j.what == JUDGE_HOLD || j.what == JUDGE_APPROVE) && !d->r->skip_wanted &&
            !d->r->promote_wanted) {
            rollout_holds(d, arena_printf(d->a, "%s; skip or abort", j.text));
            return;
        }
        machine_enter(d, ROLLOUT_RETIRE, machine_progress_ms(d));
    }
}

typedef void (*state_fn)(struct decision *d);
static const state_fn states[] = {
    [PB__ROLLOUT_STATE__ROLLOUT_QUEUED] = queued,
    [PB__ROLLOUT_STATE__ROLLOUT_GATED] = gated,
    [PB__ROLLOUT_STATE__ROLLOUT_PROVISION] = provision,
    [PB__ROLLOUT_STATE__ROLLOUT_WARMUP] = warmup,
    [PB__ROLLOUT_STATE__ROLLOUT_STEPPING] = state_stepping,
    [PB__ROLLOUT_STATE__ROLLOUT_PROMOTE] = promote,
    [PB__ROLLOUT_STATE__ROLLOUT_BAKE] = bake,
    [PB__ROLLOUT_STATE__ROLLOUT_RETIRE] = state_retire,
    [PB__ROLLOUT_STATE__ROLLOUT_ROLLBACK] = state_rollback,
    [PB__ROLLOUT_STATE__ROLLOUT_NEEDS_HUMAN] = state_rollback,
    [PB__ROLLOUT_STATE__ROLLOUT_DRAIN] = state_drain,
    [PB__ROLLOUT_STATE__ROLLOUT_REMOVE] = state_remove,
};

/* Drivers that have seen a higher fence are of a store that knew more than ours. */
static void outbid(struct decision *d)
{
    for (size_t i = 0; i < d->v->action_count; i++) {
        const Pb__RolloutActionRecord *a = d->v->actions[i];
        if (a->stale && a->epoch == d->r->epoch && a->state == ROLLOUT_ACTION_BAD) {
            d->r->epoch++;
            rollout_note(d, "action", "the target has seen a higher fence: epoch %" PRIu64 " now",
                         d->r->epoch);
            return;
        }
    }
}

static bool is_superseded(const struct decision *d, const Pb__RolloutActionRecord *a)
{
    for (size_t i = 0; i < d->v->action_count; i++) {
        const Pb__RolloutActionRecord *b = d->v->actions[i];
        if (b->seq > a->seq && b->kind == a->kind && b->slot == a->slot && b->place == a->place &&
            b->metric == a->metric && b->state != ROLLOUT_ACTION_RUNNING &&
            (b->state == ROLLOUT_ACTION_GOOD || a->state == ROLLOUT_ACTION_BAD)) {
            return true;
        }
    }
    return false;
}

/* The newest of each kind and place stay: they are what is known. */
static void take_old(struct decision *d)
{
    d->step->taken = arena_array(d->a, d->v->action_count + 1, sizeof(*d->step->taken));
    for (size_t i = 0; i < d->v->action_count; i++) {
        const Pb__RolloutActionRecord *a = d->v->actions[i];
        if (a->state != ROLLOUT_ACTION_RUNNING && a->kind != ROLLOUT_ACTION_RUN &&
            (a->kind == ROLLOUT_ACTION_NOTIFY || is_superseded(d, a))) {
            d->step->taken[d->step->n_taken++] = a->seq;
            d->changed = true;
        }
    }
}

static void retried(struct decision *d)
{
    if (d->r->retry_wanted) {
        d->r->retry_wanted = false;
        d->r->held = false;
        d->r->why = ROLLOUT_WHY_NONE;
        d->r->why_text = (char *)"";
        d->r->holds = (char *)"";
        d->r->unready_looks = 0;
        d->r->deadline_ms = d->r->deadline_ms != 0 ? d->now_ms + machine_progress_ms(d) : 0;
        rollout_note(d, "person", "tried again");
    } else if (d->r->held && (d->r->skip_wanted || d->r->promote_wanted)) {
        d->r->held = false; /* a person has seen it; what is bad holds it again */
        rollout_holds(d, "");
    }
}

static void decide(struct decision *d)
{
    look_observe(d);
    judge_begin(d);
    judge_fold(d);
    outbid(d);
    retried(d);
    if (d->r->abort_wanted && back_is_possible(d->r->state)) {
        machine_because(d, ROLLOUT_WHY_PERSON, "aborted");
        machine_back(d);
    } else if (back_is_possible(d->r->state) && d->v->group_count > 0) {
        back_with_group(d);
    }
    if (d->r->state == d->v->record->state) {
        states[d->r->state](d);
    }
}

static struct decision begin_decision(const struct rollout_view *v, uint64_t now_ms,
                                      struct arena *a)
{
    struct decision d = {.v = v, .now_ms = now_ms, .a = a, .look_ms = UINT64_MAX};

    d.r = arena_alloc(a, sizeof(*d.r));
    *d.r = *v->record;
    d.step = arena_alloc(a, sizeof(*d.step));
    pb__rollout_step__init(d.step);
    d.step->rollout_id = v->record->id;
    d.step->revision = v->record->revision;
    d.step->next = d.r;
    return d;
}

Pb__RolloutStep *rollout_decide(const struct rollout_view *v, uint64_t now_ms, struct arena *a)
{
    struct decision d = begin_decision(v, now_ms, a);
    const uint64_t was_ms = v->record->next_look_ms;

    if ((rollout_state_flags(v->record->state) & ROLLOUT_ENDED) != 0) {
        return NULL;
    }
    take_old(&d);
    decide(&d);
    if ((rollout_state_flags(d.r->state) & ROLLOUT_ENDED) != 0) {
        d.r->next_look_ms = 0;
    } else if (d.r->state != v->record->state) {
        d.r->next_look_ms = now_ms; /* what the new state wants is begun at once */
    } else if (was_ms <= now_ms || d.look_ms < was_ms) {
        d.r->next_look_ms = MAX(MIN(d.look_ms, now_ms + rollout_tick_ms(&d)), now_ms + 1);
    }
    return d.changed || d.r->next_look_ms != was_ms ? d.step : NULL;
}

const char *rollout_waits_for(const struct rollout_view *v, uint64_t now_ms, struct arena *a)
{
    struct decision d = begin_decision(v, now_ms, a);
    const Pb__RolloutRecord *r = v->record;
    struct slot_seen seen;

    if (r->paused) {
        return "paused";
    }
    if (r->holds[0] != '\0') {
        return r->holds;
    }
    if (r->state == ROLLOUT_STEPPING && r->step < v->plan->n_steps) {
        return arena_printf(a, "step %u of %zu: %s", r->step + 1, v->plan->n_steps,
                            v->plan->steps[r->step]->name);
    }
    if (r->n_wanted > 0 && v->snapshot != NULL) {
        look_slot(&d, r->slot, r->wanted, pb_str(v->snapshot->digest), &seen);
        if (seen.ready < seen.wanted) {
            return arena_printf(a, "%u of %u instances ready%s%s", seen.ready, seen.wanted,
                                seen.detail[0] != '\0' ? ": " : "", seen.detail);
        }
    }
    return rollout_state_text(r->state);
}
