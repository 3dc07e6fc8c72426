#include "common/base.h"

#include "pipeline/emit.h"
#include "pipeline/yaml.h"

#define INDENT    2u
#define KEY_BYTES 1000u /* a longer key needs a `?` before it */

static void emit_value(const struct node *n, unsigned indent, bool in_list, struct buf *out);

static void add_spaces(struct buf *out, unsigned n)
{
    while (n-- > 0) {
        buf_add_char(out, ' ');
    }
}

/* Line breaks and what must not stand in a file as it is: C0, C1, U+2028, U+2029, U+FEFF. */
static bool is_special(struct str s, size_t i)
{
    unsigned char c = (unsigned char)s.p[i];
    if (c < ' ' || c == 0x7f) {
        return true;
    }
    struct str rest = str_sub(s, i, s.n);
    return (c == 0xc2 && rest.n > 1 && (unsigned char)rest.p[1] < 0xa0) ||
           str_starts(rest, STR("\xe2\x80\xa8")) || str_starts(rest, STR("\xe2\x80\xa9")) ||
           str_starts(rest, STR("\xef\xbb\xbf"));
}

/* Anything but plain characters, line feeds, and tabs. */
static bool is_printable(struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] != '\n' && s.p[i] != '\t' && is_special(s, i)) {
            return false;
        }
    }
    return true;
}

static bool starts_plain(struct str s)
{
    unsigned char c = (unsigned char)s.p[0];
    if (c == '-') {
        return s.n > 1 && s.p[1] != ' ' && !str_starts(s, STR("---"));
    }
    return c >= 0x80 || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
           (c >= 'A' && c <= 'Z') || strchr("_./$+~^();", c);
}

/* Would the text be read as the same text without quotes? */
static bool is_plain(struct str s)
{
    struct node probe = {.text = s};
    if (s.n == 0 || !starts_plain(s) || str_starts(s, STR("...")) || s.p[s.n - 1] == ' ' ||
        s.p[s.n - 1] == ':') {
        return false;
    }
    for (size_t i = 0; i < s.n; i++) {
        char next = i + 1 < s.n ? s.p[i + 1] : '\0';
        if (is_special(s, i) || (s.p[i] == ':' && (next == ' ' || next == '\t')) ||
            (s.p[i] == ' ' && next == '#')) {
            return false;
        }
    }
    scalar_resolve(&probe);
    return probe.type == SCALAR_STRING && !scalar_is_date(s);
}

static void add_escaped(struct buf *out, struct str s, size_t *i)
{
    size_t length = str_char_length(str_sub(s, *i, s.n));
    unsigned char c = (unsigned char)s.p[*i];
    if (c == '\n') {
        buf_addz(out, "\\n");
    } else if (c == '\t') {
        buf_addz(out, "\\t");
    } else if (length == 1) {
        buf_addf(out, "\\x%02x", c);
    } else if (length == 2) {
        buf_addf(out, "\\x%02x", (unsigned)((c & 0x1f) << 6 | ((unsigned char)s.p[*i + 1] & 0x3f)));
    } else {
        buf_addf(out, "\\u%04x",
                 (unsigned)((c & 0x0f) << 12 | ((unsigned char)s.p[*i + 1] & 0x3f) << 6 |
                            ((unsigned char)s.p[*i + 2] & 0x3f)));
    }
    *i += length - 1;
}

/* In single quotes where nothing needs a backslash, as people write it. */
static void emit_quoted(struct str s, struct buf *out)
{
    bool special = false;
    for (size_t i = 0; i < s.n && !special; i++) {
        special = is_special(s, i);
    }
    buf_add_char(out, special ? '"' : '\'');
    for (size_t i = 0; i < s.n; i++) {
        if (is_special(s, i)) {
            add_escaped(out, s, &i);
            continue;
        }
        if (special && (s.p[i] == '"' || s.p[i] == '\\')) {
            buf_add_char(out, '\\');
        } else if (!special && s.p[i] == '\'') {
            buf_add_char(out, '\'');
        }
        buf_add_char(out, s.p[i]);
    }
    buf_add_char(out, special ? '"' : '\'');
}

