#include "common/base.h"

#include "broker/api/metrics_rollout.h"

#include "broker/core/rollout.h"
#include "broker/rollout/verdict.h"

void rollout_sample_take(struct tx *tx, struct rollout_sample *ret)
{
    const Pb__RolloutRecord *rows[LIMIT_PAGE];
    uint64_t at = 0;
    size_t n;
    do {
        n = rollouts_live_before(tx, at, LIMIT_PAGE, rows);
        for (size_t i = 0; i < n; i++) {
            ret->states[rows[i]->state]++;
            ret->held += rows[i]->held;
            ret->paused += rows[i]->paused;
        }
        at = n > 0 ? rows[n - 1]->id : 0;
    } while (n == LIMIT_PAGE);
}

static void add_head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void add_one(struct buf *out, const char *name, const char *label, const char *text,
                    uint64_t n)
{
    buf_addf(out, "%s{%s=\"%s\"} %" PRIu64 "\n", name, label, text, n);
}

static void add_states(struct buf *out, const struct rollout_sample *s,
                       const struct turn_rollouts *t)
{
    const char *now = "davit_rollouts";
    const char *entered = "davit_rollout_states_total";
    const char *spent = "davit_rollout_state_seconds_total";
    add_head(out, now, "gauge", "Rollouts that have not ended, by state.");
    for (int i = ROLLOUT_QUEUED; i <= (int)ROLLOUT_REFUSED; i++) {
        if ((rollout_state_flags((Pb__RolloutState)i) & ROLLOUT_ENDED) == 0) {
            add_one(out, now, "state", rollout_state_text((Pb__RolloutState)i), s->states[i]);
        }
    }
    add_head(out, entered, "counter", "How often rollouts came into a state, by state.");
    for (int i = ROLLOUT_GATED; i <= (int)ROLLOUT_REFUSED; i++) {
        add_one(out, entered, "state", rollout_state_text((Pb__RolloutState)i), t->entered[i]);
    }
    add_head(out, spent, "counter", "Time in a state, of rollouts that have left it, by state.");
    for (int i = ROLLOUT_QUEUED; i <= (int)ROLLOUT_REFUSED; i++) {
        if ((rollout_state_flags((Pb__RolloutState)i) & ROLLOUT_ENDED) == 0) {
            buf_addf(out, "%s{state=\"%s\"} %.3f\n", spent, rollout_state_text((Pb__RolloutState)i),
                     (double)t->state_ms[i] / 1000);
        }
    }
}

void rollout_sample_add(struct buf *out, const struct rollout_sample *s,
                        const struct turn_rollouts *since_start)
{
    const char *back = "davit_rollout_rollbacks_total";
    const char *verdicts = "davit_rollout_verdicts_total";
    add_states(out, s, since_start);
    add_head(out, "davit_rollouts_held", "gauge", "Rollouts that are held for a person.");
    buf_addf(out, "davit_rollouts_held %" PRIu64 "\n", s->held);
    add_head(out, "davit_rollouts_paused", "gauge", "Rollouts that a person has paused.");
    buf_addf(out, "davit_rollouts_paused %" PRIu64 "\n", s->paused);
    add_head(out, back, "counter", "Ways back that were begun, by reason.");
    for (unsigned i = ROLLOUT_WHY_NONE + 1; i < TURN_ROLLOUT_WHYS; i++) {
        add_one(out, back, "why", rollout_why_text((Pb__RolloutWhy)i), since_start->back[i]);
    }
    add_head(out, verdicts, "counter", "Verdicts on metrics, each time one became another.");
    for (unsigned i = 0; i < TURN_ROLLOUT_VERDICTS; i++) {
        add_one(out, verdicts, "verdict", verdict_text(i), since_start->verdicts[i]);
    }
}
