#include "common/base.h"

#include "broker/api/answer.h"

#include <stdio.h>
#include <stdlib.h>

#include "broker/api/metrics.h"
#include "common/log.h"

int answer_response(struct request *rq, unsigned status, struct MHD_Response *response)
{
    check(!rq->answered);
    rq->answered = true;
    if (!response) {
        rq->broken = true;
        return 0;
    }
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    if (rq->close) {
        MHD_add_response_header(response, "Connection", "close");
    }
    metrics_count_answer(rq->api, rq->route, status);
    rq->broken = MHD_queue_response(rq->conn, status, response) != MHD_YES;
    MHD_destroy_response(response);
    return 0;
}

static struct MHD_Response *json_response(json_t *body, const char *type)
{
    size_t n;
    char *text = json_dumps(body, JSON_COMPACT | JSON_REAL_PRECISION(8));
    json_decref(body);
    if (!text) { /* a body that is none, for bytes that are no text */
        log_error("api: an answer cannot be written");
        return NULL;
    }
    n = strlen(text);
    struct MHD_Response *response = MHD_create_response_from_buffer(n, text, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(text);
        return NULL;
    }
    MHD_add_response_header(response, "Content-Type", type);
    MHD_add_response_header(response, "Cache-Control", "no-store");
    return response;
}

int answer_json(struct request *rq, unsigned status, json_t *body)
{
    return answer_response(rq, status, json_response(body, "application/json"));
}

int answer_text(struct request *rq, unsigned status, const char *type, struct buf *text)
{
    size_t n = text->n;
    buf_cstr(text);
    char *p = buf_take(text);
    struct MHD_Response *response = MHD_create_response_from_buffer(n, p, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(p);
    } else {
        MHD_add_response_header(response, "Content-Type", type);
        MHD_add_response_header(response, "Cache-Control", "no-store");
    }
    return answer_response(rq, status, response);
}

void answer_error(struct request *rq, int r)
{
    check(r < 0);
    unsigned status = (unsigned)err_http_status(r);
    const char *detail = rq->why.n > 0 ? buf_cstr(&rq->why) : err_text(r);
    json_t *body = json_pack("{s:s, s:s, s:i, s:s}", "type", "about:blank", "title", err_text(r),
                             "status", (int)status, "code", err_code(r));
    check(body);
    json_t *shown = json_string(detail);
    if (shown) { /* what was quoted from the request may be no UTF-8 */
        json_object_set_new(body, "detail", shown);
    }
    if (rq->extra) {
        json_object_update(body, rq->extra);
    }
    struct MHD_Response *response = json_response(body, "application/problem+json");
    if (response && r == -E_UNAUTHORIZED) {
        MHD_add_response_header(response, "WWW-Authenticate", "Bearer");
    }
    if (response && r == -E_METHOD) {
        MHD_add_response_header(response, "Allow", rq->allow);
    }
    if (response && r == -E_RANGE) {
        char text[32];
        snprintf(text, sizeof(text), "bytes */%" PRIu64, rq->total);
        MHD_add_response_header(response, "Content-Range", text);
    }
    if (response && (status == MHD_HTTP_SERVICE_UNAVAILABLE || r == -E_RATE)) {
        char text[16];
        snprintf(text, sizeof(text), "%u", MAX(1u, (rq->wait_ms + 999) / 1000));
        MHD_add_response_header(response, "Retry-After", text);
    }
    answer_response(rq, status, response);
}
