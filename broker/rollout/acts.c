#include "common/base.h"

#include "broker/rollout/inside.h"

#include "proto/rollout.h"

/* What is begun. Of a kind, slot and place one action runs at a time in an epoch: two that are
 * under way could come in the wrong order, and their fence is the same. */

#define RETRY_MS 500u
#define DRAIN_MS 10000u

/* The newest of the kind, in this epoch, whatever became of it. */
static const Pb__RolloutActionRecord *newest(const struct decision *d, Pb__RolloutActionKind kind,
                                             Pb__RolloutSlot slot, uint32_t place, uint32_t metric)
{
    const Pb__RolloutActionRecord *found = NULL;

    for (size_t i = 0; i < d->v->action_count; i++) {
        const Pb__RolloutActionRecord *a = d->v->actions[i];
        if (a->kind == kind && a->slot == slot && a->place == place && a->metric == metric &&
            a->epoch == d->r->epoch && (found == NULL || a->seq > found->seq)) {
            found = a;
        }
    }
    return found;
}

static bool taken(const struct decision *d, uint64_t seq)
{
    for (size_t i = 0; i < d->step->n_taken; i++) {
        if (d->step->taken[i] == seq) {
            return true;
        }
    }
    return false;
}

static struct str packed(const struct decision *d, const ProtobufCMessage *args)
{
    struct buf b = BUF_INIT;

    pb_pack(args, &b);
    const struct str copy = arena_str(d->a, buf_str(&b));
    buf_release(&b);
    return copy;
}

static Pb__RolloutActionRecord *begin(struct decision *d, Pb__RolloutActionKind kind,
                                      const char *driver, struct str args)
{
    Pb__RolloutActionRecord *a = arena_alloc(d->a, sizeof(*a));

    pb__rollout_action_record__init(a);
    a->seq = d->r->next_action++;
    a->kind = kind;
    a->epoch = d->r->epoch;
    a->begun_ms = d->now_ms;
    a->driver = arena_strdup(d->a, str_from(driver));
    a->args = pb_bytes_ref(args);
    if (d->step->n_begin == d->begin_cap) {
        Pb__RolloutActionRecord **wider = arena_array(d->a, d->begin_cap = d->begin_cap * 2 + 8,
                                                      sizeof(*wider));
        if (d->step->n_begin > 0) {
            memcpy(wider, d->step->begin, d->step->n_begin * sizeof(*wider));
        }
        d->step->begin = wider;
    }
    d->step->begin[d->step->n_begin++] = a;
    d->changed = true;
    return a;
}

/* Whether one may begin now: none runs, and the last one did not fail a moment ago. */
static bool may_begin(struct decision *d, const Pb__RolloutActionRecord *last)
{
    if (last == NULL || last->state == ROLLOUT_ACTION_GOOD || taken(d, last->seq)) {
        return true;
    }
    if (last->state == ROLLOUT_ACTION_RUNNING) {
        return false;
    }
    if (last->ended_ms + RETRY_MS > d->now_ms) {
        rollout_look_at(d, last->ended_ms + RETRY_MS);
        return false;
    }
    return true;
}

static const char *service_text(const struct decision *d)
{
    return arena_printf(d->a, "%s/%s/%s", d->v->project, d->v->environment, d->v->service->target);
}

static const Pb__DriverConfig *instance_driver(const struct decision *d,
                                               const Pb__SnapshotRecord *snapshot)
{
    return snapshot != NULL && snapshot->instance_driver != NULL
               ? snapshot->instance_driver
               : d->v->plan->target->instance_driver;
}

static uint64_t drain_ms(const struct decision *d)
{
    return d->v->plan->target->drain_ms != 0 ? d->v->plan->target->drain_ms : DRAIN_MS;
}

static void begin_instances(struct decision *d, Pb__RolloutActionKind kind, Pb__RolloutSlot slot,
                            uint32_t place, uint32_t count, const Pb__SnapshotRecord *snapshot)
{
    Pb__InstanceArgs args = PB__INSTANCE_ARGS__INIT;
    Pb__RolloutActionRecord *a;

    args.service = (char *)service_text(d);
    args.slot = slot;
    args.instances = count;
    args.drain_ms = drain_ms(d);
    args.driver = (Pb__DriverConfig *)instance_driver(d, snapshot);
    if (snapshot != NULL) {
        args.snapshot = snapshot->digest;
        args.version = snapshot->version;
        args.image = snapshot->image;
        args.command = snapshot->command;
    }
    a = begin(d, kind, args.driver->driver, packed(d, &args.base));
    a->slot = slot;
    a->place = place;
}

