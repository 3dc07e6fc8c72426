#include "common/base.h"

#include "broker/store/env.h"

enum { HEAD_BYTES = 1 + 8 + 4 };

static uint32_t chunk_count(uint32_t size)
{
    return (size + LIMIT_STORE_VALUE - 1) / LIMIT_STORE_VALUE;
}

static size_t chunk_size(uint32_t size, uint32_t index)
{
    size_t offset = (size_t)index * LIMIT_STORE_VALUE;

    check(offset < size);
    return MIN(size - offset, LIMIT_STORE_VALUE);
}

static struct key chunk_key(uint64_t id, uint32_t index)
{
    struct key k = key_u64(id);

    key_add_u32(&k, index);
    return k;
}

static MDB_val val_of(const struct key *k)
{
    return (MDB_val){.mv_size = k->n, .mv_data = (void *)k->p};
}

int row_parse(MDB_val physical, struct row *ret)
{
    struct str v = str_of(physical.mv_data, physical.mv_size);

    if (v.n == 0) {
        *ret = (struct row){.kind = ROW_INLINE};
        return 0;
    }
    if (v.p[0] == ROW_INLINE && v.n > 1) {
        *ret = (struct row){.kind = ROW_INLINE, .bytes = str_sub(v, 1, v.n)};
        return 0;
    }
    if (v.p[0] == ROW_CHUNKED && v.n == HEAD_BYTES) {
        struct row row = {.kind = ROW_CHUNKED};

        row.chunk_id = key_read_u64(v, 1);
        row.size = key_read_u32(v, 9);
        if (row.size > ROW_INLINE_MAX && row.size <= ROW_VALUE_MAX) {
            *ret = row;
            return 0;
        }
    }
    return -E_CORRUPT;
}

int row_each_part(struct tx *tx, const struct row *row, row_part_fn fn, void *ctx)
{
    struct key k = chunk_key(row->chunk_id, 0);
    MDB_val key = val_of(&k);
    MDB_val part;
    MDB_cursor *mc;
    int rc;

    if (row->kind == ROW_INLINE) {
        fn(ctx, row->bytes);
        return 0;
    }
    rc = mdb_cursor_open(tx->txn, tx->store->chunks, &mc);
    if (rc) {
        return store_error(rc);
    }
    rc = mdb_cursor_get(mc, &key, &part, MDB_SET_KEY);
    for (uint32_t i = 0; rc == 0; i++) {
        k = chunk_key(row->chunk_id, i);
        if (!str_eq(str_of(key.mv_data, key.mv_size), key_str(&k)) ||
            part.mv_size != chunk_size(row->size, i)) {
            rc = MDB_NOTFOUND;
            break;
        }
        fn(ctx, str_of(part.mv_data, part.mv_size));
        if (i + 1 == chunk_count(row->size)) {
            break;
        }
        rc = mdb_cursor_get(mc, &key, &part, MDB_NEXT);
    }
    mdb_cursor_close(mc);
    return rc == MDB_NOTFOUND ? -E_CORRUPT : store_error(rc);
}

static void join_part(void *ctx, struct str part)
{
    char **end = ctx;

    memcpy(*end, part.p, part.n);
    *end += part.n;
}

bool row_load(struct tx *tx, MDB_val physical, struct str *ret)
{
    struct row row;
    char *end;
    int r = row_parse(physical, &row);

    if (r == 0 && row.kind == ROW_CHUNKED) {
        row.bytes = str_of(arena_alloc(&tx->arena, row.size), row.size);
        end = (char *)row.bytes.p;
        r = row_each_part(tx, &row, join_part, &end);
    }
    if (r < 0) {
        tx_fail(tx, r);
        return false;
    }
    *ret = row.bytes;
    return true;
}

static int next_chunk_id(struct tx *tx, uint64_t *ret)
{
    MDB_cursor *mc;
    MDB_val key;
    int rc = mdb_cursor_open(tx->txn, tx->store->chunks, &mc);

    if (rc) {
        return rc;
    }
    rc = mdb_cursor_get(mc, &key, NULL, MDB_LAST);
    if (rc == 0 && key.mv_size == 12) {
        *ret = key_read_u64(str_of(key.mv_data, key.mv_size), 0) + 1;
    } else if (rc == 0) {
        rc = MDB_CORRUPTED;
    } else if (rc == MDB_NOTFOUND) {
        *ret = 1;
        rc = 0;
    }
    mdb_cursor_close(mc);
    return rc;
}

