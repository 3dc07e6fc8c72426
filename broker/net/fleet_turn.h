/* The fleet as the turn and main drive it. One turn is
 *     fleet_begin, fleet_item..., fleet_tick, fleet_changes,   within the write transaction
 *     fleet_committed, fleet_flush                                after the commit
 * or fleet_failed instead of the last two. Nothing is sent to a worker before the commit.
 * Threads: the turn's, but for new, listen, close and free: main's, before it starts and after it
 * ended (fleet_listen also while it runs). */
#ifndef DAVIT_FLEET_TURN_H
#define DAVIT_FLEET_TURN_H

#include "broker/blob/logs.h"
#include "broker/core/core.h"
#include "broker/inbox.h"
#include "broker/net/fleet.h"
#include "broker/vault/signer.h"
#include "broker/vault/vault.h"

#define FLEET_HEARTBEAT_MS 3000u
#define FLEET_LEASE_MS     10000u
#define FLEET_HELLO_MS     10000u

/* The token of an assignment, on the heap (api/api.h has the real one). */
typedef char *(*fleet_token_fn)(struct str key, uint64_t job_id, uint64_t attempt, uint64_t epoch);

struct authority;
struct tls;
struct fleet_config {
    struct inbox *inbox;
    struct logs *logs;
    fleet_token_fn job_token;
    const struct signer *signer;       /* of id tokens; NULL only where no job asks for one */
    struct vault *vault;               /* of stored variables; NULL only where there are none */
    struct tls *tls;                   /* of the listener; NULL: plain. Borrowed, as the next one */
    const struct authority *authority; /* renews certificates; NULL where there is no TLS */
    uint32_t heartbeat_ms;             /* 0: the default above, here and below */
    uint32_t lease_ms;
    uint32_t hello_ms; /* a pipe that has not said Hello by then is closed */
};

struct fleet *fleet_new(const struct fleet_config *config);
void fleet_free(struct fleet *f);

/* Listens at "tcp://ADDRESS:PORT"; workers are told api_url. Port 0 takes any: *ret_port says
 * which. */
int fleet_listen(struct fleet *f, const char *url, const char *api_url, uint16_t *ret_port,
                 struct buf *why);
/* Ends all connections; nothing more reaches the inbox from here. */
void fleet_close(struct fleet *f);

/* Applies a command within the turn's transaction. */
typedef int (*fleet_apply_fn)(void *ctx, Pb__Command *cmd, struct reply *ret_reply);

struct fleet_turn {
    struct tx *tx;
    uint64_t now_ms; /* realtime */
    uint64_t mono_ms;
    fleet_apply_fn apply;
    void *ctx;
};

/* The broker starts: every holder of a job gets one full lease from now on. Returns when the last
 * of these ends by the monotonic clock: until then a timer of a job may not know what its holder
 * knows. 0: nobody holds a job. */
uint64_t fleet_recover(struct fleet *f, struct tx *tx, uint64_t now_ms, uint64_t mono_ms);

/* Called in every round, at least once a second: after a longer gap it was the broker that stood
 * still, and no lease may run out for that. */
void fleet_awake(struct fleet *f, uint64_t mono_ms);

/* Something to do though no item came: a lease ran out, a slot became free, an acknowledgement is
 * due. And when that will next be so, by the monotonic clock. */
bool fleet_due(const struct fleet *f, uint64_t mono_ms);
uint64_t fleet_next_due_ms(const struct fleet *f);

void fleet_begin(struct fleet *f, const struct fleet_turn *turn);
void fleet_item(struct fleet *f, struct item *item); /* does not take the item */
void fleet_tick(struct fleet *f);
/* True once for each change that may let a waiting job run. */
bool fleet_take_capacity_change(struct fleet *f);
/* Whose record, or readiness to take work, may have changed since the last call; an array in the
 * transaction's arena. To be asked in each turn, before the scheduler. */
struct fleet_change {
    uint64_t worker_id;
    const Pb__WorkerRecord *record; /* NULL: forgotten */
    bool open;                      /* may be given work */
};
size_t fleet_changes(struct fleet *f, struct fleet_change **ret);

/* `tx` is a read transaction on what was committed; NULL where there are no effects. */
void fleet_committed(struct fleet *f, struct tx *tx, const struct effects *fx);
void fleet_flush(struct fleet *f, uint64_t now_ms, uint64_t mono_ms);
/* The commit failed: sessions that spoke in this turn end; their workers come back and reconcile.
 */
void fleet_failed(struct fleet *f);

/* The inbox has room again. */
void fleet_resume(struct fleet *f);
/* Frees what an item that nobody processed holds. */
void fleet_drop_item(struct item *item);

#endif
