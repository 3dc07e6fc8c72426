#include "common/base.h"

#include "broker/store/env.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/crypto.h"
#include "common/os.h"

enum { ALARM_PERCENT = 70, FULL_PERCENT = 95, FREE_LIST_DBI = 0 };

struct readers {
    uint32_t count;
    uint64_t oldest_txn;
};

/* One line of mdb_reader_list: "PID THREAD TXN", "PID THREAD -" for a resting slot, or its heading.
 */
static int count_reader(const char *line, void *ctx)
{
    struct readers *readers = ctx;
    struct str rest = str_trim(str_from(line));
    struct str word = STR_NULL;
    uint64_t txn;

    while (str_split(&rest, ' ', &word)) {
    }
    if (str_to_u64(word, &txn) == 0) {
        readers->count++;
        readers->oldest_txn = MIN(readers->oldest_txn, txn);
    }
    return 0;
}

/* Pages below the highest one that are free to be used again. */
static uint64_t free_pages(struct store *s)
{
    uint64_t pages = 0;
    MDB_cursor *mc;
    MDB_txn *txn;
    MDB_val key;
    MDB_val value;

    if (mdb_txn_begin(s->env, NULL, MDB_RDONLY, &txn)) {
        return 0;
    }
    if (mdb_cursor_open(txn, FREE_LIST_DBI, &mc) == 0) {
        while (mdb_cursor_get(mc, &key, &value, MDB_NEXT) == 0) {
            size_t count; /* the first word of each record */

            memcpy(&count, value.mv_data, sizeof(count));
            pages += count;
        }
        mdb_cursor_close(mc);
    }
    mdb_txn_abort(txn);
    return pages;
}

void store_stat(struct store *s, struct store_stat *ret)
{
    struct readers readers = {.oldest_txn = UINT64_MAX};
    struct store_stat stat = {0};
    MDB_envinfo info;
    MDB_stat env;
    uint64_t busy_bytes;
    uint64_t disk_bytes;

    check(mdb_env_info(s->env, &info) == 0 && mdb_env_stat(s->env, &env) == 0);
    mdb_reader_list(s->env, count_reader, &readers);
    stat.map_bytes = info.me_mapsize;
    stat.used_bytes = (info.me_last_pgno + 1) * (uint64_t)env.ms_psize;
    stat.last_txn = info.me_last_txnid;
    stat.readers = readers.count;
    if (readers.oldest_txn < stat.last_txn) {
        stat.oldest_reader_lag = stat.last_txn - readers.oldest_txn;
    }
    /* The file never shrinks: near the end it counts what is free inside. */
    busy_bytes = stat.used_bytes;
    if (busy_bytes / ALARM_PERCENT > stat.map_bytes / 100) {
        busy_bytes -= MIN(busy_bytes, free_pages(s) * env.ms_psize);
    }
    stat.alarm = busy_bytes / ALARM_PERCENT > stat.map_bytes / 100;
    stat.full = busy_bytes / FULL_PERCENT > stat.map_bytes / 100;
    /* A disk that is full in the middle of a write shows as -E_IO: stop before. */
    if (os_disk_free(s->dir, &stat.disk_free_bytes, &disk_bytes) == 0) {
        stat.full = stat.full || stat.disk_free_bytes < LIMIT_DISK_RESERVE;
    }
    *ret = stat;
}

uint64_t store_room_bytes(struct store *s)
{
    MDB_envinfo info;
    MDB_stat env;

    check(mdb_env_info(s->env, &info) == 0 && mdb_env_stat(s->env, &env) == 0);
    const uint64_t used_bytes = (info.me_last_pgno + 1) * (uint64_t)env.ms_psize;
    return info.me_mapsize - MIN(used_bytes, info.me_mapsize);
}

int store_check_readers(struct store *s)
{
    int dead;

    return store_error(mdb_reader_check(s->env, &dead));
}

/* Writes the copy and makes it durable; the caller renames. */
static int copy_to(struct store *s, const char *path)
{
    int r = 0;
    int rc;
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0) {
        return err_from_errno(errno);
    }
    rc = mdb_env_copyfd2(s->env, fd, MDB_CP_COMPACT);
    if (rc) {
        /* MDB_INCOMPATIBLE: pages are lost or counted twice. */
        r = rc == MDB_INCOMPATIBLE ? -E_CORRUPT : store_error(rc);
    }
    if (r == 0 && fsync(fd) < 0) {
        r = err_from_errno(errno);
    }
    if (close(fd) < 0 && r == 0) {
        r = err_from_errno(errno);
    }
    return r;
}

int store_backup(struct store *s, const char *dir, struct buf *why)
{
    char *path = os_path_join(dir, "data.mdb");
    char *path_tmp = os_path_join(dir, "data.mdb.tmp");
    int r = os_mkdir_p(dir, 0700);

    if (r < 0) {
        buf_addf(why, "cannot make %s: %s", dir, err_text(r));
    } else if (os_exists(path)) {
        buf_addf(why, "%s holds a store already", dir);
        r = -E_EXISTS;
    } else {
        unlink(path_tmp); /* of a backup that was cut off */
        r = copy_to(s, path_tmp);
        if (r == 0 && rename(path_tmp, path) < 0) {
            r = err_from_errno(errno);
        }
        if (r == 0) {
            r = os_fsync_dir(dir);
        } else {
            unlink(path_tmp);
        }
        if (r < 0) {
            buf_addf(why, "cannot copy the store to %s: %s", dir, err_text(r));
        }
    }
    free(path);
    free(path_tmp);
    return r;
}

