#include "common/base.h"

#include "broker/api/view.h"

#include "broker/api/action.h"
#include "broker/core/query.h"
#include "common/crypto.h"
#include "common/limits.h"

json_t *json_text(const char *s)
{
    json_t *text = s && s[0] != '\0' ? json_string(s) : NULL;
    return text ? text : json_null();
}

json_t *json_time(uint64_t realtime_ms)
{
    char text[32];
    return realtime_ms == 0 ? json_null() : json_string(str_time(realtime_ms, text, sizeof(text)));
}

json_t *json_id(uint64_t id)
{
    return id == 0 ? json_null() : json_integer((json_int_t)id);
}

const char *when_text(Pb__When when)
{
    static const char *const texts[] = {[WHEN_ON_SUCCESS] = "on_success",
                                        [WHEN_ON_FAILURE] = "on_failure",
                                        [WHEN_ALWAYS] = "always",
                                        [WHEN_MANUAL] = "manual",
                                        [WHEN_DELAYED] = "delayed"};
    check((size_t)when < ARRAY_LEN(texts));
    return texts[when];
}

#define DEFAULT_WEIGHT 100u /* of a project that says nothing */

static json_t *json_number(uint64_t n)
{
    return json_integer((json_int_t)n);
}

json_t *json_digest(ProtobufCBinaryData digest)
{
    char hex[2 * SHA256_BYTES + 1];
    if (digest.len != SHA256_BYTES) {
        return json_null();
    }
    str_to_hex(digest.data, digest.len, hex);
    return json_string(hex);
}

json_t *view_text_list(char *const *items, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++) {
        json_array_append_new(list, json_text(items[i]));
    }
    return list;
}

static const char *project_name(struct tx *tx, uint64_t id)
{
    const Pb__ProjectRecord *p = project_get(tx, id);
    return p ? p->name : NULL;
}

json_t *view_project(const Pb__ProjectRecord *p)
{
    return json_pack("{s:o, s:o, s:o, s:I, s:I, s:o, s:o, s:o, s:b}", "id", json_id(p->id), "name",
                     json_text(p->name), "created_at", json_time(p->created_ms), "weight",
                     (json_int_t)(p->weight > 0 ? p->weight : DEFAULT_WEIGHT), "max_running",
                     (json_int_t)p->max_running, "default_branch", json_text(p->default_branch),
                     "protected_branches",
                     view_text_list(p->protected_branches, p->n_protected_branches),
                     "protected_tags", view_text_list(p->protected_tags, p->n_protected_tags),
                     "declared", (int)p->declared);
}

json_t *view_pool(const struct pool_line *p)
{
    static const Pb__PoolRecord nothing = PB__POOL_RECORD__INIT;
    const Pb__PoolRecord *row = p->row ? p->row : &nothing;
    return json_pack(
        "{s:o, s:o, s:b, s:b, s:I, s:I, s:I, s:b, s:I, s:I, s:I, s:s, s:b, s:I, s:I, s:I, "
        "s:I, s:o}",
        "name", json_text(p->name), "projects", view_text_list(row->projects, row->n_projects),
        "protected", (int)row->protected_, "locked", (int)row->locked, "max_running",
        (json_int_t)row->max_running, "project_max_running", (json_int_t)row->project_max_running,
        "queue_timeout_ms", (json_int_t)row->queue_timeout_ms, "preempt", (int)row->preempt,
        "heartbeat_ms", (json_int_t)row->heartbeat_ms, "suspect_ms", (json_int_t)row->suspect_ms,
        "lease_ms", (json_int_t)row->lease_ms, "on_worker_lost",
        worker_loss_text(row->on_worker_lost), "declared", (int)row->declared, "workers",
        (json_int_t)p->workers, "online", (json_int_t)p->online, "slots", (json_int_t)p->slots,
        "busy", (json_int_t)p->busy, "created_at", json_time(row->created_ms));
}

