/* bench_queue MODE OPTIONS: one queue under load, see peers/peer.h and queue.py. Prints one JSON
 * object.
 *
 *   cycle    keeps --window jobs between submit and acknowledged end; with --backlog the queue
 * holds jobs already and each end brings a submit latency  one job at a time, at an idle queue:
 * from its submit until the worker has it fill     submits --jobs jobs and takes none first tries
 * until the queue gives out a job; says when, by the monotonic clock */
#include "common/base.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/os.h"
#include "tests/bench/peers/peer.h"

enum {
    WINDOW_MAX = 4096,
    WAIT_US = 100000,
    SET_UP_US = 20 * 1000000,
    DRAIN_US = 30 * 1000000,
    PAUSE_US = 1000, /* between jobs of `latency`, and as much again by chance */
    TRY_AGAIN_MS = 2,
    EXIT_TRY_AGAIN = 3,
};

struct samples {
    uint64_t *us;
    size_t n;
    size_t cap;
};

struct slot {
    uint64_t tag; /* 0: free */
    uint64_t submitted_us;
    bool acknowledged;
    bool finished;
};

struct options {
    const struct peer_ops *ops;
    struct peer_config config;
    uint64_t warm_ms;
    uint64_t ms;
    uint64_t jobs;
    bool backlog;
};

struct driver {
    const struct options *options;
    struct loop *loop;
    struct peer *peer;
    struct slot slots[WINDOW_MAX];
    uint32_t free_slots[WINDOW_MAX];
    size_t n_free;
    size_t n_slots;
    uint64_t run;     /* marks the tags of this run */
    uint32_t number;  /* of the last job */
    uint64_t credits; /* submits that may be made */
    uint64_t held;    /* by the worker */
    uint64_t acknowledged;
    uint64_t finished;
    bool ready;
    bool timed; /* samples are kept */
    struct samples has;
    struct samples cycle;
    uint64_t first_us; /* when the worker had its first job */
};

static bool trying; /* mode first: a failure means "not yet" */

void driver_fail(const char *what, struct str why)
{
    if (!trying) {
        fprintf(stderr, "bench_queue: %s: " STR_FMT "\n", what, STR_ARG(why));
    }
    _Exit(trying ? EXIT_TRY_AGAIN : 1);
}

static void sample(struct samples *s, uint64_t us)
{
    if (s->n == s->cap) {
        s->cap = MAX(4096, 2 * s->cap);
        s->us = xrealloc(s->us, s->cap * sizeof(*s->us));
    }
    s->us[s->n++] = us;
}

/* A tag is 16 bits of the run, 16 of the slot, 32 of the job's number. */
static struct slot *slot_of(struct driver *d, uint64_t tag)
{
    struct slot *s = &d->slots[tag >> 32 & 0xffff];

    return tag >> 48 == d->run && (tag >> 32 & 0xffff) < d->n_slots && s->tag == tag ? s : NULL;
}

static void release_slot(struct driver *d, struct slot *s)
{
    s->tag = 0;
    d->free_slots[d->n_free++] = (uint32_t)(s - d->slots);
}

/* Cycles that are whole: beside a backlog an end and a submit make one. */
static uint64_t count_cycles(const struct driver *d)
{
    return d->options->backlog ? MIN(d->finished, d->acknowledged) : d->finished;
}

/* Without a backlog a job's slot is free when both of its acknowledgements have come. */
static void complete(struct driver *d, struct slot *s)
{
    if (!s->acknowledged || !s->finished) {
        return;
    }
    if (d->timed) {
        sample(&d->cycle, os_monotonic_us() - s->submitted_us);
    }
    release_slot(d, s);
    d->finished++;
    d->credits++;
}

void driver_ready(struct driver *d)
{
    d->ready = true;
}

void driver_submitted(struct driver *d, uint64_t tag)
{
    struct slot *s = slot_of(d, tag);

    check(s && !s->acknowledged);
    d->acknowledged++;
    s->acknowledged = true;
    if (d->options->backlog) {
        release_slot(d, s);
    } else {
        complete(d, s);
    }
}

