#include "common/base.h"

#include "worker/action/reach.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>

static const uint8_t v4_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static int parse_address(const char *text, struct reach_pattern *p, uint32_t *ret_bits)
{
    struct in_addr v4;
    if (inet_pton(AF_INET, text, &v4) == 1) {
        memcpy(p->address, v4_prefix, sizeof(v4_prefix));
        memcpy(p->address + sizeof(v4_prefix), &v4, sizeof(v4));
        *ret_bits = 32;
        return 0;
    }
    *ret_bits = 128;
    return inet_pton(AF_INET6, text, p->address) == 1 ? 0 : -E_USAGE;
}

static int parse_number(struct str text, uint32_t max, uint32_t *ret)
{
    uint64_t n;
    if (str_to_u64(text, &n) < 0 || n > max) {
        return -E_USAGE;
    }
    *ret = (uint32_t)n;
    return 0;
}

/* ADDRESS[/BITS], or * */
static int parse_range(struct str text, struct reach_pattern *p)
{
    char address[INET6_ADDRSTRLEN];
    struct str rest = text;
    struct str head;
    uint32_t bits;
    uint32_t all;
    if (str_eqz(text, "*")) {
        return 0; /* no bits of any address */
    }
    (void)str_split(&rest, '/', &head);
    if (head.n == 0 || head.n >= sizeof(address)) {
        return -E_USAGE;
    }
    memcpy(address, head.p, head.n);
    address[head.n] = '\0';
    int r = parse_address(address, p, &all);
    bits = all;
    if (r == 0 && head.n < text.n) {
        r = parse_number(rest, all, &bits);
    }
    p->bits = 128 - all + bits;
    return r;
}

/* Where the port begins: behind the last colon of what is no bare IPv6 address. */
static struct str split_port(struct str *range)
{
    struct str text = *range;
    ptrdiff_t colon = str_chr(text, ':');
    bool many = colon >= 0 && str_chr(str_sub(text, (size_t)colon + 1, text.n), ':') >= 0;
    if (text.n > 0 && text.p[0] == '[') {
        ptrdiff_t end = str_chr(text, ']');
        if (end < 0) {
            return STR_NULL;
        }
        *range = str_sub(text, 1, (size_t)end - 1);
        return str_sub(text, (size_t)end + 1, text.n);
    }
    if (colon < 0 || many) {
        return STR_NULL;
    }
    *range = str_sub(text, 0, (size_t)colon);
    return str_sub(text, (size_t)colon, text.n);
}

int reach_add(struct reach *r, const char *text)
{
    struct reach_pattern p = {.port = 0};
    struct str range = str_from(text);
    struct str port = split_port(&range);
    int err = parse_range(range, &p);
    if (err == 0 && port.n > 0) {
        err = port.p[0] == ':' ? parse_number(str_sub(port, 1, port.n), 65535, &p.port) : -E_USAGE;
        err = err == 0 && p.port == 0 ? -E_USAGE : err;
    }
    if (err < 0) {
        return err;
    }
    r->patterns = xrealloc(r->patterns, (r->count + 1) * sizeof(*r->patterns));
    r->patterns[r->count++] = p;
    return 0;
}

void reach_release(struct reach *r)
{
    free(r->patterns);
    *r = (struct reach){0};
}

static bool same_bits(const uint8_t *a, const uint8_t *b, uint32_t bits)
{
    uint32_t whole = bits / 8;
    uint32_t rest = bits % 8;
    return memcmp(a, b, whole) == 0 &&
           (rest == 0 || ((a[whole] ^ b[whole]) & (0xff00u >> rest) & 0xffu) == 0);
}

/* Link-local, multicast, unspecified. */
static bool is_off_limits(const uint8_t a[16])
{
    bool v4 = memcmp(a, v4_prefix, sizeof(v4_prefix)) == 0;
    if (v4) {
        return (a[12] == 169 && a[13] == 254) || a[12] >= 224 || a[12] == 0;
    }
    static const uint8_t none[16] = {0};
    bool link_local = a[0] == 0xfe && (a[1] & 0xc0) == 0x80;
    /* The service for credentials of a cloud, in IPv6: fd00:ec2::254. */
    static const uint8_t ec2[16] = {0xfd, 0x00, 0x0e, 0xc2, [14] = 0x02, 0x54};
    return link_local || a[0] == 0xff || memcmp(a, none, 16) == 0 || memcmp(a, ec2, 16) == 0;
}

static bool load(const struct sockaddr *address, uint8_t ret[16], uint32_t *ret_port)
{
    if (address->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, address, sizeof(v4));
        memcpy(ret, v4_prefix, sizeof(v4_prefix));
        memcpy(ret + sizeof(v4_prefix), &v4.sin_addr, sizeof(v4.sin_addr));
        *ret_port = ntohs(v4.sin_port);
    } else if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 v6;
        memcpy(&v6, address, sizeof(v6));
        memcpy(ret, &v6.sin6_addr, sizeof(v6.sin6_addr));
        *ret_port = ntohs(v6.sin6_port);
    } else {
        return false;
    }
    return true;
}

bool reach_admits(const struct reach *r, const struct sockaddr *address)
{
    uint8_t bytes[16];
    uint32_t port;
    if (!load(address, bytes, &port)) {
        return address->sa_family == AF_UNIX; /* only drivers name one */
    }
    for (size_t i = 0; i < r->count; i++) {
        const struct reach_pattern *p = &r->patterns[i];
        bool named = p->bits > 0 || !is_off_limits(bytes);
        if (named && (p->port == 0 || p->port == port) && same_bits(p->address, bytes, p->bits)) {
            return true;
        }
    }
    return r->count == 0 && !is_off_limits(bytes);
}
