/* Jobs that take no slot. */
#include "common/base.h"

#include "broker/core/query.h"
#include "tests/unit/sched/fixture.h"

static uint64_t worker_with(struct world *w, const char *name, const char *first, uint32_t slots,
                            uint32_t actions)
{
    char *executors[] = {(char *)first, (char *)"action"}, *tags[] = {(char *)"big"};
    Pb__WorkerHello body = PB__WORKER_HELLO__INIT;

    body.name = (char *)name;
    body.executors = executors;
    body.n_executors = 2;
    body.slots = slots;
    body.actions = actions;
    body.tags = tags;
    body.n_tags = 1;
    body.run_untagged = true;
    assert_int_equal(world_hello(w, &body), 0);
    sched_worker(w->sched, w->reply.worker_id, worker_get(w->tx, w->reply.worker_id), true);
    return w->reply.worker_id;
}

/* So many waits, or so many scripts; `tag` NULL: without. */
static void enqueue_tagged(struct world *w, bool actions, size_t count, const char *tag)
{
    char **tags = arena_array(tx_arena(w->tx), 1, sizeof(*tags));
    struct arena *a = tx_arena(w->tx);
    Pb__JobsEnqueue body = PB__JOBS_ENQUEUE__INIT;

    body.project = (char *)"demo";
    body.jobs = arena_array(a, count, sizeof(*body.jobs));
    for (; body.n_jobs < count; body.n_jobs++) {
        Pb__EnqueueJob *job = body.jobs[body.n_jobs] = arena_alloc(a, sizeof(*job));
        pb__enqueue_job__init(job);
        job->plan = arena_alloc(a, sizeof(*job->plan));
        pb__plan_job__init(job->plan);
        tags[0] = (char *)tag;
        job->plan->tags = tags;
        job->plan->n_tags = tag != NULL;
        job->plan->name = (char *)(actions ? "action" : "script");
        if (actions) {
            job->plan->action = arena_alloc(a, sizeof(*job->plan->action));
            pb__action_spec__init(job->plan->action);
            job->plan->action->what_case = PB__ACTION_SPEC__WHAT_WAIT;
            job->plan->action->wait = arena_alloc(a, sizeof(*job->plan->action->wait));
            pb__wait_action__init(job->plan->action->wait);
        } else {
            job->plan->script = arena_array(a, 1, sizeof(*job->plan->script));
            job->plan->script[job->plan->n_script++] = pb_bytes(a, STR("true"));
        }
    }
    assert_int_equal(WORLD_APPLY(w, "ann", JOBS_ENQUEUE, &body), 0);
}

static void enqueue(struct world *w, bool actions, size_t count)
{
    enqueue_tagged(w, actions, count, NULL);
}

/* Both halves of the worker are placed anew for it. */
static void a_tag_that_is_new_takes_no_actions_away(void **state)
{
    struct world *w = *state;
    const uint64_t id = worker_with(w, "w1", "shell", 2, 3);

    enqueue(w, true, 1);
    (void)assign_all(w);
    enqueue_tagged(w, true, 1, "big");
    enqueue_tagged(w, false, 1, "big");
    (void)assign_all(w);
    assert_int_equal(worker_load(w->tx, id).slots, 1);
    assert_int_equal(worker_load(w->tx, id).actions, 2);
}

static void slots_and_actions_are_counted_apart(void **state)
{
    struct world *w = *state;
    const uint64_t id = worker_with(w, "w1", "shell", 1, 2);

    enqueue(w, true, 3);
    enqueue(w, false, 2);
    (void)assign_all(w);
    assert_int_equal(worker_load(w->tx, id).slots, 1);
    assert_int_equal(worker_load(w->tx, id).actions, 2);
    assert_int_equal(worker_job_count(w->tx, id), 3);
}

static void they_are_so_after_a_new_beginning(void **state)
{
    struct world *w = *state;
    const uint64_t id = worker_with(w, "w1", "shell", 2, 3);

    enqueue(w, true, 2);
    enqueue(w, false, 1);
    (void)assign_all(w);
    sched_reset(w->sched);
    enqueue(w, true, 2);
    enqueue(w, false, 2);
    (void)assign_all(w);
    assert_int_equal(worker_load(w->tx, id).slots, 2);
    assert_int_equal(worker_load(w->tx, id).actions, 3);
}

static void a_worker_for_actions_alone_gets_no_script(void **state)
{
    struct world *w = *state;
    const uint64_t id = worker_with(w, "w1", "action", 4, 1);

    enqueue(w, false, 2);
    enqueue(w, true, 2);
    (void)assign_all(w);
    assert_int_equal(worker_load(w->tx, id).slots, 0);
    assert_int_equal(worker_load(w->tx, id).actions, 1);
}

static bool is_online(void *ctx, uint64_t worker_id)
{
    return ctx != NULL && worker_id != 0;
}

static void why_names_what_is_missing(void **state)
{
    struct world *w = *state;
    struct sched_why why[2];
    struct sched_outlook outlook;

    worker(w, (struct offer){"w1", .slots = 4});
    enqueue(w, true, 1);
    assert_string_equal(assign_all(w), "");
    assert_int_equal(
        sched_why(w->tx, job_get(w->tx, w->reply.job_id), is_online, w, why, 2, &outlook), 1);
    assert_string_equal(why[0].reason, "no executor action");
    assert_true(outlook.never);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(slots_and_actions_are_counted_apart), TEST(a_tag_that_is_new_takes_no_actions_away),
        TEST(they_are_so_after_a_new_beginning),   TEST(a_worker_for_actions_alone_gets_no_script),
        TEST(why_names_what_is_missing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
