#include "common/base.h"

#include "common/os.h"
#include "tests/unit/common/server.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* True once head and body are there, as Content-Length says. */
static bool request_complete(const struct server *s)
{
    const char *end = s->request.n > 0 ? strstr(s->request.p, "\r\n\r\n") : NULL;
    const char *length = s->request.n > 0 ? strstr(s->request.p, "Content-Length: ") : NULL;
    size_t body = length != NULL ? strtoul(length + 16, NULL, 10) : 0;
    if (end == NULL) {
        return false;
    }
    return s->closes_early || s->request.n >= (size_t)(end + 4 - s->request.p) + body;
}

static void serve(struct server *s, int fd)
{
    char bytes[4096];
    ssize_t n = 1;
    buf_clear(&s->request);
    while (n > 0 && !request_complete(s)) {
        n = read(fd, bytes, sizeof(bytes));
        buf_add(&s->request, bytes, (size_t)MAX(n, 0));
    }
    for (size_t i = 0; i < s->piece_count; i++) {
        if (send(fd, s->pieces[i], strlen(s->pieces[i]), MSG_NOSIGNAL) < 0) {
            return;
        }
        os_sleep_ms(2);
    }
    while (s->hangs && read(fd, bytes, sizeof(bytes)) > 0) {
    }
}

static void *server_loop(void *ctx)
{
    struct server *s = ctx;
    int fd;
    while ((fd = accept(s->listen_fd, NULL, NULL)) >= 0) {
        serve(s, fd);
        close(fd);
    }
    return NULL;
}

void server_start(struct server *s)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(address);
    s->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(s->listen_fd >= 0);
    check(bind(s->listen_fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    check(listen(s->listen_fd, 4) == 0);
    check(getsockname(s->listen_fd, (struct sockaddr *)&address, &n) == 0);
    s->port = ntohs(address.sin_port);
    snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%u/path?q=1", (unsigned)s->port);
    check(pthread_create(&s->thread, NULL, server_loop, s) == 0);
}

void server_stop(struct server *s)
{
    shutdown(s->listen_fd, SHUT_RDWR);
    check(pthread_join(s->thread, NULL) == 0);
    close(s->listen_fd);
}

void server_release(struct server *s)
{
    buf_release(&s->request);
}
