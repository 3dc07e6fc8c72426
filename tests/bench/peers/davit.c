/* Davit: jobs without a pipeline over the wire protocol, as libdavit and davit-worker speak it. A
 * client sends one ClientEnqueue with all that a round brings. A worker ends all jobs of a round
 * with one JobFinished; it neither acknowledges nor starts them first, since the end says both. The
 * queue's name is a tag of jobs and workers, so that each queue is a lane of its own.
 *
 * Variants: "" keeps nothing of a job that succeeded, "keep" keeps its record for an hour. */
#include "common/base.h"

#include "tests/bench/peers/peer.h"

#include <stdlib.h>
#include <uthash.h>

#include "common/limits.h"
#include "common/os.h"
#include "tests/bench/session.h"

enum { BATCH = 512, TICK_US = 10000, KEEP_MS = 3600 * 1000 };

struct davit;

struct client {
    struct davit *p;
    struct session s;
    struct fifo tags;   /* enqueued */
    struct fifo counts; /* how many each request has */
    uint64_t request;   /* the last one's number */
    uint64_t answered;
};

/* From Assign to FinishAck. */
struct held {
    UT_hash_handle hh; /* in worker->held, by job_id */
    uint64_t job_id;
    uint64_t attempt;
    uint64_t epoch;
    uint64_t tag;
    bool listed; /* a heartbeat named it: its end may be called stale then, too */
    struct held *next_fresh;
};

struct worker {
    struct davit *p;
    struct session s;
    struct held *held;
    struct held *fresh; /* those that came in this round, in order */
    struct held **fresh_tail;
    size_t fresh_count;
};

struct davit {
    struct peer_config config;
    struct driver *d;
    struct arena in;      /* what is being read */
    struct arena out;     /* what is being written */
    struct arena strings; /* for the whole run */
    struct client *clients;
    struct worker *workers;
    size_t n;
    size_t n_workers;
    size_t welcomes;
    size_t next;
    uint64_t keep_ms;
    bool quiet;
};

static void lost(void *ctx UNUSED, const char *why)
{
    driver_fail("davit", str_from(why));
}

static void take_welcome(struct davit *p)
{
    if (++p->welcomes == p->n + p->n_workers) {
        driver_ready(p->d);
    }
}

static void take_refused(const Pb__Refused *refused)
{
    driver_fail("davit: refused", str_from(refused->text));
}

static void greet_as_client(void *ctx)
{
    struct client *c = ctx;

    session_client_hello(&c->s, c->p->config.token, "bench");
}

static void take_client_message(void *ctx, const Pb__Envelope *e)
{
    struct client *c = ctx;

    switch ((int)e->body_case) {
    case PB__ENVELOPE__BODY_WELCOME:
        take_welcome(c->p);
        break;
    case PB__ENVELOPE__BODY_REFUSED:
        take_refused(e->refused);
        break;
    case PB__ENVELOPE__BODY_CLIENT_ENQUEUED:
        if (e->client_enqueued->code[0] != '\0') {
            driver_fail("davit: enqueue", str_from(e->client_enqueued->text));
        }
        check(e->client_enqueued->request == ++c->answered);
        for (uint64_t i = fifo_pop(&c->counts); i > 0; i--) {
            driver_submitted(c->p->d, fifo_pop(&c->tags));
        }
        break;
    default: /* HeartbeatAck */
        break;
    }
}

static void greet_as_worker(void *ctx)
{
    struct worker *w = ctx;
    struct davit *p = w->p;
    char *executors[] = {(char *)"shell"};
    char *tags[] = {(char *)p->config.queue};
    uint8_t uid[16];
    Pb__WorkerHello worker = PB__WORKER_HELLO__INIT;
    Pb__Hello hello = PB__HELLO__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;

    os_random(uid, sizeof(uid));
    worker.uid = pb_bytes_ref(str_of(uid, sizeof(uid)));
    worker.name = arena_printf(&p->strings, "bench-%zu", (size_t)(w - p->workers));
    worker.executors = executors;
    worker.n_executors = ARRAY_LEN(executors);
    worker.tags = tags;
    worker.n_tags = ARRAY_LEN(tags);
    worker.slots = (uint32_t)(p->config.window / p->n_workers);
    worker.version = (char *)DAVIT_VERSION;
    worker.host = (char *)"bench";
    hello.token = pb_bytes_ref(str_from(p->config.worker_token));
    hello.worker = &worker;
    e.body_case = PB__ENVELOPE__BODY_HELLO;
    e.hello = &hello;
    session_send(&w->s, &e);
}

