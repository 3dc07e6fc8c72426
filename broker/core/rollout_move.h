/* Inside of the core: rollouts while a command changes them. A record is read, changed and put
 * once; its state is written by rollout_move alone. What an end means to jobs waits until all runs
 * are closed (struct later). Not for use outside broker/core. */
#ifndef DAVIT_ROLLOUT_MOVE_H
#define DAVIT_ROLLOUT_MOVE_H

#include "broker/core/rollout.h"
#include "broker/core/run.h"

#define ROLLOUT_ACTOR "rollout"

/* rollout_move.c */
Pb__RolloutRecord *rollout_row(struct core *c, uint64_t id); /* that must be there */
/* Writes the row under its next revision. `was_look_ms`: the key of its row in T_ROLLOUT_DUE
 * before; 0: it had none. */
void rollout_put(struct core *c, Pb__RolloutRecord *r, uint64_t was_look_ms);
/* The record gets the state; what hangs on that is written, the record itself by the caller. */
void rollout_move(struct core *c, Pb__RolloutRecord *r, Pb__RolloutState to);
/* After it was put: what its end lets go of, if it has ended. */
void rollout_let_go(struct core *c, const Pb__RolloutRecord *r);
/* Let it be decided now; nothing if it has ended. */
void rollout_make_due(struct core *c, uint64_t rollout_id);
void rollout_group_make_due(struct core *c, const Pb__RolloutRecord *r); /* the others */
/* abort_wanted; nothing if it is so, or has ended. */
void rollout_abort(struct core *c, uint64_t rollout_id, Pb__RolloutWhy why, const char *by,
                   const char *text);
/* Texts of any length and bytes; numbered, and the oldest go. The record is the caller's to put. */
void rollout_note_add(struct core *c, Pb__RolloutRecord *r, const char *kind, const char *text);
struct key rollout_group_prefix(uint64_t pipeline_id, const char *group);
struct key rollout_group_key(const Pb__RolloutRecord *r);
/* All its rows, after it has ended. */
void rollout_forget(struct core *c, uint64_t rollout_id);

/* rollout_action.c */
/* What is wrong with an action that is to be begun; NULL: nothing. */
const char *rollout_action_wrong(const Pb__RolloutActionRecord *a,
                                 const Pb__RolloutPlanRecord *plan);
/* Its job as a plan. */
Pb__PlanJob *rollout_action_plan(struct core *c, const Pb__RolloutRecord *r,
                                 const Pb__RolloutPlanRecord *plan,
                                 const Pb__RolloutActionRecord *a, const Pb__RolloutRun *run);
void rollout_action_begin(struct core *c, const Pb__RolloutRecord *r, Pb__RolloutActionRecord *a,
                          Pb__PlanJob *job);
/* Cancels those of older epochs, but for scripts and notices. The record was put. */
void rollout_actions_fence(struct core *c, uint64_t rollout_id, uint64_t epoch);
/* The rollout has ended: all go, but for notices that are under way. */
void rollout_actions_end(struct core *c, uint64_t rollout_id);
struct key rollout_seq_key(uint64_t rollout_id, uint64_t seq); /* of actions and notes */

/* service.c */
Pb__ServiceRecord *service_row(struct core *c, uint64_t id);
void service_put(struct core *c, const Pb__ServiceRecord *s);
struct key service_name_key(uint64_t environment_id, const char *target);
Pb__ServiceRecord *service_open(struct core *c, uint64_t project_id, uint64_t environment_id,
                                const char *target);
/* The new rollout is the live one, or the next. */
void service_take(struct core *c, Pb__ServiceRecord *s, Pb__RolloutRecord *r);
void service_rollout_ended(struct core *c, const Pb__RolloutRecord *r);
void service_set_stable(struct core *c, const Pb__RolloutRecord *r, uint32_t keep);

/* snapshot.c */
/* What the job and its rollout come to, nothing written: id 0 unless the service has the same
 * already. -E_NOT_FOUND: an artifact is missing; -E_TOO_BIG; with a text in *ret_why. */
int snapshot_make(struct core *c, const Pb__JobRecord *job, const Pb__RolloutPlanRecord *plan,
                  const Pb__ServiceRecord *service, Pb__SnapshotRecord **ret, const char **ret_why);
void snapshot_store(struct core *c, Pb__SnapshotRecord *s, uint64_t service_id); /* a new one */
/* One more needs it, or one less: the last one takes it away. */
void snapshot_use(struct core *c, uint64_t snapshot_id, int delta);
/* Of a copy of a stored variable that it holds; nothing if it holds none with that old key. */
void snapshot_rewrap(struct core *c, const Pb__RewrappedKey *w);
struct key snapshot_digest_key(uint64_t service_id, struct str digest);

/* target.c */
const char *driver_wrong(const Pb__DriverConfig *d, bool must); /* NULL: nothing is */
const char *target_wrong(const Pb__RolloutTarget *t);
struct key target_key(const Pb__RolloutTarget *t);

#endif
