#include "common/base.h"

#include "tests/bench/simworker.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/os.h"

enum { RECEIVE_MS = 20, ACK_DELAY_MS = 20, WELCOME_MS = 10000, BYE_MS = 1000 };

/* A job from Assign to FinishAck; its spec lives in an arena of its own. */
struct held {
    struct arena arena;
    Pb__JobSpec *spec;
    struct held *next;
};

struct simworker {
    struct simworker_options options;
    nng_socket socket;
    pthread_t thread;
    atomic_bool stop;
    atomic_bool pipe_lost;
    atomic_int error;
    uint8_t uid[16];
    uint64_t session;
    uint64_t sent_seq;
    uint64_t taken_seq;
    uint64_t acked_seq; /* the ack that was sent last */
    uint64_t taken_ms;  /* when the first message came that is not acknowledged yet */
    uint64_t beat_ms;   /* when the last heartbeat was sent */
    uint32_t heartbeat_ms;
    bool said_goodbye; /* ByeAck came */
    struct held *held;
};

static void end_session(struct simworker *w, int r)
{
    int none = 0;

    atomic_compare_exchange_strong(&w->error, &none, r);
}

static void send_envelope(struct simworker *w, Pb__Envelope *e, bool reliable)
{
    struct buf packed = BUF_INIT;
    nng_msg *msg;

    e->version = WIRE_VERSION;
    e->session = w->session;
    e->seq = reliable ? ++w->sent_seq : 0;
    e->ack = w->taken_seq;
    w->acked_seq = w->taken_seq;
    PB_PACK(e, &packed);
    check(nng_msg_alloc(&msg, 0) == 0);
    /* Raw REQ: a request id with the highest bit set ends the routing header. */
    check(nng_msg_header_append_u32(msg, 0x80000001u) == 0);
    check(nng_msg_append(msg, packed.p, packed.n) == 0);
    if (nng_sendmsg(w->socket, msg, 0) != 0) {
        nng_msg_free(msg);
        end_session(w, -E_UNREACHABLE);
    }
    buf_release(&packed);
}

static void send_hello(struct simworker *w)
{
    static char *executors[] = {(char *)"shell"};
    Pb__WorkerHello worker = PB__WORKER_HELLO__INIT;
    Pb__Hello hello = PB__HELLO__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;

    worker.uid = pb_bytes_ref(str_of(w->uid, sizeof(w->uid)));
    worker.name = (char *)w->options.name;
    worker.executors = executors;
    worker.n_executors = ARRAY_LEN(executors);
    worker.slots = w->options.slots;
    worker.run_untagged = true;
    worker.version = (char *)DAVIT_VERSION;
    worker.host = (char *)"simulated";
    hello.token = pb_bytes_ref(str_from(w->options.token));
    hello.worker = &worker;
    e.body_case = PB__ENVELOPE__BODY_HELLO;
    e.hello = &hello;
    send_envelope(w, &e, true);
}

static void send_heartbeat(struct simworker *w)
{
    Pb__Heartbeat beat = PB__HEARTBEAT__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    struct arena arena;

    arena_init(&arena, 0);
    for (const struct held *h = w->held; h; h = h->next) {
        beat.n_jobs++;
    }
    beat.jobs = arena_array(&arena, beat.n_jobs + 1, sizeof(beat.jobs[0]));
    beat.n_jobs = 0;
    for (const struct held *h = w->held; h; h = h->next) {
        Pb__HeldJob *job = arena_alloc(&arena, sizeof(*job));

        pb__held_job__init(job);
        job->key = h->spec->key;
        job->state = PB__HELD_STATE__HELD_FINISHED;
        beat.jobs[beat.n_jobs++] = job;
    }
    beat.sent_ms = w->beat_ms = os_monotonic_ms();
    e.body_case = PB__ENVELOPE__BODY_HEARTBEAT;
    e.heartbeat = &beat;
    send_envelope(w, &e, false);
    arena_release(&arena);
}

static void send_assign_ack(struct simworker *w, Pb__JobKey **keys, size_t count)
{
    Pb__AssignAck ack = PB__ASSIGN_ACK__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;

    ack.keys = keys;
    ack.n_keys = count;
    e.body_case = PB__ENVELOPE__BODY_ASSIGN_ACK;
    e.assign_ack = &ack;
    send_envelope(w, &e, true);
}

