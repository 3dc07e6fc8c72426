/* Seals the values of stored variables, and opens them when a job is sent.
 *
 * Every value is encrypted by a key of its own (AES-256-GCM), and that key by the master key
 * (keyring.h). Both are bound to level, owner, name and environment scope of the variable as
 * associated data: a row that is copied to another place does not open there. A change of the
 * master key wraps the small keys anew and leaves the values alone. Each sealed text is 12 bytes of
 * nonce, the encrypted bytes, 16 bytes of tag. Threads: all safe. */
#ifndef DAVIT_VAULT_H
#define DAVIT_VAULT_H

#include "broker/store/tx.h"
#include "broker/vault/keyring.h"

struct vault;

/* As keyring_open. */
int vault_open(const char *source, const char *default_path, struct vault **ret, struct buf *why);
void vault_close(struct vault *v); /* NULL is fine */

/* Fills in sealed, wrapped_key and master_key_id; the rest of `var` is set. */
void vault_seal(struct vault *v, struct arena *arena, struct str value, Pb__SealedVariable *var);
/* Appends the value. -E_NOT_FOUND: no master key of that id is known; -E_CORRUPT: the row was
 * damaged, or stood at another place. */
int vault_unseal(struct vault *v, const Pb__SealedVariable *var, struct buf *out);

/* Puts values in the place of the sealed variables of a spec, in tx_arena's memory; those that a
 * later one of the same name hides are taken out unopened. On an error all stay sealed, without
 * what they held: the worker fails the job. */
int vault_open_spec(struct vault *v, struct arena *arena, Pb__JobSpec *spec);
/* Overwrites the values that were put into it. */
void vault_wipe_spec(const Pb__JobSpec *spec);

/* --- the master keys --- */

struct vault_key {
    char id[2 * MASTER_KEY_ID_BYTES + 1];
    bool current;
};
/* At most LIMIT_MASTER_KEYS; the count is returned. */
size_t vault_keys(struct vault *v, struct vault_key *ret);
void vault_current_id(struct vault *v, uint8_t ret[MASTER_KEY_ID_BYTES]);
/* From now on a new master key wraps. As keyring_add. */
int vault_rotate(struct vault *v, struct buf *why);
/* The key of `var` wrapped by the current master key, as a part of VariablesRewrap. Errors as of
 * vault_unseal. */
int vault_rewrap(struct vault *v, struct arena *arena, const Pb__SealedVariable *var,
                 Pb__RewrappedKey **ret);
/* Forgets the old master keys for which `used` does not say that a variable needs them, if there
 * was no new one within the last min_age_ms: a value that was sealed just before may be on its way.
 */
int vault_forget(struct vault *v, bool (*used)(void *ctx, struct str id), void *ctx,
                 uint64_t min_age_ms, struct buf *why);

#endif
