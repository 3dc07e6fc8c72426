/* The nng adapter: one raw REP socket that turns what comes into items of the inbox, and sends.
 *
 * What nng 1.5.2 does not do is done above (session.h): its queue of 64 messages a pipe drops
 * silently, so nobody may have more than WIRE_CREDIT and a few unnumbered ones on their way; a
 * closed pipe may never be reported, so silence is what counts. Threads: wire_send, wire_resume and
 * wire_close_pipe on the turn's, the rest on main's. Callbacks of nng only push into the inbox. */
#ifndef DAVIT_WIRE_H
#define DAVIT_WIRE_H

#include "broker/inbox.h"
#include "common/buf.h"

struct nng_msg;

struct wire;
int wire_open(struct inbox *in, struct wire **ret);
int wire_listen(struct wire *w, const char *url, uint16_t *ret_port, struct buf *why);
/* Hears and says nothing any more; NULL is fine. The socket itself is left to the end of the
 * process: closing one in nng 1.5.2 waits forever when a pipe was just between the head and the
 * body of a message (its receive is begun on a stopped aio, which ends without a callback). */
void wire_close(struct wire *w);

/* Receives again after the inbox was full. */
void wire_resume(struct wire *w);
/* Sends head and body as one message, never blocks. -E_BUSY: try again; else it is on its way, or
 * its pipe is gone. */
int wire_send(struct wire *w, uint32_t pipe, struct str head, struct str body);
void wire_close_pipe(struct wire *w, uint32_t pipe);

struct str wire_msg_body(struct nng_msg *msg);
void wire_msg_free(struct nng_msg *msg); /* NULL is fine */

#endif
