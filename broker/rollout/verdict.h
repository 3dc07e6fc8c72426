/* What the numbers of a rollout say: of each metric at each look, and of all of them together.
 *
 *   rules = metric_rules(spec, target)          when the plan is made: all mistakes show up here
 *   row[i] = metric_look(&rules[i], row[i], &look)      at every look, for each rule
 *   hard_check(...)                                     at every look, in every state
 *   judge(...)                                          while a step analyses
 *
 * A metric's row (RolloutMetricRecord) holds all that there is to know: a look continues it,
 * whoever made the one before. Nothing is ever decided by a ratio of a few requests: BAD and GOOD
 * are both sequential tests (sequential.h), so that looking often costs nothing.
 *
 * The probability of a false BAD, alpha, is shared equally by all tests of a rollout that count:
 * COMPARE and THRESHOLD of counts, and the kill line.
 *
 * Threads: pure. What is returned lives in the arena that was given. */
#ifndef DAVIT_ROLLOUT_VERDICT_H
#define DAVIT_ROLLOUT_VERDICT_H

#include "common/arena.h"
#include "proto/rollout.h"

#define VERDICT_ERROR_GRACE_MS 60000u
#define VERDICT_MIN_EVENTS     5u /* bad ones before BAD, where the metric does not say */
#define VERDICT_UNREADY_LOOKS  3u /* where the target does not say */
#define VERDICT_RESTARTS       3u
#define VERDICT_HARMLESS       0.001 /* fewer bad requests than one in so many are GOOD anyhow */

/* Stored in RolloutMetricRecord.verdict: append only. */
enum verdict {
    VERDICT_NO_DATA = 0, /* nothing was counted of the canary, or of what it is compared with */
    VERDICT_THIN = 1,    /* not enough to say good or bad */
    VERDICT_GOOD = 2,
    VERDICT_BAD = 3,   /* of a critical metric it is final */
    VERDICT_ERROR = 4, /* the metric could not be had; what was known before is kept */
    VERDICT_KILL = 5,  /* over the target's kill line: final, whatever the metric is for */
};
const char *verdict_text(uint32_t verdict); /* "no data", "thin", ... */

struct metric_rule {
    const Pb__RolloutMetric *metric; /* NULL: watched for the target's kill line alone */
    const Pb__TargetMetric *target;  /* NULL: of instances (readiness, restarts) */
    uint32_t target_index;           /* of `target`, for RolloutActionRecord.metric */
    double alpha;                    /* this test's part */
    double kill;                     /* share of bad requests, 0: none */
};

/* The rules of a rollout: those of spec->analysis, by index, and one more where the target has a
 * kill line and no metric of the analysis is the ratio that it is about: error_rate, or else the
 * target's first ratio. RolloutMetricRecord.index counts in this list. 0, or with one line for
 * people in *ret_why -E_INVALID, -E_LIMIT: a metric that the target does not have, a rule that its
 * kind cannot follow. Points into spec and target. */
int metric_rules(const Pb__RolloutSpec *spec, const Pb__RolloutTarget *target, struct arena *a,
                 struct metric_rule **ret, size_t *ret_n, const char **ret_why);
/* One line, as the user would write it: "error_rate: at most 1.2 times that of stable". */
const char *metric_rule_text(const struct metric_rule *rule, struct arena *a);

struct metric_look {
    uint64_t now_ms;
    uint64_t evidence_from_ms; /* of the rollout: what speaks for GOOD must be younger */
    Pb__RolloutSlot canary;
    bool alone; /* the router was seen to send it all traffic: stable is silent for that, and not
                 * because there are few requests */
    const char *error;                   /* the sample failed, one line; NULL: it did not, and: */
    const Pb__MetricAnswer *answer;      /* of a rule with a target metric */
    Pb__InstanceState *const *instances; /* of the others: the canary's, of all places */
    size_t instance_count;
};

/* One look: the row as it is to be. `before`: NULL at the first look; bytes that are no state count
 * as none (-E_CORRUPT is for the store to tell). Only call it with samples that were asked for
 * after evidence_from_ms: then verdict_ms is younger than that, as invariant I4 wants it. */
Pb__RolloutMetricRecord *metric_look(const struct metric_rule *rule, uint32_t index,
                                     const Pb__RolloutMetricRecord *before,
                                     const struct metric_look *look, struct arena *a);

/* ---- all of them ---- */

enum judgement {
    JUDGE_WAIT = 0,
    JUDGE_GO = 1, /* the step's analysis is passed */
    JUDGE_FAIL = 2,
    JUDGE_HOLD = 3,    /* a person has to look: text says at what */
    JUDGE_APPROVE = 4, /* a policy wants somebody to say yes */
};

struct judged {
    enum judgement what;
    Pb__RolloutWhy why; /* JUDGE_FAIL */
    const char *text;   /* one line: why so, what it waits for */
    bool all_good;      /* nothing that counts is BAD, KILL or ERROR: for verdict_ms of the rollout,
                         * where every row is younger than evidence_from_ms */
    bool synthetic;     /* policy synthetic: there is too little, load is wanted */
};

struct judge_look {
    const Pb__RolloutSpec *spec;
    const struct metric_rule *rules;
    size_t rule_count;
    Pb__RolloutMetricRecord *const *rows; /* by index, NULL: never looked at */
    uint64_t now_ms;
    uint64_t evidence_from_ms; /* of the rollout: rows that are not younger were not looked at */
    bool until_good;           /* the step ends as soon as all are GOOD */
    bool over;                 /* its time is over */
    bool last;                 /* and so is the most that it may be extended: includes `over` */
};

/* KILL and BAD of a critical metric fail at once, in any state; BAD of another one when the step's
 * time is over. Then ERROR (beyond the grace), NO_DATA and THIN follow their policies:
 *   default     ERROR: hold. THIN: pass, as nothing was bad. NO_DATA: extend to the last, then pass
 *   extend      to the last, then hold
 *   synthetic   the same, with load asked for as long as there is too little
 *   approve, pass, fail */
struct judged judge(const struct judge_look *look, struct arena *a);

struct hard_look {
    const Pb__RolloutTarget *target;
    Pb__InstanceState *const *instances; /* of the new version, of all places */
    size_t instance_count;
    bool ready_expected;            /* warm-up is over */
    uint32_t unready_looks;         /* of the rollout's record */
    const Pb__RouterAnswer *router; /* NULL: none, or not read at this look */
    Pb__RolloutSlot slot;           /* of the new version */
    Pb__RolloutMetricRecord *const *rows;
    size_t row_count;
};

/* NULL: nothing is wrong; else one line for people: not ready too often in a row, restarting over
 * and over, traffic without a server, over the kill line. *ret_unready_looks is for the record. */
const char *hard_check(const struct hard_look *look, struct arena *a, uint32_t *ret_unready_looks);

#endif
