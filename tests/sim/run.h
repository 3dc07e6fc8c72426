/* Running seeds: main.c hands them out, world.c plays one. Threads: one in each process. */
#ifndef DAVIT_SIM_RUN_H
#define DAVIT_SIM_RUN_H

#include "common/base.h"

struct run_options {
    uint64_t steps; /* before the peace; 0: the usual number */
    bool tracing;
    bool paranoid; /* audits after every command, replays always */
};

/* See fair.c. In thousandths of a job. */
struct run_shares {
    uint64_t count, sum, worst;
};

/* Sums over seeds. */
struct run_result {
    uint64_t seeds;
    uint64_t steps;
    uint64_t commands;
    uint64_t refused;
    uint64_t starts;
    uint64_t audits;
    uint64_t losses; /* starts that had less than was acknowledged, as relaxed durability may */
    struct run_shares shares;
    uint64_t hash;
};

/* Ends the process when a rule is broken. */
void run_seed(uint64_t seed, const struct run_options *o, struct run_result *ret);

#endif
