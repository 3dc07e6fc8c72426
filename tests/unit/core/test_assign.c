/* Who may be given a job, and whose word about it counts: each condition alone. */
#include "common/base.h"

#include "common/limits.h"
#include "tests/kit/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

struct fleet_of_two {
    struct world w;
    uint64_t pipeline_id;
    uint64_t w1;
    uint64_t w2;
};

static uint64_t id_of(struct fleet_of_two *f, const char *name)
{
    return world_job_id(&f->w, f->pipeline_id, name);
}

static int set_up(void **state)
{
    struct fleet_of_two *f = xcalloc(1, sizeof(*f));
    struct world *w = &f->w;

    world_init(w);
    f->w1 = world_worker(w, "w1", "linux", "shell", 1, true);
    f->w2 = world_worker(w, "w2", "", "shell", 2, false);
    assert_int_equal(world_submit(w,
                                  plan_from_text(tx_arena(w->tx), "a:\nb:\n"
                                                                  "tagged: tags=linux\n"
                                                                  "docker: executor=docker\n"
                                                                  "later: stage=later\n"),
                                  "main", "1"),
                     0);
    f->pipeline_id = w->reply.pipeline_id;
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fleet_of_two *f = *state;

    world_release(&f->w);
    free(f);
    return 0;
}

static void set(struct fleet_of_two *f, bool paused, bool draining)
{
    Pb__WorkerSet body = PB__WORKER_SET__INIT;

    body.worker_id = f->w1;
    body.has_paused = body.has_draining = true;
    body.paused = paused;
    body.draining = draining;
    assert_int_equal(WORLD_APPLY(&f->w, "ann", WORKER_SET, &body), 0);
    assert_int_equal(f->w.fx.count, 1);
    assert_int_equal(f->w.fx.items[0].kind, EFFECT_WORKER);
}

static void a_worker_gets_only_what_it_serves(void **state)
{
    struct fleet_of_two *f = *state;

    assert_int_equal(world_assign(&f->w, id_of(f, "docker"), f->w1), -E_CONFLICT);
    assert_int_equal(world_assign(&f->w, id_of(f, "tagged"), f->w2), -E_CONFLICT);
    assert_int_equal(world_assign(&f->w, id_of(f, "a"), f->w2), -E_CONFLICT); /* untagged */
    assert_int_equal(world_assign(&f->w, id_of(f, "tagged"), f->w1), 0);
}

static void a_worker_gets_no_more_than_its_slots(void **state)
{
    struct fleet_of_two *f = *state;

    assert_int_equal(world_assign(&f->w, id_of(f, "a"), f->w1), 0);
    assert_int_equal(world_assign(&f->w, id_of(f, "b"), f->w1), -E_CONFLICT);
    assert_string_equal(f->w.reply.text, "worker w1 has no free slot");
    assert_int_equal(worker_job_count(f->w.tx, f->w1), 1);
}

static void a_paused_or_draining_worker_gets_nothing(void **state)
{
    struct fleet_of_two *f = *state;

    set(f, true, false);
    assert_int_equal(world_assign(&f->w, id_of(f, "a"), f->w1), -E_CONFLICT);
    set(f, false, true);
    assert_int_equal(world_assign(&f->w, id_of(f, "a"), f->w1), -E_CONFLICT);
    set(f, false, false);
    assert_int_equal(world_assign(&f->w, id_of(f, "a"), f->w1), 0);
}

static void only_a_pending_job_is_given_out(void **state)
{
    struct fleet_of_two *f = *state;

    assert_int_equal(world_assign(&f->w, id_of(f, "later"), f->w1), -E_CONFLICT);
    assert_int_equal(world_assign(&f->w, id_of(f, "a"), f->w1), 0);
    assert_int_equal(world_assign(&f->w, id_of(f, "a"), f->w1), -E_CONFLICT);
    assert_int_equal(world_assign(&f->w, 4711, f->w1), -E_NOT_FOUND);
    assert_int_equal(world_assign(&f->w, id_of(f, "b"), 4711), -E_NOT_FOUND);
}

