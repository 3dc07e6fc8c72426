#include "common/base.h"

#include "worker/link.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include <utlist.h>

#include "common/limits.h"

#define NO_REDIAL_MS   (60 * 60 * 1000)
#define RECEIVE_BUFFER 1024
/* More than the broker may have on its way (32 numbered ones and its beats): a flood. */
#define RECEIVED_MAX 4096u
/* The request id of raw mode: its top bit ends the header. */
#define REQUEST_ID 0x80000001u

struct item {
    struct link_event event;
    struct item *prev, *next;
};

struct link {
    nng_socket socket;
    nng_dialer dialer;
    nng_aio *receive_aio;
    nng_aio *send_aio;
    pthread_t dial_thread;
    int event_fd;

    pthread_mutex_t lock;  /* guards what follows */
    struct item *events;   /* for the loop */
    struct item *outgoing; /* messages, the first is being sent */
    size_t received;
    size_t unsent;
    bool piped; /* a pipe was let in: there will be no second one */
    bool down;  /* said so */
};

bool link_url_valid(const char *url)
{
    nng_url *u = NULL;
    if (nng_url_parse(&u, url) != 0) {
        return false;
    }
    bool ok = strcmp(u->u_scheme, "tcp") == 0 && u->u_hostname[0] != '\0' && u->u_port[0] != '\0';
    nng_url_free(u);
    return ok;
}

/* With the lock held. */
static void push(struct link *l, enum link_event_kind kind, const char *text, nng_msg *msg)
{
    struct item *it = xcalloc(1, sizeof(*it));
    it->event = (struct link_event){.kind = kind, .text = text, .msg = msg};
    if (msg != NULL) {
        it->event.bytes = str_of(nng_msg_body(msg), nng_msg_len(msg));
    }
    DL_APPEND(l->events, it);
    uint64_t one = 1;
    (void)!write(l->event_fd, &one, sizeof(one));
}

static void push_down(struct link *l, const char *text)
{
    if (!l->down) {
        l->down = true;
        push(l, LINK_DOWN, text, NULL);
    }
}

static void on_pipe(nng_pipe pipe, nng_pipe_ev ev, void *arg)
{
    struct link *l = arg;
    pthread_mutex_lock(&l->lock);
    bool second = ev == NNG_PIPE_EV_ADD_PRE && l->piped;
    if (ev == NNG_PIPE_EV_ADD_PRE) {
        l->piped = true;
    } else if (ev == NNG_PIPE_EV_REM_POST) {
        push_down(l, "the connection was closed");
    }
    pthread_mutex_unlock(&l->lock);
    if (second) {
        nng_pipe_close(pipe);
    }
}

static void on_received(void *arg)
{
    struct link *l = arg;
    if (nng_aio_result(l->receive_aio) != 0) {
        return; /* the socket is closing */
    }
    nng_msg *msg = nng_aio_get_msg(l->receive_aio);
    pthread_mutex_lock(&l->lock);
    bool flooded = l->received >= RECEIVED_MAX;
    if (flooded) {
        push_down(l, "the broker sends more than it may");
    } else {
        l->received++;
        push(l, LINK_MESSAGE, NULL, msg);
    }
    pthread_mutex_unlock(&l->lock);
    if (flooded) {
        nng_msg_free(msg);
        return;
    }
    nng_recv_aio(l->socket, l->receive_aio);
}

/* With the lock held: hands the first outgoing message to nng. */
static void send_first(struct link *l)
{
    nng_aio_set_msg(l->send_aio, l->outgoing->event.msg);
    l->outgoing->event.msg = NULL; /* nng's, or in the aio */
    nng_send_aio(l->socket, l->send_aio);
}

static void on_sent(void *arg)
{
    struct link *l = arg;
    if (nng_aio_result(l->send_aio) != 0) {
        nng_msg_free(nng_aio_get_msg(l->send_aio));
        return; /* the socket is closing */
    }
    pthread_mutex_lock(&l->lock);
    struct item *done = l->outgoing;
    DL_DELETE(l->outgoing, done);
    free(done);
    l->unsent--;
    if (l->outgoing != NULL) {
        send_first(l);
    } else {
        push(l, LINK_ROOM, NULL, NULL);
    }
    pthread_mutex_unlock(&l->lock);
}

