/* Caches: looked up by a running job under the key that its worker made, set by it, and deleted by
 * people. */
#include "common/base.h"

#include <unistd.h>

#include "broker/api/answer.h"
#include "broker/api/body.h"
#include "broker/api/file.h"
#include "broker/api/handlers.h"
#include "broker/api/server.h"
#include "broker/api/view.h"
#include "broker/core/query.h"

/* A job's token opens the caches of that job alone. */
static int check_owner(struct request *rq)
{
    if (rq->who.role == ROLE_JOB && rq->who.job_id != rq->args.id) {
        return request_fail(rq, -E_FORBIDDEN, "the token is of job %" PRIu64, rq->who.job_id);
    }
    return 0;
}

/* The cache of the job's project under that key. */
static int find_cache(struct request *rq, const char *key, uint8_t ret[SHA256_BYTES])
{
    struct tx *tx;
    int r = api_read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    const Pb__JobRecord *job = job_get(tx, rq->args.id);
    const Pb__CacheRecord *c = job ? cache_get(tx, job->project_id, str_from(key)) : NULL;
    if (!job) {
        r = request_fail(rq, -E_NOT_FOUND, "there is no job %" PRIu64, rq->args.id);
    } else if (rq->who.role == ROLE_JOB && !cache_is_open_to(tx, job, str_from(key))) {
        r = request_fail(rq, -E_FORBIDDEN, "a cache of protected refs is for their jobs alone");
    } else if (!c || c->digest.len != SHA256_BYTES) {
        r = request_fail(rq, -E_NOT_FOUND, "there is no cache of that key");
    } else {
        memcpy(ret, c->digest.data, SHA256_BYTES);
    }
    r = tx_ok(tx) ? r : tx_error(tx);
    tx_abort(tx);
    return r;
}

int get_job_cache(struct request *rq)
{
    const char *key = request_query(rq, "key");
    struct MHD_Response *response;
    uint8_t digest[SHA256_BYTES];
    unsigned status;
    uint64_t size;
    int fd;
    int r = check_owner(rq);
    if (r < 0) {
        return r;
    }
    if (!key || key[0] == '\0') {
        return request_fail(rq, -E_INVALID, "`key` is missing in the query");
    }
    r = find_cache(rq, key, digest);
    if (r < 0) {
        return r;
    }
    r = file_open_blob(rq, digest, &fd, &size);
    if (r < 0 || fd < 0) {
        return r == -E_NOT_FOUND ? request_fail(rq, r, "the cache is gone") : r;
    }
    r = file_response(rq, fd, size, digest, "application/zstd", &status, &response);
    if (r < 0) {
        return r;
    }
    file_etag(response, digest); /* a worker that has these bytes asks by HEAD, and takes its own */
    return answer_response(rq, status, response);
}

/* The job had these bytes: it has uploaded them, or they are what it reads under that key, so that
 * one that asks a second time is answered as the first time. Of other digests it learns nothing,
 * not even whether they are here. */
static int check_had(struct request *rq, const char *key, const uint8_t digest[SHA256_BYTES])
{
    uint8_t now[SHA256_BYTES];
    if (sent_has(rq->api->sent, rq->args.id, digest)) {
        return 0;
    }
    int r = find_cache(rq, key, now);
    if (r == 0 && crypto_equal(now, digest, sizeof(now))) {
        return 0;
    }
    return r == -E_FORBIDDEN
               ? r
               : request_fail(rq, -E_CONFLICT, "the job has not uploaded these bytes: do it first");
}

