/* What a job without a pipeline costs the core and the store, from its enqueue to its end: commands
 * applied to a real store by one thread, without the turn, the journal and the wire. For counting
 * instructions (valgrind --tool=callgrind, perf stat); the time it prints is that of the run.
 *
 *     core_cycle [JOBS [KEEP_MS [BATCH]]] */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "broker/core/core.h"
#include "common/os.h"

#define WORKER_SLOTS     256u
#define BATCHES_A_COMMIT 64u

struct cycle {
    struct store *store;
    struct tx *tx;
    struct effects fx;
    struct reply reply;
    uint64_t now_ms;
    uint64_t worker_id;
    size_t batch;
    uint64_t keep_ms;
    Pb__JobsEnqueue *enqueue;
    uint64_t *ids;
};

static void apply(struct cycle *c, Pb__Command__BodyCase which, void *body)
{
    Pb__Command cmd = PB__COMMAND__INIT;
    int r;

    cmd.version = COMMAND_VERSION;
    cmd.time_ms = ++c->now_ms;
    cmd.actor = (char *)"bench";
    cmd.body_case = which;
    cmd.init_store = body; /* all bodies of the union are pointers */
    effects_clear(&c->fx);
    r = core_apply(c->tx, &cmd, &c->fx, &c->reply);
    if (r < 0) {
        fprintf(stderr, "core_cycle: refused: %s\n", c->reply.text);
    }
    check(r == 0);
}

static void begin(struct cycle *c, const char *dir)
{
    static uint8_t id[16], key[32];
    static char *executors[] = {(char *)"shell"};
    Pb__InitStore init = PB__INIT_STORE__INIT;
    Pb__WorkerHello hello = PB__WORKER_HELLO__INIT;
    const struct store_options opt = {.map_bytes = 1024ull * 1024 *
                                                   1024}; /* valgrind has no room */
    struct buf why = BUF_INIT;

    check(store_open(dir, &opt, &c->store, &why) == 0);
    check(tx_begin(c->store, true, &c->tx) == 0);
    init.store_id = (ProtobufCBinaryData){sizeof(id), id};
    init.job_token_key = (ProtobufCBinaryData){sizeof(key), key};
    apply(c, PB__COMMAND__BODY_INIT_STORE, &init);
    hello.uid = (ProtobufCBinaryData){sizeof(id), id};
    hello.name = (char *)"w1";
    hello.version = (char *)"1";
    hello.executors = executors;
    hello.n_executors = 1;
    hello.slots = WORKER_SLOTS;
    hello.run_untagged = true;
    apply(c, PB__COMMAND__BODY_WORKER_HELLO, &hello);
    c->worker_id = c->reply.worker_id;
    buf_release(&why);
}

/* The same request again and again: a script of 300 bytes. */
static void make_request(struct cycle *c)
{
    static uint8_t script[300];
    static ProtobufCBinaryData lines[] = {{sizeof(script), script}};

    memset(script, 'x', sizeof(script));
    c->enqueue = xcalloc(1, sizeof(*c->enqueue));
    pb__jobs_enqueue__init(c->enqueue);
    c->enqueue->project = (char *)"bench";
    c->enqueue->n_jobs = c->batch;
    c->enqueue->jobs = xcalloc(c->batch, sizeof(Pb__EnqueueJob *));
    for (size_t i = 0; i < c->batch; i++) {
        Pb__EnqueueJob *e = c->enqueue->jobs[i] = xcalloc(1, sizeof(*e));
        pb__enqueue_job__init(e);
        e->keep_ms = c->keep_ms;
        e->plan = xcalloc(1, sizeof(*e->plan));
        pb__plan_job__init(e->plan);
        e->plan->name = (char *)"job";
        e->plan->script = lines;
        e->plan->n_script = 1;
    }
    c->ids = xcalloc(c->batch, sizeof(*c->ids));
}

static void cycle(struct cycle *c)
{
    Pb__Assign assign = PB__ASSIGN__INIT;
    Pb__JobsFinished finished = PB__JOBS_FINISHED__INIT;
    Pb__FinishedJob *jobs = xcalloc(c->batch, sizeof(*jobs));
    Pb__FinishedJob **list = xcalloc(c->batch, sizeof(Pb__FinishedJob *));
    Pb__Outcome o = PB__OUTCOME__INIT;

    tx_rest(c->tx); /* as a turn does */
    apply(c, PB__COMMAND__BODY_JOBS_ENQUEUE, c->enqueue);
    for (size_t i = 0; i < c->batch; i++) {
        c->ids[i] = c->reply.jobs[i].job_id;
    }
    assign.worker_id = c->worker_id;
    assign.job_ids = c->ids;
    assign.n_job_ids = c->batch;
    apply(c, PB__COMMAND__BODY_ASSIGN, &assign);
    o.result = 8; /* success */
    for (size_t i = 0; i < c->batch; i++) {
        pb__finished_job__init(&jobs[i]);
        jobs[i].job_id = c->ids[i];
        jobs[i].attempt = 1;
        jobs[i].epoch = 1;
        jobs[i].outcome = &o;
        list[i] = &jobs[i];
    }
    finished.worker_id = c->worker_id;
    finished.jobs = list;
    finished.n_jobs = c->batch;
    apply(c, PB__COMMAND__BODY_JOBS_FINISHED, &finished);
    free(jobs);
    free(list);
}

int main(int argc, char **argv)
{
    struct cycle c = {.now_ms = 1700000000000, .batch = 64};
    uint64_t jobs = 64 * 1000, start_us, took_us;
    char *dir;

    check(argc < 2 || str_to_u64(str_from(argv[1]), &jobs) == 0);
    check(argc < 3 || str_to_u64(str_from(argv[2]), &c.keep_ms) == 0);
    check(argc < 4 || str_to_u64(str_from(argv[3]), &c.batch) == 0);
    check(c.batch > 0 && c.batch <= WORKER_SLOTS);
    dir = os_make_temp_dir("davit-core-cycle");
    effects_init(&c.fx);
    begin(&c, dir);
    make_request(&c);
    start_us = os_monotonic_us();
    for (uint64_t i = 0; i < jobs / c.batch; i++) {
        cycle(&c);
        if (i % BATCHES_A_COMMIT == BATCHES_A_COMMIT - 1) {
            check(tx_commit(c.tx) == 0);
            check(tx_begin(c.store, true, &c.tx) == 0);
        }
    }
    check(tx_commit(c.tx) == 0);
    took_us = os_monotonic_us() - start_us;
    printf("%" PRIu64 " jobs, batches of %zu, kept %" PRIu64 " ms: %.2f us a job with commits\n",
           jobs, c.batch, c.keep_ms, (double)took_us / (double)jobs);
    store_close(c.store);
    check(os_remove_tree(dir) == 0);
    free(dir);
    return 0;
}
