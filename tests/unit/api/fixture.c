#include "common/base.h"

#include "tests/unit/api/fixture.h"

#include "broker/core/query.h"
#include "common/crypto.h"

static void log_is_durable(void *ctx, uint64_t job_id, uint64_t attempt, uint64_t epoch,
                           uint64_t durable)
{
    struct fixture *x = ctx;
    bus_publish(x->bus, BUS_LOG, job_id);
}

static struct reply post(struct fixture *x, struct post *p)
{
    struct reply reply;
    int r = turn_call(x->turn, p, &reply);
    if (r < 0) {
        fail_msg("%s: %s", err_text(r), reply.text);
    }
    return reply;
}

static void init_store(struct fixture *x)
{
    struct post *p = post_new("test");
    Pb__InitStore *init = arena_alloc(post_arena(p), sizeof(*init));
    pb__init_store__init(init);
    init->store_id = pb_bytes(post_arena(p), STR("0123456789abcdef"));
    init->job_token_key = pb_bytes(post_arena(p), STR(JOB_KEY));
    post_command(p)->body_case = PB__COMMAND__BODY_INIT_STORE;
    post_command(p)->init_store = init;
    post(x, p);
}

static void add_token(struct fixture *x, const char *token, const char *role)
{
    struct post *p = post_new("test");
    Pb__TokenAdd *add = arena_alloc(post_arena(p), sizeof(*add));
    uint8_t hash[SHA256_BYTES];
    pb__token_add__init(add);
    crypto_sha256(token, strlen(token), hash);
    add->hash = pb_bytes(post_arena(p), str_of(hash, sizeof(hash)));
    add->name = arena_strdup(post_arena(p), str_from(role));
    add->role = arena_strdup(post_arena(p), str_from(role));
    post_command(p)->body_case = PB__COMMAND__BODY_TOKEN_ADD;
    post_command(p)->token_add = add;
    post(x, p);
}

static struct signer *the_signer;

static void start_api(struct fixture *x, uint32_t head_ms)
{
    struct buf why = BUF_INIT;
    struct api_config config = {.store = x->store,
                                .turn = x->turn,
                                .fleet = x->fleet,
                                .blobs = x->blobs,
                                .logs = x->logs,
                                .bus = x->bus,
                                .pages = x->pages,
                                .signer = x->signer,
                                .vault = x->vault,
                                .host = "127.0.0.1",
                                .ping_ms = PING_MS,
                                .head_ms = head_ms,
                                .job_uploads = JOB_UPLOADS,
                                .pipeline_uploads = PIPELINE_UPLOADS};
    if (api_start(&config, &x->api, &why) < 0) {
        fail_msg("%s", buf_cstr(&why));
    }
    api_set_ready(x->api);
    buf_release(&why);
}

void fixture_restart_api(struct fixture *x, uint32_t head_ms)
{
    api_stop(x->api);
    start_api(x, head_ms);
}

static void close_signer(void)
{
    signer_close(the_signer);
}

/* One key for all tests of a program: making it takes longer than most of them. */
static struct signer *shared_signer(void)
{
    if (the_signer == NULL) {
        struct buf why = BUF_INIT;
        char *dir = os_make_temp_dir("davit-api-key");
        char *path = os_path_join(dir, "jwt.key");
        assert_int_equal(signer_open(path, &the_signer, &why), 0);
        assert_int_equal(os_remove_tree(dir), 0);
        atexit(close_signer);
        free(path);
        free(dir);
    }
    return the_signer;
}

