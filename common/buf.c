#include "common/base.h"

#include "common/buf.h"

#include <stdio.h>
#include <stdlib.h>

void buf_init(struct buf *b, size_t limit)
{
    *b = (struct buf){.limit = limit};
}

void buf_release(struct buf *b)
{
    if (b != NULL) {
        free(b->p);
        *b = (struct buf){.limit = b->limit};
    }
}

void buf_clear(struct buf *b)
{
    b->failed = false;
    buf_truncate(b, 0);
}

bool buf_ok(const struct buf *b)
{
    return !b->failed;
}

/* Makes room for n bytes and the NUL behind them. */
static bool buf_grow(struct buf *b, size_t n)
{
    size_t need;
    if (b->failed || __builtin_add_overflow(b->n, n, &need) || need == SIZE_MAX ||
        (b->limit > 0 && need > b->limit)) {
        b->failed = true;
        return false;
    }
    if (need >= b->cap) {
        size_t cap = b->cap < SIZE_MAX / 2 ? MAX(b->cap * 2, need + 1) : need + 1;
        b->cap = MAX(cap, (size_t)32);
        b->p = xrealloc(b->p, b->cap);
    }
    return true;
}

void buf_add(struct buf *b, const void *p, size_t n)
{
    if (buf_grow(b, n)) {
        if (n > 0) {
            memcpy(b->p + b->n, p, n);
        }
        buf_advance(b, n);
    }
}

void buf_add_str(struct buf *b, struct str s)
{
    buf_add(b, s.p, s.n);
}

void buf_addz(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}

void buf_add_char(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}

void buf_addf(struct buf *b, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_vaddf(b, fmt, ap);
    va_end(ap);
}

void buf_vaddf(struct buf *b, const char *fmt, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    check(n >= 0);
    if (buf_grow(b, (size_t)n)) {
        vsnprintf(b->p + b->n, (size_t)n + 1, fmt, again);
        buf_advance(b, (size_t)n);
    }
    va_end(again);
}

char *buf_space(struct buf *b, size_t n)
{
    return buf_grow(b, n) ? b->p + b->n : NULL;
}

void buf_advance(struct buf *b, size_t n)
{
    check(n < b->cap - b->n);
    b->n += n;
    b->p[b->n] = '\0';
}

void buf_drop_front(struct buf *b, size_t n)
{
    check(n <= b->n);
    if (n > 0) {
        memmove(b->p, b->p + n, b->n - n);
        buf_truncate(b, b->n - n);
    }
}

void buf_truncate(struct buf *b, size_t n)
{
    check(n <= b->n);
    b->n = n;
    if (b->p != NULL) {
        b->p[n] = '\0';
    }
}

struct str buf_str(const struct buf *b)
{
    return (struct str){b->p != NULL ? b->p : "", b->n};
}

const char *buf_cstr(struct buf *b)
{
    return b->p != NULL ? b->p : "";
}

char *buf_take(struct buf *b)
{
    char *p = b->p != NULL ? b->p : xstrdup("");
    *b = (struct buf){.limit = b->limit};
    return p;
}
