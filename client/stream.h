/* A connection that speaks as a raw REQ socket of nng does: eight bytes of greeting each way, then
 * messages behind a 64-bit length and a request id that means nothing. Never blocks but in
 * stream_connect. Threads: reading on one, the rest under the owner's lock. */
#ifndef DAVIT_CLIENT_STREAM_H
#define DAVIT_CLIENT_STREAM_H

#include "common/buf.h"
#include "common/err.h"

struct stream {
    int fd; /* -1: none */
    bool greeted;
    struct buf in;
    size_t taken; /* of `in` */
    struct buf out;
};

void stream_init(struct stream *s);
void stream_close(struct stream *s);
bool stream_url_valid(const char *url);
/* Waits at most timeout_ms, or until wake_fd is readable (-E_CANCELED). */
int stream_connect(struct stream *s, const char *url, int wake_fd, uint64_t timeout_ms);
void stream_put(struct stream *s, struct str head, struct str content);
int stream_flush(struct stream *s); /* as much as the system takes; -E_UNREACHABLE */
bool stream_unsent(const struct stream *s);
int stream_read(struct stream *s); /* what there is; -E_UNREACHABLE: it is over */
/* The next whole message, which stays until the next call of stream_read. 1, 0: none yet,
 * -E_PROTOCOL: something else speaks there. */
int stream_next(struct stream *s, struct str *ret);

#endif
