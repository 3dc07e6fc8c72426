/* Letting workers in: join tokens, joining, members. A worker that joins trusts the authority by
 * the hash in its token and shows the token in return; docs/protocol.md, "Joining". */
#include "common/base.h"

#include <stdlib.h>

#include "broker/api/answer.h"
#include "broker/api/body.h"
#include "broker/api/handlers.h"
#include "broker/api/scope.h"
#include "broker/api/server.h"
#include "broker/api/view.h"
#include "broker/core/query.h"
#include "common/cert.h"
#include "common/os.h"

#define TTL_MS (3600ull * 1000)
#define TOKEN  "dvj_"

static int refused(struct request *rq)
{
    return rq->reply.text[0] != '\0' ? request_fail(rq, rq->result, "%s", rq->reply.text)
                                     : rq->result;
}

/* Whom to trust: a caller that knows the hash needs no other proof, so anybody may ask. */
int get_authority(struct request *rq)
{
    const struct authority *a = rq->api->config.authority;

    if (!a) {
        return -E_NOT_FOUND;
    }
    struct str pem = authority_certificate(a);
    return answer_json(
        rq, MHD_HTTP_OK,
        json_pack("{s:s%, s:s}", "certificate", pem.p, pem.n, "sha256", authority_pin(a)));
}

/* --- join tokens --- */

static int token_added(struct request *rq)
{
    json_t *answer = rq->extra;

    rq->extra = NULL;
    if (rq->result < 0) {
        json_decref(answer);
        return refused(rq);
    }
    return answer_json(rq, MHD_HTTP_CREATED, answer);
}

static int read_tags(struct request *rq, const json_t *body, struct arena *arena,
                     Pb__JoinTokenAdd *add)
{
    const json_t *list;
    int r = body_array(rq, body, "tags", LIMIT_TAGS, &list);

    if (r < 0 || !list) {
        return r;
    }
    add->tags = arena_array(arena, json_array_size(list) + 1, sizeof(*add->tags));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *tag = json_string_value(json_array_get(list, i));
        if (!tag || !body_is_name(tag) || strlen(tag) > LIMIT_NAME) {
            return request_fail(rq, -E_INVALID, "`tags[%zu]` is no tag", i);
        }
        add->tags[add->n_tags++] = arena_strdup(arena, str_from(tag));
    }
    return 0;
}

static int read_token(struct request *rq, struct arena *arena, Pb__JoinTokenAdd *add)
{
    json_t *body;
    const char *pool = "";
    uint64_t ttl_ms = TTL_MS;
    int r = body_parse(rq, true, &body);

    if (r < 0) {
        return r;
    }
    r = body_fields(rq, body, "", "pool tags ttl");
    r = r < 0 ? r : body_text(rq, body, "pool", LIMIT_NAME, &pool);
    r = r < 0 ? r : body_duration(rq, body, "ttl", LIMIT_JOIN_TOKEN_MS, &ttl_ms);
    r = r < 0 ? r : read_tags(rq, body, arena, add);
    add->pool = arena_strdup(arena, str_from(pool));
    add->expires_ms = os_realtime_ms() + ttl_ms;
    json_decref(body);
    return r;
}

int post_join_token(struct request *rq)
{
    struct post *post = request_post_new(rq);
    Pb__JoinTokenAdd *add = arena_alloc(post_arena(post), sizeof(*add));
    uint8_t hash[SHA256_BYTES];

    pb__join_token_add__init(add);
    int r = rq->api->config.authority ? read_token(rq, post_arena(post), add) : -E_UNSUPPORTED;
    if (r < 0) {
        post_free(post);
        return r;
    }
    char *secret = crypto_token(TOKEN);
    struct buf token = BUF_INIT;
    buf_addf(&token, "%s_%s", secret, authority_pin(rq->api->config.authority));
    crypto_sha256(token.p, token.n, hash);
    add->hash = pb_bytes(post_arena(post), str_of(hash, sizeof(hash)));
    rq->extra = json_pack("{s:s, s:s, s:o}", "token", buf_cstr(&token), "pool", add->pool,
                          "expires_at", json_time(add->expires_ms));
    crypto_wipe(token.p, token.n);
    crypto_wipe(secret, strlen(secret));
    buf_release(&token);
    free(secret);
    post_command(post)->body_case = PB__COMMAND__BODY_JOIN_TOKEN_ADD;
    post_command(post)->join_token_add = add;
    return request_post(rq, post, token_added);
}