static int write_chunks(struct tx *tx, uint64_t id, struct str value)
{
    uint32_t size = (uint32_t)value.n;

    for (uint32_t i = 0; i < chunk_count(size); i++) {
        struct key k = chunk_key(id, i);
        struct str part = str_sub(value, (size_t)i * LIMIT_STORE_VALUE, chunk_size(size, i));
        MDB_val key = val_of(&k);
        MDB_val data = {.mv_size = part.n, .mv_data = (void *)part.p};
        int rc = mdb_put(tx->txn, tx->store->chunks, &key, &data, MDB_APPEND);

        if (rc) {
            return rc;
        }
    }
    return 0;
}

/* Deletes the chunks of the row that is in the way of a write, if it has any. */
static int drop_chunks(struct tx *tx, MDB_val physical)
{
    struct row row;

    if (row_parse(physical, &row) < 0) {
        return MDB_CORRUPTED;
    }
    for (uint32_t i = 0; row.kind == ROW_CHUNKED && i < chunk_count(row.size); i++) {
        struct key k = chunk_key(row.chunk_id, i);
        MDB_val key = val_of(&k);
        int rc = mdb_del(tx->txn, tx->store->chunks, &key, NULL);

        if (rc) {
            return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
        }
    }
    return 0;
}

/* Tables whose rows are always small: nothing need be read before one is taken away. */
static bool is_small(enum table t)
{
    return t == T_READY || t == T_ASSIGNMENT || t == T_WORKER_JOB || t == T_TIMER || t == T_EXPIRE;
}

int row_write(struct tx *tx, enum table t, MDB_val key, struct str value, bool last)
{
    MDB_dbi dbi = tx->store->tables[t];
    struct key head; /* builds the head: numbers are kept as in keys */
    uint8_t inline_row[LIMIT_STORE_VALUE];
    MDB_val data = {.mv_size = 0, .mv_data = inline_row};
    MDB_val old;
    uint64_t chunk_id;
    int rc;

    check(value.n <= (is_small(t) ? ROW_INLINE_MAX : ROW_VALUE_MAX));
    if (value.n > 0 && value.n <= ROW_INLINE_MAX) {
        inline_row[0] = ROW_INLINE;
        /* Now already: the value may lie in the page that the write changes. */
        memcpy(inline_row + 1, value.p, value.n);
        data.mv_size = value.n + 1;
    }
    if (value.n <= ROW_INLINE_MAX && last) { /* no search, and pages that are full */
        rc = mdb_put(tx->txn, dbi, &key, &data, MDB_APPEND);
        return rc == MDB_KEYEXIST ? MDB_CORRUPTED : rc;
    }
    if (value.n <= ROW_INLINE_MAX) { /* most rows are new: one descent for them */
        old = data;
        rc = mdb_put(tx->txn, dbi, &key, &old, MDB_NOOVERWRITE);
        if (rc != MDB_KEYEXIST) {
            return rc;
        }
        rc = 0;
    } else {
        rc = mdb_get(tx->txn, dbi, &key, &old);
    }
    if (rc == 0) {
        rc = drop_chunks(tx, old);
    }
    if (rc != 0 && rc != MDB_NOTFOUND) {
        return rc;
    }
    if (value.n > ROW_INLINE_MAX) {
        rc = next_chunk_id(tx, &chunk_id);
        if (rc == 0) {
            rc = write_chunks(tx, chunk_id, value);
        }
        if (rc) {
            return rc;
        }
        head = key_bytes(&(uint8_t){ROW_CHUNKED}, 1);
        key_add_u64(&head, chunk_id);
        key_add_u32(&head, (uint32_t)value.n);
        data = val_of(&head);
    }
    return mdb_put(tx->txn, dbi, &key, &data, 0);
}

int row_delete(struct tx *tx, enum table t, MDB_val key)
{
    MDB_dbi dbi = tx->store->tables[t];
    MDB_val old;
    int rc = is_small(t) ? 0 : mdb_get(tx->txn, dbi, &key, &old);

    if (rc == 0 && !is_small(t)) {
        rc = drop_chunks(tx, old);
    }
    return rc ? rc : mdb_del(tx->txn, dbi, &key, NULL);
}
