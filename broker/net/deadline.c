#include "common/base.h"

#include "broker/net/state.h"
#include "common/log.h"

/* Leases, rests, and the times of sessions. */

#define SCAN_MIN_MS 10u   /* between two looks, however many times end close to each other */
#define STALL_MS    2000u /* the turn ticks every second: a longer gap means that we slept */

static bool is_before(const struct heap_node *a, const struct heap_node *b)
{
    return HEAP_ITEM(a, struct deadline, node)->at_ms < HEAP_ITEM(b, struct deadline, node)->at_ms;
}

void deadlines_init(struct fleet *f)
{
    f->deadlines.before = is_before;
}

void deadlines_release(struct fleet *f)
{
    check(f->deadlines.count == 0);
    heap_release(&f->deadlines);
}

static void look(struct fleet *f, struct deadline *d, uint64_t at_ms)
{
    if (d->node.at == 0 || at_ms < d->at_ms) {
        d->at_ms = at_ms;
        heap_put(&f->deadlines, &d->node);
    }
}

void peer_look(struct fleet *f, struct peer *p, uint64_t at_ms)
{
    look(f, &p->deadline, at_ms);
}

void session_look(struct fleet *f, struct session *s, uint64_t at_ms)
{
    if (!s->ended) {
        look(f, &s->deadline, at_ms);
    }
}

void deadline_clear(struct fleet *f, struct deadline *d)
{
    heap_remove(&f->deadlines, &d->node);
}

static struct deadline *first(const struct fleet *f)
{
    struct heap_node *n = heap_top(&f->deadlines);

    return n != NULL ? HEAP_ITEM(n, struct deadline, node) : NULL;
}

uint64_t deadlines_next_ms(const struct fleet *f)
{
    const struct deadline *d = first(f);

    return d != NULL ? MAX(d->at_ms, f->next_scan_ms) : UINT64_MAX;
}

/* Its jobs are somebody else's from the commit on; the peer itself goes after it. */
static void lose(struct fleet *f, struct peer *p)
{
    const Pb__AssignmentRecord **list;
    size_t count = worker_assignments(f->turn.tx, p->worker_id, &list);

    log_write(count > 0 ? LOG_WARN : LOG_INFO,
              "net: %s is lost, silent for %" PRIu64 " ms, with %zu jobs", p->actor,
              f->turn.mono_ms - p->heard_ms, count);
    for (size_t i = 0; i < count; i++) {
        if (!list[i]->waiting) {
            command_lost(f, p, list[i], false);
        }
    }
    peer_lose(f, p);
}

/* Returns when to look again. */
static uint64_t rest_check(struct fleet *f, struct peer *p)
{
    if (p->rest_until_ms > f->turn.mono_ms) {
        return p->rest_until_ms;
    }
    if (p->rest_until_ms != 0) {
        f->capacity_changed = true;
        peer_touch(f, p);
    }
    p->rest_until_ms = 0;
    return UINT64_MAX;
}

/* Silence is silence only once all is read that came before the time was over: a busy turn must not
 * take somebody for lost whose heartbeat lies in the inbox. */
static bool is_silent(struct fleet *f, struct silence *silence)
{
    if (!silence->overdue) {
        silence->overdue = true;
        silence->mark = inbox_pushed(f->c.inbox);
    }
    return inbox_taken(f->c.inbox) >= silence->mark;
}

/* Returns when to look again. */
static uint64_t peer_check(struct fleet *f, struct peer *p)
{
    uint64_t silence_ms = f->turn.mono_ms - p->heard_ms;

    if (!p->suspect && silence_ms > p->times.suspect_ms) {
        log_info("net: %s is suspect, silent for %" PRIu64 " ms", p->actor, silence_ms);
        p->suspect = true;
        peer_touch(f, p);
        peer_publish(f, p);
    }
    if (silence_ms < p->times.lease_ms) {
        return p->heard_ms + (p->suspect ? p->times.lease_ms : p->times.suspect_ms + 1);
    }
    if (!is_silent(f, &p->silence)) {
        return f->turn.mono_ms;
    }
    lose(f, p);
    return UINT64_MAX;
}

/* We were stopped, or the machine slept: that is nobody else's silence. */
void fleet_awake(struct fleet *f, uint64_t mono_ms)
{
    uint64_t gap_ms = mono_ms - f->awake_ms;
    struct session *s;
    struct session *s_tmp;
    struct peer *p;
    struct peer *p_tmp;

    f->awake_ms = mono_ms;
    if (gap_ms <= STALL_MS) {
        return;
    }
    log_warn("net: the broker stood still for %" PRIu64 " ms: leases are longer by that", gap_ms);
    HASH_ITER (hh, f->sessions, s, s_tmp) {
        s->close_at_ms += s->close_at_ms != 0 ? gap_ms : 0;
    }
    HASH_ITER (hh, f->peers, p, p_tmp) {
        p->heard_ms = MIN(p->heard_ms + gap_ms, mono_ms);
    }
}

static void session_overdue(struct fleet *f, struct session *s)
{
    if (s->client != NULL && !s->closing) {
        log_info("net: client %s is silent, its session ends", s->client->name);
        session_end(f, s);
    } else if (!s->closing) {
        session_violation(f, s, "said no Hello in time");
    } else {
        session_end(f, s);
    }
}

/* Returns when to look again. */
static uint64_t session_check(struct fleet *f, struct session *s)
{
    if (s->close_at_ms == 0) {
        return UINT64_MAX;
    }
    if (s->close_at_ms > f->turn.mono_ms) {
        return s->close_at_ms;
    }
    if (!s->closing && !is_silent(f, &s->silence)) {
        return f->turn.mono_ms;
    }
    session_overdue(f, s);
    return UINT64_MAX;
}

void deadlines_pass(struct fleet *f)
{
    const uint64_t now_ms = f->turn.mono_ms;
    struct deadline *d = first(f);

    if (d == NULL || MAX(d->at_ms, f->next_scan_ms) > now_ms) {
        return;
    }
    f->next_scan_ms = now_ms + SCAN_MIN_MS;
    for (; d != NULL && d->at_ms <= now_ms; d = first(f)) {
        uint64_t again_ms;
        deadline_clear(f, d);
        if (d->session != NULL) {
            again_ms = session_check(f, d->session);
        } else {
            again_ms = rest_check(f, d->peer);
            again_ms = MIN(again_ms, peer_check(f, d->peer));
        }
        if (again_ms != UINT64_MAX) {
            look(f, d, MAX(again_ms, now_ms + 1)); /* now: it is looked at in the next turn */
        }
    }
}