int setup(void **state)
{
    struct fixture *x = xcalloc(1, sizeof(*x));
    struct store_options store = {0};
    struct buf why = BUF_INIT;
    log_init("test", LOG_ERROR);
    snprintf(x->dir, sizeof(x->dir), "/tmp/davit-api-XXXXXX");
    assert_non_null(mkdtemp(x->dir));
    x->journal_dir = os_path_join(x->dir, "journal");
    char *store_dir = os_path_join(x->dir, "store");
    char *blobs_dir = os_path_join(x->dir, "blobs");
    char *logs_dir = os_path_join(x->dir, "logs");
    char *pages_dir = os_path_join(x->dir, "pages");
    x->signer = shared_signer();
    char *key_path = os_path_join(x->dir, "master.key");
    assert_int_equal(vault_open(NULL, key_path, &x->vault, &why), 0);
    free(key_path);
    x->bus = bus_new();
    x->inbox = inbox_new();
    assert_int_equal(store_open(store_dir, &store, &x->store, &why), 0);
    assert_int_equal(blobs_open(blobs_dir, &x->blobs, &why), 0);
    assert_int_equal(logs_open(logs_dir, log_is_durable, x, &x->logs, &why), 0);
    assert_int_equal(pages_open(pages_dir, x->blobs, &x->pages, &why), 0);
    struct fleet_config fleet = {.inbox = x->inbox,
                                 .logs = x->logs,
                                 .signer = x->signer,
                                 .vault = x->vault,
                                 .heartbeat_ms = 100000,
                                 .lease_ms = 1000000,
                                 .job_token = job_token};
    x->fleet = fleet_new(&fleet);
    struct turn_config turn = {.store = x->store,
                               .bus = x->bus,
                               .inbox = x->inbox,
                               .fleet = x->fleet,
                               .journal = x->journal_dir};
    assert_int_equal(turn_start(&turn, &x->turn, &why), 0);
    init_store(x);
    add_token(x, ADMIN_TOKEN, "admin");
    add_token(x, USER_TOKEN, "user");
    add_token(x, WORKER_TOKEN, "worker");
    start_api(x, 0);
    free(store_dir);
    free(blobs_dir);
    free(logs_dir);
    free(pages_dir);
    *state = x;
    return 0;
}

int teardown(void **state)
{
    struct fixture *x = *state;
    api_stop(x->api);
    turn_stop(x->turn);
    fleet_close(x->fleet);
    logs_close(x->logs);
    turn_free(x->turn);
    fleet_free(x->fleet);
    inbox_free(x->inbox);
    bus_free(x->bus);
    pages_close(x->pages);
    blobs_close(x->blobs);
    store_close(x->store);
    vault_close(x->vault);
    assert_int_equal(os_remove_tree(x->dir), 0);
    free(x->journal_dir);
    free(x);
    return 0;
}

/* --- what a worker would do --- */

uint64_t submit(struct fixture *x, const char *yaml, uint64_t *ret_first_job)
{
    return submit_ref(x, yaml, "main", ret_first_job);
}

uint64_t submit_ref(struct fixture *x, const char *yaml, const char *ref, uint64_t *ret_first_job)
{
    json_t *body = json_pack("{s:s, s:s, s:{s:s}}", "project", "group/test", "ref", ref, "files",
                             ".gitlab-ci.yml", yaml);
    char *text = json_dumps(body, 0);
    json_t *pipeline = post_json(x, 201, text, "/api/v1/pipelines");
    uint64_t id = id_of(pipeline, "id");
    if (ret_first_job) {
        *ret_first_job = id_of(json_array_get(json_object_get(pipeline, "jobs"), 0), "id");
    }
    json_decref(pipeline);
    json_decref(body);
    free(text);
    return id;
}

