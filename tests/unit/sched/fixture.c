#include "common/base.h"

#include "tests/unit/sched/fixture.h"

int set_up(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));

    world_init(w);
    w->sched = sched_new();
    *state = w;
    return 0;
}

int tear_down(void **state)
{
    struct world *w = *state;

    sched_free(w->sched);
    world_release(w);
    free(w);
    return 0;
}

/* A worker that says so, and is open for work. */
uint64_t worker(struct world *w, struct offer o)
{
    char *executors[] = {(char *)"shell"}, *tags[] = {(char *)o.tags};
    Pb__WorkerHello body = PB__WORKER_HELLO__INIT;

    body.name = (char *)o.name;
    body.pool = (char *)(o.pool != NULL ? o.pool : "");
    body.executors = executors;
    body.n_executors = 1;
    body.tags = tags;
    body.n_tags = o.tags != NULL;
    body.slots = o.slots;
    body.memory_bytes = o.memory;
    body.run_untagged = !o.tagged_only;
    assert_int_equal(world_hello(w, &body), 0);
    sched_worker(w->sched, w->reply.worker_id, worker_get(w->tx, w->reply.worker_id), true);
    return w->reply.worker_id;
}

uint64_t submit(struct world *w, const char *project, const char *plan)
{
    Pb__PipelineCreate body = PB__PIPELINE_CREATE__INIT;

    body.project = (char *)project;
    body.plan = plan_from_text(tx_arena(w->tx), plan);
    body.ref = (char *)"main";
    body.sha = (char *)"1";
    body.origin = (char *)"push";
    assert_int_equal(WORLD_APPLY(w, "ann", PIPELINE_CREATE, &body), 0);
    return w->reply.pipeline_id;
}

static int by_order(const void *a, const void *b)
{
    const struct sched_proposal *x = a, *y = b;

    return x->order < y->order ? -1 : x->order > y->order;
}

/* In the order in which they were found. */
size_t propose(struct world *w, struct sched_proposal *ret, size_t max)
{
    const size_t n = sched_propose(w->sched, w->tx, w->now_ms, ret, max);

    qsort(ret, n, sizeof(*ret), by_order);
    return n;
}

/* One assignment after the other; the names of the jobs, with blanks between. */
const char *assign_all(struct world *w)
{
    struct sched_proposal p[64];
    struct buf names = BUF_INIT;
    const char *text;
    size_t n;

    while ((n = propose(w, p, ARRAY_LEN(p))) > 0) {
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(world_assign(w, p[i].job_id, p[i].worker_id), 0);
            buf_addf(&names, "%s%s", names.n > 0 ? " " : "", job_get(w->tx, p[i].job_id)->name);
        }
    }
    text = arena_strdup(tx_arena(w->tx), buf_str(&names));
    buf_release(&names);
    return text;
}

void finish(struct world *w, uint64_t pipeline_id, const char *name)
{
    Pb__Outcome o = PB__OUTCOME__INIT;

    o.result = JOB_SUCCESS;
    assert_int_equal(world_finished(w, world_job_id(w, pipeline_id, name), &o), 0);
}

void set_project(struct world *w, const char *name, uint32_t weight, uint32_t max_running)
{
    Pb__ProjectSet body = PB__PROJECT_SET__INIT;

    body.name = (char *)name;
    body.has_weight = body.has_max_running = true;
    body.weight = weight;
    body.max_running = max_running;
    assert_int_equal(WORLD_APPLY(w, "ann", PROJECT_SET, &body), 0);
}

void set_pool(struct world *w, const char *name, uint32_t max_running, uint32_t each, bool preempt)
{
    Pb__PoolSet body = PB__POOL_SET__INIT;

    body.name = (char *)name;
    body.has_max_running = body.has_project_max_running = body.has_preempt = true;
    body.max_running = max_running;
    body.project_max_running = each;
    body.preempt = preempt;
    assert_int_equal(WORLD_APPLY(w, "ann", POOL_SET, &body), 0);
}

void fill(struct world *w)
{
    struct buf text = BUF_INIT;

    for (unsigned i = 0; i < QUEUED_JOBS; i++) {
        buf_addf(&text, "j%u: %s\n", i, i % 3 == 0 ? "tags=x" : i % 3 == 1 ? "" : "tags=y");
    }
    w->audit = false;
    for (unsigned i = 0; i < QUEUED_PIPELINES; i++) {
        submit(w, "demo", buf_cstr(&text));
        world_commit(w);
    }
    buf_release(&text);
}
