#include "common/base.h"

#include "broker/turn_run.h"

#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "broker/core/query.h"
#include "broker/post.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/os.h"

#define CHORES_MS        1000u  /* the longest wait, and how often the store's fill is looked at */
#define READERS_MS       60000u /* how often slots of dead readers are cleared */
#define REST_MS          1000u  /* after a failed commit, timers and scheduling rest so long */
#define POST_MIN_BYTES   (16 * KIB) /* what an arena takes at least */
#define TURN_ASSIGNMENTS 4096u      /* in one transaction; the rest waits for the next */

struct turn {
    struct turn_config c;
    pthread_t thread;
    bool joined;

    /* The present turn; the turn's thread alone. */
    struct tx *tx;
    struct effects fx;
    uint64_t now_ms; /* the commands' time: never goes back */
    uint64_t mono_ms;

    uint64_t next_timer_ms;  /* realtime; UINT64_MAX: none */
    uint64_t timers_from_ms; /* no timer fires before: after a start holders come back first */
    uint64_t next_event;
    uint64_t published_event;
    uint64_t rest_until_ms;
    uint64_t next_chores_ms;
    uint64_t next_readers_ms;
    bool full;     /* new work is refused */
    bool schedule; /* something may fit that did not the last time */

    pthread_mutex_t lock; /* of stats */
    struct turn_stats stats;
};

/* The only place that asks for the time. A clock that was set back must neither stop time nor turn
 * it: until the clock has caught up, time goes on at half its speed. */
static void read_clock(struct turn *t)
{
    uint64_t real_ms = os_realtime_ms();
    uint64_t mono_ms = os_monotonic_ms();
    uint64_t elapsed_ms = mono_ms - t->mono_ms;

    t->now_ms = real_ms >= t->now_ms ? real_ms : t->now_ms + (elapsed_ms + 1) / 2;
    t->mono_ms = mono_ms;
}

static int apply(void *ctx, Pb__Command *cmd, struct reply *ret_reply)
{
    struct turn *t = ctx;
    uint64_t changes = tx_changes(t->tx);
    size_t mark = t->fx.count;

    cmd->version = COMMAND_VERSION;
    cmd->time_ms = t->now_ms;
    memset(ret_reply, 0, sizeof(*ret_reply));
    int r = core_apply(t->tx, cmd, &t->fx, ret_reply);
    if (r < 0) {
        check(!tx_ok(t->tx) || tx_changes(t->tx) == changes);
        effects_truncate(&t->fx, mark);
    }
    pthread_mutex_lock(&t->lock);
    t->stats.commands++;
    t->stats.rejected += r < 0;
    t->stats.assignments += r == 0 && cmd->body_case == PB__COMMAND__BODY_ASSIGN;
    pthread_mutex_unlock(&t->lock);
    return r;
}

static bool adds_work(const Pb__Command *cmd)
{
    return cmd->body_case == PB__COMMAND__BODY_PIPELINE_CREATE ||
           cmd->body_case == PB__COMMAND__BODY_PIPELINE_RETRY ||
           cmd->body_case == PB__COMMAND__BODY_PROJECT_CREATE ||
           cmd->body_case == PB__COMMAND__BODY_JOB_RETRY;
}

static void apply_post(struct turn *t, struct post *p)
{
    if (t->full && adds_work(&p->command)) {
        memset(&p->reply, 0, sizeof(p->reply));
        p->r = -E_FULL;
        return;
    }
    p->r = apply(t, &p->command, &p->reply);
}

static void apply_items(struct turn *t, struct item *items)
{
    for (struct item *i = items; i != NULL; i = i->next) {
        if (i->kind != ITEM_POST) {
            fleet_item(t->c.fleet, i);
        } else if (tx_ok(t->tx)) {
            apply_post(t, i->post);
        }
    }
}

static void rest(struct turn *t)
{
    t->rest_until_ms = t->mono_ms + REST_MS;
}

