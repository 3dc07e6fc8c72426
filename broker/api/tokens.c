/* Tokens of people and programs, and the audit trail. A token is shown once, when it is made. */
#include "common/base.h"

#include <stdlib.h>

#include "broker/api/answer.h"
#include "broker/api/body.h"
#include "broker/api/handlers.h"
#include "broker/api/scope.h"
#include "broker/api/server.h"
#include "broker/api/uses.h"
#include "broker/api/view.h"
#include "broker/core/query.h"
#include "common/limits.h"
#include "common/os.h"

#define PREFIX "dvt_"

static json_t *view_token(struct request *rq, struct str hash, const Pb__TokenRecord *t)
{
    char id[2 * TOKEN_ID_BYTES + 1];
    json_t *projects = json_array();
    str_to_hex((const uint8_t *)hash.p, TOKEN_ID_BYTES, id);
    for (size_t i = 0; i < t->n_projects; i++) {
        json_array_append_new(projects, json_string(t->projects[i]));
    }
    const uint64_t used_ms = MAX(t->used_ms, uses_last(rq->api->uses, (const uint8_t *)hash.p));
    return json_pack("{s:s, s:s, s:s, s:o, s:b, s:o, s:o, s:o, s:o}", "id", id, "name", t->name,
                     "role", t->role, "projects", projects, "expired",
                     (int)token_has_expired(t, os_realtime_ms()), "created_at",
                     json_time(t->created_ms), "created_by", json_text(t->created_by), "expires_at",
                     json_time(t->expires_ms), "last_used_at", json_time(used_ms));
}

static int read_id(struct request *rq, uint8_t ret[TOKEN_ID_BYTES], const char *text)
{
    return str_from_hex(str_from(text), ret, TOKEN_ID_BYTES) == 0
               ? 0
               : request_fail(rq, -E_INVALID, "`%.64s` is no token's id", text);
}

/* In the order of their ids. */
int get_tokens(struct request *rq)
{
    const char *after = request_query(rq, "after");
    uint8_t from[SHA256_BYTES];
    char next[2 * TOKEN_ID_BYTES + 1] = "";
    uint64_t limit;
    struct cursor c;
    struct tx *tx;
    int r = scope_limit(rq, &limit);
    memset(from, 0xff, sizeof(from));
    r = r < 0 || !after ? r : read_id(rq, from, after);
    r = r < 0 ? r : api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    json_t *items = json_array();
    const struct key k = key_bytes(from, sizeof(from));
    for (tx_seek(&c, tx, T_TOKEN, STR_NULL, after ? &k : NULL); c.valid; tx_next(&c)) {
        if (json_array_size(items) == limit) {
            const json_t *last = json_array_get(items, limit - 1);
            memcpy(next, json_string_value(json_object_get(last, "id")), sizeof(next));
            break;
        }
        const Pb__TokenRecord *t = token_get(tx, (const uint8_t *)c.key.p);
        if (t) {
            json_array_append_new(items, view_token(rq, c.key, t));
        }
    }
    cursor_end(&c);
    r = tx_error(tx);
    tx_abort(tx);
    if (r < 0) {
        json_decref(items);
        return r;
    }
    return answer_json(
        rq, MHD_HTTP_OK,
        json_pack("{s:o, s:o}", "items", items, "next", json_text(next[0] != '\0' ? next : NULL)));
}

/* --- making one --- */

static int read_projects(struct request *rq, const json_t *body, struct arena *a, Pb__TokenAdd *add)
{
    const json_t *list = NULL;
    int r = body_array(rq, body, "projects", LIMIT_TOKEN_PROJECTS, &list);
    const size_t count = list ? json_array_size(list) : 0;
    add->projects = arena_array(a, MAX(count, 1u), sizeof(*add->projects));
    for (size_t i = 0; i < count && r == 0; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        if (!name) {
            return request_fail(rq, -E_INVALID,
                                "`projects[%zu]` must be a project's name, or "
                                "`group/*`",
                                i);
        }
        add->projects[add->n_projects++] = arena_strdup(a, str_from(name));
    }
    return r;
}

static int read_token(struct request *rq, const json_t *body, struct arena *a, Pb__TokenAdd *add)
{
    const char *name = NULL;
    const char *role = NULL;
    uint64_t life_ms = 0;
    int r;
    if ((r = body_fields(rq, body, "", "name role projects expires_in")) < 0 ||
        (r = body_name(rq, body, "name", &name)) < 0 ||
        (r = body_text(rq, body, "role", LIMIT_NAME, &role)) < 0 ||
        (r = read_projects(rq, body, a, add)) < 0 ||
        (r = body_duration(rq, body, "expires_in", LIMIT_TOKEN_MS, &life_ms)) < 0) {
        return r;
    }
    if (!name || !role) {
        return request_fail(rq, -E_INVALID, "`name` and `role` must be there");
    }
    add->name = arena_strdup(a, str_from(name));
    add->role = arena_strdup(a, str_from(role));
    add->expires_ms = life_ms > 0 ? os_realtime_ms() + life_ms : 0;
    return 0;
}

