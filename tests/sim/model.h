/* What the world should be: a second account of jobs and pipelines in plain arrays, kept by reading
 * the commands as docs/architecture.md and the schema tell them, and by nothing of the core's code.
 * For each command it says beforehand whether it will be refused and with which error, and
 * afterwards what every job of the pipeline must look like.
 *
 * A job without a pipeline is a pipeline of one job here, whose id is 0.
 *
 * Two things it does not foretell but only judges: which of those who began to wait for a resource
 * group in one command gets it first, and how much one command deletes of what is old. Threads:
 * one.
 */
#ifndef DAVIT_SIM_MODEL_H
#define DAVIT_SIM_MODEL_H

#include "broker/core/core.h"
#include "broker/core/query.h"

#define MODEL_PIPELINES 400u
#define MODEL_PLAN      8u /* jobs of a pipeline */
#define MODEL_WORKERS   8u
#define MODEL_KEYS      600u
#define MODEL_PROJECTS  3u /* "p1" and so on; 0 is none */
#define MODEL_POOLS     3u /* "x1" and so on; 0 is that of no name */
#define MODEL_GROUPS    9u /* three names in each project; 0 is none */

enum model_timer {
    TIMER_NONE,
    TIMER_DELAY,
    TIMER_UNACKED,
    TIMER_TIMEOUT,
    TIMER_CANCELING,
    TIMER_WAIT,
    TIMER_QUEUE,
};

struct model_job {
    uint64_t id;
    uint8_t state; /* Pb__JobState */
    uint8_t stage;
    uint8_t when;
    uint8_t needs;   /* one bit a job of the plan */
    uint8_t project; /* 1 to MODEL_PROJECTS */
    uint8_t group;   /* 0: none */
    uint8_t pool;    /* that it names */
    uint8_t tags;    /* one bit a tag */
    uint8_t on_lost;
    uint8_t retry_max, retries, losses;
    uint8_t timer;
    bool dag, may_fail, retry_script_only, is_protected, interruptible, lone;
    bool trigger;
    uint8_t environment; /* 0: none */
    uint8_t action;      /* Pb__EnvironmentAction */
    uint8_t strategy;    /* Pb__TriggerStrategy */
    bool cancel, acked, waiting, started;
    bool waited;         /* waited_ms means something */
    uint32_t cpu_millis; /* that it asks for; 0: it does not say */
    int32_t priority;
    int32_t claim; /* by which it got its slot */
    uint64_t attempt, epoch, worker;
    uint64_t due_ms;
    uint64_t timeout_ms, start_in_ms, started_ms;
    uint64_t arrival;    /* at its place in the queue, as a number of a command; 0: it has none */
    uint64_t queued_ms;  /* the same as a time */
    uint64_t pending_at; /* the command that last made it pending */
    uint64_t waits_from_ms, waited_ms; /* for its pool, at this place, up to the last worker */
    uint64_t ended_ms;
    uint64_t deployment, auto_stop_ms;
    uint64_t child;   /* the pipeline of a trigger job */
    uint64_t keep_ms; /* without a pipeline, after a success */
};

struct model_pipeline {
    uint64_t id; /* 0: a job without one */
    uint64_t stamp;
    uint64_t ended_ms;         /* with all below it; 0: it has not, or stands below another */
    uint64_t parent_job, root; /* 0: none */
    uint32_t depth;
    bool told; /* its parent knows that it has ended */
    uint32_t count;
    bool touched; /* by the last command: to be compared */
    struct model_job jobs[MODEL_PLAN];
};

struct model_worker {
    uint64_t id;
    uint64_t session;
    uint8_t uid;
    uint8_t tags;
    uint8_t pool;
    bool untagged, paused, draining;
    uint32_t slots;
    uint32_t cpu_millis; /* 0: it does not say, and has enough */
};

struct model_key {
    uint64_t stamp;
    uint64_t key, hash;
    uint64_t pipeline_id, job_id; /* one of them is 0 */
    uint64_t expires_ms;
};