json_t *view_pipeline(struct tx *tx, const Pb__PipelineRecord *p)
{
    const Pb__JobRecord *parent = pipeline_parent_job(tx, p);
    return json_pack("{s:o, s:o, s:o, s:s, s:o, s:o, s:b, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "id",
                     json_id(p->id), "iid", json_id(p->iid), "project",
                     json_text(project_name(tx, p->project_id)), "status", status_text(p->status),
                     "ref", json_text(p->ref), "sha", json_text(p->sha), "tag", (int)p->tag,
                     "origin", json_text(p->origin), "name", json_text(p->name),
                     "parent_pipeline_id", json_id(parent ? parent->pipeline_id : 0),
                     "parent_job_id", json_id(p->parent_job_id), "created_at",
                     json_time(p->created_ms), "started_at", json_time(p->started_ms),
                     "finished_at", json_time(p->finished_ms));
}

/* Hundredths of a percent as a percentage. */
static json_t *coverage(bool has, uint64_t hundredths)
{
    return has ? json_real((double)hundredths / 100) : json_null();
}

json_t *view_pipeline_whole(struct tx *tx, const Pb__PipelineRecord *p)
{
    json_t *stages = json_array();
    json_t *jobs = json_array();
    uint64_t covered = 0; /* the average over the jobs that say something */
    uint64_t covered_jobs = 0;
    for (uint32_t i = 0; i < p->stage_count; i++) {
        const Pb__StageRecord *stage = stage_get(tx, p->id, i);
        if (stage) {
            json_array_append_new(stages, json_pack("{s:o, s:s}", "name", json_text(stage->name),
                                                    "status", status_text(stage->status)));
        }
    }
    for (uint32_t i = 0; i < p->job_count; i++) {
        const Pb__JobRecord *job = job_get(tx, p->first_job_id + i);
        if (job) {
            json_array_append_new(jobs, view_job(tx, job));
            covered += job->has_coverage ? job->coverage_hundredths : 0;
            covered_jobs += job->has_coverage;
        }
    }
    json_t *whole = view_pipeline(tx, p);
    json_object_set_new(whole, "coverage",
                        coverage(covered_jobs > 0, covered_jobs > 0
                                                       ? (covered + covered_jobs / 2) / covered_jobs
                                                       : 0));
    json_object_set_new(whole, "stages", stages);
    json_object_set_new(whole, "jobs", jobs);
    return whole;
}

/* null where no script's exit was seen. */
static json_t *exit_code(bool success, bool failed, Pb__Reason reason, int32_t code)
{
    if (success || (failed && reason == REASON_SCRIPT_FAILURE)) {
        return json_integer(code);
    }
    return json_null();
}

static json_t *reason(Pb__Reason r)
{
    return r == REASON_NONE ? json_null() : json_text(reason_text(r));
}

/* What it asks of its worker, and its place among others. */
static void add_wishes(json_t *job, struct tx *tx, const Pb__JobRecord *j)
{
    static const Pb__ClassRecord nothing = PB__CLASS_RECORD__INIT;
    const Pb__ClassRecord *class = class_get(tx, j->class_id);
    class = class ? class : &nothing;
    json_object_set_new(job, "tags", view_text_list(class->tags, class->n_tags));
    json_object_set_new(job, "executor", json_text(class->executor));
    json_object_set_new(job, "pool", json_text(class->pool));
    json_object_set_new(job, "cpu_millis", json_number(class->cpu_millis));
    json_object_set_new(job, "memory_bytes", json_number(class->memory_bytes));
    json_object_set_new(job, "disk_bytes", json_number(class->disk_bytes));
    json_object_set_new(job, "priority", json_integer(j->priority));
    json_object_set_new(job, "resource_group", json_text(j->resource_group));
    json_object_set_new(job, "interruptible", json_boolean(j->interruptible));
    json_object_set_new(job, "starts_at",
                        json_time(j->state == JOB_SCHEDULED ? j->timer_due_ms : 0));
}

