/* When tokens were seen last. Kept in memory, and told to the store once a minute: a request must
 * not cost a write. What was seen in the last minute before a kill is forgotten. Threads: all safe.
 */
#ifndef DAVIT_API_USES_H
#define DAVIT_API_USES_H

#include "broker/turn.h"
#include "common/err.h"

struct uses;
struct uses *uses_new(void);
void uses_free(struct uses *u);

/* By the token's hash; LIMIT_TOKENS of them are remembered. */
void uses_note(struct uses *u, const uint8_t hash[32], uint64_t now_ms);
/* 0: not since the start, or so long ago that the store has been told. */
uint64_t uses_last(struct uses *u, const uint8_t hash[32]);
/* What is new since the last call, as TokensUsed; NULL: nothing is. What was told by then and not
 * seen again is forgotten, so that tokens that are gone leave room for new ones. */
struct post *uses_take(struct uses *u);

#endif
