/* Members: workers that were let in by a join token, and the certificates by which they are known.
 * A certificate is good while its row is there, its time is not over, and its member was neither
 * revoked nor has joined anew since. So what is revoked stays out, whatever the certificate says of
 * itself. */
#include "common/base.h"

#include "broker/core/apply.h"
#include "common/crypto.h"
#include "common/limits.h"

#include <stdlib.h>

#define UID_BYTES       16u
#define SERIAL_BYTES    16u
#define FORGET_AT_ONCE  16u                        /* rows that a command clears away */
#define FORGET_TOKEN_MS (30ull * 24 * 3600 * 1000) /* after its end */

/* --- rows --- */

static struct key end_key(uint64_t due_ms, struct str name)
{
    struct key k = key_u64(due_ms);

    key_add_bytes(&k, name.p, name.n);
    return k;
}

static void certificate_add(struct core *c, struct str serial, const Pb__CertificateRecord *row)
{
    const struct key k = key_bytes(serial.p, serial.n);
    const struct key end = end_key(row->until_ms, serial);

    tx_put_msg(c->tx, T_CERTIFICATE, &k, &row->base);
    tx_put(c->tx, T_CERTIFICATE_END, &end, STR_NULL);
}

static void certificate_drop(struct core *c, struct str serial)
{
    const Pb__CertificateRecord *row = serial.n > 0 ? certificate_get(c->tx, serial) : NULL;

    if (row != NULL) {
        const struct key k = key_bytes(serial.p, serial.n);
        const struct key end = end_key(row->until_ms, serial);
        tx_del(c->tx, T_CERTIFICATE, &k);
        tx_del(c->tx, T_CERTIFICATE_END, &end);
    }
}

static void member_put(struct core *c, const Pb__MemberRecord *m)
{
    const struct key k = key_bytes(m->name, strlen(m->name));

    tx_put_msg(c->tx, T_MEMBER, &k, &m->base);
}

static void token_put(struct core *c, struct str hash, const Pb__JoinTokenRecord *t)
{
    const struct key k = key_bytes(hash.p, hash.n);

    tx_put_msg(c->tx, T_JOIN_TOKEN, &k, &t->base);
}

/* The next of an index of ends, if its time is over by then; what it names lives in the arena. */
static bool next_over(struct core *c, enum table t, uint64_t now_ms, struct str *ret_name)
{
    struct cursor cur;
    bool found = false;

    tx_seek(&cur, c->tx, t, STR_NULL, NULL);
    if (cur.valid && key_read_u64(cur.key, 0) <= now_ms) {
        struct str name = str_sub(cur.key, sizeof(uint64_t), cur.key.n);
        *ret_name = str_of(arena_strdup(c->arena, name), name.n);
        found = true;
    }
    cursor_end(&cur);
    return found;
}

static void forget_certificates(struct core *c)
{
    struct str serial;

    for (unsigned i = 0; i < FORGET_AT_ONCE && tx_ok(c->tx); i++) {
        if (!next_over(c, T_CERTIFICATE_END, c->now_ms, &serial)) {
            return;
        }
        certificate_drop(c, serial);
    }
}

static void forget_tokens(struct core *c)
{
    struct str hash;

    for (unsigned i = 0; i < FORGET_AT_ONCE && tx_ok(c->tx); i++) {
        if (c->now_ms < FORGET_TOKEN_MS ||
            !next_over(c, T_JOIN_TOKEN_END, c->now_ms - FORGET_TOKEN_MS, &hash)) {
            return;
        }
        const Pb__JoinTokenRecord *t = join_token_get(c->tx, hash);
        const struct key k = key_bytes(hash.p, hash.n);
        const struct key end = end_key(t != NULL ? t->expires_ms : 0, hash);
        tx_del(c->tx, T_JOIN_TOKEN, &k);
        tx_del(c->tx, T_JOIN_TOKEN_END, &end);
    }
}

static void member_event(struct core *c, uint64_t worker_id, const char *name, const char *to)
{
    event_add(c, &(struct event){.kind = EVENT_WORKER,
                                 .worker_id = worker_id,
                                 .to = to,
                                 .name = name,
                                 .detail = c->actor});
}

/* --- join tokens --- */

