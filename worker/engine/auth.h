/* Credentials for registries, as docker's config.json holds them: {"auths": {REGISTRY: {"auth":
 * ...}}}. Pure. */
#ifndef DAVIT_ENGINE_AUTH_H
#define DAVIT_ENGINE_AUTH_H

#include "common/buf.h"
#include "common/err.h"

/* Looks for the registry of an image ("docker.io", "host:5000") and appends what the header
 * X-Registry-Auth wants. -E_NOT_FOUND: the config has nothing for it. -E_INVALID: it is no such
 * config, said in `why`; what it holds is not. */
int auth_header(struct str config, struct str registry, struct buf *out, struct buf *why);

#endif
