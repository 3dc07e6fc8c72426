/* Which addresses the actions of this worker may connect to (--action-allow). What counts is the
 * address that a name comes to, at the moment of connecting: so no name, and no redirect, leads
 * elsewhere.
 *
 * Without a pattern all may be connected to but link-local ones, where clouds keep the credentials
 * of their machines, multicast and unspecified ones; with patterns only what one of them names, and
 * those, too, if one names them. Threads: pure. */
#ifndef DAVIT_WORKER_REACH_H
#define DAVIT_WORKER_REACH_H

#include "common/buf.h"
#include "common/err.h"

struct sockaddr;

struct reach_pattern {
    uint8_t address[16]; /* IPv4 within ::ffff:0:0/96 */
    uint32_t bits;       /* of these 128 */
    uint32_t port;       /* 0: any */
};

struct reach {
    struct reach_pattern *patterns;
    size_t count;
};

/* ADDRESS, ADDRESS/BITS, each with :PORT behind it; IPv6 with a port in brackets; *:PORT is any
 * address. -E_USAGE. */
int reach_add(struct reach *r, const char *text);
void reach_release(struct reach *r);
bool reach_admits(const struct reach *r, const struct sockaddr *address);

#endif
