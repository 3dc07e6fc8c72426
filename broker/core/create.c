#include "common/base.h"

#include "broker/core/run.h"
#include "common/crypto.h"
#include "common/limits.h"

#define TEXT_BYTES 1024u /* refs, commits, origins */

static int source_check(struct core *c, const Pb__Source *s)
{
    if (s == NULL) {
        return 0;
    }
    switch (s->from_case) {
    case PB__SOURCE__FROM__NOT_SET:
        return 0;
    case PB__SOURCE__FROM_SNAPSHOT:
        if (s->snapshot->digest.len != SHA256_BYTES || s->snapshot->size > LIMIT_BLOB_BYTES) {
            return reject(c, -E_INVALID, "bad snapshot");
        }
        return 0;
    case PB__SOURCE__FROM_GIT: {
        const struct str url = pb_str(s->git->url);
        if (url.n > 4 * KIB || s->git->sha.len > TEXT_BYTES || s->git->ref.len > TEXT_BYTES ||
            !(str_starts(url, STR("file://")) || str_starts(url, STR("http://")) ||
              str_starts(url, STR("https://")))) {
            return reject(c, -E_INVALID, "bad git source");
        }
        return 0;
    }
    case _PB__SOURCE__FROM__CASE_IS_INT_SIZE:
    default:
        return reject(c, -E_INVALID, "unknown kind of source");
    }
}

/* A bundle is kept for the child pipelines of this one. */
static int bundle_check(struct core *c, const Pb__SnapshotSource *bundle)
{
    if (bundle != NULL && (bundle->digest.len != SHA256_BYTES || bundle->size > LIMIT_BLOB_BYTES)) {
        return reject(c, -E_INVALID, "bad bundle");
    }
    return 0;
}

/* A child: its trigger job must run, under that epoch, and have no child yet. */
static int parent_check(struct core *c, const Pb__PipelineCreate *cmd)
{
    const Pb__JobRecord *job = job_get(c->tx, cmd->parent_job_id);
    const Pb__PipelineRecord *p = job != NULL ? pipeline_get(c->tx, job->pipeline_id) : NULL;
    const Pb__ProjectRecord *project = p != NULL ? project_get(c->tx, p->project_id) : NULL;

    if (cmd->parent_job_id == 0) {
        return 0;
    }
    if (project == NULL) {
        return reject(c, -E_NOT_FOUND, "no job %" PRIu64, cmd->parent_job_id);
    }
    if (!trigger_is_open(job) || job->epoch != cmd->parent_epoch) {
        return reject(c, -E_STALE_EPOCH,
                      "job %" PRIu64 " waits for no child pipeline of epoch %" PRIu64, job->id,
                      cmd->parent_epoch);
    }
    if (strcmp(project->name, cmd->project) != 0 || cmd->idempotency_key.len != 0) {
        return reject(c, -E_INVALID, "a child pipeline is of its parent's project, without a key");
    }
    if (p->depth >= LIMIT_PIPELINE_DEPTH) {
        return reject(c, -E_LIMIT, "child pipelines go %u levels deep", LIMIT_PIPELINE_DEPTH);
    }
    if (family_root(c, p)->family >= LIMIT_PIPELINE_FAMILY) {
        return reject(c, -E_LIMIT, "more than %u child pipelines", LIMIT_PIPELINE_FAMILY);
    }
    return tx_error(c->tx);
}

/* A trigger job that waits for its child holds its resource group meanwhile: a job below that wants
 * the same group would wait for ever. */
static int group_check(struct core *c, const Pb__PipelineCreate *cmd)
{
    const Pb__JobRecord *holder = cmd->parent_job_id != 0 ? job_get(c->tx, cmd->parent_job_id)
                                                          : NULL;

    for (uint32_t i = 0; i < LIMIT_PIPELINE_DEPTH && holder != NULL; i++) {
        const Pb__PipelineRecord *p = pipeline_get(c->tx, holder->pipeline_id);
        const bool waits = holder->trigger_strategy != PB__TRIGGER_STRATEGY__TRIGGER_STRATEGY_NONE;
        for (size_t j = 0; waits && holder->resource_group[0] != '\0' && j < cmd->plan->n_jobs;
             j++) {
            const Pb__PlanJob *job = cmd->plan->jobs[j];
            if (strcmp(job->resource_group, holder->resource_group) == 0) {
                return reject(c, -E_INVALID,
                              "job %.40s would wait for ever: %.40s above it holds its resource "
                              "group and waits for it",
                              job->name, holder->name);
            }
        }
        holder = p != NULL ? pipeline_parent_job(c->tx, p) : NULL;
    }
    return tx_error(c->tx);
}

