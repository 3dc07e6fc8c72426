/* A simulated worker: speaks the whole worker protocol (docs/protocol.md) to a real broker, but
 * runs nothing. A job that it is given is acknowledged, started and finished with success and an
 * empty log at once; each of these is durable in the broker before it answers.
 *
 * Ownership: free with simworker_stop. Threads: it has one of its own, on which the hooks are
 * called; everything else on any thread. */
#ifndef DAVIT_BENCH_SIMWORKER_H
#define DAVIT_BENCH_SIMWORKER_H

#include "proto/pb.h"

struct simworker;

struct simworker_options {
    const char *url;   /* tcp://127.0.0.1:PORT */
    const char *token; /* the worker token */
    const char *name;
    uint32_t slots;
    void (*on_assign)(void *ctx, const Pb__JobSpec *spec); /* NULL: nobody asks */
    /* FinishAck came. It says stale, too, when a heartbeat still named the job as held while the
     * broker recorded its end. NULL: nobody asks. */
    void (*on_finished)(void *ctx, const Pb__JobSpec *spec, bool stale);
    void *ctx;
};

/* Returns when the broker has welcomed it. -E_UNREACHABLE (nobody listens), -E_TIMEOUT,
 * -E_UNAUTHORIZED and the like as the broker refuses; `why` gets a line. */
int simworker_start(const struct simworker_options *options, struct simworker **ret,
                    struct buf *why);

/* 0, or why the session ended: -E_UNREACHABLE, -E_PROTOCOL. */
int simworker_error(struct simworker *w);

/* Says Bye, waits for the answer a second at most. NULL is fine. */
void simworker_stop(struct simworker *w);

#endif
