/* Jobs without a pipeline: what is taken, what becomes of them, what is left of them. */
#include "common/base.h"

#include "tests/kit/world.h"

#include "common/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define HOUR_MS (3600ull * 1000)
#define DAY_MS  (24 * HOUR_MS)

struct queue {
    struct world w;
    uint64_t w1;
};

static int set_up(void **state)
{
    struct queue *q = xcalloc(1, sizeof(*q));

    world_init(&q->w);
    q->w1 = world_worker(&q->w, "w1", "linux", "shell", 4, true);
    *state = q;
    return 0;
}

static int tear_down(void **state)
{
    struct queue *q = *state;

    world_release(&q->w);
    free(q);
    return 0;
}

static Pb__Plan *plan(struct queue *q, const char *text)
{
    return plan_from_text(tx_arena(q->w.tx), text);
}

/* The first job's id. */
static uint64_t enqueue(struct queue *q, const char *text, uint64_t keep_ms)
{
    if (world_enqueue(&q->w, plan(q, text), keep_ms) < 0) {
        fail_msg("%s", q->w.reply.text);
    }
    return q->w.reply.jobs[0].job_id;
}

static int finish(struct queue *q, uint64_t job_id, Pb__JobState result)
{
    Pb__Outcome o = PB__OUTCOME__INIT;

    o.result = result;
    o.reason = result == JOB_FAILED ? REASON_SCRIPT_FAILURE : REASON_NONE;
    o.exit_code = result == JOB_FAILED ? 3 : 0;
    return world_finished(&q->w, job_id, &o);
}

static const char *state_of(struct queue *q, uint64_t job_id)
{
    const Pb__JobRecord *job = job_get(q->w.tx, job_id);

    return job != NULL ? job_state_text(job->state) : "gone";
}

static const struct effect *effect_of(struct queue *q, enum effect_kind kind)
{
    for (size_t i = 0; i < q->w.fx.count; i++) {
        if (q->w.fx.items[i].kind == kind) {
            return &q->w.fx.items[i];
        }
    }
    return NULL;
}

static void a_success_that_is_not_kept_leaves_nothing(void **state)
{
    struct queue *q = *state;
    const uint64_t events = meta_get(q->w.tx)->next_event;
    const uint64_t id = enqueue(q, "a: tags=linux\nb:\n", 0), other = q->w.reply.jobs[1].job_id;
    const struct effect *e;

    assert_int_equal(q->w.reply.job_count, 2);
    assert_int_equal(tx_count(q->w.tx, T_READY), 2);
    assert_int_equal(world_assign_all(&q->w, (uint64_t[]){id, other}, 2, q->w1), 0);
    assert_string_equal(attempt_get(q->w.tx, id, 1)->worker_name, "w1");
    q->w.now_ms += 5;
    assert_int_equal(finish(q, id, JOB_SUCCESS), 0); /* never acknowledged, never started */
    e = effect_of(q, EFFECT_ENDED);
    assert_non_null(e);
    assert_int_equal(e->job_id, id);
    assert_int_equal(e->state, JOB_SUCCESS);
    assert_int_equal(effect_of(q, EFFECT_FINISHED)->worker_id, q->w1);
    assert_string_equal(state_of(q, id), "gone");
    assert_int_equal(finish(q, other, JOB_SUCCESS), 0);
    for (int t = 0; t < TABLE_COUNT; t++) {
        if (t == T_JOB || t == T_JOB_PLAN || t == T_ATTEMPT || t == T_READY || t == T_TIMER ||
            t == T_ASSIGNMENT || t == T_WORKER_JOB || t == T_EXPIRE) {
            assert_int_equal(tx_count(q->w.tx, (enum table)t), 0);
        }
    }
    assert_int_equal(meta_get(q->w.tx)->next_event, events + 1); /* the project */
    assert_int_equal(finish(q, id, JOB_SUCCESS), -E_NOT_FOUND);
}

