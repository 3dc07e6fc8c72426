#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/limits.h"
#include "tests/sim/client.h"

/* Programs that enqueue jobs over the wire, cancel them and wait for their ends, as
 * docs/protocol.md, "Clients", has it. Who has given its jobs keys asks again in its next session;
 * who has not does not know what became of them. */

#define LEASE_US  (10 * SIM_SECOND)
#define BEAT_US   (3 * SIM_SECOND)
#define AGAIN_US  (2 * SIM_SECOND) /* after an answer that may be another one later */
#define WORLD_MAX (MODEL_PIPELINES - 100u)

static void wake_at(struct client *c, uint64_t at_us)
{
    at_us = MAX(at_us, MAX(sim->now_us, c->stalled_until_us));
    if (at_us < c->wake_us) {
        c->wake_us = at_us;
        event_add_us(at_us, EV_CLIENT, c->index, at_us);
    }
}

void client_init(uint32_t index)
{
    struct client *c = &sim->clients[index];

    *c = (struct client){.index = index, .wake_us = SIM_NEVER, .lives = 1};
    wake_at(c, sim->now_us + below(SIM_SECOND));
}

static void send_ask(struct client *c, struct ask *ask)
{
    struct arena a;

    arena_init(&a, 0);
    ask->number = ++c->last_number;
    ask->waits = true;
    if (ask->kind == ASK_ENQUEUE) {
        client_say_list(c, ask, &a);
    } else if (ask->kind == ASK_CANCEL) {
        client_say_cancel(c, ask);
    } else {
        client_say_query(c, ask);
    }
    arena_release(&a);
}

/* ---- what it knows ---- */

static struct client_job *find_job(struct client *c, uint64_t id)
{
    for (uint32_t i = 0; i < c->job_count; i++) {
        if (c->jobs[i].id == id) {
            return &c->jobs[i];
        }
    }
    return NULL;
}

static void forget_job(struct client *c, uint64_t id)
{
    struct client_job *j = find_job(c, id);

    if (j != NULL) {
        *j = c->jobs[--c->job_count];
    }
}

static void add_job(struct client *c, uint64_t id, bool watched)
{
    struct client_job *j = find_job(c, id);

    if (j == NULL && c->job_count < CLIENT_JOBS) {
        j = &c->jobs[c->job_count++];
        *j = (struct client_job){.id = id};
    }
    if (j != NULL) {
        j->watched = j->watched || watched;
    }
}

/* An end that it is told of must have been one. */
static void judge_end(const struct client *c, const Pb__ClientJob *job)
{
    for (size_t i = sim->end_count; i-- > 0;) {
        const struct sim_end *e = &sim->ends[i];
        if (e->job_id == job->job_id && e->attempt == job->attempt && e->state == job->state) {
            return;
        }
    }
    breach_now("client %u is told that job %" PRIu64 " is %s after attempt %" PRIu64
               ", which it never was",
               c->index, job->job_id, job_state_text((Pb__JobState)job->state), job->attempt);
}

static void judge_gone(const struct client *c, uint64_t id)
{
    if (model_job(sim->model, id, NULL) != NULL) {
        breach_now("client %u is told that job %" PRIu64 " is gone, and it is there", c->index, id);
    }
}

static struct ask *find_ask(struct client *c, uint64_t number)
{
    for (uint32_t i = 0; i < ASKS; i++) {
        if (c->asks[i].kind != ASK_NONE && c->asks[i].number == number) {
            return &c->asks[i];
        }
    }
    breach_now("client %u gets an answer to what it did not ask", c->index);
}

/* ---- connection ---- */

static void hang_up(struct client *c, uint64_t for_us)
{
    if (c->pipe != 0) {
        net_close(c->pipe);
    }
    c->pipe = 0;
    c->session = 0;
    c->back_us = sim->now_us + for_us;
    for (uint32_t i = 0; i < ASKS; i++) {
        struct ask *ask = &c->asks[i];
        const bool lost = ask->kind == ASK_QUERY || (ask->kind == ASK_ENQUEUE && !ask->keyed);
        if (lost || ask->bad) {
            *ask = (struct ask){.kind = ASK_NONE};
        }
        ask->again = ask->again || (ask->number != 0 && !ask->answered);
        ask->number = 0;
        ask->waits = false;
    }
    for (uint32_t i = 0; i < c->job_count; i++) {
        c->jobs[i].watched = false;
    }
    wake_at(c, c->back_us);
}