static bool is_protected(const Pb__PipelineCreate *cmd)
{
    Pb__PipelineVariablesRecord vars = PB__PIPELINE_VARIABLES_RECORD__INIT;
    Pb__PipelineRecord p = PB__PIPELINE_RECORD__INIT;

    p.ref = cmd->ref;
    p.tag = cmd->tag;
    vars.n_predefined = cmd->n_predefined;
    vars.predefined = cmd->predefined;
    return ref_is_protected(&p, &vars);
}

static bool reach_ok(const Pb__PipelineCreate *cmd)
{
    for (size_t i = 0; i < cmd->n_reach; i++) {
        if (i == LIMIT_TOKEN_PROJECTS || !str_is_project_pattern(str_from(cmd->reach[i]))) {
            return false;
        }
    }
    return true;
}

static int create_check(struct core *c, const Pb__PipelineCreate *cmd)
{
    int r;

    if (!name_ok(cmd->project)) {
        return reject(c, -E_INVALID, "bad project name");
    }
    if (!text_ok(cmd->ref, TEXT_BYTES) || !text_ok(cmd->sha, TEXT_BYTES) ||
        !text_ok(cmd->origin, TEXT_BYTES) || !reach_ok(cmd)) {
        return reject(c, -E_INVALID, "bad ref, commit or origin");
    }
    if (cmd->idempotency_key.len != 0 &&
        (cmd->idempotency_key.len != SHA256_BYTES || cmd->body_hash.len != SHA256_BYTES)) {
        return reject(c, -E_INVALID, "bad idempotency key");
    }
    r = source_check(c, cmd->source);
    r = r < 0 ? r : bundle_check(c, cmd->bundle);
    r = r < 0 ? r : parent_check(c, cmd);
    r = r < 0 ? r : variables_check(c, cmd->predefined, cmd->n_predefined, "predefined");
    r = r < 0 ? r : variables_check(c, cmd->submitted, cmd->n_submitted, "submitted");
    r = r < 0 ? r : plan_check(c, cmd);
    return r < 0 ? r : group_check(c, cmd);
}

/* 1: this very request was answered before. */
static int request_known(struct core *c, const Pb__PipelineCreate *cmd)
{
    const Pb__RequestRecord *req;

    if (cmd->idempotency_key.len == 0) {
        return 0;
    }
    req = request_get(c->tx, cmd->idempotency_key);
    if (req == NULL) {
        return 0;
    }
    if (req->pipeline_id == 0 || !str_eq(pb_str(req->body_hash), pb_str(cmd->body_hash))) {
        return reject(c, -E_KEY_REUSED, "the idempotency key was used for another request");
    }
    c->reply->pipeline_id = req->pipeline_id;
    c->reply->duplicate = true;
    return 1;
}

/* Its place under its parent, which counts it. */
static void place_child(struct core *c, const Pb__PipelineCreate *cmd, Pb__PipelineRecord *p)
{
    const struct key of_job = key_u64(cmd->parent_job_id);
    const Pb__JobRecord *job;
    const Pb__PipelineRecord *parent;
    Pb__PipelineRecord *root;
    struct key k;

    if (cmd->parent_job_id == 0) {
        return;
    }
    job = (const Pb__JobRecord *)core_row(c, T_JOB, &of_job, &pb__job_record__descriptor);
    k = key_u64(job->pipeline_id);
    parent = (const Pb__PipelineRecord *)core_row(c, T_PIPELINE, &k,
                                                  &pb__pipeline_record__descriptor);
    p->parent_job_id = job->id;
    p->depth = parent->depth + 1;
    p->origin = (char *)"parent_pipeline";
    p->submitted_by = parent->submitted_by;
    root = family_root(c, parent);
    root->family++;
    root->family_live++;
    k = key_u64(root->id);
    tx_put_msg(c->tx, T_PIPELINE, &k, &root->base);
    k = key_u64_u64(root->id, p->id);
    tx_put(c->tx, T_FAMILY, &k, STR_NULL);
}

