#include "common/base.h"

#include "broker/rollout/inside.h"

#include "common/limits.h"
#include "proto/rollout.h"

/* The one machine that walks the list of steps. Each state is a function that makes sure of what
 * has to be so, and goes on when it is. */

#define PROGRESS_MS (10u * 60 * 1000)
#define BACK_MS     30000u /* a way back that takes longer needs a person */
#define TICK_MS     2000u
#define GATE        UINT32_MAX /* the step of approvals that the gate asks for */

uint32_t rollout_places(const struct decision *d)
{
    return (uint32_t)MAX(d->v->plan->target->n_places, 1u);
}

uint32_t rollout_each(const struct decision *d)
{
    const Pb__RolloutPlanRecord *p = d->v->plan;

    return MAX(p->spec->instances != 0 ? p->spec->instances : p->target->instances, 1u);
}

uint64_t rollout_tick_ms(const struct decision *d)
{
    const Pb__RolloutPlanRecord *p = d->v->plan;
    const uint64_t ms = p->spec->tick_ms != 0 ? p->spec->tick_ms : p->target->tick_ms;

    return ms != 0 ? ms : TICK_MS;
}

void rollout_look_at(struct decision *d, uint64_t at_ms)
{
    d->look_ms = MIN(d->look_ms, at_ms);
}

void rollout_note(struct decision *d, const char *kind, const char *fmt, ...)
{
    Pb__RolloutNoteRecord *n = arena_alloc(d->a, sizeof(*n));
    Pb__RolloutNoteRecord **notes = arena_array(d->a, d->step->n_notes + 1, sizeof(*notes));
    struct buf b = BUF_INIT;
    va_list ap;

    va_start(ap, fmt);
    buf_vaddf(&b, fmt, ap);
    va_end(ap);
    pb__rollout_note_record__init(n);
    n->time_ms = d->now_ms;
    n->kind = arena_strdup(d->a, str_from(kind));
    n->text = arena_strdup(d->a, buf_str(&b));
    buf_release(&b);
    if (d->step->n_notes > 0) {
        memcpy(notes, d->step->notes, d->step->n_notes * sizeof(*notes));
    }
    notes[d->step->n_notes++] = n;
    d->step->notes = notes;
    d->changed = true;
}

/* Whether two texts differ in their numbers alone. */
static bool same_but_numbers(const char *a, const char *b)
{
    for (;;) {
        while (*a >= '0' && *a <= '9') {
            a++;
        }
        while (*b >= '0' && *b <= '9') {
            b++;
        }
        if (*a != *b || *a == '\0') {
            return *a == *b;
        }
        a++;
        b++;
    }
}

/* Numbers that go on with each look are shown, and noted once. */
void rollout_holds(struct decision *d, const char *text)
{
    if (strcmp(d->r->holds, text) != 0) {
        const bool news = !same_but_numbers(d->r->holds, text);
        d->r->holds = (char *)text;
        d->changed = true;
        if (text[0] != '\0' && news) {
            rollout_note(d, "state", "waits: %s", text);
        }
    }
}

static void begin_phase(struct decision *d, Pb__RolloutPhase phase)
{
    d->r->phase = phase;
    d->r->phase_ms = d->now_ms;
    d->changed = true;
}

static uint64_t progress_ms(const struct decision *d)
{
    const uint64_t ms = d->v->plan->spec->progress_ms;

    return ms != 0 ? ms : PROGRESS_MS;
}

/* `within_ms` 0: no deadline. */
static void enter(struct decision *d, Pb__RolloutState to, uint64_t within_ms)
{
    rollout_note(d, "state", "%s", rollout_state_text(to));
    d->r->state = to;
    d->r->state_ms = d->now_ms;
    d->r->deadline_ms = within_ms != 0 ? d->now_ms + within_ms : 0;
    d->r->holds = (char *)"";
    d->r->ended_ms = (rollout_state_flags(to) & ROLLOUT_ENDED) != 0 ? d->now_ms : 0;
    begin_phase(d, ROLLOUT_PHASE_ACT);
    act_notify(d, d->r->why_text);
}

static uint32_t *counts(const struct decision *d, uint32_t each)
{
    uint32_t *n = arena_array(d->a, rollout_places(d), sizeof(*n));

    for (uint32_t i = 0; i < rollout_places(d); i++) {
        n[i] = each;
    }
    return n;
}

