#include "common/base.h"

#include "tests/bench/loop.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 256 << 10, EVENTS = 512, KEEP_BYTES = 64 << 10 };

struct loop {
    int epoll;
    char *scratch; /* what one read brings */
    struct conn *conns;
    struct conn *unsent; /* those with something to write */
};

struct conn {
    struct loop *loop;
    int fd;
    const struct conn_events *events;
    void *ctx;
    struct buf in; /* the begin of a message */
    struct buf out;
    bool connecting;
    bool blocked; /* waits until the socket takes more */
    bool queued;  /* in loop->unsent */
    bool failed;
    struct conn *next_unsent;
    struct conn *next;
    struct conn **link;
};

struct loop *loop_new(void)
{
    struct loop *l = xcalloc(1, sizeof(*l));

    l->epoll = epoll_create1(EPOLL_CLOEXEC);
    check(l->epoll >= 0);
    l->scratch = xmalloc(READ_BYTES);
    return l;
}

void loop_free(struct loop *l)
{
    if (!l) {
        return;
    }
    while (l->conns) {
        conn_close(l->conns);
    }
    close(l->epoll);
    free(l->scratch);
    free(l);
}

static void watch(struct conn *c, int op)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};

    if (c->connecting || c->blocked) {
        event.events |= EPOLLOUT;
    }
    check(epoll_ctl(c->loop->epoll, op, c->fd, &event) == 0);
}

struct conn *conn_open(struct loop *l, uint16_t port, const struct conn_events *events, void *ctx)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct conn *c = xcalloc(1, sizeof(*c));
    int on = 1;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->loop = l;
    c->events = events;
    c->ctx = ctx;
    c->connecting = true;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    check(c->fd >= 0 && setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0);
    /* What comes of it is told by the next loop_wait(). */
    c->failed = connect(c->fd, (const struct sockaddr *)&address, sizeof(address)) < 0 &&
                errno != EINPROGRESS;
    c->next = l->conns;
    c->link = &l->conns;
    if (c->next) {
        c->next->link = &c->next;
    }
    l->conns = c;
    watch(c, EPOLL_CTL_ADD);
    return c;
}

void conn_close(struct conn *c)
{
    struct conn **link = &c->loop->unsent;

    while (c->queued && *link != c) {
        link = &(*link)->next_unsent;
    }
    if (c->queued) {
        *link = c->next_unsent;
    }
    *c->link = c->next;
    if (c->next) {
        c->next->link = c->link;
    }
    close(c->fd);
    buf_release(&c->in);
    buf_release(&c->out);
    free(c);
}

struct buf *conn_out(struct conn *c)
{
    if (!c->queued) {
        c->queued = true;
        c->next_unsent = c->loop->unsent;
        c->loop->unsent = c;
    }
    return &c->out;
}

void conn_fail(struct conn *c)
{
    c->failed = true;
}

static void end(struct conn *c)
{
    c->events->closed(c, c->ctx);
    conn_close(c);
}

static void take_input(struct conn *c, const char *p, size_t n)
{
    size_t used;

    if (c->in.n == 0) {
        used = c->events->input(c, c->ctx, p, n);
        buf_add(&c->in, p + used, n - used);
        return;
    }
    buf_add(&c->in, p, n);
    used = c->events->input(c, c->ctx, c->in.p, c->in.n);
    buf_drop_front(&c->in, used);
    if (c->in.n == 0 && c->in.cap > KEEP_BYTES) {
        buf_release(&c->in);
    }
}

static void read_input(struct conn *c)
{
    ssize_t n = read(c->fd, c->loop->scratch, READ_BYTES);

    if (n > 0) {
        take_input(c, c->loop->scratch, (size_t)n);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        c->failed = true;
    }
}

static void finish_connect(struct conn *c)
{
    socklen_t length = sizeof(int);
    int error = 0;

    check(getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0);
    c->connecting = false;
    c->failed |= error != 0;
    if (!c->failed) {
        watch(c, EPOLL_CTL_MOD);
        conn_out(c); /* what was added meanwhile */
        if (c->events->opened) {
            c->events->opened(c, c->ctx);
        }
    }
}

bool loop_wait(struct loop *l, uint64_t wait_us)
{
    struct timespec wait = {.tv_sec = (time_t)(wait_us / 1000000),
                            .tv_nsec = (long)(wait_us % 1000000) * 1000};
    struct epoll_event events[EVENTS];
    int n = epoll_pwait2(l->epoll, events, EVENTS, &wait, NULL);

    for (int i = 0; i < n; i++) {
        struct conn *c = events[i].data.ptr;
        if (c->connecting) {
            finish_connect(c);
        } else if (c->blocked && (events[i].events & EPOLLOUT)) {
            c->blocked = false;
            watch(c, EPOLL_CTL_MOD);
            conn_out(c);
        }
        if (!c->failed && (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
            read_input(c);
        }
        if (c->failed) {
            end(c);
        }
    }
    return n > 0;
}

static void write_output(struct conn *c)
{
    ssize_t n = send(c->fd, c->out.p, c->out.n, MSG_NOSIGNAL);

    if (n > 0) {
        buf_drop_front(&c->out, (size_t)n);
    }
    if (c->out.n > 0) {
        /* Full, or broken: that is told by the next read. */
        c->blocked = true;
        watch(c, EPOLL_CTL_MOD);
    } else if (c->out.cap > KEEP_BYTES) {
        buf_release(&c->out);
    }
}

void loop_flush(struct loop *l)
{
    while (l->unsent) {
        struct conn *c = l->unsent;
        l->unsent = c->next_unsent;
        c->queued = false;
        if (c->out.n > 0 && !c->blocked && !c->connecting) {
            write_output(c);
        }
    }
}