/* JobStarted and, as there is nothing to run and no log to ship, JobFinished. */
static void send_results(struct simworker *w, struct arena *arena, Pb__JobKey **keys, size_t count)
{
    Pb__WireJobStarted started = PB__WIRE_JOB_STARTED__INIT;
    Pb__WireJobFinished finished = PB__WIRE_JOB_FINISHED__INIT;
    Pb__JobEnd *ends = arena_array(arena, count, sizeof(*ends));
    Pb__Outcome outcome = PB__OUTCOME__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;

    started.keys = keys;
    started.n_keys = count;
    e.body_case = PB__ENVELOPE__BODY_JOB_STARTED;
    e.job_started = &started;
    send_envelope(w, &e, true);
    outcome.result = JOB_SUCCESS;
    finished.ends = arena_array(arena, count, sizeof(*finished.ends));
    for (size_t i = 0; i < count; i++) {
        pb__job_end__init(&ends[i]);
        ends[i].key = keys[i];
        ends[i].outcome = &outcome;
        finished.ends[finished.n_ends++] = &ends[i];
    }
    e.body_case = PB__ENVELOPE__BODY_JOB_FINISHED;
    e.job_finished = &finished;
    send_envelope(w, &e, true);
}

static struct held **find_held(struct simworker *w, const Pb__JobKey *key)
{
    struct held **link = &w->held;

    while (*link && (*link)->spec->key->job_id != key->job_id) {
        link = &(*link)->next;
    }
    return link;
}

static void forget(struct held **link)
{
    struct held *h = *link;

    *link = h->next;
    arena_release(&h->arena);
    free(h);
}

/* False: it is here already. */
static bool take_spec(struct simworker *w, const Pb__JobSpec *spec)
{
    struct held **link = find_held(w, spec->key);
    struct held *h;

    if (*link && (*link)->spec->key->epoch == spec->key->epoch) {
        return false;
    }
    if (*link) {
        forget(link);
    }
    h = xcalloc(1, sizeof(*h));
    arena_init(&h->arena, 0);
    h->spec = (Pb__JobSpec *)pb_copy(&h->arena, &spec->base);
    h->next = w->held;
    w->held = h;
    if (w->options.on_assign) {
        w->options.on_assign(w->options.ctx, h->spec);
    }
    return true;
}

static void take_assign(struct simworker *w, const Pb__WireAssign *m)
{
    struct arena arena;
    Pb__JobKey **all;
    Pb__JobKey **fresh;
    size_t fresh_count = 0;

    arena_init(&arena, 0);
    all = arena_array(&arena, m->n_specs + 1, sizeof(*all));
    fresh = arena_array(&arena, m->n_specs + 1, sizeof(*fresh));
    for (size_t i = 0; i < m->n_specs; i++) {
        if (!m->specs[i]->key) {
            end_session(w, -E_PROTOCOL);
            break;
        }
        all[i] = m->specs[i]->key;
        if (take_spec(w, m->specs[i])) {
            fresh[fresh_count++] = m->specs[i]->key;
        }
    }
    if (simworker_error(w) == 0) {
        send_assign_ack(w, all, m->n_specs);
        if (fresh_count > 0) {
            send_results(w, &arena, fresh, fresh_count);
        }
    }
    arena_release(&arena);
}

static void take_finish_ack(struct simworker *w, const Pb__FinishAck *ack)
{
    for (size_t i = 0; i < ack->n_keys; i++) {
        struct held **link = find_held(w, ack->keys[i]);

        if (!*link || (*link)->spec->key->epoch != ack->keys[i]->epoch) {
            continue;
        }
        if (w->options.on_finished) {
            w->options.on_finished(w->options.ctx, (*link)->spec, ack->stale);
        }
        forget(link);
    }
}

static void take_cancel(struct simworker *w, const Pb__WireCancel *cancel)
{
    struct held **link = cancel->key ? find_held(w, cancel->key) : NULL;

    /* Any other cancel comes too late: the result is on its way. */
    if (link && *link && cancel->kind == PB__CANCEL_KIND__CANCEL_FENCED &&
        (*link)->spec->key->epoch == cancel->key->epoch) {
        forget(link);
    }
}

static void take_welcome(struct simworker *w, const Pb__Envelope *e)
{
    w->session = e->welcome->session;
    w->heartbeat_ms = e->welcome->heartbeat_ms;
    w->beat_ms = os_monotonic_ms();
}

static void take_envelope(struct simworker *w, const Pb__Envelope *e)
{
    if (e->seq > 0 && e->seq != w->taken_seq + 1) {
        end_session(w, -E_PROTOCOL);
        return;
    }
    if (e->seq > 0) {
        if (w->taken_seq == w->acked_seq) {
            w->taken_ms = os_monotonic_ms();
        }
        w->taken_seq = e->seq;
    }
    switch ((int)e->body_case) {
    case PB__ENVELOPE__BODY_WELCOME:
        take_welcome(w, e);
        break;
    case PB__ENVELOPE__BODY_ASSIGN:
        take_assign(w, e->assign);
        break;
    case PB__ENVELOPE__BODY_FINISH_ACK:
        take_finish_ack(w, e->finish_ack);
        break;
    case PB__ENVELOPE__BODY_CANCEL:
        take_cancel(w, e->cancel);
        break;
    case PB__ENVELOPE__BODY_REFUSED:
        end_session(w, err_from_code(e->refused->code));
        break;
    case PB__ENVELOPE__BODY_BYE_ACK:
        w->said_goodbye = true;
        break;
    default: /* HeartbeatAck, LogAck, Drain: nothing to do */
        break;
    }
}

