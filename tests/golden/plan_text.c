#include "common/base.h"

#include "tests/golden/plan_text.h"

/* On one line, line breaks written as \n. */
static void add_bytes(struct buf *out, ProtobufCBinaryData b)
{
    for (size_t i = 0; i < b.len; i++) {
        if (b.data[i] == '\n') {
            buf_addz(out, "\\n");
        } else if (b.data[i] < 0x20 || b.data[i] == 0x7f) {
            buf_addf(out, "\\x%02x", b.data[i]);
        } else {
            buf_add_char(out, (char)b.data[i]);
        }
    }
}

static void add_bytes_list(struct buf *out, const char *name, ProtobufCBinaryData *items, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        buf_addf(out, "  %s: ", name);
        add_bytes(out, items[i]);
        buf_add_char(out, '\n');
    }
}

static void add_names(struct buf *out, const char *name, char **items, size_t n)
{
    if (n == 0) {
        return;
    }
    buf_addf(out, "  %s:", name);
    for (size_t i = 0; i < n; i++) {
        buf_addf(out, " [%s]", items[i]);
    }
    buf_add_char(out, '\n');
}

static void add_numbers(struct buf *out, const char *name, const int32_t *items, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        buf_addf(out, "  %s: %d\n", name, items[i]);
    }
}

static void add_when(struct buf *out, const Pb__PlanJob *job)
{
    static const char *const names[] = {"on_success", "on_failure", "always", "manual", "delayed"};
    if (job->when != WHEN_ON_SUCCESS) {
        buf_addf(out, "  when: %s\n", names[job->when]);
    }
    if (job->start_in_ms > 0) {
        buf_addf(out, "  start_in: %" PRIu64 " ms\n", job->start_in_ms);
    }
    if (job->allow_failure) {
        buf_addz(out, "  allow_failure\n");
    }
    add_numbers(out, "allow_failure exit code", job->allow_failure_exit_codes,
                job->n_allow_failure_exit_codes);
}

static void add_graph(struct buf *out, const Pb__Plan *plan, const Pb__PlanJob *job)
{
    if (job->dag && job->n_needs == 0) {
        buf_addz(out, "  needs nothing\n");
    }
    for (size_t i = 0; i < job->n_needs; i++) {
        buf_addf(out, "  needs: %s%s\n", plan->jobs[job->needs[i]->job]->name,
                 job->needs[i]->artifacts ? "" : " (without artifacts)");
    }
    if (job->has_dependencies && job->n_dependencies == 0) {
        buf_addz(out, "  depends on nothing\n");
    }
    for (size_t i = 0; i < job->n_dependencies; i++) {
        buf_addf(out, "  depends on: %s\n", plan->jobs[job->dependencies[i]]->name);
    }
}

/* "  NAME: TEXT", where there is one. */
static void add_field(struct buf *out, const char *name, ProtobufCBinaryData value)
{
    if (value.len > 0) {
        add_bytes_list(out, name, &value, 1);
    }
}

static const char *const keeps[] = {"on_success", "on_failure", "always"};

static void add_outer_needs(struct buf *out, const Pb__PlanJob *job)
{
    for (size_t i = 0; i < job->n_outer_needs; i++) {
        const Pb__OuterNeed *n = job->outer_needs[i];
        buf_addf(out, "  takes artifacts from elsewhere%s\n", n->optional ? ", if there" : "");
        add_field(out, "  pipeline", n->pipeline);
        add_field(out, "  project", n->project);
        add_field(out, "  ref", n->ref);
        add_field(out, "  job", n->job);
    }
}

static void add_reports(struct buf *out, const Pb__ArtifactSpec *a)
{
    for (size_t i = 0; i < a->n_reports; i++) {
        const Pb__ReportSpec *r = a->reports[i];
        buf_addf(out, "  report %s%s%s", r->type, r->format[0] ? " as " : "", r->format);
        for (size_t k = 0; k < r->n_paths; k++) {
            buf_addz(out, " [");
            add_bytes(out, r->paths[k]);
            buf_add_char(out, ']');
        }
        buf_add_char(out, '\n');
    }
}