static void want(struct decision *d, uint32_t *by_place)
{
    d->r->wanted = by_place;
    d->r->n_wanted = rollout_places(d);
    d->r->ready_ms = 0;
    d->changed = true;
}

static void want_old(struct decision *d, uint32_t *by_place)
{
    d->r->wanted_old = by_place;
    d->r->n_wanted_old = rollout_places(d);
    d->changed = true;
}

static void because(struct decision *d, Pb__RolloutWhy why, const char *text)
{
    if (d->r->why == ROLLOUT_WHY_NONE) {
        d->r->why = why;
        d->r->why_text = (char *)text;
        d->changed = true;
    }
}

/* What is under way for the new version is void from here on: a higher fence. */
static void go_back(struct decision *d)
{
    const Pb__SnapshotRecord *stable = d->v->stable;

    if ((rollout_state_flags(d->r->state) & ROLLOUT_MOVED) == 0) {
        enter(d, ROLLOUT_REFUSED, 0);
        return;
    }
    d->step->n_begin = d->step->n_scripts = 0; /* of this decision, too */
    d->r->next_action = d->v->record->next_action;
    d->r->epoch++;
    d->r->held = false;
    d->r->zero_ms = 0;
    d->r->mirror_bp = 0;
    if (stable != NULL) {
        want_old(d, counts(d, stable->instances));
    }
    enter(d, ROLLOUT_ROLLBACK, BACK_MS);
}

/* It is not good: back, or a person is to say what shall be. */
static void fail(struct decision *d, Pb__RolloutWhy why, const char *text)
{
    const Pb__RolloutSpec *s = d->v->plan->spec;
    const bool stays = s->on_failure == ON_ROLLOUT_FAILURE_HOLD || s->rollback_unsafe;

    if (d->r->held) {
        return;
    }
    because(d, why, text);
    rollout_note(d, "verdict", "%s: %s", rollout_why_text(why), text);
    if (!stays || d->r->undo) {
        go_back(d);
        return;
    }
    d->r->held = true;
    rollout_holds(d, arena_printf(d->a, "%s; it is held for a person", text));
    act_notify(d, text);
}

/* Nothing is known against it, by looks that were begun after the last change: from then on it may
 * get more. */
static bool is_good(struct decision *d)
{
    const struct judged j = judge_now(d, false, false, false);
    const bool metrics = j.what != JUDGE_FAIL &&
                         (j.all_good || d->v->plan->spec->on_error == ROLLOUT_POLICY_PASS);
    struct slot_seen seen;

    look_slot(d, d->r->slot, d->r->wanted, pb_str(d->v->snapshot->digest), &seen);
    if (seen.seen_ms < d->r->evidence_from_ms || !seen.as_wanted || seen.ready < seen.wanted ||
        !metrics || d->r->unready_looks > 0) {
        return false;
    }
    if (d->r->verdict_ms <= d->r->evidence_from_ms) {
        d->r->verdict_ms = d->now_ms;
        d->changed = true;
    }
    return d->now_ms > d->r->evidence_from_ms;
}

/* True: it failed by what is seen. */
static bool is_bad(struct decision *d)
{
    const char *hard = look_hard(d);
    const struct judged j = judge_now(d, false, false, false);

    if (hard != NULL || j.what == JUDGE_FAIL) {
        d->r->bad_since_ms = d->r->bad_since_ms != 0 ? d->r->bad_since_ms : d->now_ms;
        fail(d, hard != NULL ? ROLLOUT_WHY_HARD_CHECK : j.why, hard != NULL ? hard : j.text);
        return true;
    }
    return false;
}

static bool is_late(struct decision *d, const char *what)
{
    if (d->r->deadline_ms == 0) {
        return false;
    }
    if (d->now_ms < d->r->deadline_ms) {
        rollout_look_at(d, d->r->deadline_ms);
        return false;
    }
    fail(d, ROLLOUT_WHY_DEADLINE, what);
    return true;
}

static void queued(struct decision *d)
{
    if (d->v->before == NULL) {
        enter(d, ROLLOUT_GATED, 0);
    } else {
        rollout_holds(d, arena_printf(d->a, "rollout %" PRIu64 " of the service is %s",
                                      d->v->before->id, rollout_state_text(d->v->before->state)));
    }
}

