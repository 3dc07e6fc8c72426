#include "common/base.h"

#include "broker/core/audit.h"
#include "common/limits.h"

static void audit_parent(struct audit *a, const Pb__PipelineRecord *p)
{
    const struct key of_job = key_u64(p->parent_job_id);
    const Pb__JobRecord *job;
    const Pb__PipelineRecord *parent;
    struct key k;

    if (p->parent_job_id == 0) {
        if (p->depth != 0) {
            breach(a, "pipeline %" PRIu64 " has a depth and no parent", p->id);
        }
        return;
    }
    job = (const Pb__JobRecord *)audit_row(a, T_JOB, &of_job, &pb__job_record__descriptor, false);
    k = key_u64(job != NULL ? job->pipeline_id : 0);
    parent = (const Pb__PipelineRecord *)audit_row(a, T_PIPELINE, &k,
                                                   &pb__pipeline_record__descriptor, false);
    if (parent == NULL || !job->trigger || parent->project_id != p->project_id ||
        p->depth != parent->depth + 1 || p->depth > LIMIT_PIPELINE_DEPTH || p->family != 0 ||
        p->family_live != 0) {
        breach(a, "pipeline %" PRIu64 " does not fit its parent", p->id);
    }
}

/* Counts what stands below it, and what of it runs. */
static void audit_family(struct audit *a, const Pb__PipelineRecord *root)
{
    const struct key prefix = key_u64(root->id);
    const bool ended = root->family_ended_ms != 0;
    const struct key of_end = family_ended_key(root->family_ended_ms, root->id);
    uint32_t count = 0, live = 0;
    struct cursor cur;

    for (tx_seek(&cur, a->tx, T_FAMILY, key_str(&prefix), NULL); cur.valid; tx_next(&cur)) {
        const struct key k = key_u64(key_read_u64(cur.key, sizeof(uint64_t)));
        const Pb__PipelineRecord *p = (const Pb__PipelineRecord *)audit_row(
            a, T_PIPELINE, &k, &pb__pipeline_record__descriptor, false);
        a->expected[T_FAMILY]++;
        count++;
        live += p != NULL && !status_terminal(p->status);
        if (p != NULL && p->parent_job_id == 0) {
            breach(a, "pipeline %" PRIu64 " stands below another, and has no parent", p->id);
        }
    }
    if (count != root->family || live != root->family_live ||
        ended != (live == 0 && root->parent_job_id == 0 && status_terminal(root->status))) {
        breach(a, "pipeline %" PRIu64 ": %u below it of which %u run, ended at %" PRIu64, root->id,
               count, live, root->family_ended_ms);
    }
    audit_index(a, T_PIPELINE_ENDED, &of_end, ended, root->id);
}

static void audit_references(struct audit *a, const Pb__PipelineRecord *p)
{
    const bool live = !status_terminal(p->status);
    const struct key id = key_u64(p->id);
    const struct key project = key_u64(p->project_id);
    const struct key of_project = key_u64_u64(p->project_id, p->id);
    const struct key of_ref = pipeline_ref_key(p->project_id, p->ref, p->id);
    const Pb__ProjectRecord *owner = (const Pb__ProjectRecord *)audit_row(
        a, T_PROJECT, &project, &pb__project_record__descriptor, false);

    audit_index(a, T_PROJECT_PIPELINE, &of_project, true, p->id);
    audit_index(a, T_PIPELINE_LIVE, &id, live, p->id);
    audit_index(a, T_REF_LIVE, &of_ref, live && p->on_new_commit != AUTO_CANCEL_NONE, p->id);
    audit_row(a, T_PIPELINE_VARS, &id, &pb__pipeline_variables_record__descriptor, true);
    if (owner != NULL && (p->iid == 0 || p->iid >= owner->next_pipeline_iid)) {
        breach(a, "pipeline %" PRIu64 ": number %" PRIu64 " was never given", p->id, p->iid);
    }
    if (p->source != NULL && p->source->from_case == PB__SOURCE__FROM_SNAPSHOT) {
        const struct key ref = blob_ref_key(pb_str(p->source->snapshot->digest), BLOB_SOURCE,
                                            p->id);
        audit_index(a, T_BLOB_REF, &ref, true, p->id);
    }
    if (p->bundle != NULL) {
        const struct key ref = blob_ref_key(pb_str(p->bundle->digest), BLOB_BUNDLE, p->id);
        audit_index(a, T_BLOB_REF, &ref, true, p->id);
    }
    audit_parent(a, p);
    audit_family(a, p);
    if (live == (p->finished_ms != 0)) {
        breach(a, "pipeline %" PRIu64 " is %s, finished at %" PRIu64, p->id, status_text(p->status),
               p->finished_ms);
    }
}

