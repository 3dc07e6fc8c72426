/* retry: how often, for which reasons, for which exit codes. */
#include "common/base.h"

#include "pipeline/compile.h"

/* GitLab's reasons for a retry, and what they are called here. NULL: it cannot happen here. */
static const struct {
    const char *gitlab;
    const char *ours[3];
} reasons[] = {
    {"always", {"always"}},
    {"api_failure", {NULL}},
    {"archived_failure", {NULL}},
    {"bridge_pipeline_is_child_pipeline", {NULL}},
    {"builds_disabled", {NULL}},
    {"ci_quota_exceeded", {NULL}},
    {"data_integrity_failure", {"artifact_missing", "artifact_failure"}},
    {"deployment_rejected", {NULL}},
    {"downstream_bridge_project_not_found", {NULL}},
    {"downstream_pipeline_creation_failed", {NULL}},
    {"environment_creation_failure", {NULL}},
    {"failed_outdated_deployment_job", {NULL}},
    {"forward_deployment_failure", {NULL}},
    {"insufficient_bridge_permissions", {NULL}},
    {"insufficient_upstream_permissions", {NULL}},
    {"invalid_bridge_trigger", {NULL}},
    {"ip_restriction_failure", {NULL}},
    {"job_execution_timeout", {"job_timeout"}},
    {"missing_dependency_failure", {"artifact_missing"}},
    {"no_matching_runner", {"stuck"}},
    {"pipeline_loop_detected", {NULL}},
    {"protected_environment_failure", {NULL}},
    {"reached_downstream_pipeline_trigger_rate_limit", {NULL}},
    {"reached_max_descendant_pipelines_depth", {NULL}},
    {"reached_max_pipeline_hierarchy_size", {NULL}},
    {"runner_system_failure", {"system_failure", "worker_lost", "source_failure"}},
    {"runner_unsupported", {"config_error"}},
    {"scheduler_failure", {NULL}},
    {"secrets_provider_not_found", {NULL}},
    {"stale_schedule", {NULL}},
    {"stuck_or_timeout_failure", {"stuck", "worker_lost"}},
    {"trace_size_exceeded", {NULL}},
    {"unknown_failure", {NULL}},
    {"unmet_prerequisites", {"unmet_prerequisites"}},
    {"upstream_bridge_project_not_found", {NULL}},
    {"user_blocked", {NULL}},
};

/* Davit's own reasons are the values of pb.Reason: "REASON_WORKER_LOST" is "worker_lost". */
static const char *own_reason(struct compile *c, size_t i)
{
    char *name = arena_strdup(c->arena, str_from(pb__reason__descriptor.values[i].name));
    for (char *p = name; *p; p++) {
        *p = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;
    }
    return name + strlen("REASON_");
}

static void add_reason(struct texts *t, const char *name)
{
    for (size_t i = 0; i < t->count; i++) {
        if (str_eqz(t->items[i], name)) {
            return;
        }
    }
    t->items[t->count++] = str_from(name);
}

static void read_reason(struct compile *c, const struct node *n, struct texts *ret)
{
    const char *names[ARRAY_LEN(reasons) + 64];
    size_t own_count = pb__reason__descriptor.n_values;
    size_t count = 0;
    size_t i;
    check(own_count <= 64);
    for (size_t k = 0; k < ARRAY_LEN(reasons); k++) {
        names[count++] = reasons[k].gitlab;
    }
    for (size_t k = 1; k < own_count; k++) { /* not REASON_NONE */
        names[count++] = own_reason(c, k);
    }
    if (!read_choice(c, n, "retry:when", names, count, &i)) {
        return;
    }
    if (i >= ARRAY_LEN(reasons)) {
        add_reason(ret, names[i]);
        return;
    }
    for (size_t k = 0; k < ARRAY_LEN(reasons[i].ours) && reasons[i].ours[k]; k++) {
        add_reason(ret, reasons[i].ours[k]);
    }
}

static void read_reasons(struct compile *c, const struct node *n, struct job *job)
{
    bool list = n->kind == NODE_LIST;
    size_t count = list ? n->count : 1;
    struct texts t = {0};
    if (count > 64) {
        report(c, n, "limit", NULL, "`retry:when`: more than 64 reasons");
        return;
    }
    t.items = arena_array(c->arena, 3 * count + 1, sizeof(*t.items));
    for (size_t i = 0; i < count; i++) {
        read_reason(c, list ? n->items[i] : n, &t);
    }
    if (t.count == 0) {
        job->plan.retry_max = 0; /* none of them can happen: the empty list would mean all */
    }
    job->plan.retry_when = texts_to_strings(c->arena, t);
    job->plan.n_retry_when = t.count;
}

static void read_retry_max(struct compile *c, const struct node *n, struct job *job)
{
    int64_t v = 0;
    if (read_number(c, n, "retry", 0, 2, &v)) {
        job->plan.retry_max = (uint32_t)v;
    }
}

static void read_retry(struct compile *c, const struct node *n, struct job *job)
{
    if (n->kind != NODE_MAPPING) {
        read_retry_max(c, n, job);
        return;
    }
    if (!read_keys(c, n, SCOPE_RETRY, "retry")) {
        return;
    }
    const struct node *max = node_get(n, "max");
    const struct node *when = node_get(n, "when");
    const struct node *codes = node_get(n, "exit_codes");
    if (!node_is_null(max)) {
        read_retry_max(c, max, job);
    }
    if (!node_is_null(when)) {
        read_reasons(c, when, job);
    }
    if (!node_is_null(codes)) {
        read_exit_codes(c, codes, &job->plan.retry_exit_codes, &job->plan.n_retry_exit_codes);
    }
}

/* What is made of one: many jobs share it by `default` and `extends`. */
struct retry {
    uint32_t max;
    char **when;
    size_t when_count;
    int32_t *exit_codes;
    size_t exit_code_count;
};

void retry_read(struct compile *c, const struct node *n, struct job *job)
{
    struct retry *known = memo_get(&c->retries, n);
    size_t messages = c->diags->errors + c->diags->warnings;
    if (known) {
        job->plan.retry_max = known->max;
        job->plan.retry_when = known->when;
        job->plan.n_retry_when = known->when_count;
        job->plan.retry_exit_codes = known->exit_codes;
        job->plan.n_retry_exit_codes = known->exit_code_count;
        return;
    }
    read_retry(c, n, job);
    if (c->diags->errors + c->diags->warnings == messages) {
        known = arena_alloc(c->arena, sizeof(*known));
        *known = (struct retry){.max = job->plan.retry_max,
                                .when = job->plan.retry_when,
                                .when_count = job->plan.n_retry_when,
                                .exit_codes = job->plan.retry_exit_codes,
                                .exit_code_count = job->plan.n_retry_exit_codes};
        memo_set(c->arena, &c->retries, n, known);
    }
}
