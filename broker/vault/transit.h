/* The transit engine of a Vault (or of OpenBao): encrypts and decrypts small texts by a key that
 * never leaves it. https://developer.hashicorp.com/vault/api-docs/secret/transit. Blocks for 15 s
 * at most. Threads: one at a time, and the environment must not change. */
#ifndef DAVIT_VAULT_TRANSIT_H
#define DAVIT_VAULT_TRANSIT_H

#include "common/buf.h"
#include "common/err.h"

/* `plain` becomes "vault:v1:...". -E_USAGE: the environment does not say where the Vault is, or has
 * no token; -E_FORBIDDEN, -E_UNREACHABLE, ...: `why` has one line. */
int transit_encrypt(const char *key, struct str plain, struct buf *out, struct buf *why);
/* And back. */
int transit_decrypt(const char *key, struct str sealed, struct buf *out, struct buf *why);

#endif
