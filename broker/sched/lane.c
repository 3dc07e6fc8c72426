#include "common/base.h"

#include "broker/sched/state.h"

#define FRONT_MIN 4u
#define FRONT_MAX 256u /* jobs of a lane that are kept in memory, and read at once */

/* Key of T_READY: class, inverted priority, project, sequence, job. */
#define KEY_PRIORITY sizeof(uint64_t)
#define KEY_PROJECT  (KEY_PRIORITY + sizeof(uint32_t))
#define KEY_SEQ      (KEY_PROJECT + sizeof(uint64_t))
#define KEY_JOB      (KEY_SEQ + sizeof(uint64_t))

static uint32_t inverted(int32_t priority)
{
    return (uint32_t)(INT32_MAX - (int64_t)priority);
}

struct lane *lane_of(struct sched *s, struct want *w, int32_t priority)
{
    struct lane **at = &w->lanes;
    struct lane *l;

    while (*at != NULL && (*at)->priority > priority) {
        at = &(*at)->next;
    }
    if (*at != NULL && (*at)->priority == priority) {
        return *at;
    }
    l = arena_alloc(&s->arena, sizeof(*l));
    l->want = w;
    l->priority = priority;
    l->whole = true;
    l->next = *at;
    *at = l;
    s->lane_count++;
    return l;
}

static int order(const struct waiting *a, uint64_t seq, uint64_t job_id)
{
    if (a->seq != seq) {
        return a->seq < seq ? -1 : 1;
    }
    return a->job_id == job_id ? 0 : a->job_id < job_id ? -1 : 1;
}

/* The first place whose job is not before the one named. */
static uint32_t find(const struct lane *l, uint64_t seq, uint64_t job_id)
{
    uint32_t low = l->first, high = l->first + l->count;

    while (low < high) {
        const uint32_t mid = low + (high - low) / 2;
        if (order(&l->jobs[mid], seq, job_id) < 0) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

/* Room for one more at the end, if it may grow; else the last one is let go. */
static void make_room(struct sched *s, struct lane *l)
{
    if (l->first + l->count < l->cap) {
        return;
    }
    if (l->first > 0) {
        memmove(l->jobs, l->jobs + l->first, l->count * sizeof(*l->jobs));
        l->first = 0;
    } else if (l->cap < FRONT_MAX) {
        struct waiting *old = l->jobs;
        l->cap = MAX(2 * l->cap, FRONT_MIN);
        l->jobs = arena_array(&s->arena, l->cap, sizeof(*l->jobs));
        if (l->count > 0) {
            memcpy(l->jobs, old, l->count * sizeof(*l->jobs));
        }
    } else {
        l->count--;
        l->whole = false;
    }
}

void lane_insert(struct sched *s, struct lane *l, struct waiting job)
{
    uint32_t at = find(l, job.seq, job.job_id), moved;

    if (at < l->first + l->count && l->jobs[at].job_id == job.job_id) {
        return; /* read from the store meanwhile */
    }
    if (at == l->first + l->count && (!l->whole || l->count == FRONT_MAX)) {
        l->whole = false; /* it is behind what is known */
        return;
    }
    make_room(s, l);
    at = MIN(find(l, job.seq, job.job_id), l->first + l->count);
    moved = l->first + l->count - at;
    memmove(l->jobs + at + 1, l->jobs + at, moved * sizeof(*l->jobs));
    l->jobs[at] = job;
    l->count++;
}

void lane_remove(struct lane *l, uint64_t seq, uint64_t job_id)
{
    const uint32_t at = find(l, seq, job_id), end = l->first + l->count;

    if (at == end || l->jobs[at].job_id != job_id) {
        return; /* proposed, or behind what is known */
    }
    if (at == l->first) {
        l->first++;
    } else {
        memmove(l->jobs + at, l->jobs + at + 1, (end - at - 1) * sizeof(*l->jobs));
    }
    l->count--;
}

struct waiting lane_take(struct sched *s, struct lane *l)
{
    check(l->count > 0);
    l->after = l->jobs[l->first];
    l->round = s->round;
    l->first++;
    l->count--;
    if (l->count == 0) {
        l->first = 0;
        lane_fill(s, l);
    }
    return l->after;
}

void lane_forget(struct lane *l)
{
    l->first = l->count = 0;
    l->whole = false;
    l->round = 0;
}

static struct key lane_prefix(const struct lane *l)
{
    struct key k = key_u64(l->want->class->id);

    key_add_u32(&k, inverted(l->priority));
    key_add_u64(&k, l->want->project_id);
    return k;
}

void lane_fill(struct sched *s, struct lane *l)
{
    const struct key prefix = lane_prefix(l);
    struct key from = prefix;
    struct cursor cur;

    if (l->count > 0 || l->whole) {
        return;
    }
    if (l->round == s->round) {
        key_add_u64(&from, l->after.seq);
        key_add_u64(&from, l->after.job_id + 1);
    }
    l->whole = true;
    for (tx_seek(&cur, s->tx, T_READY, key_str(&prefix), &from); cur.valid; tx_next(&cur)) {
        if (l->count == FRONT_MAX) {
            l->whole = false;
            break;
        }
        make_room(s, l);
        l->jobs[l->first + l->count++] = (struct waiting){
            .seq = key_read_u64(cur.key, KEY_SEQ),
            .job_id = key_read_u64(cur.key, KEY_JOB),
            .queued_ms = key_read_u64(cur.value, 0),
        };
        s->rows++;
    }
    cursor_end(&cur);
}

/* Steps from lane to lane by seeking behind the last one: never through the jobs. */
void lanes_open(struct sched *s)
{
    struct key from = key_u64(0);
    struct cursor cur;

    for (;;) {
        struct want *w;
        uint64_t class_id, project_id;
        uint32_t priority;
        tx_seek(&cur, s->tx, T_READY, STR_NULL, &from);
        if (!cur.valid) {
            return;
        }
        class_id = key_read_u64(cur.key, 0);
        priority = key_read_u32(cur.key, KEY_PRIORITY);
        project_id = key_read_u64(cur.key, KEY_PROJECT);
        cursor_end(&cur);
        s->rows++;
        w = want_of(s, class_of(s, class_id), project_id);
        lane_forget(lane_of(s, w, (int32_t)(INT32_MAX - (int64_t)priority)));
        want_mark(s, w);
        from = key_u64(class_id);
        key_add_u32(&from, priority);
        key_add_u64(&from, project_id);
        key_add_u64(&from, UINT64_MAX);
    }
}

int32_t band_at(int32_t priority, uint64_t queued_ms, uint64_t now_ms, uint64_t *ret_due_ms)
{
    const uint64_t age_ms = now_ms > queued_ms ? now_ms - queued_ms : 0;
    const uint64_t steps = age_ms / SCHED_AGING_MS;

    *ret_due_ms = UINT64_MAX;
    if (priority >= SCHED_PRIORITY_TOP) {
        return priority;
    }
    if (steps >= (uint64_t)((int64_t)SCHED_PRIORITY_TOP - priority)) {
        return SCHED_PRIORITY_TOP;
    }
    *ret_due_ms = queued_ms + (steps + 1) * SCHED_AGING_MS;
    return priority + (int32_t)steps;
}
