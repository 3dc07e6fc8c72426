#include "common/base.h"

#include "broker/core/run.h"
#include "common/limits.h"

struct key timer_key(uint64_t due_ms, uint64_t timer_id)
{
    return key_u64_u64(due_ms, timer_id);
}

uint64_t timer_add(struct core *c, uint64_t due_ms, const Pb__TimerRecord *t)
{
    const uint64_t id = core_new_id(c);
    const struct key k = timer_key(due_ms, id);

    tx_put_msg(c->tx, T_TIMER, &k, &t->base);
    return id;
}

void timer_del(struct core *c, uint64_t due_ms, uint64_t timer_id)
{
    const struct key k = timer_key(due_ms, timer_id);

    tx_del(c->tx, T_TIMER, &k);
}

static bool first_timer(struct tx *tx, uint64_t *ret_due_ms, uint64_t *ret_id)
{
    struct key k;

    if (!tx_first_key(tx, T_TIMER, STR_NULL, &k)) {
        return false;
    }
    *ret_due_ms = key_read_u64(key_str(&k), 0);
    *ret_id = key_read_u64(key_str(&k), sizeof(uint64_t));
    return true;
}

uint64_t core_next_due_ms(struct tx *tx)
{
    uint64_t due_ms, id;

    return first_timer(tx, &due_ms, &id) ? due_ms : UINT64_MAX;
}

bool core_due_timer(struct tx *tx, uint64_t now_ms, Pb__TimerFired *ret)
{
    uint64_t due_ms, id;

    if (!first_timer(tx, &due_ms, &id) || due_ms > now_ms) {
        return false;
    }
    pb__timer_fired__init(ret);
    ret->due_ms = due_ms;
    ret->timer_id = id;
    return true;
}

/* A worker that beats but takes nothing is as good as lost, also to the job's budget: it would get
 * the job again and again. */
static void unacked(struct run *run, Pb__JobRecord *job)
{
    job_fence(run, job);
    job_lose(run, job, REASON_WORKER_LOST, NULL, "assignment not acknowledged");
}

/* The worker should have ended it long ago: stop it, and fail when that is confirmed. */
static void timed_out(struct run *run, Pb__JobRecord *job)
{
    job->reason = REASON_JOB_TIMEOUT;
    job_start_canceling(run, job, true, reason_text(REASON_JOB_TIMEOUT));
}

/* What its pool said when it began to wait may be too short by now: a longer time, or none, saves
 * those that wait. The shorter one is for others: nobody's time ends before it was told. */
static void queued_too_long(struct run *run, Pb__JobRecord *job)
{
    const uint64_t due_ms = job_queue_deadline_ms(run->core, job);

    if (due_ms == 0) {
        job_timer_clear(run, job);
    } else if (due_ms > run->core->now_ms) {
        job_timer_set(run, job, PB__JOB_TIMER_KIND__JOB_TIMER_QUEUE, due_ms);
    } else {
        job_fail_saying(run, job, REASON_STUCK, 0, "stuck: its pool did not take it in time");
    }
}

/* Every case moves the job or its timer, which takes the timer's row away. */
static void job_timer_fired(struct run *run, Pb__JobRecord *job, Pb__JobTimerKind kind)
{
    switch (kind) {
    case PB__JOB_TIMER_KIND__JOB_TIMER_DELAYED:
        job_queue(run, job, "delay is over");
        break;
    case PB__JOB_TIMER_KIND__JOB_TIMER_UNACKED:
        unacked(run, job);
        break;
    case PB__JOB_TIMER_KIND__JOB_TIMER_TIMEOUT:
        timed_out(run, job);
        break;
    case PB__JOB_TIMER_KIND__JOB_TIMER_CANCELING:
        job_fence(run, job);
        job_end_canceling(run, job, NULL, "the worker did not confirm the cancel");
        break;
    case PB__JOB_TIMER_KIND__JOB_TIMER_WAIT_WORKER:
        job_fence(run, job);
        attempt_end(run, job, JOB_FAILED, REASON_WORKER_LOST, NULL, "the worker did not come back");
        job_fail_for_good(run, job, REASON_WORKER_LOST, 0);
        break;
    case PB__JOB_TIMER_KIND__JOB_TIMER_QUEUE:
        queued_too_long(run, job);
        break;
    case _PB__JOB_TIMER_KIND_IS_INT_SIZE:
    default:
        check_failed("a known timer", __FILE__, __LINE__);
    }
}

static int fire_job_timer(struct core *c, const Pb__TimerFired *cmd, const Pb__JobTimer *t)
{
    struct run run;
    Pb__JobRecord *job;
    int r = run_load_job(&run, c, t->job_id, &job);

    if (r < 0) {
        return r;
    }
    check(job->timer_id == cmd->timer_id && job->timer_due_ms == cmd->due_ms);
    job_timer_fired(&run, job, t->kind);
    check(job->timer_id != cmd->timer_id || !tx_ok(c->tx));
    c->reply->job_id = job->id;
    c->reply->pipeline_id = job->pipeline_id;
    return run_close(&run, 0);
}

