#include "common/base.h"

#include "common/err.h"
#include "common/expand.h"
#include "common/limits.h"

#include <stdlib.h>

static bool starts_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static size_t name_length(struct str s)
{
    size_t n = 0;
    while (n < s.n && (starts_name(s.p[n]) || (n > 0 && s.p[n] >= '0' && s.p[n] <= '9'))) {
        n++;
    }
    return n;
}

bool var_name_valid(struct str name)
{
    return name.n > 0 && name_length(name) == name.n;
}

static uint32_t name_hash(struct str name)
{
    uint32_t hash = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < name.n; i++) {
        hash = (hash ^ (uint8_t)name.p[i]) * 16777619u;
    }
    return hash;
}

/* The slot that holds the name, or the free one where it belongs. */
static uint32_t *slot_of(const struct vars *v, struct str name)
{
    size_t count = 2 * v->cap; /* a power of two, at most half full */
    size_t at = name_hash(name) & (count - 1);
    while (v->slots[at] != 0 && !str_eq(v->items[v->slots[at] - 1].name, name)) {
        at = (at + 1) & (count - 1);
    }
    return &v->slots[at];
}

static void vars_grow(struct vars *v)
{
    struct var *items = v->items;
    v->cap = MAX(2 * v->cap, (size_t)16);
    check(v->cap < UINT32_MAX / 2);
    v->items = arena_array(v->arena, v->cap, sizeof(*v->items));
    v->slots = arena_array(v->arena, 2 * v->cap, sizeof(*v->slots));
    for (size_t i = 0; i < v->count; i++) {
        v->items[i] = items[i];
        *slot_of(v, items[i].name) = (uint32_t)i + 1;
    }
}

void vars_init(struct vars *v, struct arena *arena)
{
    *v = (struct vars){.arena = arena};
}

void vars_set(struct vars *v, struct var var)
{
    if (v->count == v->cap) {
        vars_grow(v);
    }
    uint32_t *slot = slot_of(v, var.name);
    if (*slot == 0) {
        v->count++;
        *slot = (uint32_t)v->count;
        var.name = arena_str(v->arena, var.name);
    } else {
        var.name = v->items[*slot - 1].name;
    }
    var.value = arena_str(v->arena, var.value);
    v->items[*slot - 1] = var;
}

const struct var *vars_get(const struct vars *v, struct str name)
{
    uint32_t position = v->count > 0 ? *slot_of(v, name) : 0;
    return position > 0 ? &v->items[position - 1] : NULL;
}

/* A piece of a text: `text` as it is written, and what it is. */
struct piece {
    enum { PIECE_PLAIN, PIECE_ESCAPE, PIECE_REFERENCE } kind;
    struct str text;
    struct str name; /* of a reference; empty in ${} */
};

/* "$NAME", "${NAME}", "${}", "%NAME%", "$$", "%%" at the start of s; anything else is plain. */
static struct piece piece_at_sign(struct str s)
{
    struct piece piece = {.kind = PIECE_PLAIN, .text = str_sub(s, 0, 1)};
    bool brace = s.n > 1 && s.p[0] == '$' && s.p[1] == '{';
    struct str rest = str_sub(s, brace ? 2 : 1, s.n);
    struct str name = str_sub(rest, 0, name_length(rest));
    char closing = brace ? '}' : s.p[0] == '%' ? '%' : '\0';
    if (s.n > 1 && s.p[1] == s.p[0]) {
        piece.kind = PIECE_ESCAPE;
        piece.text = str_sub(s, 0, 2);
    } else if (closing == '\0' ? name.n > 0 : name.n < rest.n && rest.p[name.n] == closing) {
        piece.kind = PIECE_REFERENCE;
        piece.name = name;
        piece.text = str_sub(s, 0, s.n - rest.n + name.n + (closing != '\0'));
    }
    return piece;
}

static bool next_piece(struct str *rest, unsigned flags, struct piece *ret)
{
    size_t n = 0;
    if (rest->n == 0) {
        return false;
    }
    while (n < rest->n && rest->p[n] != '$' && !(rest->p[n] == '%' && (flags & EXPAND_PERCENT))) {
        n++;
    }
    *ret = n > 0 ? (struct piece){.kind = PIECE_PLAIN, .text = str_sub(*rest, 0, n)}
                 : piece_at_sign(*rest);
    *rest = str_sub(*rest, ret->text.n, rest->n);
    return true;
}

/* References for which `keep` is true stay as they are written. */
typedef bool (*keep_fn)(void *ctx, const struct var *var);

