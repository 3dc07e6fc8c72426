/* Random pipelines under random commands, valid and not. After each command the world checks that a
 * refused one wrote nothing and that the audit finds no breach; at the end all work is finished,
 * every pipeline has ended, and the same commands on an empty store give the same store.
 *
 * DAVIT_SEED=N runs that seed alone; a failure's seed is the last one printed. */
#include "common/base.h"

#include "tests/kit/world.h"

#include "common/crypto.h"
#include "common/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define STEPS         1500u
#define WORKERS       4u
#define PIPELINES_MAX 26u
#define CHILDREN_MAX  30u

struct chaos {
    struct world w;
    struct buf log;
    uint64_t seed;
    uint64_t pipelines;
    uint64_t children;
    uint64_t refused;
    uint64_t finished;
    uint64_t displaced;
};

static uint64_t next(struct chaos *c)
{
    c->seed ^= c->seed << 13;
    c->seed ^= c->seed >> 7;
    c->seed ^= c->seed << 17;
    return c->seed;
}

static uint64_t below(struct chaos *c, uint64_t n)
{
    return next(c) % n;
}

static bool one_in(struct chaos *c, uint64_t n)
{
    return below(c, n) == 0;
}

static const char *choose(struct chaos *c, const char *const *list, size_t n)
{
    return list[below(c, n)];
}

#define CHOOSE(c, ...)                              \
    choose((c), (const char *const[]){__VA_ARGS__}, \
           sizeof((const char *const[]){__VA_ARGS__}) / sizeof(char *))

/* Needs of earlier jobs, as plan_from_text wants them. */
static void add_needs(struct chaos *c, struct buf *text, unsigned index)
{
    const char *sep = "";

    buf_addz(text, " needs=");
    for (unsigned i = 0; i < index; i++) {
        if (one_in(c, 3)) {
            buf_addf(text, "%sj%u", sep, i);
            sep = ",";
        }
    }
    buf_addz(text, sep[0] == '\0' ? "none" : "");
}

/* Of what a job does besides running; the job that stops an environment must stand before. */
static void add_extras(struct chaos *c, struct buf *text, unsigned index)
{
    buf_addz(text, CHOOSE(c, "", "", "", "", "", "", "", " unsupported=secrets"));
    buf_addz(text, CHOOSE(c, "", "", "", " confirm=sure?"));
    if (index == 0 && one_in(c, 2)) {
        buf_addz(text, " env=review/x action=stop");
    } else if (one_in(c, 3)) {
        buf_addf(text, " env=%s", CHOOSE(c, "staging", "review/x"));
        buf_addz(text, CHOOSE(c, "", "", " action=stop", " action=verify"));
        buf_addz(text, CHOOSE(c, "", " auto_stop=40s", " tier=other"));
        buf_addz(text, CHOOSE(c, "", index > 0 ? " on_stop=j0" : "")); /* wrong at times */
    }
}

static void add_job(struct chaos *c, struct buf *text, unsigned index, unsigned stage)
{
    const bool delayed = one_in(c, 9);

    buf_addf(text, "j%u: stage=s%u", index, stage);
    /* Who waits for a child holds one group alone: two could wait for each other for ever. */
    buf_addz(text, CHOOSE(c, "", "", "", " group=g1", " group=g2", " trigger=none group=g2",
                          " trigger=depend", " trigger=mirror group=g1", " trigger=mirror"));
    buf_addz(text, CHOOSE(c, "", "", "", " priority=5", " interruptible=yes", " pool=fast"));
    buf_addz(text, CHOOSE(c, "", "", " allow_failure=yes", " allow_failure=7"));
    buf_addz(text, CHOOSE(c, "", "", " retry=1", " retry=2", " retry=2 retry_when=script_failure",
                          " retry=1 retry_codes=7"));
    buf_addz(text, CHOOSE(c, "", "", " lost=fail", " lost=wait"));
    buf_addz(text, CHOOSE(c, "", " tags=a", " tags=a,b"));
    buf_addz(text, CHOOSE(c, "", " priority=3", " priority=-2"));
    buf_addz(text, CHOOSE(c, "", " interruptible=yes"));
    buf_addz(text, CHOOSE(c, "", " timeout=1m"));
    buf_addz(text, delayed
                       ? " when=delayed start_in=20s"
                       : CHOOSE(c, "", "", "", " when=on_failure", " when=always", " when=manual"));
    if (one_in(c, 2)) {
        add_needs(c, text, index);
    }
    add_extras(c, text, index);
    buf_addz(text, "\n");
}

