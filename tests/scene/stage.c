#include "common/base.h"

#include "tests/scene/scene.h"

#include "common/crypto.h"
#include "common/limits.h"

#include <stdio.h>

void stage_init(struct stage *s, struct buf *out)
{
    *s = (struct stage){.out = out};
    world_init(&s->world);
    s->world.sched = sched_new();
    s->begin_ms = s->world.now_ms;
}

void stage_release(struct stage *s)
{
    sched_free(s->world.sched);
    world_release(&s->world);
}

/* The words of a command: "worker", "w1", "connects", and values by key "tags=linux". */
struct words {
    struct str items[16];
    size_t count;
};

static struct words split(struct str line)
{
    struct words w = {.count = 0};
    struct str word;

    while (line.n > 0 && str_split(&line, ' ', &word)) {
        if (word.n > 0) {
            check(w.count < ARRAY_LEN(w.items));
            w.items[w.count++] = word;
        }
    }
    return w;
}

static bool is(const struct words *w, size_t i, const char *word)
{
    return i < w->count && str_eqz(w->items[i], word);
}

static struct str value(const struct words *w, const char *key, const char *otherwise)
{
    for (size_t i = 0; i < w->count; i++) {
        struct str v = w->items[i], k;
        if (str_chr(v, '=') >= 0 && str_split(&v, '=', &k) && str_eqz(k, key)) {
            return v;
        }
    }
    return str_from(otherwise);
}

static uint64_t number(const struct words *w, const char *key, uint64_t otherwise)
{
    const struct str v = value(w, key, NULL);
    uint64_t n = otherwise;

    check(v.p == NULL || str_to_u64(v, &n) == 0);
    return n;
}

/* "build", or "2/build" of the second pipeline, or "queue/build", the newest without a pipeline of
 * that name; 0: there is none. */
static uint64_t job_id(struct stage *s, struct str name)
{
    struct str rest = name, part;
    uint64_t pipeline = 1;

    for (size_t i = s->lone_count; i-- > 0;) {
        if (str_eqz(name, s->lone[i].name)) {
            return s->lone[i].id;
        }
    }
    if (str_chr(name, '/') >= 0 && str_split(&rest, '/', &part) &&
        str_to_u64(part, &pipeline) == 0) {
        name = rest;
    }
    if (pipeline == 0 || pipeline > s->pipeline_count) {
        return 0;
    }
    return world_job_id(&s->world, s->pipelines[pipeline - 1],
                        arena_strdup(tx_arena(s->world.tx), name));
}

static ProtobufCBinaryData hash_of(struct stage *s, struct str text)
{
    uint8_t *hash = arena_alloc(tx_arena(s->world.tx), SHA256_BYTES);

    crypto_sha256(text.p, text.n, hash);
    return (ProtobufCBinaryData){SHA256_BYTES, hash};
}

static Pb__Variable *variable(struct stage *s, const char *name, struct str text)
{
    Pb__Variable *v = arena_alloc(tx_arena(s->world.tx), sizeof(*v));

    pb__variable__init(v);
    v->name = (char *)name;
    v->value = pb_bytes(tx_arena(s->world.tx), text);
    return v;
}

