#include "common/base.h"

#include "tests/kit/rig.h"

#include "broker/rollout/decide.h"
#include "broker/rollout/steps.h"
#include "common/limits.h"

#include <stdio.h>

#define REQUESTS_A_SECOND 200u
#define ACTIONS_AT_ONCE   256u

static Pb__DriverConfig *driver(struct arena *a)
{
    Pb__DriverConfig *d = arena_alloc(a, sizeof(*d));

    pb__driver_config__init(d);
    d->driver = (char *)"rig";
    return d;
}

Pb__RolloutTarget *rig_target(struct arena *a)
{
    Pb__RolloutTarget *t = arena_alloc(a, sizeof(*t));
    Pb__TargetMetric *m = arena_alloc(a, sizeof(*m));

    pb__rollout_target__init(t);
    pb__target_metric__init(m);
    m->name = (char *)"errors";
    m->kind = TARGET_METRIC_RATIO;
    m->driver = driver(a);
    t->environment = (char *)"*";
    t->name = (char *)"web";
    t->instances = 2;
    t->instance_driver = driver(a);
    t->router_driver = driver(a);
    t->metrics = arena_array(a, 1, sizeof(Pb__TargetMetric *));
    t->metrics[0] = m;
    t->n_metrics = 1;
    t->drain_ms = 5000;
    return t;
}

int rig_declare(struct world *w, Pb__RolloutTarget *t)
{
    Pb__Configure body = PB__CONFIGURE__INIT;

    body.targets = &t;
    body.n_targets = 1;
    return WORLD_APPLY(w, "config", CONFIGURE, &body);
}

void rig_init(struct rig *r, struct world *w)
{
    Pb__WorkerHello hello = PB__WORKER_HELLO__INIT;
    char *executors[] = {(char *)"action/rig", (char *)"shell"};

    *r = (struct rig){.w = w, .counted_ms = w->now_ms};
    check(rig_declare(w, rig_target(tx_arena(w->tx))) == 0);
    hello.name = (char *)"rig";
    hello.executors = executors;
    hello.n_executors = ARRAY_LEN(executors);
    hello.slots = LIMIT_WORKER_SLOTS;
    hello.actions = LIMIT_WORKER_SLOTS;
    hello.run_untagged = true;
    check(world_hello(w, &hello) == 0);
    r->worker_id = w->reply.worker_id;
}

static Pb__RolloutStepWish *wish(struct arena *a, uint32_t weight_bp, uint64_t analyze_ms)
{
    Pb__RolloutStepWish *s = arena_alloc(a, sizeof(*s));

    pb__rollout_step_wish__init(s);
    s->has_weight = true;
    s->weight_bp = weight_bp;
    s->analyze_ms = analyze_ms;
    return s;
}

Pb__Plan *rig_plan(struct arena *a, const char *version)
{
    Pb__Plan *plan = plan_from_text(a, "deploy: env=production\n");
    Pb__RolloutSpec *spec = arena_alloc(a, sizeof(*spec));
    Pb__RolloutMetric *m = arena_alloc(a, sizeof(*m));

    pb__rollout_spec__init(spec);
    pb__rollout_metric__init(m);
    m->metric = (char *)"errors";
    m->rule = ROLLOUT_RULE_COMPARE;
    m->tolerance_millis = 1200;
    m->critical = true;
    spec->target = (char *)"web";
    spec->version = (char *)version;
    spec->steps = arena_array(a, 2, sizeof(Pb__RolloutStepWish *));
    spec->steps[spec->n_steps++] = wish(a, 500, 60000);
    spec->steps[spec->n_steps++] = wish(a, 2500, 60000);
    spec->analysis = arena_array(a, 1, sizeof(Pb__RolloutMetric *));
    spec->analysis[spec->n_analysis++] = m;
    spec->bake_ms = 30000;
    spec->on_thin = spec->on_no_data = ROLLOUT_POLICY_PASS; /* it serves no errors at all */
    plan->jobs[0]->rollout = spec;
    plan->jobs[0]->n_script = 0;
    return plan;
}

uint64_t rig_submit(struct rig *r, const char *version)
{
    check(world_submit(r->w, rig_plan(tx_arena(r->w->tx), version), "main", version) == 0);
    return world_job_id(r->w, r->w->reply.pipeline_id, "deploy");
}

