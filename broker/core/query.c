#include "common/base.h"

#include "broker/core/apply.h"
#include "broker/core/query.h"
#include "common/crypto.h"
#include "common/limits.h"

const Pb__MetaRecord *meta_get(struct tx *tx)
{
    const struct key k = meta_key();

    return (const Pb__MetaRecord *)tx_get_msg(tx, T_META, &k, &pb__meta_record__descriptor);
}

const Pb__ProjectRecord *project_get(struct tx *tx, uint64_t id)
{
    const struct key k = key_u64(id);

    return (const Pb__ProjectRecord *)tx_get_msg(tx, T_PROJECT, &k,
                                                 &pb__project_record__descriptor);
}

const Pb__ProjectRecord *project_by_name(struct tx *tx, const char *name)
{
    const size_t n = strnlen(name, LIMIT_NAME + 1);
    const struct key k = key_bytes(name, MIN(n, LIMIT_NAME));
    struct str id;

    if (n == 0 || n > LIMIT_NAME || !tx_get(tx, T_PROJECT_NAME, &k, &id)) {
        return NULL;
    }
    return project_get(tx, key_read_u64(id, 0));
}

const Pb__PipelineRecord *pipeline_get(struct tx *tx, uint64_t id)
{
    const struct key k = key_u64(id);

    return (const Pb__PipelineRecord *)tx_get_msg(tx, T_PIPELINE, &k,
                                                  &pb__pipeline_record__descriptor);
}

const Pb__StageRecord *stage_get(struct tx *tx, uint64_t pipeline_id, uint32_t index)
{
    const struct key k = key_u64_u64(pipeline_id, index);

    return (const Pb__StageRecord *)tx_get_msg(tx, T_STAGE, &k, &pb__stage_record__descriptor);
}

/* The row of a pipeline that is hidden goes at once, those of its jobs one after the other. */
static bool is_hidden(struct tx *tx, const Pb__JobRecord *job)
{
    const struct key k = key_u64(job->pipeline_id);

    return tx_count(tx, T_PIPELINE_GONE) > 0 && tx_has(tx, T_PIPELINE_GONE, &k);
}

const Pb__JobRecord *job_get(struct tx *tx, uint64_t id)
{
    const struct key k = key_u64(id);
    const Pb__JobRecord *job = (const Pb__JobRecord *)tx_get_msg(tx, T_JOB, &k,
                                                                 &pb__job_record__descriptor);

    return job != NULL && !is_hidden(tx, job) ? job : NULL;
}

const Pb__PlanJob *plan_job_get(struct tx *tx, uint64_t pipeline_id, uint32_t index)
{
    const struct key k = key_u64_u64(pipeline_id, index);

    return (const Pb__PlanJob *)tx_get_msg(tx, T_PLAN, &k, &pb__plan_job__descriptor);
}

const Pb__PlanJob *lone_plan_get(struct tx *tx, uint64_t job_id)
{
    const struct key k = key_u64(job_id);

    return (const Pb__PlanJob *)tx_get_msg(tx, T_JOB_PLAN, &k, &pb__plan_job__descriptor);
}

Pb__AttemptRecord *attempt_open(struct tx *tx, const Pb__JobRecord *job,
                                const Pb__AssignmentRecord *held)
{
    const Pb__WorkerRecord *w = worker_get(tx, held->worker_id);
    Pb__AttemptRecord *a;

    if (w == NULL || job->pipeline_id != 0) {
        return NULL;
    }
    a = arena_alloc(tx_arena(tx), sizeof(*a));
    pb__attempt_record__init(a);
    a->job_id = job->id;
    a->attempt = held->attempt;
    a->epoch = held->epoch;
    a->worker_id = w->id;
    a->worker_name = w->name;
    a->state = job->state;
    a->assigned_ms = held->assigned_ms;
    a->started_ms = job->started_ms;
    return a;
}

const Pb__AttemptRecord *attempt_get(struct tx *tx, uint64_t job_id, uint64_t attempt)
{
    const struct key k = key_u64_u64(job_id, attempt);
    const Pb__AttemptRecord *a = (const Pb__AttemptRecord *)tx_get_msg(
        tx, T_ATTEMPT, &k, &pb__attempt_record__descriptor);

    const Pb__AssignmentRecord *held = a == NULL ? assignment_get(tx, job_id) : NULL;
    const Pb__JobRecord *job = held != NULL && held->attempt == attempt ? job_get(tx, job_id)
                                                                        : NULL;

    return job != NULL ? attempt_open(tx, job, held) : a;
}

const Pb__AssignmentRecord *assignment_get(struct tx *tx, uint64_t job_id)
{
    const struct key k = key_u64(job_id);

    return (const Pb__AssignmentRecord *)tx_get_msg(tx, T_ASSIGNMENT, &k,
                                                    &pb__assignment_record__descriptor);
}

