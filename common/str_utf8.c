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
