/* Bytes in and out: blobs, artifacts, logs. Nothing is held in memory as a whole. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker/api/answer.h"
#include "broker/api/file.h"
#include "broker/api/handlers.h"
#include "broker/api/server.h"
#include "broker/core/query.h"

#define LOG_BLOCK_BYTES (32u * KIB)

/* --- blobs in --- */

/* On a work thread: the fsync of a large file takes its time. */
static int commit_upload(struct request *rq)
{
    uint8_t digest[SHA256_BYTES];
    char hex[2 * SHA256_BYTES + 1];
    uint64_t size;
    struct blob_upload *u = rq->upload;
    rq->upload = NULL;
    int r = blob_upload_commit(u, digest, &size);
    if (r == 0) {
        rq->booked = 0; /* it stays booked */
        if (rq->who.role == ROLE_JOB) {
            sent_note(rq->api->sent, rq->who.job_id, digest);
        }
        str_to_hex(digest, sizeof(digest), hex);
        rq->extra = json_pack("{s:s, s:I}", "digest", hex, "size", (json_int_t)size);
    }
    return r;
}

static int upload_done(struct request *rq)
{
    if (rq->result < 0) {
        return rq->result;
    }
    json_t *answer = rq->extra;
    rq->extra = NULL;
    return answer_json(rq, MHD_HTTP_CREATED, answer);
}

int post_blob(struct request *rq)
{
    return request_work(rq, commit_upload, upload_done);
}

/* --- bytes out --- */

static int answer_blob(struct request *rq, const uint8_t digest[SHA256_BYTES], const char *type)
{
    struct MHD_Response *response;
    unsigned status;
    uint64_t size;
    int fd;
    int r = file_open_blob(rq, digest, &fd, &size);
    if (r < 0 || fd < 0) {
        return r;
    }
    r = file_response(rq, fd, size, digest, type, &status, &response);
    if (r < 0) {
        return r;
    }
    file_etag(response, digest);
    return answer_response(rq, status, response);
}

int get_blob(struct request *rq)
{
    if (rq->who.role == ROLE_JOB) {
        struct tx *tx;
        int r = api_read(rq->api, &tx);
        if (r < 0) {
            return r;
        }
        bool allowed = auth_job_may_read(tx, rq->who.job_id, rq->args.digest);
        tx_abort(tx);
        if (!allowed) {
            return request_fail(rq, -E_FORBIDDEN, "this blob is not of the job's pipeline");
        }
    }
    int r = answer_blob(rq, rq->args.digest, "application/octet-stream");
    return r == -E_NOT_FOUND ? request_fail(rq, r, "there is no such blob") : r;
}

/* The newest artifact of that type; NULL: the job has none. */
static const Pb__ArtifactRecord *newest_artifact(struct tx *tx, uint64_t job_id, const char *type)
{
    struct key prefix = key_u64(job_id);
    Pb__ArtifactRecord *found = NULL;
    struct cursor c;
    for (tx_seek_last(&c, tx, T_ARTIFACT, key_str(&prefix)); c.valid && !found; tx_prev(&c)) {
        Pb__ArtifactRecord *a;
        if (PB_UNPACK(tx_arena(tx), artifact_record, c.value.p, c.value.n, LIMIT_COMMAND, &a) < 0) {
            tx_fail(tx, -E_CORRUPT);
        } else if (artifact_is_archive(type) ? artifact_is_archive(a->type)
                                             : strcmp(a->type, type) == 0) {
            found = a;
        }
    }
    cursor_end(&c);
    return found && found->digest.len == SHA256_BYTES ? found : NULL;
}

/* `artifacts:access`: the least that may fetch them; "": all. Jobs have them whatever it says. */
static int check_access(struct request *rq, const char *access)
{
    const enum role role = rq->who.role;
    if (strcmp(access, "none") == 0) {
        return request_fail(rq, -E_FORBIDDEN, "these artifacts are for the pipeline's jobs alone");
    }
    if (strcmp(access, "maintainer") == 0 && role != ROLE_ADMIN && role != ROLE_MAINTAINER) {
        return request_fail(rq, -E_FORBIDDEN, "these artifacts are for maintainers alone");
    }
    if (strcmp(access, "developer") == 0 && role == ROLE_REPORTER) {
        return request_fail(rq, -E_FORBIDDEN, "these artifacts are not for reporters");
    }
    return 0;
}

