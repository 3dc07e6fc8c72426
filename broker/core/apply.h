/* Inside of the core: one command being applied. A handler reads and checks, and may return
 * reject(...); from its first write on it cannot fail. Not for use outside broker/core. */
#ifndef DAVIT_APPLY_H
#define DAVIT_APPLY_H

#include "broker/core/core.h"
#include "broker/core/query.h"
#include "broker/core/state.h"

#define CORE_LOCK_KEY_BYTES 40u /* project, SHA-256 of the resource group */

/* A resource group that was let go by this command: its oldest waiting job is next. */
struct freed_lock {
    struct freed_lock *next;
    uint8_t key[CORE_LOCK_KEY_BYTES];
};

/* What is left to do once all runs are closed: with a pipeline's child or parent. */
struct later {
    struct later *next;
    enum { LATER_CANCEL, LATER_TELL_PARENT, LATER_COUNT, LATER_ROLLOUT_ENDED } kind;
    uint64_t pipeline_id;
    uint64_t rollout_id; /* LATER_ROLLOUT_ENDED */
    bool ended;          /* LATER_COUNT */
    Pb__Reason reason;   /* LATER_CANCEL */
    const char *by;
    bool force;
};

/* A class whose jobs are counted by this command: its row is written once, at the end. */
struct class_use {
    struct class_use *next;
    Pb__ClassRecord *row;
};
#define CLASS_USE_BUCKETS 16u

struct core {
    struct tx *tx;
    struct arena *arena; /* the tx's */
    struct effects *fx;
    struct reply *reply;
    Pb__MetaRecord *meta;           /* written back by core_apply */
    Pb__PipelineRecord no_pipeline; /* of jobs without one; never written */
    uint64_t now_ms;
    const char *actor;
    const char *told; /* what the trail says of the command, where its own fields do not: or NULL */
    struct freed_lock *freed_first;
    struct freed_lock **freed_end;
    struct later *later_first;
    struct later **later_end;
    struct class_use *classes[CLASS_USE_BUCKETS]; /* by id */
};

struct later *later_add(struct core *c); /* trigger.c: all zero, at the end of the list */
/* Puts the text into the reply and returns r. */
int reject(struct core *c, int r, const char *fmt, ...) PRINTF_LIKE(3, 4);
uint64_t core_new_id(struct core *c);
void job_count(struct core *c, Pb__JobState state, int delta); /* one more of it, or one less */
/* A row that must be there: where it is not, the tx fails as corrupt and the row is an empty one.
 */
ProtobufCMessage *core_row(struct core *c, enum table t, const struct key *k,
                           const ProtobufCMessageDescriptor *desc);
void effect_add(struct effects *fx, struct effect e);
void queue_change_add(struct effects *fx, const struct queue_change *q);

/* Handlers, one a command, in the file named before each group. */
/* setup.c */
int apply_init_store(struct core *c, const Pb__InitStore *cmd);
int apply_ids_skipped(struct core *c, const Pb__IdsSkipped *cmd);
int apply_project_create(struct core *c, const Pb__ProjectCreate *cmd);
/* token.c */
int apply_token_add(struct core *c, const Pb__TokenAdd *cmd);
int apply_token_revoke(struct core *c, const Pb__TokenRevoke *cmd);
int apply_tokens_used(struct core *c, const Pb__TokensUsed *cmd);
/* create.c */
int apply_pipeline_create(struct core *c, const Pb__PipelineCreate *cmd);
/* enqueue.c */
int apply_jobs_enqueue(struct core *c, const Pb__JobsEnqueue *cmd);
/* control.c */
int apply_pipeline_cancel(struct core *c, const Pb__PipelineCancel *cmd);
int apply_pipeline_retry(struct core *c, const Pb__PipelineRetry *cmd);
int apply_job_cancel(struct core *c, const Pb__JobCancel *cmd);
int apply_job_retry(struct core *c, const Pb__JobRetry *cmd);
int apply_job_play(struct core *c, const Pb__JobPlay *cmd);
/* worker.c */
int apply_worker_hello(struct core *c, const Pb__WorkerHello *cmd);
int apply_worker_set(struct core *c, const Pb__WorkerSet *cmd);
/* member.c */
int apply_join_token_add(struct core *c, const Pb__JoinTokenAdd *cmd);
int apply_worker_join(struct core *c, const Pb__WorkerJoin *cmd);
int apply_worker_renew(struct core *c, const Pb__WorkerRenew *cmd);
int apply_worker_revoke(struct core *c, const Pb__WorkerRevoke *cmd);
/* Whether the certificate makes the worker what its Hello says; what that leaves open is filled in.
 * *ret_until_ms: of the certificate. */
