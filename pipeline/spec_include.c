/* spec:include: inputs that other files declare, for several pipelines. Such a file is a mapping
 * with `inputs` alone. */
#include "common/base.h"

#include "pipeline/front.h"
#include "pipeline/yaml.h"

struct gather {
    struct compile *c;
    const struct source *source;
    struct node *inputs; /* of all files, and the header's own */
};

/* Each input is declared once. */
static void add_inputs(struct gather *g, const struct node *n)
{
    if (n->kind != NODE_MAPPING) {
        report(g->c, n, "input-invalid", NULL, "`inputs` must be a mapping, found %s",
               node_what(n));
        return;
    }
    for (uint32_t i = 0; i < n->count && compile_charge(g->c, 1, n); i++) {
        const struct pair *p = &n->pairs[i];
        const struct pair *known = node_find(g->inputs, p->key->text);
        if (known) {
            report(g->c, p->key, "input-invalid", NULL,
                   "input `" STR_FMT "` is declared in %s:%u, too", STR_ARG(p->key->text),
                   known->key->file, known->key->line);
        } else {
            node_set(g->c->arena, g->inputs, p->key, p->value);
        }
    }
}

static void read_file(struct gather *g, const struct entry *e, const struct include_ref *ref,
                      const struct node *at)
{
    struct compile *c = g->c;
    struct included got = {0};
    struct yaml_file yaml = {0};
    const char *file = pipeline_include_name(c->arena, ref);
    if (ref->kind == INCLUDE_LOCAL && str_chr(ref->name, '*') >= 0) {
        include_refuse(c, at, "include-invalid", NULL, ref->name,
                       "has a wildcard: inputs are of one file each");
        return;
    }
    if (!include_provide(c, e, ref, at, file, &got)) {
        return;
    }
    trail_included(c, file, at);
    if (yaml_read(c->arena, file, got.text, c->diags, &yaml) < 0 || !yaml.body) {
        return;
    }
    if (read_keys(c, yaml.body, SCOPE_SPEC_FILE, "spec:include")) {
        const struct node *inputs = node_get(yaml.body, "inputs");
        if (!node_is_null(inputs)) {
            add_inputs(g, inputs);
        }
    }
}

static void read_entry(struct gather *g, const struct node *n)
{
    struct entry e;
    if (!entry_read(g->c, n, g->source, &e)) {
        return;
    }
    for (size_t i = 0; i < e.count; i++) {
        enum include_kind kind = e.refs[i].kind;
        if (e.inputs ||
            (kind != INCLUDE_LOCAL && kind != INCLUDE_PROJECT && kind != INCLUDE_REMOTE)) {
            include_refuse(g->c, n, "include-invalid",
                           e.inputs ? NULL : "local, project and remote work", STR("spec:include"),
                           e.inputs ? "takes files without inputs of their own"
                                    : "knows no files of this kind");
            return;
        }
        read_file(g, &e, &e.refs[i], e.at[i]);
    }
}

const struct node *spec_inputs(struct compile *c, const struct node *spec,
                               const struct source *source)
{
    const struct node *own = node_get(spec, "inputs");
    const struct node *include = node_get(spec, "include");
    if (node_is_null(include)) {
        return own;
    }
    struct gather g = {
        .c = c, .source = source, .inputs = node_new(c->arena, NODE_MAPPING, include)};
    bool list = include->kind == NODE_LIST;
    for (uint32_t i = 0; i < (list ? include->count : 1); i++) {
        read_entry(&g, list ? include->items[i] : include);
    }
    if (!node_is_null(own)) {
        add_inputs(&g, own);
    }
    return g.inputs;
}
