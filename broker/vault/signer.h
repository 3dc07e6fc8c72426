/* The RSA key that signs id tokens, and how others check it: RS256 of RFC 7518, compact form of RFC
 * 7515, the public key as a JSON Web Key (RFC 7517) whose `kid` is its thumbprint (RFC 7638).
 * OpenSSL beneath. Ownership: signer_close. Threads: all safe after signer_open. */
#ifndef DAVIT_VAULT_SIGNER_H
#define DAVIT_VAULT_SIGNER_H

#include "common/buf.h"
#include "common/err.h"

struct signer;

/* Reads the key from the PEM file; where there is no file, makes a key of 2048 bits and the file
 * (0600). -E_CORRUPT: the file holds no private RSA key of at least 2048 bits. */
int signer_open(const char *path, struct signer **ret, struct buf *why);
void signer_close(struct signer *s); /* NULL is fine */

/* The thumbprint of the public key, 43 characters of base64url. */
const char *signer_key_id(const struct signer *s);
/* The public key as a set: {"keys":[{...}]} */
void signer_key_set(const struct signer *s, struct buf *out);
/* HEADER.CLAIMS.SIGNATURE of a JSON object. */
void signer_sign(const struct signer *s, struct str claims, struct buf *out);

#endif
