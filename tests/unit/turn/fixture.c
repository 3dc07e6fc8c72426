#include "common/base.h"

#include "tests/unit/turn/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "broker/core/query.h"
#include "common/crypto.h"
#include "common/os.h"

#define WAIT_MS       5000u
#define SEGMENT_BYTES (128u * 1024) /* so small that it is full now and then */

static void log_is_durable(void *ctx, uint64_t job_id, uint64_t attempt, uint64_t epoch,
                           uint64_t durable)
{
    struct fixture *f = ctx;
    struct item *item = item_new(ITEM_LOG);

    item->job_id = job_id;
    item->attempt = attempt;
    item->epoch = epoch;
    item->durable = durable;
    inbox_push_event(f->inbox, item);
}

static char *job_token(struct str key, uint64_t job_id, uint64_t attempt, uint64_t epoch)
{
    assert_int_equal(key.n, 32);
    return xstrdup("token of the test");
}

static void clocks(void *ctx, uint64_t *ret_real_ms, uint64_t *ret_mono_ms)
{
    const struct fixture *f = ctx;

    *ret_real_ms = f->real_ms;
    *ret_mono_ms = f->mono_ms;
}

void fixture_start(struct fixture *f)
{
    struct store_options store = {.map_bytes = f->options.map_bytes};
    struct buf why = BUF_INIT;
    char *store_dir = os_path_join(f->dir, "store");
    char *logs_dir = os_path_join(f->dir, "logs");
    char url[64];

    f->bus = bus_new();
    f->inbox = inbox_new();
    assert_int_equal(store_open(store_dir, &store, &f->store, &why), 0);
    assert_int_equal(logs_open(logs_dir, log_is_durable, f, &f->logs, &why), 0);
    struct fleet_config fleet = {
        .inbox = f->inbox,
        .logs = f->logs,
        .job_token = job_token,
        .heartbeat_ms = f->options.heartbeat_ms != 0 ? f->options.heartbeat_ms : 100000,
        .lease_ms = f->options.lease_ms != 0 ? f->options.lease_ms : 1000000,
        .hello_ms = f->options.hello_ms,
    };
    f->fleet = fleet_new(&fleet);
    struct turn_config turn = {.store = f->store,
                               .bus = f->bus,
                               .inbox = f->inbox,
                               .fleet = f->fleet,
                               .trigger = f->options.trigger,
                               .journal = f->options.no_journal ? NULL : f->journal_dir,
                               .segment_bytes = SEGMENT_BYTES,
                               .relaxed_ms = f->options.relaxed_ms,
                               .keep_pipelines_ms = f->options.keep_pipelines_ms};
    if (f->options.stepped) {
        turn.clock = clocks;
        turn.ctx = f;
        assert_int_equal(turn_new(&turn, &f->turn, &why), 0);
    } else {
        assert_int_equal(turn_start(&turn, &f->turn, &why), 0);
    }
    if (f->options.listen) {
        snprintf(url, sizeof(url), "tcp://127.0.0.1:%u", f->port);
        assert_int_equal(fleet_listen(f->fleet, url, "http://127.0.0.1:1", &f->port, &why), 0);
    }
    free(store_dir);
    free(logs_dir);
    buf_release(&why);
}

void fixture_end(struct fixture *f)
{
    fleet_close(f->fleet);
    logs_close(f->logs);
    turn_free(f->turn);
    fleet_free(f->fleet);
    inbox_free(f->inbox);
    bus_free(f->bus);
    store_close(f->store);
}

static void stop(struct fixture *f)
{
    turn_stop(f->turn);
    fixture_end(f);
}

struct answer {
    bool done;
    int r;
    struct reply reply;
};

static void take_answer(void *ctx, int r, const struct reply *reply)
{
    struct answer *a = ctx;

    *a = (struct answer){.done = true, .r = r, .reply = *reply};
}

int fixture_call(struct fixture *f, struct post *p, struct reply *ret_reply)
{
    struct answer a = {.done = false};

    if (!f->options.stepped) {
        return turn_call(f->turn, p, ret_reply);
    }
    assert_int_equal(turn_submit(f->turn, p, take_answer, &a), 0);
    assert_int_equal(turn_step(f->turn), 0);
    assert_true(a.done);
    *ret_reply = a.reply;
    return a.r;
}

static void call(struct fixture *f, struct post *p)
{
    struct reply reply;
    assert_int_equal(fixture_call(f, p, &reply), 0);
}

static void init_store(struct fixture *f)
{
    struct post *p = post_new("test");
    Pb__InitStore *init = arena_alloc(post_arena(p), sizeof(*init));
    pb__init_store__init(init);
    init->store_id = pb_bytes(post_arena(p), STR("0123456789abcdef"));
    init->job_token_key = pb_bytes(post_arena(p), STR("0123456789abcdef0123456789abcdef"));
    post_command(p)->body_case = PB__COMMAND__BODY_INIT_STORE;
    post_command(p)->init_store = init;
    call(f, p);
}

static void add_token(struct fixture *f, const char *token, const char *role)
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
    call(f, p);
}

