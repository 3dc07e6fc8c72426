#include "common/base.h"

#include "broker/core/apply.h"
#include "broker/core/rollout_move.h"
#include "broker/core/spec.h"
#include "common/crypto.h"
#include "common/expand.h"
#include "common/limits.h"

/* Stored variables: of the installation, of groups, of projects. Their values are sealed when they
 * come here and stay so: the vault opens them when a job is sent. */

#define OVERHEAD_BYTES    28u /* of AES-256-GCM with its nonce beside it: vault.h */
#define MASKED_SHORTEST   8u
#define WRAPPED_KEY_BYTES 60u
#define KEY_ID_BYTES      8u

static struct key owner_key(Pb__VariableLevel level, struct str owner)
{
    uint8_t hash[SHA256_BYTES];
    const uint8_t byte = (uint8_t)level;
    struct key k = key_bytes(&byte, 1);

    crypto_sha256(owner.p != NULL ? owner.p : "", owner.n, hash);
    key_add_bytes(&k, hash, sizeof(hash));
    return k;
}

struct key stored_key(Pb__VariableLevel level, const char *owner, const char *name,
                      const char *environment_scope)
{
    uint8_t hash[SHA256_BYTES];
    struct key k = owner_key(level, str_from(owner));

    crypto_sha256(environment_scope, strlen(environment_scope), hash);
    key_add_bytes(&k, name, strlen(name) + 1);
    key_add_bytes(&k, hash, sizeof(hash));
    return k;
}

const Pb__StoredVariableRecord *stored_get(struct tx *tx, Pb__VariableLevel level,
                                           const char *owner, const char *name,
                                           const char *environment_scope)
{
    struct key k;

    if (strlen(name) > LIMIT_NAME || strlen(owner) > LIMIT_NAME) {
        return NULL;
    }
    k = stored_key(level, owner, name, environment_scope);
    return (const Pb__StoredVariableRecord *)tx_get_msg(tx, T_STORED_VARIABLE, &k,
                                                        &pb__stored_variable_record__descriptor);
}

static const Pb__StoredVariableRecord *row_of(const struct cursor *cur)
{
    const struct key k = key_bytes(cur->key.p, cur->key.n);

    return (const Pb__StoredVariableRecord *)tx_get_msg(cur->tx, T_STORED_VARIABLE, &k,
                                                        &pb__stored_variable_record__descriptor);
}

size_t stored_of(struct tx *tx, Pb__VariableLevel level, const char *owner, size_t max,
                 const Pb__StoredVariableRecord **ret)
{
    const struct key prefix = owner_key(level, str_from(owner));
    struct cursor cur;
    size_t n = 0;

    for (tx_seek(&cur, tx, T_STORED_VARIABLE, key_str(&prefix), NULL); cur.valid && n < max;
         tx_next(&cur)) {
        ret[n] = row_of(&cur);
        n += ret[n] != NULL;
    }
    cursor_end(&cur);
    return n;
}

size_t stored_wrapped_by_others(struct tx *tx, struct str master_key_id, struct key *at, size_t max,
                                const Pb__StoredVariableRecord **ret)
{
    struct cursor cur;
    size_t n = 0;

    tx_seek(&cur, tx, T_STORED_VARIABLE, STR_NULL, at->n > 0 ? at : NULL);
    if (cur.valid && str_eq(cur.key, key_str(at))) {
        tx_next(&cur);
    }
    for (; cur.valid && n < max; tx_next(&cur)) {
        const Pb__StoredVariableRecord *row = row_of(&cur);
        *at = key_bytes(cur.key.p, cur.key.n);
        if (row != NULL && !str_eq(pb_str(row->variable->master_key_id), master_key_id)) {
            ret[n++] = row;
        }
    }
    cursor_end(&cur);
    return n;
}

/* --- which of them a job gets --- */

/* The name itself comes before patterns, of which the one that says more comes first; "*" is the
 * last. */
