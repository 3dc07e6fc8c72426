#include "common/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/crypto.h"
#include "common/log.h"
#include "common/os.h"
#include "tests/sim/run.h"
#include "tests/sim/sim.h"

/* The order of things: the earliest event is next, and everything else follows from it. */

#define STEPS       2500u
#define END_US      (4ull * 3600 * SIM_SECOND) /* of the peace in which all must end */
#define FINISH_US   (7 * SIM_SECOND)
#define BREACH_EXIT 3

struct sim *sim;

void breach_now(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fprintf(stderr, "seed %" PRIu64 ", step %" PRIu64 ", at %" PRIu64 " ms: ", sim->seed,
            sim->steps, sim->now_us / SIM_MS);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\n");
    va_end(ap);
    fflush(stdout);
    fflush(stderr);
    _exit(BREACH_EXIT);
}

void trace_line(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    printf("[%9" PRIu64 ".%03" PRIu64 "] ", sim->now_us / SIM_MS, sim->now_us % SIM_MS);
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
}

void hash_in(const void *p, size_t n)
{
    const uint8_t *from = p;
    uint64_t word;

    for (; n >= sizeof(word); n -= sizeof(word), from += sizeof(word)) {
        memcpy(&word, from, sizeof(word));
        sim->hash = (sim->hash ^ word) * 0x9e3779b97f4a7c15u;
        sim->hash ^= sim->hash >> 32;
    }
    for (size_t i = 0; i < n; i++) {
        sim->hash = (sim->hash ^ from[i]) * 0x100000001b3u;
    }
}

/* ---- the heap of events ---- */

