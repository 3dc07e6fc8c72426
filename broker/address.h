/* Listen addresses of the command line. Pure. */
#ifndef DAVIT_ADDRESS_H
#define DAVIT_ADDRESS_H

#include "common/buf.h"
#include "common/err.h"

struct address {
    char host[64]; /* numeric, without brackets */
    uint16_t port;
};

/* Reads "HOST:PORT" behind `scheme` ("tcp://", or ""), where HOST is 127.x.x.x, [::1] or localhost.
 * -E_USAGE: `why` says what is wrong; anything but loopback is. */
int address_parse(const char *text, const char *scheme, struct address *ret, struct buf *why);
/* "tcp://127.0.0.1:7070" */
void address_url(const struct address *a, const char *scheme, struct buf *out);

#endif
