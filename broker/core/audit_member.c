#include "common/base.h"

#include "broker/core/audit.h"
#include "common/crypto.h"

/* Join tokens, members, certificates. */

static const void *row(struct audit *a, enum table t, struct str key,
                       const ProtobufCMessageDescriptor *desc)
{
    const struct key k = key_bytes(key.p, key.n);

    return audit_row(a, t, &k, desc, true);
}

static void audit_end(struct audit *a, enum table t, uint64_t due_ms, struct str name)
{
    struct key k = key_u64(due_ms);

    key_add_bytes(&k, name.p, name.n);
    audit_index(a, t, &k, true, due_ms);
}

void audit_join_token(struct audit *a, struct str key)
{
    const Pb__JoinTokenRecord *t = row(a, T_JOIN_TOKEN, key, &pb__join_token_record__descriptor);

    if (t == NULL) {
        return;
    }
    audit_end(a, T_JOIN_TOKEN_END, t->expires_ms, key);
    if (key.n != SHA256_BYTES || (t->used_ms != 0) != (t->used_by[0] != '\0') ||
        (t->used_ms != 0) != (t->key_hash.len == SHA256_BYTES)) {
        breach(a, "join token: a row is odd");
    }
}

void audit_member(struct audit *a, struct str key)
{
    const Pb__MemberRecord *m = row(a, T_MEMBER, key, &pb__member_record__descriptor);

    if (m != NULL && (!str_eqz(key, m->name) || m->uid.len != 16 || m->generation == 0)) {
        breach(a, "member: the row of %.60s is odd", m->name);
    }
}

void audit_certificate(struct audit *a, struct str key)
{
    const Pb__CertificateRecord *c = row(a, T_CERTIFICATE, key,
                                         &pb__certificate_record__descriptor);

    if (c == NULL) {
        return;
    }
    audit_end(a, T_CERTIFICATE_END, c->until_ms, key);
    const struct key name = key_bytes(c->name, strlen(c->name));
    const Pb__MemberRecord *m = (const Pb__MemberRecord *)audit_row(
        a, T_MEMBER, &name, &pb__member_record__descriptor, false);
    if (key.n != 16 || c->key_hash.len != SHA256_BYTES ||
        (m != NULL && c->generation > m->generation)) {
        breach(a, "certificate: a row of %.60s is odd", c->name);
    }
}
