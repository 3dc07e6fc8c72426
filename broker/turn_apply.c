#include "common/base.h"

#include "broker/core/query.h"
#include "broker/post.h"
#include "broker/turn_state.h"
#include "common/limits.h"
#include "common/log.h"

/* What a turn applies: what came, what is due, what the scheduler proposes. */

#define REST_MS          1000u
#define TURN_ASSIGNMENTS 4096u /* in one transaction; the rest waits for the next */
#define PROPOSALS        256u  /* asked of the scheduler at once */

/* Deleting what is old must not be felt by what is new: it comes last in a round, in a small piece
 * (some 0.2 ms), and first in rounds that have nothing else to do. Where there are none it gets
 * half as many rows as the round has written: fewer rows are deleted than were ever written, so
 * that is enough to keep up with any load. */
#define EXPIRE_ROWS     100u
#define EXPIRE_LATE_MS  1000u
#define EXPIRE_EVERY_MS 100u

static bool adds_work(const Pb__Command *cmd)
{
    return cmd->body_case == PB__COMMAND__BODY_PIPELINE_CREATE ||
           cmd->body_case == PB__COMMAND__BODY_PIPELINE_RETRY ||
           cmd->body_case == PB__COMMAND__BODY_PROJECT_CREATE ||
           cmd->body_case == PB__COMMAND__BODY_JOB_RETRY ||
           cmd->body_case == PB__COMMAND__BODY_JOBS_ENQUEUE;
}

int turn_apply(void *ctx, Pb__Command *cmd, struct reply *ret_reply)
{
    struct turn *t = ctx;
    uint64_t changes = tx_changes(t->tx);
    size_t mark = t->fx.count;

    cmd->version = COMMAND_VERSION;
    cmd->time_ms = t->now_ms;
    memset(ret_reply, 0, sizeof(*ret_reply));
    int r = (t->full || t->stuck) && adds_work(cmd) ? -E_FULL
                                                    : core_apply(t->tx, cmd, &t->fx, ret_reply);
    if (r < 0) {
        check(!tx_ok(t->tx) || tx_changes(t->tx) == changes);
        effects_truncate(&t->fx, mark);
    } else {
        t->index++;
        if (t->journal != NULL) {
            journal_add(t->journal, t->index, cmd);
        }
    }
    pthread_mutex_lock(&t->lock);
    t->stats.commands++;
    t->stats.rejected += r < 0;
    if (r == 0 && cmd->body_case == PB__COMMAND__BODY_ASSIGN) {
        t->stats.assignments += cmd->assign->n_job_ids;
    }
    pthread_mutex_unlock(&t->lock);
    return r;
}

void turn_apply_post(struct turn *t, struct post *p)
{
    p->r = turn_apply(t, &p->command, &p->reply);
    if (p->r == 0 && p->reply.job_count > 0) { /* the post outlives the transaction */
        struct reply_job *jobs = arena_array(&p->arena, p->reply.job_count, sizeof(*jobs));
        memcpy(jobs, p->reply.jobs, p->reply.job_count * sizeof(*jobs));
        p->reply.jobs = jobs;
    }
}

void turn_apply_items(struct turn *t, struct item *items)
{
    for (struct item *i = items; i != NULL; i = i->next) {
        if (i->kind != ITEM_POST) {
            fleet_item(t->c.fleet, i);
        } else if (tx_ok(t->tx)) {
            turn_apply_post(t, i->post);
        }
    }
}

void turn_rest(struct turn *t)
{
    t->rest_until_ms = t->mono_ms + REST_MS;
}

/* A store that is made just now has lost nothing; it has to know itself first. */
void turn_apply_start(struct turn *t)
{
    Pb__Command cmd = PB__COMMAND__INIT;
    Pb__IdsSkipped skipped = PB__IDS_SKIPPED__INIT;
    struct reply reply;

    if (!t->starting || meta_get(t->tx) == NULL) {
        return;
    }
    skipped.count = t->skip;
    skipped.relaxed = t->c.relaxed_ms != 0;
    cmd.actor = (char *)"start";
    cmd.body_case = PB__COMMAND__BODY_IDS_SKIPPED;
    cmd.ids_skipped = &skipped;
    t->starts = turn_apply(t, &cmd, &reply) == 0;
}