static void add_caches(struct buf *out, const Pb__PlanJob *job)
{
    for (size_t i = 0; i < job->n_caches; i++) {
        const Pb__CacheSpec *c = job->caches[i];
        buf_addf(out, "  cache: keep %s%s%s\n", keeps[c->when], c->untracked ? ", untracked" : "",
                 c->unprotect ? ", unprotected" : "");
        add_field(out, "  key", c->key);
        add_bytes_list(out, c->key_files_commits ? "  key of commits of" : "  key of", c->key_files,
                       c->n_key_files);
        add_field(out, "  key prefix", c->key_prefix);
        add_field(out, "  policy", c->policy);
        add_bytes_list(out, "  path", c->paths, c->n_paths);
        add_bytes_list(out, "  fallback", c->fallback_keys, c->n_fallback_keys);
    }
}

static void add_environment(struct buf *out, const Pb__Plan *plan, const Pb__PlanJob *job)
{
    static const char *const actions[] = {"start", "prepare", "stop", "verify", "access"};
    const Pb__EnvironmentSpec *e = job->environment;
    if (!e) {
        return;
    }
    buf_addf(out, "  environment: %s (%s), %s", e->name, e->tier, actions[e->action]);
    if (e->has_on_stop) {
        buf_addf(out, ", stopped by %s", plan->jobs[e->on_stop]->name);
    }
    if (e->auto_stop_in_ms > 0) {
        buf_addf(out, ", stops after %" PRIu64 " ms", e->auto_stop_in_ms);
    }
    buf_add_char(out, '\n');
    add_field(out, "  url", e->url);
}

static void add_trigger(struct buf *out, const Pb__PlanJob *job)
{
    static const char *const strategies[] = {"none", "depend", "mirror"};
    const Pb__TriggerSpec *t = job->trigger;
    if (t) {
        buf_addf(out, "  trigger: strategy %s%s%s\n", strategies[t->strategy],
                 t->forward_yaml_variables ? ", forwards yaml variables" : "",
                 t->forward_pipeline_variables ? ", forwards pipeline variables" : "");
        add_field(out, "  config", t->config);
        add_field(out, "  inputs", t->inputs);
    }
}

static void add_wish(struct buf *out, const Pb__RolloutStepWish *w)
{
    buf_addz(out, "    step:");
    if (w->has_scale) {
        buf_addf(out, " scale %u", w->scale);
    }
    if (w->has_weight) {
        buf_addf(out, " weight %u", w->weight_bp);
    }
    if (w->mirror_bp > 0) {
        buf_addf(out, " mirror %u", w->mirror_bp);
    }
    if (w->hold_ms > 0) {
        buf_addf(out, " hold %" PRIu64 " ms", w->hold_ms);
    }
    if (w->analyze_ms > 0) {
        buf_addf(out, " analyze %" PRIu64 " ms%s", w->analyze_ms,
                 w->until_good ? " until good" : "");
    }
    for (size_t i = 0; i < w->n_approve; i++) {
        buf_addf(out, " approve %s (%u)", w->approve[i], w->approvals);
    }
    buf_addf(out, "%s%s\n", w->name[0] != '\0' ? " named " : "", w->name);
    add_bytes_list(out, "      run", w->run, w->n_run);
}

static void add_metric(struct buf *out, const Pb__RolloutMetric *m)
{
    static const char *const rules[] = {"compare", "threshold", "failures"};

    buf_addf(out, "    metric: %s %s tolerance %u threshold %" PRIu64 " failures %u percentile %u",
             m->metric, rules[m->rule], m->tolerance_millis, m->threshold_micros, m->failures,
             m->percentile);
    buf_addf(out, " min %u%s%s%s\n", m->min_events, m->critical ? " critical" : "",
             m->dry_run ? " dry run" : "", m->below ? " below" : "");
}