static bool has_tag(char *const *tags, size_t n, const char *tag)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(tags[i], tag) == 0) {
            return true;
        }
    }
    return false;
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int token_check(struct core *c, const Pb__JoinTokenAdd *cmd)
{
    const struct key k = key_bytes(cmd->hash.data, MIN(cmd->hash.len, SHA256_BYTES));

    if (cmd->hash.len != SHA256_BYTES || !text_ok(cmd->pool, LIMIT_NAME) ||
        cmd->n_tags > LIMIT_TAGS) {
        return reject(c, -E_INVALID, "bad hash, pool or tags of the join token");
    }
    for (size_t i = 0; i < cmd->n_tags; i++) {
        if (!name_ok(cmd->tags[i]) || has_tag(cmd->tags, i, cmd->tags[i])) {
            return reject(c, -E_INVALID, "a tag of the join token is no name, or there twice");
        }
    }
    if (cmd->expires_ms <= c->now_ms || cmd->expires_ms - c->now_ms > LIMIT_JOIN_TOKEN_MS) {
        return reject(c, -E_INVALID, "a join token lives for 30 days at most");
    }
    if (tx_has(c->tx, T_JOIN_TOKEN, &k)) {
        return reject(c, -E_EXISTS, "the join token exists already");
    }
    if (tx_count(c->tx, T_JOIN_TOKEN) >= LIMIT_JOIN_TOKENS) {
        return reject(c, -E_LIMIT, "there are %u join tokens already", LIMIT_JOIN_TOKENS);
    }
    return 0;
}

int apply_join_token_add(struct core *c, const Pb__JoinTokenAdd *cmd)
{
    Pb__JoinTokenRecord row = PB__JOIN_TOKEN_RECORD__INIT;
    int r = token_check(c, cmd);

    if (r < 0) {
        return r;
    }
    forget_tokens(c);
    row.pool = cmd->pool;
    row.n_tags = cmd->n_tags;
    row.tags = arena_array(c->arena, cmd->n_tags + 1, sizeof(*row.tags));
    memcpy(row.tags, cmd->tags, cmd->n_tags * sizeof(*row.tags));
    qsort(row.tags, row.n_tags, sizeof(*row.tags), compare);
    row.created_by = (char *)c->actor;
    row.created_ms = c->now_ms;
    row.expires_ms = cmd->expires_ms;
    const struct key end = end_key(row.expires_ms, pb_str(cmd->hash));
    token_put(c, pb_str(cmd->hash), &row);
    tx_put(c->tx, T_JOIN_TOKEN_END, &end, STR_NULL);
    return 0;
}

/* --- joining --- */

static int certificate_check(struct core *c, struct str key_hash, struct str serial,
                             uint64_t until_ms)
{
    if (key_hash.n != SHA256_BYTES || serial.n != SERIAL_BYTES || until_ms <= c->now_ms ||
        until_ms - c->now_ms > LIMIT_CERT_MS) {
        return reject(c, -E_INVALID, "bad key, serial or time of a certificate");
    }
    return certificate_get(c->tx, serial) != NULL
               ? reject(c, -E_EXISTS, "there is a certificate with that serial")
               : 0;
}

/* The token, if this worker may use it. */
static int token_open(struct core *c, const Pb__WorkerJoin *cmd, Pb__JoinTokenRecord **ret)
{
    Pb__JoinTokenRecord *t = (Pb__JoinTokenRecord *)join_token_get(c->tx, pb_str(cmd->token_hash));

    if (cmd->token_hash.len != SHA256_BYTES || t == NULL) {
        return reject(c, -E_UNAUTHORIZED, "this join token is not known here");
    }
    if (t->used_ms != 0 && !str_eq(pb_str(t->key_hash), pb_str(cmd->key_hash))) {
        return reject(c, -E_UNAUTHORIZED, "this join token was used already, by worker %.60s",
                      t->used_by);
    }
    if (t->expires_ms <= c->now_ms) {
        return reject(c, -E_UNAUTHORIZED, "this join token has expired");
    }
    if (t->used_ms != 0 && strcmp(t->used_by, cmd->name) != 0) {
        return reject(c, -E_CONFLICT, "this join token was used under the name %.60s", t->used_by);
    }
    *ret = t;
    return 0;
}

/* A name is one machine's, until that one is revoked. */
static int name_check(struct core *c, const Pb__WorkerJoin *cmd, const Pb__MemberRecord *there)
{
    if (there != NULL && there->revoked_ms == 0 && !str_eq(pb_str(there->uid), pb_str(cmd->uid))) {
        return reject(c, -E_EXISTS,
                      "another worker is called %.60s: choose another name, or revoke that one",
                      cmd->name);
    }
    return 0;
}

