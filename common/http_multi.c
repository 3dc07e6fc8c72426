#include "common/base.h"

#include "common/http_multi.h"
#include "common/http_transfer.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <utlist.h>

#define IDLE_CONNECTIONS 256L

enum call_phase {
    CALL_NEW,
    CALL_WAITS,   /* for its turn to look a name up */
    CALL_LOOKS,   /* libcurl has it, and may be looking its name up */
    CALL_CONNECTS /* it has an address */
};

struct http_call {
    struct http_multi *multi;
    struct http_call *prev, *next;
    struct transfer transfer;
    enum call_phase phase;
    struct buf body;
    size_t keep;
    size_t limit;
    uint64_t received;
    http_call_fn fn;
    void *ctx;
};

struct http_multi {
    struct http_loop loop;
    CURLM *curl;
    struct http_call *calls;   /* that libcurl has */
    struct http_call *waiting; /* for a look-up, the longest first */
    size_t lookups;
    bool in_curl; /* libcurl is at work: what follows from it comes afterwards */
};

#define set_option(c, option, value) \
    check(curl_easy_setopt((c)->transfer.easy, option, value) == CURLE_OK)

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *ctx, void *slot)
{
    struct http_multi *m = ctx;
    void *new_slot = slot;
    bool read = what == CURL_POLL_IN || what == CURL_POLL_INOUT;
    bool write = what == CURL_POLL_OUT || what == CURL_POLL_INOUT;
    (void)easy;
    m->loop.want(m->loop.ctx, fd, read, write, &new_slot);
    if (what != CURL_POLL_REMOVE && new_slot != slot) {
        check(curl_multi_assign(m->curl, fd, new_slot) == CURLM_OK);
    }
    return 0;
}

static int on_timer(CURLM *curl, long after_ms, void *ctx)
{
    struct http_multi *m = ctx;
    (void)curl;
    m->loop.wake(m->loop.ctx, after_ms < 0 ? UINT64_MAX : (uint64_t)after_ms);
    return 0;
}

struct http_multi *http_multi_new(const struct http_loop *loop)
{
    struct http_multi *m = xcalloc(1, sizeof(*m));
    m->loop = *loop;
    m->curl = curl_multi_init();
    check(m->curl != NULL);
    check(curl_multi_setopt(m->curl, CURLMOPT_SOCKETFUNCTION, on_socket) == CURLM_OK);
    check(curl_multi_setopt(m->curl, CURLMOPT_SOCKETDATA, m) == CURLM_OK);
    check(curl_multi_setopt(m->curl, CURLMOPT_TIMERFUNCTION, on_timer) == CURLM_OK);
    check(curl_multi_setopt(m->curl, CURLMOPT_TIMERDATA, m) == CURLM_OK);
    check(curl_multi_setopt(m->curl, CURLMOPT_MAXCONNECTS, IDLE_CONNECTIONS) == CURLM_OK);
    return m;
}

void http_multi_free(struct http_multi *m)
{
    if (m == NULL) {
        return;
    }
    while (m->calls != NULL || m->waiting != NULL) {
        http_call_cancel(m->calls != NULL ? m->calls : m->waiting);
    }
    check(curl_multi_cleanup(m->curl) == CURLM_OK);
    free(m);
}

/* ---- one call ---- */

/* A call has its address, or has ended: another one may look up. */
static void leave_lookup(struct http_call *c)
{
    if (c->phase == CALL_LOOKS) {
        c->multi->lookups--;
        c->phase = CALL_CONNECTS;
    }
}

/* The address is the one that libcurl is about to connect to, so no name can come to another one
 * afterwards; redirects come here, too. */
static curl_socket_t open_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct http_call *c = ctx;
    struct http_multi *m = c->multi;
    (void)purpose;
    leave_lookup(c);
    if (m->loop.admits != NULL && !m->loop.admits(m->loop.ctx, &address->addr)) {
        c->transfer.failed = -E_FORBIDDEN;
        return CURL_SOCKET_BAD;
    }
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    return fd >= 0 ? fd : CURL_SOCKET_BAD;
}

static size_t take_body(char *p, size_t size, size_t count, void *ctx)
{
    struct http_call *c = ctx;
    size_t n = size * count;
    buf_add(&c->body, p, MIN(n, c->keep - MIN(c->body.n, c->keep)));
    c->received += n;
    c->transfer.finished = c->received > c->limit;
    return c->transfer.finished ? 0 : n;
}

static void set_method(struct http_call *c, const struct http_call_request *r)
{
    if (r->connect_only) {
        set_option(c, CURLOPT_CONNECT_ONLY, 1L);
        set_option(c, CURLOPT_FRESH_CONNECT, 1L);
    } else if (strcmp(r->method, "HEAD") == 0) {
        set_option(c, CURLOPT_NOBODY, 1L);
    } else {
        if (r->has_body) {
            set_option(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->body.n);
            set_option(c, CURLOPT_POSTFIELDS, r->body.n > 0 ? r->body.p : "");
        }
        set_option(c, CURLOPT_CUSTOMREQUEST, r->method);
    }
}

static void set_trust(struct http_call *c, const struct http_call_request *r)
{
    if (r->any_server) {
        transfer_any_server(&c->transfer);
    } else if (r->ca_file != NULL) {
        set_option(c, CURLOPT_CAINFO, r->ca_file);
        set_option(c, CURLOPT_CAPATH, NULL);
    } else if (r->ca.n > 0) {
        struct curl_blob blob = {
            .data = (void *)(uintptr_t)r->ca.p, .len = r->ca.n, .flags = CURL_BLOB_COPY};
        set_option(c, CURLOPT_CAINFO_BLOB, &blob);
        set_option(c, CURLOPT_CAPATH, NULL);
    }
}

