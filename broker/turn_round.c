#include "common/base.h"

#include "broker/core/query.h"
#include "broker/post.h"
#include "broker/turn_state.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/os.h"

/* One round: everything that waits in one transaction, and what happens after its commit. */

#define CHORES_MS  1000u  /* the longest wait, and how often the store's fill is looked at */
#define READERS_MS 60000u /* how often slots of dead readers are cleared */

static void begin_fleet(struct turn *t)
{
    struct fleet_turn ft = {
        .tx = t->tx,
        .now_ms = t->now_ms,
        .mono_ms = t->mono_ms,
        .apply = turn_apply,
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
    turn_apply_items(t, items);
    if (t->mono_ms >= t->rest_until_ms) {
        turn_apply_timers(t);
        fleet_tick(t->c.fleet);
        if (fleet_take_capacity_change(t->c.fleet) || tx_changes(t->tx) > 0 || t->schedule) {
            turn_schedule(t);
        }
    }
    if (tx_ok(t->tx)) {
        look_ahead(t);
    }
    return finish(t);
}

static void release_effects(struct turn *t)
{
    struct tx *tx = NULL;

    turn_start_triggers(t, &t->fx);
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
 * will say it again. 0, or an error that the process does not survive. */
static int retry_singly(struct turn *t, struct item *items, int why)
{
    log_error("turn: a batch was undone: %s", err_text(why));
    fleet_failed(t->c.fleet);
    acknowledge_logs(t, items);
    turn_rest(t);
    t->schedule = true;
    for (struct item *i = items; i != NULL; i = i->next) {
        if (i->kind != ITEM_POST) {
            continue;
        }
        effects_clear(&t->fx);
        int r = tx_begin(t->c.store, true, &t->tx);
        if (r == 0) {
            begin_fleet(t);
            turn_apply_post(t, i->post);
            if (tx_ok(t->tx)) {
                look_ahead(t);
            }
            r = finish(t);
        }
        if (r < 0 && !survivable(r)) {
            return r;
        }
        post_done(i->post, r < 0 ? r : i->post->r);
        i->post = NULL;
        if (r == 0) {
            release_effects(t);
        }
    }
    return 0;
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

uint64_t turn_wait_until_ms(const struct turn *t)
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

/* A clock that was set back must neither stop time nor turn it: until the clock has caught up, time
 * goes on at half its speed. */
static void read_clock(struct turn *t)
{
    uint64_t real_ms;
    uint64_t mono_ms;

    turn_read_clocks(t, &real_ms, &mono_ms);
    const uint64_t elapsed_ms = mono_ms - t->mono_ms;
    t->now_ms = real_ms >= t->now_ms ? real_ms : t->now_ms + (elapsed_ms + 1) / 2;
    t->mono_ms = mono_ms;
}

static int work(struct turn *t, struct item *items)
{
    int r = transact(t, items);

    if (r == 0) {
        release(t, items);
    } else if (survivable(r)) {
        r = retry_singly(t, items, r);
    }
    return r;
}

int turn_round(struct turn *t, struct item *items, bool resume)
{
    uint64_t real_ms;
    uint64_t mono_ms;

    read_clock(t);
    fleet_awake(t->c.fleet, t->mono_ms);
    if (resume) {
        fleet_resume(t->c.fleet);
    }
    chores(t);
    if (items != NULL || due(t)) {
        int r = work(t, items);
        if (r < 0) {
            return r;
        }
        turn_free_items(items);
    }
    turn_read_clocks(t, &real_ms, &mono_ms);
    pthread_mutex_lock(&t->lock);
    t->stats.alive_ms = mono_ms;
    pthread_mutex_unlock(&t->lock);
    if (t->c.alive != NULL) {
        t->c.alive(t->c.ctx);
    }
    return 0;
}
