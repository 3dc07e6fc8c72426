#include "common/base.h"

#include "client/stream.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"

#define GREETING_BYTES 8u
#define LENGTH_BYTES   8u
#define ID_BYTES       4u
#define READ_BYTES     (64u * KIB)

static const uint8_t greeting[GREETING_BYTES] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
static const uint8_t greeting_wanted[GREETING_BYTES] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};
static const uint8_t request_id[ID_BYTES] = {0x80, 0, 0, 1};

void stream_init(struct stream *s)
{
    *s = (struct stream){.fd = -1};
}

void stream_close(struct stream *s)
{
    if (s->fd >= 0) {
        close(s->fd);
    }
    SSL_free(s->ssl);
    buf_release(&s->in);
    buf_release(&s->out);
    buf_release(&s->sealed_out);
    stream_init(s);
}

static char *copy(struct str s)
{
    char *text = xmalloc(s.n + 1);

    memcpy(text, s.p, s.n);
    text[s.n] = '\0';
    return text;
}

bool stream_url_tls(const char *url)
{
    return str_starts(str_from(url), STR("tls://"));
}

/* Host and port of tcp://HOST:PORT or tls://HOST:PORT, where HOST may be [an IPv6 address]; heap.
 */
static bool split_url(const char *url, char **ret_host, char **ret_port)
{
    struct str rest = str_from(url);
    size_t colon;

    if (!str_starts(rest, STR("tcp://")) && !stream_url_tls(url)) {
        return false;
    }
    rest = str_sub(rest, 6, rest.n);
    for (colon = rest.n; colon > 0 && rest.p[colon - 1] != ':';) {
        colon--;
    }
    struct str host = str_sub(rest, 0, colon > 0 ? colon - 1 : 0);
    struct str port = str_sub(rest, colon, rest.n);
    if (host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']') {
        host = str_sub(host, 1, host.n - 2);
    }
    uint64_t number;
    if (host.n == 0 || str_to_u64(port, &number) < 0 || number == 0 || number > 65535) {
        return false;
    }
    *ret_host = copy(host);
    *ret_port = copy(port);
    return true;
}

bool stream_url_valid(const char *url)
{
    char *host = NULL;
    char *port = NULL;
    bool valid = split_url(url, &host, &port);

    free(host);
    free(port);
    return valid;
}

char *stream_url_host(const char *url)
{
    char *host;
    char *port;

    check(split_url(url, &host, &port));
    free(port);
    return host;
}

static int wait_connected(int fd, int wake_fd, uint64_t until_ms)
{
    struct pollfd p[2] = {{.fd = fd, .events = POLLOUT}, {.fd = wake_fd, .events = POLLIN}};
    uint64_t now_ms = os_monotonic_ms();
    int error = 0;
    socklen_t n = sizeof(error);

    while (now_ms < until_ms) {
        int ready = poll(p, 2, (int)(until_ms - now_ms));
        if (ready > 0 && p[1].revents != 0) {
            return -E_CANCELED;
        }
        if (ready > 0) {
            bool good = getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) == 0 && error == 0;
            return good ? 0 : -E_UNREACHABLE;
        }
        now_ms = os_monotonic_ms();
    }
    return -E_UNREACHABLE;
}

static int try_address(const struct addrinfo *at, int wake_fd, uint64_t until_ms, int *ret_fd)
{
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1;
    int r = -E_UNREACHABLE;

    if (fd < 0) {
        return r;
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (connect(fd, at->ai_addr, at->ai_addrlen) == 0) {
        r = 0;
    } else if (errno == EINPROGRESS) {
        r = wait_connected(fd, wake_fd, until_ms);
    }
    if (r < 0) {
        close(fd);
        return r;
    }
    *ret_fd = fd;
    return 0;
}

/* --- TLS --- */

static void start_tls(struct stream *s, struct tls *tls)
{
    BIO *out = BIO_new(BIO_s_mem());

    s->ssl = tls_open(tls);
    s->sealed_in = BIO_new(BIO_s_mem());
    check(out != NULL && s->sealed_in != NULL);
    /* Empty is "not yet", not the end. */
    BIO_set_mem_eof_return(s->sealed_in, -1);
    BIO_set_mem_eof_return(out, -1);
    SSL_set_bio(s->ssl, s->sealed_in, out);
}

/* What OpenSSL wants sent. */
static void take_sealed(struct stream *s)
{
    char *p;
    BIO *out = SSL_get_wbio(s->ssl);
    long n = BIO_get_mem_data(out, &p);

    if (n > 0) {
        buf_add(&s->sealed_out, p, (size_t)n);
        (void)BIO_reset(out);
    }
}

/* What a call came to: 0, or the end of the connection with its reason. */
static int tls_result(struct stream *s, int r)
{
    int error = SSL_get_error(s->ssl, r);

    if (r == 1 || error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        return 0;
    }
    if (error != SSL_ERROR_ZERO_RETURN && s->why[0] == '\0') {
        snprintf(s->why, sizeof(s->why), "TLS: %s", tls_failure(s->ssl));
    }
    ERR_clear_error();
    return -E_UNREACHABLE;
}

/* Seals what is to be sent, once the handshake is over. */
static int seal(struct stream *s)
{
    size_t done = 0;
    int r = 0;

    ERR_clear_error();
    if (!SSL_is_init_finished(s->ssl)) {
        r = tls_result(s, SSL_do_handshake(s->ssl));
    }
    while (r == 0 && SSL_is_init_finished(s->ssl) && done < s->out.n) {
        size_t n = 0;
        r = tls_result(s, SSL_write_ex(s->ssl, s->out.p + done, s->out.n - done, &n));
        if (n == 0) {
            break;
        }
        done += n;
    }
    buf_drop_front(&s->out, done);
    take_sealed(s);
    return r;
}

static int unseal(struct stream *s)
{
    for (;;) {
        size_t n = 0;
        char *at = buf_space(&s->in, READ_BYTES);
        ERR_clear_error();
        int r = SSL_read_ex(s->ssl, at, READ_BYTES, &n);
        if (r != 1) {
            return tls_result(s, r);
        }
        buf_advance(&s->in, n);
    }
}

/* --- connections --- */

int stream_connect(struct stream *s, const char *url, struct tls *tls, int wake_fd,
                   uint64_t timeout_ms)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    uint64_t until_ms = os_monotonic_ms() + timeout_ms;
    char *host;
    char *port;
    int r = -E_UNREACHABLE;

    check(split_url(url, &host, &port));
    if (getaddrinfo(host, port, &hints, &list) == 0) {
        for (const struct addrinfo *at = list; at != NULL && r == -E_UNREACHABLE;
             at = at->ai_next) {
            r = try_address(at, wake_fd, until_ms, &s->fd);
        }
        freeaddrinfo(list);
    }
    free(host);
    free(port);
    if (r == 0) {
        buf_add(&s->out, greeting, sizeof(greeting));
    }
    if (r == 0 && tls != NULL) {
        start_tls(s, tls);
    }
    return r;
}

