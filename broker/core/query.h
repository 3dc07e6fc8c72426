/* Reading the store: rows by id, lists with keyset pages, what a job waits for. Everything returned
 * lives in tx_arena(tx). Not found: NULL. Threads: any, with a read tx of their own. */
#ifndef DAVIT_QUERY_H
#define DAVIT_QUERY_H

#include "broker/store/tx.h"

const Pb__MetaRecord *meta_get(struct tx *tx);
const Pb__ProjectRecord *project_get(struct tx *tx, uint64_t id);
const Pb__ProjectRecord *project_by_name(struct tx *tx, const char *name);
const Pb__PipelineRecord *pipeline_get(struct tx *tx, uint64_t id);
const Pb__StageRecord *stage_get(struct tx *tx, uint64_t pipeline_id, uint32_t index);
const Pb__JobRecord *job_get(struct tx *tx, uint64_t id);
const Pb__PlanJob *plan_job_get(struct tx *tx, uint64_t pipeline_id, uint32_t index);
const Pb__PlanJob *lone_plan_get(struct tx *tx, uint64_t job_id); /* of one without a pipeline */
const Pb__AttemptRecord *attempt_get(struct tx *tx, uint64_t job_id, uint64_t attempt);
const Pb__AssignmentRecord *assignment_get(struct tx *tx, uint64_t job_id);
const Pb__WorkerRecord *worker_get(struct tx *tx, uint64_t id);
const Pb__ClassRecord *class_get(struct tx *tx, uint64_t id);
/* By the token's hash, the name, the certificate's serial. */
const Pb__JoinTokenRecord *join_token_get(struct tx *tx, struct str hash);
const Pb__MemberRecord *member_get(struct tx *tx, const char *name);
const Pb__CertificateRecord *certificate_get(struct tx *tx, struct str serial);
const Pb__TokenRecord *token_get(struct tx *tx, const uint8_t hash[32]);
/* NULL also when the pipeline has no parent. */
const Pb__JobRecord *pipeline_parent_job(struct tx *tx, const Pb__PipelineRecord *p);
const Pb__DotenvRecord *dotenv_get(struct tx *tx, uint64_t job_id);
const Pb__EnvironmentRecord *environment_get(struct tx *tx, uint64_t id);
const Pb__EnvironmentRecord *environment_by_name(struct tx *tx, uint64_t project_id,
                                                 const char *name);
const Pb__DeploymentRecord *deployment_get(struct tx *tx, uint64_t environment_id, uint64_t id);
const Pb__ReleaseRecord *release_by_tag(struct tx *tx, uint64_t project_id, struct str tag);
const Pb__PagesRecord *pages_get(struct tx *tx, uint64_t project_id, struct str path_prefix);
const Pb__CacheRecord *cache_get(struct tx *tx, uint64_t project_id, struct str cache_key);
const Pb__PipelineVariablesRecord *pipeline_variables_get(struct tx *tx, uint64_t pipeline_id);
/* What the predefined variables of the submit say; empty: nothing. */
struct str predefined_value(const Pb__PipelineVariablesRecord *vars, const char *name);
/* As GitLab has it until somebody changes it: the default branch is protected, nothing else. */
bool ref_is_protected(const Pb__PipelineRecord *p, const Pb__PipelineVariablesRecord *vars);
/* Whether a project's settings protect a ref: its default branch does, which is `default_branch`
 * where they name none, and what their patterns name does. `p` NULL: nothing is set. */
bool project_protects(const Pb__ProjectRecord *p, const char *default_branch, const char *ref,
                      bool tag);
/* A cache whose key ends in "-protected" is for jobs of protected refs alone: what the default
 * branch is built with is not for every branch to write, nor to read. */
bool cache_is_open_to(struct tx *tx, const Pb__JobRecord *job, struct str cache_key);

/* Tokens (token.c). */
#define TOKEN_ID_BYTES 8u
/* By the first bytes of its hash; NULL: there is none. */
const Pb__TokenRecord *token_by_id(struct tx *tx, const uint8_t id[TOKEN_ID_BYTES],
                                   struct key *ret_key);
bool token_has_expired(const Pb__TokenRecord *t, uint64_t now_ms);
/* "group/name" is that project, "group/" with a star all below the group. */
bool project_matches(struct str pattern, const char *project);

/* Stored variables (stored.c). NULL: there is none. */
const Pb__StoredVariableRecord *stored_get(struct tx *tx, Pb__VariableLevel level,
                                           const char *owner, const char *name,
                                           const char *environment_scope);
/* By name. */
size_t stored_of(struct tx *tx, Pb__VariableLevel level, const char *owner, size_t max,
                 const Pb__StoredVariableRecord **ret);
/* Those whose keys are wrapped by another master key, from behind *at on (n 0: from the first),
 * which moves on. */
/* Copies of stored variables that versions of services hold, likewise; *ret_more: it has not come
 * to the end, even if it found few. */
