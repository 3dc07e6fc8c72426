#include "common/base.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <cmocka.h>

#include "common/os.h"
#include "tests/unit/turn/fixture.h"

static const struct fixture_options quiet = {.listen = false};

#define THREADS 8
#define EACH    40

struct counter {
    atomic_uint committed;
    atomic_uint refused;
    atomic_uint shut_down;
};

static void count_done(void *ctx, int r, const struct reply *reply)
{
    struct counter *c = ctx;

    if (r == 0) {
        assert_int_not_equal(reply->pipeline_id, 0);
        atomic_fetch_add(&c->committed, 1);
    } else if (r == -E_SHUTDOWN) {
        atomic_fetch_add(&c->shut_down, 1);
    } else {
        atomic_fetch_add(&c->refused, 1);
    }
}

struct submitter {
    struct fixture *f;
    struct counter *counter;
    unsigned accepted;
};

static void *submit_many(void *arg)
{
    struct submitter *s = arg;

    for (size_t i = 0; i < EACH; i++) {
        struct post *p = fixture_pipeline_post("group/many", 2);
        s->accepted += turn_submit(s->f->turn, p, count_done, s->counter) == 0;
    }
    return NULL;
}

static void run_submitters(struct fixture *f, struct counter *c, unsigned *ret_accepted)
{
    struct submitter submitters[THREADS];
    pthread_t threads[THREADS];

    *ret_accepted = 0;
    for (size_t i = 0; i < THREADS; i++) {
        submitters[i] = (struct submitter){.f = f, .counter = c};
        assert_int_equal(pthread_create(&threads[i], NULL, submit_many, &submitters[i]), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        *ret_accepted += submitters[i].accepted;
    }
}

static void posts_of_many_threads_share_commits(void **state)
{
    struct fixture f;
    struct counter c = {.committed = 0};
    struct turn_stats before;
    struct turn_stats after;
    unsigned accepted;

    fixture_up(&f, &quiet);
    turn_get_stats(f.turn, &before);
    run_submitters(&f, &c, &accepted);
    assert_int_equal(accepted, THREADS * EACH);
    fixture_submit(&f, 1); /* behind all others */
    turn_get_stats(f.turn, &after);
    assert_int_equal(atomic_load(&c.committed), THREADS * EACH);
    assert_int_equal(after.commands - before.commands, THREADS * EACH + 1);
    assert_true(after.turns - before.turns < THREADS * EACH / 2);
    fixture_audit(&f);
    fixture_down(&f);
}

static void a_stop_answers_every_post_once(void **state)
{
    struct fixture f;
    struct counter c = {.committed = 0};

    fixture_up(&f, &quiet);
    unsigned accepted = 0;
    for (size_t i = 0; i < 500; i++) {
        struct post *p = fixture_pipeline_post("group/many", 1);
        accepted += turn_submit(f.turn, p, count_done, &c) == 0;
    }
    turn_stop(f.turn);
    assert_int_equal(atomic_load(&c.committed) + atomic_load(&c.shut_down), accepted);
    assert_int_equal(atomic_load(&c.refused), 0);
    assert_int_equal(turn_submit(f.turn, fixture_pipeline_post("group/late", 1), count_done, &c),
                     -E_SHUTDOWN);
    assert_int_equal(atomic_load(&c.committed) + atomic_load(&c.shut_down), accepted);
    fixture_down(&f);
}

static void submitters_that_race_with_a_stop_are_all_answered(void **state)
{
    struct fixture f;
    struct counter c = {.committed = 0};
    struct submitter s = {.f = &f, .counter = &c};
    pthread_t thread;

    fixture_up(&f, &quiet);
    assert_int_equal(pthread_create(&thread, NULL, submit_many, &s), 0);
    os_sleep_ms(2);
    turn_stop(f.turn);
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&c.committed) + atomic_load(&c.shut_down), s.accepted);
    fixture_down(&f);
}

static struct post *cancel_post(uint64_t job_id)
{
    struct post *p = post_new("test");
    Pb__JobCancel *cancel = arena_alloc(post_arena(p), sizeof(*cancel));

    pb__job_cancel__init(cancel);
    cancel->job_id = job_id;
    post_command(p)->body_case = PB__COMMAND__BODY_JOB_CANCEL;
    post_command(p)->job_cancel = cancel;
    return p;
}

static void a_refused_command_is_answered_with_its_reason_and_costs_no_commit(void **state)
{
    struct fixture f;
    struct turn_stats before;
    struct turn_stats after;
    struct reply reply;

    fixture_up(&f, &quiet);
    turn_get_stats(f.turn, &before);
    assert_int_equal(turn_call(f.turn, cancel_post(4711), &reply), -E_NOT_FOUND);
    turn_get_stats(f.turn, &after);
    assert_int_not_equal(reply.text[0], '\0');
    assert_int_equal(after.rejected, before.rejected + 1);
    assert_int_equal(after.turns, before.turns);
    fixture_down(&f);
}

static void a_refused_command_does_not_touch_its_neighbours(void **state)
{
    struct fixture f;
    struct counter good = {.committed = 0};
    struct counter bad = {.committed = 0};

    fixture_up(&f, &quiet);
    for (size_t i = 0; i < 50; i++) {
        assert_int_equal(
            turn_submit(f.turn, fixture_pipeline_post("group/good", 1), count_done, &good), 0);
        assert_int_equal(turn_submit(f.turn, cancel_post(4711), count_done, &bad), 0);
    }
    fixture_submit(&f, 1);
    assert_int_equal(atomic_load(&good.committed), 50);
    assert_int_equal(atomic_load(&bad.refused), 50);
    fixture_audit(&f);
    fixture_down(&f);
}

