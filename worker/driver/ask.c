/* A question to a socket. */
#include "common/base.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "worker/driver/op.h"

union address {
    struct sockaddr any;
    struct sockaddr_un unix_path;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static int parse_unix(const char *path, union address *ret, socklen_t *ret_size)
{
    if (path[0] == '\0' || strlen(path) >= sizeof(ret->unix_path.sun_path)) {
        return -E_INVALID;
    }
    ret->unix_path.sun_family = AF_UNIX;
    memcpy(ret->unix_path.sun_path, path, strlen(path) + 1);
    *ret_size = sizeof(ret->unix_path);
    return 0;
}

/* 127.0.0.1:9000, [::1]:9000 */
static int parse_tcp(struct str text, union address *ret, socklen_t *ret_size)
{
    char host[INET6_ADDRSTRLEN];
    size_t colon = text.n;
    uint64_t port;
    while (colon > 0 && text.p[colon - 1] != ':') {
        colon--;
    }
    bool bracketed = colon > 2 && text.p[0] == '[' && text.p[colon - 2] == ']';
    struct str name = colon == 0  ? STR_NULL
                      : bracketed ? str_sub(text, 1, colon - 3)
                                  : str_sub(text, 0, colon - 1);
    if (name.n == 0 || name.n >= sizeof(host) ||
        str_to_u64(str_sub(text, colon, text.n), &port) < 0 || port == 0 || port > 65535) {
        return -E_INVALID;
    }
    memcpy(host, name.p, name.n);
    host[name.n] = '\0';
    if (!bracketed && inet_pton(AF_INET, host, &ret->v4.sin_addr) == 1) {
        ret->v4.sin_family = AF_INET;
        ret->v4.sin_port = htons((uint16_t)port);
        *ret_size = sizeof(ret->v4);
        return 0;
    }
    if (bracketed && inet_pton(AF_INET6, host, &ret->v6.sin6_addr) == 1) {
        ret->v6.sin6_family = AF_INET6;
        ret->v6.sin6_port = htons((uint16_t)port);
        *ret_size = sizeof(ret->v6);
        return 0;
    }
    return -E_INVALID;
}

static int parse(const char *text, union address *ret, socklen_t *ret_size)
{
    memset(ret, 0, sizeof(*ret));
    return str_starts(str_from(text), STR("unix:")) ? parse_unix(text + 5, ret, ret_size)
                                                    : parse_tcp(str_from(text), ret, ret_size);
}

/* 1: all is sent; 0: not yet; or an error. */
static int send_more(struct driver_op *op)
{
    while (op->sent < op->text.n) {
        ssize_t n = send(op->fd, op->text.p + op->sent, op->text.n - op->sent, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR) {
            return errno == EAGAIN ? 0 : -E_UNREACHABLE;
        }
        op->sent += n > 0 ? (size_t)n : 0;
    }
    return 1;
}

static void on_socket(void *ctx, unsigned events)
{
    struct driver_op *op = ctx;
    int error = 0;
    socklen_t size = sizeof(error);
    check(getsockopt(op->fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0);
    if (error != 0) {
        op_fail(op, -E_UNREACHABLE, strerror(error));
        return;
    }
    if (op->connects) {
        op_done(op, 0);
        return;
    }
    if ((events & LOOP_WRITE) != 0 && op->sent < op->text.n) {
        int r = send_more(op);
        if (r < 0) {
            op_fail(op, r, err_text(r));
            return;
        }
        if (r == 1) {
            loop_await(op->action->all->loop, op->watch, LOOP_READ);
        }
    }
    if ((events & LOOP_READ) != 0) {
        int r = pipe_read(op->fd, &op->out, op->limit);
        if (r < 0) {
            op_fail(op, r, "the answer is too big");
        } else if (r == 1) {
            op_done(op, 0);
        }
    }
}

static int connect_to(struct driver_op *op, const char *text)
{
    union address address;
    socklen_t size;
    int r = parse(text, &address, &size);
    if (r < 0) {
        return r;
    }
    if (!reach_admits(op->action->all->reach, &address.any)) {
        return -E_FORBIDDEN;
    }
    op->fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (op->fd < 0) {
        return err_from_errno(errno);
    }
    /* A unix socket whose queue is full says EAGAIN, and would not tell when it has room. */
    if (connect(op->fd, &address.any, size) != 0 && errno != EINPROGRESS) {
        return -E_UNREACHABLE;
    }
    return 0;
}

void driver_ask(struct driver_call *call, const struct driver_ask *ask, driver_fn fn)
{
    struct driver_op *op = op_new(call, fn, ask->limit);
    op->ctx = ask->ctx;
    op->connects = ask->connects;
    op->text = arena_str(call->arena, ask->text);
    int r = connect_to(op, ask->address);
    if (r < 0) {
        op_fail_soon(op, r);
        return;
    }
    op_set_end(op, ask->timeout_ms);
    op->watch = loop_watch_io(call->action->all->loop, op->fd, LOOP_READ | LOOP_WRITE, on_socket,
                              op);
}