void driver_has(struct driver *d, uint64_t tag)
{
    struct slot *s = slot_of(d, tag);

    d->held++;
    if (d->first_us == 0) {
        d->first_us = os_monotonic_us();
    }
    if (s && d->timed && !d->options->backlog) {
        sample(&d->has, os_monotonic_us() - s->submitted_us);
    }
}

void driver_finished(struct driver *d, uint64_t tag)
{
    struct slot *s = slot_of(d, tag);

    check(d->held > 0);
    d->held--;
    if (d->options->backlog) {
        d->finished++;
        d->credits++;
    } else if (s) {
        s->finished = true;
        complete(d, s);
    } /* else it was left by somebody else */
}

static void submit(struct driver *d)
{
    uint64_t tags[WINDOW_MAX];
    size_t n = (size_t)MIN(d->credits, d->n_free);

    for (size_t i = 0; i < n; i++) {
        uint32_t index = d->free_slots[--d->n_free];
        struct slot *s = &d->slots[index];
        *s = (struct slot){.tag = d->run << 48 | (uint64_t)index << 32 | ++d->number,
                           .submitted_us = os_monotonic_us()};
        tags[i] = s->tag;
    }
    d->credits -= n;
    if (n > 0) {
        d->options->ops->submit(d->peer, tags, n);
    }
}

static void round_of(struct driver *d, uint64_t wait_us, bool submits)
{
    const struct peer_ops *ops = d->options->ops;

    loop_wait(d->loop, ops->max_wait_us ? MIN(wait_us, ops->max_wait_us) : wait_us);
    /* Ends do not run ahead of the submits that replace them: a backlog would shrink. */
    if (!submits || d->credits < d->n_slots) {
        ops->round(d->peer);
    }
    if (submits) {
        submit(d);
    }
    loop_flush(d->loop);
}

static void start(struct driver *d, const struct options *o, bool worker)
{
    struct peer_config config = o->config;
    uint64_t until_us = os_monotonic_us() + SET_UP_US;
    uint16_t run;

    os_random(&run, sizeof(run));
    *d = (struct driver){.options = o, .run = run, .loop = loop_new(), .n_slots = config.window};
    for (size_t i = 0; i < d->n_slots; i++) {
        d->free_slots[d->n_free++] = (uint32_t)i;
    }
    config.worker = worker;
    d->peer = o->ops->open(&config, d->loop, d);
    while (!d->ready) {
        loop_flush(d->loop);
        loop_wait(d->loop, WAIT_US);
        if (os_monotonic_us() > until_us) {
            driver_fail(o->ops->name, STR("no answer"));
        }
    }
}

