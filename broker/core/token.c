#include "common/base.h"

#include "broker/core/apply.h"
#include "common/crypto.h"
#include "common/limits.h"

/* Tokens: who may ask the API for what, and until when. The store knows their hashes alone. */

static const char *const role_texts[] = {"admin",    "maintainer", "developer",
                                         "reporter", "user",       "worker"};

static bool role_ok(const char *role)
{
    for (size_t i = 0; i < ARRAY_LEN(role_texts); i++) {
        if (strcmp(role_texts[i], role) == 0) {
            return true;
        }
    }
    return false;
}

bool project_matches(struct str pattern, const char *project)
{
    const struct str name = str_from(project);

    if (str_ends(pattern, STR("/*")) && pattern.n > 2) {
        return str_starts(name, str_sub(pattern, 0, pattern.n - 1));
    }
    return str_eq(pattern, name);
}

bool token_has_expired(const Pb__TokenRecord *t, uint64_t now_ms)
{
    return t->expires_ms != 0 && t->expires_ms <= now_ms;
}

static const Pb__TokenRecord *row_at(struct tx *tx, struct str key)
{
    return key.n == SHA256_BYTES ? token_get(tx, (const uint8_t *)key.p) : NULL;
}

const Pb__TokenRecord *token_by_id(struct tx *tx, const uint8_t id[TOKEN_ID_BYTES],
                                   struct key *ret_key)
{
    struct cursor c;
    const Pb__TokenRecord *found = NULL;

    tx_seek(&c, tx, T_TOKEN, str_of(id, TOKEN_ID_BYTES), NULL);
    if (c.valid) {
        *ret_key = key_bytes(c.key.p, c.key.n);
        found = row_at(tx, c.key);
    }
    cursor_end(&c);
    return found;
}

/* Those that have expired make room. */
static void forget_expired(struct core *c)
{
    enum { AT_ONCE = 100 };
    struct key gone[AT_ONCE];
    struct cursor cur;
    size_t n = 0;

    for (tx_seek(&cur, c->tx, T_TOKEN, STR_NULL, NULL); cur.valid && n < AT_ONCE; tx_next(&cur)) {
        const Pb__TokenRecord *t = row_at(c->tx, cur.key);
        if (t != NULL && token_has_expired(t, c->now_ms)) {
            gone[n++] = key_bytes(cur.key.p, cur.key.n);
        }
    }
    cursor_end(&cur);
    for (size_t i = 0; i < n; i++) {
        tx_del(c->tx, T_TOKEN, &gone[i]);
    }
}

static bool has_room(struct core *c)
{
    struct cursor cur;
    bool found = tx_count(c->tx, T_TOKEN) < LIMIT_TOKENS;

    for (tx_seek(&cur, c->tx, T_TOKEN, STR_NULL, NULL); cur.valid && !found; tx_next(&cur)) {
        const Pb__TokenRecord *t = row_at(c->tx, cur.key);
        found = t != NULL && token_has_expired(t, c->now_ms);
    }
    cursor_end(&cur);
    return found;
}

static int add_check(struct core *c, const Pb__TokenAdd *cmd)
{
    if (cmd->hash.len != SHA256_BYTES || !name_ok(cmd->name)) {
        return reject(c, -E_INVALID, "bad hash or name of the token");
    }
    if (!role_ok(cmd->role)) {
        return reject(c, -E_INVALID,
                      "a token's role is admin, maintainer, developer, reporter, user or worker");
    }
    if (cmd->n_projects > LIMIT_TOKEN_PROJECTS) {
        return reject(c, -E_LIMIT, "a token names %u projects at most", LIMIT_TOKEN_PROJECTS);
    }
    for (size_t i = 0; i < cmd->n_projects; i++) {
        if (!str_is_project_pattern(str_from(cmd->projects[i]))) {
            return reject(c, -E_INVALID, "bad name of project %zu of the token", i);
        }
    }
    if (cmd->n_projects > 0 &&
        (strcmp(cmd->role, "worker") == 0 || strcmp(cmd->role, "admin") == 0)) {
        return reject(c, -E_INVALID, "tokens of role %s are for all projects", cmd->role);
    }
    if (cmd->expires_ms != 0 && cmd->expires_ms <= c->now_ms) {
        return reject(c, -E_INVALID, "the token has expired already");
    }
    return 0;
}