uint64_t submit_deploy(struct fixture *x, const char *environment)
{
    struct post *p = post_new("test");
    struct arena *a = post_arena(p);
    Pb__PipelineCreate *create = arena_alloc(a, sizeof(*create));
    Pb__PlanJob *job = arena_alloc(a, sizeof(*job));
    Pb__Plan *plan = arena_alloc(a, sizeof(*plan));
    struct reply reply;
    pb__pipeline_create__init(create);
    pb__plan__init(plan);
    pb__plan_job__init(job);
    plan->stages = arena_array(a, 1, sizeof(*plan->stages));
    plan->stages[plan->n_stages++] = arena_strdup(a, STR("deploy"));
    plan->jobs = arena_array(a, 1, sizeof(*plan->jobs));
    plan->jobs[plan->n_jobs++] = job;
    job->name = job->base_name = arena_strdup(a, STR("deploy"));
    job->script = arena_array(a, 1, sizeof(*job->script));
    job->script[job->n_script++] = pb_bytes(a, STR("true"));
    job->environment = arena_alloc(a, sizeof(*job->environment));
    pb__environment_spec__init(job->environment);
    job->environment->name = arena_strdup(a, str_from(environment));
    job->environment->tier = arena_strdup(a, STR("staging"));
    create->project = arena_strdup(a, STR("group/test"));
    create->plan = plan;
    create->ref = arena_strdup(a, STR("main"));
    create->origin = arena_strdup(a, STR("push"));
    post_command(p)->body_case = PB__COMMAND__BODY_PIPELINE_CREATE;
    post_command(p)->pipeline_create = create;
    assert_int_equal(turn_call(x->turn, p, &reply), 0);
    json_t *pipeline = get_json(x, 200, "/api/v1/pipelines/%" PRIu64, reply.pipeline_id);
    uint64_t job_id = id_of(json_array_get(json_object_get(pipeline, "jobs"), 0), "id");
    json_decref(pipeline);
    return job_id;
}

void worker_hello(struct fixture *x)
{
    worker_hello_pool(x, "shared");
}

void worker_hello_pool(struct fixture *x, const char *pool)
{
    struct post *p = post_new("worker w1");
    struct arena *a = post_arena(p);
    Pb__WorkerHello *hello = arena_alloc(a, sizeof(*hello));
    uint8_t uid[16] = "0123456789abcdef";
    pb__worker_hello__init(hello);
    memcpy(uid, pool, MIN(strlen(pool), sizeof(uid)));
    hello->uid = pb_bytes(a, str_of(uid, sizeof(uid)));
    hello->name = arena_strdup(a, STR("w1"));
    hello->pool = arena_strdup(a, str_from(pool));
    hello->host = arena_strdup(a, STR("here"));
    hello->version = arena_strdup(a, STR("0.1.0"));
    hello->executors = arena_array(a, 1, sizeof(char *));
    hello->executors[0] = arena_strdup(a, STR("shell"));
    hello->n_executors = 1;
    hello->tags = arena_array(a, 1, sizeof(char *));
    hello->tags[0] = arena_strdup(a, STR("linux"));
    hello->n_tags = 1;
    hello->slots = 4;
    hello->run_untagged = true;
    post_command(p)->body_case = PB__COMMAND__BODY_WORKER_HELLO;
    post_command(p)->worker_hello = hello;
    x->worker_id = post(x, p).worker_id;
}

void job_assign(struct fixture *x, uint64_t job_id)
{
    struct post *p = post_new("scheduler");
    Pb__Assign *c = arena_alloc(post_arena(p), sizeof(*c));
    pb__assign__init(c);
    c->job_ids = &job_id;
    c->n_job_ids = 1;
    c->worker_id = x->worker_id;
    post_command(p)->body_case = PB__COMMAND__BODY_ASSIGN;
    post_command(p)->assign = c;
    post(x, p);
}

struct hold {
    uint64_t attempt;
    uint64_t epoch;
};

static struct hold hold_of(struct fixture *x, uint64_t job_id)
{
    struct tx *tx;
    assert_int_equal(turn_fresh(x->turn), 0);
    assert_int_equal(tx_begin(x->store, false, &tx), 0);
    const Pb__JobRecord *job = job_get(tx, job_id);
    assert_non_null(job);
    struct hold hold = {job->attempt, job->epoch};
    tx_abort(tx);
    return hold;
}

