/* Interpolation: `$[[ inputs.NAME ]]` in the tree of a file becomes the input's value. A scalar
 * that is one block takes over the value with its type; within a longer text, and in keys, the
 * value is written as text. A plain scalar is then read again, as GitLab does, which replaces
 * blocks before it reads the YAML. */
#include "common/base.h"

#include "pipeline/block.h"
#include "pipeline/front.h"
#include "pipeline/yaml.h"

#define BLOCK_BYTES   1024u
#define FUNCTIONS_MAX 3u
#define WEIGHT_BYTES  256u /* of text, per step of work */
#define INDEX_DIGITS  6u

struct walk {
    struct compile *c;
    const struct names *names;
};

/* JSON; values are bounded in depth and weight where they are put into a tree. */
static void add_json(struct buf *out, const struct node *n)
{
    if (n->kind == NODE_SCALAR) {
        if (n->type != SCALAR_STRING) {
            buf_add_str(out, n->type == SCALAR_NULL ? STR("null") : n->text);
            return;
        }
        buf_add_char(out, '"');
        for (size_t i = 0; i < n->text.n; i++) {
            uint8_t ch = (uint8_t)n->text.p[i];
            if (ch == '"' || ch == '\\') {
                buf_addf(out, "\\%c", ch);
            } else if (ch < ' ') {
                buf_addf(out, "\\u%04x", ch);
            } else {
                buf_add_char(out, (char)ch);
            }
        }
        buf_add_char(out, '"');
        return;
    }
    bool list = n->kind == NODE_LIST;
    buf_add_char(out, list ? '[' : '{');
    for (uint32_t i = 0; i < n->count; i++) {
        buf_addz(out, i > 0 ? "," : "");
        if (!list) {
            const struct node key = {.type = SCALAR_STRING, .text = n->pairs[i].key->text};
            add_json(out, &key);
            buf_add_char(out, ':');
        }
        add_json(out, list ? n->items[i] : n->pairs[i].value);
    }
    buf_add_char(out, list ? ']' : '}');
}

void value_text(struct buf *out, const struct node *value)
{
    if (value->kind != NODE_SCALAR) {
        add_json(out, value);
    } else if (value->type == SCALAR_INT && value->surprising) {
        buf_addf(out, "%" PRId64, value->integer);
    } else if (value->type != SCALAR_NULL) {
        buf_add_str(out, value->text);
    }
}

/* Takes `.key` or `[index]` off *path. False: neither stands there. */
static bool next_step(struct str *path, struct str *ret_key, bool *ret_index)
{
    size_t n = 1;
    if (path->n == 0 || (path->p[0] != '.' && path->p[0] != '[')) {
        return false;
    }
    *ret_index = path->p[0] == '[';
    while (n < path->n && path->p[n] != '.' && path->p[n] != '[') {
        n++;
    }
    *ret_key = str_trim(str_sub(*path, 1, n - 1));
    *path = str_sub(*path, n, path->n);
    if (*ret_index) {
        if (!str_ends(*ret_key, STR("]"))) {
            return false;
        }
        ret_key->n--;
    }
    return ret_key->n > 0;
}

static const struct node *refuse_access(struct compile *c, const struct node *at, struct str access,
                                        const char *problem)
{
    report(c, at, "interpolation", "$[[ inputs.name ]], $[[ inputs.list[0] ]]", "`" STR_FMT "` %s",
           STR_ARG(access), problem);
    return NULL;
}

static const struct node *unknown_name(struct compile *c, const struct node *at,
                                       const struct node *values, struct str what, struct str key)
{
    const char **names = arena_array(c->arena, values->count + 1, sizeof(*names));
    for (uint32_t i = 0; i < values->count; i++) {
        names[i] = arena_strdup(c->arena, values->pairs[i].key->text);
    }
    report(c, at, "interpolation", suggest(c, key, names, values->count),
           "`spec:" STR_FMT "` of this file has no `" STR_FMT "`", STR_ARG(what), STR_ARG(key));
    return NULL;
}

