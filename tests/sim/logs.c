#include "common/base.h"

#include <stdlib.h>

#include "common/limits.h"
#include "tests/sim/sim.h"

/* Logs without files: of each only how far it is written and how far that is safe. What the bytes
 * are follows from where they stand, so none can be lost, doubled or swapped unseen. */

struct logs {
    logs_durable_fn fn;
    void *ctx;
};

uint8_t log_byte(uint64_t job_id, uint64_t attempt, uint64_t offset)
{
    return (uint8_t)(job_id * 31 + attempt * 7 + offset * 3 + offset / 251);
}

static struct sim_log *find(uint64_t job_id, uint64_t attempt)
{
    for (size_t i = 0; i < sim->log_count; i++) {
        if (sim->logs[i].job_id == job_id && sim->logs[i].attempt == attempt) {
            return &sim->logs[i];
        }
    }
    return NULL;
}

static struct sim_log *find_or_make(uint64_t job_id, uint64_t attempt)
{
    struct sim_log *l = find(job_id, attempt);

    if (l != NULL) {
        return l;
    }
    if (sim->log_count == sim->log_cap) {
        sim->log_cap = MAX(32u, 2 * sim->log_cap);
        sim->logs = xrealloc(sim->logs, sim->log_cap * sizeof(*sim->logs));
    }
    l = &sim->logs[sim->log_count++];
    *l = (struct sim_log){.job_id = job_id, .attempt = attempt};
    return l;
}

int logs_open(const char *dir, logs_durable_fn durable, void *ctx, struct logs **ret,
              struct buf *why)
{
    *ret = xcalloc(1, sizeof(**ret));
    (*ret)->fn = durable;
    (*ret)->ctx = ctx;
    return 0;
}

void logs_close(struct logs *l)
{
    free(l);
}

int logs_append(struct logs *l, uint64_t job_id, uint64_t attempt, uint64_t epoch, uint64_t offset,
                const void *p, size_t n)
{
    struct sim_log *log = find_or_make(job_id, attempt);

    check(n <= LIMIT_LOG_CHUNK);
    if (strikes(sim->swarm.log_busy)) {
        return -E_BUSY;
    }
    for (size_t i = 0; i < n; i++) {
        if (((const uint8_t *)p)[i] != log_byte(job_id, attempt, offset + i)) {
            breach_now("job %" PRIu64 ": a byte of its log is not the one that was written",
                       job_id);
        }
    }
    log->epoch = epoch;
    if (offset <= log->written) {
        log->written = MAX(log->written, offset + n);
    }
    event_add_us(sim->now_us + between(100, 3000), EV_LOG, (uint32_t)(log - sim->logs),
                 log->written);
    return 0;
}

void logs_reached(uint32_t index, uint64_t size)
{
    struct sim_log *log = &sim->logs[index];

    if (!sim->up || size > log->written) { /* killed before it got there */
        return;
    }
    log->durable = MAX(log->durable, size);
    sim->logs_door->fn(sim->logs_door->ctx, log->job_id, log->attempt, log->epoch, log->durable);
}

void logs_killed(void)
{
    for (size_t i = 0; i < sim->log_count; i++) {
        sim->logs[i].written = sim->logs[i].durable;
    }
}

void logs_were_lost(void)
{
    for (size_t i = 0; i < sim->log_count; i++) {
        struct sim_log *l = &sim->logs[i];
        const struct model_job *j = model_job(sim->model, l->job_id, NULL);
        const bool begun = j != NULL && (l->attempt < j->attempt || j->acked || !model_held(j));
        if (!begun || l->attempt > j->attempt) {
            l->written = l->durable = 0;
        }
    }
}

uint64_t logs_durable(struct logs *l, uint64_t job_id, uint64_t attempt)
{
    const struct sim_log *log = find(job_id, attempt);

    return log != NULL ? log->durable : 0;
}

int64_t logs_read(struct logs *l, uint64_t job_id, uint64_t attempt, uint64_t offset, void *p,
                  size_t n)
{
    return -E_NOT_FOUND;
}

void logs_close_one(struct logs *l, uint64_t job_id, uint64_t attempt)
{
}

int logs_remove(struct logs *l, uint64_t job_id, uint64_t attempt)
{
    return find(job_id, attempt) != NULL ? 0 : -E_NOT_FOUND;
}

uint64_t logs_written_bytes(struct logs *l)
{
    return 0;
}
