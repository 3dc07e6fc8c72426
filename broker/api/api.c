#include "common/base.h"

#include "broker/api/api.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>
#include <utlist.h>

#include "broker/api/https.h"
#include "broker/api/metrics.h"
#include "broker/api/rate.h"
#include "broker/api/server.h"
#include "broker/api/stream.h"
#include "broker/api/uses.h"
#include "broker/core/query.h"
#include "common/log.h"
#include "common/os.h"

#define MHD_THREADS       4u
#define IDLE_SECONDS      30u    /* libmicrohttpd's: nothing moves on a connection */
#define HEAD_MS           15000u /* for a whole request head */
#define BODY_FACTOR       4u     /* a body gets so many times as long, and */
#define BODY_BYTES_PER_MS 4u     /*   more for what has come by then */
#define PING_MS           15000u
#define USES_MS           60000u
#define RATE_BURST        5 /* seconds' worth at once */
/* A request without a good token costs a look at the store, or a commit of it. */
#define STRANGERS_PER_SECOND 10
#define STRANGERS_BURST      100
#define CROWDED              (LIMIT_HTTP_CONNECTIONS / 4 * 3)
#define ALIVE_MS             10000u /* the turn goes around once a second, if it can */

bool api_stopping(struct api *a)
{
    pthread_mutex_lock(&a->lock);
    bool stopping = a->stopping;
    pthread_mutex_unlock(&a->lock);
    return stopping;
}

bool api_alive(struct api *a)
{
    struct turn_stats stats;
    turn_get_stats(a->config.turn, &stats);
    return os_monotonic_ms() < stats.alive_ms + ALIVE_MS;
}

int api_read(struct api *a, struct tx **ret)
{
    int r = turn_fresh(a->config.turn);

    return r < 0 ? r : api_read_stored(a, ret);
}

int api_read_stored(struct api *a, struct tx **ret)
{
    return tx_begin(a->config.store, false, ret);
}

uint16_t api_port(const struct api *a)
{
    return a->port;
}

void api_set_fleet_port(struct api *a, uint16_t port)
{
    atomic_store(&a->fleet_port, port);
}

void api_set_ready(struct api *a)
{
    a->ready = true;
}

const char *api_server_url(struct api *a)
{
    return buf_cstr(&a->url);
}

/* --- connections --- */

/* Where there are many, the one that has waited for longest for a request that does not come makes
 * room: who only holds connections cannot keep others out. Threads of libmicrohttpd take turns. */
static void make_room(struct api *a)
{
    struct link *link;
    struct link *oldest = NULL;
    if (a->link_count < CROWDED) {
        return;
    }
    DL_FOREACH (a->links, link) {
        const uint64_t since_ms = link->head_since_ms;
        if (since_ms > 0 && !link->leaves && (!oldest || since_ms < oldest->head_since_ms)) {
            oldest = link;
        }
    }
    if (oldest) {
        oldest->leaves = true;
        shutdown(oldest->fd, SHUT_RDWR);
    }
}

static void on_connection(void *cls, struct MHD_Connection *conn, void **socket_context,
                          enum MHD_ConnectionNotificationCode what)
{
    struct api *a = cls;
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info = MHD_get_connection_info(
            conn, MHD_CONNECTION_INFO_CONNECTION_FD);
        struct link *link = xcalloc(1, sizeof(*link));
        link->fd = info->connect_fd;
        link->head_since_ms = os_monotonic_ms();
        pthread_mutex_lock(&a->lock);
        make_room(a);
        DL_APPEND(a->links, link);
        a->link_count++;
        pthread_mutex_unlock(&a->lock);
        *socket_context = link;
    } else {
        /* The descriptor is closed only after this. */
        struct link *link = *socket_context;
        pthread_mutex_lock(&a->lock);
        DL_DELETE(a->links, link);
        a->link_count--;
        pthread_mutex_unlock(&a->lock);
        free(link);
        *socket_context = NULL;
    }
}

static bool link_overdue(const struct link *link, uint64_t now_ms, uint64_t head_ms)
{
    uint64_t head_since_ms = link->head_since_ms;
    uint64_t body_since_ms = link->body_since_ms;
    if (head_since_ms > 0) {
        return now_ms > head_since_ms + head_ms;
    }
    return body_since_ms > 0 &&
           now_ms > body_since_ms + BODY_FACTOR * head_ms + link->body_bytes / BODY_BYTES_PER_MS;
}

/* libmicrohttpd sees the end of the stream and closes. */
static void end_overdue(struct api *a, uint64_t now_ms, uint64_t head_ms)
{
    struct link *link;
    DL_FOREACH (a->links, link) {
        if (link_overdue(link, now_ms, head_ms)) {
            shutdown(link->fd, SHUT_RDWR);
        }
    }
}

