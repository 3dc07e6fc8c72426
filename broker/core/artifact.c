#include "common/base.h"

#include "broker/core/apply.h"
#include "common/crypto.h"
#include "common/limits.h"

#define ARTIFACT_KEEP_MAX_MS (100ull * 365 * 24 * 3600 * 1000)

struct key blob_ref_key(struct str digest, enum blob_kind kind, uint64_t owner)
{
    struct key k = key_bytes(digest.p, digest.n);

    key_add_u32(&k, kind);
    key_add_u64(&k, owner);
    return k;
}

void blob_ref_add(struct core *c, struct str digest, enum blob_kind kind, uint64_t owner)
{
    const struct key k = blob_ref_key(digest, kind, owner);

    tx_put(c->tx, T_BLOB_REF, &k, STR_NULL);
}

void blob_ref_del(struct core *c, struct str digest, enum blob_kind kind, uint64_t owner)
{
    const struct key k = blob_ref_key(digest, kind, owner);

    tx_del(c->tx, T_BLOB_REF, &k);
}

_Static_assert(LIMIT_REPORTS + 2 <= LIMIT_JOB_ARTIFACTS, "all that a plan allows can be kept");

int artifacts_check(struct core *c, const Pb__Outcome *o)
{
    if (o->n_artifacts > LIMIT_JOB_ARTIFACTS) {
        return reject(c, -E_LIMIT, "more than %u artifacts", LIMIT_JOB_ARTIFACTS);
    }
    for (size_t i = 0; i < o->n_artifacts; i++) {
        const Pb__ArtifactOut *a = o->artifacts[i];
        if (a->digest.len != SHA256_BYTES || a->size > LIMIT_ARTIFACT_BYTES ||
            !text_ok(a->name, LIMIT_NAME) || a->expire_in_ms > ARTIFACT_KEEP_MAX_MS ||
            !text_ok(a->type, LIMIT_NAME) || !text_ok(a->format, LIMIT_NAME) ||
            !text_ok(a->access, LIMIT_NAME) || a->expose_as.len > LIMIT_NAME) {
            return reject(c, -E_INVALID, "artifact %zu is not a valid one", i);
        }
    }
    return 0;
}

static struct key artifact_key(uint64_t job_id, uint64_t artifact_id)
{
    return key_u64_u64(job_id, artifact_id);
}

static void set_expiry(struct core *c, Pb__ArtifactRecord *a, uint64_t due_ms)
{
    Pb__ArtifactTimer what = PB__ARTIFACT_TIMER__INIT;
    Pb__TimerRecord t = PB__TIMER_RECORD__INIT;

    what.job_id = a->job_id;
    what.artifact_id = a->id;
    t.what_case = PB__TIMER_RECORD__WHAT_ARTIFACT;
    t.artifact = &what;
    a->expires_ms = due_ms;
    a->timer_id = timer_add(c, due_ms, &t);
}

void artifacts_add(struct core *c, const Pb__JobRecord *job, const Pb__Outcome *o)
{
    for (size_t i = 0; i < o->n_artifacts; i++) {
        const Pb__ArtifactOut *out = o->artifacts[i];
        Pb__ArtifactRecord a = PB__ARTIFACT_RECORD__INIT;
        struct key k;

        a.id = core_new_id(c);
        a.job_id = job->id;
        a.attempt = job->attempt;
        a.digest = out->digest;
        a.size = out->size;
        a.file_count = out->file_count;
        a.name = out->name;
        a.type = artifact_is_archive(out->type) ? (char *)"archive" : out->type;
        a.format = out->format;
        a.access = out->access;
        a.expose_as = out->expose_as;
        a.created_ms = c->now_ms;
        if (out->expire_in_ms != 0) {
            set_expiry(c, &a, c->now_ms + out->expire_in_ms);
        }
        k = artifact_key(job->id, a.id);
        tx_put_msg(c->tx, T_ARTIFACT, &k, &a.base);
        blob_ref_add(c, pb_str(a.digest), BLOB_ARTIFACT, a.id);
    }
}

void artifact_drop(struct core *c, const struct key *k)
{
    const Pb__ArtifactRecord *a = (const Pb__ArtifactRecord *)core_row(
        c, T_ARTIFACT, k, &pb__artifact_record__descriptor);

    if (a->digest.len != SHA256_BYTES) {
        tx_fail(c->tx, -E_CORRUPT);
        return;
    }
    blob_ref_del(c, pb_str(a->digest), BLOB_ARTIFACT, a->id);
    if (a->timer_id != 0) {
        timer_del(c, a->expires_ms, a->timer_id);
    }
    tx_del(c->tx, T_ARTIFACT, k);
}

/* A job that is hidden with its pipeline tells nothing any more. */
void artifact_expire(struct core *c, const Pb__ArtifactTimer *t)
{
    const struct key k = artifact_key(t->job_id, t->artifact_id);
    const Pb__ArtifactRecord *a = (const Pb__ArtifactRecord *)core_row(
        c, T_ARTIFACT, &k, &pb__artifact_record__descriptor);
    const Pb__JobRecord *job = job_get(c->tx, t->job_id);

    if (job != NULL) {
        event_add(c, &(struct event){.kind = EVENT_ARTIFACT,
                                     .project_id = job->project_id,
                                     .pipeline_id = job->pipeline_id,
                                     .job_id = job->id,
                                     .attempt = a->attempt,
                                     .from = "kept",
                                     .to = "expired",
                                     .name = job->name});
    }
    artifact_drop(c, &k);
}
