#include "common/base.h"

#include "broker/vault/vault.h"

#include <pthread.h>
#include <stdlib.h>

#include "common/crypto.h"
#include "common/os.h"

#define VALUE_KEY_BYTES AES_KEY_BYTES

struct vault {
    pthread_mutex_t lock; /* guards all below */
    struct keyring keys;
    uint64_t changed_ms; /* monotonic */
};

int vault_open(const char *source, const char *default_path, struct vault **ret, struct buf *why)
{
    struct vault *v = xcalloc(1, sizeof(*v));
    int r = keyring_open(source, default_path, &v->keys, why);

    if (r < 0) {
        free(v);
        return r;
    }
    pthread_mutex_init(&v->lock, NULL);
    v->changed_ms = os_monotonic_ms();
    *ret = v;
    return 0;
}

void vault_close(struct vault *v)
{
    if (v == NULL) {
        return;
    }
    keyring_close(&v->keys);
    pthread_mutex_destroy(&v->lock);
    free(v);
}

/* --- one variable --- */

static void add_text(struct buf *out, const char *text)
{
    const uint32_t n = (uint32_t)strlen(text);
    const uint8_t size[] = {(uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n};

    buf_add(out, size, sizeof(size));
    buf_add(out, text, n);
}

/* What the ciphertext is bound to. `use` tells the key of a value from the value. */
static void add_place(struct buf *out, const char *use, const Pb__SealedVariable *var)
{
    add_text(out, use);
    buf_add_char(out, (char)var->level);
    add_text(out, var->owner);
    add_text(out, var->name);
    add_text(out, var->environment_scope);
}

static void seal_for(const uint8_t key[AES_KEY_BYTES], const char *use,
                     const Pb__SealedVariable *var, struct str plain, struct buf *out)
{
    struct buf place = BUF_INIT;

    add_place(&place, use, var);
    crypto_seal(key, buf_str(&place), plain, out);
    buf_release(&place);
}

static int open_for(const uint8_t key[AES_KEY_BYTES], const char *use,
                    const Pb__SealedVariable *var, ProtobufCBinaryData sealed, struct buf *out)
{
    struct buf place = BUF_INIT;

    add_place(&place, use, var);
    int r = crypto_open(key, buf_str(&place), pb_str(sealed), out);
    buf_release(&place);
    return r;
}

static ProtobufCBinaryData wrap(struct vault *v, struct arena *arena, const Pb__SealedVariable *var,
                                const uint8_t value_key[VALUE_KEY_BYTES],
                                ProtobufCBinaryData *ret_id)
{
    struct buf wrapped = BUF_INIT;

    pthread_mutex_lock(&v->lock);
    const struct master_key *current = &v->keys.keys[0];
    seal_for(current->bytes, "key", var, str_of(value_key, VALUE_KEY_BYTES), &wrapped);
    *ret_id = pb_bytes(arena, str_of(current->id, sizeof(current->id)));
    pthread_mutex_unlock(&v->lock);
    ProtobufCBinaryData copy = pb_bytes(arena, buf_str(&wrapped));
    buf_release(&wrapped);
    return copy;
}

static int unwrap(struct vault *v, const Pb__SealedVariable *var,
                  uint8_t ret_value_key[VALUE_KEY_BYTES])
{
    struct buf key = BUF_INIT;
    int r = -E_NOT_FOUND;

    pthread_mutex_lock(&v->lock);
    const struct master_key *master = keyring_find(&v->keys, pb_str(var->master_key_id));
    if (master != NULL) {
        r = open_for(master->bytes, "key", var, var->wrapped_key, &key);
    }
    pthread_mutex_unlock(&v->lock);
    if (r == 0 && key.n != VALUE_KEY_BYTES) {
        r = -E_CORRUPT;
    }
    if (r == 0) {
        memcpy(ret_value_key, key.p, VALUE_KEY_BYTES);
    }
    crypto_wipe(key.p, key.n);
    buf_release(&key);
    return r;
}

void vault_seal(struct vault *v, struct arena *arena, struct str value, Pb__SealedVariable *var)
{
    uint8_t key[VALUE_KEY_BYTES];
    struct buf sealed = BUF_INIT;

    os_random(key, sizeof(key));
    seal_for(key, "value", var, value, &sealed);
    var->sealed = pb_bytes(arena, buf_str(&sealed));
    var->wrapped_key = wrap(v, arena, var, key, &var->master_key_id);
    crypto_wipe(key, sizeof(key));
    buf_release(&sealed);
}

int vault_unseal(struct vault *v, const Pb__SealedVariable *var, struct buf *out)
{
    uint8_t key[VALUE_KEY_BYTES];
    int r = unwrap(v, var, key);

    if (r == 0) {
        r = open_for(key, "value", var, var->sealed, out);
        crypto_wipe(key, sizeof(key));
    }
    return r;
}

/* --- a job's spec --- */

static bool is_hidden_by_later(const Pb__JobSpec *spec, size_t at)
{
    for (size_t i = at + 1; i < spec->n_variables; i++) {
        if (strcmp(spec->variables[i]->name, spec->variables[at]->name) == 0) {
            return true;
        }
    }
    return false;
}

static int open_variable(struct vault *v, struct arena *arena, Pb__Variable *var)
{
    struct buf value = BUF_INIT;
    Pb__SealedVariable *sealed;
    int r = PB_UNPACK(arena, sealed_variable, var->sealed.data, var->sealed.len, LIMIT_COMMAND,
                      &sealed);

    r = r < 0 ? r : vault_unseal(v, sealed, &value);
    if (r == 0) {
        var->value = pb_bytes(arena, buf_str(&value));
        var->sealed.len = 0; /* what is left of it tells vault_wipe_spec whose value this is */
    }
    crypto_wipe(value.p, value.n);
    buf_release(&value);
    return r;
}

/* The mark stays, so that the job is not run without them. */
static void close_all(Pb__JobSpec *spec, struct arena *arena, const bool *was_sealed)
{
    vault_wipe_spec(spec);
    for (size_t i = 0; i < spec->n_variables; i++) {
        if (was_sealed[i]) {
            spec->variables[i]->value = (ProtobufCBinaryData){0};
            spec->variables[i]->sealed = pb_bytes(arena, STR("-"));
        }
    }
}

static void remove_hidden(Pb__JobSpec *spec)
{
    size_t n = 0;

    for (size_t i = 0; i < spec->n_variables; i++) {
        if (spec->variables[i]->sealed.len == 0 || !is_hidden_by_later(spec, i)) {
            spec->variables[n++] = spec->variables[i];
        }
    }
    spec->n_variables = n;
}

int vault_open_spec(struct vault *v, struct arena *arena, Pb__JobSpec *spec)
{
    bool *was_sealed = arena_array(arena, MAX(spec->n_variables, 1), sizeof(*was_sealed));
    int r = 0;

    remove_hidden(spec);
    for (size_t i = 0; i < spec->n_variables; i++) {
        was_sealed[i] = spec->variables[i]->sealed.len > 0;
        if (was_sealed[i] && r == 0) {
            r = open_variable(v, arena, spec->variables[i]);
        }
    }
    if (r < 0) {
        close_all(spec, arena, was_sealed);
    }
    return r;
}

void vault_wipe_spec(const Pb__JobSpec *spec)
{
    for (size_t i = 0; i < spec->n_variables; i++) {
        Pb__Variable *var = spec->variables[i];
        if (var->sealed.len == 0 && var->sealed.data != NULL) {
            crypto_wipe(var->value.data, var->value.len);
        }
    }
}

/* --- the master keys --- */

size_t vault_keys(struct vault *v, struct vault_key *ret)
{
    pthread_mutex_lock(&v->lock);
    const size_t n = v->keys.count;
    for (size_t i = 0; i < n; i++) {
        str_to_hex(v->keys.keys[i].id, MASTER_KEY_ID_BYTES, ret[i].id);
        ret[i].current = i == 0;
    }
    pthread_mutex_unlock(&v->lock);
    return n;
}

void vault_current_id(struct vault *v, uint8_t ret[MASTER_KEY_ID_BYTES])
{
    pthread_mutex_lock(&v->lock);
    memcpy(ret, v->keys.keys[0].id, MASTER_KEY_ID_BYTES);
    pthread_mutex_unlock(&v->lock);
}

int vault_rotate(struct vault *v, struct buf *why)
{
    pthread_mutex_lock(&v->lock);
    int r = keyring_add(&v->keys, why);
    v->changed_ms = os_monotonic_ms();
    pthread_mutex_unlock(&v->lock);
    return r;
}

int vault_rewrap(struct vault *v, struct arena *arena, const Pb__SealedVariable *var,
                 Pb__RewrappedKey **ret)
{
    uint8_t key[VALUE_KEY_BYTES];
    int r = unwrap(v, var, key);

    if (r < 0) {
        return r;
    }
    Pb__RewrappedKey *out = arena_alloc(arena, sizeof(*out));
    pb__rewrapped_key__init(out);
    out->level = var->level;
    out->owner = arena_strdup(arena, str_from(var->owner));
    out->name = arena_strdup(arena, str_from(var->name));
    out->environment_scope = arena_strdup(arena, str_from(var->environment_scope));
    out->old_wrapped_key = pb_bytes(arena, pb_str(var->wrapped_key));
    out->wrapped_key = wrap(v, arena, var, key, &out->master_key_id);
    crypto_wipe(key, sizeof(key));
    *ret = out;
    return 0;
}

int vault_forget(struct vault *v, bool (*used)(void *ctx, struct str id), void *ctx,
                 uint64_t min_age_ms, struct buf *why)
{
    bool keep[LIMIT_MASTER_KEYS] = {false};
    int r = 0;

    pthread_mutex_lock(&v->lock);
    if (os_monotonic_ms() - v->changed_ms >= min_age_ms) {
        for (size_t i = 0; i < v->keys.count; i++) {
            keep[i] = used(ctx, str_of(v->keys.keys[i].id, MASTER_KEY_ID_BYTES));
        }
        r = keyring_keep(&v->keys, keep, why);
    }
    pthread_mutex_unlock(&v->lock);
    return r;
}
