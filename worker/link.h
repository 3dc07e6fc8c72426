/* One connection to the broker, for one session: it is opened, used and closed, never mended. nng's
 * threads hand events to a queue and make link_fd readable; the worker's loop takes them in order.
 *
 * It speaks what a raw REQ socket of nng speaks to a REP socket over TCP, on an nng stream:
 *   each side first   00 'S' 'P' 00, protocol (16 bits: REQ 0x30, REP 0x31), 00 00
 *   then messages     length (64 bits), then so many bytes: the request id (32 bits), and the body
 * all big-endian, and through TLS where the URL says so. The socket of nng 1.5 itself would not do:
 * it redials without a back-off, delivers old messages on a new connection, and nng_close waits for
 * ever when a message is half received at that moment (its receive is started again on an aio that
 * was stopped, and nobody finishes the protocol's). Here the worst of moments costs nothing.
 * Threads: the functions belong to the loop's thread. */
#ifndef DAVIT_WORKER_LINK_H
#define DAVIT_WORKER_LINK_H

#include "common/buf.h"
#include "common/err.h"

enum link_event_kind {
    LINK_UP,      /* connected to something that speaks as a REP socket does */
    LINK_DOWN,    /* not, or no more: text. Nothing comes after it */
    LINK_MESSAGE, /* bytes */
    LINK_ROOM,    /* everything that was to be sent has been handed to the system */
};

struct link;
struct link_event {
    enum link_event_kind kind;
    const char *text; /* the link's */
    struct str bytes; /* heap */
};

struct tls;
bool link_url_valid(const char *url); /* tcp://HOST:PORT, tls://HOST:PORT */
bool link_url_tls(const char *url);   /* the latter */
char *link_url_host(const char *url); /* of a valid one; heap */
/* `tls` for a URL of tls://, borrowed until link_close; else NULL. */
int link_open(const char *url, struct tls *tls, struct link **ret);
void link_close(struct link *l); /* what is not sent is lost; accepts NULL */
int link_fd(const struct link *l);
bool link_next(struct link *l, struct link_event *ret); /* false: none */
void link_event_release(struct link_event *ev);
void link_send(struct link *l, struct str bytes); /* a copy; in order; after LINK_UP */
size_t link_unsent(struct link *l);               /* messages */

#endif