/* What a place answered under this epoch is what it is to be. */
static bool place_is(const struct decision *d, Pb__RolloutSlot slot, uint32_t place, uint32_t count,
                     const Pb__SnapshotRecord *snapshot)
{
    static const Pb__RolloutActionKind kinds[] = {ROLLOUT_ACTION_ENSURE, ROLLOUT_ACTION_STATUS,
                                                  ROLLOUT_ACTION_REMOVE};
    const Pb__RolloutActionRecord *a = look_newest(d, kinds, ARRAY_LEN(kinds), slot, place,
                                                   d->r->epoch);
    Pb__InstanceAnswer *answer;

    if (a == NULL ||
        PB_UNPACK(d->a, instance_answer, a->answer.data, a->answer.len, a->answer.len, &answer) <
            0 ||
        answer->n_instances != count) {
        return false;
    }
    for (size_t i = 0; i < answer->n_instances; i++) {
        const Pb__InstanceState *s = answer->instances[i];
        if (!s->running ||
            (snapshot != NULL && !str_eq(pb_str(s->snapshot), pb_str(snapshot->digest)))) {
            return false;
        }
    }
    return true;
}

bool act_instances(struct decision *d, Pb__RolloutSlot slot, const uint32_t *wanted,
                   const Pb__SnapshotRecord *snapshot)
{
    bool all = true;

    for (uint32_t i = 0; i < rollout_places(d); i++) {
        if (place_is(d, slot, i, wanted[i], snapshot)) {
            continue;
        }
        all = false;
        if (may_begin(d, newest(d, ROLLOUT_ACTION_ENSURE, slot, i, 0))) {
            const Pb__RolloutActionRecord *last = newest(d, ROLLOUT_ACTION_ENSURE, slot, i, 0);
            /* one that was done and is not enough is done again, at the pace of looks */
            if (last == NULL || last->state != ROLLOUT_ACTION_GOOD ||
                last->ended_ms + RETRY_MS <= d->now_ms) {
                begin_instances(d, ROLLOUT_ACTION_ENSURE, slot, i, wanted[i], snapshot);
            } else {
                rollout_look_at(d, last->ended_ms + RETRY_MS);
            }
        }
    }
    return all;
}

bool act_remove(struct decision *d, Pb__RolloutSlot slot)
{
    bool all = true;

    for (uint32_t i = 0; i < rollout_places(d); i++) {
        const Pb__RolloutActionRecord *last = newest(d, ROLLOUT_ACTION_REMOVE, slot, i, 0);
        if (last != NULL && last->state == ROLLOUT_ACTION_GOOD && place_is(d, slot, i, 0, NULL)) {
            continue;
        }
        all = false;
        if (may_begin(d, last)) {
            begin_instances(d, ROLLOUT_ACTION_REMOVE, slot, i, 0,
                            slot == d->r->slot ? d->v->snapshot : d->v->stable);
        }
    }
    return all;
}

static bool router_is_none(const struct decision *d)
{
    const Pb__DriverConfig *driver = d->v->plan->target->router_driver;

    return driver == NULL || strcmp(driver->driver, "none") == 0;
}

static void begin_route(struct decision *d, Pb__RolloutActionKind kind, uint32_t b_bp)
{
    const Pb__DriverConfig *driver = d->v->plan->target->router_driver;
    Pb__RouterArgs args = PB__ROUTER_ARGS__INIT;

    args.service = (char *)service_text(d);
    args.driver = (Pb__DriverConfig *)driver;
    if (kind == ROLLOUT_ACTION_ROUTE) {
        args.weight_b_bp = b_bp;
        args.mirror_b_bp = d->r->slot == ROLLOUT_SLOT_B ? d->r->mirror_bp : 0;
        args.n_servers_a = look_addresses(d, ROLLOUT_SLOT_A, false, &args.servers_a);
        args.n_servers_b = look_addresses(d, ROLLOUT_SLOT_B, false, &args.servers_b);
    }
    begin(d, kind, driver->driver, packed(d, &args.base));
}

static bool has_server(const Pb__RouterAnswer *answer, Pb__RolloutSlot slot, const char *address)
{
    for (size_t i = 0; i < answer->n_servers; i++) {
        if (answer->servers[i]->slot == slot && strcmp(answer->servers[i]->address, address) == 0) {
            return true;
        }
    }
    return false;
}