static void job_acked(struct fixture *x, uint64_t job_id)
{
    struct hold hold = hold_of(x, job_id);
    struct post *p = post_new("worker w1");
    Pb__AssignAcked *c = arena_alloc(post_arena(p), sizeof(*c));
    pb__assign_acked__init(c);
    c->job_id = job_id;
    c->attempt = hold.attempt;
    c->epoch = hold.epoch;
    c->worker_id = x->worker_id;
    post_command(p)->body_case = PB__COMMAND__BODY_ASSIGN_ACKED;
    post_command(p)->assign_acked = c;
    post(x, p);
}

void job_start(struct fixture *x, uint64_t job_id)
{
    job_assign(x, job_id);
    job_acked(x, job_id);
    struct hold hold = hold_of(x, job_id);
    struct post *p = post_new("worker w1");
    Pb__JobStarted *c = arena_alloc(post_arena(p), sizeof(*c));
    pb__job_started__init(c);
    c->job_id = job_id;
    c->attempt = hold.attempt;
    c->epoch = hold.epoch;
    c->worker_id = x->worker_id;
    post_command(p)->body_case = PB__COMMAND__BODY_JOB_STARTED;
    post_command(p)->job_started = c;
    post(x, p);
}

static void post_finished(struct fixture *x, uint64_t job_id, const Pb__Outcome *o)
{
    struct hold hold = hold_of(x, job_id);
    struct post *p = post_new("worker w1");
    Pb__JobFinished *c = arena_alloc(post_arena(p), sizeof(*c));
    pb__job_finished__init(c);
    c->job_id = job_id;
    c->attempt = hold.attempt;
    c->epoch = hold.epoch;
    c->worker_id = x->worker_id;
    c->outcome = (Pb__Outcome *)pb_copy(post_arena(p), &o->base);
    c->outcome->log_size = logs_durable(x->logs, job_id, hold.attempt);
    post_command(p)->body_case = PB__COMMAND__BODY_JOB_FINISHED;
    post_command(p)->job_finished = c;
    post(x, p);
}

void job_finish(struct fixture *x, uint64_t job_id, Pb__JobState result, const uint8_t *artifact)
{
    Pb__Outcome o = PB__OUTCOME__INIT;
    Pb__ArtifactOut out = PB__ARTIFACT_OUT__INIT;
    Pb__ArtifactOut *artifacts[] = {&out};
    o.result = (uint32_t)result;
    o.reason = result == JOB_FAILED ? (uint32_t)REASON_SCRIPT_FAILURE : 0;
    o.exit_code = result == JOB_FAILED ? 3 : 0;
    if (artifact) {
        out.digest = pb_bytes_ref(str_of(artifact, SHA256_BYTES));
        out.size = 8;
        out.file_count = 1;
        out.name = (char *)"artifacts";
        o.artifacts = artifacts;
        o.n_artifacts = 1;
    }
    post_finished(x, job_id, &o);
}

void job_finish_with(struct fixture *x, uint64_t job_id, const Pb__Outcome *o)
{
    Pb__Outcome good = *o;
    good.result = (uint32_t)JOB_SUCCESS;
    post_finished(x, job_id, &good);
}

void job_log(struct fixture *x, uint64_t job_id, uint64_t offset, const char *text)
{
    uint64_t attempt = hold_of(x, job_id).attempt;
    uint64_t end = offset + strlen(text);
    assert_int_equal(logs_append(x->logs, job_id, attempt, 1, offset, text, strlen(text)), 0);
    for (int i = 0; i < 5000 && logs_durable(x->logs, job_id, attempt) < end; i++) {
        os_sleep_ms(1);
    }
    assert_int_equal(logs_durable(x->logs, job_id, attempt), end);
}

char *token_of_job(struct fixture *x, uint64_t job_id)
{
    struct hold hold = hold_of(x, job_id);
    return job_token(STR(JOB_KEY), job_id, hold.attempt, hold.epoch);
}
