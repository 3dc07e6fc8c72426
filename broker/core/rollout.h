/* Rollouts in the core: their rows, and the rules that hold whoever proposes what.
 *
 * Who does what. broker/rollout decides: pure functions of what is stored and the time, with
 * statistics in floating point. It proposes one RolloutStep at a time; the turn applies it in the
 * same transaction. The core holds no opinion on when a canary is good: it checks that what is
 * proposed breaks no rule, writes it, makes the jobs of its actions, and tells the world. So
 * whatever the decider gets wrong, traffic stays within these rules:
 *
 *   I1  A service's stable snapshot and slot change only in the step from bake to retire.
 *   I2  Nothing is begun that takes a slot's last instances away while the last weight read back
 *       for it is above zero, nor within the target's drain time after that; some of them only by
 *       the steps of a rolling rollout (drivers drain those that go).
 *   I3  All weight is one number, that of slot b: what is not there is in a.
 *   I4  The new version's weight rises only in a state that is UP, and only when all checks were
 *       good at a time (verdict_ms) after both the last start of the broker and the last change of
 *       the weight (evidence_from_ms).
 *   I5  Every action carries (service, generation, epoch). Generations rise with each rollout of a
 *       service, epochs with each start of the broker, each way back, each supersede: drivers
 *       refuse what is lower than they have seen.
 *   I6  A service has one live rollout, and one that waits for it. A newer one aborts the live one
 *       and refuses the one that waited.
 *   I7  abort_wanted is never unset; from then on the weight does not rise, and the way back waits
 *       for no freeze, no approval, no pause, and not for the health of the new version.
 *   I8  A snapshot is kept while a rollout that has not ended, or its service, names it.
 *
 * A decider that cannot say what is (an action without an answer, a start of the broker) proposes
 * to look again: an observation is never older than the start (observed_ms 0).
 *
 * Actions are jobs without a pipeline, of the executor `action`, that only the target's workers may
 * take; leases, losses and cancels are theirs. Their end sets the action's row and makes the
 * rollout due. Scripts of steps are such jobs, too, of the executor that their pool offers; they
 * belong to no epoch, as one that has run is not run again.
 *
 * What people do (RolloutAct) sets wishes in the record, and the decider takes them: skip_wanted,
 * promote_wanted and retry_wanted are unset by the step that does it. Resume moves phase_ms and
 * deadline_ms on by the time for which it was paused.
 *
 * When. Table rollout_due: next_look_ms and the rollout, for each that has not ended; set to now
 * when an action ends, a person acts, another one of the service or group ends. The turn lets
 * decide what is due, at most LIMIT_ROLLOUT_STEPS times a rollout and round.
 *
 * A pipeline's job with `rollout:` has no worker: it runs from its turn on until the rollout ends:
 * done is success; rolled back failed (reason rollout_failed), or canceled when the job was; a
 * cancel of the job is an abort. RolloutBegin brings the compiled plan: the turn makes it for each
 * job of the table rollout_open, in the round in which its turn came. Nothing has to ask for that,
 * so nothing can be lost on the way.
 *
 * Threads and purity as core.h. */
#ifndef DAVIT_CORE_ROLLOUT_H
#define DAVIT_CORE_ROLLOUT_H

#include "broker/store/tx.h"
#include "proto/rollout.h"

#define ROLLOUT_FULL_BP 10000u

enum rollout_flag {
    ROLLOUT_ENDED = 1,
    ROLLOUT_MOVED = 2,
    ROLLOUT_BACK = 4,
    ROLLOUT_UP = 8,
};

uint32_t rollout_state_flags(Pb__RolloutState s);
bool rollout_may_move(Pb__RolloutState from, Pb__RolloutState to);
const char *rollout_state_text(Pb__RolloutState s);
const char *rollout_verb_text(Pb__RolloutVerb v); /* "abort"; "": none of them */
const char *rollout_why_text(Pb__RolloutWhy w);   /* "metric", "deadline", ... */

/* Everything that a decision needs, in tx_arena(tx). */
struct rollout_view {
    const Pb__RolloutRecord *record;
    const Pb__RolloutPlanRecord *plan;
    const Pb__ServiceRecord *service;
    const Pb__SnapshotRecord *snapshot;      /* of the new version */
    const Pb__SnapshotRecord *stable;        /* NULL: the service had none */
    Pb__RolloutActionRecord *const *actions; /* by seq: running, and ended but not taken */
    size_t action_count;
    Pb__RolloutMetricRecord *const *metrics; /* by index; those that there are */
    size_t metric_count;
    const Pb__RolloutRecord *const *group; /* the others of its group, ended ones too */
    size_t group_count;
    const Pb__RolloutRecord *before; /* of the service, live; NULL: it is the live one */
    const char *project;
    const char *environment;
};
/* false: there is no such rollout. */
bool rollout_view_load(struct tx *tx, uint64_t rollout_id, struct rollout_view *ret);

const Pb__RolloutRecord *rollout_get(struct tx *tx, uint64_t id);
const Pb__RolloutPlanRecord *rollout_plan_get(struct tx *tx, uint64_t id);
const Pb__RolloutActionRecord *rollout_action_get(struct tx *tx, uint64_t rollout_id, uint64_t seq);
/* Whether the job is an action of a rollout of which a version holds the blob. */
bool rollout_needs_blob(struct tx *tx, const Pb__JobRecord *job, struct str digest);
const Pb__ServiceRecord *service_get(struct tx *tx, uint64_t id);
const Pb__ServiceRecord *service_by_name(struct tx *tx, uint64_t environment_id,
                                         const char *target);
/* By target, those behind `after` (NULL: from the first on). */
size_t services_after(struct tx *tx, uint64_t environment_id, const char *after, size_t max,
                      const Pb__ServiceRecord **ret);
const Pb__SnapshotRecord *snapshot_get(struct tx *tx, uint64_t id);
/* The declared target that the environment's name and the project fit, the most exact name first;
 * NULL: none. `others`: one fits but for the project. */
const Pb__RolloutTarget *target_find(struct tx *tx, const char *environment, const char *name,
                                     const char *project, bool *ret_others);
/* The newest first, those before the id `before` (0: from the newest on); service_id 0: of all. */
size_t rollouts_before(struct tx *tx, uint64_t service_id, uint64_t before, size_t max,
                       const Pb__RolloutRecord **ret);
size_t rollouts_live_before(struct tx *tx, uint64_t before, size_t max,
                            const Pb__RolloutRecord **ret); /* likewise, that have not ended */
size_t rollout_notes_before(struct tx *tx, uint64_t rollout_id, uint64_t before, size_t max,
                            const Pb__RolloutNoteRecord **ret);

/* The one that is due first; false: none is at now_ms. When the first is: UINT64_MAX: never. */
bool core_due_rollout(struct tx *tx, uint64_t now_ms, uint64_t *ret_rollout_id);
size_t core_due_rollouts(struct tx *tx, uint64_t now_ms, size_t max, uint64_t *ret); /* likewise */
uint64_t core_next_rollout_ms(struct tx *tx);
/* A running job whose rollout is not made yet; 0: there is none. Then core_next_rollout_ms is 0. */
uint64_t core_open_rollout(struct tx *tx);

#endif