/* The router knows the servers of the slot that run, and no others. One that does not tell of any
 * has its own. */
static bool servers_are(const struct decision *d, const Pb__RouterAnswer *answer,
                        Pb__RolloutSlot slot)
{
    char **addresses;
    const size_t count = look_addresses(d, slot, false, &addresses);
    size_t known = 0;

    if (answer->n_servers == 0 || count == 0) {
        return true;
    }
    for (size_t i = 0; i < answer->n_servers; i++) {
        known += answer->servers[i]->slot == slot ? 1 : 0;
    }
    for (size_t i = 0; i < count; i++) {
        if (!has_server(answer, slot, addresses[i])) {
            return false;
        }
    }
    return known == count;
}

/* Without a router the weight is what it is said to be. */
static void know_weight(struct decision *d, uint32_t new_bp, uint64_t from_ms)
{
    if (d->r->observed_bp == new_bp && d->r->observed_ms >= from_ms && d->r->zero_ms != 0) {
        return;
    }
    if (d->r->observed_bp != new_bp) {
        d->r->weight_changed_ms = d->now_ms;
        d->r->evidence_from_ms = MAX(d->r->evidence_from_ms, d->now_ms);
    }
    if (d->r->observed_bp != new_bp || d->r->observed_ms < from_ms || d->r->observed_ms == 0) {
        d->r->observed_bp = new_bp;
        d->r->observed_ms = d->now_ms;
        d->changed = true;
    }
    look_zero(d, d->r->observed_ms);
}

/* It was asked for the same a moment ago, and did not do it: not again at once. */
static bool was_just_asked(struct decision *d, const Pb__RolloutActionRecord *last, uint32_t b_bp,
                           uint64_t from_ms)
{
    Pb__RouterArgs *args;

    if (last == NULL || last->state != ROLLOUT_ACTION_GOOD || last->begun_ms < from_ms ||
        last->ended_ms + RETRY_MS <= d->now_ms ||
        PB_UNPACK(d->a, router_args, last->args.data, last->args.len, last->args.len, &args) < 0 ||
        args->weight_b_bp != b_bp) {
        return false;
    }
    rollout_look_at(d, last->ended_ms + RETRY_MS);
    return true;
}

/* `from_ms`: what was seen before does not count. */
bool act_route(struct decision *d, uint32_t new_bp, uint64_t from_ms)
{
    const uint32_t b_bp = d->r->slot == ROLLOUT_SLOT_B ? new_bp : ROLLOUT_FULL_BP - new_bp;
    struct route_seen seen;

    if (router_is_none(d)) {
        know_weight(d, new_bp, from_ms);
        return true;
    }
    look_route(d, &seen);
    if (seen.answer != NULL && seen.seen_ms >= from_ms && seen.answer->weight_b_bp == b_bp &&
        servers_are(d, seen.answer, ROLLOUT_SLOT_A) &&
        servers_are(d, seen.answer, ROLLOUT_SLOT_B)) {
        return true;
    }
    const Pb__RolloutActionRecord *last = newest(d, ROLLOUT_ACTION_ROUTE, ROLLOUT_SLOT_A, 0, 0);
    if (!was_just_asked(d, last, b_bp, from_ms) && may_begin(d, last)) {
        begin_route(d, ROLLOUT_ACTION_ROUTE, b_bp);
    }
    return false;
}

static bool is_due(struct decision *d, const Pb__RolloutActionRecord *last)
{
    if (last != NULL && last->begun_ms + rollout_tick_ms(d) > d->now_ms) {
        rollout_look_at(d, last->begun_ms + rollout_tick_ms(d));
        return false;
    }
    return may_begin(d, last);
}

void act_look(struct decision *d)
{
    const Pb__RolloutSlot slots[] = {d->r->slot, other_slot(d->r->slot)};

    for (size_t s = 0; s < ARRAY_LEN(slots); s++) {
        const Pb__SnapshotRecord *snapshot = s == 0 ? d->v->snapshot : d->v->stable;
        for (uint32_t i = 0; i < rollout_places(d) && snapshot != NULL; i++) {
            if (is_due(d, newest(d, ROLLOUT_ACTION_STATUS, slots[s], i, 0))) {
                begin_instances(d, ROLLOUT_ACTION_STATUS, slots[s], i, 0, snapshot);
            }
        }
    }
    if (!router_is_none(d) && is_due(d, newest(d, ROLLOUT_ACTION_READ, ROLLOUT_SLOT_A, 0, 0))) {
        begin_route(d, ROLLOUT_ACTION_READ, 0);
    }
}

