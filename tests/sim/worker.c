#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/limits.h"
#include "tests/sim/sim.h"
#include "tests/sim/worker.h"

/* A worker that keeps to docs/protocol.md, and now and then has an accident. Its jobs outlive its
 * process, as those under a shim do; they do not outlive its machine. */

#define CHUNK_MAX 3000u

bool worker_unable(const struct worker *w)
{
    return w->drain || w->leaving || sim->now_us < w->drain_until_us ||
           sim->now_us < w->disk_low_until_us;
}

static void wake_at(struct worker *w, uint64_t at_us)
{
    at_us = MAX(at_us, MAX(sim->now_us, w->stalled_until_us));
    if (at_us < w->wake_us) {
        w->wake_us = at_us;
        event_add_us(at_us, EV_WORKER, w->index, at_us);
    }
}

static uint64_t own_us(const struct worker *w, uint64_t us)
{
    return us * w->skew / 100;
}

void worker_init(struct worker *w, uint32_t index)
{
    *w = (struct worker){.index = index, .wake_us = SIM_NEVER};
    w->slots = (uint32_t)between(1, 3);
    w->tags = index == 0 ? 7 : (uint32_t)below(8);
    w->untagged = index == 0 || one_in(2);
    w->pool = one_in(sim->swarm.pools) ? (uint32_t)between(1, MODEL_POOLS - 1) : 0;
    w->cpu_millis = one_in(sim->swarm.cpus) ? 500 * (uint32_t)between(2, 8) : 0;
    sim->pools_served |= 1u << w->pool;
    w->skew = 100 - sim->swarm.skew + (uint32_t)below(2 * sim->swarm.skew + 1);
    w->lives = 1;
    w->process = true;
    wake_at(w, sim->now_us + below(SIM_SECOND));
    event_add_us(sim->now_us + below(SIM_SECOND), EV_FAULT, index, 0);
}

void worker_heal(struct worker *w)
{
    w->stalled_until_us = 0;
    w->mute_until_us = 0;
    w->drain_until_us = 0;
    w->disk_low_until_us = 0;
    w->tags = 7;
    w->untagged = true;
    w->cpu_millis = 0;
    if (w->pipe != 0) { /* it says anew what it can */
        worker_hang_up(w, SIM_SECOND);
    }
    if (!w->process) {
        w->back_us = MIN(w->back_us, sim->now_us + SIM_SECOND);
    }
    wake_at(w, sim->now_us);
}

/* ---- connection ---- */

void worker_hang_up(struct worker *w, uint64_t for_us)
{
    if (w->pipe != 0) {
        net_close(w->pipe);
    }
    w->pipe = 0;
    w->session = 0;
    w->back_us = sim->now_us + for_us;
    for (uint32_t i = 0; i < SIM_HELD; i++) {
        struct held *h = &w->held[i];
        h->finish_sent = false;
        h->log_sent = h->log_acked;
        h->state = h->state == HELD_BACK ? HELD_GONE : h->state;
    }
    wake_at(w, w->back_us);
}

static void dial(struct worker *w)
{
    w->pipe = net_connect(w->index);
    if (w->pipe == 0) {
        worker_hang_up(w, between(100 * SIM_MS, 3 * SIM_SECOND));
        return;
    }
    w->seq_in = w->seq_out = w->ack_said = w->acked = 0;
    w->ack_due_us = 0;
    w->bye_said = false;
    w->drain = false;
    w->said_unable = false;
    w->heard_us = sim->now_us;
    w->beat_due_us = SIM_NEVER;
    say_hello(w);
}

void worker_down(uint32_t pipe)
{
    struct worker *w = &sim->workers[sim->links[pipe].owner];

    sim->links[pipe].worker_open = false;
    if (w->pipe == pipe) {
        trace("worker %u: its connection is gone", w->index);
        worker_hang_up(w, between(10 * SIM_MS, 2 * SIM_SECOND));
    }
}