static int token_added(struct request *rq)
{
    json_t *secret = rq->extra;
    rq->extra = NULL;
    if (rq->result < 0) {
        json_decref(secret);
        return rq->reply.text[0] != '\0' ? request_fail(rq, rq->result, "%s", rq->reply.text)
                                         : rq->result;
    }
    struct tx *tx;
    uint8_t hash[SHA256_BYTES];
    const char *token = json_string_value(secret);
    crypto_sha256(token, strlen(token), hash);
    int r = api_read(rq->api, &tx);
    if (r < 0) {
        json_decref(secret);
        return r;
    }
    const Pb__TokenRecord *t = token_get(tx, hash);
    json_t *o = t ? view_token(rq, str_of(hash, sizeof(hash)), t) : NULL;
    tx_abort(tx);
    if (!o) {
        json_decref(secret);
        return -E_NOT_FOUND; /* somebody was fast */
    }
    json_object_set_new(o, "token", secret);
    return answer_json(rq, MHD_HTTP_CREATED, o);
}

int post_token(struct request *rq)
{
    json_t *body;
    int r = body_parse(rq, false, &body);
    if (r < 0) {
        return r;
    }
    struct post *post = request_post_new(rq);
    struct arena *a = post_arena(post);
    Pb__TokenAdd *add = arena_alloc(a, sizeof(*add));
    uint8_t hash[SHA256_BYTES];
    pb__token_add__init(add);
    r = read_token(rq, body, a, add);
    json_decref(body);
    if (r < 0) {
        post_free(post);
        return r;
    }
    char *token = crypto_token(PREFIX);
    crypto_sha256(token, strlen(token), hash);
    add->hash = pb_bytes(a, str_of(hash, sizeof(hash)));
    rq->extra = json_string(token);
    crypto_wipe(token, strlen(token));
    free(token);
    post_command(post)->body_case = PB__COMMAND__BODY_TOKEN_ADD;
    post_command(post)->token_add = add;
    return request_post(rq, post, token_added);
}

static int token_revoked(struct request *rq)
{
    if (rq->result < 0) {
        return rq->reply.text[0] != '\0' ? request_fail(rq, rq->result, "%s", rq->reply.text)
                                         : rq->result;
    }
    struct tx *tx; /* who is let in is asked of the last commit: this waits for one */
    int r = api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    tx_abort(tx);
    return answer_json(rq, MHD_HTTP_OK, json_object());
}

int delete_token(struct request *rq)
{
    uint8_t id[TOKEN_ID_BYTES];
    char *text = str_dup(rq->args.rest);
    int r = read_id(rq, id, text);
    free(text);
    if (r < 0) {
        return r;
    }
    struct post *post = request_post_new(rq);
    Pb__TokenRevoke *c = arena_alloc(post_arena(post), sizeof(*c));
    pb__token_revoke__init(c);
    c->id = pb_bytes(post_arena(post), str_of(id, sizeof(id)));
    post_command(post)->body_case = PB__COMMAND__BODY_TOKEN_REVOKE;
    post_command(post)->token_revoke = c;
    return request_post(rq, post, token_revoked);
}

/* Who the asker is. */
int get_own_token(struct request *rq)
{
    struct tx *tx;
    int r = api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    const Pb__TokenRecord *t = token_get(tx, rq->who.hash);
    json_t *o = t ? view_token(rq, str_of(rq->who.hash, sizeof(rq->who.hash)), t) : NULL;
    tx_abort(tx);
    return o ? answer_json(rq, MHD_HTTP_OK, o) : -E_NOT_FOUND;
}

/* --- the audit trail --- */

static json_t *view_trail(const Pb__TrailRecord *t)
{
    return json_pack("{s:I, s:o, s:s, s:s, s:s, s:o, s:o, s:o}", "id", (json_int_t)t->seq, "time",
                     json_time(t->time_ms), "actor", t->actor, "from", t->from, "action", t->action,
                     "project", json_text(t->project), "target", json_text(t->target), "target_id",
                     json_id(t->target_id));
}

/* The newest first. */
int get_audit(struct request *rq)
{
    uint64_t limit, after, last = 0;
    struct cursor c;
    struct tx *tx;
    int r = scope_limit(rq, &limit);
    r = r < 0 ? r : request_query_u64(rq, "after", UINT64_MAX, &after);
    r = r < 0 ? r : api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    json_t *items = json_array();
    for (tx_seek_last(&c, tx, T_TRAIL, STR_NULL); c.valid; tx_prev(&c)) {
        const struct key k = key_bytes(c.key.p, c.key.n);
        const uint64_t seq = key_read_u64(c.key, 0);
        if (seq >= after) {
            continue;
        }
        if (json_array_size(items) == limit) {
            json_t *next = json_id(last);
            cursor_end(&c);
            tx_abort(tx);
            return answer_json(rq, MHD_HTTP_OK,
                               json_pack("{s:o, s:o}", "items", items, "next", next));
        }
        const Pb__TrailRecord *t = (const Pb__TrailRecord *)tx_get_msg(
            tx, T_TRAIL, &k, &pb__trail_record__descriptor);
        if (t) {
            json_array_append_new(items, view_trail(t));
        }
        last = seq;
    }
    cursor_end(&c);
    r = tx_error(tx);
    tx_abort(tx);
    if (r < 0) {
        json_decref(items);
        return r;
    }
    return answer_json(rq, MHD_HTTP_OK, json_pack("{s:o, s:n}", "items", items, "next"));
}
