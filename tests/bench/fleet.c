/* bench_fleet OPTIONS: many protocol-true workers and one client in one process, on one thread. A
 * worker is a session of its own that says Hello, beats, acknowledges, starts and finishes jobs,
 * and connects again with what it holds. Reads one command a line on stdin and answers each with
 * one JSON object a line on stdout:
 *
 *   connect          all workers and the client, at once; answered when all are welcome
 *   idle MS          nothing but heartbeats
 *   jobs N           enqueues N jobs and runs them
 *   reconnect N      gives out N jobs, cuts all connections in the same moment while they run,
 *                    connects again as workers do, finishes the jobs
 *   flood N          enqueues N jobs of the project "flood" and does not wait for them
 *   single           enqueues one job of the project "single", waits until a worker has it */
#include "common/base.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <uthash.h>

#include "common/limits.h"
#include "common/os.h"
#include "tests/bench/session.h"

enum {
    BATCH = 512,
    UNANSWERED = 8, /* requests */
    TICK_US = 5000,
    RETRY_MS = 500, /* the first back-off is a random time below it */
    DEADLINE_US = 120 * 1000000,
};

struct job {
    UT_hash_handle hh; /* in worker->jobs, by job_id */
    uint64_t job_id;
    uint64_t attempt;
    uint64_t epoch;
    uint64_t due_us; /* when it ends */
    bool finished;   /* said so; FinishAck is to come */
    struct worker *worker;
    struct job *next; /* in fleet->running, in the order of their ends */
};

struct worker {
    struct session s;
    struct fleet *f;
    struct job *jobs;
    uint8_t uid[16];
    uint64_t open_us; /* when to connect again; 0: it is connected */
    uint32_t back_off_ms;
    bool welcome;
};

struct options {
    uint16_t port;
    const char *token;
    const char *worker_token;
    size_t workers;
    uint32_t slots;
    uint64_t job_ms;
};

struct fleet {
    struct options o;
    struct loop *loop;
    struct arena in;
    struct arena out;
    struct worker *workers;
    struct session client;
    bool client_welcome;
    struct job *running;
    struct job **running_tail;
    size_t welcome;
    bool holding; /* jobs run until that is over */
    uint64_t requests;
    uint64_t answers;
    uint64_t to_enqueue;
    const char *project;
    uint64_t assigned;
    uint64_t again; /* assigned under a second attempt: it was lost before */
    uint64_t finished;
    uint64_t fenced;    /* taken away while it ran */
    uint64_t single_us; /* when a worker got the job of "single" */
    uint64_t lost;      /* connections that ended by themselves */
};

NORETURN static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_fleet: %s: %s\n", what, why);
    exit(1);
}

static Pb__JobKey *key_of(struct arena *a, const struct job *j)
{
    Pb__JobKey *key = arena_alloc(a, sizeof(*key));

    pb__job_key__init(key);
    key->job_id = j->job_id;
    key->attempt = j->attempt;
    key->epoch = j->epoch;
    return key;
}

static Pb__HeldJob **held_jobs(struct worker *w, struct arena *a)
{
    Pb__HeldJob **list = arena_array(a, HASH_COUNT(w->jobs) + 1, sizeof(*list));
    struct job *j;
    struct job *tmp;
    size_t n = 0;

    HASH_ITER (hh, w->jobs, j, tmp) {
        Pb__HeldJob *held = arena_alloc(a, sizeof(*held));
        pb__held_job__init(held);
        held->key = key_of(a, j);
        held->state = j->finished ? PB__HELD_STATE__HELD_FINISHED : PB__HELD_STATE__HELD_RUNNING;
        list[n++] = held;
    }
    return list;
}

static void say_hello(void *ctx)
{
    static char *executors[] = {(char *)"shell"};
    struct worker *w = ctx;
    Pb__WorkerHello worker = PB__WORKER_HELLO__INIT;
    Pb__Hello hello = PB__HELLO__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;

    arena_clear(&w->f->out);
    worker.uid = pb_bytes_ref(str_of(w->uid, sizeof(w->uid)));
    worker.name = arena_printf(&w->f->out, "fleet-%zu", (size_t)(w - w->f->workers));
    worker.executors = executors;
    worker.n_executors = ARRAY_LEN(executors);
    worker.slots = w->f->o.slots;
    worker.run_untagged = true;
    worker.version = (char *)DAVIT_VERSION;
    worker.host = (char *)"fleet";
    hello.token = pb_bytes_ref(str_from(w->f->o.worker_token));
    hello.worker = &worker;
    hello.jobs = held_jobs(w, &w->f->out);
    hello.n_jobs = HASH_COUNT(w->jobs);
    e.body_case = PB__ENVELOPE__BODY_HELLO;
    e.hello = &hello;
    session_send(&w->s, &e);
}

