#include "common/base.h"

#include "broker/api/quota.h"

#include <pthread.h>
#include <stdlib.h>
#include <uthash.h>

struct account {
    uint64_t id; /* of a job or a pipeline: they share their numbers */
    uint64_t bytes;
    UT_hash_handle hh; /* the table's order is the order of use */
};

struct quota {
    uint64_t job_bytes;
    uint64_t pipeline_bytes;
    pthread_mutex_t lock;
    struct account *accounts;
};

struct quota *quota_new(uint64_t job_bytes, uint64_t pipeline_bytes)
{
    struct quota *q = xcalloc(1, sizeof(*q));

    q->job_bytes = job_bytes;
    q->pipeline_bytes = pipeline_bytes;
    check(pthread_mutex_init(&q->lock, NULL) == 0);
    return q;
}

static void forget(struct quota *q, struct account *a)
{
    HASH_DEL(q->accounts, a);
    free(a);
}

void quota_free(struct quota *q)
{
    struct account *a, *next;

    if (q == NULL) {
        return;
    }
    HASH_ITER (hh, q->accounts, a, next) {
        forget(q, a);
    }
    pthread_mutex_destroy(&q->lock);
    free(q);
}

/* Found or made, and now the one that was used last. */
static struct account *use(struct quota *q, uint64_t id)
{
    struct account *a;

    HASH_FIND(hh, q->accounts, &id, sizeof(id), a);
    if (a != NULL) {
        HASH_DEL(q->accounts, a);
    } else {
        a = xcalloc(1, sizeof(*a));
        a->id = id;
    }
    HASH_ADD(hh, q->accounts, id, sizeof(a->id), a);
    return a;
}

int quota_take(struct quota *q, uint64_t job_id, uint64_t pipeline_id, uint64_t bytes)
{
    int r = 0;

    pthread_mutex_lock(&q->lock);
    struct account *pipeline = use(q, pipeline_id);
    struct account *job = use(q, job_id);
    if (bytes > q->job_bytes - job->bytes || bytes > q->pipeline_bytes - pipeline->bytes) {
        r = -E_LIMIT;
    } else {
        job->bytes += bytes;
        pipeline->bytes += bytes;
    }
    while (HASH_COUNT(q->accounts) > 2 * QUOTA_JOBS) {
        forget(q, q->accounts); /* the one that was used longest ago */
    }
    pthread_mutex_unlock(&q->lock);
    return r;
}

void quota_give_back(struct quota *q, uint64_t job_id, uint64_t pipeline_id, uint64_t bytes)
{
    pthread_mutex_lock(&q->lock);
    struct account *pipeline = use(q, pipeline_id);
    struct account *job = use(q, job_id);
    job->bytes -= MIN(bytes, job->bytes); /* it may have been forgotten meanwhile */
    pipeline->bytes -= MIN(bytes, pipeline->bytes);
    pthread_mutex_unlock(&q->lock);
}
