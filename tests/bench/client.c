#include "common/base.h"

#include "tests/bench/client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"

struct client {
    int fd;
    const char *token;
    struct buf in; /* received and not yet used */
};

int client_open(uint16_t port, const char *token, struct client **ret)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct client *c = xcalloc(1, sizeof(*c));
    int on = 1;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    c->token = token;
    buf_init(&c->in, LIMIT_HTTP_BODY);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) < 0 ||
        connect(c->fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        client_close(c);
        return -E_UNREACHABLE;
    }
    *ret = c;
    return 0;
}

void client_close(struct client *c)
{
    if (!c) {
        return;
    }
    if (c->fd >= 0) {
        close(c->fd);
    }
    buf_release(&c->in);
    free(c);
}

static int read_more(struct client *c)
{
    char chunk[16384];
    ssize_t n = read(c->fd, chunk, sizeof(chunk));

    if (n <= 0) {
        return -E_UNREACHABLE;
    }
    buf_add(&c->in, chunk, (size_t)n);
    return buf_ok(&c->in) ? 0 : -E_TOO_BIG;
}

/* Status and body length out of the lines before the empty one. */
static int parse_head(struct str head, int *ret_status, uint64_t *ret_length)
{
    uint64_t status;
    struct str line;

    if (!str_split(&head, '\n', &line) || str_to_u64(str_sub(line, 9, 3), &status) < 0) {
        return -E_PROTOCOL;
    }
    *ret_status = (int)status;
    while (str_split(&head, '\n', &line)) {
        struct str name;

        if (str_split(&line, ':', &name) && name.n == 14 &&
            strncasecmp(name.p, "Content-Length", 14) == 0) {
            return str_to_u64(str_trim(line), ret_length);
        }
    }
    return -E_PROTOCOL;
}

static int read_answer(struct client *c, int *ret_status, struct buf *out)
{
    ptrdiff_t head;
    uint64_t length;
    int r;

    while ((head = str_find(buf_str(&c->in), STR("\r\n\r\n"))) < 0) {
        r = read_more(c);
        if (r < 0) {
            return r;
        }
    }
    r = parse_head(str_sub(buf_str(&c->in), 0, (size_t)head), ret_status, &length);
    if (r < 0) {
        return r;
    }
    buf_drop_front(&c->in, (size_t)head + 4);
    while (c->in.n < length) {
        r = read_more(c);
        if (r < 0) {
            return r;
        }
    }
    buf_clear(out);
    buf_add(out, c->in.p, (size_t)length);
    buf_drop_front(&c->in, (size_t)length);
    return 0;
}

int client_post(struct client *c, const char *path, struct str body, int *ret_status,
                struct buf *out)
{
    struct buf request = BUF_INIT;
    int r;

    buf_addf(&request,
             "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n"
             "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
             path, c->token, body.n);
    buf_add_str(&request, body);
    r = os_write_all(c->fd, request.p, request.n);
    buf_release(&request);
    return r < 0 ? r : read_answer(c, ret_status, out);
}
