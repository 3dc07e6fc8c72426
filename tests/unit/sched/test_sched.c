/* The scheduler against the real core and store: what goes first, what goes where, and that it does
 * not look at more than it proposes. */
#include "common/base.h"

#include "common/os.h"
#include "tests/unit/sched/fixture.h"

static void classes_are_interleaved_by_priority_then_age(void **state)
{
    struct world *w = *state;
    struct sched_proposal got[8];
    const char *const want[] = {"c", "f", "a", "b", "d", "e"};
    char *both[] = {(char *)"x", (char *)"y"}, *executors[] = {(char *)"shell"};
    Pb__WorkerHello body = PB__WORKER_HELLO__INIT;

    body.name = (char *)"w1";
    body.executors = executors;
    body.n_executors = 1;
    body.tags = both;
    body.n_tags = 2;
    body.slots = 10;
    body.run_untagged = true;
    assert_int_equal(world_hello(w, &body), 0);
    sched_worker(w->sched, w->reply.worker_id, worker_get(w->tx, w->reply.worker_id), true);
    submit(w, "demo",
           "a:\n"
           "b: tags=x\n"
           "c: tags=y priority=2\n"
           "d:\n"
           "e: tags=x,y\n"
           "f: priority=1\n");
    assert_int_equal(propose(w, got, 8), ARRAY_LEN(want));
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        assert_string_equal(job_get(w->tx, got[i].job_id)->name, want[i]);
    }
    assert_int_equal(propose(w, got, 2), 2); /* nobody applied the others: they come again */
    assert_string_equal(job_get(w->tx, got[1].job_id)->name, "f");
    assert_string_equal(assign_all(w), "c f a b d e");
}

static void no_matching_pair_is_left_idle(void **state)
{
    struct world *w = *state;
    const uint64_t gpu = worker(w, (struct offer){"w0", "gpu", .slots = 2, .tagged_only = true});

    worker(w, (struct offer){"w2", .slots = 2});
    submit(w, "demo",
           "a: tags=none_has_it\n"
           "b: tags=gpu\n"
           "c: executor=docker\n"
           "d:\ne:\nf:\n");
    assert_string_equal(assign_all(w), "d e b");
    assert_int_equal(worker_job_count(w->tx, gpu), 1);
}

static void a_closed_worker_gets_nothing(void **state)
{
    struct world *w = *state;
    const uint64_t id = worker(w, (struct offer){"w1", .slots = 2});

    submit(w, "demo", "a:\nb:\n");
    sched_worker(w->sched, id, worker_get(w->tx, id), false);
    assert_string_equal(assign_all(w), "");
    sched_worker(w->sched, id, worker_get(w->tx, id), true);
    assert_string_equal(assign_all(w), "a b");
}

static void a_specialist_is_kept_for_those_who_need_it(void **state)
{
    struct world *w = *state;
    const uint64_t gpu = worker(w, (struct offer){"w1", "gpu", .slots = 9});
    const uint64_t plain = worker(w, (struct offer){"w2", .slots = 1});

    submit(w, "demo", "a:\nb:\nneeds: tags=gpu\n");
    assert_string_equal(assign_all(w), "a b needs");
    assert_int_equal(worker_job_count(w->tx, plain), 1);
    assert_int_equal(worker_job_count(w->tx, gpu), 2);
}

static void memory_is_given_once(void **state)
{
    struct world *w = *state;
    const uint64_t small = worker(w, (struct offer){"w1", .slots = 9, .memory = 100});
    const uint64_t large = worker(w, (struct offer){"w2", .slots = 3, .memory = 250});
    const uint64_t p = submit(w, "demo",
                              "a: memory=200\nb: memory=200\nc: memory=40\nd: memory=70\n"
                              "e: memory=50\n");

    /* a to the large one, c and e to the one with more slots; nowhere is enough left for b and d */
    assert_string_equal(assign_all(w), "a c e");
    assert_int_equal(worker_job_count(w->tx, small), 2);
    assert_int_equal(worker_job_count(w->tx, large), 1);
    finish(w, p, "a");
    assert_string_equal(assign_all(w), "b");
    finish(w, p, "c");
    assert_string_equal(assign_all(w), "");
    finish(w, p, "e");
    assert_string_equal(assign_all(w), "d");
}

