/* The core: every durable change of Davit, as a pure function of (store, command).
 *
 * core_apply checks everything first and may then return an error with the state bit-identical;
 * once it has begun to change it cannot fail but through the tx's sticky error. It reads no clock,
 * no random source, no file, no environment, and does not depend on hash order: the same commands
 * on an empty store give the same bytes. What shall happen outside comes back as effects, released
 * by the turn after the commit; every effect can be derived again from the store by core_recover.
 *
 * Depends on: broker/store/tx.h, proto, pure parts of common. Never logs.
 * Threads: the turn's, for applying; the query functions on any thread with a read tx. */
#ifndef DAVIT_CORE_H
#define DAVIT_CORE_H

#include "broker/store/tx.h"
#include "proto/pb.h"

#define COMMAND_VERSION 1u

/* Times in ms that the core uses; set once before the first command (they are configuration, equal
 * for every replay of a store: kept in docs/operating.md). */
#define CORE_UNACKED_MS          10000u  /* an assignment nobody acknowledged goes back */
#define CORE_TIMEOUT_GRACE_MS    480000u /* what a worker may overrun its time */
#define CORE_CANCELING_MS        90000u  /* a cancel nobody confirmed becomes canceled */
#define CORE_WAIT_WORKER_MS      600000u /* on_worker_lost: wait */
#define CORE_KEEP_FAILED_MS      (7ull * 24 * 3600 * 1000) /* a job without a pipeline, at least */
#define CORE_KEEP_CLASS_MS       3600000u                  /* what no job asks for any more */
#define CORE_WORKER_LOSS_RETRIES 2u
#define CORE_DEFAULT_TIMEOUT_MS  3600000u
#define CORE_DEFAULT_EXPIRE_MS   (30ull * 24 * 3600 * 1000)

enum effect_kind {
    EFFECT_ASSIGN,   /* send the job's spec to worker_id */
    EFFECT_CANCEL,   /* tell worker_id to end the job: cancel_kind */
    EFFECT_FINISHED, /* acknowledge the recorded end to worker_id (FinishAck) */
    EFFECT_WORKER,   /* worker_id's record changed: pause, drain */
    EFFECT_TERMINAL, /* the attempt ended: its log can be closed */
    EFFECT_TRIGGER,  /* the child pipeline of job_id, under this epoch, is to be made */
    EFFECT_SETTINGS, /* of pools or projects: the scheduler starts anew */
    EFFECT_ENDED,    /* job_id, one without a pipeline, is in the terminal `state` */
};

struct effect {
    enum effect_kind kind;
    uint64_t worker_id;
    uint64_t job_id;
    uint64_t attempt;
    uint64_t epoch;
    Pb__CancelKind cancel_kind;
    bool displaced;     /* EFFECT_CANCEL: the worker has done nothing wrong */
    Pb__JobState state; /* EFFECT_ENDED: its row may be gone already */
    Pb__Reason reason;
    int32_t exit_code;
};

/* What a command brought: the ids it made, for its reply. */
struct reply {
    uint64_t project_id;
    uint64_t pipeline_id;
    uint64_t job_id;
    uint64_t worker_id;
    uint64_t session;
    uint64_t rollout_id;
    bool duplicate;               /* the idempotency key was known: pipeline_id is the old one */
    uint64_t expired;             /* pipelines and jobs that are gone for their age */
    uint64_t deleted;             /* caches, by a user's wish */
    const struct reply_job *jobs; /* of JobsEnqueue, in its order; a post has its own copy */
    size_t job_count;
    char text[160]; /* on error: one line for people */
};

struct reply_job {
    uint64_t job_id;
    bool duplicate; /* the idempotency key was known: the old job's id */
};

/* A job came into the ready index or a worker's hands, or left them: what the scheduler is to
 * learn. READY and HELD are flags of broker/core/state.h. Neither left nor entered: it stays in its
 * worker's hands, but is being canceled and need not be displaced any more. */
