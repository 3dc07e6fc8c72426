#include "common/base.h"

#include "common/err.h"
#include "common/expand.h"
#include "common/limits.h"

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

/* The slot that holds the name, or the free one where it belongs. */
static uint32_t *slot_of(const struct vars *v, struct str name, uint32_t hash)
{
    size_t count = 2 * v->cap; /* a power of two, at most half full */
    size_t at = hash & (count - 1);
    while (v->slots[at] != 0 && !str_eq(v->items[v->slots[at] - 1].name, name)) {
        at = (at + 1) & (count - 1);
    }
    return &v->slots[at];
}

static void vars_grow(struct vars *v)
{
    struct var *items = v->items;
    v->cap = MAX(2 * v->cap, (size_t)8);
    check(v->cap < UINT32_MAX / 2);
    v->items = arena_array(v->arena, v->cap, sizeof(*v->items));
    v->slots = arena_array(v->arena, 2 * v->cap, sizeof(*v->slots));
    for (size_t i = 0; i < v->count; i++) {
        v->items[i] = items[i];
        *slot_of(v, items[i].name, str_hash(items[i].name, v->seed)) = (uint32_t)i + 1;
    }
}

void vars_init(struct vars *v, struct arena *arena)
{
    *v = (struct vars){.arena = arena, .seed = (uintptr_t)v};
}

/* The place of the variable, whose name and value are the caller's. */
static uint32_t put(struct vars *v, struct var var, bool *ret_new)
{
    if (v->count == v->cap) {
        vars_grow(v);
    }
    uint32_t *slot = slot_of(v, var.name, str_hash(var.name, v->seed));
    *ret_new = *slot == 0;
    if (*ret_new) {
        v->count++;
        *slot = (uint32_t)v->count;
    } else {
        var.name = v->items[*slot - 1].name;
    }
    v->items[*slot - 1] = var;
    return *slot - 1;
}

void vars_set_ref(struct vars *v, struct var var)
{
    bool is_new;
    put(v, var, &is_new);
}

void vars_set(struct vars *v, struct var var)
{
    bool is_new;
    uint32_t place = put(v, var, &is_new);
    struct var *item = &v->items[place];
    if (is_new) {
        item->name = arena_str(v->arena, var.name);
    }
    item->value = arena_str(v->arena, var.value);
}

static const struct var *own(const struct vars *v, struct str name, uint32_t hash)
{
    uint32_t position = v->count > 0 ? *slot_of(v, name, hash) : 0;
    return position > 0 ? &v->items[position - 1] : NULL;
}

/* As it was set, in v or below. */
static const struct var *find(const struct vars *v, struct str name, uint32_t hash)
{
    const struct var *var = NULL;
    for (; v && !var; v = v->below) {
        var = own(v, name, hash);
    }
    return var;
}

