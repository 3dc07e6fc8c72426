/* Inside of the core: one pipeline while a command changes it. Rows are read when they are needed
 * and written once, at the end; indexes are kept as the moves happen. The movers here are the only
 * writers of a job's state and of a stage's and pipeline's status.
 *
 * A job without a pipeline is a run of its own (lone.c): one job, no stages, and a pipeline with
 * the id 0 that stands for none.
 *
 *     struct run run;
 *     int r = run_load_job(&run, c, id, &job);     check ...
 *     if (r < 0) { return r; }
 *     if (...) { r = reject(...); } else { job_move(...); }   ... then change
 *     return run_close(&run, r);
 */
#ifndef DAVIT_RUN_H
#define DAVIT_RUN_H

#include "broker/core/apply.h"

struct run_job {
    Pb__JobRecord *record; /* NULL: not read yet */
    uint32_t kind;         /* as the stage row counts it */
    bool dirty;
    bool queued; /* in `settled` */
};

struct run {
    struct core *core;
    Pb__PipelineRecord *pipeline;
    Pb__StageRecord **stages;
    bool *stage_dirty;
    struct run_job *jobs;
    uint32_t *settled; /* a ring of plan indices: jobs whose followers must be looked at */
    uint32_t settled_first;
    uint32_t settled_count;
    bool dirty;
    struct run_job lone;     /* the job without a pipeline: `jobs` points here */
    uint64_t lone_expire_ms; /* the key of its row in T_EXPIRE, when the run began; 0: none */
    const Pb__AssignmentRecord *held; /* of the job it names, as long as the run is open */
    const Pb__Outcome *outcome;       /* of the lone job, when its worker said how it ended */
};

/* -E_NOT_FOUND with a text in the reply; nothing to close then. */
int run_load(struct run *run, struct core *c, uint64_t pipeline_id);
int run_load_job(struct run *run, struct core *c, uint64_t job_id, Pb__JobRecord **ret);
/* For a new pipeline: `jobs` and `stages` are its rows, none written yet. */
void run_init_new(struct run *run, struct core *c, Pb__PipelineRecord *pipeline,
                  Pb__StageRecord **stages, Pb__JobRecord **jobs);
/* lone.c: the job's row was read; or it is a new one. */
void run_init_lone(struct run *run, struct core *c, Pb__JobRecord *job);
void run_init_new_lone(struct run *run, struct core *c, Pb__JobRecord *job);
static inline bool run_is_lone(const struct run *run)
{
    return run->jobs == &run->lone;
}
/* r < 0: forgets everything (nothing may have been changed). Else lets the pipeline go on
 * (run_process), writes all rows. Returns r, or the tx's error. */
int run_close(struct run *run, int r);

Pb__JobRecord *run_job(struct run *run, uint32_t index);
const Pb__PlanJob *run_plan_job(struct run *run, const Pb__JobRecord *job);
void run_job_changed(struct run *run, const Pb__JobRecord *job);
uint32_t run_stage_kinds(const struct run *run, uint32_t stage);
bool run_next_settled(struct run *run, uint32_t *ret_index);
/* Who holds the job; NULL: nobody. */
Pb__AssignmentRecord *run_assignment(struct run *run, const Pb__JobRecord *job);

/* lone.c */
void lone_write(struct run *run);
/* Whether an ended job leaves rows behind, and the key of the one in T_EXPIRE. */
bool lone_is_kept(const Pb__JobRecord *job);
struct key lone_expire_key(const Pb__JobRecord *job);

/* move.c */
void job_move(struct run *run, Pb__JobRecord *job, Pb__JobState to, const char *detail);
void stage_move(struct run *run, uint32_t stage, Pb__Status to);
void pipeline_move(struct run *run, Pb__Status to);
void pipeline_index(struct tx *tx, const Pb__PipelineRecord *p); /* T_PIPELINE_LIVE, T_REF_LIVE */
struct key pipeline_ref_prefix(uint64_t project_id, const char *ref);
struct key pipeline_ref_key(uint64_t project_id, const char *ref, uint64_t pipeline_id);
struct key ready_key(const Pb__JobRecord *job);
void job_set_allow_failure(struct run *run, Pb__JobRecord *job, bool allow);
void job_timer_set(struct run *run, Pb__JobRecord *job, Pb__JobTimerKind kind, uint64_t due_ms);
void job_timer_clear(struct run *run, Pb__JobRecord *job);
/* Until when a pending job may wait, as its pool says now; 0: for ever. */
uint64_t job_queue_deadline_ms(struct core *c, const Pb__JobRecord *job);

