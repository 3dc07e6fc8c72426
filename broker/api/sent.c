#include "common/base.h"

#include "broker/api/sent.h"

#include <pthread.h>
#include <stdlib.h>
#include <uthash.h>

struct sent_key {
    uint64_t job_id;
    uint8_t digest[SHA256_BYTES];
};

struct sent_blob {
    struct sent_key key;
    UT_hash_handle hh; /* the table's order is the order of uploads */
};

struct sent {
    pthread_mutex_t lock;
    struct sent_blob *table;
};

struct sent *sent_new(void)
{
    struct sent *s = xcalloc(1, sizeof(*s));
    check(pthread_mutex_init(&s->lock, NULL) == 0);
    return s;
}

static void forget(struct sent *s, struct sent_blob *b)
{
    HASH_DEL(s->table, b);
    free(b);
}

void sent_free(struct sent *s)
{
    struct sent_blob *b, *next;
    if (!s) {
        return;
    }
    HASH_ITER (hh, s->table, b, next) {
        forget(s, b);
    }
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static struct sent_blob *find(struct sent *s, const struct sent_key *key)
{
    struct sent_blob *b;
    HASH_FIND(hh, s->table, key, sizeof(*key), b);
    return b;
}

static struct sent_key key_of(uint64_t job_id, const uint8_t digest[SHA256_BYTES])
{
    struct sent_key key = {.job_id = job_id};
    memcpy(key.digest, digest, sizeof(key.digest));
    return key;
}

void sent_note(struct sent *s, uint64_t job_id, const uint8_t digest[SHA256_BYTES])
{
    const struct sent_key key = key_of(job_id, digest);
    pthread_mutex_lock(&s->lock);
    if (!find(s, &key)) {
        struct sent_blob *b = xcalloc(1, sizeof(*b));
        b->key = key;
        HASH_ADD(hh, s->table, key, sizeof(b->key), b);
    }
    if (HASH_COUNT(s->table) > SENT_MAX) {
        forget(s, s->table);
    }
    pthread_mutex_unlock(&s->lock);
}

bool sent_has(struct sent *s, uint64_t job_id, const uint8_t digest[SHA256_BYTES])
{
    const struct sent_key key = key_of(job_id, digest);
    pthread_mutex_lock(&s->lock);
    const bool found = find(s, &key) != NULL;
    pthread_mutex_unlock(&s->lock);
    return found;
}