static int read_cache_set(struct request *rq, const json_t *body, struct arena *a,
                          Pb__CacheSet *ret)
{
    const char *key = NULL;
    uint8_t digest[SHA256_BYTES];
    uint64_t claimed = UINT64_MAX;
    uint64_t size;
    int fd;
    int r;
    if ((r = body_fields(rq, body, "", "key digest size")) < 0 ||
        (r = body_text(rq, body, "key", LIMIT_CACHE_KEY, &key)) < 0 ||
        (r = body_digest(rq, body, "digest", digest)) < 0 ||
        (r = body_u64(rq, body, "size", &claimed)) < 0) {
        return r;
    }
    if (!key || key[0] == '\0') {
        return request_fail(rq, -E_INVALID, "field `key` is missing");
    }
    if ((r = check_had(rq, key, digest)) < 0) {
        return r;
    }
    /* Asking makes the blob young: no sweep takes it before the command refers to it. */
    struct blobs *blobs = rq->api->config.blobs;
    if (!blob_exists(blobs, digest) || blob_open(blobs, digest, &fd, &size) < 0) {
        return request_fail(rq, -E_INVALID, "the cache is not here: upload it first");
    }
    close(fd);
    if (claimed != UINT64_MAX && claimed != size) {
        return request_fail(rq, -E_INVALID, "the cache has %" PRIu64 " bytes", size);
    }
    ret->key = pb_bytes(a, str_from(key));
    ret->digest = pb_bytes(a, str_of(digest, sizeof(digest)));
    ret->size = size;
    return 0;
}

static int set_done(struct request *rq)
{
    if (rq->result < 0) {
        return rq->reply.text[0] != '\0' ? request_fail(rq, rq->result, "%s", rq->reply.text)
                                         : rq->result;
    }
    json_t *answer = rq->extra;
    rq->extra = NULL;
    return answer_json(rq, MHD_HTTP_OK, answer);
}

int put_job_cache(struct request *rq)
{
    json_t *body;
    int r = check_owner(rq);
    if (r < 0 || (r = body_parse(rq, false, &body)) < 0) {
        return r;
    }
    struct post *post = request_post_new(rq);
    Pb__CacheSet *c = arena_alloc(post_arena(post), sizeof(*c));
    pb__cache_set__init(c);
    c->job_id = rq->args.id;
    r = read_cache_set(rq, body, post_arena(post), c);
    json_decref(body);
    if (r < 0) {
        post_free(post);
        return r;
    }
    rq->extra = json_pack("{s:o, s:o, s:I}", "key", json_bytes(c->key), "digest",
                          json_digest(c->digest), "size", (json_int_t)c->size);
    post_command(post)->body_case = PB__COMMAND__BODY_CACHE_SET;
    post_command(post)->cache_set = c;
    return request_post(rq, post, set_done);
}

static int delete_done(struct request *rq)
{
    if (rq->result < 0) {
        return rq->reply.text[0] != '\0' ? request_fail(rq, rq->result, "%s", rq->reply.text)
                                         : rq->result;
    }
    return answer_json(rq, MHD_HTTP_OK,
                       json_pack("{s:I}", "deleted", (json_int_t)rq->reply.deleted));
}

/* A key that is empty is a mistake of whoever meant one: all go only where none is named. */
int delete_caches(struct request *rq)
{
    const char *project = request_query(rq, "project");
    const char *key = request_query(rq, "key");
    if (!project) {
        return request_fail(rq, -E_INVALID, "`project` is missing in the query");
    }
    if (key && (key[0] == '\0' || strlen(key) > LIMIT_CACHE_KEY)) {
        return request_fail(rq, -E_INVALID, "`key` in the query must have 1 to %u bytes",
                            LIMIT_CACHE_KEY);
    }
    struct post *post = request_post_new(rq);
    Pb__CacheDelete *c = arena_alloc(post_arena(post), sizeof(*c));
    pb__cache_delete__init(c);
    c->project = arena_strdup(post_arena(post), str_from(project));
    c->key = pb_bytes(post_arena(post), key ? str_from(key) : STR_NULL);
    post_command(post)->body_case = PB__COMMAND__BODY_CACHE_DELETE;
    post_command(post)->cache_delete = c;
    return request_post(rq, post, delete_done);
}
