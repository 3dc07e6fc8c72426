/* What a new data folder gets: the store's identity, a token for each role. Every step can be
 * cut off by a crash and is then finished by the next start. Threads: main's, the turn runs. */
#ifndef DAVIT_FIRST_START_H
#define DAVIT_FIRST_START_H

#include "broker/turn.h"

/* Tokens are written to DIR/admin.token, user.token and worker.token (0600); the store has their
 * hashes. */
int first_start(const char *dir, struct store *store, struct turn *turn, struct buf *why);

#endif