static void add_line(struct http_call *c, const char *line)
{
    c->transfer.headers = curl_slist_append(c->transfer.headers, line);
    check(c->transfer.headers != NULL);
}

struct http_call *http_call_new(struct http_multi *m, const struct http_call_request *request,
                                http_call_fn fn, void *ctx)
{
    struct http_call *c = xcalloc(1, sizeof(*c));
    c->multi = m;
    c->fn = fn;
    c->ctx = ctx;
    c->keep = request->keep;
    c->limit = request->limit;
    buf_init(&c->body, 0);
    check(transfer_init(&c->transfer, request->url, NULL) == 0);
    set_option(c, CURLOPT_PRIVATE, c);
    set_option(c, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    set_option(c, CURLOPT_OPENSOCKETDATA, c);
    set_option(c, CURLOPT_WRITEFUNCTION, take_body);
    set_option(c, CURLOPT_WRITEDATA, c);
    set_option(c, CURLOPT_TIMEOUT_MS, (long)MIN(request->timeout_ms, (uint64_t)INT32_MAX));
    set_option(c, CURLOPT_CONNECTTIMEOUT_MS, (long)MIN(request->timeout_ms, (uint64_t)INT32_MAX));
    set_option(c, CURLOPT_QUICK_EXIT, 1L); /* a cancel does not wait for a look-up */
    set_option(c, CURLOPT_BUFFERSIZE, 16384L);
    set_method(c, request);
    set_trust(c, request);
    if (request->redirects > 0) {
        transfer_redirects(&c->transfer, request->url, request->redirects);
    }
    if (request->unix_socket != NULL) {
        set_option(c, CURLOPT_UNIX_SOCKET_PATH, request->unix_socket);
    }
    if (request->has_body) {
        add_line(c, "Expect:");
    }
    return c;
}

int http_call_header(struct http_call *c, const char *name, const char *value)
{
    return transfer_header(&c->transfer, name, value);
}

static void give_to_curl(struct http_call *c)
{
    struct http_multi *m = c->multi;
    c->phase = CALL_LOOKS;
    m->lookups++;
    DL_APPEND(m->calls, c);
    set_option(c, CURLOPT_HTTPHEADER, c->transfer.headers);
    check(curl_multi_add_handle(m->curl, c->transfer.easy) == CURLM_OK);
}

static void begin_waiting(struct http_multi *m)
{
    while (!m->in_curl && m->waiting != NULL && m->lookups < HTTP_MULTI_LOOKUPS) {
        struct http_call *c = m->waiting;
        DL_DELETE(m->waiting, c);
        give_to_curl(c);
    }
}

void http_call_begin(struct http_call *c)
{
    struct http_multi *m = c->multi;
    check(c->phase == CALL_NEW);
    c->phase = CALL_WAITS;
    DL_APPEND(m->waiting, c);
    begin_waiting(m);
}

/* Out of all lists, and out of libcurl. */
static void withdraw(struct http_call *c)
{
    struct http_multi *m = c->multi;
    if (c->phase == CALL_WAITS) {
        DL_DELETE(m->waiting, c);
    } else if (c->phase != CALL_NEW) {
        leave_lookup(c);
        DL_DELETE(m->calls, c);
        check(curl_multi_remove_handle(m->curl, c->transfer.easy) == CURLM_OK);
    }
}

static void call_free(struct http_call *c)
{
    transfer_release(&c->transfer);
    buf_release(&c->body);
    free(c);
}

void http_call_cancel(struct http_call *c)
{
    struct http_multi *m = c->multi;
    withdraw(c);
    call_free(c);
    begin_waiting(m);
}

static void call_ended(struct http_call *c, CURLcode code)
{
    struct buf why = BUF_INIT;
    struct http_call_end end = {.error = transfer_result(&c->transfer, code, &why)};
    end.status = transfer_status(&c->transfer);
    if (end.error == -E_FORBIDDEN) {
        buf_clear(&why);
        buf_addz(&why, "this worker may not connect to that address");
    }
    end.why = buf_cstr(&why);
    end.body = buf_str(&c->body);
    end.cut = c->received > c->body.n;
    withdraw(c);
    c->fn(c->ctx, &end);
    buf_release(&why);
    call_free(c);
}

/* Callbacks may begin and cancel others: each time the first message of those that are left. */
static void take_ends(struct http_multi *m)
{
    const CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(m->curl, &left)) != NULL) {
        struct http_call *c = NULL;
        CURLcode code = message->data.result;
        check(message->msg == CURLMSG_DONE);
        check(curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&c) == CURLE_OK);
        call_ended(c, code);
    }
    begin_waiting(m);
}

static void act(struct http_multi *m, curl_socket_t fd, int events)
{
    int running;
    m->in_curl = true;
    check(curl_multi_socket_action(m->curl, fd, events, &running) == CURLM_OK);
    m->in_curl = false;
    take_ends(m);
}

void http_multi_ready(struct http_multi *m, int fd, bool read, bool write)
{
    act(m, fd, (read ? CURL_CSELECT_IN : 0) | (write ? CURL_CSELECT_OUT : 0));
}

void http_multi_due(struct http_multi *m)
{
    act(m, CURL_SOCKET_TIMEOUT, 0);
}
