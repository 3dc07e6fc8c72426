/* GET /doctor: what the broker finds when it looks at itself and its fleet, with a remedy for what
 * is bad. `davit doctor` shows it. On a work thread: it reads all workers. */
#include "common/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "broker/api/answer.h"
#include "broker/api/handlers.h"
#include "broker/api/https.h"
#include "broker/api/metrics.h"
#include "broker/api/server.h"
#include "broker/api/view.h"
#include "broker/core/query.h"
#include "common/cert.h"
#include "common/crypto.h"
#include "common/os.h"

#define LOW_DISK_BYTES 1073741824ull
#define LAG_MAX        100000u
#define FLUSH_MAX_US   50000u
#define FILES_MIN      4096u
#define SKEW_MAX_MS    5000
#define AUTHORITY_DAYS 180u
#define GIVEN_DAYS     14u
#define DAY_MS         86400000ull
#define BAD_WORKERS    20u /* that are named */

struct doctor {
    struct request *rq;
    json_t *checks;
};

/* `advice` is for what is bad. */
static void add(struct doctor *d, bool ok, const char *check, const char *advice, const char *fmt,
                ...) PRINTF_LIKE(5, 6);
static void add(struct doctor *d, bool ok, const char *check, const char *advice, const char *fmt,
                ...)
{
    struct buf found = BUF_INIT;
    va_list ap;
    va_start(ap, fmt);
    buf_vaddf(&found, fmt, ap);
    va_end(ap);
    json_array_append_new(d->checks, json_pack("{s:s, s:b, s:o, s:o}", "check", check, "ok",
                                               (int)ok, "found", json_text(buf_cstr(&found)),
                                               "advice", ok ? json_null() : json_text(advice)));
    buf_release(&found);
}

static void look_at_store(struct doctor *d)
{
    struct store_stat s;
    store_stat(d->rq->api->config.store, &s);
    const uint64_t percent = s.used_bytes * 100 / MAX(s.map_bytes, 1u);
    add(d, !s.alarm && !s.full, "store",
        "keep less: keep_pipelines; above 95 % new work is refused",
        "%" PRIu64 " MiB of %" PRIu64 " MiB, %" PRIu64 " %%", s.used_bytes / MIB, s.map_bytes / MIB,
        percent);
    add(d, s.disk_free_bytes >= LOW_DISK_BYTES, "disk",
        "make room beside the data folder: below 64 MiB new work is refused",
        "%" PRIu64 " MiB free beside the store", s.disk_free_bytes / MIB);
    add(d, s.oldest_reader_lag <= LAG_MAX, "store readers",
        "find the backup or fsck that hangs: the store grows as long as it reads",
        "the oldest is %" PRIu64 " transactions behind", s.oldest_reader_lag);
}

static void look_at_turn(struct doctor *d)
{
    struct turn_stats t;
    turn_get_stats(d->rq->api->config.turn, &t);
    const uint64_t flush_us = t.flush_us_sum / MAX(t.journal.flushes, 1u);
    add(d, api_alive(d->rq->api), "turn", "the writer hangs: its disk, most likely; see the log",
        "%" PRIu64 " commands, %" PRIu64 " wait", t.commands, t.inbox);
    add(d, !t.stuck, "commits", "make room, or mend the disk: the log says what failed", "%s",
        t.stuck ? "the store cannot commit" : "the store follows the journal");
    add(d, flush_us <= FLUSH_MAX_US, "journal",
        "every acknowledgement waits for a flush: give the data folder a faster or quieter disk",
        "a flush takes %" PRIu64 ".%" PRIu64 " ms on the average", flush_us / 1000,
        flush_us / 100 % 10);
    add(d, true, "durability", NULL, "%s",
        t.relaxed_ms > 0 ? "relaxed: the last moments are lost if the machine fails" : "full");
}