static void begin(struct rig *r, uint64_t job_id)
{
    struct tx *tx = r->w->tx;
    const Pb__JobRecord *job = job_get(tx, job_id);
    const Pb__RolloutSpec *spec = plan_job_get(tx, job->pipeline_id, job->index)->rollout;
    const Pb__ServiceRecord *s = service_by_name(tx, job->environment_id, spec->target);
    Pb__RolloutBegin body = PB__ROLLOUT_BEGIN__INIT;
    bool others;
    const Pb__RolloutTarget *t = target_find(tx, environment_get(tx, job->environment_id)->name,
                                             spec->target, "demo", &others);
    const char *why = "there is no such target";

    body.job_id = job_id;
    body.epoch = job->epoch;
    if (t == NULL || rollout_compile(spec, t, s == NULL || s->stable_snapshot_id == 0, tx_arena(tx),
                                     &body.plan, &why) < 0) {
        body.refused = (char *)why;
    }
    check(WORLD_APPLY(r->w, "rollout", ROLLOUT_BEGIN, &body) == 0);
}

static void decide(struct rig *r, uint64_t id)
{
    for (unsigned n = 0; n < LIMIT_ROLLOUT_STEPS; n++) {
        struct rollout_view v;
        Pb__RolloutStep *step;
        if (!rollout_view_load(r->w->tx, id, &v) || v.record->next_look_ms == 0 ||
            v.record->next_look_ms > r->w->now_ms) {
            return;
        }
        step = rollout_decide(&v, r->w->now_ms, tx_arena(r->w->tx));
        check(step != NULL);
        if (WORLD_APPLY(r->w, "rollout", ROLLOUT_STEP, step) < 0) {
            fprintf(stderr, "refused: %s (%s)\n", r->w->reply.text,
                    rollout_state_text(v.record->state));
            check_failed("a proposal that the core takes", __FILE__, __LINE__);
        }
    }
}

void rig_decide(struct rig *r)
{
    uint64_t due[LIMIT_ROLLOUT_ROUND];
    uint64_t job_id;
    size_t n;

    while ((job_id = core_open_rollout(r->w->tx)) != 0) {
        begin(r, job_id);
    }
    n = core_due_rollouts(r->w->tx, r->w->now_ms, ARRAY_LEN(due), due);
    for (size_t i = 0; i < n; i++) {
        decide(r, due[i]);
    }
}

/* Requests are served as the weight says, since it was counted last. */
static void serve(struct rig *r)
{
    const uint64_t ms = r->w->now_ms - r->counted_ms;
    const uint64_t all = ms * REQUESTS_A_SECOND / 1000;
    const uint64_t of[2] = {all * (ROLLOUT_FULL_BP - r->weight_b_bp) / ROLLOUT_FULL_BP,
                            all * r->weight_b_bp / ROLLOUT_FULL_BP};

    for (size_t i = 0; i < 2; i++) {
        r->total[i] += of[i];
        r->bad[i] += of[i] * r->bad_percent[i] / 100;
    }
    r->counted_ms = r->w->now_ms;
}

static uint32_t slot_count(const struct rig *r, size_t slot)
{
    uint32_t n = 0;

    for (size_t i = 0; i < RIG_PLACES; i++) {
        n += r->slots[slot].instances[i];
    }
    return n;
}

static void set_instances(struct rig *r, const Pb__InstanceArgs *args, uint32_t place, uint32_t n)
{
    struct rig_slot *slot = &r->slots[args->slot];
    const uint32_t bp = args->slot == ROLLOUT_SLOT_B ? r->weight_b_bp
                                                     : ROLLOUT_FULL_BP - r->weight_b_bp;
    const bool had = slot_count(r, args->slot) > 0;

    slot->instances[place] = n;
    if (args->snapshot.len == RIG_DIGEST) {
        memcpy(slot->snapshot, args->snapshot.data, RIG_DIGEST);
    }
    r->broken = r->broken || (had && bp > 0 && slot_count(r, args->slot) == 0);
}

static void answer_instances(struct rig *r, const struct tx *tx, const Pb__InstanceArgs *args,
                             uint32_t place, struct buf *out)
{
    struct arena *a = tx_arena((struct tx *)tx);
    Pb__InstanceAnswer answer = PB__INSTANCE_ANSWER__INIT;
    const struct rig_slot *slot = &r->slots[args->slot];

    answer.instances = arena_array(a, slot->instances[place] + 1, sizeof(Pb__InstanceState *));
    for (uint32_t i = 0; i < slot->instances[place]; i++) {
        Pb__InstanceState *s = arena_alloc(a, sizeof(*s));
        pb__instance_state__init(s);
        s->index = i;
        s->address = arena_printf(a, "10.%u.%u.%u:80", args->slot, place, i);
        s->running = true;
        s->ready = !(r->never_ready && args->slot == ROLLOUT_SLOT_B);
        s->detail = (char *)(s->ready ? "" : "not ready");
        s->snapshot = pb_bytes(a, str_of(slot->snapshot, RIG_DIGEST));
        answer.instances[answer.n_instances++] = s;
    }
    PB_PACK(&answer, out);
}