static void add_rollout(struct buf *out, const Pb__PlanJob *job)
{
    static const char *const strategies[] = {"canary", "blue_green", "rolling"};
    const Pb__RolloutSpec *r = job->rollout;

    if (!r) {
        return;
    }
    buf_addf(out, "  rollout: %s of %s, version %s, group '%s', %u instances\n",
             strategies[r->strategy], r->target, r->version, r->group, r->instances);
    buf_addf(out, "    bake %" PRIu64 " progress %" PRIu64 " tick %" PRIu64 " alpha %u\n",
             r->bake_ms, r->progress_ms, r->tick_ms, r->alpha_millionths);
    buf_addf(out, "    on failure %d%s, thin %d, no data %d, error %d\n", (int)r->on_failure,
             r->rollback_unsafe ? " unsafe" : "", (int)r->on_thin, (int)r->on_no_data,
             (int)r->on_error);
    add_field(out, "    image", r->image);
    add_field(out, "    command", r->command);
    for (size_t i = 0; i < r->n_steps; i++) {
        add_wish(out, r->steps[i]);
    }
    if (r->waves) {
        buf_addf(out, "    waves: first %u size %u unavailable %u surge %u%s hold %" PRIu64 "\n",
                 r->waves->first, r->waves->size_percent, r->waves->max_unavailable_percent,
                 r->waves->max_surge_percent, r->waves->by_place ? " by place" : "",
                 r->waves->hold_ms);
    }
    for (size_t i = 0; i < r->n_analysis; i++) {
        add_metric(out, r->analysis[i]);
    }
}

static void add_release(struct buf *out, const Pb__PlanJob *job)
{
    const Pb__ReleaseSpec *r = job->release;
    if (r) {
        add_field(out, "release", r->tag_name);
        add_field(out, "  message", r->tag_message);
        add_field(out, "  name", r->name);
        add_field(out, "  description", r->description);
        add_field(out, "  ref", r->ref);
        add_field(out, "  released at", r->released_at);
        add_bytes_list(out, "  milestone", r->milestones, r->n_milestones);
        for (size_t i = 0; i < r->n_links; i++) {
            add_field(out, "  link", r->links[i]->name);
            add_field(out, "    url", r->links[i]->url);
            add_field(out, "    filepath", r->links[i]->filepath);
            add_field(out, "    type", r->links[i]->type);
        }
    }
    if (job->pages) {
        add_field(out, "pages", job->pages->publish);
        add_field(out, "  prefix", job->pages->path_prefix);
        if (job->pages->expire_in_ms > 0) {
            buf_addf(out, "    expire in %" PRIu64 " ms\n", job->pages->expire_in_ms);
        }
    }
}

static void add_tokens(struct buf *out, const Pb__PlanJob *job)
{
    for (size_t i = 0; i < job->n_id_tokens; i++) {
        buf_addf(out, "  id token %s\n", job->id_tokens[i]->name);
        add_bytes_list(out, "  for", job->id_tokens[i]->audiences, job->id_tokens[i]->n_audiences);
    }
    if (job->manual_confirmation[0]) {
        buf_addf(out, "  asks: %s\n", job->manual_confirmation);
    }
    add_field(out, "coverage", job->coverage);
}

static void add_image(struct buf *out, const char *what, const Pb__Image *image)
{
    if (!image) {
        return;
    }
    buf_addf(out, "  %s: %s\n", what, image->name);
    add_names(out, "entrypoint", image->entrypoint, image->n_entrypoint);
    add_names(out, "pull policy", image->pull_policy, image->n_pull_policy);
    if (image->user[0] || image->platform[0]) {
        buf_addf(out, "  user [%s], platform [%s]\n", image->user, image->platform);
    }
}

static void add_variables(struct buf *out, const char *indent, Pb__Variable **items, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        buf_addf(out, "%s%s%s=", indent, items[i]->name, items[i]->raw ? " (raw)" : "");
        add_bytes(out, items[i]->value);
        buf_add_char(out, '\n');
    }
}

static void add_containers(struct buf *out, const Pb__PlanJob *job)
{
    add_image(out, "image", job->image);
    for (size_t i = 0; i < job->n_services; i++) {
        const Pb__Service *s = job->services[i];
        add_image(out, "service", s->image);
        add_field(out, "  alias", s->alias);
        add_names(out, "command", s->command, s->n_command);
        add_variables(out, "    ", s->variables, s->n_variables);
    }
}

