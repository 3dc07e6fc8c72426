/* The turn's life, for main and tests: everybody else needs only turn.h.
 *
 * main makes the inbox first (the fleet and the log writer push into it), then the fleet, then the
 * turn over both. turn_stop ends the thread and answers all that waits with -E_SHUTDOWN; after it
 * turn_submit still answers, turn_free takes even that. Threads: one, main's.
 *
 * Without a thread (turn_new) whoever owns the turn steps it, with a clock of its own, and pushes
 * into the inbox as the other threads would: the same code in an order that can be told again. */
#ifndef DAVIT_TURN_RUN_H
#define DAVIT_TURN_RUN_H

#include "broker/bus.h"
#include "broker/inbox.h"
#include "broker/net/fleet_turn.h"
#include "broker/sched/sched.h"
#include "broker/turn.h"

struct turn_config {
    struct store *store;
    struct bus *bus;
    struct inbox *inbox;
    struct fleet *fleet;
    void (*alive)(void *ctx); /* after every good round, at least once a second; may be NULL */
    /* Both clocks in ms; NULL: those of the machine. One that is set may jump, the monotonic one
     * never goes back. */
    void (*clock)(void *ctx, uint64_t *ret_real_ms, uint64_t *ret_mono_ms);
    void *ctx;
    struct turn_trigger trigger;
    /* The folder of the journal (journal/journal.h); NULL: none, every round commits the store. */
    const char *journal;
    uint64_t segment_bytes; /* of the journal; 0: its own choice */
    uint32_t relaxed_ms;    /* how long what is acknowledged may wait for the disk; 0: not at all */
    uint64_t keep_pipelines_ms; /* after their end; 0: for ever */
};

/* Applies what the journal has and the store has not, recovers the holders and the trigger jobs
 * from the store, and starts the thread. `why` gets a line for people on failure. */
int turn_start(const struct turn_config *config, struct turn **ret, struct buf *why);
/* For store_options.may_migrate, with the path of the journal's folder: whether this program can
 * apply what the journal has and a store with that first row has not. Changes nothing. */
int turn_may_migrate(void *journal_dir, const Pb__MetaRecord *meta, struct buf *why);
/* Ends in order: what is acknowledged and what is stored are the same after it. */
void turn_stop(struct turn *t);
/* Stopped, or NULL, or one without a thread: that may be freed at any moment between two steps,
 * and what it knew is lost as if the process had been killed. */
void turn_free(struct turn *t);

/* Another keep_pipelines_ms, within a second. Any thread. */
void turn_keep_pipelines(struct turn *t, uint64_t keep_pipelines_ms);

/* The same without a thread. */
int turn_new(const struct turn_config *config, struct turn **ret, struct buf *why);
/* One round: takes what waits in the inbox, at most LIMIT_TURN_COMMANDS items, and does not wait.
 * Posts are answered and messages handed to the wire before it returns. 0, or the error for which a
 * process would end: then the turn may only be freed, and posts that were in hand hear
 * -E_SHUTDOWN, which says nothing of what became of them. */
int turn_step(struct turn *t);
/* When the next step is due though nothing comes, by the monotonic clock. */
uint64_t turn_next_step_ms(const struct turn *t);

#endif
