#include "common/base.h"

#include "broker/core/rollout_move.h"
#include "common/limits.h"

/* A rollout begins: of a job whose turn has come, or of a person who goes back. */

static const char *step_wrong(const Pb__RolloutStepRecord *s, size_t places)
{
    const bool scales = s->kind == ROLLOUT_STEP_SCALE || s->kind == ROLLOUT_STEP_SHRINK;

    if ((unsigned)s->kind > ROLLOUT_STEP_BARRIER || s->weight_bp > ROLLOUT_FULL_BP ||
        s->for_ms > LIMIT_TIMEOUT_MS || s->approvals > LIMIT_ROLLOUT_APPROVALS ||
        s->n_script > LIMIT_ROLLOUT_SCRIPT || s->n_roles > LIMIT_TAGS ||
        !text_ok(s->name, LIMIT_ROLLOUT_TEXT)) {
        return "a step of the plan is none";
    }
    if (s->n_instances != (scales ? places : 0)) {
        return "a step of the plan is for other places";
    }
    for (size_t i = 0; i < s->n_instances; i++) {
        if (s->instances[i] > LIMIT_ROLLOUT_INSTANCES) {
            return "a step of the plan has too many instances";
        }
    }
    return NULL;
}

static const char *plan_wrong(const Pb__RolloutPlanRecord *p)
{
    const char *wrong = NULL;

    if (p == NULL || p->spec == NULL || p->target == NULL || !rollout_spec_ok(p->spec)) {
        return "no plan, or a bad one";
    }
    if (p->n_steps > LIMIT_ROLLOUT_PLAN_STEPS ||
        pb__rollout_plan_record__get_packed_size(p) > LIMIT_ROLLOUT_PLAN) {
        return "the plan is too long";
    }
    wrong = target_wrong(p->target);
    for (size_t i = 0; i < p->n_steps && wrong == NULL; i++) {
        wrong = step_wrong(p->steps[i], MAX(p->target->n_places, 1u));
    }
    return wrong;
}

static int fail(struct run *run, Pb__JobRecord *job, Pb__Reason reason, const char *text)
{
    const char *detail = text_clip(run->core->arena, text, LIMIT_ROLLOUT_TEXT);

    attempt_end(run, job, JOB_FAILED, reason, NULL, detail);
    job_fail_saying(run, job, reason, 0, detail);
    return 0;
}

/* Nobody of the target's pool could ever take its actions; NULL: somebody might. */
static const char *pool_refuses(struct core *c, const Pb__RolloutTarget *t, const char *project,
                                bool protected)
{
    Pb__ClassRecord class = PB__CLASS_RECORD__INIT;

    class.pool = t->pool;
    class.protected_ = protected;
    switch (pool_bar(pool_get(c->tx, t->pool), t->pool, &class, project)) {
    case POOL_BAR_PROTECTED:
        return arena_printf(c->arena, "pool %.100s of target %.100s is for protected refs", t->pool,
                            t->name);
    case POOL_BAR_PROJECT:
        return arena_printf(c->arena, "pool %.100s of target %.100s is for other projects", t->pool,
                            t->name);
    case POOL_BAR_NONE:
    case POOL_BAR_OTHER:
    case POOL_BAR_LOCKED:
    default:
        return NULL;
    }
}

static Pb__RolloutRecord *new_record(struct core *c, const Pb__ServiceRecord *s,
                                     const Pb__SnapshotRecord *snapshot)
{
    Pb__RolloutRecord *r = arena_alloc(c->arena, sizeof(*r));

    pb__rollout_record__init(r);
    r->id = core_new_id(c);
    r->service_id = s->id;
    r->project_id = s->project_id;
    r->environment_id = s->environment_id;
    r->snapshot_id = snapshot->id;
    r->version = snapshot->version;
    r->created_by = text_clip(c->arena, c->actor, LIMIT_NAME);
    r->created_ms = r->state_ms = r->phase_ms = c->now_ms;
    r->epoch = 1;
    r->state = ROLLOUT_QUEUED;
    r->next_action = 1;
    r->next_look_ms = c->now_ms;
    return r;
}

/* All rows of a new one, whose own fields are set. */
static void store(struct core *c, Pb__ServiceRecord *s, Pb__RolloutRecord *r,
                  const Pb__RolloutPlanRecord *plan)
{
    const struct key k = key_u64(r->id);
    const struct key of_service = key_u64_u64(s->id, r->id);

    tx_put_msg(c->tx, T_ROLLOUT_PLAN, &k, &plan->base);
    tx_put(c->tx, T_ROLLOUT_LIVE, &k, STR_NULL);
    tx_put(c->tx, T_SERVICE_ROLLOUT, &of_service, STR_NULL);
    snapshot_use(c, r->snapshot_id, 1);
    if (r->group[0] != '\0') {
        const struct key of_group = rollout_group_key(r);
        tx_put(c->tx, T_ROLLOUT_GROUP, &of_group, STR_NULL);
    }
    service_take(c, s, r);
    rollout_note_add(c, r, "state", rollout_state_text(r->state));
    rollout_put(c, r, 0);
    event_add(c, &(struct event){.kind = EVENT_ROLLOUT,
                                 .project_id = r->project_id,
                                 .pipeline_id = r->pipeline_id,
                                 .job_id = r->job_id,
                                 .rollout_id = r->id,
                                 .to = rollout_state_text(r->state),
                                 .name = s->target,
                                 .detail = r->version});
    rollout_group_make_due(c, r);
    c->reply->job_id = r->job_id;
    c->reply->pipeline_id = r->pipeline_id;
    c->reply->project_id = r->project_id;
    c->reply->rollout_id = r->id;
}

