/* What the fleet keeps in memory, for the files of this folder.
 *
 * A session is a pipe: it begins nameless and gets a number and a worker by its Hello. A peer is a
 * worker that holds a lease: it outlives its session until the lease is over, and jobs without a
 * session are found through it. One peer has at most one session.
 * Threads: the turn's; `lock` guards the table of peers and their views for readers elsewhere. */
#ifndef DAVIT_NET_STATE_H
#define DAVIT_NET_STATE_H

#include <pthread.h>
#include <uthash.h>

#include "broker/net/fleet_turn.h"
#include "broker/net/wire.h"
#include "common/crypto.h"
#include "common/heap.h"
#include "common/limits.h"
#include "proto/envelope.h"

/* A message on its way to a worker: what its body holds; number and ack are put before it on
 * sending. The last one of a queue grows as long as its body is a list and what comes is of the
 * same kind. */
struct out {
    struct out *next;
    Pb__Envelope__BodyCase kind;
    uint64_t job_id; /* of a message about one job that a newer one replaces; 0: of another */
    uint64_t attempt;
    uint64_t epoch;
    size_t count; /* entries of the list */
    bool stale;   /* of FinishAck */
    struct buf content;
};

/* What the worker of a pool was promised. */
struct times {
    uint32_t heartbeat_ms;
    uint32_t suspect_ms; /* silent for longer: no new work */
    uint32_t lease_ms;   /* silent for so long: lost */
};

/* When its owner is looked at: never after the moment that counts, often before it, as what puts
 * that off says nothing. Whoever looks says when again. */
struct deadline {
    struct heap_node node; /* in fleet.deadlines; in none: nothing will be over by itself */
    uint64_t at_ms;        /* monotonic */
    struct peer *peer;     /* of one of the two */
    struct session *session;
};

/* Somebody's time is over, by the clock. */
struct silence {
    bool overdue;
    uint64_t mark; /* what the inbox had got by then */
};

struct session {
    uint32_t pipe;
    uint64_t number;       /* 0: no Hello yet */
    uint32_t version;      /* of the protocol, as the Hello offered it and we agreed */
    struct peer *peer;     /* NULL: no Hello yet, or no worker's */
    struct client *client; /* NULL: no client's */
    uint64_t close_at_ms;  /* no Hello by then, or it was refused or said Bye, or it is a client's
                              and silent; 0: lives */
    struct silence silence;
    struct deadline deadline;
    bool secured;  /* by TLS */
    bool by_token; /* it was let in by the token of that hash, and goes on while that is good */
    uint8_t token_hash[SHA256_BYTES];
    bool closing; /* what still comes is dropped */
    bool spoke;   /* in the present turn */

    uint64_t seq_in;  /* the last one processed */
    uint64_t seq_out; /* the last one sent */
    uint64_t acked;   /* of ours */
    struct out *queue;
    struct out *queue_last;
    uint32_t queued;
    uint32_t answers; /* among these: to requests of a client */
    size_t queued_bytes;

    bool beat_due; /* a heartbeat waits for its answer */
    uint64_t beat_sent_ms;
    uint64_t ack_due_ms; /* 0: the worker knows what we have */
    bool told_draining;
    bool told_leave;

    struct session *ack_prev, *ack_next;     /* list of those with ack_due_ms, in its order */
    struct session *dirty_prev, *dirty_next; /* list of those to flush */
    struct session *ended_next;              /* list of those to free */
    bool dirty;
    bool ended;
    UT_hash_handle hh;
};

struct peer {
    uint64_t worker_id;
    char *actor;                    /* "worker NAME", for commands and the log */
    struct session *session;        /* NULL: not connected */
    const Pb__WorkerRecord *record; /* in record_arena */
    struct arena record_arena;
    bool record_stale;
    struct times times; /* of its Welcome; a lease that became shorter counts from the next one */
    bool touched;       /* in fleet.touched */
    uint64_t heard_ms;  /* monotonic: when its lease was last renewed */
    uint64_t heard_real_ms;
    bool suspect;
    bool draining; /* by its own word */
    bool disk_low;
    struct fleet_worker_health health;
    bool left;              /* it said Bye: gone with its session, whatever its lease */
    uint64_t rest_until_ms; /* gets no new work before; 0: does not rest */
    uint32_t given_back;    /* how often in a row, without a job between that it started */
    struct silence silence;
    struct deadline deadline;
    bool lost; /* in this turn: in fleet.lost */
    struct peer *lost_prev, *lost_next;
    bool unsure;              /* made by the Hello of this turn: it goes if that is undone */
    struct fleet_worker view; /* under the fleet's lock */
    UT_hash_handle hh;
};