static void an_idle_turn_commits_nothing(void **state)
{
    struct fixture f;
    struct turn_stats before;
    struct turn_stats after;

    fixture_up(&f, &quiet);
    turn_get_stats(f.turn, &before);
    os_sleep_ms(60);
    turn_get_stats(f.turn, &after);
    assert_int_equal(after.turns, before.turns);
    fixture_down(&f);
}

static void a_due_timer_fires_by_itself(void **state)
{
    struct fixture f;

    fixture_up(&f, &quiet);
    struct post *p = fixture_pipeline_post("group/delayed", 1);
    Pb__PlanJob *job = post_command(p)->pipeline_create->plan->jobs[0];
    job->when = WHEN_DELAYED;
    job->start_in_ms = 50;
    uint64_t first = fixture_submit_post(&f, p);
    assert_int_equal(fixture_job_state(&f, first), JOB_SCHEDULED);
    assert_true(fixture_wait_job(&f, first, JOB_PENDING));
    fixture_audit(&f);
    fixture_down(&f);
}

struct heard {
    atomic_uint calls;
    atomic_ullong newest;
};

static void hear(void *ctx, enum bus_topic topic, uint64_t key)
{
    struct heard *h = ctx;

    if (topic == BUS_EVENTS) {
        atomic_fetch_add(&h->calls, 1);
        atomic_store(&h->newest, key);
    }
}

static void followers_hear_of_committed_events(void **state)
{
    struct fixture f;
    struct heard heard = {.calls = 0};

    fixture_up(&f, &quiet);
    uint64_t handle = bus_subscribe(f.bus, hear, &heard);
    fixture_submit(&f, 1);
    for (int i = 0; i < 1000 && atomic_load(&heard.calls) == 0; i++) {
        os_sleep_ms(1);
    }
    assert_true(atomic_load(&heard.calls) > 0);
    assert_true(atomic_load(&heard.newest) > 0);
    bus_unsubscribe(f.bus, handle);
    fixture_down(&f);
}

static void a_full_store_refuses_new_work_and_lives_on(void **state)
{
    const struct fixture_options small = {.map_bytes = 2u << 20};
    struct fixture f;
    struct reply reply;
    uint64_t job_id = 0;
    int r = 0;

    fixture_up(&f, &small);
    job_id = fixture_submit(&f, 1);
    for (int i = 0; i < 2000 && r == 0; i++) {
        r = turn_call(f.turn, fixture_pipeline_post("group/fill", 50), &reply);
    }
    assert_int_equal(r, -E_FULL);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_PENDING);
    assert_int_equal(turn_call(f.turn, cancel_post(4711), &reply), -E_NOT_FOUND);
    fixture_audit(&f);
    fixture_down(&f);
}

struct asked {
    atomic_uint count;
    _Atomic uint64_t job_id;
    _Atomic uint64_t epoch;
};

static void ask(void *ctx, uint64_t job_id, uint64_t epoch)
{
    struct asked *a = ctx;

    atomic_store(&a->job_id, job_id);
    atomic_store(&a->epoch, epoch);
    atomic_fetch_add(&a->count, 1);
}

static struct post *trigger_post(void)
{
    struct post *p = fixture_pipeline_post("group/up", 1);
    Pb__PlanJob *job = post_command(p)->pipeline_create->plan->jobs[0];

    job->trigger = arena_alloc(post_arena(p), sizeof(*job->trigger));
    pb__trigger_spec__init(job->trigger);
    job->trigger->config = pb_bytes(post_arena(p), STR("{}"));
    job->n_script = 0;
    return p;
}

static struct post *child_post(uint64_t job_id, uint64_t epoch)
{
    struct post *p = fixture_pipeline_post("group/up", 1);

    post_command(p)->pipeline_create->parent_job_id = job_id;
    post_command(p)->pipeline_create->parent_epoch = epoch;
    return p;
}

static void
a_child_is_asked_for_after_the_commit_and_after_each_start_until_it_is_there(void **state)
{
    struct fixture f;
    struct asked a = {.count = 0};
    const struct fixture_options o = {.trigger = {.start = ask, .ctx = &a}};

    fixture_up(&f, &o);
    const uint64_t job_id = fixture_submit_post(&f, trigger_post());
    fixture_submit(&f, 1); /* what comes after it is committed, so it was asked */
    assert_int_equal(atomic_load(&a.count), 1);
    assert_int_equal(atomic_load(&a.job_id), job_id);
    assert_int_equal(atomic_load(&a.epoch), 1);
    assert_int_equal(fixture_job_state(&f, job_id), JOB_RUNNING);
    fixture_restart(&f);
    assert_int_equal(atomic_load(&a.count), 2);
    assert_int_equal(atomic_load(&a.job_id), job_id);
    fixture_submit_post(&f, child_post(job_id, atomic_load(&a.epoch)));
    assert_int_equal(fixture_job_state(&f, job_id), JOB_SUCCESS);
    fixture_restart(&f);
    assert_int_equal(atomic_load(&a.count), 2);
    fixture_audit(&f);
    fixture_down(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(posts_of_many_threads_share_commits),
        cmocka_unit_test(a_stop_answers_every_post_once),
        cmocka_unit_test(submitters_that_race_with_a_stop_are_all_answered),
        cmocka_unit_test(a_refused_command_is_answered_with_its_reason_and_costs_no_commit),
        cmocka_unit_test(a_refused_command_does_not_touch_its_neighbours),
        cmocka_unit_test(an_idle_turn_commits_nothing),
        cmocka_unit_test(a_due_timer_fires_by_itself),
        cmocka_unit_test(followers_hear_of_committed_events),
        cmocka_unit_test(a_full_store_refuses_new_work_and_lives_on),
        cmocka_unit_test(
            a_child_is_asked_for_after_the_commit_and_after_each_start_until_it_is_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