void client_heal(struct client *c)
{
    c->stalled_until_us = 0;
    hang_up(c, SIM_SECOND);
}

void client_restart(struct client *c)
{
    hang_up(c, between(100 * SIM_MS, 5 * SIM_SECOND));
    memset(c->asks, 0, sizeof(c->asks));
    c->job_count = 0;
    c->lives++;
}

void client_say_what_hangs(const struct client *c)
{
    for (uint32_t i = 0; i < ASKS; i++) {
        const struct ask *ask = &c->asks[i];
        if (ask->kind != ASK_NONE && !ask->answered) {
            fprintf(stderr, "client %u has no answer to %d, number %" PRIu64 "\n", c->index,
                    (int)ask->kind, ask->number);
        }
    }
    for (uint32_t i = 0; i < c->job_count; i++) {
        fprintf(stderr, "client %u does not know of the end of job %" PRIu64 "%s\n", c->index,
                c->jobs[i].id, c->jobs[i].watched ? ", which it waits for" : "");
    }
}

void client_down(uint32_t pipe)
{
    struct client *c = &sim->clients[sim->links[pipe].owner - SIM_WORKERS];

    sim->links[pipe].worker_open = false;
    if (c->pipe == pipe) {
        hang_up(c, between(10 * SIM_MS, 2 * SIM_SECOND));
    }
}

static void dial(struct client *c)
{
    c->pipe = net_connect(SIM_WORKERS + c->index);
    if (c->pipe == 0) {
        hang_up(c, between(100 * SIM_MS, 3 * SIM_SECOND));
        return;
    }
    c->seq_in = c->seq_out = c->ack_due_us = 0;
    c->heard_us = sim->now_us;
    c->beat_due_us = SIM_NEVER;
    client_say_hello(c);
}

/* ---- what it hears ---- */

static void take_enqueued(struct client *c, const Pb__ClientEnqueued *m)
{
    struct ask *ask = find_ask(c, m->request);

    ask->waits = false;
    if (m->code[0] != '\0') {
        const bool later = strcmp(m->code, err_code(-E_FULL)) == 0 ||
                           strcmp(m->code, err_code(-E_NO_SPACE)) == 0;
        if (!later &&
            !((ask->bad || sim->leaps > 0) && strcmp(m->code, err_code(-E_KEY_REUSED)) == 0)) {
            breach_now("client %u: its jobs are refused: %s %s", c->index, m->code, m->text);
        }
        ask->number = 0;
        c->next_us = sim->now_us + AGAIN_US;
        if (!later || !ask->keyed) {
            *ask = (struct ask){.kind = ASK_NONE};
        }
        return;
    }
    if (m->n_job_ids != ask->count || m->n_duplicates != ask->count ||
        (ask->bad && sim->leaps == 0)) {
        breach_now("client %u: a wrong answer to its list", c->index);
    }
    for (uint32_t k = 0; k < ask->count; k++) {
        if (ask->answered && ask->ids[k] != m->job_ids[k] && sim->leaps == 0) {
            breach_now("client %u: its key meant job %" PRIu64 ", now %" PRIu64, c->index,
                       ask->ids[k], m->job_ids[k]);
        }
        ask->ids[k] = m->job_ids[k];
        add_job(c, m->job_ids[k], ask->notify);
    }
    ask->answered = true;
}

static void take_described(struct client *c, const Pb__ClientJob *job)
{
    struct client_job *mine = find_job(c, job->job_id);

    if (job->unwatched) {
        breach_now("client %u: its job %" PRIu64 " is said to be a pipeline's", c->index,
                   job->job_id);
    }
    if (mine != NULL && model_ended((uint8_t)job->state)) {
        judge_end(c, job);
        forget_job(c, job->job_id);
    } else if (mine != NULL) {
        mine->watched = true;
    }
}

static void take_answer(struct client *c, const Pb__ClientAnswer *m)
{
    struct ask *ask = find_ask(c, m->request);

    if (ask->kind == ASK_QUERY) {
        for (size_t i = 0; i < m->n_jobs; i++) {
            take_described(c, m->jobs[i]);
        }
        for (uint32_t i = c->job_count; i-- > 0;) {
            if (c->jobs[i].asked == ask->number && !c->jobs[i].watched) {
                judge_gone(c, c->jobs[i].id);
                forget_job(c, c->jobs[i].id);
            }
        }
    }
    *ask = (struct ask){.kind = ASK_NONE};
}

