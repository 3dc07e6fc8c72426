#include "common/base.h"

#include "broker/store/tx.h"

#include "common/limits.h"

void key_add_bytes(struct key *k, const void *p, size_t n)
{
    check(n <= LIMIT_STORE_KEY - 4 && k->n <= LIMIT_STORE_KEY - 4 - n);
    if (n > 0) {
        memcpy(k->p + k->n, p, n);
        k->n += n;
    }
}

void key_add_u64(struct key *k, uint64_t v)
{
    uint8_t p[sizeof(v)];

    key_put_u64(p, v);
    key_add_bytes(k, p, sizeof(p));
}

void key_add_u32(struct key *k, uint32_t v)
{
    uint8_t p[4];

    for (size_t i = 0; i < sizeof(p); i++) {
        p[i] = (uint8_t)(v >> (24 - 8 * i));
    }
    key_add_bytes(k, p, sizeof(p));
}

struct key key_bytes(const void *p, size_t n)
{
    struct key k;

    k.n = 0;
    key_add_bytes(&k, p, n);
    return k;
}

struct str key_str(const struct key *k)
{
    return str_of(k->p, k->n);
}

static uint64_t read_number(struct str key, size_t offset, size_t n)
{
    uint64_t v = 0;

    check(offset <= key.n && n <= key.n - offset);
    for (size_t i = 0; i < n; i++) {
        v = v << 8 | (uint8_t)key.p[offset + i];
    }
    return v;
}

uint64_t key_read_u64(struct str key, size_t offset)
{
    return read_number(key, offset, 8);
}

uint32_t key_read_u32(struct str key, size_t offset)
{
    return (uint32_t)read_number(key, offset, 4);
}