/* A block says by its first line how deep it is indented, so that one must begin with a character.
 */
static bool is_block(struct str s)
{
    return s.n > 1 && str_chr(s, '\n') > 0 && s.p[0] != ' ' && s.p[0] != '\t' && is_printable(s);
}

static void emit_block(struct str s, unsigned indent, struct buf *out)
{
    bool ends = s.p[s.n - 1] == '\n';
    bool more = ends && s.p[s.n - 2] == '\n';
    struct str rest = ends ? str_sub(s, 0, s.n - 1) : s;
    struct str line;
    buf_addz(out, !ends ? "|-\n" : more ? "|+\n" : "|\n");
    while (str_split(&rest, '\n', &line)) {
        if (line.n > 0) {
            add_spaces(out, indent);
            buf_add_str(out, line);
        }
        buf_add_char(out, '\n');
    }
}

/* Ends the line. */
static void emit_scalar(const struct node *n, unsigned indent, struct buf *out)
{
    if (n->type == SCALAR_NULL) {
        buf_addz(out, "null\n");
    } else if (n->type != SCALAR_STRING || is_plain(n->text)) {
        buf_add_str(out, n->text);
        buf_add_char(out, '\n');
    } else if (is_block(n->text)) {
        emit_block(n->text, indent, out);
    } else {
        emit_quoted(n->text, out);
        buf_add_char(out, '\n');
    }
}

static void emit_key(const struct node *key, struct buf *out)
{
    bool plain = key->text.n > 0 && (key->type != SCALAR_STRING || is_plain(key->text));
    if (plain) {
        buf_add_str(out, key->text);
    } else {
        emit_quoted(key->text, out);
    }
}

static void emit_reference(const struct node *n, struct buf *out)
{
    buf_addz(out, "!reference [");
    for (uint32_t i = 0; i < n->count; i++) {
        buf_addz(out, i > 0 ? ", " : "");
        emit_quoted(n->items[i]->text, out);
    }
    buf_addz(out, "]\n");
}

static bool is_nested(const struct node *n)
{
    return n->kind != NODE_SCALAR && !n->reference && n->count > 0;
}

/* The first pair follows a `- ` of the list that it stands in. */
static void emit_mapping(const struct node *n, unsigned indent, bool in_list, struct buf *out)
{
    for (uint32_t i = 0; i < n->count; i++) {
        const struct pair *p = &n->pairs[i];
        bool complex = p->key->text.n > KEY_BYTES;
        if (i > 0 || !in_list) {
            add_spaces(out, indent);
        }
        buf_addz(out, complex ? "? " : "");
        emit_key(p->key, out);
        if (complex) {
            buf_add_char(out, '\n');
            add_spaces(out, indent);
        }
        buf_addz(out, is_nested(p->value) ? ":\n" : ": ");
        emit_value(p->value, indent + INDENT, false, out);
    }
}

/* Recurses as deep as the tree, which the reader bounds. */
static void emit_value(const struct node *n, unsigned indent, bool in_list, struct buf *out)
{
    if (n->reference) {
        emit_reference(n, out);
    } else if (n->kind == NODE_SCALAR) {
        emit_scalar(n, indent, out);
    } else if (n->count == 0) {
        buf_addz(out, n->kind == NODE_LIST ? "[]\n" : "{}\n");
    } else if (n->kind == NODE_MAPPING) {
        emit_mapping(n, indent, in_list, out);
    } else {
        for (uint32_t i = 0; i < n->count; i++) {
            if (i > 0 || !in_list) {
                add_spaces(out, indent);
            }
            buf_addz(out, "- ");
            emit_value(n->items[i], indent + INDENT, true, out);
        }
    }
}

void emit_yaml(const struct node *n, struct buf *out)
{
    emit_value(n, 0, false, out);
}
