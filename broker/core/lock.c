#include "common/base.h"

#include "broker/core/run.h"
#include "common/crypto.h"

struct key lock_key(const Pb__JobRecord *job)
{
    struct key k = key_u64(job->project_id);
    uint8_t hash[SHA256_BYTES];

    crypto_sha256(job->resource_group, strlen(job->resource_group), hash);
    key_add_bytes(&k, hash, sizeof(hash));
    check(k.n == CORE_LOCK_KEY_BYTES);
    return k;
}

struct key lock_hold_key(const Pb__JobRecord *job)
{
    struct key k = lock_key(job);

    key_add_u64(&k, job->id);
    return k;
}

struct key lock_wait_key(const Pb__JobRecord *job)
{
    struct key k = lock_key(job);

    key_add_u64(&k, job->ready_seq);
    key_add_u64(&k, job->id);
    return k;
}

/* Its turn has come, and nobody else holds its group. */
static void ready(struct run *run, Pb__JobRecord *job, const char *detail)
{
    job_move(run, job, JOB_PENDING, detail);
    if (job->trigger) {
        trigger_start(run, job);
    } else if (job->rollout) {
        rollout_job_start(run, job);
    }
}

void job_queue(struct run *run, Pb__JobRecord *job, const char *detail)
{
    if (job->unsupported) {
        job_refuse(run, job, detail);
        return;
    }
    if (job->resource_group[0] != '\0' && !lock_may_take(run->core->tx, job)) {
        job_move(run, job, JOB_WAITING_FOR_RESOURCE, detail);
        return;
    }
    ready(run, job, detail);
}

void lock_freed(struct core *c, const Pb__JobRecord *job)
{
    struct freed_lock *f = arena_alloc(c->arena, sizeof(*f));
    const struct key k = lock_key(job);

    memcpy(f->key, k.p, sizeof(f->key));
    *c->freed_end = f;
    c->freed_end = &f->next;
}

static uint64_t heir_of(struct tx *tx, const struct freed_lock *f)
{
    return lock_heir(tx, str_of(f->key, sizeof(f->key)));
}

static void inherit(struct run *run, Pb__JobRecord *job)
{
    ready(run, job, "resource group is free");
}

void locks_pass_on_within(struct run *run)
{
    const uint64_t first = run->pipeline->first_job_id;

    for (const struct freed_lock *f = run->core->freed_first; f != NULL; f = f->next) {
        const uint64_t id = heir_of(run->core->tx, f);
        if (id >= first && id - first < run->pipeline->job_count) {
            inherit(run, run_job(run, (uint32_t)(id - first)));
        }
    }
}

void locks_pass_on(struct core *c)
{
    for (const struct freed_lock *f = c->freed_first; f != NULL; f = f->next) {
        const uint64_t id = heir_of(c->tx, f);
        struct run run;
        Pb__JobRecord *job;
        if (id != 0 && run_load_job(&run, c, id, &job) == 0) {
            inherit(&run, job);
            run_close(&run, 0);
        }
    }
    c->freed_first = NULL;
    c->freed_end = &c->freed_first;
}
