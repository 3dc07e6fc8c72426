#include "common/base.h"

#include "common/heap.h"

#include <stdlib.h>

void heap_release(struct heap *h)
{
    free(h->items);
    h->items = NULL;
    h->count = h->cap = 0;
}

struct heap_node *heap_top(const struct heap *h)
{
    return h->count > 0 ? h->items[0] : NULL;
}

static void place(struct heap *h, size_t i, struct heap_node *n)
{
    h->items[i] = n;
    n->at = i + 1;
}

static size_t rise(struct heap *h, size_t i, struct heap_node *n)
{
    while (i > 0 && h->before(n, h->items[(i - 1) / 2])) {
        place(h, i, h->items[(i - 1) / 2]);
        i = (i - 1) / 2;
    }
    return i;
}

static size_t sink(struct heap *h, size_t i, struct heap_node *n)
{
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->count) {
            return i;
        }
        if (child + 1 < h->count && h->before(h->items[child + 1], h->items[child])) {
            child++;
        }
        if (!h->before(h->items[child], n)) {
            return i;
        }
        place(h, i, h->items[child]);
        i = child;
    }
}

void heap_put(struct heap *h, struct heap_node *n)
{
    size_t i;

    if (n->at == 0) {
        if (h->count == h->cap) {
            h->cap = h->cap > 0 ? 2 * h->cap : 4;
            h->items = xrealloc(h->items, h->cap * sizeof(struct heap_node *));
        }
        place(h, h->count++, n);
    }
    check(n->at <= h->count && h->items[n->at - 1] == n);
    i = rise(h, n->at - 1, n);
    i = sink(h, i, n);
    place(h, i, n);
}

void heap_remove(struct heap *h, struct heap_node *n)
{
    const size_t i = n->at;
    struct heap_node *last;

    if (i == 0) {
        return;
    }
    check(i <= h->count && h->items[i - 1] == n);
    n->at = 0;
    last = h->items[--h->count];
    if (last != n) {
        place(h, i - 1, last);
        heap_put(h, last);
    }
}