struct queue_change {
    uint64_t job_id;
    uint64_t class_id;
    uint64_t project_id;
    uint64_t worker_id; /* whose hands; 0: nobody's */
    uint64_t ready_seq;
    uint64_t queued_ms;
    uint64_t held_ms; /* for how long it was in those hands, when it has left them */
    int32_t priority;
    uint8_t left;
    uint8_t entered;
    bool interruptible;
    bool first; /* of its attempts, when it came into a worker's hands */
};

struct effects {
    struct effect *items;
    size_t count;
    size_t cap;
    struct queue_change *changes; /* in their order; those of a refused command are none */
    size_t change_count;
    size_t change_cap;
};

void effects_init(struct effects *fx);
void effects_release(struct effects *fx);
void effects_clear(struct effects *fx);
void effects_truncate(struct effects *fx, size_t count); /* back to a mark */

/* Applies one command. 0, or a negative error with nothing changed and no effects added.
 * What workers say of a job that is no longer theirs under that epoch is -E_STALE_EPOCH; the fleet
 * answers it (FinishAck{stale}, Cancel{FENCED}). What they say twice is -E_CONFLICT. */
int core_apply(struct tx *tx, const Pb__Command *cmd, struct effects *fx, struct reply *reply);

/* SHA-256 of what is asked for, EnqueueJob.body_hash: the same for the same wish, whichever way it
 * came. A start after a delay is another wish than one at a time, and so it is hashed; delay_ms 0:
 * it is the job's not_before_ms that was asked for. */
void core_enqueue_hash(const char *project, const Pb__EnqueueJob *job, uint64_t delay_ms,
                       uint8_t ret[32]);

/* The next timer that is due at now_ms as a command body; false: none. Pure look-up. */
bool core_due_timer(struct tx *tx, uint64_t now_ms, Pb__TimerFired *ret);
/* When the earliest timer is due; UINT64_MAX: there is none. */
uint64_t core_next_due_ms(struct tx *tx);

/* When the next thing outlives its time, given how long pipelines are kept (0: for ever): an Expire
 * with pipelines_before_ms = now - keep_pipelines_ms then finds something to do. 0: something is
 * half deleted; UINT64_MAX: nothing ever will. Pure look-up. */
uint64_t core_next_expiry_ms(struct tx *tx, uint64_t keep_pipelines_ms);

/* Effects that a worker's (re)connection calls for: its unacknowledged assignments again, its
 * cancels again. O(jobs of the worker). */
void core_recover_worker(struct tx *tx, uint64_t worker_id, struct effects *fx);

/* After the start of a broker: lists every holder, O(live). The caller gives each a full lease. */
typedef void (*core_holder_fn)(void *ctx, const Pb__AssignmentRecord *a);
void core_recover(struct tx *tx, core_holder_fn fn, void *ctx);

/* Likewise: EFFECT_TRIGGER of every running trigger job that has no child pipeline yet. */
void core_recover_triggers(struct tx *tx, struct effects *fx);

/* The whole spec of an assignment, in tx_arena(tx); `token` is the job's token. Stored variables
 * are in it as they are stored: before it goes over the wire, vault_open_spec puts in their values.
 * 0, -E_NOT_FOUND (no assignment), -E_TOO_BIG. */
int core_job_spec(struct tx *tx, uint64_t job_id, const char *token, Pb__JobSpec **ret);

/* All variables of a job as its spec would have them now, a later one of the same name wins; of
 * trigger jobs, too. In tx_arena(tx). -E_NOT_FOUND, -E_CORRUPT. */
/* Whether the blob is an artifact that the job's needs outside of its pipeline name: of what it was
 * sent, or of an older pipeline that ended as well, since there may be a newer one by now. */
bool core_job_takes(struct tx *tx, uint64_t job_id, struct str digest);
int core_job_variables(struct tx *tx, uint64_t job_id, Pb__Variable ***ret, size_t *ret_count);

/* Checks every rule between all rows of the store: states, indexes, counters, references. Calls
 * `fn` with one line for each breach. Returns the number of breaches. */
typedef void (*core_audit_fn)(void *ctx, const char *text);
uint64_t core_audit(struct tx *tx, core_audit_fn fn, void *ctx);

#endif
