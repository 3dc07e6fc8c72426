#include "common/base.h"

#include "broker/address.h"

#include <arpa/inet.h>

const struct address_schemes address_fleet = {.plain = "tcp://", .tls = "tls://"};
const struct address_schemes address_http = {.plain = "http://", .tls = "https://"};

bool address_is_loopback(const struct address *a)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (inet_pton(AF_INET, a->host, &v4) == 1) {
        return ntohl(v4.s_addr) >> 24 == 127;
    }
    return inet_pton(AF_INET6, a->host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
}

bool address_is_any(const struct address *a)
{
    struct in_addr v4;
    struct in6_addr v6;

    if (inet_pton(AF_INET, a->host, &v4) == 1) {
        return v4.s_addr == INADDR_ANY;
    }
    return inet_pton(AF_INET6, a->host, &v6) == 1 && IN6_IS_ADDR_UNSPECIFIED(&v6);
}

static bool is_numeric(const char *host)
{
    struct in6_addr any;

    return inet_pton(AF_INET, host, &any) == 1 || inet_pton(AF_INET6, host, &any) == 1;
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

/* What stands behind the scheme. False: it has another one. */
static bool take_scheme(struct str text, const struct address_schemes *schemes, bool *ret_tls,
                        struct str *ret_rest)
{
    const char *const all[] = {schemes->tls, schemes->plain};

    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        if (str_starts(text, str_from(all[i]))) {
            *ret_tls = i == 0;
            *ret_rest = str_sub(text, strlen(all[i]), text.n);
            return true;
        }
    }
    *ret_tls = false;
    *ret_rest = text;
    return schemes == &address_http && str_find(text, STR("://")) < 0;
}

static bool read_address(struct str text, const struct address_schemes *schemes,
                         struct address *ret)
{
    struct str rest, host, port;
    uint64_t number;

    if (!take_scheme(text, schemes, &ret->tls, &rest) || !split(rest, &host, &port) ||
        str_to_u64(port, &number) < 0 || number > UINT16_MAX || host.n >= sizeof(ret->host)) {
        return false;
    }
    if (str_eqz(host, "localhost")) {
        host = STR("127.0.0.1");
    }
    memcpy(ret->host, host.p, host.n);
    ret->host[host.n] = '\0';
    ret->port = (uint16_t)number;
    return is_numeric(ret->host);
}

int address_parse(const char *text, const struct address_schemes *schemes, bool plain_anywhere,
                  struct address *ret, struct buf *why)
{
    struct address a = {.port = 0};

    if (!read_address(str_from(text), schemes, &a)) {
        buf_addf(why, "%s: expected %sADDRESS:PORT or %sADDRESS:PORT, with a numeric address", text,
                 schemes->plain, schemes->tls);
        return -E_USAGE;
    }
    if (!a.tls && !plain_anywhere && !address_is_loopback(&a)) {
        buf_addf(why,
                 "%s: beyond loopback (127.x.x.x, [::1]) only with TLS: %s instead of %s; "
                 "--no-tls-beyond-loopback overrides this, and then everybody on the network can "
                 "read all tokens and run jobs",
                 text, schemes->tls, schemes->plain);
        return -E_USAGE;
    }
    *ret = a;
    return 0;
}

void address_url(const struct address *a, const char *scheme, const char *name, struct buf *out)
{
    const char *host = name != NULL ? name : a->host;
    bool v6 = strchr(host, ':') != NULL;

    buf_addf(out, "%s%s%s%s:%u", scheme, v6 ? "[" : "", host, v6 ? "]" : "", a->port);
}
