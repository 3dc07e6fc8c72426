/* Why a job is not running: one sentence for people, and what it is made of. */
#include "common/base.h"

#include "broker/api/answer.h"
#include "broker/api/handlers.h"
#include "broker/api/server.h"
#include "broker/api/view.h"
#include "broker/core/query.h"
#include "broker/core/rollout.h"
#include "broker/rollout/decide.h"
#include "broker/sched/sched.h"
#include "common/os.h"

#define NAMES_SHOWN 10u
/* What is looked at to find a job's place among those that wait for a resource group. */
#define PLACE_ROWS 1000u

struct why {
    struct tx *tx;
    struct fleet *fleet;
    const Pb__JobRecord *job;
    struct buf summary;
    struct turn *turn;
    uint64_t position; /* 0: not ready */
    bool position_or_more;
    bool never;
    json_t *estimate; /* ms; null: nobody can say */
    json_t *pools;
    uint64_t holder; /* of the resource group; 0: none */
    json_t *workers;
};

static const char *worker_name(const struct why *w)
{
    const Pb__AttemptRecord *a = attempt_get(w->tx, w->job->id, w->job->attempt);
    return a && a->worker_name[0] != '\0' ? a->worker_name : "?";
}

/* "NAME, NAME and 3 more"; *count runs on. */
static void add_name(struct why *w, const char *name, unsigned *count)
{
    if (*count < NAMES_SHOWN) {
        buf_addf(&w->summary, "%s%s", *count > 0 ? ", " : "", name);
    }
    ++*count;
}

static void add_if_unfinished(struct why *w, uint64_t job_id, unsigned *count)
{
    const Pb__JobRecord *j = job_get(w->tx, job_id);
    if (j && !job_state_terminal(j->state)) {
        add_name(w, j->name, count);
    }
}

/* The needs of a job with `needs:`, else all jobs of earlier stages. */
static void say_created(struct why *w)
{
    unsigned count = 0;
    const Pb__PipelineRecord *p = pipeline_get(w->tx, w->job->pipeline_id);
    buf_addz(&w->summary, "waits for: ");
    if (w->job->dag) {
        for (size_t i = 0; i < w->job->n_needs; i++) {
            add_if_unfinished(w, w->job->needs[i], &count);
        }
    } else if (p) {
        /* Jobs stand by stage: those before the first of this job's stage. */
        for (uint32_t i = 0; i < w->job->index; i++) {
            const Pb__JobRecord *j = job_get(w->tx, p->first_job_id + i);
            if (!j || j->stage >= w->job->stage) {
                break;
            }
            add_if_unfinished(w, j->id, &count);
        }
    }
    if (count == 0) {
        buf_clear(&w->summary);
        buf_addz(&w->summary, "is about to be looked at");
    } else if (count > NAMES_SHOWN) {
        buf_addf(&w->summary, " and %u more", count - NAMES_SHOWN);
    }
}

/* Among those that wait for the group, first come first served; 0: far behind. */
static uint64_t place_in_group(struct why *w, const struct key *group)
{
    uint64_t place = 0;
    bool found = false;
    struct cursor c;
    for (tx_seek(&c, w->tx, T_RESOURCE_WAIT, key_str(group), NULL);
         c.valid && !found && place < PLACE_ROWS; tx_next(&c)) {
        place++;
        found = key_read_u64(c.key, c.key.n - sizeof(uint64_t)) == w->job->id;
    }
    cursor_end(&c);
    return found ? place : 0;
}

static Pb__ProcessMode mode_of(struct why *w, const struct key *group)
{
    const Pb__ResourceGroupRecord *row = (const Pb__ResourceGroupRecord *)tx_get_msg(
        w->tx, T_RESOURCE_GROUP, group, &pb__resource_group_record__descriptor);
    return row ? row->mode : PB__PROCESS_MODE__PROCESS_UNORDERED;
}

