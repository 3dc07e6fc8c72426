#include "common/base.h"

#include <stdio.h>

#include "tests/sim/worker.h"

static void say(struct worker *w, Pb__Envelope *e)
{
    const bool numbered = e->body_case != PB__ENVELOPE__BODY_HEARTBEAT;
    struct buf packed = BUF_INIT;

    e->version = WIRE_VERSION;
    e->session = w->session;
    e->seq = numbered ? ++w->seq_out : 0;
    e->ack = w->seq_in;
    w->ack_said = w->seq_in;
    w->ack_due_us = 0;
    PB_PACK(e, &packed);
    trace("worker %u: says %d", w->index, (int)e->body_case);
    net_send(w->pipe, packed.p, packed.n);
    buf_release(&packed);
}

static Pb__JobKey key_of(const struct held *h)
{
    Pb__JobKey key = PB__JOB_KEY__INIT;

    key.job_id = h->job_id;
    key.attempt = h->attempt;
    key.epoch = h->epoch;
    return key;
}

struct list {
    Pb__HeldJob jobs[SIM_HELD];
    Pb__JobKey keys[SIM_HELD];
    Pb__HeldJob *pointers[SIM_HELD];
    size_t count;
};

static void fill(struct list *list, const struct worker *w)
{
    list->count = 0;
    for (uint32_t i = 0; i < SIM_HELD; i++) {
        const struct held *h = &w->held[i];
        if (h->state == HELD_GONE) {
            continue;
        }
        Pb__HeldJob *job = &list->jobs[list->count];
        pb__held_job__init(job);
        list->keys[list->count] = key_of(h);
        job->key = &list->keys[list->count];
        job->state = h->state == HELD_ENDED  ? PB__HELD_STATE__HELD_FINISHED
                     : h->state == HELD_RUNS ? PB__HELD_STATE__HELD_RUNNING
                                             : PB__HELD_STATE__HELD_ACCEPTED;
        list->pointers[list->count++] = job;
    }
}

void say_hello(struct worker *w)
{
    static char *const names[] = {(char *)"a", (char *)"b", (char *)"c"};
    Pb__WorkerHello worker = PB__WORKER_HELLO__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;
    Pb__Hello hello = PB__HELLO__INIT;
    char *executor = (char *)"shell";
    char *tags[3];
    char name[16], pool[] = "x0";
    uint8_t uid[16] = {(uint8_t)(w->index + 1)};
    struct list list;

    snprintf(name, sizeof(name), "w%u", w->index);
    worker.uid = pb_bytes_ref(str_of(uid, sizeof(uid)));
    worker.name = name;
    worker.executors = &executor;
    worker.n_executors = 1;
    worker.tags = tags;
    for (uint32_t i = 0; i < 3; i++) {
        if (w->tags & (1u << i)) {
            tags[worker.n_tags++] = names[i];
        }
    }
    worker.slots = w->slots;
    worker.cpu_millis = w->cpu_millis;
    pool[1] = (char)('0' + w->pool);
    worker.pool = w->pool != 0 ? pool : (char *)"";
    worker.run_untagged = w->untagged;
    fill(&list, w);
    hello.token = pb_bytes_ref(str_from(SIM_TOKEN));
    hello.worker = &worker;
    hello.jobs = list.pointers;
    hello.n_jobs = list.count;
    e.body_case = PB__ENVELOPE__BODY_HELLO;
    e.hello = &hello;
    say(w, &e);
}

void say_heartbeat(struct worker *w)
{
    Pb__Envelope e = PB__ENVELOPE__INIT;
    Pb__Heartbeat beat = PB__HEARTBEAT__INIT;
    struct list list;

    fill(&list, w);
    beat.sent_ms = sim->now_us / SIM_MS;
    beat.jobs = list.pointers;
    beat.n_jobs = list.count;
    beat.disk_low = sim->now_us < w->disk_low_until_us;
    beat.draining = worker_unable(w) && !beat.disk_low;
    w->said_unable = worker_unable(w);
    w->unable_us = worker_unable(w) ? sim->now_us : w->unable_us;
    e.body_case = PB__ENVELOPE__BODY_HEARTBEAT;
    e.heartbeat = &beat;
    say(w, &e);
}

/* Several jobs, as a worker merges what waits to be sent. */
static size_t keys_of(struct held *const *jobs, size_t n, struct list *ret, Pb__JobKey **pointers)
{
    check(n <= SIM_HELD);
    for (size_t i = 0; i < n; i++) {
        ret->keys[i] = key_of(jobs[i]);
        pointers[i] = &ret->keys[i];
    }
    return n;
}