/* The value that "inputs.list[0].key" names. */
static const struct node *access_value(const struct walk *w, struct str access,
                                       const struct node *at)
{
    struct str rest = access;
    size_t end = 0;
    struct str key;
    bool index;
    while (end < access.n && access.p[end] != '.' && access.p[end] != '[') {
        end++;
    }
    struct str root = str_sub(access, 0, end);
    bool inputs = str_eqz(root, "inputs");
    const struct node *value = inputs                       ? w->names->inputs
                               : str_eqz(root, "component") ? w->names->component
                                                            : NULL;
    rest = str_sub(access, end, access.n);
    if (!value) {
        return refuse_access(w->c, at, access,
                             str_eqz(root, "component") ? "needs `spec:component` in the header"
                                                        : "names no input");
    }
    if (!next_step(&rest, &key, &index) || index) {
        return refuse_access(w->c, at, access, "names no input");
    }
    const struct pair *first = node_find(value, key);
    if (!first) {
        return unknown_name(w->c, at, value, root, key);
    }
    value = first->value;
    if (!inputs && node_is_null(value)) {
        return refuse_access(w->c, at, access, "is not known for this file");
    }
    while (rest.n > 0) {
        uint64_t place = 0;
        if (!next_step(&rest, &key, &index)) {
            return refuse_access(w->c, at, access, "is not written as a path");
        }
        if (index) {
            bool ok = key.n <= INDEX_DIGITS && str_to_u64(key, &place) == 0 &&
                      value->kind == NODE_LIST && place < value->count;
            value = ok ? value->items[place] : NULL;
        } else {
            const struct pair *p = node_find(value, key);
            value = p ? p->value : NULL;
        }
        if (!value) {
            return refuse_access(w->c, at, access, "leads to nothing");
        }
    }
    return value;
}

/* `|` outside of quotes parts the access from the functions. */
static bool next_part(struct str *rest, struct str *ret)
{
    char quote = '\0';
    size_t i = 0;
    if (!rest->p) {
        return false;
    }
    for (; i < rest->n; i++) {
        char ch = rest->p[i];
        if (quote == '\0' && ch == '|') {
            break;
        }
        if (ch == '\'' || ch == '"') {
            quote = quote == '\0' ? ch : quote == ch ? '\0' : quote;
        }
    }
    *ret = str_trim(str_sub(*rest, 0, i));
    *rest = i < rest->n ? str_sub(*rest, i + 1, rest->n) : STR_NULL;
    return true;
}

static bool is_for_others(struct str inside)
{
    struct str s = str_trim(inside);
    return str_starts(s, STR("matrix.")) || str_starts(s, STR("job."));
}

/* NULL: reported. */
static const struct node *block_value(const struct walk *w, struct str inside,
                                      const struct node *at)
{
    struct str rest = inside;
    struct str part;
    size_t functions = 0;
    if (inside.n > BLOCK_BYTES) {
        return refuse_access(w->c, at, str_sub(inside, 0, 32), "... is too long for a block");
    }
    check(next_part(&rest, &part));
    const struct node *value = access_value(w, part, at);
    while (value && next_part(&rest, &part)) {
        if (++functions > FUNCTIONS_MAX) {
            report(w->c, at, "interpolation", NULL, "more than %u functions in one block",
                   FUNCTIONS_MAX);
            return NULL;
        }
        value = interpolate_call(w->c, part, value, at);
    }
    return value;
}

/* The whole text is one block: *ret_inside. */
static bool is_one_block(struct str text, struct str *ret_inside)
{
    struct str before;
    struct str rest = text;
    return block_next(&rest, &before, ret_inside) && before.n == 0 && rest.n == 0;
}

static struct str replaced(const struct walk *w, const struct node *n, bool *ret_open)
{
    struct buf out;
    struct str rest = n->text;
    struct str before;
    struct str inside;
    buf_init(&out, LIMIT_YAML_BYTES);
    while (block_next(&rest, &before, &inside)) {
        buf_add_str(&out, before);
        const struct node *value = is_for_others(inside) ? NULL : block_value(w, inside, n);
        if (value) {
            value_text(&out, value);
        } else {
            *ret_open |= is_for_others(inside);
            buf_addf(&out, "$[[" STR_FMT "]]", STR_ARG(inside));
        }
        if (!compile_charge(w->c, 1, n)) {
            break;
        }
    }
    buf_add_str(&out, rest);
    w->c->text_bytes += out.n;
    if (!buf_ok(&out) || w->c->text_bytes > LIMIT_YAML_TOTAL) {
        report(w->c, n, "interpolation", NULL, "the text is too big once its inputs are in it");
        buf_clear(&out);
    }
    struct str text = arena_str(w->c->arena, buf_str(&out));
    compile_charge(w->c, text.n / WEIGHT_BYTES, n);
    buf_release(&out);
    return text;
}

static struct node *scalar_at(const struct walk *w, const struct node *at, struct str text)
{
    struct node *n = node_text(w->c->arena, text, at);
    n->plain = at->plain;
    n->weight += text.n / WEIGHT_BYTES;
    if (n->plain) {
        scalar_resolve(n);
    }
    return n;
}

