/* The file as it is once everything in it is written out: after include, !reference and extends,
 * and with what jobs inherit of `default` in the jobs. Templates have done their work and are left
 * out. It compiles to the same plan. */
#include "common/base.h"

#include "pipeline/compile.h"
#include "pipeline/explain.h"

static bool is_key(const struct pair *p, const char *name)
{
    return str_eqz(p->key->text, name);
}

/* Without `default`, which has been followed. NULL: nothing is left. */
static const struct node *merged_inherit(struct compile *c, const struct node *n)
{
    const struct node *variables = node_get(n, "variables");
    if (node_is_null(variables)) {
        return NULL;
    }
    struct node *left = node_new(c->arena, NODE_MAPPING, n);
    node_set(c->arena, left, node_text(c->arena, STR("variables"), n), variables);
    return left;
}

static const struct node *merged_job(struct compile *c, const struct job *job)
{
    struct node *body = node_new(c->arena, NODE_MAPPING, job->body);
    for (uint32_t i = 0; i < job->body->count; i++) {
        const struct pair *p = &job->body->pairs[i];
        const struct node *value = is_key(p, "inherit") ? merged_inherit(c, p->value) : p->value;
        if (value && !is_key(p, "extends")) {
            node_set(c->arena, body, p->key, value);
        }
    }
    for (uint32_t i = 0; i < c->defaults->count; i++) {
        const struct pair *p = &c->defaults->pairs[i];
        if (job_takes_default(job, p)) {
            node_set(c->arena, body, p->key, p->value);
        }
    }
    compile_charge(c, job->body->count + c->defaults->count, job->at);
    return body;
}

/* Is it said by the jobs, or has it been followed? */
static bool is_written_out(const struct pair *p)
{
    const struct keyword *top = keyword_find(SCOPE_TOP, p->key->text);
    return str_starts(p->key->text, STR(".")) || is_key(p, "include") || is_key(p, "default") ||
           (top && keyword_find(SCOPE_DEFAULT, p->key->text));
}

void explain_merged(struct compile *c)
{
    size_t at = 0; /* jobs stand in the order of the file */
    if (!c->in->explain || compile_failed(c)) {
        return;
    }
    struct node *merged = node_new(c->arena, NODE_MAPPING, c->root);
    for (uint32_t i = 0; i < c->root->count; i++) {
        const struct pair *p = &c->root->pairs[i];
        if (is_written_out(p)) {
            continue;
        }
        const struct node *value = p->value;
        if (at < c->job_count && c->jobs[at].at == p->key) {
            value = merged_job(c, &c->jobs[at]);
            while (at < c->job_count && c->jobs[at].at == p->key) {
                at++; /* all that `parallel` made of it */
            }
        }
        node_set(c->arena, merged, p->key, value);
    }
    c->in->explain->merged = merged;
}