static void apply_timers(struct turn *t)
{
    Pb__TimerFired fired;

    if (t->mono_ms < t->timers_from_ms) {
        return;
    }
    for (size_t n = 0; n < LIMIT_TURN_COMMANDS && tx_ok(t->tx); n++) {
        if (!core_due_timer(t->tx, t->now_ms, &fired)) {
            return;
        }
        Pb__Command cmd = PB__COMMAND__INIT;
        struct reply reply;
        cmd.actor = (char *)"timer";
        cmd.body_case = PB__COMMAND__BODY_TIMER_FIRED;
        cmd.timer_fired = &fired;
        int r = apply(t, &cmd, &reply);
        if (r < 0) {
            log_error("turn: timer %" PRIu64 " was refused: %s", fired.timer_id, err_text(r));
            rest(t); /* it stays due: do not spin on it */
            return;
        }
    }
}

static size_t apply_proposals(struct turn *t, const struct sched_proposal *p, size_t count)
{
    size_t applied = 0;

    for (size_t i = 0; i < count && tx_ok(t->tx); i++) {
        Pb__Command cmd = PB__COMMAND__INIT;
        Pb__Assign assign = PB__ASSIGN__INIT;
        struct reply reply;
        assign.job_id = p[i].job_id;
        assign.worker_id = p[i].worker_id;
        cmd.actor = (char *)"scheduler";
        cmd.body_case = PB__COMMAND__BODY_ASSIGN;
        cmd.assign = &assign;
        int r = apply(t, &cmd, &reply);
        if (r == 0) {
            applied++;
        } else {
            log_warn("turn: job %" PRIu64 " cannot go to worker %" PRIu64 ": %s", p[i].job_id,
                     p[i].worker_id, err_text(r));
        }
    }
    return applied;
}

static void schedule(struct turn *t)
{
    struct sched_proposal proposals[256];
    struct sched_worker *workers;
    size_t total = 0;

    t->schedule = false;
    if (tx_count(t->tx, T_READY) == 0) {
        return;
    }
    size_t count = fleet_candidates(t->c.fleet, &t->fx, &workers);
    while (count > 0 && tx_ok(t->tx)) {
        size_t n = sched_propose(t->tx, workers, count, proposals, ARRAY_LEN(proposals));
        size_t applied = apply_proposals(t, proposals, n);
        total += applied;
        if (applied == 0) {
            return;
        }
        if (total >= TURN_ASSIGNMENTS) {
            t->schedule = true;
            return;
        }
    }
}

static void begin_fleet(struct turn *t)
{
    struct fleet_turn ft = {
        .tx = t->tx,
        .now_ms = t->now_ms,
        .mono_ms = t->mono_ms,
        .apply = apply,
        .ctx = t,
    };
    fleet_begin(t->c.fleet, &ft);
}

/* What is known of the store is taken from the transaction before it ends: nobody else writes. */
static void look_ahead(struct turn *t)
{
    const Pb__MetaRecord *meta = meta_get(t->tx);

    t->next_timer_ms = core_next_due_ms(t->tx);
    t->next_event = meta != NULL ? meta->next_event : 0;
}

static int finish(struct turn *t)
{
    struct tx *tx = t->tx;
    int r = tx_error(tx);

    t->tx = NULL;
    if (r < 0 || tx_changes(tx) == 0) {
        tx_abort(tx);
        return r;
    }
    uint64_t start_us = os_monotonic_us();
    r = tx_commit(tx);
    uint64_t took_us = os_monotonic_us() - start_us;
    if (r == 0) {
        pthread_mutex_lock(&t->lock);
        t->stats.turns++;
        t->stats.commit_us_sum += took_us;
        t->stats.commit_us_max = MAX(t->stats.commit_us_max, took_us);
        pthread_mutex_unlock(&t->lock);
    }
    return r;
}

