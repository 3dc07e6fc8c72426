#include "common/base.h"

#include "broker/core/audit.h"

/* A pipeline that is being deleted: whatever of it is left must hang on something that is left. */

static void audit_prefix(struct audit *a, enum table t, struct str prefix)
{
    struct cursor cur;

    for (tx_seek(&cur, a->tx, t, prefix, NULL); cur.valid; tx_next(&cur)) {
        a->expected[t]++;
    }
}

static void audit_if_there(struct audit *a, enum table t, const struct key *k,
                           const ProtobufCMessageDescriptor *desc)
{
    if (tx_has(a->tx, t, k)) {
        audit_row(a, t, k, desc, true);
    }
}

static void audit_hidden_job(struct audit *a, const Pb__PipelineRecord *p, uint32_t index)
{
    const struct key k = key_u64(p->first_job_id + index);
    const struct key plan = key_u64_u64(p->id, index);
    const Pb__JobRecord *job = (const Pb__JobRecord *)audit_row(a, T_JOB, &k,
                                                                &pb__job_record__descriptor, true);

    audit_row(a, T_PLAN, &plan, &pb__plan_job__descriptor, true);
    if (job == NULL) {
        return;
    }
    audit_count(a, job);
    if (job->pipeline_id != p->id || job->timer_id != 0 ||
        !(job_state_terminal(job->state) || job->state == JOB_MANUAL)) {
        breach(a, "job %" PRIu64 " is hidden, and %s", job->id, job_state_text(job->state));
    }
    audit_prefix(a, T_ATTEMPT, key_str(&k));
    audit_prefix(a, T_JOB_DEPLOYMENT, key_str(&k));
    audit_artifacts(a, job->id, job->attempt);
    audit_if_there(a, T_JOB_DOTENV, &k, &pb__dotenv_record__descriptor);
}

void audit_hidden(struct audit *a, struct str key)
{
    const struct key k = key_bytes(key.p, key.n);
    const Pb__PipelineRecord *p = (const Pb__PipelineRecord *)audit_row(
        a, T_PIPELINE_GONE, &k, &pb__pipeline_record__descriptor, true);

    if (p == NULL) {
        return;
    }
    if (tx_has(a->tx, T_PIPELINE, &k) || !status_terminal(p->status)) {
        breach(a, "pipeline %" PRIu64 " is hidden, and is there or has not ended", p->id);
    }
    for (uint32_t i = 0; i < p->job_count; i++) {
        audit_hidden_job(a, p, i);
    }
    for (uint32_t i = 0; i < p->stage_count; i++) {
        const struct key stage = key_u64_u64(p->id, i);
        audit_row(a, T_STAGE, &stage, &pb__stage_record__descriptor, true);
    }
}