struct model_project {
    bool there;
    uint32_t weight, max_running;
    uint8_t modes[1 + MODEL_GROUPS / MODEL_PROJECTS]; /* Pb__ProcessMode of its groups */
};

struct model_environment {
    uint64_t id; /* 0: it is not there */
    uint8_t state;
    uint64_t deployment; /* the newest good one */
    uint64_t job;        /* that made it */
    uint64_t auto_stop_ms;
};

struct model_pool {
    bool there, is_protected, locked, preempt;
    uint8_t projects; /* one bit a project; 0: all */
    uint8_t on_lost;
    uint32_t max_running, project_max_running;
    uint64_t queue_timeout_ms;
};

struct model {
    uint64_t applied;           /* commands */
    uint64_t now_ms;            /* of the last one */
    uint64_t epoch_floor;       /* no job is given one up to here */
    bool enqueues;              /* the last one did */
    uint64_t slot_for, slot_of; /* a job was displaced: the job that the worker must get now */
    uint32_t worker_count;
    uint32_t pipeline_count;
    uint32_t key_count;
    uint64_t deployments;
    struct model_environment environments[1 + MODEL_GROUPS]; /* as the groups: three a project */
    struct model_project projects[1 + MODEL_PROJECTS];
    struct model_pool pools[1 + MODEL_POOLS];
    struct model_worker workers[MODEL_WORKERS];
    struct model_key keys[MODEL_KEYS]; /* from here on: see model_copy */
    struct model_pipeline pipelines[MODEL_PIPELINES];
};

/* The error that the command must get, 0 for none. Where it is 0, model_apply follows. */
int model_foretell(const struct model *m, const Pb__Command *cmd);
/* `reply` tells what no model can know: new ids, and whose timer it was. */
void model_apply(struct model *m, const Pb__Command *cmd, const struct reply *reply, struct tx *tx);
/* Compares what the last command touched with the store; ends the process where they differ. */
void model_compare(struct model *m, struct tx *tx);
void model_compare_all(struct model *m, struct tx *tx);
/* Only what is not the same already: what changes gets a new stamp. */
void model_copy(struct model *to, const struct model *from);

/* model_find.c: pure look-ups */
struct model_job *model_job(const struct model *m, uint64_t id, struct model_pipeline **ret);
struct model_pipeline *model_pipeline(const struct model *m, uint64_t id);
struct model_worker *model_worker(const struct model *m, uint64_t id);
struct model_key *model_key(const struct model *m, ProtobufCBinaryData key);
uint64_t model_bytes(ProtobufCBinaryData bytes); /* the first of them as a number */
uint32_t model_used(const struct model *m, uint64_t worker_id);
/* Jobs in hands: of a project (0: all), of the workers of a pool (-1: all). */
uint32_t model_running(const struct model *m, uint8_t project, int pool);
bool model_serves(const struct model *m, const struct model_worker *w, const struct model_job *j);
/* Whether its project, or the pool of the worker, may have one job more in hands. */
bool model_project_may(const struct model *m, const struct model_worker *w,
                       const struct model_job *j);
/* Whether the worker has enough left for it. */
bool model_fits(const struct model *m, const struct model_worker *w, const struct model_job *j);
bool model_pool_may(const struct model *m, const struct model_worker *w);
int32_t model_band(const struct model_job *j, uint64_t now_ms); /* its priority, with its age */
bool model_ended(uint8_t state);
bool model_held(const struct model_job *j); /* in a worker's hands */
bool model_pipeline_ended(const struct model_pipeline *p);
uint8_t model_number(const char *name); /* of a project, pool or group: its digit; 0: no name */

