/* A server of one connection, or several after each other, on loopback: reads a request to its end,
 * gives the prepared answer byte for byte in pieces, closes. Runs in a thread of its own. */
#ifndef DAVIT_TEST_SERVER_H
#define DAVIT_TEST_SERVER_H

#include <pthread.h>

#include "common/buf.h"

struct server {
    const char *const *pieces; /* of the answer; each is one write */
    size_t piece_count;
    bool hangs;         /* keeps the connection open after the answer, until the client closes */
    bool closes_early;  /* answers after the head of the request, then closes */
    struct buf request; /* of the last connection; read it after server_stop */
    uint16_t port;
    char url[64];
    int listen_fd;
    pthread_t thread;
};

void server_start(struct server *s);
void server_stop(struct server *s);
void server_release(struct server *s);

#endif
