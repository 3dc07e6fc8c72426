/* One libcurl transfer with our options, driven to its end: private to the files http*.c. */
#ifndef DAVIT_HTTP_TRANSFER_H
#define DAVIT_HTTP_TRANSFER_H

#include <curl/curl.h>
#include <stdatomic.h>

#include "common/buf.h"
#include "common/err.h"

struct transfer {
    CURL *easy;
    struct curl_slist *headers;
    struct curl_slist *connect_to; /* NULL: as the URL says */
    uint64_t idle_ms;              /* no byte for so long ends it; 0: never */
    uint64_t last_ms;              /* monotonic, of the last byte either way */
    uint64_t end_ms;               /* monotonic; 0: no end */
    const volatile bool *stop;     /* NULL: none; a good end */
    const atomic_bool *cancel;     /* NULL: none; -E_SHUTDOWN */
    int failed;                    /* set by a callback of ours that ends the transfer: -E_* */
    bool finished;                 /* set by a callback that has seen enough; not a failure */
    char error[CURL_ERROR_SIZE];
};

/* Call transfer_release in any case. */
int transfer_init(struct transfer *t, const char *url, const char *token);
void transfer_release(struct transfer *t);
/* -E_INVALID when the value would break out of its line. */
int transfer_header(struct transfer *t, const char *name, const char *value);
void transfer_touch(struct transfer *t); /* a byte was seen */
/* 0 when an answer came to its end, was finished or stopped. */
int transfer_run(struct transfer *t, struct buf *why);
/* What libcurl's code means, with what callbacks of ours have set; `why` gets one line. */
int transfer_result(struct transfer *t, CURLcode code, struct buf *why);
int transfer_status(const struct transfer *t);
/* Follows so many redirects. */
void transfer_redirects(struct transfer *t, const char *url, uint32_t count);
/* The server's certificate is not checked. */
void transfer_any_server(struct transfer *t);
/* Refuses to connect to what is no public address (address.h). */
void transfer_public_only(struct transfer *t);

#endif
