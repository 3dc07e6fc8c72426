/* A target with metrics, a spec that judges them, and samples of both versions. The canary stands
 * in slot B. A test's *state is its struct numbers. */
#ifndef DAVIT_TESTS_ROLLOUT_FIXTURE_H
#define DAVIT_TESTS_ROLLOUT_FIXTURE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "broker/rollout/explain.h"
#include "broker/rollout/verdict.h"
#include "proto/pb.h"

#define METRICS_MAX 8u
#define SERIES_MAX  8u

struct numbers {
    struct arena arena;
    Pb__RolloutSpec spec;
    Pb__RolloutTarget target;
    Pb__RolloutMetric analysis[METRICS_MAX];
    Pb__RolloutMetric *analysis_at[METRICS_MAX];
    Pb__TargetMetric metrics[METRICS_MAX];
    Pb__TargetMetric *metrics_at[METRICS_MAX];
    struct metric_rule *rules;
    size_t rule_count;
    const char *why;
    Pb__RolloutMetricRecord *rows[METRICS_MAX];
    Pb__MetricSeries series[SERIES_MAX];
    Pb__MetricSeries *series_at[SERIES_MAX];
    Pb__MetricAnswer answer; /* of both versions, one instance each: series 0 is stable's */
    uint64_t now_ms;
    uint64_t evidence_from_ms;
    bool alone;
};

int numbers_setup(void **state);
int numbers_teardown(void **state);

/* error_rate (ratio), latency (histogram), queue (value) are the target's metrics. */
Pb__RolloutMetric *judged_by(struct numbers *n, const char *metric, Pb__RolloutRule rule);
int make_rules(struct numbers *n);
/* One look after two seconds of so many requests, for rule i: the row it leaves. */
const Pb__RolloutMetricRecord *look(struct numbers *n, size_t i, double stable, double stable_bad,
                                    double canary, double canary_bad);
/* The same by the answer as it is, or an error. */
const Pb__RolloutMetricRecord *look_at(struct numbers *n, size_t i, const char *error);
/* Buckets of 0.1, 0.25, 0.5, 1 second and all, cumulative, for series `s`. */
void buckets(struct numbers *n, size_t s, double a, double b, double c, double d, double all);
const Pb__RolloutMetricRecord *look_at_instances(struct numbers *n, size_t i,
                                                 Pb__InstanceState *const *of, size_t count);

#endif
