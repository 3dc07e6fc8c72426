#include "common/base.h"

#include "tests/unit/rollout/stage.h"

#define START_MS 1000000u
#define LOST_MS  20000u

int stage_set_up(void **state)
{
    static Pb__DriverConfig process, haproxy;
    struct stage *s = calloc(1, sizeof(*s));

    arena_init(&s->arena, 0);
    s->now_ms = START_MS;
    s->start_ms = 300;
    s->action_ms = 3;
    s->sick_from = s->kill_after = UINT32_MAX;
    pb__rollout_spec__init(&s->spec);
    pb__rollout_target__init(&s->target);
    pb__service_record__init(&s->service);
    pb__snapshot_record__init(&s->fresh);
    pb__snapshot_record__init(&s->stable);
    pb__driver_config__init(&process);
    pb__driver_config__init(&haproxy);
    process.driver = (char *)"process";
    haproxy.driver = (char *)"haproxy";
    s->target.instance_driver = &process;
    s->target.router_driver = &haproxy;
    s->target.instances = 4;
    s->target.tick_ms = 1000;
    s->target.drain_ms = 2000;
    s->fresh.digest = pb_bytes_ref(str_from("new"));
    s->stable.digest = pb_bytes_ref(str_from("old"));
    s->fresh.instances = s->stable.instances = 4;
    s->service.target = (char *)"web";
    *state = s;
    return 0;
}

int stage_tear_down(void **state)
{
    struct stage *s = *state;

    for (size_t i = 0; i < s->action_count; i++) {
        free(s->actions[i]);
    }
    arena_release(&s->arena);
    free(s);
    return 0;
}

Pb__RolloutStepWish *stage_wish(struct stage *s)
{
    Pb__RolloutStepWish *w = arena_alloc(&s->arena, sizeof(*w));
    Pb__RolloutStepWish **all = arena_array(&s->arena, s->spec.n_steps + 1, sizeof(*all));

    pb__rollout_step_wish__init(w);
    if (s->spec.n_steps > 0) {
        memcpy(all, s->spec.steps, s->spec.n_steps * sizeof(*all));
    }
    all[s->spec.n_steps++] = w;
    s->spec.steps = all;
    return w;
}

void stage_strategy(struct stage *s, Pb__RolloutStrategy strategy)
{
    s->spec.strategy = strategy;
}

void stage_metric(struct stage *s, uint32_t tolerance_millis)
{
    Pb__RolloutMetric *m = arena_alloc(&s->arena, sizeof(*m));
    Pb__TargetMetric *t = arena_alloc(&s->arena, sizeof(*t));

    pb__rollout_metric__init(m);
    pb__target_metric__init(t);
    m->metric = t->name = (char *)"error_rate";
    m->tolerance_millis = tolerance_millis;
    m->critical = true;
    t->driver = s->target.router_driver;
    s->spec.analysis = arena_array(&s->arena, 1, sizeof(m));
    s->spec.analysis[s->spec.n_analysis++] = m;
    s->target.metrics = arena_array(&s->arena, 1, sizeof(t));
    s->target.metrics[s->target.n_metrics++] = t;
    s->counted_ms = s->now_ms;
}

/* The requests that came since the last time, as the weight was. */
static void count_requests(struct stage *s)
{
    const double requests = (double)s->rps * (double)(s->now_ms - s->counted_ms) / 1000;

    for (int slot = 0; slot < 2; slot++) {
        const double share = (slot == ROLLOUT_SLOT_B ? s->weight_b_bp : 10000 - s->weight_b_bp) /
                             10000.0;
        s->total[slot] += requests * share;
        s->bad[slot] += requests * share * s->bad_share[slot];
    }
    s->counted_ms = s->now_ms;
}

static void answer_sample(struct stage *s, struct buf *out)
{
    Pb__MetricAnswer answer = PB__METRIC_ANSWER__INIT;
    Pb__MetricSeries series[2], *list[2] = {&series[0], &series[1]};

    count_requests(s);
    for (int slot = 0; slot < 2; slot++) {
        pb__metric_series__init(&series[slot]);
        series[slot].slot = (Pb__RolloutSlot)slot;
        series[slot].instance = (char *)"all";
        series[slot].total = (double)(uint64_t)s->total[slot];
        series[slot].bad = (double)(uint64_t)s->bad[slot];
    }
    answer.series = list;
    answer.n_series = s->metrics_mute ? 0 : 2;
    answer.taken_ms = s->now_ms;
    PB_PACK(&answer, out);
}

static uint32_t places(const struct stage *s)
{
    return (uint32_t)MAX(s->target.n_places, 1u);
}