static void add_artifacts(struct buf *out, const Pb__ArtifactSpec *a)
{
    if (!a) {
        return;
    }
    add_bytes_list(out, "artifacts", a->paths, a->n_paths);
    add_bytes_list(out, "artifacts without", a->exclude, a->n_exclude);
    buf_addf(out, "  artifacts when: %s", keeps[a->when]);
    if (a->never_expires) {
        buf_addz(out, ", never expire");
    } else if (a->expire_in_ms > 0) {
        buf_addf(out, ", expire in %" PRIu64 " ms", a->expire_in_ms);
    }
    if (a->name.len > 0) {
        buf_addz(out, ", name ");
        add_bytes(out, a->name);
    }
    buf_addz(out, a->untracked ? ", untracked\n" : "\n");
    add_reports(out, a);
    add_field(out, "  exposed as", a->expose_as);
    if (a->access[0]) {
        buf_addf(out, "    access: %s\n", a->access);
    }
}

static void add_limits(struct buf *out, const Pb__PlanJob *job)
{
    static const char *const lost[] = {"as the pool says", "fail", "wait", "requeue"};
    if (job->retry_max > 0) {
        buf_addf(out, "  retry: %u\n", job->retry_max);
    }
    add_names(out, "retry when", job->retry_when, job->n_retry_when);
    add_numbers(out, "retry exit code", job->retry_exit_codes, job->n_retry_exit_codes);
    if (job->timeout_ms > 0) {
        buf_addf(out, "  timeout: %" PRIu64 " ms\n", job->timeout_ms);
    }
    if (job->interruptible) {
        buf_addz(out, "  interruptible\n");
    }
    if (job->pool[0]) {
        buf_addf(out, "  pool: %s\n", job->pool);
    }
    if (job->cpu_millis || job->memory_bytes || job->disk_bytes) {
        buf_addf(out, "  wants: cpu %u, memory %" PRIu64 ", disk %" PRIu64 "\n", job->cpu_millis,
                 job->memory_bytes, job->disk_bytes);
    }
    if (job->resource_group[0]) {
        buf_addf(out, "  resource_group: %s\n", job->resource_group);
    }
    if (job->executor[0]) {
        buf_addf(out, "  executor: %s\n", job->executor);
    }
    if (job->priority != 0) {
        buf_addf(out, "  priority: %d\n", job->priority);
    }
    if (job->on_worker_lost) {
        buf_addf(out, "  on_worker_lost: %s\n", lost[job->on_worker_lost]);
    }
}

static void add_job(struct buf *out, const Pb__Plan *plan, const Pb__PlanJob *job)
{
    buf_addf(out, "job %s [%s]\n", job->name, plan->stages[job->stage]);
    if (job->node_total > 0) {
        buf_addf(out, "  %u of %u of %s\n", job->node_index, job->node_total, job->base_name);
    }
    add_containers(out, job);
    add_names(out, "tags", job->tags, job->n_tags);
    add_when(out, job);
    add_graph(out, plan, job);
    add_outer_needs(out, job);
    add_variables(out, "  ", job->variables, job->n_variables);
    add_bytes_list(out, "before sources", job->pre_get_sources, job->n_pre_get_sources);
    add_bytes_list(out, "script", job->script, job->n_script);
    add_bytes_list(out, "after", job->after_script, job->n_after_script);
    add_artifacts(out, job->artifacts);
    add_caches(out, job);
    add_environment(out, plan, job);
    add_trigger(out, job);
    add_rollout(out, job);
    add_release(out, job);
    add_tokens(out, job);
    add_limits(out, job);
    add_names(out, "nothing acts on", job->unsupported, job->n_unsupported);
}

void plan_text(const Pb__Plan *plan, struct buf *out)
{
    buf_addz(out, "stages:");
    for (size_t i = 0; i < plan->n_stages; i++) {
        buf_addf(out, " %s", plan->stages[i]);
    }
    buf_add_char(out, '\n');
    if (plan->name[0]) {
        buf_addf(out, "name: %s\n", plan->name);
    }
    if (plan->on_job_failure) {
        buf_addz(out, "a failed job cancels the others\n");
    }
    if (plan->on_new_commit) {
        buf_addf(out, "a newer pipeline cancels %s\n",
                 plan->on_new_commit ==
                         PB__AUTO_CANCEL_ON_NEW_COMMIT__AUTO_CANCEL_ON_NEW_COMMIT_INTERRUPTIBLE
                     ? "its interruptible jobs"
                     : "it");
    }
    for (size_t i = 0; i < plan->n_jobs; i++) {
        add_job(out, plan, plan->jobs[i]);
    }
}