static int submit(struct stage *s, const struct words *w, struct str plan)
{
    struct arena *a = tx_arena(s->world.tx);
    Pb__PipelineCreate body = PB__PIPELINE_CREATE__INIT;
    const struct str key = value(w, "key", NULL);
    Pb__Variable *protected[] = {
        variable(s, "CI_COMMIT_REF_PROTECTED", value(w, "protected", "false"))};
    Pb__Variable *submitted[] = {variable(s, "COLOR", value(w, "color", ""))};
    int r;

    body.project = arena_strdup(a, value(w, "project", "demo"));
    body.plan = plan_from_text(a, arena_strdup(a, plan));
    body.ref = arena_strdup(a, value(w, "ref", "main"));
    body.sha = arena_strdup(a, value(w, "sha", ""));
    body.origin = (char *)"push";
    body.predefined = protected;
    body.n_predefined = value(w, "protected", NULL).p != NULL;
    body.submitted = submitted;
    body.n_submitted = value(w, "color", NULL).p != NULL;
    if (key.p != NULL) {
        body.idempotency_key = hash_of(s, key);
        body.body_hash = hash_of(s, value(w, "body", ""));
    }
    r = WORLD_APPLY(&s->world, "ann", PIPELINE_CREATE, &body);
    if (r == 0 && s->world.reply.duplicate) {
        trace(s, "known already: pipeline %zu", trace_pipeline(s, s->world.reply.pipeline_id));
    } else if (r == 0) {
        check(s->pipeline_count < ARRAY_LEN(s->pipelines));
        s->pipelines[s->pipeline_count++] = s->world.reply.pipeline_id;
    }
    trace_result(s, r);
    return 0;
}

/* enqueue keep=1h delay=1m key=K body=B, then plan lines: jobs without a pipeline. */
static int enqueue(struct stage *s, const struct words *w, struct str text)
{
    struct arena *a = tx_arena(s->world.tx);
    const Pb__Plan *plan = plan_from_text(a, arena_strdup(a, text));
    Pb__EnqueueJob **jobs = arena_array(a, plan->n_jobs + 1, sizeof(*jobs));
    const struct str key = value(w, "key", NULL);
    uint64_t keep_ms = 0, delay_ms = 0;
    int r;

    if (str_to_duration_ms(value(w, "keep", "0s"), &keep_ms) < 0 ||
        str_to_duration_ms(value(w, "delay", "0s"), &delay_ms) < 0) {
        return -E_USAGE;
    }
    for (size_t i = 0; i < plan->n_jobs; i++) {
        jobs[i] = enqueue_job(a, plan->jobs[i], keep_ms);
        jobs[i]->not_before_ms = delay_ms > 0 ? s->world.now_ms + delay_ms : 0;
        if (key.p != NULL) {
            jobs[i]->idempotency_key = hash_of(s, key);
            jobs[i]->body_hash = hash_of(s, value(w, "body", ""));
        }
    }
    r = world_enqueue_jobs(&s->world, jobs, plan->n_jobs);
    for (size_t i = 0; r == 0 && i < plan->n_jobs; i++) {
        if (s->world.reply.jobs[i].duplicate) {
            trace(s, "known already: %s", trace_job(s, s->world.reply.jobs[i].job_id));
            continue;
        }
        check(s->lone_count < ARRAY_LEN(s->lone));
        s->lone[s->lone_count].id = s->world.reply.jobs[i].job_id;
        snprintf(s->lone[s->lone_count].name, sizeof(s->lone[0].name), "queue/%s",
                 plan->jobs[i]->name);
        s->lone_count++;
    }
    trace_result(s, r);
    return 0;
}

/* child JOB epoch=N, then plan lines: the child pipeline of a trigger job. */
static int child(struct stage *s, const struct words *w, struct str plan)
{
    struct arena *a = tx_arena(s->world.tx);
    Pb__PipelineCreate body = PB__PIPELINE_CREATE__INIT;
    const uint64_t id = w->count > 1 ? job_id(s, w->items[1]) : 0;
    const Pb__JobRecord *job = id != 0 ? job_get(s->world.tx, id) : NULL;
    const Pb__PipelineRecord *p = job != NULL ? pipeline_get(s->world.tx, job->pipeline_id) : NULL;
    int r;

    if (p == NULL) {
        return -E_USAGE;
    }
    body.project = project_get(s->world.tx, p->project_id)->name;
    body.plan = plan_from_text(a, arena_strdup(a, plan));
    body.ref = p->ref;
    body.sha = p->sha;
    body.parent_job_id = job->id;
    body.parent_epoch = number(w, "epoch", job->epoch);
    r = WORLD_APPLY(&s->world, "trigger", PIPELINE_CREATE, &body);
    if (r == 0) {
        check(s->pipeline_count < ARRAY_LEN(s->pipelines));
        s->pipelines[s->pipeline_count++] = s->world.reply.pipeline_id;
    }
    trace_result(s, r);
    return 0;
}

