#include "common/base.h"

#include "broker/core/rollout_move.h"
#include "common/limits.h"

/* What is known of rollouts. */

const Pb__RolloutRecord *rollout_get(struct tx *tx, uint64_t id)
{
    const struct key k = key_u64(id);

    return (const Pb__RolloutRecord *)tx_get_msg(tx, T_ROLLOUT, &k,
                                                 &pb__rollout_record__descriptor);
}

const Pb__RolloutPlanRecord *rollout_plan_get(struct tx *tx, uint64_t id)
{
    const struct key k = key_u64(id);

    return (const Pb__RolloutPlanRecord *)tx_get_msg(tx, T_ROLLOUT_PLAN, &k,
                                                     &pb__rollout_plan_record__descriptor);
}

const Pb__ServiceRecord *service_get(struct tx *tx, uint64_t id)
{
    const struct key k = key_u64(id);

    return (const Pb__ServiceRecord *)tx_get_msg(tx, T_SERVICE, &k,
                                                 &pb__service_record__descriptor);
}

const Pb__ServiceRecord *service_by_name(struct tx *tx, uint64_t environment_id, const char *target)
{
    const struct key k = service_name_key(environment_id, target);
    struct str id;

    return tx_get(tx, T_SERVICE_NAME, &k, &id) ? service_get(tx, key_read_u64(id, 0)) : NULL;
}

size_t services_after(struct tx *tx, uint64_t environment_id, const char *after, size_t max,
                      const Pb__ServiceRecord **ret)
{
    const struct key prefix = key_u64(environment_id);
    const struct key from = service_name_key(environment_id, after != NULL ? after : "");
    struct cursor cur;
    size_t n = 0;

    for (tx_seek(&cur, tx, T_SERVICE_NAME, key_str(&prefix), &from); cur.valid && n < max;
         tx_next(&cur)) {
        if (after == NULL || !str_eq(cur.key, key_str(&from))) {
            ret[n] = service_get(tx, key_read_u64(cur.value, 0));
            n += ret[n] != NULL;
        }
    }
    cursor_end(&cur);
    return n;
}

const Pb__SnapshotRecord *snapshot_get(struct tx *tx, uint64_t id)
{
    const struct key k = key_u64(id);

    return (const Pb__SnapshotRecord *)tx_get_msg(tx, T_SNAPSHOT, &k,
                                                  &pb__snapshot_record__descriptor);
}

const Pb__RolloutActionRecord *rollout_action_get(struct tx *tx, uint64_t rollout_id, uint64_t seq)
{
    const struct key k = rollout_seq_key(rollout_id, seq);

    return (const Pb__RolloutActionRecord *)tx_get_msg(tx, T_ROLLOUT_ACTION, &k,
                                                       &pb__rollout_action_record__descriptor);
}

bool rollout_needs_blob(struct tx *tx, const Pb__JobRecord *job, struct str digest)
{
    const Pb__RolloutRecord *r = job->rollout_action != 0 ? rollout_get(tx, job->rollout_id) : NULL;

    for (size_t i = 0; r != NULL && i < 2; i++) {
        const Pb__SnapshotRecord *s = snapshot_get(tx,
                                                   i == 0 ? r->snapshot_id : r->from_snapshot_id);
        for (size_t k = 0; s != NULL && k < s->n_artifacts; k++) {
            if (str_eq(pb_str(s->artifacts[k]->digest), digest)) {
                return true;
            }
        }
    }
    return false;
}

/* Ids at the end of the keys below a prefix, towards smaller ones. */
static size_t ids_before(struct tx *tx, enum table t, const struct key *prefix, uint64_t before,
                         size_t max, uint64_t *ret)
{
    struct cursor cur;
    size_t n = 0;

    if (before == 0) {
        tx_seek_last(&cur, tx, t, key_str(prefix));
    } else {
        struct key from = *prefix;
        key_add_u64(&from, before);
        tx_seek(&cur, tx, t, key_str(prefix), &from);
        if (cur.valid) {
            tx_prev(&cur);
        } else {
            cursor_end(&cur);
            tx_seek_last(&cur, tx, t, key_str(prefix));
        }
    }
    for (; cur.valid && n < max; tx_prev(&cur)) {
        ret[n++] = key_read_u64(cur.key, cur.key.n - sizeof(uint64_t));
    }
    cursor_end(&cur);
    return n;
}

