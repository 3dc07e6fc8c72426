#include "common/base.h"

#include "tests/unit/rollout/fixture.h"

static void add_metric(struct numbers *n, const char *name, Pb__TargetMetricKind kind)
{
    Pb__TargetMetric *m = &n->metrics[n->target.n_metrics];

    pb__target_metric__init(m);
    m->name = (char *)name;
    m->kind = kind;
    n->metrics_at[n->target.n_metrics++] = m;
}

int numbers_setup(void **state)
{
    struct numbers *n = xcalloc(1, sizeof(*n));

    arena_init(&n->arena, 0);
    pb__rollout_spec__init(&n->spec);
    pb__rollout_target__init(&n->target);
    pb__metric_answer__init(&n->answer);
    n->spec.analysis = n->analysis_at;
    n->target.name = (char *)"web";
    n->target.metrics = n->metrics_at;
    add_metric(n, "error_rate", TARGET_METRIC_RATIO);
    add_metric(n, "latency", TARGET_METRIC_HISTOGRAM);
    add_metric(n, "queue", TARGET_METRIC_VALUE);
    for (size_t i = 0; i < SERIES_MAX; i++) {
        pb__metric_series__init(&n->series[i]);
        n->series_at[i] = &n->series[i];
        n->series[i].slot = i % 2 == 0 ? ROLLOUT_SLOT_A : ROLLOUT_SLOT_B;
        n->series[i].instance = arena_printf(&n->arena, "i%zu", i / 2);
    }
    n->answer.series = n->series_at;
    n->answer.n_series = 2;
    n->now_ms = 1000000;
    *state = n;
    return 0;
}

int numbers_teardown(void **state)
{
    struct numbers *n = *state;

    arena_release(&n->arena);
    free(n);
    return 0;
}

Pb__RolloutMetric *judged_by(struct numbers *n, const char *metric, Pb__RolloutRule rule)
{
    Pb__RolloutMetric *m = &n->analysis[n->spec.n_analysis];

    pb__rollout_metric__init(m);
    m->metric = (char *)metric;
    m->rule = rule;
    m->tolerance_millis = 1200;
    m->failures = 3;
    n->analysis_at[n->spec.n_analysis++] = m;
    return m;
}

int make_rules(struct numbers *n)
{
    return metric_rules(&n->spec, &n->target, &n->arena, &n->rules, &n->rule_count, &n->why);
}

static const Pb__RolloutMetricRecord *take(struct numbers *n, size_t i,
                                           const struct metric_look *in)
{
    n->rows[i] = metric_look(&n->rules[i], (uint32_t)i, n->rows[i], in, &n->arena);
    return n->rows[i];
}

const Pb__RolloutMetricRecord *look_at(struct numbers *n, size_t i, const char *error)
{
    n->now_ms += 2000;
    n->answer.taken_ms = n->now_ms;
    return take(n, i,
                &(struct metric_look){.now_ms = n->now_ms,
                                      .evidence_from_ms = n->evidence_from_ms,
                                      .canary = ROLLOUT_SLOT_B,
                                      .alone = n->alone,
                                      .error = error,
                                      .answer = &n->answer});
}

const Pb__RolloutMetricRecord *look(struct numbers *n, size_t i, double stable, double stable_bad,
                                    double canary, double canary_bad)
{
    n->series[0].total += stable;
    n->series[0].bad += stable_bad;
    n->series[1].total += canary;
    n->series[1].bad += canary_bad;
    return look_at(n, i, NULL);
}

void buckets(struct numbers *n, size_t s, double a, double b, double c, double d, double all)
{
    const uint64_t bounds[] = {100000, 250000, 500000, 1000000, UINT64_MAX};
    const double counts[] = {a, b, c, d, all};
    Pb__MetricSeries *series = &n->series[s];

    series->n_buckets = ARRAY_LEN(bounds);
    series->buckets = arena_array(&n->arena, ARRAY_LEN(bounds), sizeof(*series->buckets));
    for (size_t i = 0; i < ARRAY_LEN(bounds); i++) {
        series->buckets[i] = arena_alloc(&n->arena, sizeof(**series->buckets));
        pb__metric_bucket__init(series->buckets[i]);
        series->buckets[i]->upto_micros = bounds[i];
        series->buckets[i]->count = counts[i];
    }
}

const Pb__RolloutMetricRecord *look_at_instances(struct numbers *n, size_t i,
                                                 Pb__InstanceState *const *of, size_t count)
{
    n->now_ms += 2000;
    return take(n, i,
                &(struct metric_look){.now_ms = n->now_ms,
                                      .canary = ROLLOUT_SLOT_B,
                                      .instances = of,
                                      .instance_count = count});
}