/* trigger JOB fails epoch=N */
static int trigger_fails(struct stage *s, const struct words *w)
{
    Pb__TriggerFailed body = PB__TRIGGER_FAILED__INIT;
    const uint64_t id = w->count > 2 ? job_id(s, w->items[1]) : 0;

    if (id == 0 || !is(w, 2, "fails")) {
        return -E_USAGE;
    }
    body.job_id = id;
    body.epoch = number(w, "epoch", job_get(s->world.tx, id)->epoch);
    body.detail = (char *)"child.yml:1:1: no jobs";
    trace_result(s, WORLD_APPLY(&s->world, "trigger", TRIGGER_FAILED, &body));
    return 0;
}

/* stop NAME force: an environment of the project demo */
static int stop_environment(struct stage *s, const struct words *w)
{
    const Pb__ProjectRecord *p = project_by_name(s->world.tx, "demo");
    const Pb__EnvironmentRecord *e = NULL;

    if (p != NULL && w->count > 1) {
        e = environment_by_name(s->world.tx, p->id,
                                arena_strdup(tx_arena(s->world.tx), w->items[1]));
    }
    if (e == NULL) {
        return -E_USAGE;
    }
    trace_result(s, world_stop_environment(&s->world, e->id, is(w, 2, "force")));
    return 0;
}

/* cache JOB key=K bytes=TEXT size=N */
static int set_cache(struct stage *s, const struct words *w)
{
    Pb__CacheSet body = PB__CACHE_SET__INIT;

    body.job_id = w->count > 1 ? job_id(s, w->items[1]) : 0;
    body.key = pb_bytes(tx_arena(s->world.tx), value(w, "key", "default"));
    body.digest = hash_of(s, value(w, "bytes", ""));
    body.size = number(w, "size", 1);
    trace_result(s, WORLD_APPLY(&s->world, "fleet", CACHE_SET, &body));
    return 0;
}

static void copy_word(char *to, size_t n, struct str word)
{
    snprintf(to, n, STR_FMT, STR_ARG(word));
}

static void connect(struct stage *s, const struct words *w)
{
    struct actor *a = actor_find(s, w->items[1]);

    if (a == NULL) {
        check(s->actor_count < ARRAY_LEN(s->actors));
        a = &s->actors[s->actor_count++];
        copy_word(a->name, sizeof(a->name), w->items[1]);
    }
    copy_word(a->tags, sizeof(a->tags), value(w, "tags", ""));
    copy_word(a->executors, sizeof(a->executors), value(w, "executors", "shell"));
    copy_word(a->pool, sizeof(a->pool), value(w, "pool", ""));
    a->memory = number(w, "memory", 0);
    a->slots = (uint32_t)number(w, "slots", 1);
    a->untagged = !str_eqz(value(w, "untagged", "yes"), "no");
    actor_connect(s, a);
}

/* The worker's copy of a job: its last attempt under the present epoch, or an older one as said. */
struct claim {
    uint64_t job_id;
    uint64_t attempt;
    uint64_t epoch;
    uint64_t worker_id;
};

static struct claim claim_of(struct stage *s, const struct actor *a, const struct words *w)
{
    struct claim c = {.job_id = job_id(s, w->items[3]), .worker_id = a->worker_id};
    const Pb__JobRecord *job = job_get(s->world.tx, c.job_id);

    c.epoch = number(w, "epoch", job != NULL ? job->epoch : 0);
    c.attempt = c.epoch; /* both rise with each assignment */
    return c;
}

#define FILL(body, claim)                      \
    do {                                       \
        (body)->job_id = (claim).job_id;       \
        (body)->attempt = (claim).attempt;     \
        (body)->epoch = (claim).epoch;         \
        (body)->worker_id = (claim).worker_id; \
    } while (0)