struct held_variable {
    uint64_t snapshot_id;
    const Pb__SealedVariable *variable;
};
size_t snapshots_wrapped_by_others(struct tx *tx, struct str master_key_id, struct key *at,
                                   size_t max, struct held_variable *ret, bool *ret_more);
size_t stored_wrapped_by_others(struct tx *tx, struct str master_key_id, struct key *at, size_t max,
                                const Pb__StoredVariableRecord **ret);
/* Calls `fn` with what a job of the project gets, the weakest first, as GitLab has it: of the
 * installation, of its groups from the outermost on, of the project itself; of each owner and name
 * the one whose scope says most of the environment (NULL, "": only scope "*"). `protected`: the
 * job's ref is. */
typedef void (*stored_fn)(void *ctx, const Pb__SealedVariable *v);
void stored_choose(struct tx *tx, const char *project, const char *environment, bool protected,
                   stored_fn fn, void *ctx);

/* Lists: at most max rows into ret; the count is returned. */
/* By name, those after `after` (NULL or "": from the first on). */
size_t environments_after(struct tx *tx, uint64_t project_id, const char *after, size_t max,
                          const Pb__EnvironmentRecord **ret);
/* The newest first, those before the id `before` (0: from the newest on). */
size_t deployments_before(struct tx *tx, uint64_t environment_id, uint64_t before, size_t max,
                          const Pb__DeploymentRecord **ret);
size_t releases_before(struct tx *tx, uint64_t project_id, uint64_t before, size_t max,
                       const Pb__ReleaseRecord **ret);
/* The one set last first, those before the place `before` in that order (0: from the last on). */
size_t caches_before(struct tx *tx, uint64_t project_id, uint64_t before, size_t max,
                     const Pb__CacheRecord **ret);
/* In the order in which they were kept, of one attempt; `type` NULL: of all types. */
size_t artifacts_of(struct tx *tx, uint64_t job_id, uint64_t attempt, const char *type, size_t max,
                    const Pb__ArtifactRecord **ret);
/* Whether `type` is what `artifacts:paths` makes, and not a report or pages. */
bool artifact_is_archive(const char *type);

/* Assignments of a worker. */
uint32_t worker_job_count(struct tx *tx, uint64_t worker_id);
/* The same by what they take: slots, or places for actions. */
struct worker_load {
    uint32_t slots;
    uint32_t actions;
};
struct worker_load worker_load(struct tx *tx, uint64_t worker_id);

/* Actions take no slots: "action", "action/DRIVER". */
bool executor_is_action(const char *executor);
bool class_is_action(const Pb__ClassRecord *class);
/* Whether it takes jobs that name no executor. */
bool worker_runs_processes(const Pb__WorkerRecord *w);

/* Executor, tags, untagged: could the worker ever take a job of the class? Of its pool: pool_bar.
 */
bool worker_serves(const Pb__WorkerRecord *w, const Pb__ClassRecord *class);

const Pb__PoolRecord *pool_get(struct tx *tx, const char *name);
/* What is wrong with a pool's times; NULL: nothing. */
const char *pool_times_check(uint32_t heartbeat_ms, uint32_t suspect_ms, uint32_t lease_ms);
/* "requeue", "fail", "wait"; of a job also what it says itself. */
const char *worker_loss_text(Pb__OnWorkerLost policy);
bool worker_loss_from_text(const char *text, Pb__OnWorkerLost *ret);
/* What keeps a project's jobs of a class out of a pool. `pool` NULL: one without a row, which is
 * open to all. */
enum pool_bar {
    POOL_BAR_NONE,
    POOL_BAR_OTHER,     /* the job names another pool */
    POOL_BAR_LOCKED,    /* the pool must be named */
    POOL_BAR_PROTECTED, /* the pool is for protected refs */
    POOL_BAR_PROJECT,   /* the pool is for other projects */
};
enum pool_bar pool_bar(const Pb__PoolRecord *pool, const char *name, const Pb__ClassRecord *class,
                       const char *project);
/* Whether an artifact, a source, a bundle, a cache or pages need the blob of this SHA-256. */
bool blob_referenced(struct tx *tx, struct str digest);
bool blob_published(struct tx *tx, struct str digest); /* by a row of pages */

/* The oldest sequence number still kept is in the first row; events of a pipeline (0: all) with
 * seq > after, at most max. Returns the count. */
size_t events_after(struct tx *tx, uint64_t pipeline_id, uint64_t after, size_t max,
                    const Pb__EventRecord **ret);

/* State names as people know them: "pending", "success", ...; reasons: "script_failure". */
const char *job_state_text(Pb__JobState s);
const char *status_text(Pb__Status s);
const char *reason_text(Pb__Reason r);
int reason_from_text(const char *text, Pb__Reason *ret);
bool job_state_terminal(Pb__JobState s);
bool status_terminal(Pb__Status s);
const char *environment_state_text(Pb__EnvironmentState s);

#endif
