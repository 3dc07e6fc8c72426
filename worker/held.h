/* One job in the worker's hands, from its Assign to the broker's FinishAck.
 *
 *   WAITING --start--> RUNNING --shim ended--> ENDED --FinishAck--> gone
 *      |                  |                      ^
 *      |--give back--> RETURNING --acked--> gone |
 *      '------------------'----cannot, lost------'
 *   any --fenced--> FENCED --nothing runs--> gone
 *
 * The phase can be told from the job's folder (jobdir.h): spec.pb, pid, outcome.pb. What the broker
 * knows of it cannot, and is told again in every session until it is acknowledged there.
 *
 * An action (worker/action) has no folder, no slot and no shim; it is RUNNING from the beginning.
 * While it is, nothing is to be done for it here, so it stands in a list of its own, `quiet`. What
 * is too short to be told of is not: its AssignAck and JobStarted go out at the agent's next tick,
 * and its end stands for both.
 * Ownership: the agent's list. Functions marked "may free" end the object. Threads: the loop's. */
#ifndef DAVIT_WORKER_HELD_H
#define DAVIT_WORKER_HELD_H

#include <uthash.h>

#include "worker/exec/exec.h"
#include "worker/jobdir.h"
#include "worker/logship.h"
#include "worker/loop.h"

struct action;
struct agent;

enum held_phase { HELD_WAITING, HELD_RUNNING, HELD_ENDED, HELD_RETURNING, HELD_FENCED };
enum held_cancel { HELD_CANCEL_NONE, HELD_CANCEL_GRACEFUL, HELD_CANCEL_FORCE };

/* One thing that the broker must hear: the number of the message that says it in this session, and
 * whether the broker has processed it, in this session or an earlier one. */
struct held_news {
    uint64_t seq;
    bool known;
};

struct held {
    struct agent *agent;
    struct held *prev, *next;
    struct job_key key;
    UT_hash_handle hh; /* of an action, in agent.actions_by_job */
    bool is_action;
    bool quiet;            /* it stands in that list */
    struct action *action; /* while it runs */
    char *dir;             /* NULL: an action */
    struct arena arena;    /* of spec and outcome */
    Pb__JobSpec *spec;
    Pb__Outcome *outcome; /* HELD_ENDED */
    uint32_t slot;
    const struct executor *executor; /* NULL: this worker has no such one */
    enum held_phase phase;
    bool ready;                   /* HELD_WAITING: agent_start_soon */
    bool ran;                     /* a shim was started */
    enum held_cancel cancel;      /* wanted */
    enum held_cancel cancel_told; /* to the shim */
    uint64_t clear_until_ms;      /* what a dead shim left is killed until then; 0: not begun */

    struct held_news accepted;
    struct held_news started;
    struct held_news returned;
    bool finish_sent; /* in this session */

    struct logship log;
    struct spool_reader spool;
    bool spool_open;
    bool fresh_output; /* something may be there to read */
    bool unreadable;   /* said so */

    struct loop_watch *folder_watch;
    struct loop_watch *process_watch;
};

/* A new job, durable on disk; in HELD_WAITING, added to the agent. */
int held_accept(struct agent *a, const Pb__JobSpec *spec, struct held **ret);
/* A job's folder found at start. One that is no job any more is removed. */
void held_adopt(struct agent *a, const char *folder_name);
void held_free(struct held *h); /* the object alone; the job runs on */

/* held_action.c: the same for an action, which begins at once. */
void held_accept_action(struct agent *a, const Pb__JobSpec *spec);
void held_cancel_action(struct held *h);
void held_return_action(struct held *h); /* RUNNING only: somebody else begins it anew */
bool held_wants_action(const Pb__JobSpec *spec);
/* Says of those that run what was not said yet. */
void held_tell_quiet(struct agent *a);

/* For held_action.c. */
struct held *held_new(struct agent *a, struct job_key key, bool is_action);
void held_listed(struct held *h, bool fresh);           /* the agent has it from now on */
bool held_lacks(const struct held *h, struct buf *why); /* what the broker could not give it */
char *held_text(struct arena *arena, const char *text); /* bounded, good UTF-8 */

void held_start(struct held *h);
void held_ready(struct held *h); /* starts it in one of the loop's next rounds */
void held_cancel(struct held *h, enum held_cancel how);
void held_give_back(struct held *h); /* HELD_WAITING only */
void held_fence(struct held *h);     /* may free */
void held_forget(struct held *h);    /* frees, with its folder */
void held_look(struct held *h);      /* has its process ended? may free */
void held_log_acked(struct held *h, uint64_t durable);

/* held_tell.c: what the broker must hear of it. */
void held_tell_end(struct held *h);
void held_tell(struct held *h); /* what it has not been told in this session and does not know */
void held_session_opened(struct held *h);
void held_session_closed(struct held *h);
void held_acked(struct held *h); /* the broker's acknowledgement moved; may free */
/* One step of shipping the log, and the end after its last. False: nothing to do now. */
bool held_ship(struct held *h);

bool held_is_listed(const struct held *h);
void held_to_wire(const struct held *h, struct arena *arena, Pb__HeldJob *ret);

#endif
