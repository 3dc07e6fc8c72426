/* extends: a job is merged over the jobs it names, later names over earlier ones; mappings merge
 * key by key, lists are replaced. */
#include "common/base.h"

#include "pipeline/compile.h"

struct extender {
    struct compile *c;
    const struct node *root;
    const struct node **done; /* by place in root; NULL: not yet */
    bool *busy;
    unsigned *heights;  /* how many levels of extends are below */
    const char **names; /* for hints; NULL: not needed yet */
};

static const struct node *extend(struct extender *x, uint32_t place, unsigned depth,
                                 const struct node *at);

static void report_unknown(struct extender *x, const struct node *name)
{
    if (x->c->incomplete) {
        return;
    }
    if (!x->names) {
        x->names = arena_array(x->c->arena, x->root->count + 1, sizeof(*x->names));
        for (uint32_t i = 0; i < x->root->count; i++) {
            x->names[i] = arena_strdup(x->c->arena, x->root->pairs[i].key->text);
        }
    }
    report(x->c, name, "extends-unknown", suggest(x->c, name->text, x->names, x->root->count),
           "`extends`: there is no job `" STR_FMT "`", STR_ARG(name->text));
}

static const struct node *extend_one(struct extender *x, uint32_t place, unsigned depth,
                                     const struct node *name, const struct node *sum)
{
    if (!node_is_string(name)) {
        report(x->c, name, "wrong-type", NULL, "`extends` must hold names of jobs, found %s",
               node_what(name));
        return sum;
    }
    const struct pair *base = node_find(x->root, name->text);
    if (!base) {
        report_unknown(x, name);
        return sum;
    }
    if (base->value->kind != NODE_MAPPING) {
        report(x->c, name, "wrong-type", NULL,
               "`extends`: `" STR_FMT "` must be a job to extend from, found %s",
               STR_ARG(name->text), node_what(base->value));
        return sum;
    }
    uint32_t base_place = (uint32_t)(base - x->root->pairs);
    const struct node *body = extend(x, base_place, depth + 1, name);
    x->heights[place] = MAX(x->heights[place], x->heights[base_place] + 1);
    return sum ? node_merge(x->c->arena, sum, body, &x->c->work) : body;
}

static const struct node *extend(struct extender *x, uint32_t place, unsigned depth,
                                 const struct node *at)
{
    const struct node *body = x->root->pairs[place].value;
    const struct node *names = node_get(body, "extends");
    if (node_is_null(names)) {
        return body;
    }
    if (x->busy[place]) {
        report(x->c, at, "extends-circular", NULL, "`extends`: `" STR_FMT "` extends itself",
               STR_ARG(x->root->pairs[place].key->text));
        return body;
    }
    if (depth + x->heights[place] > LIMIT_EXTENDS_DEPTH) {
        report(x->c, at, "extends-depth", NULL, "`extends` goes through more than %u jobs",
               LIMIT_EXTENDS_DEPTH);
        return body;
    }
    if (x->done[place]) {
        return x->done[place];
    }
    if (!compile_charge(x->c, 1, names)) {
        return body;
    }
    const struct node *sum = NULL;
    x->busy[place] = true;
    if (names->kind == NODE_LIST) {
        for (uint32_t i = 0; i < names->count; i++) {
            sum = extend_one(x, place, depth, names->items[i], sum);
        }
    } else {
        sum = extend_one(x, place, depth, names, sum);
    }
    x->busy[place] = false;
    x->done[place] = sum ? node_merge(x->c->arena, sum, body, &x->c->work) : body;
    return x->done[place];
}

const struct node *extends_resolve(struct compile *c, const struct node *root)
{
    struct extender x = {.c = c, .root = root};
    x.done = arena_array(c->arena, root->count + 1, sizeof(*x.done));
    x.busy = arena_array(c->arena, root->count + 1, sizeof(*x.busy));
    x.heights = arena_array(c->arena, root->count + 1, sizeof(*x.heights));
    struct node *result = node_new(c->arena, NODE_MAPPING, root);
    for (uint32_t i = 0; i < root->count; i++) {
        const struct pair *p = &root->pairs[i];
        bool job = p->value->kind == NODE_MAPPING && !keyword_find(SCOPE_TOP, p->key->text);
        c->job_at = job ? p->key : NULL;
        node_set(c->arena, result, p->key, job ? extend(&x, i, 0, p->key) : p->value);
    }
    c->job_at = NULL;
    return result;
}
