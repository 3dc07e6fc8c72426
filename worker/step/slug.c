#include "common/base.h"

#include "worker/step/slug.h"

#define PREFIX_MAX 63u

static char slug_char(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return (char)(c - 'A' + 'a');
    }
    bool kept = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.';
    return kept ? c : '-';
}

static struct str trim(struct str text)
{
    while (text.n > 0 && (text.p[0] == '-' || text.p[0] == '.')) {
        text = str_sub(text, 1, text.n);
    }
    while (text.n > 0 && (text.p[text.n - 1] == '-' || text.p[text.n - 1] == '.')) {
        text.n--;
    }
    return text;
}

void slug_pages_prefix(struct str text, struct buf *out)
{
    struct buf slug = BUF_INIT;
    for (size_t i = 0; i < text.n && slug.n < PREFIX_MAX; i++) {
        buf_add_char(&slug, slug_char(text.p[i]));
    }
    buf_add_str(out, trim(buf_str(&slug)));
    buf_release(&slug);
}