/* Everything that waits, in one transaction. 0, or an error with nothing changed in the store. */
static int transact(struct turn *t, struct item *items)
{
    effects_clear(&t->fx);
    int r = tx_begin(t->c.store, true, &t->tx);
    if (r < 0) {
        return r;
    }
    begin_fleet(t);
    apply_items(t, items);
    if (t->mono_ms >= t->rest_until_ms) {
        apply_timers(t);
        fleet_tick(t->c.fleet);
        if (fleet_take_capacity_change(t->c.fleet) || tx_changes(t->tx) > 0 || t->schedule) {
            schedule(t);
        }
    }
    if (tx_ok(t->tx)) {
        look_ahead(t);
    }
    return finish(t);
}

static void free_items(struct item *items)
{
    while (items != NULL) {
        struct item *next = items->next;
        fleet_drop_item(items);
        free(items);
        items = next;
    }
}

static void start_triggers(struct turn *t, const struct effects *fx)
{
    for (size_t i = 0; i < fx->count && t->c.trigger.start != NULL; i++) {
        const struct effect *e = &fx->items[i];
        if (e->kind == EFFECT_TRIGGER) {
            t->c.trigger.start(t->c.trigger.ctx, e->job_id, e->epoch);
        }
    }
}

static void release_effects(struct turn *t)
{
    struct tx *tx = NULL;

    start_triggers(t, &t->fx);
    if (t->fx.count > 0) {
        int r = tx_begin(t->c.store, false, &tx);
        if (r < 0) {
            /* Every effect can be derived again: the workers' next Hello does it. */
            log_error("turn: no read transaction for %zu effects: %s", t->fx.count, err_text(r));
            fleet_failed(t->c.fleet);
            return;
        }
        fleet_committed(t->c.fleet, tx, &t->fx);
        tx_abort(tx);
    }
    fleet_flush(t->c.fleet, t->now_ms, t->mono_ms);
}

static void release(struct turn *t, struct item *items)
{
    for (struct item *i = items; i != NULL; i = i->next) {
        if (i->kind == ITEM_POST) {
            post_done(i->post, i->post->r);
            i->post = NULL;
        }
    }
    release_effects(t);
    if (t->next_event != t->published_event) {
        t->published_event = t->next_event;
        bus_publish(t->c.bus, BUS_EVENTS, t->next_event - 1);
    }
}

NORETURN static void die(int r)
{
    log_error("turn: the store cannot be written: %s; ending, nothing acknowledged is lost",
              err_text(r));
    _exit(err_exit_code(r));
}

static bool survivable(int r)
{
    return r == -E_FULL || r == -E_NO_SPACE || r == -E_CORRUPT || r == -E_TOO_BIG;
}

/* That bytes of a log are on the disk has nothing to do with the commit, and nobody says it twice.
 */
static void acknowledge_logs(struct turn *t, struct item *items)
{
    if (tx_begin(t->c.store, false, &t->tx) < 0) {
        return;
    }
    begin_fleet(t);
    for (struct item *i = items; i != NULL; i = i->next) {
        if (i->kind == ITEM_LOG) {
            fleet_item(t->c.fleet, i);
        }
    }
    tx_abort(t->tx);
    t->tx = NULL;
    fleet_flush(t->c.fleet, t->now_ms, t->mono_ms);
}

/* The batch could not be written as a whole: the posts get a transaction each, so that one that is
 * too big does not stand for all; what the workers said is dropped with their sessions, and they
 * will say it again. */
