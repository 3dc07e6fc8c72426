#include "common/base.h"

#include "pipeline/json.h"

static void add_text(struct buf *out, struct str s)
{
    buf_add_char(out, '"');
    for (size_t i = 0; i < s.n; i++) {
        uint8_t ch = (uint8_t)s.p[i];
        if (ch == '"' || ch == '\\') {
            buf_addf(out, "\\%c", ch);
        } else if (ch < 0x20 || ch == 0x7f) {
            buf_addf(out, "\\u%04x", ch);
        } else {
            buf_add_char(out, (char)ch);
        }
    }
    buf_add_char(out, '"');
}

/* JSON's numbers are fewer than YAML's: 1_000, .5 or 1. stay what they say, as text. */
static bool is_number(struct str s)
{
    size_t i = 0;
    bool digits = false;
    i += i < s.n && s.p[i] == '-';
    if (i + 1 < s.n && s.p[i] == '0' && s.p[i + 1] != '.') {
        return false;
    }
    for (; i < s.n && s.p[i] >= '0' && s.p[i] <= '9'; i++) {
        digits = true;
    }
    if (!digits || i == s.n) {
        return digits;
    }
    bool fraction = false;
    if (s.p[i++] != '.') {
        return false;
    }
    for (; i < s.n && s.p[i] >= '0' && s.p[i] <= '9'; i++) {
        fraction = true;
    }
    return fraction && i == s.n;
}

static void add_scalar(struct buf *out, const struct node *n)
{
    switch (n->type) {
    case SCALAR_NULL:
        buf_addz(out, "null");
        return;
    case SCALAR_BOOL:
        buf_addz(out, n->truth ? "true" : "false");
        return;
    case SCALAR_INT:
        buf_addf(out, "%" PRId64, n->integer);
        return;
    case SCALAR_FLOAT:
        if (is_number(n->text)) {
            buf_add_str(out, n->text);
            return;
        }
        break;
    case SCALAR_STRING:
        break;
    }
    add_text(out, n->text);
}

/* Recurses as deep as the file is nested, which the reader bounds. */
void json_add_node(struct buf *out, const struct node *n)
{
    if (n->kind == NODE_SCALAR) {
        add_scalar(out, n);
        return;
    }
    bool list = n->kind == NODE_LIST;
    buf_add_char(out, list ? '[' : '{');
    for (uint32_t i = 0; i < n->count && buf_ok(out); i++) {
        if (i > 0) {
            buf_add_char(out, ',');
        }
        if (!list) {
            add_text(out, n->pairs[i].key->text);
            buf_add_char(out, ':');
        }
        json_add_node(out, list ? n->items[i] : n->pairs[i].value);
    }
    buf_add_char(out, list ? ']' : '}');
}
