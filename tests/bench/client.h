/* An HTTP/1.1 client with one kept-alive connection and as little work of its own as can be: what
 * is measured beside it is the broker. Understands answers with Content-Length only. Threads: one
 * at a time. */
#ifndef DAVIT_BENCH_CLIENT_H
#define DAVIT_BENCH_CLIENT_H

#include "common/buf.h"
#include "common/err.h"

struct client;

/* port on 127.0.0.1; token is kept by reference. -E_UNREACHABLE. */
int client_open(uint16_t port, const char *token, struct client **ret);
void client_close(struct client *c); /* NULL is fine */

/* 0 when an answer came, whatever its status. The body replaces what is in `out`. */
int client_post(struct client *c, const char *path, struct str body, int *ret_status,
                struct buf *out);

#endif
