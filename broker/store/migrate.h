/* Brings a store of an older schema up to date when it is opened for writing.
 *
 * A migration goes in steps of at most MIGRATION_ROWS rows, each a transaction of its own that also
 * notes how far it has come: a kill between two steps loses nothing, and the next start goes on; no
 * older program opens the store in between.
 * Nobody else has the store meanwhile. For the files of broker/store alone. Threads: the opener's.
 */
#ifndef DAVIT_STORE_MIGRATE_H
#define DAVIT_STORE_MIGRATE_H

#include "broker/store/tx.h"

#define MIGRATION_ROWS 1000u

/* One step: what it may change is in `tx`, where it goes on in the rest. */
struct migration {
    struct tx *tx;
    Pb__MetaRecord *meta; /* written after the step */
    uint64_t now_ms;      /* of the newest command: there is no clock here */
    uint32_t phase;       /* the migration's own numbers, from 0 */
    struct key after;     /* the last row that was looked at in this phase; n 0: none */
};

/* Returns true once there is nothing left to do. Failures are the tx's. */
typedef bool (*migration_fn)(struct migration *m);

#define MIGRATION(from, function, text) bool function(struct migration *m);
#include "broker/store/migrations.def"
#undef MIGRATION

/* Copies of the next keys of a table, at most MIGRATION_ROWS, in the tx's arena; moves `after`
 * behind them. Less than that: the table is at its end. */
size_t migration_keys(struct migration *m, enum table t, struct key **ret);

/* In the schema version of a store between two steps: a program that does not know of the migration
 * must not open it. */
#define MIGRATION_UNDERWAY 0x80000000u

/* The newest schema is the store's afterwards. `why` gets a line on failure. */
int store_migrate(struct store *s, const char *dir, struct buf *why);

#endif
