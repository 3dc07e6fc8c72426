/* TLS 1.3 of the HTTP server, with the certificate as it is at each handshake: the one that
 * somebody gave us (--tls-cert), or where there is none, and to those who ask for CERT_BROKER_NAME,
 * that of our own authority.
 *
 * libmicrohttpd brings GnuTLS for that, whose callback for certificates takes no context: there is
 * one https a process. Ownership: https_free, once the server has stopped. Threads: new and free on
 * main's; the rest is safe. */
#ifndef DAVIT_API_HTTPS_H
#define DAVIT_API_HTTPS_H

#include <microhttpd.h>

#include "broker/config/served.h"
#include "broker/vault/authority.h"

struct https;
int https_new(struct authority *a, struct https **ret, struct buf *why);
void https_free(struct https *h); /* NULL is fine */

/* A given certificate, ready to be shown. -E_INVALID with why. */
struct https_shown;
int https_load(const struct served *from, struct https_shown **ret, struct buf *why);
void https_shown_free(struct https_shown *s); /* of one that is not shown; NULL is fine */
/* From the next handshake on; NULL: the authority's own again. Takes it over. False: that is the
 * one that it shows already. */
bool https_show(struct https *h, struct https_shown *s);
uint64_t https_given_until_ms(struct https *h); /* when the given one ends; 0: there is none */

#define HTTPS_OPTIONS 3u
/* Options for MHD_OPTION_ARRAY, the last one ends the list; with MHD_USE_TLS. */
void https_options(struct https *h, struct MHD_OptionItem ret[HTTPS_OPTIONS]);

#endif
