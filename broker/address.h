/* Listen addresses of the command line. Pure. */
#ifndef DAVIT_ADDRESS_H
#define DAVIT_ADDRESS_H

#include "common/buf.h"
#include "common/err.h"

struct address {
    char host[64]; /* numeric, without brackets */
    uint16_t port;
    bool tls;
};

/* The schemes of an address without TLS ("tcp://"; "" for none) and with it ("tls://"). */
struct address_schemes {
    const char *plain;
    const char *tls;
};
extern const struct address_schemes address_fleet; /* tcp://, tls:// */
extern const struct address_schemes address_http;  /* http:// or nothing, https:// */

/* Reads "SCHEME HOST:PORT", where HOST is numeric or localhost. -E_USAGE: `why` says what is wrong.
 * Without TLS anything but loopback (127.x.x.x, [::1]) is, unless `plain_anywhere`. */
int address_parse(const char *text, const struct address_schemes *schemes, bool plain_anywhere,
                  struct address *ret, struct buf *why);
bool address_is_loopback(const struct address *a);
bool address_is_any(const struct address *a); /* 0.0.0.0, [::]: no address to be reached by */
/* "tcp://127.0.0.1:7070"; `name` takes the place of the host where it is not NULL. */
void address_url(const struct address *a, const char *scheme, const char *name, struct buf *out);

#endif