static Pb__Plan *random_plan(struct chaos *c)
{
    struct buf text = BUF_INIT;
    const unsigned jobs = 1 + (unsigned)below(c, 9);
    unsigned stage = 0;
    Pb__Plan *plan;

    buf_addz(&text, CHOOSE(c, "", "plan: on_job_failure=all\n", "plan: auto_cancel=yes\n",
                           "plan: auto_cancel=interruptible\n"));
    for (unsigned i = 0; i < jobs; i++) {
        stage += i > 0 && one_in(c, 3);
        add_job(c, &text, i, stage);
    }
    plan = plan_from_text(tx_arena(c->w.tx), buf_cstr(&text));
    buf_release(&text);
    return plan;
}

/* Makes a right plan wrong, most of the time. */
static void spoil(struct chaos *c, Pb__Plan *plan)
{
    Pb__PlanJob *job = plan->jobs[below(c, plan->n_jobs)];

    switch (below(c, 9)) {
    case 7:
        if (job->environment != NULL) {
            job->environment->name = (char *)"/bad";
        }
        break;
    case 8:
        if (job->trigger != NULL) {
            job->trigger->config.len = 0;
        }
        break;
    case 0:
        job->stage += 1 + (uint32_t)below(c, 3);
        break;
    case 1:
        job->name = plan->jobs[0]->name;
        break;
    case 2:
        if (job->n_needs > 0) {
            job->needs[0]->job = (uint32_t)below(c, 12);
        }
        break;
    case 3:
        job->when = (Pb__When)below(c, 9);
        break;
    case 4:
        job->retry_max = 3;
        break;
    case 5:
        plan->n_stages--;
        break;
    default:
        job->name = (char *)"bad\x01name";
        break;
    }
}

static int submit(struct chaos *c)
{
    static uint8_t keys[4][SHA256_BYTES];
    Pb__PipelineCreate body = PB__PIPELINE_CREATE__INIT;
    Pb__SnapshotSource snapshot = PB__SNAPSHOT_SOURCE__INIT;
    Pb__Source source = PB__SOURCE__INIT;
    const uint64_t key = below(c, 8);
    int r;

    body.project = (char *)CHOOSE(c, "demo", "other/project");
    body.ref = (char *)CHOOSE(c, "main", "feature");
    body.sha = (char *)CHOOSE(c, "", "1", "2");
    body.plan = random_plan(c);
    if (one_in(c, 5)) {
        spoil(c, body.plan);
    }
    if (key < ARRAY_LEN(keys)) {
        keys[key][0] = (uint8_t)(key + 1);
        body.idempotency_key = (ProtobufCBinaryData){SHA256_BYTES, keys[key]};
        body.body_hash = (ProtobufCBinaryData){SHA256_BYTES, keys[one_in(c, 6) ? 0 : key]};
    }
    snapshot.digest = (ProtobufCBinaryData){SHA256_BYTES, keys[0]};
    source.from_case = PB__SOURCE__FROM_SNAPSHOT;
    source.snapshot = &snapshot;
    body.source = one_in(c, 2) ? &source : NULL;
    body.bundle = one_in(c, 2) ? &snapshot : NULL;
    r = WORLD_APPLY(&c->w, "tester", PIPELINE_CREATE, &body);
    c->pipelines += r == 0 && !c->w.reply.duplicate;
    return r;
}