void stream_put(struct stream *s, struct str head, struct str content)
{
    uint64_t length = htobe64(ID_BYTES + head.n + content.n);

    buf_add(&s->out, &length, sizeof(length));
    buf_add(&s->out, request_id, sizeof(request_id));
    buf_add_str(&s->out, head);
    buf_add_str(&s->out, content);
}

/* As much as the system takes. */
static int send_some(struct stream *s, struct buf *out)
{
    size_t sent = 0;

    while (sent < out->n) {
        ssize_t n = send(s->fd, out->p + sent, out->n - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            break;
        }
        if (n < 0) {
            return -E_UNREACHABLE;
        }
        sent += (size_t)n;
    }
    buf_drop_front(out, sent);
    return 0;
}

int stream_flush(struct stream *s)
{
    if (s->ssl == NULL) {
        return send_some(s, &s->out);
    }
    int sealed = seal(s);
    int r = send_some(s, &s->sealed_out); /* an alert, too */
    return sealed < 0 ? sealed : r;
}

bool stream_distrusts(const struct stream *s)
{
    return s->ssl != NULL && SSL_get_verify_result(s->ssl) != X509_V_OK;
}

bool stream_unsent(const struct stream *s)
{
    return s->ssl == NULL ? s->out.n > 0 : s->sealed_out.n > 0;
}

/* What the socket has, behind `in`. */
static int receive(struct stream *s, struct buf *in, size_t max)
{
    for (;;) {
        char *at = buf_space(in, READ_BYTES);
        ssize_t n = recv(s->fd, at, READ_BYTES, MSG_DONTWAIT);
        if (n > 0) {
            buf_advance(in, (size_t)n);
        }
        if (n == (ssize_t)READ_BYTES && in->n < max) {
            continue;
        }
        if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))) {
            return 0;
        }
        return -E_UNREACHABLE;
    }
}

int stream_read(struct stream *s)
{
    buf_drop_front(&s->in, s->taken);
    s->taken = 0;
    if (s->ssl == NULL) {
        return receive(s, &s->in, LIMIT_WIRE_MESSAGE);
    }
    struct buf sealed = BUF_INIT;
    int received = receive(s, &sealed, LIMIT_WIRE_MESSAGE);
    if (sealed.n > 0) {
        check(BIO_write(s->sealed_in, sealed.p, (int)sealed.n) == (int)sealed.n);
    }
    buf_release(&sealed);
    int r = stream_flush(s); /* goes on with the handshake, and sends what waited for its end */
    size_t before = s->in.n;
    r = r < 0 ? r : unseal(s);
    if (s->in.n > before) {
        return 0; /* what came before the end is read first */
    }
    return r < 0 ? r : received;
}

static int take_greeting(struct stream *s)
{
    if (s->in.n - s->taken < GREETING_BYTES) {
        return 0;
    }
    if (memcmp(s->in.p + s->taken, greeting_wanted, GREETING_BYTES) != 0) {
        return -E_PROTOCOL;
    }
    s->taken += GREETING_BYTES;
    s->greeted = true;
    return 1;
}

int stream_next(struct stream *s, struct str *ret)
{
    uint64_t length;

    if (!s->greeted) {
        int r = take_greeting(s);
        if (r <= 0) {
            return r;
        }
    }
    size_t left = s->in.n - s->taken;
    if (left < LENGTH_BYTES) {
        return 0;
    }
    memcpy(&length, s->in.p + s->taken, sizeof(length));
    length = be64toh(length);
    if (length < ID_BYTES || length > LIMIT_WIRE_MESSAGE + ID_BYTES) {
        return -E_PROTOCOL;
    }
    if (left < LENGTH_BYTES + length) {
        return 0;
    }
    *ret = str_of(s->in.p + s->taken + LENGTH_BYTES + ID_BYTES, (size_t)length - ID_BYTES);
    s->taken += LENGTH_BYTES + (size_t)length;
    return 1;
}
