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

/* The first job in the group's rows of `t`; 0: none. */
static uint64_t first_of(struct tx *tx, enum table t, struct str group)
{
    struct cursor cur;
    uint64_t id = 0;

    tx_seek(&cur, tx, t, group, NULL);
    if (cur.valid) {
        id = key_read_u64(cur.key, cur.key.n - sizeof(uint64_t));
    }
    cursor_end(&cur);
    return id;
}

/* Its turn has come, and nobody else holds its group. */
static void ready(struct run *run, Pb__JobRecord *job, const char *detail)
{
    job_move(run, job, JOB_PENDING, detail);
    if (job->trigger) {
        trigger_start(run, job);
    }
}

void job_queue(struct run *run, Pb__JobRecord *job, const char *detail)
{
    struct tx *tx = run->core->tx;

    if (job->unsupported) {
        job_refuse(run, job, detail);
        return;
    }
    if (job->resource_group[0] != '\0') {
        const struct key k = lock_key(job);
        if (first_of(tx, T_RESOURCE_HOLD, key_str(&k)) != 0 ||
            first_of(tx, T_RESOURCE_WAIT, key_str(&k)) != 0) { /* those who wait come first */
            job_move(run, job, JOB_WAITING_FOR_RESOURCE, detail);
            return;
        }
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

/* Who waits longest for a group that nobody holds; 0: nobody, or it is held. */
static uint64_t heir_of(struct tx *tx, const struct freed_lock *f)
{
    const struct str group = str_of(f->key, sizeof(f->key));

    return first_of(tx, T_RESOURCE_HOLD, group) != 0 ? 0 : first_of(tx, T_RESOURCE_WAIT, group);
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