/* null: no `needs:`, the job waits for the stages before it. */
static json_t *job_needs(const Pb__JobRecord *j)
{
    json_t *needs = j->dag ? json_array() : json_null();
    for (size_t i = 0; j->dag && i < j->n_needs; i++) {
        json_array_append_new(needs, json_id(j->needs[i]));
    }
    return needs;
}

static const char *action_text(Pb__EnvironmentAction action)
{
    static const char *const texts[] = {"start", "prepare", "stop", "verify", "access"};
    check((size_t)action < ARRAY_LEN(texts));
    return texts[action];
}

/* null: the job has none. */
static json_t *job_environment(struct tx *tx, const Pb__JobRecord *j)
{
    const Pb__EnvironmentRecord *e = j->environment_id != 0 ? environment_get(tx, j->environment_id)
                                                            : NULL;
    if (!e) {
        return json_null();
    }
    return json_pack("{s:o, s:o, s:s, s:o}", "id", json_id(e->id), "name", json_text(e->name),
                     "action", action_text(j->environment_action), "deployment_id",
                     json_id(j->deployment_id));
}

/* What a user has to be told before the job is started or waited for. */
static void add_warnings(json_t *job, struct tx *tx, const Pb__JobRecord *j)
{
    const Pb__PlanJob *plan = j->confirm || j->unsupported
                                  ? plan_job_get(tx, j->pipeline_id, j->index)
                                  : NULL;
    json_object_set_new(job, "manual_confirmation",
                        json_text(plan ? plan->manual_confirmation : NULL));
    json_object_set_new(job, "unsupported",
                        plan ? view_text_list(plan->unsupported, plan->n_unsupported)
                             : json_array());
}

static const char *strategy_text(const Pb__JobRecord *j)
{
    static const char *const texts[] = {"none", "depend", "mirror"};
    check((size_t)j->trigger_strategy < ARRAY_LEN(texts));
    return j->trigger ? texts[j->trigger_strategy] : NULL;
}

json_t *view_job(struct tx *tx, const Pb__JobRecord *j)
{
    const Pb__StageRecord *stage = j->pipeline_id > 0 ? stage_get(tx, j->pipeline_id, j->stage)
                                                      : NULL;
    const Pb__AttemptRecord *attempt = j->attempt > 0 ? attempt_get(tx, j->id, j->attempt) : NULL;
    json_t *job = json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:s, s:s, s:b, s:o, s:o, s:o, s:o, s:o}", "id", json_id(j->id),
        "pipeline_id", json_id(j->pipeline_id), "project",
        json_text(project_name(tx, j->project_id)), "name", json_text(j->name), "stage",
        json_text(stage ? stage->name : NULL), "status", job_state_text(j->state), "when",
        when_text(j->when), "allow_failure", (int)j->allow_failure, "reason", reason(j->reason),
        "exit_code",
        exit_code(j->state == JOB_SUCCESS, j->state == JOB_FAILED, j->reason, j->exit_code),
        "attempt", json_id(j->attempt), "worker", json_text(attempt ? attempt->worker_name : NULL),
        "needs", job_needs(j));
    add_wishes(job, tx, j);
    json_object_set_new(job, "created_at", json_time(j->created_ms));
    json_object_set_new(job, "queued_at", json_time(j->queued_ms));
    json_object_set_new(job, "started_at", json_time(j->started_ms));
    json_object_set_new(job, "finished_at", json_time(j->finished_ms));
    bool ran = j->started_ms > 0 && j->finished_ms >= j->started_ms;
    json_object_set_new(job, "duration_ms",
                        ran ? json_number(j->finished_ms - j->started_ms) : json_null());
    json_object_set_new(job, "coverage", coverage(j->has_coverage, j->coverage_hundredths));
    json_object_set_new(job, "environment", job_environment(tx, j));
    json_object_set_new(job, "trigger", json_text(strategy_text(j)));
    json_object_set_new(job, "child_pipeline_id", json_id(j->child_pipeline_id));
    add_warnings(job, tx, j);
    return job;
}