static void age_raises_a_priority_up_to_the_top(void **state)
{
    struct world *w = *state;
    uint64_t p;

    submit(w, "demo", "old: priority=-3\n");
    w->now_ms += 2 * SCHED_AGING_MS;
    submit(w, "demo", "young: priority=0\n");
    w->now_ms += SCHED_AGING_MS - 1;
    p = submit(w, "demo", "boss: priority=101\n");
    worker(w, (struct offer){"w1", .slots = 1});
    assert_string_equal(assign_all(w), "boss"); /* the old one has risen to -1 */
    finish(w, p, "boss");
    assert_string_equal(assign_all(w), "young");
}

static void an_old_job_overtakes_and_stops_below_administrators(void **state)
{
    struct world *w = *state;
    uint64_t p;

    submit(w, "demo", "old: priority=-3\n");
    w->now_ms += 300 * SCHED_AGING_MS;
    submit(w, "demo", "young: priority=99\n");
    p = submit(w, "demo", "boss: priority=101\n");
    worker(w, (struct offer){"w1", .slots = 1});
    assert_string_equal(assign_all(w), "boss");
    finish(w, p, "boss");
    assert_string_equal(assign_all(w), "old");
}

static void projects_take_turns(void **state)
{
    struct world *w = *state;

    submit(w, "x", "x1:\nx2:\nx3:\nx4:\n");
    submit(w, "y", "y1:\ny2:\n");
    submit(w, "z", "z1: priority=1\nz2:\n");
    worker(w, (struct offer){"w1", .slots = 8});
    assert_string_equal(assign_all(w), "z1 x1 y1 x2 y2 z2 x3 x4");
}

static void a_weight_is_a_share(void **state)
{
    struct world *w = *state;

    set_project(w, "x", 300, 0);
    submit(w, "x", "x1:\nx2:\nx3:\nx4:\nx5:\nx6:\nx7:\n");
    submit(w, "y", "y1:\ny2:\ny3:\ny4:\n");
    worker(w, (struct offer){"w1", .slots = 8});
    assert_string_equal(assign_all(w), "x1 y1 x2 x3 x4 y2 x5 x6");
}

/* One slot: whose turn it is shows in the time that was used. */
static void time_that_was_used_counts(void **state)
{
    struct world *w = *state;
    const uint64_t x = submit(w, "x", "x1:\nx2:\nx3:\n");
    const uint64_t y = submit(w, "y", "y1:\ny2:\ny3:\ny4:\n");

    worker(w, (struct offer){"w1", .slots = 1});
    assert_string_equal(assign_all(w), "x1");
    w->now_ms += 3000;
    finish(w, x, "x1");
    assert_string_equal(assign_all(w), "y1");
    w->now_ms += 1000;
    finish(w, y, "y1");
    assert_string_equal(assign_all(w), "y2");
    w->now_ms += 2500;
    finish(w, y, "y2");
    assert_string_equal(assign_all(w), "x2");
}

static void idleness_saves_nothing_up(void **state)
{
    struct world *w = *state;
    const uint64_t x = submit(w, "x", "x1:\nx2:\nx3:\n");
    uint64_t y;

    worker(w, (struct offer){"w1", .slots = 1});
    for (unsigned i = 1; i <= 2; i++) {
        assign_all(w);
        w->now_ms += 1000000;
        finish(w, x, i == 1 ? "x1" : "x2");
    }
    assign_all(w); /* x3 */
    y = submit(w, "y", "y1:\ny2:\n");
    submit(w, "x", "x4:\nx5:\n");
    w->now_ms += 1000;
    finish(w, x, "x3");
    assert_string_equal(assign_all(w), "y1");
    w->now_ms += 2000000;
    finish(w, y, "y1");
    assert_string_equal(assign_all(w), "x4"); /* y has had its share since it came */
}