static void what_is_kept_goes_when_its_time_is_over(void **state)
{
    struct queue *q = *state;
    const uint64_t good = enqueue(q, "good:\nbad:\n", HOUR_MS), bad = q->w.reply.jobs[1].job_id;

    world_run(&q->w, good, q->w1, JOB_SUCCESS);
    world_run(&q->w, bad, q->w1, JOB_FAILED);
    assert_int_equal(effect_of(q, EFFECT_ENDED)->reason, REASON_SCRIPT_FAILURE);
    assert_int_equal(attempt_get(q->w.tx, good, 1)->state, JOB_SUCCESS);
    assert_int_equal(tx_count(q->w.tx, T_EXPIRE), 2);
    assert_int_equal(core_next_expiry_ms(q->w.tx, 0), q->w.now_ms + HOUR_MS);
    world_elapse(&q->w, HOUR_MS - 1);
    assert_int_equal(world_expire(&q->w, 100, 0), 0);
    assert_string_equal(state_of(q, good), "success");
    world_elapse(&q->w, 1);
    assert_int_equal(world_expire(&q->w, 100, 0), 0);
    assert_int_equal(q->w.reply.expired, 1);
    assert_string_equal(state_of(q, good), "gone");
    assert_string_equal(state_of(q, bad), "failed");
    world_elapse(&q->w, 7 * DAY_MS);
    assert_int_equal(world_expire(&q->w, 100, 0), 0);
    assert_string_equal(state_of(q, bad), "gone");
    assert_int_equal(tx_count(q->w.tx, T_ATTEMPT), 0);
}

static void a_retry_takes_it_from_the_list_of_what_goes(void **state)
{
    struct queue *q = *state;
    const uint64_t id = enqueue(q, "a: retry=1\n", 0);

    world_run(&q->w, id, q->w1, JOB_FAILED);
    assert_string_equal(state_of(q, id), "pending"); /* its own retry */
    assert_null(effect_of(q, EFFECT_ENDED));
    world_run(&q->w, id, q->w1, JOB_FAILED);
    assert_string_equal(state_of(q, id), "failed");
    assert_int_equal(world_retry_job(&q->w, id), 0);
    assert_int_equal(tx_count(q->w.tx, T_EXPIRE), 0);
    world_run(&q->w, id, q->w1, JOB_SUCCESS);
    assert_string_equal(state_of(q, id), "gone");
    assert_int_equal(tx_count(q->w.tx, T_ATTEMPT), 0);
}

static void a_cancel_ends_it_in_every_state(void **state)
{
    struct queue *q = *state;
    const uint64_t waiting = enqueue(q, "a:\nb:\n", 0), running = q->w.reply.jobs[1].job_id;
    Pb__Outcome o = PB__OUTCOME__INIT;

    assert_int_equal(world_cancel_job(&q->w, waiting), 0);
    assert_int_equal(effect_of(q, EFFECT_ENDED)->state, JOB_CANCELED);
    assert_int_equal(world_cancel_job(&q->w, waiting), -E_CONFLICT);
    assert_int_equal(world_assign(&q->w, running, q->w1), 0);
    assert_int_equal(world_started(&q->w, running), 0);
    assert_int_equal(world_cancel_job(&q->w, running), 0);
    assert_string_equal(state_of(q, running), "canceling");
    o.result = JOB_CANCELED;
    assert_int_equal(world_finished(&q->w, running, &o), 0);
    assert_string_equal(state_of(q, running), "canceled");
    assert_int_equal(attempt_get(q->w.tx, running, 1)->state, JOB_CANCELED);
}

static void not_before_is_a_timer(void **state)
{
    struct queue *q = *state;
    Pb__EnqueueJob *e = enqueue_job(tx_arena(q->w.tx), plan(q, "a:\n")->jobs[0], 0);
    uint64_t id;

    e->not_before_ms = q->w.now_ms + HOUR_MS;
    assert_int_equal(world_enqueue_jobs(&q->w, &e, 1), 0);
    id = q->w.reply.jobs[0].job_id;
    assert_string_equal(state_of(q, id), "scheduled");
    world_elapse(&q->w, HOUR_MS - 1);
    assert_string_equal(state_of(q, id), "scheduled");
    world_elapse(&q->w, 1);
    assert_string_equal(state_of(q, id), "pending");
    e->not_before_ms = q->w.now_ms; /* now */
    assert_int_equal(world_enqueue_jobs(&q->w, &e, 1), 0);
    assert_string_equal(state_of(q, q->w.reply.jobs[0].job_id), "pending");
}

