#include "common/base.h"

#include "broker/net/wire.h"

#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/limits.h"
#include "common/log.h"

#define WIRE_QUEUE 8192 /* the most that nng allows */
/* The header of a raw reply: the pipe, then a request number, of which nng wants the highest bit.
 */
#define WIRE_REQUEST 0x80000001u

struct wire {
    pthread_mutex_t lock; /* callbacks push under it, so that wire_close can end that */
    bool closed;
    struct inbox *inbox;
    nng_socket socket;
    nng_aio *receive;
};

/* Returns whether to receive more; wire_resume goes on otherwise. */
static bool push_message(struct wire *w, nng_msg *msg)
{
    bool more = false;

    pthread_mutex_lock(&w->lock);
    if (w->closed) {
        nng_msg_free(msg);
    } else {
        struct item *item = item_new(ITEM_MESSAGE);
        item->msg = msg;
        item->pipe = (uint32_t)nng_pipe_id(nng_msg_get_pipe(msg));
        item->bytes = nng_msg_len(msg);
        more = inbox_push_message(w->inbox, item);
    }
    pthread_mutex_unlock(&w->lock);
    return more;
}

static void on_receive(void *arg)
{
    struct wire *w = arg;
    int r = nng_aio_result(w->receive);

    if (r == NNG_ECLOSED || r == NNG_ECANCELED) {
        return;
    }
    if (r != 0 || push_message(w, nng_aio_get_msg(w->receive))) {
        nng_recv_aio(w->socket, w->receive);
    }
}

/* Runs on nng's threads, with locks of nng's: take a note and leave. */
static void on_pipe(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    struct wire *w = arg;

    pthread_mutex_lock(&w->lock);
    if (!w->closed) {
        struct item *item = item_new(event == NNG_PIPE_EV_ADD_PRE ? ITEM_PIPE_UP : ITEM_PIPE_DOWN);
        item->pipe = (uint32_t)nng_pipe_id(pipe);
        inbox_push_event(w->inbox, item);
    }
    pthread_mutex_unlock(&w->lock);
}

static int set_up(struct wire *w)
{
    int r = nng_socket_set_size(w->socket, NNG_OPT_RECVMAXSZ, LIMIT_WIRE_MESSAGE);

    r = r != 0 ? r : nng_socket_set_int(w->socket, NNG_OPT_RECVBUF, WIRE_QUEUE);
    r = r != 0 ? r : nng_socket_set_int(w->socket, NNG_OPT_SENDBUF, WIRE_QUEUE);
    r = r != 0 ? r : nng_pipe_notify(w->socket, NNG_PIPE_EV_ADD_PRE, on_pipe, w);
    r = r != 0 ? r : nng_pipe_notify(w->socket, NNG_PIPE_EV_REM_POST, on_pipe, w);
    r = r != 0 ? r : nng_aio_alloc(&w->receive, on_receive, w);
    return r;
}

int wire_open(struct inbox *in, struct wire **ret)
{
    struct wire *w = xcalloc(1, sizeof(*w));

    check(pthread_mutex_init(&w->lock, NULL) == 0);
    w->inbox = in;
    int r = nng_rep0_open_raw(&w->socket);
    r = r != 0 ? r : set_up(w);
    if (r != 0) {
        log_error("net: no socket: %s", nng_strerror(r));
        return -E_INTERNAL; /* davitd ends; what was made stays with nng */
    }
    nng_recv_aio(w->socket, w->receive);
    *ret = w;
    return 0;
}

int wire_listen(struct wire *w, const char *url, uint16_t *ret_port, struct buf *why)
{
    nng_listener listener;
    int port = 0;
    int r = nng_listen(w->socket, url, &listener, 0);

    if (r == 0) {
        r = nng_listener_get_int(listener, NNG_OPT_TCP_BOUND_PORT, &port);
    }
    if (r != 0) {
        buf_addf(why, "cannot listen at %s: %s", url, nng_strerror(r));
        return -E_UNREACHABLE;
    }
    *ret_port = (uint16_t)port;
    return 0;
}

void wire_close(struct wire *w)
{
    if (w == NULL) {
        return;
    }
    pthread_mutex_lock(&w->lock);
    w->closed = true;
    pthread_mutex_unlock(&w->lock);
}

void wire_resume(struct wire *w)
{
    nng_recv_aio(w->socket, w->receive);
}

int wire_send(struct wire *w, uint32_t pipe, struct str head, struct str body)
{
    nng_msg *msg;
    int r = nng_msg_alloc(&msg, 0);

    r = r != 0 ? r : nng_msg_append(msg, head.p, head.n);
    r = r != 0 ? r : nng_msg_append(msg, body.p, body.n);
    r = r != 0 ? r : nng_msg_header_append_u32(msg, pipe);
    r = r != 0 ? r : nng_msg_header_append_u32(msg, WIRE_REQUEST);
    check(r == 0); /* memory alone can be missing */
    r = nng_sendmsg(w->socket, msg, NNG_FLAG_NONBLOCK);
    if (r != 0) {
        nng_msg_free(msg);
        return r == NNG_EAGAIN || r == NNG_ETIMEDOUT ? -E_BUSY : -E_SHUTDOWN;
    }
    return 0;
}

void wire_close_pipe(struct wire *w, uint32_t pipe)
{
    nng_pipe_close((nng_pipe){.id = pipe});
}

struct str wire_msg_body(struct nng_msg *msg)
{
    return str_of(nng_msg_body(msg), nng_msg_len(msg));
}

void wire_msg_free(struct nng_msg *msg)
{
    if (msg != NULL) {
        nng_msg_free(msg);
    }
}
