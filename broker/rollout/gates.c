#include "common/base.h"

#include "broker/rollout/inside.h"

#include "proto/rollout.h"

#include "common/cron.h"

static bool window_holds(const struct decision *d, const Pb__FreezeWindow *w,
                         uint64_t *ret_until_ms)
{
    const int64_t now_s = (int64_t)(d->now_ms / 1000);
    const char *why;
    struct cron cron;
    struct tz tz;
    int64_t began_s;

    if (w->cron[0] == '\0') {
        *ret_until_ms = w->until_ms;
        return w->from_ms <= d->now_ms && d->now_ms < w->until_ms;
    }
    tz_utc(&tz);
    if ((w->zone_data.len > 0 && tz_parse(d->a, pb_str(w->zone_data), &tz) < 0) ||
        cron_parse(str_from(w->cron), &cron, &why) < 0 ||
        cron_previous(&cron, &tz, now_s + 1, &began_s) < 0 || began_s < 0) {
        return false; /* the configuration was checked when it was read */
    }
    *ret_until_ms = (uint64_t)began_s * 1000 + w->for_ms;
    return d->now_ms < *ret_until_ms;
}

const Pb__FreezeWindow *gate_frozen(const struct decision *d, uint64_t *ret_until_ms)
{
    const Pb__RolloutTarget *t = d->v->plan->target;

    for (size_t i = 0; i < t->n_freezes && !d->r->freeze_overridden; i++) {
        if (window_holds(d, t->freezes[i], ret_until_ms)) {
            return t->freezes[i];
        }
    }
    return NULL;
}

static bool has_role(const char *role, char *const *roles, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(roles[i], role) == 0) {
            return true;
        }
    }
    return false;
}

uint32_t gate_approvals(const struct decision *d, uint32_t step, char *const *roles,
                        size_t role_count)
{
    uint32_t count = 0;

    for (size_t i = 0; i < d->r->n_approvals; i++) {
        const Pb__RolloutApproval *a = d->r->approvals[i];
        bool again = a->step != step || !has_role(a->role, roles, role_count);
        for (size_t k = 0; k < i && !again; k++) {
            const Pb__RolloutApproval *b = d->r->approvals[k];
            again = b->step == step && strcmp(a->by, b->by) == 0 &&
                    has_role(b->role, roles, role_count);
        }
        count += again ? 0 : 1;
    }
    return count;
}

/* --- what is compared must be known of the stable version, before anything moves --- */

static bool is_compared(const struct metric_rule *rule)
{
    return rule->target != NULL && rule->metric != NULL &&
           rule->metric->rule == ROLLOUT_RULE_COMPARE && !rule->metric->dry_run;
}

/* The newest of the kind that has ended since the gate was reached; NULL: none has. */
static const Pb__RolloutActionRecord *newest_ended(const struct decision *d,
                                                   Pb__RolloutActionKind kind, uint32_t metric,
                                                   uint64_t from_ms)
{
    const Pb__RolloutActionRecord *found = NULL;

    for (size_t i = 0; i < d->v->action_count; i++) {
        const Pb__RolloutActionRecord *a = d->v->actions[i];
        if (a->kind == kind && a->metric == metric && a->epoch == d->r->epoch &&
            a->state != ROLLOUT_ACTION_RUNNING && !a->stale && a->begun_ms >= from_ms &&
            (kind != ROLLOUT_ACTION_STATUS || a->slot == other_slot(d->r->slot)) &&
            (found == NULL || a->seq > found->seq)) {
            found = a;
        }
    }
    return found;
}

static bool knows_stable(const struct decision *d, const Pb__RolloutActionRecord *sample)
{
    Pb__MetricAnswer *answer;

    if (PB_UNPACK(d->a, metric_answer, sample->answer.data, sample->answer.len, sample->answer.len,
                  &answer) < 0) {
        return false;
    }
    for (size_t i = 0; i < answer->n_series; i++) {
        if (answer->series[i]->slot == other_slot(d->r->slot)) {
            return true;
        }
    }
    return false;
}

static const char *metric_missing(const struct decision *d, const struct metric_rule *rule,
                                  uint64_t from_ms)
{
    const Pb__RolloutActionRecord *a = newest_ended(d, ROLLOUT_ACTION_SAMPLE, rule->target_index,
                                                    from_ms);

    if (a == NULL) {
        return "";
    }
    if (a->state == ROLLOUT_ACTION_BAD) {
        return arena_printf(d->a, "metric %s cannot be had: %s", rule->metric->metric, a->error);
    }
    return knows_stable(d, a)
               ? NULL
               : arena_printf(d->a,
                              "metric %s has nothing of the stable version that it is to be "
                              "compared with: look at its query",
                              rule->metric->metric);
}

const char *gate_metrics(struct decision *d)
{
    const Pb__RolloutActionRecord *status;
    const char *missing = NULL;
    struct slot_seen seen;
    bool any = false;

    for (size_t i = 0; i < d->rule_count; i++) {
        any = any || is_compared(&d->rules[i]);
    }
    if (!any || d->v->stable == NULL || d->r->undo ||
        d->v->plan->spec->on_no_data == ROLLOUT_POLICY_PASS) {
        return NULL;
    }
    look_slot(d, other_slot(d->r->slot), NULL, pb_str(d->v->stable->digest), &seen);
    if (seen.seen_ms == 0) {
        status = newest_ended(d, ROLLOUT_ACTION_STATUS, 0, d->r->state_ms);
        act_look(d);
        return status != NULL && status->state == ROLLOUT_ACTION_BAD
                   ? arena_printf(d->a, "the stable version cannot be seen: %s", status->error)
                   : "";
    }
    for (size_t i = 0; i < d->rule_count && missing == NULL; i++) {
        missing = is_compared(&d->rules[i])
                      ? metric_missing(d, &d->rules[i], MAX(seen.seen_ms, d->r->state_ms))
                      : NULL;
    }
    if (missing != NULL) {
        act_look(d);
        act_sample(d);
    }
    return missing;
}
