#include "common/base.h"

#include "broker/bus.h"

#include <pthread.h>
#include <stdlib.h>
#include <utlist.h>

struct subscriber {
    uint64_t handle;
    bus_fn fn;
    void *ctx;
    struct subscriber *prev;
    struct subscriber *next;
};

struct bus {
    pthread_mutex_t lock;
    struct subscriber *subscribers;
    uint64_t last_handle;
};

struct bus *bus_new(void)
{
    struct bus *b = xcalloc(1, sizeof(*b));
    check(pthread_mutex_init(&b->lock, NULL) == 0);
    return b;
}

void bus_free(struct bus *b)
{
    if (b == NULL) {
        return;
    }
    check(b->subscribers == NULL);
    pthread_mutex_destroy(&b->lock);
    free(b);
}

void bus_publish(struct bus *b, enum bus_topic topic, uint64_t key)
{
    struct subscriber *s;

    pthread_mutex_lock(&b->lock);
    DL_FOREACH (b->subscribers, s) {
        s->fn(s->ctx, topic, key);
    }
    pthread_mutex_unlock(&b->lock);
}

uint64_t bus_subscribe(struct bus *b, bus_fn fn, void *ctx)
{
    struct subscriber *s = xcalloc(1, sizeof(*s));
    check(fn != NULL);
    s->fn = fn;
    s->ctx = ctx;
    pthread_mutex_lock(&b->lock);
    s->handle = ++b->last_handle;
    DL_APPEND(b->subscribers, s);
    uint64_t handle = s->handle;
    pthread_mutex_unlock(&b->lock);
    return handle;
}

void bus_unsubscribe(struct bus *b, uint64_t handle)
{
    struct subscriber *s;

    pthread_mutex_lock(&b->lock);
    DL_SEARCH_SCALAR(b->subscribers, s, handle, handle);
    if (s != NULL) {
        DL_DELETE(b->subscribers, s);
    }
    pthread_mutex_unlock(&b->lock);
    free(s);
}