static bool gate_is_open(struct decision *d)
{
    const Pb__RolloutTarget *t = d->v->plan->target;
    const uint32_t need = t->n_gate > 0 ? MAX(t->gate_approvals, 1u) : 0;
    const uint32_t have = gate_approvals(d, GATE, t->gate, t->n_gate);
    uint64_t until_ms;
    const Pb__FreezeWindow *w = gate_frozen(d, &until_ms);

    if (d->r->undo) { /* going back waits for nobody */
        return true;
    }
    if (have < need) {
        rollout_holds(d, arena_printf(d->a, "%u of %u approvals before it may begin", have, need));
        return false;
    }
    if (w != NULL) {
        rollout_holds(d, arena_printf(d->a, "frozen: %s", w->name));
        rollout_look_at(d, until_ms);
        return false;
    }
    return true;
}

static void gated(struct decision *d)
{
    if (!gate_is_open(d)) {
        return;
    }
    const Pb__RolloutPlanRecord *p = d->v->plan;
    const bool all = d->r->undo || d->v->stable == NULL || p->n_steps == 0;

    want(d, all ? counts(d, d->r->undo ? MAX(d->v->snapshot->instances, 1u) : rollout_each(d))
                : p->steps[0]->instances);
    if (d->v->stable != NULL) {
        want_old(d, counts(d, d->v->stable->instances));
    }
    d->r->weight_bp = 0;
    enter(d, ROLLOUT_PROVISION, progress_ms(d));
}

/* Instances of the new version without traffic. */
static void provision(struct decision *d)
{
    struct slot_seen seen;
    const bool there = act_instances(d, d->r->slot, d->r->wanted, d->v->snapshot);

    if (d->v->stable != NULL) {
        act_look(d);
    }
    look_slot(d, d->r->slot, d->r->wanted, pb_str(d->v->snapshot->digest), &seen);
    if (there && seen.ready >= seen.wanted) {
        d->r->unready_looks = 0;
        d->r->counted_ms = seen.seen_ms;
        enter(d, ROLLOUT_WARMUP, progress_ms(d));
        return;
    }
    act_look(d);
    if (!is_late(d, arena_printf(d->a, "%u of %u instances became ready: %s", seen.ready,
                                 seen.wanted, seen.detail))) {
        rollout_holds(d, arena_printf(d->a, "%u of %u instances ready", seen.ready, seen.wanted));
    }
}

static void warmup(struct decision *d)
{
    const uint64_t settle_ms = d->v->plan->target->settle_ms;
    struct slot_seen seen;

    act_look(d);
    act_sample(d);
    if (is_bad(d) || is_late(d, "the new version did not stay ready")) {
        return;
    }
    look_slot(d, d->r->slot, d->r->wanted, pb_str(d->v->snapshot->digest), &seen);
    if (!act_route(d, 0, d->r->state_ms) && d->v->stable != NULL) {
        return; /* the router is to know its servers before any traffic */
    }
    if (seen.ready < seen.wanted || seen.ready_for_ms < settle_ms) {
        return;
    }
    d->r->verdict_ms = d->now_ms;
    if (d->r->undo || d->v->stable == NULL) {
        enter(d, ROLLOUT_PROMOTE, progress_ms(d));
    } else {
        enter(d, ROLLOUT_STEPPING, progress_ms(d));
        d->r->step = 1;
    }
}

static void next_step(struct decision *d)
{
    const Pb__RolloutPlanRecord *p = d->v->plan;

    d->r->step++;
    d->r->skip_wanted = false;
    d->r->deadline_ms = d->now_ms + progress_ms(d);
    d->r->holds = (char *)"";
    begin_phase(d, ROLLOUT_PHASE_ACT);
    if (d->r->step >= p->n_steps) {
        enter(d, ROLLOUT_PROMOTE, progress_ms(d));
    } else {
        rollout_note(d, "step", "%u of %zu: %s", d->r->step, p->n_steps - 1,
                     p->steps[d->r->step]->name);
    }
}

static bool scaled(struct decision *d, uint32_t *by_place)
{
    struct slot_seen seen;

    if (d->r->n_wanted == 0 ||
        memcmp(d->r->wanted, by_place, rollout_places(d) * sizeof(*by_place)) != 0) {
        want(d, by_place);
    }
    if (!act_instances(d, d->r->slot, by_place, d->v->snapshot)) {
        return false;
    }
    look_slot(d, d->r->slot, by_place, pb_str(d->v->snapshot->digest), &seen);
    return seen.ready >= seen.wanted;
}

