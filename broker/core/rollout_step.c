#include "common/base.h"

#include "broker/core/rollout_move.h"
#include "common/limits.h"

/* What the decider proposes is checked against the rules of rollout.h, and done. */

#define DRAIN_MS 10000u /* of a target that does not say */

struct step {
    struct core *c;
    const Pb__RolloutStep *cmd;
    const Pb__RolloutRecord *was;
    const Pb__RolloutRecord *next;
    Pb__RolloutPlanRecord *plan;
    Pb__PlanJob **jobs; /* of cmd->begin */
};

static uint32_t places(const struct step *s)
{
    return (uint32_t)MAX(s->plan->target->n_places, 1u);
}

static bool router_is_none(const struct step *s)
{
    const Pb__DriverConfig *d = s->plan->target->router_driver;

    return d == NULL || d->driver[0] == '\0' || strcmp(d->driver, "none") == 0;
}

/* `next` with all that a decider may change as it was. */
static Pb__RolloutRecord as_it_was(const Pb__RolloutRecord *next, const Pb__RolloutRecord *was)
{
    Pb__RolloutRecord r = *next;

#define KEEP(field) r.field = was->field
    KEEP(epoch), KEEP(state), KEEP(state_ms), KEEP(deadline_ms), KEEP(step), KEEP(phase);
    KEEP(phase_ms), KEEP(weight_bp), KEEP(observed_bp), KEEP(observed_ms);
    KEEP(weight_changed_ms), KEEP(zero_ms), KEEP(verdict_ms), KEEP(evidence_from_ms);
    KEEP(n_wanted), KEEP(wanted), KEEP(n_wanted_old), KEEP(wanted_old);
    KEEP(unready_looks), KEEP(ready), KEEP(ready_old), KEEP(next_action), KEEP(next_look_ms);
    KEEP(holds), KEEP(held), KEEP(why);
    KEEP(why_text), KEEP(skip_wanted), KEEP(promote_wanted), KEEP(retry_wanted);
    KEEP(ended_ms), KEEP(bad_since_ms), KEEP(counted_ms), KEEP(mirror_bp), KEEP(ready_ms);
#undef KEEP
    return r;
}

static const char *wishes_wrong(const struct step *s)
{
    const Pb__RolloutRecord kept = as_it_was(s->next, s->was);

    if (!s->next->abort_wanted && s->was->abort_wanted) {
        return "I7: an abort is never taken back";
    }
    if (!pb_same(&kept.base, &s->was->base)) {
        return "it changes what a step may not";
    }
    if ((s->next->skip_wanted && !s->was->skip_wanted) ||
        (s->next->promote_wanted && !s->was->promote_wanted) ||
        (s->next->retry_wanted && !s->was->retry_wanted)) {
        return "it wishes what only a person may";
    }
    return (unsigned)s->next->phase > ROLLOUT_PHASE_WATCH ||
                   (unsigned)s->next->why > ROLLOUT_WHY_ACTION
               ? "an unknown phase or reason"
               : NULL;
}

static const char *state_wrong(const struct step *s)
{
    const Pb__RolloutState from = s->was->state, to = s->next->state;
    const Pb__ServiceRecord *service = service_get(s->c->tx, s->was->service_id);
    const uint32_t flags = (unsigned)to <= ROLLOUT_REFUSED ? rollout_state_flags(to) : 0;

    if ((unsigned)to > ROLLOUT_REFUSED || (from != to && !rollout_may_move(from, to))) {
        return "I1: the machine has no such way";
    }
    if (to == ROLLOUT_RETIRE && from != to &&
        (s->next->observed_bp != ROLLOUT_FULL_BP || s->next->observed_ms == 0 ||
         s->next->weight_bp != ROLLOUT_FULL_BP)) {
        return "I1: a version that has not all traffic does not become stable";
    }
    if (service == NULL ||
        (from != to && to != ROLLOUT_REFUSED && service->live_rollout_id != s->was->id)) {
        return "I6: another rollout of the service is live";
    }
    if (s->was->abort_wanted && from != to && (flags & (ROLLOUT_BACK | ROLLOUT_ENDED)) == 0) {
        return "I7: an abort allows the way back alone";
    }
    return NULL;
}

