#include "common/base.h"

#include "broker/store/env.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "broker/store/migrate.h"
#include "common/os.h"

enum { MAX_READERS = 512, SPARE_TABLES = 8 };

/* All stores that this process has open. LMDB would open a folder twice without a word, and closing
 * one of them would drop the locks of the other. */
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static struct store *open_stores;

const char *table_name(enum table t)
{
    static const char *const names[] = {
#define TABLE(name, text, key, row) text,
#include "broker/store/tables.def"
#undef TABLE
    };

    check(t < TABLE_COUNT);
    return names[t];
}

int store_error(int rc)
{
    switch (rc) {
    case MDB_SUCCESS:
        return 0;
    case MDB_MAP_FULL:
        return -E_FULL;
    case MDB_TXN_FULL:
        return -E_TOO_BIG;
    case MDB_READERS_FULL:
        return -E_BUSY;
    case MDB_PAGE_NOTFOUND:
    case MDB_CORRUPTED:
    case MDB_INVALID:
        return -E_CORRUPT;
    case MDB_VERSION_MISMATCH:
        return -E_VERSION;
    case MDB_PANIC:
        return -E_IO;
    case EDQUOT:
    case EFBIG: /* RLIMIT_FSIZE */
        return -E_NO_SPACE;
    default:
        return rc > 0 ? err_from_errno(rc) : -E_INTERNAL;
    }
}

bool store_is_remote_fs(uint64_t f_type)
{
    static const uint32_t remote[] = {
        0x6969,     /* NFS */
        0x517b,     /* SMB */
        0xff534d42, /* CIFS */
        0xfe534d42, /* SMB2 */
        0x65735546, /* FUSE: sshfs, s3fs and many more */
        0x01021997, /* 9p */
        0x00c36400, /* Ceph */
        0x5346414f, /* AFS */
        0x73757245, /* Coda */
        0x564c,     /* NCP */
        0x01161970, /* GFS2 */
        0x7461636f, /* OCFS2 */
        0x0bd00bd0, /* Lustre */
        0x47504653, /* GPFS */
        0x786f4256, /* VirtualBox shared folder */
    };

    for (size_t i = 0; i < ARRAY_LEN(remote); i++) {
        if ((uint32_t)f_type == remote[i]) {
            return true;
        }
    }
    return false;
}

/* Checks the folder's filesystem, and enters the store into open_stores. */
static int claim_folder(struct store *s, const char *dir, struct buf *why)
{
    struct statfs fs;
    struct stat st;
    struct store *other;

    if (stat(dir, &st) < 0 || statfs(dir, &fs) < 0) {
        int r = err_from_errno(errno);

        buf_addf(why, "cannot open the store folder %s: %s", dir, strerror(errno));
        return r;
    }
    if (store_is_remote_fs((uint64_t)fs.f_type)) {
        buf_addf(why, "%s is on a network filesystem; the store needs a local disk", dir);
        return -E_UNSUPPORTED;
    }
    pthread_mutex_lock(&open_lock);
    for (other = open_stores; other; other = other->next) {
        if (other->dev == st.st_dev && other->ino == st.st_ino) {
            break;
        }
    }
    if (!other) {
        s->dev = st.st_dev;
        s->ino = st.st_ino;
        s->next = open_stores;
        open_stores = s;
    }
    pthread_mutex_unlock(&open_lock);
    if (other) {
        buf_addf(why, "the store %s is already open in this process", dir);
        return -E_BUSY;
    }
    return 0;
}

static void release_folder(struct store *s)
{
    pthread_mutex_lock(&open_lock);
    for (struct store **link = &open_stores; *link; link = &(*link)->next) {
        if (*link == s) {
            *link = s->next;
            break;
        }
    }
    pthread_mutex_unlock(&open_lock);
}

static int lock_folder(struct store *s, const char *dir, struct buf *why)
{
    char *path = os_path_join(dir, "davit.lock");
    int r = os_lock_file(path, &s->lock_fd);

    if (r == -E_BUSY) {
        buf_addf(why, "another process uses the store %s", dir);
    } else if (r < 0) {
        buf_addf(why, "cannot lock %s: %s", path, err_text(r));
    }
    free(path);
    return r;
}

static int open_env(struct store *s, const char *dir, uint64_t map_bytes, struct buf *why)
{
    /* NOTLS: a read transaction belongs to its struct tx, not to the thread. */
    unsigned flags = MDB_NOTLS | (s->read_only ? MDB_RDONLY : 0);
    int dead;
    int fd;
    int rc = mdb_env_create(&s->env);

    if (rc == 0) {
        rc = mdb_env_set_maxreaders(s->env, MAX_READERS);
    }
    if (rc == 0) {
        rc = mdb_env_set_maxdbs(s->env, TABLE_COUNT + SPARE_TABLES);
    }
    if (rc == 0) {
        rc = mdb_env_set_mapsize(s->env, map_bytes);
    }
    if (rc == 0) {
        rc = mdb_env_open(s->env, dir, flags, 0600);
    }
    if (rc == ENOMEM) {
        buf_addf(why,
                 "cannot map %" PRIu64 " MiB for the store: raise the address space limit "
                 "(ulimit -v, LimitAS=)",
                 map_bytes / MIB);
        return -E_LIMIT;
    }
    /* The lock file and the meta descriptor are close-on-exec already. */
    if (rc == 0) {
        rc = mdb_env_get_fd(s->env, &fd);
    }
    if (rc == 0 && fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        rc = errno;
    }
    if (rc == 0) {
        rc = mdb_reader_check(s->env, &dead);
    }
    if (rc) {
        buf_addf(why, "cannot open the store %s: %s", dir, mdb_strerror(rc));
    }
    return store_error(rc);
}