int member_admit(struct core *c, Pb__WorkerHello *hello, uint64_t *ret_until_ms);
/* drain.c: the time that a worker has for it; both set the row's fields and leave its writing to
 * the caller */
void worker_drain_timer_set(struct core *c, Pb__WorkerRecord *w, uint64_t due_ms);
void worker_drain_timer_clear(struct core *c, Pb__WorkerRecord *w);
void worker_drain_over(struct core *c, const Pb__WorkerTimer *t); /* takes the timer along */
/* pool.c */
int apply_pool_set(struct core *c, const Pb__PoolSet *cmd);
int apply_pool_delete(struct core *c, const Pb__PoolDelete *cmd);
int apply_project_set(struct core *c, const Pb__ProjectSet *cmd);
/* Checks, and gives the row as the command would have it, id 0 where it is new; nothing is written.
 */
int pool_prepare(struct core *c, const Pb__PoolSet *cmd, Pb__PoolRecord **ret);
int project_prepare(struct core *c, const Pb__ProjectSet *cmd);
/* Those patterns of protected refs that the command has; the row refers to its texts. */
void project_take_protection(Pb__ProjectRecord *row, const Pb__ProjectSet *cmd);
/* Writes the row and the event, and gives a new one its id. */
void pool_put(struct core *c, Pb__PoolRecord *row, const char *event);
void project_put(struct core *c, Pb__ProjectRecord *row, const char *event);
/* configure.c */
int apply_configure(struct core *c, const Pb__Configure *cmd);
/* group.c */
int apply_resource_group_set(struct core *c, const Pb__ResourceGroupSet *cmd);
/* stored.c */
int apply_variables_set(struct core *c, const Pb__VariablesSet *cmd);
int apply_variable_delete(struct core *c, const Pb__VariableDelete *cmd);
int apply_variables_rewrap(struct core *c, const Pb__VariablesRewrap *cmd);
/* preempt.c */
int apply_job_preempt(struct core *c, const Pb__JobPreempt *cmd);
/* assign.c */
bool any_twice(struct arena *a, const uint64_t *ids, size_t n);
int apply_assign(struct core *c, const Pb__Assign *cmd);
/* attempt.c */
int apply_assign_acked(struct core *c, const Pb__AssignAcked *cmd);
int apply_job_started(struct core *c, const Pb__JobStarted *cmd);
int apply_job_finished(struct core *c, const Pb__JobFinished *cmd);
int apply_jobs_finished(struct core *c, const Pb__JobsFinished *cmd);
/* loss.c */
/* All that the worker holds is lost, and nobody waits for it. */
void worker_lose_jobs(struct core *c, uint64_t worker_id);
int apply_job_lost(struct core *c, const Pb__JobLost *cmd);
int apply_job_returned(struct core *c, const Pb__JobReturned *cmd);
int apply_worker_reclaimed(struct core *c, const Pb__WorkerReclaimed *cmd);
/* trigger.c */
int apply_trigger_failed(struct core *c, const Pb__TriggerFailed *cmd);
/* environment.c */
int apply_environment_stop(struct core *c, const Pb__EnvironmentStop *cmd);
/* cache.c */
int apply_cache_set(struct core *c, const Pb__CacheSet *cmd);
int apply_cache_delete(struct core *c, const Pb__CacheDelete *cmd);
/* timer.c */
int apply_timer_fired(struct core *c, const Pb__TimerFired *cmd);
int apply_clock_jumped(struct core *c, const Pb__ClockJumped *cmd);
/* rollout_begin.c, rollout_step.c, rollout_act.c */
int apply_rollout_begin(struct core *c, const Pb__RolloutBegin *cmd);
int apply_rollout_step(struct core *c, const Pb__RolloutStep *cmd);
int apply_rollout_act(struct core *c, const Pb__RolloutAct *cmd);
int apply_rollouts_resume(struct core *c, const Pb__RolloutsResume *cmd);
/* target.c: all targets of the configuration, or none: those it does not name go. */
int targets_check(struct core *c, Pb__RolloutTarget *const *targets, size_t count);
void targets_declare(struct core *c, Pb__RolloutTarget *const *targets, size_t count);
/* expire.c */
int apply_expire(struct core *c, const Pb__Expire *cmd);