static const char *counts_wrong(const struct step *s, const uint32_t *counts, size_t n)
{
    if (n != 0 && n != places(s)) {
        return "instances for other places than the target has";
    }
    for (size_t i = 0; i < n; i++) {
        if (counts[i] > LIMIT_ROLLOUT_INSTANCES) {
            return "more instances than there may be";
        }
    }
    return NULL;
}

static const char *times_wrong(const struct step *s)
{
    const Pb__RolloutRecord *n = s->next;
    const uint64_t now_ms = s->c->now_ms;
    const bool ended = (rollout_state_flags(n->state) & ROLLOUT_ENDED) != 0;

    if (n->state_ms > now_ms || n->phase_ms > now_ms || n->observed_ms > now_ms ||
        n->weight_changed_ms > now_ms || n->verdict_ms > now_ms || n->zero_ms > now_ms) {
        return "a time that has not come";
    }
    if (!ended && n->next_look_ms == 0) {
        return "nobody would look at it again";
    }
    if (n->evidence_from_ms < s->was->evidence_from_ms ||
        n->weight_changed_ms < s->was->weight_changed_ms) {
        return "I4: evidence does not come to count again";
    }
    return NULL;
}

/* The weight of the new version that the router's answer tells of. */
static bool answer_says(const struct step *s, const Pb__RolloutActionRecord *a, uint32_t bp)
{
    Pb__RouterAnswer *answer;
    uint32_t b;

    if (PB_UNPACK(s->c->arena, router_answer, a->answer.data, a->answer.len, LIMIT_ACTION_DATA,
                  &answer) < 0 ||
        answer->unknown) {
        return false;
    }
    b = MIN(answer->weight_b_bp, ROLLOUT_FULL_BP);
    return (s->was->slot == ROLLOUT_SLOT_B ? b : ROLLOUT_FULL_BP - b) == bp;
}

static bool was_read(const struct step *s, uint32_t bp, uint64_t at_ms)
{
    const struct key prefix = key_u64(s->was->id);
    struct cursor cur;
    bool found = false;

    for (tx_seek(&cur, s->c->tx, T_ROLLOUT_ACTION, key_str(&prefix), NULL); cur.valid && !found;
         tx_next(&cur)) {
        const Pb__RolloutActionRecord *a = rollout_action_get(
            s->c->tx, s->was->id, key_read_u64(cur.key, sizeof(uint64_t)));
        found = a != NULL && a->state == ROLLOUT_ACTION_GOOD && a->epoch == s->was->epoch &&
                (a->kind == ROLLOUT_ACTION_ROUTE || a->kind == ROLLOUT_ACTION_READ) &&
                a->ended_ms == at_ms && answer_says(s, a, bp);
    }
    cursor_end(&cur);
    return found;
}

/* What it says it has seen stands in an answer. */
static const char *observation_wrong(const struct step *s)
{
    const Pb__RolloutRecord *n = s->next, *w = s->was;
    const bool other = n->observed_bp != w->observed_bp;

    if (n->observed_bp > ROLLOUT_FULL_BP) {
        return "I3: a weight is at most 10000";
    }
    if ((other || n->observed_ms != w->observed_ms) && n->observed_ms != 0 && !router_is_none(s) &&
        !was_read(s, n->observed_bp, n->observed_ms)) {
        return "I2: a weight that no router has answered";
    }
    if (other && (n->observed_ms == 0 || n->weight_changed_ms < n->observed_ms ||
                  n->evidence_from_ms < n->observed_ms)) {
        return "I4: a change of the weight that makes evidence old";
    }
    if (n->zero_ms != 0 && n->zero_ms != w->zero_ms &&
        (n->zero_ms != n->observed_ms ||
         (n->observed_bp != 0 && n->observed_bp != ROLLOUT_FULL_BP))) {
        return "I2: a slot has no traffic from the time on at which that was read";
    }
    return NULL;
}

/* A target without a router has the weight at once: what is changed by that counts from then on. */
static const char *weight_wrong(const struct step *s)
{
    const Pb__RolloutRecord *n = s->next, *w = s->was;
    const uint64_t evidence_ms = router_is_none(s) ? w->evidence_from_ms : n->evidence_from_ms;

    if (n->weight_bp > ROLLOUT_FULL_BP || n->mirror_bp > ROLLOUT_FULL_BP) {
        return "I3: a weight is at most 10000";
    }
    if (n->weight_bp <= w->weight_bp) {
        return NULL;
    }
    if (n->abort_wanted) {
        return "I7: the weight does not rise after an abort";
    }
    if (((rollout_state_flags(n->state) & ROLLOUT_UP) == 0 ||
         (rollout_state_flags(w->state) & ROLLOUT_UP) == 0)) {
        return "I4: the weight rises in states that are up";
    }
    return n->verdict_ms <= evidence_ms
               ? "I4: the weight rises on a verdict after the last start and change"
               : NULL;
}