static void a_project_at_its_limit_waits_and_others_do_not(void **state)
{
    struct world *w = *state;
    uint64_t x;

    set_project(w, "x", 0, 2);
    x = submit(w, "x", "x1:\nx2:\nx3:\nx4: tags=gpu priority=5\n");
    submit(w, "y", "y1:\n");
    worker(w, (struct offer){"w1", "gpu", .slots = 9});
    assert_string_equal(assign_all(w), "x4 y1 x1");
    finish(w, x, "x1");
    assert_string_equal(assign_all(w), "x2");
    set_project(w, "x", 0, 0);
    assert_string_equal(assign_all(w), "x3");
}

static void a_pool_at_its_limit_waits_and_others_do_not(void **state)
{
    struct world *w = *state;
    uint64_t p;

    set_pool(w, "small", 2, 1, false);
    p = submit(w, "x", "a: pool=small\nb: pool=small\nc:\nd:\n");
    submit(w, "y", "e: pool=small\nf: pool=small\n");
    submit(w, "z", "g: pool=small\n");
    worker(w, (struct offer){"w1", .pool = "small", .slots = 9});
    assert_string_equal(assign_all(w), "a e");
    worker(w, (struct offer){"w2", .slots = 9});
    assert_string_equal(assign_all(w), "c d");
    finish(w, p, "a");
    assert_string_equal(assign_all(w), "g"); /* z has none there */
}

static void pools_keep_out_who_does_not_belong(void **state)
{
    struct world *w = *state;
    char *projects[] = {(char *)"group/*"};
    Pb__PoolSet body = PB__POOL_SET__INIT;

    body.name = (char *)"theirs";
    body.has_projects = true;
    body.projects = projects;
    body.n_projects = 1;
    assert_int_equal(WORLD_APPLY(w, "ann", POOL_SET, &body), 0);
    worker(w, (struct offer){"w1", .pool = "theirs", .slots = 9});
    submit(w, "demo", "a:\nb: pool=theirs\nc: pool=other\n");
    submit(w, "group/x", "d:\ne: pool=theirs\n");
    assert_string_equal(assign_all(w), "d e");
}

static void the_lower_priority_gives_way(void **state)
{
    struct world *w = *state;
    struct sched_victim v;
    uint64_t p, urgent;

    set_pool(w, "fast", 0, 0, true);
    worker(w, (struct offer){"w1", .pool = "fast", .slots = 3});
    p = submit(w, "demo",
               "a: interruptible=yes\n"
               "b: interruptible=yes priority=-1\n"
               "c: priority=-5\n");
    assert_string_equal(assign_all(w), "a b c");
    assert_false(sched_preempt(w->sched, &v)); /* nobody waits */
    urgent = submit(w, "demo", "urgent: priority=7\nequal: priority=-1\n");
    assert_string_equal(assign_all(w), "");
    assert_true(sched_preempt(w->sched, &v));
    assert_int_equal(v.job_id, world_job_id(w, p, "b")); /* c must not be interrupted */
    assert_int_equal(v.for_job_id, world_job_id(w, urgent, "urgent"));
    assert_true(sched_preempt(w->sched, &v)); /* the first was refused */
    assert_int_equal(v.job_id, world_job_id(w, p, "a"));
    assert_false(sched_preempt(w->sched, &v));
    assert_string_equal(assign_all(w), ""); /* a new round, in which it may be otherwise */
    assert_true(sched_preempt(w->sched, &v));
    assert_int_equal(v.job_id, world_job_id(w, p, "b"));
    assert_int_equal(world_cancel_job(w, v.job_id), 0);
    assert_string_equal(assign_all(w), "");
    assert_true(sched_preempt(w->sched, &v)); /* the other is on its way out already */
    assert_int_equal(v.job_id, world_job_id(w, p, "a"));
    assert_int_equal(v.for_job_id, world_job_id(w, urgent, "urgent"));
}

static void preempt(struct world *w, const struct sched_victim *v)
{
    Pb__JobPreempt body = PB__JOB_PREEMPT__INIT;

    body.job_id = v->job_id;
    body.epoch = job_get(w->tx, v->job_id)->epoch;
    body.for_job_id = v->for_job_id;
    assert_int_equal(WORLD_APPLY(w, "scheduler", JOB_PREEMPT, &body), 0);
    assert_int_equal(world_assign(w, v->for_job_id, v->worker_id), 0);
}

