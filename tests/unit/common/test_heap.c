/* The heap: its top is the first of all, whatever moved, came or went. */
#include "common/base.h"

#include "common/heap.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

#define THINGS 50u

struct thing {
    struct heap_node node;
    uint32_t key;
};

static bool before(const struct heap_node *a, const struct heap_node *b)
{
    return HEAP_ITEM(a, struct thing, node)->key < HEAP_ITEM(b, struct thing, node)->key;
}

static const struct thing *least(const struct thing *things)
{
    const struct thing *best = NULL;

    for (size_t i = 0; i < THINGS; i++) {
        if (things[i].node.at != 0 && (best == NULL || things[i].key < best->key)) {
            best = &things[i];
        }
    }
    return best;
}

static void the_top_is_the_first_of_all(void **state)
{
    struct thing things[THINGS] = {0};
    struct heap h = {.before = before};
    uint64_t seed = 1;

    assert_null(heap_top(&h));
    for (unsigned step = 0; step < 20000; step++) {
        struct thing *t;
        const struct thing *want;
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        t = &things[(seed >> 33) % THINGS];
        if ((seed >> 60) < 5) {
            heap_remove(&h, &t->node);
            assert_int_equal(t->node.at, 0);
        } else {
            t->key = (uint32_t)(seed >> 40);
            heap_put(&h, &t->node);
        }
        want = least(things);
        if (want == NULL) {
            assert_null(heap_top(&h));
        } else {
            assert_int_equal(HEAP_ITEM(heap_top(&h), struct thing, node)->key, want->key);
        }
    }
    heap_release(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(the_top_is_the_first_of_all)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