/* What it waits for is no fault of the new version: its time counts from when that is over. */
static void no_hurry(struct decision *d, uint64_t from_ms)
{
    const uint64_t ms = progress_ms(d);

    if (d->r->deadline_ms != 0 && d->r->deadline_ms < from_ms + ms / 2) {
        d->r->deadline_ms = from_ms + ms;
        d->changed = true;
    }
}

/* More only outside of freezes and after a look that was good. Where metrics cannot be had it
 * stays: an outage of what measures neither promotes nor rolls back. */
static bool may_rise(struct decision *d)
{
    uint64_t until_ms;
    const Pb__FreezeWindow *w = d->r->undo ? NULL : gate_frozen(d, &until_ms);

    if (w != NULL) {
        rollout_holds(d, arena_printf(d->a, "frozen: %s", w->name));
        rollout_look_at(d, until_ms);
        no_hurry(d, until_ms);
        return false;
    }
    if (is_good(d)) {
        return true;
    }
    const struct judged j = judge_now(d, false, true, false);
    if (j.what == JUDGE_FAIL) {
        fail(d, j.why, j.text);
    } else if (j.what == JUDGE_HOLD || j.what == JUDGE_APPROVE) {
        rollout_holds(d, arena_printf(d->a, "%s; skip or abort", j.text));
        no_hurry(d, d->now_ms);
    }
    return false;
}

/* Less at once. */
static bool weighed(struct decision *d, uint32_t bp)
{
    if (bp > d->r->weight_bp && !may_rise(d)) {
        return false;
    }
    const bool moved = d->r->weight_bp != bp;
    if (moved) {
        d->r->weight_bp = bp;
        begin_phase(d, ROLLOUT_PHASE_VERIFY);
        rollout_look_at(d, d->now_ms);
    }
    const bool routed = act_route(d, bp, d->r->phase == ROLLOUT_PHASE_VERIFY ? d->r->phase_ms : 0);

    return !moved && routed && d->r->observed_bp == bp; /* first the wish is to be known */
}

static bool approved(struct decision *d, const Pb__RolloutStepRecord *s)
{
    const uint32_t have = gate_approvals(d, d->r->step, s->roles, s->n_roles);

    d->r->deadline_ms = 0; /* people take their time */
    if (have < s->approvals) {
        rollout_holds(d, arena_printf(d->a, "%u of %u approvals: %s", have, s->approvals, s->name));
    }
    return have >= s->approvals;
}

static bool all_here(struct decision *d)
{
    for (size_t i = 0; i < d->v->group_count; i++) {
        const Pb__RolloutRecord *o = d->v->group[i];
        const bool past = o->state == ROLLOUT_PROMOTE || o->state == ROLLOUT_BAKE ||
                          o->state == ROLLOUT_RETIRE || o->state == ROLLOUT_DONE;
        if (!past && (o->state != ROLLOUT_STEPPING || o->step < d->r->step)) {
            rollout_holds(d,
                          arena_printf(d->a, "the others of its group: rollout %" PRIu64 " is %s",
                                       o->id, rollout_state_text(o->state)));
            return false;
        }
    }
    return true;
}

/* The metrics have the word; what cannot be told waits, at most to the step's deadline. */
static bool analysed(struct decision *d, const Pb__RolloutStepRecord *s)
{
    const uint64_t over_ms = d->r->phase_ms + s->for_ms;
    const uint64_t last_ms = over_ms + progress_ms(d) / 2;
    const struct judged j = judge_now(d, s->until_good, d->now_ms >= over_ms, d->now_ms >= last_ms);

    rollout_look_at(d, d->now_ms < over_ms ? over_ms : last_ms);
    if (j.synthetic) {
        act_load(d);
    }
    switch (j.what) {
    case JUDGE_GO:
        return true;
    case JUDGE_FAIL:
        fail(d, j.why, j.text);
        return false;
    case JUDGE_HOLD:
    case JUDGE_APPROVE:
        d->r->deadline_ms = 0; /* an outage of what measures neither promotes nor rolls back */
        rollout_holds(d, arena_printf(d->a, "%s; skip or abort", j.text));
        return false;
    case JUDGE_WAIT:
        rollout_holds(d, d->now_ms >= over_ms ? j.text : "");
        return false;
    }
    return false;
}

static bool held_long_enough(struct decision *d, const Pb__RolloutStepRecord *s)
{
    rollout_look_at(d, d->r->phase_ms + s->for_ms);
    return d->now_ms >= d->r->phase_ms + s->for_ms;
}

