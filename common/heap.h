/* A binary heap of things that know their place in it, so that one whose order changed can be moved
 * or taken out: O(log n). Ownership: the array is the heap's (heap_release), the things are
 * others'. Threads: one. */
#ifndef DAVIT_HEAP_H
#define DAVIT_HEAP_H

#include <stdbool.h>
#include <stddef.h>

struct heap_node { /* embedded in what stands in a heap */
    size_t at;     /* its place, from 1 on; 0: in none */
};

/* The thing that a node is part of. */
#define HEAP_ITEM(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

struct heap {
    struct heap_node **items; /* 0-based */
    size_t count;
    size_t cap;
    bool (*before)(const struct heap_node *a, const struct heap_node *b);
};

void heap_release(struct heap *h);
struct heap_node *heap_top(const struct heap *h); /* NULL: empty */
/* Puts it in, or moves it to where it belongs now. */
void heap_put(struct heap *h, struct heap_node *n);
void heap_remove(struct heap *h, struct heap_node *n); /* nothing if it is in none */

#endif
