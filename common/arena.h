/* A bump allocator: many small things with one end of life, named by it (request, batch, compile).
 * Freed as a whole. Past its limit a capped arena returns NULL from arena_try and remembers it.
 * Memory is zeroed and aligned for any type. Threads: one at a time. */
#ifndef DAVIT_ARENA_H
#define DAVIT_ARENA_H

#include "common/str.h"

struct arena_block;
struct arena {
    struct arena_block *head;
    struct arena_block *spares; /* zeroed, for what comes next */
    size_t used;                /* bytes handed out */
    size_t limit;               /* 0: none */
    size_t first;               /* bytes of the first block; 0: the usual size */
    bool exceeded;
};

void arena_init(struct arena *a, size_t limit);
/* The same, with a first block for n bytes: for arenas that are many and hold little. */
void arena_init_small(struct arena *a, size_t n);
void arena_release(struct arena *a); /* frees all; usable again */
void arena_clear(struct arena *a);   /* the same, but keeps up to 1 MiB for what comes next */
void *arena_try(struct arena *a, size_t n);   /* NULL once past the limit */
void *arena_alloc(struct arena *a, size_t n); /* for arenas without a limit: never NULL */
void *arena_array(struct arena *a, size_t count, size_t size); /* overflow checked, never NULL */
char *arena_strdup(struct arena *a, struct str s);             /* NUL-terminated */
struct str arena_str(struct arena *a, struct str s);           /* a copy */
char *arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);

#endif
