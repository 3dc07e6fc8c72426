#include "common/base.h"

#include "broker/core/audit.h"
#include "broker/core/rollout_move.h"
#include "common/crypto.h"
#include "common/limits.h"

/* Rollouts with their actions, services and snapshots. */

static const void *row(struct audit *a, enum table t, struct str key,
                       const ProtobufCMessageDescriptor *desc)
{
    const struct key k = key_bytes(key.p, key.n);

    return audit_row(a, t, &k, desc, true);
}

static const void *other(struct audit *a, enum table t, uint64_t id,
                         const ProtobufCMessageDescriptor *desc)
{
    const struct key k = key_u64(id);

    return audit_row(a, t, &k, desc, false);
}

static void way(struct audit *a, enum table t, const struct key *k, uint64_t id)
{
    struct str v;

    a->expected[t]++;
    if (!tx_get(a->tx, t, k, &v) || v.n != sizeof(uint64_t) || key_read_u64(v, 0) != id) {
        breach(a, "%s: no row leads to %" PRIu64, table_name(t), id);
    }
}

static bool ended(const Pb__RolloutRecord *r)
{
    return (rollout_state_flags(r->state) & ROLLOUT_ENDED) != 0;
}

static void audit_indexes(struct audit *a, const Pb__RolloutRecord *r)
{
    const struct key id = key_u64(r->id);
    const struct key due = key_u64_u64(r->next_look_ms, r->id);
    const struct key end = key_u64_u64(r->ended_ms, r->id);
    const struct key of_service = key_u64_u64(r->service_id, r->id);

    audit_index(a, T_ROLLOUT_LIVE, &id, !ended(r), r->id);
    audit_index(a, T_ROLLOUT_ENDED, &end, ended(r), r->id);
    audit_index(a, T_ROLLOUT_DUE, &due, !ended(r), r->id);
    audit_index(a, T_SERVICE_ROLLOUT, &of_service, true, r->id);
    if (r->group[0] != '\0') {
        const struct key of_group = rollout_group_key(r);
        audit_index(a, T_ROLLOUT_GROUP, &of_group, true, r->id);
    }
    if (ended(r) != (r->ended_ms != 0) || ended(r) != (r->next_look_ms == 0)) {
        breach(a, "rollout %" PRIu64 " is %s, ended at %" PRIu64 ", looked at %" PRIu64, r->id,
               rollout_state_text(r->state), r->ended_ms, r->next_look_ms);
    }
}

/* A service has one live rollout, and one that waits for it. */
static void audit_place(struct audit *a, const Pb__RolloutRecord *r)
{
    const Pb__ServiceRecord *s = other(a, T_SERVICE, r->service_id,
                                       &pb__service_record__descriptor);
    bool placed;

    if (s == NULL) {
        return;
    }
    placed = s->live_rollout_id == r->id ||
             (s->next_rollout_id == r->id && r->state == ROLLOUT_QUEUED);
    if (placed == ended(r) || r->generation == 0 || r->generation > s->generation) {
        breach(a, "rollout %" PRIu64 " (%s) is not the one that its service knows", r->id,
               rollout_state_text(r->state));
    }
    if (!ended(r) && s->live_rollout_id == r->id && (r->state < ROLLOUT_RETIRE) &&
        (r->from_snapshot_id != s->stable_snapshot_id ||
         (s->stable_snapshot_id != 0 && r->slot == s->stable_slot))) {
        breach(a, "rollout %" PRIu64 " (%s) is at odds with what is stable", r->id,
               rollout_state_text(r->state));
    }
}

static void audit_owner(struct audit *a, const Pb__RolloutRecord *r)
{
    const Pb__JobRecord *job = r->job_id != 0 ? job_get(a->tx, r->job_id) : NULL;

    if (!ended(r) && r->job_id != 0 &&
        (job == NULL || !job->rollout || job->state != JOB_RUNNING || job->rollout_id != r->id)) {
        breach(a, "rollout %" PRIu64 " has no job that waits for it", r->id);
    }
}

static void audit_action(struct audit *a, const Pb__RolloutRecord *r, struct str key)
{
    const Pb__RolloutActionRecord *action = row(a, T_ROLLOUT_ACTION, key,
                                                &pb__rollout_action_record__descriptor);
    const Pb__JobRecord *job;

    if (action == NULL) {
        return;
    }
    if (action->seq != key_read_u64(key, sizeof(uint64_t)) || action->seq >= r->next_action ||
        action->epoch > r->epoch ||
        (action->state == ROLLOUT_ACTION_RUNNING) != (action->ended_ms == 0)) {
        breach(a, "action %" PRIu64 " of rollout %" PRIu64 " is odd", action->seq, r->id);
    }
    if (ended(r) &&
        (action->kind != ROLLOUT_ACTION_NOTIFY || action->state != ROLLOUT_ACTION_RUNNING)) {
        breach(a, "rollout %" PRIu64 " has ended, and has an action", r->id);
    }
    job = action->state == ROLLOUT_ACTION_RUNNING ? job_get(a->tx, action->job_id) : NULL;
    if (action->state == ROLLOUT_ACTION_RUNNING &&
        (job == NULL || job_state_terminal(job->state) || job->rollout_id != r->id ||
         job->rollout_action != action->seq)) {
        breach(a, "action %" PRIu64 " of rollout %" PRIu64 " runs, and has no job that does",
               action->seq, r->id);
    }
}

