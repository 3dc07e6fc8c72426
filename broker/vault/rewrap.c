#include "common/base.h"

#include <stdatomic.h>

#include "broker/vault/rewrap.h"

#include "broker/core/query.h"

static int begin(struct store *store, struct turn *turn, struct tx **ret)
{
    int r = turn_fresh(turn);
    return r < 0 ? r : tx_begin(store, false, ret);
}

/* Wherever a stored variable is: first the rows of their own, then those that versions hold, which
 * are copies of the former. */
struct walk {
    struct key at;
    bool held; /* by versions */
    bool over;
};

/* Those behind *w that another key wraps; STR_NULL: all. The count. */
static size_t next(struct tx *tx, struct str master_key_id, struct walk *w,
                   struct held_variable ret[LIMIT_REWRAP_BATCH])
{
    const Pb__StoredVariableRecord *rows[LIMIT_REWRAP_BATCH];
    size_t n;

    if (w->held) {
        bool more;
        n = snapshots_wrapped_by_others(tx, master_key_id, &w->at, LIMIT_REWRAP_BATCH, ret, &more);
        w->over = !more;
        return n;
    }
    n = stored_wrapped_by_others(tx, master_key_id, &w->at, LIMIT_REWRAP_BATCH, rows);
    for (size_t i = 0; i < n; i++) {
        ret[i] = (struct held_variable){0, rows[i]->variable};
    }
    if (n < LIMIT_REWRAP_BATCH) {
        *w = (struct walk){.held = true};
    }
    return n;
}

/* Fills the command with what comes behind *w. */
static int fill(struct store *store, struct turn *turn, struct vault *vault, struct post *post,
                struct walk *w, struct rewrap_result *result)
{
    struct held_variable rows[LIMIT_REWRAP_BATCH];
    uint8_t id[MASTER_KEY_ID_BYTES];
    struct arena *a = post_arena(post);
    Pb__VariablesRewrap *cmd = arena_alloc(a, sizeof(*cmd));
    struct tx *tx;
    int r = begin(store, turn, &tx);

    if (r < 0) {
        return r;
    }
    vault_current_id(vault, id);
    pb__variables_rewrap__init(cmd);
    cmd->keys = arena_array(a, LIMIT_REWRAP_BATCH, sizeof(Pb__RewrappedKey *));
    const size_t n = next(tx, str_of(id, sizeof(id)), w, rows);
    for (size_t i = 0; i < n; i++) {
        if (vault_rewrap(vault, a, rows[i].variable, &cmd->keys[cmd->n_keys]) == 0) {
            cmd->keys[cmd->n_keys++]->snapshot_id = rows[i].snapshot_id;
        } else {
            result->failed++;
        }
    }
    r = tx_error(tx);
    tx_abort(tx);
    post_command(post)->body_case = PB__COMMAND__BODY_VARIABLES_REWRAP;
    post_command(post)->variables_rewrap = cmd;
    return r < 0 ? r : (int)n;
}

int rewrap_all(struct store *store, struct turn *turn, struct vault *vault, const atomic_bool *stop,
               struct rewrap_result *ret)
{
    struct rewrap_result result = {0};
    struct walk w = {.held = false};
    int r = 0;

    while (r >= 0 && !w.over) {
        struct post *post = post_new("davitd");
        struct reply reply;
        r = stop != NULL && atomic_load(stop) ? -E_SHUTDOWN
                                              : fill(store, turn, vault, post, &w, &result);
        const size_t n = r > 0 ? post_command(post)->variables_rewrap->n_keys : 0;
        if (n == 0) {
            post_free(post);
            continue;
        }
        const int sent = turn_call(turn, post, &reply);
        r = sent < 0 ? sent : r;
        result.done += sent < 0 ? 0 : n;
    }
    *ret = result;
    return r < 0 ? r : 0;
}

struct counting {
    const struct vault_key *keys;
    size_t count;
    uint64_t *counts;
    uint64_t others;
};

static void count_one(struct counting *c, struct str id)
{
    char hex[2 * MASTER_KEY_ID_BYTES + 1] = "";

    if (id.n == MASTER_KEY_ID_BYTES) {
        str_to_hex((const uint8_t *)id.p, id.n, hex);
    }
    for (size_t i = 0; i < c->count; i++) {
        if (strcmp(c->keys[i].id, hex) == 0) {
            c->counts[i]++;
            return;
        }
    }
    c->others++;
}

int rewrap_count(struct store *store, struct turn *turn, const struct vault_key *keys, size_t count,
                 uint64_t *ret_counts, uint64_t *ret_others)
{
    struct held_variable rows[LIMIT_REWRAP_BATCH];
    struct counting c = {.keys = keys, .count = count, .counts = ret_counts};
    struct walk w = {.held = false};
    int r = 0;

    memset(ret_counts, 0, count * sizeof(*ret_counts));
    while (r == 0 && !w.over) {
        struct tx *tx; /* a new one for each batch: none is held for long */
        r = begin(store, turn, &tx);
        if (r < 0) {
            break;
        }
        const size_t n = next(tx, STR_NULL, &w, rows);
        for (size_t i = 0; i < n; i++) {
            count_one(&c, pb_str(rows[i].variable->master_key_id));
        }
        r = tx_error(tx);
        tx_abort(tx);
    }
    *ret_others = c.others;
    return r;
}

struct needed {
    const struct vault_key *keys;
    const uint64_t *counts;
    size_t count;
};

static bool is_needed(void *ctx, struct str id)
{
    const struct needed *needed = ctx;
    char hex[2 * MASTER_KEY_ID_BYTES + 1];

    str_to_hex((const uint8_t *)id.p, id.n, hex);
    for (size_t i = 0; i < needed->count; i++) {
        if (strcmp(needed->keys[i].id, hex) == 0) {
            return needed->counts[i] > 0;
        }
    }
    return true; /* it came after we counted */
}

int rewrap_and_forget(struct store *store, struct turn *turn, struct vault *vault,
                      uint64_t min_age_ms, const atomic_bool *stop, struct buf *why)
{
    struct vault_key keys[LIMIT_MASTER_KEYS];
    uint64_t counts[LIMIT_MASTER_KEYS];
    struct rewrap_result result;
    uint64_t others;
    int r = rewrap_all(store, turn, vault, stop, &result);

    if (r == 0 && result.failed > 0) {
        buf_addf(why,
                 "%" PRIu64 " stored variables cannot be opened by any master key that is known",
                 result.failed);
    }
    const size_t n = vault_keys(vault, keys);
    if (r < 0 || n == 1) {
        return r;
    }
    struct needed needed = {.keys = keys, .counts = counts, .count = n};
    r = rewrap_count(store, turn, keys, n, counts, &others);
    return r < 0 ? r : vault_forget(vault, is_needed, &needed, min_age_ms, why);
}