static uint64_t drain_ms(const struct step *s)
{
    return s->plan->target->drain_ms != 0 ? s->plan->target->drain_ms : DRAIN_MS;
}

/* Whether the slot may lose its last instances. */
static bool is_drained(const struct step *s, Pb__RolloutSlot slot)
{
    const Pb__RolloutRecord *n = s->next;
    const uint32_t bp = slot == n->slot ? n->observed_bp : ROLLOUT_FULL_BP - n->observed_bp;

    return n->observed_ms != 0 && bp == 0 && n->zero_ms != 0 &&
           s->c->now_ms >= n->zero_ms + drain_ms(s);
}

static bool is_last(const struct step *s, Pb__RolloutSlot slot, uint32_t place)
{
    const uint32_t *wanted = slot == s->next->slot ? s->next->wanted : s->next->wanted_old;
    const size_t n = slot == s->next->slot ? s->next->n_wanted : s->next->n_wanted_old;

    for (size_t i = 0; i < n; i++) {
        if (i != place && wanted[i] > 0) {
            return false;
        }
    }
    return true;
}

static const char *instances_wrong(const struct step *s, const Pb__RolloutActionRecord *a)
{
    const Pb__RolloutRecord *n = s->next;
    const bool new = a->slot == n->slot;
    const size_t count = new ? n->n_wanted : n->n_wanted_old;
    const uint32_t *wanted = new ? n->wanted : n->wanted_old;
    const size_t were = new ? s->was->n_wanted : s->was->n_wanted_old;
    const uint32_t *had = new ? s->was->wanted : s->was->wanted_old;
    const bool rolling = s->plan->spec->strategy == ROLLOUT_ROLLING;
    Pb__InstanceArgs *args;

    if (a->kind == ROLLOUT_ACTION_REMOVE) {
        return is_drained(s, a->slot) ? NULL : "I2: a slot with traffic loses no instances";
    }
    if (PB_UNPACK(s->c->arena, instance_args, a->args.data, a->args.len, LIMIT_ROLLOUT_ARGS,
                  &args) < 0 ||
        args->slot != a->slot) {
        return "arguments of instances that are none";
    }
    if (a->place >= count || args->instances != wanted[a->place]) {
        return "other instances than the record wants";
    }
    if (args->instances == 0 && is_last(s, a->slot, a->place) && !is_drained(s, a->slot)) {
        return "I2: a slot with traffic keeps its last instances";
    }
    return !new && !rolling && a->place < were && args->instances < had[a->place]
               ? "I2: only a rolling rollout makes the old version fewer"
               : NULL;
}

static const char *route_wrong(const struct step *s, const Pb__RolloutActionRecord *a)
{
    const Pb__RolloutRecord *n = s->next;
    const uint32_t b = n->slot == ROLLOUT_SLOT_B ? n->weight_bp : ROLLOUT_FULL_BP - n->weight_bp;
    Pb__RouterArgs *args;

    if (PB_UNPACK(s->c->arena, router_args, a->args.data, a->args.len, LIMIT_ROLLOUT_ARGS, &args) <
        0) {
        return "arguments of a router that are none";
    }
    return args->weight_b_bp != b ? "I3: another weight than the record wants" : NULL;
}

static const char *action_wrong(const struct step *s, size_t i)
{
    const Pb__RolloutActionRecord *a = s->cmd->begin[i];
    const char *wrong = rollout_action_wrong(a, s->plan);
    const bool ended = (rollout_state_flags(s->next->state) & ROLLOUT_ENDED) != 0;

    if (wrong != NULL) {
        return wrong;
    }
    if (a->seq != s->was->next_action + i || a->epoch != s->next->epoch) {
        return "I5: an action is of the present epoch and the next number";
    }
    if (ended && a->kind != ROLLOUT_ACTION_NOTIFY) {
        return "nothing is begun after the end";
    }
    if (a->kind == ROLLOUT_ACTION_ENSURE || a->kind == ROLLOUT_ACTION_REMOVE) {
        return instances_wrong(s, a);
    }
    return a->kind == ROLLOUT_ACTION_ROUTE ? route_wrong(s, a) : NULL;
}