static bool script_ended(struct decision *d, const Pb__RolloutStepRecord *s)
{
    const char *why = "";
    const int r = act_script(d, s, &why);

    if (r < 0) {
        fail(d, ROLLOUT_WHY_SCRIPT,
             arena_printf(d->a, "%s: %s", s->name, why[0] != '\0' ? why : "it failed"));
    }
    return r > 0;
}

/* Fewer of the old version, by a rolling rollout. */
static bool shrunk(struct decision *d, uint32_t *by_place)
{
    if (memcmp(d->r->wanted_old, by_place, rollout_places(d) * sizeof(*by_place)) != 0) {
        want_old(d, by_place);
    }
    return act_instances(d, other_slot(d->r->slot), by_place, d->v->stable);
}

static bool mirrored(struct decision *d, uint32_t bp)
{
    if (d->r->mirror_bp != bp) {
        d->r->mirror_bp = bp;
        begin_phase(d, ROLLOUT_PHASE_VERIFY);
        d->r->observed_ms = 0;
    }
    return act_route(d, d->r->weight_bp, d->r->phase_ms);
}

static bool step_is_done(struct decision *d, const Pb__RolloutStepRecord *s)
{
    switch (s->kind) {
    case PB__ROLLOUT_STEP_KIND__ROLLOUT_STEP_SCALE:
        return scaled(d, s->instances);
    case PB__ROLLOUT_STEP_KIND__ROLLOUT_STEP_WEIGHT:
        return weighed(d, s->weight_bp);
    case PB__ROLLOUT_STEP_KIND__ROLLOUT_STEP_HOLD:
        return held_long_enough(d, s);
    case PB__ROLLOUT_STEP_KIND__ROLLOUT_STEP_ANALYZE:
        return analysed(d, s);
    case PB__ROLLOUT_STEP_KIND__ROLLOUT_STEP_APPROVE:
        return approved(d, s);
    case PB__ROLLOUT_STEP_KIND__ROLLOUT_STEP_RUN:
        return script_ended(d, s);
    case PB__ROLLOUT_STEP_KIND__ROLLOUT_STEP_MIRROR:
        return mirrored(d, s->weight_bp);
    case PB__ROLLOUT_STEP_KIND__ROLLOUT_STEP_SHRINK:
        return shrunk(d, s->instances);
    case PB__ROLLOUT_STEP_KIND__ROLLOUT_STEP_BARRIER:
        return all_here(d);
    case _PB__ROLLOUT_STEP_KIND_IS_INT_SIZE:
    default:
        return false;
    }
}

/* What takes as long as was asked for, or as a person needs, has no deadline of its own. */
static uint64_t step_within_ms(const struct decision *d, const Pb__RolloutStepRecord *s)
{
    return progress_ms(d) + s->for_ms;
}

static void stepping(struct decision *d)
{
    const Pb__RolloutPlanRecord *p = d->v->plan;

    act_look(d);
    act_sample(d);
    if (is_bad(d) || d->r->held || d->r->paused) {
        return;
    }
    if (d->r->promote_wanted) {
        rollout_note(d, "person", "the steps that are left are skipped");
        d->r->promote_wanted = false;
        enter(d, ROLLOUT_PROMOTE, progress_ms(d));
        return;
    }
    if (d->r->step >= p->n_steps) {
        enter(d, ROLLOUT_PROMOTE, progress_ms(d));
        return;
    }
    const Pb__RolloutStepRecord *s = p->steps[d->r->step];
    if (s->for_ms > 0 && d->r->deadline_ms != 0 &&
        d->r->deadline_ms < d->r->phase_ms + step_within_ms(d, s)) {
        d->r->deadline_ms = d->r->phase_ms + step_within_ms(d, s);
        d->changed = true;
    }
    if (d->r->skip_wanted || step_is_done(d, s)) {
        next_step(d);
    } else if (d->r->state == ROLLOUT_STEPPING && !d->r->held) {
        is_late(d, arena_printf(d->a, "step %u (%s) did not end in time", d->r->step, s->name));
    }
}

/* All instances, then all traffic. */
static void promote(struct decision *d)
{
    const uint32_t each = d->r->undo ? MAX(d->v->snapshot->instances, 1u) : rollout_each(d);

    act_look(d);
    act_sample(d);
    if (is_bad(d) || d->r->held || d->r->paused) {
        return;
    }
    if (!scaled(d, counts(d, each)) || !weighed(d, ROLLOUT_FULL_BP)) {
        is_late(d, "the new version did not get all traffic in time");
        return;
    }
    enter(d, ROLLOUT_BAKE, 0);
}