static void say_waiting_for_resource(struct why *w)
{
    uint8_t hash[SHA256_BYTES];
    struct cursor c;
    crypto_sha256(w->job->resource_group, strlen(w->job->resource_group), hash);
    struct key prefix = key_u64(w->job->project_id);
    key_add_bytes(&prefix, hash, sizeof(hash));
    tx_seek(&c, w->tx, T_RESOURCE_HOLD, key_str(&prefix), NULL);
    if (c.valid) {
        w->holder = key_read_u64(c.key, prefix.n);
    }
    cursor_end(&c);
    const Pb__JobRecord *holder = w->holder > 0 ? job_get(w->tx, w->holder) : NULL;
    buf_addf(&w->summary, "waits for the resource group `%s`", w->job->resource_group);
    if (holder) {
        buf_addf(&w->summary, ", held by job %" PRIu64 " (%s)", w->holder, holder->name);
    }
    if (mode_of(w, &prefix) != PB__PROCESS_MODE__PROCESS_UNORDERED) {
        buf_addz(&w->summary, "; its process mode says who is next");
    } else if ((w->position = place_in_group(w, &prefix)) > 0) {
        buf_addf(&w->summary, "; number %" PRIu64 " of those that wait for it", w->position);
    }
}

static bool is_online(void *ctx, uint64_t worker_id)
{
    struct fleet_worker state;
    return fleet_worker_state(ctx, worker_id, &state) && state.online;
}

static void say_requirement(struct why *w)
{
    const Pb__ClassRecord *class = class_get(w->tx, w->job->class_id);
    if (class && class->pool[0] != '\0') {
        buf_addf(&w->summary, "; it asks for pool %s", class->pool);
    }
    if (class && class->executor[0] != '\0') {
        buf_addf(&w->summary, "; it asks for executor %s", class->executor);
    }
    for (size_t i = 0; class && i < class->n_tags; i++) {
        buf_addf(&w->summary, "%s%s", i == 0 ? "; it asks for tags: " : ", ", class->tags[i]);
    }
}

static void say_estimate(struct why *w, const struct sched_outlook *o)
{
    uint64_t typical_ms;
    uint64_t wait_ms = turn_typical_ms(w->turn, w->job->class_id, &typical_ms)
                           ? sched_wait_ms(o, typical_ms)
                           : UINT64_MAX;
    if (wait_ms == UINT64_MAX) {
        return;
    }
    json_decref(w->estimate);
    w->estimate = json_integer((json_int_t)wait_ms);
    if (wait_ms > 0) {
        buf_addf(&w->summary, ", begins in about %" PRIu64 " %s%s",
                 wait_ms < 120000 ? (wait_ms + 999) / 1000 : (wait_ms + 59999) / 60000,
                 wait_ms < 120000 ? "s" : "min", o->position_or_more ? " or later" : "");
    }
}

static void say_pools(struct why *w, const struct sched_outlook *o)
{
    for (size_t i = 0; i < o->pool_count && i < SCHED_WHY_POOLS; i++) {
        json_array_append_new(w->pools, json_text(o->pools[i]));
        buf_addf(&w->summary, "%s%s", i == 0 ? "; no worker in: " : ", ", o->pools[i]);
    }
    if (o->pool_count > SCHED_WHY_POOLS) {
        buf_addf(&w->summary, " and %zu more", o->pool_count - SCHED_WHY_POOLS);
    }
}

/* What the scheduler has against it; a worker that takes no work at all knows better why. */
static void add_worker(struct why *w, const struct sched_why *why)
{
    struct fleet_worker live;
    const bool refuses = fleet_worker_state(w->fleet, why->worker_id, &live) && live.online &&
                         live.health.refuses[0] != '\0';
    json_array_append_new(w->workers,
                          json_pack("{s:o, s:o, s:o}", "id", json_id(why->worker_id), "name",
                                    json_text(why->worker), "reason",
                                    json_text(refuses ? live.health.refuses : why->reason)));
}

static void say_pending(struct why *w)
{
    struct sched_why reasons[LIMIT_PAGE];
    struct sched_outlook o;
    size_t count = sched_why(w->tx, w->job, is_online, w->fleet, reasons, ARRAY_LEN(reasons), &o);
    w->position = o.position;
    w->position_or_more = o.position_or_more;
    w->never = o.never;
    for (size_t i = 0; i < count; i++) {
        add_worker(w, &reasons[i]);
    }
    if (count == 0) {
        buf_addz(&w->summary, "no worker has ever come");
    } else if (w->never) {
        buf_addz(&w->summary, "no known worker could ever run it");
    } else {
        buf_addf(&w->summary, "waits for a worker, number %" PRIu64 "%s in its queue", w->position,
                 w->position_or_more ? " or later" : "");
        say_estimate(w, &o);
    }
    say_requirement(w);
    say_pools(w, &o);
}

