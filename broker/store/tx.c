#include "common/base.h"

#include "broker/store/env.h"

#include <stdlib.h>

#define PAGE_BYTES 4096u /* of LMDB, on all machines that matter */

/* Rows in memory that stay there from one tx_rest to the next: more than the jobs need that are on
 * their way at once, few enough for a commit to write them in some ms. Between two tx_rest there
 * may be MEM_ROWS_MAX of them. */
#define MEM_ROWS     4096u
#define MEM_ROWS_MAX (4 * MEM_ROWS)
#define MEM_CHANGES  65536u /* since the last commit; twice what the turn lets come together */

/* A larger message is kept as LMDB has it. */
#define MEM_MESSAGE_BYTES LIMIT_STORE_VALUE

static struct tx *tx_new(struct store *s, bool write)
{
    struct tx *tx = xcalloc(1, sizeof(*tx));

    tx->store = s;
    tx->write = write;
    tx->mem = write ? mem_new() : NULL;
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
    mem_free(tx->mem);
    bounds_free(tx);
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
    int r;

    walks_end(tx);
    if (tx->write) {
        flush_all(tx);
    }
    r = tx->error;
    if (r < 0) {
        tx_abort(tx);
        return r;
    }
    r = store_error(mdb_txn_commit(tx->txn));
    tx_free(tx);
    return r;
}

