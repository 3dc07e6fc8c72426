/* The rows that a write transaction has in memory: those that it has changed and LMDB has not seen
 * yet, and copies of some that it has read. What is put and deleted again between two commits never
 * costs LMDB anything, and a message that is written is packed once, when it goes to LMDB.
 *
 * Each table is a skip list (W. Pugh, 1990) in the order of the keys, so that a walk can merge it
 * with what LMDB has; all rows together are in a list by when they were last written, the oldest
 * first, which are the ones to be handed on to LMDB. Nothing in here knows LMDB: tx.c does.
 *
 * Ownership: the rows are the memtable's. A row stays where it is until mem_drop; its value until
 * it is set again. Threads: that of its tx. Errors: none. */
#ifndef DAVIT_MEMTABLE_H
#define DAVIT_MEMTABLE_H

#include "broker/store/tx.h"

#define MEM_LEVELS 8u  /* each has a fourth of the rows of the one below it */
#define MEM_SPARES 33u /* memory up to 2 KiB is kept, in steps of 64 bytes */

enum mem_state {
    MEM_CLEAN, /* as LMDB has it */
    MEM_PUT,   /* there, and not in LMDB, or otherwise */
    MEM_GONE,  /* deleted, but LMDB has it */
};

/* Whether LMDB has a row of that key. */
enum mem_below { BELOW_UNKNOWN, BELOW_NO, BELOW_YES };

struct mem_row {
    struct mem_row *older; /* of all tables, by their last write */
    struct mem_row *newer;
    uint64_t head; /* the first bytes of the key, as a number */
    void *value;   /* a block of pb_block_make, or bytes */
    size_t n;
    size_t cap;
    enum table table;
    uint8_t state; /* enum mem_state */
    uint8_t below; /* enum mem_below */
    bool is_message;
    uint8_t levels;
    uint16_t key_n;
    struct mem_row *next[]; /* `levels` of them, as many places that point to the row, the key */
};

struct mem_list {
    unsigned height;
    uint32_t unknown; /* rows that are put, and perhaps in LMDB as well */
    int64_t more;     /* by how many rows the table is larger than LMDB's, but for those */
    struct mem_row *first[MEM_LEVELS];
    struct mem_row **ends[MEM_LEVELS]; /* where the last row of each level has its NULL */
    struct mem_row *last;
};

struct memtable {
    struct mem_list lists[TABLE_COUNT];
    struct mem_row *oldest;
    size_t count;
    uint64_t random;                      /* for heights alone */
    struct mem_spare *spares[MEM_SPARES]; /* memory of rows that went, by its size */
};

struct memtable *mem_new(void);
void mem_free(struct memtable *m); /* NULL is fine */

static inline struct str mem_key(const struct mem_row *row)
{
    return str_of(&row->next[2 * row->levels], row->key_n);
}

/* NULL: there is none. */
struct mem_row *mem_find(struct memtable *m, enum table t, struct str key);
struct mem_row *mem_at_or_after(struct memtable *m, enum table t, struct str key);
struct mem_row *mem_before(struct memtable *m, enum table t, struct str key);
struct mem_row *mem_previous(struct memtable *m, const struct mem_row *row);

/* The row of that key, or a new one: clean, without a value, BELOW_YES. */
struct mem_row *mem_open(struct memtable *m, enum table t, struct str key);
void mem_drop(struct memtable *m, struct mem_row *row);

/* Keeps the counts of its table, too. */
void mem_set_state(struct memtable *m, struct mem_row *row, enum mem_state state,
                   enum mem_below below);
/* It was written now. */
void mem_touch(struct memtable *m, struct mem_row *row);

/* A copy; `bytes` may lie in the row's present value. */
void mem_set_bytes(struct memtable *m, struct mem_row *row, struct str bytes);
/* The same for a message, of which n is the pb_block_size. */
void mem_set_message(struct memtable *m, struct mem_row *row, const ProtobufCMessage *message,
                     size_t n);
void mem_clear_value(struct memtable *m, struct mem_row *row);

#endif
