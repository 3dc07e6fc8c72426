#include "common/base.h"

#include "broker/core/apply.h"
#include "common/limits.h"

bool text_ok(const char *s, size_t limit)
{
    const size_t n = strnlen(s, limit + 1);

    if (n > limit || !str_is_utf8(str_of(s, n), NULL)) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

bool name_ok(const char *s)
{
    return s[0] != '\0' && text_ok(s, LIMIT_NAME);
}

/* A row with a broken text could never be read again. */
void text_mend(char *s)
{
    size_t n = strlen(s);
    size_t bad;

    while (!str_is_utf8(str_of(s, n), &bad)) {
        s[bad] = '?';
        s += bad + 1;
        n -= bad + 1;
    }
}

char *text_clip(struct arena *a, const char *s, size_t limit)
{
    size_t n = strnlen(s, limit + 1);
    char *copy;

    if (n > limit) {
        n = limit;
        while (n > 0 && ((unsigned char)s[n] & 0xc0) == 0x80) {
            n--; /* s[n] goes on a character that would be cut */
        }
    }
    copy = arena_strdup(a, str_of(s, n));
    text_mend(copy);
    return copy;
}
