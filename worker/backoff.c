#include "common/base.h"

#include "worker/backoff.h"

uint64_t backoff_next_ms(struct backoff *b, uint64_t cap_ms, uint64_t random)
{
    uint64_t bound = (uint64_t)BACKOFF_FIRST_MS << MIN(b->tries, 16u);
    b->tries++;
    return random % (MIN(bound, cap_ms) + 1);
}

void backoff_reset(struct backoff *b)
{
    b->tries = 0;
}