int tx_save(struct tx *tx)
{
    int rc;

    check(tx->write);
    walks_end(tx);
    flush_all(tx);
    if (tx->error < 0) {
        return tx->error;
    }
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
    if (tx->write) {
        flush_oldest(tx, MEM_ROWS);
    }
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
static bool find_below(struct tx *tx, enum table t, const struct key *k, MDB_val *ret)
{
    MDB_val key = key_val(k);
    int rc;

    if (tx->mem != NULL && is_beyond(tx, t, key_str(k))) {
        return false; /* as most rows are of which somebody asks whether they are there */
    }
    rc = mdb_get(tx->txn, tx->store->tables[t], &key, ret);
    if (rc != 0 && rc != MDB_NOTFOUND) {
        tx_fail(tx, store_error(rc));
    }
    return rc == 0;
}

/* Books a look-up. Returns the row in memory, if there is one. */
static struct mem_row *find(struct tx *tx, enum table t, const struct key *k)
{
    check(k->n > 0 && k->n <= LIMIT_STORE_KEY);
    tx->reads++;
    return tx->mem != NULL ? mem_find(tx->mem, t, key_str(k)) : NULL;
}

struct str mem_value(struct tx *tx, const struct mem_row *row)
{
    const ProtobufCMessage *m = row->value;
    uint8_t *packed;
    size_t n;

    if (!row->is_message) {
        return str_of(row->value, row->n);
    }
    n = protobuf_c_message_get_packed_size(m);
    packed = arena_alloc(&tx->arena, n);
    protobuf_c_message_pack(m, packed);
    return str_of(packed, n);
}

bool tx_get(struct tx *tx, enum table t, const struct key *k, struct str *ret_value)
{
    const struct mem_row *row;
    MDB_val physical;

    if (!tx_ok(tx)) {
        return false;
    }
    row = find(tx, t, k);
    if (row != NULL && row->state != MEM_GONE) {
        *ret_value = mem_value(tx, row);
    }
    return row != NULL ? row->state != MEM_GONE
                       : find_below(tx, t, k, &physical) && row_load(tx, physical, ret_value);
}

bool tx_has(struct tx *tx, enum table t, const struct key *k)
{
    const struct mem_row *row;
    MDB_val physical;

    if (!tx_ok(tx)) {
        return false;
    }
    row = find(tx, t, k);
    return row != NULL ? row->state != MEM_GONE : find_below(tx, t, k, &physical);
}

static void book(struct tx *tx, enum table t)
{
    tx->changes++;
    tx->table_changes[t]++;
}

/* A place in memory for what is written now. */
static struct mem_row *open_row(struct tx *tx, enum table t, const struct key *k)
{
    const size_t count = tx->mem->count;
    struct mem_row *row = mem_open(tx->mem, t, key_str(k));
    enum mem_below below = (enum mem_below)row->below;

    if (tx->mem->count == count) {
        mem_touch(tx->mem, row);
    } else {
        below = is_beyond(tx, t, key_str(k)) ? BELOW_NO : BELOW_UNKNOWN;
    }
    mem_set_state(tx->mem, row, MEM_PUT, below);
    return row;
}

/* A transaction that is very large keeps nothing in memory: what LMDB cannot take must show before
 * anybody is told that it is there. */
static void make_room(struct tx *tx)
{
    const bool large = tx->changes - tx->saved_changes >= MEM_CHANGES;

    if (tx->walks == NULL && (large || tx->mem->count >= MEM_ROWS_MAX)) {
        flush_oldest(tx, large ? 0 : MEM_ROWS);
    }
}

/* Nothing is won by keeping large values in memory, and none may come as a surprise at the commit.
 */
static void put_large(struct tx *tx, enum table t, const struct key *k, struct str value)
{
    const int rc = write_through(tx, t, key_str(k), value);
    struct mem_row *row = mem_find(tx->mem, t, key_str(k));

    if (rc) {
        tx_fail(tx, store_error(rc));
    } else if (row != NULL) {
        mem_drop(tx->mem, row);
    }
}

void tx_put(struct tx *tx, enum table t, const struct key *k, struct str value)
{
    check(tx->write && k->n > 0 && k->n <= LIMIT_STORE_KEY);
    if (!tx_ok(tx)) {
        return;
    }
    if (value.n > ROW_INLINE_MAX) {
        put_large(tx, t, k, value);
    } else {
        mem_set_bytes(tx->mem, open_row(tx, t, k), value);
        make_room(tx);
    }
    if (tx_ok(tx)) {
        book(tx, t);
        tx->unsaved_bytes += value.n;
    }
}

void tx_del(struct tx *tx, enum table t, const struct key *k)
{
    struct mem_row *row;
    MDB_val physical;

    check(tx->write && k->n > 0 && k->n <= LIMIT_STORE_KEY);
    if (!tx_ok(tx)) {
        return;
    }
    row = mem_find(tx->mem, t, key_str(k));
    if (row == NULL ? !find_below(tx, t, k, &physical) : row->state == MEM_GONE) {
        return;
    }
    row = row != NULL ? row : mem_open(tx->mem, t, key_str(k));
    if (row->below == BELOW_NO ||
        (row->below == BELOW_UNKNOWN && !find_below(tx, t, k, &physical))) {
        mem_drop(tx->mem, row);
    } else {
        mem_clear_value(tx->mem, row);
        mem_set_state(tx->mem, row, MEM_GONE, BELOW_YES);
        mem_touch(tx->mem, row);
        make_room(tx);
    }
    if (tx_ok(tx)) {
        book(tx, t);
    }
}

/* A copy for the next one who wants it. */
static void remember(struct tx *tx, enum table t, const struct key *k, const ProtobufCMessage *m)
{
    const size_t n = pb_block_size(m);

    if (n <= MEM_MESSAGE_BYTES && tx->mem->count < MEM_ROWS_MAX) {
        mem_set_message(tx->mem, mem_open(tx->mem, t, key_str(k)), m, n);
    }
}

ProtobufCMessage *tx_get_msg(struct tx *tx, enum table t, const struct key *k,
                             const ProtobufCMessageDescriptor *desc)
{
    const struct mem_row *row;
    ProtobufCMessage *m;
    MDB_val physical;
    struct str v;

    if (!tx_ok(tx)) {
        return NULL;
    }
    row = find(tx, t, k);
    if (row != NULL && row->is_message) {
        m = row->value;
        check(m->descriptor == desc);
        return pb_block_copy(m, row->n, arena_alloc(&tx->arena, row->n));
    }
    if (row != NULL ? row->state == MEM_GONE
                    : !find_below(tx, t, k, &physical) || !row_load(tx, physical, &v)) {
        return NULL;
    }
    v = row != NULL ? mem_value(tx, row) : v;
    if (pb_unpack_own(&tx->arena, desc, v, &m) < 0) {
        tx_fail(tx, -E_CORRUPT);
        return NULL;
    }
    if (row == NULL && tx->mem != NULL) {
        remember(tx, t, k, m);
    }
    return m;
}

void tx_put_msg(struct tx *tx, enum table t, const struct key *k, const ProtobufCMessage *m)
{
    const size_t n = pb_block_size(m);

    check(tx->write && k->n > 0 && k->n <= LIMIT_STORE_KEY);
    if (!tx_ok(tx)) {
        return;
    }
    if (n > MEM_MESSAGE_BYTES) {
        buf_clear(&tx->packed);
        pb_pack(m, &tx->packed);
        tx_put(tx, t, k, buf_str(&tx->packed));
        return;
    }
    mem_set_message(tx->mem, open_row(tx, t, k), m, n);
    make_room(tx);
    if (tx_ok(tx)) {
        book(tx, t);
        tx->unsaved_bytes += n;
    }
}

/* Of each row that is put whether LMDB has it, too. */
static void know_all_below(struct tx *tx, enum table t)
{
    struct mem_list *list = &tx->mem->lists[t];
    MDB_val physical;

    for (struct mem_row *row = list->first[0]; row != NULL && list->unknown > 0;
         row = row->next[0]) {
        if (row->below == BELOW_UNKNOWN) {
            const struct key k = key_bytes(mem_key(row).p, row->key_n);
            const enum mem_below below = find_below(tx, t, &k, &physical) ? BELOW_YES : BELOW_NO;
            mem_set_state(tx->mem, row, MEM_PUT, below);
        }
    }
}

uint64_t tx_count(struct tx *tx, enum table t)
{
    MDB_stat stat;
    int64_t more = 0;
    int rc;

    if (!tx_ok(tx)) {
        return 0;
    }
    if (tx->mem != NULL) {
        know_all_below(tx, t);
        more = tx->mem->lists[t].more;
    }
    rc = mdb_stat(tx->txn, tx->store->tables[t], &stat);
    if (rc) {
        tx_fail(tx, store_error(rc));
        return 0;
    }
    return stat.ms_entries + (uint64_t)more;
}
