#include "common/base.h"

#include <stdlib.h>
#include <uthash.h>

#include "broker/core/state.h"
#include "broker/turn_state.h"
#include "common/limits.h"

/* How long jobs were lately in the hands of their workers, by what they ask for: soft state, from
 * which people are told when a job may begin. Of so many classes, those that were heard of last. */

#define HISTORY_CLASSES 1024u
#define HISTORY_LENGTH  16u

struct history {
    uint64_t class_id;
    uint64_t held_ms[HISTORY_LENGTH]; /* a ring */
    uint32_t count;
    uint32_t next;
    UT_hash_handle hh; /* in the order in which they were heard of */
};

static struct history *history_of(struct turn *t, uint64_t class_id)
{
    struct history *h;

    HASH_FIND(hh, t->history, &class_id, sizeof(class_id), h);
    if (h != NULL) {
        HASH_DEL(t->history, h); /* it comes last now */
    } else if (HASH_COUNT(t->history) < HISTORY_CLASSES) {
        h = xcalloc(1, sizeof(*h));
    } else {
        h = t->history; /* the first of them makes room */
        HASH_DEL(t->history, h);
        *h = (struct history){.class_id = 0};
    }
    h->class_id = class_id;
    HASH_ADD(hh, t->history, class_id, sizeof(h->class_id), h);
    return h;
}

void turn_remember(struct turn *t, const struct queue_change *changes, size_t count)
{
    pthread_mutex_lock(&t->lock);
    for (size_t i = 0; i < count; i++) {
        if (changes[i].left & STATE_HELD) {
            struct history *h = history_of(t, changes[i].class_id);
            h->held_ms[h->next] = changes[i].held_ms;
            h->next = (h->next + 1) % HISTORY_LENGTH;
            h->count = MIN(h->count + 1, HISTORY_LENGTH);
        }
        turn_count_times(t, &changes[i]);
    }
    pthread_mutex_unlock(&t->lock);
}

bool turn_typical_ms(struct turn *t, uint64_t class_id, uint64_t *ret_ms)
{
    const struct history *h;
    uint64_t sum_ms = 0;

    pthread_mutex_lock(&t->lock);
    HASH_FIND(hh, t->history, &class_id, sizeof(class_id), h);
    for (uint32_t i = 0; h != NULL && i < h->count; i++) {
        sum_ms += MIN(h->held_ms[i], LIMIT_TIMEOUT_MS);
    }
    if (h != NULL) {
        *ret_ms = sum_ms / h->count;
    }
    pthread_mutex_unlock(&t->lock);
    return h != NULL;
}

void turn_forget_history(struct turn *t)
{
    struct history *h;
    struct history *tmp;

    HASH_ITER (hh, t->history, h, tmp) {
        HASH_DEL(t->history, h);
        free(h);
    }
}