/* All handles are opened here, once, and never closed. */
static int open_tables(struct store *s, const char *dir, struct buf *why)
{
    unsigned flags = s->read_only ? 0 : MDB_CREATE;
    const char *name = "chunk";
    MDB_txn *txn;
    int rc = mdb_txn_begin(s->env, NULL, s->read_only ? MDB_RDONLY : 0, &txn);

    if (rc) {
        buf_addf(why, "cannot read the store %s: %s", dir, mdb_strerror(rc));
        return store_error(rc);
    }
    rc = mdb_dbi_open(txn, name, flags, &s->chunks);
    for (enum table t = 0; rc == 0 && t < TABLE_COUNT; t++) {
        name = table_name(t);
        rc = mdb_dbi_open(txn, name, flags, &s->tables[t]);
    }
    if (rc) {
        mdb_txn_abort(txn);
    } else {
        rc = mdb_txn_commit(txn);
    }
    if (rc == MDB_NOTFOUND) {
        buf_addf(why, "the store %s has no table %s", dir, name);
        return -E_CORRUPT;
    }
    if (rc) {
        buf_addf(why, "cannot open table %s of the store %s: %s", name, dir, mdb_strerror(rc));
    }
    return store_error(rc);
}

#define IS_OLDER 1

/* 0, IS_OLDER for one that can be brought up to date, or an error. */
static int judge_version(const struct store *s, const char *dir, uint32_t version, struct buf *why)
{
    const bool underway = (version & MIGRATION_UNDERWAY) != 0;

    version &= ~MIGRATION_UNDERWAY;
    if (version == STORE_SCHEMA_VERSION) {
        return 0;
    }
    if (version > STORE_SCHEMA_VERSION) {
        buf_addf(
            why,
            "the store %s has schema version %u, this program knows %u: it is of a newer davitd. "
            "Install that one again, or restore a backup from before the upgrade",
            dir, version, STORE_SCHEMA_VERSION);
    } else if (version < STORE_SCHEMA_OLDEST) {
        buf_addf(why,
                 "the store %s has schema version %u, this program knows %u and what is not older "
                 "than %u: start a davitd in between first",
                 dir, version, STORE_SCHEMA_VERSION, STORE_SCHEMA_OLDEST);
    } else if (s->read_only) {
        buf_addf(why, "the store %s has schema version %u%s: start davitd to bring it to %u", dir,
                 version, underway ? " and a migration underway" : "", STORE_SCHEMA_VERSION);
    } else {
        return IS_OLDER;
    }
    return -E_VERSION;
}

/* The one row of T_META says which schema wrote the store; an empty store has none yet. */
static int check_version(struct store *s, const char *dir, const struct store_options *opt,
                         struct buf *why)
{
    struct tx *tx;
    struct cursor c;
    Pb__MetaRecord *meta;
    int r = tx_begin(s, false, &tx);

    if (r < 0) {
        buf_addf(why, "cannot read the store %s: %s", dir, err_text(r));
        return r;
    }
    tx_seek(&c, tx, T_META, STR_NULL, NULL);
    if (c.valid) {
        r = PB_UNPACK(tx_arena(tx), meta_record, c.value.p, c.value.n, ROW_VALUE_MAX, &meta);
        if (r < 0) {
            buf_addf(why, "the first row of the store %s is damaged", dir);
            r = -E_CORRUPT;
        } else {
            r = judge_version(s, dir, meta->schema_version, why);
        }
        if (r == IS_OLDER && opt && opt->may_migrate) {
            int allowed = opt->may_migrate(opt->migrate_ctx, meta, why);
            r = allowed < 0 ? allowed : r;
        }
    } else if (!tx_ok(tx)) {
        r = tx_error(tx);
        buf_addf(why, "cannot read the store %s: %s", dir, err_text(r));
    }
    tx_abort(tx);
    return r == IS_OLDER ? store_migrate(s, dir, why) : r;
}

int store_open(const char *dir, const struct store_options *opt, struct store **ret,
               struct buf *why)
{
    struct store *s = xcalloc(1, sizeof(*s));
    int r;

    s->read_only = opt && opt->read_only;
    s->lock_fd = -1;
    s->dir = xstrdup(dir);
    r = s->read_only ? 0 : os_mkdir_p(dir, 0700);
    if (r < 0) {
        buf_addf(why, "cannot make the store folder %s: %s", dir, err_text(r));
        goto fail;
    }
    r = claim_folder(s, dir, why);
    if (r == 0 && !s->read_only) {
        r = lock_folder(s, dir, why);
    }
    if (r == 0) {
        r = open_env(s, dir, opt && opt->map_bytes ? opt->map_bytes : LIMIT_MAP_BYTES, why);
    }
    if (r == 0) {
        r = open_tables(s, dir, why);
    }
    if (r == 0) {
        r = check_version(s, dir, opt, why);
    }
    if (r == 0) {
        *ret = s;
        return 0;
    }
fail:
    store_close(s);
    return r;
}

void store_close(struct store *s)
{
    if (!s) {
        return;
    }
    check(atomic_load(&s->open_tx) == 0);
    if (s->env) {
        mdb_env_close(s->env);
    }
    if (s->lock_fd >= 0) {
        close(s->lock_fd);
    }
    release_folder(s);
    free(s->dir);
    free(s);
}
