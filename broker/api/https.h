/* TLS 1.3 of the HTTP server, with the authority's server certificate as it is at each handshake.
 * libmicrohttpd brings GnuTLS for that, whose callback for certificates takes no context: there is
 * one https a process. Ownership: https_free, once the server has stopped. Threads:
 * libmicrohttpd's; new and free on main's. */
#ifndef DAVIT_API_HTTPS_H
#define DAVIT_API_HTTPS_H

#include <microhttpd.h>

#include "broker/vault/authority.h"

struct https;
int https_new(struct authority *a, struct https **ret, struct buf *why);
void https_free(struct https *h); /* NULL is fine */

#define HTTPS_OPTIONS 3u
/* Options for MHD_OPTION_ARRAY, the last one ends the list; with MHD_USE_TLS. */
void https_options(struct https *h, struct MHD_OptionItem ret[HTTPS_OPTIONS]);

#endif
