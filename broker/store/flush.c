#include "common/base.h"

#include "broker/store/env.h"

#include <stdlib.h>

/* What leaves the memtable for LMDB, and what is known of LMDB's rows without asking. */

static MDB_val val_of(struct str s)
{
    return (MDB_val){.mv_size = s.n, .mv_data = (void *)s.p};
}

/* No row that LMDB has of the table has a greater key; an empty one: it has none. NULL: the tx has
 * failed. It is looked up once, and then kept. */
static const struct key *bound_of(struct tx *tx, enum table t)
{
    struct key *bound;
    MDB_cursor *mc;
    MDB_val key = {0};
    int rc;

    if (tx->bounds[t] != NULL) {
        return tx->bounds[t];
    }
    rc = mdb_cursor_open(tx->txn, tx->store->tables[t], &mc);
    if (rc) {
        tx_fail(tx, store_error(rc));
        return NULL;
    }
    rc = mdb_cursor_get(mc, &key, NULL, MDB_LAST);
    if (rc != 0 && rc != MDB_NOTFOUND) {
        mdb_cursor_close(mc);
        tx_fail(tx, store_error(rc));
        return NULL;
    }
    bound = xmalloc(sizeof(*bound));
    *bound = key_bytes(key.mv_data, rc == 0 ? key.mv_size : 0);
    mdb_cursor_close(mc);
    tx->bounds[t] = bound;
    return bound;
}

void bounds_free(struct tx *tx)
{
    for (enum table t = 0; t < TABLE_COUNT; t++) {
        free(tx->bounds[t]);
    }
}

bool is_beyond(struct tx *tx, enum table t, struct str key)
{
    const struct key *bound = bound_of(tx, t);

    return bound != NULL && str_cmp(key, key_str(bound)) > 0;
}

int write_through(struct tx *tx, enum table t, struct str key, struct str value)
{
    const bool beyond = is_beyond(tx, t, key);
    const int rc = row_write(tx, t, val_of(key), value, beyond);

    if (rc == 0 && beyond) {
        *tx->bounds[t] = key_bytes(key.p, key.n);
    }
    return rc;
}

static int flush_put(struct tx *tx, const struct mem_row *row)
{
    struct str value = str_of(row->value, row->n);

    if (row->is_message) {
        buf_clear(&tx->packed);
        pb_pack(row->value, &tx->packed);
        value = buf_str(&tx->packed);
    }
    return write_through(tx, row->table, mem_key(row), value);
}

static void flush_row(struct tx *tx, struct mem_row *row)
{
    int rc = 0;

    if (row->state == MEM_PUT) {
        rc = flush_put(tx, row);
    } else if (row->state == MEM_GONE) {
        rc = row_delete(tx, row->table, val_of(mem_key(row)));
    }
    if (rc) {
        tx_fail(tx, store_error(rc));
    } else {
        mem_drop(tx->mem, row);
    }
}

void flush_oldest(struct tx *tx, size_t keep)
{
    check(tx->walks == NULL);
    while (tx_ok(tx) && tx->mem->count > keep) {
        flush_row(tx, tx->mem->oldest);
    }
}

void flush_all(struct tx *tx)
{
    check(tx->walks == NULL);
    for (enum table t = 0; t < TABLE_COUNT; t++) {
        while (tx_ok(tx) && tx->mem->lists[t].first[0] != NULL) {
            flush_row(tx, tx->mem->lists[t].first[0]);
        }
    }
}
