#include "common/base.h"

#include "broker/address.h"

#include <arpa/inet.h>

static bool is_loopback(const char *host)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (inet_pton(AF_INET, host, &v4) == 1) {
        return ntohl(v4.s_addr) >> 24 == 127;
    }
    return inet_pton(AF_INET6, host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

static bool split(struct str text, struct str *ret_host, struct str *ret_port)
{
    size_t colon = text.n;

    while (colon > 0 && text.p[colon - 1] != ':') {
        colon--;
    }
    if (colon == 0) {
        return false;
    }
    *ret_host = str_sub(text, 0, colon - 1);
    *ret_port = str_sub(text, colon, text.n);
    if (str_starts(*ret_host, STR("[")) && str_ends(*ret_host, STR("]"))) {
        *ret_host = str_sub(*ret_host, 1, ret_host->n - 2);
    }
    return true;
}

int address_parse(const char *text, const char *scheme, struct address *ret, struct buf *why)
{
    struct str rest = str_from(text);
    struct str prefix = str_from(scheme);
    struct str host;
    struct str port;
    struct address a;
    uint64_t number;

    if (prefix.n > 0 && !str_starts(rest, prefix)) {
        buf_addf(why, "%s: expected %sADDRESS:PORT", text, scheme);
        return -E_USAGE;
    }
    rest = str_sub(rest, prefix.n, rest.n);
    if (!split(rest, &host, &port) || str_to_u64(port, &number) < 0 || number > UINT16_MAX ||
        host.n >= sizeof(a.host)) {
        buf_addf(why, "%s: expected %sADDRESS:PORT", text, scheme);
        return -E_USAGE;
    }
    if (str_eqz(host, "localhost")) {
        host = STR("127.0.0.1");
    }
    memcpy(a.host, host.p, host.n);
    a.host[host.n] = '\0';
    a.port = (uint16_t)number;
    if (!is_loopback(a.host)) {
        buf_addf(why,
                 "%s: only loopback addresses (127.x.x.x, [::1]) are served: there is no TLS yet",
                 text);
        return -E_USAGE;
    }
    *ret = a;
    return 0;
}

void address_url(const struct address *a, const char *scheme, struct buf *out)
{
    bool v6 = strchr(a->host, ':') != NULL;

    buf_addf(out, "%s%s%s%s:%u", scheme, v6 ? "[" : "", a->host, v6 ? "]" : "", a->port);
}
