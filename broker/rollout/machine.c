#include "common/base.h"

#include "broker/rollout/inside.h"

#include "common/limits.h"
#include "proto/rollout.h"

/* What all states do: to say why, to go on, to go back, to look whether it is good. */

#define PROGRESS_MS (10u * 60 * 1000)
#define TICK_MS     2000u

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

void machine_phase(struct decision *d, Pb__RolloutPhase phase)
{
    d->r->phase = phase;
    d->r->phase_ms = d->now_ms;
    d->changed = true;
}

uint64_t machine_progress_ms(const struct decision *d)
{
    const uint64_t ms = d->v->plan->spec->progress_ms;

    return ms != 0 ? ms : PROGRESS_MS;
}

/* `within_ms` 0: no deadline. */
void machine_enter(struct decision *d, Pb__RolloutState to, uint64_t within_ms)
{
    rollout_note(d, "state", "%s", rollout_state_text(to));
    d->r->state = to;
    d->r->state_ms = d->now_ms;
    d->r->deadline_ms = within_ms != 0 ? d->now_ms + within_ms : 0;
    d->r->holds = (char *)"";
    d->r->ended_ms = (rollout_state_flags(to) & ROLLOUT_ENDED) != 0 ? d->now_ms : 0;
    machine_phase(d, ROLLOUT_PHASE_ACT);
    act_notify(d, d->r->why_text);
}

uint32_t *machine_counts(const struct decision *d, uint32_t each)
{
    uint32_t *n = arena_array(d->a, rollout_places(d), sizeof(*n));

    for (uint32_t i = 0; i < rollout_places(d); i++) {
        n[i] = each;
    }
    return n;
}

void machine_want(struct decision *d, uint32_t *by_place)
{
    d->r->wanted = by_place;
    d->r->n_wanted = rollout_places(d);
    d->r->ready_ms = 0;
    d->changed = true;
}

void machine_want_old(struct decision *d, uint32_t *by_place)
{
    d->r->wanted_old = by_place;
    d->r->n_wanted_old = rollout_places(d);
    d->changed = true;
}

void machine_because(struct decision *d, Pb__RolloutWhy why, const char *text)
{
    if (d->r->why == ROLLOUT_WHY_NONE) {
        d->r->why = why;
        d->r->why_text = (char *)text;
        d->changed = true;
    }
}

/* What is under way for the new version is void from here on: a higher fence. */
void machine_back(struct decision *d)
{
    const Pb__SnapshotRecord *stable = d->v->stable;

    if ((rollout_state_flags(d->r->state) & ROLLOUT_MOVED) == 0) {
        machine_enter(d, ROLLOUT_REFUSED, 0);
        return;
    }
    d->step->n_begin = d->step->n_scripts = 0; /* of this decision, too */
    d->r->next_action = d->v->record->next_action;
    d->r->epoch++;
    d->r->held = false;
    d->r->zero_ms = 0;
    d->r->mirror_bp = 0;
    if (stable != NULL) {
        machine_want_old(d, machine_counts(d, stable->instances));
    }
    machine_enter(d, ROLLOUT_ROLLBACK, BACK_MS);
}

/* It is not good: back, or a person is to say what shall be. */
void machine_fail(struct decision *d, Pb__RolloutWhy why, const char *text)
{
    const Pb__RolloutSpec *s = d->v->plan->spec;
    const bool stays = s->on_failure == ON_ROLLOUT_FAILURE_HOLD || s->rollback_unsafe;

    if (d->r->held) {
        return;
    }
    machine_because(d, why, text);
    rollout_note(d, "verdict", "%s: %s", rollout_why_text(why), text);
    if (!stays || d->r->undo) {
        machine_back(d);
        return;
    }
    d->r->held = true;
    rollout_holds(d, arena_printf(d->a, "%s; it is held for a person", text));
    act_notify(d, text);
}

/* Nothing is known against it, by looks that were begun after the last change: from then on it may
 * get more. */
bool machine_is_good(struct decision *d)
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
bool machine_is_bad(struct decision *d)
{
    const char *hard = look_hard(d);
    const struct judged j = judge_now(d, false, false, false);

    if (hard != NULL || j.what == JUDGE_FAIL) {
        d->r->bad_since_ms = d->r->bad_since_ms != 0 ? d->r->bad_since_ms : d->now_ms;
        machine_fail(d, hard != NULL ? ROLLOUT_WHY_HARD_CHECK : j.why,
                     hard != NULL ? hard : j.text);
        return true;
    }
    return false;
}

bool machine_is_late(struct decision *d, const char *what)
{
    if (d->r->deadline_ms == 0) {
        return false;
    }
    if (d->now_ms < d->r->deadline_ms) {
        rollout_look_at(d, d->r->deadline_ms);
        return false;
    }
    machine_fail(d, ROLLOUT_WHY_DEADLINE, what);
    return true;
}