static void a_key_means_one_job(void **state)
{
    struct queue *q = *state;
    struct arena *a = tx_arena(q->w.tx);
    static uint8_t key[32] = "key", other[32] = "other", body[32] = "body", changed[32] = "changed";
    Pb__Plan *p = plan(q, "a:\nb:\nc:\n");
    Pb__EnqueueJob *e[3];
    uint64_t id;

    for (size_t i = 0; i < 3; i++) {
        e[i] = enqueue_job(a, p->jobs[i], 0);
        e[i]->idempotency_key = (ProtobufCBinaryData){32, i == 1 ? other : key};
        e[i]->body_hash = (ProtobufCBinaryData){32, body};
    }
    assert_int_equal(world_enqueue_jobs(&q->w, e, 3), 0);
    id = q->w.reply.jobs[0].job_id;
    assert_false(q->w.reply.jobs[0].duplicate || q->w.reply.jobs[1].duplicate);
    assert_true(q->w.reply.jobs[2].duplicate);
    assert_int_equal(q->w.reply.jobs[2].job_id, id);
    assert_int_equal(tx_count(q->w.tx, T_JOB), 2);
    world_run(&q->w, id, q->w1, JOB_SUCCESS);
    assert_int_equal(world_enqueue_jobs(&q->w, e, 1), 0); /* gone, and known all the same */
    assert_true(q->w.reply.jobs[0].duplicate);
    assert_int_equal(q->w.reply.jobs[0].job_id, id);
    e[2]->body_hash.data = changed;
    assert_int_equal(world_enqueue_jobs(&q->w, &e[2], 1), -E_KEY_REUSED);
    assert_int_equal(world_enqueue_jobs(&q->w, &e[1], 2), -E_KEY_REUSED);
    world_elapse(&q->w, LIMIT_REQUEST_KEEP_MS);
    assert_int_equal(tx_count(q->w.tx, T_REQUEST), 0);
    e[0]->idempotency_key.data = e[2]->idempotency_key.data = changed;
    assert_int_equal(world_enqueue_jobs(&q->w, e, 3), -E_KEY_REUSED); /* within one command */
}

static void refused(struct queue *q, Pb__EnqueueJob *e, int want)
{
    const uint64_t jobs = tx_count(q->w.tx, T_JOB);

    assert_int_equal(world_enqueue_jobs(&q->w, &e, 1), want);
    assert_int_equal(tx_count(q->w.tx, T_JOB), jobs);
}

static void what_needs_a_pipeline_is_refused(void **state)
{
    static const char *const wrong[] = {
        "a: when=manual\n",       "a: when=delayed start_in=1m\n",
        "a: allow_failure=yes\n", "a: needs=\n",
        "a: trigger=none\n",      "a: env=prod\n",
        "a: unsupported=dast\n",  "a: confirm=sure\n",
        "a: dotenv=yes\n",        "a:\nb: stage=x\n",
    };
    struct queue *q = *state;
    struct arena *a = tx_arena(q->w.tx);
    Pb__EnqueueJob *e;

    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        Pb__Plan *p = plan(q, wrong[i]);
        refused(q, enqueue_job(a, p->jobs[p->n_jobs - 1], 0), -E_INVALID);
    }
    e = enqueue_job(a, plan(q, "a:\n")->jobs[0], 0);
    e->keep_ms = LIMIT_EXPIRE_MS + 1;
    refused(q, e, -E_LIMIT);
    e->keep_ms = 0;
    e->not_before_ms = q->w.now_ms + LIMIT_EXPIRE_MS + 1;
    refused(q, e, -E_LIMIT);
    e->not_before_ms = 0;
    e->idempotency_key = pb_bytes_ref(STR("short"));
    refused(q, e, -E_INVALID);
    e->idempotency_key.len = 0;
    e->plan->priority = LIMIT_PRIORITY_ADMIN + 1;
    refused(q, e, -E_INVALID);
    e->plan->priority = -LIMIT_PRIORITY - 1;
    refused(q, e, -E_INVALID);
    e->plan->priority = 0;
    e->plan->script[0] = pb_bytes(a, str_of(arena_alloc(a, LIMIT_JOB_SPEC), LIMIT_JOB_SPEC));
    refused(q, e, -E_TOO_BIG);
    e->plan->n_script = 0;
    refused(q, e, -E_INVALID);
    e->plan = NULL;
    refused(q, e, -E_INVALID);
    assert_int_equal(world_enqueue_jobs(&q->w, &e, 0), -E_INVALID);
}

