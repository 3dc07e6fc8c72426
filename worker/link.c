#include "common/base.h"

#include "worker/link.h"

#include <nng/nng.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utlist.h>

#include "common/limits.h"
#include "common/tls_engine.h"

/* More than the broker may have on its way (32 numbered ones and its beats): a flood. */
#define RECEIVED_MAX 4096u
#define LENGTH_BYTES 8u
#define ID_BYTES     4u

static const uint8_t greeting[] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
static const uint8_t greeting_wanted[] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};
static const uint8_t request_id[ID_BYTES] = {0x80, 0, 0, 1};

struct event_item {
    struct link_event event;
    struct event_item *prev, *next;
};

struct out_item {
    struct out_item *prev, *next;
    size_t n;
    uint8_t bytes[];
};

enum receiving { RECEIVE_GREETING, RECEIVE_LENGTH, RECEIVE_MESSAGE };

struct link {
    nng_stream_dialer *dialer;
    bool has_tls;
    char why[192];      /* written before LINK_DOWN is said */
    nng_stream *stream; /* the dial callback's, then read only */
    nng_aio *dial_aio;
    nng_aio *receive_aio;
    nng_aio *send_aio;
    int event_fd;

    /* the receive callback's, of which there is one at a time */
    enum receiving receiving;
    uint8_t head[LENGTH_BYTES];
    char *message;
    size_t message_n;
    size_t got;

    pthread_mutex_t lock; /* guards what follows */
    struct event_item *events;
    struct out_item *outgoing; /* the first is being sent */
    size_t sent;               /* bytes of the first */
    size_t received;           /* messages among the events */
    size_t unsent;
    bool down; /* said so */
};

bool link_url_tls(const char *url)
{
    return str_starts(str_from(url), STR("tls://"));
}

/* nng has another name for TLS on TCP. */
static void nng_url_of(const char *url, struct buf *out)
{
    buf_addf(out, "%s%s", link_url_tls(url) ? "tls+tcp" : "",
             link_url_tls(url) ? strchr(url, ':') : url);
}

char *link_url_host(const char *url)
{
    struct buf full = BUF_INIT;
    nng_url *u;
    nng_url_of(url, &full);
    check(nng_url_parse(&u, buf_cstr(&full)) == 0);
    char *host = xstrdup(u->u_hostname);
    nng_url_free(u);
    buf_release(&full);
    return host;
}

bool link_url_valid(const char *url)
{
    struct buf full = BUF_INIT;
    nng_url *u = NULL;
    nng_url_of(url, &full);
    bool parsed = nng_url_parse(&u, buf_cstr(&full)) == 0;
    buf_release(&full);
    if (!parsed) {
        return false;
    }
    const char *scheme = link_url_tls(url) ? "tls+tcp" : "tcp";
    bool ok = strcmp(u->u_scheme, scheme) == 0 && u->u_hostname[0] != '\0' && u->u_port[0] != '\0';
    nng_url_free(u);
    return ok;
}

/* With the lock held. */
static void push(struct link *l, enum link_event_kind kind, const char *text, struct str bytes)
{
    struct event_item *it = xcalloc(1, sizeof(*it));
    uint64_t one = 1;
    it->event = (struct link_event){.kind = kind, .text = text, .bytes = bytes};
    DL_APPEND(l->events, it);
    l->received += kind == LINK_MESSAGE;
    (void)!write(l->event_fd, &one, sizeof(one));
}

static void go_down(struct link *l, const char *text)
{
    pthread_mutex_lock(&l->lock);
    if (!l->down) {
        l->down = true;
        push(l, LINK_DOWN, text, STR_NULL);
    }
    pthread_mutex_unlock(&l->lock);
}

/* What TLS says of it is better than what nng does. */
static void connection_lost(struct link *l)
{
    struct tls_peer peer = {.why = ""};
    if (l->has_tls) {
        (void)tls_engine_peer(l->stream, &peer);
    }
    pthread_mutex_lock(&l->lock);
    bool first = !l->down && l->why[0] == '\0';
    if (first && peer.why[0] != '\0') {
        snprintf(l->why, sizeof(l->why), "TLS: %s", peer.why);
    }
    pthread_mutex_unlock(&l->lock);
    go_down(l, first && peer.why[0] != '\0' ? l->why : "the connection was closed");
}

static void transfer(nng_aio *aio, void (*start)(nng_stream *, nng_aio *), nng_stream *stream,
                     const void *p, size_t n)
{
    nng_iov iov = {.iov_buf = (void *)(uintptr_t)p, .iov_len = n};
    check(nng_aio_set_iov(aio, 1, &iov) == 0);
    start(stream, aio);
}

