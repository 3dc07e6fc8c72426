#include "common/base.h"

#include <math.h>

#include "broker/rollout/state.h"
#include "common/limits.h"
#include "proto/pb.h"

#define TALLY_FIELDS 4u

/* ---- stored and back ---- */

Pb__MetricState *metric_state_of(const Pb__RolloutMetricRecord *row, struct arena *a)
{
    Pb__MetricState *state = NULL;

    if (row == NULL || row->state.len == 0 ||
        pb_unpack_own(a, &pb__metric_state__descriptor, pb_str(row->state),
                      (ProtobufCMessage **)&state) < 0) {
        state = arena_alloc(a, sizeof(*state));
        pb__metric_state__init(state);
    }
    return state;
}

static bool load(double *to, size_t n, const double *from, size_t stored)
{
    for (size_t i = 0; i < n && stored == n; i++) {
        if (isnan(from[i])) {
            return false;
        }
    }
    if (stored != n) {
        return false;
    }
    memcpy(to, from, n * sizeof(*to));
    return true;
}

static void load_evidence(struct evidence *e, const double *from, size_t stored, double looks)
{
    if (looks >= 0 && load(e->ln, SEQUENTIAL_ALTERNATIVES, from, stored)) {
        e->looks = looks;
    }
}

static void load_tally(struct tally *t, const double *from, size_t stored)
{
    double v[TALLY_FIELDS];

    if (load(v, TALLY_FIELDS, from, stored)) {
        *t = (struct tally){v[0], v[1], v[2], v[3]};
    }
}

static void load_counters(const Pb__MetricState *state, struct arena *a, struct counters *c)
{
    const size_t n = state->n_series;

    *c = (struct counters){.taken_ms = state->taken_ms};
    if (state->n_totals != n || state->n_bads != n || state->n_missed != n) {
        return;
    }
    c->of = arena_array(a, n + 1, sizeof(*c->of));
    c->n = n;
    for (size_t i = 0; i < n; i++) {
        c->of[i] = (struct counter){state->series[i], state->totals[i], state->bads[i],
                                    state->missed[i]};
    }
}

void metric_numbers_load(const Pb__MetricState *state, struct arena *a, struct metric_numbers *ret)
{
    struct tally all = {0}, step = {0};

    *ret = (struct metric_numbers){0};
    compare_init(&ret->compare);
    level_init(&ret->level);
    level_init(&ret->kill);
    load_tally(&all, state->all, state->n_all);
    load_tally(&step, state->step, state->n_step);
    load_evidence(&ret->compare.bad, state->bad, state->n_bad, state->bad_looks);
    load(ret->compare.good, SEQUENTIAL_ALTERNATIVES, state->good, state->n_good);
    load(ret->compare.grid, SEQUENTIAL_GRID, state->grid, state->n_grid);
    ret->compare.all = all;
    ret->compare.step = step;
    ret->level.bad = ret->compare.bad;
    load_evidence(&ret->kill.bad, state->kill, state->n_kill, state->kill_looks);
    ret->level.all = ret->kill.all = all.canary;
    ret->level.all_bad = ret->kill.all_bad = all.canary_bad;
    ret->level.step = ret->kill.step = step.canary;
    ret->level.step_bad = ret->kill.step_bad = step.canary_bad;
    level_init(&ret->alone);
    load_evidence(&ret->alone.bad, state->alone, state->n_alone, state->alone_looks);
    ret->alone.all = ret->alone.step = state->alone_requests;
    ret->alone.all_bad = ret->alone.step_bad = state->alone_bad;
    ret->alone_share = state->alone_share;
    load_counters(state, a, &ret->counters);
}

static double *store_tally(const struct tally *t, struct arena *a)
{
    double *v = arena_array(a, TALLY_FIELDS, sizeof(*v));

    v[0] = t->canary;
    v[1] = t->canary_bad;
    v[2] = t->stable;
    v[3] = t->stable_bad;
    return v;
}

static void store_counters(const struct counters *c, struct arena *a, Pb__MetricState *state)
{
    state->taken_ms = c->taken_ms;
    state->series = arena_array(a, c->n + 1, sizeof(*state->series));
    state->totals = arena_array(a, c->n + 1, sizeof(*state->totals));
    state->bads = arena_array(a, c->n + 1, sizeof(*state->bads));
    state->missed = arena_array(a, c->n + 1, sizeof(*state->missed));
    state->n_series = state->n_totals = state->n_bads = state->n_missed = c->n;
    for (size_t i = 0; i < c->n; i++) {
        state->series[i] = c->of[i].key;
        state->totals[i] = c->of[i].total;
        state->bads[i] = c->of[i].bad;
        state->missed[i] = c->of[i].missed;
    }
}