static void bake(struct decision *d)
{
    const uint64_t bake_ms = d->r->undo ? 0 : d->v->plan->spec->bake_ms;

    act_look(d);
    act_sample(d);
    if (is_bad(d) || d->r->held || d->r->paused) {
        return;
    }
    if (!act_route(d, ROLLOUT_FULL_BP, 0)) {
        return;
    }
    rollout_look_at(d, d->r->state_ms + bake_ms);
    if (d->now_ms >= d->r->state_ms + bake_ms || d->r->skip_wanted || d->r->promote_wanted) {
        const struct judged j = judge_now(d, false, true, true);
        if (j.what == JUDGE_FAIL) {
            fail(d, j.why, j.text);
            return;
        }
        if ((j.what == JUDGE_HOLD || j.what == JUDGE_APPROVE) && !d->r->skip_wanted &&
            !d->r->promote_wanted) {
            rollout_holds(d, arena_printf(d->a, "%s; skip or abort", j.text));
            return;
        }
        enter(d, ROLLOUT_RETIRE, progress_ms(d));
    }
}

static bool drained(struct decision *d)
{
    const uint64_t drain_ms = d->v->plan->target->drain_ms != 0 ? d->v->plan->target->drain_ms
                                                                : 10000;

    if (d->r->zero_ms == 0) {
        return false;
    }
    rollout_look_at(d, d->r->zero_ms + drain_ms);
    return d->now_ms >= d->r->zero_ms + drain_ms;
}

/* The old version has had no traffic since zero_ms. What cannot be removed does no harm there: the
 * next rollout replaces it. */
static void retire(struct decision *d)
{
    const bool late = d->r->deadline_ms != 0 && d->now_ms >= d->r->deadline_ms;

    rollout_look_at(d, d->r->deadline_ms);
    if (!act_route(d, ROLLOUT_FULL_BP, 0)) {
        act_look(d);
    } else if (d->v->stable == NULL || (drained(d) && act_remove(d, other_slot(d->r->slot)))) {
        enter(d, ROLLOUT_DONE, 0);
        return;
    }
    if (late) {
        rollout_note(d, "state", "the old version could not be removed everywhere");
        enter(d, ROLLOUT_DONE, 0);
    }
}

/* How much the new version keeps for now: a stable version that a rolling rollout has made fewer
 * gets back what it can bear. */
static uint32_t back_bp(const struct decision *d)
{
    struct slot_seen now, old;
    uint32_t share;

    if (d->v->stable == NULL || d->v->plan->spec->strategy != ROLLOUT_ROLLING) {
        return 0;
    }
    look_slot(d, other_slot(d->r->slot), d->r->wanted_old, pb_str(d->v->stable->digest), &old);
    look_slot(d, d->r->slot, d->r->wanted, pb_str(d->v->snapshot->digest), &now);
    if (old.wanted == 0 || (now.seen_ms != 0 && now.ready == 0)) {
        return 0;
    }
    share = ROLLOUT_FULL_BP -
            (uint32_t)((uint64_t)ROLLOUT_FULL_BP * MIN(old.ready, old.wanted) / old.wanted);
    return MIN(share, MIN(d->r->weight_bp, d->r->observed_bp));
}

/* Traffic first; it waits for nobody, and tries for ever. */
static void rollback(struct decision *d)
{
    const uint32_t bp = back_bp(d);
    bool there = true;

    if (d->r->weight_bp != bp) {
        d->r->weight_bp = bp;
        d->changed = true;
    }
    const bool routed = act_route(d, bp, d->r->observed_ms == 0 ? d->r->state_ms : 0);
    if (d->v->stable != NULL && d->v->plan->spec->strategy == ROLLOUT_ROLLING) {
        there = act_instances(d, other_slot(d->r->slot), d->r->wanted_old, d->v->stable);
        act_look(d);
    }
    if (routed && there && bp == 0 && d->r->observed_bp == 0) {
        enter(d, ROLLOUT_DRAIN, 0);
        return;
    }
    if (d->r->state == ROLLOUT_ROLLBACK && d->r->deadline_ms != 0) {
        rollout_look_at(d, d->r->deadline_ms);
        if (d->now_ms >= d->r->deadline_ms) {
            enter(d, ROLLOUT_NEEDS_HUMAN, 0);
            rollout_holds(d, "the way back cannot be verified; it is tried again and again");
        }
    }
}

