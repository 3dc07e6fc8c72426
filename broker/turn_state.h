/* What the files of the turn share: turn.c (life and thread), turn_round.c (one round),
 * turn_apply.c (what a round applies), turn_rollout.c (rollouts in it), turn_commit.c (how it
 * lasts), turn_replay.c (how it comes back), turn_history.c (how long jobs take), turn_times.c (the
 * same for /metrics). For nobody else. Threads: the turn's, but for the atomics and what stands
 * behind `lock`. */
#ifndef DAVIT_TURN_STATE_H
#define DAVIT_TURN_STATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "broker/journal/journal.h"
#include "broker/turn_run.h"

struct turn {
    struct turn_config c;
    pthread_t thread;
    bool has_thread;
    bool stopped;

    /* The turn's thread alone. The transaction goes on over turns: what is acknowledged stands in
     * it and in the journal until it is committed. NULL: nothing is in it. */
    struct tx *tx;
    uint64_t mark;  /* the index when the present turn began */
    uint64_t saved; /* likewise at the last commit */
    uint64_t index; /* of the last command in it */
    struct effects fx;
    size_t learned_effects; /* of fx: what the scheduler knows already */
    size_t learned_changes;
    uint64_t now_ms; /* the commands' time: never goes back */
    uint64_t mono_ms;
    uint64_t jump_ms; /* the clock was set forward by that, and the store does not know yet */
    bool starting;    /* likewise: of what was acknowledged before the start some may be missing */
    bool starts;      /* the present turn says so */
    uint64_t skip;    /* how many ids are to be skipped for it */
    bool resuming;    /* rollouts that live are to be told of the start, and were not yet */
    bool resumes;     /* the present turn does */

    uint64_t next_timer_ms;   /* realtime; UINT64_MAX: none */
    uint64_t next_rollout_ms; /* likewise: when one is to be decided; 0: now */
    uint64_t timers_from_ms;  /* no timer fires before: after a start holders come back first */
    uint64_t next_expire_ms;  /* monotonic: when something may have outlived its time */
    uint64_t expire_since_ms; /* monotonic: since then something is due; 0: nothing is */
    uint64_t next_event;
    uint64_t published_event;
    uint64_t ends; /* of jobs without a pipeline: no events, but followers wait for them, too */
    uint64_t saved_ends;
    uint64_t published_ends;
    uint64_t rest_until_ms; /* after a failed commit: no timers and no scheduling before */
    uint64_t next_chores_ms;
    uint64_t next_readers_ms;
    struct journal *journal;   /* NULL: none, or not yet */
    bool journal_new;          /* there was none at the start: it begins once the store knows */
    uint64_t journal_retry_ms; /* when to open it, or to begin it anew, is tried again */
    uint64_t flush_due_ms;     /* of what was written and not flushed; 0: nothing was */
    uint64_t dirty_since_ms;   /* acknowledged and not in the store; 0: nothing is */
    uint64_t changed_ms;       /* when the last of it came */
    uint64_t room_bytes;       /* what the store could still grow by, at its last commit */
    bool stuck;                /* the store could not commit */
    uint64_t stuck_until_ms;   /* when it is tried again */

    bool full;              /* new work is refused */
    bool schedule;          /* something may fit that did not the last time */
    uint64_t learn_anew_ms; /* monotonic: then the scheduler does; 0: it need not */
    struct sched *sched;

    _Atomic uint64_t wanted_keep_ms; /* keep_pipelines_ms, by turn_keep_pipelines */
    _Atomic uint64_t acknowledged;   /* index of the last command that somebody may have heard of */
    _Atomic uint64_t committed;      /* of the last one that the store has */

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t told;  /* of a commit, made or failed */
    uint64_t fresh_want;  /* an index that a reader waits for */
    uint64_t failures;    /* of commits */
    int failure;          /* the last one */
    bool ended;           /* there will be no more */
    struct history *history;
    struct pool_times *times;
    struct turn_stats stats;
};

/* turn.c */
/* Both clocks as they are now, by the configuration. */
void turn_read_clocks(const struct turn *t, uint64_t *ret_real_ms, uint64_t *ret_mono_ms);
void turn_start_triggers(struct turn *t, const struct effects *fx);
void turn_free_items(struct item *items);

/* turn_round.c */
/* When a round is due though nothing comes, by the monotonic clock. */
uint64_t turn_wait_until_ms(const struct turn *t);
/* One round with these items. `resume`: the inbox has room again. 0: it took them. Else the error
 * for which the process has to end: they are still the caller's, and posts among them that were not
 * answered must not be, as what became of them is not known. */
int turn_round(struct turn *t, struct item *items, bool resume);

/* turn_commit.c */
bool turn_survives(int r); /* whether a turn that failed so can be undone and others go on */
/* Opens the transaction for a new turn. */
int turn_open(struct turn *t);
/* Makes what the present turn has changed durable: by the journal, or by a commit where there is
 * none or where it must not wait. On failure the turn is to be undone. */
int turn_settle(struct turn *t);
int turn_settle_now(struct turn *t); /* by a commit in any case */
/* Takes back the present turn, and only that. 0, or an error that the process does not survive. */
int turn_undo(struct turn *t);
/* After the effects are out: what the disk is still owed, as far as it is due. Likewise. */
int turn_tend(struct turn *t);
/* When that is so though nothing comes; UINT64_MAX: nothing is owed. */
uint64_t turn_tend_due_ms(const struct turn *t);
int turn_commit(struct turn *t); /* commits what is acknowledged; likewise */
/* The last commit, the end of the transaction, and of all that wait for a commit. */
void turn_end_commits(struct turn *t);

/* turn_history.c */
/* What left its worker's hands. */
void turn_remember(struct turn *t, const struct queue_change *changes, size_t count);
void turn_forget_history(struct turn *t);

/* turn_times.c: under the lock */
void turn_count_times(struct turn *t, const struct queue_change *q);
void turn_forget_times(struct turn *t);

/* turn_replay.c */
/* Opens the journal of the configuration, once the store knows who it is, and applies what the
 * store lacks. Where there is none at the start, it only notes that: turn_tend begins one later.
 * `why` gets a line on failure. */
int turn_open_journal(struct turn *t, struct buf *why);
/* Applies what the journal has after t->index, in a transaction that stays open. */
int turn_replay(struct turn *t, struct buf *why);

/* turn_apply.c: within the open write transaction */
int turn_apply(void *ctx, Pb__Command *cmd, struct reply *ret_reply); /* a fleet_apply_fn */
void turn_apply_post(struct turn *t, struct post *p);
void turn_apply_items(struct turn *t, struct item *items);
void turn_apply_start(struct turn *t); /* before anything that takes an id */
void turn_apply_jump(struct turn *t);  /* before anything that comes by time */
void turn_apply_timers(struct turn *t);
/* turn_rollout.c: likewise */
void turn_apply_resume(struct turn *t);   /* once after the start */
void turn_apply_rollouts(struct turn *t); /* begins, decides and applies what is due */

/* Tells the scheduler what was applied so far; once more after the last command. */
void turn_learn(struct turn *t);
void turn_schedule(struct turn *t);          /* proposes and applies until nothing fits */
bool turn_learns_anew(const struct turn *t); /* it is due to forget what the core has refused */
/* Deletes what has outlived its time, some of it. `busy`: others wait for this round to end, which
 * has written so many rows. */
void turn_expire(struct turn *t, bool busy, uint64_t written);
void turn_rest(struct turn *t); /* no timers and no scheduling for a while */

#endif
