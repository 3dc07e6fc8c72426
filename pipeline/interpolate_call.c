/* The functions of interpolation: expand_vars, truncate(offset, length), posix_escape, split(text).
 */
#include "common/base.h"

#include "pipeline/front.h"

#define NUMBER_DIGITS 9u

/* Arguments as they were written. */
struct arguments {
    uint64_t offset;
    uint64_t length;
    struct str separator;
};

typedef const struct node *(*function_fn)(struct compile *c, const struct arguments *args,
                                          const struct node *value, const struct node *at);

static const struct node *text_at(struct compile *c, struct buf *b, const struct node *at)
{
    struct node *n = node_text(c->arena, arena_str(c->arena, buf_str(b)), at);
    buf_release(b);
    return n;
}

/* Names of masked variables must not end up in files that people can read. */
static const struct node *call_expand_vars(struct compile *c, const struct arguments *args,
                                           const struct node *value, const struct node *at)
{
    struct str text = expand_text(c, &c->outer, value->text, EXPAND_KEEP_UNKNOWN);
    (void)args;
    for (size_t i = 0; i < c->outer.count; i++) {
        const struct var *v = &c->outer.items[i];
        if (v->masked && v->value.n > 0 && str_find(text, v->value) >= 0) {
            report(c, at, "interpolation", NULL, "`expand_vars`: `" STR_FMT "` is masked",
                   STR_ARG(v->name));
            return NULL;
        }
    }
    return node_text(c->arena, text, at);
}

/* The offset of the n-th character. */
static size_t character(struct str s, uint64_t n)
{
    size_t i = 0;
    for (; i < s.n; i++) {
        if (((uint8_t)s.p[i] & 0xC0) != 0x80 && n-- == 0) {
            break;
        }
    }
    return i;
}

static const struct node *call_truncate(struct compile *c, const struct arguments *args,
                                        const struct node *value, const struct node *at)
{
    size_t from = character(value->text, args->offset);
    struct str rest = str_sub(value->text, from, value->text.n);
    return node_text(c->arena, str_sub(rest, 0, character(rest, args->length)), at);
}

/* As Ruby's Shellwords.escape: a line break in quotes, all else but the harmless with a backslash.
 */
static const struct node *call_posix_escape(struct compile *c, const struct arguments *args,
                                            const struct node *value, const struct node *at)
{
    static const struct str harmless = {"_-.,:+/@", 8};
    struct buf b = BUF_INIT;
    (void)args;
    for (size_t i = 0; i < value->text.n; i++) {
        char ch = value->text.p[i];
        bool word = (ch >= '0' && ch <= '9') || (ch >= 'a' && ch <= 'z') ||
                    (ch >= 'A' && ch <= 'Z') || str_chr(harmless, ch) >= 0;
        bool inside = ((uint8_t)ch & 0xC0) == 0x80; /* of a character that has its backslash */
        if (ch == '\n') {
            buf_addz(&b, "'\n'");
        } else {
            buf_addz(&b, word || inside ? "" : "\\");
            buf_add_char(&b, ch);
        }
    }
    buf_addz(&b, value->text.n == 0 ? "''" : "");
    return text_at(c, &b, at);
}

/* Parts without blanks around them; empty ones are left out. */
static const struct node *call_split(struct compile *c, const struct arguments *args,
                                     const struct node *value, const struct node *at)
{
    struct node *list = node_new(c->arena, NODE_LIST, at);
    struct str rest = value->text;
    while (rest.n > 0 && compile_charge(c, 1, at)) {
        ptrdiff_t end = args->separator.n > 0 ? str_find(rest, args->separator)
                                              : (ptrdiff_t)character(rest, 1);
        size_t n = end < 0 ? rest.n : (size_t)end;
        struct str part = str_trim(str_sub(rest, 0, n));
        if (part.n > 0) {
            node_append(c->arena, list, node_text(c->arena, part, at));
        }
        rest = str_sub(rest, n + args->separator.n, rest.n);
    }
    return list;
}

static bool one_number(struct str s, uint64_t *ret)
{
    s = str_trim(s);
    return s.n <= NUMBER_DIGITS && str_to_u64(s, ret) == 0;
}

static bool two_numbers(struct str inside, struct arguments *ret)
{
    ptrdiff_t comma = str_chr(inside, ',');
    return comma >= 0 && one_number(str_sub(inside, 0, (size_t)comma), &ret->offset) &&
           one_number(str_sub(inside, (size_t)comma + 1, inside.n), &ret->length);
}

static bool one_text(struct str inside, struct arguments *ret)
{
    struct str s = str_trim(inside);
    if (s.n < 2 || (s.p[0] != '\'' && s.p[0] != '"') || s.p[s.n - 1] != s.p[0]) {
        return false;
    }
    ret->separator = str_sub(s, 1, s.n - 2);
    return str_chr(ret->separator, s.p[0]) < 0;
}

static const struct {
    const char *name;
    bool (*read)(struct str inside, struct arguments *ret); /* NULL: no parentheses */
    function_fn call;
    const char *usage;
} functions[] = {
    {"expand_vars", NULL, call_expand_vars, "expand_vars"},
    {"truncate", two_numbers, call_truncate, "truncate(OFFSET, LENGTH)"},
    {"posix_escape", NULL, call_posix_escape, "posix_escape"},
    {"split", one_text, call_split, "split(',')"},
};

static const char *const function_names[] = {"expand_vars", "truncate", "posix_escape", "split"};

/* Which function it is; ARRAY_LEN: none. *ret_ok: its arguments are right. */
static size_t find_function(struct str call, struct arguments *ret, struct str *ret_name,
                            bool *ret_ok)
{
    ptrdiff_t open = str_chr(call, '(');
    bool parentheses = open >= 0 && str_ends(call, STR(")"));
    struct str inside = parentheses ? str_sub(call, (size_t)open + 1, call.n - (size_t)open - 2)
                                    : STR_NULL;
    *ret_name = str_trim(open >= 0 ? str_sub(call, 0, (size_t)open) : call);
    size_t i = 0;
    while (i < ARRAY_LEN(functions) && !str_eqz(*ret_name, functions[i].name)) {
        i++;
    }
    *ret_ok = i < ARRAY_LEN(functions) &&
              (functions[i].read ? parentheses && functions[i].read(inside, ret) : open < 0);
    return i;
}

bool interpolate_call_valid(struct str call)
{
    struct arguments args = {0};
    struct str name;
    bool ok;
    find_function(str_trim(call), &args, &name, &ok);
    return ok;
}

const struct node *interpolate_call(struct compile *c, struct str call, const struct node *value,
                                    const struct node *at)
{
    struct arguments args = {0};
    struct str name;
    bool ok;
    size_t i = find_function(call, &args, &name, &ok);
    if (!ok) {
        const char *hint = i < ARRAY_LEN(functions)
                               ? functions[i].usage
                               : suggest(c, name, function_names, ARRAY_LEN(function_names));
        report(c, at, "interpolation", hint, "there is no function `" STR_FMT "`", STR_ARG(call));
        return NULL;
    }
    if (!node_is_string(value)) {
        report(c, at, "interpolation", NULL, "`%s` works on texts, the value is %s",
               functions[i].name, node_what(value));
        return NULL;
    }
    compile_charge(c, 1 + value->text.n / 256, at);
    return functions[i].call(c, &args, value, at);
}