/* Calls fn with every physical row of every table, in order, until it fails. */
typedef int (*row_fn)(void *ctx, struct tx *tx, enum table t, struct str key,
                      const struct row *row);

static int each_row_of(struct tx *tx, enum table t, row_fn fn, void *ctx)
{
    MDB_cursor *mc;
    MDB_val key;
    MDB_val physical;
    struct row row;
    int r = 0;
    int rc = mdb_cursor_open(tx->txn, tx->store->tables[t], &mc);

    if (rc) {
        return store_error(rc);
    }
    while (r == 0 && (rc = mdb_cursor_get(mc, &key, &physical, MDB_NEXT)) == 0) {
        r = row_parse(physical, &row);
        if (r == 0) {
            r = fn(ctx, tx, t, str_of(key.mv_data, key.mv_size), &row);
        }
    }
    mdb_cursor_close(mc);
    return r == 0 && rc != MDB_NOTFOUND ? store_error(rc) : r;
}

static void hash_u64(struct sha256 *h, uint64_t v)
{
    struct key k = key_u64(v);

    sha256_add(h, k.p, k.n);
}

static void hash_part(void *ctx, struct str part)
{
    sha256_add(ctx, part.p, part.n);
}

static int hash_row(void *ctx, struct tx *tx, enum table t UNUSED, struct str key,
                    const struct row *row)
{
    struct sha256 *h = ctx;

    hash_u64(h, key.n);
    sha256_add(h, key.p, key.n);
    hash_u64(h, row->kind == ROW_CHUNKED ? row->size : row->bytes.n);
    return row_each_part(tx, row, hash_part, h);
}

int store_hash(struct store *s, uint8_t ret[32])
{
    struct sha256 *h;
    struct tx *tx;
    int r = tx_begin(s, false, &tx);

    if (r < 0) {
        return r;
    }
    h = sha256_new();
    for (enum table t = 0; r == 0 && t < TABLE_COUNT; t++) {
        hash_u64(h, tx_count(tx, t));
        r = each_row_of(tx, t, hash_row, h);
    }
    if (r == 0) {
        sha256_end(h, ret);
    }
    sha256_free(h);
    tx_abort(tx);
    return r;
}

/* What store_check has seen of the chunks. */
struct chunk_census {
    uint64_t *ids; /* one for each chunked row */
    size_t count;
    size_t cap;
    uint64_t chunks;
    struct buf *why;
};

static void count_part(void *ctx, struct str part UNUSED)
{
    (*(uint64_t *)ctx)++;
}

static int check_row(void *ctx, struct tx *tx, enum table t, struct str key UNUSED,
                     const struct row *row)
{
    struct chunk_census *census = ctx;
    int r;

    if (row->kind == ROW_INLINE) {
        return 0;
    }
    if (census->count == census->cap) {
        census->cap = MAX(64, census->cap * 2);
        census->ids = xrealloc(census->ids, census->cap * sizeof(census->ids[0]));
    }
    census->ids[census->count++] = row->chunk_id;
    r = row_each_part(tx, row, count_part, &census->chunks);
    if (r < 0) {
        buf_addf(census->why, "table %s: the pieces of value %" PRIu64 " are damaged",
                 table_name(t), row->chunk_id);
    }
    return r;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* All chunks belong to a row, and none to two. */
static int check_census(struct tx *tx, const struct chunk_census *census)
{
    MDB_stat stat;
    int rc = mdb_stat(tx->txn, tx->store->chunks, &stat);

    if (rc) {
        return store_error(rc);
    }
    if (stat.ms_entries != census->chunks) {
        buf_addf(census->why, "table chunk: %zu pieces, but rows own %" PRIu64, stat.ms_entries,
                 census->chunks);
        return -E_CORRUPT;
    }
    if (census->count > 0) {
        qsort(census->ids, census->count, sizeof(census->ids[0]), compare_u64);
    }
    for (size_t i = 1; i < census->count; i++) {
        if (census->ids[i] == census->ids[i - 1]) {
            buf_addf(census->why, "table chunk: two rows own value %" PRIu64, census->ids[i]);
            return -E_CORRUPT;
        }
    }
    return 0;
}

int store_check(struct store *s, struct buf *why)
{
    struct chunk_census census = {.why = why};
    struct tx *tx;
    int r = tx_begin(s, false, &tx);

    if (r < 0) {
        buf_addf(why, "cannot read the store: %s", err_text(r));
        return r;
    }
    for (enum table t = 0; r == 0 && t < TABLE_COUNT; t++) {
        r = each_row_of(tx, t, check_row, &census);
        if (r < 0 && why->n == 0) {
            buf_addf(why, "table %s: %s", table_name(t), err_text(r));
        }
    }
    if (r == 0) {
        r = check_census(tx, &census);
    }
    free(census.ids);
    tx_abort(tx);
    return r;
}
