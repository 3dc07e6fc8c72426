#include "common/base.h"

#include "worker/agent.h"

#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include <utlist.h>

#include "common/limits.h"
#include "common/notify.h"
#include "common/os.h"

#define TICK_MS       500u
#define SWEEP_MS      (5u * 60 * 1000)
#define PUMP_DELAY_MS 15u /* output of a moment travels together */
#define PUMP_STEPS    64u /* then the loop has its turn */
#define UNSENT_MAX    16u
#define TOKEN_MAX     4096u
#define MANY_ACTIONS  256u /* with so many, what only acknowledges does not list them */

static bool agent_leaves(const struct agent *a)
{
    return a->leaving || a->sent_away;
}

const char *agent_refuses_work(const struct agent *a)
{
    if (agent_leaves(a)) {
        return "the worker leaves";
    }
    if (a->drained) {
        return "the worker drains";
    }
    if (a->health.disk_low) {
        return "the worker's disk is nearly full";
    }
    if (health_paused(&a->health, os_monotonic_ms())) {
        return "too many jobs in a row failed because of this worker";
    }
    return NULL;
}

struct held *agent_find_action(const struct agent *a, uint64_t job_id)
{
    struct held *h;
    HASH_FIND(hh, a->actions_by_job, &job_id, sizeof(job_id), h);
    return h;
}

struct held *agent_find(const struct agent *a, struct job_key key)
{
    struct held *h = agent_find_action(a, key.job_id);
    if (h != NULL && job_key_eq(h->key, key)) {
        return h;
    }
    DL_FOREACH (a->jobs, h) {
        if (job_key_eq(h->key, key)) {
            return h;
        }
    }
    return NULL;
}

/* A fenced job still runs for a moment, but for the broker its slot is free. */
size_t agent_slots_taken(const struct agent *a)
{
    size_t n = 0;
    const struct held *h;
    DL_FOREACH (a->jobs, h) {
        n += h->phase != HELD_FENCED && h->phase != HELD_RETURNING && !h->is_action;
    }
    return n;
}

size_t agent_actions_taken(const struct agent *a)
{
    return HASH_COUNT(a->actions_by_job);
}

uint32_t agent_free_slot(const struct agent *a)
{
    uint32_t *taken = NULL;
    size_t n = 0;
    const struct held *h;
    DL_FOREACH (a->jobs, h) {
        if (!h->is_action) {
            taken = xrealloc(taken, (n + 1) * sizeof(*taken));
            taken[n++] = h->slot;
        }
    }
    uint32_t slot = slot_lowest_free(taken, n);
    free(taken);
    return slot;
}

static void on_pump(void *ctx)
{
    agent_pump(ctx);
}

/* One chunk a job and round, beginning with another job each time. */
void agent_pump(struct agent *a)
{
    uint32_t steps = PUMP_STEPS;
    bool more = session_is_open(&a->session);
    loop_timer_clear(a->loop, &a->pump_timer);
    while (more && steps > 0 && session_unsent(&a->session) < UNSENT_MAX) {
        struct held *h;
        more = false;
        DL_FOREACH (a->jobs, h) {
            bool moved = steps > 0 && held_ship(h);
            steps -= moved;
            more = more || moved;
        }
    }
    if (steps == 0) {
        loop_timer_set(a->loop, &a->pump_timer, os_monotonic_ms(), on_pump, a);
    }
    struct held *first = a->jobs;
    if (first != NULL) {
        DL_DELETE(a->jobs, first);
        DL_APPEND(a->jobs, first);
    }
}

void agent_pump_soon(struct agent *a)
{
    if (a->pump_timer.due_ms == 0) {
        loop_timer_set(a->loop, &a->pump_timer, os_monotonic_ms() + PUMP_DELAY_MS, on_pump, a);
    }
}

/* One job a round: to start a shim takes a while, and neither the acceptance of other jobs nor the
 * heartbeat may wait for all of them. */
static void on_start(void *ctx)
{
    struct agent *a = ctx;
    struct held *h;
    DL_FOREACH (a->jobs, h) {
        if (h->phase == HELD_WAITING && h->ready) {
            held_start(h);
            agent_start_soon(a);
            return;
        }
    }
}

void agent_start_soon(struct agent *a)
{
    if (a->start_timer.due_ms == 0) {
        loop_timer_set(a->loop, &a->start_timer, os_monotonic_ms(), on_start, a);
    }
}

void agent_beat(struct agent *a)
{
    a->list_wanted = true;
    session_beat(&a->session);
}

/* The broker schedules by what the heartbeat says, so it hears of a change at once. */
static void tell_willingness(struct agent *a)
{
    bool takes_work = agent_refuses_work(a) == NULL;
    if (takes_work != a->was_taking_work) {
        a->was_taking_work = takes_work;
        agent_beat(a);
    }
}

void agent_job_ended(struct agent *a, bool machine_failed)
{
    uint64_t pause = health_job_ended(&a->health, machine_failed, os_monotonic_ms());
    if (pause > 0) {
        log_error("%u jobs in a row failed because of this machine: taking no work for %" PRIu64
                  " s",
                  a->health.failures, pause / 1000);
    }
    tell_willingness(a);
}

