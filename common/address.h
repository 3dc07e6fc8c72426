/* Which addresses belong to everybody. What a stranger may make us connect to must not be this
 * machine, nor a neighbour that trusts it. Threads: pure. */
#ifndef DAVIT_ADDRESS_H
#define DAVIT_ADDRESS_H

#include "common/base.h"

struct sockaddr;

/* False for loopback, private, link-local, shared, reserved and multicast ones, for IPv6 forms that
 * hold such an IPv4 address, and for all that is no internet address. */
bool address_is_public(const struct sockaddr *address);

#endif