static bool earlier(const struct event *a, const struct event *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

static void push(struct event e)
{
    e.order = ++sim->event_order;
    if (sim->event_count == sim->event_cap) {
        sim->event_cap = MAX(256u, 2 * sim->event_cap);
        sim->events = xrealloc(sim->events, sim->event_cap * sizeof(e));
    }
    size_t i = sim->event_count++;
    for (; i > 0 && earlier(&e, &sim->events[(i - 1) / 2]); i = (i - 1) / 2) {
        sim->events[i] = sim->events[(i - 1) / 2];
    }
    sim->events[i] = e;
}

static struct event pop(void)
{
    const struct event first = sim->events[0];
    const struct event last = sim->events[--sim->event_count];
    size_t i = 0;

    for (;;) {
        size_t k = 2 * i + 1;
        if (k + 1 < sim->event_count && earlier(&sim->events[k + 1], &sim->events[k])) {
            k++;
        }
        if (k >= sim->event_count || !earlier(&sim->events[k], &last)) {
            break;
        }
        sim->events[i] = sim->events[k];
        i = k;
    }
    sim->events[i] = last;
    return first;
}

void event_add_us(uint64_t at_us, enum event_kind kind, uint32_t a, uint64_t b)
{
    push((struct event){.at_us = at_us, .kind = kind, .a = a, .b = b});
}

void event_add_bytes(uint64_t at_us, enum event_kind kind, uint32_t a, const void *p, size_t n,
                     const void *q, size_t m)
{
    char *bytes = xmalloc(n + m + 1);

    memcpy(bytes, p, n);
    if (m > 0) {
        memcpy(bytes + n, q, m);
    }
    push((struct event){.at_us = at_us, .kind = kind, .a = a, .bytes = bytes, .n = n + m});
}

static void take_worker(const struct event *e)
{
    struct worker *w = &sim->workers[e->a];

    if (w->wake_us == e->b) {
        w->wake_us = SIM_NEVER;
        worker_event(w);
    }
}

static void take_client(const struct event *e)
{
    struct client *c = &sim->clients[e->a];

    if (c->wake_us == e->b) {
        c->wake_us = SIM_NEVER;
        client_event(c);
    }
}

static void take(const struct event *e)
{
    switch (e->kind) {
    case EV_BROKER:
        broker_step(e->b);
        break;
    case EV_START:
        broker_start();
        break;
    case EV_TO_BROKER:
        net_to_broker(e->a, e->bytes, e->n);
        break;
    case EV_TO_WORKER:
        if (sim->links[e->a].owner < SIM_WORKERS) {
            worker_message(e->a, e->bytes, e->n);
        } else {
            client_message(e->a, e->bytes, e->n);
        }
        free(e->bytes);
        break;
    case EV_BROKER_DOWN:
        net_broker_down(e->a);
        break;
    case EV_WORKER_DOWN:
        if (sim->links[e->a].owner < SIM_WORKERS) {
            worker_down(e->a);
        } else {
            client_down(e->a);
        }
        break;
    case EV_WORKER:
        take_worker(e);
        break;
    case EV_FAULT:
        worker_fate(&sim->workers[e->a]);
        break;
    case EV_LOG:
        logs_reached(e->a, e->b);
        break;
    case EV_USER:
        user_event();
        break;
    case EV_TRIGGER:
        trigger_make(e->b, e->a);
        break;
    case EV_CLIENT:
        take_client(e);
        break;
    }
}

static void step(void)
{
    const struct event e = pop();

    check(e.at_us >= sim->now_us);
    sim->now_us = e.at_us;
    sim->steps++;
    hash_in(&e.at_us, sizeof(e.at_us));
    hash_in(&e.kind, sizeof(e.kind));
    if (e.bytes != NULL) {
        hash_in(e.bytes, e.n);
    }
    take(&e);
}

/* ---- a world ---- */

static void add_token(Pb__TokenAdd *add, struct arena *a, const char *token, const char *role)
{
    uint8_t hash[SHA256_BYTES];

    pb__token_add__init(add);
    crypto_sha256(token, strlen(token), hash);
    add->hash = pb_bytes(a, str_of(hash, sizeof(hash)));
    add->name = (char *)role;
    add->role = (char *)role;
}

static void setup_post(int which)
{
    struct post *p = post_new("setup");
    struct arena *a = post_arena(p);

    if (which == 0) {
        Pb__InitStore *init = arena_alloc(a, sizeof(*init));
        pb__init_store__init(init);
        init->store_id = pb_bytes(a, STR("0123456789abcdef"));
        init->job_token_key = pb_bytes(a, STR("0123456789abcdef0123456789abcdef"));
        post_command(p)->body_case = PB__COMMAND__BODY_INIT_STORE;
        post_command(p)->init_store = init;
    } else {
        Pb__TokenAdd *add = arena_alloc(a, sizeof(*add));
        add_token(add, a, which == 1 ? SIM_TOKEN : SIM_USER, which == 1 ? "worker" : "user");
        post_command(p)->body_case = PB__COMMAND__BODY_TOKEN_ADD;
        post_command(p)->token_add = add;
    }
    check(turn_submit(sim->turn, p, NULL, NULL) == 0);
    check(turn_step(sim->turn) == 0);
}

static void begin(uint64_t seed, const struct run_options *o)
{
    struct buf dir = BUF_INIT;

    sim = xcalloc(1, sizeof(*sim));
    sim->seed = seed;
    sim->random = seed;
    sim->random = rnd(); /* scrambled, or the next seed's stream were this one, one step on */
    sim->hash = 0xcbf29ce484222325u;
    sim->tracing = o->tracing;
    sim->paranoid = o->paranoid;
    sim->model = xcalloc(1, sizeof(*sim->model));
    sim->mark = xcalloc(1, sizeof(*sim->mark));
    sim->written = xcalloc(1, sizeof(*sim->written));
    sim->link_count = 1;
    sim->links = xcalloc(1, sizeof(*sim->links));
    sim->link_cap = 1;
    buf_init(&sim->log, 0);
    swarm_draw(&sim->swarm);
    buf_addf(&dir, "%s/davit-sim-%d", os_exists("/dev/shm") ? "/dev/shm" : "/tmp", (int)getpid());
    sim->dir = buf_take(&dir);
    if (os_exists(sim->dir)) {
        check(os_remove_tree(sim->dir) == 0);
    }
    check(os_mkdir_p(sim->dir, 0700) == 0);
    broker_start();
    setup_post(0);
    setup_post(1);
    setup_post(2);
    check(turn_fresh(sim->turn) == 0); /* nobody may lose these */
    sim->faults = true;
    sim->worker_count = (uint32_t)between(1, SIM_WORKERS);
    for (uint32_t i = 0; i < sim->worker_count; i++) {
        worker_init(&sim->workers[i], i);
    }
    for (uint32_t i = 0; i < sim->swarm.clients; i++) {
        client_init(i);
    }
    for (uint32_t i = 0; i < 6 && sim->swarm.settings != 0; i++) {
        settings_change();
    }
    event_add_us(between(0, SIM_SECOND), EV_USER, 0, 0);
}

static bool all_ended(void)
{
    const struct model *m = sim->model;

    for (uint32_t i = 0; i < SIM_REQUESTS; i++) {
        if (sim->requests[i].used && sim->requests[i].key != 0 && !sim->requests[i].acknowledged) {
            return false;
        }
    }
    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        for (uint32_t k = 0; k < m->pipelines[i].count; k++) {
            if (!model_ended(m->pipelines[i].jobs[k].state)) {
                return false;
            }
        }
    }
    for (uint32_t i = 0; i < sim->worker_count; i++) {
        for (uint32_t k = 0; k < SIM_HELD; k++) {
            if (sim->workers[i].held[k].state != HELD_GONE) {
                return false;
            }
        }
    }
    for (uint32_t i = 0; i < sim->swarm.clients; i++) {
        if (!client_is_done(&sim->clients[i])) {
            return false;
        }
    }
    return sim->up;
}

