/* Following a job's log: its durable bytes as they come, attempt after attempt, until the job has
 * ended and all was sent. */
#include "common/base.h"

#include "broker/api/handlers.h"
#include "broker/api/stream.h"
#include "broker/api/view.h"
#include "broker/core/query.h"
#include "common/crypto.h"

#define LOG_BLOCK_BYTES (12u * KIB) /* 16 KiB as base64 */

/* What the store says of the job, taken before the log is read: an attempt that had ended by then
 * has no byte that a later read does not find. */
struct progress {
    uint64_t newest; /* attempt; 0: none yet */
    bool attempt_ended;
    bool job_ended;
    const char *status; /* static text */
};

static int read_progress(struct stream *s, struct progress *ret)
{
    struct tx *tx;
    int r = api_read_stored(s->api, &tx);
    if (r < 0) {
        return r;
    }
    const Pb__JobRecord *job = job_get(tx, s->job_id);
    if (job) {
        uint64_t shown = s->attempt > 0 ? s->attempt : job->attempt;
        const Pb__AttemptRecord *attempt = shown > 0 ? attempt_get(tx, job->id, shown) : NULL;
        ret->newest = job->attempt;
        ret->job_ended = job_state_terminal(job->state);
        ret->attempt_ended = shown < job->attempt || !attempt || job_state_terminal(attempt->state);
        ret->status = job_state_text(s->one_attempt && attempt ? attempt->state : job->state);
    } else {
        r = -E_NOT_FOUND;
    }
    r = tx_ok(tx) ? r : tx_error(tx);
    tx_abort(tx);
    return r;
}

static void begin_attempt(struct stream *s, uint64_t attempt)
{
    s->attempt = attempt;
    s->offset = 0;
    stream_event(s, NULL, "attempt", json_pack("{s:I}", "attempt", (json_int_t)attempt));
}

/* Tells the next bytes; false: there are none now. Written by hand: this is what streams in bulk.
 */
static bool tell_bytes(struct stream *s)
{
    uint8_t bytes[LOG_BLOCK_BYTES];
    int64_t n = logs_read(s->api->config.logs, s->job_id, s->attempt, s->offset, bytes,
                          sizeof(bytes));
    if (n <= 0) {
        return false;
    }
    buf_addf(&s->out,
             "id: %" PRIu64 ":%" PRIu64 "\nevent: log\ndata: {\"attempt\":%" PRIu64
             ",\"offset\":%" PRIu64 ",\"bytes\":\"",
             s->attempt, s->offset + (uint64_t)n, s->attempt, s->offset);
    crypto_to_base64(str_of(bytes, (size_t)n), &s->out);
    buf_addz(&s->out, "\"}\n\n");
    s->offset += (uint64_t)n;
    return true;
}

static enum stream_state tell_end(struct stream *s, const struct progress *p)
{
    stream_event(
        s, NULL, "end",
        json_pack("{s:o, s:o}", "status", json_text(p->status), "attempt", json_id(s->attempt)));
    return STREAM_END;
}

static enum stream_state fill_log(struct stream *s)
{
    struct progress p = {0};
    int r = read_progress(s, &p);
    if (r == -E_NOT_FOUND) {
        return tell_end(s, &p); /* its time to be kept is over */
    }
    if (r < 0) {
        return STREAM_END;
    }
    if (s->attempt == 0 && p.newest > 0) {
        begin_attempt(s, p.newest);
        return STREAM_MORE;
    }
    if (s->attempt > 0 && tell_bytes(s)) {
        return STREAM_MORE;
    }
    if (s->attempt > 0 && !p.attempt_ended) {
        return STREAM_WAIT;
    }
    if (!s->one_attempt && p.newest > s->attempt) {
        begin_attempt(s, s->attempt + 1);
        return STREAM_MORE;
    }
    return p.job_ended || (s->one_attempt && p.attempt_ended) ? tell_end(s, &p) : STREAM_WAIT;
}

/* "ATTEMPT:OFFSET" */
static int read_position(struct request *rq, const char *text, struct stream *s)
{
    struct str rest = str_from(text);
    struct str attempt;
    if (!str_split(&rest, ':', &attempt) || str_to_u64(attempt, &s->attempt) < 0 ||
        str_to_u64(rest, &s->offset) < 0 || s->attempt == 0) {
        return request_fail(rq, -E_INVALID, "Last-Event-ID is no ATTEMPT:OFFSET");
    }
    return 0;
}

/* Where to begin: Last-Event-ID, the query, or the beginning of the newest attempt. */
static int begin_stream(struct request *rq, struct stream *s)
{
    const char *last = request_header(rq, "Last-Event-ID");
    uint64_t attempt, offset;
    int r = request_query_u64(rq, "attempt", 0, &attempt);
    if (r < 0 || (r = request_query_u64(rq, "offset", 0, &offset)) < 0) {
        return r;
    }
    s->one_attempt = attempt > 0;
    if (last && last[0] != '\0') {
        r = read_position(rq, last, s);
        if (r == 0 && s->one_attempt && s->attempt != attempt) {
            r = request_fail(rq, -E_INVALID, "Last-Event-ID is of another attempt");
        }
        return r;
    }
    if (offset > 0 && attempt == 0) {
        return request_fail(rq, -E_INVALID, "`offset` wants `attempt`");
    }
    s->attempt = attempt;
    s->offset = offset;
    return 0;
}

int get_job_follow(struct request *rq)
{
    struct stream s = {.fill = fill_log, .job_id = rq->args.id};
    struct tx *tx;
    int r = begin_stream(rq, &s);
    if (r < 0 || (r = api_read(rq->api, &tx)) < 0) {
        return r;
    }
    if (!job_get(tx, s.job_id)) {
        r = request_fail(rq, -E_NOT_FOUND, "there is no job %" PRIu64, s.job_id);
    } else if (s.attempt > 0 && !attempt_get(tx, s.job_id, s.attempt)) {
        r = request_fail(rq, -E_NOT_FOUND, "job %" PRIu64 " has no attempt %" PRIu64, s.job_id,
                         s.attempt);
    }
    r = tx_ok(tx) ? r : tx_error(tx);
    tx_abort(tx);
    return r < 0 ? r : stream_answer(rq, &s);
}
