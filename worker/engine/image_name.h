/* Names of container images: [REGISTRY/]PATH[:TAG][@DIGEST]. Pure. */
#ifndef DAVIT_ENGINE_IMAGE_NAME_H
#define DAVIT_ENGINE_IMAGE_NAME_H

#include "common/arena.h"

struct image_name {
    struct str registry; /* with its port; "docker.io" where the name has none */
    struct str path;     /* the name without tag and digest, registry included as it is written */
    struct str tag;      /* "latest" where there is neither tag nor digest; else "" */
    struct str digest;   /* "sha256:..." or "" */
};

/* The parts point into `text`. -E_INVALID: it cannot be a name of an image. */
int image_name_parse(struct str text, struct image_name *ret);

/* The host names of a service without an alias: the path without the registry's port, each / as __,
 * and once more as - where that is another name. At most two, in the arena. */
#define IMAGE_HOSTS_MAX 2u
size_t image_name_hosts(const struct image_name *name, struct arena *arena,
                        const char *ret[IMAGE_HOSTS_MAX]);

/* May an image of this name be used? Patterns are those of GLOB_STAR; no patterns allow all. */
bool image_name_allowed(struct str text, char *const *patterns, size_t count);

#endif
