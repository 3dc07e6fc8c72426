#include "common/base.h"

#include "broker/core/query.h"
#include "broker/core/rollout_move.h"
#include "broker/core/spec.h"
#include "common/crypto.h"
#include "common/limits.h"

/* All that a version of a service is, addressed by its content: the same content is the same row.
 * Secrets are in it as they are stored. */

struct key snapshot_digest_key(uint64_t service_id, struct str digest)
{
    struct key k = key_u64(service_id);

    key_add_bytes(&k, digest.p, digest.n);
    return k;
}

/* What is of one attempt of the job would make each of them another version. */
static bool is_of_attempt(const char *name)
{
    static const char *const names[] = {"CI_JOB_ID", "CI_JOB_URL", "CI_JOB_STARTED_AT",
                                        "DAVIT_JOB_ATTEMPT"};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static void take_variables(struct core *c, Pb__SnapshotRecord *s, const struct spec *from)
{
    s->variables = arena_array(c->arena, from->out->n_variables + 1, sizeof(*s->variables));
    for (size_t i = 0; i < from->out->n_variables; i++) {
        if (!is_of_attempt(from->out->variables[i]->name)) {
            s->variables[s->n_variables++] = from->out->variables[i];
        }
    }
}

static bool has_artifact(const Pb__SnapshotRecord *s, struct str digest)
{
    for (size_t i = 0; i < s->n_artifacts; i++) {
        if (str_eq(pb_str(s->artifacts[i]->digest), digest)) {
            return true;
        }
    }
    return false;
}

/* NULL: all are there. */
static const char *take_artifacts(struct core *c, Pb__SnapshotRecord *s, const struct spec *from)
{
    s->artifacts = arena_array(c->arena, from->out->n_artifacts_in + 1, sizeof(*s->artifacts));
    for (size_t i = 0; i < from->out->n_artifacts_in; i++) {
        const Pb__ArtifactIn *in = from->out->artifacts_in[i];
        Pb__SnapshotArtifact *a;
        if (in->digest.len != SHA256_BYTES) {
            return arena_printf(c->arena, "artifacts of %s are not there", in->job_name);
        }
        if (has_artifact(s, pb_str(in->digest))) {
            continue;
        }
        a = arena_alloc(c->arena, sizeof(*a));
        pb__snapshot_artifact__init(a);
        a->digest = in->digest;
        a->size = in->size;
        a->job_name = in->job_name;
        s->artifacts[s->n_artifacts++] = a;
    }
    return NULL;
}

static char *version_of(struct core *c, struct spec *from, const Pb__RolloutSpec *spec)
{
    const struct str text = str_from(spec->version);
    struct str version = str_sub(str_trim(spec_expand(from, pb_bytes_ref(text))), 0, LIMIT_NAME);
    size_t whole;

    if (!str_is_utf8(version, &whole)) {
        version.n = whole; /* cut within a character */
    }
    if (version.n > 0) {
        return arena_strdup(c->arena, version);
    }
    return from->pipeline->sha[0] != '\0'
               ? from->pipeline->sha
               : arena_printf(c->arena, "pipeline %" PRIu64, from->pipeline->id);
}

/* NULL: it is no stored one, or was left out. */
static Pb__SealedVariable *sealed_of(struct arena *a, const Pb__Variable *v)
{
    Pb__SealedVariable *sealed;

    return v->sealed.len > 0 && PB_UNPACK(a, sealed_variable, v->sealed.data, v->sealed.len,
                                          LIMIT_COMMAND, &sealed) == 0
               ? sealed
               : NULL;
}

static ProtobufCBinaryData pack_sealed(struct arena *a, const Pb__SealedVariable *sealed)
{
    struct buf b = BUF_INIT;
    ProtobufCBinaryData packed;

    PB_PACK(sealed, &b);
    packed = pb_bytes(a, buf_str(&b));
    buf_release(&b);
    return packed;
}

/* Of stored variables what was sealed counts, not which master key wraps their keys today. */
static Pb__Variable *without_key(struct core *c, const Pb__Variable *v)
{
    Pb__Variable *bare = arena_alloc(c->arena, sizeof(*bare));
    Pb__SealedVariable *sealed = sealed_of(c->arena, v);

    *bare = *v;
    if (sealed != NULL) {
        sealed->wrapped_key.len = 0;
        sealed->master_key_id.len = 0;
        bare->sealed = pack_sealed(c->arena, sealed);
    }
    return bare;
}

/* Of what makes a version: not who made it, nor when. */
static void set_digest(struct core *c, Pb__SnapshotRecord *s)
{
    Pb__SnapshotRecord bare = *s;
    struct buf b = BUF_INIT;
    uint8_t hash[SHA256_BYTES];

    bare.variables = arena_array(c->arena, s->n_variables + 1, sizeof(*bare.variables));
    for (size_t i = 0; i < s->n_variables; i++) {
        bare.variables[i] = without_key(c, s->variables[i]);
    }
    PB_PACK(&bare, &b);
    crypto_sha256(b.p, b.n, hash);
    buf_release(&b);
    s->digest = pb_bytes(c->arena, str_of(hash, sizeof(hash)));
}

static const char *fill(struct core *c, Pb__SnapshotRecord *s, struct spec *from,
                        const Pb__RolloutPlanRecord *plan)
{
    const Pb__RolloutSpec *spec = plan->spec;
    const char *missing = take_artifacts(c, s, from);

    take_variables(c, s, from);
    s->version = version_of(c, from, spec);
    s->image = pb_bytes_ref(spec_expand(from, spec->image));
    s->command = pb_bytes_ref(spec_expand(from, spec->command));
    s->instance_driver = plan->target->instance_driver;
    s->router_driver = plan->target->router_driver;
    s->instances = MAX(spec->instances != 0 ? spec->instances : plan->target->instances, 1u);
    return missing;
}

int snapshot_make(struct core *c, const Pb__JobRecord *job, const Pb__RolloutPlanRecord *plan,
                  const Pb__ServiceRecord *service, Pb__SnapshotRecord **ret, const char **ret_why)
{
    Pb__SnapshotRecord *s = arena_alloc(c->arena, sizeof(*s));
    struct spec from;
    struct key known;
    struct str id;

    if (spec_gather(&from, c->tx, job->id) < 0) {
        tx_fail(c->tx, -E_CORRUPT);
        return tx_error(c->tx);
    }
    pb__snapshot_record__init(s);
    *ret_why = fill(c, s, &from, plan);
    if (*ret_why != NULL) {
        return -E_NOT_FOUND;
    }
    if (s->n_artifacts > LIMIT_SNAPSHOT_ARTIFACTS ||
        pb__snapshot_record__get_packed_size(s) > LIMIT_SNAPSHOT_ROW) {
        *ret_why = arena_printf(c->arena,
                                "the version with its variables has more than %u bytes, or more "
                                "than %u artifacts",
                                LIMIT_SNAPSHOT_ROW, LIMIT_SNAPSHOT_ARTIFACTS);
        return -E_TOO_BIG;
    }
    set_digest(c, s);
    known = snapshot_digest_key(service != NULL ? service->id : 0, pb_str(s->digest));
    if (service != NULL && tx_get(c->tx, T_SNAPSHOT_DIGEST, &known, &id)) {
        *ret = (Pb__SnapshotRecord *)snapshot_get(c->tx, key_read_u64(id, 0));
        return *ret != NULL ? 0 : tx_error(c->tx);
    }
    s->created_ms = c->now_ms;
    s->pipeline_id = job->pipeline_id;
    s->sha = from.pipeline->sha;
    *ret = s;
    return 0;
}

static void put(struct core *c, const Pb__SnapshotRecord *s)
{
    const struct key k = key_u64(s->id);

    tx_put_msg(c->tx, T_SNAPSHOT, &k, &s->base);
}

void snapshot_store(struct core *c, Pb__SnapshotRecord *s, uint64_t service_id)
{
    struct key by_digest, id;

    s->id = core_new_id(c);
    s->service_id = service_id;
    by_digest = snapshot_digest_key(service_id, pb_str(s->digest));
    id = key_u64(s->id);
    tx_put(c->tx, T_SNAPSHOT_DIGEST, &by_digest, key_str(&id));
    for (size_t i = 0; i < s->n_artifacts; i++) {
        blob_ref_add(c, pb_str(s->artifacts[i]->digest), BLOB_SNAPSHOT, s->id);
    }
    put(c, s);
}

static void forget(struct core *c, const Pb__SnapshotRecord *s)
{
    const struct key by_digest = snapshot_digest_key(s->service_id, pb_str(s->digest));
    const struct key k = key_u64(s->id);

    for (size_t i = 0; i < s->n_artifacts; i++) {
        blob_ref_del(c, pb_str(s->artifacts[i]->digest), BLOB_SNAPSHOT, s->id);
    }
    tx_del(c->tx, T_SNAPSHOT_DIGEST, &by_digest);
    tx_del(c->tx, T_SNAPSHOT, &k);
}

void snapshot_use(struct core *c, uint64_t snapshot_id, int delta)
{
    const struct key k = key_u64(snapshot_id);
    Pb__SnapshotRecord *s = (Pb__SnapshotRecord *)core_row(c, T_SNAPSHOT, &k,
                                                           &pb__snapshot_record__descriptor);

    if (!tx_ok(c->tx)) {
        return;
    }
    check(delta > 0 || s->uses > 0);
    s->uses = (uint32_t)((int64_t)s->uses + delta);
    if (s->uses == 0) {
        forget(c, s);
    } else {
        put(c, s);
    }
}

/* Its digest stays: it does not cover the keys. */
void snapshot_rewrap(struct core *c, const Pb__RewrappedKey *w)
{
    Pb__SnapshotRecord *s = (Pb__SnapshotRecord *)snapshot_get(c->tx, w->snapshot_id);
    bool changed = false;

    for (size_t i = 0; s != NULL && i < s->n_variables; i++) {
        Pb__SealedVariable *sealed = sealed_of(c->arena, s->variables[i]);
        if (sealed != NULL && sealed->wrapped_key.len > 0 &&
            str_eq(pb_str(sealed->wrapped_key), pb_str(w->old_wrapped_key))) {
            sealed->wrapped_key = w->wrapped_key;
            sealed->master_key_id = w->master_key_id;
            s->variables[i]->sealed = pack_sealed(c->arena, sealed);
            changed = true;
        }
    }
    if (changed) {
        put(c, s);
    }
}

#define SCANNED_SNAPSHOTS 64u /* at once: they are large */

/* `*at` is the snapshot and the number of the variable behind the last one that was looked at. */
static bool add_held(struct tx *tx, const Pb__SnapshotRecord *s, struct str master_key_id,
                     struct key *at, size_t from, size_t max, size_t *n, struct held_variable *ret)
{
    for (size_t i = from; i < s->n_variables; i++) {
        const Pb__SealedVariable *sealed = sealed_of(tx_arena(tx), s->variables[i]);
        if (*n == max) {
            return false;
        }
        *at = key_u64_u64(s->id, i + 1);
        if (sealed != NULL && !str_eq(pb_str(sealed->master_key_id), master_key_id)) {
            ret[(*n)++] = (struct held_variable){s->id, sealed};
        }
    }
    *at = key_u64_u64(s->id, s->n_variables);
    return true;
}

size_t snapshots_wrapped_by_others(struct tx *tx, struct str master_key_id, struct key *at,
                                   size_t max, struct held_variable *ret, bool *ret_more)
{
    const uint64_t first = at->n > 0 ? key_read_u64(key_str(at), 0) : 0;
    const size_t from = at->n > 0 ? (size_t)key_read_u64(key_str(at), sizeof(uint64_t)) : 0;
    const struct key begin = key_u64(first);
    struct cursor cur;
    size_t n = 0;
    size_t seen = 0;
    bool whole = true;

    for (tx_seek(&cur, tx, T_SNAPSHOT, STR_NULL, &begin);
         cur.valid && whole && seen < SCANNED_SNAPSHOTS; tx_next(&cur), seen++) {
        const uint64_t id = key_read_u64(cur.key, 0);
        const Pb__SnapshotRecord *s = snapshot_get(tx, id);
        whole = s != NULL &&
                add_held(tx, s, master_key_id, at, id == first ? from : 0, max, &n, ret);
    }
    *ret_more = tx_ok(tx) && (cur.valid || !whole);
    cursor_end(&cur);
    return n;
}
