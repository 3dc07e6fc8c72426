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
const Pb__AttemptRecord *attempt_get(struct tx *tx, uint64_t job_id, uint64_t attempt);
const Pb__AssignmentRecord *assignment_get(struct tx *tx, uint64_t job_id);
const Pb__WorkerRecord *worker_get(struct tx *tx, uint64_t id);
const Pb__ClassRecord *class_get(struct tx *tx, uint64_t id);
const Pb__TokenRecord *token_get(struct tx *tx, const uint8_t hash[32]);
/* Assignments of a worker: its used slots. */
uint32_t worker_job_count(struct tx *tx, uint64_t worker_id);

/* Executor, tags, untagged: could the worker ever take a job of the class? */
bool worker_serves(const Pb__WorkerRecord *w, const Pb__ClassRecord *class);
/* Whether an artifact or a pipeline's source needs the blob of this SHA-256. */
bool blob_referenced(struct tx *tx, struct str digest);

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

#endif