static void stop(struct driver *d)
{
    loop_free(d->loop);
    d->options->ops->free(d->peer);
    free(d->has.us);
    free(d->cycle.us);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void print_samples(const char *name, struct samples *s)
{
    static const unsigned points[] = {500, 990, 999};

    qsort(s->us, s->n, sizeof(*s->us), compare);
    for (size_t i = 0; i < ARRAY_LEN(points) && s->n > 0; i++) {
        printf(", \"%s_p%u_us\": %" PRIu64, name, points[i],
               s->us[MIN(s->n - 1, s->n * points[i] / 1000)]);
    }
}

static void print_result(struct driver *d, uint64_t jobs, uint64_t us)
{
    struct rusage used;

    check(getrusage(RUSAGE_SELF, &used) == 0);
    printf("{\"jobs\": %" PRIu64 ", \"jobs_per_s\": %.1f, \"all_jobs\": %" PRIu64
           ", \"cpu_s\": %.3f",
           jobs, (double)jobs * 1e6 / (double)us, d->finished + d->held,
           (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
               (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
    print_samples("has", &d->has);
    print_samples("cycle", &d->cycle);
    printf("}\n");
}

/* Lets what is on its way come to its end, so that the next run finds the queue as this one did. */
static void drain(struct driver *d)
{
    uint64_t until_us = os_monotonic_us() + DRAIN_US;
    const struct peer_ops *ops = d->options->ops;

    if (d->options->backlog && ops->quiesce) {
        ops->quiesce(d->peer);
    }
    while (d->n_free < d->n_slots || (d->held > 0 && (!d->options->backlog || ops->quiesce))) {
        round_of(d, WAIT_US, false);
        if (os_monotonic_us() > until_us) {
            driver_fail(ops->name, STR("jobs are left over"));
        }
    }
}

static void run_cycle(struct driver *d)
{
    const struct options *o = d->options;
    uint64_t begin_us = os_monotonic_us() + o->warm_ms * 1000;
    uint64_t end_us = begin_us + o->ms * 1000;
    uint64_t before = 0;
    uint64_t now_us;

    d->credits = o->backlog ? 0 : o->config.window;
    submit(d);
    loop_flush(d->loop);
    while ((now_us = os_monotonic_us()) < end_us) {
        if (!d->timed && now_us >= begin_us) {
            d->timed = true;
            begin_us = now_us;
            before = count_cycles(d);
        }
        round_of(d, WAIT_US, true);
    }
    d->timed = false;
    uint64_t jobs = count_cycles(d) - before;
    drain(d);
    print_result(d, jobs, now_us - begin_us);
}

static void pause_for(struct driver *d, uint64_t us)
{
    uint64_t until_us = os_monotonic_us() + us;
    uint64_t now_us;

    while ((now_us = os_monotonic_us()) < until_us) {
        round_of(d, until_us - now_us, false);
    }
}

static void run_latency(struct driver *d)
{
    const struct options *o = d->options;
    uint64_t begin_us = os_monotonic_us();
    uint64_t paused_us = 0;
    uint16_t chance;

    for (uint64_t i = 0; i < o->jobs; i++) {
        uint64_t pause_us;
        os_random(&chance, sizeof(chance));
        pause_us = PAUSE_US + chance % PAUSE_US;
        pause_for(d, pause_us);
        paused_us += pause_us;
        d->timed = i >= o->jobs / 10; /* the first ones warm up */
        d->credits = 1;
        submit(d);
        loop_flush(d->loop);
        while (d->n_free < d->n_slots) {
            round_of(d, WAIT_US, false);
        }
    }
    print_result(d, o->jobs, os_monotonic_us() - begin_us - paused_us);
}

static void run_fill(struct driver *d)
{
    const struct options *o = d->options;
    uint64_t begin_us = os_monotonic_us();

    while (d->acknowledged < o->jobs) {
        d->credits = MIN(d->n_free, o->jobs - d->number);
        submit(d);
        loop_flush(d->loop);
        round_of(d, WAIT_US, false);
    }
    print_result(d, o->jobs, os_monotonic_us() - begin_us);
}

static void run_first(struct driver *d)
{
    uint64_t until_us = os_monotonic_us() + SET_UP_US;

    d->options->ops->round(d->peer);
    loop_flush(d->loop);
    while (d->first_us == 0) {
        round_of(d, WAIT_US, false);
        if (os_monotonic_us() > until_us) {
            driver_fail(d->options->ops->name, STR("no job"));
        }
    }
    printf("{\"first_us\": %" PRIu64 "}\n", d->first_us);
    fflush(stdout);
}

/* Each attempt is a process of its own: wherever it fails, the next begins anew. */
static int try_first(const struct options *o)
{
    uint64_t until_us = os_monotonic_us() + 10ull * SET_UP_US;
    static struct driver d;

    while (os_monotonic_us() < until_us) {
        pid_t pid = fork();
        int status;

        check(pid >= 0);
        if (pid == 0) {
            trying = true;
            start(&d, o, true);
            run_first(&d);
            _Exit(0);
        }
        check(waitpid(pid, &status, 0) == pid);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
            return 0;
        }
        os_sleep_ms(TRY_AGAIN_MS);
    }
    fputs("bench_queue: there never was a first job\n", stderr);
    return 1;
}

NORETURN static void usage(const char *why)
{
    fprintf(stderr,
            "bench_queue: %s\n"
            "usage: bench_queue cycle|latency|fill|first --system NAME --port N [--queue NAME]\n"
            "           [--window N] [--connections N] [--variant NAME] [--warm-ms N] [--ms N]\n"
            "           [--jobs N] [--backlog] [--token T] [--worker-token T]\n",
            why);
    exit(64);
}

static const struct peer_ops *find_system(const char *name)
{
    static const struct {
        const char *name;
        const struct peer_ops *ops;
    } systems[] = {
        {"davit", &peer_davit},
        {"redis-list", &peer_redis_list},
        {"redis-stream", &peer_redis_stream},
        {"postgres", &peer_postgres},
        {"beanstalkd", &peer_beanstalkd},
        {"nats", &peer_nats},
        {"rabbitmq", &peer_rabbitmq},
    };

    for (size_t i = 0; i < ARRAY_LEN(systems); i++) {
        if (strcmp(systems[i].name, name) == 0) {
            return systems[i].ops;
        }
    }
    usage("no such system");
}

static uint64_t number_of(const char *text)
{
    uint64_t n;

    if (str_to_u64(str_from(text), &n) < 0) {
        usage("not a number");
    }
    return n;
}

static void take_option(struct options *o, int option)
{
    switch (option) {
    case 's':
        o->ops = find_system(optarg);
        break;
    case 'p':
        o->config.port = (uint16_t)number_of(optarg);
        break;
    case 'q':
        o->config.queue = optarg;
        break;
    case 'w':
        o->config.window = (size_t)number_of(optarg);
        break;
    case 'c':
        o->config.connections = (size_t)number_of(optarg);
        break;
    case 'v':
        o->config.variant = optarg;
        break;
    case 'a':
        o->warm_ms = number_of(optarg);
        break;
    case 'm':
        o->ms = number_of(optarg);
        break;
    case 'j':
        o->jobs = number_of(optarg);
        break;
    case 'b':
        o->backlog = true;
        break;
    case 't':
        o->config.token = optarg;
        break;
    case 'k':
        o->config.worker_token = optarg;
        break;
    default:
        usage("bad option");
    }
}

static void read_options(struct options *o, int argc, char **argv)
{
    static const struct option names[] = {
        {"system", required_argument, NULL, 's'},
        {"port", required_argument, NULL, 'p'},
        {"queue", required_argument, NULL, 'q'},
        {"window", required_argument, NULL, 'w'},
        {"connections", required_argument, NULL, 'c'},
        {"variant", required_argument, NULL, 'v'},
        {"warm-ms", required_argument, NULL, 'a'},
        {"ms", required_argument, NULL, 'm'},
        {"jobs", required_argument, NULL, 'j'},
        {"backlog", no_argument, NULL, 'b'},
        {"token", required_argument, NULL, 't'},
        {"worker-token", required_argument, NULL, 'k'},
        {0},
    };
    int option;

    while ((option = getopt_long(argc, argv, "", names, NULL)) != -1) {
        take_option(o, option);
    }
    if (!o->ops || o->config.port == 0) {
        usage("--system and --port are needed");
    }
    if (o->config.window < 1 || o->config.window > WINDOW_MAX || o->config.connections < 1) {
        usage("--window and --connections are 1 at least, --window 4096 at most");
    }
}

int main(int argc, char **argv)
{
    static struct driver d;
    struct options o = {.config = {.queue = "q", .window = 1, .connections = 1, .variant = ""},
                        .warm_ms = 500,
                        .ms = 2000,
                        .jobs = 1000};

    read_options(&o, argc, argv);
    struct str mode = str_from(optind < argc ? argv[optind] : "");
    if (str_eqz(mode, "first")) {
        return try_first(&o);
    }
    bool fill = str_eqz(mode, "fill");
    o.backlog |= fill;
    start(&d, &o, !fill);
    if (fill) {
        run_fill(&d);
    } else if (str_eqz(mode, "cycle")) {
        run_cycle(&d);
    } else if (str_eqz(mode, "latency")) {
        run_latency(&d);
    } else {
        usage("no such mode");
    }
    stop(&d);
    return 0;
}
