#include "common/base.h"

#include "broker/core/rollout.h"

#define STATE_COUNT (ROLLOUT_REFUSED + 1)

static const struct row {
    const char *text;
    uint32_t flags;
    uint32_t next;
} states[STATE_COUNT] = {
#define TO(state)                               | (1u << (state))
#define ROLLOUT_STATE(state, text, flags, next) [state] = {text, flags, 0u next},
#include "broker/core/rollout_state.def"
#undef ROLLOUT_STATE
#undef TO
};

static const char *const whys[] = {
    [ROLLOUT_WHY_NONE] = "",
    [ROLLOUT_WHY_PERSON] = "person",
    [ROLLOUT_WHY_METRIC] = "metric",
    [ROLLOUT_WHY_HARD_CHECK] = "hard_check",
    [ROLLOUT_WHY_DEADLINE] = "deadline",
    [ROLLOUT_WHY_SUPERSEDED] = "superseded",
    [ROLLOUT_WHY_GROUP] = "group",
    [ROLLOUT_WHY_SCRIPT] = "script",
    [ROLLOUT_WHY_INCONCLUSIVE] = "inconclusive",
    [ROLLOUT_WHY_ACTION] = "action",
};

static const struct row *row(Pb__RolloutState s)
{
    check((unsigned)s < STATE_COUNT);
    return &states[s];
}

uint32_t rollout_state_flags(Pb__RolloutState s)
{
    return row(s)->flags;
}

bool rollout_may_move(Pb__RolloutState from, Pb__RolloutState to)
{
    check((unsigned)to < STATE_COUNT);
    return (row(from)->next & (1u << to)) != 0;
}

const char *rollout_state_text(Pb__RolloutState s)
{
    return row(s)->text;
}

const char *rollout_why_text(Pb__RolloutWhy w)
{
    check((unsigned)w < ARRAY_LEN(whys));
    return whys[w];
}
