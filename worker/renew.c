#include "common/base.h"

#include "worker/renew.h"

#include "common/log.h"
#include "common/os.h"

#define PAUSE_MIN_MS 1000u
#define PAUSE_MAX_MS (3600u * 1000)

void renewal_drop(struct renewal *n)
{
    crypto_wipe(n->key.p, n->key.n);
    buf_release(&n->key);
}

void renewal_look(struct renewal *n, const struct identity *id, struct session *s)
{
    Pb__Envelope e = PB__ENVELOPE__INIT;
    Pb__CertificateRequest m = PB__CERTIFICATE_REQUEST__INIT;
    struct buf request = BUF_INIT;
    uint64_t now_ms = os_monotonic_ms();

    if (os_realtime_ms() < identity_renew_ms(id) || n->key.n > 0 ||
        (n->tried_ms != 0 && now_ms < n->tried_ms + n->pause_ms)) {
        return;
    }
    n->tried_ms = now_ms;
    n->pause_ms = MAX(PAUSE_MIN_MS, MIN(2 * n->pause_ms, PAUSE_MAX_MS));
    cert_make_key(&n->key);
    check(cert_make_request(buf_str(&n->key), id->name, &request) == 0);
    m.request = pb_bytes_ref(buf_str(&request));
    m.serial = pb_bytes_ref(str_of(id->facts.serial, CERT_SERIAL_BYTES));
    e.body_case = PB__ENVELOPE__BODY_CERTIFICATE_REQUEST;
    e.certificate_request = &m;
    session_send(s, &e);
    buf_release(&request);
}

void renewal_take(struct renewal *n, struct identity *id, struct tls *tls, const char *host,
                  const Pb__Certificate *m)
{
    struct buf why = BUF_INIT;
    char until[32];
    int r = 0;

    if (n->key.n == 0) {
        log_warn("the broker sent a certificate that was not asked for");
        return;
    }
    if (m->code[0] != '\0') {
        buf_addf(&why, "%s: %s", m->code, m->text);
        r = err_from_code(m->code);
    } else if (!cert_is_by(pb_str(m->authority), buf_str(&id->authority))) {
        buf_addz(&why, "the broker has another authority now: let this worker join again");
        r = -E_UNAUTHORIZED;
    } else {
        r = identity_renew(id, buf_str(&n->key), pb_str(m->certificate), &why);
    }
    renewal_drop(n);
    if (r == 0) {
        struct tls_config c = identity_tls(id, host);
        r = tls_replace(tls, &c, &why);
    }
    if (r < 0) {
        log_error("no new certificate: %s", buf_cstr(&why));
    } else {
        n->tried_ms = n->pause_ms = 0;
        log_info("a new certificate, good until %s",
                 str_time(id->facts.until_ms, until, sizeof(until)));
    }
    buf_release(&why);
}
