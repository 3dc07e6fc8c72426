/* The keywords of jobs that are mappings of their own: artifacts, retry, needs. */
#include "common/base.h"

#include "pipeline/compile.h"

static void read_artifact_texts(struct compile *c, const struct node *n, const char *what,
                                ProtobufCBinaryData **ret, size_t *ret_count)
{
    struct texts t = {0};
    if (!node_is_null(n) &&
        read_texts(c, n, (struct read_texts){.what = what, .single = true, .depth = 10}, &t)) {
        *ret = texts_to_bytes(c->arena, t);
        *ret_count = t.count;
    }
}

static void read_expire_in(struct compile *c, const struct node *n, Pb__ArtifactSpec *spec)
{
    uint64_t ms = 0;
    if (node_is_string(n) && str_eqz(n->text, "never")) {
        spec->never_expires = true;
    } else if (read_duration(c, n, "expire_in", &ms)) {
        spec->expire_in_ms = ms;
        spec->never_expires = ms == 0; /* GitLab: 0 keeps it for ever */
    }
}

void artifacts_read(struct compile *c, const struct node *n, struct job *job)
{
    static const char *const names[] = {"on_success", "on_failure", "always"};
    static const Pb__ArtifactWhen values[] = {PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_SUCCESS,
                                              PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_FAILURE,
                                              PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ALWAYS};
    if (!read_keys(c, n, SCOPE_ARTIFACTS, "artifacts")) {
        return;
    }
    Pb__ArtifactSpec *spec = arena_alloc(c->arena, sizeof(*spec));
    const struct node *when = node_get(n, "when");
    const struct node *expire_in = node_get(n, "expire_in");
    const struct node *name = node_get(n, "name");
    const struct node *untracked = node_get(n, "untracked");
    struct str text;
    size_t i;
    bool b = false;
    pb__artifact_spec__init(spec);
    read_artifact_texts(c, node_get(n, "paths"), "artifacts:paths", &spec->paths, &spec->n_paths);
    read_artifact_texts(c, node_get(n, "exclude"), "artifacts:exclude", &spec->exclude,
                        &spec->n_exclude);
    if (!node_is_null(when) &&
        read_choice(c, when, "artifacts:when", names, ARRAY_LEN(names), &i)) {
        spec->when = values[i];
    }
    if (!node_is_null(expire_in)) {
        read_expire_in(c, expire_in, spec);
    }
    if (!node_is_null(name) && read_name(c, name, "artifacts:name", &text)) {
        spec->name = pb_bytes_ref(text);
    }
    if (!node_is_null(untracked) && read_bool(c, untracked, "artifacts:untracked", &b)) {
        spec->untracked = b;
    }
    if (spec->n_paths > 0 || spec->untracked) {
        job->plan.artifacts = spec;
    }
}

/* GitLab's reasons for a retry, and what they are called here. NULL: it cannot happen here. */
static const struct {
    const char *gitlab;
    const char *ours[3];
} reasons[] = {
    {"always", {"always"}},
    {"api_failure", {NULL}},
    {"archived_failure", {NULL}},
    {"data_integrity_failure", {"artifact_missing", "artifact_failure"}},
    {"job_execution_timeout", {"job_timeout"}},
    {"runner_system_failure", {"system_failure", "worker_lost", "source_failure"}},
    {"runner_unsupported", {"config_error"}},
    {"scheduler_failure", {NULL}},
    {"stale_schedule", {NULL}},
    {"stuck_or_timeout_failure", {"stuck", "worker_lost"}},
    {"unknown_failure", {NULL}},
    {"unmet_prerequisites", {"unmet_prerequisites"}},
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

void retry_read(struct compile *c, const struct node *n, struct job *job)
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

static bool read_need(struct compile *c, const struct node *n, struct need *ret)
{
    *ret = (struct need){.at = n, .artifacts = true};
    if (n->kind != NODE_MAPPING) {
        if (node_is_null(n)) {
            report(c, n, "wrong-type", NULL, "`needs` holds an empty entry");
            return false;
        }
        return read_name(c, n, "needs", &ret->job);
    }
    size_t errors = c->diags->errors;
    read_keys(c, n, SCOPE_NEED, "needs");
    if (c->diags->errors > errors) {
        return false;
    }
    const struct node *job = node_get(n, "job");
    const struct node *artifacts = node_get(n, "artifacts");
    const struct node *optional = node_get(n, "optional");
    if (node_is_null(job)) {
        report(c, n, "missing-key", NULL, "an entry of `needs` must name a `job`");
        return false;
    }
    bool ok = read_name(c, job, "needs:job", &ret->job);
    if (!node_is_null(artifacts)) {
        ok &= read_bool(c, artifacts, "needs:artifacts", &ret->artifacts);
    }
    if (!node_is_null(optional)) {
        ok &= read_bool(c, optional, "needs:optional", &ret->optional);
    }
    return ok;
}

static bool push_need(struct compile *c, const struct node *n, struct needs *ret)
{
    if (ret->count == LIMIT_JOB_NEEDS) {
        report(c, n, "limit", NULL, "more than %u `needs`", LIMIT_JOB_NEEDS);
        return false;
    }
    ret->count += read_need(c, n, &ret->items[ret->count]);
    return true;
}

/* Lists in lists come from !reference; they are as deep as references are nested. */
static bool push_needs(struct compile *c, const struct node *n, struct needs *ret)
{
    bool ok = true;
    for (uint32_t i = 0; ok && i < n->count && compile_charge(c, 1, n); i++) {
        const struct node *item = n->items[i];
        if (item->reference) {
            continue;
        }
        ok = item->kind == NODE_LIST ? push_needs(c, item, ret) : push_need(c, item, ret);
    }
    return ok;
}

bool read_needs(struct compile *c, const struct node *n, struct needs *ret)
{
    struct needs needs = {.present = true};
    if (n->kind == NODE_SCALAR) {
        report(c, n, "wrong-type", "needs: [job]", "`needs` must be a list, found %s",
               node_what(n));
        return false;
    }
    size_t most = n->kind == NODE_LIST && n->weight < LIMIT_JOB_NEEDS ? n->weight : LIMIT_JOB_NEEDS;
    needs.items = arena_array(c->arena, most + 1, sizeof(*needs.items));
    bool ok = n->kind == NODE_LIST ? push_needs(c, n, &needs) : push_need(c, n, &needs);
    *ret = needs;
    return ok;
}
