#include "common/base.h"

#include "broker/net/state.h"
#include "broker/vault/authority.h"
#include "common/log.h"

/* Certificates of workers: who a session is with, and a new one before the old one expires. */

void certify_session(struct fleet *f, struct session *s, Pb__WorkerHello *hello)
{
    struct tls_peer peer;

    s->secured = wire_peer(f->wire, s->pipe, &peer);
    /* Whatever the worker wrote there itself. */
    hello->serial = s->secured && peer.certified
                        ? pb_bytes(&f->arena, str_of(peer.serial, sizeof(peer.serial)))
                        : (ProtobufCBinaryData){0};
}

void certify_say_failure(struct fleet *f, const struct session *s)
{
    struct tls_peer peer;

    if (s->number == 0 && wire_peer(f->wire, s->pipe, &peer) && peer.why[0] != '\0') {
        log_info("net: a connection came to nothing: %s", peer.why);
    }
}

bool certify_is_over(const struct fleet *f, const struct peer *p)
{
    return p->record->certified_until_ms != 0 && p->record->certified_until_ms <= f->turn.now_ms;
}

static void answer(struct fleet *f, struct session *s, int r, const char *text, struct str cert)
{
    Pb__Envelope e = PB__ENVELOPE__INIT;
    Pb__Certificate m = PB__CERTIFICATE__INIT;

    m.code = r < 0 ? (char *)err_code(r) : (char *)"";
    m.text = (char *)text;
    if (r == 0) {
        m.certificate = pb_bytes(&f->arena, cert);
        m.authority = pb_bytes(&f->arena, authority_certificate(f->c.authority));
    }
    e.body_case = PB__ENVELOPE__BODY_CERTIFICATE;
    e.certificate = &m;
    session_send(f, s, &e, NULL);
}

static int renew(struct fleet *f, struct session *s, const Pb__CertificateRequest *m,
                 struct reply *reply, struct buf *ret_cert)
{
    Pb__Command cmd = PB__COMMAND__INIT;
    Pb__WorkerRenew body = PB__WORKER_RENEW__INIT;
    uint8_t serial[CERT_SERIAL_BYTES], key_hash[SHA256_BYTES];
    int r = cert_check_request(pb_str(m->request), key_hash);

    if (r < 0) {
        return r;
    }
    cert_new_serial(serial);
    body.name = s->peer->record->name;
    body.old_serial = m->serial;
    body.key_hash = pb_bytes(&f->arena, str_of(key_hash, sizeof(key_hash)));
    body.serial = pb_bytes(&f->arena, str_of(serial, sizeof(serial)));
    body.until_ms = authority_worker_until_ms(f->c.authority, f->turn.now_ms);
    cmd.body_case = PB__COMMAND__BODY_WORKER_RENEW;
    cmd.worker_renew = &body;
    r = command_apply(f, s->peer->actor, &cmd, reply);
    return r < 0 ? r
                 : authority_certify_worker(f->c.authority, pb_str(m->request), body.name, serial,
                                            f->turn.now_ms, body.until_ms, ret_cert);
}

void certify_take(struct fleet *f, struct session *s, const Pb__CertificateRequest *m)
{
    struct reply reply = {.text = ""};
    struct buf cert = BUF_INIT;

    if (f->c.authority == NULL || s->peer->record->certified_until_ms == 0 || !s->secured) {
        session_violation(f, s, "wants a certificate, and has none");
        return;
    }
    int r = renew(f, s, m, &reply, &cert);
    if (tx_ok(f->turn.tx)) {
        log_info("net: %s %s", s->peer->actor,
                 r == 0 ? "gets a new certificate" : "gets no new certificate");
        answer(f, s, r, reply.text[0] != '\0' || r == 0 ? reply.text : err_text(r), buf_str(&cert));
    }
    buf_release(&cert);
}
