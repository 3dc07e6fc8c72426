#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/os.h"
#include "tests/sim/sim.h"

/* What is looked at while the broker works. */

#define IDLE_MAX_US (1200 * SIM_MS) /* a round and the time to the next */
#define OLD_MAX_MS  10000u

static void audit_line(void *ctx, const char *text)
{
    fprintf(stderr, "audit: %s\n", text);
}

void watch_audit(struct tx *tx)
{
    sim->audits++;
    if (core_audit(tx, audit_line, NULL) > 0) {
        breach_now("the audit finds the store broken");
    }
}

static bool past(uint64_t at_us, uint64_t by_us)
{
    return at_us == 0 || sim->now_us > at_us + by_us;
}

/* A worker that the broker must take for able, whatever else is on its way. */
static bool able(const struct worker *w, const struct model_worker *row)
{
    const struct link *l = w->pipe != 0 ? &sim->links[w->pipe] : NULL;

    return l != NULL && w->session != 0 && row->session == w->session && l->broker_open &&
           sim->now_us - l->heard_us < 3200 * SIM_MS && !w->bye_said && !row->paused &&
           !row->draining && past(w->unable_us, 12 * SIM_SECOND) &&
           past(w->stalled_until_us, 12 * SIM_SECOND) && past(w->fenced_us, 45 * SIM_SECOND);
}

static bool find_idle(uint64_t *ret_job, uint64_t *ret_worker)
{
    struct model *m = sim->model;

    for (uint32_t i = 0; i < sim->worker_count; i++) {
        const struct worker *w = &sim->workers[i];
        const struct model_worker *row = model_worker(m, w->worker_id);
        if (row == NULL || !able(w, row) || model_used(m, row->id) >= row->slots) {
            continue;
        }
        for (uint32_t p = 0; p < m->pipeline_count; p++) {
            for (uint32_t k = 0; k < m->pipelines[p].count; k++) {
                const struct model_job *j = &m->pipelines[p].jobs[k];
                if (j->state == JOB_PENDING && model_serves(m, row, j) && model_fits(m, row, j) &&
                    model_project_may(m, row, j) && model_pool_may(m, row)) {
                    *ret_job = j->id;
                    *ret_worker = row->id;
                    return true;
                }
            }
        }
    }
    return false;
}

/* No job waits while a slot that it may have is free. */
static void watch_idle(void)
{
    uint64_t job = 0, worker = 0;
    const bool idle = sim->now_us >= sim->rest_us && find_idle(&job, &worker);

    sim->checks++;
    if (!idle || job != sim->idle_job || worker != sim->idle_worker) {
        sim->idle_since_us = sim->now_us;
        sim->idle_job = job;
        sim->idle_worker = worker;
    } else if (sim->now_us - sim->idle_since_us > IDLE_MAX_US) {
        breach_now("job %" PRIu64 " waits, and worker %" PRIu64
                   " has had a slot for it for %" PRIu64 " ms",
                   job, worker, (sim->now_us - sim->idle_since_us) / SIM_MS);
    }
}

/* Two workers never hold the same job under the epoch that counts; who holds it may be told. */
static void watch_holders(void)
{
    struct model *m = sim->model;

    for (uint32_t i = 0; i < sim->worker_count; i++) {
        for (uint32_t k = 0; k < SIM_HELD; k++) {
            const struct held *h = &sim->workers[i].held[k];
            const struct model_job *j = h->state != HELD_GONE ? model_job(m, h->job_id, NULL)
                                                              : NULL;
            if (j != NULL && model_held(j) && j->epoch == h->epoch &&
                j->worker != sim->workers[i].worker_id) {
                breach_now("job %" PRIu64 " is in the hands of worker %" PRIu64
                           " under the epoch of worker %" PRIu64,
                           j->id, sim->workers[i].worker_id, j->worker);
            }
        }
    }
}

void watch_step(void)
{
    watch_idle();
    watch_holders();
    watch_round();
}

/* The same commands on an empty store make the same store. */
void watch_replay(void)
{
    struct buf dir = BUF_INIT, why = BUF_INIT;
    struct effects fx;
    struct store *s;
    struct tx *tx;
    uint8_t have[32], want[32];
    size_t at = 0;

    buf_addf(&dir, "%s-replay", sim->dir);
    check(os_mkdir_p(buf_cstr(&dir), 0700) == 0);
    check(store_open(buf_cstr(&dir), &(struct store_options){.map_bytes = 64u << 20}, &s, &why) ==
          0);
    check(tx_begin(s, true, &tx) == 0);
    effects_init(&fx);
    const bool watching = sim->watching;
    sim->watching = false;
    for (uint64_t i = 1; i <= sim->durable_index; i++) {
        Pb__Command *cmd;
        struct reply reply;
        const size_t start = at + sizeof(uint32_t);
        effects_clear(&fx);
        check(PB_UNPACK(tx_arena(tx), command, sim->log.p + start, sim->log_ends[i] - start,
                        LIMIT_COMMAND, &cmd) == 0);
        const int r = core_apply(tx, cmd, &fx, &reply);
        if (r < 0) {
            breach_now("command %" PRIu64 " is refused when it is applied again: %s", i,
                       err_text(r));
        }
        at = sim->log_ends[i];
    }
    check(tx_commit(tx) == 0);
    check(store_hash(s, have) == 0 && store_hash(sim->store, want) == 0);
    sim->watching = watching;
    if (memcmp(have, want, sizeof(have)) != 0) {
        breach_now("the same commands make another store");
    }
    effects_release(&fx);
    store_close(s);
    check(os_remove_tree(buf_cstr(&dir)) == 0);
    buf_release(&dir);
    buf_release(&why);
}

void watch_end(const struct model *m, const struct model_job *j)
{
    if (!j->lone) {
        return;
    }
    if (sim->end_count == sim->end_cap) {
        sim->end_cap = MAX(64u, 2 * sim->end_cap);
        sim->ends = xrealloc(sim->ends, sim->end_cap * sizeof(*sim->ends));
    }
    sim->ends[sim->end_count++] = (struct sim_end){
        .index = m->applied, .job_id = j->id, .attempt = j->attempt, .state = j->state};
}

void watch_kept(void)
{
    const struct model *m = sim->model;

    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        const struct model_pipeline *p = &m->pipelines[i];
        const uint64_t old_ms = model_old_ms(m, p, sim->swarm.keep_s * 1000ull);
        if (old_ms < m->now_ms && m->now_ms - old_ms > OLD_MAX_MS) {
            breach_now("pipeline %" PRIu64 ", job %" PRIu64 " is kept %" PRIu64 " ms too long",
                       p->id, p->jobs[0].id, m->now_ms - old_ms);
        }
    }
}
