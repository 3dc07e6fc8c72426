#include "common/base.h"

#include <stdio.h>

#include "tests/sim/client.h"

/* What a client says: all that knows the shape of its messages. */

static void say(struct client *c, Pb__Envelope *e)
{
    const bool numbered = e->body_case != PB__ENVELOPE__BODY_HEARTBEAT;
    struct buf packed = BUF_INIT;

    e->version = WIRE_VERSION;
    e->session = c->session;
    e->seq = numbered ? ++c->seq_out : 0;
    e->ack = c->seq_in;
    c->ack_due_us = 0;
    PB_PACK(e, &packed);
    trace("client %u: says %d", c->index, (int)e->body_case);
    net_send(c->pipe, packed.p, packed.n);
    buf_release(&packed);
}

void client_say_hello(struct client *c)
{
    Pb__Envelope e = PB__ENVELOPE__INIT;
    Pb__ClientHello hello = PB__CLIENT_HELLO__INIT;
    uint8_t uid[16] = {0xc1, (uint8_t)c->index, (uint8_t)c->lives};
    char name[16];

    snprintf(name, sizeof(name), "c%u", c->index);
    hello.token = pb_bytes_ref(str_from(SIM_USER));
    hello.name = name;
    hello.version = (char *)"1";
    hello.uid = pb_bytes_ref(str_of(uid, sizeof(uid)));
    e.body_case = PB__ENVELOPE__BODY_CLIENT_HELLO;
    e.client_hello = &hello;
    say(c, &e);
}

void client_say_beat(struct client *c)
{
    Pb__Envelope e = PB__ENVELOPE__INIT;
    Pb__Heartbeat beat = PB__HEARTBEAT__INIT;

    beat.sent_ms = sim->now_us / SIM_MS;
    e.body_case = PB__ENVELOPE__BODY_HEARTBEAT;
    e.heartbeat = &beat;
    say(c, &e);
}

void client_say_bye(struct client *c)
{
    Pb__Envelope e = PB__ENVELOPE__INIT;
    Pb__Bye bye = PB__BYE__INIT;

    e.body_case = PB__ENVELOPE__BODY_BYE;
    e.bye = &bye;
    say(c, &e);
}

/* The same seed makes the same job; a key that was used for another one is somebody's mistake. */
static Pb__EnqueueJob *make_job(struct arena *a, const struct client *c, const struct ask *ask,
                                uint32_t k, uint64_t *seed)
{
    Pb__EnqueueJob *job = arena_alloc(a, sizeof(*job));

    pb__enqueue_job__init(job);
    job->plan = arena_alloc(a, sizeof(*job->plan));
    pb__plan_job__init(job->plan);
    job->plan->name = arena_printf(a, "lone %u", k);
    user_script(a, job->plan);
    user_wish(a, job->plan, seed);
    job->keep_ms = user_chance(seed, 2) ? 0 : 1000 * (1 + user_next(seed) % 100);
    job->not_before_ms = user_chance(seed, sim->swarm.delayed) ? ask->not_before_ms : 0;
    if (ask->keyed) {
        job->idempotency_key = pb_bytes(a,
                                        str_from(arena_printf(a, "key-%u-%u-%" PRIx64 "-%u",
                                                              c->index, c->lives, ask->seed, k)));
        job->plan->timeout_ms += ask->bad ? 1 : 0;
    }
    return job;
}

void client_say_list(struct client *c, const struct ask *ask, struct arena *a)
{
    Pb__Envelope e = PB__ENVELOPE__INIT;
    Pb__ClientEnqueue m = PB__CLIENT_ENQUEUE__INIT;
    Pb__JobsEnqueue jobs = PB__JOBS_ENQUEUE__INIT;
    uint64_t seed = ask->seed;

    jobs.project = arena_printf(a, "p%u", 1 + (unsigned)(user_next(&seed) % MODEL_PROJECTS));
    jobs.jobs = arena_array(a, ask->count, sizeof(*jobs.jobs));
    for (uint32_t k = 0; k < ask->count; k++) {
        const bool twice = k > 0 && user_chance(&seed, 20); /* it is in the list two times */
        jobs.jobs[k] = twice ? jobs.jobs[k - 1] : make_job(a, c, ask, k, &seed);
        jobs.n_jobs++;
    }
    m.request = ask->number;
    m.jobs = &jobs;
    m.notify = ask->notify;
    e.body_case = PB__ENVELOPE__BODY_CLIENT_ENQUEUE;
    e.client_enqueue = &m;
    say(c, &e);
}

void client_say_cancel(struct client *c, const struct ask *ask)
{
    Pb__Envelope e = PB__ENVELOPE__INIT;
    Pb__ClientCancel m = PB__CLIENT_CANCEL__INIT;

    m.request = ask->number;
    m.job_id = ask->job_id;
    m.again = ask->again;
    e.body_case = PB__ENVELOPE__BODY_CLIENT_CANCEL;
    e.client_cancel = &m;
    say(c, &e);
}

/* After all whose end it does not know, and would not be told of. */
void client_say_query(struct client *c, const struct ask *ask)
{
    Pb__Envelope e = PB__ENVELOPE__INIT;
    Pb__ClientQuery m = PB__CLIENT_QUERY__INIT;
    uint64_t ids[CLIENT_JOBS];

    m.request = ask->number;
    m.job_ids = ids;
    for (uint32_t i = 0; i < c->job_count; i++) {
        if (!c->jobs[i].watched) {
            c->jobs[i].asked = ask->number;
            ids[m.n_job_ids++] = c->jobs[i].id;
        }
    }
    m.notify = true;
    e.body_case = PB__ENVELOPE__BODY_CLIENT_QUERY;
    e.client_query = &m;
    say(c, &e);
}
