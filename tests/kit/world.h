/* A small world for tests of the core: the real store in a temporary folder, the real core_apply,
 * a clock that only the test moves. Every command is checked: a refused one must not have written,
 * an applied one must leave a store without a breach (world.audit).
 *
 * Ownership: world_init, world_release. One write transaction is always open (world.tx);
 * world_commit ends it and begins the next. Threads: one. */
#ifndef DAVIT_TEST_WORLD_H
#define DAVIT_TEST_WORLD_H

#include "broker/core/core.h"
#include "broker/core/query.h"
#include "broker/sched/sched.h"

struct world {
    char *dir;
    struct store *store;
    struct tx *tx;
    uint64_t now_ms;
    struct effects fx; /* of the latest command */
    struct reply reply;
    uint64_t map_bytes;  /* of the store */
    bool audit;          /* after each command: slow with many rows */
    struct sched *sched; /* not NULL: learns what each command changed; the caller's */
    struct buf *log;     /* not NULL: gets every applied command, packed, a u32 length before it */
    uint64_t applied;
    uint64_t expired; /* pipelines and jobs that went for their age */
};

void world_init(struct world *w);
void world_init_small(struct world *w, uint64_t map_bytes); /* a store that soon is full */
void world_release(struct world *w);
void world_commit(struct world *w);
void world_reopen(struct world *w); /* as a broker's restart: commit, close, open */
void world_hash(struct world *w, uint8_t ret[32]);

/* An empty command in the tx's arena, at the world's time. */
Pb__Command *world_command(struct world *w, const char *actor);
int world_apply(struct world *w, const Pb__Command *cmd);
/* Puts `body` (struct of CASE) into a command by `actor` and applies it. */
#define WORLD_APPLY(w, actor, CASE, body) \
    world_apply_body((w), (actor), PB__COMMAND__BODY_##CASE, (body))
int world_apply_body(struct world *w, const char *actor, int body_case, void *body);

int world_submit(struct world *w, Pb__Plan *plan, const char *ref, const char *sha);
/* Tags and executors: words with commas between, "" for none. Returns the worker's id. */
uint64_t world_worker(struct world *w, const char *name, const char *tags, const char *executors,
                      uint32_t slots, bool untagged);
/* The same, of a pool, with so much memory for its jobs (0: it does not say). */
uint64_t world_worker_in(struct world *w, const char *pool, uint64_t memory_bytes, const char *name,
                         const char *tags, const char *executors, uint32_t slots, bool untagged);
/* The same, with all that it may say. */
int world_hello(struct world *w, Pb__WorkerHello *body);
int world_assign(struct world *w, uint64_t job_id, uint64_t worker_id);
int world_assign_all(struct world *w, const uint64_t *job_ids, size_t count, uint64_t worker_id);
/* As the present holder of the job says it. */
int world_acked(struct world *w, uint64_t job_id);
int world_started(struct world *w, uint64_t job_id);
int world_finished(struct world *w, uint64_t job_id, Pb__Outcome *outcome);
/* All in one command, with the same outcome, as the holder of the first says it. */
int world_finished_all(struct world *w, const uint64_t *job_ids, size_t count,
                       Pb__Outcome *outcome);
int world_lost(struct world *w, uint64_t job_id);
int world_cancel_job(struct world *w, uint64_t job_id);
int world_retry_job(struct world *w, uint64_t job_id);
int world_play(struct world *w, uint64_t job_id);
int world_play_confirmed(struct world *w, uint64_t job_id);
/* The child pipeline of a trigger job, under its present epoch. */
int world_child(struct world *w, uint64_t job_id, Pb__Plan *plan);
int world_trigger_failed(struct world *w, uint64_t job_id, const char *detail);
/* The jobs of a plan in words, as jobs without a pipeline of project "demo", each kept for that
 * long after a success. */
int world_enqueue(struct world *w, Pb__Plan *plan, uint64_t keep_ms);
int world_enqueue_jobs(struct world *w, Pb__EnqueueJob **jobs, size_t count);
Pb__EnqueueJob *enqueue_job(struct arena *a, Pb__PlanJob *plan, uint64_t keep_ms);
int world_stop_environment(struct world *w, uint64_t environment_id, bool force);
int world_cancel(struct world *w, uint64_t pipeline_id);
int world_retry(struct world *w, uint64_t pipeline_id);
int world_expire(struct world *w, uint32_t max, uint64_t pipelines_before_ms);
/* Moves the clock, firing the timers on the way, each at its time. */
void world_elapse(struct world *w, uint64_t ms);
/* Assign, acknowledge, start, finish on that worker. */
void world_run(struct world *w, uint64_t job_id, uint64_t worker_id, Pb__JobState result);

uint64_t world_job_id(struct world *w, uint64_t pipeline_id, const char *name); /* 0: none */
const Pb__JobRecord *world_job(struct world *w, uint64_t pipeline_id, const char *name);
const char *world_state(struct world *w, uint64_t pipeline_id, const char *name);
const char *world_status(struct world *w, uint64_t pipeline_id);

/* A plan in words, one job a line, in the order of stages:
 *     build: stage=build tags=linux,gpu retry=1
 *     test: stage=test needs=build when=on_failure
 * Keys: stage (default "test"), needs (none: an empty list), needs_no_artifacts, deps, when,
 * start_in, allow_failure (yes, or exit codes), retry, retry_when, retry_codes, timeout, group,
 * priority, tags, executor, pool, cpu, memory, disk, lost (requeue, fail, wait), interruptible,
 * artifacts, dotenv=yes, vars (NAME:VALUE);
 * trigger (none, depend, mirror); unsupported, confirm; env with url, tier, action, on_stop and
 * auto_stop; outer (PIPELINE/JOB or PROJECT@REF/JOB, "?" behind it: optional). A line "plan:
 * on_job_failure=all auto_cancel=yes|interruptible name=N" tells of the whole. Ends the process
 * when it is wrong. */
Pb__Plan *plan_from_text(struct arena *a, const char *text);

#endif