/* --- helper threads --- */

static void wait_until(struct api *a, uint64_t tick_ms)
{
    uint64_t until_us = os_monotonic_us() + tick_ms * 1000;
    struct timespec ts = {.tv_sec = (time_t)(until_us / 1000000),
                          .tv_nsec = (long)(until_us % 1000000) * 1000};
    pthread_cond_timedwait(&a->changed, &a->lock, &ts);
}

/* `lock` is held, and let go for the turn. */
static void tell_uses(struct api *a)
{
    pthread_mutex_unlock(&a->lock);
    struct post *post = uses_take(a->uses);
    if (post) {
        (void)turn_submit(a->config.turn, post, NULL, NULL); /* else it is forgotten: soft state */
    }
    pthread_mutex_lock(&a->lock);
}

static void *watch_main(void *arg)
{
    struct api *a = arg;
    uint64_t ping_ms = a->config.ping_ms > 0 ? a->config.ping_ms : PING_MS;
    uint64_t head_ms = a->config.head_ms > 0 ? a->config.head_ms : HEAD_MS;
    uint64_t tick_ms = MIN(1000, MAX(10, MIN(ping_ms, head_ms) / 4));
    uint64_t told_ms = os_monotonic_ms();
    pthread_mutex_lock(&a->lock);
    while (!a->ended) {
        uint64_t now_ms = os_monotonic_ms();
        stream_watch(a, now_ms, a->stopping ? 0 : ping_ms);
        end_overdue(a, now_ms, head_ms);
        if (!a->stopping && now_ms > told_ms + USES_MS) {
            told_ms = now_ms;
            tell_uses(a);
        }
        wait_until(a, tick_ms);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

static void *work_main(void *arg)
{
    struct api *a = arg;
    pthread_mutex_lock(&a->lock);
    while (!a->ended || a->work) {
        struct request *rq = a->work;
        if (!rq) {
            pthread_cond_wait(&a->work_changed, &a->lock);
            continue;
        }
        a->work = rq->next_work;
        pthread_mutex_unlock(&a->lock);
        rq->result = rq->work(rq);
        request_wake(rq);
        pthread_mutex_lock(&a->lock);
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

/* --- start and stop --- */

/* Fills *ret and says its size; 0: no address. */
static socklen_t read_address(const char *host, uint16_t port, bool *ret_loopback,
                              struct sockaddr_storage *ret)
{
    struct sockaddr_in *in4 = (struct sockaddr_in *)ret;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;
    memset(ret, 0, sizeof(*ret));
    if (strcmp(host, "localhost") == 0) {
        host = "127.0.0.1";
    }
    if (inet_pton(AF_INET, host, &in4->sin_addr) == 1) {
        in4->sin_family = AF_INET;
        in4->sin_port = htons(port);
        *ret_loopback = ntohl(in4->sin_addr.s_addr) >> 24 == 127;
        return sizeof(*in4);
    }
    if (inet_pton(AF_INET6, host, &in6->sin6_addr) == 1) {
        in6->sin6_family = AF_INET6;
        in6->sin6_port = htons(port);
        *ret_loopback = IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
        return sizeof(*in6);
    }
    return 0;
}

static int start_daemon(struct api *a, struct buf *why)
{
    struct sockaddr_storage address;
    struct MHD_OptionItem options[HTTPS_OPTIONS] = {{.option = MHD_OPTION_END}};
    bool loopback = false;
    if (read_address(a->config.host, a->config.port, &loopback, &address) == 0 ||
        (!loopback && !a->config.https && !a->config.plain_anywhere)) {
        buf_addf(why, "%s is no loopback address: without TLS the API serves only this host",
                 a->config.host);
        return -E_USAGE;
    }
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME;
    if (a->config.https) {
        flags |= MHD_USE_TLS;
        https_options(a->config.https, options);
    }
    if (address.ss_family == AF_INET6) {
        flags |= MHD_USE_IPv6;
    }
    a->daemon = MHD_start_daemon(
        flags, a->config.port, NULL, NULL, request_step, a, MHD_OPTION_SOCK_ADDR,
        (struct sockaddr *)&address, MHD_OPTION_THREAD_POOL_SIZE, MHD_THREADS,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)LIMIT_HTTP_CONNECTIONS,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)LIMIT_HTTP_MEMORY,
        MHD_OPTION_CONNECTION_TIMEOUT, IDLE_SECONDS, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_URI_LOG_CALLBACK, request_begin, a, MHD_OPTION_NOTIFY_COMPLETED, request_done, a,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, a, MHD_OPTION_ARRAY, options, MHD_OPTION_END);
    const union MHD_DaemonInfo *info = a->daemon ? MHD_get_daemon_info(a->daemon,
                                                                       MHD_DAEMON_INFO_BIND_PORT)
                                                 : NULL;
    if (!info) {
        buf_addf(why, "cannot listen on %s port %u: %s", a->config.host, a->config.port,
                 strerror(errno));
        return -E_IO;
    }
    a->port = info->port;
    const char *name = a->config.public_name ? a->config.public_name : a->config.host;
    buf_addf(&a->url, strchr(name, ':') ? "%s://[%s]:%u" : "%s://%s:%u",
             a->config.https ? "https" : "http", name, a->port);
    return 0;
}

static int read_job_key(struct api *a, struct buf *why)
{
    struct tx *tx;
    int r = api_read(a, &tx);
    if (r < 0) {
        buf_addf(why, "cannot read the store: %s", err_text(r));
        return r;
    }
    const Pb__MetaRecord *meta = meta_get(tx);
    struct str key = meta ? pb_str(meta->job_token_key) : STR_NULL;
    if (key.n == sizeof(a->job_key_bytes)) {
        memcpy(a->job_key_bytes, key.p, key.n);
        a->job_key = str_of(a->job_key_bytes, key.n);
    } else {
        buf_addz(why, "the store has no key for job tokens");
        r = -E_CORRUPT;
    }
    tx_abort(tx);
    return r;
}

static void free_api(struct api *a)
{
    crypto_wipe(a->job_key_bytes, sizeof(a->job_key_bytes));
    pthread_cond_destroy(&a->work_changed);
    pthread_cond_destroy(&a->changed);
    pthread_mutex_destroy(&a->lock);
    metrics_free(a);
    free((char *)a->config.trusted_proxies);
    uses_free(a->uses);
    rate_free(a->strangers);
    rate_free(a->requests);
    quota_free(a->quota);
    sent_free(a->sent);
    buf_release(&a->url);
    free(a);
}

int api_start(const struct api_config *config, struct api **ret, struct buf *why)
{
    struct api *a = xcalloc(1, sizeof(*a));
    pthread_condattr_t monotonic;
    a->config = *config;
    a->config.trusted_proxies = config->trusted_proxies ? xstrdup(config->trusted_proxies) : NULL;
    a->start_ms = os_realtime_ms();
    pthread_mutex_init(&a->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&a->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_cond_init(&a->work_changed, NULL);
    metrics_init(a);
    a->uses = uses_new();
    a->strangers = rate_new(STRANGERS_PER_SECOND, STRANGERS_BURST);
    if (config->rate > 0) {
        a->requests = rate_new(config->rate, RATE_BURST * (double)config->rate);
    }
    a->sent = sent_new();
    a->quota = quota_new(config->job_uploads != 0 ? config->job_uploads : LIMIT_JOB_UPLOADS,
                         config->pipeline_uploads != 0 ? config->pipeline_uploads
                                                       : LIMIT_PIPELINE_UPLOADS);
    json_object_seed(0); /* before there are threads */

    int r = read_job_key(a, why);
    if (r == 0) {
        r = start_daemon(a, why);
    }
    if (r < 0) {
        free_api(a);
        return r;
    }
    a->bus_handle = bus_subscribe(a->config.bus, stream_on_bus, a);
    check(pthread_create(&a->watch_thread, NULL, watch_main, a) == 0);
    for (unsigned i = 0; i < API_WORK_THREADS; i++) {
        check(pthread_create(&a->work_threads[i], NULL, work_main, a) == 0);
    }
    log_info("api: listening on %s port %u%s", a->config.host, a->port,
             a->config.https ? " with TLS" : "");
    *ret = a;
    return 0;
}

/* libmicrohttpd wants no suspended connection when it stops. From `stopping` on nobody parks or
 * falls asleep; those who did are woken, and commands on their way are answered. Who connects
 * meanwhile is refused like those who were here: MHD_quiesce_daemon, which would keep them out,
 * takes the listener out of an epoll set that the daemon's thread takes it out of, too, and ends
 * the process when it comes second. */
void api_stop(struct api *a)
{
    if (!a) {
        return;
    }
    pthread_mutex_lock(&a->lock);
    a->stopping = true;
    stream_watch(a, os_monotonic_ms(), 0);
    while (a->parked > 0) {
        pthread_cond_wait(&a->changed, &a->lock);
    }
    a->ended = true;
    pthread_cond_broadcast(&a->changed);
    pthread_cond_broadcast(&a->work_changed);
    pthread_mutex_unlock(&a->lock);
    bus_unsubscribe(a->config.bus, a->bus_handle);
    pthread_join(a->watch_thread, NULL);
    for (unsigned i = 0; i < API_WORK_THREADS; i++) {
        pthread_join(a->work_threads[i], NULL);
    }
    MHD_stop_daemon(a->daemon);
    free_api(a);
}