/* Takes one message or waits RECEIVE_MS for it. */
static void receive(struct simworker *w)
{
    struct arena arena;
    Pb__Envelope *e;
    nng_msg *msg;
    int rc = nng_recvmsg(w->socket, &msg, 0);

    if (rc == 0) {
        arena_init(&arena, 0);
        if (PB_UNPACK(&arena, envelope, nng_msg_body(msg), nng_msg_len(msg), LIMIT_WIRE_MESSAGE,
                      &e) == 0) {
            take_envelope(w, e);
        } else {
            end_session(w, -E_PROTOCOL);
        }
        arena_release(&arena);
        nng_msg_free(msg);
    } else if (rc != NNG_ETIMEDOUT || atomic_load(&w->pipe_lost)) {
        end_session(w, -E_UNREACHABLE);
    }
}

static void beat_if_due(struct simworker *w)
{
    uint64_t now_ms = os_monotonic_ms();

    if (now_ms - w->beat_ms >= w->heartbeat_ms ||
        (w->taken_seq != w->acked_seq && now_ms - w->taken_ms >= ACK_DELAY_MS)) {
        send_heartbeat(w);
    }
}

static void say_bye(struct simworker *w)
{
    Pb__Bye bye = PB__BYE__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    uint64_t until_ms = os_monotonic_ms() + BYE_MS;

    e.body_case = PB__ENVELOPE__BODY_BYE;
    e.bye = &bye;
    send_envelope(w, &e, true);
    while (!w->said_goodbye && simworker_error(w) == 0 && os_monotonic_ms() < until_ms) {
        receive(w);
    }
}

static void *run(void *ctx)
{
    struct simworker *w = ctx;

    while (!atomic_load(&w->stop) && simworker_error(w) == 0) {
        receive(w);
        beat_if_due(w);
    }
    if (simworker_error(w) == 0) {
        say_bye(w);
    }
    return NULL;
}

static void pipe_removed(nng_pipe pipe UNUSED, nng_pipe_ev event UNUSED, void *ctx)
{
    struct simworker *w = ctx;

    atomic_store(&w->pipe_lost, true);
}

static int connect_to_broker(struct simworker *w, struct buf *why)
{
    int rc = nng_req0_open_raw(&w->socket);

    if (rc == 0) {
        rc = nng_socket_set_size(w->socket, NNG_OPT_RECVMAXSZ, LIMIT_WIRE_MESSAGE);
    }
    if (rc == 0) {
        rc = nng_socket_set_ms(w->socket, NNG_OPT_RECVTIMEO, RECEIVE_MS);
    }
    if (rc == 0) {
        rc = nng_socket_set_int(w->socket, NNG_OPT_RECVBUF, 1024);
    }
    if (rc == 0) {
        rc = nng_pipe_notify(w->socket, NNG_PIPE_EV_REM_POST, pipe_removed, w);
    }
    if (rc == 0) {
        rc = nng_dial(w->socket, w->options.url, NULL, 0);
    }
    if (rc) {
        buf_addf(why, "%s: %s", w->options.url, nng_strerror(rc));
        return -E_UNREACHABLE;
    }
    return 0;
}

static void release(struct simworker *w)
{
    nng_close(w->socket);
    while (w->held) {
        forget(&w->held);
    }
    free(w);
}

int simworker_start(const struct simworker_options *options, struct simworker **ret,
                    struct buf *why)
{
    struct simworker *w = xcalloc(1, sizeof(*w));
    uint64_t until_ms = os_monotonic_ms() + WELCOME_MS;
    int r;

    w->options = *options;
    os_random(w->uid, sizeof(w->uid));
    r = connect_to_broker(w, why);
    if (r < 0) {
        release(w);
        return r;
    }
    send_hello(w);
    while (w->session == 0 && simworker_error(w) == 0 && os_monotonic_ms() < until_ms) {
        receive(w);
    }
    r = simworker_error(w);
    if (r == 0 && w->session == 0) {
        r = -E_TIMEOUT;
    }
    if (r < 0) {
        buf_addf(why, "%s: no welcome: %s", w->options.url, err_text(r));
        release(w);
        return r;
    }
    check(pthread_create(&w->thread, NULL, run, w) == 0);
    *ret = w;
    return 0;
}

int simworker_error(struct simworker *w)
{
    return atomic_load(&w->error);
}

void simworker_stop(struct simworker *w)
{
    if (!w) {
        return;
    }
    atomic_store(&w->stop, true);
    pthread_join(w->thread, NULL);
    release(w);
}
