#include "common/base.h"

#include "broker/rollout/state.h"
#include "common/err.h"
#include "common/limits.h"

#define KILL_METRIC      "error_rate"
#define ALPHA_MILLIONTHS 10000u /* where the file does not say: 1 % */
#define TOLERANCE_MIN    1000u
#define TOLERANCE_MAX    1000000u
#define PERCENTILE_MAX   9999u
#define MILLIONTHS       1000000u

static bool of_instances(const char *metric)
{
    return strcmp(metric, "readiness") == 0 || strcmp(metric, "restarts") == 0;
}

static const char *known(const Pb__RolloutTarget *target, struct arena *a)
{
    struct buf b = BUF_INIT;
    const char *names;

    for (size_t i = 0; i < target->n_metrics; i++) {
        buf_addf(&b, "%s%s", i > 0 ? ", " : "", target->metrics[i]->name);
    }
    names = arena_strdup(a, buf_str(&b));
    buf_release(&b);
    return target->n_metrics > 0 ? names : "none";
}

/* "latency_p99" is that percentile of the histogram "latency". */
static bool is_percentile_of(const Pb__RolloutMetric *m, const Pb__TargetMetric *t)
{
    const struct str name = str_from(m->metric);
    const size_t n = strlen(t->name);

    return t->kind == TARGET_METRIC_HISTOGRAM && m->percentile != 0 && name.n > n + 2 &&
           str_starts(name, str_from(t->name)) && str_starts(str_sub(name, n, name.n), STR("_p"));
}

static int find(const Pb__RolloutTarget *target, struct arena *a, struct metric_rule *rule,
                const char **ret_why)
{
    for (size_t i = 0; i < 2 * target->n_metrics; i++) { /* its own name counts more */
        const Pb__TargetMetric *t = target->metrics[i % target->n_metrics];
        if (i < target->n_metrics ? strcmp(t->name, rule->metric->metric) == 0
                                  : is_percentile_of(rule->metric, t)) {
            rule->target = target->metrics[i % target->n_metrics];
            rule->target_index = (uint32_t)(i % target->n_metrics);
            return 0;
        }
    }
    if (of_instances(rule->metric->metric)) {
        return 0;
    }
    *ret_why = arena_printf(a,
                            "target '%s' has no metric '%s'; it has: %s; and readiness, restarts",
                            target->name, rule->metric->metric, known(target, a));
    return -E_INVALID;
}

/* What is wrong with how the metric is to be judged, given what it is; NULL: nothing. */
static const char *unfit(const struct metric_rule *rule)
{
    const Pb__RolloutMetric *m = rule->metric;
    const bool value = rule->target != NULL && rule->target->kind == TARGET_METRIC_VALUE;

    if (rule->target == NULL || m->rule == ROLLOUT_RULE_FAILURES) {
        if (rule->target != NULL) {
            return "failures: is for readiness and restarts";
        }
        return m->rule != ROLLOUT_RULE_FAILURES ? "has no share of requests: give it failures:"
               : m->failures == 0               ? "failures: must be at least 1"
                                                : NULL;
    }
    if (m->rule == ROLLOUT_RULE_COMPARE) {
        return value ? "is a value, of which no count can be compared: give it a threshold"
               : m->tolerance_millis < TOLERANCE_MIN || m->tolerance_millis > TOLERANCE_MAX
                   ? "tolerance: must be 1 to 1000"
               : m->percentile > PERCENTILE_MAX ? "its percentile must be below 100"
                                                : NULL;
    }
    if (rule->target->kind == TARGET_METRIC_RATIO &&
        (m->threshold_micros == 0 || m->threshold_micros >= MILLIONTHS)) {
        return "is a share: its threshold must be above 0 and below 100%";
    }
    if (rule->target->kind == TARGET_METRIC_HISTOGRAM &&
        (m->threshold_micros == 0 || m->percentile > PERCENTILE_MAX)) {
        return "is a time: its threshold must be above 0, its percentile below 100";
    }
    return m->below && !value ? "only a value can be too low" : NULL;
}

static bool counts_for_alpha(const struct metric_rule *rule)
{
    return rule->metric != NULL && !rule->metric->dry_run && metric_counts_requests(rule);
}

/* The ratio that the target's kill line is about. */
static int kill_index(const Pb__RolloutTarget *target)
{
    int found = -1;

    for (size_t i = target->n_metrics; i-- > 0;) {
        const Pb__TargetMetric *m = target->metrics[i];

        if (m->kind == TARGET_METRIC_RATIO && strcmp(m->name, KILL_METRIC) == 0) {
            return (int)i;
        }
        found = m->kind == TARGET_METRIC_RATIO ? (int)i : found;
    }
    return found;
}