static size_t wanted(const struct link *l)
{
    return l->receiving == RECEIVE_MESSAGE ? l->message_n : LENGTH_BYTES;
}

static void receive_rest(struct link *l)
{
    uint8_t *to = l->receiving == RECEIVE_MESSAGE ? (uint8_t *)l->message : l->head;
    transfer(l->receive_aio, nng_stream_recv, l->stream, to + l->got, wanted(l) - l->got);
}

static const char *take_greeting(struct link *l)
{
    if (memcmp(l->head, greeting_wanted, sizeof(greeting_wanted)) != 0) {
        return "the other side is no broker";
    }
    pthread_mutex_lock(&l->lock);
    push(l, LINK_UP, NULL, STR_NULL);
    pthread_mutex_unlock(&l->lock);
    l->receiving = RECEIVE_LENGTH;
    return NULL;
}

static const char *take_length(struct link *l)
{
    uint64_t n = 0;
    for (size_t i = 0; i < LENGTH_BYTES; i++) {
        n = n << 8 | l->head[i];
    }
    if (n < ID_BYTES || n > LIMIT_WIRE_MESSAGE + ID_BYTES) {
        return "the broker sent a message out of bounds";
    }
    l->message = xmalloc((size_t)n);
    l->message_n = (size_t)n;
    l->receiving = RECEIVE_MESSAGE;
    return NULL;
}

static const char *take_message(struct link *l)
{
    pthread_mutex_lock(&l->lock);
    bool flooded = l->received >= RECEIVED_MAX;
    if (!flooded) {
        memmove(l->message, l->message + ID_BYTES, l->message_n - ID_BYTES);
        push(l, LINK_MESSAGE, NULL, str_of(l->message, l->message_n - ID_BYTES));
        l->message = NULL;
    }
    pthread_mutex_unlock(&l->lock);
    l->receiving = RECEIVE_LENGTH;
    return flooded ? "the broker sends more than it may" : NULL;
}

static const char *take_whole(struct link *l)
{
    switch (l->receiving) {
    case RECEIVE_GREETING:
        return take_greeting(l);
    case RECEIVE_LENGTH:
        return take_length(l);
    case RECEIVE_MESSAGE:
        return take_message(l);
    }
    return NULL;
}

static void on_received(void *arg)
{
    struct link *l = arg;
    if (nng_aio_result(l->receive_aio) != 0) {
        connection_lost(l);
        return;
    }
    l->got += nng_aio_count(l->receive_aio);
    if (l->got == wanted(l)) {
        l->got = 0;
        const char *fault = take_whole(l);
        if (fault != NULL) {
            go_down(l, fault);
            return;
        }
    }
    receive_rest(l);
}

/* The first outgoing message. */
static void send_rest(struct link *l, const struct out_item *first, size_t sent)
{
    transfer(l->send_aio, nng_stream_send, l->stream, first->bytes + sent, first->n - sent);
}

static void on_sent(void *arg)
{
    struct link *l = arg;
    if (nng_aio_result(l->send_aio) != 0) {
        connection_lost(l);
        return;
    }
    pthread_mutex_lock(&l->lock);
    struct out_item *first = l->outgoing;
    l->sent += nng_aio_count(l->send_aio);
    if (l->sent == first->n) {
        DL_DELETE(l->outgoing, first);
        free(first);
        l->sent = 0;
        l->unsent--;
        first = l->outgoing;
        if (first == NULL) {
            push(l, LINK_ROOM, NULL, STR_NULL);
        }
    }
    size_t sent = l->sent;
    pthread_mutex_unlock(&l->lock);
    if (first != NULL) {
        send_rest(l, first, sent);
    }
}

static void enqueue(struct link *l, struct out_item *it)
{
    pthread_mutex_lock(&l->lock);
    DL_APPEND(l->outgoing, it);
    l->unsent++;
    bool idle = l->outgoing == it;
    pthread_mutex_unlock(&l->lock);
    if (idle) {
        send_rest(l, it, 0);
    }
}

static void on_dialed(void *arg)
{
    struct link *l = arg;
    int r = nng_aio_result(l->dial_aio);
    if (r != 0) {
        go_down(l, nng_strerror(r));
        return;
    }
    struct out_item *it = xcalloc(1, sizeof(*it) + sizeof(greeting));
    l->stream = nng_aio_get_output(l->dial_aio, 0);
    it->n = sizeof(greeting);
    memcpy(it->bytes, greeting, sizeof(greeting));
    enqueue(l, it);
    receive_rest(l);
}

