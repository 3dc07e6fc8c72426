#include "common/base.h"

#include "broker/core/audit.h"
#include "common/crypto.h"
#include "common/limits.h"

/* What pipelines leave behind. Releases, pages and caches outlive the jobs that made them. */

static const void *row(struct audit *a, enum table t, struct str key,
                       const ProtobufCMessageDescriptor *desc, bool count)
{
    const struct key k = key_bytes(key.p, key.n);

    return audit_row(a, t, &k, desc, count);
}

static const void *row_by_id(struct audit *a, enum table t, uint64_t id,
                             const ProtobufCMessageDescriptor *desc)
{
    const struct key k = key_u64(id);

    return audit_row(a, t, &k, desc, false);
}

/* The row of `t` at `k` holds the id. */
static void audit_way(struct audit *a, enum table t, const struct key *k, uint64_t id)
{
    struct str v;

    a->expected[t]++;
    if (!tx_get(a->tx, t, k, &v) || v.n != sizeof(uint64_t) || key_read_u64(v, 0) != id) {
        breach(a, "%s: no row leads to %" PRIu64, table_name(t), id);
    }
}

static void audit_blob(struct audit *a, ProtobufCBinaryData digest, enum blob_kind kind,
                       uint64_t owner)
{
    const struct key ref = blob_ref_key(pb_str(digest), kind, owner);

    audit_index(a, T_BLOB_REF, &ref, true, owner);
}

void audit_environment(struct audit *a, struct str key)
{
    const Pb__EnvironmentRecord *e = row(a, T_ENVIRONMENT, key, &pb__environment_record__descriptor,
                                         true);
    Pb__EnvironmentTimer what = PB__ENVIRONMENT_TIMER__INIT;
    Pb__TimerRecord t = PB__TIMER_RECORD__INIT;
    struct key k;

    if (e == NULL) {
        return;
    }
    audit_id(a, e->id, "environment");
    row_by_id(a, T_PROJECT, e->project_id, &pb__project_record__descriptor);
    k = environment_name_key(e->project_id, e->name);
    audit_way(a, T_ENVIRONMENT_NAME, &k, e->id);
    if (!environment_name_ok(e->name) || e->slug[0] == '\0' || !environment_tier_ok(e->tier) ||
        (e->state == ENVIRONMENT_STOPPED) != (e->stopped_ms != 0) ||
        (e->timer_id != 0 && e->state != ENVIRONMENT_AVAILABLE)) {
        breach(a, "environment %" PRIu64 " is odd", e->id);
    }
    if (e->timer_id != 0) {
        what.environment_id = e->id;
        t.what_case = PB__TIMER_RECORD__WHAT_ENVIRONMENT;
        t.environment = &what;
        audit_timer(a, e->auto_stop_ms, e->timer_id, &t);
    }
    if (e->on_stop_job_id != 0) {
        row_by_id(a, T_JOB, e->on_stop_job_id, &pb__job_record__descriptor);
    }
    if (e->deployment_id != 0) {
        const Pb__DeploymentRecord *d;
        struct key needed;
        k = key_u64_u64(e->id, e->deployment_id);
        d = (const Pb__DeploymentRecord *)audit_row(a, T_DEPLOYMENT, &k,
                                                    &pb__deployment_record__descriptor, false);
        if (d == NULL || d->status != JOB_SUCCESS) {
            breach(a, "environment %" PRIu64 ": its deployment is no good one", e->id);
        }
        needed = key_u64_u64(d != NULL ? d->pipeline_id : 0, e->id);
        audit_index(a, T_PIPELINE_NEEDED, &needed, e->state != ENVIRONMENT_STOPPED, e->id);
    }
}