/* Of what a worker has left when the job is gone, too. */
static void room_is_made_where_it_is_enough(void **state)
{
    struct world *w = *state;
    struct sched_victim v;
    uint64_t p, urgent;

    set_pool(w, "fast", 0, 0, true);
    worker(w, (struct offer){"w1", .pool = "fast", .slots = 4, .memory = 100});
    worker(w, (struct offer){"w2", .pool = "fast", .slots = 3, .memory = 100});
    p = submit(w, "demo",
               "a: interruptible=yes memory=50 priority=1\n"
               "b: interruptible=yes memory=70\n"
               "c: interruptible=yes memory=20 priority=-1\n"
               "d: interruptible=yes memory=10 priority=-2\n");
    assert_string_equal(assign_all(w), "a b c d");
    urgent = submit(w, "demo", "urgent: priority=7 memory=80\n");
    assert_string_equal(assign_all(w), "");
    assert_true(sched_preempt(w->sched, &v));
    assert_int_equal(v.job_id, world_job_id(w, p, "b"));
    preempt(w, &v);
    assert_string_equal(assign_all(w), "");
    assert_string_equal(world_state(w, urgent, "urgent"), "assigned");
    assert_false(sched_preempt(w->sched, &v));
}

/* Where nobody is of less claim than what waits, nobody is looked for. */
static void who_cannot_displace_costs_no_search(void **state)
{
    struct world *w = *state;
    struct buf text = BUF_INIT;
    struct sched_victim v;
    struct sched_stat stat;

    set_pool(w, "fast", 0, 0, true);
    worker(w, (struct offer){"w1", "t", .pool = "fast", .slots = 60});
    for (unsigned i = 0; i < 60; i++) {
        buf_addf(&text, "run%u: interruptible=yes\n", i);
    }
    for (unsigned i = 1; i <= 100; i++) {
        buf_addf(&text, "wait%u: cpu=%u\n", i, i);
    }
    submit(w, "demo", buf_cstr(&text));
    buf_release(&text);
    assign_all(w);
    assert_false(sched_preempt(w->sched, &v));
    sched_stat(w->sched, &stat);
    assert_int_equal(stat.running, 60);
    assert_int_equal(stat.weighed, 0);
    submit(w, "demo", "urgent: priority=1 tags=t\n");
    assign_all(w);
    assert_true(sched_preempt(w->sched, &v));
    sched_stat(w->sched, &stat);
    assert_int_equal(stat.weighed, 1);
}

static void a_worker_that_was_refused_gets_nothing_until_it_is_told_of(void **state)
{
    struct world *w = *state;
    struct sched_proposal p[4];
    const uint64_t id = worker(w, (struct offer){"w1", .slots = 3});
    const uint64_t other = worker(w, (struct offer){"w2", .slots = 1});

    submit(w, "demo", "a:\nb:\n");
    assert_int_equal(propose(w, p, 1), 1);
    assert_int_equal(p[0].worker_id, id);
    sched_refused(w->sched, id);
    assert_int_equal(propose(w, p, 4), 1);
    assert_int_equal(p[0].worker_id, other);
    assert_string_equal(assign_all(w), "a");
    sched_worker(w->sched, id, worker_get(w->tx, id), true);
    assert_string_equal(assign_all(w), "b");
}

/* What fits nowhere is not tried on all workers again because one of them has ended a small job. */
static void a_job_too_big_for_all_costs_the_others_nothing(void **state)
{
    struct world *w = *state;
    struct sched_stat before, after;
    uint64_t p;

    for (unsigned i = 0; i < 50; i++) {
        worker(w,
               (struct offer){arena_printf(tx_arena(w->tx), "w%u", i), .slots = 2, .memory = 100});
    }
    submit(w, "demo", "big: memory=200\nlarge: memory=100\n");
    assert_string_equal(assign_all(w), "large");
    p = submit(w, "demo", "a: memory=10\nb: memory=10\nc: memory=10\nd: memory=10\n");
    sched_stat(w->sched, &before);
    assert_string_equal(assign_all(w), "a b c d");
    finish(w, p, "a");
    finish(w, p, "b");
    assert_string_equal(assign_all(w), "");
    sched_stat(w->sched, &after);
    assert_in_range(after.fitted - before.fitted, 4, 8);
    worker(w, (struct offer){"large", .slots = 1, .memory = 200});
    assert_string_equal(assign_all(w), "big");
}