static void say_beat(void *ctx, Pb__Heartbeat *beat, struct arena *arena)
{
    struct worker *w = ctx;

    beat->jobs = held_jobs(w, arena);
    beat->n_jobs = HASH_COUNT(w->jobs);
}

static void take_spec(struct worker *w, const Pb__JobSpec *spec)
{
    struct fleet *f = w->f;
    struct job *j;

    check(spec->key);
    HASH_FIND(hh, w->jobs, &spec->key->job_id, sizeof(spec->key->job_id), j);
    if (j) {
        return; /* sent again */
    }
    j = xcalloc(1, sizeof(*j));
    j->job_id = spec->key->job_id;
    j->attempt = spec->key->attempt;
    j->epoch = spec->key->epoch;
    j->worker = w;
    j->due_us = os_monotonic_us() + f->o.job_ms * 1000;
    HASH_ADD(hh, w->jobs, job_id, sizeof(j->job_id), j);
    *f->running_tail = j;
    f->running_tail = &j->next;
    f->assigned++;
    f->again += j->attempt > 1;
    if (strcmp(spec->project, "single") == 0) {
        f->single_us = os_monotonic_us();
    }
}

/* AssignAck and JobStarted: where a job takes no time, its end says both. */
static void say_started(struct worker *w, const Pb__WireAssign *assign)
{
    struct arena *a = &w->f->out;
    Pb__AssignAck ack = PB__ASSIGN_ACK__INIT;
    Pb__WireJobStarted started = PB__WIRE_JOB_STARTED__INIT;
    Pb__Envelope e = PB__ENVELOPE__INIT;

    arena_clear(a);
    ack.keys = arena_array(a, assign->n_specs + 1, sizeof(ack.keys[0]));
    for (size_t i = 0; i < assign->n_specs; i++) {
        ack.keys[ack.n_keys++] = assign->specs[i]->key;
    }
    e.body_case = PB__ENVELOPE__BODY_ASSIGN_ACK;
    e.assign_ack = &ack;
    session_send(&w->s, &e);
    started.keys = ack.keys;
    started.n_keys = ack.n_keys;
    e.body_case = PB__ENVELOPE__BODY_JOB_STARTED;
    e.job_started = &started;
    session_send(&w->s, &e);
}

static void say_finished(struct job *j)
{
    struct arena *a = &j->worker->f->out;
    Pb__WireJobFinished finished = PB__WIRE_JOB_FINISHED__INIT;
    Pb__Outcome outcome = PB__OUTCOME__INIT;
    Pb__JobEnd end = PB__JOB_END__INIT;
    Pb__JobEnd *ends[] = {&end};
    Pb__Envelope e = PB__ENVELOPE__INIT;

    arena_clear(a);
    outcome.result = JOB_SUCCESS;
    end.key = key_of(a, j);
    end.outcome = &outcome;
    finished.ends = ends;
    finished.n_ends = 1;
    e.body_case = PB__ENVELOPE__BODY_JOB_FINISHED;
    e.job_finished = &finished;
    session_send(&j->worker->s, &e);
    j->finished = true;
}

static void take_finish_ack(struct worker *w, const Pb__FinishAck *ack)
{
    for (size_t i = 0; i < ack->n_keys; i++) {
        struct job *j;

        HASH_FIND(hh, w->jobs, &ack->keys[i]->job_id, sizeof(ack->keys[i]->job_id), j);
        if (j && j->finished) {
            HASH_DEL(w->jobs, j);
            free(j);
            w->f->finished++; /* stale, too: to a heartbeat that crossed the end */
        }
    }
}

/* What ended while there was no session is said again in the new one. */
static void take_welcome(struct worker *w)
{
    struct job *j;
    struct job *tmp;

    w->f->welcome += !w->welcome;
    w->welcome = true;
    w->back_off_ms = RETRY_MS;
    HASH_ITER (hh, w->jobs, j, tmp) {
        if (j->finished) {
            say_finished(j);
        }
    }
}

