#include "common/base.h"

#include "broker/core/query.h"
#include "broker/turn_state.h"
#include "common/log.h"
#include "common/os.h"

/* How what a turn has done comes to last.
 *
 * The journal makes it durable with one flush; the store commits when that does not disturb. A
 * commit holds up this thread for 0.3 to 1 ms when it is small, for some ms when it is large, and
 * whoever speaks meanwhile waits. IDLE_MS is well above the pauses of a job that is handed out, run
 * and ended at once (less than 1 ms each), so that no commit falls between. AGE_MS bounds what
 * a start has to apply again; under steady load it allows two commits a second, which meet less
 * than one message in a hundred. CHANGES bounds what one commit takes, and the memory of the
 * transaction.
 */

#define IDLE_MS  10u
#define AGE_MS   500u
#define CHANGES  32768u
#define RETRY_MS 1000u

bool turn_survives(int r)
{
    return r == -E_FULL || r == -E_NO_SPACE || r == -E_CORRUPT || r == -E_TOO_BIG;
}

static int open_tx(struct turn *t)
{
    int r = tx_begin(t->c.store, true, &t->tx);

    if (r == 0) {
        t->room_bytes = store_room_bytes(t->c.store);
        t->saved = 0;
    }
    return r;
}

int turn_open(struct turn *t)
{
    int r = 0;

    if (t->tx != NULL && !tx_ok(t->tx)) {
        r = turn_undo(t); /* a read on behalf of an effect has met with a damaged row */
    }
    if (r == 0 && t->tx == NULL) {
        r = open_tx(t);
    }
    if (r == 0) {
        tx_rest(t->tx);
        t->mark = t->index;
    }
    return r;
}

static void count_commit(struct turn *t, uint64_t took_us)
{
    pthread_mutex_lock(&t->lock);
    t->stats.commits++;
    t->stats.commit_us_sum += took_us;
    t->stats.commit_us_max = MAX(t->stats.commit_us_max, took_us);
    pthread_mutex_unlock(&t->lock);
}

/* Whoever waits for the store to be fresh looks again. */
static void tell_readers(struct turn *t, int r)
{
    pthread_mutex_lock(&t->lock);
    if (r < 0) {
        t->failures++;
        t->failure = r;
    }
    pthread_cond_broadcast(&t->told);
    pthread_mutex_unlock(&t->lock);
}

/* Commits all that is in the transaction, which goes on. On failure nothing of it is in the store.
 */
static int save(struct turn *t)
{
    const Pb__MetaRecord *meta = meta_get(t->tx);
    const uint64_t next_event = meta != NULL ? meta->next_event : 0;
    const uint64_t start_us = os_monotonic_us();
    int r = tx_save(t->tx);

    if (r < 0) {
        return r;
    }
    count_commit(t, os_monotonic_us() - start_us);
    t->room_bytes = store_room_bytes(t->c.store);
    t->saved = tx_changes(t->tx);
    t->next_event = next_event;
    t->saved_ends = t->ends;
    t->dirty_since_ms = 0;
    t->flush_due_ms = 0; /* what the store has needs no journal */
    if (t->stuck) {
        t->stuck = false;
        log_info("turn: the store takes commits again");
    }
    atomic_store(&t->acknowledged, t->index);
    atomic_store(&t->committed, t->index);
    tell_readers(t, 0);
    return 0;
}

/* Begins the journal anew behind what was just committed: it was full, or it had failed. */
static void restart_journal(struct turn *t)
{
    if (t->mono_ms < t->journal_retry_ms) {
        return;
    }
    int r = journal_restart(t->journal, t->index);
    t->journal_retry_ms = r < 0 ? t->mono_ms + RETRY_MS : 0;
    if (r < 0) {
        log_error(
            "turn: the journal cannot go on: %s; the store commits in every round until it can",
            err_text(r));
    }
}

/* Of the transaction nothing is left but what was acknowledged: the journal has that. */
static int rebuild(struct turn *t)
{
    struct buf why = BUF_INIT;

    sched_reset(t->sched); /* it knows of what has not happened now */
    tx_abort(t->tx);
    t->tx = NULL;
    if (t->journal != NULL) {
        journal_drop(t->journal);
    }
    t->index = atomic_load(&t->committed);
    if (t->dirty_since_ms == 0) {
        return 0;
    }
    int r = turn_replay(t, &why);
    if (r == 0 && t->index != atomic_load(&t->acknowledged)) {
        buf_addf(&why, "the journal ends at %" PRIu64 ", before %" PRIu64, t->index,
                 atomic_load(&t->acknowledged));
        r = -E_IO;
    }
    if (r < 0) { /* a start may have more room; if not, it says why */
        log_error("turn: what was acknowledged cannot be applied again: %s: %s", err_text(r),
                  buf_cstr(&why));
        r = turn_survives(r) ? -E_IO : r;
    }
    buf_release(&why);
    return r;
}

