/* The store: one LMDB environment in a folder, opened once by one process. Transactions are tx.h.
 *
 * Durability: LMDB's default, safest mode; a commit returns when the data is on the disk.
 * Ownership: the caller frees with store_close, after all transactions ended.
 * Threads: one writer at a time (the turn), readers on any thread.
 * Errors: -E_BUSY (another process has it, or this one), -E_CORRUPT, -E_VERSION, -E_UNSUPPORTED (a
 * network filesystem), -E_LIMIT (address space), -E_FULL, -E_NO_SPACE, -E_TOO_BIG (too much in one
 * transaction), -E_IO.
 * After -E_IO from a commit the caller ends the process: what the kernel still has of the data is
 * unknown, and a second fsync would lie. A new start reads what is on the disk. */
#ifndef DAVIT_STORE_H
#define DAVIT_STORE_H

#include "common/buf.h"
#include "common/err.h"
#include "proto/pb.h"

#define STORE_SCHEMA_VERSION 3u
#define STORE_SCHEMA_OLDEST  1u /* from which migrations.def leads to it */

enum table {
#define TABLE(name, text, key, row) name,
#include "broker/store/tables.def"
#undef TABLE
    TABLE_COUNT
};

const char *table_name(enum table t);

struct store;

struct store_options {
    bool read_only;     /* for fsck and backup beside a running broker: takes no folder lock */
    uint64_t map_bytes; /* 0: LIMIT_MAP_BYTES */
    /* NULL, or asked before a store of an older schema is changed, with its first row: below 0, and
     * a line in `why`, it stays as it is. */
    int (*may_migrate)(void *ctx, const Pb__MetaRecord *meta, struct buf *why);
    void *migrate_ctx;
};

/* Opens DIR (made if needed, unless read_only), locks it, refuses network filesystems, opens all
 * tables, clears stale readers. One of an older schema is brought up to date, in bounded steps
 * (migrations.def), unless read_only; one of a newer schema is refused. `why`
 * gets one line for people on failure. */
int store_open(const char *dir, const struct store_options *opt, struct store **ret,
               struct buf *why);
void store_close(struct store *s);

struct store_stat {
    uint64_t map_bytes;
    uint64_t used_bytes; /* highest page in use */
    uint64_t last_txn;
    uint64_t oldest_reader_lag; /* transactions since the oldest live reader's */
    uint32_t readers;
    uint64_t disk_free_bytes;
    bool alarm; /* more than 70 % of the map in use, free pages inside not counted */
    bool full;  /* more than 95 %, or less than LIMIT_DISK_RESERVE left on the disk:
                   new work is refused */
};
void store_stat(struct store *s, struct store_stat *ret);

/* What is left of the map, free pages inside not counted. Cheap. */
uint64_t store_room_bytes(struct store *s);

/* Clears slots of readers that died. Call every minute. */
int store_check_readers(struct store *s);

/* A consistent, compacted copy while the broker runs: into DIR (made; must hold no store) under a
 * temporary name, fsync, rename. -E_CORRUPT: LMDB's own page accounting does not add up. */
int store_backup(struct store *s, const char *dir, struct buf *why);

/* SHA-256 over every key and value of every table in order: equal stores hash equal. */
int store_hash(struct store *s, uint8_t ret[32]);

/* Checks the form of every row of every table, and that each piece of a large value belongs to
 * exactly one row. -E_CORRUPT: `why` gets a line. What the rows say is core_audit's business. */
int store_check(struct store *s, struct buf *why);

#endif