static void take_worker_message(void *ctx, const Pb__Envelope *e)
{
    struct worker *w = ctx;

    switch ((int)e->body_case) {
    case PB__ENVELOPE__BODY_WELCOME:
        take_welcome(w);
        break;
    case PB__ENVELOPE__BODY_ASSIGN:
        for (size_t i = 0; i < e->assign->n_specs; i++) {
            take_spec(w, e->assign->specs[i]);
        }
        if (w->f->holding || w->f->o.job_ms > 0) {
            say_started(w, e->assign);
        }
        break;
    case PB__ENVELOPE__BODY_FINISH_ACK:
        take_finish_ack(w, e->finish_ack);
        break;
    case PB__ENVELOPE__BODY_REFUSED:
        if (e->refused->final) {
            die("refused", e->refused->text);
        }
        w->open_us = os_monotonic_us() + e->refused->retry_after_ms * 1000ull;
        break;
    case PB__ENVELOPE__BODY_CANCEL:
        w->f->fenced++;
        break;
    default: /* HeartbeatAck, Drain */
        break;
    }
}

/* A random time below the back-off, which doubles. */
static void wait_to_open(struct worker *w)
{
    uint32_t chance;

    os_random(&chance, sizeof(chance));
    w->open_us = os_monotonic_us() + chance % w->back_off_ms * 1000ull;
    w->back_off_ms = MIN(2 * w->back_off_ms, 60000);
}

static void lose_worker(void *ctx, const char *why UNUSED)
{
    struct worker *w = ctx;

    w->f->welcome -= w->welcome;
    w->welcome = false;
    w->f->lost++;
    if (w->open_us == 0) {
        wait_to_open(w);
    }
}

static const struct session_events worker_events = {
    .opened = say_hello, .message = take_worker_message, .beat = say_beat, .lost = lose_worker};

static void say_client_hello(void *ctx)
{
    struct fleet *f = ctx;

    session_client_hello(&f->client, f->o.token, "fleet");
}

static void take_client_message(void *ctx, const Pb__Envelope *e)
{
    struct fleet *f = ctx;

    if (e->body_case == PB__ENVELOPE__BODY_WELCOME) {
        f->client_welcome = true;
    } else if (e->body_case == PB__ENVELOPE__BODY_REFUSED) {
        die("refused", e->refused->text);
    } else if (e->body_case == PB__ENVELOPE__BODY_CLIENT_ENQUEUED) {
        if (e->client_enqueued->code[0] != '\0') {
            die("enqueue", e->client_enqueued->text);
        }
        f->answers++;
    }
}

static void lose_client(void *ctx UNUSED, const char *why)
{
    die("client", why);
}

static const struct session_events client_events = {
    .opened = say_client_hello, .message = take_client_message, .lost = lose_client};

static void enqueue(struct fleet *f, size_t n)
{
    Pb__ClientEnqueue request = PB__CLIENT_ENQUEUE__INIT;
    Pb__JobsEnqueue batch = PB__JOBS_ENQUEUE__INIT;
    Pb__EnqueueJob job = PB__ENQUEUE_JOB__INIT;
    Pb__PlanJob plan = PB__PLAN_JOB__INIT;
    ProtobufCBinaryData line = pb_bytes_ref(STR("true"));
    Pb__Envelope e = PB__ENVELOPE__INIT;

    arena_clear(&f->out);
    plan.name = (char *)"job";
    plan.script = &line;
    plan.n_script = 1;
    job.plan = &plan;
    batch.project = (char *)f->project;
    batch.jobs = arena_array(&f->out, n, sizeof(batch.jobs[0]));
    for (size_t i = 0; i < n; i++) {
        batch.jobs[batch.n_jobs++] = &job;
    }
    request.request = ++f->requests;
    request.jobs = &batch;
    e.body_case = PB__ENVELOPE__BODY_CLIENT_ENQUEUE;
    e.client_enqueue = &request;
    session_send(&f->client, &e);
}

static void finish_due(struct fleet *f, uint64_t now_us)
{
    while (f->running && f->running->due_us <= now_us && !f->holding) {
        struct job *j = f->running;
        f->running = j->next;
        if (!f->running) {
            f->running_tail = &f->running;
        }
        j->next = NULL;
        if (j->worker->welcome) {
            say_finished(j);
        } else {
            j->finished = true; /* the next session says so */
        }
    }
}