size_t scope_fit(const char *scope, struct str environment)
{
    const struct str pattern = str_from(scope);
    size_t letters = 0;

    if (str_eqz(pattern, "*")) {
        return 1;
    }
    if (environment.n == 0) {
        return 0;
    }
    if (str_eq(pattern, environment)) {
        return LIMIT_NAME + 3;
    }
    for (size_t i = 0; i < pattern.n; i++) {
        letters += pattern.p[i] != '*';
    }
    return str_matches(pattern, environment) ? 2 + letters : 0;
}

struct choice {
    struct tx *tx;
    struct str environment;
    bool protected;
    stored_fn fn;
    void *ctx;
};

/* Rows of one name stand side by side. */
static void choose_of(const struct choice *ch, Pb__VariableLevel level, struct str owner)
{
    const struct key prefix = owner_key(level, owner);
    const Pb__SealedVariable *best = NULL;
    size_t best_fit = 0;
    struct cursor cur;

    for (tx_seek(&cur, ch->tx, T_STORED_VARIABLE, key_str(&prefix), NULL); cur.valid;
         tx_next(&cur)) {
        const Pb__StoredVariableRecord *row = row_of(&cur);
        const Pb__SealedVariable *v = row != NULL ? row->variable : NULL;
        const size_t how = v != NULL && (ch->protected || !v->protected_)
                               ? scope_fit(v->environment_scope, ch->environment)
                               : 0;
        if (how == 0) {
            continue;
        }
        if (best != NULL && strcmp(best->name, v->name) != 0) {
            ch->fn(ch->ctx, best);
            best_fit = 0;
        }
        if (how > best_fit) {
            best = v;
            best_fit = how;
        }
    }
    cursor_end(&cur);
    if (best != NULL) {
        ch->fn(ch->ctx, best);
    }
}

void stored_choose(struct tx *tx, const char *project, const char *environment, bool protected,
                   stored_fn fn, void *ctx)
{
    const struct choice ch = {.tx = tx,
                              .environment = str_from(environment),
                              .protected = protected,
                              .fn = fn,
                              .ctx = ctx};
    const struct str name = str_from(project);

    if (tx_count(tx, T_STORED_VARIABLE) == 0) {
        return;
    }
    choose_of(&ch, VARIABLE_INSTANCE, STR(""));
    for (size_t i = 0; i < name.n; i++) {
        if (name.p[i] == '/') {
            choose_of(&ch, VARIABLE_GROUP, str_sub(name, 0, i));
        }
    }
    choose_of(&ch, VARIABLE_PROJECT, name);
}

/* --- changing them --- */

static bool owner_ok(Pb__VariableLevel level, const char *owner)
{
    switch (level) {
    case VARIABLE_INSTANCE:
        return owner[0] == '\0';
    case VARIABLE_GROUP:
    case VARIABLE_PROJECT:
        return name_ok(owner) && str_is_project_name(str_from(owner));
    case _PB__VARIABLE_LEVEL_IS_INT_SIZE:
    default:
        return false;
    }
}

static bool scope_ok(const char *scope)
{
    return name_ok(scope) && strpbrk(scope, "\n\t") == NULL;
}

static int value_check(struct core *c, const Pb__SealedVariable *v)
{
    const size_t n = v->sealed.len - OVERHEAD_BYTES;

    if (v->sealed.len < OVERHEAD_BYTES || v->wrapped_key.len != WRAPPED_KEY_BYTES ||
        v->master_key_id.len != KEY_ID_BYTES) {
        return reject(c, -E_INVALID, "variable %.60s is not sealed", v->name);
    }
    if (n > LIMIT_VARIABLE_VALUE) {
        return reject(c, -E_LIMIT, "variable %.60s: a value has %u bytes at most", v->name,
                      LIMIT_VARIABLE_VALUE);
    }
    if (v->masked && (n < MASKED_SHORTEST || n > LIMIT_MASKED_VALUE)) {
        return reject(c, -E_INVALID,
                      "variable %.60s: what is masked has %u to %u bytes, this has %zu", v->name,
                      MASKED_SHORTEST, LIMIT_MASKED_VALUE, n);
    }
    return 0;
}