static void take_ends(struct client *c, const Pb__ClientJobEnded *m)
{
    for (size_t i = 0; i < m->n_jobs; i++) {
        if (m->jobs[i]->state == 0) {
            judge_gone(c, m->jobs[i]->job_id);
        } else {
            judge_end(c, m->jobs[i]);
        }
        forget_job(c, m->jobs[i]->job_id);
    }
}

static void take_body(struct client *c, const Pb__Envelope *e)
{
    switch ((int)e->body_case) {
    case PB__ENVELOPE__BODY_WELCOME:
        c->session = e->welcome->session;
        c->beat_due_us = sim->now_us + BEAT_US;
        break;
    case PB__ENVELOPE__BODY_CLIENT_ENQUEUED:
        take_enqueued(c, e->client_enqueued);
        break;
    case PB__ENVELOPE__BODY_CLIENT_ANSWER:
        take_answer(c, e->client_answer);
        break;
    case PB__ENVELOPE__BODY_CLIENT_JOB_ENDED:
        take_ends(c, e->client_job_ended);
        break;
    case PB__ENVELOPE__BODY_BYE_ACK:
        hang_up(c, between(SIM_SECOND, 10 * SIM_SECOND));
        break;
    case PB__ENVELOPE__BODY_REFUSED:
        if (e->refused->final) {
            breach_now("a good client is refused for good: %s", e->refused->text);
        }
        hang_up(c, e->refused->retry_after_ms * SIM_MS);
        break;
    default:
        break;
    }
}

void client_message(uint32_t pipe, const char *p, size_t n)
{
    struct client *c = &sim->clients[sim->links[pipe].owner - SIM_WORKERS];
    struct arena arena;
    Pb__Envelope *e;

    if (c->pipe != pipe || sim->links[pipe].to_worker_dead) {
        return;
    }
    if (sim->now_us < c->stalled_until_us) {
        event_add_bytes(c->stalled_until_us, EV_TO_WORKER, pipe, p, n, NULL, 0);
        return;
    }
    arena_init(&arena, 0);
    check(PB_UNPACK(&arena, envelope, p, n, LIMIT_WIRE_MESSAGE, &e) == 0);
    if ((e->seq != 0 && e->seq != c->seq_in + 1) || e->ack > c->seq_out) {
        breach_now("client %u: wrong numbers: %" PRIu64 " after %" PRIu64, c->index, e->seq,
                   c->seq_in);
    }
    c->heard_us = sim->now_us;
    if (e->seq != 0) {
        c->seq_in = e->seq;
        c->ack_due_us = c->ack_due_us != 0 ? c->ack_due_us : sim->now_us + 50 * SIM_MS;
    }
    trace("client %u: hears %d", c->index, (int)e->body_case);
    take_body(c, e);
    arena_release(&arena);
    client_event(c);
}

/* ---- its own will ---- */

/* A free place; or that of a list which was answered, and is not to be sent again any more. */
static struct ask *free_ask(struct client *c)
{
    const uint64_t from = below(ASKS);

    for (uint32_t i = 0; i < ASKS; i++) {
        if (c->asks[i].kind == ASK_NONE) {
            return &c->asks[i];
        }
    }
    for (uint32_t i = 0; i < ASKS; i++) {
        struct ask *ask = &c->asks[(from + i) % ASKS];
        if (ask->answered && !ask->waits) {
            return ask;
        }
    }
    return NULL;
}

static void enqueue(struct client *c)
{
    const struct model *m = sim->model;
    struct ask *ask = free_ask(c);

    if (ask == NULL || c->lists >= sim->swarm.lists || c->job_count + ASK_JOBS > CLIENT_JOBS ||
        m->pipeline_count + 3 * ASK_JOBS > WORLD_MAX || m->key_count + 100 > MODEL_KEYS) {
        return;
    }
    c->lists++;
    *ask = (struct ask){.kind = ASK_ENQUEUE,
                        .seed = rnd(),
                        .keyed = !one_in(4),
                        .notify = !one_in(4),
                        .count = (uint32_t)between(1, ASK_JOBS),
                        .not_before_ms = broker_real_ms() + between(0, 40000)};
    send_ask(c, ask);
}

