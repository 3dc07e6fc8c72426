/* What a rollout does next. Pure: what is stored and the time go in, one proposal comes out,
 * applied by the core (broker/core/rollout.h, whose invariants it is written to, and checked by).
 * Level triggered: each decision is made of what is, never of what was said before, so one that was
 * lost, or made twice, changes nothing. Depends on broker/core's queries, steps.h, verdict.h. */
#ifndef DAVIT_ROLLOUT_DECIDE_H
#define DAVIT_ROLLOUT_DECIDE_H

#include "broker/core/rollout.h"
#include "common/arena.h"

/* The proposal, in `a`; NULL: nothing is to be done before record->next_look_ms, which is in the
 * future. Calls again with what the core made of it until NULL. */
Pb__RolloutStep *rollout_decide(const struct rollout_view *v, uint64_t now_ms, struct arena *a);

/* What it waits for, for people: "2 of 3 instances ready", "frozen until ...", "approval by
 * release-managers (0 of 1)". In `a`. */
const char *rollout_waits_for(const struct rollout_view *v, uint64_t now_ms, struct arena *a);

#endif
