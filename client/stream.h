/* A connection that speaks as a raw REQ socket of nng does: eight bytes of greeting each way, then
 * messages behind a 64-bit length and a request id that means nothing; over TLS where there is one.
 * Never blocks but in stream_connect. Threads: all under the owner's lock. */
#ifndef DAVIT_CLIENT_STREAM_H
#define DAVIT_CLIENT_STREAM_H

#include "common/buf.h"
#include "common/err.h"
#include "common/tls.h"

struct stream {
    int fd; /* -1: none */
    bool greeted;
    struct buf in;
    size_t taken; /* of `in` */
    struct buf out;

    SSL *ssl; /* NULL: plain. It speaks through two BIOs of memory: the socket stays ours */
    BIO *sealed_in;
    struct buf sealed_out; /* what the socket has not taken */
    char why[160];         /* why TLS failed; "": it has not */
};

void stream_init(struct stream *s);
void stream_close(struct stream *s);
bool stream_url_valid(const char *url);
bool stream_url_tls(const char *url);   /* tls://, not tcp:// */
char *stream_url_host(const char *url); /* of a valid one; heap */
/* `tls` for tls://, else NULL. Waits at most timeout_ms, or until wake_fd is readable
 * (-E_CANCELED). */
int stream_connect(struct stream *s, const char *url, struct tls *tls, int wake_fd,
                   uint64_t timeout_ms);
void stream_put(struct stream *s, struct str head, struct str content);
/* Somebody answered whom we do not trust: `why` says so. */
bool stream_distrusts(const struct stream *s);
int stream_flush(struct stream *s); /* as much as the system takes; -E_UNREACHABLE */
bool stream_unsent(const struct stream *s);
int stream_read(struct stream *s); /* what there is; -E_UNREACHABLE: it is over */
/* The next whole message, which stays until the next call of stream_read. 1, 0: none yet,
 * -E_PROTOCOL: something else speaks there. */
int stream_next(struct stream *s, struct str *ret);

#endif