void turn_apply_jump(struct turn *t)
{
    Pb__Command cmd = PB__COMMAND__INIT;
    Pb__ClockJumped jumped = PB__CLOCK_JUMPED__INIT;
    struct reply reply;

    if (t->jump_ms == 0) {
        return;
    }
    jumped.by_ms = t->jump_ms;
    cmd.actor = (char *)"clock";
    cmd.body_case = PB__COMMAND__BODY_CLOCK_JUMPED;
    cmd.clock_jumped = &jumped;
    int r = turn_apply(t, &cmd, &reply);
    if (r < 0 && tx_ok(t->tx)) {
        log_error("turn: timers were not moved with the clock: %s", err_text(r));
    }
}

void turn_apply_timers(struct turn *t)
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
        int r = turn_apply(t, &cmd, &reply);
        if (r < 0) {
            log_error("turn: timer %" PRIu64 " was refused: %s", fired.timer_id, err_text(r));
            turn_rest(t); /* it stays due: do not spin on it */
            return;
        }
    }
}

static void apply_expire(struct turn *t, uint32_t max)
{
    Pb__Command cmd = PB__COMMAND__INIT;
    Pb__Expire expire = PB__EXPIRE__INIT;
    struct reply reply;

    expire.max = max;
    if (t->c.keep_pipelines_ms != 0 && t->now_ms > t->c.keep_pipelines_ms) {
        expire.pipelines_before_ms = t->now_ms - t->c.keep_pipelines_ms;
    }
    cmd.actor = (char *)"retention";
    cmd.body_case = PB__COMMAND__BODY_EXPIRE;
    cmd.expire = &expire;
    int r = turn_apply(t, &cmd, &reply);
    if (r < 0 && tx_ok(t->tx)) {
        log_error("turn: what is old was not deleted: %s", err_text(r));
        turn_rest(t);
    }
    pthread_mutex_lock(&t->lock);
    t->stats.expired += r == 0 ? reply.expired : 0;
    pthread_mutex_unlock(&t->lock);
}

void turn_expire(struct turn *t, bool busy, uint64_t written)
{
    uint64_t due_ms = core_next_expiry_ms(t->tx, t->c.keep_pipelines_ms);

    if (due_ms <= t->now_ms && t->expire_since_ms == 0) {
        t->expire_since_ms = t->mono_ms;
    }
    if (due_ms <= t->now_ms && tx_ok(t->tx) &&
        (!busy || t->mono_ms - t->expire_since_ms > EXPIRE_LATE_MS)) {
        apply_expire(t, (uint32_t)MIN(MAX(written / 2, EXPIRE_ROWS), LIMIT_EXPIRE_BATCH));
        due_ms = core_next_expiry_ms(t->tx, t->c.keep_pipelines_ms);
    }
    if (due_ms <= t->now_ms) {
        t->next_expire_ms = t->mono_ms;
        return;
    }
    t->expire_since_ms = 0;
    t->next_expire_ms = due_ms == UINT64_MAX
                            ? UINT64_MAX
                            : t->mono_ms + MAX(due_ms - t->now_ms, EXPIRE_EVERY_MS);
}

static int assign(struct turn *t, uint64_t worker_id, uint64_t *job_ids, size_t count)
{
    Pb__Command cmd = PB__COMMAND__INIT;
    Pb__Assign body = PB__ASSIGN__INIT;
    struct reply reply;

    body.worker_id = worker_id;
    body.job_ids = job_ids;
    body.n_job_ids = count;
    cmd.actor = (char *)"scheduler";
    cmd.body_case = PB__COMMAND__BODY_ASSIGN;
    cmd.assign = &body;
    return turn_apply(t, &cmd, &reply);
}

/* All jobs at once; where one of them stands in the way, each by itself. */
static size_t assign_jobs(struct turn *t, uint64_t worker_id, uint64_t *job_ids, size_t count)
{
    size_t applied = 0;

    if (count > 1 && assign(t, worker_id, job_ids, count) == 0) {
        return count;
    }
    for (size_t i = 0; i < count && tx_ok(t->tx); i++) {
        int r = assign(t, worker_id, &job_ids[i], 1);
        if (r == 0) {
            applied++;
        } else {
            log_warn("turn: job %" PRIu64 " cannot go to worker %" PRIu64 ": %s", job_ids[i],
                     worker_id, err_text(r));
        }
    }
    return applied;
}