/* A job with `rollout` has no worker. */
static void say_rollout(struct why *w)
{
    struct rollout_view v;
    if (w->job->rollout_id == 0) {
        buf_addz(&w->summary, "its rollout is about to begin");
    } else if (rollout_view_load(w->tx, w->job->rollout_id, &v)) {
        buf_addf(&w->summary, "its rollout %" PRIu64 " of %s is %s", v.record->id,
                 v.record->version, rollout_state_text(v.record->state));
        const char *waits = rollout_waits_for(&v, os_realtime_ms(), tx_arena(w->tx));
        if (strcmp(waits, rollout_state_text(v.record->state)) != 0) {
            buf_addf(&w->summary, ": %s", waits);
        }
    }
}

static void say_held(struct why *w)
{
    const Pb__AssignmentRecord *a = assignment_get(w->tx, w->job->id);
    const char *name = worker_name(w);
    char since[32];
    if (w->job->rollout) {
        say_rollout(w);
    } else if (w->job->trigger && w->job->child_pipeline_id == 0) {
        buf_addz(&w->summary, "its child pipeline is being made");
    } else if (w->job->trigger) {
        buf_addf(&w->summary, "waits for its child pipeline %" PRIu64, w->job->child_pipeline_id);
    } else if (a && a->waiting) {
        buf_addf(&w->summary, "waits for its worker %s to come back", name);
    } else if (w->job->state == JOB_ASSIGNED) {
        buf_addf(&w->summary, "is on its way to worker %s", name);
    } else if (w->job->state == JOB_CANCELING) {
        buf_addf(&w->summary, "is being canceled on worker %s", name);
    } else {
        buf_addf(&w->summary, "runs on worker %s since %s", name,
                 str_time(w->job->started_ms, since, sizeof(since)));
    }
}

static void say_ended(struct why *w)
{
    buf_addf(&w->summary, "has ended: %s", job_state_text(w->job->state));
    if (w->job->reason != REASON_NONE) {
        buf_addf(&w->summary, " (%s)", reason_text(w->job->reason));
    }
}

static void say(struct why *w)
{
    char due[32];
    switch (w->job->state) {
    case JOB_CREATED:
        say_created(w);
        break;
    case JOB_WAITING_FOR_RESOURCE:
        say_waiting_for_resource(w);
        break;
    case JOB_SCHEDULED:
        buf_addf(&w->summary, "starts at %s", str_time(w->job->timer_due_ms, due, sizeof(due)));
        break;
    case JOB_MANUAL:
        buf_addz(&w->summary, "waits for somebody to play it");
        break;
    case JOB_PENDING:
        say_pending(w);
        break;
    case JOB_ASSIGNED:
    case JOB_RUNNING:
    case JOB_CANCELING:
        say_held(w);
        break;
    case JOB_SUCCESS:
    case JOB_FAILED:
    case JOB_CANCELED:
    case JOB_SKIPPED:
    case _PB__JOB_STATE_IS_INT_SIZE:
        say_ended(w);
        break;
    }
}

int get_job_why(struct request *rq)
{
    struct why w = {.fleet = rq->api->config.fleet, .turn = rq->api->config.turn};
    int r = api_read(rq->api, &w.tx);
    if (r < 0) {
        return r;
    }
    w.job = job_get(w.tx, rq->args.id);
    if (!w.job) {
        r = tx_error(w.tx);
        tx_abort(w.tx);
        return r < 0 ? r : request_fail(rq, -E_NOT_FOUND, "there is no job %" PRIu64, rq->args.id);
    }
    w.workers = json_array();
    w.pools = json_array();
    w.estimate = json_null();
    say(&w);
    json_t *answer = json_pack("{s:o, s:s, s:o, s:o, s:b, s:o, s:b, s:o, s:o, s:o}", "job",
                               json_id(w.job->id), "status", job_state_text(w.job->state),
                               "summary", json_text(buf_cstr(&w.summary)), "position",
                               json_id(w.position), "position_or_more", (int)w.position_or_more,
                               "estimate_ms", w.estimate, "never", (int)w.never, "holder",
                               json_id(w.holder), "workers", w.workers, "empty_pools", w.pools);
    r = tx_error(w.tx);
    tx_abort(w.tx);
    buf_release(&w.summary);
    if (r < 0) {
        json_decref(answer);
        return r;
    }
    return answer_json(rq, MHD_HTTP_OK, answer);
}