static void release(struct link *l)
{
    struct event_item *ev, *next_ev;
    struct out_item *out, *next_out;
    nng_aio_free(l->dial_aio);
    nng_aio_free(l->receive_aio);
    nng_aio_free(l->send_aio);
    DL_FOREACH_SAFE (l->events, ev, next_ev) {
        link_event_release(&ev->event);
        free(ev);
    }
    DL_FOREACH_SAFE (l->outgoing, out, next_out) {
        free(out);
    }
    if (l->stream != NULL) {
        nng_stream_free(l->stream);
    }
    if (l->dialer != NULL) {
        nng_stream_dialer_free(l->dialer);
    }
    free(l->message);
    close(l->event_fd);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static bool set_tls(struct link *l, struct tls *tls)
{
    nng_tls_config *config;
    l->has_tls = tls != NULL;
    if (tls == NULL) {
        return true;
    }
    if (tls_engine_config(tls, &config) < 0) {
        return false;
    }
    int r = nng_stream_dialer_set_ptr(l->dialer, NNG_OPT_TLS_CONFIG, config);
    nng_tls_config_free(config); /* the dialer holds it */
    return r == 0;
}

int link_open(const char *url, struct tls *tls, struct link **ret)
{
    struct buf full = BUF_INIT;
    struct link *l = xcalloc(1, sizeof(*l));
    l->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    check(l->event_fd >= 0);
    pthread_mutex_init(&l->lock, NULL);
    nng_url_of(url, &full);
    if (nng_aio_alloc(&l->dial_aio, on_dialed, l) != 0 ||
        nng_aio_alloc(&l->receive_aio, on_received, l) != 0 ||
        nng_aio_alloc(&l->send_aio, on_sent, l) != 0 ||
        nng_stream_dialer_alloc(&l->dialer, buf_cstr(&full)) != 0 || !set_tls(l, tls) ||
        nng_stream_dialer_set_bool(l->dialer, NNG_OPT_TCP_NODELAY, true) != 0) {
        buf_release(&full);
        release(l);
        return -E_UNREACHABLE;
    }
    buf_release(&full);
    nng_stream_dialer_dial(l->dialer, l->dial_aio);
    *ret = l;
    return 0;
}

void link_close(struct link *l)
{
    if (l == NULL) {
        return;
    }
    nng_stream_dialer_close(l->dialer);
    nng_aio_stop(l->dial_aio);
    if (l->stream != NULL) {
        nng_stream_close(l->stream);
    }
    nng_aio_stop(l->receive_aio);
    nng_aio_stop(l->send_aio);
    release(l);
}

int link_fd(const struct link *l)
{
    return l->event_fd;
}

bool link_next(struct link *l, struct link_event *ret)
{
    uint64_t count;
    pthread_mutex_lock(&l->lock);
    struct event_item *it = l->events;
    if (it != NULL) {
        DL_DELETE(l->events, it);
        l->received -= it->event.kind == LINK_MESSAGE;
        *ret = it->event;
        free(it);
    } else {
        (void)!read(l->event_fd, &count, sizeof(count));
    }
    pthread_mutex_unlock(&l->lock);
    return it != NULL;
}

void link_event_release(struct link_event *ev)
{
    free((void *)(uintptr_t)ev->bytes.p);
    ev->bytes = STR_NULL;
}

static void put_big_endian(uint8_t *to, uint64_t v)
{
    for (size_t i = LENGTH_BYTES; i > 0; i--) {
        to[i - 1] = (uint8_t)v;
        v >>= 8;
    }
}

void link_send(struct link *l, struct str bytes)
{
    size_t n = LENGTH_BYTES + ID_BYTES + bytes.n;
    struct out_item *it = xcalloc(1, sizeof(*it) + n);
    it->n = n;
    put_big_endian(it->bytes, ID_BYTES + bytes.n);
    memcpy(it->bytes + LENGTH_BYTES, request_id, ID_BYTES);
    if (bytes.n > 0) {
        memcpy(it->bytes + LENGTH_BYTES + ID_BYTES, bytes.p, bytes.n);
    }
    enqueue(l, it);
}

size_t link_unsent(struct link *l)
{
    pthread_mutex_lock(&l->lock);
    size_t n = l->unsent;
    pthread_mutex_unlock(&l->lock);
    return n;
}