/* A copy that learns everything anew proposes what the one that learned step by step does. */
static void what_is_rebuilt_is_what_was_learned(void **state)
{
    struct world *w = *state;
    struct sched_stat before, after;
    struct sched_proposal a[16], b[16];
    uint64_t p;
    size_t n;

    set_project(w, "x", 50, 0);
    worker(w, (struct offer){"w1", "gpu", .slots = 4});
    worker(w, (struct offer){"w2", .slots = 2});
    p = submit(w, "x", "a:\nb: tags=gpu\nc: priority=3\nd:\ne:\nf:\ng:\n");
    submit(w, "y", "h:\ni: priority=3\n");
    assign_all(w);
    finish(w, p, "a");
    finish(w, p, "b");
    assert_int_equal(world_cancel_job(w, world_job_id(w, p, "g")), 0);
    n = propose(w, a, ARRAY_LEN(a));
    assert_int_equal(n, 2);
    sched_stat(w->sched, &before);
    sched_reset(w->sched);
    assert_int_equal(propose(w, b, ARRAY_LEN(b)), n);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(a[i].job_id, b[i].job_id);
        assert_int_equal(a[i].worker_id, b[i].worker_id);
    }
    sched_stat(w->sched, &after);
    assert_int_equal(before.running, after.running);
    assert_int_equal(before.workers, after.workers);
}

#define SHARERS  5u
#define SLOTS    20u
#define DEMANDED 40u

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return *seed >> 33;
}

/* How many slots each project holds. */
static void count_running(struct world *w, uint32_t counts[SHARERS])
{
    struct cursor cur;

    memset(counts, 0, SHARERS * sizeof(*counts));
    for (tx_seek(&cur, w->tx, T_ASSIGNMENT, STR_NULL, NULL); cur.valid; tx_next(&cur)) {
        const Pb__JobRecord *job = job_get(w->tx, key_read_u64(cur.key, 0));
        counts[job->name[0] - 'a']++;
    }
    cursor_end(&cur);
}

static void finish_some(struct world *w, uint64_t *seed)
{
    uint64_t ids[SLOTS];
    struct cursor cur;
    size_t n = 0;

    for (tx_seek(&cur, w->tx, T_ASSIGNMENT, STR_NULL, NULL); cur.valid && n < SLOTS;
         tx_next(&cur)) {
        ids[n++] = key_read_u64(cur.key, 0);
    }
    cursor_end(&cur);
    for (size_t i = 0; i < n; i++) {
        Pb__Outcome o = PB__OUTCOME__INIT;
        o.result = JOB_SUCCESS;
        if (next_random(seed) % 3 == 0) {
            assert_int_equal(world_finished(w, ids[i], &o), 0);
        }
    }
}

/* Projects that always have something to run hold the slots that max-min fairness gives them, but
 * for less than one job each, whatever ends when. */
static void random_loads_share_by_weight(void **state)
{
    static const uint32_t weights[SHARERS] = {100, 100, 200, 300, 300};
    struct world *w = *state;
    uint32_t counts[SHARERS];
    uint64_t seed = 7;

    w->audit = false;
    for (unsigned i = 0; i < SHARERS; i++) {
        struct buf plan = BUF_INIT;
        char name[2] = {(char)('a' + i)};
        set_project(w, name, weights[i], 0);
        for (unsigned j = 0; j < 5 * DEMANDED; j++) {
            buf_addf(&plan, "%c%u:%s\n", 'a' + i, j, j % 3 == 0 ? " tags=x" : "");
        }
        submit(w, name, buf_cstr(&plan));
        buf_release(&plan);
    }
    worker(w, (struct offer){"w1", "x", .slots = SLOTS / 2});
    worker(w, (struct offer){"w2", "x", .slots = SLOTS / 2});
    for (unsigned round = 0; round < 25; round++) {
        assign_all(w);
        count_running(w, counts);
        for (unsigned i = 0; i < SHARERS; i++) {
            const int32_t fair = (int32_t)(SLOTS * weights[i] / 1000u);
            assert_in_range(counts[i], fair, fair); /* the weights divide the slots evenly */
        }
        w->now_ms += next_random(&seed) % 60000;
        finish_some(w, &seed);
    }
}