static uint64_t random_id(struct chaos *c)
{
    return 1 + below(c, meta_get(c->w.tx)->next_id + 2);
}

/* The id in some row's key; 0: the table is empty. */
static uint64_t random_key(struct chaos *c, enum table t)
{
    const uint64_t count = tx_count(c->w.tx, t);
    uint64_t skip, id = 0;
    struct cursor cur;

    if (count == 0) {
        return 0;
    }
    skip = below(c, count);
    tx_seek(&cur, c->w.tx, t, STR_NULL, NULL);
    for (; skip > 0; skip--) {
        tx_next(&cur);
    }
    id = key_read_u64(cur.key, 0);
    cursor_end(&cur);
    return id;
}

/* The child of a trigger job that waits for it, or of any other; or why it cannot be made. */
static int trigger_command(struct chaos *c)
{
    const uint64_t open = random_key(c, T_TRIGGER);
    const uint64_t id = open != 0 && !one_in(c, 10) ? open : random_id(c);
    int r;

    if (one_in(c, 4) || c->children >= CHILDREN_MAX) {
        return world_trigger_failed(&c->w, id, "no such file");
    }
    r = world_child(&c->w, id, random_plan(c));
    c->children += r == 0;
    if (r == -E_LIMIT || r == -E_INVALID) { /* as its maker does it */
        return world_trigger_failed(&c->w, id, c->w.reply.text);
    }
    return r;
}

static int environment_command(struct chaos *c)
{
    const uint64_t known = random_key(c, T_ENVIRONMENT);

    return world_stop_environment(&c->w, known != 0 && !one_in(c, 10) ? known : random_id(c),
                                  one_in(c, 3));
}

static int pipeline_command(struct chaos *c)
{
    const uint64_t id = random_id(c);

    return one_in(c, 3) ? world_cancel(&c->w, id) : world_retry(&c->w, id);
}

static int job_command(struct chaos *c)
{
    const uint64_t id = random_id(c);

    switch (below(c, 4)) {
    case 0:
        return world_cancel_job(&c->w, id);
    case 1:
        return world_retry_job(&c->w, id);
    case 2:
        return world_play(&c->w, id);
    default:
        return world_play_confirmed(&c->w, id);
    }
}

static uint64_t hello(struct chaos *c, unsigned number)
{
    char name[8] = {'w', (char)('0' + number)};

    /* The first two could run everything, one in each pool. */
    return world_worker_in(&c->w, number == 1 ? "fast" : "", 0, name,
                           number <= 1 ? "a,b" : CHOOSE(c, "", "a", "b"), "shell",
                           1 + (uint32_t)below(c, 3), number <= 1 || one_in(c, 2));
}

static int worker_command(struct chaos *c)
{
    Pb__WorkerSet body = PB__WORKER_SET__INIT;

    if (one_in(c, 3)) {
        hello(c, (unsigned)below(c, WORKERS));
        return 0;
    }
    body.worker_id = random_id(c);
    body.has_paused = one_in(c, 2);
    body.paused = one_in(c, 2);
    body.has_draining = one_in(c, 2);
    body.draining = one_in(c, 2);
    return WORLD_APPLY(&c->w, "ann", WORKER_SET, &body);
}

static void tell_workers(struct chaos *c, struct sched *s)
{
    struct cursor cur;

    for (tx_seek(&cur, c->w.tx, T_WORKER, STR_NULL, NULL); cur.valid; tx_next(&cur)) {
        const Pb__WorkerRecord *w = worker_get(c->w.tx, key_read_u64(cur.key, 0));
        sched_worker(s, w->id, w, !w->paused && !w->draining);
    }
}

/* One that learned step by step knows what one that has just read the store knows. Only it knows
 * who had how much before, so they may choose others, and by that one more or less; but neither
 * finds nothing where the other finds something. */
