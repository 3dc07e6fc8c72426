/* What the files of the store share: the LMDB handles behind struct store and struct tx, and the
 * physical form of a row.
 *
 * A logical row is one physical row of its table: nothing at all (an empty value), or one byte that
 * says how the value is kept, then
 *   ROW_INLINE   the value itself, or
 *   ROW_CHUNKED  chunk id (8 bytes), size (4 bytes); the value stands in the table "chunk" in
 * pieces of LIMIT_STORE_VALUE bytes, the last one shorter, under (chunk id, index). So walks over a
 * table meet every logical row once and in order, whatever its size, and LMDB never looks for runs
 * of free pages. A chunk id belongs to one row; it is one more than the highest.
 *
 * May be included by the files of broker/store alone. Threads: as store.h and tx.h say. */
#ifndef DAVIT_STORE_ENV_H
#define DAVIT_STORE_ENV_H

#include <lmdb.h>
#include <stdatomic.h>
#include <sys/types.h>

#include "broker/store/memtable.h"
#include "common/limits.h"

struct store {
    MDB_env *env;
    MDB_dbi tables[TABLE_COUNT];
    MDB_dbi chunks;
    bool read_only;
    int lock_fd;
    atomic_int open_tx;
    char *dir;
    dev_t dev; /* the folder's identity: one open store for each */
    ino_t ino;
    struct store *next;
};

struct walk; /* an open cursor, cursor.c */

struct tx {
    struct store *store;
    MDB_txn *txn;
    bool write;
    int error;
    uint64_t changes;
    uint64_t saved_changes; /* of them, those that a tx_save has committed */
    uint64_t unsaved_bytes; /* values written since */
    uint64_t reads;
    uint64_t table_changes[TABLE_COUNT];
    struct arena arena;
    struct buf packed; /* scratch */
    struct walk *walks;
    struct memtable *mem;            /* of a write transaction; NULL: it only reads */
    struct key *bounds[TABLE_COUNT]; /* flush.c */
};

/* LMDB's return value, or an errno, as ours. */
int store_error(int rc);

/* True for the f_type of a filesystem on which LMDB's locks or its map do not hold. */
bool store_is_remote_fs(uint64_t f_type);

/* Ends all walks of a transaction that is about to end. */
void walks_end(struct tx *tx);

/* A row's value in packed form: in the row, or in the arena of the tx. */
struct str mem_value(struct tx *tx, const struct mem_row *row);

/* flush.c: from memory to LMDB. */
/* True: LMDB has no row of that key, nor of a greater one. False, too, when the tx has failed. */
bool is_beyond(struct tx *tx, enum table t, struct str key);
/* row_write, for all that is written to a table. */
int write_through(struct tx *tx, enum table t, struct str key, struct str value);
/* No walk may be open: the oldest rows until no more than `keep` are left; or all of them, table by
 * table in the order of their keys. What fails is the tx's error. */
void flush_oldest(struct tx *tx, size_t keep);
void flush_all(struct tx *tx);
void bounds_free(struct tx *tx);

enum row_kind { ROW_INLINE = 0, ROW_CHUNKED = 1 };

#define ROW_INLINE_MAX (LIMIT_STORE_VALUE - 1)
#define ROW_VALUE_MAX  LIMIT_COMMAND

struct row {
    enum row_kind kind;
    struct str bytes; /* ROW_INLINE */
    uint64_t chunk_id;
    uint32_t size;
};

/* -E_CORRUPT for what row_write would not have written. */
int row_parse(MDB_val physical, struct row *ret);

/* Hands out the pieces of a row's value in order. -E_CORRUPT when one is missing or of a wrong
 * size. */
typedef void (*row_part_fn)(void *ctx, struct str part);
int row_each_part(struct tx *tx, const struct row *row, row_part_fn fn, void *ctx);

/* The whole value: in the map, or joined in the arena of the tx. False: the tx has failed. */
bool row_load(struct tx *tx, MDB_val physical, struct str *ret);

/* Replaces or makes, with all chunks. `last`: the table has no row of that key, nor behind it.
 * Return as LMDB does. */
int row_write(struct tx *tx, enum table t, MDB_val key, struct str value, bool last);
/* MDB_NOTFOUND: there is none. */
int row_delete(struct tx *tx, enum table t, MDB_val key);

#endif
