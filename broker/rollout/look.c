#include "common/base.h"

#include <math.h>

#include "broker/rollout/explain.h"
#include "broker/rollout/state.h"
#include "common/err.h"
#include "common/limits.h"

/* One look, being made. */
struct look {
    const struct metric_rule *rule;
    const struct metric_look *in;
    struct arena *a;
    Pb__MetricState *state;
    const char *error; /* why the answer is of no use */
    const char *text;  /* in place of the line that the numbers give */
};

const char *verdict_text(uint32_t verdict)
{
    static const char *const TEXTS[] = {"no data", "thin", "good", "bad", "error", "kill"};

    return verdict < ARRAY_LEN(TEXTS) ? TEXTS[verdict] : "unknown";
}

/* ---- histograms: how many were slower than the bound that was chosen ---- */

/* The number of the first bucket that says nothing new, or is no histogram; 0: it is one. */
static const char *broken(const Pb__MetricSeries *s, struct arena *a)
{
    if (s->n_buckets == 0 || s->n_buckets > LIMIT_METRIC_BUCKETS) {
        return arena_printf(a, "'%s' has %zu buckets, not 1 to %u", s->instance, s->n_buckets,
                            LIMIT_METRIC_BUCKETS);
    }
    for (size_t i = 0; i < s->n_buckets; i++) {
        const Pb__MetricBucket *b = s->buckets[i];

        if (!(b->count >= 0 && b->count <= SEQUENTIAL_COUNT_MAX) ||
            (i > 0 && b->upto_micros <= s->buckets[i - 1]->upto_micros)) {
            return arena_printf(a, "bucket %zu of '%s' is not in order", i + 1, s->instance);
        }
    }
    if (s->buckets[s->n_buckets - 1]->upto_micros != UINT64_MAX) {
        return arena_printf(a, "'%s' has no bucket for all", s->instance);
    }
    return NULL;
}

/* The lowest bound within which the share `within` of all that stable ever answered was. What
 * stable counted in its life may choose the bound: it is chosen before the first request that is
 * judged by it. The highest finite one, where even that is too low; 0: too few to choose by. */
static uint64_t choose(const Pb__MetricAnswer *answer, Pb__RolloutSlot canary, double within)
{
    const double needed = 10 / (1 - within);
    const Pb__MetricSeries *first = NULL;
    double all = 0;

    for (size_t i = 0; i < answer->n_series; i++) {
        const Pb__MetricSeries *s = answer->series[i];

        if (s->slot != canary) {
            all += s->buckets[s->n_buckets - 1]->count;
            first = first != NULL ? first : s;
        }
    }
    if (first == NULL || all < needed) {
        return 0;
    }
    for (size_t b = 0; b + 1 < first->n_buckets; b++) {
        const uint64_t upto = first->buckets[b]->upto_micros;
        double fast = 0;

        for (size_t i = 0; i < answer->n_series; i++) {
            const Pb__MetricSeries *s = answer->series[i];

            for (size_t k = 0; s->slot != canary && k < s->n_buckets; k++) {
                fast += s->buckets[k]->upto_micros == upto ? s->buckets[k]->count : 0;
            }
        }
        if (fast >= within * all || b + 2 == first->n_buckets) {
            return upto;
        }
    }
    return 0;
}

/* The lowest bound that is not below what the user wants: fewer are called slow, never more. */
static uint64_t choose_above(const Pb__MetricAnswer *answer, uint64_t wanted)
{
    const Pb__MetricSeries *s = answer->n_series > 0 ? answer->series[0] : NULL;

    for (size_t i = 0; s != NULL && i + 1 < s->n_buckets; i++) {
        if (s->buckets[i]->upto_micros >= wanted) {
            return s->buckets[i]->upto_micros;
        }
    }
    return 0;
}

static void choose_bound(struct look *l)
{
    const Pb__MetricAnswer *answer = l->in->answer;

    if (l->state->upto_micros != 0) {
        return;
    }
    if (metric_compares(l->rule)) {
        l->state->upto_micros = choose(answer, l->in->canary, metric_percentile(l->rule) / 10000.0);
        l->text = "stable has answered too few requests to tell how fast it is";
    } else {
        l->state->upto_micros = choose_above(answer, l->rule->metric->threshold_micros);
        l->text = "the histogram has no bucket up to the threshold";
    }
    l->text = l->state->upto_micros != 0 || answer->n_series == 0 ? NULL : l->text;
}