static void check_scheduler(struct chaos *c, size_t proposed)
{
    struct sched *fresh = sched_new();
    struct sched_proposal todo[3];
    struct sched_stat stat, fresh_stat;
    size_t n;

    tell_workers(c, fresh);
    n = sched_propose(fresh, c->w.tx, c->w.now_ms, todo, ARRAY_LEN(todo));
    assert_int_equal(n > 0, proposed > 0);
    sched_stat(c->w.sched, &stat);
    sched_stat(fresh, &fresh_stat);
    assert_int_equal(fresh_stat.running, tx_count(c->w.tx, T_ASSIGNMENT) + n);
    assert_int_equal(stat.running, tx_count(c->w.tx, T_ASSIGNMENT) + proposed);
    sched_free(fresh);
}

/* Likewise of who gives way; one whose worker is away is the only one it may be wrong of. */
static int make_way(struct chaos *c)
{
    Pb__JobPreempt body = PB__JOB_PREEMPT__INIT;
    struct sched_victim v;

    while (sched_preempt(c->w.sched, &v)) {
        const Pb__AssignmentRecord *a = assignment_get(c->w.tx, v.job_id);
        const bool waiting = a->waiting;
        body.job_id = v.job_id;
        body.epoch = a->epoch;
        body.for_job_id = v.for_job_id;
        const int r = WORLD_APPLY(&c->w, "scheduler", JOB_PREEMPT, &body);
        assert_int_equal(r, waiting ? -E_CONFLICT : 0);
        if (r == 0) {
            assert_int_equal(world_assign(&c->w, v.for_job_id, v.worker_id), 0);
            c->displaced++;
            return 0;
        }
    }
    return 0;
}

static int schedule(struct chaos *c)
{
    struct sched_proposal todo[3];
    size_t n;
    int r = 0;

    if (one_in(c, 8)) {
        return world_assign(&c->w, random_id(c), random_id(c));
    }
    tell_workers(c, c->w.sched);
    n = sched_propose(c->w.sched, c->w.tx, c->w.now_ms, todo, ARRAY_LEN(todo));
    check_scheduler(c, n);
    if (n == 0) {
        return make_way(c);
    }
    for (size_t i = 0; i < n && r == 0; i++) {
        r = world_assign(&c->w, todo[i].job_id, todo[i].worker_id);
        assert_int_equal(r, 0); /* alone in its turn, the scheduler is right */
    }
    return r;
}

/* Some job that a worker holds; 0: none. */
static uint64_t random_held(struct chaos *c)
{
    return random_key(c, T_ASSIGNMENT);
}

static int cache_command(struct chaos *c)
{
    static uint8_t digests[2][SHA256_BYTES] = {{7}, {8}};
    Pb__CacheSet body = PB__CACHE_SET__INIT;
    Pb__CacheDelete goes = PB__CACHE_DELETE__INIT;
    const uint64_t held = random_held(c);

    if (one_in(c, 5)) {
        goes.project = (char *)CHOOSE(c, "demo", "none");
        goes.key = pb_bytes(tx_arena(c->w.tx), str_from(CHOOSE(c, "", "a", "b", "c", "d")));
        return WORLD_APPLY(&c->w, "ann", CACHE_DELETE, &goes);
    }
    body.job_id = held != 0 && !one_in(c, 10) ? held : random_id(c);
    body.key = pb_bytes(tx_arena(c->w.tx), str_from(CHOOSE(c, "", "a", "b", "c", "d")));
    body.digest = (ProtobufCBinaryData){SHA256_BYTES, digests[below(c, 2)]};
    body.size = below(c, 2) * LIMIT_BLOB_BYTES;
    return WORLD_APPLY(&c->w, "fleet", CACHE_SET, &body);
}

