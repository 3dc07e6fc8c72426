/* Uploads of several requests, as tus 1.0.0 has them (https://tus.io/protocols/resumable-upload,
 * core, creation, termination): POST says how long it will be, PATCH sends bytes from an offset on,
 * HEAD asks how far it came. The PATCH with the last byte answers with the blob's digest. */
#include "common/base.h"

#include <stdio.h>

#include "broker/api/answer.h"
#include "broker/api/file.h"
#include "broker/api/handlers.h"
#include "broker/api/server.h"
#include "broker/api/uploads.h"

/* Numbers of jobs never have the highest bit. */
static uint64_t owner_of(const struct request *rq)
{
    uint64_t owner = rq->who.job_id;
    if (rq->who.role != ROLE_JOB) {
        memcpy(&owner, rq->who.hash, sizeof(owner));
        owner |= (uint64_t)1 << 63;
    }
    return owner;
}

static int header_u64(struct request *rq, const char *name, uint64_t *ret)
{
    const char *text = request_header(rq, name);
    if (!text) {
        return request_fail(rq, -E_INVALID, "the header %s is missing", name);
    }
    if (str_to_u64(str_from(text), ret) < 0) {
        return request_fail(rq, -E_INVALID, "%s is not a number", name);
    }
    return 0;
}

/* Whatever went wrong with the upload itself. */
static int refuse(struct request *rq, int r)
{
    switch (-r) {
    case E_NOT_FOUND:
        return request_fail(rq, r, "there is no such upload of this token's");
    case E_CONFLICT:
        return request_fail(rq, r, "the upload does not go on there: ask where by HEAD");
    case E_LIMIT:
        return request_fail(rq, r, "the token has %u uploads that are not finished",
                            LIMIT_OWNER_UNFINISHED);
    case E_TOO_BIG:
        return request_fail(rq, r, "a blob may have %llu bytes", LIMIT_BLOB_BYTES);
    default:
        return r;
    }
}

/* An answer without a body that says how far it came. */
static int answer_offset(struct request *rq, unsigned status, const struct blob_partial *p,
                         const char *location)
{
    char number[24];
    struct MHD_Response *response = MHD_create_response_from_buffer(0, "", MHD_RESPMEM_PERSISTENT);
    if (response) {
        MHD_add_response_header(response, "Tus-Resumable", "1.0.0");
        MHD_add_response_header(response, "Cache-Control", "no-store");
        snprintf(number, sizeof(number), "%" PRIu64, p->offset);
        MHD_add_response_header(response, "Upload-Offset", number);
        snprintf(number, sizeof(number), "%" PRIu64, p->size);
        MHD_add_response_header(response, "Upload-Length", number);
    }
    if (response && location) {
        MHD_add_response_header(response, "Location", location);
    }
    if (response && p->done) {
        file_etag(response, p->digest);
    }
    return answer_response(rq, status, response);
}

int post_upload(struct request *rq)
{
    char location[32 + 2 * SHA256_BYTES] = "/api/v1/uploads/";
    struct blob_partial begun = {0};
    uint8_t id[SHA256_BYTES];
    int r = header_u64(rq, "Upload-Length", &begun.size);
    if (r < 0) {
        return r;
    }
    r = blob_partial_begin(rq->api->config.blobs, owner_of(rq), begun.size, id);
    if (r < 0) {
        return refuse(rq, r);
    }
    str_to_hex(id, sizeof(id), location + strlen(location));
    return answer_offset(rq, MHD_HTTP_CREATED, &begun, location);
}

int get_upload(struct request *rq)
{
    struct blob_partial p;
    int r = blob_partial_look(rq->api->config.blobs, rq->args.digest, owner_of(rq), &p);
    return r < 0 ? refuse(rq, r) : answer_offset(rq, MHD_HTTP_OK, &p, NULL);
}

int uploads_resume(struct request *rq)
{
    uint64_t offset;
    int r = header_u64(rq, "Upload-Offset", &offset);
    if (r < 0) {
        return r;
    }
    r = blob_partial_resume(rq->api->config.blobs, rq->args.digest, owner_of(rq), offset,
                            &rq->upload);
    return r < 0 ? refuse(rq, r) : 0;
}

/* On a work thread: it may read all of it, and waits for the disk. */
static int commit_upload(struct request *rq)
{
    uint8_t digest[SHA256_BYTES];
    uint64_t size;
    struct blob_upload *u = rq->upload;
    rq->upload = NULL;
    return blob_upload_commit(u, digest, &size);
}

static int commit_done(struct request *rq)
{
    struct blob_partial p;
    int r = rq->result;
    if (r == 0) {
        r = blob_partial_look(rq->api->config.blobs, rq->args.digest, owner_of(rq), &p);
    }
    if (r == 0 && p.done && rq->who.role == ROLE_JOB) {
        sent_note(rq->api->sent, rq->who.job_id, p.digest);
    }
    return r < 0 ? refuse(rq, r) : answer_offset(rq, MHD_HTTP_NO_CONTENT, &p, NULL);
}

int patch_upload(struct request *rq)
{
    if (blob_upload_is_whole(rq->upload)) {
        return request_work(rq, commit_upload, commit_done);
    }
    struct blob_partial p;
    blob_upload_abort(rq->upload);
    rq->upload = NULL;
    int r = blob_partial_look(rq->api->config.blobs, rq->args.digest, owner_of(rq), &p);
    return r < 0 ? refuse(rq, r) : answer_offset(rq, MHD_HTTP_NO_CONTENT, &p, NULL);
}

int delete_upload(struct request *rq)
{
    uint64_t freed;
    int r = blob_partial_remove(rq->api->config.blobs, rq->args.digest, owner_of(rq), &freed);
    if (r < 0) {
        return refuse(rq, r);
    }
    if (rq->who.role == ROLE_JOB) {
        quota_give_back(rq->api->quota, rq->who.job_id, rq->who.pipeline_id, freed);
    }
    return answer_offset(rq, MHD_HTTP_NO_CONTENT, &(struct blob_partial){0}, NULL);
}
