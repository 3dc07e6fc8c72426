#include "common/base.h"

#include "broker/net/wire.h"

#include <netinet/in.h>
#include <nng/nng.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "broker/net/pipe.h"
#include "common/limits.h"
#include "common/log.h"
#include "common/tls_engine.h"

#define ACCEPT_PAUSE_MS 100 /* after an error: mostly there are no descriptors left */

/* Connections that may wait to be accepted; the kernel has a bound of its own. */
#define BACKLOG   4096
#define EARLY_FDS 256 /* the listener's descriptor is below, as it is made at the start */

struct wire {
    struct inbox *inbox;
    nng_stream_listener *listener;
    nng_aio *accept_aio;
    bool has_tls;
    bool pausing; /* accept_aio sleeps; its callback's */

    pthread_mutex_t lock; /* guards what follows */
    struct pipe *pipes;   /* by id */
    uint32_t last_id;
    unsigned pipes_max;
    bool crowded; /* said so */
    bool closed;  /* nothing is pushed any more */
};

static bool push_message(void *ctx, struct pipe *p, struct wire_msg *msg)
{
    struct wire *w = ctx;
    bool more = false;

    pthread_mutex_lock(&w->lock);
    if (w->closed) {
        wire_msg_free(msg);
    } else {
        struct item *item = item_new(ITEM_MESSAGE);
        item->pipe = p->id;
        item->msg = msg;
        item->bytes = wire_msg_body(msg).n;
        more = inbox_push_message(w->inbox, item);
        p->paused = !more;
    }
    pthread_mutex_unlock(&w->lock);
    return more;
}

/* With the lock held. */
static void push_event(struct wire *w, enum item_kind kind, uint32_t id)
{
    if (!w->closed) {
        struct item *item = item_new(kind);
        item->pipe = id;
        inbox_push_event(w->inbox, item);
    }
}

static void push_down(void *ctx, struct pipe *p)
{
    struct wire *w = ctx;

    pthread_mutex_lock(&w->lock);
    push_event(w, ITEM_PIPE_DOWN, p->id);
    pthread_mutex_unlock(&w->lock);
}

/* Anybody may connect, but not so often that no descriptor is left for logs, blobs and the API. */
static unsigned pipes_max(void)
{
    struct rlimit files;

    if (getrlimit(RLIMIT_NOFILE, &files) != 0) {
        return LIMIT_SESSIONS;
    }
    rlim_t others = MIN(files.rlim_cur / 2, (rlim_t)LIMIT_OTHER_FDS);
    return (unsigned)MIN(files.rlim_cur - others, (rlim_t)LIMIT_SESSIONS);
}

/* With the lock held. */
static bool has_room(struct wire *w)
{
    bool room = HASH_COUNT(w->pipes) < w->pipes_max;

    if (!room && !w->crowded) {
        log_warn("net: %u connections: more are refused", w->pipes_max);
    }
    w->crowded = !room;
    return room;
}

static void add_pipe(struct wire *w, nng_stream *stream)
{
    struct pipe_events events = {.message = push_message, .down = push_down, .ctx = w};

    pthread_mutex_lock(&w->lock);
    if (!has_room(w)) {
        pthread_mutex_unlock(&w->lock);
        nng_stream_free(stream);
        return;
    }
    uint32_t id = ++w->last_id;
    check(id != 0);
    struct pipe *p = pipe_new(id, stream, &events);
    if (p != NULL) {
        HASH_ADD(hh, w->pipes, id, sizeof(p->id), p);
        pipe_start(p); /* what it receives waits for the lock, and so comes behind this: */
        push_event(w, ITEM_PIPE_UP, id);
    }
    pthread_mutex_unlock(&w->lock);
}

static void on_accept(void *arg)
{
    struct wire *w = arg;
    int r = nng_aio_result(w->accept_aio);

    if (r == NNG_ECLOSED || r == NNG_ECANCELED) {
        return;
    }
    if (r == 0 && !w->pausing) {
        add_pipe(w, nng_aio_get_output(w->accept_aio, 0));
    }
    if (r != 0) {
        log_warn("net: no connection accepted: %s", nng_strerror(r));
        w->pausing = true;
        nng_sleep_aio(ACCEPT_PAUSE_MS, w->accept_aio);
        return;
    }
    w->pausing = false;
    nng_stream_listener_accept(w->listener, w->accept_aio);
}

static int set_tls(struct wire *w, struct tls *tls)
{
    nng_tls_config *config;

    if (tls_engine_config(tls, &config) < 0) {
        return NNG_ENOMEM;
    }
    int r = nng_stream_listener_set_ptr(w->listener, NNG_OPT_TLS_CONFIG, config);
    nng_tls_config_free(config); /* the listener holds it */
    w->has_tls = true;
    return r;
}

static bool listens_at(int fd, uint16_t port)
{
    struct sockaddr_in6 a = {.sin6_port = 0}; /* the port of both families lies at one place */
    socklen_t size = sizeof(a);
    int listening = 0;
    socklen_t n = sizeof(listening);

    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) == 0 && listening != 0 &&
           getsockname(fd, (struct sockaddr *)&a, &size) == 0 && ntohs(a.sin6_port) == port;
}

