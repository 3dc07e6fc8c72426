#include "common/base.h"

#include "common/http.h"
#include "common/http_transfer.h"
#include "common/os.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <strings.h>
#include <unistd.h>

#define CONNECT_TIMEOUT_MS 5000u
#define IDLE_TIMEOUT_MS    60000u

struct exchange {
    struct transfer transfer;
    const struct http_request *req;
    struct buf *out;
    uint64_t sent;
    uint64_t received;
    uint64_t have; /* of the body before this request */
    uint64_t body_size;
};

void http_global_init(void)
{
    check(curl_global_init(CURL_GLOBAL_ALL) == CURLE_OK);
}

static size_t send_body(char *ret, size_t size, size_t count, void *ctx)
{
    struct exchange *ex = ctx;
    size_t n = MIN((uint64_t)(size * count), ex->body_size - ex->sent);
    transfer_touch(&ex->transfer);
    if (ex->req->body_fd < 0) {
        if (n > 0) {
            memcpy(ret, ex->req->body.p + ex->sent, n);
        }
        ex->sent += n;
        return n;
    }
    ssize_t got;
    do {
        got = n > 0 ? pread(ex->req->body_fd, ret, n, (off_t)(ex->req->body_offset + ex->sent)) : 0;
    } while (got < 0 && errno == EINTR);
    if (got < 0 || (got == 0 && n > 0)) {
        ex->transfer.failed = got < 0 ? err_from_errno(errno) : -E_IO;
        return CURL_READFUNC_ABORT;
    }
    ex->sent += (uint64_t)got;
    return (size_t)got;
}

static int seek_body(void *ctx, curl_off_t offset, int origin)
{
    struct exchange *ex = ctx;
    if (origin != SEEK_SET || offset < 0 || (uint64_t)offset > ex->body_size) {
        return CURL_SEEKFUNC_FAIL;
    }
    ex->sent = (uint64_t)offset;
    return CURL_SEEKFUNC_OK;
}

/* The server sends all of it, not the rest that was asked for: it is another one. */
static int begin_anew(struct exchange *ex)
{
    int fd = ex->req->out_fd;
    ex->have = 0;
    return ftruncate(fd, 0) < 0 || lseek(fd, 0, SEEK_SET) < 0 ? err_from_errno(errno) : 0;
}

static size_t take_body(char *p, size_t size, size_t count, void *ctx)
{
    struct exchange *ex = ctx;
    size_t n = size * count;
    int status = transfer_status(&ex->transfer);
    int r = 0;
    bool good = status >= 200 && status < 300;
    transfer_touch(&ex->transfer);
    if (ex->have > 0 && good && status != 206 && ex->received == 0) {
        r = begin_anew(ex);
    }
    uint64_t all = ex->have + ex->received;
    if (r < 0) {
        /* the file cannot be written */
    } else if (n > ex->req->out_limit - MIN(all, ex->req->out_limit)) {
        r = -E_TOO_BIG;
    } else if (ex->req->take != NULL && good) {
        r = ex->req->take(ex->req->take_ctx, p, n);
    } else if (ex->req->out_fd >= 0 && good) {
        r = os_write_all(ex->req->out_fd, p, n);
    } else if (ex->out != NULL) {
        buf_add(ex->out, p, n);
        r = buf_ok(ex->out) ? 0 : -E_TOO_BIG;
    }
    ex->received += n;
    ex->transfer.failed = r;
    return r < 0 ? 0 : n;
}

/* The value of a header line of that name, without quotes around it. */
static void take_value(struct str line, const char *name, struct buf *ret)
{
    size_t n = strlen(name);
    if (line.n <= n || line.p[n] != ':' || strncasecmp(line.p, name, n) != 0) {
        return;
    }
    struct str value = str_trim(str_sub(line, n + 1, line.n));
    bool quoted = value.n > 1 && value.p[0] == '"' && value.p[value.n - 1] == '"';
    buf_clear(ret);
    buf_add_str(ret, quoted ? str_sub(value, 1, value.n - 2) : value);
}

static size_t take_header(char *p, size_t size, size_t count, void *ctx)
{
    struct exchange *ex = ctx;
    struct str line = str_trim(str_of(p, size * count));
    transfer_touch(&ex->transfer);
    if (ex->req->etag != NULL) {
        take_value(line, "etag", ex->req->etag);
    }
    if (ex->req->wanted != NULL) {
        take_value(line, ex->req->wanted, ex->req->wanted_value);
    }
    return size * count;
}

#define set_option(ex, option, value) \
    check(curl_easy_setopt((ex)->transfer.easy, option, value) == CURLE_OK)

