#include "common/base.h"

#include "broker/store/migrate.h"

#include "broker/store/env.h"

#define META_KEY "meta"

static const struct {
    uint32_t from;
    migration_fn step;
    const char *text;
} migrations[] = {
#define MIGRATION(from, function, text) {from, function, text},
#include "broker/store/migrations.def"
#undef MIGRATION
};

size_t migration_keys(struct migration *m, enum table t, struct key **ret)
{
    struct key *keys = arena_array(tx_arena(m->tx), MIGRATION_ROWS, sizeof(*keys));
    struct cursor c;
    size_t n = 0;

    tx_seek(&c, m->tx, t, STR_NULL, m->after.n > 0 ? &m->after : NULL);
    if (c.valid && m->after.n > 0 && str_eq(c.key, key_str(&m->after))) {
        tx_next(&c);
    }
    for (; c.valid && n < MIGRATION_ROWS; tx_next(&c)) {
        keys[n++] = key_bytes(c.key.p, c.key.n);
    }
    cursor_end(&c);
    if (n > 0) {
        m->after = keys[n - 1];
    }
    *ret = keys;
    return n;
}

/* How far it has come, as bytes: the phase, then the key. */
static void read_progress(const Pb__MetaRecord *meta, struct migration *m)
{
    const struct str s = pb_str(meta->migration);

    m->phase = 0;
    m->after.n = 0;
    if (s.n > sizeof(uint64_t) && s.n - sizeof(uint64_t) <= sizeof(m->after.p)) {
        m->phase = (uint32_t)key_read_u64(str_sub(s, 0, sizeof(uint64_t)), 0) - 1;
        m->after = key_bytes(s.p + sizeof(uint64_t), s.n - sizeof(uint64_t));
    } else if (s.n == sizeof(uint64_t)) {
        m->phase = (uint32_t)key_read_u64(s, 0) - 1;
    }
}

static void write_progress(struct migration *m, Pb__MetaRecord *meta)
{
    struct key k = key_u64((uint64_t)m->phase + 1);

    key_add_bytes(&k, m->after.p, m->after.n);
    meta->migration = pb_bytes(tx_arena(m->tx), key_str(&k));
}

static int step(struct store *s, migration_fn fn, bool *ret_done)
{
    const struct key k = key_bytes(META_KEY, strlen(META_KEY));
    struct migration m = {0};
    Pb__MetaRecord *meta;
    int r = tx_begin(s, true, &m.tx);

    if (r < 0) {
        return r;
    }
    meta = (Pb__MetaRecord *)tx_get_msg(m.tx, T_META, &k, &pb__meta_record__descriptor);
    if (meta == NULL) {
        r = tx_ok(m.tx) ? -E_CORRUPT : tx_error(m.tx);
        tx_abort(m.tx);
        return r;
    }
    m.meta = meta;
    m.now_ms = meta->time_ms;
    read_progress(meta, &m);
    *ret_done = fn(&m);
    meta->schema_version &= ~MIGRATION_UNDERWAY;
    if (*ret_done) {
        meta->schema_version++;
        meta->migration = (ProtobufCBinaryData){0};
    } else {
        meta->schema_version |= MIGRATION_UNDERWAY;
        write_progress(&m, meta);
    }
    tx_put_msg(m.tx, T_META, &k, &meta->base);
    return tx_commit(m.tx);
}

static int read_version(struct store *s, uint32_t *ret)
{
    const struct key k = key_bytes(META_KEY, strlen(META_KEY));
    struct tx *tx;
    int r = tx_begin(s, false, &tx);

    if (r < 0) {
        return r;
    }
    const Pb__MetaRecord *meta = (const Pb__MetaRecord *)tx_get_msg(tx, T_META, &k,
                                                                    &pb__meta_record__descriptor);
    r = meta != NULL ? 0 : -E_CORRUPT;
    *ret = meta != NULL ? meta->schema_version & ~MIGRATION_UNDERWAY : 0;
    tx_abort(tx);
    return r;
}

int store_migrate(struct store *s, const char *dir, struct buf *why)
{
    uint32_t version = 0;
    int r = read_version(s, &version);

    for (size_t i = 0; r == 0 && i < ARRAY_LEN(migrations); i++) {
        bool done = migrations[i].from != version;
        while (r == 0 && !done) {
            r = step(s, migrations[i].step, &done);
        }
        version += migrations[i].from == version;
        if (r < 0) {
            buf_addf(
                why,
                "cannot bring the store %s from schema version %u to the next one (%s): %s; start "
                "this program again when that is mended, or restore the backup of before",
                dir, migrations[i].from, migrations[i].text, err_text(r));
        }
    }
    check(r < 0 || version == STORE_SCHEMA_VERSION);
    return r;
}
