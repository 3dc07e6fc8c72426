#include "common/base.h"

#include "broker/core/rollout_move.h"
#include "common/limits.h"

/* Where a target's versions stand. A service has one live rollout, and one that waits for it. */

Pb__ServiceRecord *service_row(struct core *c, uint64_t id)
{
    const struct key k = key_u64(id);

    return (Pb__ServiceRecord *)core_row(c, T_SERVICE, &k, &pb__service_record__descriptor);
}

void service_put(struct core *c, const Pb__ServiceRecord *s)
{
    const struct key k = key_u64(s->id);

    tx_put_msg(c->tx, T_SERVICE, &k, &s->base);
}

struct key service_name_key(uint64_t environment_id, const char *target)
{
    struct key k = key_u64(environment_id);

    key_add_bytes(&k, target, strnlen(target, LIMIT_NAME));
    return k;
}

Pb__ServiceRecord *service_open(struct core *c, uint64_t project_id, uint64_t environment_id,
                                const char *target)
{
    Pb__ServiceRecord *s = (Pb__ServiceRecord *)service_by_name(c->tx, environment_id, target);
    const struct key by_name = service_name_key(environment_id, target);
    struct key id;

    if (s != NULL) {
        return s;
    }
    s = arena_alloc(c->arena, sizeof(*s));
    pb__service_record__init(s);
    s->id = core_new_id(c);
    s->project_id = project_id;
    s->environment_id = environment_id;
    s->target = (char *)target;
    id = key_u64(s->id);
    tx_put(c->tx, T_SERVICE_NAME, &by_name, key_str(&id));
    service_put(c, s);
    return s;
}

/* What it leaves, and the slot that is free, are known when it becomes the live one. */
static void make_live(struct core *c, Pb__ServiceRecord *s, Pb__RolloutRecord *r)
{
    s->live_rollout_id = r->id;
    r->slot = s->stable_snapshot_id == 0 || s->stable_slot == ROLLOUT_SLOT_B ? ROLLOUT_SLOT_A
                                                                             : ROLLOUT_SLOT_B;
    r->from_snapshot_id = s->stable_snapshot_id;
    if (r->from_snapshot_id != 0) {
        snapshot_use(c, r->from_snapshot_id, 1);
    }
    r->next_look_ms = c->now_ms;
}

/* The one that waited never began. */
static void refuse(struct core *c, uint64_t rollout_id, const char *by)
{
    Pb__RolloutRecord *r = rollout_row(c, rollout_id);
    const uint64_t was_look_ms = r->next_look_ms;

    r->abort_wanted = true;
    r->why = r->why == ROLLOUT_WHY_NONE ? ROLLOUT_WHY_SUPERSEDED : r->why;
    r->why_text = (char *)by;
    rollout_note_add(c, r, "state", by);
    rollout_move(c, r, ROLLOUT_REFUSED);
    rollout_put(c, r, was_look_ms);
    rollout_let_go(c, r);
}

void service_take(struct core *c, Pb__ServiceRecord *s, Pb__RolloutRecord *r)
{
    const char *by = arena_printf(c->arena, "rollout %" PRIu64 " is newer", r->id);

    r->generation = ++s->generation;
    if (s->live_rollout_id == 0) {
        make_live(c, s, r);
        service_put(c, s);
        return;
    }
    const uint64_t waited = s->next_rollout_id;
    s->next_rollout_id = r->id;
    service_put(c, s);
    if (waited != 0) {
        refuse(c, waited, by);
    }
    rollout_abort(c, s->live_rollout_id, ROLLOUT_WHY_SUPERSEDED, r->created_by, by);
}

void service_rollout_ended(struct core *c, const Pb__RolloutRecord *r)
{
    Pb__ServiceRecord *s = service_row(c, r->service_id);
    Pb__RolloutRecord *next;
    uint64_t was_look_ms;

    if (s->next_rollout_id == r->id) {
        s->next_rollout_id = 0;
        service_put(c, s);
        return;
    }
    if (s->live_rollout_id != r->id) {
        return;
    }
    s->live_rollout_id = 0;
    if (s->next_rollout_id != 0) {
        next = rollout_row(c, s->next_rollout_id);
        was_look_ms = next->next_look_ms;
        s->next_rollout_id = 0;
        make_live(c, s, next);
        rollout_put(c, next, was_look_ms);
    }
    service_put(c, s);
}

/* The newest last; the oldest go, when there are too many. */
void service_set_stable(struct core *c, const Pb__RolloutRecord *r, uint32_t keep)
{
    Pb__ServiceRecord *s = service_row(c, r->service_id);
    uint64_t *ids = arena_array(c->arena, s->n_snapshot_ids + 1, sizeof(*ids));
    size_t n = 0;
    bool known = false;

    for (size_t i = 0; i < s->n_snapshot_ids; i++) {
        if (s->snapshot_ids[i] == r->snapshot_id) {
            known = true;
        } else {
            ids[n++] = s->snapshot_ids[i];
        }
    }
    ids[n++] = r->snapshot_id;
    if (!known) {
        snapshot_use(c, r->snapshot_id, 1);
    }
    while (n > MAX(keep, 1u)) {
        snapshot_use(c, ids[0], -1);
        memmove(ids, ids + 1, --n * sizeof(*ids));
    }
    s->snapshot_ids = ids;
    s->n_snapshot_ids = n;
    s->stable_snapshot_id = r->snapshot_id;
    s->stable_slot = r->slot;
    s->stable_since_ms = c->now_ms;
    service_put(c, s);
}