static void answer_route(struct rig *r, struct buf *out)
{
    Pb__RouterAnswer answer = PB__ROUTER_ANSWER__INIT;

    answer.weight_b_bp = r->weight_b_bp;
    PB_PACK(&answer, out);
}

static void answer_sample(struct rig *r, struct buf *out)
{
    Pb__MetricAnswer answer = PB__METRIC_ANSWER__INIT;
    Pb__MetricSeries series[2], *list[2] = {&series[0], &series[1]};

    for (size_t i = 0; i < 2; i++) {
        pb__metric_series__init(&series[i]);
        series[i].slot = (Pb__RolloutSlot)i;
        series[i].instance = (char *)"all";
        series[i].total = (double)r->total[i];
        series[i].bad = (double)r->bad[i];
    }
    answer.series = list;
    answer.n_series = 2;
    answer.taken_ms = r->w->now_ms;
    PB_PACK(&answer, out);
}

/* Does it; the packed answer in `out`. */
static void perform(struct rig *r, const Pb__DriverAction *d, uint32_t place, struct buf *out)
{
    struct arena *a = tx_arena(r->w->tx);
    Pb__InstanceArgs *instances;
    Pb__RouterArgs *route;

    if (strcmp(d->verb, "sample") == 0) {
        answer_sample(r, out);
    } else if (strcmp(d->verb, "set") == 0 || strcmp(d->verb, "read") == 0) {
        check(PB_UNPACK(a, router_args, d->args.data, d->args.len, d->args.len, &route) == 0);
        if (strcmp(d->verb, "set") == 0 && !r->deaf) {
            r->weight_b_bp = route->weight_b_bp;
        }
        answer_route(r, out);
    } else if (strcmp(d->verb, "notify") != 0) {
        check(PB_UNPACK(a, instance_args, d->args.data, d->args.len, d->args.len, &instances) == 0);
        if (strcmp(d->verb, "status") != 0) {
            set_instances(r, instances, place,
                          strcmp(d->verb, "remove") == 0 ? 0 : instances->instances);
        }
        answer_instances(r, r->w->tx, instances, place, out);
    }
}

static bool is_stale(struct rig *r, const Pb__ActionFence *f)
{
    if (f->generation < r->generation || (f->generation == r->generation && f->epoch < r->epoch)) {
        r->stale++;
        return true;
    }
    r->generation = f->generation;
    r->epoch = f->epoch;
    return false;
}

static void finish(struct rig *r, const Pb__JobRecord *job)
{
    const Pb__PlanJob *plan = lone_plan_get(r->w->tx, job->id);
    const Pb__RolloutActionRecord *row = rollout_action_get(r->w->tx, job->rollout_id,
                                                            job->rollout_action);
    Pb__Outcome o = PB__OUTCOME__INIT;
    Pb__ActionResult result = PB__ACTION_RESULT__INIT;
    struct buf out = BUF_INIT;
    const bool fails = r->fail_every != 0 && r->actions % r->fail_every == 0;

    if (plan->action != NULL) {
        result.ok = !fails;
        result.text = (char *)(fails ? "the rig fails" : "");
        if (is_stale(r, plan->action->driver->fence)) {
            result.ok = false;
            result.code = (char *)"stale";
        } else if (!fails) {
            perform(r, plan->action->driver, row != NULL ? row->place : 0, &out);
        }
        result.data = pb_bytes_ref(buf_str(&out));
        o.action = &result;
    }
    o.result = plan->action != NULL && !result.ok ? JOB_FAILED : JOB_SUCCESS;
    o.reason = o.result == JOB_FAILED ? REASON_SCRIPT_FAILURE : REASON_NONE;
    r->failed += o.result == JOB_FAILED;
    check(world_finished(r->w, job->id, &o) == 0);
    buf_release(&out);
}