static void retry_singly(struct turn *t, struct item *items, int why)
{
    log_error("turn: a batch was undone: %s", err_text(why));
    fleet_failed(t->c.fleet);
    acknowledge_logs(t, items);
    rest(t);
    t->schedule = true;
    for (struct item *i = items; i != NULL; i = i->next) {
        if (i->kind != ITEM_POST) {
            continue;
        }
        effects_clear(&t->fx);
        int r = tx_begin(t->c.store, true, &t->tx);
        if (r == 0) {
            begin_fleet(t);
            apply_post(t, i->post);
            if (tx_ok(t->tx)) {
                look_ahead(t);
            }
            r = finish(t);
        }
        if (r < 0 && !survivable(r)) {
            die(r);
        }
        post_done(i->post, r < 0 ? r : i->post->r);
        i->post = NULL;
        if (r == 0) {
            release_effects(t);
        }
    }
}

static void chores(struct turn *t)
{
    struct store_stat st;

    if (t->mono_ms < t->next_chores_ms) {
        return;
    }
    t->next_chores_ms = t->mono_ms + CHORES_MS;
    store_stat(t->c.store, &st);
    if (st.full != t->full) {
        t->full = st.full;
        log_error(st.full ? "turn: the store is nearly full: new work is refused"
                          : "turn: the store has room again");
    }
    if (t->mono_ms >= t->next_readers_ms) {
        t->next_readers_ms = t->mono_ms + READERS_MS;
        int r = store_check_readers(t->c.store);
        if (r < 0) {
            log_warn("turn: readers of the store not checked: %s", err_text(r));
        }
    }
}

/* When the next timer may fire, by the monotonic clock; UINT64_MAX: there is none. */
static uint64_t timer_due_ms(const struct turn *t)
{
    if (t->next_timer_ms == UINT64_MAX) {
        return UINT64_MAX;
    }
    const uint64_t wait_ms = t->next_timer_ms > t->now_ms ? t->next_timer_ms - t->now_ms : 0;
    return MAX(t->mono_ms + wait_ms, t->timers_from_ms);
}

static uint64_t wait_until_ms(const struct turn *t)
{
    const uint64_t fleet_ms = fleet_next_due_ms(t->c.fleet);
    const uint64_t timer_ms = timer_due_ms(t);
    const uint64_t due_ms = t->schedule ? t->mono_ms : MIN(fleet_ms, timer_ms);

    return MIN(MAX(due_ms, t->rest_until_ms), t->mono_ms + CHORES_MS);
}

static bool due(const struct turn *t)
{
    return t->mono_ms >= t->rest_until_ms &&
           (timer_due_ms(t) <= t->mono_ms || t->schedule || fleet_due(t->c.fleet, t->mono_ms));
}

static void turn_once(struct turn *t)
{
    bool resume;
    struct item *items = inbox_take(t->c.inbox, LIMIT_TURN_COMMANDS, wait_until_ms(t), &resume);

    read_clock(t);
    fleet_awake(t->c.fleet, t->mono_ms);
    if (resume) {
        fleet_resume(t->c.fleet);
    }
    chores(t);
    if (items != NULL || due(t)) {
        int r = transact(t, items);
        if (r == 0) {
            release(t, items);
        } else if (survivable(r)) {
            retry_singly(t, items, r);
        } else {
            die(r);
        }
        free_items(items);
    }
    pthread_mutex_lock(&t->lock);
    t->stats.alive_ms = os_monotonic_ms();
    pthread_mutex_unlock(&t->lock);
    if (t->c.alive != NULL) {
        t->c.alive(t->c.ctx);
    }
}

static void refuse_rest(struct turn *t)
{
    bool resume;
    struct item *items;

    while ((items = inbox_take(t->c.inbox, LIMIT_INBOX, 0, &resume)) != NULL) {
        for (struct item *i = items; i != NULL; i = i->next) {
            if (i->kind == ITEM_POST) {
                post_done(i->post, -E_SHUTDOWN);
                i->post = NULL;
            }
        }
        free_items(items);
    }
}

static void *turn_main(void *arg)
{
    struct turn *t = arg;

    pthread_setname_np(pthread_self(), "turn");
    while (!inbox_stopped(t->c.inbox)) {
        turn_once(t);
    }
    refuse_rest(t);
    return NULL;
}

