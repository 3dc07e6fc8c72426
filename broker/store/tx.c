#include "common/base.h"

#include "broker/store/env.h"

#include <stdlib.h>

#define PAGE_BYTES 4096u /* of LMDB, on all machines that matter */

static struct tx *tx_new(struct store *s, bool write)
{
    struct tx *tx = xcalloc(1, sizeof(*tx));

    tx->store = s;
    tx->write = write;
    arena_init(&tx->arena, 0);
    buf_init(&tx->packed, 0);
    atomic_fetch_add(&s->open_tx, 1);
    return tx;
}

static void tx_free(struct tx *tx)
{
    atomic_fetch_sub(&tx->store->open_tx, 1);
    arena_release(&tx->arena);
    buf_release(&tx->packed);
    free(tx);
}

int tx_begin(struct store *s, bool write, struct tx **ret)
{
    struct tx *tx = tx_new(s, write);
    int rc;

    check(!(write && s->read_only));
    rc = mdb_txn_begin(s->env, NULL, write ? 0 : MDB_RDONLY, &tx->txn);
    if (rc) {
        tx_free(tx);
        return store_error(rc);
    }
    *ret = tx;
    return 0;
}

int tx_commit(struct tx *tx)
{
    int r = tx->error;

    if (r < 0) {
        tx_abort(tx);
        return r;
    }
    walks_end(tx);
    r = store_error(mdb_txn_commit(tx->txn));
    tx_free(tx);
    return r;
}

int tx_save(struct tx *tx)
{
    int rc;

    check(tx->write);
    if (tx->error < 0) {
        return tx->error;
    }
    walks_end(tx);
    rc = mdb_txn_commit(tx->txn);
    tx->txn = NULL;
    if (rc == 0) {
        tx->saved_changes = tx->changes;
        tx->unsaved_bytes = 0;
        rc = mdb_txn_begin(tx->store->env, NULL, 0, &tx->txn);
    }
    if (rc) {
        tx_fail(tx, store_error(rc));
    }
    return tx->error;
}

void tx_rest(struct tx *tx)
{
    walks_end(tx);
    arena_clear(&tx->arena);
}

void tx_abort(struct tx *tx)
{
    if (!tx) {
        return;
    }
    walks_end(tx);
    if (tx->txn) {
        mdb_txn_abort(tx->txn);
    }
    tx_free(tx);
}

bool tx_ok(const struct tx *tx)
{
    return tx->error == 0;
}

int tx_error(const struct tx *tx)
{
    return tx->error;
}

void tx_fail(struct tx *tx, int r)
{
    check(r < 0);
    if (tx->error == 0) {
        tx->error = r;
    }
}

struct arena *tx_arena(struct tx *tx)
{
    return &tx->arena;
}

uint64_t tx_changes(const struct tx *tx)
{
    return tx->changes;
}

/* Each write may copy the path to its leaf and split every page of it, and so may what it frees. */
uint64_t tx_growth_bytes(const struct tx *tx)
{
    const uint64_t pages_each = 16;

    return (tx->changes - tx->saved_changes) * pages_each * PAGE_BYTES + 2 * tx->unsaved_bytes;
}

uint64_t tx_reads(const struct tx *tx)
{
    return tx->reads;
}

static MDB_val key_val(const struct key *k)
{
    check(k->n > 0 && k->n <= LIMIT_STORE_KEY);
    return (MDB_val){.mv_size = k->n, .mv_data = (void *)k->p};
}

/* Finds the physical row. False: there is none, or the tx has failed. */
static bool find(struct tx *tx, enum table t, const struct key *k, MDB_val *ret)
{
    MDB_val key = key_val(k);
    int rc;

    if (!tx_ok(tx)) {
        return false;
    }
    tx->reads++;
    rc = mdb_get(tx->txn, tx->store->tables[t], &key, ret);
    if (rc != 0 && rc != MDB_NOTFOUND) {
        tx_fail(tx, store_error(rc));
    }
    return rc == 0;
}

bool tx_get(struct tx *tx, enum table t, const struct key *k, struct str *ret_value)
{
    MDB_val physical;

    return find(tx, t, k, &physical) && row_load(tx, physical, ret_value);
}

bool tx_has(struct tx *tx, enum table t, const struct key *k)
{
    MDB_val physical;

    return find(tx, t, k, &physical);
}

/* Books a write: rc is LMDB's. */
static void wrote(struct tx *tx, enum table t, int rc)
{
    if (rc) {
        tx_fail(tx, store_error(rc));
        return;
    }
    tx->changes++;
    tx->table_changes[t]++;
}

void tx_put(struct tx *tx, enum table t, const struct key *k, struct str value)
{
    check(tx->write);
    if (tx_ok(tx)) {
        wrote(tx, t, row_write(tx, t, key_val(k), value));
        tx->unsaved_bytes += value.n;
    }
}

void tx_del(struct tx *tx, enum table t, const struct key *k)
{
    int rc;

    check(tx->write);
    if (!tx_ok(tx)) {
        return;
    }
    rc = row_delete(tx, t, key_val(k));
    if (rc != MDB_NOTFOUND) {
        wrote(tx, t, rc);
    }
}

ProtobufCMessage *tx_get_msg(struct tx *tx, enum table t, const struct key *k,
                             const ProtobufCMessageDescriptor *desc)
{
    ProtobufCMessage *m;
    struct str v;

    if (!tx_get(tx, t, k, &v)) {
        return NULL;
    }
    if (pb_unpack_own(&tx->arena, desc, v, &m) < 0) {
        tx_fail(tx, -E_CORRUPT);
        return NULL;
    }
    return m;
}

void tx_put_msg(struct tx *tx, enum table t, const struct key *k, const ProtobufCMessage *m)
{
    buf_clear(&tx->packed);
    pb_pack(m, &tx->packed);
    tx_put(tx, t, k, buf_str(&tx->packed));
}

uint64_t tx_count(struct tx *tx, enum table t)
{
    MDB_stat stat;
    int rc;

    if (!tx_ok(tx)) {
        return 0;
    }
    rc = mdb_stat(tx->txn, tx->store->tables[t], &stat);
    if (rc) {
        tx_fail(tx, store_error(rc));
        return 0;
    }
    return stat.ms_entries;
}