void stage_begin(struct stage *s, bool first)
{
    const char *why = NULL;
    Pb__RolloutRecord *r = arena_alloc(&s->arena, sizeof(*r));

    assert_int_equal(rollout_compile(&s->spec, &s->target, first, &s->arena, &s->plan, &why), 0);
    pb__rollout_record__init(r);
    r->id = 7;
    r->revision = 1;
    r->generation = 1;
    r->epoch = 1;
    r->state = ROLLOUT_QUEUED;
    r->slot = first ? ROLLOUT_SLOT_A : ROLLOUT_SLOT_B;
    r->next_look_ms = s->now_ms;
    r->next_action = 1;
    s->record = r;
    s->service.stable_slot = ROLLOUT_SLOT_A;
    if (!first) {
        s->service.stable_snapshot_id = 1;
        for (uint32_t i = 0; i < places(s); i++) {
            s->slots[ROLLOUT_SLOT_A].instances[i] = s->stable.instances;
        }
        snprintf(s->slots[ROLLOUT_SLOT_A].snapshot, 8, "old");
    }
    s->weight_b_bp = 0;
}

static uint32_t new_bp(const struct stage *s)
{
    return s->record->slot == ROLLOUT_SLOT_B ? s->weight_b_bp : 10000 - s->weight_b_bp;
}

static void view(struct stage *s, struct rollout_view *v)
{
    *v = (struct rollout_view){
        .record = s->record,
        .plan = s->plan,
        .service = &s->service,
        .snapshot = &s->fresh,
        .stable = s->service.stable_snapshot_id != 0 ? &s->stable : NULL,
        .actions = s->actions,
        .action_count = s->action_count,
        .metrics = s->metrics,
        .metric_count = s->metric_count,
        .project = "shop/web",
        .environment = "production",
    };
}

static void forget_action(struct stage *s, uint64_t seq)
{
    for (size_t i = 0; i < s->action_count; i++) {
        if (s->actions[i]->seq == seq) {
            free(s->actions[i]);
            s->actions[i] = s->actions[--s->action_count];
            return;
        }
    }
    fail_msg("an action is taken that there is not");
}

/* A block of its own: it lives until it is taken. */
static Pb__RolloutActionRecord *keep(const Pb__RolloutActionRecord *a)
{
    const size_t n = pb_block_size(&a->base);
    void *block = malloc(n);

    return (Pb__RolloutActionRecord *)pb_block_make(&a->base, block);
}

static void check_invariants(const struct stage *s, const Pb__RolloutStep *step)
{
    const Pb__RolloutRecord *was = s->record;
    const Pb__RolloutRecord *is = step->next;

    assert_true(was->state == is->state || rollout_may_move(was->state, is->state));
    assert_true(is->epoch >= was->epoch && is->epoch <= was->epoch + 1);
    if (is->weight_bp > was->weight_bp) { /* I4, I7 */
        assert_true((rollout_state_flags(is->state) & ROLLOUT_UP) != 0);
        assert_true(is->verdict_ms > (s->routerless ? was : is)->evidence_from_ms);
        assert_false(was->abort_wanted);
    }
    for (size_t i = 0; i < step->n_begin; i++) { /* I2, I5 */
        const Pb__RolloutActionRecord *a = step->begin[i];
        assert_int_equal(a->epoch, is->epoch);
        if (a->kind == ROLLOUT_ACTION_REMOVE) {
            const uint32_t bp = a->slot == is->slot ? is->observed_bp : 10000 - is->observed_bp;
            assert_int_equal(bp, 0);
            assert_true(is->zero_ms != 0 && s->now_ms >= is->zero_ms + s->target.drain_ms);
        }
    }
}

static void apply(struct stage *s, const Pb__RolloutStep *step)
{
    Pb__RolloutRecord *next;

    check_invariants(s, step);
    assert_int_equal(step->revision, s->record->revision);
    for (size_t i = 0; i < step->n_taken; i++) {
        forget_action(s, step->taken[i]);
    }
    for (size_t i = 0; i < step->n_begin; i++) {
        assert_true(s->action_count < STAGE_ACTIONS);
        s->actions[s->action_count++] = keep(step->begin[i]);
    }
    for (size_t i = 0; i < step->n_metrics; i++) {
        const Pb__RolloutMetricRecord *row = step->metrics[i];
        size_t k = 0;
        while (k < s->metric_count && s->metrics[k]->index != row->index) {
            k++;
        }
        assert_true(k < ARRAY_LEN(s->metrics));
        s->metric_count = MAX(s->metric_count, k + 1);
        s->metrics[k] = (Pb__RolloutMetricRecord *)pb_copy(&s->arena, &row->base);
    }
    next = (Pb__RolloutRecord *)pb_copy(&s->arena, &step->next->base);
    next->revision = s->record->revision + 1;
    if (s->record->state == ROLLOUT_BAKE && next->state == ROLLOUT_RETIRE) {
        s->service.stable_slot = next->slot;
    }
    s->record = next;
    s->steps_applied++;
}