static void member_open(struct core *c, const Pb__WorkerJoin *cmd, const Pb__JoinTokenRecord *t,
                        const Pb__MemberRecord *there, Pb__MemberRecord *m)
{
    pb__member_record__init(m);
    m->name = cmd->name;
    m->uid = cmd->uid;
    m->pool = t->pool;
    m->tags = t->tags;
    m->n_tags = t->n_tags;
    /* The token's repetition voids nothing. */
    m->generation = there == NULL ? 1 : there->generation + (t->used_ms == 0);
    m->joined_ms = c->now_ms;
    m->invited_by = t->created_by;
}

int apply_worker_join(struct core *c, const Pb__WorkerJoin *cmd)
{
    Pb__MemberRecord m;
    Pb__CertificateRecord cert = PB__CERTIFICATE_RECORD__INIT;
    Pb__JoinTokenRecord *t = NULL;
    const Pb__MemberRecord *there = NULL;
    int r = token_open(c, cmd, &t);

    if (r == 0 && (cmd->uid.len != UID_BYTES || !name_ok(cmd->name))) {
        r = reject(c, -E_INVALID, "bad uid or name of the worker");
    }
    r = r < 0 ? r : certificate_check(c, pb_str(cmd->key_hash), pb_str(cmd->serial), cmd->until_ms);
    if (r == 0) {
        there = member_get(c->tx, cmd->name);
        r = name_check(c, cmd, there);
    }
    if (r == 0 && t->used_ms != 0 && (there == NULL || there->revoked_ms != 0)) {
        r = reject(c, -E_UNAUTHORIZED, "this join token was used, and its worker was revoked");
    }
    if (r < 0) {
        return r;
    }
    forget_certificates(c);
    certificate_drop(c, pb_str(t->serial));
    member_open(c, cmd, t, there, &m);
    cert.name = cmd->name;
    cert.generation = m.generation;
    cert.key_hash = cmd->key_hash;
    cert.issued_ms = c->now_ms;
    cert.until_ms = cmd->until_ms;
    t->used_ms = c->now_ms;
    t->used_by = cmd->name;
    t->key_hash = cmd->key_hash;
    t->serial = cmd->serial;
    member_put(c, &m);
    certificate_add(c, pb_str(cmd->serial), &cert);
    token_put(c, pb_str(cmd->token_hash), t);
    member_event(c, 0, m.name, "joined");
    return 0;
}

/* --- members --- */

/* The member whose good certificate that is. */
static int member_of(struct core *c, struct str serial, const Pb__MemberRecord **ret,
                     const Pb__CertificateRecord **ret_cert)
{
    const Pb__CertificateRecord *cert = certificate_get(c->tx, serial);
    const Pb__MemberRecord *m = cert != NULL ? member_get(c->tx, cert->name) : NULL;

    if (cert == NULL || m == NULL) {
        return reject(c, -E_UNAUTHORIZED,
                      "this broker does not know the certificate: let the worker join again");
    }
    if (m->revoked_ms != 0) {
        return reject(c, -E_UNAUTHORIZED, "worker %.60s was revoked", m->name);
    }
    if (cert->generation != m->generation) {
        return reject(c, -E_UNAUTHORIZED, "worker %.60s has joined anew: this certificate is void",
                      m->name);
    }
    if (cert->until_ms <= c->now_ms) {
        return reject(c, -E_UNAUTHORIZED, "the certificate has expired: let the worker join again");
    }
    *ret = m;
    *ret_cert = cert;
    return 0;
}

int member_admit(struct core *c, Pb__WorkerHello *hello, uint64_t *ret_until_ms)
{
    const Pb__MemberRecord *m;
    const Pb__CertificateRecord *cert;
    int r = member_of(c, pb_str(hello->serial), &m, &cert);

    if (r < 0) {
        return r;
    }
    if (strcmp(hello->name, m->name) != 0 || !str_eq(pb_str(hello->uid), pb_str(m->uid))) {
        return reject(c, -E_UNAUTHORIZED, "the certificate is of worker %.60s, not of %.60s",
                      m->name, hello->name);
    }
    if (hello->pool[0] != '\0' && strcmp(hello->pool, m->pool) != 0) {
        return reject(c, -E_UNAUTHORIZED, "worker %.60s has joined for pool `%.40s`, not `%.40s`",
                      m->name, m->pool, hello->pool);
    }
    for (size_t i = 0; i < hello->n_tags && m->n_tags > 0; i++) {
        if (!has_tag(m->tags, m->n_tags, hello->tags[i])) {
            return reject(c, -E_UNAUTHORIZED, "worker %.60s may not offer the tag `%.60s`", m->name,
                          hello->tags[i]);
        }
    }
    hello->pool = m->pool;
    if (hello->n_tags == 0) {
        hello->tags = m->tags;
        hello->n_tags = m->n_tags;
    }
    *ret_until_ms = cert->until_ms;
    return 0;
}

