/* One transaction on the store. The only view of LMDB that broker/core, sched and api have.
 *
 * Sticky error: the first failure (full map, I/O, damaged row) stays in the tx; later reads find
 * nothing, later writes do nothing, tx_commit returns it. "Not found" is no failure. After a read
 * assert nothing about data unless tx_ok(tx).
 * What is written stays in memory at first: a row that comes and goes between two commits costs no
 * work in LMDB. A full map may therefore show only at tx_rest, tx_save or tx_commit.
 * Values above LIMIT_STORE_VALUE are split into chunk rows and put together again on reading; the
 * caller never sees it.
 * Ownership: what tx_get and cursors return belongs to the tx: valid until its next write or end.
 * Threads: a tx belongs to the thread that began it. Never hold a read tx across I/O. */
#ifndef DAVIT_TX_H
#define DAVIT_TX_H

#include "broker/store/store.h"
#include "common/arena.h"
#include "common/str.h"
#include "proto/pb.h"

/* A key under construction: big-endian numbers and bytes, at most LIMIT_STORE_KEY - 4 bytes. */
struct key {
    uint8_t p[512];
    size_t n;
};
struct key key_bytes(const void *p, size_t n);
static inline void key_put_u64(uint8_t *p, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(p, &v, sizeof(v));
}
static inline struct key key_u64(uint64_t a)
{
    struct key k; /* as large as the largest key: not to be zeroed for eight bytes */

    key_put_u64(k.p, a);
    k.n = sizeof(a);
    return k;
}
static inline struct key key_u64_u64(uint64_t a, uint64_t b)
{
    struct key k;

    key_put_u64(k.p, a);
    key_put_u64(k.p + sizeof(a), b);
    k.n = sizeof(a) + sizeof(b);
    return k;
}
void key_add_u64(struct key *k, uint64_t v);
void key_add_u32(struct key *k, uint32_t v);
void key_add_bytes(struct key *k, const void *p, size_t n);
struct str key_str(const struct key *k);
uint64_t key_read_u64(struct str key, size_t offset); /* checks the length */
uint32_t key_read_u32(struct str key, size_t offset);

struct tx;

/* Write transactions: by the turn only. */
int tx_begin(struct store *s, bool write, struct tx **ret);
/* Frees tx. Returns the sticky error or LMDB's, in which case nothing changed. */
int tx_commit(struct tx *tx);
/* Commits, and goes on as a new transaction under the same name. On failure it has the error,
 * nothing that was changed since the last commit is in the store, and it can only be aborted. */
int tx_save(struct tx *tx);
/* Ends all walks and what tx_get, cursors and the arena have given; the transaction goes on. Of
 * what is in memory the oldest is handed on to LMDB if there is much. */
void tx_rest(struct tx *tx);
/* NULL is fine; for read transactions the normal end. */
void tx_abort(struct tx *tx);

bool tx_ok(const struct tx *tx);
int tx_error(const struct tx *tx);        /* 0 or the sticky error */
void tx_fail(struct tx *tx, int r);       /* makes r sticky, if it is the first */
struct arena *tx_arena(struct tx *tx);    /* lives as long as the tx */
uint64_t tx_changes(const struct tx *tx); /* writes done so far; a rejected command makes none */
/* More than what the writes since the last commit can make the store grow by. */
uint64_t tx_growth_bytes(const struct tx *tx);
uint64_t tx_reads(const struct tx *tx); /* rows looked for or walked over so far */

bool tx_get(struct tx *tx, enum table t, const struct key *k,
            struct str *ret_value); /* false: none */
bool tx_has(struct tx *tx, enum table t, const struct key *k);
void tx_put(struct tx *tx, enum table t, const struct key *k, struct str value); /* replaces */
void tx_del(struct tx *tx, enum table t, const struct key *k); /* no error if absent */

/* Rows as messages in tx_arena(tx), the caller's own. A row that does not unpack is -E_CORRUPT,
 * sticky. A table holds messages of one kind. */
ProtobufCMessage *tx_get_msg(struct tx *tx, enum table t, const struct key *k,
                             const ProtobufCMessageDescriptor *desc); /* NULL: none */
void tx_put_msg(struct tx *tx, enum table t, const struct key *k, const ProtobufCMessage *m);

/* Walks the rows whose key starts with `prefix` in key order, from `from` (NULL: the first) on.
 *     for (tx_seek(&c, tx, T_JOB, prefix, NULL); c.valid; tx_next(&c)) { c.key, c.value }
 * Writes to the same table end a walk: a step after one is a failed check; collect first, then
 * write. c.value is whole (chunks joined). */
struct cursor {
    struct tx *tx;
    enum table table;
    struct key prefix;
    struct str key; /* whole key, prefix included */
    struct str value;
    bool valid;
    void *impl;
};
void tx_seek(struct cursor *c, struct tx *tx, enum table t, struct str prefix,
             const struct key *from);
void tx_next(struct cursor *c);
void tx_prev(struct cursor *c); /* towards smaller keys, still within the prefix */
void tx_seek_last(struct cursor *c, struct tx *tx, enum table t, struct str prefix);
void cursor_end(struct cursor *c); /* releases; walking to the end does it too */

/* The least key that starts with `prefix`; false: there is none. Cheaper than a walk: no value. */
bool tx_first_key(struct tx *tx, enum table t, struct str prefix, struct key *ret);

/* Number of rows of a table: O(1). */
uint64_t tx_count(struct tx *tx, enum table t);

#endif