/* setup.c */
struct key meta_key(void);
/* The project of that name, made if it is not there. */
Pb__ProjectRecord *project_open(struct core *c, const char *name);

/* text.c: checks of foreign text. */
bool name_ok(const char *s);               /* 1 to LIMIT_NAME bytes of UTF-8, no control bytes */
bool text_ok(const char *s, size_t limit); /* the same, but may be empty */
void text_mend(char *s); /* puts a ? for every byte that is no part of a character */
/* A copy of whole characters, whatever `s` holds. */
char *text_clip(struct arena *a, const char *s, size_t limit);

/* variable.c */
int variables_check(struct core *c, Pb__Variable *const *v, size_t n, const char *of);
size_t variables_size(Pb__Variable *const *v, size_t n); /* packed */

/* Room in a job's spec: for what a player adds, and for all small fields. */
#define SPEC_PLAY_BYTES  (64u * 1024)
#define SPEC_FIXED_BYTES (32u * 1024)
#define SPEC_TOKEN_BYTES (4u * 1024) /* for each of id_tokens, when the broker has signed it */

/* plan.c: whether a plan is one that the core can run. */
int plan_check(struct core *c, const Pb__PipelineCreate *cmd);
/* One job of it; `plan` NULL: without a pipeline. What points to other jobs is not looked at. */
int plan_job_check(struct core *c, const Pb__Plan *plan, const Pb__PlanJob *job);
bool rollout_spec_ok(const Pb__RolloutSpec *r); /* its texts, numbers and counts */

/* lone.c: deletes all rows of a job without a pipeline that has ended, that of T_EXPIRE too. */
void job_forget(struct core *c, const Pb__JobRecord *job);

/* class.c: what jobs ask for. A class is there for as long as a job names it, and an hour longer
 * unless others need its room. */
/* Whether there is room for what `jobs` ask for: -E_LIMIT. `protected`: their ref is. */
int classes_check(struct core *c, Pb__PlanJob *const *jobs, size_t count, bool protected);
/* The class of what a job asks for, made if it is new. */
uint64_t class_open(struct core *c, const Pb__PlanJob *plan, bool protected);
/* A job of the class (0: it has none) has got a row, has ended or goes on, goes: each +1, -1 or 0.
 */
void class_count(struct core *c, uint64_t class_id, int jobs, int unfinished);
void classes_close(struct core *c); /* after all that a command did: writes what was counted */
/* The oldest that nobody needs is deleted; false: none is that old. */
bool class_expire(struct core *c);

/* pool.c */
struct key pool_key(const char *name);

/* event.c */
struct event {
    enum event_kind kind;
    uint64_t project_id;
    uint64_t pipeline_id;
    uint64_t job_id;
    uint64_t attempt;
    uint64_t worker_id;
    uint64_t rollout_id;
    const char *from;
    const char *to;
    const char *name;
    const char *detail;
};
void event_add(struct core *c, const struct event *e); /* NULL texts are fine */
void event_forget(struct core *c, uint64_t seq);       /* it may be gone already */

/* timer.c */
uint64_t timer_add(struct core *c, uint64_t due_ms, const Pb__TimerRecord *t); /* its id */
void timer_del(struct core *c, uint64_t due_ms, uint64_t timer_id);
struct key timer_key(uint64_t due_ms, uint64_t timer_id);

/* A used idempotency key, with what came of it filled in. */
void request_add(struct core *c, ProtobufCBinaryData key, Pb__RequestRecord *row);
const Pb__RequestRecord *request_get(struct tx *tx, ProtobufCBinaryData key); /* NULL: none */

