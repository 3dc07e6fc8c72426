/* An authority of one's own and certificates of it, for tests of TLS. */
#ifndef DAVIT_TEST_AUTHORITY_H
#define DAVIT_TEST_AUTHORITY_H

#include "common/cert.h"

struct authority {
    struct buf key;
    struct buf cert;
};

struct holder {
    struct buf key;
    struct buf cert;
    struct cert_facts facts;
};

void authority_make(struct authority *ca);
void authority_release(struct authority *ca);
/* Valid from an hour ago for `life_ms` from now on, which may be less than nothing. A server is for
 * localhost and 127.0.0.1. */
void authority_certify(const struct authority *ca, enum cert_use use, const char *label,
                       int64_t life_ms, struct holder *ret);
void holder_release(struct holder *h);

#endif