const Pb__RequestRecord *request_get(struct tx *tx, ProtobufCBinaryData key)
{
    const struct key k = key_bytes(key.data, key.len);

    return (const Pb__RequestRecord *)tx_get_msg(tx, T_REQUEST, &k,
                                                 &pb__request_record__descriptor);
}

void request_add(struct core *c, ProtobufCBinaryData key, Pb__RequestRecord *row)
{
    const struct key k = key_bytes(key.data, key.len);
    Pb__RequestTimer what = PB__REQUEST_TIMER__INIT;
    Pb__TimerRecord t = PB__TIMER_RECORD__INIT;

    what.key_hash = key;
    t.what_case = PB__TIMER_RECORD__WHAT_REQUEST;
    t.request = &what;
    row->expires_ms = c->now_ms + LIMIT_REQUEST_KEEP_MS;
    row->timer_id = timer_add(c, row->expires_ms, &t);
    tx_put_msg(c->tx, T_REQUEST, &k, &row->base);
}

static void forget_request(struct core *c, const Pb__RequestTimer *t)
{
    const struct key k = key_bytes(t->key_hash.data, t->key_hash.len);

    tx_del(c->tx, T_REQUEST, &k);
}

int apply_timer_fired(struct core *c, const Pb__TimerFired *cmd)
{
    const struct key k = timer_key(cmd->due_ms, cmd->timer_id);
    const Pb__TimerRecord *t = (const Pb__TimerRecord *)tx_get_msg(c->tx, T_TIMER, &k,
                                                                   &pb__timer_record__descriptor);

    if (t == NULL) {
        return reject(c, -E_NOT_FOUND, "no such timer");
    }
    if (cmd->due_ms > c->now_ms) {
        return reject(c, -E_CONFLICT, "the timer is not due yet");
    }
    switch (t->what_case) {
    case PB__TIMER_RECORD__WHAT_JOB:
        return fire_job_timer(c, cmd, t->job);
    case PB__TIMER_RECORD__WHAT_ARTIFACT: /* takes the timer along */
        artifact_expire(c, t->artifact);
        return tx_error(c->tx);
    case PB__TIMER_RECORD__WHAT_REQUEST:
        timer_del(c, cmd->due_ms, cmd->timer_id);
        forget_request(c, t->request);
        return 0;
    case PB__TIMER_RECORD__WHAT_ENVIRONMENT:
        timer_del(c, cmd->due_ms, cmd->timer_id);
        environment_timer_fired(c, t->environment);
        return tx_error(c->tx);
    case PB__TIMER_RECORD__WHAT_PAGES:
        timer_del(c, cmd->due_ms, cmd->timer_id);
        pages_expire(c, t->pages);
        return tx_error(c->tx);
    case PB__TIMER_RECORD__WHAT_WORKER:
        worker_drain_over(c, t->worker);
        return tx_error(c->tx);
    case PB__TIMER_RECORD__WHAT__NOT_SET:
    case _PB__TIMER_RECORD__WHAT__CASE_IS_INT_SIZE:
    default:
        tx_fail(c->tx, -E_CORRUPT);
        return tx_error(c->tx);
    }
}

/* The row moves with its value, under the same id. */
static void shift_timer(struct core *c, uint64_t job_id, uint64_t by_ms)
{
    const struct key of_job = key_u64(job_id);
    Pb__JobRecord *job = (Pb__JobRecord *)core_row(c, T_JOB, &of_job, &pb__job_record__descriptor);
    struct key k = timer_key(job->timer_due_ms, job->timer_id);
    struct str value;

    if (job->timer_id == 0) {
        return;
    }
    if (!tx_get(c->tx, T_TIMER, &k, &value)) {
        tx_fail(c->tx, -E_CORRUPT);
        return;
    }
    value = arena_str(c->arena, value);
    tx_del(c->tx, T_TIMER, &k);
    job->timer_due_ms += by_ms;
    k = timer_key(job->timer_due_ms, job->timer_id);
    tx_put(c->tx, T_TIMER, &k, value);
    tx_put_msg(c->tx, T_JOB, &of_job, &job->base);
}

/* The timers of jobs in the hands of workers run by the time that goes by. All others name a time
 * of day: delays, expiry, environments that stop by themselves. */
int apply_clock_jumped(struct core *c, const Pb__ClockJumped *cmd)
{
    const uint64_t max = tx_count(c->tx, T_ASSIGNMENT);
    uint64_t *held = arena_array(c->arena, max + 1, sizeof(*held));
    struct cursor cur;
    size_t n = 0;

    if (cmd->by_ms == 0 || cmd->by_ms > c->now_ms) {
        return reject(c, -E_INVALID, "a clock that jumped by nothing, or from before 1970");
    }
    for (tx_seek(&cur, c->tx, T_ASSIGNMENT, STR_NULL, NULL); cur.valid && n < max; tx_next(&cur)) {
        held[n++] = key_read_u64(cur.key, 0);
    }
    cursor_end(&cur);
    for (size_t i = 0; i < n; i++) {
        shift_timer(c, held[i], cmd->by_ms);
    }
    return tx_error(c->tx);
}
