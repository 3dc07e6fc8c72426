/* .davit.yml: what jobs are to Davit alone, apart from .gitlab-ci.yml, so that the latter stays as
 * GitLab wants it.
 *
 *     jobs:
 *       deploy:
 *         rollout: { target: web }
 *
 * It is laid over the jobs once includes, !reference and extends have done their work. */
#include "common/base.h"

#include "pipeline/compile.h"
#include "pipeline/yaml.h"

static const char *const davits[] = {"executor", "on_worker_lost", "priority", "rollout"};

static bool is_davits(struct str keyword)
{
    for (size_t i = 0; i < ARRAY_LEN(davits); i++) {
        if (str_eqz(keyword, davits[i])) {
            return true;
        }
    }
    return false;
}

static bool is_job(const struct pair *p)
{
    return p->value->kind == NODE_MAPPING && !str_starts(p->key->text, STR(".")) &&
           !keyword_find(SCOPE_TOP, p->key->text);
}

static void report_unknown(struct compile *c, const struct node *name)
{
    const char **names = arena_array(c->arena, c->root->count + 1, sizeof(*names));
    size_t n = 0;
    if (c->incomplete) {
        return;
    }
    for (uint32_t i = 0; i < c->root->count; i++) {
        if (is_job(&c->root->pairs[i])) {
            names[n++] = arena_strdup(c->arena, c->root->pairs[i].key->text);
        }
    }
    report(c, name, "overlay-unknown", suggest(c, name->text, names, n),
           "`jobs`: %s has no job `" STR_FMT "`", c->in->file, STR_ARG(name->text));
}

/* A job that is a rollout here has a script there: what cannot stand beside `rollout` goes. */
static const struct node *lay_over(struct compile *c, const struct node *body,
                                   const struct node *over)
{
    struct node *left = node_new(c->arena, NODE_MAPPING, body);
    if (node_is_null(node_get(over, "rollout"))) {
        return node_merge(c->arena, body, over, &c->work);
    }
    for (uint32_t i = 0; i < body->count; i++) {
        const struct pair *p = &body->pairs[i];
        const struct keyword *k = keyword_find(SCOPE_JOB, p->key->text);
        if (!k || rollout_allows(k->name.p)) {
            node_set(c->arena, left, p->key, p->value);
        }
    }
    compile_charge(c, body->count, over);
    return node_merge(c->arena, left, over, &c->work);
}

static bool job_is_good(struct compile *c, const struct pair *p)
{
    bool good = true;
    if (p->value->kind != NODE_MAPPING) {
        report(c, p->value, "wrong-type", "deploy: { rollout: { target: web } }",
               "`jobs`: `" STR_FMT "` must be a mapping, found %s", STR_ARG(p->key->text),
               node_what(p->value));
        return false;
    }
    for (uint32_t i = 0; i < p->value->count; i++) {
        const struct node *key = p->value->pairs[i].key;
        if (!is_davits(key->text)) {
            report(c, key, "overlay-keyword", suggest(c, key->text, davits, ARRAY_LEN(davits)),
                   "`" STR_FMT "` is no keyword of %s: executor, on_worker_lost, priority, rollout",
                   STR_ARG(key->text), c->in->overlay_file);
            good = false;
        }
    }
    return good;
}

/* `jobs:` of the file; NULL: reported, or none. */
static const struct node *read_jobs(struct compile *c)
{
    struct yaml_file yaml = {0};
    const struct node *jobs = NULL;
    c->text_bytes += c->in->overlay.n;
    if (c->text_bytes > LIMIT_YAML_TOTAL) {
        report(c, NULL, "include-limit", NULL, "all files together have more than %u bytes",
               LIMIT_YAML_TOTAL);
        return NULL;
    }
    if (yaml_read(c->arena, c->in->overlay_file, c->in->overlay, c->diags, &yaml) < 0 ||
        !yaml.body) {
        return NULL;
    }
    if (yaml.header || yaml.body->kind != NODE_MAPPING) {
        report(c, yaml.header ? yaml.header : yaml.body, "wrong-type", "jobs: { JOB: ... }",
               "%s must be one mapping", c->in->overlay_file);
        return NULL;
    }
    if (yaml.body->has_reference) {
        report(c, yaml.body, "bad-value", NULL, "%s has no `!reference`", c->in->overlay_file);
        return NULL;
    }
    for (uint32_t i = 0; i < yaml.body->count; i++) {
        const struct pair *p = &yaml.body->pairs[i];
        if (!str_eqz(p->key->text, "jobs")) {
            report(c, p->key, "overlay-keyword", "jobs: { JOB: ... }",
                   "`" STR_FMT "` is no keyword of %s: it has `jobs`", STR_ARG(p->key->text),
                   c->in->overlay_file);
        } else if (p->value->kind != NODE_MAPPING && !node_is_null(p->value)) {
            report(c, p->value, "wrong-type", "jobs: { JOB: ... }",
                   "`jobs` must be a mapping of jobs, found %s", node_what(p->value));
        } else {
            jobs = node_is_null(p->value) ? NULL : p->value;
        }
    }
    return jobs;
}

const struct node *overlay_apply(struct compile *c)
{
    const struct node *jobs = c->in->overlay.n > 0 ? read_jobs(c) : NULL;
    if (!jobs) {
        return c->root;
    }
    struct node *result = node_copy(c->arena, c->root, 0, &c->work);
    for (uint32_t i = 0; i < jobs->count; i++) {
        const struct pair *p = &jobs->pairs[i];
        const struct pair *job = node_find(c->root, p->key->text);
        if (!job || !is_job(job)) {
            report_unknown(c, p->key);
        } else if (job_is_good(c, p)) {
            node_set(c->arena, result, job->key, lay_over(c, job->value, p->value));
        }
    }
    return result;
}