/* ---- jobs ---- */

struct held *worker_held(struct worker *w, const Pb__JobKey *key)
{
    for (uint32_t i = 0; i < SIM_HELD; i++) {
        struct held *h = &w->held[i];
        if (h->state != HELD_GONE && h->job_id == key->job_id && h->epoch == key->epoch) {
            return h;
        }
    }
    return NULL;
}

/* Slots that are taken: what was given back leaves its slot free. */
static uint32_t taken(const struct worker *w)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < SIM_HELD; i++) {
        n += w->held[i].state != HELD_GONE && w->held[i].state != HELD_BACK;
    }
    return n;
}

/* The power was gone at the worker, too. */
void worker_was_lost(struct worker *w)
{
    if (w->worker_id != 0 && model_worker(sim->model, w->worker_id) == NULL) {
        w->worker_id = 0;
    }
    worker_hang_up(w,
                   between(100 * SIM_MS, 5 * SIM_SECOND)); /* nor does it hear what is on its way */
    memset(w->held, 0, sizeof(w->held));
    w->old = (struct old_key){0};
}

static uint32_t busy(const struct worker *w)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < SIM_HELD; i++) {
        n += w->held[i].state != HELD_GONE;
    }
    return n;
}

/* What will become of the job is decided when it comes; a later cancel may change it. */
static void draw_fate(struct held *h)
{
    const bool is_long = sim->faults && one_in(sim->swarm.long_jobs); /* or it takes for ever */

    h->ends_us = sim->now_us +
                 (is_long ? between(SIM_SECOND, 200 * SIM_SECOND) : between(0, 8 * SIM_SECOND));
    h->log_size = one_in(sim->swarm.logs) ? below(3 * CHUNK_MAX) : 0;
    h->result = JOB_SUCCESS;
    if (one_in(sim->swarm.shutdown)) {
        h->result = JOB_CANCELED;
    } else if (one_in(sim->swarm.fail)) {
        static const uint32_t reasons[] = {REASON_SCRIPT_FAILURE, REASON_SCRIPT_FAILURE,
                                           REASON_SYSTEM_FAILURE, REASON_JOB_TIMEOUT,
                                           REASON_WORKER_LOST};
        h->result = JOB_FAILED;
        h->reason = reasons[below(ARRAY_LEN(reasons))];
        h->exit_code = 1;
    }
}

static void take_spec(struct worker *w, const Pb__JobKey *key)
{
    struct held *h = worker_held(w, key);

    if (h != NULL) {
        h->ack_owed = true;
        return;
    }
    for (uint32_t i = 0; i < SIM_HELD && h == NULL; i++) {
        h = w->held[i].state == HELD_GONE ? &w->held[i] : NULL;
    }
    if (h == NULL) {
        breach_now("worker %u with %u slots was given more than %u jobs", w->index, w->slots,
                   SIM_HELD);
    }
    *h = (struct held){.state = HELD_ACCEPTED,
                       .job_id = key->job_id,
                       .attempt = key->attempt,
                       .epoch = key->epoch};
    if (worker_unable(w) || taken(w) > w->slots) {
        h->state = HELD_BACK;
        say_return(w, h);
        h->back_seq = w->seq_out;
        return;
    }
    draw_fate(h);
    h->state = HELD_RUNS;
    h->ack_owed = true;
    h->start_owed = true;
}

/* Together, or one by one. */
static void tell(struct worker *w, struct held **jobs, size_t n,
                 void (*say)(struct worker *w, struct held *const *jobs, size_t n))
{
    const bool merged = one_in(2);

    if (merged && n > 0) {
        say(w, jobs, n);
    }
    for (size_t i = 0; i < n && !merged; i++) {
        say(w, &jobs[i], 1);
    }
}

