#include "common/base.h"

#include "broker/store/env.h"

#include <stdlib.h>

/* The open half of a struct cursor; listed in its tx, so that none outlives it. It does not point
 * back: a loop that was left early may have taken its struct cursor with it.
 *
 * A walk goes over LMDB's rows and those in memory at once. Of each it knows the next one in its
 * direction; the nearer of them is where the walk stands, and where both have the same key, the one
 * in memory counts. */
struct walk {
    MDB_cursor *mc; /* NULL: LMDB has no rows of the table */
    MDB_val key;    /* where mc stands, if `found` */
    MDB_val physical;
    bool found;
    const struct mem_row *row;
    bool backward;
    bool on_lmdb; /* the walk stands on LMDB's row, on that in memory, or on both */
    bool on_row;
    bool keys_only;
    uint64_t table_changes; /* of the tx, when the walk began */
    struct walk *next;
};

static void walk_free(struct walk *w)
{
    if (w->mc != NULL) {
        mdb_cursor_close(w->mc);
    }
    free(w);
}

void walks_end(struct tx *tx)
{
    while (tx->walks) {
        struct walk *w = tx->walks;

        tx->walks = w->next;
        walk_free(w);
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
    walk_free(w);
    c->impl = NULL;
}

static int open_lmdb(struct tx *tx, enum table t, MDB_cursor **ret)
{
    MDB_stat stat;
    int rc = mdb_stat(tx->txn, tx->store->tables[t], &stat);

    *ret = NULL;
    if (rc == 0 && stat.ms_entries > 0) {
        rc = mdb_cursor_open(tx->txn, tx->store->tables[t], ret);
    }
    return rc;
}

/* Prepares *c and opens its walk. False: the tx has failed. */
static bool begin(struct cursor *c, struct tx *tx, enum table t, struct str prefix)
{
    struct walk *w;
    int rc;

    c->tx = tx;
    c->table = t;
    c->prefix.n = 0;
    key_add_bytes(&c->prefix, prefix.p, prefix.n);
    c->key = c->value = STR_NULL;
    c->valid = false;
    c->impl = NULL;
    if (!tx_ok(tx)) {
        return false;
    }
    w = xcalloc(1, sizeof(*w));
    rc = open_lmdb(tx, t, &w->mc);
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

/* `key` is in and out, as the operation wants. */
static void move_lmdb(struct cursor *c, MDB_cursor_op op, struct str key)
{
    struct walk *w = c->impl;
    int rc = MDB_NOTFOUND;

    if (w->mc != NULL) {
        w->key = (MDB_val){.mv_size = key.n, .mv_data = (void *)key.p};
        rc = mdb_cursor_get(w->mc, &w->key, &w->physical, op);
    }
    if (rc != 0 && rc != MDB_NOTFOUND) {
        tx_fail(c->tx, store_error(rc));
    }
    w->found = rc == 0;
}

/* At the first row that is not before `from`; of no bytes: at the first of all. */
static void place_forward(struct cursor *c, struct str from)
{
    struct walk *w = c->impl;
    struct memtable *mem = c->tx->mem;

    w->backward = false;
    move_lmdb(c, from.n > 0 ? MDB_SET_RANGE : MDB_FIRST, from);
    if (mem != NULL) {
        w->row = from.n > 0 ? mem_at_or_after(mem, c->table, from) : mem->lists[c->table].first[0];
    }
}

/* At the last row before `end`; of no bytes: at the last of all. */
static void place_backward(struct cursor *c, struct str end)
{
    struct walk *w = c->impl;
    struct memtable *mem = c->tx->mem;

    w->backward = true;
    w->found = false;
    if (end.n > 0) {
        move_lmdb(c, MDB_SET_RANGE, end);
    }
    move_lmdb(c, w->found ? MDB_PREV : MDB_LAST, STR_NULL);
    if (mem != NULL) {
        w->row = end.n > 0 ? mem_before(mem, c->table, end) : mem->lists[c->table].last;
    }
}

static struct str lmdb_key(const struct walk *w)
{
    return str_of(w->key.mv_data, w->key.mv_size);
}

/* Finds out on which of the two the walk stands. False: on none, it is at its end. */
static bool choose(struct walk *w)
{
    int order = 0; /* which comes first in the direction of the walk */

    if (w->found && w->row != NULL) {
        order = str_cmp(lmdb_key(w), mem_key(w->row));
        order = w->backward ? -order : order;
    }
    w->on_lmdb = w->found && (w->row == NULL || order <= 0);
    w->on_row = w->row != NULL && (!w->found || order >= 0);
    return w->on_lmdb || w->on_row;
}

static void advance(struct cursor *c)
{
    struct walk *w = c->impl;

    if (w->on_row) {
        w->row = w->backward ? mem_previous(c->tx->mem, w->row) : w->row->next[0];
    }
    if (w->on_lmdb) {
        move_lmdb(c, w->backward ? MDB_PREV : MDB_NEXT, STR_NULL);
    }
}

static bool load(struct cursor *c)
{
    struct walk *w = c->impl;

    if (w->keys_only) {
        return true;
    }
    if (w->on_row) {
        c->value = mem_value(c->tx, w->row);
        return true;
    }
    return row_load(c->tx, w->physical, &c->value);
}

/* Fills in the row that the walk has come to, behind those that are gone, or ends the walk. */
static void settle(struct cursor *c)
{
    struct walk *w = c->impl;

    c->tx->reads++;
    while (tx_ok(c->tx) && choose(w)) {
        c->key = w->on_row ? mem_key(w->row) : lmdb_key(w);
        if (!str_starts(c->key, key_str(&c->prefix))) {
            break;
        }
        if (!w->on_row || w->row->state != MEM_GONE) {
            if (!load(c)) {
                break;
            }
            c->valid = true;
            return;
        }
        advance(c);
    }
    cursor_end(c);
}

void tx_seek(struct cursor *c, struct tx *tx, enum table t, struct str prefix,
             const struct key *from)
{
    struct str first = prefix;

    if (from && str_cmp(key_str(from), prefix) > 0) {
        first = key_str(from);
    }
    if (begin(c, tx, t, prefix)) {
        place_forward(c, first);
        settle(c);
    }
}

bool tx_first_key(struct tx *tx, enum table t, struct str prefix, struct key *ret)
{
    struct cursor c;
    bool found;

    if (!begin(&c, tx, t, prefix)) {
        return false;
    }
    ((struct walk *)c.impl)->keys_only = true;
    place_forward(&c, prefix);
    settle(&c);
    found = c.valid;
    if (found) {
        *ret = key_bytes(c.key.p, c.key.n);
    }
    cursor_end(&c);
    return found;
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

    if (!begin(c, tx, t, prefix)) {
        return;
    }
    after = c->prefix;
    place_backward(c, key_after_prefix(&after) ? key_str(&after) : STR_NULL);
    settle(c);
}

static void step(struct cursor *c, bool backward)
{
    struct walk *w = c->impl;

    if (!c->valid) {
        return;
    }
    /* A walk goes no further over a table that was written to: collect first, then write. */
    check(w->table_changes == c->tx->table_changes[c->table]);
    if (w->backward == backward) {
        advance(c);
    } else if (backward) {
        place_backward(c, c->key);
    } else { /* both have to come to where the walk stands */
        place_forward(c, c->key);
        if (choose(w)) {
            advance(c);
        }
    }
    settle(c);
}

void tx_next(struct cursor *c)
{
    step(c, false);
}

void tx_prev(struct cursor *c)
{
    step(c, true);
}