static int find_artifact(struct request *rq, struct tx *tx, const char *type,
                         uint8_t ret[SHA256_BYTES])
{
    uint64_t id = rq->args.id;
    if (!job_get(tx, id)) {
        return request_fail(rq, -E_NOT_FOUND, "there is no job %" PRIu64, id);
    }
    const Pb__ArtifactRecord *a = newest_artifact(tx, id, type);
    if (!a && artifact_is_archive(type)) {
        return request_fail(rq, -E_NOT_FOUND, "job %" PRIu64 " has no artifacts", id);
    }
    if (!a) {
        return request_fail(rq, -E_NOT_FOUND, "job %" PRIu64 " has no artifact of type `%.64s`", id,
                            type);
    }
    memcpy(ret, a->digest.data, SHA256_BYTES);
    return check_access(rq, a->access);
}

int get_job_artifacts(struct request *rq)
{
    const char *type = request_query(rq, "type");
    uint8_t digest[SHA256_BYTES];
    struct tx *tx;
    int r = api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    r = find_artifact(rq, tx, type ? type : "archive", digest);
    r = tx_ok(tx) ? r : tx_error(tx);
    tx_abort(tx);
    if (r < 0) {
        return r;
    }
    r = answer_blob(rq, digest, "application/zstd");
    return r == -E_NOT_FOUND ? request_fail(rq, -E_GONE, "the artifacts are gone") : r;
}

/* --- logs --- */

struct log_reader {
    struct logs *logs;
    uint64_t job_id;
    uint64_t attempt;
    uint64_t offset; /* of the range in the log */
};

static ssize_t read_log(void *cls, uint64_t pos, char *p, size_t max)
{
    const struct log_reader *l = cls;
    int64_t n = logs_read(l->logs, l->job_id, l->attempt, l->offset + pos, p, max);
    /* The size was promised: a log that became shorter was removed. */
    return n > 0 ? (ssize_t)n : MHD_CONTENT_READER_END_WITH_ERROR;
}

/* The attempt asked for, or the newest; 0: the job has none yet. */
static int find_attempt(struct request *rq, uint64_t *ret_attempt, bool *ret_complete)
{
    struct tx *tx;
    uint64_t attempt;
    int r = request_query_u64(rq, "attempt", 0, &attempt);
    if (r < 0 || (r = api_read(rq->api, &tx)) < 0) {
        return r;
    }
    const Pb__JobRecord *job = job_get(tx, rq->args.id);
    bool asked = attempt > 0;
    if (job && !asked) {
        attempt = job->attempt;
    }
    const Pb__AttemptRecord *record = job && attempt > 0 ? attempt_get(tx, job->id, attempt) : NULL;
    if (!job) {
        r = request_fail(rq, -E_NOT_FOUND, "there is no job %" PRIu64, rq->args.id);
    } else if (asked && !record) {
        r = request_fail(rq, -E_NOT_FOUND, "job %" PRIu64 " has no attempt %" PRIu64, job->id,
                         attempt);
    }
    *ret_attempt = attempt;
    *ret_complete = record && record->log_complete;
    r = tx_ok(tx) ? r : tx_error(tx);
    tx_abort(tx);
    return r;
}

int get_job_log(struct request *rq)
{
    uint64_t attempt;
    bool complete;
    struct range range;
    char number[24];
    int r = find_attempt(rq, &attempt, &complete);
    if (r < 0) {
        return r;
    }
    uint64_t total = logs_durable(rq->api->config.logs, rq->args.id, attempt);
    r = file_range(rq, total, &range);
    if (r < 0) {
        return r;
    }
    struct log_reader *l = xmalloc(sizeof(*l));
    *l = (struct log_reader){.logs = rq->api->config.logs,
                             .job_id = rq->args.id,
                             .attempt = attempt,
                             .offset = range.offset};
    struct MHD_Response *response = MHD_create_response_from_callback(range.size, LOG_BLOCK_BYTES,
                                                                      read_log, l, free);
    if (!response) {
        free(l);
    } else {
        snprintf(number, sizeof(number), "%" PRIu64, attempt);
        MHD_add_response_header(response, "X-Davit-Attempt", number);
        MHD_add_response_header(response, "X-Davit-Log-Complete", complete ? "true" : "false");
        MHD_add_response_header(response, "Cache-Control", "no-store");
    }
    unsigned status = file_headers(response, &range, total, "text/plain; charset=utf-8");
    return answer_response(rq, status, response);
}