static void look_at_process(struct doctor *d)
{
    struct rlimit limit = {0, 0};
    const uint64_t open = metrics_open_fds();
    getrlimit(RLIMIT_NOFILE, &limit);
    add(d, limit.rlim_cur >= FILES_MIN && open < limit.rlim_cur / 5 * 4, "open files",
        "raise the limit (LimitNOFILE=, ulimit -n): one for each worker and follower",
        "%" PRIu64 " of %" PRIu64, open, (uint64_t)limit.rlim_cur);
}

static void look_at_config(struct doctor *d)
{
    const struct api_config *c = &d->rq->api->config;
    struct buf changed = BUF_INIT;
    struct buf restart = BUF_INIT;
    struct buf why = BUF_INIT;
    int r = c->check_config ? c->check_config(c->reload_ctx, &changed, &restart, &why)
                            : -E_CONFLICT;
    if (r == -E_CONFLICT) {
        add(d, true, "configuration", NULL, "no file: the command line alone");
    } else if (r < 0) {
        add(d, false, "configuration", "mend it: davitd --check-config FILE; a restart would fail",
            STR_FMT, STR_ARG(str_trim(buf_str(&why))));
    } else if (changed.n > 0) {
        add(d, false, "configuration", "davit reload", "the file has changed and was not reloaded");
    } else if (restart.n > 0) {
        add(d, false, "configuration", "restart davitd: workers keep their jobs",
            "waits for a restart: " STR_FMT, STR_ARG(str_trim(buf_str(&restart))));
    } else {
        add(d, true, "configuration", NULL, "as the file says");
    }
    buf_release(&changed);
    buf_release(&restart);
    buf_release(&why);
}

static uint64_t days_left(uint64_t until_ms, uint64_t now_ms)
{
    return (until_ms - MIN(now_ms, until_ms)) / DAY_MS;
}

/* Of the certificate that this server shows now; false: it cannot be read. */
static bool read_server_certificate(struct authority *a, struct cert_facts *ret)
{
    struct buf certificate = BUF_INIT;
    struct buf key = BUF_INIT;
    authority_server(a, &certificate, &key);
    crypto_wipe(key.p, key.n);
    buf_release(&key);
    int r = cert_read(buf_str(&certificate), ret);
    buf_release(&certificate);
    return r == 0;
}

/* It is renewed when two thirds of its time are over, as those of workers are. */
static bool is_late(uint64_t left_ms, uint64_t life_ms)
{
    return left_ms < life_ms / 4;
}

/* Whoever gave it has to give the next one. */
static void look_at_given(struct doctor *d)
{
    struct https *h = d->rq->api->config.https;
    const uint64_t until_ms = h ? https_given_until_ms(h) : 0;
    if (until_ms > 0) {
        const uint64_t days = days_left(until_ms, os_realtime_ms());
        add(d, days > GIVEN_DAYS, "certificate of the API",
            "put a new one where tls-cert and tls-key say, then davit reload",
            "it ends in %" PRIu64 " days", days);
    }
}

static void look_at_authority(struct doctor *d)
{
    struct authority *a = d->rq->api->config.authority;
    const uint64_t now_ms = os_realtime_ms();
    struct cert_facts server = {0};
    if (!a) {
        return;
    }
    const uint64_t days = days_left(authority_until_ms(a), now_ms);
    add(d, days > AUTHORITY_DAYS, "authority",
        "stop the broker, move tls/ away, start it, and let all workers join anew",
        "its certificate ends in %" PRIu64 " days", days);
    const bool read = read_server_certificate(a, &server);
    const uint64_t left_ms = server.until_ms - MIN(now_ms, server.until_ms);
    add(d, read && !is_late(left_ms, server.until_ms - server.from_ms), "server certificate",
        "the broker renews it by itself: its log says why it could not",
        "it ends in %" PRIu64 " days", days_left(server.until_ms, now_ms));
}

