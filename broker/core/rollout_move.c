#include "common/base.h"

#include "broker/core/rollout_move.h"
#include "common/crypto.h"
#include "common/limits.h"

#define NOTE_KIND_BYTES 32u

Pb__RolloutRecord *rollout_row(struct core *c, uint64_t id)
{
    const struct key k = key_u64(id);

    return (Pb__RolloutRecord *)core_row(c, T_ROLLOUT, &k, &pb__rollout_record__descriptor);
}

void rollout_put(struct core *c, Pb__RolloutRecord *r, uint64_t was_look_ms)
{
    const struct key k = key_u64(r->id);
    const struct key was = key_u64_u64(was_look_ms, r->id);
    const struct key due = key_u64_u64(r->next_look_ms, r->id);

    if (was_look_ms != 0 && was_look_ms != r->next_look_ms) {
        tx_del(c->tx, T_ROLLOUT_DUE, &was);
    }
    if (r->next_look_ms != 0 && was_look_ms != r->next_look_ms) {
        tx_put(c->tx, T_ROLLOUT_DUE, &due, STR_NULL);
    }
    r->revision++;
    tx_put_msg(c->tx, T_ROLLOUT, &k, &r->base);
}

struct key rollout_seq_key(uint64_t rollout_id, uint64_t seq)
{
    return key_u64_u64(rollout_id, seq);
}

struct key rollout_group_prefix(uint64_t pipeline_id, const char *group)
{
    struct key k = key_u64(pipeline_id);
    uint8_t hash[SHA256_BYTES];

    crypto_sha256(group, strlen(group), hash);
    key_add_bytes(&k, hash, sizeof(hash));
    return k;
}

struct key rollout_group_key(const Pb__RolloutRecord *r)
{
    struct key k = rollout_group_prefix(r->pipeline_id, r->group);

    key_add_u64(&k, r->id);
    return k;
}

void rollout_note_add(struct core *c, Pb__RolloutRecord *r, const char *kind, const char *text)
{
    Pb__RolloutNoteRecord n = PB__ROLLOUT_NOTE_RECORD__INIT;
    struct key k;

    n.seq = ++r->next_note;
    n.time_ms = c->now_ms;
    n.kind = text_clip(c->arena, kind, NOTE_KIND_BYTES);
    n.text = text_clip(c->arena, text, LIMIT_ROLLOUT_TEXT);
    k = rollout_seq_key(r->id, n.seq);
    tx_put_msg(c->tx, T_ROLLOUT_NOTE, &k, &n.base);
    if (n.seq > LIMIT_ROLLOUT_NOTES) {
        k = rollout_seq_key(r->id, n.seq - LIMIT_ROLLOUT_NOTES);
        tx_del(c->tx, T_ROLLOUT_NOTE, &k);
    }
}

static bool has_ended(const Pb__RolloutRecord *r)
{
    return (rollout_state_flags(r->state) & ROLLOUT_ENDED) != 0;
}

void rollout_make_due(struct core *c, uint64_t rollout_id)
{
    Pb__RolloutRecord *r = rollout_row(c, rollout_id);
    const uint64_t was_look_ms = r->next_look_ms;

    if (tx_ok(c->tx) && !has_ended(r) && was_look_ms != c->now_ms) {
        r->next_look_ms = c->now_ms;
        rollout_put(c, r, was_look_ms);
    }
}

void rollout_group_make_due(struct core *c, const Pb__RolloutRecord *r)
{
    const struct key prefix = rollout_group_prefix(r->pipeline_id, r->group);
    uint64_t ids[LIMIT_ROLLOUT_GROUP];
    struct cursor cur;
    size_t n = 0;

    if (r->group[0] == '\0') {
        return;
    }
    for (tx_seek(&cur, c->tx, T_ROLLOUT_GROUP, key_str(&prefix), NULL);
         cur.valid && n < ARRAY_LEN(ids); tx_next(&cur)) {
        ids[n++] = key_read_u64(cur.key, cur.key.n - sizeof(uint64_t));
    }
    cursor_end(&cur);
    for (size_t i = 0; i < n; i++) {
        if (ids[i] != r->id) {
            rollout_make_due(c, ids[i]);
        }
    }
}

static void tell(struct core *c, const Pb__RolloutRecord *r, const char *from)
{
    event_add(c, &(struct event){.kind = EVENT_ROLLOUT,
                                 .project_id = r->project_id,
                                 .pipeline_id = r->pipeline_id,
                                 .job_id = r->job_id,
                                 .rollout_id = r->id,
                                 .from = from,
                                 .to = rollout_state_text(r->state),
                                 .name = service_row(c, r->service_id)->target,
                                 .detail = r->why_text});
}