/* As the turn does it. */
static void let_decide(struct stage *s)
{
    struct rollout_view v;
    struct arena a;

    arena_init(&a, 0);
    for (uint32_t i = 0; i < 50; i++) {
        view(s, &v);
        Pb__RolloutStep *step = rollout_decide(&v, s->now_ms, &a);
        if (step == NULL) {
            arena_release(&a);
            return;
        }
        apply(s, step);
        arena_clear(&a);
        if (s->record->next_look_ms > s->now_ms || s->steps_applied >= s->kill_after) {
            break;
        }
    }
    arena_release(&a);
    assert_true(s->steps_applied >= s->kill_after ||
                (rollout_state_flags(s->record->state) & ROLLOUT_ENDED) != 0 ||
                s->record->next_look_ms > s->now_ms);
}

static void answer_instances(struct stage *s, Pb__RolloutActionRecord *a, struct buf *out)
{
    struct stage_slot *slot = &s->slots[a->slot];
    Pb__InstanceAnswer answer = PB__INSTANCE_ANSWER__INIT;
    Pb__InstanceState states[128];
    Pb__InstanceState *list[128];
    char addresses[128][32];
    Pb__InstanceArgs *args;
    struct arena arena;

    arena_init(&arena, 0);
    assert_int_equal(PB_UNPACK(&arena, instance_args, a->args.data, a->args.len, 1u << 20, &args),
                     0);
    if (a->kind != ROLLOUT_ACTION_STATUS) {
        if (args->instances > slot->instances[a->place]) {
            slot->since_ms = s->now_ms;
        }
        if (args->instances == 0 && !s->routerless) { /* I2 at the target itself */
            assert_int_equal(a->slot == ROLLOUT_SLOT_B ? s->weight_b_bp : 10000 - s->weight_b_bp,
                             0);
        }
        slot->instances[a->place] = args->instances;
        snprintf(slot->snapshot, sizeof(slot->snapshot), "%.*s", (int)args->snapshot.len,
                 (const char *)args->snapshot.data);
    }
    const bool is_new = strcmp(slot->snapshot, "new") == 0;
    for (uint32_t i = 0; i < slot->instances[a->place]; i++) {
        pb__instance_state__init(&states[i]);
        list[i] = &states[i];
        snprintf(addresses[i], sizeof(addresses[i]), "h%u:%u", a->place,
                 9000 + 100 * (unsigned)a->slot + i);
        states[i].index = i;
        states[i].address = addresses[i];
        states[i].running = true;
        states[i].ready = s->now_ms >= slot->since_ms + s->start_ms &&
                          !(is_new && i >= s->sick_from);
        states[i].ready_for_ms = states[i].ready ? s->now_ms - slot->since_ms - s->start_ms : 0;
        states[i].snapshot = pb_bytes_ref(str_from(slot->snapshot));
    }
    answer.n_instances = slot->instances[a->place];
    answer.instances = list;
    PB_PACK(&answer, out);
    arena_release(&arena);
}

static void answer_route(struct stage *s, Pb__RolloutActionRecord *a, struct buf *out)
{
    Pb__RouterAnswer answer = PB__ROUTER_ANSWER__INIT;
    Pb__RouterArgs *args;
    struct arena arena;
    const uint32_t before = new_bp(s);

    arena_init(&arena, 0);
    assert_int_equal(PB_UNPACK(&arena, router_args, a->args.data, a->args.len, 1u << 20, &args), 0);
    count_requests(s);
    if (a->kind == ROLLOUT_ACTION_ROUTE && !s->router_deaf) {
        s->weight_b_bp = args->weight_b_bp;
    }
    if (new_bp(s) != before) {
        assert_true(s->weight_count < ARRAY_LEN(s->weights_seen));
        s->weights_seen[s->weight_count++] = new_bp(s);
        s->moved_ms = s->now_ms;
    }
    answer.weight_b_bp = s->weight_b_bp;
    PB_PACK(&answer, out);
    arena_release(&arena);
}

static bool is_lost(const struct stage *s, const Pb__RolloutActionRecord *a)
{
    return s->lost_every != 0 && a->seq % s->lost_every == 0;
}

static uint64_t ends_ms(const struct stage *s, const Pb__RolloutActionRecord *a)
{
    return a->begun_ms + (is_lost(s, a) ? LOST_MS : s->action_ms);
}

