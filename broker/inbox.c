#include "common/base.h"

#include "broker/inbox.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "common/limits.h"

struct inbox {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct item *head;
    struct item **tail;
    size_t count;
    size_t bytes;
    uint64_t pushed;
    uint64_t taken;
    bool woken;
    bool starved; /* somebody stopped receiving because of us */
    bool stopped;
};

struct inbox *inbox_new(void)
{
    struct inbox *in = xcalloc(1, sizeof(*in));
    pthread_condattr_t attr;

    check(pthread_mutex_init(&in->lock, NULL) == 0);
    check(pthread_condattr_init(&attr) == 0);
    check(pthread_condattr_setclock(&attr, CLOCK_MONOTONIC) == 0);
    check(pthread_cond_init(&in->wake, &attr) == 0);
    pthread_condattr_destroy(&attr);
    in->tail = &in->head;
    return in;
}

void inbox_free(struct inbox *in)
{
    if (in == NULL) {
        return;
    }
    check(in->head == NULL);
    pthread_cond_destroy(&in->wake);
    pthread_mutex_destroy(&in->lock);
    free(in);
}

struct item *item_new(enum item_kind kind)
{
    struct item *item = xcalloc(1, sizeof(*item));
    item->kind = kind;
    return item;
}

static bool is_full(const struct inbox *in)
{
    return in->count >= LIMIT_INBOX || in->bytes >= LIMIT_INBOX_BYTES;
}

/* With the lock held. */
static void append(struct inbox *in, struct item *item)
{
    item->next = NULL;
    *in->tail = item;
    in->tail = &item->next;
    in->count++;
    in->bytes += item->bytes;
    in->pushed++;
    if (in->count == 1) {
        pthread_cond_signal(&in->wake);
    }
}

int inbox_push_post(struct inbox *in, struct item *item)
{
    int r = 0;

    pthread_mutex_lock(&in->lock);
    if (in->stopped) {
        r = -E_SHUTDOWN;
    } else if (is_full(in)) {
        r = -E_BUSY;
    } else {
        append(in, item);
    }
    pthread_mutex_unlock(&in->lock);
    return r;
}

bool inbox_push_message(struct inbox *in, struct item *item)
{
    pthread_mutex_lock(&in->lock);
    append(in, item);
    if (is_full(in)) {
        in->starved = true;
    }
    bool more = !in->starved;
    pthread_mutex_unlock(&in->lock);
    return more;
}

void inbox_push_event(struct inbox *in, struct item *item)
{
    pthread_mutex_lock(&in->lock);
    append(in, item);
    pthread_mutex_unlock(&in->lock);
}

void inbox_wake(struct inbox *in)
{
    pthread_mutex_lock(&in->lock);
    in->woken = true;
    pthread_cond_signal(&in->wake);
    pthread_mutex_unlock(&in->lock);
}

void inbox_stop(struct inbox *in)
{
    pthread_mutex_lock(&in->lock);
    in->stopped = true;
    pthread_cond_signal(&in->wake);
    pthread_mutex_unlock(&in->lock);
}

bool inbox_stopped(struct inbox *in)
{
    pthread_mutex_lock(&in->lock);
    bool stopped = in->stopped;
    pthread_mutex_unlock(&in->lock);
    return stopped;
}

static void wait_until(struct inbox *in, uint64_t until_ms)
{
    struct timespec at = {.tv_sec = (time_t)(until_ms / 1000),
                          .tv_nsec = (long)(until_ms % 1000) * 1000000L};

    while (until_ms != 0 && in->head == NULL && !in->stopped && !in->woken) {
        if (pthread_cond_timedwait(&in->wake, &in->lock, &at) == ETIMEDOUT) {
            return;
        }
    }
}

struct item *inbox_take(struct inbox *in, size_t max, uint64_t until_ms, bool *ret_resume)
{
    check(max > 0);
    pthread_mutex_lock(&in->lock);
    wait_until(in, until_ms);
    in->woken = false;
    struct item *first = in->head;
    struct item **end = &in->head;
    for (size_t n = 0; n < max && *end != NULL; n++) {
        in->count--;
        in->bytes -= (*end)->bytes;
        in->taken++;
        end = &(*end)->next;
    }
    in->head = *end;
    if (in->head == NULL) {
        in->tail = &in->head;
    }
    if (first != NULL) {
        *end = NULL;
    }
    *ret_resume = in->starved && in->count < LIMIT_INBOX / 2 && in->bytes < LIMIT_INBOX_BYTES / 2;
    if (*ret_resume) {
        in->starved = false;
    }
    pthread_mutex_unlock(&in->lock);
    return first;
}

size_t inbox_count(struct inbox *in)
{
    pthread_mutex_lock(&in->lock);
    size_t count = in->count;
    pthread_mutex_unlock(&in->lock);
    return count;
}

uint64_t inbox_pushed(struct inbox *in)
{
    pthread_mutex_lock(&in->lock);
    uint64_t n = in->pushed;
    pthread_mutex_unlock(&in->lock);
    return n;
}

uint64_t inbox_taken(struct inbox *in)
{
    pthread_mutex_lock(&in->lock);
    uint64_t n = in->taken;
    pthread_mutex_unlock(&in->lock);
    return n;
}
