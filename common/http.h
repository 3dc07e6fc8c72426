/* The HTTP client (libcurl): blocking calls for the CLI and for the worker's helper processes, with
 * streams for bodies. http_global_init() once in main. Proxies from the environment are not used,
 * redirects followed only where a request says so. Threads: one http at a time per thread. */
#ifndef DAVIT_HTTP_H
#define DAVIT_HTTP_H

#include <stdatomic.h>

#include "common/buf.h"
#include "common/err.h"

struct http_request {
    const char *method; /* "GET" */
    const char *url;
    const char *token;           /* bearer; NULL: none */
    const char *content_type;    /* NULL: application/json when there is a body */
    const char *idempotency_key; /* NULL: none */
    struct str body;             /* sent when body_fd < 0 and method is POST or PUT */
    int body_fd;                 /* -1: none; sent from the descriptor's start, body_size bytes */
    uint64_t body_size;
    int out_fd;           /* -1: the answer goes into `out`; else a 2xx body is written here */
    uint64_t out_limit;   /* bytes; above: -E_TOO_BIG */
    uint64_t body_offset; /* of the descriptor: where the body begins */
    struct buf *etag;     /* NULL: not wanted; gets the answer's ETag without its quotes, if any */
    const char *wanted;   /* NULL, or another header of the answer that is wanted */
    struct buf *wanted_value;
    const char *resume; /* NULL, or the ETag of what out_fd holds the beginning of: the rest is
                           asked for and added, or, where it is something else now, all of it
                           written in its place */
    uint32_t connect_timeout_ms; /* 0: 5 s */
    uint32_t idle_timeout_ms;    /* no byte for so long: -E_TIMEOUT; 0: 60 s */
    uint32_t timeout_ms;         /* of all of it: -E_TIMEOUT; 0: none */
    uint32_t redirects;          /* followed, to http and https, never from https to http */
    const atomic_bool *stop;     /* true ends it within 200 ms: -E_SHUTDOWN; NULL: none */
    bool any_server; /* over https the server's certificate is not checked: for what is checked
                        otherwise, and no secrets */
    const char *unix_socket;    /* NULL: TCP; else the path of the socket to connect to */
    const char *const *headers; /* NULL, or pairs of name and value, and NULL at the end */
    /* NULL, or takes each piece of a 2xx body instead of out and out_fd; negative ends it. */
    int (*take)(void *ctx, const void *p, size_t n);
    void *take_ctx;
    bool public_only; /* -E_FORBIDDEN for hosts whose address is of this machine or a private net */
};

#define HTTP_REQUEST_INIT \
    ((struct http_request){.method = "GET", .body_fd = -1, .out_fd = -1, .out_limit = 64u << 20})

void http_global_init(void);
/* Servers at that https URL (all of scheme, host and port) must have a certificate of an authority
 * in this file, instead of the machine's list; one URL a process. Before other threads. */
void http_trust(const char *url, const char *authority_path);
/* The same for the authority of the broker's own that serves there: it is asked for the certificate
 * under that authority by CERT_BROKER_NAME, whatever it shows to others. */
void http_trust_broker(const char *url, const char *authority_path);

/* 0 when an answer came, whatever its status. -E_UNREACHABLE, -E_TIMEOUT, -E_TOO_BIG, -E_IO else;
 * `why` gets one line for people. `out` may be NULL; on failure it is as it was. */
int http_do(const struct http_request *req, int *ret_status, struct buf *out, struct buf *why);

/* Server-sent events: calls `on_event` for each until it returns false, the stream ends, or
 * *stop becomes true (looked at every 200 ms; may be NULL): 0. `last_id` is sent as Last-Event-ID
 * when not NULL; `id` is the last one the stream gave, `event` is "message" where it named none.
 * -E_UNAUTHORIZED, -E_FORBIDDEN, -E_NOT_FOUND, -E_GONE for such answers; -E_UNREACHABLE for 5xx and
 * lost connections, -E_TIMEOUT after 60 s without a byte: worth another try. */
typedef bool (*http_event_fn)(void *ctx, struct str id, struct str event, struct str data);
int http_events(const char *url, const char *token, const char *last_id, http_event_fn on_event,
                void *ctx, const volatile bool *stop, struct buf *why);

#endif
