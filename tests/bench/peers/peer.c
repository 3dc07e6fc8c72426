#include "common/base.h"

#include "tests/bench/peers/peer.h"

#include <stdlib.h>

void peer_payload(uint64_t tag, char *ret)
{
    static const char digits[] = "0123456789abcdef";

    memset(ret, 'x', PEER_PAYLOAD);
    for (int i = 0; i < PEER_TAG; i++) {
        ret[i] = digits[tag >> (60 - 4 * i) & 15];
    }
}

uint64_t peer_tag(const char *payload)
{
    uint64_t tag = 0;

    for (int i = 0; i < PEER_TAG; i++) {
        char c = payload[i];
        check((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'));
        tag = tag << 4 | (uint64_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return tag;
}

void fifo_push(struct fifo *f, uint64_t x)
{
    if (f->n == f->cap) {
        size_t cap = MAX(64, 2 * f->cap);
        uint64_t *p = xmalloc(cap * sizeof(*p));

        for (size_t i = 0; i < f->n; i++) {
            p[i] = f->p[(f->head + i) & (f->cap - 1)];
        }
        free(f->p);
        *f = (struct fifo){.p = p, .cap = cap, .n = f->n};
    }
    f->p[(f->head + f->n++) & (f->cap - 1)] = x;
}

uint64_t fifo_pop(struct fifo *f)
{
    check(f->n > 0);
    uint64_t x = f->p[f->head];
    f->head = (f->head + 1) & (f->cap - 1);
    f->n--;
    return x;
}

void fifo_release(struct fifo *f)
{
    free(f->p);
    *f = (struct fifo){0};
}

bool peer_line(struct str *rest, struct str *ret_line)
{
    const char *end = rest->n > 0 ? memchr(rest->p, '\n', rest->n) : NULL;

    if (!end) {
        return false;
    }
    size_t n = (size_t)(end - rest->p);
    *ret_line = str_sub(*rest, 0, n > 0 && end[-1] == '\r' ? n - 1 : n);
    *rest = str_sub(*rest, n + 1, rest->n);
    return true;
}