static void answer_assign(struct worker *w)
{
    struct held *acks[SIM_HELD], *starts[SIM_HELD];
    size_t ack_count = 0, start_count = 0;

    for (uint32_t i = 0; i < SIM_HELD; i++) {
        struct held *h = &w->held[i];
        if (h->state != HELD_GONE && h->ack_owed) {
            acks[ack_count++] = h;
        }
        if (h->state != HELD_GONE && h->start_owed) {
            starts[start_count++] = h;
        }
        h->ack_owed = h->start_owed = false;
    }
    tell(w, acks, ack_count, say_assign_ack);
    tell(w, starts, start_count, say_started);
}

static void forget(struct worker *w, struct held *h)
{
    w->old = (struct old_key){h->job_id, h->attempt, h->epoch};
    h->state = HELD_GONE;
}

static void end_job(struct held *h, bool canceled)
{
    h->state = HELD_ENDED;
    h->ends_us = SIM_NEVER;
    if (canceled) {
        h->result = JOB_CANCELED;
        h->reason = REASON_NONE;
    }
}

static void take_cancel(struct worker *w, const Pb__WireCancel *c)
{
    struct held *h = worker_held(w, c->key);

    if (h == NULL) {
        say_heartbeat(w);
    } else if (c->kind == PB__CANCEL_KIND__CANCEL_FENCED) {
        forget(w, h);
    } else if (h->state == HELD_RUNS) {
        if (c->kind == PB__CANCEL_KIND__CANCEL_FORCE || one_in(2)) {
            end_job(h, true);
        } else { /* as long as its after_script takes; it may also end by itself before */
            const uint64_t soon_us = sim->now_us + below(20 * SIM_SECOND);
            h->ends_us = MIN(h->ends_us, soon_us);
        }
    }
}

static void take_log_ack(struct worker *w, const Pb__LogAck *a)
{
    struct held *h = worker_held(w, a->key);

    if (h == NULL) {
        return;
    }
    if (a->durable < h->log_acked) {
        breach_now("job %" PRIu64 ": %" PRIu64 " bytes of its log were safe, now %" PRIu64,
                   h->job_id, h->log_acked, a->durable);
    }
    if (a->durable == h->log_acked && h->log_sent > h->log_acked) {
        h->log_sent = h->log_acked; /* a gap, or a full disk: again, a little later */
        h->log_wait_us = sim->now_us + 200 * SIM_MS;
    }
    h->log_acked = a->durable;
    h->log_sent = MAX(h->log_sent, h->log_acked);
    h->finish_sent = h->finish_sent && h->log_acked < h->log_size;
    if (h->log_acked > h->log_size) {
        breach_now("job %" PRIu64 ": its log has more bytes than were written", h->job_id);
    }
}

void worker_finish_ack(struct worker *w, const Pb__JobKey *key, bool stale)
{
    struct held *h = worker_held(w, key);

    if (h == NULL) {
        return;
    }
    if (h->state != HELD_ENDED) {
        breach_now("job %" PRIu64 " is said to have ended, and runs", h->job_id);
    }
    forget(w, h);
}

/* ---- messages ---- */

static void take_welcome(struct worker *w, const Pb__Welcome *m)
{
    w->session = m->session;
    if (w->worker_id != 0 && w->worker_id != m->worker_id && sim->losses == 0) {
        breach_now("worker %u has another id", w->index);
    }
    w->worker_id = m->worker_id;
    w->beat_due_us = sim->now_us + own_us(w, 3 * SIM_SECOND);
}

