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

static void add_artifacts(struct buf *out, const Pb__ArtifactSpec *a)
{
    static const char *const names[] = {"on_success", "on_failure", "always"};
    if (!a) {
        return;
    }
    add_bytes_list(out, "artifacts", a->paths, a->n_paths);
    add_bytes_list(out, "artifacts without", a->exclude, a->n_exclude);
    buf_addf(out, "  artifacts when: %s", names[a->when]);
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
}

static void add_limits(struct buf *out, const Pb__PlanJob *job)
{
    static const char *const lost[] = {"requeue", "fail", "wait"};
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
    if (job->image) {
        buf_addf(out, "  image: %s\n", job->image->name);
        add_names(out, "entrypoint", job->image->entrypoint, job->image->n_entrypoint);
    }
    add_names(out, "tags", job->tags, job->n_tags);
    add_when(out, job);
    add_graph(out, plan, job);
    for (size_t i = 0; i < job->n_variables; i++) {
        buf_addf(out, "  %s%s=", job->variables[i]->name, job->variables[i]->raw ? " (raw)" : "");
        add_bytes(out, job->variables[i]->value);
        buf_add_char(out, '\n');
    }
    add_bytes_list(out, "script", job->script, job->n_script);
    add_bytes_list(out, "after", job->after_script, job->n_after_script);
    add_artifacts(out, job->artifacts);
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
    if (plan->on_new_commit != AUTO_CANCEL_NONE) {
        buf_addz(out, "a newer pipeline cancels it\n");
    }
    for (size_t i = 0; i < plan->n_jobs; i++) {
        add_job(out, plan, plan->jobs[i]);
    }
}