static const struct node *walk_scalar(const struct walk *w, const struct node *n)
{
    struct str inside;
    bool open = false;
    if (is_one_block(n->text, &inside) && !is_for_others(inside)) {
        const struct node *value = block_value(w, inside, n);
        if (!value) {
            return n;
        }
        if (value->kind != NODE_SCALAR) {
            return value;
        }
        if (n->plain && value->type != SCALAR_STRING) {
            struct node *typed = node_new(w->c->arena, NODE_SCALAR, n);
            typed->type = value->type;
            typed->truth = value->truth;
            typed->integer = value->integer;
            typed->text = value->text;
            typed->plain = true;
            return typed;
        }
    }
    struct str text = replaced(w, n, &open);
    struct node *made = scalar_at(w, n, text);
    made->has_block = open;
    return made;
}

/* How deep a value is nested; its weight is bounded, so this ends. */
static unsigned depth_of(const struct node *n)
{
    unsigned deepest = 0;
    for (uint32_t i = 0; n->kind != NODE_SCALAR && i < n->count; i++) {
        unsigned d = depth_of(n->kind == NODE_LIST ? n->items[i] : n->pairs[i].value);
        deepest = MAX(deepest, d);
    }
    return n->kind == NODE_SCALAR ? 0 : deepest + 1;
}

/* Recurses as deep as the file is nested. */
static const struct node *walk(const struct walk *w, const struct node *n, unsigned depth)
{
    if (!n->has_block || !compile_charge(w->c, 1, n)) {
        return n;
    }
    if (n->kind == NODE_SCALAR) {
        const struct node *value = walk_scalar(w, n);
        if (value->kind != NODE_SCALAR && compile_charge(w->c, value->weight, n) &&
            depth + depth_of(value) > LIMIT_YAML_DEPTH) {
            report(w->c, n, "yaml-too-deep", NULL, "nested deeper than %u levels",
                   LIMIT_YAML_DEPTH);
            return node_new(w->c->arena, NODE_SCALAR, n);
        }
        return value;
    }
    struct node *made = node_new(w->c->arena, n->kind, n);
    made->reference = n->reference;
    made->has_reference = n->has_reference;
    for (uint32_t i = 0; i < n->count; i++) {
        if (n->kind == NODE_LIST) {
            node_append(w->c->arena, made, walk(w, n->items[i], depth + 1));
            continue;
        }
        const struct pair *p = &n->pairs[i];
        const struct node *key = p->key->has_block ? walk_scalar(w, p->key) : p->key;
        if (key->kind != NODE_SCALAR) {
            report(w->c, p->key, "interpolation", NULL, "a key must be a text, the value is %s",
                   node_what(key));
            continue;
        }
        node_set(w->c->arena, made, key, walk(w, p->value, depth + 1));
    }
    return made;
}

const struct node *interpolate(struct compile *c, const struct node *n, const struct names *names)
{
    struct walk w = {.c = c, .names = names};
    const struct node *made = walk(&w, n, 1);
    if (made->weight > LIMIT_YAML_NODES) {
        report(c, n, "yaml-too-big", NULL, "more than %u nodes once its inputs are in it",
               LIMIT_YAML_NODES);
        return node_new(c->arena, NODE_MAPPING, n);
    }
    return made;
}

/* Of an unread block; NULL: none. Recurses as deep as the file is nested. */
static const struct node *find_input_block(const struct node *n)
{
    if (!n->has_block) {
        return NULL;
    }
    if (n->kind == NODE_SCALAR) {
        struct str rest = n->text;
        struct str before;
        struct str inside;
        while (block_next(&rest, &before, &inside)) {
            if (str_starts(str_trim(inside), STR("inputs."))) {
                return n;
            }
        }
        return NULL;
    }
    for (uint32_t i = 0; i < n->count; i++) {
        bool list = n->kind == NODE_LIST;
        const struct node *found = list ? NULL : find_input_block(n->pairs[i].key);
        found = found ? found : find_input_block(list ? n->items[i] : n->pairs[i].value);
        if (found) {
            return found;
        }
    }
    return NULL;
}

void interpolate_warn(struct compile *c, const struct node *n)
{
    const struct node *at = find_input_block(n);
    if (at) {
        report_warning(c, at, "inputs-undeclared",
                       "declare it: `spec: { inputs: ... }`, then `---`, then the pipeline",
                       "`$[[ inputs... ]]` stays as it is: the file declares no inputs");
    }
}
