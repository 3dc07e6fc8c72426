#include "common/base.h"

#include "broker/api/request.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "broker/api/answer.h"
#include "broker/api/hygiene.h"
#include "broker/api/rate.h"
#include "broker/api/scope.h"
#include "broker/api/server.h"
#include "broker/api/uploads.h"
#include "broker/api/uses.h"
#include "common/os.h"

/* A body that is refused half-way is read on for so long, so that the sender hears why. */
#define DRAIN_BYTES LIMIT_HTTP_BODY
/* All JSON bodies together. */
#define BODIES_BYTES (16ull * LIMIT_HTTP_BODY)

int request_fail(struct request *rq, int r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    buf_clear(&rq->why);
    buf_vaddf(&rq->why, fmt, ap);
    va_end(ap);
    return r;
}

const char *request_header(struct request *rq, const char *name)
{
    return MHD_lookup_connection_value(rq->conn, MHD_HEADER_KIND, name);
}

const char *request_query(struct request *rq, const char *name)
{
    return MHD_lookup_connection_value(rq->conn, MHD_GET_ARGUMENT_KIND, name);
}

int request_query_u64(struct request *rq, const char *name, uint64_t absent, uint64_t *ret)
{
    const char *text = request_query(rq, name);
    if (!text) {
        *ret = absent;
        return 0;
    }
    if (str_to_u64(str_from(text), ret) < 0) {
        return request_fail(rq, -E_INVALID, "`%s` in the query is not a number", name);
    }
    return 0;
}

