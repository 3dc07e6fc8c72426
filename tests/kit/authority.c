#include "common/base.h"

#include "tests/kit/authority.h"

#include "common/os.h"

#define HOUR_MS 3600000u

void authority_make(struct authority *ca)
{
    struct cert_order order = {.use = CERT_AUTHORITY,
                               .label = "test authority",
                               .from_ms = os_realtime_ms() - 24 * HOUR_MS,
                               .until_ms = os_realtime_ms() + 24 * HOUR_MS};
    *ca = (struct authority){.key = BUF_INIT};
    cert_new_serial(order.serial);
    cert_make_key(&ca->key);
    check(cert_make_authority(buf_str(&ca->key), &order, &ca->cert) == 0);
}

void authority_release(struct authority *ca)
{
    buf_release(&ca->key);
    buf_release(&ca->cert);
}

void authority_certify(const struct authority *ca, enum cert_use use, const char *label,
                       int64_t life_ms, struct holder *ret)
{
    static const char *const names[] = {"localhost", "127.0.0.1"};
    struct cert_order order = {.use = use,
                               .label = label,
                               .names = names,
                               .name_count = use == CERT_SERVER ? ARRAY_LEN(names) : 0,
                               .from_ms = os_realtime_ms() - HOUR_MS,
                               .until_ms = (uint64_t)((int64_t)os_realtime_ms() + life_ms)};
    struct buf request = BUF_INIT;

    *ret = (struct holder){.key = BUF_INIT};
    cert_new_serial(order.serial);
    cert_make_key(&ret->key);
    check(cert_make_request(buf_str(&ret->key), label, &request) == 0);
    check(cert_issue(buf_str(&ca->cert), buf_str(&ca->key), buf_str(&request), &order,
                     &ret->cert) == 0);
    check(cert_read(buf_str(&ret->cert), &ret->facts) == 0);
    buf_release(&request);
}

void holder_release(struct holder *h)
{
    buf_release(&h->key);
    buf_release(&h->cert);
}
