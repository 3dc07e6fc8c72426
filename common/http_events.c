#include "common/base.h"

#include "common/http.h"
#include "common/http_transfer.h"
#include "common/sse.h"

#define CONNECT_TIMEOUT_MS 5000L
#define IDLE_TIMEOUT_MS    60000u /* the broker sends a comment every 15 s */
#define ANSWER_BYTES       4096u  /* kept of an answer that is no stream */

struct listener {
    struct transfer transfer;
    struct sse sse;
    struct buf answer;
};

static size_t take_stream(char *p, size_t size, size_t count, void *ctx)
{
    struct listener *l = ctx;
    size_t n = size * count;
    transfer_touch(&l->transfer);
    if (transfer_status(&l->transfer) != 200) {
        buf_add(&l->answer, p, MIN(n, ANSWER_BYTES - l->answer.n));
        return n;
    }
    int r = sse_feed(&l->sse, str_of(p, n));
    if (r == -E_CANCELED) {
        l->transfer.finished = true;
    } else {
        l->transfer.failed = r;
    }
    return r < 0 ? 0 : n;
}

static int error_of_status(int status)
{
    switch (status) {
    case 401:
        return -E_UNAUTHORIZED;
    case 403:
        return -E_FORBIDDEN;
    case 404:
        return -E_NOT_FOUND;
    case 410:
        return -E_GONE;
    default:
        return status >= 500 ? -E_UNREACHABLE : -E_PROTOCOL;
    }
}

static int set_stream(struct listener *l, const char *last_id)
{
    CURL *easy = l->transfer.easy;
    check(curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_stream) == CURLE_OK);
    check(curl_easy_setopt(easy, CURLOPT_WRITEDATA, l) == CURLE_OK);
    check(curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, CONNECT_TIMEOUT_MS) == CURLE_OK);
    l->transfer.idle_ms = IDLE_TIMEOUT_MS;
    int r = transfer_header(&l->transfer, "Accept", "text/event-stream");
    return r == 0 && last_id != NULL ? transfer_header(&l->transfer, "Last-Event-ID", last_id) : r;
}

int http_events(const char *url, const char *token, const char *last_id, http_event_fn on_event,
                void *ctx, const volatile bool *stop, struct buf *why)
{
    struct listener l = {0};
    sse_init(&l.sse, on_event, ctx);
    int r = transfer_init(&l.transfer, url, token);
    if (r == 0) {
        r = set_stream(&l, last_id);
    }
    if (r < 0) {
        buf_addz(why, "a header value holds a line break or control character");
    } else {
        l.transfer.stop = stop;
        r = transfer_run(&l.transfer, why);
    }
    if (r == 0 && !l.transfer.finished && transfer_status(&l.transfer) != 200) {
        r = error_of_status(transfer_status(&l.transfer));
        buf_addf(why, "the server answered %d: %s", transfer_status(&l.transfer),
                 buf_cstr(&l.answer));
    }
    transfer_release(&l.transfer);
    sse_release(&l.sse);
    buf_release(&l.answer);
    return r;
}