/* stored.c */
/* How well an environment scope, or pattern, fits an environment; 0: not at all. */
size_t scope_fit(const char *scope, struct str environment);
struct key stored_key(Pb__VariableLevel level, const char *owner, const char *name,
                      const char *environment_scope);

/* query.c: the running attempt of a job without a pipeline, from what says so instead of a row of
 * its own; NULL: of another job. */
Pb__AttemptRecord *attempt_open(struct tx *tx, const Pb__JobRecord *job,
                                const Pb__AssignmentRecord *held);

/* trail.c: the command was applied; what people did is written down. */
void trail_note(struct core *c, const Pb__Command *cmd);

/* query_rows.c: keys of rows that are found by a name */
struct key environment_name_key(uint64_t project_id, const char *name);
struct key project_hash_key(uint64_t project_id, struct str text); /* project, SHA-256 */

/* outcome.c: what a job brings besides its artifacts. */
int outcome_check(struct core *c, const Pb__Outcome *o);
void pages_expire(struct core *c, const Pb__PagesTimer *t);

/* environment_name.c: pure. Slug and tier are what GitLab makes of the name. */
/* action.c: jobs that are no processes */
const char *plan_action_wrong(const Pb__PlanJob *job); /* NULL: nothing */
char *action_executor(struct arena *arena, const Pb__ActionSpec *spec);
bool action_same_executor(const Pb__ActionSpec *a, const Pb__ActionSpec *b); /* or NULL */
uint64_t action_timeout_ms(const Pb__PlanJob *plan); /* of a job that says none */
bool action_result_ok(const Pb__ActionResult *result);
bool environment_name_ok(const char *name);
bool environment_tier_ok(const char *tier);
const char *environment_tier_guess(struct arena *a, const char *name);
const char *environment_slug(struct arena *a, const char *name);

/* environment.c */
/* The id of the project's environment of that name, made if it is new. */
uint64_t environment_open(struct core *c, uint64_t project_id, const Pb__EnvironmentSpec *spec);
void environment_timer_fired(struct core *c, const Pb__EnvironmentTimer *t);
/* The job, or one of its deployments, is deleted for its age. */
void environment_forget_job(struct core *c, const Pb__JobRecord *job);
void environment_forget_deployment(struct core *c, const Pb__JobRecord *job, uint64_t id);
/* Of a job that has ended well, in case it was the newest to deploy. */
void environment_set_url(struct core *c, const Pb__JobRecord *job, ProtobufCBinaryData url);

/* artifact.c */
/* Who needs a blob: the pipeline (source, bundle), the artifact, the row of pages (by its id), the
 * cache (by its sequence number), the snapshot of a service. */
enum blob_kind {
    BLOB_SOURCE = 1,
    BLOB_ARTIFACT = 2,
    BLOB_BUNDLE = 3,
    BLOB_CACHE = 4,
    BLOB_PAGES = 5,
    BLOB_SNAPSHOT = 6,
};
void blob_ref_add(struct core *c, struct str digest, enum blob_kind kind, uint64_t owner);
void blob_ref_del(struct core *c, struct str digest, enum blob_kind kind, uint64_t owner);
struct key blob_ref_key(struct str digest, enum blob_kind kind, uint64_t owner);
int artifacts_check(struct core *c, const Pb__Outcome *o);
void artifacts_add(struct core *c, const Pb__JobRecord *job, const Pb__Outcome *o);
void artifact_expire(struct core *c, const Pb__ArtifactTimer *t);
void artifact_drop(struct core *c, const struct key *k); /* with its blob's reference and timer */

/* family.c: a pipeline and all that its trigger jobs made, down to the last. */
/* The pipeline without a parent, above this one or this one itself. */
Pb__PipelineRecord *family_root(struct core *c, const Pb__PipelineRecord *p);
/* The pipeline has ended, or goes on after that. Its row is the caller's to write. */
void family_moved(struct core *c, Pb__PipelineRecord *p);
/* The same for one that has relatives, when no run is open. */
void family_count(struct core *c, uint64_t pipeline_id, bool ended);
struct key family_ended_key(uint64_t ended_ms, uint64_t root_id);

#endif