static const Pb__StoredVariableRecord *row_at(struct core *c, const Pb__SealedVariable *v)
{
    return stored_get(c->tx, v->level, v->owner, v->name, v->environment_scope);
}

/* A variable without a value keeps the one that it has. */
static void keep_value(Pb__SealedVariable *v, const Pb__StoredVariableRecord *old)
{
    v->sealed = old->variable->sealed;
    v->wrapped_key = old->variable->wrapped_key;
    v->master_key_id = old->variable->master_key_id;
}

static int check_one(struct core *c, Pb__SealedVariable *v, size_t *new_rows)
{
    const Pb__StoredVariableRecord *old;

    if (!owner_ok(v->level, v->owner)) {
        return reject(c, -E_INVALID, "bad name of a group or project");
    }
    if (!name_ok(v->name) || !var_name_valid(str_from(v->name))) {
        return reject(c, -E_INVALID, "`%.60s` is no name of a variable", v->name);
    }
    if (!scope_ok(v->environment_scope)) {
        return reject(c, -E_INVALID, "variable %.60s: bad environment scope", v->name);
    }
    if (!text_ok(v->description, LIMIT_NAME)) {
        return reject(c, -E_INVALID, "variable %.60s: bad description", v->name);
    }
    old = row_at(c, v);
    *new_rows += old == NULL;
    if (v->sealed.len == 0 && old == NULL) {
        return reject(c, -E_INVALID, "variable %.60s is new and has no value", v->name);
    }
    if (v->sealed.len == 0 && old->variable->hidden && !v->hidden) {
        return reject(c, -E_CONFLICT, "variable %.60s is hidden: set it anew to show it", v->name);
    }
    if (v->sealed.len == 0) {
        keep_value(v, old);
    }
    if (v->hidden && !v->masked) {
        return reject(c, -E_INVALID, "variable %.60s: what is hidden must be masked", v->name);
    }
    return value_check(c, v);
}

/* Two of them would be one row. */
static bool are_apart(Pb__SealedVariable *const *v, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        for (size_t j = 0; j < i; j++) {
            if (strcmp(v[i]->name, v[j]->name) == 0 &&
                strcmp(v[i]->environment_scope, v[j]->environment_scope) == 0) {
                return false;
            }
        }
    }
    return true;
}

static size_t count_of(struct core *c, const Pb__SealedVariable *v)
{
    const struct key prefix = owner_key(v->level, str_from(v->owner));
    struct cursor cur;
    size_t n = 0;

    for (tx_seek(&cur, c->tx, T_STORED_VARIABLE, key_str(&prefix), NULL); cur.valid;
         tx_next(&cur)) {
        n++;
    }
    cursor_end(&cur);
    return n;
}

static int set_check(struct core *c, const Pb__VariablesSet *cmd)
{
    Pb__SealedVariable *const *v = cmd->variables;
    size_t new_rows = 0;

    if (cmd->n_variables == 0 || cmd->n_variables > LIMIT_STORED_VARIABLES) {
        return reject(c, -E_INVALID, "1 to %u variables at once", LIMIT_STORED_VARIABLES);
    }
    for (size_t i = 0; i < cmd->n_variables; i++) {
        int r = check_one(c, v[i], &new_rows);
        if (r < 0) {
            return r;
        }
        if (v[i]->level != v[0]->level || strcmp(v[i]->owner, v[0]->owner) != 0) {
            return reject(c, -E_INVALID, "variables of two owners");
        }
    }
    if (!are_apart(v, cmd->n_variables)) {
        return reject(c, -E_INVALID, "a variable stands twice");
    }
    if (count_of(c, v[0]) + new_rows > LIMIT_STORED_VARIABLES) {
        return reject(c, -E_LIMIT, "more than %u variables", LIMIT_STORED_VARIABLES);
    }
    return 0;
}