static int expand_text(const struct vars *v, struct str text, unsigned flags, keep_fn keep,
                       void *ctx, struct buf *out)
{
    struct piece piece;
    while (next_piece(&text, flags, &piece) && buf_ok(out)) {
        if (piece.kind == PIECE_PLAIN) {
            buf_add_str(out, piece.text);
            continue;
        }
        if (piece.kind == PIECE_ESCAPE) {
            buf_add_str(out, flags & EXPAND_KEEP_ESCAPES ? piece.text : str_sub(piece.text, 0, 1));
            continue;
        }
        const struct var *var = vars_get(v, piece.name);
        bool kept = var == NULL ? flags & EXPAND_KEEP_UNKNOWN
                                : (var->file && (flags & EXPAND_KEEP_FILE)) ||
                                      (keep != NULL && keep(ctx, var));
        if (kept) {
            buf_add_str(out, piece.text);
        } else if (var != NULL) {
            buf_add_str(out, var->value);
        }
    }
    return buf_ok(out) ? 0 : -E_LIMIT;
}

int vars_expand_with(const struct vars *v, struct str text, unsigned flags, struct buf *out)
{
    return expand_text(v, text, flags, NULL, NULL, out);
}

int vars_expand(const struct vars *v, struct str text, struct buf *out)
{
    return vars_expand_with(v, text, 0, out);
}

/* Tarjan's strongly connected components over "the value of A refers to B": they come out with what
 * they depend on first, and a reference inside of one is part of a cycle. */
struct component_node {
    uint32_t order;     /* of the first visit, from 1; 0: not visited */
    uint32_t low;       /* the earliest on the stack that is reachable */
    uint32_t component; /* 0: not known yet */
};

struct expansion {
    struct vars *vars;
    unsigned flags;
    struct component_node *nodes;
    uint32_t *stack;
    uint32_t stack_count;
    uint32_t visits;
    uint32_t components;
    uint32_t current; /* the component whose values are being expanded */
    size_t total;     /* bytes of all that was expanded */
};

static bool in_current_component(void *ctx, const struct var *var)
{
    const struct expansion *ex = ctx;
    return ex->nodes[var - ex->vars->items].component == ex->current;
}

static int expand_item(struct expansion *ex, uint32_t i)
{
    struct var *var = &ex->vars->items[i];
    struct buf out;
    buf_init(&out, LIMIT_EXPANDED_VALUE);
    int r = var->raw ? 0
                     : expand_text(ex->vars, var->value, ex->flags, in_current_component, ex, &out);
    ex->total += out.n;
    if (r == 0 && ex->total > LIMIT_EXPANDED_TOTAL) {
        r = -E_LIMIT;
    }
    if (r == 0 && !var->raw && !str_eq(buf_str(&out), var->value)) {
        var->value = arena_str(ex->vars->arena, buf_str(&out));
    }
    buf_release(&out);
    return r;
}

/* Takes the component of i, which was visited first of it, off the stack. Members are told apart
 * from the rest before the first is expanded, since they may refer to each other. */
static int expand_component(struct expansion *ex, uint32_t i)
{
    uint32_t bottom = ex->stack_count;
    int r = 0;
    ex->current = ++ex->components;
    do {
        bottom--;
        ex->nodes[ex->stack[bottom]].component = ex->current;
    } while (ex->stack[bottom] != i);
    for (uint32_t at = bottom; r == 0 && at < ex->stack_count; at++) {
        r = expand_item(ex, ex->stack[at]);
    }
    ex->stack_count = bottom;
    return r;
}

/* Recursion is as deep as there are variables, which LIMIT_VARIABLES bounds. */
static int visit(struct expansion *ex, uint32_t i)
{
    struct component_node *node = &ex->nodes[i];
    struct str rest = ex->vars->items[i].raw ? STR_NULL : ex->vars->items[i].value;
    struct piece piece;
    int r = 0;
    node->order = node->low = ++ex->visits;
    ex->stack[ex->stack_count++] = i;
    while (r == 0 && next_piece(&rest, ex->flags, &piece)) {
        const struct var *to = piece.kind == PIECE_REFERENCE ? vars_get(ex->vars, piece.name)
                                                             : NULL;
        if (to == NULL) {
            continue;
        }
        struct component_node *other = &ex->nodes[to - ex->vars->items];
        if (other->order == 0) {
            r = visit(ex, (uint32_t)(to - ex->vars->items));
            node->low = MIN(node->low, other->low);
        } else if (other->component == 0) {
            node->low = MIN(node->low, other->order);
        }
    }
    if (r == 0 && node->low == node->order) {
        r = expand_component(ex, i);
    }
    return r;
}

int vars_expand_all_with(struct vars *v, unsigned flags)
{
    struct expansion ex = {
        .vars = v,
        .flags = flags,
        .nodes = xcalloc(v->count, sizeof(*ex.nodes)),
        .stack = xcalloc(v->count, sizeof(*ex.stack)),
    };
    int r = 0;
    for (uint32_t i = 0; r == 0 && i < v->count; i++) {
        if (ex.nodes[i].order == 0) {
            r = visit(&ex, i);
        }
    }
    free(ex.nodes);
    free(ex.stack);
    return r;
}

int vars_expand_all(struct vars *v)
{
    return vars_expand_all_with(v, 0);
}
