#include "common/base.h"

#include "broker/rollout/state.h"

/* What one metric means for the step, the gravest last. */
enum weight { PASSES, WAITS, ASKS, HOLDS, FAILS };

static bool counts(const struct metric_rule *rule)
{
    return rule->metric != NULL && !rule->metric->dry_run;
}

/* NULL: not looked at since the rollout's evidence begins. */
static const Pb__RolloutMetricRecord *row_of(const struct judge_look *look, size_t i)
{
    const Pb__RolloutMetricRecord *row = look->rows[i];

    return row != NULL && row->verdict_ms > look->evidence_from_ms ? row : NULL;
}

static enum verdict verdict_of(const struct judge_look *look, size_t i)
{
    const Pb__RolloutMetricRecord *row = row_of(look, i);

    return row != NULL ? (enum verdict)row->verdict : VERDICT_NO_DATA;
}

static const char *describe(const struct judge_look *look, size_t i, struct arena *a)
{
    const Pb__RolloutMetricRecord *row = row_of(look, i);

    if (row == NULL) {
        return arena_printf(a, "%s: not looked at yet", metric_name(&look->rules[i]));
    }
    return arena_printf(a, "%s: %s: %s", metric_name(&look->rules[i]), verdict_text(row->verdict),
                        row->text);
}

static Pb__RolloutPolicy policy_of(const Pb__RolloutSpec *spec, enum verdict v)
{
    return v == VERDICT_ERROR  ? spec->on_error
           : v == VERDICT_THIN ? spec->on_thin
                               : spec->on_no_data;
}

static bool in_grace(const struct judge_look *look, size_t i, struct arena *a)
{
    const uint64_t since = metric_state_of(look->rows[i], a)->error_since_ms;

    return look->now_ms < since + VERDICT_ERROR_GRACE_MS;
}

/* When the step's time is over. */
static enum weight weigh(const struct judge_look *look, size_t i, struct arena *a)
{
    const enum verdict v = verdict_of(look, i);

    if (v == VERDICT_GOOD) {
        return PASSES;
    }
    if (v == VERDICT_BAD || v == VERDICT_KILL) {
        return FAILS;
    }
    if (row_of(look, i) == NULL && !look->last) {
        return WAITS; /* its sample is under way */
    }
    if (v == VERDICT_ERROR && !look->last && in_grace(look, i, a)) {
        return WAITS;
    }
    switch (policy_of(look->spec, v)) {
    case ROLLOUT_POLICY_PASS:
        return PASSES;
    case ROLLOUT_POLICY_FAIL:
        return FAILS;
    case ROLLOUT_POLICY_APPROVE:
        return ASKS;
    case ROLLOUT_POLICY_EXTEND:
    case ROLLOUT_POLICY_SYNTHETIC:
        return look->last ? HOLDS : WAITS;
    case ROLLOUT_POLICY_DEFAULT:
    case _PB__ROLLOUT_POLICY_IS_INT_SIZE:
    default:
        /* A service without errors never shows more than that nothing was bad. */
        return v == VERDICT_ERROR ? HOLDS : v == VERDICT_THIN || look->last ? PASSES : WAITS;
    }
}

/* What ends a rollout at once; also bad ones that are not critical, where the time is over. */
static bool fails(const struct judge_look *look, struct judged *j, struct arena *a)
{
    for (size_t i = 0; i < look->rule_count; i++) {
        const Pb__RolloutMetricRecord *row = look->rows[i];
        const bool killed = row != NULL && row->verdict == VERDICT_KILL;
        const bool bad = row != NULL && counts(&look->rules[i]) && row->verdict == VERDICT_BAD &&
                         (look->rules[i].metric->critical || (look->over && row_of(look, i)));

        if (killed || bad) {
            j->what = JUDGE_FAIL;
            j->why = killed ? ROLLOUT_WHY_HARD_CHECK : ROLLOUT_WHY_METRIC;
            j->text = arena_printf(a, "%s: %s: %s", metric_name(&look->rules[i]),
                                   verdict_text(row->verdict), row->text);
            return true;
        }
    }
    return false;
}

static void survey(const struct judge_look *look, struct judged *j, size_t *ret_counted,
                   size_t *ret_good)
{
    size_t counted = 0, good = 0;

    j->all_good = true;
    for (size_t i = 0; i < look->rule_count; i++) {
        const enum verdict v = verdict_of(look, i);

        if (!counts(&look->rules[i])) {
            continue;
        }
        counted++;
        good += v == VERDICT_GOOD;
        j->all_good &= row_of(look, i) != NULL && v != VERDICT_BAD && v != VERDICT_KILL &&
                       v != VERDICT_ERROR;
        j->synthetic |= (v == VERDICT_NO_DATA || v == VERDICT_THIN) &&
                        policy_of(look->spec, v) == ROLLOUT_POLICY_SYNTHETIC;
    }
    *ret_counted = counted;
    *ret_good = good;
}

/* The gravest of what the metrics mean now that the time is over. */
static void conclude(const struct judge_look *look, struct judged *j, struct arena *a)
{
    static const enum judgement MEANING[] = {
        [PASSES] = JUDGE_GO,  [WAITS] = JUDGE_WAIT, [ASKS] = JUDGE_APPROVE,
        [HOLDS] = JUDGE_HOLD, [FAILS] = JUDGE_FAIL,
    };
    enum weight gravest = PASSES;

    j->text = "nothing was bad";
    for (size_t i = 0; i < look->rule_count; i++) {
        const enum weight w = counts(&look->rules[i]) ? weigh(look, i, a) : PASSES;

        if (w > gravest) {
            gravest = w;
            j->text = describe(look, i, a);
        }
    }
    j->what = MEANING[gravest];
    j->why = gravest == FAILS ? ROLLOUT_WHY_INCONCLUSIVE : ROLLOUT_WHY_NONE;
}

struct judged judge(const struct judge_look *in, struct arena *a)
{
    struct judged j = {.what = JUDGE_WAIT, .why = ROLLOUT_WHY_NONE};
    struct judge_look now = *in;
    const struct judge_look *look = &now;
    size_t counted, good;

    now.over = in->over || in->last;
    survey(look, &j, &counted, &good);
    if (fails(look, &j, a)) {
        j.all_good = false;
    } else if (look->until_good && counted > 0 && good == counted) {
        j.what = JUDGE_GO;
        j.text = "all metrics are good";
    } else if (look->over) {
        conclude(look, &j, a);
    } else {
        j.text = arena_printf(a, "%zu of %zu metrics good", good, counted);
    }
    return j;
}