static void take_body(struct worker *w, const Pb__Envelope *e)
{
    switch ((int)e->body_case) {
    case PB__ENVELOPE__BODY_WELCOME:
        take_welcome(w, e->welcome);
        break;
    case PB__ENVELOPE__BODY_ASSIGN:
        if (sim->now_us >= w->mute_until_us) {
            hear_assign(e->assign, w, take_spec);
            answer_assign(w);
        }
        break;
    case PB__ENVELOPE__BODY_CANCEL:
        take_cancel(w, e->cancel);
        break;
    case PB__ENVELOPE__BODY_LOG_ACK:
        take_log_ack(w, e->log_ack);
        break;
    case PB__ENVELOPE__BODY_FINISH_ACK:
        hear_finish_ack(e->finish_ack, w);
        break;
    case PB__ENVELOPE__BODY_DRAIN:
        w->drain = !e->drain->undo;
        break;
    case PB__ENVELOPE__BODY_BYE_ACK:
        w->leaving = false;
        worker_hang_up(w, between(SIM_SECOND, 20 * SIM_SECOND));
        break;
    case PB__ENVELOPE__BODY_REFUSED:
        if (e->refused->final) {
            breach_now("a good worker is refused for good: %s", e->refused->text);
        }
        worker_hang_up(w, e->refused->retry_after_ms * SIM_MS);
        break;
    default:
        break;
    }
}

void worker_message(uint32_t pipe, const char *p, size_t n)
{
    struct worker *w = &sim->workers[sim->links[pipe].owner];
    struct arena arena;
    Pb__Envelope *e;

    if (w->pipe != pipe || !w->process || sim->links[pipe].to_worker_dead) {
        return;
    }
    if (sim->now_us < w->stalled_until_us) { /* it lies there until the worker reads */
        event_add_bytes(w->stalled_until_us, EV_TO_WORKER, pipe, p, n, NULL, 0);
        return;
    }
    arena_init(&arena, 0);
    check(PB_UNPACK(&arena, envelope, p, n, LIMIT_WIRE_MESSAGE, &e) == 0);
    if ((e->seq != 0 && e->seq != w->seq_in + 1) || e->ack > w->seq_out || e->ack < w->acked) {
        breach_now("worker %u: wrong numbers: %" PRIu64 " after %" PRIu64, w->index, e->seq,
                   w->seq_in);
    }
    w->heard_us = sim->now_us;
    w->acked = e->ack;
    if (e->seq != 0) {
        w->seq_in = e->seq;
        w->ack_due_us = w->ack_due_us != 0 ? w->ack_due_us : sim->now_us + 50 * SIM_MS;
    }
    trace("worker %u: hears %d", w->index, (int)e->body_case);
    take_body(w, e);
    arena_release(&arena);
    worker_event(w);
}

/* ---- its own clock ---- */

static void work_job(struct worker *w, struct held *h)
{
    if (h->state == HELD_RUNS && sim->now_us >= h->ends_us) {
        end_job(h, false);
    }
    if (w->session == 0 || (h->state != HELD_RUNS && h->state != HELD_ENDED)) {
        return;
    }
    const uint64_t there = h->state == HELD_ENDED ? h->log_size : h->log_size / 2;
    if (h->log_sent < there && sim->now_us >= h->log_wait_us) {
        const uint64_t n = 1 + below(CHUNK_MAX);
        say_log(w, h, MIN(there - h->log_sent, n));
    }
    if (h->log_sent < there) {
        wake_at(w, MAX(h->log_wait_us, sim->now_us + 5 * SIM_MS));
    }
}

static void tell_ends(struct worker *w)
{
    struct held *jobs[SIM_HELD];
    size_t n = 0;

    for (uint32_t i = 0; i < SIM_HELD && w->session != 0; i++) {
        struct held *h = &w->held[i];
        if (h->state == HELD_ENDED && h->log_acked >= h->log_size && !h->finish_sent) {
            h->finish_sent = true;
            jobs[n++] = h;
        }
    }
    tell(w, jobs, n, say_finished);
}

static void speak(struct worker *w)
{
    /* Whether it takes work it says at once. */
    const bool beat = sim->now_us >= w->beat_due_us || worker_unable(w) != w->said_unable;
    const bool ack = w->ack_due_us != 0 && sim->now_us >= w->ack_due_us;

    if (w->session != 0 && (beat || ack)) {
        say_heartbeat(w);
        w->beat_due_us = beat ? sim->now_us + own_us(w, 3 * SIM_SECOND) : w->beat_due_us;
    }
    if (w->session != 0 && w->leaving && !w->bye_said && busy(w) == 0) {
        say_bye(w);
        w->bye_said = true;
    }
}

