#include "common/base.h"

#include "broker/net/pipe.h"

#include <endian.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/limits.h"

#define LENGTH_BYTES  8u
#define REQUEST_BYTES 4u
/* Announced bytes are no reason to take memory: it grows with what has come. */
#define PIECE_BYTES (128u * KIB)
/* What is received at once while no message has begun: small messages come whole, several together,
 * and each costs one wake-up of nng. It is kept for every pipe, so it is not larger. */
#define AHEAD_BYTES 2048u
#define KEPT_BYTES  2048u /* likewise, of each of the two that are sent from */

static const uint8_t greeting[LENGTH_BYTES] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};
static const uint8_t greeting_wanted[LENGTH_BYTES] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
static const uint8_t request[REQUEST_BYTES] = {0x80, 0, 0, 1};

struct wire_msg {
    size_t n; /* with the request id */
    uint8_t bytes[];
};

/* What goes out: messages with their heads, one behind the other. */
struct batch {
    struct buf bytes;
    size_t messages;
};

struct pipe_io {
    struct pipe_events events;
    nng_stream *stream;
    nng_aio *receive_aio;
    nng_aio *send_aio;

    /* of the receiving callback */
    bool greeted;
    bool again;   /* not from the stream: there was more ahead when receiving was put off */
    size_t limit; /* of a message */
    uint8_t ahead[AHEAD_BYTES];
    size_t ahead_n;
    struct wire_msg *msg; /* one that has begun */
    size_t cap;           /* of msg */
    size_t wanted;
    size_t got;

    pthread_mutex_t lock; /* guards what follows, and starting an aio against pipe_free */
    struct batch sending; /* nng has it, but for what was sent */
    size_t sent;          /* bytes of it */
    struct batch waiting; /* what came meanwhile: it follows as one */
    bool ended;           /* nothing is started any more */
    bool told;            /* `down` was called */
};

/* A pipe that was busy once keeps no more than this. */
static void batch_clear(struct batch *b)
{
    if (b->bytes.cap > KEPT_BYTES) {
        buf_release(&b->bytes);
    }
    buf_clear(&b->bytes);
    b->messages = 0;
}

struct str wire_msg_body(const struct wire_msg *msg)
{
    return str_of(msg->bytes + REQUEST_BYTES, msg->n - REQUEST_BYTES);
}

void wire_msg_free(struct wire_msg *msg)
{
    free(msg);
}

static void go_down(struct pipe *p)
{
    struct pipe_io *io = p->io;

    pthread_mutex_lock(&io->lock);
    bool tell = !io->told;
    io->told = true;
    io->ended = true;
    pthread_mutex_unlock(&io->lock);
    if (tell) {
        io->events.down(io->events.ctx, p);
    }
}

/* With the lock held: pipe_free stops aios only after it has set `ended` under it, so that none is
 * started behind its back. */
static void start(struct pipe_io *io, nng_aio *aio, void (*transfer)(nng_stream *, nng_aio *),
                  void *at, size_t n)
{
    nng_iov iov = {.iov_buf = at, .iov_len = n};

    if (!io->ended) {
        check(nng_aio_set_iov(aio, 1, &iov) == 0);
        transfer(io->stream, aio);
    }
}

/* Into the message that has begun, else ahead of the next. */
static void receive_more(struct pipe_io *io)
{
    uint8_t *at = io->ahead + io->ahead_n;
    size_t room = AHEAD_BYTES - io->ahead_n;

    if (io->msg != NULL) {
        check(io->ahead_n == 0);
        if (io->got == io->cap) {
            io->cap = MIN(2 * io->cap, io->wanted);
            io->msg = xrealloc(io->msg, sizeof(*io->msg) + io->cap);
        }
        at = io->msg->bytes + io->got;
        room = io->cap - io->got;
    }
    check(room > 0);
    pthread_mutex_lock(&io->lock);
    start(io, io->receive_aio, nng_stream_recv, at, room);
    pthread_mutex_unlock(&io->lock);
}

static void consume(struct pipe_io *io, size_t n)
{
    io->ahead_n -= n;
    memmove(io->ahead, io->ahead + n, io->ahead_n);
}

/* A message begins with what has come of it. False: the peer speaks something else. */
static bool begin_message(struct pipe_io *io)
{
    uint64_t n;

    memcpy(&n, io->ahead, sizeof(n));
    n = be64toh(n);
    if (n < REQUEST_BYTES || n > io->limit + REQUEST_BYTES) {
        return false;
    }
    io->wanted = (size_t)n;
    io->got = MIN(io->wanted, io->ahead_n - LENGTH_BYTES);
    io->cap = MIN(io->wanted, PIECE_BYTES);
    io->msg = xmalloc(sizeof(*io->msg) + io->cap);
    memcpy(io->msg->bytes, io->ahead + LENGTH_BYTES, io->got);
    consume(io, LENGTH_BYTES + io->got);
    return true;
}

/* *ret_more: go on receiving. */
static bool take_message(struct pipe *p, bool *ret_more)
{
    struct pipe_io *io = p->io;
    struct wire_msg *msg = io->msg;

    if ((msg->bytes[0] & 0x80) == 0) {
        return false; /* a request that came through others: nobody is between us */
    }
    msg->n = io->wanted;
    io->msg = NULL;
    io->limit = LIMIT_WIRE_MESSAGE;
    *ret_more = io->events.message(io->events.ctx, p, msg);
    return true;
}