static void act(struct rig *r, uint64_t job_id)
{
    const Pb__JobRecord *job = job_get(r->w->tx, job_id);

    if (job == NULL || job->state != JOB_PENDING) {
        return; /* canceled by what came before it */
    }
    r->actions++;
    check(world_assign(r->w, job_id, r->worker_id) == 0);
    if (r->lose_every != 0 && r->actions % r->lose_every == 0) {
        r->lost++;
        check(world_lost(r->w, job_id) == 0);
        return;
    }
    finish(r, job_get(r->w->tx, job_id));
}

size_t rig_act(struct rig *r)
{
    uint64_t ids[ACTIONS_AT_ONCE];
    struct cursor cur;
    size_t n = 0;

    serve(r);
    if (r->silent) {
        return 0;
    }
    for (tx_seek(&cur, r->w->tx, T_READY, STR_NULL, NULL); cur.valid && n < ARRAY_LEN(ids);
         tx_next(&cur)) {
        ids[n++] = key_read_u64(cur.key, cur.key.n - sizeof(uint64_t));
    }
    cursor_end(&cur);
    for (size_t i = 0; i < n; i++) {
        act(r, ids[i]);
    }
    return n;
}

void rig_settle(struct rig *r)
{
    do {
        rig_decide(r);
    } while (rig_act(r) > 0 || core_next_rollout_ms(r->w->tx) <= r->w->now_ms);
}

static void next_moment(struct rig *r, uint64_t until_ms)
{
    const uint64_t due_ms = MIN(core_next_rollout_ms(r->w->tx), until_ms);

    serve(r);
    world_commit(r->w); /* what was read is let go */
    world_elapse(r->w, due_ms > r->w->now_ms ? due_ms - r->w->now_ms : 1);
}

void rig_run(struct rig *r, uint64_t ms)
{
    const uint64_t until_ms = r->w->now_ms + ms;

    rig_settle(r);
    while (r->w->now_ms < until_ms) {
        next_moment(r, until_ms);
        rig_settle(r);
    }
}

static bool is_there(struct rig *r, uint64_t rollout_id, Pb__RolloutState state)
{
    const Pb__RolloutRecord *record = rollout_get(r->w->tx, rollout_id);

    check(record != NULL);
    r->highest_bp = MAX(r->highest_bp, record->observed_bp);
    return record->state == state || (rollout_state_flags(record->state) & ROLLOUT_ENDED) != 0;
}

/* What it saw and did, for whoever reads a failed test. */
static void tell(struct rig *r, uint64_t rollout_id)
{
    const Pb__RolloutNoteRecord *notes[30];
    const size_t n = rollout_notes_before(r->w->tx, rollout_id, 0, ARRAY_LEN(notes), notes);

    for (size_t i = n; i-- > 0;) {
        fprintf(stderr, "[%" PRIu64 "] %s: %s\n", notes[i]->time_ms, notes[i]->kind,
                notes[i]->text);
    }
}

bool rig_until(struct rig *r, uint64_t rollout_id, Pb__RolloutState state, uint64_t ms)
{
    const uint64_t until_ms = r->w->now_ms + ms;

    rig_decide(r);
    while (!is_there(r, rollout_id, state)) {
        if (rig_act(r) == 0 && core_next_rollout_ms(r->w->tx) > r->w->now_ms) {
            if (r->w->now_ms >= until_ms) {
                tell(r, rollout_id);
                return false;
            }
            next_moment(r, until_ms);
        }
        rig_decide(r);
    }
    return rollout_get(r->w->tx, rollout_id)->state == state;
}

void rig_restart(struct rig *r)
{
    Pb__RolloutsResume body = PB__ROLLOUTS_RESUME__INIT;

    world_reopen(r->w);
    check(WORLD_APPLY(r->w, "start", ROLLOUTS_RESUME, &body) == 0);
}

int rig_act_on(struct rig *r, uint64_t rollout_id, Pb__RolloutVerb verb, const char *role)
{
    Pb__RolloutAct body = PB__ROLLOUT_ACT__INIT;

    body.rollout_id = rollout_id;
    body.verb = verb;
    body.role = (char *)role;
    body.reason = (char *)"test";
    return WORLD_APPLY(r->w, "ann", ROLLOUT_ACT, &body);
}

uint64_t rig_rollout_of(struct rig *r, uint64_t job_id)
{
    const Pb__JobRecord *job;

    rig_decide(r);
    job = job_get(r->w->tx, job_id);
    return job != NULL ? job->rollout_id : 0;
}

const char *rig_state(struct rig *r, uint64_t rollout_id)
{
    const Pb__RolloutRecord *record = rollout_get(r->w->tx, rollout_id);

    return record != NULL ? rollout_state_text(record->state) : "none";
}
