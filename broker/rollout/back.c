#include "common/base.h"

#include "broker/rollout/inside.h"

#include "common/limits.h"
#include "proto/rollout.h"

/* What has no traffic any more goes: the way back, and the old version once the new one is stable.
 */

static bool drained(struct decision *d)
{
    const uint64_t drain_ms = d->v->plan->target->drain_ms != 0 ? d->v->plan->target->drain_ms
                                                                : 10000;

    if (d->r->zero_ms == 0) {
        return false;
    }
    rollout_look_at(d, d->r->zero_ms + drain_ms);
    return d->now_ms >= d->r->zero_ms + drain_ms;
}

/* The old version has had no traffic since zero_ms. What cannot be removed does no harm there: the
 * next rollout replaces it. */
void state_retire(struct decision *d)
{
    const bool late = d->r->deadline_ms != 0 && d->now_ms >= d->r->deadline_ms;

    rollout_look_at(d, d->r->deadline_ms);
    if (!act_route(d, ROLLOUT_FULL_BP, 0)) {
        act_look(d);
    } else if (d->v->stable == NULL || (drained(d) && act_remove(d, other_slot(d->r->slot)))) {
        machine_enter(d, ROLLOUT_DONE, 0);
        return;
    }
    if (late) {
        rollout_note(d, "state", "the old version could not be removed everywhere");
        machine_enter(d, ROLLOUT_DONE, 0);
    }
}

/* How much the new version keeps for now: a stable version that a rolling rollout has made fewer
 * gets back what it can bear. */
static uint32_t back_bp(const struct decision *d)
{
    struct slot_seen now, old;
    uint32_t share;

    if (d->v->stable == NULL || d->v->plan->spec->strategy != ROLLOUT_ROLLING) {
        return 0;
    }
    look_slot(d, other_slot(d->r->slot), d->r->wanted_old, pb_str(d->v->stable->digest), &old);
    look_slot(d, d->r->slot, d->r->wanted, pb_str(d->v->snapshot->digest), &now);
    if (old.wanted == 0 || (now.seen_ms != 0 && now.ready == 0)) {
        return 0;
    }
    share = ROLLOUT_FULL_BP -
            (uint32_t)((uint64_t)ROLLOUT_FULL_BP * MIN(old.ready, old.wanted) / old.wanted);
    return MIN(share, MIN(d->r->weight_bp, d->r->observed_bp));
}

/* Traffic first; it waits for nobody, and tries for ever. */
void state_rollback(struct decision *d)
{
    const uint32_t bp = back_bp(d);
    bool there = true;

    if (d->r->weight_bp != bp) {
        d->r->weight_bp = bp;
        d->changed = true;
    }
    const bool routed = act_route(d, bp, d->r->observed_ms == 0 ? d->r->state_ms : 0);
    if (d->v->stable != NULL && d->v->plan->spec->strategy == ROLLOUT_ROLLING) {
        there = act_instances(d, other_slot(d->r->slot), d->r->wanted_old, d->v->stable);
        act_look(d);
    }
    if (routed && there && bp == 0 && d->r->observed_bp == 0) {
        machine_enter(d, ROLLOUT_DRAIN, 0);
        return;
    }
    if (d->r->state == ROLLOUT_ROLLBACK && d->r->deadline_ms != 0) {
        rollout_look_at(d, d->r->deadline_ms);
        if (d->now_ms >= d->r->deadline_ms) {
            machine_enter(d, ROLLOUT_NEEDS_HUMAN, 0);
            rollout_holds(d, "the way back cannot be verified; it is tried again and again");
        }
    }
}

void state_drain(struct decision *d)
{
    act_look(d);
    if (d->r->observed_bp != 0) { /* somebody else has moved it */
        machine_enter(d, ROLLOUT_ROLLBACK, BACK_MS);
    } else if (drained(d)) {
        machine_enter(d, ROLLOUT_REMOVE, machine_progress_ms(d));
    }
}

void state_remove(struct decision *d)
{
    rollout_look_at(d, d->r->deadline_ms);
    if (act_remove(d, d->r->slot)) {
        machine_enter(d, ROLLOUT_ROLLED_BACK, 0);
    } else if (d->now_ms >= d->r->deadline_ms) {
        rollout_note(d, "state", "the new version could not be removed everywhere");
        machine_enter(d, ROLLOUT_ROLLED_BACK, 0);
    }
}

/* A member of its group that goes back takes all others along, until they are stable. */
void back_with_group(struct decision *d)
{
    for (size_t i = 0; i < d->v->group_count; i++) {
        const Pb__RolloutRecord *o = d->v->group[i];
        if (o->abort_wanted || o->state == ROLLOUT_REFUSED || o->state == ROLLOUT_ROLLED_BACK ||
            (rollout_state_flags(o->state) & ROLLOUT_BACK) != 0) {
            machine_because(
                d, ROLLOUT_WHY_GROUP,
                arena_printf(d->a, "rollout %" PRIu64 " of its group goes back", o->id));
            machine_back(d);
            return;
        }
    }
}

bool back_is_possible(Pb__RolloutState s)
{
    const uint32_t flags = rollout_state_flags(s);

    return (flags & (ROLLOUT_BACK | ROLLOUT_ENDED)) == 0 &&
           ((flags & ROLLOUT_MOVED) == 0 || rollout_may_move(s, ROLLOUT_ROLLBACK));
}