static void read_histogram(struct look *l, const Pb__MetricSeries *s, struct reading *r)
{
    const uint64_t upto = l->state->upto_micros;

    r->total = s->buckets[s->n_buckets - 1]->count;
    for (size_t i = 0; i < s->n_buckets; i++) {
        if (s->buckets[i]->upto_micros == upto) {
            r->bad = fmax(r->total - s->buckets[i]->count, 0);
            return;
        }
    }
    l->error = arena_printf(l->a, "'%s' has no bucket of %.6g s, as there was before", s->instance,
                            (double)upto / 1e6);
}

/* All series as counters; 0: of no use, and l->error or l->text says why. */
static struct reading *read_series(struct look *l)
{
    const Pb__MetricAnswer *answer = l->in->answer;
    const bool histogram = l->rule->target->kind == TARGET_METRIC_HISTOGRAM;
    struct reading *readings = arena_array(l->a, answer->n_series + 1, sizeof(*readings));

    for (size_t i = 0; histogram && i < answer->n_series && l->error == NULL; i++) {
        l->error = broken(answer->series[i], l->a);
    }
    if (histogram && l->error == NULL) {
        choose_bound(l);
    }
    for (size_t i = 0; i < answer->n_series && l->error == NULL && l->text == NULL; i++) {
        const Pb__MetricSeries *s = answer->series[i];

        readings[i] = (struct reading){s->slot, s->instance, s->total, s->bad};
        if (histogram) {
            read_histogram(l, s, &readings[i]);
        }
    }
    return l->error == NULL && l->text == NULL ? readings : NULL;
}

/* ---- the kinds of rules ---- */

static bool has_canary(const struct look *l)
{
    for (size_t i = 0; i < l->in->answer->n_series; i++) {
        if (l->in->answer->series[i]->slot == l->in->canary) {
            return true;
        }
    }
    return false;
}

static void add(const struct look *l, struct metric_numbers *n, const struct tally *since)
{
    const struct metric_rule *rule = l->rule;

    if (metric_compares(rule)) {
        if (l->in->alone) {
            metric_alone(rule, n, since);
        }
        compare_add(&n->compare, metric_tolerance(rule), since);
    } else {
        tally_add(&n->compare.all, since);
        tally_add(&n->compare.step, since);
        level_add(&n->level, metric_share(rule), since->canary, since->canary_bad);
    }
    if (rule->kill > 0) {
        level_add(&n->kill, rule->kill, since->canary, since->canary_bad);
    }
}

/* What came in since the last look is in part of before the weight changed: it is no evidence for
 * GOOD. What is worse than tolerated is so at any weight. */
static void renew(struct look *l, struct metric_numbers *n)
{
    if (l->state->evidence_from_ms != l->in->evidence_from_ms) {
        compare_renew(&n->compare);
        level_renew(&n->level);
        l->state->evidence_from_ms = l->in->evidence_from_ms;
    }
}

static enum verdict conclude(const struct look *l, const struct metric_numbers *n)
{
    const struct metric_rule *rule = l->rule;
    const struct tally *step = &n->compare.step;

    if (rule->kill > 0 && level_bad(&n->kill) >= metric_needed(rule) &&
        n->compare.all.canary_bad >= VERDICT_MIN_EVENTS) {
        return VERDICT_KILL;
    }
    if (rule->metric != NULL && metric_is_bad(rule, n)) {
        return VERDICT_BAD;
    }
    if (l->state->no_data || step->canary == 0 || (metric_compares(rule) && step->stable == 0)) {
        return VERDICT_NO_DATA;
    }
    return metric_is_good(rule, n) ? VERDICT_GOOD : VERDICT_THIN;
}

static enum verdict look_at_counts(struct look *l)
{
    struct metric_numbers n;
    struct reading *readings;
    struct tally since;
    enum verdict v = VERDICT_NO_DATA;

    metric_numbers_load(l->state, l->a, &n);
    if (l->in->error == NULL) {
        readings = read_series(l);
        if (readings != NULL &&
            counters_take(&n.counters, l->in->answer->taken_ms, readings, l->in->answer->n_series,
                          l->in->canary, l->a, &n.counters, &since, &l->error) == 0) {
            l->state->no_data = !has_canary(l);
            add(l, &n, &since);
            renew(l, &n);
        }
        l->state->no_data = l->state->no_data || l->text != NULL;
        v = conclude(l, &n);
    }
    metric_numbers_store(&n, l->rule, l->a, l->state);
    /* The numbers die with this function, what points into them must not. */
    l->state = (Pb__MetricState *)pb_copy(l->a, &l->state->base);
    return v;
}

