/* The master keys: 32 bytes each, of which the first one wraps and all unwrap. Where they come
 * from:
 *
 *   file:PATH        a file of mode 0600 at most; made with one key where it is not there
 *   env:NAME         a variable of the environment, which is then removed from it
 *   command:TEXT     what `sh -c TEXT` prints
 *   transit:NAME     as file, at the default path, but each key encrypted by the key NAME of the
 *                    transit engine of a Vault, which is at VAULT_ADDR and takes VAULT_TOKEN (or
 *                    what is in the file VAULT_TOKEN_FILE); VAULT_TRANSIT_MOUNT is `transit`
 *
 * The text is one key a line in base64, the newest first; blank lines and what begins with # do not
 * count. Ownership: keyring_close wipes. Threads: reading only after keyring_open; the vault guards
 * the rest. */
#ifndef DAVIT_VAULT_KEYRING_H
#define DAVIT_VAULT_KEYRING_H

#include "common/buf.h"
#include "common/err.h"
#include "common/limits.h"

#define MASTER_KEY_BYTES    32u
#define MASTER_KEY_ID_BYTES 8u

struct master_key {
    uint8_t bytes[MASTER_KEY_BYTES];
    uint8_t id[MASTER_KEY_ID_BYTES]; /* says nothing of the key: of its HMAC over a fixed text */
};

struct keyring {
    struct master_key keys[LIMIT_MASTER_KEYS];
    size_t count;
    char *source; /* as it was given */
    char *path;   /* of a file that we write; NULL: none */
};

/* `default_path` is for `source` NULL, which is the same as file:DEFAULT_PATH, and for transit.
 * -E_USAGE: no such kind of source; -E_CORRUPT: what it gives are no keys; -E_FORBIDDEN: others may
 * read the file; errors of reading. `why` gets one line, in which no key stands. */
int keyring_open(const char *source, const char *default_path, struct keyring *ret,
                 struct buf *why);
void keyring_close(struct keyring *k);

/* NULL: unknown. */
const struct master_key *keyring_find(const struct keyring *k, struct str id);

/* Whether the two below can change what the source gives. */
bool keyring_is_ours(const struct keyring *k);
/* A new key at the first place, on the disk first. -E_UNSUPPORTED: the source is not ours.
 * -E_LIMIT: there are LIMIT_MASTER_KEYS already. */
int keyring_add(struct keyring *k, struct buf *why);
/* Leaves those for which `keep` says so, and the first. */
int keyring_keep(struct keyring *k, const bool *keep, struct buf *why);

#endif
