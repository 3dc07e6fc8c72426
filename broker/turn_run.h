/* The turn's life, for main and tests: everybody else needs only turn.h.
 *
 * main makes the inbox first (the fleet and the log writer push into it), then the fleet, then the
 * turn over both. turn_stop ends the thread and answers all that waits with -E_SHUTDOWN; after it
 * turn_submit still answers, turn_free takes even that. Threads: one, main's. */
#ifndef DAVIT_TURN_RUN_H
#define DAVIT_TURN_RUN_H

#include "broker/bus.h"
#include "broker/inbox.h"
#include "broker/net/fleet_turn.h"
#include "broker/turn.h"

struct turn_config {
    struct store *store;
    struct bus *bus;
    struct inbox *inbox;
    struct fleet *fleet;
    void (*alive)(void *ctx); /* after every good round, at least once a second; may be NULL */
    void *ctx;
    struct turn_trigger trigger;
};

/* Recovers the holders and the trigger jobs from the store, and starts the thread. */
int turn_start(const struct turn_config *config, struct turn **ret);
void turn_stop(struct turn *t);
void turn_free(struct turn *t); /* stopped, or NULL */

#endif
