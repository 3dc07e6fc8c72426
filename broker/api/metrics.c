#include "common/base.h"

#include "broker/api/metrics.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "broker/api/answer.h"
#include "broker/api/handlers.h"
#include "broker/api/metrics_rollout.h"
#include "broker/core/query.h"
#include "broker/core/state.h"
#include "common/os.h"

#define STATUSES 600u /* any status of HTTP is below */

struct process {
    double cpu_seconds;
    double start_seconds;
    uint64_t resident_bytes;
    uint64_t virtual_bytes;
    uint64_t open_fds;
    uint64_t max_fds;
};

/* Everything that is shown, taken at one time. */
struct sample {
    struct turn_stats turn;
    struct fleet_stats fleet;
    struct store_stat store;
    struct process process;
    uint64_t live_pipelines;
    struct rollout_sample rollouts;
    uint64_t live_rollouts;
    uint64_t services;
    uint64_t known_workers;
    uint64_t jobs[JOB_STATE_COUNT];
    struct turn_pool *pools;
    size_t pool_count;
    uint64_t environments;
    uint64_t caches;
    uint64_t published;
    uint64_t log_bytes;
    uint64_t followers;
};

/* Requests that met no route come last. */
static _Atomic uint64_t *counter(struct api *a, size_t route, size_t status)
{
    check(route <= route_count && status < STATUSES);
    return &a->counts[route * STATUSES + status];
}

void metrics_init(struct api *a)
{
    a->counts = xcalloc((route_count + 1) * STATUSES, sizeof(*a->counts));
}

void metrics_free(struct api *a)
{
    free(a->counts);
}

void metrics_count_answer(struct api *a, const struct route *route, unsigned status)
{
    atomic_fetch_add(counter(a, route ? (size_t)(route - routes) : route_count, status), 1);
}

static double seconds(uint64_t us)
{
    return (double)us / 1e6;
}

uint64_t metrics_open_fds(void)
{
    DIR *d = opendir("/proc/self/fd");
    uint64_t n = 0;
    while (d && readdir(d)) {
        n++;
    }
    if (d) {
        closedir(d);
    }
    return n > 3 ? n - 3 : 0; /* ".", ".." and the folder itself */
}