static void drain(struct decision *d)
{
    act_look(d);
    if (d->r->observed_bp != 0) { /* somebody else has moved it */
        enter(d, ROLLOUT_ROLLBACK, BACK_MS);
    } else if (drained(d)) {
        enter(d, ROLLOUT_REMOVE, progress_ms(d));
    }
}

static void remove_new(struct decision *d)
{
    rollout_look_at(d, d->r->deadline_ms);
    if (act_remove(d, d->r->slot)) {
        enter(d, ROLLOUT_ROLLED_BACK, 0);
    } else if (d->now_ms >= d->r->deadline_ms) {
        rollout_note(d, "state", "the new version could not be removed everywhere");
        enter(d, ROLLOUT_ROLLED_BACK, 0);
    }
}

typedef void (*state_fn)(struct decision *d);
static const state_fn states[] = {
    [PB__ROLLOUT_STATE__ROLLOUT_QUEUED] = queued,
    [PB__ROLLOUT_STATE__ROLLOUT_GATED] = gated,
    [PB__ROLLOUT_STATE__ROLLOUT_PROVISION] = provision,
    [PB__ROLLOUT_STATE__ROLLOUT_WARMUP] = warmup,
    [PB__ROLLOUT_STATE__ROLLOUT_STEPPING] = stepping,
    [PB__ROLLOUT_STATE__ROLLOUT_PROMOTE] = promote,
    [PB__ROLLOUT_STATE__ROLLOUT_BAKE] = bake,
    [PB__ROLLOUT_STATE__ROLLOUT_RETIRE] = retire,
    [PB__ROLLOUT_STATE__ROLLOUT_ROLLBACK] = rollback,
    [PB__ROLLOUT_STATE__ROLLOUT_NEEDS_HUMAN] = rollback,
    [PB__ROLLOUT_STATE__ROLLOUT_DRAIN] = drain,
    [PB__ROLLOUT_STATE__ROLLOUT_REMOVE] = remove_new,
};

/* A member of its group that goes back takes all others along, until they are stable. */
static void follow_group(struct decision *d)
{
    for (size_t i = 0; i < d->v->group_count; i++) {
        const Pb__RolloutRecord *o = d->v->group[i];
        if (o->abort_wanted || o->state == ROLLOUT_REFUSED || o->state == ROLLOUT_ROLLED_BACK ||
            (rollout_state_flags(o->state) & ROLLOUT_BACK) != 0) {
            because(d, ROLLOUT_WHY_GROUP,
                    arena_printf(d->a, "rollout %" PRIu64 " of its group goes back", o->id));
            go_back(d);
            return;
        }
    }
}

static bool can_go_back(Pb__RolloutState s)
{
    const uint32_t flags = rollout_state_flags(s);

    return (flags & (ROLLOUT_BACK | ROLLOUT_ENDED)) == 0 &&
           ((flags & ROLLOUT_MOVED) == 0 || rollout_may_move(s, ROLLOUT_ROLLBACK));
}

/* Drivers that have seen a higher fence are of a store that knew more than ours. */
static void outbid(struct decision *d)
{
    for (size_t i = 0; i < d->v->action_count; i++) {
        const Pb__RolloutActionRecord *a = d->v->actions[i];
        if (a->stale && a->epoch == d->r->epoch && a->state == ROLLOUT_ACTION_BAD) {
            d->r->epoch++;
            rollout_note(d, "action", "the target has seen a higher fence: epoch %" PRIu64 " now",
                         d->r->epoch);
            return;
        }
    }
}

static bool is_superseded(const struct decision *d, const Pb__RolloutActionRecord *a)
{
    for (size_t i = 0; i < d->v->action_count; i++) {
        const Pb__RolloutActionRecord *b = d->v->actions[i];
        if (b->seq > a->seq && b->kind == a->kind && b->slot == a->slot && b->place == a->place &&
            b->metric == a->metric && b->state != ROLLOUT_ACTION_RUNNING &&
            (b->state == ROLLOUT_ACTION_GOOD || a->state == ROLLOUT_ACTION_BAD)) {
            return true;
        }
    }
    return false;
}