static int ack(struct stage *s, struct claim c)
{
    Pb__AssignAcked body = PB__ASSIGN_ACKED__INIT;

    FILL(&body, c);
    return WORLD_APPLY(&s->world, "fleet", ASSIGN_ACKED, &body);
}

static int start(struct stage *s, struct claim c)
{
    Pb__JobStarted body = PB__JOB_STARTED__INIT;

    FILL(&body, c);
    return WORLD_APPLY(&s->world, "fleet", JOB_STARTED, &body);
}

static int give_back(struct stage *s, struct claim c)
{
    Pb__JobReturned body = PB__JOB_RETURNED__INIT;

    FILL(&body, c);
    return WORLD_APPLY(&s->world, "fleet", JOB_RETURNED, &body);
}

/* dotenv=NAME:VALUE,NAME:VALUE */
static void add_dotenv(struct stage *s, const struct words *w, Pb__Outcome *o)
{
    struct arena *a = tx_arena(s->world.tx);
    struct str rest = value(w, "dotenv", ""), item, name;

    o->dotenv = arena_array(a, 16, sizeof(*o->dotenv));
    while (rest.n > 0 && o->n_dotenv < 16 && str_split(&rest, ',', &item)) {
        str_split(&item, ':', &name);
        o->dotenv[o->n_dotenv++] = variable(s, arena_strdup(a, name), item);
    }
}

static void add_publishing(struct stage *s, const struct words *w, Pb__Outcome *o)
{
    struct arena *a = tx_arena(s->world.tx);
    const struct str tag = value(w, "release", NULL), prefix = value(w, "pages", NULL);

    o->has_coverage = value(w, "coverage", NULL).p != NULL;
    o->coverage_hundredths = (uint32_t)number(w, "coverage", 0);
    o->environment_url = pb_bytes(a, value(w, "url", ""));
    if (tag.p != NULL) {
        o->release = arena_alloc(a, sizeof(*o->release));
        pb__release_spec__init(o->release);
        o->release->tag_name = pb_bytes(a, tag);
    }
    if (prefix.p != NULL) {
        o->pages = arena_alloc(a, sizeof(*o->pages));
        pb__pages_out__init(o->pages);
        o->pages->path_prefix = pb_bytes(a, prefix);
        o->pages->expire_in_ms = 1000 * number(w, "shown", 0);
    }
}

static int finish(struct stage *s, struct claim c, const struct words *w)
{
    Pb__JobFinished body = PB__JOB_FINISHED__INIT;
    Pb__Outcome o = PB__OUTCOME__INIT;
    Pb__ArtifactOut artifact = PB__ARTIFACT_OUT__INIT;
    Pb__ArtifactOut *artifacts[] = {&artifact};
    const struct str kept = value(w, "keeps", NULL);
    Pb__Reason reason = REASON_SCRIPT_FAILURE;

    FILL(&body, c);
    o.exit_code = (int32_t)number(w, "exit", 0);
    o.result = o.exit_code == 0 ? JOB_SUCCESS : JOB_FAILED;
    if (value(w, "reason", NULL).p != NULL) {
        check(reason_from_text(arena_strdup(tx_arena(s->world.tx), value(w, "reason", "")),
                               &reason) == 0);
        o.result = JOB_FAILED;
    }
    if (is(w, w->count - 1, "canceled")) {
        o.result = JOB_CANCELED;
    }
    o.reason = o.result == JOB_FAILED ? reason : REASON_NONE;
    if (kept.p != NULL) {
        artifact.digest = hash_of(s, kept);
        artifact.size = kept.n;
        artifact.expire_in_ms = 1000 * number(w, "for", 0);
        artifact.type = arena_strdup(tx_arena(s->world.tx), value(w, "type", ""));
        o.artifacts = artifacts;
        o.n_artifacts = 1;
    }
    add_dotenv(s, w, &o);
    add_publishing(s, w, &o);
    body.outcome = &o;
    return WORLD_APPLY(&s->world, "fleet", JOB_FINISHED, &body);
}