static Pb__PipelineRecord *make_pipeline(struct core *c, const Pb__PipelineCreate *cmd,
                                         Pb__ProjectRecord *project)
{
    Pb__PipelineRecord *p = arena_alloc(c->arena, sizeof(*p));
    const struct key k = key_u64(project->id);

    pb__pipeline_record__init(p);
    p->id = core_new_id(c);
    p->project_id = project->id;
    p->iid = project->next_pipeline_iid++;
    p->status = STATUS_CREATED;
    p->ref = cmd->ref;
    p->sha = cmd->sha;
    p->origin = cmd->origin;
    p->tag = cmd->tag;
    p->name = cmd->plan->name;
    p->source = cmd->source;
    p->job_count = (uint32_t)cmd->plan->n_jobs;
    p->stage_count = (uint32_t)cmd->plan->n_stages;
    p->created_ms = c->now_ms;
    p->on_job_failure = cmd->plan->on_job_failure;
    p->on_new_commit = cmd->plan->on_new_commit;
    p->submitted_by = (char *)c->actor;
    p->bundle = cmd->bundle;
    place_child(c, cmd, p);
    p->first_job_id = c->meta->next_id;
    c->meta->next_id += cmd->plan->n_jobs;
    tx_put_msg(c->tx, T_PROJECT, &k, &project->base);
    return p;
}

static Pb__JobRecord *make_job(struct core *c, const Pb__PipelineRecord *p, const Pb__PlanJob *plan,
                               uint32_t index, bool protected)
{
    Pb__JobRecord *job = arena_alloc(c->arena, sizeof(*job));

    pb__job_record__init(job);
    job->id = p->first_job_id + index;
    job->pipeline_id = p->id;
    job->project_id = p->project_id;
    job->index = index;
    job->stage = plan->stage;
    job->name = plan->name;
    job->state = JOB_CREATED;
    job_count(c, JOB_CREATED, 1);
    job->allow_failure = plan->allow_failure;
    job->when = plan->when;
    job->dag = plan->dag;
    if (plan->trigger == NULL && plan->rollout == NULL) {
        job->class_id = class_open(c, plan, protected);
        class_count(c, job->class_id, 1, 1);
    }
    job->priority = plan->priority;
    job->resource_group = plan->resource_group;
    job->interruptible = plan->interruptible;
    job->on_worker_lost = plan->on_worker_lost;
    job->retry_max = plan->retry_max;
    job->trigger = plan->trigger != NULL;
    job->trigger_strategy = job->trigger ? plan->trigger->strategy
                                         : PB__TRIGGER_STRATEGY__TRIGGER_STRATEGY_NONE;
    job->rollout = plan->rollout != NULL;
    job->unsupported = plan->n_unsupported > 0;
    if (plan->environment != NULL) {
        job->environment_id = environment_open(c, p->project_id, plan->environment);
        job->environment_action = plan->environment->action;
    }
    job->confirm = plan->manual_confirmation[0] != '\0';
    job->created_ms = c->now_ms;
    job->start_in_ms = plan->start_in_ms;
    job->timeout_ms = plan->timeout_ms != 0 ? plan->timeout_ms : CORE_DEFAULT_TIMEOUT_MS;
    job->n_needs = plan->n_needs;
    job->needs = arena_array(c->arena, plan->n_needs + 1, sizeof(*job->needs));
    for (size_t i = 0; i < plan->n_needs; i++) {
        job->needs[i] = p->first_job_id + plan->needs[i]->job;
    }
    return job;
}

