/* What a worker has by joining: a key with its certificate, whom it trusts, and where the broker
 * is.
 *
 *     STATE/tls/identity.pem   key and certificate, replaced as one file by renewals
 *     STATE/tls/ca.pem         the authority of the broker
 *     STATE/tls/joined         name, pool and addresses, one NAME=VALUE a line
 *
 * All of mode 0600. identity.pem is written last: where it is, all is. Ownership: identity_release.
 * Threads: the loop's. */
#ifndef DAVIT_WORKER_IDENTITY_H
#define DAVIT_WORKER_IDENTITY_H

#include "common/tls.h"

struct identity {
    char *dir;     /* STATE/tls */
    char *ca_path; /* its ca.pem */
    struct buf key;
    struct buf certificate;
    struct buf authority;
    struct cert_facts facts; /* of the certificate */
    char *name;
    char *pool;
    char *fleet_url;
    char *api_url;
};

/* -E_NOT_FOUND, without a word in `why`: this worker has not joined. */
int identity_load(const char *state, struct identity *ret, struct buf *why);
/* Writes all of it, `dir` and what it holds. */
int identity_save(const struct identity *id, struct buf *why);
/* A renewal: another key with its certificate. Nothing is changed on failure. */
int identity_renew(struct identity *id, struct str key, struct str certificate, struct buf *why);
void identity_release(struct identity *id); /* accepts an empty one */

/* Of connections to that host. */
struct tls_config identity_tls(const struct identity *id, const char *host);
/* When it is time for another certificate: two thirds are over. */
uint64_t identity_renew_ms(const struct identity *id);

#endif
