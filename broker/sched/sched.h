/* The scheduler: which pending job goes to which worker. It proposes; the turn applies what it
 * proposes as Assign commands, which check again everything that must hold.
 *
 * What it knows. A *lane* is the ready jobs of one class, priority and project, first come first
 * served: a stretch of the table ready. Lanes, workers and what runs where are kept in memory: soft
 * state, learned from queue changes (core.h) and built anew from the store at the start and after
 * sched_reset, by skipping from lane to lane. Of a lane only the front is read; a job is read when
 * it is proposed, so what waits behind costs nothing.
 *
 * What comes first, in every pool:
 *   1. The higher priority. Users have -100 to 100; what is above is an administrator's. A lane
 *      whose first job waits rises by one for every SCHED_AGING_MS, up to 100 and never above.
 *   2. Among equals the project that has the fewest jobs running in the pool for its weight; then
 *      the one that has used the least of the pool's time for its weight. A project that was idle
 *      begins where the others are: it saves nothing up.
 *   3. The older job.
 * Not before its turn comes a project or pool that is at its limit; all else goes on.
 * Where: workers that offer the same are a group; a class is matched with groups, not with workers.
 * Of all groups that serve the best job, the one with the fewest tags that anybody asks for, so
 * that specialists are kept for those who need them; in it, the worker with the most free slots
 * whose cpu, memory and disk suffice (one that does not say is taken to have enough). No pair that
 * fits is left: propose until nothing is proposed.
 *
 * Preemption, in pools that allow it: an interruptible job gives way to one that no free worker can
 * take, comes first in its class, and has a higher priority, as given (age gives no right to it),
 * than that by which the other got its slot (there age counts: what has waited for its slot has
 * earned it). The slot is for that one alone: others that are before it in line, and the displaced
 * job itself, wait no longer than they would have. So one is displaced for one that begins.
 *
 * Cost: O(log lanes + log workers) a proposal beside the groups that have a free worker; jobs that
 * ask for cpu, memory or disk look through the workers of their group when the first has too
 * little, and again when one of them has enough. Pure: time comes with the calls. Threads: one, the
 * turn's; sched_why any, with a read tx.
 */
#ifndef DAVIT_SCHED_H
#define DAVIT_SCHED_H

#include "broker/core/core.h"
#include "broker/store/tx.h"

#define SCHED_AGING_MS     60000u
#define SCHED_PRIORITY_TOP 100  /* of users; above are administrators */
#define SCHED_WEIGHT       100u /* of a project that has none */

struct sched;

struct sched *sched_new(void);
void sched_free(struct sched *s); /* or NULL */

/* All is to be learned anew: at the next proposal, from the store as it is then. Workers stay as
 * they were set. After a failed transaction, and on EFFECT_SETTINGS. */
void sched_reset(struct sched *s);

/* What a worker offers, and whether it may be given work now: connected, not paused, not draining,
 * able to hear. Say it on every change. `record` NULL: it is forgotten, and not open. */
void sched_worker(struct sched *s, uint64_t worker_id, const Pb__WorkerRecord *record, bool open);

/* What commands changed: all changes, each once, in their order, when they have happened in `tx`.
 */
void sched_learn(struct sched *s, struct tx *tx, uint64_t now_ms,
                 const struct queue_change *changes, size_t count);

struct sched_proposal {
    uint64_t job_id;
    uint64_t worker_id;
    uint32_t order; /* its place among the proposals, by which came first */
};

/* At most max proposals, all of one worker side by side, each worker's in their order. They count
 * as running from here on; those that the changes learned before the next call do not show are
 * taken back. `tx`: what was learned has happened in it, and nothing else. */
size_t sched_propose(struct sched *s, struct tx *tx, uint64_t now_ms, struct sched_proposal *ret,
                     size_t max);

/* The core refused all that the worker was proposed: it gets no more proposals until sched_worker
 * or a new beginning. */
void sched_refused(struct sched *s, uint64_t worker_id);

/* A running job that should give way; true: apply JobPreempt, give the slot to the other by an
 * Assign, learn, propose again. To be asked when nothing more is proposed. One that the core
 * refused is not named again before the next sched_propose. */
struct sched_victim {
    uint64_t job_id;
    uint64_t worker_id; /* who has it */
    uint64_t for_job_id;
};
bool sched_preempt(struct sched *s, struct sched_victim *ret);

/* The pool of a worker, if it has settings; else "". */
const char *sched_pool_of(const struct sched *s, uint64_t worker_id);

/* For tests and metrics: what it holds now. */
struct sched_stat {
    size_t lanes; /* with jobs */
    size_t groups;
    size_t workers;
    size_t running;
    uint64_t rows;    /* of the table ready that were read, since the start */
    uint64_t weighed; /* demands for which somebody to give way was searched, likewise */
    uint64_t fitted;  /* workers whose room for a job was looked at, likewise */
};
void sched_stat(const struct sched *s, struct sched_stat *ret);

/* Why a job is not running: a reason for each known worker. `online` tells whether a worker has a
 * live session. */
struct sched_why {
    uint64_t worker_id;
    const char *worker;
    const char *reason; /* "offline", "missing tags: gpu", "no free slot", "paused", "draining",
                         * "can take it" */
};

#define SCHED_WHY_POOLS 10u

struct sched_outlook {
    uint64_t position;     /* among the ready jobs of its class (1-based; 0: it is not ready) */
    bool position_or_more; /* it was not counted any further */
    bool never;            /* no known worker could ever match */
    bool now;              /* some worker can take it */
    uint32_t slots;        /* of those that take work, and could take it when it is its turn */
    const char *pools[SCHED_WHY_POOLS]; /* would take it, but no worker is known in them */
    size_t pool_count;                  /* more than are named, perhaps */
};

size_t sched_why(struct tx *tx, const Pb__JobRecord *job,
                 bool (*online)(void *ctx, uint64_t worker_id), void *ctx, struct sched_why *ret,
                 size_t max, struct sched_outlook *ret_outlook);

/* When it may begin, if jobs of its class have a slot for typical_ms, and the slots were for them
 * alone. UINT64_MAX: nobody can say. */
uint64_t sched_wait_ms(const struct sched_outlook *o, uint64_t typical_ms);

#endif
