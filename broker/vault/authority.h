/* The certificate authority of this installation, in a folder of its data: ca.key and ca.pem, made
 * at the first start, and server.pem (key and certificate), which it renews by itself and makes
 * anew where the names by which the broker is reached have changed. All files have mode 0600.
 *
 * Ownership: authority_close, after all that uses its TLS. Threads: authority_open and close on
 * main's; the rest is safe. */
#ifndef DAVIT_VAULT_AUTHORITY_H
#define DAVIT_VAULT_AUTHORITY_H

#include "common/tls.h"

struct authority;
struct authority_config {
    const char *dir;
    const char *const *names; /* host names and addresses; at most LIMIT_CERT_NAMES */
    size_t name_count;
    uint64_t worker_life_ms; /* of a worker's certificate */
    uint64_t server_life_ms;
};

#define AUTHORITY_WORKER_LIFE_MS (30ull * 24 * 3600 * 1000)
#define AUTHORITY_SERVER_LIFE_MS (90ull * 24 * 3600 * 1000)

/* -E_CORRUPT: what lies there does not belong together; nothing is made anew in its place. */
int authority_open(const struct authority_config *config, struct authority **ret, struct buf *why);
void authority_close(struct authority *a); /* NULL is fine */

struct str authority_certificate(const struct authority *a); /* PEM */
/* SHA-256 of the certificate, as hex: what a join token pins. */
const char *authority_pin(const struct authority *a);
uint64_t authority_until_ms(const struct authority *a); /* its own end */

/* What listeners show: a client may come without a certificate. Stays the authority's, and shows
 * the newest server certificate. */
struct tls *authority_tls(struct authority *a);
/* Key and certificate of the server as they are now; wipe the key. */
void authority_server(struct authority *a, struct buf *ret_certificate, struct buf *ret_key);
/* Counts up with every new server certificate. */
uint64_t authority_serial(struct authority *a);
/* Renews the server's certificate when two thirds of its time are over. 1: it has; 0: nothing was
 * to be done. An error leaves the old one. */
int authority_tend(struct authority *a, uint64_t now_ms, struct buf *why);

/* When a worker's certificate of now ends. */
uint64_t authority_worker_until_ms(const struct authority *a, uint64_t now_ms);
/* -E_INVALID: no request that we certify. */
int authority_certify_worker(const struct authority *a, struct str request_pem, const char *name,
                             const uint8_t serial[CERT_SERIAL_BYTES], uint64_t now_ms,
                             uint64_t until_ms, struct buf *ret_pem);

#endif
