#include "common/base.h"

#include "broker/rollout/inside.h"

#include "proto/rollout.h"

/* The metrics of a rollout: samples become rows (verdict.h), rows a judgement. */

void judge_begin(struct decision *d)
{
    const Pb__RolloutPlanRecord *p = d->v->plan;
    const char *why;

    if (metric_rules(p->spec, p->target, d->a, &d->rules, &d->rule_count, &why) < 0) {
        d->rule_count = 0; /* the plan was made of rules that were good */
    }
    d->rows = arena_array(d->a, d->rule_count + 1, sizeof(*d->rows));
    for (size_t i = 0; i < d->v->metric_count; i++) {
        if (d->v->metrics[i]->index < d->rule_count) {
            d->rows[d->v->metrics[i]->index] = d->v->metrics[i];
        }
    }
}

static void put(struct decision *d, uint32_t rule, const struct metric_look *look, uint64_t folded)
{
    Pb__RolloutMetricRecord **rows = arena_array(d->a, d->step->n_metrics + 1, sizeof(*rows));
    const Pb__RolloutMetricRecord *before = d->rows[rule];
    Pb__RolloutMetricRecord *row = metric_look(&d->rules[rule], rule, before, look, d->a);

    row->folded = folded;
    if (before == NULL || before->verdict != row->verdict) {
        rollout_note(d, "verdict", "%s: %s: %s", metric_rule_text(&d->rules[rule], d->a),
                     verdict_text(row->verdict), row->text);
    }
    for (size_t i = 0; i < d->step->n_metrics; i++) {
        if (d->step->metrics[i]->index == rule) { /* another sample of it in the same step */
            d->step->metrics[i] = d->rows[rule] = row;
            return;
        }
    }
    if (d->step->n_metrics > 0) {
        memcpy(rows, d->step->metrics, d->step->n_metrics * sizeof(*rows));
    }
    rows[d->step->n_metrics++] = d->rows[rule] = row;
    d->step->metrics = rows;
    d->changed = true;
}

static struct metric_look look_from(const struct decision *d)
{
    return (struct metric_look){.now_ms = d->now_ms,
                                .evidence_from_ms = d->r->evidence_from_ms,
                                .canary = d->r->slot,
                                .alone = d->r->observed_bp >= ROLLOUT_FULL_BP};
}

static void fold_sample(struct decision *d, const Pb__RolloutActionRecord *a)
{
    struct metric_look look = look_from(d);
    Pb__MetricAnswer *answer;

    if (a->state == ROLLOUT_ACTION_BAD) {
        look.error = a->error[0] != '\0' ? a->error : "no answer";
    } else if (PB_UNPACK(d->a, metric_answer, a->answer.data, a->answer.len, a->answer.len,
                         &answer) < 0) {
        look.error = "an answer that is none";
    } else {
        look.answer = answer;
    }
    for (uint32_t i = 0; i < d->rule_count; i++) {
        if (d->rules[i].target != NULL && d->rules[i].target_index == a->metric &&
            (d->rows[i] == NULL || d->rows[i]->folded < a->seq)) {
            put(d, i, &look, a->seq);
        }
    }
}

/* readiness and restarts: of the looks that there are anyhow. */
static void fold_instances(struct decision *d)
{
    struct metric_look look = look_from(d);
    Pb__InstanceState **instances;
    struct slot_seen seen;

    look_slot(d, d->r->slot, d->r->n_wanted > 0 ? d->r->wanted : NULL,
              pb_str(d->v->snapshot->digest), &seen);
    if (seen.seen_ms <= d->r->evidence_from_ms || d->r->ready_ms == 0) {
        return;
    }
    look.instance_count = look_instances(d, d->r->slot, &instances);
    look.instances = instances;
    for (uint32_t i = 0; i < d->rule_count; i++) {
        if (d->rules[i].target == NULL &&
            (d->rows[i] == NULL || d->rows[i]->folded < seen.seen_ms)) {
            put(d, i, &look, seen.seen_ms);
        }
    }
}

/* Samples count from the first weight on; what was asked for before the last change of it says
 * nothing of what is now. */
void judge_fold(struct decision *d)
{
    for (size_t i = 0; i < d->v->action_count; i++) {
        const Pb__RolloutActionRecord *a = d->v->actions[i];
        if (a->kind == ROLLOUT_ACTION_SAMPLE && a->state != ROLLOUT_ACTION_RUNNING &&
            a->begun_ms > d->r->evidence_from_ms && !a->stale) {
            fold_sample(d, a);
        }
    }
    fold_instances(d);
}

struct judged judge_now(const struct decision *d, bool until_good, bool over, bool last)
{
    const struct judge_look look = {
        .spec = d->v->plan->spec,
        .rules = d->rules,
        .rule_count = d->rule_count,
        .rows = d->rows,
        .now_ms = d->now_ms,
        .evidence_from_ms = d->r->evidence_from_ms,
        .until_good = until_good,
        .over = over,
        .last = last,
    };

    return judge(&look, d->a);
}