static void say_what_hangs(void)
{
    const struct model *m = sim->model;

    for (uint32_t i = 0; i < m->pipeline_count; i++) {
        for (uint32_t k = 0; k < m->pipelines[i].count; k++) {
            const struct model_job *j = &m->pipelines[i].jobs[k];
            if (!model_ended(j->state)) {
                fprintf(stderr,
                        "job %" PRIu64 " of pipeline %" PRIu64 ", child of job %" PRIu64
                        ", is %s; group %u, child %" PRIu64 "\n",
                        j->id, m->pipelines[i].id, m->pipelines[i].parent_job,
                        job_state_text((Pb__JobState)j->state), j->group, j->child);
            }
        }
    }
    for (uint32_t i = 0; i < sim->worker_count; i++) {
        for (uint32_t k = 0; k < SIM_HELD; k++) {
            const struct held *h = &sim->workers[i].held[k];
            if (h->state != HELD_GONE) {
                fprintf(stderr, "worker %u holds job %" PRIu64 ", %d\n", i, h->job_id,
                        (int)h->state);
            }
        }
    }
    for (uint32_t i = 0; i < sim->swarm.clients; i++) {
        client_say_what_hangs(&sim->clients[i]);
    }
}

/* Faults stop, people are patient: now all must come to its end. */
static void peace(void)
{
    uint64_t next_us = 0;
    const uint64_t until_us = sim->now_us + END_US;

    trace("world: peace");
    sim->faults = false;
    for (uint32_t i = 0; i < sim->worker_count; i++) {
        worker_heal(&sim->workers[i]);
    }
    for (uint32_t i = 0; i < sim->swarm.clients; i++) {
        client_heal(&sim->clients[i]);
    }
    sim->swarm.user_ms = 3600 * 1000;
    if (sim->swarm.map_kib != 0 && sim->up) { /* somebody gives it more room */
        sim->swarm.map_kib = 0;
        broker_kill("for more room");
    }
    sim->swarm.map_kib = 0;
    while (!all_ended()) {
        if (sim->now_us > until_us) {
            say_what_hangs();
            breach_now("something never ends");
        }
        if (sim->now_us >= next_us) {
            user_finish();
            next_us = sim->now_us + FINISH_US;
        }
        step();
    }
}

static void end(void)
{
    struct tx *tx;

    check(turn_fresh(sim->turn) == 0);
    check(tx_begin(sim->store, false, &tx) == 0);
    watch_audit(tx);
    model_compare_all(sim->model, tx);
    watch_kept();
    tx_abort(tx);
    if (sim->paranoid || sim->seed % 8 == 0) {
        watch_replay();
    }
    broker_end();
    check(os_remove_tree(sim->dir) == 0);
}

static void release(void)
{
    for (size_t i = 0; i < sim->event_count; i++) {
        free(sim->events[i].bytes);
    }
    free(sim->events);
    free(sim->links);
    free(sim->logs);
    free(sim->model);
    free(sim->mark);
    free(sim->written);
    disk_release();
    free(sim->log_ends);
    free(sim->ends);
    for (size_t i = 0; i < sim->past_cap; i++) {
        free(sim->past[i]);
    }
    free(sim->past);
    buf_release(&sim->log);
    free(sim->dir);
    free(sim);
    sim = NULL;
}

void run_seed(uint64_t seed, const struct run_options *o, struct run_result *ret)
{
    begin(seed, o);
    const uint64_t steps = o->steps != 0 ? o->steps : STEPS;
    while (sim->steps < steps) {
        step();
    }
    peace();
    end();
    ret->steps += sim->steps;
    ret->commands += sim->commands;
    ret->refused += sim->refused;
    ret->starts += sim->starts;
    ret->audits += sim->audits;
    ret->losses += sim->losses;
    ret->shares.count += sim->shares.count;
    ret->shares.sum += sim->shares.sum;
    ret->shares.worst = MAX(ret->shares.worst, sim->shares.worst);
    ret->hash = ret->hash * 31 + sim->hash;
    release();
}
