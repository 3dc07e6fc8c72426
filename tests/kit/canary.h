/* Rollouts of a seed: what both versions serve, look by look, and rules that watch them. Used by
 * tests and by ./bench rollout-stats. Threads: none shared. */
#ifndef DAVIT_TESTS_KIT_CANARY_H
#define DAVIT_TESTS_KIT_CANARY_H

#include "broker/rollout/sequential.h"
#include "tests/kit/chance.h"

#define CANARY_TICK_S    2u
#define CANARY_TOLERANCE 1.2
#define CANARY_ALPHA     0.01

/* What is served. All shares are of requests. */
struct canary_traffic {
    double rps;
    double weight;     /* the canary's share of them */
    bool weights_rise; /* 5 %, 25 %, 50 % of all, each a third of the time, instead */
    double base;       /* stable's share of bad ones */
    bool
        base_swings; /* between a fifth and ten times of it, every two minutes, for both versions */
    double fault;    /* the canary's share of bad ones from fault_tick on; */
    double worse;    /* before, and where fault is 0: so many times those of stable */
    uint32_t fault_tick;
    uint32_t ticks; /* how long it is watched */
};

/* Those that watch. */
enum canary_rule {
    CANARY_SEQUENTIAL, /* compare_bad of sequential.h, and five bad requests */
    CANARY_PLAIN,      /* the same without bets on a late beginning */
    CANARY_SHARE, /* every 10 s, from the first minute on: of the last one more than 1 % bad; the
                     fifth time */
    CANARY_RATIO, /* every 10 s: in the last minute 1.2 times stable's share; the fifth time */
    CANARY_RULES,
};
extern const char *const canary_rule_names[CANARY_RULES];

/* One rollout: at which tick (from 1) each rule has failed it, 0: not. */
void canary_run(struct chance *chance, const struct canary_traffic *traffic,
                uint32_t ret_tick[CANARY_RULES]);

#endif
