#include "common/base.h"

#include <math.h>

#include "broker/rollout/explain.h"
#include "broker/rollout/state.h"

#define SEARCH_MAX   1073741824.0 /* nobody waits for more requests than that */
#define PLAIN_LN_MAX 13.0         /* above it as a power of ten */

static void add_share(struct buf *out, double bad, double of, const char *what)
{
    buf_addf(out, "%.0f of %.0f %s", bad, of, what);
    if (of > 0) {
        buf_addf(out, " (%.3g%%)", 100 * bad / of);
    }
}

static const char *what_is_bad(const struct metric_rule *rule, const Pb__MetricState *state,
                               struct arena *a)
{
    if (rule->target->kind != TARGET_METRIC_HISTOGRAM) {
        return "bad";
    }
    return arena_printf(a, "slower than %.6g s", (double)state->upto_micros / 1e6);
}

static void add_factor(struct buf *out, double factor)
{
    buf_addf(out, factor >= 10 ? "%.0f" : "%.2g", factor);
}

static void add_ratio(const struct compare *c, double alpha, struct buf *out)
{
    const struct tally *t = &c->all;
    double low, high;

    if (t->canary == 0 || t->stable == 0) {
        return;
    }
    compare_interval(c, alpha, &low, &high);
    buf_addz(out, "; ");
    if (t->stable_bad > 0) {
        buf_addf(out, "%.3g times as many, ",
                 t->canary_bad / t->canary * t->stable / t->stable_bad);
    }
    if (low == 0 && isinf(high)) {
        buf_addz(out, "could be anything");
        return;
    }
    buf_addz(out, isinf(high) ? "surely more than " : low == 0 ? "surely less than " : "surely ");
    if (low > 0) {
        add_factor(out, low);
    }
    buf_addz(out, low > 0 && !isinf(high) ? " to " : "");
    if (!isinf(high)) {
        add_factor(out, high);
    }
    buf_addz(out, low == 0 || isinf(high) ? " times" : "");
}

static void add_counts(const struct metric_rule *rule, const Pb__MetricState *state,
                       struct arena *a, struct buf *out)
{
    const char *what = what_is_bad(rule, state, a);
    struct metric_numbers n;
    const struct tally *t = &n.compare.all;
    double low, high;

    metric_numbers_load(state, a, &n);
    add_share(out, t->canary_bad, t->canary, what);
    if (metric_compares(rule)) {
        buf_addz(out, ", stable ");
        add_share(out, t->stable_bad, t->stable, what);
        add_ratio(&n.compare, rule->alpha, out);
    } else if (t->canary > 0) {
        level_interval(t->canary, t->canary_bad, rule->alpha, &low, &high);
        buf_addf(out, "; surely %.3g%% to %.3g%%", low * 100, high * 100);
    }
}

const char *explain_line(const struct metric_rule *rule, const Pb__MetricState *state,
                         struct arena *a)
{
    struct buf b = BUF_INIT;
    const char *line;

    if (rule->target == NULL) {
        const bool restarts = strcmp(metric_name(rule), "restarts") == 0;

        line = restarts ? arena_printf(a, "%u restarts of one instance", state->streak)
                        : arena_printf(a, "%.0f instances not ready; %u looks in a row with any",
                                       state->value, state->streak);
        return state->no_data ? "no instances" : line;
    }
    if (!metric_counts_requests(rule)) {
        line = arena_printf(a, "%.6g; %u looks in a row out of bounds", state->value,
                            state->streak);
        return state->no_data ? "no value of the new version" : line;
    }
    add_counts(rule, state, a, &b);
    line = arena_strdup(a, buf_str(&b));
    buf_release(&b);
    return line;
}

/* ---- what would decide it ---- */

struct question {
    const struct metric_rule *rule;
    const struct metric_numbers *n;
};

static void pretend(const struct question *q, const struct tally *more, struct metric_numbers *n)
{
    *n = *q->n;
    if (metric_compares(q->rule)) {
        compare_add(&n->compare, metric_tolerance(q->rule), more);
    } else {
        tally_add(&n->compare.all, more);
        level_add(&n->level, metric_share(q->rule), more->canary, more->canary_bad);
    }
}

/* So many requests of the canary more, all bad, beside as many of stable's as there were so far. */
static bool would_be_bad(const struct question *q, double count)
{
    const struct tally *t = &q->n->compare.all;
    const double beside = t->canary > 0 ? ceil(count * t->stable / t->canary) : 0;
    const struct tally more = {count, count, fmin(beside, SEQUENTIAL_COUNT_MAX), 0};
    struct metric_numbers n;

    pretend(q, &more, &n);
    return metric_is_bad(q->rule, &n);
}

/* So many more, with as many bad ones as stable has; of a threshold: as the canary has. */
static bool would_be_good(const struct question *q, double count)
{
    const struct tally *t = &q->n->compare.step;
    const bool compares = metric_compares(q->rule);
    const double beside = compares ? ceil(count * t->stable / t->canary) : 0;
    const double of = compares ? t->stable : t->canary;
    const double share = of > 0 ? (compares ? t->stable_bad : t->canary_bad) / of : 0;
    const double others = fmin(beside, SEQUENTIAL_COUNT_MAX);
    const struct tally more = {count, round(count * share), others, round(others * share)};
    struct metric_numbers n;

    pretend(q, &more, &n);
    return metric_is_good(q->rule, &n);
}

