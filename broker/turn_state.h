/* What the files of the turn share: turn.c (life and thread), turn_round.c (one round),
 * turn_apply.c (what a round applies). For nobody else. Threads: the turn's, but for `stats`. */
#ifndef DAVIT_TURN_STATE_H
#define DAVIT_TURN_STATE_H

#include <pthread.h>

#include "broker/turn_run.h"

struct turn {
    struct turn_config c;
    pthread_t thread;
    bool has_thread;
    bool stopped;

    /* The present turn; the turn's thread alone. */
    struct tx *tx;
    struct effects fx;
    uint64_t now_ms; /* the commands' time: never goes back */
    uint64_t mono_ms;

    uint64_t next_timer_ms;  /* realtime; UINT64_MAX: none */
    uint64_t timers_from_ms; /* no timer fires before: after a start holders come back first */
    uint64_t next_event;
    uint64_t published_event;
    uint64_t rest_until_ms; /* after a failed commit: no timers and no scheduling before */
    uint64_t next_chores_ms;
    uint64_t next_readers_ms;
    bool full;     /* new work is refused */
    bool schedule; /* something may fit that did not the last time */

    pthread_mutex_t lock; /* of stats */
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

/* turn_apply.c: within the open write transaction */
int turn_apply(void *ctx, Pb__Command *cmd, struct reply *ret_reply); /* a fleet_apply_fn */
void turn_apply_post(struct turn *t, struct post *p);
void turn_apply_items(struct turn *t, struct item *items);
void turn_apply_timers(struct turn *t);
void turn_schedule(struct turn *t); /* proposes and applies until nothing fits */
void turn_rest(struct turn *t);     /* no timers and no scheduling for a while */

#endif
