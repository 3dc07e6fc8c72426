/* The stored form of what one metric's statistics keep, and back. Private to broker/rollout. */
#ifndef DAVIT_ROLLOUT_STATE_H
#define DAVIT_ROLLOUT_STATE_H

#include "broker/rollout/counter.h"
#include "broker/rollout/verdict.h"

/* The numbers of a MetricState, ready to be continued. `level` and `kill` count the canary alone.
 */
struct metric_numbers {
    struct compare compare; /* of a rule that compares */
    struct level level;     /* of one with a threshold */
    struct level kill;      /* of one with a kill line */
    struct level alone;     /* of one that compares, when stable has no requests any more */
    double alone_share;     /* what it is held against; 0: it has not been alone yet */
    struct counters counters;
};

/* An empty one, or that of the row: in `a`. */
Pb__MetricState *metric_state_of(const Pb__RolloutMetricRecord *row, struct arena *a);
/* What is missing, or has another length than it should, begins anew. */
void metric_numbers_load(const Pb__MetricState *state, struct arena *a, struct metric_numbers *ret);
/* The state points into the numbers, and into `a`. */
void metric_numbers_store(struct metric_numbers *n, const struct metric_rule *rule, struct arena *a,
                          Pb__MetricState *state);

/* What a rule asks for. */
bool metric_compares(const struct metric_rule *rule);
bool metric_counts_requests(const struct metric_rule *rule); /* ratios and histograms */
double metric_tolerance(const struct metric_rule *rule);
double metric_share(const struct metric_rule *rule); /* THRESHOLD of counts, or the kill line */
uint32_t metric_percentile(const struct metric_rule *rule);
double metric_min_events(const struct metric_rule *rule);
/* ln E >= this decides. */
double metric_needed(const struct metric_rule *rule);
const char *metric_name(const struct metric_rule *rule);
/* Evidence, and whether it is enough, of a rule that counts requests. */
double metric_bad(const struct metric_rule *rule, const struct metric_numbers *n);
/* One look of a rule that compares, with all traffic at the canary: then there is nothing to
 * compare with but what stable was: the highest share that its own counts do not refute, times the
 * tolerance, is what the canary is held against from then on. Half of this test's alpha is for that
 * bound, half for the test; so rules count it as one test more. It supposes that stable would be
 * now as it was. */
void metric_alone(const struct metric_rule *rule, struct metric_numbers *n,
                  const struct tally *look);
bool metric_is_bad(const struct metric_rule *rule, const struct metric_numbers *n);
bool metric_is_good(const struct metric_rule *rule, const struct metric_numbers *n);

#endif