static void stored_event(struct core *c, Pb__VariableLevel level, const char *owner,
                         const char *name, const char *scope, const char *what)
{
    const Pb__ProjectRecord *p = level == VARIABLE_PROJECT ? project_by_name(c->tx, owner) : NULL;

    event_add(
        c, &(struct event){.kind = EVENT_VARIABLE,
                           .project_id = p != NULL ? p->id : 0,
                           .to = what,
                           .name = name,
                           .detail = arena_printf(c->arena, "%s%s%s by %s",
                                                  owner[0] != '\0' ? owner : "installation",
                                                  strcmp(scope, "*") != 0 ? " in " : "",
                                                  strcmp(scope, "*") != 0 ? scope : "", c->actor)});
}

int apply_variables_set(struct core *c, const Pb__VariablesSet *cmd)
{
    const int r = set_check(c, cmd);

    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < cmd->n_variables; i++) {
        Pb__SealedVariable *v = cmd->variables[i];
        const struct key k = stored_key(v->level, v->owner, v->name, v->environment_scope);
        const Pb__StoredVariableRecord *old = row_at(c, v);
        Pb__StoredVariableRecord row = PB__STORED_VARIABLE_RECORD__INIT;
        row.variable = v;
        row.created_ms = old != NULL ? old->created_ms : c->now_ms;
        row.updated_ms = c->now_ms;
        row.updated_by = (char *)c->actor;
        tx_put_msg(c->tx, T_STORED_VARIABLE, &k, &row.base);
        stored_event(c, v->level, v->owner, v->name, v->environment_scope,
                     old != NULL ? "changed" : "created");
    }
    return 0;
}

int apply_variable_delete(struct core *c, const Pb__VariableDelete *cmd)
{
    const Pb__StoredVariableRecord *old = stored_get(c->tx, cmd->level, cmd->owner, cmd->name,
                                                     cmd->environment_scope);
    struct key k;

    if (old == NULL) {
        return reject(c, -E_NOT_FOUND, "there is no variable %.60s with that environment scope",
                      cmd->name);
    }
    k = stored_key(cmd->level, cmd->owner, cmd->name, cmd->environment_scope);
    stored_event(c, cmd->level, cmd->owner, cmd->name, cmd->environment_scope, "deleted");
    tx_del(c->tx, T_STORED_VARIABLE, &k);
    return 0;
}

/* What was set anew meanwhile has a key of its own, wrapped by the new master key. */
static void rewrap(struct core *c, const Pb__RewrappedKey *w)
{
    Pb__StoredVariableRecord *row = (Pb__StoredVariableRecord *)stored_get(
        c->tx, w->level, w->owner, w->name, w->environment_scope);
    struct key k;

    if (w->snapshot_id != 0) {
        snapshot_rewrap(c, w);
        return;
    }
    if (row == NULL || !str_eq(pb_str(row->variable->wrapped_key), pb_str(w->old_wrapped_key))) {
        return;
    }
    row->variable->wrapped_key = w->wrapped_key;
    row->variable->master_key_id = w->master_key_id;
    k = stored_key(w->level, w->owner, w->name, w->environment_scope);
    tx_put_msg(c->tx, T_STORED_VARIABLE, &k, &row->base);
}

int apply_variables_rewrap(struct core *c, const Pb__VariablesRewrap *cmd)
{
    if (cmd->n_keys == 0 || cmd->n_keys > LIMIT_REWRAP_BATCH) {
        return reject(c, -E_INVALID, "1 to %u keys at once", LIMIT_REWRAP_BATCH);
    }
    for (size_t i = 0; i < cmd->n_keys; i++) {
        const Pb__RewrappedKey *w = cmd->keys[i];
        if (w->wrapped_key.len != WRAPPED_KEY_BYTES || w->master_key_id.len != KEY_ID_BYTES ||
            !name_ok(w->name) || !text_ok(w->owner, LIMIT_NAME)) {
            return reject(c, -E_INVALID, "key %zu is none", i);
        }
    }
    for (size_t i = 0; i < cmd->n_keys; i++) {
        rewrap(c, cmd->keys[i]);
    }
    return 0;
}
