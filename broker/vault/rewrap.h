/* Brings all stored variables, and their copies in versions of services, under the current master
 * key, in bounded batches, each one command.
 * May be cut off at any point: each variable names the master key that it needs, and the next call
 * goes on. Blocks; not on the turn's thread, not on one of libmicrohttpd's. Threads: all safe. */
#ifndef DAVIT_VAULT_REWRAP_H
#define DAVIT_VAULT_REWRAP_H

#include "broker/turn.h"
#include "broker/vault/vault.h"

struct rewrap_result {
    uint64_t done;   /* variables that are under the current key now */
    uint64_t failed; /* that no known master key opens: they are as they were */
};

/* *stop (may be NULL) ends it between two batches: -E_SHUTDOWN. */
int rewrap_all(struct store *store, struct turn *turn, struct vault *vault, const atomic_bool *stop,
               struct rewrap_result *ret);

/* How many variables each of the keys wraps; *ret_others: those of keys that are not known. */
int rewrap_count(struct store *store, struct turn *turn, const struct vault_key *keys, size_t count,
                 uint64_t *ret_counts, uint64_t *ret_others);

/* rewrap_all, then vault_forget of the keys that no variable needs any more. */
int rewrap_and_forget(struct store *store, struct turn *turn, struct vault *vault,
                      uint64_t min_age_ms, const atomic_bool *stop, struct buf *why);

#endif
