/* All strategies compile to one list of steps, which one machine walks (decide.h).
 *
 *   canary      as written; the machine promotes after the last one
 *   blue_green  all instances at weight 0, what is written, then promotion in one change of weight
 *   rolling     waves: more of the new, its share of the weight, fewer of the old, and so on
 *
 * A weight is at most the share of ready capacity that stands behind it: steps scale first. */
#ifndef DAVIT_ROLLOUT_STEPS_H
#define DAVIT_ROLLOUT_STEPS_H

#include "common/arena.h"
#include "proto/pb.h"

/* The plan of a rollout, in `a`. 0, -E_INVALID or -E_LIMIT with one line for people in *ret_why:
 * what of the spec the target cannot do. `first`: the service has no stable version yet. */
int rollout_compile(const Pb__RolloutSpec *spec, const Pb__RolloutTarget *target, bool first,
                    struct arena *a, Pb__RolloutPlanRecord **ret, const char **ret_why);

#endif