/* The newest of each kind and place stay: they are what is known. */
static void take_old(struct decision *d)
{
    d->step->taken = arena_array(d->a, d->v->action_count + 1, sizeof(*d->step->taken));
    for (size_t i = 0; i < d->v->action_count; i++) {
        const Pb__RolloutActionRecord *a = d->v->actions[i];
        if (a->state != ROLLOUT_ACTION_RUNNING && a->kind != ROLLOUT_ACTION_RUN &&
            (a->kind == ROLLOUT_ACTION_NOTIFY || is_superseded(d, a))) {
            d->step->taken[d->step->n_taken++] = a->seq;
            d->changed = true;
        }
    }
}

static void retried(struct decision *d)
{
    if (d->r->retry_wanted) {
        d->r->retry_wanted = false;
        d->r->held = false;
        d->r->why = ROLLOUT_WHY_NONE;
        d->r->why_text = (char *)"";
        d->r->holds = (char *)"";
        d->r->unready_looks = 0;
        d->r->deadline_ms = d->r->deadline_ms != 0 ? d->now_ms + progress_ms(d) : 0;
        rollout_note(d, "person", "tried again");
    } else if (d->r->held && (d->r->skip_wanted || d->r->promote_wanted)) {
        d->r->held = false; /* a person has seen it; what is bad holds it again */
        rollout_holds(d, "");
    }
}

static void decide(struct decision *d)
{
    look_observe(d);
    judge_begin(d);
    judge_fold(d);
    outbid(d);
    retried(d);
    if (d->r->abort_wanted && can_go_back(d->r->state)) {
        because(d, ROLLOUT_WHY_PERSON, "aborted");
        go_back(d);
    } else if (can_go_back(d->r->state) && d->v->group_count > 0) {
        follow_group(d);
    }
    if (d->r->state == d->v->record->state) {
        states[d->r->state](d);
    }
}

static struct decision begin_decision(const struct rollout_view *v, uint64_t now_ms,
                                      struct arena *a)
{
    struct decision d = {.v = v, .now_ms = now_ms, .a = a, .look_ms = UINT64_MAX};

    d.r = arena_alloc(a, sizeof(*d.r));
    *d.r = *v->record;
    d.step = arena_alloc(a, sizeof(*d.step));
    pb__rollout_step__init(d.step);
    d.step->rollout_id = v->record->id;
    d.step->revision = v->record->revision;
    d.step->next = d.r;
    return d;
}

Pb__RolloutStep *rollout_decide(const struct rollout_view *v, uint64_t now_ms, struct arena *a)
{
    struct decision d = begin_decision(v, now_ms, a);
    const uint64_t was_ms = v->record->next_look_ms;

    if ((rollout_state_flags(v->record->state) & ROLLOUT_ENDED) != 0) {
        return NULL;
    }
    take_old(&d);
    decide(&d);
    if ((rollout_state_flags(d.r->state) & ROLLOUT_ENDED) != 0) {
        d.r->next_look_ms = 0;
    } else if (d.r->state != v->record->state) {
        d.r->next_look_ms = now_ms; /* what the new state wants is begun at once */
    } else if (was_ms <= now_ms || d.look_ms < was_ms) {
        d.r->next_look_ms = MAX(MIN(d.look_ms, now_ms + rollout_tick_ms(&d)), now_ms + 1);
    }
    return d.changed || d.r->next_look_ms != was_ms ? d.step : NULL;
}

const char *rollout_waits_for(const struct rollout_view *v, uint64_t now_ms, struct arena *a)
{
    struct decision d = begin_decision(v, now_ms, a);
    const Pb__RolloutRecord *r = v->record;
    struct slot_seen seen;

    if (r->paused) {
        return "paused";
    }
    if (r->holds[0] != '\0') {
        return r->holds;
    }
    if (r->state == ROLLOUT_STEPPING && r->step < v->plan->n_steps) {
        return arena_printf(a, "step %u of %zu: %s", r->step + 1, v->plan->n_steps,
                            v->plan->steps[r->step]->name);
    }
    if (r->n_wanted > 0 && v->snapshot != NULL) {
        look_slot(&d, r->slot, r->wanted, pb_str(v->snapshot->digest), &seen);
        if (seen.ready < seen.wanted) {
            return arena_printf(a, "%u of %u instances ready%s%s", seen.ready, seen.wanted,
                                seen.detail[0] != '\0' ? ": " : "", seen.detail);
        }
    }
    return rollout_state_text(r->state);
}
