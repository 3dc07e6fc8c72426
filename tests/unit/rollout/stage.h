/* A stage for the decider of rollouts: rows in memory instead of a store, a clock that is set, and
 * a target that does what actions say, late, badly or not at all. Every proposal is held against
 * the invariants of broker/core/rollout.h by hand, not by the core's code. A test's *state is its
 * stage. */
#ifndef DAVIT_TESTS_ROLLOUT_STAGE_H
#define DAVIT_TESTS_ROLLOUT_STAGE_H

#include "broker/rollout/decide.h"
#include "broker/rollout/steps.h"
#include "broker/rollout/verdict.h"
#include "proto/rollout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define STAGE_ACTIONS 4000u
#define STAGE_PLACES  4u

struct stage_slot {
    uint32_t instances[STAGE_PLACES];
    char snapshot[8];
    uint64_t since_ms;
};

struct stage {
    struct arena arena;
    uint64_t now_ms;
    Pb__RolloutSpec spec;
    Pb__RolloutTarget target;
    Pb__RolloutPlanRecord *plan;
    Pb__RolloutRecord *record;
    Pb__ServiceRecord service;
    Pb__SnapshotRecord fresh;
    Pb__SnapshotRecord stable;
    Pb__RolloutActionRecord *actions[STAGE_ACTIONS];
    size_t action_count;
    Pb__RolloutMetricRecord *metrics[8];
    size_t metric_count;

    /* the outside */
    struct stage_slot slots[2];
    uint32_t weight_b_bp;
    uint64_t fence; /* the highest epoch seen */
    uint64_t moved_ms;

    /* how it behaves */
    uint64_t start_ms;   /* until an instance is ready */
    uint32_t sick_from;  /* instances of the new version from this one on are never ready */
    bool router_dead;    /* its actions fail */
    bool routerless;     /* nobody knows the weight but the record */
    bool router_deaf;    /* they succeed, and change nothing */
    uint64_t action_ms;  /* how long one takes */
    uint32_t lost_every; /* one of so many actions fails after a long time; 0: none */
    uint32_t kill_after; /* nothing goes on after so many steps, until steps_applied is set back */

    uint64_t rps; /* of all traffic; counters of both slots follow the weight */
    double bad_share[2];
    double total[2];
    double bad[2];
    uint64_t counted_ms;
    bool metrics_dead; /* their samples fail */
    bool metrics_mute; /* no series */

    uint32_t weights_seen[64]; /* of the new version, each change */
    size_t weight_count;
    uint32_t steps_applied;
};

int stage_set_up(void **state);
int stage_tear_down(void **state);
/* Settings of spec and target were made: the rollout begins. `first`: nothing is stable yet. */
void stage_begin(struct stage *s, bool first);
/* Steps until nothing is to do, actions end, time goes on; until the state or `for_ms`. */
void stage_run(struct stage *s, uint64_t for_ms);
bool stage_run_until(struct stage *s, Pb__RolloutState state, uint64_t for_ms);
/* The broker is killed and starts again. */
void stage_restart(struct stage *s);
void stage_abort(struct stage *s);
Pb__RolloutStepWish *stage_wish(struct stage *s); /* one more entry of steps */
/* error_rate, with this tolerance; critical. */
void stage_metric(struct stage *s, uint32_t tolerance_millis);
void stage_strategy(struct stage *s, Pb__RolloutStrategy strategy);

#define TEST(name) cmocka_unit_test_setup_teardown(name, stage_set_up, stage_tear_down)

#endif