static void audit_below(struct audit *a, const Pb__RolloutRecord *r)
{
    const struct key prefix = key_u64(r->id);
    struct cursor cur;
    size_t n = 0;

    for (tx_seek(&cur, a->tx, T_ROLLOUT_ACTION, key_str(&prefix), NULL); cur.valid; tx_next(&cur)) {
        audit_action(a, r, cur.key);
    }
    for (tx_seek(&cur, a->tx, T_ROLLOUT_METRIC, key_str(&prefix), NULL); cur.valid; tx_next(&cur)) {
        row(a, T_ROLLOUT_METRIC, cur.key, &pb__rollout_metric_record__descriptor);
    }
    for (tx_seek(&cur, a->tx, T_ROLLOUT_NOTE, key_str(&prefix), NULL); cur.valid; tx_next(&cur)) {
        const Pb__RolloutNoteRecord *note = row(a, T_ROLLOUT_NOTE, cur.key,
                                                &pb__rollout_note_record__descriptor);
        n++;
        if (note != NULL && note->seq > r->next_note) {
            breach(a, "rollout %" PRIu64 ": note %" PRIu64 " was never given", r->id, note->seq);
        }
    }
    if (n != MIN(r->next_note, LIMIT_ROLLOUT_NOTES)) {
        breach(a, "rollout %" PRIu64 " has %zu notes", r->id, n);
    }
}

void audit_rollout(struct audit *a, struct str key)
{
    const Pb__RolloutRecord *r = row(a, T_ROLLOUT, key, &pb__rollout_record__descriptor);

    if (r == NULL) {
        return;
    }
    audit_id(a, r->id, "rollout");
    if (r->id != key_read_u64(key, 0) || r->weight_bp > ROLLOUT_FULL_BP ||
        r->observed_bp > ROLLOUT_FULL_BP || r->revision == 0) {
        breach(a, "rollout %" PRIu64 " is odd", r->id);
    }
    row(a, T_ROLLOUT_PLAN, key, &pb__rollout_plan_record__descriptor);
    other(a, T_ENVIRONMENT, r->environment_id, &pb__environment_record__descriptor);
    audit_indexes(a, r);
    audit_place(a, r);
    audit_owner(a, r);
    audit_below(a, r);
    arena_release(&a->scratch);
}

void audit_service(struct audit *a, struct str key)
{
    const Pb__ServiceRecord *s = row(a, T_SERVICE, key, &pb__service_record__descriptor);
    struct key by_name;
    bool stable = false;

    if (s == NULL) {
        return;
    }
    audit_id(a, s->id, "service");
    by_name = service_name_key(s->environment_id, s->target);
    way(a, T_SERVICE_NAME, &by_name, s->id);
    for (size_t i = 0; i < s->n_snapshot_ids; i++) {
        stable = stable || s->snapshot_ids[i] == s->stable_snapshot_id;
        other(a, T_SNAPSHOT, s->snapshot_ids[i], &pb__snapshot_record__descriptor);
    }
    if (stable != (s->stable_snapshot_id != 0) ||
        (s->next_rollout_id != 0 && s->live_rollout_id == 0)) {
        breach(a, "service %" PRIu64 ": what is stable is not kept, or nobody is live", s->id);
    }
    if (s->live_rollout_id != 0) {
        other(a, T_ROLLOUT, s->live_rollout_id, &pb__rollout_record__descriptor);
    }
    arena_release(&a->scratch);
}

/* Counted anew: rollouts that name it, and its service. */
static uint32_t uses_of(struct audit *a, const Pb__SnapshotRecord *s)
{
    const struct key of_service = key_u64(s->service_id);
    const Pb__ServiceRecord *service = other(a, T_SERVICE, s->service_id,
                                             &pb__service_record__descriptor);
    struct cursor cur;
    uint32_t n = 0;

    for (size_t i = 0; service != NULL && i < service->n_snapshot_ids; i++) {
        n += service->snapshot_ids[i] == s->id;
    }
    for (tx_seek(&cur, a->tx, T_SERVICE_ROLLOUT, key_str(&of_service), NULL); cur.valid;
         tx_next(&cur)) {
        const Pb__RolloutRecord *r = other(a, T_ROLLOUT, key_read_u64(cur.key, sizeof(uint64_t)),
                                           &pb__rollout_record__descriptor);
        n += r != NULL && r->snapshot_id == s->id;
        n += r != NULL && !ended(r) && r->from_snapshot_id == s->id;
    }
    return n;
}

void audit_snapshot(struct audit *a, struct str key)
{
    const Pb__SnapshotRecord *s = row(a, T_SNAPSHOT, key, &pb__snapshot_record__descriptor);
    struct key by_digest;
    uint32_t uses;

    if (s == NULL) {
        return;
    }
    audit_id(a, s->id, "snapshot");
    by_digest = snapshot_digest_key(s->service_id, pb_str(s->digest));
    way(a, T_SNAPSHOT_DIGEST, &by_digest, s->id);
    for (size_t i = 0; i < s->n_artifacts; i++) {
        const struct key ref = blob_ref_key(pb_str(s->artifacts[i]->digest), BLOB_SNAPSHOT, s->id);
        audit_index(a, T_BLOB_REF, &ref, true, s->id);
    }
    uses = uses_of(a, s);
    if (s->uses != uses || uses == 0 || s->digest.len != SHA256_BYTES) {
        breach(a, "snapshot %" PRIu64 " has %u uses, and says %u", s->id, uses, s->uses);
    }
    arena_release(&a->scratch);
}

void audit_target(struct audit *a, struct str key)
{
    const Pb__RolloutTarget *t = row(a, T_TARGET, key, &pb__rollout_target__descriptor);

    if (t != NULL) {
        const struct key own = target_key(t);
        if (!str_eq(key, key_str(&own)) || target_wrong(t) != NULL) {
            breach(a, "target %s of %s stands at another place, or is none", t->name,
                   t->environment);
        }
    }
    arena_release(&a->scratch);
}