/* --- joining --- */

static void hash_token(struct request *rq, uint8_t ret[SHA256_BYTES])
{
    struct str token = auth_bearer(request_header(rq, "Authorization"));

    crypto_sha256(token.p, token.n, ret);
}

static int certify(struct request *rq, struct tx *tx, struct str request_pem, json_t **ret)
{
    const struct api_config *c = &rq->api->config;
    uint8_t hash[SHA256_BYTES];
    struct buf pem = BUF_INIT;

    hash_token(rq, hash);
    const Pb__JoinTokenRecord *t = join_token_get(tx, str_of(hash, sizeof(hash)));
    const Pb__CertificateRecord *cert = t ? certificate_get(tx, pb_str(t->serial)) : NULL;
    const Pb__MemberRecord *m = cert ? member_get(tx, cert->name) : NULL;
    if (!m) {
        return request_fail(rq, -E_CONFLICT, "another worker came first");
    }
    int r = authority_certify_worker(c->authority, request_pem, m->name, t->serial.data,
                                     cert->issued_ms, cert->until_ms, &pem);
    if (r == 0) {
        struct str ca = authority_certificate(c->authority);
        *ret = json_pack("{s:s%, s:s%, s:s, s:s, s:o, s:o, s:i, s:b}", "certificate", pem.p, pem.n,
                         "authority", ca.p, ca.n, "name", m->name, "pool", m->pool, "tags",
                         view_text_list(m->tags, m->n_tags), "expires_at",
                         json_time(cert->until_ms), "fleet_port", (int)rq->api->fleet_port,
                         "fleet_tls", (int)c->fleet_tls);
    }
    buf_release(&pem);
    return r;
}

static int joined(struct request *rq)
{
    json_t *body, *answer = NULL;
    const char *pem = "";
    struct tx *tx;

    if (rq->result < 0) {
        return refused(rq);
    }
    int r = body_parse(rq, false, &body);
    if (r < 0) {
        return r;
    }
    r = body_text(rq, body, "request", CERT_PEM_MAX, &pem);
    r = r < 0 ? r : api_read(rq->api, &tx);
    if (r == 0) {
        r = certify(rq, tx, str_from(pem), &answer);
        tx_abort(tx);
    }
    json_decref(body);
    return r < 0 ? r : answer_json(rq, MHD_HTTP_CREATED, answer);
}

static int read_join(struct request *rq, const json_t *body, struct arena *arena,
                     Pb__WorkerJoin *join)
{
    const char *name = NULL, *uid = NULL, *pem = NULL;
    uint8_t id[16], key_hash[SHA256_BYTES], serial[CERT_SERIAL_BYTES];
    int r = body_fields(rq, body, "", "name uid request");

    r = r < 0 ? r : body_name(rq, body, "name", &name);
    r = r < 0 ? r : body_text(rq, body, "uid", 2 * sizeof(id), &uid);
    r = r < 0 ? r : body_text(rq, body, "request", CERT_PEM_MAX, &pem);
    if (r < 0) {
        return r;
    }
    if (!name || !uid || !pem || str_from_hex(str_from(uid), id, sizeof(id)) < 0) {
        return request_fail(rq, -E_INVALID,
                            "`name`, `uid` (32 hex digits) and `request` are needed");
    }
    if (cert_check_request(str_from(pem), key_hash) < 0) {
        return request_fail(rq, -E_INVALID,
                            "`request` is no certificate request (PKCS #10) for a P-256 key");
    }
    cert_new_serial(serial);
    join->name = arena_strdup(arena, str_from(name));
    join->uid = pb_bytes(arena, str_of(id, sizeof(id)));
    join->key_hash = pb_bytes(arena, str_of(key_hash, sizeof(key_hash)));
    join->serial = pb_bytes(arena, str_of(serial, sizeof(serial)));
    join->until_ms = authority_worker_until_ms(rq->api->config.authority, os_realtime_ms());
    return 0;
}

