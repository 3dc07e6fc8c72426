/* TLS 1.3, and nothing older: what one end of connections shows and whom it trusts. Both are given
 * as PEM text and may be replaced while connections live: handshakes that begin later use the new,
 * connections that are there stay as they are.
 *
 * Nobody is trusted but the authorities named here; the machine's own list is not read. There is no
 * resumption: every connection proves anew who it is, so that whoever is refused stays out.
 * Ownership: tls_free drops the caller's hold; connections keep what they need. Threads: all safe;
 * an SSL belongs to one thread at a time. */
#ifndef DAVIT_TLS_H
#define DAVIT_TLS_H

#include <openssl/ssl.h>

#include "common/cert.h"

enum tls_side {
    TLS_CLIENT,       /* the server must be of `authority`, and for `host` */
    TLS_SERVER,       /* a client may come without a certificate; one that it has must be good */
    TLS_SERVER_MUTUAL /* a client must have a good certificate */
};

struct tls_config {
    enum tls_side side;
    struct str authority;   /* PEM */
    struct str certificate; /* PEM; may be empty for a client */
    struct str key;         /* PEM; empty where the certificate is */
    const char *host;       /* of a client: a host name or an address */
};

struct tls;
/* -E_INVALID: `why` says which of the texts is not good. */
int tls_new(const struct tls_config *config, struct tls **ret, struct buf *why);
/* Of the same side. Nothing is changed on failure. */
int tls_replace(struct tls *t, const struct tls_config *config, struct buf *why);
struct tls *tls_hold(struct tls *t);
void tls_free(struct tls *t); /* NULL is fine */

/* A connection, before its handshake; SSL_free. */
SSL *tls_open(struct tls *t);

/* Whom a connection is with. */
struct tls_peer {
    bool connected;                    /* the handshake is over */
    bool certified;                    /* it has a certificate that is good; what follows is its */
    uint8_t serial[CERT_SERIAL_BYTES]; /* */
    char why[160];                     /* the connection failed: the reason, for people; or "" */
};
void tls_read_peer(SSL *ssl, struct tls_peer *ret);
/* The reason of the failure that the last call on this thread met; static or within OpenSSL. */
const char *tls_failure(SSL *ssl);

#endif
