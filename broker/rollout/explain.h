/* What a metric's numbers are, for people: counts, shares, ratio and its interval, evidence against
 * what would be needed, and what would decide it. Everything from the row alone. Threads: pure. */
#ifndef DAVIT_ROLLOUT_EXPLAIN_H
#define DAVIT_ROLLOUT_EXPLAIN_H

#include "broker/rollout/verdict.h"
#include "common/buf.h"

/* One line, for RolloutMetricRecord.text: "18 of 500 bad (3.6 %), stable 11 of 9,500 (0.12 %): 31
 * times as many (8 to 128)". */
const char *explain_line(const struct metric_rule *rule, const Pb__MetricState *state,
                         struct arena *a);

/* Some lines, each ended by a line feed, without indentation. */
void explain_metric(const struct metric_rule *rule, const Pb__RolloutMetricRecord *row,
                    struct buf *out);

#endif