const struct var *vars_get_own(const struct vars *v, struct str name)
{
    return own(v, name, str_hash(name, v->seed));
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

/* Values that are expanded when they are first asked for. Those with references in them become
 * nodes, with a copy of the variable at the same place in `done`; the others are good as they are.
 *
 * Tarjan's strongly connected components over "the value of A refers to B": they come out with what
 * they depend on first, and a reference inside of one is part of a cycle. */
struct component_node {
    uint32_t order;     /* of the first visit, from 1 */
    uint32_t low;       /* the earliest on the stack that is reachable */
    uint32_t component; /* 0: not known yet */
};

struct expansion {
    unsigned flags;
    bool failed; /* a limit was passed: values stay as they are */
    struct vars done;
    struct component_node *nodes;
    uint32_t *stack;
    size_t cap; /* of nodes and stack */
    uint32_t stack_count;
    uint32_t visits;
    uint32_t components;
    size_t total; /* bytes of all that was expanded */
};

static void add_reference(const struct vars *v, struct piece piece, unsigned flags,
                          uint32_t current, struct buf *out)
{
    const struct var *var;
    bool kept = false;
    if (current == 0) {
        var = vars_get(v, piece.name);
    } else {
        const struct expansion *ex = v->lazy;
        uint32_t hash = str_hash(piece.name, v->seed);
        var = own(&ex->done, piece.name, hash);
        kept = var && ex->nodes[var - ex->done.items].component == current;
        var = var ? var : find(v, piece.name, hash);
    }
    kept |= var == NULL ? flags & EXPAND_KEEP_UNKNOWN : var->file && (flags & EXPAND_KEEP_FILE);
    if (kept) {
        buf_add_str(out, piece.text);
    } else if (var != NULL) {
        buf_add_str(out, var->value);
    }
}

/* References into the component `current` of v's expansion stay as they are written; 0: none. */
static int expand_text(const struct vars *v, struct str text, unsigned flags, uint32_t current,
                       struct buf *out)
{
    struct piece piece;
    while (next_piece(&text, flags, &piece) && buf_ok(out)) {
        if (piece.kind == PIECE_PLAIN) {
            buf_add_str(out, piece.text);
        } else if (piece.kind == PIECE_ESCAPE) {
            buf_add_str(out, flags & EXPAND_KEEP_ESCAPES ? piece.text : str_sub(piece.text, 0, 1));
        } else {
            add_reference(v, piece, flags, current, out);
        }
    }
    return buf_ok(out) ? 0 : -E_LIMIT;
}

int vars_expand_with(const struct vars *v, struct str text, unsigned flags, struct buf *out)
{
    return expand_text(v, text, flags, 0, out);
}

int vars_expand(const struct vars *v, struct str text, struct buf *out)
{
    return vars_expand_with(v, text, 0, out);
}

static bool has_references(const struct expansion *ex, const struct var *var)
{
    return !var->raw && (str_chr(var->value, '$') >= 0 ||
                         ((ex->flags & EXPAND_PERCENT) && str_chr(var->value, '%') >= 0));
}

static uint32_t add_node(struct expansion *ex, const struct var *var)
{
    bool is_new;
    uint32_t place = put(&ex->done, *var, &is_new);
    check(is_new);
    if (ex->done.count > ex->cap) {
        struct component_node *nodes = ex->nodes;
        uint32_t *stack = ex->stack;
        ex->nodes = arena_array(ex->done.arena, ex->done.cap, sizeof(*nodes));
        ex->stack = arena_array(ex->done.arena, ex->done.cap, sizeof(*stack));
        if (ex->cap > 0) {
            memcpy(ex->nodes, nodes, ex->cap * sizeof(*nodes));
            memcpy(ex->stack, stack, ex->cap * sizeof(*stack));
        }
        ex->cap = ex->done.cap;
    }
    return place;
}

static int expand_item(const struct vars *v, uint32_t i, uint32_t current)
{
    struct expansion *ex = v->lazy;
    struct var *var = &ex->done.items[i];
    struct buf out;
    buf_init(&out, LIMIT_EXPANDED_VALUE);
    int r = expand_text(v, var->value, ex->flags, current, &out);
    ex->total += out.n;
    if (r == 0 && ex->total > LIMIT_EXPANDED_TOTAL) {
        r = -E_LIMIT;
    }
    if (r == 0 && !str_eq(buf_str(&out), var->value)) {
        var->value = arena_str(ex->done.arena, buf_str(&out));
    }
    buf_release(&out);
    return r;
}

/* Takes the component of i, which was visited first of it, off the stack. Members are told apart
 * from the rest before the first is expanded, since they may refer to each other. */
static int expand_component(const struct vars *v, uint32_t i)
{
    struct expansion *ex = v->lazy;
    uint32_t bottom = ex->stack_count;
    uint32_t current = ++ex->components;
    int r = 0;
    do {
        bottom--;
        ex->nodes[ex->stack[bottom]].component = current;
    } while (ex->stack[bottom] != i);
    for (uint32_t at = bottom; r == 0 && at < ex->stack_count; at++) {
        r = expand_item(v, ex->stack[at], current);
    }
    ex->stack_count = bottom;
    return r;
}

/* Recursion is as deep as there are variables, which LIMIT_VARIABLES bounds. Adding a node may move
 * the others, so they are always reached by their place. */
static int visit(const struct vars *v, uint32_t i)
{
    struct expansion *ex = v->lazy;
    struct str rest = ex->done.items[i].value;
    struct piece piece;
    int r = 0;
    ex->nodes[i].order = ex->nodes[i].low = ++ex->visits;
    ex->stack[ex->stack_count++] = i;
    while (r == 0 && next_piece(&rest, ex->flags, &piece)) {
        if (piece.kind != PIECE_REFERENCE) {
            continue;
        }
        uint32_t hash = str_hash(piece.name, v->seed);
        const struct var *known = own(&ex->done, piece.name, hash);
        if (known) {
            const struct component_node *other = &ex->nodes[known - ex->done.items];
            if (other->component == 0) {
                ex->nodes[i].low = MIN(ex->nodes[i].low, other->order);
            }
            continue;
        }
        const struct var *to = find(v, piece.name, hash);
        if (to && has_references(ex, to)) {
            uint32_t other = add_node(ex, to);
            r = visit(v, other);
            ex->nodes[i].low = MIN(ex->nodes[i].low, ex->nodes[other].low);
        }
    }
    if (r == 0 && ex->nodes[i].low == ex->nodes[i].order) {
        r = expand_component(v, i);
    }
    return r;
}

void vars_layer(struct vars *v, struct arena *arena, const struct vars *below, unsigned flags)
{
    *v = (struct vars){.arena = arena, .seed = below->seed, .below = below};
    v->lazy = arena_alloc(arena, sizeof(*v->lazy));
    v->lazy->flags = flags;
    v->lazy->done = (struct vars){.arena = arena, .seed = below->seed};
}

bool vars_failed(const struct vars *v)
{
    return v->lazy && v->lazy->failed;
}

const struct var *vars_get(const struct vars *v, struct str name)
{
    struct expansion *ex = v->lazy;
    uint32_t hash = str_hash(name, v->seed);
    const struct var *var = ex ? own(&ex->done, name, hash) : NULL;
    if (var) {
        return var;
    }
    var = find(v, name, hash);
    if (!var || !ex || ex->failed || !has_references(ex, var)) {
        return var;
    }
    uint32_t place = add_node(ex, var);
    ex->failed = visit(v, place) < 0;
    return &ex->done.items[place];
}

int vars_expand_all_with(struct vars *v, unsigned flags)
{
    struct vars layer;
    size_t plain = 0; /* bytes that need no expansion count as well */
    vars_layer(&layer, v->arena, v, flags);
    for (size_t i = 0; i < v->count && !vars_failed(&layer); i++) {
        const struct var *var = vars_get(&layer, v->items[i].name);
        if (var == &v->items[i] && !var->raw) {
            plain += var->value.n;
            layer.lazy->failed = var->value.n > LIMIT_EXPANDED_VALUE;
        }
    }
    for (size_t i = 0; i < layer.lazy->done.count; i++) {
        vars_set_ref(v, layer.lazy->done.items[i]);
    }
    bool fits = !vars_failed(&layer) && layer.lazy->total + plain <= LIMIT_EXPANDED_TOTAL;
    return fits ? 0 : -E_LIMIT;
}

int vars_expand_all(struct vars *v)
{
    return vars_expand_all_with(v, 0);
}
