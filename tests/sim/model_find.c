#include "common/base.h"

#include "tests/sim/sim.h"

/* Look-ups in the model. */

#define HINTS    4096u
#define AGING_MS 60000u /* docs/architecture.md: one that waits rises by one each minute, */
#define BAND_TOP 100    /* up to this */

/* Where a job was found last: only a hint, whatever the model is. */
static uint16_t hints[HINTS];

static struct model_job *job_in(const struct model_pipeline *p, uint64_t id)
{
    const uint64_t first = p->jobs[0].id;

    return id >= first && id - first < p->count ? (struct model_job *)&p->jobs[id - first] : NULL;
}

struct model_job *model_job(const struct model *m, uint64_t id, struct model_pipeline **ret)
{
    uint16_t *hint = &hints[id % HINTS];
    struct model_job *j = *hint < m->pipeline_count ? job_in(&m->pipelines[*hint], id) : NULL;

    for (uint32_t i = 0; j == NULL && i < m->pipeline_count; i++) {
        j = job_in(&m->pipelines[i], id);
        *hint = (uint16_t)i;
    }
    if (j != NULL && ret != NULL) {
        *ret = (struct model_pipeline *)&m->pipelines[*hint];
    }
    return j;
}

struct model_pipeline *model_pipeline(const struct model *m, uint64_t id)
{
    for (uint32_t i = 0; id != 0 && i < m->pipeline_count; i++) {
        if (m->pipelines[i].id == id) {
            return (struct model_pipeline *)&m->pipelines[i];
        }
    }
    return NULL;
}

struct model_worker *model_worker(const struct model *m, uint64_t id)
{
    for (uint32_t i = 0; i < m->worker_count; i++) {
        if (m->workers[i].id == id) {
            return (struct model_worker *)&m->workers[i];
        }
    }
    return NULL;
}

uint64_t model_bytes(ProtobufCBinaryData bytes)
{
    uint64_t n = 0;

    if (bytes.len > 0) {
        memcpy(&n, bytes.data, MIN(bytes.len, sizeof(n)));
    }
    return n;
}

struct model_key *model_key(const struct model *m, ProtobufCBinaryData key)
{
    const uint64_t wanted = model_bytes(key);

    for (uint32_t i = 0; key.len > 0 && i < m->key_count; i++) {
        if (m->keys[i].key == wanted) {
            return (struct model_key *)&m->keys[i];
        }
    }
    return NULL;
}

static bool of_pool(const struct model *m, const struct model_job *j, int pool)
{
    const struct model_worker *w = model_worker(m, j->worker);

    return pool < 0 || (w != NULL && w->pool == pool);
}

uint32_t model_running(const struct model *m, uint8_t project, int pool)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        for (uint32_t k = 0; k < m->pipelines[i].count; k++) {
            const struct model_job *j = &m->pipelines[i].jobs[k];
            n += model_held(j) && (project == 0 || j->project == project) && of_pool(m, j, pool);
        }
    }
    return n;
}

uint32_t model_used(const struct model *m, uint64_t worker_id)
{
    uint32_t used = 0;

    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        for (uint32_t k = 0; k < m->pipelines[i].count; k++) {
            used += model_held(&m->pipelines[i].jobs[k]) &&
                    m->pipelines[i].jobs[k].worker == worker_id;
        }
    }
    return used;
}

static bool pool_takes(const struct model_pool *pool, bool named, const struct model_job *j)
{
    if (!pool->there) {
        return true;
    }
    return (named || !pool->locked) && (j->is_protected || !pool->is_protected) &&
           (pool->projects == 0 || (pool->projects & (1u << j->project)) != 0);
}

bool model_serves(const struct model *m, const struct model_worker *w, const struct model_job *j)
{
    const bool tags = j->tags == 0 ? w->untagged : (j->tags & ~w->tags) == 0;
    const bool named = j->pool == w->pool;

    return tags && (j->pool == 0 || named) && pool_takes(&m->pools[w->pool], named, j);
}

static bool below_limit(uint32_t limit, uint32_t n)
{
    return limit == 0 || n < limit;
}

bool model_project_may(const struct model *m, const struct model_worker *w,
                       const struct model_job *j)
{
    const struct model_pool *pool = &m->pools[w->pool];

    return below_limit(m->projects[j->project].max_running, model_running(m, j->project, -1)) &&
           (!pool->there || pool->project_max_running == 0 ||
            below_limit(pool->project_max_running, model_running(m, j->project, w->pool)));
}

bool model_fits(const struct model *m, const struct model_worker *w, const struct model_job *j)
{
    uint32_t used = 0;

    for (uint32_t i = 0; i < m->pipeline_count && w->cpu_millis != 0; i++) {
        for (uint32_t k = 0; k < m->pipelines[i].count; k++) {
            const struct model_job *o = &m->pipelines[i].jobs[k];
            used += model_held(o) && o->worker == w->id ? o->cpu_millis : 0;
        }
    }
    return w->cpu_millis == 0 || j->cpu_millis == 0 || used + j->cpu_millis <= w->cpu_millis;
}

bool model_pool_may(const struct model *m, const struct model_worker *w)
{
    const struct model_pool *pool = &m->pools[w->pool];

    return !pool->there || pool->max_running == 0 ||
           below_limit(pool->max_running, model_running(m, 0, w->pool));
}

int32_t model_band(const struct model_job *j, uint64_t now_ms)
{
    const uint64_t rise = now_ms > j->queued_ms ? (now_ms - j->queued_ms) / AGING_MS : 0;

    return j->priority >= BAND_TOP ? j->priority
                                   : (int32_t)MIN((int64_t)BAND_TOP, j->priority + (int64_t)rise);
}

bool model_ended(uint8_t state)
{
    return state == JOB_SUCCESS || state == JOB_FAILED || state == JOB_CANCELED ||
           state == JOB_SKIPPED;
}

bool model_held(const struct model_job *j)
{
    return !j->trigger &&
           (j->state == JOB_ASSIGNED || j->state == JOB_RUNNING || j->state == JOB_CANCELING);
}

uint8_t model_number(const char *name)
{
    return name[0] == '\0' ? 0 : (uint8_t)(name[1] - '0');
}