static void take_specs(struct worker *w, const Pb__WireAssign *assign)
{
    for (size_t i = 0; i < assign->n_specs; i++) {
        const Pb__JobSpec *spec = assign->specs[i];
        struct held *h;

        check(spec->key && spec->n_script == 1 && spec->script[0].len == PEER_PAYLOAD);
        HASH_FIND(hh, w->held, &spec->key->job_id, sizeof(spec->key->job_id), h);
        if (h) {
            continue; /* sent again: its end is on its way */
        }
        h = xcalloc(1, sizeof(*h));
        h->job_id = spec->key->job_id;
        h->attempt = spec->key->attempt;
        h->epoch = spec->key->epoch;
        h->tag = peer_tag((const char *)spec->script[0].data);
        HASH_ADD(hh, w->held, job_id, sizeof(h->job_id), h);
        *w->fresh_tail = h;
        w->fresh_tail = &h->next_fresh;
        w->fresh_count++;
        driver_has(w->p->d, h->tag);
    }
}

static void take_finish_ack(struct worker *w, const Pb__FinishAck *ack)
{
    for (size_t i = 0; i < ack->n_keys; i++) {
        struct held *h;

        HASH_FIND(hh, w->held, &ack->keys[i]->job_id, sizeof(ack->keys[i]->job_id), h);
        if (!h || h->epoch != ack->keys[i]->epoch) {
            continue; /* said twice: to the end, and to the heartbeat that crossed it */
        }
        if (ack->stale && !h->listed) {
            driver_fail("davit", STR("a job that was taken away"));
        }
        HASH_DEL(w->held, h);
        driver_finished(w->p->d, h->tag);
        free(h);
    }
}

static void take_worker_message(void *ctx, const Pb__Envelope *e)
{
    struct worker *w = ctx;

    switch ((int)e->body_case) {
    case PB__ENVELOPE__BODY_WELCOME:
        take_welcome(w->p);
        break;
    case PB__ENVELOPE__BODY_REFUSED:
        take_refused(e->refused);
        break;
    case PB__ENVELOPE__BODY_ASSIGN:
        take_specs(w, e->assign);
        break;
    case PB__ENVELOPE__BODY_FINISH_ACK:
        take_finish_ack(w, e->finish_ack);
        break;
    case PB__ENVELOPE__BODY_CANCEL:
        driver_fail("davit", STR("a job was canceled"));
    default: /* HeartbeatAck, Drain */
        break;
    }
}

static void list_held(void *ctx, Pb__Heartbeat *beat, struct arena *arena)
{
    struct worker *w = ctx;
    struct held *h;
    struct held *next;

    beat->draining = w->p->quiet;
    beat->jobs = arena_array(arena, HASH_COUNT(w->held) + 1, sizeof(beat->jobs[0]));
    HASH_ITER (hh, w->held, h, next) {
        Pb__HeldJob *job = arena_alloc(arena, sizeof(*job));
        Pb__JobKey *key = arena_alloc(arena, sizeof(*key));

        pb__job_key__init(key);
        key->job_id = h->job_id;
        key->attempt = h->attempt;
        key->epoch = h->epoch;
        pb__held_job__init(job);
        h->listed = true;
        job->key = key;
        job->state = PB__HELD_STATE__HELD_FINISHED;
        beat->jobs[beat->n_jobs++] = job;
    }
}

static struct peer *open_peer(const struct peer_config *config, struct loop *l, struct driver *d)
{
    static const struct session_events client_events = {
        .opened = greet_as_client, .message = take_client_message, .lost = lost};
    static const struct session_events worker_events = {
        .opened = greet_as_worker, .message = take_worker_message, .beat = list_held, .lost = lost};
    struct davit *p = xcalloc(1, sizeof(*p));

    p->config = *config;
    p->d = d;
    p->n = MIN(config->connections, config->window);
    p->n_workers = config->worker ? p->n : 0;
    p->keep_ms = strcmp(config->variant, "keep") == 0 ? KEEP_MS : 0;
    arena_init(&p->in, 0);
    arena_init(&p->out, 0);
    arena_init(&p->strings, 0);
    p->clients = xcalloc(p->n, sizeof(*p->clients));
    p->workers = xcalloc(p->n, sizeof(*p->workers));
    for (size_t i = 0; i < p->n; i++) {
        p->clients[i].p = p;
        session_open(&p->clients[i].s, l, config->port, &p->in, &client_events, &p->clients[i]);
    }
    for (size_t i = 0; i < p->n_workers; i++) {
        p->workers[i].p = p;
        p->workers[i].fresh_tail = &p->workers[i].fresh;
        session_open(&p->workers[i].s, l, config->port, &p->in, &worker_events, &p->workers[i]);
    }
    return (struct peer *)p;
}

