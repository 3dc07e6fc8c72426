/* What the files of the decider share: decide.c (the states), machine.c (what they have in
 * common), stepping.c (the steps), back.c (the way back), looks.c (what is seen), acts.c (what
 * is begun), gates.c (freezes and approvals), judge.c (metrics). For nobody else. Pure. */
#ifndef DAVIT_ROLLOUT_INSIDE_H
#define DAVIT_ROLLOUT_INSIDE_H

#include "broker/rollout/decide.h"
#include "broker/rollout/verdict.h"

struct decision {
    const struct rollout_view *v;
    uint64_t now_ms;
    struct arena *a;
    Pb__RolloutRecord *r; /* as it is to be */
    Pb__RolloutStep *step;
    size_t begin_cap;
    uint64_t look_ms; /* when it should be looked at again, at the latest */
    bool changed;     /* the record, or there is something to begin, to take, to note */
    struct metric_rule *rules;
    size_t rule_count;
    Pb__RolloutMetricRecord **rows; /* by rule; NULL: never looked at */
};

static inline Pb__RolloutSlot other_slot(Pb__RolloutSlot s)
{
    return s == PB__ROLLOUT_SLOT__ROLLOUT_SLOT_A ? PB__ROLLOUT_SLOT__ROLLOUT_SLOT_B
                                                 : PB__ROLLOUT_SLOT__ROLLOUT_SLOT_A;
}

uint32_t rollout_places(const struct decision *d);
uint32_t rollout_each(const struct decision *d); /* instances in each place, at full weight */
uint64_t rollout_tick_ms(const struct decision *d);
void rollout_look_at(struct decision *d, uint64_t at_ms);
/* `kind` as of RolloutNoteRecord. */
void rollout_note(struct decision *d, const char *kind, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Why it goes no further; the same text twice is no change. */
void rollout_holds(struct decision *d, const char *text);

/* machine.c: what all states do. */
#define BACK_MS 30000u /* a way back that takes longer needs a person */
uint64_t machine_progress_ms(const struct decision *d); /* how long a state may take */
void machine_phase(struct decision *d, Pb__RolloutPhase phase);
void machine_enter(struct decision *d, Pb__RolloutState to, uint64_t within_ms);
uint32_t *machine_counts(const struct decision *d, uint32_t each); /* by place */
void machine_want(struct decision *d, uint32_t *by_place); /* instances of the new version */
void machine_want_old(struct decision *d, uint32_t *by_place);
void machine_because(struct decision *d, Pb__RolloutWhy why, const char *text);
void machine_back(struct decision *d);
/* It is not good: back, or it is held. */
void machine_fail(struct decision *d, Pb__RolloutWhy why, const char *text);
bool machine_is_good(struct decision *d);
bool machine_is_bad(struct decision *d);                    /* then it has failed */
bool machine_is_late(struct decision *d, const char *what); /* likewise */

/* stepping.c */
void state_stepping(struct decision *d);
/* So many of the new version, ready; so much traffic, verified. */
bool step_scaled(struct decision *d, uint32_t *by_place);
bool step_weighed(struct decision *d, uint32_t bp);

/* back.c */
void state_retire(struct decision *d);
void state_rollback(struct decision *d);
void state_drain(struct decision *d);
void state_remove(struct decision *d);
bool back_is_possible(Pb__RolloutState s);
/* A member of its group that goes back takes it along. */
void back_with_group(struct decision *d);

/* looks.c. An observation counts for `from_ms` when it was begun then or later, under the present
 * epoch. */

/* The newest good answer of one of the kinds for slot and place; NULL: there is none. `epoch` 0: of
 * any. */
const Pb__RolloutActionRecord *look_newest(const struct decision *d,
                                           const Pb__RolloutActionKind *kinds, size_t kind_count,
                                           Pb__RolloutSlot slot, uint32_t place, uint64_t epoch);
struct slot_seen {
    uint64_t seen_ms; /* when the oldest of its places was; 0: not all were, in this epoch */
    bool as_wanted;   /* everywhere so many, of that snapshot */
    uint32_t wanted;  /* everywhere together */
    uint32_t ready;
    uint64_t ready_for_ms; /* of the one that was ready last */
    uint32_t restarts;     /* of the one with the most */
    const char *detail;    /* of one that is not ready; "": all are */
};
/* `wanted`: by place; NULL: none anywhere. */
void look_slot(const struct decision *d, Pb__RolloutSlot slot, const uint32_t *wanted,
               struct str snapshot, struct slot_seen *ret);
/* Addresses in a slot as they were seen last, of those that run; count. */
size_t look_addresses(const struct decision *d, Pb__RolloutSlot slot, bool ready, char ***ret);
struct route_seen {
    const Pb__RouterAnswer *answer; /* NULL: none in this epoch */
    uint64_t seen_ms;               /* when it was begun */
    uint64_t ended_ms;
};
void look_route(const struct decision *d, struct route_seen *ret);
/* The weight was read at that time: keeps zero_ms. */
void look_zero(struct decision *d, uint64_t at_ms);
/* Takes what the router says into the record. */
void look_observe(struct decision *d);
/* The newest answers of the slot's instances, under this epoch, of all places together; count. */
size_t look_instances(const struct decision *d, Pb__RolloutSlot slot, Pb__InstanceState ***ret);
/* Hard checks of the new version, once a look; NULL: good, or not known yet. */
const char *look_hard(struct decision *d);

/* acts.c. What must be so is begun, unless it is under way; true: it is so. */
bool act_instances(struct decision *d, Pb__RolloutSlot slot, const uint32_t *wanted,
                   const Pb__SnapshotRecord *snapshot);
bool act_remove(struct decision *d, Pb__RolloutSlot slot);
bool act_route(struct decision *d, uint32_t new_bp, uint64_t from_ms);
void act_look(struct decision *d); /* status of both slots, and the router, once a tick */
void act_sample(struct decision *d);
void act_load(struct decision *d); /* where there is too little traffic to tell */
/* 0: runs; 1: ended well; -1: badly, with a text. */
int act_script(struct decision *d, const Pb__RolloutStepRecord *s, const char **ret_why);
void act_notify(struct decision *d, const char *what);

/* gates.c */
/* Whether a freeze is in force, and until when. */
const Pb__FreezeWindow *gate_frozen(const struct decision *d, uint64_t *ret_until_ms);
/* Approvals that count for a step (or the gate: UINT32_MAX), by different persons. */
uint32_t gate_approvals(const struct decision *d, uint32_t step, char *const *roles,
                        size_t role_count);
/* NULL: of each metric that is compared with the stable version something is known of that, or
 * nobody minds; else what is missing, "" while it is being asked for. */
const char *gate_metrics(struct decision *d);

/* judge.c */
void judge_begin(struct decision *d); /* rules and rows */
void judge_fold(struct decision *d);  /* takes the samples that came in */
/* `over`: the step's time is; `last`: and so is its deadline. */
struct judged judge_now(const struct decision *d, bool until_good, bool over, bool last);

#endif
