/* What /metrics shows of rollouts. Threads: as the transaction. */
#ifndef DAVIT_API_METRICS_ROLLOUT_H
#define DAVIT_API_METRICS_ROLLOUT_H

#include "broker/store/tx.h"
#include "broker/turn.h"

struct rollout_sample {
    uint64_t states[TURN_ROLLOUT_STATES]; /* of those that have not ended */
    uint64_t held;                        /* of these wait for a person: held, not by approval */
    uint64_t paused;
};

void rollout_sample_take(struct tx *tx, struct rollout_sample *ret);
void rollout_sample_add(struct buf *out, const struct rollout_sample *s,
                        const struct turn_rollouts *since_start);

#endif