/* A program that enqueues jobs; lives and ends with its session. */
struct client {
    struct session *session;
    char *actor; /* its token's name, for commands */
    char *name;  /* for the log */
    bool admin;
    uint8_t uid[16];
    struct watch *watches;
    size_t watch_count;
    UT_hash_handle hh;
};

/* One client waits for the end of one job. */
struct watch {
    uint64_t job_id;
    struct client *client;
    struct watch *next_same;   /* of other clients, for the same job; the first is in the table */
    struct watch *prev, *next; /* of the client */
    UT_hash_handle hh;
};

struct fleet {
    struct fleet_config c;
    struct wire *wire;
    char *api_url;
    struct session *sessions; /* by pipe */
    struct peer *peers;       /* by worker_id */
    struct client *clients;   /* by uid */
    struct watch *watches;    /* by job_id */
    size_t watch_count;
    uint64_t client_sessions; /* ever */
    struct session *acks;
    struct session *dirty;
    struct session *ended;  /* freed when the next turn begins */
    struct fleet_turn turn; /* the present one */
    struct arena arena;     /* of the present message */
    struct buf head;        /* scratch, and so is the next */
    struct buf body;
    struct heap deadlines;
    uint64_t next_scan_ms; /* not before, whatever is due */
    uint64_t awake_ms;     /* when the turn last looked */
    bool capacity_changed;
    uint64_t *touched; /* workers whose readiness may be another one than was told */
    size_t touched_count;
    size_t touched_cap;
    struct peer *lost; /* go after the commit */
    pthread_mutex_t lock;
    struct fleet_stats stats; /* under the lock too */
};

/* session.c: numbers, credit, acknowledgements */
struct session *session_new(struct fleet *f, uint32_t pipe);
struct session *session_find(struct fleet *f, uint32_t pipe);
/* Closes the pipe; nothing reaches the session any more. Its peer lives on; its memory goes with
 * session_reap, so that whoever is at work on it may go on. */
void session_end(struct fleet *f, struct session *s);
void session_reap(struct fleet *f);
/* A broken rule of the protocol: logged, counted, ended. */
void session_violation(struct fleet *f, struct session *s, const char *what);
/* Queues a body. `key`: what waits already of the same kind about the same job is out of date;
 * NULL: nothing is. */
void session_send(struct fleet *f, struct session *s, Pb__Envelope *body, const Pb__JobKey *key);
/* False: the numbers break the rules. */
bool session_take_numbers(struct fleet *f, struct session *s, const Pb__Envelope *e);
void session_flush_all(struct fleet *f, uint64_t mono_ms);
uint32_t session_credit(const struct session *s); /* how many more it may be sent at once */
void session_dirty(struct fleet *f, struct session *s);

/* Of a Hello: from then on both sides speak it. False: it is none that we speak, the session is
 * refused. */
bool session_take_version(struct fleet *f, struct session *s, uint32_t version);
/* Says why not, and closes the pipe a little later. retry_after_ms 0: for good. */
void session_refuse(struct fleet *f, struct session *s, int why, const char *text,
                    uint32_t retry_after_ms);
/* For the last message to get out before the pipe goes. */
void session_close_soon(struct fleet *f, struct session *s);
/* By the token of a Hello: of which there is no row, or one whose time is over, is NULL. Nothing is
 * said by that unless the tx is good. */
const Pb__TokenRecord *session_token(struct fleet *f, struct session *s, struct str token);
/* False: the session was refused, as its token or certificate is not good any more; or the tx has
 * failed. */
bool session_may_go_on(struct fleet *f, struct session *s);

/* peer.c: leases, records, views */
struct peer *peer_find(struct fleet *f, uint64_t worker_id);
struct peer *peer_get(struct fleet *f, uint64_t worker_id); /* makes it if needed */
void peer_load(struct peer *p, struct tx *tx);              /* its record, again */
/* Those of its pool as they stand in the store, else the broker's. */
struct times peer_pool_times(const struct fleet *f, const struct peer *p, struct tx *tx);
/* Pools were set: who has other times from now on comes anew, and hears of them in its Welcome. */
void peer_settings_changed(struct fleet *f, struct tx *tx);
void peer_heard(struct fleet *f, struct peer *p);
void peer_forget(struct fleet *f, struct peer *p);
/* The scheduler is to be told anew of it: its record, or one of the things that make it ready to
 * take work, has changed. */
void peer_touch(struct fleet *f, struct peer *p);
void peer_publish(struct fleet *f, struct peer *p);
/* It is there but left an order without an answer: others come first for a while. */
void peer_rest(struct fleet *f, struct peer *p);
/* It gave back what it got, and is not to get the same again at once: it rests for 250 ms, and
 * twice as long each time until it has started a job, or ended one. */