static void token_event(struct core *c, const char *name, const char *what)
{
    event_add(c, &(struct event){.kind = EVENT_TOKEN, .to = what, .name = name});
}

int apply_token_add(struct core *c, const Pb__TokenAdd *cmd)
{
    Pb__TokenRecord row = PB__TOKEN_RECORD__INIT;
    const struct key k = key_bytes(cmd->hash.data, MIN(cmd->hash.len, SHA256_BYTES));
    struct key known;
    const int r = add_check(c, cmd);

    if (r < 0) {
        return r;
    }
    if (token_by_id(c->tx, cmd->hash.data, &known) != NULL) {
        return reject(c, -E_EXISTS, "the token exists already");
    }
    if (!has_room(c)) {
        return reject(c, -E_LIMIT, "there are %u tokens already", LIMIT_TOKENS);
    }
    forget_expired(c);
    row.name = cmd->name;
    row.role = cmd->role;
    row.projects = cmd->projects;
    row.n_projects = cmd->n_projects;
    row.expires_ms = cmd->expires_ms;
    row.created_ms = c->now_ms;
    row.created_by = (char *)c->actor;
    tx_put_msg(c->tx, T_TOKEN, &k, &row.base);
    token_event(c, cmd->name, "created");
    return 0;
}

/* Whether another administrator's token is left: nobody shall lock himself out. */
static bool is_last_admin(struct core *c, const struct key *k, const Pb__TokenRecord *t)
{
    struct cursor cur;
    bool other = strcmp(t->role, "admin") != 0 || t->n_projects > 0;

    for (tx_seek(&cur, c->tx, T_TOKEN, STR_NULL, NULL); cur.valid && !other; tx_next(&cur)) {
        const Pb__TokenRecord *o = row_at(c->tx, cur.key);
        other = o != NULL && !str_eq(cur.key, key_str(k)) && strcmp(o->role, "admin") == 0 &&
                o->n_projects == 0 && o->expires_ms == 0;
    }
    cursor_end(&cur);
    return !other;
}

int apply_token_revoke(struct core *c, const Pb__TokenRevoke *cmd)
{
    struct key k;
    const Pb__TokenRecord *t = cmd->id.len == TOKEN_ID_BYTES ? token_by_id(c->tx, cmd->id.data, &k)
                                                             : NULL;

    if (t == NULL) {
        return reject(c, -E_NOT_FOUND, "there is no such token");
    }
    if (is_last_admin(c, &k, t)) {
        return reject(c, -E_CONFLICT, "it is the last token of an administrator without an end");
    }
    c->told = t->name;
    token_event(c, t->name, "revoked");
    tx_del(c->tx, T_TOKEN, &k);
    return 0;
}

int apply_tokens_used(struct core *c, const Pb__TokensUsed *cmd)
{
    if (cmd->n_uses > LIMIT_TOKENS) {
        return reject(c, -E_LIMIT, "too many tokens at once");
    }
    for (size_t i = 0; i < cmd->n_uses; i++) {
        const Pb__TokenUse *u = cmd->uses[i];
        struct key k;
        Pb__TokenRecord *t = u->id.len == TOKEN_ID_BYTES
                                 ? (Pb__TokenRecord *)token_by_id(c->tx, u->id.data, &k)
                                 : NULL;
        if (t != NULL && u->used_ms > t->used_ms) {
            t->used_ms = u->used_ms;
            tx_put_msg(c->tx, T_TOKEN, &k, &t->base);
        }
    }
    return 0;
}