static void free_peer(struct peer *peer)
{
    struct davit *p = (struct davit *)peer;

    for (size_t i = 0; i < p->n; i++) {
        struct held *h;
        struct held *next;

        HASH_ITER (hh, p->workers[i].held, h, next) {
            HASH_DEL(p->workers[i].held, h);
            free(h);
        }
        fifo_release(&p->clients[i].tags);
        fifo_release(&p->clients[i].counts);
    }
    arena_release(&p->in);
    arena_release(&p->out);
    arena_release(&p->strings);
    free(p->clients);
    free(p->workers);
    free(p);
}

static void enqueue(struct client *c, const uint64_t *tags, size_t n)
{
    struct davit *p = c->p;
    char *tag[] = {(char *)p->config.queue};
    Pb__ClientEnqueue request = PB__CLIENT_ENQUEUE__INIT;
    Pb__JobsEnqueue batch = PB__JOBS_ENQUEUE__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;

    arena_clear(&p->out);
    batch.project = (char *)"bench";
    batch.jobs = arena_array(&p->out, n, sizeof(batch.jobs[0]));
    for (size_t i = 0; i < n; i++) {
        Pb__EnqueueJob *job = arena_alloc(&p->out, sizeof(*job));
        Pb__PlanJob *plan = arena_alloc(&p->out, sizeof(*plan));
        char *payload = arena_alloc(&p->out, PEER_PAYLOAD);

        peer_payload(tags[i], payload);
        pb__plan_job__init(plan);
        plan->name = (char *)"job";
        plan->script = arena_alloc(&p->out, sizeof(plan->script[0]));
        plan->script[0] = pb_bytes_ref(str_of(payload, PEER_PAYLOAD));
        plan->n_script = 1;
        plan->tags = tag;
        plan->n_tags = ARRAY_LEN(tag);
        pb__enqueue_job__init(job);
        job->plan = plan;
        job->keep_ms = p->keep_ms;
        batch.jobs[batch.n_jobs++] = job;
        fifo_push(&c->tags, tags[i]);
    }
    fifo_push(&c->counts, n);
    request.request = ++c->request;
    request.jobs = &batch;
    e.body_case = PB__ENVELOPE__BODY_CLIENT_ENQUEUE;
    e.client_enqueue = &request;
    session_send(&c->s, &e);
}

static void submit(struct peer *peer, const uint64_t *tags, size_t n)
{
    struct davit *p = (struct davit *)peer;
    size_t parts = MAX(MIN(n, p->n), (n + BATCH - 1) / BATCH);

    for (size_t i = 0; i < parts; i++) {
        size_t from = n * i / parts;
        enqueue(&p->clients[p->next], tags + from, n * (i + 1) / parts - from);
        p->next = (p->next + 1) % p->n;
    }
}

static void finish(struct worker *w)
{
    struct arena *a = &w->p->out;
    Pb__WireJobFinished finished = PB__WIRE_JOB_FINISHED__INIT;
    Pb__Outcome outcome = PB__OUTCOME__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;

    arena_clear(a);
    outcome.result = JOB_SUCCESS;
    finished.ends = arena_array(a, w->fresh_count, sizeof(finished.ends[0]));
    for (const struct held *h = w->fresh; h; h = h->next_fresh) {
        Pb__JobEnd *end = arena_alloc(a, sizeof(*end));
        Pb__JobKey *key = arena_alloc(a, sizeof(*key));

        pb__job_key__init(key);
        key->job_id = h->job_id;
        key->attempt = h->attempt;
        key->epoch = h->epoch;
        pb__job_end__init(end);
        end->key = key;
        end->outcome = &outcome;
        finished.ends[finished.n_ends++] = end;
    }
    w->fresh = NULL;
    w->fresh_tail = &w->fresh;
    w->fresh_count = 0;
    e.body_case = PB__ENVELOPE__BODY_JOB_FINISHED;
    e.job_finished = &finished;
    session_send(&w->s, &e);
}

static void end_round(struct peer *peer)
{
    struct davit *p = (struct davit *)peer;
    uint64_t now_us = os_monotonic_us();

    for (size_t i = 0; i < p->n_workers; i++) {
        if (p->workers[i].fresh_count > 0) {
            finish(&p->workers[i]);
        }
        session_tick(&p->workers[i].s, now_us);
    }
    for (size_t i = 0; i < p->n; i++) {
        session_tick(&p->clients[i].s, now_us);
    }
}

static void quiesce(struct peer *peer)
{
    struct davit *p = (struct davit *)peer;

    p->quiet = true;
    for (size_t i = 0; i < p->n_workers; i++) {
        session_beat(&p->workers[i].s, os_monotonic_us());
    }
}

const struct peer_ops peer_davit = {
    .name = "Davit",
    .durable = "each step",
    .max_wait_us = TICK_US,
    .open = open_peer,
    .free = free_peer,
    .submit = submit,
    .round = end_round,
    .quiesce = quiesce,
};