/* Retried jobs roll out what they did before, as long as that is kept. */
static const Pb__SnapshotRecord *before_of(struct core *c, const Pb__ServiceRecord *s,
                                           const Pb__JobRecord *job)
{
    const Pb__RolloutRecord *list[LIMIT_SERVICE_ROLLOUTS];
    const size_t n = s != NULL ? rollouts_before(c->tx, s->id, 0, ARRAY_LEN(list), list) : 0;

    for (size_t i = 0; i < n; i++) {
        if (list[i]->job_id == job->id) {
            return snapshot_get(c->tx, list[i]->snapshot_id);
        }
    }
    return NULL;
}

/* Makes what the job rolls out; a negative error with a text: it cannot. */
static int version_of(struct core *c, const Pb__JobRecord *job, const Pb__RolloutPlanRecord *plan,
                      const Pb__ServiceRecord *s, Pb__SnapshotRecord **ret, const char **ret_why)
{
    *ret = (Pb__SnapshotRecord *)before_of(c, s, job);
    return *ret != NULL ? 0 : snapshot_make(c, job, plan, s, ret, ret_why);
}

static bool ref_protected(struct core *c, const struct run *run)
{
    const Pb__PipelineVariablesRecord *vars = pipeline_variables_get(c->tx, run->pipeline->id);

    return vars != NULL && ref_is_protected(run->pipeline, vars);
}

static void begin(struct run *run, Pb__JobRecord *job, Pb__ServiceRecord *s,
                  Pb__SnapshotRecord *snapshot, const Pb__RolloutPlanRecord *plan)
{
    struct core *c = run->core;
    const struct key open = key_u64(job->id);
    Pb__RolloutRecord *r;

    if (s == NULL) {
        s = service_open(c, job->project_id, job->environment_id, plan->spec->target);
    }
    if (snapshot->id == 0) {
        snapshot_store(c, snapshot, s->id);
    }
    r = new_record(c, s, snapshot);
    r->job_id = job->id;
    r->pipeline_id = job->pipeline_id;
    r->created_by = run->pipeline->submitted_by;
    r->group = plan->spec->group;
    r->protected_ = ref_protected(c, run);
    tx_del(c->tx, T_ROLLOUT_OPEN, &open);
    job->rollout_id = r->id;
    run_job_changed(run, job);
    store(c, s, r, plan);
}

static int begin_of_job(struct run *run, Pb__JobRecord *job, const Pb__RolloutBegin *cmd)
{
    struct core *c = run->core;
    const Pb__ProjectRecord *project = project_get(c->tx, job->project_id);
    Pb__ServiceRecord *s;
    Pb__SnapshotRecord *snapshot = NULL;
    const char *why;
    int r;

    if (cmd->refused[0] != '\0') {
        return fail(run, job, REASON_CONFIG_ERROR, cmd->refused);
    }
    why = plan_wrong(cmd->plan);
    if (why != NULL) {
        return reject(c, -E_INVALID, "%s", why);
    }
    why = pool_refuses(c, cmd->plan->target, project != NULL ? project->name : "",
                       ref_protected(c, run));
    if (why != NULL) {
        return fail(run, job, REASON_CONFIG_ERROR, why);
    }
    s = (Pb__ServiceRecord *)service_by_name(c->tx, job->environment_id, cmd->plan->spec->target);
    r = version_of(c, job, cmd->plan, s, &snapshot, &why);
    if (!tx_ok(c->tx)) {
        return tx_error(c->tx);
    }
    if (r < 0) {
        return fail(run, job, r == -E_NOT_FOUND ? REASON_ARTIFACT_MISSING : REASON_CONFIG_ERROR,
                    why);
    }
    begin(run, job, s, snapshot, cmd->plan);
    return 0;
}

/* The target as it is declared now, else as it was at the newest rollout. */
static const Pb__RolloutTarget *target_of(struct core *c, const Pb__ServiceRecord *s)
{
    const Pb__ProjectRecord *p = project_get(c->tx, s->project_id);
    const Pb__EnvironmentRecord *e = environment_get(c->tx, s->environment_id);
    const Pb__RolloutTarget *t = NULL;
    const Pb__RolloutRecord *newest;
    const Pb__RolloutPlanRecord *plan;
    bool others;

    if (p != NULL && e != NULL) {
        t = target_find(c->tx, e->name, s->target, p->name, &others);
    }
    if (t == NULL && rollouts_before(c->tx, s->id, 0, 1, &newest) == 1) {
        plan = rollout_plan_get(c->tx, newest->id);
        t = plan != NULL ? plan->target : NULL;
    }
    return t;
}

