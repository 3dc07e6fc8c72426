/* What a metric's numbers are, for people: counts, shares, ratio and its interval, evidence against
 * what would be needed, and what would decide it. Everything from the row alone. Threads: pure. */
#ifndef DAVIT_ROLLOUT_EXPLAIN_H
#define DAVIT_ROLLOUT_EXPLAIN_H

#include "broker/rollout/sequential.h"
#include "broker/rollout/verdict.h"
#include "common/buf.h"

/* Of a rule that counts requests. Evidence as natural logarithms: it decides at needed_ln. */
struct metric_figures {
    struct tally counts;         /* since the rollout began */
    uint64_t slower_than_micros; /* HISTOGRAM: what is called bad */
    double ratio;     /* COMPARE, canary to stable; NAN: stable has no bad ones, or none */
    double low, high; /* its interval, high may be INFINITY; THRESHOLD: of the share */
    double bad_ln, good_ln, kill_ln; /* kill_ln: 0 without a kill line */
    double needed_ln;
    struct level
        alone; /* COMPARE, since all traffic was at the canary; decides at needed_ln + ln 2 */
    double alone_share; /* what it is held against then; 0: it has not been alone */
    double min_events;  /* bad requests, before it can be bad */
    double bad_after;   /* requests more, if all of them are bad; 0: it is final, or never */
    double good_after;  /* THIN: as stable's are, or as the canary's so far; 0: never */
};
/* false: the rule does not count requests. */
bool metric_figures(const struct metric_rule *rule, const Pb__RolloutMetricRecord *row,
                    struct arena *a, struct metric_figures *ret);

/* One line, for RolloutMetricRecord.text: "8 of 44 bad (18.2%), stable 5 of 1140 bad (0.439%); 41.5
 * times as many, surely 5.7 to 1024". */
const char *explain_line(const struct metric_rule *rule, const Pb__MetricState *state,
                         struct arena *a);

/* Some lines, each ended by a line feed, without indentation. */
void explain_metric(const struct metric_rule *rule, const Pb__RolloutMetricRecord *row,
                    struct buf *out);

#endif
