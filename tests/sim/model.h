/* What the world should be: a second account of jobs and pipelines in plain arrays, kept by reading
 * the commands as docs/architecture.md and the schema tell them, and by nothing of the core's code.
 * For each command it says beforehand whether it will be refused and with which error, and
 * afterwards what every job of the pipeline must look like.
 *
 * One thing it does not foretell but only judges: which of those who began to wait for a resource
 * group in one command gets it first. Threads: one. */
#ifndef DAVIT_SIM_MODEL_H
#define DAVIT_SIM_MODEL_H

#include "broker/core/core.h"
#include "broker/core/query.h"

#define MODEL_PIPELINES 40u
#define MODEL_PLAN      8u /* jobs of a pipeline */
#define MODEL_WORKERS   8u
#define MODEL_KEYS      64u
#define MODEL_GROUPS    4u

enum model_timer {
    TIMER_NONE,
    TIMER_DELAY,
    TIMER_UNACKED,
    TIMER_TIMEOUT,
    TIMER_CANCELING,
    TIMER_WAIT,
};

struct model_job {
    uint64_t id;
    uint8_t state; /* Pb__JobState */
    uint8_t stage;
    uint8_t when;
    uint8_t needs; /* one bit a job of the plan */
    uint8_t group; /* 0: none */
    uint8_t tags;  /* one bit a tag */
    uint8_t on_lost;
    uint8_t retry_max, retries, losses;
    uint8_t timer;
    bool dag, may_fail, retry_script_only;
    bool cancel, acked, waiting, started;
    uint64_t attempt, epoch, worker;
    uint64_t due_ms;
    uint64_t timeout_ms, start_in_ms, started_ms;
    uint64_t arrival; /* in the queue of its group */
};

struct model_pipeline {
    uint64_t id;
    uint32_t count;
    struct model_job jobs[MODEL_PLAN];
};

struct model_worker {
    uint64_t id;
    uint64_t session;
    uint8_t uid;
    uint8_t tags;
    bool untagged, paused, draining;
    uint32_t slots;
};

struct model_key {
    uint8_t key, hash;
    uint64_t pipeline_id;
    uint64_t expires_ms;
};

struct model {
    uint64_t applied; /* commands */
    uint64_t arrivals;
    uint32_t pipeline_count;
    uint32_t worker_count;
    uint64_t touched; /* pipelines to be compared, one bit each */
    struct model_worker workers[MODEL_WORKERS];
    struct model_key keys[MODEL_KEYS];
    struct model_pipeline pipelines[MODEL_PIPELINES]; /* the last: see model_copy */
};

/* The error that the command must get, 0 for none. Where it is 0, model_apply follows. */
int model_foretell(const struct model *m, const Pb__Command *cmd);
/* `reply` tells what no model can know: new ids, and whose timer it was. */
void model_apply(struct model *m, const Pb__Command *cmd, const struct reply *reply, struct tx *tx);
/* Compares what the last command touched with the store; ends the process where they differ. */
void model_compare(struct model *m, struct tx *tx);
void model_compare_all(struct model *m, struct tx *tx);
void model_copy(struct model *to, const struct model *from); /* only what is used */

struct model_job *model_job(struct model *m, uint64_t id, struct model_pipeline **ret);
struct model_worker *model_worker(struct model *m, uint64_t id);
uint32_t model_used(const struct model *m, uint64_t worker_id);
bool model_serves(const struct model_worker *w, const struct model_job *j);
bool model_ended(uint8_t state);
bool model_held(uint8_t state);
bool model_pipeline_ended(const struct model_pipeline *p);

/* model_flow.c: how a pipeline goes on by itself */
void model_settle(struct model *m, struct model_pipeline *p, uint64_t now_ms);
void model_queue(struct model *m, struct model_job *j);
void model_unskip(struct model_pipeline *p, uint32_t index);
void model_groups(struct model *m, struct tx *tx);
Pb__Status model_outcome(const struct model_pipeline *p, uint32_t set);
void model_move(struct model_job *j, uint8_t state);

#endif