static bool is_analysed(const struct decision *d, uint32_t metric)
{
    for (size_t i = 0; i < d->rule_count; i++) {
        if (d->rules[i].target != NULL && d->rules[i].target_index == metric) {
            return true;
        }
    }
    return false;
}

void act_sample(struct decision *d)
{
    const Pb__RolloutTarget *t = d->v->plan->target;

    for (uint32_t i = 0; i < t->n_metrics; i++) {
        const Pb__TargetMetric *m = t->metrics[i];
        if (!is_analysed(d, i) ||
            !is_due(d, newest(d, ROLLOUT_ACTION_SAMPLE, ROLLOUT_SLOT_A, 0, i))) {
            continue;
        }
        Pb__MetricArgs args = PB__METRIC_ARGS__INIT;
        args.service = (char *)service_text(d);
        args.metric = m->name;
        args.kind = m->kind;
        args.driver = m->driver;
        args.n_servers_a = look_addresses(d, ROLLOUT_SLOT_A, false, &args.servers_a);
        args.n_servers_b = look_addresses(d, ROLLOUT_SLOT_B, false, &args.servers_b);
        begin(d, ROLLOUT_ACTION_SAMPLE, m->driver->driver, packed(d, &args.base))->metric = i;
    }
}

void act_load(struct decision *d)
{
    const Pb__DriverConfig *driver = d->v->plan->target->synthetic;
    Pb__LoadArgs args = PB__LOAD_ARGS__INIT;

    if (driver == NULL || !is_due(d, newest(d, ROLLOUT_ACTION_SYNTHETIC, ROLLOUT_SLOT_A, 0, 0))) {
        return;
    }
    args.service = (char *)service_text(d);
    args.driver = (Pb__DriverConfig *)driver;
    args.for_ms = rollout_tick_ms(d);
    args.n_servers = look_addresses(d, d->r->slot, true, &args.servers);
    begin(d, ROLLOUT_ACTION_SYNTHETIC, driver->driver, packed(d, &args.base));
}

/* One run a step: its place is the step's number, so that it is known again. */
int act_script(struct decision *d, const Pb__RolloutStepRecord *s, const char **ret_why)
{
    const Pb__RolloutActionRecord *last = NULL;
    Pb__RolloutRun *run;

    for (size_t i = 0; i < d->v->action_count; i++) {
        const Pb__RolloutActionRecord *a = d->v->actions[i];
        if (a->kind == ROLLOUT_ACTION_RUN && a->place == d->r->step &&
            a->begun_ms >= d->r->phase_ms && (last == NULL || a->seq > last->seq)) {
            last = a; /* of any epoch: a script that has run is not run again */
        }
    }
    if (last != NULL) {
        *ret_why = last->error;
        return last->state == ROLLOUT_ACTION_RUNNING ? 0
               : last->state == ROLLOUT_ACTION_GOOD  ? 1
                                                     : -1;
    }
    begin(d, ROLLOUT_ACTION_RUN, "", STR_NULL)->place = d->r->step;
    run = arena_alloc(d->a, sizeof(*run));
    pb__rollout_run__init(run);
    run->begin = (uint32_t)d->step->n_begin - 1;
    run->script = s->script;
    run->n_script = s->n_script;
    d->step->scripts = arena_array(d->a, 1, sizeof(run));
    d->step->scripts[0] = run;
    d->step->n_scripts = 1;
    return 0;
}

void act_notify(struct decision *d, const char *what)
{
    const Pb__RolloutTarget *t = d->v->plan->target;

    for (uint32_t i = 0; i < t->n_notify; i++) {
        Pb__NotifyArgs args = PB__NOTIFY_ARGS__INIT;
        args.service = (char *)service_text(d);
        args.rollout_id = d->r->id;
        args.revision = d->r->revision + 1;
        args.version = d->r->version;
        args.state = (char *)rollout_state_text(d->r->state);
        args.text = (char *)what;
        args.time_ms = d->now_ms;
        args.driver = t->notify[i];
        begin(d, ROLLOUT_ACTION_NOTIFY, t->notify[i]->driver, packed(d, &args.base))->metric = i;
    }
}