static void open_due(struct fleet *f, uint64_t now_us)
{
    for (size_t i = 0; i < f->o.workers; i++) {
        struct worker *w = &f->workers[i];
        if (!w->s.conn && w->open_us != 0 && w->open_us <= now_us) {
            w->open_us = 0;
            session_open(&w->s, f->loop, f->o.port, &f->in, &worker_events, w);
        } else if (w->welcome) {
            session_tick(&w->s, now_us);
        }
    }
}

/* One round of everything; every TICK_US a look at all workers. */
static void turn(struct fleet *f)
{
    static uint64_t ticked_us;
    uint64_t now_us;

    loop_wait(f->loop, TICK_US);
    now_us = os_monotonic_us();
    if (now_us - ticked_us >= TICK_US) {
        ticked_us = now_us;
        open_due(f, now_us);
        if (f->client_welcome) {
            session_tick(&f->client, now_us);
        }
    }
    finish_due(f, now_us);
    while (f->to_enqueue > 0 && f->requests - f->answers < UNANSWERED) {
        size_t n = (size_t)MIN(f->to_enqueue, BATCH);
        enqueue(f, n);
        f->to_enqueue -= n;
    }
    loop_flush(f->loop);
}

static void turn_until(struct fleet *f, const char *what, bool (*done)(const struct fleet *f))
{
    uint64_t until_us = os_monotonic_us() + DEADLINE_US;

    while (!done(f)) {
        turn(f);
        if (os_monotonic_us() > until_us) {
            fprintf(stderr,
                    "bench_fleet: %zu welcome, %" PRIu64 " assigned, %" PRIu64 " finished\n",
                    f->welcome, f->assigned, f->finished);
            die("waited in vain for", what);
        }
    }
}

static bool all_welcome(const struct fleet *f)
{
    return f->welcome == f->o.workers && f->client_welcome;
}

static bool all_enqueued(const struct fleet *f)
{
    return f->to_enqueue == 0 && f->answers == f->requests;
}

static uint64_t wanted; /* of what a command waits for */

static bool all_finished(const struct fleet *f)
{
    return f->finished >= wanted;
}

static bool all_assigned(const struct fleet *f)
{
    return f->assigned >= wanted;
}

static bool single_assigned(const struct fleet *f)
{
    return f->single_us != 0;
}

static void connect_all(struct fleet *f)
{
    uint64_t begin_us = os_monotonic_us();

    session_open(&f->client, f->loop, f->o.port, &f->in, &client_events, f);
    for (size_t i = 0; i < f->o.workers; i++) {
        struct worker *w = &f->workers[i];
        w->f = f;
        w->back_off_ms = RETRY_MS;
        os_random(w->uid, sizeof(w->uid));
        session_open(&w->s, f->loop, f->o.port, &f->in, &worker_events, w);
    }
    turn_until(f, "welcomes", all_welcome);
    printf("{\"workers\": %zu, \"seconds\": %.3f, \"lost\": %" PRIu64 "}\n", f->o.workers,
           (double)(os_monotonic_us() - begin_us) / 1e6, f->lost);
}

static void stay_idle(struct fleet *f, uint64_t ms)
{
    uint64_t until_us = os_monotonic_us() + ms * 1000;
    uint64_t lost = f->lost;

    while (os_monotonic_us() < until_us) {
        turn(f);
    }
    printf("{\"ms\": %" PRIu64 ", \"lost\": %" PRIu64 "}\n", ms, f->lost - lost);
}

static void run_jobs(struct fleet *f, uint64_t jobs)
{
    uint64_t begin_us = os_monotonic_us();

    wanted = f->finished + jobs;
    f->project = "fleet";
    f->to_enqueue = jobs;
    turn_until(f, "the jobs", all_finished);
    printf("{\"jobs\": %" PRIu64 ", \"seconds\": %.3f}\n", jobs,
           (double)(os_monotonic_us() - begin_us) / 1e6);
}

/* Closes all connections of workers with jobs in their hands. */
static void cut(struct fleet *f)
{
    for (size_t i = 0; i < f->o.workers; i++) {
        struct worker *w = &f->workers[i];
        if (w->s.conn) {
            conn_close(w->s.conn);
            w->s.conn = NULL;
        }
        w->welcome = false;
        wait_to_open(w);
    }
    f->welcome = 0;
}