const Pb__WorkerRecord *worker_get(struct tx *tx, uint64_t id)
{
    const struct key k = key_u64(id);

    return (const Pb__WorkerRecord *)tx_get_msg(tx, T_WORKER, &k, &pb__worker_record__descriptor);
}

const Pb__ClassRecord *class_get(struct tx *tx, uint64_t id)
{
    const struct key k = key_u64(id);

    return (const Pb__ClassRecord *)tx_get_msg(tx, T_CLASS, &k, &pb__class_record__descriptor);
}

const Pb__JoinTokenRecord *join_token_get(struct tx *tx, struct str hash)
{
    const struct key k = key_bytes(hash.p, MIN(hash.n, 32));

    return (const Pb__JoinTokenRecord *)tx_get_msg(tx, T_JOIN_TOKEN, &k,
                                                   &pb__join_token_record__descriptor);
}

const Pb__MemberRecord *member_get(struct tx *tx, const char *name)
{
    const struct key k = key_bytes(name, MIN(strlen(name), LIMIT_STORE_KEY));

    return name[0] == '\0' ? NULL
                           : (const Pb__MemberRecord *)tx_get_msg(tx, T_MEMBER, &k,
                                                                  &pb__member_record__descriptor);
}

const Pb__CertificateRecord *certificate_get(struct tx *tx, struct str serial)
{
    const struct key k = key_bytes(serial.p, MIN(serial.n, 32)); /* a longer one is none */

    return (const Pb__CertificateRecord *)tx_get_msg(tx, T_CERTIFICATE, &k,
                                                     &pb__certificate_record__descriptor);
}

const Pb__TokenRecord *token_get(struct tx *tx, const uint8_t hash[32])
{
    const struct key k = key_bytes(hash, SHA256_BYTES);

    return (const Pb__TokenRecord *)tx_get_msg(tx, T_TOKEN, &k, &pb__token_record__descriptor);
}

struct worker_load worker_load(struct tx *tx, uint64_t worker_id)
{
    const struct key k = key_u64(worker_id);
    struct worker_load load = {0};
    struct cursor cur;

    for (tx_seek(&cur, tx, T_WORKER_JOB, key_str(&k), NULL); cur.valid; tx_next(&cur)) {
        *(cur.value.n > 0 ? &load.actions : &load.slots) += 1;
    }
    cursor_end(&cur);
    return load;
}

uint32_t worker_job_count(struct tx *tx, uint64_t worker_id)
{
    const struct worker_load load = worker_load(tx, worker_id);

    return load.slots + load.actions;
}

static bool has_blob_ref(struct tx *tx, struct str prefix)
{
    struct key k;

    return tx_first_key(tx, T_BLOB_REF, prefix, &k);
}

bool blob_referenced(struct tx *tx, struct str digest)
{
    return has_blob_ref(tx, digest);
}

bool blob_published(struct tx *tx, struct str digest)
{
    struct key k = key_bytes(digest.p, digest.n);

    key_add_u32(&k, BLOB_PAGES);
    return has_blob_ref(tx, key_str(&k));
}

static size_t events_of_all(struct tx *tx, uint64_t after, size_t max, const Pb__EventRecord **ret)
{
    const struct key from = key_u64(after + 1);
    struct cursor cur;
    size_t n = 0;

    for (tx_seek(&cur, tx, T_EVENT, STR_NULL, &from); cur.valid && n < max; tx_next(&cur)) {
        ProtobufCMessage *m;
        if (pb_unpack(tx_arena(tx), &pb__event_record__descriptor, cur.value.p, cur.value.n,
                      LIMIT_COMMAND, &m) < 0) {
            tx_fail(tx, -E_CORRUPT);
            break;
        }
        ret[n++] = (const Pb__EventRecord *)m;
    }
    cursor_end(&cur);
    return n;
}

size_t events_after(struct tx *tx, uint64_t pipeline_id, uint64_t after, size_t max,
                    const Pb__EventRecord **ret)
{
    const struct key prefix = key_u64(pipeline_id);
    const struct key from = key_u64_u64(pipeline_id, after + 1);
    struct cursor cur;
    size_t n = 0;

    if (after == UINT64_MAX) {
        return 0;
    }
    if (pipeline_id == 0) {
        return events_of_all(tx, after, max, ret);
    }
    for (tx_seek(&cur, tx, T_PIPELINE_EVENT, key_str(&prefix), &from); cur.valid && n < max;
         tx_next(&cur)) {
        const struct key k = key_u64(key_read_u64(cur.key, sizeof(uint64_t)));
        const ProtobufCMessage *m = tx_get_msg(tx, T_EVENT, &k, &pb__event_record__descriptor);
        if (m == NULL) {
            tx_fail(tx, -E_CORRUPT);
            break;
        }
        ret[n++] = (const Pb__EventRecord *)m;
    }
    cursor_end(&cur);
    return n;
}