static size_t get_all(struct tx *tx, const uint64_t *ids, size_t count,
                      const Pb__RolloutRecord **ret)
{
    size_t n = 0;

    for (size_t i = 0; i < count; i++) {
        ret[n] = rollout_get(tx, ids[i]);
        n += ret[n] != NULL;
    }
    return n;
}

size_t rollouts_before(struct tx *tx, uint64_t service_id, uint64_t before, size_t max,
                       const Pb__RolloutRecord **ret)
{
    const struct key of_service = key_u64(service_id);
    const struct key all = {.n = 0};
    uint64_t *ids = arena_array(tx_arena(tx), max + 1, sizeof(*ids));
    const size_t found = service_id != 0
                             ? ids_before(tx, T_SERVICE_ROLLOUT, &of_service, before, max, ids)
                             : ids_before(tx, T_ROLLOUT, &all, before, max, ids);

    return get_all(tx, ids, found, ret);
}

size_t rollouts_live_before(struct tx *tx, uint64_t before, size_t max,
                            const Pb__RolloutRecord **ret)
{
    const struct key all = {.n = 0};
    uint64_t *ids = arena_array(tx_arena(tx), max + 1, sizeof(*ids));

    return get_all(tx, ids, ids_before(tx, T_ROLLOUT_LIVE, &all, before, max, ids), ret);
}

size_t rollout_notes_before(struct tx *tx, uint64_t rollout_id, uint64_t before, size_t max,
                            const Pb__RolloutNoteRecord **ret)
{
    const struct key prefix = key_u64(rollout_id);
    uint64_t *seqs = arena_array(tx_arena(tx), max + 1, sizeof(*seqs));
    const size_t found = ids_before(tx, T_ROLLOUT_NOTE, &prefix, before, max, seqs);
    size_t n = 0;

    for (size_t i = 0; i < found; i++) {
        const struct key k = rollout_seq_key(rollout_id, seqs[i]);
        ret[n] = (const Pb__RolloutNoteRecord *)tx_get_msg(tx, T_ROLLOUT_NOTE, &k,
                                                           &pb__rollout_note_record__descriptor);
        n += ret[n] != NULL;
    }
    return n;
}

/* All rows of `t` below the prefix, as messages. */
static ProtobufCMessage **rows_below(struct tx *tx, enum table t, const struct key *prefix,
                                     size_t max, const ProtobufCMessageDescriptor *desc,
                                     size_t *ret_count)
{
    ProtobufCMessage **rows = arena_array(tx_arena(tx), max + 1, sizeof(*rows));
    struct cursor cur;
    size_t n = 0;

    for (tx_seek(&cur, tx, t, key_str(prefix), NULL); cur.valid && n < max; tx_next(&cur)) {
        const struct key k = key_bytes(cur.key.p, cur.key.n);
        rows[n] = tx_get_msg(tx, t, &k, desc);
        n += rows[n] != NULL;
    }
    cursor_end(&cur);
    *ret_count = n;
    return rows;
}

static void load_group(struct tx *tx, struct rollout_view *v)
{
    const Pb__RolloutRecord **others = arena_array(tx_arena(tx), LIMIT_ROLLOUT_GROUP + 1,
                                                   sizeof(*others));
    struct key prefix;
    uint64_t ids[LIMIT_ROLLOUT_GROUP];
    size_t n;

    v->group = others;
    if (v->record->group[0] == '\0') {
        return;
    }
    prefix = rollout_group_prefix(v->record->pipeline_id, v->record->group);
    n = ids_before(tx, T_ROLLOUT_GROUP, &prefix, 0, ARRAY_LEN(ids), ids);
    for (size_t i = n; i-- > 0;) {
        others[v->group_count] = ids[i] != v->record->id ? rollout_get(tx, ids[i]) : NULL;
        v->group_count += others[v->group_count] != NULL;
    }
}