/* Time in the store must not go back either: it goes on from the newest event. */
static uint64_t newest_event_ms(struct tx *tx)
{
    struct cursor c;
    uint64_t time_ms = 0;

    tx_seek_last(&c, tx, T_EVENT, STR_NULL);
    if (c.valid) {
        struct key key = key_u64(key_read_u64(c.key, 0));
        const Pb__EventRecord *e = (const Pb__EventRecord *)tx_get_msg(
            tx, T_EVENT, &key, &pb__event_record__descriptor);
        time_ms = e != NULL ? e->time_ms : 0;
    }
    cursor_end(&c);
    return time_ms;
}

static int recover(struct turn *t)
{
    struct tx *tx;
    int r = tx_begin(t->c.store, false, &tx);

    if (r < 0) {
        return r;
    }
    t->mono_ms = os_monotonic_ms();
    uint64_t real_ms = os_realtime_ms();
    uint64_t event_ms = newest_event_ms(tx);
    t->now_ms = MAX(real_ms, event_ms);
    t->timers_from_ms = fleet_recover(t->c.fleet, tx, t->now_ms, t->mono_ms);
    core_recover_triggers(tx, &t->fx);
    r = tx_error(tx);
    tx_abort(tx);
    if (r == 0) {
        start_triggers(t, &t->fx);
    }
    return r;
}

int turn_start(const struct turn_config *config, struct turn **ret)
{
    struct turn *t = xcalloc(1, sizeof(*t));

    t->c = *config;
    t->schedule = true;
    t->stats.alive_ms = os_monotonic_ms();
    check(pthread_mutex_init(&t->lock, NULL) == 0);
    effects_init(&t->fx);
    int r = recover(t);
    if (r == 0 && pthread_create(&t->thread, NULL, turn_main, t) != 0) {
        r = -E_INTERNAL;
    }
    if (r < 0) {
        effects_release(&t->fx);
        pthread_mutex_destroy(&t->lock);
        free(t);
        return r;
    }
    *ret = t;
    return 0;
}

void turn_stop(struct turn *t)
{
    if (t->joined) {
        return;
    }
    inbox_stop(t->c.inbox);
    pthread_join(t->thread, NULL);
    t->joined = true;
}

void turn_free(struct turn *t)
{
    if (t == NULL) {
        return;
    }
    check(t->joined);
    refuse_rest(t); /* what the fleet and the log writer said while they were closed */
    effects_release(&t->fx);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

int turn_submit(struct turn *t, struct post *p, turn_done_fn done, void *ctx)
{
    struct item *item = item_new(ITEM_POST);

    p->done = done;
    p->ctx = ctx;
    item->post = p;
    item->bytes = MAX(p->arena.used, POST_MIN_BYTES);
    int r = inbox_push_post(t->c.inbox, item);
    if (r < 0) {
        post_free(p);
        free(item);
    }
    return r;
}

struct call {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool done;
    int r;
    struct reply reply;
};

static void call_done(void *ctx, int r, const struct reply *reply)
{
    struct call *c = ctx;

    pthread_mutex_lock(&c->lock);
    c->r = r;
    c->reply = *reply;
    c->done = true;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
}

int turn_call(struct turn *t, struct post *p, struct reply *ret_reply)
{
    struct call c = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};
    int r = turn_submit(t, p, call_done, &c);

    if (r < 0) {
        return r;
    }
    pthread_mutex_lock(&c.lock);
    while (!c.done) {
        pthread_cond_wait(&c.wake, &c.lock);
    }
    pthread_mutex_unlock(&c.lock);
    *ret_reply = c.reply;
    return c.r;
}

void turn_get_stats(struct turn *t, struct turn_stats *ret)
{
    pthread_mutex_lock(&t->lock);
    *ret = t->stats;
    pthread_mutex_unlock(&t->lock);
    ret->inbox = inbox_count(t->c.inbox);
}
