/* Caches: what they are called, and the worker's own copies of them. Private to the cache steps.
 *
 * The copies are files CACHE/DIGEST, one a content, whatever key it has. Jobs run as the worker's
 * user and can write there, so a copy counts only after its digest was seen to be right. The folder
 * holds what --cache-size says at most (LIMIT_WORKER_CACHE_BYTES), and a quarter of what its disk
 * would have free without it; what was not used for longest goes first. Any number of processes may
 * use it at once. */
#ifndef DAVIT_STEP_CACHE_H
#define DAVIT_STEP_CACHE_H

#include "worker/step/step.h"

/* The key's text in the arena, before the script has touched the files that it may depend on.
 * -E_INVALID: none that can be used, with a line in `why`. */
int cache_key(struct step *s, const Pb__CacheSpec *spec, struct str *ret, struct buf *why);
/* The keys to try when there is nothing under its own, in order; those that cannot be used are left
 * out. */
size_t cache_fallback_keys(struct step *s, const Pb__CacheSpec *spec, struct str **ret);

/* A copy, its digest checked, read from its start. -E_NOT_FOUND: there is none. */
int cache_store_open(const char *dir, const uint8_t *digest, int *ret_fd);

/* A file that may become a copy. */
struct cache_file {
    int fd;
    char *path; /* heap */
};
int cache_file_new(const char *dir, struct cache_file *ret);
/* Makes it a copy, where there is room for it. Its descriptor stays open. */
void cache_file_keep(struct cache_file *f, const char *dir, const uint8_t *digest, uint64_t size);
/* What the worker said that the folder may hold. */
uint64_t cache_store_limit(void);
void cache_file_release(struct cache_file *f); /* closes, removes what was not kept */

#endif
