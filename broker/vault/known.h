/* What the compiler of a pipeline may know of stored variables. */
#ifndef DAVIT_VAULT_KNOWN_H
#define DAVIT_VAULT_KNOWN_H

#include "broker/vault/vault.h"
#include "common/expand.h"

/* Stands for the value of a masked variable: rules can ask whether there is one, and nothing that
 * they expand can bring it into the store. */
#define VAULT_STAND_IN "[MASKED]"

/* The stored variables of a project that no environment narrows, the weakest first, in the arena.
 * Errors as of vault_unseal, with one line in `why`; -E_LIMIT: too many for a pipeline. */
int vault_known(struct vault *v, struct tx *tx, struct arena *arena, const char *project,
                bool protected, const struct var **ret, size_t *ret_count, struct buf *why);

#endif
