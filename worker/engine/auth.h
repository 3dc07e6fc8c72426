/* Credentials for registries, as docker's config.json holds them: {"auths": {REGISTRY: {"auth":
 * ...}}}, or with the programs that know them: "credHelpers" of some registries, "credsStore" of
 * all. Pure: the caller runs those. */
#ifndef DAVIT_ENGINE_AUTH_H
#define DAVIT_ENGINE_AUTH_H

#include "common/buf.h"
#include "common/err.h"

/* Looks for the registry of an image ("docker.io", "host:5000") and appends what the header
 * X-Registry-Auth wants. -E_NOT_FOUND: the config has nothing for it. -E_INVALID: it is no such
 * config, said in `why`; what it holds is not. */
int auth_header(struct str config, struct str registry, struct buf *out, struct buf *why);

/* The name of the program that the config names for the registry, "docker-credential-...", to be
 * run with the word `get` and auth_server on its standard input. -E_NOT_FOUND: it names none.
 * -E_INVALID as above, and where its name is none of a program. */
int auth_helper(struct str config, struct str registry, struct buf *out, struct buf *why);
/* Under which name helpers keep the credentials of a registry; static, or `registry`. */
struct str auth_server(struct str registry);
/* The header's value, from what the helper printed when it ended well. -E_INVALID. */
int auth_answer(struct str answer, struct str registry, struct buf *out, struct buf *why);

#endif
