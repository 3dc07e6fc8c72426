#include "common/base.h"

#include "common/arena.h"

#include <sanitizer/asan_interface.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define BLOCK_BYTES     ((size_t)16 * 1024) /* the first; each further one is twice as large */
#define BLOCK_BYTES_MAX ((size_t)64 * 1024) /* still no mapping of its own */
#define SPARE_BLOCKS    16u                 /* kept by arena_clear */
#define ALIGNMENT       _Alignof(max_align_t)

struct arena_block {
    struct arena_block *next;
    size_t used;
    size_t cap;
    _Alignas(max_align_t) char bytes[];
};

void arena_init(struct arena *a, size_t limit)
{
    *a = (struct arena){.limit = limit};
}

void arena_init_small(struct arena *a, size_t n)
{
    *a = (struct arena){.first = n};
}

static void free_blocks(struct arena_block *block)
{
    while (block != NULL) {
        struct arena_block *next = block->next;
        free(block);
        block = next;
    }
}

void arena_release(struct arena *a)
{
    if (a == NULL) {
        return;
    }
    free_blocks(a->head);
    free_blocks(a->spares);
    *a = (struct arena){.limit = a->limit, .first = a->first};
}

void arena_clear(struct arena *a)
{
    struct arena_block *head = a->head;
    struct arena_block *spares = a->spares;
    unsigned count = 0;

    for (struct arena_block *spare = spares; spare != NULL; spare = spare->next) {
        count++;
    }
    while (head != NULL) {
        struct arena_block *next = head->next;
        if (head->cap <= BLOCK_BYTES_MAX && count < SPARE_BLOCKS) {
            memset(head->bytes, 0, head->used);
            head->used = 0;
            ASAN_POISON_MEMORY_REGION(head->bytes, head->cap);
            head->next = spares;
            spares = head;
            count++;
        } else {
            free(head);
        }
        head = next;
    }
    *a = (struct arena){.spares = spares, .limit = a->limit, .first = a->first};
}

/* What is too large for a block of the usual size gets one of its own behind the head, so that the
 * head's free space stays in use. */
static struct arena_block *arena_block_for(struct arena *a, size_t n)
{
    struct arena_block *head = a->head;
    if (head != NULL && head->cap - head->used >= n) {
        return head;
    }
    size_t first = a->first != 0 ? a->first : BLOCK_BYTES;
    size_t usual = head != NULL ? MIN(2 * head->cap, BLOCK_BYTES_MAX) : first;
    size_t cap = MAX(n, usual);
    struct arena_block *block = a->spares;
    if (block != NULL && block->cap >= n) {
        a->spares = block->next;
        ASAN_UNPOISON_MEMORY_REGION(block->bytes, block->cap);
    } else {
        block = xcalloc(1, sizeof(*block) + cap);
        block->cap = cap;
    }
    block->next = NULL;
    if (head != NULL && n > usual / 4) {
        block->next = head->next;
        head->next = block;
    } else {
        block->next = head;
        a->head = block;
    }
    return block;
}

void *arena_try(struct arena *a, size_t n)
{
    if (n > SIZE_MAX / 4 || (a->limit > 0 && n > a->limit - MIN(a->used, a->limit))) {
        a->exceeded = true;
        return NULL;
    }
    size_t padded = (MAX(n, (size_t)1) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    struct arena_block *block = arena_block_for(a, padded);
    void *p = block->bytes + block->used;
    block->used += padded;
    a->used += padded;
    return p;
}

void *arena_alloc(struct arena *a, size_t n)
{
    void *p = arena_try(a, n);
    check(p != NULL);
    return p;
}

void *arena_array(struct arena *a, size_t count, size_t size)
{
    size_t n;
    check(!__builtin_mul_overflow(count, size, &n));
    return arena_alloc(a, n);
}

char *arena_strdup(struct arena *a, struct str s)
{
    char *copy = arena_alloc(a, s.n + 1);
    if (s.n > 0) {
        memcpy(copy, s.p, s.n);
    }
    return copy;
}

struct str arena_str(struct arena *a, struct str s)
{
    return (struct str){arena_strdup(a, s), s.n};
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap;
    check(fmt != NULL);
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    check(n >= 0);
    char *text = arena_alloc(a, (size_t)n + 1);
    va_start(ap, fmt);
    vsnprintf(text, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return text;
}