static Pb__WorkerRecord *worker_of(struct core *c, const Pb__MemberRecord *m)
{
    const struct key by_uid = key_bytes(m->uid.data, m->uid.len);
    struct str found;

    if (!tx_get(c->tx, T_WORKER_UID, &by_uid, &found)) {
        return NULL; /* it has not been here yet */
    }
    const struct key k = key_u64(key_read_u64(found, 0));
    Pb__WorkerRecord *w = (Pb__WorkerRecord *)core_row(c, T_WORKER, &k,
                                                       &pb__worker_record__descriptor);
    /* Its uid may have joined under another name since. */
    return strcmp(w->name, m->name) == 0 ? w : NULL;
}

static void worker_put(struct core *c, const Pb__WorkerRecord *w)
{
    const struct key k = key_u64(w->id);

    tx_put_msg(c->tx, T_WORKER, &k, &w->base);
    effect_add(c->fx, (struct effect){.kind = EFFECT_WORKER, .worker_id = w->id});
    c->reply->worker_id = w->id;
}

/* Not before half of its time: a worker that asks without end shall not fill the store. What came
 * of an earlier try, and was never used, goes. */
int apply_worker_renew(struct core *c, const Pb__WorkerRenew *cmd)
{
    const Pb__MemberRecord *m;
    const Pb__CertificateRecord *found;
    int r = certificate_check(c, pb_str(cmd->key_hash), pb_str(cmd->serial), cmd->until_ms);

    r = r < 0 ? r : member_of(c, pb_str(cmd->old_serial), &m, &found);
    if (r < 0) {
        return r;
    }
    if (strcmp(m->name, cmd->name) != 0) {
        return reject(c, -E_UNAUTHORIZED, "the certificate is of worker %.60s, not of %.60s",
                      m->name, cmd->name);
    }
    Pb__CertificateRecord *old = (Pb__CertificateRecord *)found;
    if (c->now_ms < old->issued_ms + (old->until_ms - old->issued_ms) / 2) {
        return reject(c, -E_CONFLICT, "the certificate is too young to be renewed");
    }
    Pb__CertificateRecord cert = *old;
    certificate_drop(c, pb_str(old->next_serial));
    cert.key_hash = cmd->key_hash;
    cert.issued_ms = c->now_ms;
    cert.until_ms = cmd->until_ms;
    cert.next_serial = (ProtobufCBinaryData){0};
    old->next_serial = cmd->serial;
    certificate_add(c, pb_str(cmd->old_serial), old);
    certificate_add(c, pb_str(cmd->serial), &cert);
    Pb__WorkerRecord *w = worker_of(c, m);
    if (w != NULL) {
        w->certified_until_ms = cmd->until_ms;
        worker_put(c, w);
    }
    forget_certificates(c); /* last: it may be the old one's time */
    return 0;
}

int apply_worker_revoke(struct core *c, const Pb__WorkerRevoke *cmd)
{
    Pb__MemberRecord *m = (Pb__MemberRecord *)member_get(c->tx, cmd->name);

    if (m == NULL) {
        return reject(c, -E_NOT_FOUND, "no worker called %.60s has a certificate", cmd->name);
    }
    if (m->revoked_ms != 0) {
        return reject(c, -E_CONFLICT, "worker %.60s was revoked already", m->name);
    }
    m->revoked_ms = c->now_ms;
    m->revoked_by = (char *)c->actor;
    member_put(c, m);
    Pb__WorkerRecord *w = worker_of(c, m);
    if (w != NULL) {
        w->revoked = true;
        worker_put(c, w);
        worker_lose_jobs(c, w->id);
    }
    member_event(c, w != NULL ? w->id : 0, m->name, "revoked");
    return 0;
}