static const Pb__RolloutRun *script_of(const struct step *s, size_t i)
{
    for (size_t k = 0; k < s->cmd->n_scripts; k++) {
        if (s->cmd->scripts[k]->begin == i) {
            return s->cmd->scripts[k];
        }
    }
    return NULL;
}

static const char *actions_wrong(const struct step *s)
{
    const struct key prefix = key_u64(s->was->id);
    struct cursor cur;
    size_t rows = 0;
    size_t runs = 0;

    if (s->next->epoch < s->was->epoch) {
        return "I5: epochs rise";
    }
    if (s->next->next_action != s->was->next_action + s->cmd->n_begin) {
        return "I5: numbers of actions without a gap";
    }
    for (tx_seek(&cur, s->c->tx, T_ROLLOUT_ACTION, key_str(&prefix), NULL); cur.valid;
         tx_next(&cur)) {
        rows++;
    }
    cursor_end(&cur);
    if (rows + s->cmd->n_begin > LIMIT_ROLLOUT_ACTIONS + s->cmd->n_taken) {
        return "more actions than there may be";
    }
    for (size_t i = 0; i < s->cmd->n_begin; i++) {
        const char *wrong = action_wrong(s, i);
        const Pb__RolloutRun *run = script_of(s, i);
        const bool runs_script = s->cmd->begin[i]->kind == ROLLOUT_ACTION_RUN;
        if (wrong != NULL) {
            return wrong;
        }
        if (runs_script != (run != NULL) ||
            (run != NULL && (run->n_script == 0 || run->n_script > LIMIT_ROLLOUT_SCRIPT))) {
            return "a script without its action, or the reverse";
        }
        runs += run != NULL;
    }
    return runs != s->cmd->n_scripts ? "a script without its action" : NULL;
}

static const char *taken_wrong(const struct step *s)
{
    if (s->cmd->n_taken > LIMIT_ROLLOUT_ACTIONS) {
        return "more is taken than there can be";
    }
    for (size_t i = 0; i < s->cmd->n_taken; i++) {
        const Pb__RolloutActionRecord *a = rollout_action_get(s->c->tx, s->was->id,
                                                              s->cmd->taken[i]);
        if (a == NULL || a->state == ROLLOUT_ACTION_RUNNING) {
            return "an answer is taken that has not come";
        }
    }
    return NULL;
}

static const char *rest_wrong(const struct step *s)
{
    if (s->cmd->n_notes > LIMIT_ROLLOUT_STEP_NOTES || s->cmd->n_metrics > LIMIT_ROLLOUT_METRICS) {
        return "too many notes or metrics";
    }
    for (size_t i = 0; i < s->cmd->n_metrics; i++) {
        const Pb__RolloutMetricRecord *m = s->cmd->metrics[i];
        if (m->index > s->plan->spec->n_analysis || /* one more watches the kill line */
            m->state.len > LIMIT_ROLLOUT_STATE) {
            return "a metric that is not analysed, or is too long";
        }
    }
    return NULL;
}

static const char *all_wrong(const struct step *s)
{
    static const char *(*const checks[])(const struct step *) = {
        wishes_wrong, state_wrong,   times_wrong, observation_wrong,
        weight_wrong, actions_wrong, taken_wrong, rest_wrong,
    };
    const char *wrong = counts_wrong(s, s->next->wanted, s->next->n_wanted);

    wrong = wrong != NULL ? wrong : counts_wrong(s, s->next->wanted_old, s->next->n_wanted_old);
    for (size_t i = 0; i < ARRAY_LEN(checks) && wrong == NULL; i++) {
        wrong = checks[i](s);
    }
    return wrong;
}