/* The other direction of needs, each list in the order of the plan. */
static void link_needed_by(struct core *c, const Pb__Plan *plan, Pb__JobRecord **jobs)
{
    for (size_t i = 0; i < plan->n_jobs; i++) {
        for (size_t j = 0; j < plan->jobs[i]->n_needs; j++) {
            jobs[plan->jobs[i]->needs[j]->job]->n_needed_by++;
        }
    }
    for (size_t i = 0; i < plan->n_jobs; i++) {
        jobs[i]->needed_by = arena_array(c->arena, jobs[i]->n_needed_by + 1,
                                         sizeof(*jobs[i]->needed_by));
        jobs[i]->n_needed_by = 0;
    }
    for (size_t i = 0; i < plan->n_jobs; i++) {
        for (size_t j = 0; j < plan->jobs[i]->n_needs; j++) {
            Pb__JobRecord *need = jobs[plan->jobs[i]->needs[j]->job];
            need->needed_by[need->n_needed_by++] = (uint32_t)i;
        }
    }
}

static Pb__JobRecord **make_jobs(struct core *c, const Pb__PipelineRecord *p, const Pb__Plan *plan,
                                 bool protected)
{
    Pb__JobRecord **jobs = arena_array(c->arena, plan->n_jobs, sizeof(Pb__JobRecord *));
    const uint64_t root_id = p->parent_job_id != 0 ? family_root(c, p)->id : 0;

    for (uint32_t i = 0; i < plan->n_jobs; i++) {
        const struct key k = key_u64_u64(p->id, i);
        jobs[i] = make_job(c, p, plan->jobs[i], i, protected);
        if (jobs[i]->resource_group[0] != '\0') {
            jobs[i]->root_pipeline_id = root_id;
            lock_note(c, jobs[i]);
        }
        tx_put_msg(c->tx, T_PLAN, &k, &plan->jobs[i]->base);
    }
    link_needed_by(c, plan, jobs);
    return jobs;
}

static Pb__StageRecord **make_stages(struct core *c, const Pb__PipelineRecord *p,
                                     const Pb__Plan *plan)
{
    Pb__StageRecord **stages = arena_array(c->arena, plan->n_stages, sizeof(Pb__StageRecord *));

    for (uint32_t i = 0; i < plan->n_stages; i++) {
        Pb__StageRecord *s = stages[i] = arena_alloc(c->arena, sizeof(*s));
        pb__stage_record__init(s);
        s->pipeline_id = p->id;
        s->index = i;
        s->name = plan->stages[i];
        s->status = STATUS_CREATED;
        s->n_counts = KIND_COUNT;
        s->counts = arena_array(c->arena, KIND_COUNT, sizeof(*s->counts));
    }
    for (uint32_t i = 0; i < plan->n_jobs; i++) {
        Pb__StageRecord *s = stages[plan->jobs[i]->stage];
        s->first_job = s->job_count == 0 ? i : s->first_job;
        s->job_count++;
        s->counts[JOB_CREATED]++;
        s->undecided += !plan->jobs[i]->dag;
    }
    return stages;
}

/* Whoever submitted the first of a family, says it for all. */
static void set_reach(struct core *c, const Pb__PipelineCreate *cmd,
                      Pb__PipelineVariablesRecord *vars)
{
    const Pb__JobRecord *parent = cmd->parent_job_id != 0 ? job_get(c->tx, cmd->parent_job_id)
                                                          : NULL;
    const Pb__PipelineVariablesRecord *of = parent != NULL
                                                ? pipeline_variables_get(c->tx, parent->pipeline_id)
                                                : NULL;

    vars->reach_some = of != NULL ? of->reach_some : cmd->reach_some;
    vars->reach = of != NULL ? of->reach : cmd->reach;
    vars->n_reach = of != NULL ? of->n_reach : cmd->n_reach;
}