static int assign_all(struct fleet_of_two *f, uint64_t worker_id, uint64_t *job_ids, size_t count)
{
    Pb__Assign body = PB__ASSIGN__INIT;

    body.worker_id = worker_id;
    body.job_ids = job_ids;
    body.n_job_ids = count;
    return WORLD_APPLY(&f->w, "scheduler", ASSIGN, &body);
}

static void of_several_jobs_all_are_assigned_or_none(void **state)
{
    struct fleet_of_two *f = *state;
    const uint64_t w3 = world_worker(&f->w, "w3", "", "shell", 3, true);
    uint64_t twice[] = {id_of(f, "a"), id_of(f, "b"), id_of(f, "a")};
    uint64_t one_unfit[] = {id_of(f, "a"), id_of(f, "docker")};
    uint64_t one_unknown[] = {id_of(f, "a"), 4711};
    uint64_t good[] = {id_of(f, "b"), id_of(f, "a")};

    assert_int_equal(assign_all(f, w3, good, 0), -E_INVALID);
    assert_int_equal(assign_all(f, w3, twice, 3), -E_INVALID);
    assert_int_equal(assign_all(f, w3, one_unfit, 2), -E_CONFLICT);
    assert_int_equal(assign_all(f, w3, one_unknown, 2), -E_NOT_FOUND);
    assert_int_equal(assign_all(f, f->w1, good, 2), -E_CONFLICT); /* it has one slot */
    assert_string_equal(world_state(&f->w, f->pipeline_id, "a"), "pending");
    assert_int_equal(assign_all(f, w3, good, 2), 0);
    assert_string_equal(world_state(&f->w, f->pipeline_id, "a"), "assigned");
    assert_string_equal(world_state(&f->w, f->pipeline_id, "b"), "assigned");
}

/* What all messages about a held job go through. */
static int lost(struct fleet_of_two *f, uint64_t epoch, uint64_t worker_id)
{
    Pb__JobLost body = PB__JOB_LOST__INIT;

    body.job_id = id_of(f, "a");
    body.epoch = epoch;
    body.worker_id = worker_id;
    return WORLD_APPLY(&f->w, "fleet", JOB_LOST, &body);
}

static int finished(struct fleet_of_two *f, uint64_t attempt, uint64_t epoch, uint64_t worker_id)
{
    Pb__JobFinished body = PB__JOB_FINISHED__INIT;
    Pb__Outcome o = PB__OUTCOME__INIT;

    o.result = JOB_SUCCESS;
    body.job_id = id_of(f, "a");
    body.attempt = attempt;
    body.epoch = epoch;
    body.worker_id = worker_id;
    body.outcome = &o;
    return WORLD_APPLY(&f->w, "fleet", JOB_FINISHED, &body);
}

static void only_the_holder_under_its_epoch_is_heard(void **state)
{
    struct fleet_of_two *f = *state;

    assert_int_equal(lost(f, 0, 0), -E_STALE_EPOCH); /* nobody has it */
    assert_int_equal(world_assign(&f->w, id_of(f, "a"), f->w1), 0);
    assert_int_equal(world_lost(&f->w, id_of(f, "a")), 0);
    assert_int_equal(world_assign(&f->w, id_of(f, "a"), f->w1), 0); /* epoch 2, attempt 2 */
    assert_int_equal(lost(f, 1, f->w1), -E_STALE_EPOCH);
    assert_int_equal(lost(f, 3, f->w1), -E_STALE_EPOCH);
    assert_int_equal(lost(f, 2, f->w2), -E_STALE_EPOCH);
    assert_int_equal(finished(f, 1, 2, f->w1), -E_STALE_EPOCH);
    assert_int_equal(finished(f, 2, 1, f->w1), -E_STALE_EPOCH);
    assert_int_equal(finished(f, 2, 2, f->w2), -E_STALE_EPOCH);
    assert_int_equal(finished(f, 2, 2, f->w1), 0);
    assert_int_equal(finished(f, 2, 2, f->w1), -E_STALE_EPOCH); /* once */
}