/* nng_dialer_start waits for the connection, or for nng_close. */
static void *dial(void *arg)
{
    struct link *l = arg;
    int r = nng_dialer_start(l->dialer, 0);
    pthread_mutex_lock(&l->lock);
    push(l, r == 0 ? LINK_UP : LINK_FAILED, r == 0 ? NULL : nng_strerror(r), NULL);
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static int set_up(struct link *l, const char *url)
{
    if (nng_aio_alloc(&l->receive_aio, on_received, l) != 0 ||
        nng_aio_alloc(&l->send_aio, on_sent, l) != 0 ||
        nng_socket_set_size(l->socket, NNG_OPT_RECVMAXSZ, LIMIT_WIRE_MESSAGE) != 0 ||
        nng_socket_set_int(l->socket, NNG_OPT_RECVBUF, RECEIVE_BUFFER) != 0 ||
        nng_socket_set_ms(l->socket, NNG_OPT_RECONNMINT, NO_REDIAL_MS) != 0 ||
        nng_pipe_notify(l->socket, NNG_PIPE_EV_ADD_PRE, on_pipe, l) != 0 ||
        nng_pipe_notify(l->socket, NNG_PIPE_EV_REM_POST, on_pipe, l) != 0 ||
        nng_dialer_create(&l->dialer, l->socket, url) != 0) {
        return -E_UNREACHABLE;
    }
    nng_recv_aio(l->socket, l->receive_aio);
    return pthread_create(&l->dial_thread, NULL, dial, l) == 0 ? 0 : -E_UNREACHABLE;
}

static void release(struct link *l)
{
    struct item *it, *next;
    nng_aio_free(l->receive_aio);
    nng_aio_free(l->send_aio);
    DL_FOREACH_SAFE (l->events, it, next) {
        link_event_release(&it->event);
        free(it);
    }
    DL_FOREACH_SAFE (l->outgoing, it, next) {
        link_event_release(&it->event);
        free(it);
    }
    close(l->event_fd);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

int link_open(const char *url, struct link **ret)
{
    struct link *l = xcalloc(1, sizeof(*l));
    l->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    check(l->event_fd >= 0);
    pthread_mutex_init(&l->lock, NULL);
    int r = nng_req0_open_raw(&l->socket) == 0 ? 0 : -E_UNREACHABLE;
    if (r == 0) {
        r = set_up(l, url);
        if (r < 0) {
            nng_close(l->socket);
        }
    }
    if (r < 0) {
        release(l);
        return r;
    }
    *ret = l;
    return 0;
}

void link_close(struct link *l)
{
    if (l == NULL) {
        return;
    }
    nng_close(l->socket);
    pthread_join(l->dial_thread, NULL);
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
    struct item *it = l->events;
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
    if (ev->msg != NULL) {
        nng_msg_free(ev->msg);
        ev->msg = NULL;
    }
}

void link_send(struct link *l, struct str bytes)
{
    struct item *it = xcalloc(1, sizeof(*it));
    nng_msg *msg;
    check(nng_msg_alloc(&msg, 0) == 0);
    check(nng_msg_append(msg, bytes.p, bytes.n) == 0);
    check(nng_msg_header_append_u32(msg, REQUEST_ID) == 0);
    it->event.msg = msg;
    pthread_mutex_lock(&l->lock);
    DL_APPEND(l->outgoing, it);
    l->unsent++;
    if (l->outgoing == it) {
        send_first(l);
    }
    pthread_mutex_unlock(&l->lock);
}

size_t link_unsent(struct link *l)
{
    pthread_mutex_lock(&l->lock);
    size_t n = l->unsent;
    pthread_mutex_unlock(&l->lock);
    return n;
}