static enum verdict look_at_value(struct look *l)
{
    const bool below = l->rule->metric->below;
    const double bound = (double)l->rule->metric->threshold_micros / 1e6;
    double worst = NAN;

    if (l->in->error != NULL) {
        return VERDICT_ERROR;
    }
    for (size_t i = 0; i < l->in->answer->n_series; i++) {
        const Pb__MetricSeries *s = l->in->answer->series[i];

        if (s->slot == l->in->canary && isfinite(s->value) &&
            (isnan(worst) || (below ? s->value < worst : s->value > worst))) {
            worst = s->value;
        }
    }
    l->state->no_data = isnan(worst);
    if (l->state->no_data) {
        return VERDICT_NO_DATA;
    }
    l->state->value = worst;
    l->state->streak = (below ? worst < bound : worst > bound) ? l->state->streak + 1 : 0;
    return l->state->streak == 0                            ? VERDICT_GOOD
           : l->state->streak >= metric_min_events(l->rule) ? VERDICT_BAD
                                                            : VERDICT_THIN;
}

static enum verdict look_at_instances(struct look *l)
{
    const bool restarts = strcmp(l->rule->metric->metric, "restarts") == 0;
    uint32_t most = 0, unready = 0;

    if (l->in->error != NULL) {
        return VERDICT_ERROR;
    }
    for (size_t i = 0; i < l->in->instance_count; i++) {
        most = MAX(most, l->in->instances[i]->restarts);
        unready += !l->in->instances[i]->ready;
    }
    l->state->no_data = l->in->instance_count == 0;
    if (l->state->no_data) {
        return VERDICT_NO_DATA;
    }
    l->state->value = restarts ? most : unready;
    l->state->streak = restarts ? most : unready > 0 ? l->state->streak + 1 : 0;
    return l->state->streak >= l->rule->metric->failures ? VERDICT_BAD
           : l->state->streak == 0                       ? VERDICT_GOOD
                                                         : VERDICT_THIN;
}

/* ---- the row ---- */

static enum verdict look_once(struct look *l)
{
    enum verdict v;

    if (l->rule->target == NULL) {
        v = look_at_instances(l);
    } else if (metric_counts_requests(l->rule)) {
        v = look_at_counts(l);
    } else {
        v = look_at_value(l);
    }
    l->error = l->in->error != NULL ? l->in->error : l->error;
    if (l->error == NULL) {
        l->state->error_since_ms = 0;
        l->state->looks++;
        return v;
    }
    if (l->state->error_since_ms == 0) {
        l->state->error_since_ms = l->in->now_ms;
    }
    l->text = l->error;
    return VERDICT_ERROR;
}

static bool is_final(const struct metric_rule *rule, enum verdict v)
{
    return v == VERDICT_KILL ||
           (v == VERDICT_BAD && rule->metric->critical && !rule->metric->dry_run);
}

Pb__RolloutMetricRecord *metric_look(const struct metric_rule *rule, uint32_t index,
                                     const Pb__RolloutMetricRecord *before,
                                     const struct metric_look *look, struct arena *a)
{
    struct look l = {rule, look, a, metric_state_of(before, a), NULL, NULL};
    Pb__RolloutMetricRecord *row = arena_alloc(a, sizeof(*row));
    struct buf packed = BUF_INIT;

    check(look->error != NULL || rule->target == NULL || look->answer != NULL);
    pb__rollout_metric_record__init(row);
    row->index = index;
    row->verdict_ms = look->now_ms;
    row->folded = before != NULL ? before->folded : 0;
    if (l.state->final) {
        row->verdict = before->verdict;
        row->text = before->text;
        row->state = before->state;
        return row;
    }
    row->verdict = look_once(&l);
    row->text = (char *)(l.text != NULL ? l.text : explain_line(rule, l.state, a));
    l.state->final = is_final(rule, row->verdict);
    PB_PACK(l.state, &packed);
    row->state = pb_bytes(a, buf_str(&packed));
    buf_release(&packed);
    return row;
}
