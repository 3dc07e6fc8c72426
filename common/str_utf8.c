#include "common/base.h"

#include "common/str.h"

/* The length of the well-formed sequence at p (Unicode 15, table 3-7), or 0. */
static size_t utf8_length(const uint8_t *p, size_t n)
{
    uint8_t low = 0x80;
    uint8_t high = 0xbf;
    size_t length;
    if (p[0] >= 0x01 && p[0] <= 0x7f) {
        return 1;
    } else if (p[0] >= 0xc2 && p[0] <= 0xdf) {
        length = 2;
    } else if (p[0] >= 0xe0 && p[0] <= 0xef) {
        length = 3;
        low = p[0] == 0xe0 ? 0xa0 : low;   /* no overlong forms */
        high = p[0] == 0xed ? 0x9f : high; /* no surrogates */
    } else if (p[0] >= 0xf0 && p[0] <= 0xf4) {
        length = 4;
        low = p[0] == 0xf0 ? 0x90 : low;
        high = p[0] == 0xf4 ? 0x8f : high; /* nothing above U+10FFFF */
    } else {
        return 0;
    }
    if (n < length || p[1] < low || p[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return length;
}

bool str_is_utf8(struct str s, size_t *ret_at)
{
    size_t at = 0;
    while (at < s.n) {
        size_t length = utf8_length((const uint8_t *)s.p + at, s.n - at);
        if (length == 0) {
            if (ret_at != NULL) {
                *ret_at = at;
            }
            return false;
        }
        at += length;
    }
    return true;
}

size_t str_char_length(struct str s)
{
    return s.n == 0 ? 0 : MAX(utf8_length((const uint8_t *)s.p, s.n), (size_t)1);
}

static uint32_t decode(struct str s)
{
    size_t length = str_char_length(s);
    uint32_t c = (uint8_t)s.p[0];
    if (length > 1) {
        c &= 0x7fu >> length;
    }
    for (size_t i = 1; i < length; i++) {
        c = c << 6 | ((uint8_t)s.p[i] & 0x3f);
    }
    return c;
}

/* Blocks of Unicode 15 whose characters are wide (East Asian Width W and F, emoji among them), and
 * those of combining marks, joiners and variation selectors. Blocks, not characters: for carets
 * below a line that is exact enough. */
static const struct {
    uint32_t from;
    uint32_t to;
    unsigned columns;
} blocks[] = {
    {0x0300, 0x036f, 0},   {0x0483, 0x0489, 0},   {0x0591, 0x05bd, 0},   {0x064b, 0x065f, 0},
    {0x1100, 0x115f, 2},   {0x1ab0, 0x1aff, 0},   {0x1dc0, 0x1dff, 0},   {0x200b, 0x200f, 0},
    {0x20d0, 0x20ff, 0},   {0x231a, 0x231b, 2},   {0x23e9, 0x23ec, 2},   {0x25fd, 0x25fe, 2},
    {0x2614, 0x2615, 2},   {0x2648, 0x2653, 2},   {0x26a1, 0x26a1, 2},   {0x26d4, 0x26d4, 2},
    {0x2705, 0x2705, 2},   {0x270a, 0x270b, 2},   {0x2728, 0x2728, 2},   {0x274c, 0x274c, 2},
    {0x2753, 0x2757, 2},   {0x2795, 0x2797, 2},   {0x2b1b, 0x2b1c, 2},   {0x2b50, 0x2b55, 2},
    {0x2e80, 0x303e, 2},   {0x3041, 0x4dbf, 2},   {0x4e00, 0xa4cf, 2},   {0xa960, 0xa97f, 2},
    {0xac00, 0xd7a3, 2},   {0xf900, 0xfaff, 2},   {0xfe00, 0xfe0f, 0},   {0xfe20, 0xfe2f, 0},
    {0xfe30, 0xfe6f, 2},   {0xfeff, 0xfeff, 0},   {0xff00, 0xff60, 2},   {0xffe0, 0xffe6, 2},
    {0x1f1e6, 0x1f1ff, 1}, {0x1f300, 0x1f64f, 2}, {0x1f680, 0x1f6ff, 2}, {0x1f900, 0x1f9ff, 2},
    {0x1fa70, 0x1faff, 2}, {0x20000, 0x3fffd, 2}, {0xe0100, 0xe01ef, 0},
};

unsigned str_char_columns(struct str s)
{
    uint32_t c = s.n > 0 ? decode(s) : 0;
    for (size_t i = 0; c >= blocks[0].from && i < ARRAY_LEN(blocks); i++) {
        if (c >= blocks[i].from && c <= blocks[i].to) {
            return blocks[i].columns;
        }
    }
    return 1;
}