/* The newest good version that is not the stable one; 0: there is none. */
static uint64_t before_stable(const Pb__ServiceRecord *s)
{
    for (size_t i = s->n_snapshot_ids; i > 0; i--) {
        if (s->snapshot_ids[i - 1] != s->stable_snapshot_id) {
            return s->snapshot_ids[i - 1];
        }
    }
    return 0;
}

/* Nothing is named: what stood before. While a rollout is live that would be one too far. */
static int undo_default(struct core *c, const Pb__ServiceRecord *s, uint64_t *ret)
{
    if (s->live_rollout_id != 0) {
        return reject(c, -E_CONFLICT,
                      "rollout %" PRIu64 " is live: abort it, or name the version to go back to",
                      s->live_rollout_id);
    }
    *ret = before_stable(s);
    return *ret != 0 ? 0
                     : reject(c, -E_NOT_FOUND,
                              "service %.100s keeps no version before its stable one", s->target);
}

/* A `*snapshot_id` of 0 becomes that of the version before the stable one. */
static int undo_check(struct core *c, const Pb__ServiceRecord *s, const char *reason,
                      uint64_t *snapshot_id)
{
    bool good = false;
    int r = 0;

    if (s == NULL) {
        return tx_ok(c->tx) ? reject(c, -E_NOT_FOUND, "no such service") : tx_error(c->tx);
    }
    if (!text_ok(reason, LIMIT_ROLLOUT_TEXT)) {
        return reject(c, -E_INVALID, "a reason is one line of at most %u bytes",
                      LIMIT_ROLLOUT_TEXT);
    }
    if (*snapshot_id == 0 && (r = undo_default(c, s, snapshot_id)) < 0) {
        return r;
    }
    for (size_t i = 0; i < s->n_snapshot_ids; i++) {
        good = good || s->snapshot_ids[i] == *snapshot_id;
    }
    if (!good) {
        return reject(c, -E_NOT_FOUND, "service %.100s keeps no good version %" PRIu64, s->target,
                      *snapshot_id);
    }
    if (s->stable_snapshot_id == *snapshot_id) {
        return reject(c, -E_CONFLICT,
                      s->live_rollout_id != 0
                          ? "it is the stable version: abort the rollout instead"
                          : "it is the stable version already");
    }
    return 0;
}

static int undo(struct core *c, const Pb__RolloutBegin *cmd)
{
    Pb__ServiceRecord *s = (Pb__ServiceRecord *)service_get(c->tx, cmd->service_id);
    Pb__RolloutPlanRecord plan = PB__ROLLOUT_PLAN_RECORD__INIT;
    Pb__RolloutSpec spec = PB__ROLLOUT_SPEC__INIT;
    const Pb__SnapshotRecord *snapshot;
    const Pb__RolloutTarget *target;
    Pb__RolloutRecord *r;
    uint64_t snapshot_id = cmd->snapshot_id;
    const int wrong = undo_check(c, s, cmd->reason, &snapshot_id);

    if (wrong < 0) {
        return wrong;
    }
    snapshot = snapshot_get(c->tx, snapshot_id);
    target = target_of(c, s);
    if (snapshot == NULL || target == NULL) {
        return tx_ok(c->tx) ? reject(c, -E_CONFLICT, "target %.100s is not declared", s->target)
                            : tx_error(c->tx);
    }
    spec.strategy = ROLLOUT_BLUE_GREEN;
    spec.target = s->target;
    spec.version = snapshot->version;
    spec.instances = snapshot->instances;
    plan.spec = &spec;
    plan.target = (Pb__RolloutTarget *)target;
    r = new_record(c, s, snapshot);
    r->undo = true;
    r->protected_ = true; /* somebody who may says so */
    r->by = r->created_by;
    rollout_note_add(c, r, "person",
                     arena_printf(c->arena, "back to %s by %s%s%s", r->version, r->by,
                                  cmd->reason[0] != '\0' ? ": " : "", cmd->reason));
    store(c, s, r, &plan);
    return tx_error(c->tx);
}

int apply_rollout_begin(struct core *c, const Pb__RolloutBegin *cmd)
{
    struct run run;
    Pb__JobRecord *job;
    int r;

    if (cmd->job_id == 0) {
        return undo(c, cmd);
    }
    r = run_load_job(&run, c, cmd->job_id, &job);
    if (r < 0) {
        return r;
    }
    if (!rollout_job_is_open(job) || job->epoch != cmd->epoch) {
        r = reject(c, -E_STALE_EPOCH, "job %" PRIu64 " waits for no rollout of epoch %" PRIu64,
                   cmd->job_id, cmd->epoch);
    } else {
        r = begin_of_job(&run, job, cmd);
    }
    return run_close(&run, r);
}