/* A worker renews when two thirds of the time of its certificate are over. */
static bool renews(const struct doctor *d, const Pb__WorkerRecord *w, uint64_t now_ms)
{
    const struct authority *a = d->rq->api->config.authority;
    const uint64_t left_ms = w->certified_until_ms - MIN(now_ms, w->certified_until_ms);
    return !a || w->certified_until_ms == 0 ||
           !is_late(left_ms, authority_worker_until_ms(a, now_ms) - now_ms);
}

static bool check_worker(struct doctor *d, const Pb__WorkerRecord *w,
                         const struct fleet_worker *live)
{
    const struct fleet_worker_health *h = &live->health;
    char name[LIMIT_NAME + 16];
    snprintf(name, sizeof(name), "worker %s", w->name);
    if (live->suspect) {
        add(d, false, name, "its machine or the network between: see its log",
            "silent for longer than it should");
    } else if (h->refuses[0] != '\0' && !w->draining) {
        add(d, false, name, "its log says more", "takes no work: %s", h->refuses);
    } else if (strcmp(w->version, DAVIT_VERSION) != 0) {
        add(d, false, name, "upgrade it: its jobs run on meanwhile",
            "version %s, the broker has " DAVIT_VERSION, w->version);
    } else if (h->has_clock && llabs(h->clock_skew_ms) > SKEW_MAX_MS) {
        add(d, false, name, "let both machines keep time by NTP", "its clock is %" PRId64 " s %s",
            (int64_t)llabs(h->clock_skew_ms) / 1000, h->clock_skew_ms > 0 ? "ahead" : "behind");
    } else if (!renews(d, w, os_realtime_ms())) {
        add(d, false, name, "it could not renew it: see its log; else let it join anew",
            "its certificate ends in %" PRIu64 " days",
            days_left(w->certified_until_ms, os_realtime_ms()));
    } else {
        return true;
    }
    return false;
}

static void look_at_workers(struct doctor *d, struct tx *tx)
{
    unsigned known = 0, online = 0, bad = 0, stranded = 0;
    struct cursor c;
    for (tx_seek(&c, tx, T_WORKER, STR_NULL, NULL); c.valid; tx_next(&c)) {
        const Pb__WorkerRecord *w = worker_get(tx, key_read_u64(c.key, 0));
        struct fleet_worker live = {0};
        if (!w) {
            break;
        }
        known++;
        fleet_worker_state(d->rq->api->config.fleet, w->id, &live);
        if (!live.online) {
            stranded += worker_job_count(tx, w->id) > 0;
            continue;
        }
        online++;
        if (bad < BAD_WORKERS && !check_worker(d, w, &live)) {
            bad++;
        }
    }
    cursor_end(&c);
    add(d, online > 0, "workers", "start one: davit-worker --help; its log says why it cannot come",
        "%u of %u online", online, known);
    if (stranded > 0) {
        add(d, false, "jobs of absent workers",
            "they run elsewhere once the lease is over, unless on_worker_lost is wait",
            "%u workers are away and have jobs", stranded);
    }
}

static int doctor_work(struct request *rq)
{
    struct doctor d = {.rq = rq, .checks = json_array()};
    struct tx *tx;
    look_at_store(&d);
    look_at_turn(&d);
    look_at_process(&d);
    look_at_config(&d);
    look_at_authority(&d);
    look_at_given(&d);
    int r = api_read_stored(rq->api, &tx);
    if (r == 0) {
        look_at_workers(&d, tx);
        r = tx_error(tx);
        tx_abort(tx);
    }
    rq->extra = json_pack("{s:s, s:o, s:o}", "version", DAVIT_VERSION, "time_ms",
                          json_integer((json_int_t)os_realtime_ms()), "checks", d.checks);
    return r;
}

static int doctor_done(struct request *rq)
{
    json_t *answer = rq->extra;
    rq->extra = NULL;
    if (rq->result < 0) {
        json_decref(answer);
        return rq->result;
    }
    return answer_json(rq, MHD_HTTP_OK, answer);
}

int get_doctor(struct request *rq)
{
    return request_work(rq, doctor_work, doctor_done);
}