static void a_lost_worker_costs_its_own_budget(void **state)
{
    struct queue *q = *state;
    const uint64_t id = enqueue(q, "a:\nfails: lost=fail\n", 0), fails = q->w.reply.jobs[1].job_id;

    for (unsigned i = 0; i <= CORE_WORKER_LOSS_RETRIES; i++) {
        assert_string_equal(state_of(q, id), "pending");
        assert_int_equal(world_assign(&q->w, id, q->w1), 0);
        assert_int_equal(world_started(&q->w, id), 0);
        assert_int_equal(world_lost(&q->w, id), 0);
    }
    assert_string_equal(state_of(q, id), "failed");
    assert_int_equal(effect_of(q, EFFECT_ENDED)->reason, REASON_WORKER_LOST);
    assert_int_equal(world_assign(&q->w, fails, q->w1), 0);
    assert_int_equal(world_started(&q->w, fails), 0);
    assert_int_equal(world_lost(&q->w, fails), 0);
    assert_string_equal(state_of(q, fails), "failed");
}

static void a_resource_group_holds_for_them_too(void **state)
{
    struct queue *q = *state;
    const uint64_t first = enqueue(q, "a: group=g\nb: group=g\n", 0);
    const uint64_t second = q->w.reply.jobs[1].job_id;

    assert_string_equal(state_of(q, second), "waiting_for_resource");
    world_run(&q->w, first, q->w1, JOB_SUCCESS);
    assert_string_equal(state_of(q, second), "pending");
}

static void the_spec_has_what_it_needs_and_no_more(void **state)
{
    struct queue *q = *state;
    const uint64_t id = enqueue(q, "a: timeout=5m vars=X:1\n", 0);
    Pb__JobSpec *spec;

    assert_int_equal(world_assign(&q->w, id, q->w1), 0);
    assert_int_equal(core_job_spec(q->w.tx, id, "", &spec), 0);
    assert_int_equal(spec->pipeline_id, 0);
    assert_string_equal(spec->project, "demo");
    assert_string_equal(spec->name, "a");
    assert_string_equal(spec->stage, "");
    assert_int_equal(spec->timeout_ms, 300000);
    assert_int_equal(spec->n_script, 1);
    assert_string_equal(spec->variables[0]->name, "CI_JOB_ID");
    assert_string_equal(spec->variables[spec->n_variables - 1]->name, "X");
    assert_null(spec->source);
}

static void files_of_a_job_that_can_have_none_are_its_workers_fault(void **state)
{
    struct queue *q = *state;
    const uint64_t id = enqueue(q, "a:\n", 0);
    Pb__Outcome o = PB__OUTCOME__INIT;

    o.result = JOB_SUCCESS;
    o.environment_url = pb_bytes_ref(STR("https://example.org"));
    assert_int_equal(world_assign(&q->w, id, q->w1), 0);
    assert_int_equal(world_finished(&q->w, id, &o), 0);
    assert_string_equal(state_of(q, id), "failed");
    assert_int_equal(job_get(q->w.tx, id)->reason, REASON_SYSTEM_FAILURE);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_success_that_is_not_kept_leaves_nothing),
        TEST(what_is_kept_goes_when_its_time_is_over),
        TEST(a_retry_takes_it_from_the_list_of_what_goes),
        TEST(a_cancel_ends_it_in_every_state),
        TEST(not_before_is_a_timer),
        TEST(a_key_means_one_job),
        TEST(what_needs_a_pipeline_is_refused),
        TEST(a_lost_worker_costs_its_own_budget),
        TEST(a_resource_group_holds_for_them_too),
        TEST(the_spec_has_what_it_needs_and_no_more),
        TEST(files_of_a_job_that_can_have_none_are_its_workers_fault),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