/* The least number for which it would; 0: none that anybody would wait for. */
static double least(bool (*would)(const struct question *, double), const struct question *q)
{
    double low = 0, high = 1;

    while (high <= SEARCH_MAX && !would(q, high)) {
        low = high;
        high *= 2;
    }
    while (high <= SEARCH_MAX && high - low > 1) {
        const double middle = floor((low + high) / 2);

        if (would(q, middle)) {
            high = middle;
        } else {
            low = middle;
        }
    }
    return high <= SEARCH_MAX ? high : 0;
}

bool metric_figures(const struct metric_rule *rule, const Pb__RolloutMetricRecord *row,
                    struct arena *a, struct metric_figures *ret)
{
    const Pb__MetricState *state = metric_state_of(row, a);
    struct metric_numbers n;
    const struct question q = {rule, &n};
    struct metric_figures f = {.needed_ln = metric_needed(rule)};
    const struct tally *t = &f.counts;

    if (!metric_counts_requests(rule)) {
        return false;
    }
    metric_numbers_load(state, a, &n);
    f.counts = n.compare.all;
    f.slower_than_micros = state->upto_micros;
    f.min_events = metric_min_events(rule);
    f.bad_ln = metric_bad(rule, &n);
    f.kill_ln = rule->kill > 0 ? level_bad(&n.kill) : 0;
    f.alone = n.alone;
    f.alone_share = n.alone_share;
    f.ratio = t->stable_bad > 0 && t->canary > 0
                  ? t->canary_bad / t->canary * t->stable / t->stable_bad
                  : NAN;
    if (metric_compares(rule)) {
        f.good_ln = compare_good(&n.compare);
        compare_interval(&n.compare, rule->alpha, &f.low, &f.high);
    } else {
        f.good_ln = level_good(&n.level, metric_share(rule));
        level_interval(t->canary, t->canary_bad, rule->alpha, &f.low, &f.high);
    }
    f.bad_after = state->final ? 0 : least(would_be_bad, &q);
    f.good_after = row->verdict == VERDICT_THIN ? least(would_be_good, &q) : 0;
    *ret = f;
    return true;
}

static void add_evidence(struct buf *out, const char *of, double ln, double needed)
{
    buf_addf(out, "evidence of %s: e = ", of);
    if (fabs(ln) <= PLAIN_LN_MAX) {
        buf_addf(out, "%.3g", exp(ln));
    } else {
        buf_addf(out, "10^%.0f", ln / M_LN10);
    }
    buf_addf(out, ", decides at %.4g\n", exp(needed));
}

static void add_figures(const struct metric_rule *rule, const struct metric_figures *f,
                        struct buf *out)
{
    add_evidence(out, "bad", f->bad_ln, f->needed_ln);
    add_evidence(out, "good", f->good_ln, f->needed_ln);
    if (rule->kill > 0) {
        add_evidence(out, "being over the kill line", f->kill_ln, f->needed_ln);
    }
    if (f->alone_share > 0) {
        buf_addf(out,
                 "alone with all traffic: %.0f of %.0f bad, held against %.3g%%, which stable may "
                 "have had\n",
                 f->alone.all_bad, f->alone.all, f->alone_share * 100);
        add_evidence(out, "bad alone", level_bad(&f->alone), f->needed_ln + M_LN2);
    }
    if (f->counts.canary_bad < f->min_events) {
        buf_addf(out, "never bad with fewer than %.0f bad requests\n", f->min_events);
    }
    if (f->bad_after > 0) {
        buf_addf(out, "bad after %.0f more requests, if all of them are bad\n", f->bad_after);
    }
    if (f->good_after > 0) {
        buf_addf(out, "good after about %.0f more requests, if they are as those of %s\n",
                 f->good_after, metric_compares(rule) ? "stable" : "the new version so far");
    }
}

void explain_metric(const struct metric_rule *rule, const Pb__RolloutMetricRecord *row,
                    struct buf *out)
{
    struct arena a;
    struct metric_figures f;

    arena_init(&a, 0);
    buf_addf(out, "%s%s\n", metric_rule_text(rule, &a),
             rule->metric == NULL     ? ""
             : rule->metric->dry_run  ? " (dry run: never counts)"
             : rule->metric->critical ? " (critical)"
                                      : "");
    if (rule->target != NULL && rule->metric != NULL && rule->kill > 0) {
        buf_addf(out, "kill line: %.4g%%\n", rule->kill * 100);
    }
    buf_addf(out, "%s: %s\n", verdict_text(row->verdict), row->text);
    if (row->verdict == VERDICT_ERROR) {
        buf_addf(out, "known before: %s\n", explain_line(rule, metric_state_of(row, &a), &a));
    }
    if (metric_figures(rule, row, &a, &f)) {
        add_figures(rule, &f, out);
    }
    arena_release(&a);
}