static void load_names(struct tx *tx, struct rollout_view *v)
{
    const Pb__ProjectRecord *p = project_get(tx, v->record->project_id);
    const Pb__EnvironmentRecord *e = environment_get(tx, v->record->environment_id);

    v->project = p != NULL ? p->name : "";
    v->environment = e != NULL ? e->name : "";
}

bool rollout_view_load(struct tx *tx, uint64_t rollout_id, struct rollout_view *ret)
{
    const struct key prefix = key_u64(rollout_id);
    struct rollout_view v = {.record = rollout_get(tx, rollout_id)};

    if (v.record == NULL) {
        return false;
    }
    v.plan = rollout_plan_get(tx, rollout_id);
    v.service = service_get(tx, v.record->service_id);
    if (v.plan == NULL || v.service == NULL) {
        tx_fail(tx, -E_CORRUPT);
        return false;
    }
    v.snapshot = snapshot_get(tx, v.record->snapshot_id);
    v.stable = v.record->from_snapshot_id != 0 ? snapshot_get(tx, v.record->from_snapshot_id)
                                               : NULL;
    v.actions = (Pb__RolloutActionRecord *const *)rows_below(
        tx, T_ROLLOUT_ACTION, &prefix, LIMIT_ROLLOUT_ACTIONS,
        &pb__rollout_action_record__descriptor, &v.action_count);
    v.metrics = (Pb__RolloutMetricRecord *const *)rows_below(
        tx, T_ROLLOUT_METRIC, &prefix, LIMIT_ROLLOUT_METRICS,
        &pb__rollout_metric_record__descriptor, &v.metric_count);
    v.before = v.service->live_rollout_id != 0 && v.service->live_rollout_id != rollout_id
                   ? rollout_get(tx, v.service->live_rollout_id)
                   : NULL;
    load_group(tx, &v);
    load_names(tx, &v);
    *ret = v;
    return tx_ok(tx);
}

static bool first_due(struct tx *tx, uint64_t *ret_ms, uint64_t *ret_id)
{
    struct key k;

    if (!tx_first_key(tx, T_ROLLOUT_DUE, STR_NULL, &k)) {
        return false;
    }
    *ret_ms = key_read_u64(key_str(&k), 0);
    *ret_id = key_read_u64(key_str(&k), sizeof(uint64_t));
    return true;
}

bool core_due_rollout(struct tx *tx, uint64_t now_ms, uint64_t *ret_rollout_id)
{
    uint64_t due_ms;

    return first_due(tx, &due_ms, ret_rollout_id) && due_ms <= now_ms;
}

size_t core_due_rollouts(struct tx *tx, uint64_t now_ms, size_t max, uint64_t *ret)
{
    struct cursor cur;
    size_t n = 0;

    for (tx_seek(&cur, tx, T_ROLLOUT_DUE, STR_NULL, NULL);
         cur.valid && n < max && key_read_u64(cur.key, 0) <= now_ms; tx_next(&cur)) {
        ret[n++] = key_read_u64(cur.key, sizeof(uint64_t));
    }
    cursor_end(&cur);
    return n;
}

uint64_t core_next_rollout_ms(struct tx *tx)
{
    uint64_t due_ms, id;

    if (tx_count(tx, T_ROLLOUT_OPEN) > 0) {
        return 0;
    }
    return first_due(tx, &due_ms, &id) ? due_ms : UINT64_MAX;
}

uint64_t core_open_rollout(struct tx *tx)
{
    struct key k;

    return tx_first_key(tx, T_ROLLOUT_OPEN, STR_NULL, &k) ? key_read_u64(key_str(&k), 0) : 0;
}