static struct link *request_link(struct request *rq)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(
        rq->conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

/* --- parking --- */

int request_park(struct request *rq, request_fn next)
{
    struct api *a = rq->api;
    pthread_mutex_lock(&a->lock);
    bool refused = a->stopping;
    if (!refused) {
        a->parked++;
        rq->next = next;
        MHD_suspend_connection(rq->conn);
    }
    pthread_mutex_unlock(&a->lock);
    return refused ? -E_SHUTDOWN : 0;
}

void request_wake(struct request *rq)
{
    struct api *a = rq->api;
    pthread_mutex_lock(&a->lock);
    check(a->parked > 0);
    a->parked--;
    MHD_resume_connection(rq->conn);
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
}

/* On the turn's thread. */
static void on_turn_done(void *ctx, int r, const struct reply *reply)
{
    struct request *rq = ctx;
    rq->result = r;
    rq->reply = *reply;
    if (reply->job_count > 0) { /* they live in the post, which ends with this call */
        rq->jobs = xmemdup(reply->jobs, reply->job_count * sizeof(*reply->jobs));
        rq->reply.jobs = rq->jobs;
    }
    request_wake(rq);
}

struct post *request_post_new(struct request *rq)
{
    struct post *post = post_new(rq->who.name);
    if (rq->who.role != ROLE_JOB) {
        char from[ADDRESS_TEXT];
        post_command(post)->from = arena_strdup(post_arena(post),
                                                str_from(request_address(rq, from)));
    }
    return post;
}

/* A proxy puts the address that it saw behind what was there: the last one of the last header. */
static enum MHD_Result last_forwarded(void *cls, enum MHD_ValueKind kind, const char *name,
                                      const char *value)
{
    const char **last = cls;
    (void)kind;
    if (strcasecmp(name, "X-Forwarded-For") == 0 && value) {
        *last = value;
    }
    return MHD_YES;
}

/* Whoever is no trusted proxy can write anything into that header. */
static bool forwarded_address(struct request *rq, const char *proxy, char ret_text[ADDRESS_TEXT])
{
    struct str trusted = str_from(rq->api->config.trusted_proxies);
    struct str one;
    struct str address = STR_NULL;
    uint8_t bytes[sizeof(struct in6_addr)];
    const char *header = NULL;
    bool known = false;
    while (!known && str_split(&trusted, ',', &one)) {
        known = str_eqz(str_trim(one), proxy);
    }
    if (!known) {
        return false;
    }
    MHD_get_connection_values(rq->conn, MHD_HEADER_KIND, last_forwarded, &header);
    struct str rest = str_from(header);
    while (str_split(&rest, ',', &one)) {
        address = str_trim(one);
    }
    if (address.n == 0 || address.n >= ADDRESS_TEXT) {
        return false;
    }
    char text[ADDRESS_TEXT];
    memcpy(text, address.p, address.n);
    text[address.n] = '\0';
    if (inet_pton(AF_INET, text, bytes) != 1 && inet_pton(AF_INET6, text, bytes) != 1) {
        return false;
    }
    memcpy(ret_text, text, address.n + 1);
    return true;
}

const char *request_address(struct request *rq, char ret_text[ADDRESS_TEXT])
{
    char proxy[ADDRESS_TEXT];
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(
        rq->conn, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *a = info ? info->client_addr : NULL;
    const void *bytes = NULL;
    if (a && a->sa_family == AF_INET) {
        bytes = &((const struct sockaddr_in *)a)->sin_addr;
    } else if (a && a->sa_family == AF_INET6) {
        bytes = &((const struct sockaddr_in6 *)a)->sin6_addr;
    }
    if (!bytes || !inet_ntop(a->sa_family, bytes, ret_text, ADDRESS_TEXT)) {
        snprintf(ret_text, ADDRESS_TEXT, "unknown");
    }
    memcpy(proxy, ret_text, sizeof(proxy));
    (void)forwarded_address(rq, proxy, ret_text);
    return ret_text;
}

int request_post(struct request *rq, struct post *post, request_fn next)
{
    int r = request_park(rq, next);
    if (r < 0) {
        post_free(post);
        return r;
    }
    r = turn_submit(rq->api->config.turn, post, on_turn_done, rq);
    if (r < 0) {
        rq->result = r;
        request_wake(rq);
    }
    return 0;
}

int request_work(struct request *rq, request_fn work, request_fn next)
{
    struct api *a = rq->api;
    int r = request_park(rq, next);
    if (r < 0) {
        return r;
    }
    rq->work = work;
    rq->next_work = NULL;
    pthread_mutex_lock(&a->lock);
    if (a->work) {
        a->work_last->next_work = rq;
    } else {
        a->work = rq;
    }
    a->work_last = rq;
    pthread_cond_signal(&a->work_changed);
    pthread_mutex_unlock(&a->lock);
    return 0;
}

/* --- the steps --- */

void *request_begin(void *cls, const char *uri, struct MHD_Connection *conn)
{
    struct request *rq = xcalloc(1, sizeof(*rq));
    rq->api = cls;
    rq->conn = conn;
    rq->bad_target = !hygiene_target_ok(uri);
    buf_init(&rq->body, LIMIT_HTTP_BODY);
    return rq;
}

static enum MHD_Result check_query(void *cls, enum MHD_ValueKind kind, const char *name,
                                   const char *value)
{
    struct request *rq = cls;
    (void)kind;
    if (strcmp(rq->route->query, ROUTE_ANY_QUERY) == 0) {
        return MHD_NO;
    }
    if (!route_knows_query(rq->route, str_from(name))) {
        rq->refused = request_fail(rq, -E_INVALID, "unknown query parameter `%.64s`", name);
        return MHD_NO;
    }
    if (request_query(rq, name) != value) {
        rq->refused = request_fail(rq, -E_INVALID, "query parameter `%.64s` given twice", name);
        return MHD_NO;
    }
    if (!value) {
        rq->refused = request_fail(rq, -E_INVALID, "query parameter `%.64s` has no value", name);
        return MHD_NO;
    }
    return MHD_YES;
}

static int find_principal(struct request *rq, int (*read)(struct api *a, struct tx **ret))
{
    struct tx *tx;
    int r = read(rq->api, &tx);
    if (r < 0) {
        return r;
    }
    principal_release(&rq->who);
    r = auth_principal(tx, rq->api->job_key, request_header(rq, "Authorization"), &rq->who);
    tx_abort(tx);
    return r;
}

/* By the token, or by the address of who has none that is good. */
static int rate_check(struct request *rq, struct rate *rate)
{
    char address[ADDRESS_TEXT];
    bool known = rate == rq->api->requests;
    struct str key = known ? str_of(rq->who.hash, sizeof(rq->who.hash))
                           : str_from(request_address(rq, address));
    rq->wait_ms = rate_take(rate, key, os_monotonic_us());
    if (rq->wait_ms == 0) {
        return 0;
    }
    return request_fail(rq, -E_RATE,
                        known ? "this token asks too often"
                              : "too many requests without a good token from %s",
                        address);
}

/* A token that was made just now may not be in the last commit, and that of a job ends with the
 * job: then the newest there is counts. Who revokes one is answered after the commit. */
static int check_role(struct request *rq)
{
    if (rq->route->roles == ROLE_NONE) {
        return 0;
    }
    int r = find_principal(rq, api_read_stored);
    if (r == -E_UNAUTHORIZED && (r = rate_check(rq, rq->api->strangers)) == 0) {
        r = -E_UNAUTHORIZED;
    }
    /* A token that was made just now? Or one of a job, which ends with it? */
    if (r == -E_UNAUTHORIZED || (r == 0 && rq->who.role == ROLE_JOB)) {
        r = find_principal(rq, api_read);
    }
    if (r == 0 && !role_reaches(rq->route, rq->who.role)) {
        r = request_fail(rq, -E_FORBIDDEN, "this token may not do that");
    }
    if (r == 0 && rq->api->requests && rq->who.role != ROLE_JOB && rq->who.role != ROLE_ADMIN) {
        r = rate_check(rq, rq->api->requests);
    }
    if (r == 0 && rq->who.role != ROLE_JOB && rq->who.role != ROLE_JOIN) {
        uses_note(rq->api->uses, rq->who.hash, os_realtime_ms());
    }
    return r;
}

/* What the body will be, as far as the head says it. */
static int check_body(struct request *rq)
{
    static const uint64_t limits[] = {[BODY_NONE] = 0,
                                      [BODY_JSON] = LIMIT_HTTP_BODY,
                                      [BODY_BLOB] = LIMIT_BLOB_BYTES,
                                      [BODY_PART] = LIMIT_BLOB_BYTES};
    const char *length = request_header(rq, "Content-Length");
    uint64_t n = 0;
    if (length && str_to_u64(str_from(length), &n) < 0) {
        return request_fail(rq, -E_INVALID, "Content-Length is not a number");
    }
    if (rq->route->body == BODY_NONE && (n > 0 || request_header(rq, "Transfer-Encoding"))) {
        return request_fail(rq, -E_INVALID, "this request takes no body");
    }
    if (n > limits[rq->route->body]) {
        return request_fail(rq, -E_TOO_BIG, "the body may have %" PRIu64 " bytes",
                            limits[rq->route->body]);
    }
    if (rq->route->body == BODY_BLOB) {
        return blob_upload_begin(rq->api->config.blobs, LIMIT_BLOB_BYTES, &rq->upload);
    }
    return rq->route->body == BODY_PART ? uploads_resume(rq) : 0;
}

/* All that can be said of a request by its head. */
static int admit(struct request *rq, const char *method, const char *path)
{
    int r = hygiene_check(rq, path);
    if (r < 0) {
        return r;
    }
    r = route_find(method, path, &rq->route, &rq->args, &rq->allow);
    if (r < 0) {
        return request_fail(rq, r, r == -E_METHOD ? "%s cannot be done here" : "%s: no such path",
                            r == -E_METHOD ? method : path);
    }
    if (api_stopping(rq->api) && rq->route->roles != ROLE_NONE) {
        return -E_SHUTDOWN;
    }
    r = check_role(rq);
    if (r < 0) {
        return r;
    }
    if (rq->args.named && (rq->args.rest.n > LIMIT_NAME || !str_is_utf8(rq->args.rest, NULL))) {
        return request_fail(rq, -E_INVALID, "the path ends in no name");
    }
    MHD_get_connection_values(rq->conn, MHD_GET_ARGUMENT_KIND, check_query, rq);
    r = rq->refused < 0 ? rq->refused : scope_check(rq);
    return r < 0 ? r : check_body(rq);
}

static int keep_json(struct request *rq, const char *data, size_t n)
{
    struct api *a = rq->api;
    size_t before = rq->body.cap;
    buf_add(&rq->body, data, n);
    uint64_t all = atomic_fetch_add(&a->body_bytes, rq->body.cap - before);
    if (!buf_ok(&rq->body)) {
        return request_fail(rq, -E_TOO_BIG, "the body may have %u bytes", LIMIT_HTTP_BODY);
    }
    return all > BODIES_BYTES ? -E_BUSY : 0;
}

/* What was booked for an upload that comes to nothing. */
static void give_back(struct request *rq)
{
    if (rq->booked > 0) {
        quota_give_back(rq->api->quota, rq->who.job_id, rq->who.pipeline_id, rq->booked);
        rq->booked = 0;
    }
}

static int keep_blob(struct request *rq, const char *data, size_t n)
{
    if (rq->who.role == ROLE_JOB) {
        int r = quota_take(rq->api->quota, rq->who.job_id, rq->who.pipeline_id, n);
        if (r < 0) {
            give_back(rq);
            return request_fail(rq, r, "the job or its pipeline has uploaded all that it may");
        }
        rq->booked += n;
    }
    return blob_upload_write(rq->upload, data, n);
}

/* What was kept of a part stays booked with it. */
static int keep_part(struct request *rq, const char *data, size_t n)
{
    uint64_t before = rq->booked;
    int r = keep_blob(rq, data, n);
    if (r == 0) {
        rq->booked = before;
    }
    return r == -E_CONFLICT ? request_fail(rq, r, "another request goes on with this upload") : r;
}

static enum MHD_Result take_body(struct request *rq, const char *data, size_t n)
{
    struct link *link = request_link(rq);
    rq->received += n;
    if (link) {
        link->body_bytes = rq->received;
    }
    if (rq->refused < 0) {
        rq->drained += n;
        return rq->drained > DRAIN_BYTES ? MHD_NO : MHD_YES;
    }
    switch (rq->route->body) {
    case BODY_NONE:
        rq->refused = request_fail(rq, -E_INVALID, "this request takes no body");
        break;
    case BODY_JSON:
        rq->refused = keep_json(rq, data, n);
        break;
    case BODY_BLOB:
        rq->refused = keep_blob(rq, data, n);
        break;
    case BODY_PART:
        rq->refused = keep_part(rq, data, n);
        break;
    }
    return MHD_YES;
}

/* A handler's return value is the answer, unless it has answered or parked. */
static enum MHD_Result conclude(struct request *rq, int r)
{
    if (r < 0) {
        answer_error(rq, r);
    }
    check(rq->answered || rq->next);
    return rq->broken ? MHD_NO : MHD_YES;
}

static enum MHD_Result take_head(struct request *rq, const char *method, const char *url)
{
    struct link *link = request_link(rq);
    rq->head_seen = true;
    if (link) {
        link->body_bytes = 0;
        link->body_since_ms = os_monotonic_ms();
        link->head_since_ms = 0;
    }
    int r = admit(rq, method, url);
    if (r < 0) {
        answer_error(rq, r);
    }
    return rq->broken ? MHD_NO : MHD_YES;
}

enum MHD_Result request_step(void *cls, struct MHD_Connection *conn, const char *url,
                             const char *method, const char *version, const char *data,
                             size_t *data_size, void **con_cls)
{
    struct request *rq = *con_cls;
    (void)cls, (void)conn, (void)version;
    if (rq->answered) {
        return MHD_NO; /* the server stops: libmicrohttpd took an answer and forgot it */
    }
    if (!rq->head_seen) {
        return take_head(rq, method, url);
    }
    if (*data_size > 0) {
        size_t n = *data_size;
        *data_size = 0;
        return take_body(rq, data, n);
    }
    if (rq->next) {
        request_fn next = rq->next;
        rq->next = NULL;
        return conclude(rq, next(rq));
    }
    struct link *link = request_link(rq);
    if (link) {
        link->body_since_ms = 0;
    }
    return conclude(rq, rq->refused < 0 ? rq->refused : rq->route->handler(rq));
}

void request_done(void *cls, struct MHD_Connection *conn, void **con_cls,
                  enum MHD_RequestTerminationCode how)
{
    struct request *rq = *con_cls;
    (void)cls, (void)conn, (void)how;
    if (!rq) {
        return;
    }
    struct link *link = request_link(rq);
    if (link) {
        link->body_since_ms = 0;
        link->head_since_ms = os_monotonic_ms();
    }
    atomic_fetch_sub(&rq->api->body_bytes, rq->body.cap);
    blob_upload_abort(rq->upload);
    give_back(rq);
    crypto_wipe(rq->body.p, rq->body.n); /* it may have held secrets */
    buf_release(&rq->body);
    buf_release(&rq->why);
    json_decref(rq->extra);
    post_free(rq->post);
    principal_release(&rq->who);
    free(rq->jobs);
    free(rq);
    *con_cls = NULL;
}
