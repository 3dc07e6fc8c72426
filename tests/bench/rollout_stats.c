/* How often healthy rollouts are failed, and how soon faulty ones: sequential tests and rules of
 * thresholds watch the same traffic, of a fixed seed. Prints a JSON object a line: name, unit,
 * samples. `rollout_stats ROLLOUTS`: so many healthy ones a line, a tenth of them faulty. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/str.h"
#include "tests/kit/canary.h"

#define TEN_MINUTES 300u
#define LATE_TICK   900u /* half an hour */

static void print_share(const char *name, const char *rule, uint64_t of, uint64_t all)
{
    printf("{\"name\": \"%s: %s\", \"unit\": \"%%\", \"samples\": [%.3f]}\n", name, rule,
           100.0 * (double)of / (double)all);
}

static void healthy(const char *name, struct canary_traffic t, uint64_t rollouts)
{
    struct chance chance = {20};
    uint64_t failed[CANARY_RULES] = {0};

    t.ticks = TEN_MINUTES;
    for (uint64_t i = 0; i < rollouts; i++) {
        uint32_t tick[CANARY_RULES];

        canary_run(&chance, &t, tick);
        for (size_t k = 0; k < CANARY_RULES; k++) {
            failed[k] += tick[k] != 0;
        }
    }
    for (size_t k = 0; k < CANARY_RULES; k++) {
        print_share(name, canary_rule_names[k], failed[k], rollouts);
    }
    fflush(stdout);
}

/* Seconds from the fault to its verdict, of those that were found in ten minutes; a verdict before
 * there was a fault is none. */
static void faulty(const char *name, struct canary_traffic t, uint64_t rollouts)
{
    const enum canary_rule rules[] = {CANARY_SEQUENTIAL, CANARY_PLAIN, CANARY_SHARE};
    uint32_t *ticks = xcalloc(rollouts, CANARY_RULES * sizeof(*ticks));
    struct chance chance = {21};

    t.ticks = t.fault_tick + TEN_MINUTES;
    for (uint64_t i = 0; i < rollouts; i++) {
        canary_run(&chance, &t, ticks + i * CANARY_RULES);
    }
    for (size_t k = 0; k < ARRAY_LEN(rules); k++) {
        uint64_t found = 0;

        printf("{\"name\": \"%s: %s\", \"unit\": \"s\", \"samples\": [", name,
               canary_rule_names[rules[k]]);
        for (uint64_t i = 0; i < rollouts; i++) {
            const uint32_t tick = ticks[i * CANARY_RULES + rules[k]];

            if (tick > t.fault_tick) {
                printf("%s%u", found++ > 0 ? ", " : "", (tick - t.fault_tick) * CANARY_TICK_S);
            }
        }
        printf("], \"found\": %.1f}\n", 100.0 * (double)found / (double)rollouts);
    }
    fflush(stdout);
    free(ticks);
}

int main(int argc, char **argv)
{
    const struct canary_traffic usual = {.rps = 200, .weight = 0.05, .base = 0.005};
    const double rates[] = {1, 10, 100, 1000}, faults[] = {1, 0.5, 0.2, 0.1, 0.05, 0.02};
    struct canary_traffic t = usual;
    char name[128];
    uint64_t n;

    if (argc != 2 || str_to_u64(str_from(argv[1]), &n) < 0 || n < 10 || n > 1000000) {
        fprintf(stderr, "usage: rollout_stats ROLLOUTS (10 to 1000000)\n");
        return 64;
    }
    for (size_t i = 0; i < ARRAY_LEN(rates); i++) {
        t.rps = rates[i];
        snprintf(name, sizeof(name), "healthy failed at %.0f rps", rates[i]);
        healthy(name, t, n);
    }
    t = usual;
    t.rps = 20;
    healthy("healthy failed at 60 canary requests a minute", t, n);
    t = usual;
    t.worse = CANARY_TOLERANCE;
    healthy("failed though just tolerable", t, n);
    t = usual;
    t.base_swings = true;
    t.weights_rise = true;
    healthy("healthy failed with weights and base rate that change", t, n);
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        t = usual;
        t.fault = faults[i];
        snprintf(name, sizeof(name), "%.0f %% errors found", 100 * faults[i]);
        faulty(name, t, n / 10);
    }
    for (size_t i = 0; i < ARRAY_LEN(faults); i += 2) {
        t = usual;
        t.fault = faults[i];
        t.fault_tick = LATE_TICK;
        snprintf(name, sizeof(name), "%.0f %% errors after half an hour found", 100 * faults[i]);
        faulty(name, t, n / 10);
    }
    return 0;
}
