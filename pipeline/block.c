#include "common/base.h"

#include "common/buf.h"
#include "pipeline/block.h"

#define OPEN  "$[["
#define CLOSE "]]"

/* U+F0000 + byte, for a byte below 0x80: F3 B0, then 80 or 81, then 80..BF. */
#define PLANE       "\xF3\xB0"
#define PLANE_BYTES 4u

bool block_in(struct str text)
{
    return str_find(text, STR(OPEN)) >= 0;
}

/* Where the block that begins in front of `tail` ends: at the last of the brackets, as an index may
 * stand before them (`a[0]]]`). -1: not on this line. */
static ptrdiff_t find_close(struct str tail)
{
    ptrdiff_t line = str_chr(tail, '\n');
    struct str here = line >= 0 ? str_sub(tail, 0, (size_t)line) : tail;
    ptrdiff_t close = str_find(here, STR(CLOSE));
    if (close > 0 && str_chr(str_sub(here, 0, (size_t)close), '[') >= 0 &&
        (size_t)close + 2 < here.n && here.p[close + 2] == ']') {
        close++;
    }
    return close;
}

bool block_next(struct str *rest, struct str *ret_before, struct str *ret_inside)
{
    size_t from = 0;
    for (;;) {
        ptrdiff_t open = str_find(str_sub(*rest, from, rest->n), STR(OPEN));
        if (open < 0) {
            return false;
        }
        size_t start = from + (size_t)open + sizeof(OPEN) - 1;
        struct str tail = str_sub(*rest, start, rest->n);
        ptrdiff_t close = find_close(tail);
        if (close < 0) {
            from = start;
            continue;
        }
        *ret_before = str_sub(*rest, 0, start - (sizeof(OPEN) - 1));
        *ret_inside = str_sub(tail, 0, (size_t)close);
        *rest = str_sub(tail, (size_t)close + sizeof(CLOSE) - 1, tail.n);
        return true;
    }
}

static bool stays(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '.' || (uint8_t)c >= 0x80;
}

static void hide(struct buf *out, struct str s)
{
    for (size_t i = 0; i < s.n; i++) {
        uint8_t c = (uint8_t)s.p[i];
        if (stays(s.p[i])) {
            buf_add_char(out, s.p[i]);
        } else {
            buf_addz(out, PLANE);
            buf_add_char(out, (char)(0x80 | c >> 6));
            buf_add_char(out, (char)(0x80 | (c & 0x3F)));
        }
    }
}

struct str block_protect(struct arena *arena, struct str text)
{
    struct str rest = text;
    struct str before;
    struct str inside;
    if (!block_in(text) || str_find(text, STR(PLANE)) >= 0) {
        return text;
    }
    struct buf out = BUF_INIT;
    while (block_next(&rest, &before, &inside)) {
        buf_add_str(&out, before);
        buf_add_char(&out, '$');
        hide(&out, STR("[["));
        hide(&out, inside);
        hide(&out, STR("]]"));
    }
    buf_add_str(&out, rest);
    struct str hidden = arena_str(arena, buf_str(&out));
    buf_release(&out);
    return hidden;
}

struct str block_restore(struct arena *arena, struct str text)
{
    if (str_find(text, STR(PLANE)) < 0) {
        return text;
    }
    char *p = arena_alloc(arena, text.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        uint8_t high = i + PLANE_BYTES <= text.n ? (uint8_t)text.p[i + 2] : 0;
        if ((high & 0xFE) == 0x80 && str_starts(str_sub(text, i, text.n), STR(PLANE))) {
            p[n++] = (char)((high & 1) << 6 | ((uint8_t)text.p[i + 3] & 0x3F));
            i += PLANE_BYTES - 1;
        } else {
            p[n++] = text.p[i];
        }
    }
    return str_of(p, n);
}
