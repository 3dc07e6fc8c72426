#include "common/base.h"

#include <stdlib.h>
#include <unistd.h>

#include "broker/core/query.h"
#include "broker/post.h"
#include "broker/turn_state.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/os.h"

/* The turn's life: start, thread or steps, end; and how posts come in. */

#define POST_MIN_BYTES (16 * KIB) /* what an arena takes at least */

void turn_read_clocks(const struct turn *t, uint64_t *ret_real_ms, uint64_t *ret_mono_ms)
{
    if (t->c.clock != NULL) {
        t->c.clock(t->c.ctx, ret_real_ms, ret_mono_ms);
        return;
    }
    *ret_real_ms = os_realtime_ms();
    *ret_mono_ms = os_monotonic_ms();
}

void turn_free_items(struct item *items)
{
    while (items != NULL) {
        struct item *next = items->next;
        fleet_drop_item(items);
        free(items);
        items = next;
    }
}

void turn_start_triggers(struct turn *t, const struct effects *fx)
{
    for (size_t i = 0; i < fx->count && t->c.trigger.start != NULL; i++) {
        const struct effect *e = &fx->items[i];
        if (e->kind == EFFECT_TRIGGER) {
            t->c.trigger.start(t->c.trigger.ctx, e->job_id, e->epoch);
        }
    }
}

NORETURN static void die(int r)
{
    log_error("turn: the store cannot be written: %s; ending, nothing acknowledged is lost",
              err_text(r));
    _exit(err_exit_code(r));
}

static void refuse_items(struct item *items)
{
    for (struct item *i = items; i != NULL; i = i->next) {
        if (i->kind == ITEM_POST && i->post != NULL) {
            post_done(i->post, -E_SHUTDOWN);
            i->post = NULL;
        }
    }
    turn_free_items(items);
}

static void refuse_rest(struct turn *t)
{
    bool resume;
    struct item *items;

    while ((items = inbox_take(t->c.inbox, LIMIT_INBOX, 0, &resume)) != NULL) {
        refuse_items(items);
    }
}

static void *turn_main(void *arg)
{
    struct turn *t = arg;

    pthread_setname_np(pthread_self(), "turn");
    while (!inbox_stopped(t->c.inbox)) {
        bool resume;
        struct item *items = inbox_take(t->c.inbox, LIMIT_TURN_COMMANDS, turn_wait_until_ms(t),
                                        &resume);
        int r = turn_round(t, items, resume);
        if (r < 0) {
            die(r);
        }
    }
    refuse_rest(t);
    turn_end_commits(t);
    return NULL;
}

int turn_step(struct turn *t)
{
    bool resume;

    check(!t->has_thread && !t->stopped);
    struct item *items = inbox_take(t->c.inbox, LIMIT_TURN_COMMANDS, 0, &resume);
    int r = turn_round(t, items, resume);
    if (r < 0) {
        refuse_items(items);
    }
    return r;
}

uint64_t turn_next_step_ms(const struct turn *t)
{
    return turn_wait_until_ms(t);
}

/* Time in the store must not go back either: it goes on from the newest command. */
static uint64_t newest_command_ms(struct tx *tx)
{
    const Pb__MetaRecord *meta = meta_get(tx);

    return meta != NULL ? meta->time_ms : 0;
}

/* What was acknowledged may be missing where durability was relaxed, and where there is a store
 * but no journal: a backup that was put back. */
static void prepare_start(struct turn *t, struct tx *tx)
{
    const Pb__MetaRecord *meta = meta_get(tx);
    const bool was_relaxed = meta != NULL && meta->relaxed;
    const bool relaxed = t->c.relaxed_ms != 0;

    t->skip = meta != NULL && (was_relaxed || t->journal_new) ? LIMIT_IDS_SKIPPED : 0;
    t->starting = t->skip > 0 || was_relaxed != relaxed;
}

static int recover(struct turn *t)
{
    uint64_t real_ms;
    struct tx *tx;
    int r = tx_begin(t->c.store, false, &tx);

    if (r < 0) {
        return r;
    }
    turn_read_clocks(t, &real_ms, &t->mono_ms);
    uint64_t stored_ms = newest_command_ms(tx);
    t->now_ms = MAX(real_ms, stored_ms);
    prepare_start(t, tx);
    t->timers_from_ms = fleet_recover(t->c.fleet, tx, t->now_ms, t->mono_ms);
    core_recover_triggers(tx, &t->fx);
    t->resuming = tx_count(tx, T_ROLLOUT_LIVE) > 0;
    r = tx_error(tx);
    tx_abort(tx);
    if (r == 0) {
        turn_start_triggers(t, &t->fx);
    }
    return r;
}

int turn_new(const struct turn_config *config, struct turn **ret, struct buf *why)
{
    struct turn *t = xcalloc(1, sizeof(*t));

    t->c = *config;
    t->schedule = true;
    t->stats.relaxed_ms = config->relaxed_ms;
    atomic_init(&t->wanted_keep_ms, config->keep_pipelines_ms);
    t->sched = sched_new();
    check(pthread_mutex_init(&t->lock, NULL) == 0);
    check(pthread_cond_init(&t->told, NULL) == 0);
    effects_init(&t->fx);
    int r = t->c.journal != NULL ? turn_open_journal(t, why) : 0;
    if (r == 0) {
        r = recover(t);
        if (r < 0) {
            buf_addf(why, "cannot read the store: %s", err_text(r));
        }
    }
    if (r < 0) {
        turn_free(t);
        return r;
    }
    t->stats.alive_ms = t->mono_ms;
    *ret = t;
    return 0;
}

int turn_start(const struct turn_config *config, struct turn **ret, struct buf *why)
{
    struct turn *t;
    int r = turn_new(config, &t, why);

    if (r < 0) {
        return r;
    }
    if (pthread_create(&t->thread, NULL, turn_main, t) != 0) {
        buf_addz(why, "cannot start the thread of the turn");
        turn_free(t);
        return -E_INTERNAL;
    }
    t->has_thread = true;
    *ret = t;
    return 0;
}

void turn_stop(struct turn *t)
{
    if (t->stopped) {
        return;
    }
    inbox_stop(t->c.inbox);
    if (t->has_thread) {
        pthread_join(t->thread, NULL);
    } else {
        refuse_rest(t);
        turn_end_commits(t);
    }
    t->stopped = true;
}

void turn_free(struct turn *t)
{
    if (t == NULL) {
        return;
    }
    check(t->stopped || !t->has_thread);
    refuse_rest(t); /* what the fleet and the log writer said while they were closed */
    tx_abort(t->tx);
    journal_close(t->journal);
    sched_free(t->sched);
    turn_forget_history(t);
    turn_forget_times(t);
    effects_release(&t->fx);
    pthread_cond_destroy(&t->told);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

void turn_keep_pipelines(struct turn *t, uint64_t keep_pipelines_ms)
{
    atomic_store(&t->wanted_keep_ms, keep_pipelines_ms);
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