static void sleep(struct worker *w)
{
    uint64_t at_us = w->pipe != 0 ? w->heard_us + own_us(w, 10 * SIM_SECOND) : w->back_us;

    if (w->pipe != 0) {
        at_us = MIN(at_us, w->beat_due_us);
        at_us = w->ack_due_us != 0 ? MIN(at_us, w->ack_due_us) : at_us;
    }
    for (uint32_t i = 0; i < SIM_HELD; i++) {
        if (w->held[i].state == HELD_RUNS) {
            at_us = MIN(at_us, w->held[i].ends_us);
        }
    }
    wake_at(w, MAX(at_us, sim->now_us + SIM_MS));
}

void worker_event(struct worker *w)
{
    if (sim->now_us < w->stalled_until_us) {
        wake_at(w, w->stalled_until_us);
        return;
    }
    if (!w->process && sim->now_us >= w->back_us) {
        w->process = true;
        trace("worker %u: is back", w->index);
    }
    if (!w->process) {
        sleep(w);
        return;
    }
    if (w->pipe == 0 && sim->now_us >= w->back_us) {
        dial(w);
    } else if (w->pipe != 0 && sim->now_us - w->heard_us >= own_us(w, 10 * SIM_SECOND)) {
        trace("worker %u: hears nothing", w->index);
        worker_hang_up(w, between(10 * SIM_MS, 2 * SIM_SECOND));
    }
    for (uint32_t i = 0; i < SIM_HELD; i++) {
        struct held *h = &w->held[i];
        if (h->state == HELD_BACK && w->acked >= h->back_seq) {
            h->state = HELD_GONE;
        }
        work_job(w, h);
    }
    tell_ends(w);
    speak(w);
    sleep(w);
}

/* ---- accidents ---- */

static void die(struct worker *w, bool machine)
{
    trace("worker %u: its %s dies", w->index, machine ? "machine" : "process");
    if (w->pipe != 0 && machine && one_in(2)) { /* nobody says so */
        sim->links[w->pipe].to_broker_dead = true;
    }
    worker_hang_up(w, between(100 * SIM_MS, one_in(3) ? 60 * SIM_SECOND : 8 * SIM_SECOND));
    w->process = false;
    w->leaving = false;
    w->stalled_until_us = 0;
    if (machine) {
        memset(w->held, 0, sizeof(w->held));
        w->lives++;
    }
}

void worker_fate(struct worker *w)
{
    const struct swarm *s = &sim->swarm;

    if (!sim->faults) {
        return; /* it need not look again */
    }
    event_add_us(sim->now_us + SIM_SECOND, EV_FAULT, w->index, 0);
    if (!w->process || sim->now_us < w->stalled_until_us) {
        return;
    }
    if (strikes(s->crash)) {
        die(w, false);
    } else if (strikes(s->vanish)) {
        die(w, true);
    } else if (strikes(s->worker_stall)) {
        w->stalled_until_us = sim->now_us + between(SIM_SECOND, 20 * SIM_SECOND);
        trace("worker %u: stands still", w->index);
    } else if (strikes(s->mute)) {
        w->mute_until_us = sim->now_us + between(SIM_SECOND, 30 * SIM_SECOND);
    } else if (strikes(s->drain)) {
        w->drain_until_us = sim->now_us + between(SIM_SECOND, 20 * SIM_SECOND);
    } else if (strikes(s->disk_low)) {
        w->disk_low_until_us = sim->now_us + between(SIM_SECOND, 20 * SIM_SECOND);
    } else if (strikes(s->bye)) {
        w->leaving = true;
    } else if (strikes(s->stale) && w->session != 0 && w->old.job_id != 0) {
        say_stale(w);
    }
    wake_at(w, sim->now_us);
}