static void read_process(struct process *p, uint64_t start_ms)
{
    struct rusage usage;
    struct rlimit limit;
    struct buf statm = BUF_INIT;
    uint64_t pages[2] = {0};
    if (os_read_file("/proc/self/statm", 4096, &statm) == 0) {
        struct str rest = buf_str(&statm);
        struct str field;
        for (size_t i = 0; i < ARRAY_LEN(pages) && str_split(&rest, ' ', &field); i++) {
            str_to_u64(field, &pages[i]);
        }
    }
    buf_release(&statm);
    uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
    p->virtual_bytes = pages[0] * page_bytes;
    p->resident_bytes = pages[1] * page_bytes;
    if (getrusage(RUSAGE_SELF, &usage) == 0) {
        p->cpu_seconds = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                         (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        p->max_fds = limit.rlim_cur;
    }
    p->open_fds = metrics_open_fds();
    p->start_seconds = (double)start_ms / 1000;
}

/* Counts that are kept, sizes of indexes, rollouts that live: nothing here grows with history. */
static int take_sample(struct api *a, struct sample *m)
{
    struct tx *tx;
    int r = api_read_stored(a, &tx);
    if (r < 0) {
        return r;
    }
    m->live_pipelines = tx_count(tx, T_PIPELINE_LIVE);
    m->live_rollouts = tx_count(tx, T_ROLLOUT_LIVE);
    rollout_sample_take(tx, &m->rollouts);
    m->services = tx_count(tx, T_SERVICE);
    m->known_workers = tx_count(tx, T_WORKER);
    const Pb__MetaRecord *meta = meta_get(tx);
    for (size_t i = 0; meta && i < MIN(JOB_STATE_COUNT, meta->n_job_counts); i++) {
        m->jobs[i] = meta->job_counts[i];
    }
    m->environments = tx_count(tx, T_ENVIRONMENT);
    m->caches = tx_count(tx, T_CACHE);
    m->published = tx_count(tx, T_PAGES);
    r = tx_error(tx);
    tx_abort(tx);
    turn_get_stats(a->config.turn, &m->turn);
    m->pools = xcalloc(TURN_POOLS, sizeof(*m->pools));
    m->pool_count = turn_get_pools(a->config.turn, m->pools, TURN_POOLS);
    fleet_get_stats(a->config.fleet, &m->fleet);
    store_stat(a->config.store, &m->store);
    read_process(&m->process, a->start_ms);
    m->log_bytes = logs_written_bytes(a->config.logs);
    pthread_mutex_lock(&a->lock);
    m->followers = a->stream_count;
    pthread_mutex_unlock(&a->lock);
    return r;
}

static void add_head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Whole numbers are shown as such. */
static void add_value(struct buf *out, double value)
{
    buf_addf(out, value == (double)(uint64_t)value ? " %.0f\n" : " %.6f\n", value);
}

static void add_metric(struct buf *out, const char *name, const char *type, const char *help,
                       double value)
{
    add_head(out, name, type, help);
    buf_addz(out, name);
    add_value(out, value);
}

/* The value of a label. */
static void add_label(struct buf *out, const char *text)
{
    for (const char *p = text; *p != '\0'; p++) {
        buf_addf(out, *p == '\\' || *p == '"' ? "\\%c" : "%c", *p);
    }
}

static void add_jobs(struct buf *out, const struct sample *m)
{
    const char *name = "davit_jobs";
    add_head(out, name, "gauge", "Jobs that the store has, by state.");
    for (size_t i = 0; i < JOB_STATE_COUNT; i++) {
        buf_addf(out, "%s{state=\"%s\"} %" PRIu64 "\n", name, job_state_text((Pb__JobState)i),
                 m->jobs[i]);
    }
}

static void add_buckets(struct buf *out, const char *name, const char *pool,
                        const struct turn_histogram *h)
{
    struct buf label = BUF_INIT;
    uint64_t n = 0;
    add_label(&label, pool);
    for (size_t i = 0; i < TURN_BUCKETS; i++) {
        n += h->counts[i];
        buf_addf(out, "%s_bucket{pool=\"%s\",le=\"", name, buf_cstr(&label));
        if (i + 1 < TURN_BUCKETS) {
            buf_addf(out, "%g", (double)turn_bucket_ms[i] / 1000);
        } else {
            buf_addz(out, "+Inf");
        }
        buf_addf(out, "\"} %" PRIu64 "\n", n);
    }
    buf_addf(out, "%s_sum{pool=\"%s\"}", name, buf_cstr(&label));
    add_value(out, (double)h->sum_ms / 1000);
    buf_addf(out, "%s_count{pool=\"%s\"} %" PRIu64 "\n", name, buf_cstr(&label), n);
    buf_release(&label);
}

static void add_times(struct buf *out, const struct sample *m)
{
    const char *waited = "davit_job_wait_seconds";
    const char *held = "davit_job_run_seconds";
    add_head(out, waited, "histogram",
             "How long jobs were ready before they were given out, first attempts, by pool.");
    for (size_t i = 0; i < m->pool_count; i++) {
        add_buckets(out, waited, m->pools[i].name, &m->pools[i].waited);
    }
    add_head(out, held, "histogram",
             "How long jobs were in the hands of a worker, each attempt, by pool.");
    for (size_t i = 0; i < m->pool_count; i++) {
        add_buckets(out, held, m->pools[i].name, &m->pools[i].held);
    }
}

static void add_answers(struct api *a, struct buf *out)
{
    const char *name = "davit_http_requests_total";
    add_head(out, name, "counter", "Answers by route and status.");
    for (size_t r = 0; r <= route_count; r++) {
        const char *method = r == route_count ? "" : method_name(routes[r].method);
        const char *blank = r == route_count ? "" : " ";
        const char *path = r == route_count ? "none" : routes[r].path;
        for (size_t status = 0; status < STATUSES; status++) {
            uint64_t n = atomic_load(counter(a, r, status));
            if (n > 0) {
                buf_addf(out, "%s{route=\"%s%s%s\",code=\"%zu\"} %" PRIu64 "\n", name, method,
                         blank, path, status, n);
            }
        }
    }
}

int get_metrics(struct request *rq)
{
    struct sample sample = {0};
    const struct sample *m = &sample;
    int r = take_sample(rq->api, &sample);
    if (r < 0) {
        free(sample.pools);
        return r;
    }
    struct buf out = BUF_INIT;
#define METRIC(name, type, help, value) add_metric(&out, name, type, help, (double)(value));
#include "broker/api/metrics.def"
#undef METRIC
    add_jobs(&out, m);
    rollout_sample_add(&out, &m->rollouts, &m->turn.rollouts);
    add_times(&out, m);
    add_answers(rq->api, &out);
    free(sample.pools);
    return answer_text(rq, MHD_HTTP_OK, "text/plain; version=0.0.4", &out);
}
