#include "common/base.h"

#include "broker/vault/known.h"

#include "broker/core/query.h"
#include "common/crypto.h"

struct gathering {
    struct vault *vault;
    struct arena *arena;
    struct var *items;
    size_t count;
    int result;
    struct buf *why;
};

static void add(void *ctx, const Pb__SealedVariable *v)
{
    struct gathering *g = ctx;
    struct buf value = BUF_INIT;

    if (g->result < 0) {
        return;
    }
    if (g->count == LIMIT_VARIABLES) {
        buf_addf(g->why, "the project has more than %u stored variables", LIMIT_VARIABLES);
        g->result = -E_LIMIT;
        return;
    }
    if (v->masked) {
        buf_addz(&value, VAULT_STAND_IN);
    } else {
        g->result = vault_unseal(g->vault, v, &value);
    }
    if (g->result < 0) {
        buf_addf(g->why, "the stored variable %s cannot be opened: %s", v->name,
                 g->result == -E_NOT_FOUND ? "its master key is not known" : err_text(g->result));
    } else {
        g->items[g->count++] = (struct var){.name = arena_str(g->arena, str_from(v->name)),
                                            .value = arena_str(g->arena, buf_str(&value)),
                                            .raw = v->raw || v->masked,
                                            .file = v->file,
                                            .masked = v->masked};
    }
    crypto_wipe(value.p, value.n);
    buf_release(&value);
}

int vault_known(struct vault *v, struct tx *tx, struct arena *arena, const char *project,
                bool protected, const struct var **ret, size_t *ret_count, struct buf *why)
{
    struct gathering g = {.vault = v, .arena = arena, .why = why};

    if (v == NULL || tx_count(tx, T_STORED_VARIABLE) == 0) {
        *ret = NULL;
        *ret_count = 0;
        return tx_error(tx);
    }
    g.items = arena_array(arena, LIMIT_VARIABLES, sizeof(*g.items));
    stored_choose(tx, project, NULL, protected, add, &g);
    *ret = g.items;
    *ret_count = g.count;
    return g.result < 0 ? g.result : tx_error(tx);
}
