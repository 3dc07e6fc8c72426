/* pages: a folder of the job that is published. A job called `pages` publishes unless it says
 * `pages: false`; others do where they say `pages: true`, or how. */
#include "common/base.h"

#include "pipeline/compile.h"

static const struct str usual_folder = {"public", 6};
/* What stands beside the main site is a preview, and goes by itself, as in GitLab. */
#define PREVIEW_MS (24ull * 3600 * 1000)

static void read_path(struct compile *c, const struct node *n, const char *what,
                      ProtobufCBinaryData *ret)
{
    struct str text;
    if (read_name(c, n, what, &text)) {
        *ret = pb_bytes_ref(text);
    }
}

static void read_how(struct compile *c, const struct node *n, Pb__PagesSpec *spec)
{
    const struct node *expire_in = key_of(n, "expire_in");
    uint64_t ms = 0;
    if (!read_keys(c, n, SCOPE_PAGES, "pages")) {
        return;
    }
    if (key_of(n, "publish")) {
        read_path(c, key_of(n, "publish"), "pages:publish", &spec->publish);
    }
    if (key_of(n, "path_prefix") && !str_eqz(key_of(n, "path_prefix")->text, "")) {
        read_path(c, key_of(n, "path_prefix"), "pages:path_prefix", &spec->path_prefix);
    }
    spec->expire_in_ms = spec->path_prefix.len > 0 && !expire_in ? PREVIEW_MS : 0;
    if (expire_in && !(node_is_string(expire_in) && str_eqz(expire_in->text, "never")) &&
        read_duration(c, expire_in, "pages:expire_in", &ms)) {
        spec->expire_in_ms = ms > LIMIT_EXPIRE_MS ? 0 : ms;
    }
}

static Pb__PagesSpec *new_pages(struct compile *c)
{
    Pb__PagesSpec *spec = arena_alloc(c->arena, sizeof(*spec));
    pb__pages_spec__init(spec);
    return spec;
}

void pages_read(struct compile *c, const struct node *n, struct job *job)
{
    bool yes = true;
    if (n->kind != NODE_MAPPING && !read_bool(c, n, "pages", &yes)) {
        return;
    }
    if (yes) {
        job->plan.pages = new_pages(c);
    }
    if (n->kind == NODE_MAPPING) {
        read_how(c, n, job->plan.pages);
    }
}

/* The older place of pages:publish. */
void publish_read(struct compile *c, const struct node *n, struct job *job)
{
    struct str text;
    report_warning(c, n, "deprecated", "pages: { publish: FOLDER }",
                   "`publish` is the old name of `pages:publish`");
    if (read_name(c, n, "publish", &text)) {
        job->publish = text;
    }
}

/* The published folder is among the artifacts, as in GitLab. */
static void add_artifact(struct compile *c, struct job *job)
{
    Pb__ArtifactSpec *old = job->plan.artifacts;
    Pb__ArtifactSpec *spec = arena_alloc(c->arena, sizeof(*spec));
    pb__artifact_spec__init(spec);
    if (old) {
        *spec = *old;
    }
    for (size_t i = 0; i < spec->n_paths; i++) {
        if (str_eq(pb_str(spec->paths[i]), pb_str(job->plan.pages->publish))) {
            return;
        }
    }
    spec->paths = arena_array(c->arena, spec->n_paths + 1, sizeof(*spec->paths));
    for (size_t i = 0; i < spec->n_paths; i++) {
        spec->paths[i] = old->paths[i];
    }
    spec->paths[spec->n_paths++] = job->plan.pages->publish;
    job->plan.artifacts = spec;
}

void pages_finish(struct compile *c, struct job *job)
{
    bool written = has_job_key(job, "pages");
    if (!written && (!str_eqz(job->name, "pages") || has_job_key(job, "trigger"))) {
        return;
    }
    if (!job->plan.pages && !written) {
        job->plan.pages = new_pages(c);
    }
    if (!job->plan.pages) {
        return;
    }
    Pb__PagesSpec *spec = job->plan.pages;
    if (job->publish.n > 0 && spec->publish.len > 0) {
        report(c, node_get(job->body, "publish"), "keyword-conflict", "write `pages:publish` alone",
               "`publish` cannot stand beside `pages:publish`");
    }
    if (spec->publish.len == 0) {
        spec->publish = pb_bytes_ref(job->publish.n > 0 ? job->publish : usual_folder);
    }
    if (written) {
        add_artifact(c, job);
    }
}