void audit_deployment(struct audit *a, struct str key)
{
    const Pb__DeploymentRecord *d = row(a, T_DEPLOYMENT, key, &pb__deployment_record__descriptor,
                                        true);
    const Pb__EnvironmentRecord *e;
    const Pb__JobRecord *job;
    struct key of_job;
    bool runs;

    if (d == NULL) {
        return;
    }
    audit_id(a, d->id, "deployment");
    e = row_by_id(a, T_ENVIRONMENT, d->environment_id, &pb__environment_record__descriptor);
    of_job = key_u64(d->pipeline_id);
    if (!tx_has(a->tx, T_PIPELINE, &of_job)) { /* it has outlived its pipeline, or is about to go */
        if (!tx_has(a->tx, T_PIPELINE_GONE, &of_job) &&
            (e == NULL || e->state != ENVIRONMENT_STOPPED || e->deployment_id != d->id)) {
            breach(a, "deployment %" PRIu64 " has outlived its pipeline", d->id);
        }
        return;
    }
    of_job = key_u64_u64(d->job_id, d->id);
    audit_index(a, T_JOB_DEPLOYMENT, &of_job, true, d->id);
    job = row_by_id(a, T_JOB, d->job_id, &pb__job_record__descriptor);
    runs = job != NULL && job->deployment_id == d->id &&
           (job->state == JOB_RUNNING || job->state == JOB_CANCELING);
    if (job == NULL || job->environment_id != d->environment_id ||
        runs != (d->status == JOB_RUNNING) || runs != (d->finished_ms == 0)) {
        breach(a, "deployment %" PRIu64 " is %s, its job is not", d->id, job_state_text(d->status));
    }
}

void audit_release(struct audit *a, struct str key)
{
    const Pb__ReleaseRecord *r = row(a, T_RELEASE, key, &pb__release_record__descriptor, true);
    struct key k;

    if (r == NULL || r->release == NULL) {
        breach(a, "a release without its text");
        return;
    }
    audit_id(a, r->id, "release");
    audit_id(a, r->job_id, "the job of a release");
    k = project_hash_key(r->project_id, pb_str(r->release->tag_name));
    audit_way(a, T_RELEASE_TAG, &k, r->id);
}

void audit_pages(struct audit *a, struct str key)
{
    const Pb__PagesRecord *p = row(a, T_PAGES, key, &pb__pages_record__descriptor, true);
    Pb__PagesTimer what = PB__PAGES_TIMER__INIT;
    Pb__TimerRecord t = PB__TIMER_RECORD__INIT;
    struct key k;

    if (p == NULL) {
        return;
    }
    audit_id(a, p->id, "pages");
    audit_id(a, p->job_id, "the job of pages");
    audit_blob(a, p->digest, BLOB_PAGES, p->id);
    k = project_hash_key(p->project_id, pb_str(p->path_prefix));
    if (!str_eq(key_str(&k), key) || (p->expires_ms != 0) != (p->timer_id != 0)) {
        breach(a, "pages %" PRIu64 " stand at another place", p->id);
    }
    if (p->expires_ms != 0) {
        what.project_id = p->project_id;
        what.prefix_hash = pb_bytes_ref(str_sub(key, sizeof(uint64_t), SHA256_BYTES));
        t.what_case = PB__TIMER_RECORD__WHAT_PAGES;
        t.pages = &what;
        audit_timer(a, p->expires_ms, p->timer_id, &t);
    }
}

static void audit_cache(struct audit *a, struct str key, uint32_t *count, uint64_t *bytes)
{
    const Pb__CacheRecord *cache = row(a, T_CACHE, key, &pb__cache_record__descriptor, true);
    struct key k;

    if (cache == NULL) {
        return;
    }
    audit_id(a, cache->seq, "cache");
    audit_id(a, cache->job_id, "the job of a cache");
    audit_blob(a, cache->digest, BLOB_CACHE, cache->seq);
    k = key_u64_u64(cache->project_id, cache->seq);
    key_add_bytes(&k, key.p + sizeof(uint64_t), key.n - sizeof(uint64_t));
    audit_index(a, T_CACHE_AGE, &k, true, cache->seq);
    k = project_hash_key(cache->project_id, pb_str(cache->key));
    if (!str_eq(key_str(&k), key)) {
        breach(a, "cache %" PRIu64 " stands at another place", cache->seq);
    }
    *count += 1;
    *bytes += cache->size;
}

void audit_caches(struct audit *a, const Pb__ProjectRecord *project)
{
    const struct key prefix = key_u64(project->id);
    struct cursor cur;
    uint32_t count = 0;
    uint64_t bytes = 0;

    for (tx_seek(&cur, a->tx, T_CACHE, key_str(&prefix), NULL); cur.valid; tx_next(&cur)) {
        audit_cache(a, cur.key, &count, &bytes);
    }
    if (count != project->cache_count || bytes != project->cache_bytes ||
        count > LIMIT_PROJECT_CACHES || bytes > LIMIT_PROJECT_CACHE_BYTES) {
        breach(a, "project %" PRIu64 " has %u caches of %" PRIu64 " bytes", project->id, count,
               bytes);
    }
}
