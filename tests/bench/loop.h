/* Many TCP connections to 127.0.0.1 on one thread: epoll, one read and one write a connection and
 * round, whatever was said in between. All load generators run on it, so that none has an edge.
 *
 * A round: loop_wait() reads what came and calls the connections' `input`; the caller answers by
 * adding to conn_out(); loop_flush() writes it. Nothing is written in between.
 * Ownership: loop_free() closes what is open. Threads: one. */
#ifndef DAVIT_BENCH_LOOP_H
#define DAVIT_BENCH_LOOP_H

#include "common/buf.h"

struct loop;
struct conn;

struct conn_events {
    void (*opened)(struct conn *c, void *ctx); /* NULL: nobody asks */
    /* Takes whole messages off the front; returns how many bytes these were. */
    size_t (*input)(struct conn *c, void *ctx, const char *p, size_t n);
    /* The other side closed, or there is none. The connection is freed behind this call. */
    void (*closed)(struct conn *c, void *ctx);
};

struct loop *loop_new(void);
void loop_free(struct loop *l);

/* Waits until something came, wait_us at most; false when nothing did. */
bool loop_wait(struct loop *l, uint64_t wait_us);
void loop_flush(struct loop *l);

/* Begins to connect; `events` is kept by reference. What is added meanwhile is sent when it is
 * open.
 */
struct conn *conn_open(struct loop *l, uint16_t port, const struct conn_events *events, void *ctx);
/* Not within loop_wait(); without a call of `closed`. */
void conn_close(struct conn *c);
/* For the next flush. */
struct buf *conn_out(struct conn *c);
/* From `opened` or `input`: ends it once that has returned, with a call of `closed`. */
void conn_fail(struct conn *c);

#endif
