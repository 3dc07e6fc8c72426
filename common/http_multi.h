/* The HTTP client for thousands of transfers at a time, on the caller's event loop (libcurl's multi
 * interface). It also connects without saying anything, to see that somebody listens.
 *
 * A call ends by its callback or by http_call_cancel, after which it is gone; no callback comes
 * from within http_call_begin. No proxies, no cookies; idle connections are used again. Names are
 * resolved by threads of libcurl, at most HTTP_MULTI_LOOKUPS at a time: the others wait.
 * Ownership: http_multi_free cancels what is left; what a request points to is copied, but for the
 * body. Threads: one. */
#ifndef DAVIT_HTTP_MULTI_H
#define DAVIT_HTTP_MULTI_H

#include "common/buf.h"
#include "common/err.h"

#define HTTP_MULTI_LOOKUPS 64u

struct sockaddr;
struct http_multi;
struct http_call;

/* The caller's loop. */
struct http_loop {
    /* *slot is the loop's own, NULL for a new descriptor; with neither wanted it is given up. */
    void (*want)(void *ctx, int fd, bool read, bool write, void **slot);
    void (*wake)(void *ctx, uint64_t after_ms); /* call http_multi_due then; UINT64_MAX: never */
    /* Whether the address may be connected to. NULL: all may. */
    bool (*admits)(void *ctx, const struct sockaddr *address);
    void *ctx;
};

struct http_multi *http_multi_new(const struct http_loop *loop);
void http_multi_free(struct http_multi *m);
void http_multi_ready(struct http_multi *m, int fd, bool read, bool write);
void http_multi_due(struct http_multi *m);

struct http_call_request {
    const char *method; /* upper case letters */
    const char *url;    /* http or https */
    struct str body;    /* of the caller, until the call's end */
    bool has_body;
    uint32_t redirects;      /* followed, never from https to http */
    struct str ca;           /* PEM of authorities; empty: the machine's */
    const char *ca_file;     /* NULL, or the same in a file */
    const char *unix_socket; /* NULL: TCP */
    bool any_server;         /* over https the certificate is not checked */
    bool connect_only;       /* nothing is sent; over https it is greeted */
    uint64_t timeout_ms;     /* of all of it; not 0 */
    size_t keep;             /* bytes of the body that are kept */
    size_t limit;            /* of the body: behind that it is not read any further */
};

struct http_call_end {
    int error;       /* 0: there was an answer, whatever its status. -E_UNREACHABLE, -E_TIMEOUT,
                        -E_FORBIDDEN (the address is not admitted), -E_PROTOCOL, -E_INVALID */
    const char *why; /* one line for people, with an error */
    int status;
    struct str body; /* what was kept; until the callback returns */
    bool cut;        /* there was more of it */
};
typedef void (*http_call_fn)(void *ctx, const struct http_call_end *end);

/* Not begun yet; headers may be added: -E_INVALID for a value that would break out of its line. */
struct http_call *http_call_new(struct http_multi *m, const struct http_call_request *request,
                                http_call_fn fn, void *ctx);
int http_call_header(struct http_call *c, const char *name, const char *value);
void http_call_begin(struct http_call *c);
void http_call_cancel(struct http_call *c); /* begun or not */

#endif