static json_t *view_attempt(const Pb__AttemptRecord *a)
{
    return json_pack(
        "{s:o, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:o}", "attempt",
        json_id(a->attempt), "epoch", json_id(a->epoch), "worker", json_text(a->worker_name),
        "status", job_state_text(a->state), "reason", reason(a->reason), "exit_code",
        exit_code(a->state == JOB_SUCCESS, a->state == JOB_FAILED, a->reason, a->exit_code),
        "detail", json_text(a->detail), "assigned_at", json_time(a->assigned_ms), "started_at",
        json_time(a->started_ms), "finished_at", json_time(a->finished_ms), "log_size",
        json_number(a->log_size), "log_complete", (int)a->log_complete, "action",
        action_view(a->action));
}

/* The digest is what a blob is fetched by: of those that are not for all it is not shown. */
static json_t *view_artifact(const Pb__ArtifactRecord *a)
{
    const bool for_all = a->access[0] == '\0' || strcmp(a->access, "all") == 0;
    return json_pack(
        "{s:o, s:o, s:s, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "id", json_id(a->id), "attempt",
        json_id(a->attempt), "type", artifact_is_archive(a->type) ? "archive" : a->type, "format",
        json_text(a->format), "access", a->access[0] != '\0' ? a->access : "all", "expose_as",
        json_bytes(a->expose_as), "digest", for_all ? json_digest(a->digest) : json_null(), "size",
        json_number(a->size), "file_count", json_number(a->file_count), "name", json_text(a->name),
        "expires_at", json_time(a->expires_ms));
}

/* What a job without a pipeline runs: there is no file to look it up in. */
static json_t *job_script(struct tx *tx, const Pb__JobRecord *j)
{
    const struct key k = key_u64(j->id);
    const Pb__PlanJob *plan = NULL;
    if (j->pipeline_id == 0) {
        plan = (const Pb__PlanJob *)tx_get_msg(tx, T_JOB_PLAN, &k, &pb__plan_job__descriptor);
    }
    json_t *lines = plan ? json_array() : json_null();
    for (size_t i = 0; plan && i < plan->n_script; i++) {
        json_array_append_new(lines, json_bytes(plan->script[i]));
    }
    return lines;
}

json_t *view_job_whole(struct tx *tx, const Pb__JobRecord *j)
{
    json_t *attempts = json_array();
    json_t *artifacts = json_array();
    uint64_t newest = 0;
    struct key prefix = key_u64(j->id);
    struct cursor c;
    for (tx_seek(&c, tx, T_ATTEMPT, key_str(&prefix), NULL); c.valid; tx_next(&c)) {
        Pb__AttemptRecord *a;
        if (PB_UNPACK(tx_arena(tx), attempt_record, c.value.p, c.value.n, LIMIT_COMMAND, &a) == 0) {
            json_array_append_new(attempts, view_attempt(a));
            newest = a->attempt;
        }
    }
    /* The running one of a job without a pipeline has no row. */
    const Pb__AttemptRecord *open = j->attempt > newest ? attempt_get(tx, j->id, j->attempt) : NULL;
    if (open) {
        json_array_append_new(attempts, view_attempt(open));
    }
    for (tx_seek(&c, tx, T_ARTIFACT, key_str(&prefix), NULL); c.valid; tx_next(&c)) {
        Pb__ArtifactRecord *a;
        if (PB_UNPACK(tx_arena(tx), artifact_record, c.value.p, c.value.n, LIMIT_COMMAND, &a) ==
            0) {
            json_array_append_new(artifacts, view_artifact(a));
        }
    }
    json_t *whole = view_job(tx, j);
    json_object_set_new(whole, "attempts", attempts);
    json_object_set_new(whole, "artifacts", artifacts);
    json_object_set_new(whole, "script", job_script(tx, j));
    json_object_set_new(whole, "submitted_by", json_text(j->submitted_by));
    json_object_set_new(whole, "keep_ms",
                        j->pipeline_id == 0 ? json_number(j->keep_ms) : json_null());
    return whole;
}