/* lock.c: resource groups. The holder is whoever has a T_RESOURCE_HOLD row. */
struct key lock_key(const Pb__JobRecord *job);
struct key lock_hold_key(const Pb__JobRecord *job);
struct key lock_wait_key(const Pb__JobRecord *job);
/* The job is ready for a worker: pending, or waiting for its resource group. */
void job_queue(struct run *run, Pb__JobRecord *job, const char *detail);
void lock_freed(struct core *c, const Pb__JobRecord *job);
/* Hands the groups that this command let go to those who wait: first in the run's own pipeline,
 * while it is open, then, after all runs are closed, in others. */
void locks_pass_on_within(struct run *run);
void locks_pass_on(struct core *c);

/* group.c: who is next. `group` is the key of lock_key. */
struct key lock_next_key(const Pb__JobRecord *job);
struct str lock_next_value(const Pb__JobRecord *job);
bool lock_is_next(const Pb__JobRecord *job); /* whether it has a row of its own among the next */
/* The job's state is the new one, or it is new: keeps that row. */
void lock_note(struct core *c, const Pb__JobRecord *job);
Pb__ProcessMode lock_mode(struct tx *tx, struct str group);
/* The waiting job whose turn it is; 0: none, or the group is held. */
uint64_t lock_heir(struct tx *tx, struct str group);
/* Whether the job, whose turn comes now, may have its group at once. */
bool lock_may_take(struct tx *tx, const Pb__JobRecord *job);

/* trigger.c: jobs that make a child pipeline. */
bool trigger_is_open(const Pb__JobRecord *job); /* runs, and has no child yet */
void trigger_start(struct run *run, Pb__JobRecord *job);
/* The new pipeline is the child of the running trigger job. */
void trigger_set_child(struct core *c, const Pb__PipelineRecord *child);
/* Ends a running trigger job because it is canceled. */
void trigger_cancel(struct run *run, Pb__JobRecord *job);
/* rollout_job.c: jobs that wait for a rollout. */
bool rollout_job_is_open(const Pb__JobRecord *job); /* runs, and its rollout is not made yet */
void rollout_job_start(struct run *run, Pb__JobRecord *job);
void rollout_job_cancel(struct run *run, Pb__JobRecord *job); /* one that runs */
/* Its rollout has ended. */
void rollout_job_end(struct core *c, uint64_t rollout_id);
/* The job of an action has ended, and is written; `o` NULL: not by the word of a worker. */
void rollout_action_ended(struct core *c, const Pb__JobRecord *job, const Pb__Outcome *o);

/* What waits until all runs are closed: the child pipeline of the job is canceled; the parent of a
 * pipeline that ended, or goes on, learns of it. */
void cancel_child(struct run *run, const Pb__JobRecord *job, Pb__Reason reason, const char *by,
                  bool force);
void tell_parent(struct core *c, const Pb__PipelineRecord *p);
bool later_do(struct core *c); /* false: nothing waited */

/* outcome.c */
/* Keeps the dotenv variables of the present attempt; false: the pipeline would have too many. */
bool outcome_keep_dotenv(struct run *run, const Pb__JobRecord *job, const Pb__Outcome *o);
/* False: the project has as many published folders as it may have, and this is another. */
bool outcome_pages_fit(struct run *run, const Pb__JobRecord *job, const Pb__Outcome *o);
/* Publishes releases and pages of a job that has ended well. */
void outcome_publish(struct run *run, const Pb__JobRecord *job, const Pb__Outcome *o);

/* environment.c: the job's state is the new one. */
void environment_job_moved(struct run *run, Pb__JobRecord *job, Pb__JobState from);