static void a_long_queue_costs_no_more_than_a_short_one(void **state)
{
    struct world *w = *state;
    struct sched_proposal got[64];
    struct sched_stat stat;

    fill(w);
    sched_reset(w->sched); /* as after a restart */
    worker(w, (struct offer){"w1", "x", .slots = 64});
    sched_stat(w->sched, &stat);
    const uint64_t before = stat.rows;
    assert_int_equal(tx_count(w->tx, T_READY), QUEUED_PIPELINES * QUEUED_JOBS);
    assert_int_equal(propose(w, got, 64), 64);
    sched_stat(w->sched, &stat);
    assert_true(stat.rows - before <= 3 + 3 * 256u); /* one a lane, and the fronts */
    for (size_t i = 1; i < 64; i++) {                /* two classes, oldest first */
        assert_true(job_get(w->tx, got[i - 1].job_id)->ready_seq <
                    job_get(w->tx, got[i].job_id)->ready_seq);
    }
}

/* Every job of a lane longer than its front comes, once and in its order, also when some are
 * canceled and others come back to their old place meanwhile. */
static void a_lane_keeps_its_order(void **state)
{
    struct world *w = *state;
    struct sched_proposal got[100];
    const uint64_t id = worker(w, (struct offer){"w1", .slots = 1000});
    struct buf text = BUF_INIT;
    uint64_t p, last = 0, first;
    size_t n, total = 0;

    for (unsigned i = 0; i < 900; i++) {
        buf_addf(&text, "j%u:\n", i);
    }
    w->audit = false;
    p = submit(w, "demo", buf_cstr(&text));
    buf_release(&text);
    first = pipeline_get(w->tx, p)->first_job_id;
    assert_int_equal(world_cancel_job(w, first + 1), 0);
    assert_int_equal(world_cancel_job(w, first + 700), 0);
    while ((n = propose(w, got, ARRAY_LEN(got))) > 0) {
        for (size_t i = 0; i < n; i++) {
            assert_true(got[i].job_id > last);
            last = got[i].job_id;
            assert_int_equal(world_assign(w, last, id), 0);
        }
        total += n;
        if (total == 300) { /* one of the first comes back */
            assert_int_equal(world_lost(w, first), 0);
            assert_int_equal(propose(w, got, 1), 1);
            assert_int_equal(got[0].job_id, first);
            assert_int_equal(world_assign(w, first, id), 0);
        }
    }
    assert_int_equal(total, 898);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(classes_are_interleaved_by_priority_then_age),
        TEST(no_matching_pair_is_left_idle),
        TEST(a_closed_worker_gets_nothing),
        TEST(a_specialist_is_kept_for_those_who_need_it),
        TEST(memory_is_given_once),
        TEST(a_job_too_big_for_all_costs_the_others_nothing),
        TEST(age_raises_a_priority_up_to_the_top),
        TEST(an_old_job_overtakes_and_stops_below_administrators),
        TEST(projects_take_turns),
        TEST(a_weight_is_a_share),
        TEST(time_that_was_used_counts),
        TEST(idleness_saves_nothing_up),
        TEST(a_project_at_its_limit_waits_and_others_do_not),
        TEST(a_pool_at_its_limit_waits_and_others_do_not),
        TEST(pools_keep_out_who_does_not_belong),
        TEST(the_lower_priority_gives_way),
        TEST(room_is_made_where_it_is_enough),
        TEST(who_cannot_displace_costs_no_search),
        TEST(a_worker_that_was_refused_gets_nothing_until_it_is_told_of),
        TEST(what_is_rebuilt_is_what_was_learned),
        TEST(random_loads_share_by_weight),
        TEST(a_long_queue_costs_no_more_than_a_short_one),
        TEST(a_lane_keeps_its_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