void agent_job_gone(struct agent *a)
{
    if (agent_leaves(a) && a->jobs == NULL && a->quiet == NULL) {
        session_leave(&a->session, a->leaving ? "stopped" : "sent away");
    }
}

static void look_at_disk(struct agent *a)
{
    uint64_t free_bytes, total_bytes;
    if (os_disk_free(a->jobs_dir, &free_bytes, &total_bytes) < 0) {
        return;
    }
    a->health.disk_free_bytes = free_bytes;
    bool low = free_bytes / MIB < a->config->min_free_mb;
    if (low != a->health.disk_low) {
        a->health.disk_low = low;
        log_warn("%" PRIu64 " MiB free on disk: %s", free_bytes / MIB,
                 low ? "taking no work" : "taking work again");
    }
}

/* Nobody lets it in any more. */
static void end_expired(struct agent *a)
{
    uint64_t until_ms = a->config->identity->facts.until_ms;
    if (os_realtime_ms() >= until_ms) {
        log_error("the certificate of this worker has expired: let it join again");
        a->exit_code = err_exit_code(-E_UNAUTHORIZED);
        loop_stop(a->loop);
    }
}

static void tend_certificate(struct agent *a)
{
    if (a->tls != NULL && session_is_open(&a->session)) {
        renewal_look(&a->renewal, a->config->identity, &a->session);
    } else if (a->tls != NULL) {
        end_expired(a);
    }
}

static void on_tick(void *ctx)
{
    struct agent *a = ctx;
    struct held *h, *next;
    loop_timer_set(a->loop, &a->tick_timer, os_monotonic_ms() + TICK_MS, on_tick, a);
    notify_alive();
    look_at_disk(a);
    tell_willingness(a);
    tend_certificate(a);
    DL_FOREACH_SAFE (a->jobs, h, next) {
        h->fresh_output = true;
        held_look(h);
    }
    held_tell_quiet(a);
    agent_pump(a);
}

/* By a program of its own: the Engine may take its time. */
static void on_sweep(void *ctx)
{
    struct agent *a = ctx;
    const char *argv[] = {a->step_program, "sweep", a->config->state, NULL};
    struct os_spawn spawn = {
        .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1, .new_session = true};
    pid_t pid;
    int r = os_spawn(&spawn, &pid);
    if (r < 0) {
        log_warn("cannot look for what is left of earlier jobs: %s", err_text(r));
    }
    loop_timer_set(a->loop, &a->sweep_timer, os_monotonic_ms() + SWEEP_MS, on_sweep, a);
}

/* Ends the process once no job is left. */
static void leave(struct agent *a)
{
    struct held *h, *next;
    tell_willingness(a);
    DL_FOREACH_SAFE (a->jobs, h, next) {
        if (h->phase == HELD_WAITING) {
            held_give_back(h);
        }
    }
    DL_FOREACH_SAFE (a->quiet, h, next) { /* whoever gets it begins anew: that does no harm */
        held_return_action(h);
    }
    agent_job_gone(a);
}

void agent_send_away(struct agent *a)
{
    if (!agent_leaves(a)) {
        log_info("the broker sends this worker away: leaving once the jobs in hand have ended");
    }
    a->sent_away = true;
    leave(a);
}

static void on_signal(void *ctx, int number)
{
    struct agent *a = ctx;
    if (number == SIGHUP) {
        return;
    }
    if (!a->leaving) {
        log_info("leaving once the jobs in hand have ended; a second signal leaves at once");
        a->leaving = true;
        notify_stopping();
        leave(a);
        return;
    }
    log_info("leaving at once; %zu jobs run on", agent_slots_taken(a));
    loop_stop(a->loop);
}

struct held_list {
    struct arena *arena;
    Pb__HeldJob **items;
    size_t count;
    size_t max;
};

static void list_add(struct held_list *list, const struct held *first)
{
    const struct held *h;
    DL_FOREACH (first, h) {
        if (held_is_listed(h) && list->count < list->max) {
            Pb__HeldJob *item = arena_alloc(list->arena, sizeof(*item));
            held_to_wire(h, list->arena, item);
            list->items[list->count++] = item;
        }
    }
}

static Pb__HeldJob **list_jobs(const struct agent *a, struct arena *arena, size_t *ret_count)
{
    struct held_list list = {.arena = arena, .max = agent_actions_taken(a) + LIMIT_HELD_JOBS};
    list.max = MIN(list.max, LIMIT_HELD_LIST);
    list.items = arena_array(arena, list.max, sizeof(Pb__HeldJob *));
    list_add(&list, a->jobs);
    list_add(&list, a->quiet);
    *ret_count = list.count;
    return list.items;
}

static void fill_executors(const struct agent *a, Pb__WorkerHello *w)
{
    const struct worker_config *c = a->config;
    w->executors = c->executors.names;
    w->n_executors = c->executors.count;
    if (a->actions != NULL) {
        w->actions = (uint32_t)c->actions;
        w->executors = a->executors;
        w->n_executors = a->executor_count;
    }
}

