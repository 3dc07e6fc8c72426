/* bench_load: load on a real broker over its real interfaces, HTTP and nng.
 *
 *   bench_load cycle OPTIONS  clients submit a pipeline of one job, wait until the simulated worker
 * has the broker's word that the result is recorded, and start over bench_load fill OPTIONS submits
 * pipelines and lets them wait bench_load first OPTIONS  connects a simulated worker as soon as
 * there is a broker, waits for its first job, prints the monotonic clock of that moment One JSON
 * object a line on stdout. */
#include "common/base.h"

#include <getopt.h>
#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/os.h"
#include "tests/bench/client.h"
#include "tests/bench/simworker.h"

struct options {
    uint16_t port;
    const char *admin_token;
    const char *url;
    const char *worker_token;
    size_t clients;
    size_t rounds;
    uint64_t round_ms;
    size_t pipelines;
    size_t jobs;
};

NORETURN static void die(const char *what, const char *why)
{
    fprintf(stderr, "bench_load: %s: %s\n", what, why);
    exit(1);
}

/* A submit of a pipeline with that many jobs, as JSON. */
static void build_submit(size_t client, size_t jobs, struct buf *out)
{
    buf_clear(out);
    buf_addf(out,
             "{\"project\":\"bench/client-%zu\",\"ref\":\"main\",\"origin\":\"push\","
             "\"sha\":\"0123456789abcdef0123456789abcdef01234567\","
             "\"file\":\".gitlab-ci.yml\",\"files\":{\".gitlab-ci.yml\":\"",
             client);
    for (size_t i = 0; i < jobs; i++) {
        buf_addf(out, "job-%zu: {script: ['true']}\\n", i);
    }
    buf_addz(out, "\"}}");
}

/* The new pipeline's id. */
static uint64_t submit(struct client *c, struct str body, struct buf *answer)
{
    json_error_t error;
    json_t *pipeline;
    uint64_t id;
    int status;
    int r = client_post(c, "/api/v1/pipelines", body, &status, answer);

    if (r < 0) {
        die("submit", err_text(r));
    }
    if (status != 201) {
        die("submit", buf_cstr(answer));
    }
    pipeline = json_loadb(answer->p, answer->n, 0, &error);
    id = (uint64_t)json_integer_value(json_object_get(pipeline, "id"));
    json_decref(pipeline);
    if (id == 0) {
        die("submit", "an answer without an id");
    }
    return id;
}

/* Which pipelines are done, and who waits for them. */
struct done {
    pthread_mutex_t lock;
    uint8_t *ids; /* by pipeline id: 1 when done */
    size_t cap;
    struct waiter *waiters;
};

struct waiter {
    uint64_t id;
    pthread_cond_t wake;
    struct waiter *next;
};

static void done_mark(void *ctx, const Pb__JobSpec *spec, bool stale UNUSED)
{
    struct done *d = ctx;
    uint64_t id = spec->pipeline_id;

    pthread_mutex_lock(&d->lock);
    if (id >= d->cap) {
        size_t cap = MAX(d->cap * 2, id + 1);

        d->ids = xrealloc(d->ids, cap);
        memset(d->ids + d->cap, 0, cap - d->cap);
        d->cap = cap;
    }
    d->ids[id] = 1;
    for (struct waiter *w = d->waiters; w; w = w->next) {
        if (w->id == id) {
            pthread_cond_signal(&w->wake);
        }
    }
    pthread_mutex_unlock(&d->lock);
}

static void done_wait(struct done *d, struct waiter *w, uint64_t id)
{
    struct waiter **link;

    pthread_mutex_lock(&d->lock);
    w->id = id;
    w->next = d->waiters;
    d->waiters = w;
    while (id >= d->cap || !d->ids[id]) {
        pthread_cond_wait(&w->wake, &d->lock);
    }
    for (link = &d->waiters; *link != w; link = &(*link)->next) {
    }
    *link = w->next;
    pthread_mutex_unlock(&d->lock);
}

struct cycle_client {
    const struct options *options;
    struct done *done;
    size_t number;
    atomic_bool *stop;
    uint64_t *times_us; /* of its cycles */
    size_t count;
    size_t cap;
};