static bool sends_body(const struct http_request *req)
{
    return req->body_fd >= 0 || strcmp(req->method, "POST") == 0 || strcmp(req->method, "PUT") == 0;
}

static int set_body(struct exchange *ex)
{
    const struct http_request *req = ex->req;
    ex->body_size = req->body_fd >= 0 ? req->body_size : req->body.n;
    set_option(ex, CURLOPT_UPLOAD, 1L);
    set_option(ex, CURLOPT_INFILESIZE_LARGE, (curl_off_t)ex->body_size);
    set_option(ex, CURLOPT_READFUNCTION, send_body);
    set_option(ex, CURLOPT_READDATA, ex);
    set_option(ex, CURLOPT_SEEKFUNCTION, seek_body);
    set_option(ex, CURLOPT_SEEKDATA, ex);
    const char *type = req->content_type != NULL ? req->content_type : "application/json";
    return ex->body_size > 0 ? transfer_header(&ex->transfer, "Content-Type", type) : 0;
}

/* Asks for what is missing behind the bytes that the file has. */
static int set_range(struct exchange *ex)
{
    off_t end = lseek(ex->req->out_fd, 0, SEEK_END);
    char text[80];
    if (end <= 0) {
        return end < 0 ? err_from_errno(errno) : 0;
    }
    ex->have = (uint64_t)end;
    snprintf(text, sizeof(text), "bytes=%" PRIu64 "-", ex->have);
    int r = transfer_header(&ex->transfer, "Range", text);
    snprintf(text, sizeof(text), "\"%.70s\"", ex->req->resume);
    return r < 0 ? r : transfer_header(&ex->transfer, "If-Range", text);
}

static int set_headers(struct exchange *ex)
{
    const struct http_request *req = ex->req;
    int r = req->resume != NULL && req->out_fd >= 0 ? set_range(ex) : 0;
    if (req->idempotency_key != NULL) {
        r = transfer_header(&ex->transfer, "Idempotency-Key", req->idempotency_key);
    }
    for (const char *const *h = req->headers; r == 0 && h != NULL && h[0] != NULL; h += 2) {
        r = transfer_header(&ex->transfer, h[0], h[1]);
    }
    return r;
}

static int set_request(struct exchange *ex)
{
    const struct http_request *req = ex->req;
    int r = 0;
    if (strcmp(req->method, "HEAD") == 0) {
        set_option(ex, CURLOPT_NOBODY, 1L);
    } else {
        r = sends_body(req) ? set_body(ex) : 0;
        set_option(ex, CURLOPT_CUSTOMREQUEST, req->method);
    }
    r = r < 0 ? r : set_headers(ex);
    if (req->unix_socket != NULL) {
        set_option(ex, CURLOPT_UNIX_SOCKET_PATH, req->unix_socket);
    }
    uint32_t connect_ms = req->connect_timeout_ms;
    set_option(ex, CURLOPT_CONNECTTIMEOUT_MS,
               (long)(connect_ms > 0 ? connect_ms : CONNECT_TIMEOUT_MS));
    set_option(ex, CURLOPT_WRITEFUNCTION, take_body);
    set_option(ex, CURLOPT_WRITEDATA, ex);
    set_option(ex, CURLOPT_HEADERFUNCTION, take_header);
    set_option(ex, CURLOPT_HEADERDATA, ex);
    if (req->redirects > 0) {
        transfer_redirects(&ex->transfer, req->url, req->redirects);
    }
    if (req->any_server) {
        transfer_any_server(&ex->transfer);
    }
    if (req->public_only) {
        transfer_public_only(&ex->transfer);
    }
    ex->transfer.cancel = req->stop;
    ex->transfer.end_ms = req->timeout_ms > 0 ? os_monotonic_ms() + req->timeout_ms : 0;
    ex->transfer.idle_ms = req->idle_timeout_ms > 0 ? req->idle_timeout_ms : IDLE_TIMEOUT_MS;
    return r;
}

int http_do(const struct http_request *req, int *ret_status, struct buf *out, struct buf *why)
{
    struct exchange ex = {.req = req, .out = out};
    size_t start = out != NULL ? out->n : 0;
    int r = transfer_init(&ex.transfer, req->url, req->token);
    if (r == 0) {
        r = set_request(&ex);
    }
    if (r < 0) {
        buf_addz(why, "a header value holds a line break or control character");
    } else {
        r = transfer_run(&ex.transfer, why);
    }
    if (r == 0) {
        *ret_status = transfer_status(&ex.transfer);
    } else if (out != NULL) {
        buf_truncate(out, start);
    }
    transfer_release(&ex.transfer);
    return r;
}