/* The same keys: for what was asked before, or by mistake for something else. */
static void enqueue_again(struct client *c)
{
    struct ask *old = &c->asks[below(ASKS)];
    struct ask *ask;

    if (old->kind != ASK_ENQUEUE || !old->answered || !old->keyed || old->waits) {
        return;
    }
    if (!one_in(3)) {
        send_ask(c, old);
        return;
    }
    ask = free_ask(c);
    if (ask != NULL && ask != old) {
        *ask = *old;
        ask->answered = false;
        ask->bad = true;
        send_ask(c, ask);
    }
}

static void cancel(struct client *c)
{
    struct ask *ask = free_ask(c);

    if (ask != NULL && c->job_count > 0) {
        *ask = (struct ask){.kind = ASK_CANCEL, .job_id = c->jobs[below(c->job_count)].id};
        send_ask(c, ask);
    }
}

static void query(struct client *c)
{
    struct ask *ask = free_ask(c);
    bool any = false;

    for (uint32_t i = 0; i < ASKS; i++) {
        if (c->asks[i].kind == ASK_QUERY) {
            return; /* one is on its way */
        }
    }
    for (uint32_t i = 0; i < c->job_count; i++) {
        any = any || !c->jobs[i].watched;
    }
    if (ask != NULL && any) {
        *ask = (struct ask){.kind = ASK_QUERY};
        send_ask(c, ask);
    }
}

static void act(struct client *c)
{
    c->next_us = sim->now_us + SIM_MS * between(1, sim->faults ? 2 * sim->swarm.user_ms : 4000);
    for (uint32_t i = 0; i < ASKS; i++) {
        struct ask *ask = &c->asks[i];
        if (ask->kind != ASK_NONE && !ask->answered && ask->number == 0) {
            send_ask(c, ask);
        }
    }
    query(c);
    if (!sim->faults) {
        return;
    }
    switch (below(8)) {
    case 0:
        cancel(c);
        break;
    case 1:
        enqueue_again(c);
        break;
    default:
        enqueue(c);
        break;
    }
}

/* Its program dies, with all that it knew, or only stands still; or it says good-bye. */
static void fate(struct client *c)
{
    if (strikes(sim->swarm.crash)) {
        client_restart(c);
    } else if (strikes(sim->swarm.worker_stall)) {
        c->stalled_until_us = sim->now_us + between(SIM_SECOND, 20 * SIM_SECOND);
    } else if (strikes(sim->swarm.bye)) {
        client_say_bye(c);
        c->next_us = SIM_NEVER;
    }
}

void client_event(struct client *c)
{
    uint64_t at_us;

    if (sim->now_us >= c->stalled_until_us) {
        if (c->pipe == 0 && sim->now_us >= c->back_us) {
            dial(c);
            c->next_us = 0;
        } else if (c->pipe != 0 && sim->now_us - c->heard_us >= LEASE_US) {
            hang_up(c, between(10 * SIM_MS, 2 * SIM_SECOND));
        }
        if (c->session != 0 && sim->now_us >= c->next_us) {
            act(c);
            fate(c);
        }
        if (c->session != 0 && (sim->now_us >= c->beat_due_us ||
                                (c->ack_due_us != 0 && sim->now_us >= c->ack_due_us))) {
            c->beat_due_us = sim->now_us >= c->beat_due_us ? sim->now_us + BEAT_US : c->beat_due_us;
            client_say_beat(c);
        }
    }
    at_us = c->pipe == 0 ? c->back_us : MIN(c->heard_us + LEASE_US, c->beat_due_us);
    if (c->pipe != 0 && c->ack_due_us != 0) {
        at_us = MIN(at_us, c->ack_due_us);
    }
    if (c->session != 0) {
        at_us = MIN(at_us, c->next_us);
    }
    wake_at(c, MAX(at_us, sim->now_us + SIM_MS));
}

bool client_is_done(const struct client *c)
{
    for (uint32_t i = 0; i < ASKS; i++) {
        if (c->asks[i].kind != ASK_NONE && !c->asks[i].answered) {
            return false;
        }
    }
    return c->job_count == 0;
}