int post_join(struct request *rq)
{
    json_t *body;
    uint8_t hash[SHA256_BYTES];
    int r = rq->api->config.authority ? body_parse(rq, false, &body) : -E_UNSUPPORTED;

    if (r < 0) {
        return r;
    }
    struct post *post = request_post_new(rq);
    Pb__WorkerJoin *join = arena_alloc(post_arena(post), sizeof(*join));
    pb__worker_join__init(join);
    hash_token(rq, hash);
    join->token_hash = pb_bytes(post_arena(post), str_of(hash, sizeof(hash)));
    r = read_join(rq, body, post_arena(post), join);
    json_decref(body);
    if (r < 0) {
        post_free(post);
        return r;
    }
    post_command(post)->body_case = PB__COMMAND__BODY_WORKER_JOIN;
    post_command(post)->worker_join = join;
    return request_post(rq, post, joined);
}

/* --- members --- */

static json_t *view_member(const Pb__MemberRecord *m)
{
    return json_pack("{s:s, s:s, s:o, s:o, s:s, s:o, s:o}", "name", m->name, "pool", m->pool,
                     "tags", view_text_list(m->tags, m->n_tags), "joined_at",
                     json_time(m->joined_ms), "invited_by", m->invited_by, "revoked_at",
                     json_time(m->revoked_ms), "revoked_by", json_text(m->revoked_by));
}

int get_members(struct request *rq)
{
    const char *after = request_query(rq, "after");
    struct str from = after ? str_from(after) : STR_NULL;
    struct key start = key_bytes(from.p, MIN(from.n, LIMIT_NAME));
    json_t *items = json_array();
    const char *next = NULL;
    struct cursor c;
    uint64_t limit;
    struct tx *tx;
    int r = scope_limit(rq, &limit);

    r = r < 0 ? r : api_read(rq->api, &tx);
    if (r < 0) {
        json_decref(items);
        return r;
    }
    for (tx_seek(&c, tx, T_MEMBER, STR_NULL, from.n > 0 ? &start : NULL); c.valid && !next;
         tx_next(&c)) {
        Pb__MemberRecord *m;
        if (str_eq(c.key, from) ||
            PB_UNPACK(tx_arena(tx), member_record, c.value.p, c.value.n, LIMIT_COMMAND, &m) < 0) {
            continue;
        }
        json_array_append_new(items, view_member(m));
        next = json_array_size(items) == limit ? m->name : NULL;
    }
    cursor_end(&c);
    json_t *answer = json_pack("{s:o, s:o}", "items", items, "next", json_text(next));
    r = tx_error(tx);
    tx_abort(tx);
    if (r < 0) {
        json_decref(answer);
        return r;
    }
    return answer_json(rq, MHD_HTTP_OK, answer);
}

static int revoked(struct request *rq)
{
    struct tx *tx;
    char *name;
    int r = rq->result < 0 ? refused(rq) : api_read(rq->api, &tx);

    if (r < 0) {
        return r;
    }
    name = str_dup(rq->args.rest);
    const Pb__MemberRecord *m = member_get(tx, name);
    json_t *answer = m ? view_member(m) : NULL;
    free(name);
    tx_abort(tx);
    return answer ? answer_json(rq, MHD_HTTP_OK, answer) : -E_NOT_FOUND;
}

int delete_member(struct request *rq)
{
    struct post *post = request_post_new(rq);
    Pb__WorkerRevoke *c = arena_alloc(post_arena(post), sizeof(*c));

    pb__worker_revoke__init(c);
    c->name = arena_strdup(post_arena(post), rq->args.rest);
    post_command(post)->body_case = PB__COMMAND__BODY_WORKER_REVOKE;
    post_command(post)->worker_revoke = c;
    return request_post(rq, post, revoked);
}