void say_assign_ack(struct worker *w, struct held *const *jobs, size_t n)
{
    Pb__Envelope e = PB__ENVELOPE__INIT;
    Pb__AssignAck ack = PB__ASSIGN_ACK__INIT;
    Pb__JobKey *keys[SIM_HELD];
    struct list list;

    ack.keys = keys;
    ack.n_keys = keys_of(jobs, n, &list, keys);
    e.body_case = PB__ENVELOPE__BODY_ASSIGN_ACK;
    e.assign_ack = &ack;
    say(w, &e);
}

void say_started(struct worker *w, struct held *const *jobs, size_t n)
{
    Pb__Envelope e = PB__ENVELOPE__INIT;
    Pb__WireJobStarted started = PB__WIRE_JOB_STARTED__INIT;
    Pb__JobKey *keys[SIM_HELD];
    struct list list;

    started.keys = keys;
    started.n_keys = keys_of(jobs, n, &list, keys);
    e.body_case = PB__ENVELOPE__BODY_JOB_STARTED;
    e.job_started = &started;
    say(w, &e);
}

void say_return(struct worker *w, const struct held *h)
{
    Pb__Envelope e = PB__ENVELOPE__INIT;
    Pb__AssignReturn back = PB__ASSIGN_RETURN__INIT;
    Pb__JobKey key = key_of(h);

    back.key = &key;
    back.why = (char *)"unable";
    e.body_case = PB__ENVELOPE__BODY_ASSIGN_RETURN;
    e.assign_return = &back;
    say(w, &e);
}

void say_log(struct worker *w, struct held *h, uint64_t n)
{
    static uint8_t bytes[8192];
    Pb__Envelope e = PB__ENVELOPE__INIT;
    Pb__LogChunk chunk = PB__LOG_CHUNK__INIT;
    Pb__JobKey key = key_of(h);

    check(n <= sizeof(bytes));
    for (uint64_t i = 0; i < n; i++) {
        bytes[i] = log_byte(h->job_id, h->attempt, h->log_sent + i);
    }
    chunk.key = &key;
    chunk.offset = h->log_sent;
    chunk.data = pb_bytes_ref(str_of(bytes, n));
    h->log_sent += n;
    e.body_case = PB__ENVELOPE__BODY_LOG_CHUNK;
    e.log_chunk = &chunk;
    say(w, &e);
}

void say_finished(struct worker *w, struct held *const *jobs, size_t n)
{
    Pb__Envelope e = PB__ENVELOPE__INIT;
    Pb__WireJobFinished finished = PB__WIRE_JOB_FINISHED__INIT;
    Pb__Outcome outcomes[SIM_HELD];
    Pb__JobEnd ends[SIM_HELD];
    Pb__JobEnd *pointers[SIM_HELD];
    Pb__JobKey *keys[SIM_HELD];
    struct list list;

    finished.n_ends = keys_of(jobs, n, &list, keys);
    finished.ends = pointers;
    for (size_t i = 0; i < n; i++) {
        pb__outcome__init(&outcomes[i]);
        outcomes[i].result = jobs[i]->result;
        outcomes[i].reason = jobs[i]->reason;
        outcomes[i].exit_code = jobs[i]->exit_code;
        outcomes[i].log_size = jobs[i]->log_size;
        pb__job_end__init(&ends[i]);
        ends[i].key = keys[i];
        ends[i].outcome = &outcomes[i];
        pointers[i] = &ends[i];
    }
    e.body_case = PB__ENVELOPE__BODY_JOB_FINISHED;
    e.job_finished = &finished;
    say(w, &e);
}

void say_stale(struct worker *w)
{
    struct held old = {.job_id = w->old.job_id,
                       .attempt = w->old.attempt,
                       .epoch = w->old.epoch,
                       .result = JOB_SUCCESS};
    struct held *const jobs[] = {&old};

    say_finished(w, jobs, 1);
}

void say_bye(struct worker *w)
{
    Pb__Envelope e = PB__ENVELOPE__INIT;
    Pb__Bye bye = PB__BYE__INIT;

    e.body_case = PB__ENVELOPE__BODY_BYE;
    e.bye = &bye;
    say(w, &e);
}

void hear_assign(const Pb__WireAssign *m, struct worker *w,
                 void (*take)(struct worker *w, const Pb__JobKey *key))
{
    for (size_t i = 0; i < m->n_specs; i++) {
        check(m->specs[i]->key != NULL);
        take(w, m->specs[i]->key);
    }
}

void hear_finish_ack(const Pb__FinishAck *m, struct worker *w)
{
    for (size_t i = 0; i < m->n_keys; i++) {
        worker_finish_ack(w, m->keys[i], m->stale);
    }
}