static void put_references(struct core *c, const Pb__PipelineCreate *cmd,
                           const Pb__PipelineRecord *p)
{
    Pb__PipelineVariablesRecord vars = PB__PIPELINE_VARIABLES_RECORD__INIT;
    const struct key k = key_u64(p->id);
    const struct key of_project = key_u64_u64(p->project_id, p->id);

    vars.n_predefined = cmd->n_predefined;
    vars.predefined = cmd->predefined;
    vars.n_submitted = cmd->n_submitted;
    vars.submitted = cmd->submitted;
    set_reach(c, cmd, &vars);
    tx_put_msg(c->tx, T_PIPELINE_VARS, &k, &vars.base);
    tx_put(c->tx, T_PROJECT_PIPELINE, &of_project, STR_NULL);
    if (p->source != NULL && p->source->from_case == PB__SOURCE__FROM_SNAPSHOT) {
        blob_ref_add(c, pb_str(p->source->snapshot->digest), BLOB_SOURCE, p->id);
    }
    if (p->bundle != NULL) {
        blob_ref_add(c, pb_str(p->bundle->digest), BLOB_BUNDLE, p->id);
    }
    pipeline_index(c->tx, p);
    event_add(c, &(struct event){.kind = EVENT_PIPELINE,
                                 .project_id = p->project_id,
                                 .pipeline_id = p->id,
                                 .to = status_text(p->status),
                                 .name = p->name,
                                 .detail = p->ref});
}

/* Conservative, as GitLab calls it: an older pipeline of the ref is canceled as a whole, unless one
 * of its jobs that must not be interrupted has started. Or else only what may be interrupted. */
static void supersede(struct run *run, const char *by)
{
    if (run->pipeline->on_new_commit == AUTO_CANCEL_INTERRUPTIBLE) {
        run_cancel_interruptible(run, by);
    } else if (!run->pipeline->pinned) {
        run_cancel(run, REASON_SUPERSEDED, by, false);
    }
}

/* The same commit again is not newer. */
static void cancel_older(struct core *c, const Pb__PipelineRecord *newer)
{
    const struct key prefix = pipeline_ref_prefix(newer->project_id, newer->ref);
    const char *by = arena_printf(c->arena, "pipeline %" PRIu64, newer->id);
    uint64_t last = 0;

    for (;;) {
        struct key from = prefix;
        struct cursor cur;
        struct run run;
        const Pb__PipelineRecord *p;

        key_add_u64(&from, last + 1);
        tx_seek(&cur, c->tx, T_REF_LIVE, key_str(&prefix), &from);
        last = cur.valid ? key_read_u64(cur.key, cur.key.n - sizeof(uint64_t)) : newer->id;
        cursor_end(&cur);
        if (last >= newer->id || run_load(&run, c, last) < 0) {
            return;
        }
        p = run.pipeline;
        check(p->on_new_commit != AUTO_CANCEL_NONE || !tx_ok(c->tx));
        if (p->sha[0] == '\0' || strcmp(p->sha, newer->sha) != 0) {
            supersede(&run, by);
        }
        run_close(&run, 0);
    }
}

int apply_pipeline_create(struct core *c, const Pb__PipelineCreate *cmd)
{
    struct run run;
    Pb__PipelineRecord *p;
    Pb__StageRecord **stages;
    int r = create_check(c, cmd);

    r = r < 0 ? r : request_known(c, cmd);
    if (r == 0) {
        r = classes_check(c, cmd->plan->jobs, cmd->plan->n_jobs, is_protected(cmd));
    }
    if (r != 0) {
        return MIN(r, 0);
    }
    p = make_pipeline(c, cmd, project_open(c, cmd->project));
    stages = make_stages(c, p, cmd->plan);
    run_init_new(&run, c, p, stages, make_jobs(c, p, cmd->plan, is_protected(cmd)));
    put_references(c, cmd, p);
    if (cmd->idempotency_key.len != 0) {
        Pb__RequestRecord row = PB__REQUEST_RECORD__INIT;
        row.pipeline_id = p->id;
        row.body_hash = cmd->body_hash;
        request_add(c, cmd->idempotency_key, &row);
    }
    run_decide_all(&run);
    r = run_close(&run, 0);
    if (p->parent_job_id != 0) {
        trigger_set_child(c, p);
    } else {
        cancel_older(c, p);
    }
    c->reply->project_id = p->project_id;
    c->reply->pipeline_id = p->id;
    return r;
}
