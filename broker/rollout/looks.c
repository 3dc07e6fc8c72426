#include "common/base.h"

#include "broker/rollout/inside.h"

#include "common/limits.h"
#include "proto/rollout.h"

/* What is seen: the newest answers of actions. */

static bool is_one_of(Pb__RolloutActionKind kind, const Pb__RolloutActionKind *kinds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (kinds[i] == kind) {
            return true;
        }
    }
    return false;
}

const Pb__RolloutActionRecord *look_newest(const struct decision *d,
                                           const Pb__RolloutActionKind *kinds, size_t kind_count,
                                           Pb__RolloutSlot slot, uint32_t place, uint64_t epoch)
{
    const Pb__RolloutActionRecord *found = NULL;

    for (size_t i = 0; i < d->v->action_count; i++) {
        const Pb__RolloutActionRecord *a = d->v->actions[i];
        if (a->state == ROLLOUT_ACTION_GOOD && a->slot == slot && a->place == place &&
            (epoch == 0 || a->epoch == epoch) && is_one_of(a->kind, kinds, kind_count) &&
            (found == NULL || a->begun_ms >= found->begun_ms)) {
            found = a;
        }
    }
    return found;
}

static const Pb__RolloutActionRecord *
newest_instances(const struct decision *d, Pb__RolloutSlot slot, uint32_t place, uint64_t epoch)
{
    static const Pb__RolloutActionKind kinds[] = {ROLLOUT_ACTION_ENSURE, ROLLOUT_ACTION_STATUS,
                                                  ROLLOUT_ACTION_REMOVE};

    return look_newest(d, kinds, ARRAY_LEN(kinds), slot, place, epoch);
}

/* What a driver answers is checked by nobody before: an answer that is none says nothing. */
static const Pb__InstanceAnswer *instances_of(const struct decision *d,
                                              const Pb__RolloutActionRecord *a)
{
    Pb__InstanceAnswer *answer;

    if (a == NULL || PB_UNPACK(d->a, instance_answer, a->answer.data, a->answer.len, a->answer.len,
                               &answer) < 0) {
        return NULL;
    }
    return answer;
}

static void look_place(const Pb__InstanceAnswer *answer, uint32_t wanted, struct str snapshot,
                       struct slot_seen *ret)
{
    uint32_t fit = 0;

    for (size_t i = 0; i < answer->n_instances; i++) {
        const Pb__InstanceState *s = answer->instances[i];
        const bool same = str_eq(pb_str(s->snapshot), snapshot);
        fit += s->running && same ? 1 : 0;
        ret->restarts = MAX(ret->restarts, s->restarts);
        if (s->running && same && s->ready) {
            ret->ready++;
            ret->ready_for_ms = MIN(ret->ready_for_ms, s->ready_for_ms);
        } else if (ret->detail[0] == '\0') {
            ret->detail = s->detail[0] != '\0' ? s->detail : "an instance is not ready";
        }
    }
    ret->as_wanted = ret->as_wanted && fit == wanted && answer->n_instances == wanted;
}

void look_slot(const struct decision *d, Pb__RolloutSlot slot, const uint32_t *wanted,
               struct str snapshot, struct slot_seen *ret)
{
    *ret = (struct slot_seen){
        .seen_ms = UINT64_MAX, .as_wanted = true, .ready_for_ms = UINT64_MAX, .detail = ""};
    for (uint32_t i = 0; i < rollout_places(d); i++) {
        const uint32_t n = wanted != NULL ? wanted[i] : 0;
        const Pb__RolloutActionRecord *a = newest_instances(d, slot, i, d->r->epoch);
        const Pb__InstanceAnswer *answer = instances_of(d, a);
        ret->wanted += n;
        if (answer == NULL) {
            ret->seen_ms = 0;
            ret->as_wanted = false;
            continue;
        }
        ret->seen_ms = MIN(ret->seen_ms, a->begun_ms);
        look_place(answer, n, snapshot, ret);
    }
    ret->ready_for_ms = ret->ready > 0 ? ret->ready_for_ms : 0;
}

size_t look_addresses(const struct decision *d, Pb__RolloutSlot slot, bool ready, char ***ret)
{
    size_t count = 0, cap = 0;

    *ret = NULL;
    for (uint32_t i = 0; i < rollout_places(d); i++) {
        const Pb__InstanceAnswer *answer = instances_of(d, newest_instances(d, slot, i, 0));
        const size_t more = answer != NULL ? answer->n_instances : 0;
        if (more == 0) {
            continue;
        }
        if (count + more > cap) {
            char **wider = arena_array(d->a, cap = (count + more) * 2, sizeof(*wider));
            if (count > 0) {
                memcpy(wider, *ret, count * sizeof(*wider));
            }
            *ret = wider;
        }
        for (size_t k = 0; k < more; k++) {
            const Pb__InstanceState *s = answer->instances[k];
            if (s->running && s->address[0] != '\0' && (s->ready || !ready)) {
                (*ret)[count++] = s->address;
            }
        }
    }
    return count;
}

void look_route(const struct decision *d, struct route_seen *ret)
{
    static const Pb__RolloutActionKind kinds[] = {ROLLOUT_ACTION_ROUTE, ROLLOUT_ACTION_READ};
    const Pb__RolloutActionRecord *a = look_newest(d, kinds, ARRAY_LEN(kinds), ROLLOUT_SLOT_A, 0,
                                                   d->r->epoch);
    Pb__RouterAnswer *answer;

    *ret = (struct route_seen){0};
    if (a != NULL && PB_UNPACK(d->a, router_answer, a->answer.data, a->answer.len, a->answer.len,
                               &answer) == 0) {
        ret->answer = answer->unknown ? NULL : answer;
        ret->seen_ms = a->begun_ms;
        ret->ended_ms = a->ended_ms;
    }
}

