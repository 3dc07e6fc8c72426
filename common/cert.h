/* Keys, certificate requests and X.509 certificates, all as PEM text: what an authority of our own
 * and those whom it certifies need. Keys are P-256, signatures ECDSA with SHA-256. A certificate is
 * known by its serial number (16 random bytes), and whoever issued it keeps what belongs to that
 * number: in the certificate itself stand only the names of a server and a line for people.
 *
 * OpenSSL beneath. Ownership: what a function gives back is appended to the caller's buffer.
 * Threads: all safe. Errors: -E_INVALID where somebody's text is not what it should be. */
#ifndef DAVIT_CERT_H
#define DAVIT_CERT_H

#include "common/buf.h"
#include "common/crypto.h"
#include "common/err.h"

#define CERT_SERIAL_BYTES 16u
#define CERT_PEM_MAX      16384u /* of one key, request or certificate */

/* A name that no host can have (RFC 6761, section 6.4), in each server certificate of a broker's
 * own authority: whoever trusts that authority asks for it by this name, as the broker may show
 * another certificate to all others. */
#define CERT_BROKER_NAME "broker.davit.invalid"

/* What the holder may be: each use excludes the others, so that a worker's certificate makes no
 * server. */
enum cert_use {
    CERT_AUTHORITY,
    CERT_SERVER,
    CERT_CLIENT,
};

struct cert_order {
    enum cert_use use;
    const char *label;        /* for people; what is longer than 64 bytes is cut */
    const char *const *names; /* of a server: host names and addresses; at most LIMIT_CERT_NAMES */
    size_t name_count;
    uint8_t serial[CERT_SERIAL_BYTES];
    uint64_t from_ms; /* since 1970 */
    uint64_t until_ms;
};

struct cert_facts {
    uint8_t serial[CERT_SERIAL_BYTES];
    uint8_t hash[SHA256_BYTES];     /* of the whole certificate (DER) */
    uint8_t key_hash[SHA256_BYTES]; /* of its public key (SubjectPublicKeyInfo) */
    uint64_t from_ms;
    uint64_t until_ms;
};

/* A number that nobody else gets; positive, as X.509 wants it. */
void cert_new_serial(uint8_t ret[CERT_SERIAL_BYTES]);

/* A private key (PKCS #8, not encrypted): wipe it. */
void cert_make_key(struct buf *ret_pem);
/* A PKCS #10 request by which the holder of the key shows that it has it. */
int cert_make_request(struct str key_pem, const char *label, struct buf *ret_pem);
/* Whether it was made by the holder of the key in it, and that key is one that we certify (P-256).
 * Anything else in it is ignored. */
int cert_check_request(struct str request_pem, uint8_t ret_key_hash[SHA256_BYTES]);

/* The authority's own certificate. */
int cert_make_authority(struct str key_pem, const struct cert_order *order, struct buf *ret_pem);
/* Certifies the key of a request that cert_check_request takes. */
int cert_issue(struct str ca_pem, struct str ca_key_pem, struct str request_pem,
               const struct cert_order *order, struct buf *ret_pem);

int cert_read(struct str cert_pem, struct cert_facts *ret);
bool cert_has_key(struct str cert_pem, struct str key_pem); /* they belong together */
bool cert_is_by(struct str cert_pem, struct str ca_pem);    /* signed by its key */
/* For a host name or an address as a client would ask for it. */
bool cert_is_for(struct str cert_pem, const char *name);

/* Whether a server can show what somebody else has certified: its own certificate first, then those
 * that lead to its authority, LIMIT_CERT_CHAIN at most; and the key of the first. Other kinds of
 * keys and serial numbers are fine. -E_INVALID, and `why` gets what is wrong of `ret_part`; when
 * the chain ends (its first certificate to end does) in *ret_until_ms. */
enum cert_part { CERT_PART_CHAIN, CERT_PART_KEY };
int cert_check_chain(struct str chain_pem, struct str key_pem, uint64_t now_ms,
                     uint64_t *ret_until_ms, enum cert_part *ret_part, struct buf *why);

#endif
