#include "common/base.h"

#include "broker/store/env.h"

#include <stdlib.h>

/* The open half of a struct cursor; listed in its tx, so that none outlives it. It does not point
 * back: a loop that was left early may have taken its struct cursor with it. */
struct walk {
    MDB_cursor *mc;
    uint64_t table_changes; /* of the tx, when the walk began */
    struct walk *next;
};

void walks_end(struct tx *tx)
{
    while (tx->walks) {
        struct walk *w = tx->walks;

        tx->walks = w->next;
        mdb_cursor_close(w->mc);
        free(w);
    }
}

void cursor_end(struct cursor *c)
{
    struct walk *w = c->impl;
    struct walk **link;

    c->valid = false;
    if (!w) {
        return;
    }
    for (link = &c->tx->walks; *link != w; link = &(*link)->next) {
    }
    *link = w->next;
    mdb_cursor_close(w->mc);
    free(w);
    c->impl = NULL;
}

/* Prepares *c and opens its walk. False: the tx has failed. */
static bool begin(struct cursor *c, struct tx *tx, enum table t, struct str prefix)
{
    struct walk *w;
    int rc;

    memset(c, 0, sizeof(*c));
    c->tx = tx;
    c->table = t;
    key_add_bytes(&c->prefix, prefix.p, prefix.n);
    if (!tx_ok(tx)) {
        return false;
    }
    w = xcalloc(1, sizeof(*w));
    rc = mdb_cursor_open(tx->txn, tx->store->tables[t], &w->mc);
    if (rc) {
        free(w);
        tx_fail(tx, store_error(rc));
        return false;
    }
    w->table_changes = tx->table_changes[t];
    w->next = tx->walks;
    tx->walks = w;
    c->impl = w;
    return true;
}

/* Moves and fills in what is there, or ends the walk. `key` is in and out, as the move wants. */
static void move(struct cursor *c, MDB_cursor_op op, MDB_val key)
{
    struct walk *w = c->impl;
    MDB_val physical;
    int rc = tx_ok(c->tx) ? mdb_cursor_get(w->mc, &key, &physical, op) : MDB_NOTFOUND;

    c->tx->reads++;
    if (rc != 0 && rc != MDB_NOTFOUND) {
        tx_fail(c->tx, store_error(rc));
    }
    if (rc == 0) {
        c->key = str_of(key.mv_data, key.mv_size);
        if (str_starts(c->key, key_str(&c->prefix)) && row_load(c->tx, physical, &c->value)) {
            c->valid = true;
            return;
        }
    }
    cursor_end(c);
}

static MDB_val val_of(struct str s)
{
    return (MDB_val){.mv_size = s.n, .mv_data = (void *)s.p};
}

void tx_seek(struct cursor *c, struct tx *tx, enum table t, struct str prefix,
             const struct key *from)
{
    struct str first = prefix;

    if (from && str_cmp(key_str(from), prefix) > 0) {
        first = key_str(from);
    }
    if (begin(c, tx, t, prefix)) {
        move(c, first.n > 0 ? MDB_SET_RANGE : MDB_FIRST, val_of(first));
    }
}

/* The least key above all that start with k; false: there is none. */
static bool key_after_prefix(struct key *k)
{
    while (k->n > 0 && k->p[k->n - 1] == 0xff) {
        k->n--;
    }
    if (k->n == 0) {
        return false;
    }
    k->p[k->n - 1]++;
    return true;
}

void tx_seek_last(struct cursor *c, struct tx *tx, enum table t, struct str prefix)
{
    struct key after;
    MDB_val key;
    MDB_val physical;
    struct walk *w;

    if (!begin(c, tx, t, prefix)) {
        return;
    }
    w = c->impl;
    after = c->prefix;
    key = val_of(key_str(&after));
    if (key_after_prefix(&after)) {
        key = val_of(key_str(&after));
        /* An error shows again in the move. */
        if (mdb_cursor_get(w->mc, &key, &physical, MDB_SET_RANGE) == 0) {
            move(c, MDB_PREV, key);
            return;
        }
    }
    move(c, MDB_LAST, key);
}

static void step(struct cursor *c, MDB_cursor_op op)
{
    struct walk *w = c->impl;

    if (!c->valid) {
        return;
    }
    /* A walk goes no further over a table that was written to: collect first, then write. */
    check(w->table_changes == c->tx->table_changes[c->table]);
    move(c, op, (MDB_val){0});
}

void tx_next(struct cursor *c)
{
    step(c, MDB_NEXT);
}

void tx_prev(struct cursor *c)
{
    step(c, MDB_PREV);
}
