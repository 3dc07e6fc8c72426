#include "common/base.h"

#include "broker/core/run.h"
#include "common/limits.h"

#include <stdlib.h>

static void init(struct run *run, struct core *c, Pb__PipelineRecord *pipeline)
{
    check(pipeline->stage_count <= LIMIT_PIPELINE_STAGES);
    check(pipeline->job_count <= LIMIT_PIPELINE_JOBS);
    *run = (struct run){
        .core = c,
        .pipeline = pipeline,
        .stages = xcalloc(pipeline->stage_count + 1, sizeof(*run->stages)),
        .stage_dirty = xcalloc(pipeline->stage_count + 1, sizeof(*run->stage_dirty)),
        .jobs = xcalloc(pipeline->job_count + 1, sizeof(*run->jobs)),
        .settled = xcalloc(pipeline->job_count + 1, sizeof(*run->settled)),
    };
}

static void take_job(struct run *run, uint32_t index, Pb__JobRecord *job)
{
    run->jobs[index].record = job;
    run->jobs[index].kind = job_kind(job->state, job->allow_failure);
}

static Pb__StageRecord *load_stage(struct core *c, uint64_t pipeline_id, uint32_t index)
{
    const struct key k = key_u64_u64(pipeline_id, index);
    Pb__StageRecord *s = (Pb__StageRecord *)core_row(c, T_STAGE, &k, &pb__stage_record__descriptor);

    if (s->n_counts != KIND_COUNT) {
        tx_fail(c->tx, -E_CORRUPT);
        s->n_counts = KIND_COUNT;
        s->counts = arena_array(c->arena, KIND_COUNT, sizeof(*s->counts));
    }
    return s;
}

int run_load(struct run *run, struct core *c, uint64_t pipeline_id)
{
    Pb__PipelineRecord *p = (Pb__PipelineRecord *)pipeline_get(c->tx, pipeline_id);

    if (p == NULL) {
        return tx_ok(c->tx) ? reject(c, -E_NOT_FOUND, "no pipeline %" PRIu64, pipeline_id)
                            : tx_error(c->tx);
    }
    init(run, c, p);
    for (uint32_t i = 0; i < p->stage_count; i++) {
        run->stages[i] = load_stage(c, p->id, i);
    }
    return 0;
}

int run_load_job(struct run *run, struct core *c, uint64_t job_id, Pb__JobRecord **ret)
{
    Pb__JobRecord *job = (Pb__JobRecord *)job_get(c->tx, job_id);
    int r;

    if (job == NULL) {
        return tx_ok(c->tx) ? reject(c, -E_NOT_FOUND, "no job %" PRIu64, job_id) : tx_error(c->tx);
    }
    if (job->pipeline_id == 0) {
        run_init_lone(run, c, job);
        *ret = job;
        return 0;
    }
    r = run_load(run, c, job->pipeline_id);
    if (r < 0) {
        return r;
    }
    check(job->index < run->pipeline->job_count && job->stage < run->pipeline->stage_count);
    take_job(run, job->index, job);
    *ret = job;
    return 0;
}

void run_init_new(struct run *run, struct core *c, Pb__PipelineRecord *pipeline,
                  Pb__StageRecord **stages, Pb__JobRecord **jobs)
{
    init(run, c, pipeline);
    run->dirty = true;
    for (uint32_t i = 0; i < pipeline->stage_count; i++) {
        run->stages[i] = stages[i];
        run->stage_dirty[i] = true;
    }
    for (uint32_t i = 0; i < pipeline->job_count; i++) {
        take_job(run, i, jobs[i]);
        run->jobs[i].dirty = true;
    }
}

static void write_rows(struct run *run)
{
    struct tx *tx = run->core->tx;
    const Pb__PipelineRecord *p = run->pipeline;
    struct key k;

    for (uint32_t i = 0; i < p->job_count; i++) {
        if (run->jobs[i].dirty) {
            k = key_u64(run->jobs[i].record->id);
            tx_put_msg(tx, T_JOB, &k, &run->jobs[i].record->base);
        }
    }
    for (uint32_t i = 0; i < p->stage_count; i++) {
        if (run->stage_dirty[i]) {
            k = key_u64_u64(p->id, i);
            tx_put_msg(tx, T_STAGE, &k, &run->stages[i]->base);
        }
    }
    if (run->dirty) {
        k = key_u64(p->id);
        tx_put_msg(tx, T_PIPELINE, &k, &p->base);
    }
}