/* Variables, a release, pages of the artifact: right ones and wrong ones. */
static void add_outcome(struct chaos *c, Pb__Outcome *o)
{
    static uint8_t value[36 * 1024];
    struct arena *a = tx_arena(c->w.tx);

    o->has_coverage = one_in(c, 2);
    o->environment_url = pb_bytes(a, str_from(CHOOSE(c, "", "http://x")));
    if (one_in(c, 3)) {
        o->dotenv = arena_array(a, 2, sizeof(*o->dotenv));
        o->n_dotenv = 1 + below(c, 2);
        for (size_t i = 0; i < o->n_dotenv; i++) {
            o->dotenv[i] = arena_alloc(a, sizeof(Pb__Variable));
            pb__variable__init(o->dotenv[i]);
            o->dotenv[i]->name = one_in(c, 20) ? (char *)"1" : (char *)CHOOSE(c, "A", "B", "C");
            o->dotenv[i]->value = (ProtobufCBinaryData){below(c, sizeof(value)), value};
        }
    }
    if (one_in(c, 4)) {
        o->release = arena_alloc(a, sizeof(*o->release));
        pb__release_spec__init(o->release);
        o->release->tag_name = pb_bytes(a, str_from(one_in(c, 9) ? "" : CHOOSE(c, "v1", "v2")));
    }
    if (o->n_artifacts > 0 && strcmp(o->artifacts[0]->type, one_in(c, 9) ? "" : "pages") == 0) {
        o->pages = arena_alloc(a, sizeof(*o->pages));
        pb__pages_out__init(o->pages);
        o->pages->path_prefix = pb_bytes(a, str_from(CHOOSE(c, "", "mr-1")));
        o->pages->expire_in_ms = one_in(c, 2) ? 0 : 1 + below(c, 100000);
    }
}

static int finish(struct chaos *c, uint64_t id)
{
    static uint8_t digests[3][SHA256_BYTES] = {{1}, {2}, {3}};
    Pb__Outcome o = PB__OUTCOME__INIT;
    Pb__ArtifactOut artifact = PB__ARTIFACT_OUT__INIT;
    Pb__ArtifactOut *artifacts[] = {&artifact};
    int r;

    o.result = (uint32_t[]){JOB_SUCCESS, JOB_SUCCESS, JOB_FAILED, JOB_CANCELED}[below(c, 4)];
    o.reason = o.result == JOB_FAILED ? (uint32_t)below(c, 20) : 0;
    o.exit_code = o.result == JOB_FAILED ? (one_in(c, 2) ? 7 : 1) : 0;
    artifact.digest = (ProtobufCBinaryData){one_in(c, 20) ? 5 : SHA256_BYTES, digests[below(c, 3)]};
    artifact.size = 10;
    artifact.expire_in_ms = one_in(c, 3) ? 0 : 1 + below(c, 100000);
    artifact.type = (char *)CHOOSE(c, "", "pages", "junit");
    o.artifacts = artifacts;
    o.n_artifacts = one_in(c, 2);
    add_outcome(c, &o);
    r = world_finished(&c->w, id, &o);
    c->finished += r == 0;
    return r;
}

/* What the fleet says of a held job: under the right key, or one that is a little off. */
static int fleet_command(struct chaos *c)
{
    const uint64_t id = random_held(c);
    const Pb__AssignmentRecord *a = assignment_get(c->w.tx, id);
    Pb__JobReturned returned = PB__JOB_RETURNED__INIT;
    Pb__WorkerReclaimed reclaimed = PB__WORKER_RECLAIMED__INIT;

    if (a == NULL) {
        return 0;
    }
    switch (below(c, 8)) {
    case 0:
    case 1:
        return world_acked(&c->w, id);
    case 2:
    case 3:
        return world_started(&c->w, id);
    case 4:
        return world_lost(&c->w, id);
    case 5:
        returned.job_id = id;
        returned.epoch = a->epoch;
        returned.attempt = a->attempt;
        returned.worker_id = a->worker_id + one_in(c, 4);
        return WORLD_APPLY(&c->w, "fleet", JOB_RETURNED, &returned);
    case 6:
        reclaimed.job_id = id;
        reclaimed.epoch = a->epoch - one_in(c, 4);
        reclaimed.attempt = a->attempt;
        reclaimed.worker_id = a->worker_id;
        return WORLD_APPLY(&c->w, "fleet", WORKER_RECLAIMED, &reclaimed);
    default:
        return finish(c, id);
    }
}