/* What a worker may still have from before the store lost its end is nobody's. */
static void no_epoch_is_given_that_may_be_somebodys_already(void **state)
{
    struct fleet_of_two *f = *state;
    Pb__IdsSkipped body = PB__IDS_SKIPPED__INIT;
    const uint64_t job_id = id_of(f, "a");
    const uint64_t next_id = meta_get(f->w.tx)->next_id;

    body.count = LIMIT_IDS_SKIPPED + 1;
    assert_int_equal(WORLD_APPLY(&f->w, "start", IDS_SKIPPED, &body), -E_LIMIT);
    body.count = 100;
    assert_int_equal(WORLD_APPLY(&f->w, "start", IDS_SKIPPED, &body), 0);
    assert_int_equal(meta_get(f->w.tx)->next_id, next_id + 100);
    assert_int_equal(world_assign(&f->w, job_id, f->w1), 0);
    assert_int_equal(job_get(f->w.tx, job_id)->epoch, 101);
    assert_int_equal(world_lost(&f->w, job_id), 0);
    assert_int_equal(world_assign(&f->w, job_id, f->w1), 0);
    assert_int_equal(job_get(f->w.tx, job_id)->epoch, 102);
}

static void a_connection_brings_what_was_not_acknowledged_and_its_cancels(void **state)
{
    struct fleet_of_two *f = *state;
    struct effects fx;

    effects_init(&fx);
    assert_int_equal(world_assign(&f->w, id_of(f, "a"), f->w1), 0);
    core_recover_worker(f->w.tx, f->w1, &fx);
    assert_int_equal(fx.count, 1);
    assert_int_equal(fx.items[0].kind, EFFECT_ASSIGN);
    assert_int_equal(world_acked(&f->w, id_of(f, "a")), 0);
    effects_clear(&fx);
    core_recover_worker(f->w.tx, f->w1, &fx);
    assert_int_equal(fx.count, 0);
    assert_int_equal(world_cancel_job(&f->w, id_of(f, "a")), 0);
    core_recover_worker(f->w.tx, f->w1, &fx);
    assert_int_equal(fx.count, 1);
    assert_int_equal(fx.items[0].cancel_kind, PB__CANCEL_KIND__CANCEL_GRACEFUL);
    assert_int_equal(world_cancel_job(&f->w, id_of(f, "a")), 0);
    effects_clear(&fx);
    core_recover_worker(f->w.tx, f->w1, &fx);
    assert_int_equal(fx.items[0].cancel_kind, PB__CANCEL_KIND__CANCEL_FORCE);
    effects_release(&fx);
}

static const char *state_of(struct fleet_of_two *f, const char *name)
{
    return world_state(&f->w, f->pipeline_id, name);
}

static void several_jobs_end_or_none(void **state)
{
    struct fleet_of_two *f = *state;
    const uint64_t w3 = world_worker(&f->w, "w3", "linux", "shell", 3, true);
    const uint64_t a = id_of(f, "a"), b = id_of(f, "b"), tagged = id_of(f, "tagged");
    Pb__Outcome o = PB__OUTCOME__INIT;

    o.result = JOB_SUCCESS;
    assert_int_equal(world_assign_all(&f->w, (uint64_t[]){a, b}, 2, w3), 0);
    assert_int_equal(world_assign(&f->w, tagged, f->w1), 0);
    assert_int_equal(world_finished_all(&f->w, (uint64_t[]){a, tagged}, 2, &o), -E_STALE_EPOCH);
    assert_int_equal(world_finished_all(&f->w, (uint64_t[]){a, a}, 2, &o), -E_INVALID);
    assert_int_equal(world_finished_all(&f->w, NULL, 0, &o), -E_INVALID);
    assert_int_equal(world_finished_all(&f->w, (uint64_t[]){a, b}, 2, NULL), -E_INVALID);
    assert_string_equal(state_of(f, "a"), "assigned");
    assert_int_equal(world_finished_all(&f->w, (uint64_t[]){a, b}, 2, &o), 0);
    assert_string_equal(state_of(f, "a"), "success");
    assert_string_equal(state_of(f, "b"), "success");
    assert_int_equal(worker_job_count(f->w.tx, w3), 0);
    assert_int_equal(world_finished_all(&f->w, (uint64_t[]){a, b}, 2, &o), -E_STALE_EPOCH);
}