static void *run_cycles(void *ctx)
{
    struct cycle_client *self = ctx;
    struct waiter waiter = {.wake = PTHREAD_COND_INITIALIZER};
    struct buf body = BUF_INIT;
    struct buf answer = BUF_INIT;
    struct client *c;

    if (client_open(self->options->port, self->options->admin_token, &c) < 0) {
        die("HTTP", "cannot connect");
    }
    build_submit(self->number, 1, &body);
    while (!atomic_load(self->stop)) {
        uint64_t start_us = os_monotonic_us();

        done_wait(self->done, &waiter, submit(c, buf_str(&body), &answer));
        if (self->count == self->cap) {
            self->cap = MAX(1024, self->cap * 2);
            self->times_us = xrealloc(self->times_us, self->cap * sizeof(uint64_t));
        }
        self->times_us[self->count++] = os_monotonic_us() - start_us;
    }
    client_close(c);
    buf_release(&body);
    buf_release(&answer);
    return NULL;
}

static int compare_u64(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void print_round(struct cycle_client *clients, size_t n, uint64_t elapsed_us)
{
    uint64_t *all;
    size_t count = 0;

    for (size_t i = 0; i < n; i++) {
        count += clients[i].count;
    }
    all = xcalloc(count + 1, sizeof(*all));
    count = 0;
    for (size_t i = 0; i < n; i++) {
        memcpy(all + count, clients[i].times_us, clients[i].count * sizeof(*all));
        count += clients[i].count;
    }
    qsort(all, count, sizeof(*all), compare_u64);
    printf("{\"clients\": %zu, \"jobs\": %zu, \"jobs_per_s\": %.1f, \"p50_us\": %" PRIu64
           ", \"p99_us\": %" PRIu64 "}\n",
           n, count, (double)count * 1e6 / (double)elapsed_us, all[count / 2],
           all[count - count / 100 - (count > 0)]);
    fflush(stdout);
    free(all);
}

static void cycle_round(const struct options *o, struct done *done)
{
    struct cycle_client *clients = xcalloc(o->clients, sizeof(*clients));
    pthread_t *threads = xcalloc(o->clients, sizeof(*threads));
    uint64_t start_us = os_monotonic_us();
    atomic_bool stop = false;

    for (size_t i = 0; i < o->clients; i++) {
        clients[i] = (struct cycle_client){.options = o, .done = done, .number = i, .stop = &stop};
        check(pthread_create(&threads[i], NULL, run_cycles, &clients[i]) == 0);
    }
    os_sleep_ms(o->round_ms);
    atomic_store(&stop, true);
    for (size_t i = 0; i < o->clients; i++) {
        pthread_join(threads[i], NULL);
    }
    print_round(clients, o->clients, os_monotonic_us() - start_us);
    for (size_t i = 0; i < o->clients; i++) {
        free(clients[i].times_us);
    }
    free(clients);
    free(threads);
}

static struct simworker_options worker_options(const struct options *o)
{
    return (struct simworker_options){
        .url = o->url, .token = o->worker_token, .name = "simulated", .slots = 1000};
}

static void cycle(const struct options *o)
{
    struct done done = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct simworker_options wo = worker_options(o);
    struct simworker *worker;
    struct buf why = BUF_INIT;

    wo.on_finished = done_mark;
    wo.ctx = &done;
    if (simworker_start(&wo, &worker, &why) < 0) {
        die("worker", buf_cstr(&why));
    }
    for (size_t round = 0; round < o->rounds; round++) {
        cycle_round(o, &done);
    }
    if (simworker_error(worker) < 0) {
        die("worker", err_text(simworker_error(worker)));
    }
    simworker_stop(worker);
    free(done.ids);
    buf_release(&why);
}

static void fill(const struct options *o)
{
    struct buf body = BUF_INIT;
    struct buf answer = BUF_INIT;
    uint64_t start_us = os_monotonic_us();
    struct client *c;

    if (client_open(o->port, o->admin_token, &c) < 0) {
        die("HTTP", "cannot connect");
    }
    build_submit(0, o->jobs, &body);
    for (size_t i = 0; i < o->pipelines; i++) {
        submit(c, buf_str(&body), &answer);
    }
    printf("{\"pipelines\": %zu, \"jobs\": %zu, \"seconds\": %.3f}\n", o->pipelines,
           o->pipelines * o->jobs, (double)(os_monotonic_us() - start_us) / 1e6);
    client_close(c);
    buf_release(&body);
    buf_release(&answer);
}

static void note_first(void *ctx, const Pb__JobSpec *spec UNUSED)
{
    _Atomic uint64_t *first_us = ctx;
    uint64_t none = 0;

    atomic_compare_exchange_strong(first_us, &none, os_monotonic_us());
}

static void first(const struct options *o)
{
    _Atomic uint64_t first_us = 0;
    struct simworker_options wo = worker_options(o);
    struct simworker *worker = NULL;
    struct buf why = BUF_INIT;
    uint64_t connected_us;

    wo.slots = 1;
    wo.on_assign = note_first;
    wo.ctx = &first_us;
    while (simworker_start(&wo, &worker, &why) == -E_UNREACHABLE) {
        os_sleep_ms(1);
        buf_clear(&why);
    }
    if (!worker) {
        die("worker", buf_cstr(&why));
    }
    connected_us = os_monotonic_us();
    while (atomic_load(&first_us) == 0 && simworker_error(worker) == 0) {
        os_sleep_ms(1);
    }
    printf("{\"welcome_us\": %" PRIu64 ", \"first_us\": %" PRIu64 "}\n", connected_us,
           atomic_load(&first_us));
    fflush(stdout);
    /* Without a Bye: the broker would have to hand back what is running. */
    _Exit(simworker_error(worker) == 0 ? 0 : 1);
}

static uint64_t number(const char *text)
{
    uint64_t n;

    if (str_to_u64(str_from(text), &n) < 0) {
        die("not a number", text);
    }
    return n;
}

static void parse(int argc, char **argv, struct options *o)
{
    static const struct option names[] = {
        {"port", required_argument, NULL, 'p'},     {"token", required_argument, NULL, 't'},
        {"url", required_argument, NULL, 'u'},      {"worker-token", required_argument, NULL, 'w'},
        {"clients", required_argument, NULL, 'c'},  {"rounds", required_argument, NULL, 'r'},
        {"round-ms", required_argument, NULL, 'm'}, {"pipelines", required_argument, NULL, 'n'},
        {"jobs", required_argument, NULL, 'j'},     {0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "", names, NULL)) != -1) {
        switch (c) {
        case 'p':
            o->port = (uint16_t)number(optarg);
            break;
        case 't':
            o->admin_token = optarg;
            break;
        case 'u':
            o->url = optarg;
            break;
        case 'w':
            o->worker_token = optarg;
            break;
        case 'c':
            o->clients = (size_t)number(optarg);
            break;
        case 'r':
            o->rounds = (size_t)number(optarg);
            break;
        case 'm':
            o->round_ms = number(optarg);
            break;
        case 'n':
            o->pipelines = (size_t)number(optarg);
            break;
        case 'j':
            o->jobs = (size_t)number(optarg);
            break;
        default:
            exit(64);
        }
    }
}

int main(int argc, char **argv)
{
    struct options o = {
        .clients = 1, .rounds = 5, .round_ms = 3000, .pipelines = 50, .jobs = LIMIT_PIPELINE_JOBS};
    const char *mode;

    parse(argc, argv, &o);
    mode = optind < argc ? argv[optind] : "";
    if (strcmp(mode, "cycle") == 0 && o.admin_token && o.worker_token && o.url) {
        cycle(&o);
    } else if (strcmp(mode, "fill") == 0 && o.admin_token) {
        fill(&o);
    } else if (strcmp(mode, "first") == 0 && o.worker_token && o.url) {
        first(&o);
    } else {
        die("usage", "bench_load cycle|fill|first --port N --token T --url U --worker-token T ...");
    }
    return 0;
}
