/* The nng adapter: listens for workers, turns what comes into items of the inbox, and sends.
 *
 * On the wire it is a REP socket over TCP, so that any raw REQ socket can speak to it:
 *     each side first   00 'S' 'P' 00, protocol (16 bits: REQ 0x30, REP 0x31), 00 00
 *     then messages     length (64 bits), then so many bytes: a request id (32 bits), and the body
 * all big-endian; request ids have the highest bit set and mean nothing here. It is made of nng's
 * streams, not of its REP socket, for what 1.5.2 does not do: that drops silently past 64 messages,
 * allocates what a peer announces before a byte of it came, and a pipe that is closed while a
 * message is half received blocks the one thread that buries pipes, for good.
 *
 * With TLS all of this goes through it; the handshake is over before the first message comes.
 *
 * A pipe is one connection and has a number that is never used again. It goes by wire_close_pipe
 * alone, which the owner also calls for ITEM_PIPE_DOWN.
 * Threads: wire_send, wire_flush, wire_resume, wire_close_pipe and wire_peer on the turn's, the
 * rest on main's. Callbacks of nng only push into the inbox. */
#ifndef DAVIT_WIRE_H
#define DAVIT_WIRE_H

#include "broker/inbox.h"
#include "common/buf.h"

struct tls;
struct tls_peer;

struct wire;
/* `tls` NULL: plain. It is only borrowed until wire_close. */
int wire_listen(struct inbox *in, const char *url, struct tls *tls, struct wire **ret,
                uint16_t *ret_port, struct buf *why);
/* Ends all pipes; nothing is pushed after it returns. NULL is fine. */
void wire_close(struct wire *w);

/* Receives again after the inbox was full. */
void wire_resume(struct wire *w);
/* Adds head and body, one message, to what wire_flush then sends in one; neither blocks. Nothing
 * happens when the pipe is gone; a peer that reads nothing for WIRE_UNSENT_MAX messages loses it.
 */
void wire_send(struct wire *w, uint32_t pipe, struct str head, struct str body);
void wire_flush(struct wire *w, uint32_t pipe);
void wire_close_pipe(struct wire *w, uint32_t pipe);

/* Whom TLS says the pipe is with, and why its handshake failed if it did. False: it is a plain one,
 * or gone. */
bool wire_peer(struct wire *w, uint32_t pipe, struct tls_peer *ret);

#define WIRE_UNSENT_MAX 256u

/* What an ITEM_MESSAGE holds. */
struct wire_msg;
struct str wire_msg_body(const struct wire_msg *msg);
void wire_msg_free(struct wire_msg *msg); /* NULL is fine */

#endif