static int add_kill(const Pb__RolloutTarget *target, struct arena *a, struct metric_rule *rules,
                    size_t *n, const char **ret_why)
{
    const int at = kill_index(target);
    const double kill = target->kill_ratio_millionths / (double)MILLIONTHS;

    if (target->kill_ratio_millionths == 0) {
        return 0;
    }
    if (at < 0 || target->kill_ratio_millionths >= MILLIONTHS) {
        *ret_why = arena_printf(a, "target '%s' has a kill line %s", target->name,
                                at < 0 ? "but no metric that is a share of requests"
                                       : "of 100% or more, which nothing can be above");
        return -E_INVALID;
    }
    for (size_t i = 0; i < *n; i++) {
        if (rules[i].target == target->metrics[at]) {
            rules[i].kill = kill;
            return 0;
        }
    }
    rules[(*n)++] = (struct metric_rule){
        .target = target->metrics[at], .target_index = (uint32_t)at, .kill = kill};
    return 0;
}

int metric_rules(const Pb__RolloutSpec *spec, const Pb__RolloutTarget *target, struct arena *a,
                 struct metric_rule **ret, size_t *ret_n, const char **ret_why)
{
    const uint32_t alpha = spec->alpha_millionths != 0 ? spec->alpha_millionths : ALPHA_MILLIONTHS;
    struct metric_rule *rules = arena_array(a, spec->n_analysis + 1, sizeof(*rules));
    size_t n = 0, tests;
    int r;

    if (spec->n_analysis > LIMIT_ROLLOUT_METRICS || alpha >= MILLIONTHS) {
        *ret_why = arena_printf(a, "at most %u metrics, and alpha below 100%%",
                                LIMIT_ROLLOUT_METRICS);
        return -E_LIMIT;
    }
    for (; n < spec->n_analysis; n++) {
        rules[n] = (struct metric_rule){.metric = spec->analysis[n]};
        r = find(target, a, &rules[n], ret_why);
        if (r < 0) {
            return r;
        }
        if (unfit(&rules[n]) != NULL) {
            *ret_why = arena_printf(a, "metric '%s': %s", metric_name(&rules[n]), unfit(&rules[n]));
            return -E_INVALID;
        }
    }
    r = add_kill(target, a, rules, &n, ret_why);
    if (r < 0) {
        return r;
    }
    tests = target->kill_ratio_millionths != 0;
    for (size_t i = 0; i < n; i++) {
        tests += counts_for_alpha(&rules[i]) +
                 (counts_for_alpha(&rules[i]) && metric_compares(&rules[i]) && spec->bake_ms > 0);
    }
    for (size_t i = 0; i < n; i++) {
        rules[i].alpha = alpha / (double)MILLIONTHS / (double)MAX(tests, 1u);
    }
    *ret = rules;
    *ret_n = n;
    return 0;
}

static const char *threshold_text(const struct metric_rule *rule, struct arena *a)
{
    const double v = (double)rule->metric->threshold_micros / 1e6;
    const char *name = metric_name(rule);

    switch (rule->target->kind) {
    case TARGET_METRIC_RATIO:
        return arena_printf(a, "%s: at most %.4g%% of requests", name, v * 100);
    case TARGET_METRIC_HISTOGRAM:
        return arena_printf(a, "%s: at least %.4g%% of requests within %.6g s", name,
                            metric_percentile(rule) / 100.0, v);
    case TARGET_METRIC_VALUE:
    case _PB__TARGET_METRIC_KIND_IS_INT_SIZE:
    default:
        return arena_printf(a, "%s: at %s %.6g", name, rule->metric->below ? "least" : "most", v);
    }
}

const char *metric_rule_text(const struct metric_rule *rule, struct arena *a)
{
    const char *name = metric_name(rule);

    if (rule->metric == NULL) {
        return arena_printf(a, "%s: below the target's kill line of %.4g%%", name,
                            rule->kill * 100);
    }
    if (rule->target == NULL) {
        return arena_printf(a, "%s: fewer than %u %s", name, rule->metric->failures,
                            strcmp(name, "restarts") == 0 ? "of an instance"
                                                          : "looks in a row without it");
    }
    if (metric_compares(rule)) {
        return arena_printf(a, "%s: at most %.4g times that of stable", name,
                            metric_tolerance(rule));
    }
    return threshold_text(rule, a);
}