/* Takes all that has come whole. False: the peer speaks something else. */
static bool take_all(struct pipe *p, bool *ret_more)
{
    struct pipe_io *io = p->io;

    while (*ret_more) {
        if (io->msg != NULL) {
            if (io->got < io->wanted) {
                return true;
            }
            if (!take_message(p, ret_more)) {
                return false;
            }
        } else if (io->ahead_n < LENGTH_BYTES) {
            return true;
        } else if (!io->greeted) {
            if (memcmp(io->ahead, greeting_wanted, sizeof(greeting_wanted)) != 0) {
                return false;
            }
            io->greeted = true;
            consume(io, LENGTH_BYTES);
        } else if (!begin_message(io)) {
            return false;
        }
    }
    return true;
}

static void on_received(void *arg)
{
    struct pipe *p = arg;
    struct pipe_io *io = p->io;
    size_t n = io->again ? 0 : nng_aio_count(io->receive_aio);
    bool more = true;

    if (nng_aio_result(io->receive_aio) != 0) {
        go_down(p);
        return;
    }
    io->again = false;
    if (io->msg != NULL) {
        io->got += n;
    } else {
        io->ahead_n += n;
    }
    if (!take_all(p, &more)) {
        go_down(p);
        return;
    }
    if (more) {
        receive_more(io);
    }
}

/* With the lock held: goes on with what is being sent, else with what waits. */
static void send_rest(struct pipe_io *io)
{
    struct batch *b = &io->sending;

    if (io->sent == b->bytes.n) {
        const struct batch done = *b;
        *b = io->waiting;
        io->waiting = done;
        batch_clear(&io->waiting);
        io->sent = 0;
    }
    if (b->messages > 0) {
        start(io, io->send_aio, nng_stream_send, b->bytes.p + io->sent, b->bytes.n - io->sent);
    }
}

static void on_sent(void *arg)
{
    struct pipe *p = arg;
    struct pipe_io *io = p->io;

    if (nng_aio_result(io->send_aio) != 0) {
        go_down(p);
        return;
    }
    pthread_mutex_lock(&io->lock);
    io->sent += nng_aio_count(io->send_aio);
    send_rest(io);
    pthread_mutex_unlock(&io->lock);
}

void pipe_send(struct pipe *p, struct str head, struct str body)
{
    struct pipe_io *io = p->io;
    const uint64_t length = htobe64(REQUEST_BYTES + head.n + body.n);

    pthread_mutex_lock(&io->lock);
    struct batch *b = &io->waiting;
    buf_add(&b->bytes, &length, sizeof(length));
    buf_add(&b->bytes, request, sizeof(request));
    buf_add_str(&b->bytes, head);
    buf_add_str(&b->bytes, body);
    b->messages++;
    bool flooded = b->messages + io->sending.messages > WIRE_UNSENT_MAX;
    pthread_mutex_unlock(&io->lock);
    if (flooded) {
        go_down(p);
    }
}

void pipe_flush(struct pipe *p)
{
    struct pipe_io *io = p->io;

    pthread_mutex_lock(&io->lock);
    if (io->sending.messages == 0 && io->waiting.messages > 0) {
        send_rest(io);
    }
    pthread_mutex_unlock(&io->lock);
}

static void send_greeting(struct pipe *p)
{
    struct pipe_io *io = p->io;

    pthread_mutex_lock(&io->lock);
    buf_add(&io->waiting.bytes, greeting, sizeof(greeting));
    io->waiting.messages++;
    pthread_mutex_unlock(&io->lock);
    pipe_flush(p);
}

struct pipe *pipe_new(uint32_t id, nng_stream *stream, const struct pipe_events *events)
{
    struct pipe *p = xcalloc(1, sizeof(*p));
    struct pipe_io *io = xcalloc(1, sizeof(*io));

    check(pthread_mutex_init(&io->lock, NULL) == 0);
    p->id = id;
    p->io = io;
    io->events = *events;
    io->stream = stream;
    io->limit = LIMIT_HELLO;
    buf_init(&io->sending.bytes, 0);
    buf_init(&io->waiting.bytes, 0);
    if (nng_aio_alloc(&io->receive_aio, on_received, p) != 0 ||
        nng_aio_alloc(&io->send_aio, on_sent, p) != 0) {
        pipe_free(p);
        return NULL;
    }
    return p;
}

void pipe_free(struct pipe *p)
{
    struct pipe_io *io = p->io;

    pthread_mutex_lock(&io->lock);
    io->ended = true;
    pthread_mutex_unlock(&io->lock);
    nng_stream_close(io->stream);
    nng_aio_stop(io->receive_aio);
    nng_aio_stop(io->send_aio);
    nng_aio_free(io->receive_aio);
    nng_aio_free(io->send_aio);
    nng_stream_free(io->stream);
    buf_release(&io->sending.bytes);
    buf_release(&io->waiting.bytes);
    wire_msg_free(io->msg);
    pthread_mutex_destroy(&io->lock);
    free(io);
    free(p);
}

nng_stream *pipe_stream(const struct pipe *p)
{
    return p->io->stream;
}

void pipe_start(struct pipe *p)
{
    send_greeting(p);
    receive_more(p->io);
}

/* The caller holds a lock that `message` takes: what has come already is taken on nng's thread. */
void pipe_receive(struct pipe *p)
{
    struct pipe_io *io = p->io;

    pthread_mutex_lock(&io->lock);
    if (!io->ended) {
        io->again = true;
        nng_sleep_aio(0, io->receive_aio);
    }
    pthread_mutex_unlock(&io->lock);
}