/* A small share of what is due: pipelines are seen half deleted by the commands that follow. */
static int expire_command(struct chaos *c)
{
    const uint64_t keep_ms = below(c, 400000);

    return world_expire(&c->w, one_in(c, 20) ? (uint32_t)random_id(c) : 1 + (uint32_t)below(c, 30),
                        c->w.now_ms > keep_ms && !one_in(c, 4) ? c->w.now_ms - keep_ms : 0);
}

/* Everything goes but what environments need, and what is below or above it. */
static void expire_everything(struct chaos *c)
{
    uint64_t needed;

    /* Also what was needed at another time, and is looked at again a day later. */
    world_elapse(&c->w, 25ull * 3600 * 1000);
    needed = tx_count(c->w.tx, T_PIPELINE_NEEDED);
    while (core_next_expiry_ms(c->w.tx, 1000) <= c->w.now_ms) {
        assert_int_equal(world_expire(&c->w, LIMIT_EXPIRE_BATCH, c->w.now_ms - 1000), 0);
    }
    assert_int_equal(tx_count(c->w.tx, T_PIPELINE_GONE), 0);
    assert_int_equal(tx_count(c->w.tx, T_PIPELINE_NEEDED), needed);
    assert_true(tx_count(c->w.tx, T_PIPELINE_ENDED) <= needed);
    assert_true(needed > 0 || (tx_count(c->w.tx, T_JOB) == tx_count(c->w.tx, T_JOB_PLAN) &&
                               tx_count(c->w.tx, T_PIPELINE_EVENT) == 0));
}

static int enqueue_command(struct chaos *c)
{
    static uint8_t keys[4][32] = {"k0", "k1", "k2", "k3"};
    struct arena *a = tx_arena(c->w.tx);
    const char *text = CHOOSE(c, "a:\n", "a: tags=x\nb: group=g\nc: retry=1\n",
                              "a: group=g lost=wait\nb: priority=2 interruptible\n",
                              "a: when=manual\n");
    Pb__Plan *plan = plan_from_text(a, text);
    Pb__EnqueueJob *jobs[3];

    for (size_t i = 0; i < plan->n_jobs; i++) {
        jobs[i] = enqueue_job(a, plan->jobs[i], one_in(c, 2) ? 0 : below(c, 200000));
        jobs[i]->not_before_ms = one_in(c, 4) ? c->w.now_ms + below(c, 20000) : 0;
        if (one_in(c, 4)) {
            jobs[i]->idempotency_key = (ProtobufCBinaryData){32, keys[below(c, 4)]};
            jobs[i]->body_hash = (ProtobufCBinaryData){32, keys[below(c, 2)]};
        }
    }
    return world_enqueue_jobs(&c->w, jobs, plan->n_jobs);
}

static int odd_command(struct chaos *c)
{
    Pb__TimerFired fired = PB__TIMER_FIRED__INIT;
    Pb__ProjectCreate project = PB__PROJECT_CREATE__INIT;
    Pb__InitStore init = PB__INIT_STORE__INIT;
    Pb__ClockJumped jumped = PB__CLOCK_JUMPED__INIT;
    Pb__Command *cmd;

    switch (below(c, 5)) {
    case 4:
        jumped.by_ms = below(c, 100000);
        c->w.now_ms += jumped.by_ms;
        return WORLD_APPLY(&c->w, "clock", CLOCK_JUMPED, &jumped);
    case 0:
        fired.due_ms = core_next_due_ms(c->w.tx);
        fired.timer_id = random_id(c);
        return WORLD_APPLY(&c->w, "timer", TIMER_FIRED, &fired);
    case 1:
        project.name = (char *)CHOOSE(c, "demo", "", "third", "x\ny");
        return WORLD_APPLY(&c->w, "ann", PROJECT_CREATE, &project);
    case 2:
        return WORLD_APPLY(&c->w, "ann", INIT_STORE, &init);
    default:
        cmd = world_command(&c->w, "ann");
        cmd->version = (uint32_t)below(c, 3);
        return world_apply(&c->w, cmd);
    }
}

