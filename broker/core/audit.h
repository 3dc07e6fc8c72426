/* Inside of the audit: rows are read into a scratch arena that is emptied after each pipeline, so
 * that a large store can be audited. A table is right when every row that the others call for is
 * there, and when there are no more rows than that: the walk counts what it called for. */
#ifndef DAVIT_AUDIT_H
#define DAVIT_AUDIT_H

#include "broker/core/run.h"

struct audit {
    struct tx *tx;
    struct arena scratch;
    core_audit_fn fn;
    void *ctx;
    const Pb__MetaRecord *meta;
    uint64_t breaches;
    uint64_t expected[TABLE_COUNT]; /* rows that were called for */
    uint64_t jobs[JOB_STATE_COUNT]; /* that were found */
    struct audit_class *classes;    /* in the order of the table */
    size_t class_count;
};

struct audit_class {
    uint64_t id;
    uint64_t jobs; /* that were found to name it */
    uint64_t unfinished;
};

void breach(struct audit *a, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* A row that must be there; NULL after a breach. Counted as expected when `count`. */
ProtobufCMessage *audit_row(struct audit *a, enum table t, const struct key *k,
                            const ProtobufCMessageDescriptor *desc, bool count);
/* An index row that must be there exactly when `wanted`. */
void audit_index(struct audit *a, enum table t, const struct key *k, bool wanted, uint64_t owner);
void audit_id(struct audit *a, uint64_t id, const char *what);
void audit_timer(struct audit *a, uint64_t due_ms, uint64_t timer_id, const Pb__TimerRecord *want);

/* The job's state, and its class, which must be there, have one more. */
void audit_count(struct audit *a, const Pb__JobRecord *job);

/* audit_member.c: each of one row, by its key */
void audit_join_token(struct audit *a, struct str key);
void audit_member(struct audit *a, struct str key);
void audit_certificate(struct audit *a, struct str key);

/* audit_rows.c: each of one row, by its key; of caches all of a project */
void audit_environment(struct audit *a, struct str key);
void audit_deployment(struct audit *a, struct str key);
void audit_release(struct audit *a, struct str key);
void audit_pages(struct audit *a, struct str key);
void audit_caches(struct audit *a, const Pb__ProjectRecord *project);
/* audit_rollout.c */
void audit_rollout(struct audit *a, struct str key);
void audit_service(struct audit *a, struct str key);
void audit_snapshot(struct audit *a, struct str key);
void audit_target(struct audit *a, struct str key);
/* audit_hidden.c: what is left of a pipeline that is being deleted */
void audit_hidden(struct audit *a, struct str key);
/* audit_job.c */
void audit_artifacts(struct audit *a, uint64_t job_id, uint64_t attempts);
/* audit_pipeline.c */
void audit_pipeline(struct audit *a, uint64_t pipeline_id);
/* audit_job.c */
struct audit_pipeline {
    const Pb__PipelineRecord *row;
    Pb__StageRecord **stages;
    Pb__JobRecord **jobs;  /* NULL: missing */
    uint64_t dotenv_bytes; /* counted anew */
};
void audit_job(struct audit *a, struct audit_pipeline *p, uint32_t index);
void audit_lone(struct audit *a, uint64_t job_id); /* one without a pipeline */

#endif