/* The store does not take what is acknowledged: that stays in the journal and in the transaction.
 */
static int be_stuck(struct turn *t, int why)
{
    if (!t->stuck) {
        log_error(
            "turn: the store cannot commit: %s; new work is refused, the journal keeps the rest",
            err_text(why));
    }
    t->stuck = true;
    t->stuck_until_ms = t->mono_ms + RETRY_MS;
    tell_readers(t, why);
    return rebuild(t);
}

int turn_undo(struct turn *t)
{
    int r = rebuild(t);

    if (r < 0 || t->dirty_since_ms == 0 || t->stuck) {
        return r;
    }
    r = save(t); /* so that the next one to fail does not undo it again */
    return turn_survives(r) ? be_stuck(t, r) : r;
}

/* 0: the turn is in the store. */
static int settle_by_commit(struct turn *t)
{
    int r = save(t);

    if (r == 0 && t->journal != NULL) {
        journal_drop(t->journal);
    }
    if (r == -E_NO_SPACE && t->journal != NULL && !t->stuck) {
        t->stuck = true; /* the next ones go into the journal, which has its space already */
        t->stuck_until_ms = t->mono_ms + RETRY_MS;
        tell_readers(t, r);
    }
    return r;
}

static int flush_journal(struct turn *t)
{
    const uint64_t start_us = os_monotonic_us();
    int r = journal_flush(t->journal);
    const uint64_t took_us = os_monotonic_us() - start_us;

    if (r < 0) {
        return turn_survives(r) ? -E_IO : r; /* whatever it is: a second flush would lie */
    }
    pthread_mutex_lock(&t->lock);
    t->stats.flush_us_sum += took_us;
    t->stats.flush_us_max = MAX(t->stats.flush_us_max, took_us);
    pthread_mutex_unlock(&t->lock);
    t->flush_due_ms = 0;
    return 0;
}

/* -E_FULL: it does not fit, and nothing was written. */
static int settle_by_journal(struct turn *t)
{
    int r = journal_write(t->journal);

    if (r == -E_FULL && t->stuck) {
        r = journal_extend(t->journal);
        r = r < 0 ? r : journal_write(t->journal);
    }
    if (r == 0 && t->c.relaxed_ms == 0) {
        r = flush_journal(t);
    }
    if (r < 0) {
        return r;
    }
    if (t->c.relaxed_ms != 0 && t->flush_due_ms == 0) {
        t->flush_due_ms = t->mono_ms + t->c.relaxed_ms;
    }
    if (t->dirty_since_ms == 0) {
        t->dirty_since_ms = MAX(t->mono_ms, 1);
    }
    t->changed_ms = t->mono_ms;
    atomic_store(&t->acknowledged, t->index);
    return 0;
}

/* Near the end of the map or of the disk nothing may be acknowledged that the store has not taken:
 * it might never take it. And that it may lose something, it has to know before it can. */
static bool must_commit(const struct turn *t)
{
    return t->journal == NULL || t->starts ||
           (!t->stuck && (t->full || tx_growth_bytes(t->tx) > t->room_bytes));
}

static void count_turn(struct turn *t)
{
    pthread_mutex_lock(&t->lock);
    t->stats.turns++;
    if (t->journal != NULL) {
        journal_get_stat(t->journal, &t->stats.journal);
    }
    pthread_mutex_unlock(&t->lock);
}

int turn_settle_now(struct turn *t)
{
    int r = tx_error(t->tx);

    if (r == 0 && t->index != t->mark) {
        r = settle_by_commit(t);
        if (r == 0) {
            count_turn(t);
        }
    }
    return r;
}

int turn_settle(struct turn *t)
{
    int r = tx_error(t->tx);

    if (r < 0 || t->index == t->mark || must_commit(t)) {
        return turn_settle_now(t);
    }
    r = settle_by_journal(t);
    if (r == -E_FULL || r == -E_NO_SPACE) {
        const int why = r;
        r = t->stuck ? r : settle_by_commit(t);
        if (r == 0) {
            restart_journal(t);
        } else if (why == -E_NO_SPACE) {
            return -E_IO; /* the record may be there or not: there is no answer to give */
        }
    }
    if (r == 0) {
        count_turn(t);
    }
    return r;
}

int turn_commit(struct turn *t)
{
    if (t->dirty_since_ms == 0) {
        return 0;
    }
    int r = save(t);
    return turn_survives(r) ? be_stuck(t, r) : r;
}