static uint32_t new_bp(const struct decision *d, const Pb__RouterAnswer *answer)
{
    const uint32_t b = MIN(answer->weight_b_bp, ROLLOUT_FULL_BP);

    return d->r->slot == ROLLOUT_SLOT_B ? b : ROLLOUT_FULL_BP - b;
}

/* Since when the slot that is to go has no traffic. */
void look_zero(struct decision *d, uint64_t at_ms)
{
    const bool back = (rollout_state_flags(d->r->state) & ROLLOUT_BACK) != 0;
    const bool zero = d->r->observed_bp == (back ? 0 : ROLLOUT_FULL_BP);
    const bool leaves = back || d->r->state == ROLLOUT_BAKE || d->r->state == ROLLOUT_RETIRE ||
                        d->r->state == ROLLOUT_PROMOTE;
    const uint64_t since_ms = !zero || !leaves ? 0 : d->r->zero_ms != 0 ? d->r->zero_ms : at_ms;

    d->changed = d->changed || d->r->zero_ms != since_ms;
    d->r->zero_ms = since_ms;
}

static void observe_route(struct decision *d)
{
    struct route_seen seen;

    look_route(d, &seen);
    if (seen.answer == NULL || seen.ended_ms < d->r->observed_ms) {
        return;
    }
    const uint32_t bp = new_bp(d, seen.answer);
    if (seen.ended_ms == d->r->observed_ms && bp == d->r->observed_bp) {
        return; /* another one of the same millisecond is news */
    }
    if (bp != d->r->observed_bp) {
        rollout_note(d, "weight", "%u.%02u %% of the traffic (was %u.%02u %%)", bp / 100, bp % 100,
                     d->r->observed_bp / 100, d->r->observed_bp % 100);
        d->r->weight_changed_ms = seen.ended_ms;
        d->r->evidence_from_ms = MAX(d->r->evidence_from_ms, seen.ended_ms);
    }
    d->r->observed_bp = bp;
    d->r->observed_ms = seen.ended_ms;
    d->changed = true;
    look_zero(d, seen.ended_ms);
}

static void observe_ready(struct decision *d, Pb__RolloutSlot slot, const uint32_t *wanted,
                          const Pb__SnapshotRecord *snapshot, uint32_t *ret)
{
    struct slot_seen seen;

    if (snapshot == NULL) {
        return;
    }
    look_slot(d, slot, wanted, pb_str(snapshot->digest), &seen);
    if (seen.seen_ms != 0 && seen.ready != *ret) {
        *ret = seen.ready;
        d->changed = true;
    }
    if (slot == d->r->slot && d->r->ready_ms == 0 && seen.as_wanted && seen.wanted > 0 &&
        seen.ready == seen.wanted) {
        d->r->ready_ms = d->now_ms;
        d->changed = true;
    }
}

void look_observe(struct decision *d)
{
    observe_route(d);
    observe_ready(d, d->r->slot, d->r->n_wanted > 0 ? d->r->wanted : NULL, d->v->snapshot,
                  &d->r->ready);
    observe_ready(d, other_slot(d->r->slot), d->r->n_wanted_old > 0 ? d->r->wanted_old : NULL,
                  d->v->stable, &d->r->ready_old);
}

size_t look_instances(const struct decision *d, Pb__RolloutSlot slot, Pb__InstanceState ***ret)
{
    Pb__InstanceState **all = arena_array(
        d->a, (size_t)rollout_places(d) * LIMIT_ROLLOUT_INSTANCES * 2, sizeof(*all));
    size_t count = 0;

    for (uint32_t i = 0; i < rollout_places(d); i++) {
        const Pb__InstanceAnswer *answer = instances_of(d,
                                                        newest_instances(d, slot, i, d->r->epoch));
        for (size_t k = 0;
             answer != NULL && k < MIN(answer->n_instances, LIMIT_ROLLOUT_INSTANCES * 2); k++) {
            all[count++] = answer->instances[k];
        }
    }
    *ret = all;
    return count;
}

const char *look_hard(struct decision *d)
{
    struct hard_look look = {
        .target = d->v->plan->target,
        .ready_expected = d->r->ready_ms != 0,
        .unready_looks = d->r->unready_looks,
        .slot = d->r->slot,
        .rows = d->rows,
        .row_count = d->rule_count,
    };
    struct route_seen route;
    struct slot_seen seen;
    Pb__InstanceState **instances;
    uint32_t looks = 0;
    const char *why;

    look_slot(d, d->r->slot, d->r->wanted, pb_str(d->v->snapshot->digest), &seen);
    if (seen.seen_ms == 0 || seen.seen_ms <= d->r->counted_ms) {
        return NULL;
    }
    look_route(d, &route);
    look.router = route.answer;
    look.instance_count = look_instances(d, d->r->slot, &instances);
    look.instances = instances;
    why = hard_check(&look, d->a, &looks);
    if (why == NULL && looks == 0 && look.ready_expected && seen.ready < seen.wanted) {
        looks = d->r->unready_looks + 1; /* one is not there at all */
        if (looks >= MAX(look.target->unready_failures, VERDICT_UNREADY_LOOKS)) {
            why = arena_printf(d->a, "%u of %u instances are there", seen.ready, seen.wanted);
        }
    }
    d->r->counted_ms = seen.seen_ms;
    d->r->unready_looks = looks;
    d->changed = true;
    return why;
}
