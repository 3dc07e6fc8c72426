#include "common/base.h"

#include "broker/api/stream.h"

#include <stdlib.h>
#include <utlist.h>

#include "broker/api/answer.h"
#include "common/os.h"

#define BLOCK_BYTES (16u * KIB)

static void wake(struct stream *s)
{
    s->woken = true;
    if (s->asleep) {
        s->asleep = false;
        MHD_resume_connection(s->conn);
    }
}

void stream_on_bus(void *ctx, enum bus_topic topic, uint64_t key)
{
    struct api *a = ctx;
    struct stream *s;
    pthread_mutex_lock(&a->lock);
    DL_FOREACH (a->streams, s) {
        /* A job's state is news for those who follow its log, too. */
        if (topic == BUS_EVENTS || s->job_id == key) {
            wake(s);
        }
    }
    pthread_mutex_unlock(&a->lock);
}

void stream_watch(struct api *a, uint64_t now_ms, uint64_t ping_ms)
{
    struct stream *s;
    DL_FOREACH (a->streams, s) {
        if (s->asleep && now_ms - s->spoke_ms >= ping_ms) {
            s->ping = true;
            wake(s);
        }
    }
}

void stream_event(struct stream *s, const char *id, const char *event, json_t *data)
{
    char *text = json_dumps(data, JSON_COMPACT);
    json_decref(data);
    check(text);
    if (id) {
        buf_addf(&s->out, "id: %s\n", id);
    }
    buf_addf(&s->out, "event: %s\ndata: %s\n\n", event, text);
    free(text);
}

/* Takes note of what happened since the last call. */
static bool begin_fill(struct stream *s)
{
    pthread_mutex_lock(&s->api->lock);
    bool ping = s->ping;
    s->ping = s->woken = false;
    s->ended |= s->api->stopping;
    s->spoke_ms = os_monotonic_ms();
    pthread_mutex_unlock(&s->api->lock);
    return ping;
}

static bool fall_asleep(struct stream *s)
{
    pthread_mutex_lock(&s->api->lock);
    bool sleeps = !s->woken && !s->api->stopping;
    if (sleeps) {
        s->asleep = true;
        MHD_suspend_connection(s->conn);
    }
    pthread_mutex_unlock(&s->api->lock);
    return sleeps;
}

static ssize_t read_stream(void *cls, uint64_t pos, char *p, size_t max)
{
    struct stream *s = cls;
    (void)pos;
    for (;;) {
        if (s->sent < s->out.n) {
            size_t n = MIN(max, s->out.n - s->sent);
            memcpy(p, s->out.p + s->sent, n);
            s->sent += n;
            return (ssize_t)n;
        }
        buf_release(&s->out); /* a sleeping stream holds no memory */
        s->sent = 0;
        bool ping = begin_fill(s);
        if (s->ended) {
            return MHD_CONTENT_READER_END_OF_STREAM;
        }
        enum stream_state state = s->fill(s);
        s->ended = state == STREAM_END;
        if (s->out.n == 0 && ping) {
            buf_addz(&s->out, ": ping\n\n");
        }
        /* Zero bytes without sleeping would spin. */
        if (s->out.n == 0 && state == STREAM_WAIT && fall_asleep(s)) {
            return 0;
        }
    }
}

static void free_stream(void *cls)
{
    struct stream *s = cls;
    pthread_mutex_lock(&s->api->lock);
    DL_DELETE(s->api->streams, s);
    s->api->stream_count--;
    pthread_mutex_unlock(&s->api->lock);
    buf_release(&s->out);
    free(s);
}

int stream_answer(struct request *rq, const struct stream *first)
{
    struct api *a = rq->api;
    struct stream *s = xmemdup(first, sizeof(*first));
    s->api = a;
    s->conn = rq->conn;
    s->spoke_ms = os_monotonic_ms();
    /* Something to send at once, so that the head does not wait for the first event. */
    buf_addz(&s->out, "retry: 1000\n\n");
    pthread_mutex_lock(&a->lock);
    bool full = a->stream_count >= LIMIT_HTTP_STREAMS;
    if (!full) {
        a->stream_count++;
        DL_APPEND(a->streams, s);
    }
    pthread_mutex_unlock(&a->lock);
    if (full) {
        buf_release(&s->out);
        free(s);
        return request_fail(rq, -E_BUSY, "too many followers");
    }
    struct MHD_Response *response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES,
                                                                      read_stream, s, free_stream);
    if (!response) {
        free_stream(s);
    } else {
        MHD_add_response_header(response, "Content-Type", "text/event-stream");
        MHD_add_response_header(response, "Cache-Control", "no-store");
        MHD_add_response_header(response, "X-Accel-Buffering", "no");
    }
    return answer_response(rq, MHD_HTTP_OK, response);
}
