#include "common/base.h"

#include "broker/core/query.h"
#include "broker/core/rollout.h"
#include "broker/post.h"
#include "broker/turn_state.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/os.h"

/* One round: everything that waits in one transaction, and what happens after its commit. */

#define CHORES_MS  1000u  /* the longest wait, and how often the store's fill is looked at */
#define READERS_MS 60000u /* how often slots of dead readers are cleared */
#define JUMP_MS    2000u  /* a clock that is set forward by less does no harm */

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
    t->next_timer_ms = core_next_due_ms(t->tx);
    t->next_rollout_ms = core_next_rollout_ms(t->tx);
}

static void clear_effects(struct turn *t)
{
    effects_clear(&t->fx);
    t->learned_effects = 0;
    t->learned_changes = 0;
}

/* Whether the store knows now of the start: what was undone is to be said again. */
static void start_settled(struct turn *t, int r)
{
    t->starting = t->starting && !(r == 0 && t->starts);
    t->starts = false;
    t->resuming = t->resuming && !(r == 0 && t->resumes);
    t->resumes = false;
}

/* Everything that waits, in one transaction. 0, or an error with nothing changed in the store. */
static int transact(struct turn *t, struct item *items)
{
    clear_effects(t);
    int r = turn_open(t);
    if (r < 0) {
        return r;
    }
    const uint64_t changes = tx_changes(t->tx);
    turn_apply_start(t);
    turn_apply_jump(t);
    turn_apply_resume(t);
    begin_fleet(t);
    turn_apply_items(t, items);
    if (t->mono_ms >= t->rest_until_ms) {
        turn_apply_timers(t);
        fleet_tick(t->c.fleet);
        turn_apply_rollouts(t);
        if (fleet_take_capacity_change(t->c.fleet) || t->index != t->mark || t->schedule ||
            turn_learns_anew(t)) {
            turn_schedule(t);
        }
        if (t->mono_ms >= t->next_expire_ms || tx_changes(t->tx) != changes) {
            turn_expire(t, items != NULL, tx_changes(t->tx) - changes);
        }
    }
    if (tx_ok(t->tx)) {
        look_ahead(t);
    }
    turn_learn(t);
    r = turn_settle(t);
    t->jump_ms = r == 0 ? 0 : t->jump_ms; /* what was undone is to be done again */
    start_settled(t, r);
    return r;
}

