#include "wordcount.h"

static int is_blank(unsigned char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* As wc: a byte that cannot be printed neither starts nor ends a word. */
static int is_printable(unsigned char c)
{
    return c > ' ' && c < 127;
}

void wordcount_add(struct counts *c, const void *text, size_t n)
{
    const unsigned char *p = text;
    c->bytes += n;
    for (size_t i = 0; i < n; i++) {
        c->lines += p[i] == '\n';
        if (is_blank(p[i])) {
            c->in_word = 0;
        } else if (is_printable(p[i])) {
            c->words += !c->in_word;
            c->in_word = 1;
        }
    }
}