static int group_command(struct chaos *c)
{
    Pb__ResourceGroupSet body = PB__RESOURCE_GROUP_SET__INIT;

    body.project = (char *)CHOOSE(c, "demo", "demo", "nobody");
    body.name = (char *)CHOOSE(c, "g1", "g2");
    /* By the others a child may wait for a later job of its parent, which waits for the child. */
    body.mode = one_in(c, 2) ? PB__PROCESS_MODE__PROCESS_NEWEST_READY_FIRST
                             : (Pb__ProcessMode)(4 * below(c, 2));
    return WORLD_APPLY(&c->w, "ann", RESOURCE_GROUP_SET, &body);
}

static int preempt_command(struct chaos *c)
{
    Pb__JobPreempt body = PB__JOB_PREEMPT__INIT;
    const uint64_t held = random_held(c);
    const Pb__JobRecord *job = held != 0 ? job_get(c->w.tx, held) : NULL;

    body.job_id = held;
    body.epoch = job != NULL ? job->epoch - one_in(c, 10) : 0;
    body.for_job_id = random_id(c);
    return WORLD_APPLY(&c->w, "scheduler", JOB_PREEMPT, &body);
}

static int pool_command(struct chaos *c)
{
    Pb__PoolSet body = PB__POOL_SET__INIT;
    Pb__PoolDelete goes = PB__POOL_DELETE__INIT;

    body.name = goes.name = (char *)CHOOSE(c, "fast", "slow");
    body.has_locked = one_in(c, 2);
    body.locked = one_in(c, 2);
    body.has_preempt = true;
    body.preempt = !one_in(c, 4);
    body.has_queue_timeout = true;
    body.queue_timeout_ms = below(c, 2) * 100000;
    return one_in(c, 3) ? WORLD_APPLY(&c->w, "ann", POOL_DELETE, &goes)
                        : WORLD_APPLY(&c->w, "ann", POOL_SET, &body);
}

static int settings_command(struct chaos *c)
{
    switch (below(c, 3)) {
    case 0:
        return group_command(c);
    case 1:
        return preempt_command(c);
    default:
        return pool_command(c);
    }
}

static int step(struct chaos *c)
{
    const uint64_t dice = below(c, 103);

    if (dice >= 100) {
        return settings_command(c);
    } else if (dice < 6) {
        return c->pipelines < PIPELINES_MAX ? submit(c) : 0;
    } else if (dice < 9) {
        return trigger_command(c);
    } else if (dice < 11) {
        return environment_command(c);
    } else if (dice < 13) {
        return cache_command(c);
    } else if (dice < 16) {
        return expire_command(c);
    } else if (dice < 18) {
        return enqueue_command(c);
    } else if (dice < 36) {
        return schedule(c);
    } else if (dice < 75) {
        return fleet_command(c);
    } else if (dice < 85) {
        return job_command(c);
    } else if (dice < 88) {
        return pipeline_command(c);
    } else if (dice < 92) {
        return worker_command(c);
    } else if (dice < 97) {
        world_elapse(&c->w, below(c, one_in(c, 10) ? 700000 : 15000));
        return 0;
    }
    return odd_command(c);
}

