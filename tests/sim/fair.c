#include "common/base.h"

#include "tests/sim/sim.h"

/* Who comes first. After each round: what still waits must not come before what was given to a
 * worker that could have had it. The scheduler's own order within a round is not looked at, so
 * where limits or somebody who gave way may have played a part, nothing is said. */

#define WEIGHT 100u /* of a project that has none */

void watch_assign(const struct model *m, const struct model_worker *w, const struct model_job *j,
                  bool displacing)
{
    /* One that gives way to another does not make a pool any fuller, whose limit came later. */
    if (!model_project_may(m, w, j) || (!displacing && !model_pool_may(m, w))) {
        breach_now("job %" PRIu64 " is given to worker %" PRIu64
                   ", and its project or pool is at its limit",
                   j->id, w->id);
    }
    if (!model_fits(m, w, j)) {
        breach_now("job %" PRIu64 " is given to worker %" PRIu64 ", which has too little for it",
                   j->id, w->id);
    }
    if (sim->given_count == GIVEN_MAX) {
        sim->given_unsure = true;
        return;
    }
    sim->given[sim->given_count++] = (struct given){.job_id = j->id,
                                                    .worker_id = w->id,
                                                    .index = m->applied,
                                                    .arrival = j->arrival,
                                                    .band = model_band(j, m->now_ms),
                                                    .project = j->project,
                                                    .pool = w->pool,
                                                    .displacing = displacing};
}

/* Whether that job could have had the slot. */
static bool was_there(const struct model *m, const struct given *g, const struct model_job *k)
{
    const struct model_worker *w = model_worker(m, g->worker_id);

    return k->state == JOB_PENDING && k->pending_at < g->index && w != NULL &&
           model_serves(m, w, k) && model_fits(m, w, k) && model_project_may(m, w, k);
}

static void watch_order(const struct model *m, const struct given *g, const struct model_job *k)
{
    const int32_t band = model_band(k, m->now_ms);

    if (!was_there(m, g, k)) {
        return;
    }
    if (band > g->band ||
        (band == g->band && k->project == g->project && k->arrival < g->arrival)) {
        breach_now("job %" PRIu64 " (%d) waits, and job %" PRIu64 " (%d) was given to worker"
                   " %" PRIu64,
                   k->id, (int)band, g->job_id, (int)g->band, g->worker_id);
    }
}

static uint32_t weight_of(const struct model *m, uint8_t project)
{
    return m->projects[project].weight != 0 ? m->projects[project].weight : WEIGHT;
}

/* Whether a job of another project stood beside all that were given to this one in the pool. */
static bool competes(const struct model *m, uint8_t project, uint8_t pool,
                     const struct model_job *k)
{
    for (uint32_t i = 0; i < sim->given_count; i++) {
        const struct given *g = &sim->given[i];
        if (g->project == project && g->pool == pool &&
            (!was_there(m, g, k) || model_band(k, m->now_ms) != g->band)) {
            return false;
        }
    }
    return true;
}

static uint32_t competitors(const struct model *m, uint8_t project, uint8_t pool)
{
    uint32_t set = 0;

    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        for (uint32_t n = 0; n < m->pipelines[i].count; n++) {
            const struct model_job *k = &m->pipelines[i].jobs[n];
            if (k->state == JOB_PENDING && k->project != project && !(set & (1u << k->project)) &&
                competes(m, project, pool, k)) {
                set |= 1u << k->project;
            }
        }
    }
    return set;
}

/* The last slot went to the project a, of w_a and r_a jobs with it, and not to b of w_b and r_b:
 * so (r_a - 1) / w_a <= r_b / w_b, for each such b. Summed up over all of them, with W and R the
 * sums of weights and jobs, a's too: r_a - R w_a / W <= 1 - w_a / W. So nobody is ever a whole job
 * above its share for its weight by the scheduler's will; that jobs end is not its will. */
static void watch_share(const struct model *m, uint8_t project, uint8_t pool)
{
    const uint32_t set = competitors(m, project, pool);
    const uint64_t own = weight_of(m, project);
    const uint64_t running = model_running(m, project, pool);
    uint64_t weights = own, jobs = running;

    for (uint8_t p = 1; p <= MODEL_PROJECTS; p++) {
        if (set & (1u << p)) {
            const uint64_t others = model_running(m, p, pool);
            if (running > 0 && (running - 1) * weight_of(m, p) > others * own) {
                breach_now("project %u got a slot of pool %u with %" PRIu64
                           " jobs of weight %" PRIu64 ", project %u waits with %" PRIu64
                           " of weight %u",
                           project, pool, running, own, p, others, weight_of(m, p));
            }
            weights += weight_of(m, p);
            jobs += others;
        }
    }
    const int64_t error = (int64_t)(1000 * running) - (int64_t)(1000 * jobs * own / weights);
    check(set == 0 || error <= 1001 - (int64_t)(1000 * own / weights));
    if (set != 0) {
        sim->shares.count++;
        sim->shares.sum += (uint64_t)MAX(error, 0);
        sim->shares.worst = MAX(sim->shares.worst, (uint64_t)MAX(error, 0));
    }
}

void watch_round(void)
{
    const struct model *m = sim->model;
    uint32_t seen = 0;

    if (sim->given_unsure) {
        return;
    }
    for (uint32_t i = 0; i < sim->given_count; i++) {
        if (sim->given[i].displacing) {
            return;
        }
    }
    for (uint32_t i = 0; i < sim->given_count; i++) {
        const struct given *g = &sim->given[i];
        const uint32_t bit = 1u << (4 * g->pool + g->project);
        for (uint32_t p = 0; p < m->pipeline_count; p++) {
            for (uint32_t n = 0; n < m->pipelines[p].count; n++) {
                watch_order(m, g, &m->pipelines[p].jobs[n]);
            }
        }
        if (!(seen & bit)) {
            seen |= bit;
            watch_share(m, g->project, g->pool);
        }
    }
}