/* Counts a stage anew from its jobs, and compares. Returns the kinds of its jobs. */
static uint32_t audit_stage(struct audit *a, const struct audit_pipeline *p, uint32_t index)
{
    const Pb__StageRecord *s = p->stages[index];
    uint32_t counts[KIND_COUNT] = {0};
    uint32_t jobs = 0, undecided = 0, kinds = 0;
    Pb__Status want;

    for (uint32_t i = 0; i < p->row->job_count; i++) {
        const Pb__JobRecord *job = p->jobs[i];
        if (job != NULL && job->stage == index) {
            const uint32_t kind = job_kind(job->state, job->allow_failure);
            counts[kind]++;
            kinds |= 1u << kind;
            undecided += kind == JOB_CREATED && !job->dag;
            if (i != s->first_job + jobs++) {
                breach(a, "pipeline %" PRIu64 ": stage %s has gaps", p->row->id, s->name);
            }
        }
    }
    if (jobs != s->job_count || undecided != s->undecided || s->n_counts != KIND_COUNT ||
        memcmp(counts, s->counts, sizeof(counts)) != 0) {
        breach(a, "pipeline %" PRIu64 ": stage %s has wrong counts", p->row->id, s->name);
    }
    want = status_of_kinds(kinds);
    if (want != STATUS_CREATED && want != s->status) {
        breach(a, "pipeline %" PRIu64 ": stage %s is %s instead of %s", p->row->id, s->name,
               status_text(s->status), status_text(want));
    }
    return kinds;
}

static void audit_status(struct audit *a, const Pb__PipelineRecord *p, uint32_t kinds)
{
    const Pb__Status want = status_of_kinds(kinds);
    const bool goes_on = want == STATUS_PENDING && p->status == STATUS_RUNNING;

    if (want != STATUS_CREATED && want != p->status && !goes_on) {
        breach(a, "pipeline %" PRIu64 " is %s instead of %s", p->id, status_text(p->status),
               status_text(want));
    }
}

static bool load(struct audit *a, struct audit_pipeline *p)
{
    const Pb__PipelineRecord *row = p->row;
    bool whole = true;

    if (row->stage_count > LIMIT_PIPELINE_STAGES || row->job_count > LIMIT_PIPELINE_JOBS) {
        breach(a, "pipeline %" PRIu64 " is too big", row->id);
        return false;
    }
    p->stages = arena_array(&a->scratch, row->stage_count + 1, sizeof(*p->stages));
    p->jobs = arena_array(&a->scratch, row->job_count + 1, sizeof(*p->jobs));
    for (uint32_t i = 0; i < row->stage_count; i++) {
        const struct key k = key_u64_u64(row->id, i);
        p->stages[i] = (Pb__StageRecord *)audit_row(a, T_STAGE, &k, &pb__stage_record__descriptor,
                                                    true);
        whole = whole && p->stages[i] != NULL;
    }
    for (uint32_t i = 0; i < row->job_count; i++) {
        const struct key k = key_u64(row->first_job_id + i);
        p->jobs[i] = (Pb__JobRecord *)audit_row(a, T_JOB, &k, &pb__job_record__descriptor, true);
        whole = whole && p->jobs[i] != NULL && p->jobs[i]->index == i &&
                p->jobs[i]->stage < row->stage_count && p->jobs[i]->pipeline_id == row->id;
    }
    return whole;
}

void audit_pipeline(struct audit *a, uint64_t pipeline_id)
{
    const struct key k = key_u64(pipeline_id);
    struct audit_pipeline p = {.row = (const Pb__PipelineRecord *)audit_row(
                                   a, T_PIPELINE, &k, &pb__pipeline_record__descriptor, true)};
    uint32_t kinds = 0;

    if (p.row == NULL) {
        return;
    }
    audit_id(a, p.row->id, "pipeline");
    audit_references(a, p.row);
    if (!load(a, &p)) {
        breach(a, "pipeline %" PRIu64 ": rows of stages and jobs do not fit", pipeline_id);
        return;
    }
    for (uint32_t i = 0; i < p.row->job_count; i++) {
        audit_job(a, &p, i);
    }
    for (uint32_t i = 0; i < p.row->stage_count; i++) {
        kinds |= audit_stage(a, &p, i);
    }
    if (p.dotenv_bytes != p.row->dotenv_bytes) {
        breach(a, "pipeline %" PRIu64 " has variables of %" PRIu64 " bytes instead of %" PRIu64,
               pipeline_id, p.dotenv_bytes, p.row->dotenv_bytes);
    }
    audit_status(a, p.row, kinds);
}