/* process.c */
void run_process(struct run *run);
void run_decide_all(struct run *run); /* looks at every created job */
/* A skipped job gets another chance. A child pipeline whose end it took over is of the past. */
void job_revive(struct run *run, Pb__JobRecord *job);
/* The skipped jobs that come after this one are created again. */
void run_reset_followers(struct run *run, const Pb__JobRecord *job);

/* control.c */
void job_cancel(struct run *run, Pb__JobRecord *job, Pb__Reason reason, const char *by, bool force);
/* Cancels what has not ended, but for manual jobs that block nobody. */
void run_cancel(struct run *run, Pb__Reason reason, const char *by, bool force);
/* The same with the interruptible ones alone, and without their child pipelines: those have
 * policies of their own. */
void run_cancel_interruptible(struct run *run, const char *by);
/* Tells the worker to stop the job. */
void job_start_canceling(struct run *run, Pb__JobRecord *job, bool force, const char *detail);
/* Tells the worker that the job is not its own any more. */
void job_fence(struct run *run, Pb__JobRecord *job);
/* Clean for another round: budgets, times, exit code, reason. */
void job_reset(struct run *run, Pb__JobRecord *job);
void job_retry(struct run *run, Pb__JobRecord *job); /* one that ended */
void job_play(struct run *run, Pb__JobRecord *job);  /* one that is manual, or delayed */

/* assign.c: whether the worker may be given the job as soon as one that it has now is gone. */
int assign_instead_check(struct core *c, const Pb__JobRecord *job, const Pb__WorkerRecord *w);

/* attempt.c */
struct holding {
    struct run run;
    Pb__JobRecord *job;
    Pb__AssignmentRecord *assignment;
};
/* -E_NOT_FOUND, or -E_STALE_EPOCH unless the worker holds the job under that epoch. `attempt` 0:
 * not asked. */
int holding_load(struct holding *h, struct core *c, uint64_t job_id, uint64_t attempt,
                 uint64_t epoch, uint64_t worker_id);
/* A new attempt under a new epoch; `w` NULL: of a job that needs no worker. */
void attempt_begin(struct run *run, Pb__JobRecord *job, Pb__JobState state,
                   const Pb__WorkerRecord *w);
/* A job with keywords that nothing acts on fails when its turn comes. `detail` as of a move. */
void job_refuse(struct run *run, Pb__JobRecord *job, const char *detail);
void attempt_set_state(struct run *run, const Pb__JobRecord *job, Pb__JobState state);
/* Ends the attempt and the assignment; the job's move follows at once. */
void attempt_end(struct run *run, Pb__JobRecord *job, Pb__JobState state, Pb__Reason reason,
                 const Pb__Outcome *o, const char *detail);
/* Failed for good, unless retry: or the budget for losses gives it another go. */
void job_fail(struct run *run, Pb__JobRecord *job, Pb__Reason reason, int32_t exit_code);
void job_fail_for_good(struct run *run, Pb__JobRecord *job, Pb__Reason reason, int32_t exit_code);
void job_fail_saying(struct run *run, Pb__JobRecord *job, Pb__Reason reason, int32_t exit_code,
                     const char *detail);
/* The end of a job in canceling: canceled, or failed by its timeout. */
void job_end_canceling(struct run *run, Pb__JobRecord *job, const Pb__Outcome *o,
                       const char *detail);
/* Back into the queue, at its old place. */
void job_requeue(struct run *run, Pb__JobRecord *job, const char *detail);
void assignment_put(struct run *run, const Pb__AssignmentRecord *a);
/* When the broker steps in, for an attempt that starts (or is given to its worker) now. */
uint64_t job_deadline_ms(const struct core *c, const Pb__JobRecord *job);

/* loss.c: ends the attempt of a holder that is gone; another go on the budget for losses. `detail`
 * may be NULL. */
void job_lose(struct run *run, Pb__JobRecord *job, Pb__Reason reason, const Pb__Outcome *o,
              const char *detail);
/* What becomes of a job that had begun and whose worker is gone: by its own word, else its pool's.
 */
Pb__OnWorkerLost job_loss_policy(struct run *run, const Pb__JobRecord *job);
/* The same for a job that had begun: runs again only if its on_worker_lost says so. */
void job_lose_started(struct run *run, Pb__JobRecord *job, Pb__Reason reason, const Pb__Outcome *o);

#endif