static int set_worker(struct stage *s, const struct actor *a, const struct words *w)
{
    Pb__WorkerSet body = PB__WORKER_SET__INIT;

    body.worker_id = a->worker_id;
    body.has_paused = is(w, 2, "pauses") || is(w, 2, "resumes");
    body.paused = is(w, 2, "pauses");
    body.has_draining = is(w, 2, "drains") || is(w, 2, "undrains");
    body.draining = is(w, 2, "drains");
    if ((!body.has_paused && !body.has_draining) ||
        str_to_duration_ms(value(w, "within", "0s"), &body.drain_for_ms) < 0) {
        return -E_USAGE;
    }
    trace_result(s, WORLD_APPLY(&s->world, "ann", WORKER_SET, &body));
    return 0;
}

/* worker NAME VERB JOB: what a worker says of a job. */
static int worker_job(struct stage *s, const struct actor *a, const struct words *w)
{
    const struct claim c = claim_of(s, a, w);

    if (is(w, 2, "acknowledges")) {
        trace_result(s, ack(s, c));
    } else if (is(w, 2, "starts")) { /* acknowledged in one breath, unless it was before */
        ack(s, c);
        trace_result(s, start(s, c));
    } else if (is(w, 2, "finishes")) {
        trace_result(s, finish(s, c, w));
    } else if (is(w, 2, "runs")) {
        ack(s, c);
        start(s, c);
        trace_result(s, finish(s, c, w));
    } else if (is(w, 2, "returns")) {
        trace_result(s, give_back(s, c));
    } else {
        return -E_USAGE;
    }
    return 0;
}

static int worker(struct stage *s, const struct words *w)
{
    struct actor *a = w->count > 2 ? actor_find(s, w->items[1]) : NULL;

    if (is(w, 2, "connects")) {
        connect(s, w);
    } else if (a == NULL) {
        return -E_USAGE;
    } else if (is(w, 2, "goes") && is(w, 3, "silent")) {
        a->online = false;
        a->lost_at_ms = s->world.now_ms + LEASE_MS;
    } else if (is(w, 2, "returns") && w->count == 3) {
        actor_return(s, a, 0);
    } else if (is(w, 2, "returns") && is(w, 3, "without") && w->count == 5) {
        actor_return(s, a, job_id(s, w->items[4]));
    } else if (w->count > 3 && !is(w, 2, "drains")) {
        return worker_job(s, a, w);
    } else {
        return set_worker(s, a, w);
    }
    return 0;
}

static int play(struct stage *s, uint64_t id, struct str color, bool confirmed)
{
    Pb__JobPlay body = PB__JOB_PLAY__INIT;
    Pb__Variable *variables[] = {variable(s, "COLOR", color)};

    body.job_id = id;
    body.variables = variables;
    body.n_variables = color.p != NULL;
    body.confirmed = confirmed;
    return WORLD_APPLY(&s->world, "ann", JOB_PLAY, &body);
}

/* cancel|retry|play JOB, cancel|retry pipeline N */
static int control(struct stage *s, const struct words *w)
{
    uint64_t n;

    if (is(w, 1, "pipeline") && w->count > 2 && str_to_u64(w->items[2], &n) == 0 && n > 0 &&
        n <= s->pipeline_count) {
        const uint64_t id = s->pipelines[n - 1];
        trace_result(s,
                     is(w, 0, "cancel") ? world_cancel(&s->world, id) : world_retry(&s->world, id));
        return 0;
    }
    if (w->count < 2) {
        return -E_USAGE;
    }
    n = job_id(s, w->items[1]);
    if (is(w, 0, "cancel")) {
        trace_result(s, world_cancel_job(&s->world, n));
    } else if (is(w, 0, "retry")) {
        trace_result(s, world_retry_job(&s->world, n));
    } else {
        trace_result(s, play(s, n, value(w, "color", NULL), is(w, w->count - 1, "confirmed")));
    }
    return 0;
}

