/* The fleet: sessions with workers over nng raw REP. Soft state only: who is connected, when it was
 * last heard, what is on its way. What must last is in the store (assignments, epochs), and after a
 * restart everything here is rebuilt from Hellos.
 *
 * One nng receive aio hands each message to the turn's inbox at once; all else runs on the turn's
 * thread. docs/protocol.md has the rules. */
#ifndef DAVIT_FLEET_H
#define DAVIT_FLEET_H

#include "common/base.h"

struct fleet;

/* What the API shows of a worker's session; copied under a lock. Any thread. */
struct fleet_worker_health {
    char refuses[96];         /* why it takes no new work, by its own word; "": it takes some */
    bool has_clock;           /* it has said its time: */
    int64_t clock_skew_ms;    /* so much is it ahead of ours, the way of the message included */
    uint64_t disk_free_bytes; /* 0: it has not said */
};
struct fleet_worker {
    uint64_t worker_id;
    bool online;
    bool suspect;
    uint64_t session;
    uint64_t last_heard_ms; /* realtime */
    uint32_t unacked;       /* messages to it in flight */
    uint32_t queued;        /* messages to it waiting for credit */
    struct fleet_worker_health health;
};
bool fleet_worker_state(struct fleet *f, uint64_t worker_id, struct fleet_worker *ret);
uint32_t fleet_online_count(struct fleet *f);

/* Counters since the start, for /metrics. Any thread. */
struct fleet_stats {
    uint32_t sessions;   /* now, with those that have not said Hello */
    uint32_t online;     /* workers, now */
    uint32_t clients;    /* now */
    uint64_t hellos;     /* welcomed */
    uint64_t refused;    /* wrong token or version, or not now */
    uint64_t violations; /* sessions ended for garbage or broken rules */
    uint64_t lost;       /* workers whose lease ran out */
    uint64_t messages_in;
    uint64_t bytes_in;
    uint64_t messages_out;
    uint64_t bytes_out;
};
void fleet_get_stats(struct fleet *f, struct fleet_stats *ret);

#endif
