/* Rows of the store as the JSON objects of docs/http-api.md. Everything is read within the caller's
 * read transaction; the objects are the caller's and outlive it. Threads: pure but for the tx. */
#ifndef DAVIT_API_VIEW_H
#define DAVIT_API_VIEW_H

#include <jansson.h>

#include "broker/core/rollout.h"
#include "broker/net/fleet.h"
#include "broker/rollout/verdict.h"
#include "broker/store/tx.h"
#include "common/diag.h"

json_t *json_text(const char *s); /* null for NULL and "" */
json_t *view_text_list(char *const *items, size_t count);
json_t *json_time(uint64_t realtime_ms);         /* ISO 8601; null for 0 */
json_t *json_id(uint64_t id);                    /* null for 0 */
json_t *json_bytes(ProtobufCBinaryData bytes);   /* what is no UTF-8 shows as `?`; null for none */
json_t *json_digest(ProtobufCBinaryData digest); /* hex; null for none */
const char *when_text(Pb__When when);            /* "on_success" */

/* A pool: its row, and what its workers come to. */
struct pool_line {
    const char *name;
    const Pb__PoolRecord *row; /* NULL: nothing is set */
    uint64_t workers;          /* that ever came */
    uint64_t online;
    uint64_t slots; /* of those that are online */
    uint64_t busy;
};

json_t *view_pool(const struct pool_line *p);
json_t *view_project(const Pb__ProjectRecord *p);
json_t *view_pipeline(struct tx *tx, const Pb__PipelineRecord *p);       /* as in lists */
json_t *view_pipeline_whole(struct tx *tx, const Pb__PipelineRecord *p); /* with stages and jobs */
json_t *view_job(struct tx *tx, const Pb__JobRecord *j);
json_t *view_job_whole(struct tx *tx, const Pb__JobRecord *j); /* with attempts and artifacts */
json_t *view_worker(struct tx *tx, struct fleet *fleet, const Pb__WorkerRecord *w);
json_t *view_environment(struct tx *tx, const Pb__EnvironmentRecord *e);
json_t *view_deployment(const Pb__DeploymentRecord *d);
json_t *view_release(const char *project, const Pb__ReleaseRecord *r);
json_t *view_cache(const Pb__CacheRecord *c);
json_t *view_rollout(const struct rollout_view *v, uint64_t now_ms, struct arena *a);
json_t *view_rollout_whole(const struct rollout_view *v, uint64_t now_ms, struct arena *a);
json_t *view_rollout_note(const Pb__RolloutNoteRecord *n);
json_t *view_rollout_metric(const struct metric_rule *rule, const Pb__RolloutMetricRecord *m,
                            struct arena *a);
json_t *view_service(struct tx *tx, const Pb__ServiceRecord *s);
/* With the versions that it keeps, and its newest rollouts. */
json_t *view_service_whole(struct tx *tx, const Pb__ServiceRecord *s, uint64_t now_ms);
json_t *view_snapshot(const Pb__SnapshotRecord *s); /* no value of a variable, nor of a setting */
/* What `to` has that `from` has not, and the other way round. */
json_t *view_snapshot_diff(const Pb__SnapshotRecord *from, const Pb__SnapshotRecord *to,
                           struct arena *a);
json_t *view_event(const Pb__EventRecord *e);
json_t *view_diags(const struct diags *d);

#endif