/* When the transaction is due to be committed, by the monotonic clock. */
static uint64_t commit_due_ms(const struct turn *t)
{
    if (t->dirty_since_ms == 0) {
        return UINT64_MAX;
    }
    if (t->stuck) {
        return t->stuck_until_ms;
    }
    if (tx_changes(t->tx) - t->saved >= CHANGES) {
        return 0;
    }
    return MIN(t->dirty_since_ms + AGE_MS, t->changed_ms + IDLE_MS);
}

static bool reader_waits(struct turn *t)
{
    pthread_mutex_lock(&t->lock);
    bool waits = t->fresh_want > atomic_load(&t->committed);
    pthread_mutex_unlock(&t->lock);
    return waits;
}

static int tend_store(struct turn *t)
{
    const bool due = commit_due_ms(t) <= t->mono_ms;

    if (t->stuck && !due) {
        if (t->dirty_since_ms == 0 && t->stuck_until_ms <= t->mono_ms) {
            t->stuck = false; /* the next turn tries it */
        }
        if (reader_waits(t)) {
            tell_readers(t, -E_NO_SPACE);
        }
        return 0;
    }
    return due || reader_waits(t) ? turn_commit(t) : 0;
}

/* The journal of a store that was just made, or that had none at the start; or that there was no
 * space for. */
static int tend_journal(struct turn *t)
{
    struct buf why = BUF_INIT;
    int r = 0;

    if (t->journal == NULL && t->c.journal != NULL && t->index > 0 &&
        !(t->journal_new && t->starting) && t->mono_ms >= t->journal_retry_ms) {
        r = turn_open_journal(t, &why);
        if (r < 0) {
            log_error("turn: %s", buf_cstr(&why));
            t->journal_retry_ms = t->mono_ms + RETRY_MS;
            r = turn_survives(r) ? 0 : r;
        }
    } else if (t->flush_due_ms != 0 && t->flush_due_ms <= t->mono_ms) {
        r = flush_journal(t);
    }
    buf_release(&why);
    return r;
}

int turn_tend(struct turn *t)
{
    int r = tend_store(t);

    r = r < 0 ? r : tend_journal(t);
    if (r < 0) {
        return r;
    }
    /* Followers read the store: they hear of events once these are in it. */
    if (t->next_event != t->published_event || t->saved_ends != t->published_ends) {
        t->published_event = t->next_event;
        t->published_ends = t->saved_ends;
        bus_publish(t->c.bus, BUS_EVENTS, t->next_event - 1);
    }
    if (t->tx != NULL && t->dirty_since_ms == 0) {
        tx_abort(t->tx);
        t->tx = NULL;
    }
    return 0;
}

uint64_t turn_tend_due_ms(const struct turn *t)
{
    uint64_t due_ms = commit_due_ms(t);

    if (t->flush_due_ms != 0) {
        due_ms = MIN(due_ms, t->flush_due_ms);
    }
    return due_ms;
}

void turn_end_commits(struct turn *t)
{
    int r = turn_commit(t);

    if (r < 0 || t->stuck) {
        log_error("turn: the last commit failed; the next start applies the journal");
    }
    tx_abort(t->tx); /* a write transaction is its thread's, to the end */
    t->tx = NULL;
    pthread_mutex_lock(&t->lock);
    t->ended = true;
    pthread_cond_broadcast(&t->told);
    pthread_mutex_unlock(&t->lock);
}

/* -E_*: it cannot be told when the store will be fresh. */
static int wait_fresh(struct turn *t, uint64_t want)
{
    int r = 0;

    pthread_mutex_lock(&t->lock);
    const uint64_t failures = t->failures;
    t->fresh_want = MAX(t->fresh_want, want);
    inbox_wake(t->c.inbox);
    while (r == 0 && atomic_load(&t->committed) < want) {
        if (t->ended) {
            r = -E_SHUTDOWN;
        } else if (t->failures != failures) {
            r = t->failure;
        } else {
            pthread_cond_wait(&t->told, &t->lock);
        }
    }
    pthread_mutex_unlock(&t->lock);
    return r;
}

int turn_fresh(struct turn *t)
{
    const uint64_t want = atomic_load(&t->acknowledged);

    check(!t->has_thread || !pthread_equal(pthread_self(), t->thread)); /* to wait for itself */
    if (atomic_load(&t->committed) >= want) {
        return 0;
    }
    if (t->has_thread) {
        return wait_fresh(t, want);
    }
    int r = turn_commit(t);
    return r == 0 && t->stuck ? t->failure : r;
}