/* Everything that ended so long ago, as the turn does it; or one step with at most so many rows. */
static int expire(struct stage *s, const struct words *w)
{
    const uint64_t max = number(w, "rows", LIMIT_EXPIRE_BATCH);
    const bool whole = value(w, "rows", NULL).p == NULL;
    uint64_t keep_ms;
    int r;

    if (str_to_duration_ms(value(w, "keep", ""), &keep_ms) < 0 || keep_ms >= s->world.now_ms) {
        return -E_USAGE;
    }
    do {
        r = world_expire(&s->world, (uint32_t)max, s->world.now_ms - keep_ms);
        trace_result(s, r);
        if (r == 0) {
            trace(s, "%" PRIu64 " expired", s->world.reply.expired);
        }
    } while (whole && r == 0 && core_next_expiry_ms(s->world.tx, keep_ms) <= s->world.now_ms);
    return 0;
}

static void holder(void *ctx, const Pb__AssignmentRecord *a)
{
    struct stage *s = ctx;

    trace(s, "%s holds %s attempt %" PRIu64 " epoch %" PRIu64 "%s%s", trace_worker(s, a->worker_id),
          trace_job(s, a->job_id), a->attempt, a->epoch, a->acked ? "" : ", not acknowledged",
          a->waiting ? ", away" : "");
}

static void restart(struct stage *s)
{
    world_reopen(&s->world);
    sched_free(s->world.sched);
    s->world.sched = sched_new();
    for (size_t i = 0; i < s->actor_count; i++) {
        s->actors[i].online = false;
        s->actors[i].lost_at_ms = s->world.now_ms + LEASE_MS; /* one full lease to come back */
    }
    core_recover(s->world.tx, holder, s);
    effects_clear(&s->world.fx);
    core_recover_triggers(s->world.tx, &s->world.fx);
    trace_result(s, 0);
}

/* pool NAME projects=a,b protected=yes locked=yes max=N each=N timeout=10s preempt=yes */
static int set_pool(struct stage *s, const struct words *w)
{
    struct arena *a = tx_arena(s->world.tx);
    struct str projects = value(w, "projects", NULL), one;
    Pb__PoolSet body = PB__POOL_SET__INIT;

    body.name = arena_strdup(a, w->count > 1 ? w->items[1] : STR_NULL);
    body.has_projects = projects.p != NULL;
    body.projects = arena_array(a, 16, sizeof(*body.projects));
    while (projects.n > 0 && body.n_projects < 16 && str_split(&projects, ',', &one)) {
        body.projects[body.n_projects++] = arena_strdup(a, one);
    }
    body.has_protected = value(w, "protected", NULL).p != NULL;
    body.protected_ = str_eqz(value(w, "protected", ""), "yes");
    body.has_locked = value(w, "locked", NULL).p != NULL;
    body.locked = str_eqz(value(w, "locked", ""), "yes");
    body.has_max_running = value(w, "max", NULL).p != NULL;
    body.max_running = (uint32_t)number(w, "max", 0);
    body.has_project_max_running = value(w, "each", NULL).p != NULL;
    body.project_max_running = (uint32_t)number(w, "each", 0);
    body.has_preempt = value(w, "preempt", NULL).p != NULL;
    body.preempt = str_eqz(value(w, "preempt", ""), "yes");
    body.has_queue_timeout = value(w, "timeout", NULL).p != NULL;
    if (body.has_queue_timeout &&
        str_to_duration_ms(value(w, "timeout", ""), &body.queue_timeout_ms) < 0) {
        return -E_USAGE;
    }
    trace_result(s, WORLD_APPLY(&s->world, "ann", POOL_SET, &body));
    return 0;
}

/* pool NAME goes */
static int delete_pool(struct stage *s, const struct words *w)
{
    Pb__PoolDelete body = PB__POOL_DELETE__INIT;

    body.name = arena_strdup(tx_arena(s->world.tx), w->items[1]);
    trace_result(s, WORLD_APPLY(&s->world, "ann", POOL_DELETE, &body));
    return 0;
}

