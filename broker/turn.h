/* The turn: the one thread that writes. It waits for its inbox or the next deadline, reads the
 * clock once, applies all that waits, lets the scheduler assign, writes all of it to the journal
 * (one flush), then releases replies and effects. The store is committed later, when that does not
 * disturb: whoever reads it on somebody's behalf calls turn_fresh first.
 *
 * The inbox is bounded (LIMIT_INBOX items, LIMIT_INBOX_BYTES): turn_submit answers -E_BUSY above.
 * Threads: turn_submit, post_* and turn_stop on any thread; everything else on the turn's own. The
 * fleet (net/fleet.h) lives on the turn's thread. */
#ifndef DAVIT_TURN_H
#define DAVIT_TURN_H

#include "broker/core/core.h"
#include "broker/journal/journal.h"
#include "common/limits.h"

struct turn;

/* A command on its way: built in its own arena, so that it can change threads. */
struct post;
struct post *post_new(const char *actor);
struct arena *post_arena(struct post *p);
Pb__Command *post_command(struct post *p); /* initialised; fill in the body */
void post_free(struct post *p);            /* for one that was not submitted */

/* Called on the turn's thread once the command is durable (r == 0) or refused (r < 0, reply->text
 * says why). Must not block. The reply is the callee's only during the call. */
typedef void (*turn_done_fn)(void *ctx, int r, const struct reply *reply);

/* Takes the post over in any case. 0: `done` will be called exactly once (also at shutdown, with
 * -E_SHUTDOWN). -E_BUSY, -E_SHUTDOWN: it will not be called. done may be NULL. */
int turn_submit(struct turn *t, struct post *p, turn_done_fn done, void *ctx);

/* Blocking form, for start-up and tests: not on the turn's thread. */
int turn_call(struct turn *t, struct post *p, struct reply *ret_reply);

/* Returns once a read transaction that begins now finds all that was acknowledged before the call:
 * at once where that is so already. Not on the turn's thread. -E_SHUTDOWN; or why the store cannot
 * commit now: then it is older than what was acknowledged, and stays so for a while. */
int turn_fresh(struct turn *t);

/* How long jobs of the class were in the hands of workers lately, on the average. False: none was
 * since the start, or it was long ago. Any thread. */
bool turn_typical_ms(struct turn *t, uint64_t class_id, uint64_t *ret_ms);

/* Times of jobs since the start, by the pool of their worker, for /metrics. */
#define TURN_BUCKETS 13u
#define TURN_POOLS   200u
extern const uint64_t turn_bucket_ms[TURN_BUCKETS - 1]; /* their bounds, each belongs to its own */
struct turn_histogram {
    uint64_t counts[TURN_BUCKETS]; /* each alone; the last: above all bounds */
    uint64_t sum_ms;
};
struct turn_pool {
    char name[LIMIT_NAME + 1]; /* "": all that have no settings, or came when there were enough */
    struct turn_histogram waited; /* from ready until given out, of first attempts */
    struct turn_histogram held;   /* from given out until the worker's hands were empty again */
};
/* At most TURN_POOLS. Any thread. */
size_t turn_get_pools(struct turn *t, struct turn_pool *ret, size_t max);

/* Counters since the start, for /metrics. Any thread. */
/* What rollouts have come to since the start. */
#define TURN_ROLLOUT_STATES   15u
#define TURN_ROLLOUT_WHYS     10u
#define TURN_ROLLOUT_VERDICTS 6u
struct turn_rollouts {
    uint64_t entered[TURN_ROLLOUT_STATES];    /* how often */
    uint64_t state_ms[TURN_ROLLOUT_STATES];   /* how long, of those that have left it */
    uint64_t back[TURN_ROLLOUT_WHYS];         /* ways back that were begun, by RolloutWhy */
    uint64_t verdicts[TURN_ROLLOUT_VERDICTS]; /* of metrics, each time it became another */
};

struct turn_stats {
    uint64_t turns; /* that changed something */
    uint64_t commands;
    uint64_t rejected;
    uint64_t commits; /* of the store */
    uint64_t commit_us_sum;
    uint64_t commit_us_max;
    uint64_t flush_us_sum; /* of the journal */
    uint64_t flush_us_max;
    struct journal_stat journal;
    uint32_t relaxed_ms; /* as configured */
    bool full;           /* new work is refused: no room in the store, or beside it */
    bool stuck;          /* the store cannot commit now; the journal has what was acknowledged */
    uint64_t inbox;      /* waiting now */
    uint64_t assignments;
    uint64_t expired; /* pipelines and jobs that were deleted for their age */
    struct turn_rollouts rollouts;
    uint64_t alive_ms; /* monotonic, when it last went around: once a second at least */
};
void turn_get_stats(struct turn *t, struct turn_stats *ret);

/* Who makes child pipelines. `start` is called on the turn's thread after the commit that made the
 * trigger job run; and by turn_start, for each that runs without a child pipeline, before there is
 * a turn to post to. It must not block: somebody else then compiles the child and posts
 * PipelineCreate{parent_job_id, parent_epoch} or TriggerFailed{job_id, epoch}. Either is refused
 * once the job has ended or runs under a later epoch; nothing more is to be done then. */
struct turn_trigger {
    void (*start)(void *ctx, uint64_t job_id, uint64_t epoch); /* NULL: nobody, in tests */
    void *ctx;
};

#endif