void peer_gave_back(struct fleet *f, struct peer *p);
void peer_worked(struct peer *p);
/* Its jobs are not its own from this turn on, or are so again: it goes after the commit. */
void peer_lose(struct fleet *f, struct peer *p);
void peer_keep(struct fleet *f, struct peer *p);

/* deadline.c: whose time is over. Costs O(log n) for each that is looked at, and nothing for each
 * that is heard of in time. */
void deadlines_init(struct fleet *f);
void deadlines_release(struct fleet *f);
void peer_look(struct fleet *f, struct peer *p, uint64_t at_ms);       /* at the latest */
void session_look(struct fleet *f, struct session *s, uint64_t at_ms); /* likewise */
void deadline_clear(struct fleet *f, struct deadline *d);
uint64_t deadlines_next_ms(const struct fleet *f);
void deadlines_pass(struct fleet *f);

/* message.c */
void message_take(struct fleet *f, struct session *s, struct str bytes);

/* hello.c */
void hello_take(struct fleet *f, struct session *s, const Pb__Envelope *e);

/* certify.c */
/* Whom TLS says the session is with goes into its Hello. */
void certify_session(struct fleet *f, struct session *s, Pb__WorkerHello *hello);
/* Why the handshake of a session that never began failed, for the log. */
void certify_say_failure(struct fleet *f, const struct session *s);
bool certify_is_over(const struct fleet *f, const struct peer *p); /* the certificate's time */
void certify_take(struct fleet *f, struct session *s, const Pb__CertificateRequest *m);

/* client.c */
void client_hello_take(struct fleet *f, struct session *s, const Pb__Envelope *e);
void client_take(struct fleet *f, struct session *s, const Pb__Envelope *e);
void client_free(struct fleet *f, struct client *c);

/* watch.c: who waits for the end of which job */
bool watch_has_room(const struct fleet *f, const struct client *c, size_t count);
void watch_add(struct fleet *f, struct client *c, uint64_t job_id);
void watch_drop_all(struct fleet *f, struct client *c);
void watch_ended(struct fleet *f, const struct effect *e);

/* reconcile.c */
void reconcile(struct fleet *f, struct session *s, Pb__HeldJob *const *jobs, size_t count,
               bool new_session);
/* Every assignment of the worker, in the order of job ids, in the transaction's arena. */
size_t worker_assignments(struct tx *tx, uint64_t worker_id, const Pb__AssignmentRecord ***ret);
/* The assignment, if the key names the present one and it is this worker's. */
const Pb__AssignmentRecord *holder_check(struct tx *tx, uint64_t worker_id, const Pb__JobKey *key);

/* command.c: what the fleet tells the core */
int command_apply(struct fleet *f, const char *actor, Pb__Command *cmd, struct reply *ret_reply);
/* Every command that only names an assignment: `which` is one of ASSIGN_ACKED, JOB_STARTED,
 * JOB_RETURNED, WORKER_RECLAIMED. */
int command_job(struct fleet *f, const struct peer *p, const Pb__AssignmentRecord *a,
                Pb__Command__BodyCase which);
int command_lost(struct fleet *f, const struct peer *p, const Pb__AssignmentRecord *a,
                 bool returned_without);
int command_finished(struct fleet *f, const struct peer *p, const Pb__AssignmentRecord *a,
                     Pb__Outcome *outcome);
/* At most LIMIT_FINISHED_JOBS; all or none. */
int command_all_finished(struct fleet *f, const struct peer *p, Pb__FinishedJob **jobs,
                         size_t count);

/* effect.c */
void effect_take(struct fleet *f, struct tx *tx, const struct effect *e);

/* send.c: the bodies of messages to workers and clients */
void send_welcome(struct fleet *f, struct session *s);
void send_bye_ack(struct fleet *f, struct session *s);
void send_cancel(struct fleet *f, struct session *s, const Pb__JobKey *key, Pb__CancelKind kind);
void send_finish_ack(struct fleet *f, struct session *s, const Pb__JobKey *key, bool stale);
void send_log_ack(struct fleet *f, struct session *s, const Pb__JobKey *key, uint64_t durable);
void send_job_ended(struct fleet *f, struct session *s, Pb__ClientJob *job);
void send_drain(struct fleet *f, struct session *s, const Pb__WorkerRecord *w);
/* retry_after_ms 0: for good. */
void send_refused(struct fleet *f, struct session *s, int why, const char *text,
                  uint32_t retry_after_ms);

#endif
