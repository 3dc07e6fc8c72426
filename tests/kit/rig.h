/* What a rollout acts on, in a small world: a worker with the drivers of one target, instances in
 * two slots, a router. Rollouts begin and are decided by the same code as in the broker; actions
 * are answered as the rig was told to behave. Time goes on from one thing that is due to the next.
 *
 * Ownership: rig_init keeps the world; nothing to release. Threads: one. */
#ifndef DAVIT_TEST_RIG_H
#define DAVIT_TEST_RIG_H

#include "broker/core/rollout.h"
#include "tests/kit/world.h"

#define RIG_PLACES 4u
#define RIG_DIGEST 32u

struct rig_slot {
    uint32_t instances[RIG_PLACES];
    uint8_t snapshot[RIG_DIGEST];
};

struct rig {
    struct world *w;
    uint64_t worker_id;
    /* the outside */
    struct rig_slot slots[2];
    uint32_t weight_b_bp;
    uint64_t total[2], bad[2]; /* requests that were served, and those that failed, by slot */
    uint64_t counted_ms;
    uint64_t generation, epoch; /* the highest fence that was seen */
    /* how it behaves */
    uint32_t bad_percent[2]; /* of requests, by slot */
    bool never_ready;        /* new instances do not become ready */
    bool deaf;               /* weights are taken and not set */
    bool silent;             /* no action ends */
    uint32_t fail_every;     /* one action of so many fails; 0: none */
    uint32_t lose_every;     /* of one of so many the worker is lost; 0: none */
    /* what came of it */
    uint64_t actions, failed, lost, stale;
    uint32_t highest_bp; /* of the slot that is not stable, while one is live */
    bool broken;         /* instances went away under traffic */
};

/* Declares the target "web" of every environment, and says Hello. */
void rig_init(struct rig *r, struct world *w);
Pb__RolloutTarget *rig_target(struct arena *a);
int rig_declare(struct world *w, Pb__RolloutTarget *t);
/* A plan with the job "deploy" in environment production that rolls `version` out by a canary: 5 %,
 * 25 %, each analysed, and a short bake. */
Pb__Plan *rig_plan(struct arena *a, const char *version);
/* Submits it; the job's id. */
uint64_t rig_submit(struct rig *r, const char *version);

/* Begins what waits, decides what is due: as the turn does. */
void rig_decide(struct rig *r);
/* Ends all actions that wait for a worker; the count. */
size_t rig_act(struct rig *r);
/* Both, again and again, until nothing happens at this time. */
void rig_settle(struct rig *r);
void rig_run(struct rig *r, uint64_t ms);
/* Until the rollout has ended, or is in the state; false: not within that time. */
bool rig_until(struct rig *r, uint64_t rollout_id, Pb__RolloutState state, uint64_t ms);
/* A start of the broker: what was known is to be read again. */
void rig_restart(struct rig *r);
int rig_act_on(struct rig *r, uint64_t rollout_id, Pb__RolloutVerb verb, const char *role);
uint64_t rig_rollout_of(struct rig *r, uint64_t job_id);
const char *rig_state(struct rig *r, uint64_t rollout_id);

#endif