static void end(struct core *c, Pb__RolloutRecord *r)
{
    const struct key live = key_u64(r->id);
    const struct key ended = key_u64_u64(c->now_ms, r->id);
    struct later *l;

    r->ended_ms = c->now_ms;
    r->next_look_ms = 0;
    r->deadline_ms = 0;
    tx_del(c->tx, T_ROLLOUT_LIVE, &live);
    tx_put(c->tx, T_ROLLOUT_ENDED, &ended, STR_NULL);
    if (r->from_snapshot_id != 0) {
        snapshot_use(c, r->from_snapshot_id, -1);
    }
    l = later_add(c);
    l->kind = LATER_ROLLOUT_ENDED;
    l->rollout_id = r->id;
}

/* Of the ended ones of a service the newest stay. */
static void forget_oldest(struct core *c, uint64_t service_id)
{
    const struct key prefix = key_u64(service_id);
    uint64_t ids[LIMIT_SERVICE_ROLLOUTS + 3];
    struct cursor cur;
    size_t n = 0;

    for (tx_seek(&cur, c->tx, T_SERVICE_ROLLOUT, key_str(&prefix), NULL);
         cur.valid && n < ARRAY_LEN(ids); tx_next(&cur)) {
        ids[n++] = key_read_u64(cur.key, sizeof(uint64_t));
    }
    cursor_end(&cur);
    for (size_t i = 0; n - i > LIMIT_SERVICE_ROLLOUTS && i < n; i++) {
        const Pb__RolloutRecord *r = rollout_row(c, ids[i]);
        if (tx_ok(c->tx) && has_ended(r)) {
            rollout_forget(c, ids[i]);
        }
    }
}

void rollout_let_go(struct core *c, const Pb__RolloutRecord *r)
{
    if (has_ended(r)) {
        rollout_actions_end(c, r->id);
        service_rollout_ended(c, r);
        forget_oldest(c, r->service_id);
    }
}

/* The only writer of a rollout's state. */
void rollout_move(struct core *c, Pb__RolloutRecord *r, Pb__RolloutState to)
{
    const Pb__RolloutState from = r->state;

    check(rollout_may_move(from, to) || !tx_ok(c->tx));
    r->state = to;
    r->state_ms = c->now_ms;
    if (has_ended(r)) {
        end(c, r);
    }
    tell(c, r, rollout_state_text(from));
    rollout_group_make_due(c, r);
}

void rollout_abort(struct core *c, uint64_t rollout_id, Pb__RolloutWhy why, const char *by,
                   const char *text)
{
    Pb__RolloutRecord *r = rollout_row(c, rollout_id);
    const uint64_t was_look_ms = r->next_look_ms;

    if (!tx_ok(c->tx) || has_ended(r) || r->abort_wanted) {
        return;
    }
    r->abort_wanted = true;
    if (r->why == ROLLOUT_WHY_NONE) {
        r->why = why;
        r->why_text = text_clip(c->arena, text, LIMIT_ROLLOUT_TEXT);
    }
    r->by = text_clip(c->arena, by, LIMIT_NAME);
    r->next_look_ms = c->now_ms;
    rollout_note_add(c, r, "person", arena_printf(c->arena, "abort by %s: %s", by, text));
    rollout_put(c, r, was_look_ms);
}

static void forget_all(struct core *c, enum table t, uint64_t rollout_id)
{
    const struct key prefix = key_u64(rollout_id);
    struct key k;

    while (tx_ok(c->tx) && tx_first_key(c->tx, t, key_str(&prefix), &k)) {
        tx_del(c->tx, t, &k);
    }
}

void rollout_forget(struct core *c, uint64_t rollout_id)
{
    const Pb__RolloutRecord *r = rollout_row(c, rollout_id);
    const struct key k = key_u64(rollout_id);
    const struct key ended = key_u64_u64(r->ended_ms, r->id);
    const struct key of_service = key_u64_u64(r->service_id, r->id);
    const struct key of_group = rollout_group_key(r);

    if (!tx_ok(c->tx)) {
        return;
    }
    check(has_ended(r));
    snapshot_use(c, r->snapshot_id, -1);
    forget_all(c, T_ROLLOUT_ACTION, rollout_id);
    forget_all(c, T_ROLLOUT_METRIC, rollout_id);
    forget_all(c, T_ROLLOUT_NOTE, rollout_id);
    tx_del(c->tx, T_ROLLOUT_GROUP, &of_group);
    tx_del(c->tx, T_SERVICE_ROLLOUT, &of_service);
    tx_del(c->tx, T_ROLLOUT_ENDED, &ended);
    tx_del(c->tx, T_ROLLOUT_PLAN, &k);
    tx_del(c->tx, T_ROLLOUT, &k);
}