int run_close(struct run *run, int r)
{
    struct tx *tx = run->core->tx;

    if (run_is_lone(run)) {
        if (r >= 0) {
            lone_write(run);
        }
        return r < 0 ? r : tx_error(tx);
    }
    if (r >= 0) {
        run_process(run);
        write_rows(run);
    }
    free(run->stages);
    free(run->stage_dirty);
    free(run->jobs);
    free(run->settled);
    *run = (struct run){0};
    return r < 0 ? r : tx_error(tx);
}

Pb__JobRecord *run_job(struct run *run, uint32_t index)
{
    check(index < run->pipeline->job_count);
    if (run->jobs[index].record == NULL) {
        const struct key k = key_u64(run->pipeline->first_job_id + index);
        take_job(run, index,
                 (Pb__JobRecord *)core_row(run->core, T_JOB, &k, &pb__job_record__descriptor));
    }
    return run->jobs[index].record;
}

const Pb__PlanJob *run_plan_job(struct run *run, const Pb__JobRecord *job)
{
    const struct key k = run_is_lone(run) ? key_u64(job->id)
                                          : key_u64_u64(run->pipeline->id, job->index);

    return (const Pb__PlanJob *)core_row(run->core, run_is_lone(run) ? T_JOB_PLAN : T_PLAN, &k,
                                         &pb__plan_job__descriptor);
}

uint32_t run_stage_kinds(const struct run *run, uint32_t stage)
{
    const Pb__StageRecord *s = run->stages[stage];
    uint32_t kinds = 0;

    for (uint32_t i = 0; i < KIND_COUNT; i++) {
        kinds |= s->counts[i] > 0 ? 1u << i : 0;
    }
    return kinds;
}

static void queue_settled(struct run *run, uint32_t index)
{
    const uint32_t cap = run->pipeline->job_count;

    if (!run->jobs[index].queued) {
        check(run->settled_count < cap);
        run->settled[(run->settled_first + run->settled_count++) % cap] = index;
        run->jobs[index].queued = true;
    }
}

bool run_next_settled(struct run *run, uint32_t *ret_index)
{
    if (run->settled_count == 0) {
        return false;
    }
    *ret_index = run->settled[run->settled_first];
    run->settled_first = (run->settled_first + 1) % run->pipeline->job_count;
    run->settled_count--;
    run->jobs[*ret_index].queued = false;
    return true;
}

/* Books a changed job: in its stage's counts, and for those that come after it. */
void run_job_changed(struct run *run, const Pb__JobRecord *job)
{
    struct run_job *rj = &run->jobs[job->index];
    const uint32_t kind = job_kind(job->state, job->allow_failure);
    Pb__StageRecord *stage;

    check(rj->record == job || !tx_ok(run->core->tx));
    rj->dirty = true;
    if (run_is_lone(run)) {
        return;
    }
    stage = run->stages[job->stage];
    if (kind == rj->kind) {
        return;
    }
    check(stage->counts[rj->kind] > 0 || !tx_ok(run->core->tx));
    stage->counts[rj->kind]--;
    stage->counts[kind]++;
    if (!job->dag) {
        stage->undecided += (kind == JOB_CREATED) - (rj->kind == JOB_CREATED);
    }
    run->stage_dirty[job->stage] = true;
    rj->kind = kind;
    if (job_kind_settled(kind)) {
        queue_settled(run, job->index);
    }
}

Pb__AssignmentRecord *run_assignment(struct run *run, const Pb__JobRecord *job)
{
    if (run->held == NULL || run->held->job_id != job->id) {
        run->held = assignment_get(run->core->tx, job->id);
    }
    return (Pb__AssignmentRecord *)run->held;
}