void metric_numbers_store(struct metric_numbers *n, const struct metric_rule *rule, struct arena *a,
                          Pb__MetricState *state)
{
    struct evidence *bad = metric_compares(rule) ? &n->compare.bad : &n->level.bad;

    state->bad = bad->ln;
    state->n_bad = SEQUENTIAL_ALTERNATIVES;
    state->bad_looks = bad->looks;
    if (metric_compares(rule)) {
        state->good = n->compare.good;
        state->n_good = SEQUENTIAL_ALTERNATIVES;
        state->grid = n->compare.grid;
        state->n_grid = SEQUENTIAL_GRID;
    }
    if (n->alone_share > 0) {
        state->alone_share = n->alone_share;
        state->alone = n->alone.bad.ln;
        state->n_alone = SEQUENTIAL_ALTERNATIVES;
        state->alone_looks = n->alone.bad.looks;
        state->alone_requests = n->alone.all;
        state->alone_bad = n->alone.all_bad;
    }
    if (rule->kill > 0) {
        state->kill = n->kill.bad.ln;
        state->n_kill = SEQUENTIAL_ALTERNATIVES;
        state->kill_looks = n->kill.bad.looks;
    }
    state->all = store_tally(&n->compare.all, a);
    state->step = store_tally(&n->compare.step, a);
    state->n_all = state->n_step = TALLY_FIELDS;
    store_counters(&n->counters, a, state);
}

/* ---- what a rule asks for ---- */

bool metric_compares(const struct metric_rule *rule)
{
    return rule->metric != NULL && rule->metric->rule == ROLLOUT_RULE_COMPARE;
}

bool metric_counts_requests(const struct metric_rule *rule)
{
    return rule->target != NULL && rule->target->kind != TARGET_METRIC_VALUE;
}

double metric_tolerance(const struct metric_rule *rule)
{
    return rule->metric->tolerance_millis / 1000.0;
}

uint32_t metric_percentile(const struct metric_rule *rule)
{
    return rule->metric->percentile != 0 ? rule->metric->percentile : 9900;
}

double metric_share(const struct metric_rule *rule)
{
    if (rule->metric == NULL) {
        return rule->kill;
    }
    if (rule->target->kind == TARGET_METRIC_HISTOGRAM) {
        return 1 - metric_percentile(rule) / 10000.0;
    }
    return (double)rule->metric->threshold_micros / 1e6;
}

double metric_min_events(const struct metric_rule *rule)
{
    const bool said = rule->metric != NULL && rule->metric->min_events != 0;

    return said ? rule->metric->min_events : VERDICT_MIN_EVENTS;
}

double metric_needed(const struct metric_rule *rule)
{
    check(rule->alpha > 0 && rule->alpha < 1);
    return -log(rule->alpha);
}

const char *metric_name(const struct metric_rule *rule)
{
    return rule->metric != NULL ? rule->metric->metric : rule->target->name;
}

double metric_bad(const struct metric_rule *rule, const struct metric_numbers *n)
{
    return metric_compares(rule) ? compare_bad(&n->compare) : level_bad(&n->level);
}

static bool is_bad_alone(const struct metric_rule *rule, const struct metric_numbers *n)
{
    return n->alone_share > 0 && n->alone.all_bad >= metric_min_events(rule) &&
           level_bad(&n->alone) >= -log(rule->alpha / 2);
}

void metric_alone(const struct metric_rule *rule, struct metric_numbers *n,
                  const struct tally *look)
{
    double low, high;

    if (look->stable > 0 || look->canary == 0 || n->compare.all.stable == 0) {
        return;
    }
    if (n->alone_share == 0) {
        level_interval(n->compare.all.stable, n->compare.all.stable_bad, rule->alpha / 2, &low,
                       &high);
        n->alone_share = fmin(high * metric_tolerance(rule), 1);
    }
    level_add(&n->alone, n->alone_share, look->canary, look->canary_bad);
}

bool metric_is_bad(const struct metric_rule *rule, const struct metric_numbers *n)
{
    if (is_bad_alone(rule, n)) {
        return true;
    }
    return metric_bad(rule, n) >= metric_needed(rule) &&
           n->compare.all.canary_bad >= metric_min_events(rule);
}

bool metric_is_good(const struct metric_rule *rule, const struct metric_numbers *n)
{
    const struct tally *step = &n->compare.step;

    if (!metric_compares(rule)) {
        return level_good(&n->level, metric_share(rule)) >= metric_needed(rule);
    }
    return compare_good(&n->compare) >= metric_needed(rule) ||
           level_good_of(VERDICT_HARMLESS, step->canary, step->canary_bad) >= metric_needed(rule);
}