/* model_flow.c: how a pipeline goes on by itself */
void model_settle(struct model *m, struct model_pipeline *p);
void model_queue(struct model *m, struct model_job *j);
void model_unskip(struct model *m, struct model_pipeline *p, uint32_t index);
Pb__Status model_outcome(const struct model_pipeline *p, uint32_t set);
void model_move(struct model *m, struct model_job *j, uint8_t state);
void model_timer(struct model_job *j, enum model_timer timer, uint64_t due_ms);

/* model_group.c: who gets a resource group */
bool model_groups(struct model *m, struct tx *tx); /* whether somebody got one */

/* model_job.c: what workers, users and time do to a job */
const struct model_job *model_holder(const struct model *m, uint64_t id, uint64_t attempt,
                                     uint64_t epoch, uint64_t worker);
int model_foretell_held(const struct model *m, const Pb__Command *cmd);
int model_foretell_ends(const struct model *m, const Pb__JobsFinished *c);
void model_apply_held(struct model *m, const Pb__Command *cmd);
void model_apply_ends(struct model *m, const Pb__JobsFinished *c);
void model_apply_timer(struct model *m, const Pb__TimerFired *c, const struct reply *reply);
void model_apply_jump(struct model *m, uint64_t by_ms);
void model_cancel(struct model *m, struct model_job *j);
void model_afresh(struct model_job *j);
void model_back(struct model *m, struct model_job *j); /* from a worker's hands to its old place */

/* model_queue.c: jobs without a pipeline, and what is deleted for its age */
int model_foretell_enqueue(const struct model *m, const Pb__JobsEnqueue *c);
void model_apply_enqueue(struct model *m, const Pb__JobsEnqueue *c, const struct reply *reply);
void model_apply_expire(struct model *m, const Pb__Expire *c, struct tx *tx);
void model_sweep(struct model *m, struct tx *tx); /* what leaves nothing behind at its end */
/* UINT64_MAX: never */
uint64_t model_old_ms(const struct model *m, const struct model_pipeline *p, uint64_t keep_ms);
void model_new_job(struct model *m, struct model_job *j, const Pb__PlanJob *plan, uint64_t id,
                   uint8_t project);
struct model_pipeline *model_new_pipeline(struct model *m);
void model_add_key(struct model *m, ProtobufCBinaryData key, ProtobufCBinaryData hash,
                   uint64_t pipeline_id, uint64_t job_id);

/* model_trigger.c: child pipelines */
const struct model_pipeline *model_root(const struct model *m, const struct model_pipeline *p);
int model_foretell_child(const struct model *m, const Pb__PipelineCreate *c);
int model_foretell_trigger(const struct model *m, const Pb__TriggerFailed *c);
void model_start_trigger(struct model *m, struct model_job *j);
void model_add_child(struct model *m, struct model_pipeline *child, uint64_t parent_job);
void model_trigger_failed(struct model *m, const Pb__TriggerFailed *c);
void model_cancel_all(struct model *m, struct model_pipeline *p);
void model_cancel_child(struct model *m, const struct model_job *j);
void model_families(struct model *m);

/* model_environment.c: where jobs deploy to */
void model_open_environment(struct model *m, struct model_job *j, const Pb__EnvironmentSpec *spec,
                            struct tx *tx);
void model_deploys(struct model *m, struct model_job *j, bool ran);
int model_foretell_stop(const struct model *m, const Pb__EnvironmentStop *c);
void model_stop(struct model *m, const Pb__EnvironmentStop *c);
bool model_stop_timer(struct model *m, uint64_t due_ms); /* whether there was one */
void model_look_again(struct model *m, uint64_t before_ms, struct tx *tx);
void model_compare_environments(const struct model *m, struct tx *tx);

/* model_settings.c: pools, projects, groups, preemption */
int model_foretell_settings(const struct model *m, const Pb__Command *cmd);
void model_apply_settings(struct model *m, const Pb__Command *cmd);
int model_foretell_preempt(const struct model *m, const Pb__JobPreempt *c);
void model_apply_preempt(struct model *m, const Pb__JobPreempt *c);

void model_touch(struct model_pipeline *p); /* it changed */

#endif