/* The action is done at the target, unless its fence is old. */
static void act(struct stage *s, size_t i)
{
    Pb__RolloutActionRecord a = *s->actions[i];
    const bool route = a.kind == ROLLOUT_ACTION_ROUTE || a.kind == ROLLOUT_ACTION_READ;
    struct buf out = BUF_INIT;

    a.state = ROLLOUT_ACTION_GOOD;
    a.ended_ms = s->now_ms;
    if (is_lost(s, &a)) {
        a.state = ROLLOUT_ACTION_BAD;
        a.error = (char *)"lost";
    } else if (a.epoch < s->fence) {
        a.state = ROLLOUT_ACTION_BAD;
        a.stale = true;
    } else if (route && s->router_dead) {
        a.state = ROLLOUT_ACTION_BAD;
        a.error = (char *)"no answer";
    } else {
        s->fence = a.epoch;
        if (a.kind == ROLLOUT_ACTION_SAMPLE && s->metrics_dead) {
            a.state = ROLLOUT_ACTION_BAD;
            a.error = (char *)"connection refused";
        } else if (a.kind == ROLLOUT_ACTION_SAMPLE) {
            answer_sample(s, &out);
        } else if (route) {
            answer_route(s, &a, &out);
        } else if (a.kind == ROLLOUT_ACTION_ENSURE || a.kind == ROLLOUT_ACTION_STATUS ||
                   a.kind == ROLLOUT_ACTION_REMOVE) {
            answer_instances(s, &a, &out);
        }
        a.answer = pb_bytes_ref(buf_str(&out));
    }
    Pb__RolloutActionRecord *done = keep(&a);
    free(s->actions[i]);
    s->actions[i] = done;
    buf_release(&out);
    s->record->next_look_ms = s->now_ms; /* as the core does */
}

static uint64_t next_ms(struct stage *s)
{
    uint64_t next = (rollout_state_flags(s->record->state) & ROLLOUT_ENDED) != 0
                        ? UINT64_MAX
                        : s->record->next_look_ms;

    for (size_t i = 0; i < s->action_count; i++) {
        const Pb__RolloutActionRecord *a = s->actions[i];
        if (a->state == ROLLOUT_ACTION_RUNNING) {
            next = MIN(next, ends_ms(s, a));
        }
    }
    return next;
}

static void end_due_actions(struct stage *s)
{
    for (size_t i = 0; i < s->action_count; i++) {
        const Pb__RolloutActionRecord *a = s->actions[i];
        if (a->state == ROLLOUT_ACTION_RUNNING && ends_ms(s, a) <= s->now_ms) {
            act(s, i);
        }
    }
}

static bool run(struct stage *s, Pb__RolloutState until, bool any, uint64_t for_ms)
{
    const uint64_t end_ms = s->now_ms + for_ms;

    for (;;) {
        end_due_actions(s);
        if ((rollout_state_flags(s->record->state) & ROLLOUT_ENDED) == 0 &&
            s->record->next_look_ms <= s->now_ms) {
            let_decide(s);
        }
        if (s->steps_applied >= s->kill_after) {
            return any;
        }
        if (!any && s->record->state == until) {
            return true;
        }
        const uint64_t next = next_ms(s);
        if (next > end_ms) {
            s->now_ms = end_ms;
            return any;
        }
        s->now_ms = MAX(next, s->now_ms);
    }
}

void stage_run(struct stage *s, uint64_t for_ms)
{
    run(s, ROLLOUT_DONE, true, for_ms);
}

bool stage_run_until(struct stage *s, Pb__RolloutState state, uint64_t for_ms)
{
    return run(s, state, false, for_ms);
}

/* Actions that run are lost with their answers: the core cancels those of older epochs. */
void stage_restart(struct stage *s)
{
    for (size_t i = s->action_count; i-- > 0;) {
        if (s->actions[i]->state == ROLLOUT_ACTION_RUNNING) {
            forget_action(s, s->actions[i]->seq);
        }
    }
    if ((rollout_state_flags(s->record->state) & ROLLOUT_ENDED) == 0) {
        s->record->epoch++;
        s->record->revision++;
        s->record->observed_ms = 0;
        s->record->evidence_from_ms = s->now_ms;
        if (s->record->deadline_ms != 0) {
            s->record->deadline_ms = MAX(s->record->deadline_ms, s->now_ms + 120000);
        }
        s->record->next_look_ms = s->now_ms;
    }
}

void stage_abort(struct stage *s)
{
    s->record->abort_wanted = true;
    s->record->revision++;
    s->record->next_look_ms = s->now_ms;
}