static int load(struct step *s, struct core *c, const Pb__RolloutStep *cmd)
{
    *s = (struct step){.c = c, .cmd = cmd, .next = cmd->next};
    s->was = rollout_get(c->tx, cmd->rollout_id);
    if (s->was == NULL) {
        return tx_ok(c->tx) ? reject(c, -E_NOT_FOUND, "no rollout %" PRIu64, cmd->rollout_id)
                            : tx_error(c->tx);
    }
    s->plan = (Pb__RolloutPlanRecord *)rollout_plan_get(c->tx, cmd->rollout_id);
    if (s->plan == NULL) {
        tx_fail(c->tx, -E_CORRUPT);
        return tx_error(c->tx);
    }
    if ((rollout_state_flags(s->was->state) & ROLLOUT_ENDED) != 0) {
        return reject(c, -E_CONFLICT, "rollout %" PRIu64 " has ended", cmd->rollout_id);
    }
    if (s->next == NULL || cmd->revision != s->was->revision) {
        return reject(c, -E_CONFLICT, "decided on revision %" PRIu64 ", now %" PRIu64,
                      cmd->revision, s->was->revision);
    }
    return 0;
}

static int plan_jobs(struct step *s)
{
    s->jobs = arena_array(s->c->arena, s->cmd->n_begin + 1, sizeof(*s->jobs));
    for (size_t i = 0; i < s->cmd->n_begin; i++) {
        s->jobs[i] = rollout_action_plan(s->c, s->was, s->plan, s->cmd->begin[i], script_of(s, i));
    }
    return tx_ok(s->c->tx) ? classes_check(s->c, s->jobs, s->cmd->n_begin, s->was->protected_)
                           : tx_error(s->c->tx);
}

static void put_metrics(const struct step *s)
{
    for (size_t i = 0; i < s->cmd->n_metrics; i++) {
        Pb__RolloutMetricRecord m = *s->cmd->metrics[i];
        const struct key k = key_u64_u64(s->was->id, m.index);
        m.text = text_clip(s->c->arena, m.text, LIMIT_ROLLOUT_TEXT);
        tx_put_msg(s->c->tx, T_ROLLOUT_METRIC, &k, &m.base);
    }
}

/* Its texts are of drivers and people: of any length and bytes. */
static Pb__RolloutRecord *record_of(const struct step *s)
{
    Pb__RolloutRecord *r = arena_alloc(s->c->arena, sizeof(*r));

    *r = *s->next;
    r->holds = text_clip(s->c->arena, r->holds, LIMIT_ROLLOUT_TEXT);
    r->why_text = text_clip(s->c->arena, r->why_text, LIMIT_ROLLOUT_TEXT);
    r->ended_ms = 0;
    r->state = s->was->state;
    return r;
}

static uint32_t keep_of(const struct step *s)
{
    return s->plan->target->keep_snapshots != 0 ? s->plan->target->keep_snapshots : 10;
}

static void write(struct step *s)
{
    struct core *c = s->c;
    const Pb__RolloutStep *cmd = s->cmd;
    Pb__RolloutRecord *r = record_of(s);

    for (size_t i = 0; i < cmd->n_taken; i++) {
        const struct key k = rollout_seq_key(r->id, cmd->taken[i]);
        tx_del(c->tx, T_ROLLOUT_ACTION, &k);
    }
    put_metrics(s);
    for (size_t i = 0; i < cmd->n_notes; i++) {
        rollout_note_add(c, r, cmd->notes[i]->kind, cmd->notes[i]->text);
    }
    if (s->next->state != r->state) {
        rollout_move(c, r, s->next->state);
        if (r->state == ROLLOUT_RETIRE) {
            service_set_stable(c, r, keep_of(s));
        }
    } else if (s->next->step != s->was->step) {
        rollout_group_make_due(c, r);
    }
    rollout_put(c, r, s->was->next_look_ms);
    for (size_t i = 0; i < cmd->n_begin; i++) {
        rollout_action_begin(c, r, cmd->begin[i], s->jobs[i]);
    }
    if (r->epoch > s->was->epoch) {
        rollout_actions_fence(c, r->id, r->epoch);
    }
    rollout_let_go(c, r);
}

int apply_rollout_step(struct core *c, const Pb__RolloutStep *cmd)
{
    struct step s;
    const char *wrong;
    int r = load(&s, c, cmd);

    if (r < 0) {
        return r;
    }
    wrong = all_wrong(&s);
    if (wrong != NULL) {
        return tx_ok(c->tx)
                   ? reject(c, -E_INVALID, "rollout %" PRIu64 ": %s", cmd->rollout_id, wrong)
                   : tx_error(c->tx);
    }
    r = plan_jobs(&s);
    if (r < 0) {
        return r;
    }
    write(&s);
    c->reply->rollout_id = cmd->rollout_id;
    return tx_error(c->tx);
}