/* The first one's failure ends the second, whose worker was away: its word comes too late. */
static void one_end_may_take_the_next_job_away(void **state)
{
    struct fleet_of_two *f = *state;
    struct world *w = &f->w;
    Pb__Outcome o = PB__OUTCOME__INIT;
    uint64_t p, ids[2];

    o.result = JOB_FAILED;
    o.reason = REASON_SCRIPT_FAILURE;
    assert_int_equal(world_submit(w,
                                  plan_from_text(tx_arena(w->tx),
                                                 "plan: on_job_failure=all\nx:\ny: lost=wait\n"),
                                  "main", "2"),
                     0);
    p = w->reply.pipeline_id;
    const uint64_t w3 = world_worker(w, "w3", "linux", "shell", 3, true);
    ids[0] = world_job_id(w, p, "x");
    ids[1] = world_job_id(w, p, "y");
    assert_int_equal(world_assign_all(w, ids, 2, w3), 0);
    assert_int_equal(world_started(w, ids[1]), 0);
    assert_int_equal(world_lost(w, ids[1]), 0);
    assert_int_equal(world_finished_all(w, ids, 2, &o), 0);
    assert_string_equal(w->reply.text, ""); /* it was applied */
    assert_string_equal(world_state(w, p, "x"), "failed");
    assert_string_equal(world_state(w, p, "y"), "canceled");
}

static int preempt(struct fleet_of_two *f, uint64_t job_id, uint64_t for_job_id)
{
    Pb__JobPreempt body = PB__JOB_PREEMPT__INIT;

    body.job_id = job_id;
    body.epoch = job_get(f->w.tx, job_id)->epoch;
    body.for_job_id = for_job_id;
    return WORLD_APPLY(&f->w, "scheduler", JOB_PREEMPT, &body);
}

static void nobody_is_displaced_for_what_the_worker_cannot_take(void **state)
{
    struct fleet_of_two *f = *state;
    struct world *w = &f->w;
    uint64_t p, slow;

    assert_int_equal(
        world_submit(w,
                     plan_from_text(tx_arena(w->tx), "slow: interruptible=yes\n"
                                                     "urgent: priority=1\n"
                                                     "docker: priority=1 executor=docker\n"
                                                     "elsewhere: priority=1 pool=other\n"
                                                     "later: priority=1 stage=later\n"),
                     "main", "2"),
        0);
    p = w->reply.pipeline_id;
    slow = world_job_id(w, p, "slow");
    assert_int_equal(world_assign(w, slow, f->w1), 0);
    assert_int_equal(preempt(f, slow, world_job_id(w, p, "docker")), -E_CONFLICT);
    assert_int_equal(preempt(f, slow, world_job_id(w, p, "elsewhere")), -E_CONFLICT);
    assert_int_equal(preempt(f, slow, world_job_id(w, p, "later")), -E_CONFLICT);
    set(f, true, false);
    assert_int_equal(preempt(f, slow, world_job_id(w, p, "urgent")), -E_CONFLICT);
    set(f, false, true);
    assert_int_equal(preempt(f, slow, world_job_id(w, p, "urgent")), -E_CONFLICT);
    set(f, false, false);
    assert_string_equal(world_state(w, p, "slow"), "assigned");
    assert_int_equal(preempt(f, slow, world_job_id(w, p, "urgent")), 0);
    assert_string_equal(world_state(w, p, "slow"), "pending");
    assert_int_equal(world_assign(w, world_job_id(w, p, "urgent"), f->w1), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(of_several_jobs_all_are_assigned_or_none),
        TEST(a_worker_gets_only_what_it_serves),
        TEST(a_worker_gets_no_more_than_its_slots),
        TEST(a_paused_or_draining_worker_gets_nothing),
        TEST(only_a_pending_job_is_given_out),
        TEST(only_the_holder_under_its_epoch_is_heard),
        TEST(no_epoch_is_given_that_may_be_somebodys_already),
        TEST(a_connection_brings_what_was_not_acknowledged_and_its_cancels),
        TEST(several_jobs_end_or_none),
        TEST(one_end_may_take_the_next_job_away),
        TEST(nobody_is_displaced_for_what_the_worker_cannot_take),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