/* Plays what waits for people. False: nothing did. */
static bool play_all(struct chaos *c)
{
    struct cursor cur;
    uint64_t ids[512];
    size_t n = 0;

    for (tx_seek(&cur, c->w.tx, T_JOB, STR_NULL, NULL); cur.valid && n < 512; tx_next(&cur)) {
        const uint64_t id = key_read_u64(cur.key, 0);
        const Pb__JobRecord *job = job_get(c->w.tx, id); /* NULL: hidden */
        if (job != NULL && job->state == JOB_MANUAL) {
            ids[n++] = id;
        }
    }
    cursor_end(&cur);
    for (size_t i = 0; i < n; i++) {
        world_play_confirmed(&c->w, ids[i]);
    }
    return n > 0;
}

static void finish_everything(struct chaos *c)
{
    for (unsigned rounds = 0; tx_count(c->w.tx, T_PIPELINE_LIVE) > 0; rounds++) {
        Pb__WorkerSet set = PB__WORKER_SET__INIT;
        assert_true(rounds < 2000); /* else some pipeline hangs */
        set.worker_id = hello(c, rounds % 2);
        set.has_paused = set.has_draining = true;
        WORLD_APPLY(&c->w, "ann", WORKER_SET, &set);
        schedule(c);
        while (tx_count(c->w.tx, T_TRIGGER) > 0) {
            trigger_command(c);
        }
        while (tx_count(c->w.tx, T_ASSIGNMENT) > 0) {
            const uint64_t id = random_held(c);
            world_acked(&c->w, id);
            world_started(&c->w, id);
            finish(c, id);
        }
        if (rounds % 8 == 0) {
            world_elapse(&c->w, 30000);
            play_all(c);
        }
    }
}

static void replay(struct chaos *c)
{
    uint8_t want[32], have[32];
    struct world w;
    size_t at = 0;

    world_hash(&c->w, want);
    world_init(&w);
    w.audit = false;
    while (at < c->log.n) {
        Pb__Command *cmd;
        uint32_t size;
        memcpy(&size, c->log.p + at, sizeof(size));
        at += sizeof(size);
        assert_int_equal(
            PB_UNPACK(tx_arena(w.tx), command, c->log.p + at, size, LIMIT_COMMAND, &cmd), 0);
        at += size;
        assert_int_equal(world_apply(&w, cmd), 0);
    }
    world_hash(&w, have);
    assert_memory_equal(want, have, sizeof(want));
    world_release(&w);
}

static void run_seed(uint64_t seed)
{
    struct chaos c = {.seed = seed * 0x9e3779b97f4a7c15u + 1};
    uint64_t applied, gone;

    printf("  seed %" PRIu64 ": ", seed);
    fflush(stdout);
    world_init(&c.w);
    c.w.sched = sched_new();
    buf_init(&c.log, 0);
    c.w.log = &c.log;
    for (unsigned i = 0; i < WORKERS; i++) {
        hello(&c, i);
    }
    for (unsigned i = 0; i < STEPS; i++) {
        c.refused += step(&c) < 0;
        if (i % 50 == 0) {
            world_commit(&c.w);
        }
    }
    applied = c.w.applied;
    gone = c.w.expired;
    finish_everything(&c);
    printf("%" PRIu64 " pipelines, %" PRIu64 " children, %" PRIu64 " commands, %" PRIu64
           " to the end, %" PRIu64 " refused, %" PRIu64 " displaced, %" PRIu64 " expired\n",
           c.pipelines, c.children, applied, c.w.applied - applied, c.refused, c.displaced, gone);
    assert_true(c.pipelines > 3 && c.finished > 20 && c.refused > 20);
    expire_everything(&c);
    replay(&c);
    sched_free(c.w.sched);
    world_release(&c.w);
    buf_release(&c.log);
}

static void random_commands_leave_every_rule_unbroken(void **state)
{
    const char *one = getenv("DAVIT_SEED");
    const uint64_t first = one != NULL ? strtoull(one, NULL, 10) : 1;

    for (uint64_t seed = first; seed < first + (one != NULL ? 1 : 3); seed++) {
        run_seed(seed);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_commands_leave_every_rule_unbroken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