json_t *view_worker(struct tx *tx, struct fleet *fleet, const Pb__WorkerRecord *w)
{
    struct fleet_worker live = {0};
    struct worker_load load = {0};
    fleet_worker_state(fleet, w->id, &live);
    json_t *jobs = json_array();
    struct key prefix = key_u64(w->id);
    struct cursor c;
    for (tx_seek(&c, tx, T_WORKER_JOB, key_str(&prefix), NULL); c.valid; tx_next(&c)) {
        json_array_append_new(jobs, json_id(key_read_u64(c.key, sizeof(uint64_t))));
        *(c.value.n > 0 ? &load.actions : &load.slots) += 1;
    }
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:b, s:b, s:b, s:b, s:o, "
        "s:o, s:o, s:b, s:o, s:o, s:o, s:o}",
        "id", json_id(w->id), "name", json_text(w->name), "pool", json_text(w->pool), "host",
        json_text(w->host), "version", json_text(w->version), "executors",
        view_text_list(w->executors, w->n_executors), "tags", view_text_list(w->tags, w->n_tags),
        "slots", json_number(w->slots), "busy", json_number(load.slots), "actions",
        json_number(w->actions), "actions_busy", json_number(load.actions), "online",
        (int)live.online, "suspect", (int)live.suspect, "paused", (int)w->paused, "draining",
        (int)w->draining, "leaves", (int)w->leave, "jobs", jobs, "last_heard_at",
        json_time(MAX(live.last_heard_ms, w->last_hello_ms)), "certified_until",
        json_time(w->certified_until_ms), "revoked", (int)w->revoked, "drain_until",
        json_time(w->drain_until_ms), "refuses",
        live.online && live.health.refuses[0] != '\0' ? json_text(live.health.refuses)
                                                      : json_null(),
        "clock_skew_ms",
        live.online && live.health.has_clock ? json_integer((json_int_t)live.health.clock_skew_ms)
                                             : json_null(),
        "disk_free_bytes",
        live.online && live.health.disk_free_bytes > 0 ? json_number(live.health.disk_free_bytes)
                                                       : json_null());
}

json_t *view_event(const Pb__EventRecord *e)
{
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "seq",
                     json_id(e->seq), "time", json_time(e->time_ms), "kind", json_text(e->kind),
                     "project_id", json_id(e->project_id), "pipeline_id", json_id(e->pipeline_id),
                     "job_id", json_id(e->job_id), "attempt", json_id(e->attempt), "worker_id",
                     json_id(e->worker_id), "from", json_text(e->from), "to", json_text(e->to),
                     "name", json_text(e->name), "detail", json_text(e->detail));
}

static json_t *view_notes(const struct diag *d)
{
    json_t *list = json_array();
    for (size_t i = 0; i < d->note_count; i++) {
        const struct diag_note *n = &d->notes[i];
        json_array_append_new(list,
                              json_pack("{s:o, s:o, s:o, s:o}", "message", json_text(n->message),
                                        "file", json_text(n->file), "line", json_id(n->line),
                                        "column", json_id(n->column)));
    }
    return list;
}

json_t *view_diags(const struct diags *d)
{
    json_t *list = json_array();
    for (size_t i = 0; i < d->count; i++) {
        const struct diag *x = &d->items[i];
        json_t *o = json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o}", "level",
                              x->level == DIAG_ERROR ? "error" : "warning", "code", x->code, "file",
                              json_text(x->file), "line", json_id(x->line), "column",
                              json_id(x->column), "length", json_id(x->length), "message",
                              json_text(x->message), "hint", json_text(x->hint));
        json_object_set_new(o, "end_line", json_id(x->end_line));
        json_object_set_new(o, "end_column",
                            json_id(x->end_column == UINT32_MAX ? 0 : x->end_column));
        json_object_set_new(o, "notes", view_notes(x));
        json_array_append_new(list, o);
    }
    return list;
}
