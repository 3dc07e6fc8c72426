/* Another certificate in time: asked for in a session, with a new key, when two thirds of the
 * present one's time are over. Sessions stay; the next connection shows the new one. */
#ifndef DAVIT_WORKER_RENEW_H
#define DAVIT_WORKER_RENEW_H

#include "proto/pb.h"
#include "worker/identity.h"
#include "worker/session.h"

struct renewal {
    struct buf key;    /* of the request that is on its way; empty: none is */
    uint64_t tried_ms; /* monotonic, the last time */
    uint64_t pause_ms; /* until the next */
};

/* Sends a request when it is time. Open sessions only. */
void renewal_look(struct renewal *n, const struct identity *id, struct session *s);
/* The broker's answer: the new certificate is written down, and connections to come show it. */
void renewal_take(struct renewal *n, struct identity *id, struct tls *tls, const char *host,
                  const Pb__Certificate *m);
void renewal_drop(struct renewal *n); /* the session has ended, and with it what was asked */

#endif
