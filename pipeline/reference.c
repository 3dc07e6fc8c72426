/* !reference [job, keyword, ...]: the value at that place of the merged file. */
#include "common/base.h"

#include "pipeline/compile.h"

#define NESTING_MAX 10 /* references to references */

struct resolver {
    struct compile *c;
    const struct node *root;
    bool files_missing;
    const struct node *following[NESTING_MAX];
    size_t depth;
};

static const struct node *resolve(struct resolver *r, const struct node *n);

static const char *path_text(struct resolver *r, const struct node *reference)
{
    struct buf b = BUF_INIT;
    for (uint32_t i = 0; i < reference->count; i++) {
        buf_addf(&b, "%s" STR_FMT, i == 0 ? "[" : ", ", STR_ARG(reference->items[i]->text));
    }
    const char *text = arena_printf(r->c->arena, "%.200s]", buf_cstr(&b));
    buf_release(&b);
    return text;
}

/* A reference that leads nowhere stays: it counts as not written (node_is_null), and what depends
 * on it is not reported again. */
static const struct node *refuse(struct resolver *r, const struct node *n, const char *code,
                                 const char *problem)
{
    report(r->c, n, code, NULL, "!reference %s %s", path_text(r, n), problem);
    r->c->incomplete = true;
    return n;
}

static const struct node *follow(struct resolver *r, const struct node *n)
{
    for (size_t i = 0; i < r->depth; i++) {
        if (r->following[i] == n) {
            return refuse(r, n, "reference-circular", "leads back to itself");
        }
    }
    if (r->depth == NESTING_MAX) {
        return refuse(r, n, "reference-depth", "goes through more than 10 references");
    }
    r->following[r->depth++] = n;
    const struct node *target = r->root;
    for (uint32_t i = 0; target && i < n->count; i++) {
        const struct pair *p = node_find(target, n->items[i]->text);
        target = p ? p->value : NULL;
        if (target && target->reference && i + 1 < n->count) {
            target = follow(r, target);
        }
    }
    if (target && (target->reference || !node_is_null(target))) {
        target = resolve(r, target);
    } else if (r->files_missing) {
        target = n; /* it may be in the file that is missing */
    } else {
        target = refuse(r, n, "reference-not-found", "names nothing in this pipeline");
    }
    r->depth--;
    return target;
}

/* Recurses as deep as the nodes and the references are nested, both bounded. */
static const struct node *resolve(struct resolver *r, const struct node *n)
{
    if (!n->has_reference || !compile_charge(r->c, 1, n)) {
        return n;
    }
    if (n->reference) {
        return follow(r, n);
    }
    struct node *copy = node_new(r->c->arena, n->kind, n);
    for (uint32_t i = 0; i < n->count; i++) {
        if (n->kind == NODE_LIST) {
            node_append(r->c->arena, copy, resolve(r, n->items[i]));
        } else {
            node_set(r->c->arena, copy, n->pairs[i].key, resolve(r, n->pairs[i].value));
        }
    }
    return copy;
}

const struct node *reference_resolve(struct compile *c, const struct node *root)
{
    struct resolver r = {.c = c, .root = root, .files_missing = c->incomplete};
    return resolve(&r, root);
}
