/* OpenSSL beneath nng's TLS streams (tls+tcp://), in place of the engine that nng brings along:
 * that one speaks TLS 1.2 only and does not say whom a connection is with.
 *
 * A stream's handshake is made by its first receive or send, after it was dialed or accepted. A
 * handshake that fails ends in errors of those; tls_engine_peer then says why. A server sees a
 * client's certificate only in its last step: a client may take itself for connected before it is
 * refused, so nothing is decided before the other side has said something.
 * Threads: tls_engine_start on main's before others use nng; the rest is safe. */
#ifndef DAVIT_TLS_ENGINE_H
#define DAVIT_TLS_ENGINE_H

#include <nng/nng.h>
#include <nng/supplemental/tls/tls.h>

#include "common/tls.h"

/* Once a process; later calls do nothing. -E_UNSUPPORTED: this nng has no TLS. */
int tls_engine_start(struct buf *why);
/* For NNG_OPT_TLS_CONFIG of a stream dialer or listener; nng_tls_config_free. It holds `t`: what
 * tls_replace puts there is used by the next handshake. -E_INTERNAL: out of memory in nng. */
int tls_engine_config(struct tls *t, nng_tls_config **ret);
/* False: the stream is none of ours. */
bool tls_engine_peer(nng_stream *stream, struct tls_peer *ret);

#endif