static void reconnect(struct fleet *f, uint64_t jobs)
{
    uint64_t fenced = f->fenced;
    uint64_t again = f->again;
    uint64_t begin_us;
    uint64_t end_us;

    f->holding = true;
    f->project = "fleet";
    f->to_enqueue = jobs;
    wanted = f->assigned + jobs;
    turn_until(f, "the assignments", all_assigned);
    begin_us = os_monotonic_us();
    cut(f);
    turn_until(f, "welcomes", all_welcome);
    end_us = os_monotonic_us();
    f->holding = false;
    wanted = f->finished + jobs;
    turn_until(f, "the ends", all_finished);
    printf("{\"jobs\": %" PRIu64 ", \"seconds\": %.3f, \"lost_jobs\": %" PRIu64 "}\n", jobs,
           (double)(end_us - begin_us) / 1e6, f->fenced - fenced + f->again - again);
}

static void flood(struct fleet *f, uint64_t jobs)
{
    f->project = "flood";
    f->to_enqueue = jobs;
    turn_until(f, "the flood", all_enqueued);
    printf("{\"jobs\": %" PRIu64 "}\n", jobs);
}

static void single(struct fleet *f)
{
    uint64_t begin_us = os_monotonic_us();

    f->single_us = 0;
    f->project = "single";
    f->to_enqueue = 1;
    turn_until(f, "the single job", single_assigned);
    printf("{\"wait_us\": %" PRIu64 "}\n", f->single_us - begin_us);
}

static bool run_command(struct fleet *f, struct str line)
{
    struct str word;
    uint64_t number = 0;

    line = str_trim(line);
    if (!str_split(&line, ' ', &word) || (line.n > 0 && str_to_u64(line, &number) < 0)) {
        return false;
    }
    if (str_eqz(word, "connect")) {
        connect_all(f);
    } else if (str_eqz(word, "idle")) {
        stay_idle(f, number);
    } else if (str_eqz(word, "jobs")) {
        run_jobs(f, number);
    } else if (str_eqz(word, "reconnect")) {
        reconnect(f, number);
    } else if (str_eqz(word, "flood")) {
        flood(f, number);
    } else if (str_eqz(word, "single")) {
        single(f);
    } else {
        return false;
    }
    fflush(stdout);
    return true;
}

static uint64_t number_of(const char *text)
{
    uint64_t n;

    if (str_to_u64(str_from(text), &n) < 0) {
        die("not a number", text);
    }
    return n;
}

static void read_options(struct options *o, int argc, char **argv)
{
    static const struct option names[] = {
        {"port", required_argument, NULL, 'p'},
        {"token", required_argument, NULL, 't'},
        {"workers", required_argument, NULL, 'w'},
        {"worker-token", required_argument, NULL, 'k'},
        {"slots", required_argument, NULL, 's'},
        {"job-ms", required_argument, NULL, 'm'},
        {0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (option) {
        case 'p':
            o->port = (uint16_t)number_of(optarg);
            break;
        case 't':
            o->token = optarg;
            break;
        case 'w':
            o->workers = (size_t)number_of(optarg);
            break;
        case 'k':
            o->worker_token = optarg;
            break;
        case 's':
            o->slots = (uint32_t)number_of(optarg);
            break;
        case 'm':
            o->job_ms = number_of(optarg);
            break;
        default:
            exit(64);
        }
    }
    if (o->port == 0 || !o->token || !o->worker_token) {
        die("usage", "bench_fleet --port N --token T --worker-token T [--workers N] [--slots N] "
                     "[--job-ms N]");
    }
}

/* A descriptor for each worker. */
static void raise_files(void)
{
    struct rlimit files;

    check(getrlimit(RLIMIT_NOFILE, &files) == 0);
    files.rlim_cur = files.rlim_max;
    check(setrlimit(RLIMIT_NOFILE, &files) == 0);
}

int main(int argc, char **argv)
{
    struct fleet f = {.o = {.workers = 1, .slots = 1}};
    char line[128];

    read_options(&f.o, argc, argv);
    raise_files();
    f.running_tail = &f.running;
    f.loop = loop_new();
    arena_init(&f.in, 0);
    arena_init(&f.out, 0);
    f.workers = xcalloc(f.o.workers, sizeof(*f.workers));
    /* Between commands nobody beats: whoever drives does not wait. */
    while (fgets(line, sizeof(line), stdin)) {
        if (!run_command(&f, str_from(line))) {
            die("no command", line);
        }
    }
    _Exit(0); /* as workers that are killed */
}
