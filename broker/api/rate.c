#include "common/base.h"

#include "broker/api/rate.h"

#include <pthread.h>
#include <stdlib.h>
#include <uthash.h>

struct bucket {
    char key[64];
    double left;
    uint64_t at_us;
    UT_hash_handle hh; /* the table's order is the order of use */
};

struct rate {
    pthread_mutex_t lock;
    double per_second;
    double burst;
    struct bucket *table;
};

struct rate *rate_new(double per_second, double burst)
{
    struct rate *r = xcalloc(1, sizeof(*r));
    check(per_second > 0 && burst >= 1);
    pthread_mutex_init(&r->lock, NULL);
    r->per_second = per_second;
    r->burst = burst;
    return r;
}

void rate_free(struct rate *r)
{
    struct bucket *b, *next;
    if (!r) {
        return;
    }
    HASH_ITER (hh, r->table, b, next) {
        HASH_DEL(r->table, b);
        free(b);
    }
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static struct bucket *find(struct rate *r, const char key[64], uint64_t now_us)
{
    struct bucket *b = NULL;
    HASH_FIND(hh, r->table, key, 64, b);
    if (b) {
        HASH_DEL(r->table, b);
    } else if (HASH_COUNT(r->table) >= RATE_BUCKETS) {
        b = r->table; /* the one that was not used for longest */
        HASH_DEL(r->table, b);
        b->at_us = 0;
    } else {
        b = xcalloc(1, sizeof(*b));
    }
    if (b->at_us == 0) {
        memcpy(b->key, key, sizeof(b->key));
        b->left = r->burst;
        b->at_us = now_us;
    }
    HASH_ADD(hh, r->table, key, sizeof(b->key), b);
    return b;
}

uint32_t rate_take(struct rate *r, struct str key, uint64_t now_us)
{
    char text[64] = "";
    double missing = 0;
    if (key.n > 0) {
        memcpy(text, key.p, MIN(key.n, sizeof(text) - 1));
    }
    pthread_mutex_lock(&r->lock);
    struct bucket *b = find(r, text, now_us);
    if (now_us > b->at_us) {
        const double more = (double)(now_us - b->at_us) / 1e6 * r->per_second;
        b->left = MIN(r->burst, b->left + more);
        b->at_us = now_us;
    }
    if (b->left >= 1) {
        b->left -= 1;
    } else {
        missing = 1 - b->left;
    }
    pthread_mutex_unlock(&r->lock);
    return missing > 0 ? (uint32_t)(missing / r->per_second * 1000) + 1 : 0;
}