/* project NAME weight=N max=N */
static int set_project(struct stage *s, const struct words *w)
{
    Pb__ProjectSet body = PB__PROJECT_SET__INIT;

    body.name = arena_strdup(tx_arena(s->world.tx), w->count > 1 ? w->items[1] : STR_NULL);
    body.has_weight = value(w, "weight", NULL).p != NULL;
    body.weight = (uint32_t)number(w, "weight", 0);
    body.has_max_running = value(w, "max", NULL).p != NULL;
    body.max_running = (uint32_t)number(w, "max", 0);
    trace_result(s, WORLD_APPLY(&s->world, "ann", PROJECT_SET, &body));
    return 0;
}

/* group NAME mode=oldest_first, of the project demo */
static int set_group(struct stage *s, const struct words *w)
{
    static const char *const modes[] = {"unordered", "oldest_first", "newest_first",
                                        "newest_ready_first"};
    Pb__ResourceGroupSet body = PB__RESOURCE_GROUP_SET__INIT;
    unsigned mode = 0;

    while (mode < ARRAY_LEN(modes) && !str_eqz(value(w, "mode", ""), modes[mode])) {
        mode++;
    }
    body.project = (char *)"demo";
    body.name = arena_strdup(tx_arena(s->world.tx), w->count > 1 ? w->items[1] : STR_NULL);
    body.mode = (Pb__ProcessMode)mode;
    trace_result(s, WORLD_APPLY(&s->world, "ann", RESOURCE_GROUP_SET, &body));
    return 0;
}

static int settings(struct stage *s, const struct words *w)
{
    if (is(w, 0, "pool")) {
        return is(w, 2, "goes") ? delete_pool(s, w) : set_pool(s, w);
    } else if (is(w, 0, "project")) {
        return set_project(s, w);
    }
    return set_group(s, w);
}

static int ask(struct stage *s, const struct words *w)
{
    const uint64_t id = w->count > 1 ? job_id(s, w->items[1]) : 0;

    if (is(w, 0, "show")) {
        trace_show(s);
    } else if (is(w, 0, "rows")) {
        trace_rows(s);
    } else if (id == 0) {
        return -E_USAGE;
    } else if (is(w, 0, "spec")) {
        trace_spec(s, id);
    } else if (is(w, 0, "why")) {
        trace_why(s, id);
    } else {
        return -E_USAGE;
    }
    return 0;
}

static int play_words(struct stage *s, const struct words *w, struct str plan)
{
    uint64_t ms;

    if (is(w, 0, "submit")) {
        return submit(s, w, plan);
    } else if (is(w, 0, "enqueue")) {
        return enqueue(s, w, plan);
    } else if (is(w, 0, "child")) {
        return child(s, w, plan);
    } else if (is(w, 0, "trigger")) {
        return trigger_fails(s, w);
    } else if (is(w, 0, "stop")) {
        return stop_environment(s, w);
    } else if (is(w, 0, "cache")) {
        return set_cache(s, w);
    } else if (is(w, 0, "worker")) {
        return worker(s, w);
    } else if (is(w, 0, "cancel") || is(w, 0, "retry") || is(w, 0, "play")) {
        return control(s, w);
    } else if (is(w, 0, "elapse") && w->count == 2 && str_to_duration_ms(w->items[1], &ms) == 0) {
        stage_elapse(s, ms);
        return 0;
    } else if (is(w, 0, "rollout")) {
        return rollout_play(s, w->items, w->count);
    } else if (is(w, 0, "restart")) {
        restart(s);
        return 0;
    } else if (is(w, 0, "expire")) {
        return expire(s, w);
    } else if (is(w, 0, "pool") || is(w, 0, "project") || is(w, 0, "group")) {
        return settings(s, w);
    }
    return ask(s, w);
}

int stage_play(struct stage *s, struct str command, struct str plan)
{
    const struct words w = split(command);
    const int r = play_words(s, &w, plan);

    if (r < 0) {
        buf_addf(s->out, "no such command: " STR_FMT "\n", STR_ARG(command));
        return r;
    }
    stage_schedule(s);
    return 0;
}