/* What the effects are about is read from the transaction that made them: it is still open. */
static void release_effects(struct turn *t)
{
    turn_start_triggers(t, &t->fx);
    if (t->fx.count > 0) {
        fleet_committed(t->c.fleet, t->tx, &t->fx);
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
}

/* That bytes of a log are on the disk has nothing to do with the commit, and nobody says it twice.
 */
static void acknowledge_logs(struct turn *t, struct item *items)
{
    if (turn_open(t) < 0) {
        return;
    }
    begin_fleet(t);
    for (struct item *i = items; i != NULL; i = i->next) {
        if (i->kind == ITEM_LOG) {
            fleet_item(t->c.fleet, i);
        }
    }
    fleet_flush(t->c.fleet, t->now_ms, t->mono_ms);
}

/* 0, or an error with the post's turn undone, if the process survives it. */
static int apply_alone(struct turn *t, struct post *p)
{
    clear_effects(t);
    int r = turn_open(t);
    if (r < 0) {
        return r;
    }
    turn_apply_start(t);
    begin_fleet(t);
    turn_apply_post(t, p);
    turn_learn(t);
    if (tx_ok(t->tx)) {
        look_ahead(t);
    }
    r = turn_settle_now(t);
    start_settled(t, r);
    if (r < 0 && turn_survives(r)) {
        int undone = turn_undo(t);
        r = undone < 0 ? undone : r;
    }
    return r;
}

/* The batch could not be written as a whole: the posts get a transaction each, so that one that is
 * too big does not stand for all; what the workers said is dropped with their sessions, and they
 * will say it again. 0, or an error that the process does not survive. */
static int retry_singly(struct turn *t, struct item *items, int why)
{
    log_error("turn: a batch was undone: %s", err_text(why));
    int r = turn_undo(t);
    if (r < 0) {
        return r;
    }
    fleet_failed(t->c.fleet);
    acknowledge_logs(t, items);
    turn_rest(t);
    t->schedule = true;
    for (struct item *i = items; i != NULL; i = i->next) {
        if (i->kind != ITEM_POST) {
            continue;
        }
        r = t->stuck ? why : apply_alone(t, i->post);
        if (r < 0 && !turn_survives(r)) {
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

/* Likewise for rollouts: what is known of the outside is not a holder's matter. */
static uint64_t rollout_due_ms(const struct turn *t)
{
    if (t->next_rollout_ms == UINT64_MAX) {
        return UINT64_MAX;
    }
    return t->mono_ms + (t->next_rollout_ms > t->now_ms ? t->next_rollout_ms - t->now_ms : 0);
}

uint64_t turn_wait_until_ms(const struct turn *t)
{
    const uint64_t fleet_ms = fleet_next_due_ms(t->c.fleet);
    const uint64_t timer_ms = MIN(timer_due_ms(t), rollout_due_ms(t));
    const uint64_t first_ms = MIN(MIN(fleet_ms, timer_ms), t->next_expire_ms);
    const uint64_t learn_ms = t->learn_anew_ms != 0 ? t->learn_anew_ms : UINT64_MAX;
    const uint64_t due_ms = t->schedule ? t->mono_ms : MIN(first_ms, learn_ms);
    const uint64_t round_ms = MIN(MAX(due_ms, t->rest_until_ms), turn_tend_due_ms(t));

    return MIN(round_ms, t->mono_ms + CHORES_MS);
}

static bool due(const struct turn *t)
{
    return t->mono_ms >= t->rest_until_ms &&
           (timer_due_ms(t) <= t->mono_ms || rollout_due_ms(t) <= t->mono_ms ||
            t->next_expire_ms <= t->mono_ms || t->schedule || turn_learns_anew(t) ||
            fleet_due(t->c.fleet, t->mono_ms));
}

/* A clock that was set back must neither stop time nor turn it: until the clock has caught up, time
 * goes on at half its speed. */
static void read_clock(struct turn *t)
{
    uint64_t real_ms;
    uint64_t mono_ms;

    turn_read_clocks(t, &real_ms, &mono_ms);
    const uint64_t elapsed_ms = mono_ms - t->mono_ms;
    if (real_ms > t->now_ms + elapsed_ms + JUMP_MS) {
        t->jump_ms += real_ms - t->now_ms - elapsed_ms;
        log_warn("turn: the clock was set forward by %" PRIu64 " s; jobs at work have their time",
                 (real_ms - t->now_ms - elapsed_ms) / 1000);
    }
    t->now_ms = real_ms >= t->now_ms ? real_ms : t->now_ms + (elapsed_ms + 1) / 2;
    t->mono_ms = mono_ms;
}

static void take_settings(struct turn *t)
{
    const uint64_t keep_ms = atomic_load(&t->wanted_keep_ms);

    if (keep_ms != t->c.keep_pipelines_ms) {
        t->c.keep_pipelines_ms = keep_ms;
        t->next_expire_ms = t->mono_ms;
    }
}

static int work(struct turn *t, struct item *items)
{
    int r = transact(t, items);

    if (r == 0) {
        release(t, items);
    } else if (turn_survives(r)) {
        r = retry_singly(t, items, r);
    }
    return r;
}

int turn_round(struct turn *t, struct item *items, bool resume)
{
    uint64_t real_ms;
    uint64_t mono_ms;

    read_clock(t);
    take_settings(t);
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
    }
    int r = turn_tend(t);
    if (r < 0) {
        return r;
    }
    turn_free_items(items);
    turn_read_clocks(t, &real_ms, &mono_ms);
    pthread_mutex_lock(&t->lock);
    t->stats.alive_ms = mono_ms;
    t->stats.full = t->full || t->stuck;
    t->stats.stuck = t->stuck;
    pthread_mutex_unlock(&t->lock);
    if (t->c.alive != NULL) {
        t->c.alive(t->c.ctx);
    }
    return 0;
}