/* The scheduler and the store do not agree on the worker: others must not wait for that, and
 * neither must it, for longer than until all is learned anew. */
static void refused(struct turn *t, uint64_t worker_id)
{
    sched_refused(t->sched, worker_id);
    if (t->learn_anew_ms == 0) {
        t->learn_anew_ms = t->mono_ms + REST_MS;
    }
}

/* Those that follow each other to the same worker go in one command. */
static size_t apply_proposals(struct turn *t, const struct sched_proposal *p, size_t count)
{
    uint64_t job_ids[PROPOSALS];
    size_t applied = 0;

    for (size_t i = 0, n; i < count && tx_ok(t->tx); i += n) {
        for (n = 0; i + n < count && p[i + n].worker_id == p[i].worker_id; n++) {
            job_ids[n] = p[i + n].job_id;
        }
        const size_t taken = assign_jobs(t, p[i].worker_id, job_ids, n);
        if (taken == 0) {
            refused(t, p[i].worker_id);
        }
        applied += taken;
    }
    return applied;
}

void turn_learn(struct turn *t)
{
    for (; t->learned_effects < t->fx.count; t->learned_effects++) {
        if (t->fx.items[t->learned_effects].kind == EFFECT_SETTINGS) {
            sched_reset(t->sched);
        }
        t->ends += t->fx.items[t->learned_effects].kind == EFFECT_ENDED;
    }
    sched_learn(t->sched, t->tx, t->now_ms, t->fx.changes + t->learned_changes,
                t->fx.change_count - t->learned_changes);
    if (t->fx.change_count > t->learned_changes) {
        turn_remember(t, t->fx.changes + t->learned_changes,
                      t->fx.change_count - t->learned_changes);
    }
    t->learned_changes = t->fx.change_count;
}

static void tell_workers(struct turn *t)
{
    struct fleet_change *changes;
    size_t count = fleet_changes(t->c.fleet, &changes);

    for (size_t i = 0; i < count; i++) {
        sched_worker(t->sched, changes[i].worker_id, changes[i].record, changes[i].open);
    }
}

/* A job is taken away from its worker, for another one: that gets the slot at once, whoever else
 * waits. False: nobody gives way. */
static bool make_way(struct turn *t)
{
    Pb__Command cmd = PB__COMMAND__INIT;
    Pb__JobPreempt body = PB__JOB_PREEMPT__INIT;
    const Pb__AssignmentRecord *a;
    struct sched_victim v;
    struct reply reply;

    while (tx_ok(t->tx) && sched_preempt(t->sched, &v)) {
        a = assignment_get(t->tx, v.job_id);
        body.job_id = v.job_id;
        body.epoch = a != NULL ? a->epoch : 0;
        body.for_job_id = v.for_job_id;
        cmd.actor = (char *)"scheduler";
        cmd.body_case = PB__COMMAND__BODY_JOB_PREEMPT;
        cmd.job_preempt = &body;
        if (turn_apply(t, &cmd, &reply) == 0) {
            if (assign_jobs(t, v.worker_id, &v.for_job_id, 1) == 0) {
                refused(t, v.worker_id);
            }
            return true;
        }
    }
    return false;
}

bool turn_learns_anew(const struct turn *t)
{
    return t->learn_anew_ms != 0 && t->learn_anew_ms <= t->mono_ms;
}

void turn_schedule(struct turn *t)
{
    struct sched_proposal proposals[PROPOSALS];
    size_t total = 0;

    t->schedule = false;
    if (turn_learns_anew(t)) {
        t->learn_anew_ms = 0;
        sched_reset(t->sched);
    }
    tell_workers(t);
    while (tx_ok(t->tx)) {
        turn_learn(t);
        size_t n = sched_propose(t->sched, t->tx, t->now_ms, proposals, ARRAY_LEN(proposals));
        total += apply_proposals(t, proposals, n);
        if (n == 0 && !make_way(t)) {
            return;
        }
        total += n == 0;
        if (total >= TURN_ASSIGNMENTS) {
            t->schedule = true;
            return;
        }
    }
}