static void fill_worker(const struct agent *a, Pb__WorkerHello *w)
{
    const struct worker_config *c = a->config;
    pb__worker_hello__init(w);
    w->uid = pb_bytes_ref(str_of(a->uid, sizeof(a->uid)));
    w->name = c->name;
    w->pool = c->pool != NULL ? c->pool : w->pool;
    fill_executors(a, w);
    w->tags = c->tags.names;
    w->n_tags = c->tags.count;
    w->slots = (uint32_t)c->slots;
    w->run_untagged = c->run_untagged;
    w->version = (char *)(uintptr_t)DAVIT_VERSION;
    w->host = a->host;
    w->cpu_millis = a->cpu_millis;
    w->memory_bytes = a->memory_bytes;
    w->disk_bytes = a->disk_bytes;
}

static void fill_hello(void *ctx, struct arena *arena, Pb__Hello *hello)
{
    struct agent *a = ctx;
    struct buf token = BUF_INIT;
    int r = a->config->token_file != NULL ? os_read_file(a->config->token_file, TOKEN_MAX, &token)
                                          : 0; /* the certificate stands for it */
    if (r < 0) {
        log_error("cannot read the token in %s: %s", a->config->token_file, err_text(r));
    }
    hello->token = pb_bytes(arena, str_trim(buf_str(&token)));
    buf_release(&token);
    hello->worker = arena_alloc(arena, sizeof(*hello->worker));
    fill_worker(a, hello->worker);
    hello->jobs = list_jobs(a, arena, &hello->n_jobs);
}

static void fill_heartbeat(void *ctx, struct arena *arena, Pb__Heartbeat *beat)
{
    struct agent *a = ctx;
    const char *refuses = agent_refuses_work(a);
    beat->no_list = !a->list_wanted && agent_actions_taken(a) >= MANY_ACTIONS &&
                    beat->sent_ms < a->list_sent_ms + a->session.heartbeat_ms;
    if (!beat->no_list) {
        beat->jobs = list_jobs(a, arena, &beat->n_jobs);
        a->list_sent_ms = beat->sent_ms;
        a->list_wanted = false;
    }
    beat->draining = agent_leaves(a) || a->drained || health_paused(&a->health, os_monotonic_ms());
    beat->disk_low = a->health.disk_low;
    beat->refuses = (char *)(uintptr_t)(refuses != NULL ? refuses : "");
    beat->wall_ms = os_realtime_ms();
    beat->disk_free_bytes = a->health.disk_free_bytes;
}

static void on_opened(void *ctx)
{
    struct agent *a = ctx;
    struct held *h;
    DL_FOREACH (a->jobs, h) {
        held_session_opened(h);
    }
    DL_FOREACH (a->quiet, h) {
        held_session_opened(h);
    }
    a->drained = a->sent_away = false; /* it says so again if it still wants it */
    a->was_taking_work = agent_refuses_work(a) == NULL;
    if (!a->was_taking_work) {
        agent_beat(a); /* Hello has no word for it */
    }
    agent_pump(a);
}

static void on_closed(void *ctx)
{
    struct agent *a = ctx;
    renewal_drop(&a->renewal);
    struct held *h;
    DL_FOREACH (a->jobs, h) {
        held_session_closed(h);
    }
    DL_FOREACH (a->quiet, h) {
        held_session_closed(h);
    }
}

static void on_message(void *ctx, const Pb__Envelope *e)
{
    agent_take_message(ctx, e);
}

static void on_acked(void *ctx)
{
    struct agent *a = ctx;
    struct held *h, *next;
    DL_FOREACH_SAFE (a->jobs, h, next) {
        held_acked(h);
    }
}

static void on_refused(void *ctx, const Pb__Refused *refused)
{
    struct agent *a = ctx;
    log_error("the broker refuses this worker: %s: %s", refused->code, refused->text);
    a->exit_code = err_exit_code(err_from_code(refused->code));
    loop_stop(a->loop);
}

static void on_left(void *ctx)
{
    struct agent *a = ctx;
    log_info("left");
    loop_stop(a->loop);
}

static bool in_a_hurry(void *ctx)
{
    const struct agent *a = ctx;
    return a->jobs != NULL || a->quiet != NULL;
}

static const struct session_user session_user = {
    .fill_hello = fill_hello,
    .fill_heartbeat = fill_heartbeat,
    .opened = on_opened,
    .closed = on_closed,
    .message = on_message,
    .acked = on_acked,
    .room = on_pump,
    .refused = on_refused,
    .left = on_left,
    .in_a_hurry = in_a_hurry,
};

int agent_run(struct agent *a)
{
    on_tick(a);
    if (a->engine != NULL) {
        on_sweep(a);
    }
    notify_ready("takes jobs"); /* whether the broker is there or not */
    session_start(&a->session);
    loop_run(a->loop);
    return a->exit_code;
}

/* What init makes is in agent_init.c. */
struct loop *agent_loop_new(struct agent *a)
{
    struct loop *loop = NULL;
    if (loop_new(on_signal, a, &loop) == 0) {
        session_init(&a->session, loop, a->config->broker, &session_user, a);
    }
    return loop;
}
