/* One connection to the broker: a raw REQ socket of nng, opened for one session and closed with it.
 * nng's threads hand events to a queue and make link_fd readable; the worker's loop takes them.
 *
 * What nng 1.5 does not do is done here: it connects once (its own redial has no working back-off
 * and delivers old messages on a new connection), takes messages off the socket at once, sends one
 * after the other. LINK_DOWN is a hint that comes early; silence is the caller's to notice. It may
 * come before messages that arrived earlier.
 * Threads: the functions belong to the loop's thread. */
#ifndef DAVIT_WORKER_LINK_H
#define DAVIT_WORKER_LINK_H

#include "common/buf.h"
#include "common/err.h"

enum link_event_kind {
    LINK_UP,      /* connected */
    LINK_FAILED,  /* could not connect: text */
    LINK_DOWN,    /* the connection is gone, or the other side floods it: text */
    LINK_MESSAGE, /* bytes */
    LINK_ROOM,    /* everything that was to be sent has been handed to the system */
};

struct link;
struct nng_msg;
struct link_event {
    enum link_event_kind kind;
    const char *text;    /* static */
    struct nng_msg *msg; /* behind `bytes` */
    struct str bytes;
};

bool link_url_valid(const char *url); /* tcp://HOST:PORT */
int link_open(const char *url, struct link **ret);
void link_close(struct link *l); /* what is not sent is lost; accepts NULL */
int link_fd(const struct link *l);
bool link_next(struct link *l, struct link_event *ret); /* false: none */
void link_event_release(struct link_event *ev);
void link_send(struct link *l, struct str bytes); /* a copy; in order */
size_t link_unsent(struct link *l);               /* messages */

#endif