/* nng lets 128 wait. When a fleet comes back at once, the kernel drops the others and tries them
 * again after 1, 3, 7 and more seconds, beyond their leases. nng does not give its socket away. */
static void let_more_wait(uint16_t port)
{
    for (int fd = 0; fd < EARLY_FDS; fd++) {
        if (listens_at(fd, port) && listen(fd, BACKLOG) < 0) {
            log_warn("net: no more than 128 connections wait to be accepted");
        }
    }
}

static int set_up(struct wire *w, const char *url, struct tls *tls, uint16_t *ret_port)
{
    int port = 0;
    int r = nng_aio_alloc(&w->accept_aio, on_accept, w);

    r = r != 0 ? r : nng_stream_listener_alloc(&w->listener, url);
    r = r != 0 || tls == NULL ? r : set_tls(w, tls);
    r = r != 0 ? r : nng_stream_listener_set_bool(w->listener, NNG_OPT_TCP_NODELAY, true);
    r = r != 0 ? r : nng_stream_listener_listen(w->listener);
    r = r != 0 ? r : nng_stream_listener_get_int(w->listener, NNG_OPT_TCP_BOUND_PORT, &port);
    if (r == 0) {
        *ret_port = (uint16_t)port;
        let_more_wait((uint16_t)port);
    }
    return r;
}

static int listen_at(struct wire *w, const char *url, struct tls *tls, uint16_t *ret_port,
                     struct buf *why)
{
    struct buf full = BUF_INIT;
    int r = tls != NULL ? tls_engine_start(why) : 0;

    if (r < 0) {
        return r;
    }
    /* nng's name for TLS on TCP. */
    buf_addf(&full, "%s%s", tls != NULL ? "tls+tcp" : "tcp", strchr(url, ':'));
    r = set_up(w, buf_cstr(&full), tls, ret_port);
    buf_release(&full);
    if (r != 0) {
        buf_addf(why, "cannot listen at %s: %s", url, nng_strerror(r));
        return -E_UNREACHABLE;
    }
    return 0;
}

int wire_listen(struct inbox *in, const char *url, struct tls *tls, struct wire **ret,
                uint16_t *ret_port, struct buf *why)
{
    struct wire *w = xcalloc(1, sizeof(*w));

    check(pthread_mutex_init(&w->lock, NULL) == 0);
    w->inbox = in;
    w->pipes_max = pipes_max();
    int r = listen_at(w, url, tls, ret_port, why);
    if (r < 0) {
        wire_close(w);
        return r;
    }
    *ret = w; /* first: the turn may have to answer before this returns */
    nng_stream_listener_accept(w->listener, w->accept_aio);
    return 0;
}

void wire_close(struct wire *w)
{
    struct pipe *p;
    struct pipe *tmp;

    if (w == NULL) {
        return;
    }
    pthread_mutex_lock(&w->lock);
    w->closed = true;
    pthread_mutex_unlock(&w->lock);
    if (w->listener != NULL) {
        nng_stream_listener_close(w->listener);
    }
    if (w->accept_aio != NULL) {
        nng_aio_stop(w->accept_aio);
        nng_aio_free(w->accept_aio);
    }
    HASH_ITER (hh, w->pipes, p, tmp) {
        HASH_DELETE(hh, w->pipes, p);
        pipe_free(p);
    }
    if (w->listener != NULL) {
        nng_stream_listener_free(w->listener);
    }
    pthread_mutex_destroy(&w->lock);
    free(w);
}

void wire_resume(struct wire *w)
{
    struct pipe *p;
    struct pipe *tmp;

    pthread_mutex_lock(&w->lock);
    HASH_ITER (hh, w->pipes, p, tmp) {
        if (p->paused) {
            p->paused = false;
            pipe_receive(p);
        }
    }
    pthread_mutex_unlock(&w->lock);
}

static struct pipe *find(struct wire *w, uint32_t id)
{
    struct pipe *p;

    pthread_mutex_lock(&w->lock);
    HASH_FIND(hh, w->pipes, &id, sizeof(id), p);
    pthread_mutex_unlock(&w->lock);
    return p;
}

void wire_send(struct wire *w, uint32_t pipe, struct str head, struct str body)
{
    struct pipe *p = find(w, pipe);

    if (p != NULL) {
        pipe_send(p, head, body);
    }
}

void wire_flush(struct wire *w, uint32_t pipe)
{
    struct pipe *p = find(w, pipe);

    if (p != NULL) {
        pipe_flush(p);
    }
}

bool wire_peer(struct wire *w, uint32_t pipe, struct tls_peer *ret)
{
    struct pipe *p = w->has_tls ? find(w, pipe) : NULL;

    return p != NULL && tls_engine_peer(pipe_stream(p), ret);
}

void wire_close_pipe(struct wire *w, uint32_t pipe)
{
    struct pipe *p = find(w, pipe);

    if (p == NULL) {
        return;
    }
    pthread_mutex_lock(&w->lock);
    HASH_DELETE(hh, w->pipes, p);
    pthread_mutex_unlock(&w->lock);
    pipe_free(p);
}