void fixture_up(struct fixture *f, const struct fixture_options *o)
{
    memset(f, 0, sizeof(*f));
    f->options = *o;
    f->real_ms = 1000000000000u; /* some day in 2001 */
    f->mono_ms = 1000;
    snprintf(f->dir, sizeof(f->dir), "/tmp/davit-test-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->journal_dir, sizeof(f->journal_dir), "%s/journal", f->dir);
    fixture_start(f);
    if (o->empty) {
        return;
    }
    init_store(f);
    add_token(f, FIXTURE_WORKER_TOKEN, "worker");
    add_token(f, FIXTURE_ADMIN_TOKEN, "admin");
    add_token(f, FIXTURE_USER_TOKEN, "user");
}

void fixture_down(struct fixture *f)
{
    stop(f);
    assert_int_equal(os_remove_tree(f->dir), 0);
}

void fixture_restart(struct fixture *f)
{
    stop(f);
    fixture_start(f);
}

void fixture_kill(struct fixture *f)
{
    fixture_end(f);
    fixture_start(f);
}

void fixture_read(struct fixture *f, struct tx **ret)
{
    assert_int_equal(turn_fresh(f->turn), 0);
    assert_int_equal(tx_begin(f->store, false, ret), 0);
}

static Pb__PlanJob *plan_job(struct arena *a, size_t index)
{
    Pb__PlanJob *job = arena_alloc(a, sizeof(*job));
    pb__plan_job__init(job);
    job->name = arena_printf(a, "job %zu", index);
    job->base_name = job->name;
    job->script = arena_array(a, 1, sizeof(*job->script));
    job->script[0] = pb_bytes(a, STR("true"));
    job->n_script = 1;
    return job;
}

struct post *fixture_pipeline_post(const char *project, size_t jobs)
{
    struct post *p = post_new("test");
    struct arena *a = post_arena(p);
    Pb__PipelineCreate *create = arena_alloc(a, sizeof(*create));
    Pb__Plan *plan = arena_alloc(a, sizeof(*plan));

    pb__pipeline_create__init(create);
    pb__plan__init(plan);
    plan->stages = arena_array(a, 1, sizeof(*plan->stages));
    plan->stages[0] = arena_strdup(a, STR("test"));
    plan->n_stages = 1;
    plan->jobs = arena_array(a, jobs, sizeof(*plan->jobs));
    for (size_t i = 0; i < jobs; i++) {
        plan->jobs[plan->n_jobs++] = plan_job(a, i);
    }
    create->project = arena_strdup(a, str_from(project));
    create->plan = plan;
    create->ref = arena_strdup(a, STR("main"));
    create->sha = arena_strdup(a, STR("0000000000000000000000000000000000000001"));
    create->origin = arena_strdup(a, STR("api"));
    post_command(p)->body_case = PB__COMMAND__BODY_PIPELINE_CREATE;
    post_command(p)->pipeline_create = create;
    return p;
}

uint64_t fixture_submit_post(struct fixture *f, struct post *p)
{
    struct reply reply;
    struct tx *tx;

    assert_int_equal(fixture_call(f, p, &reply), 0);
    fixture_read(f, &tx);
    const Pb__PipelineRecord *pipeline = pipeline_get(tx, reply.pipeline_id);
    assert_non_null(pipeline);
    uint64_t first = pipeline->first_job_id;
    tx_abort(tx);
    return first;
}

uint64_t fixture_submit(struct fixture *f, size_t jobs)
{
    return fixture_submit_post(f, fixture_pipeline_post("group/test", jobs));
}

void fixture_revoke_token(struct fixture *f, const char *token)
{
    struct post *p = post_new("test");
    Pb__TokenRevoke *revoke = arena_alloc(post_arena(p), sizeof(*revoke));
    uint8_t hash[SHA256_BYTES];

    pb__token_revoke__init(revoke);
    crypto_sha256(token, strlen(token), hash);
    revoke->id = pb_bytes(post_arena(p), str_of(hash, TOKEN_ID_BYTES));
    post_command(p)->body_case = PB__COMMAND__BODY_TOKEN_REVOKE;
    post_command(p)->token_revoke = revoke;
    call(f, p);
}

int fixture_cancel_job(struct fixture *f, uint64_t job_id)
{
    struct post *p = post_new("test");
    Pb__JobCancel *cancel = arena_alloc(post_arena(p), sizeof(*cancel));
    struct reply reply;

    pb__job_cancel__init(cancel);
    cancel->job_id = job_id;
    post_command(p)->body_case = PB__COMMAND__BODY_JOB_CANCEL;
    post_command(p)->job_cancel = cancel;
    return fixture_call(f, p, &reply);
}

struct job_facts {
    Pb__JobState state;
    uint64_t epoch;
    uint64_t attempt;
    uint32_t losses;
};

static struct job_facts job_facts(struct fixture *f, uint64_t job_id)
{
    struct tx *tx;

    fixture_read(f, &tx);
    const Pb__JobRecord *job = job_get(tx, job_id);
    assert_non_null(job);
    struct job_facts facts = {job->state, job->epoch, job->attempt, job->losses};
    tx_abort(tx);
    return facts;
}

Pb__JobState fixture_job_state(struct fixture *f, uint64_t job_id)
{
    return job_facts(f, job_id).state;
}

uint64_t fixture_job_epoch(struct fixture *f, uint64_t job_id)
{
    return job_facts(f, job_id).epoch;
}

uint64_t fixture_job_attempt(struct fixture *f, uint64_t job_id)
{
    return job_facts(f, job_id).attempt;
}

uint32_t fixture_job_losses(struct fixture *f, uint64_t job_id)
{
    return job_facts(f, job_id).losses;
}

bool fixture_wait_job(struct fixture *f, uint64_t job_id, Pb__JobState state)
{
    uint64_t until_ms = os_monotonic_ms() + WAIT_MS;

    while (fixture_job_state(f, job_id) != state) {
        if (os_monotonic_ms() > until_ms) {
            return false;
        }
        os_sleep_ms(2);
    }
    return true;
}

static void print_breach(void *ctx, const char *text)
{
    print_error("%s\n", text);
}

void fixture_audit(struct fixture *f)
{
    struct tx *tx;

    fixture_read(f, &tx);
    assert_int_equal(core_audit(tx, print_breach, NULL), 0);
    tx_abort(tx);
}
