/* One simulated world: the real turn, fleet, core, scheduler and store, and around them a clock, a
 * network, a disk for logs, workers and users that are made up. A seed decides everything: the same
 * seed gives the same steps, and the hash of them is printed.
 *
 * There is one world at a time in a process (`sim`): what stands in for nng and for the log files
 * is found by the linker, not by an argument. Time is in microseconds of the world. Threads: one.
 */
#ifndef DAVIT_SIM_H
#define DAVIT_SIM_H

#include "broker/blob/logs.h"
#include "broker/turn_run.h"
#include "tests/sim/model.h"
#include "tests/sim/run.h"

#define SIM_WORKERS 5u
#define SIM_HELD    12u /* jobs in a worker's hands */
#define SIM_CLIENTS 3u
#define SIM_TOKEN   "the worker token"
#define SIM_USER    "the user token"
#define SIM_MS      UINT64_C(1000)
#define SIM_SECOND  UINT64_C(1000000)
#define SIM_NEVER   UINT64_MAX

/* ---- what a seed chooses: how often, one in so many; 0: never ---- */
struct swarm {
    uint32_t cut;          /* per message: the connection breaks */
    uint32_t half_open;    /* of those: one side does not notice */
    uint32_t slow;         /* per message: late by up to 3 s */
    uint32_t kill;         /* per broker step: SIGKILL */
    uint32_t kill_in_turn; /* per call of the disk: SIGKILL */
    uint32_t power;        /* of kills: the power goes, and with it what was not flushed */
    uint32_t eio;          /* per call of the disk */
    uint32_t full;         /* per commit, or segment made: no space */
    uint32_t segment_kib;  /* of the journal; 0: none, every round commits */
    uint32_t broker_stall; /* per step: stands still for up to 5 s */
    uint32_t clock_jump;   /* per step: the real clock goes off by up to a minute, either way */
    uint32_t crash;        /* per second and worker: process dies, its jobs run on */
    uint32_t vanish;       /* likewise: the machine dies with all it holds */
    uint32_t worker_stall; /* likewise: up to 20 s */
    uint32_t mute;         /* likewise: acknowledges nothing for a while */
    uint32_t drain;        /* likewise: by its own will */
    uint32_t disk_low;     /* likewise */
    uint32_t bye;          /* likewise: a good end, and back later */
    uint32_t stale;        /* per second: says old ends again */
    uint32_t log_busy;     /* per chunk: the log's disk is busy */
    uint32_t fail;         /* of jobs: fail */
    uint32_t shutdown;     /* of jobs: canceled unasked */
    uint32_t user_ms;      /* between what users do, on average */
    uint32_t map_kib;      /* of the store; 0: plenty */
    uint32_t audit;        /* commands between two audits */
    uint32_t pipelines;    /* that users submit */
    uint32_t groups;       /* of jobs: one in so many has a resource group */
    uint32_t manual;
    uint32_t delayed;
    uint32_t triggers;
    uint32_t environments;
    uint32_t cpus; /* jobs that ask for some, workers that say how much they have */
    uint32_t tags;
    uint32_t wait_policy;
    uint32_t long_jobs;
    uint32_t logs;
    uint32_t relaxed_ms; /* how long what is acknowledged may wait for the disk */
    uint32_t keep_s;     /* how long pipelines are kept; 0: for ever */
    uint32_t leap;       /* of jumps of the clock: by days */
    uint32_t clients;    /* that enqueue jobs */
    uint32_t lists;      /* that each enqueues */
    uint32_t pools;      /* workers and jobs: one in so many has one */
    uint32_t settings;   /* of what users do: one in so many changes settings */
    uint32_t rank;       /* jobs have priorities up to this */
    uint32_t skew;       /* percent that a worker's clock may be off */
};

/* ---- events ---- */
enum event_kind {
    EV_BROKER,      /* a round; a: which wish for it */
    EV_START,       /* the broker starts */
    EV_TO_BROKER,   /* a: pipe, bytes */
    EV_TO_WORKER,   /* a: pipe, bytes */
    EV_BROKER_DOWN, /* a: pipe; the broker learns that it is gone */
    EV_WORKER_DOWN, /* a: pipe */
    EV_WORKER,      /* a: worker; its own clock */
    EV_FAULT,       /* a: worker; fate looks at it, once a second */
    EV_LOG,         /* a: index of a log; bytes are on the disk */
    EV_USER,
    EV_TRIGGER, /* b: job, a: epoch; its child pipeline is made */
    EV_CLIENT,  /* a: client; its own clock */
};

struct event {
    uint64_t at_us;
    uint64_t order;
    enum event_kind kind;
    uint32_t a;
    uint64_t b;
    char *bytes;
    size_t n;
};

/* ---- network: one link a connection; its number is the pipe's ---- */
struct link {
    uint32_t owner;   /* a worker, or from SIM_WORKERS on a client */
    bool broker_open; /* the broker has the pipe */
    bool worker_open;
    bool to_broker_dead; /* what is sent vanishes */
    bool to_worker_dead;
    uint64_t up_us; /* when the last message arrives there: order is kept */
    uint64_t down_us;
    uint64_t heard_us; /* when something last arrived at the broker */
};

/* ---- logs ---- */
struct sim_log {
    uint64_t job_id, attempt;
    uint64_t epoch;
    uint64_t written; /* with what is not on the disk yet */
    uint64_t durable;
};

/* ---- workers ---- */
enum held_state { HELD_GONE, HELD_ACCEPTED, HELD_RUNS, HELD_ENDED, HELD_BACK };

struct held {
    enum held_state state;
    uint64_t job_id, attempt, epoch;
    uint64_t ends_us;
    uint32_t result; /* JobState */
    uint32_t reason;
    int32_t exit_code;
    uint64_t log_size; /* in the end */
    uint64_t log_sent;
    uint64_t log_acked;
    uint64_t log_wait_us;
    bool ack_owed, start_owed;
    bool finish_sent;  /* in this session */
    uint64_t back_seq; /* HELD_BACK: number of the AssignReturn */
};

struct old_key {
    uint64_t job_id, attempt, epoch;
};

struct worker {
    uint32_t index;
    uint32_t slots;
    uint32_t tags;
    uint32_t pool;
    uint32_t cpu_millis;
    bool untagged;
    uint32_t skew;    /* percent of true time */
    bool process;     /* it is there */
    uint64_t back_us; /* when it comes again */
    uint32_t pipe;    /* 0: none */
    uint64_t session;
    uint64_t worker_id; /* as the broker calls it */
    uint64_t seq_out, seq_in, ack_said, acked;
    uint64_t ack_due_us;
    uint64_t beat_due_us;
    uint64_t heard_us;
    uint64_t wake_us; /* the event that is on its way */
    uint64_t stalled_until_us;
    uint64_t mute_until_us;
    uint64_t drain_until_us;
    uint64_t disk_low_until_us;
    bool drain;   /* told by the broker */
    bool leaving; /* says Bye once it holds nothing */
    bool bye_said;
    bool said_unable;
    uint64_t unable_us; /* when it last said that it takes nothing */
    uint64_t fenced_us; /* when the broker last took something from it for want of an answer */
    uint32_t lives;
    struct held held[SIM_HELD];
    struct old_key old;
};

/* ---- users ---- */
struct request {
    bool used;
    bool waits; /* for an answer */
    bool acknowledged;
    uint64_t seed; /* of its plan */
    uint64_t id;   /* of the pipeline, once known */
    uint8_t key;   /* 0: without a key */
};

#define SIM_REQUESTS 40u

/* ---- clients ---- */
#define ASKS        8u
#define ASK_JOBS    8u
#define CLIENT_JOBS 120u

enum ask_kind { ASK_NONE, ASK_ENQUEUE, ASK_CANCEL, ASK_QUERY };

/* A request. An answered list under keys is kept for a while: it may be sent again. */
struct ask {
    enum ask_kind kind;
    uint64_t number; /* 0: not sent in this session */
    uint64_t seed;   /* of its jobs */
    uint64_t job_id; /* ASK_CANCEL */
    bool keyed, notify, again, answered;
    bool waits; /* for an answer, in this session */
    bool bad;   /* keys that were used for something else */
    uint32_t count;
    uint64_t ids[ASK_JOBS]; /* that it was answered with */
    uint64_t not_before_ms;
};

struct client_job {
    uint64_t id;
    bool watched;   /* in this session: its end will be told */
    uint64_t asked; /* the query that asked for it */
};

struct client {
    uint32_t index;
    uint32_t pipe; /* 0: none */
    uint64_t session;
    uint64_t back_us, heard_us, beat_due_us, ack_due_us, next_us;
    uint64_t stalled_until_us;
    uint64_t wake_us;
    uint64_t seq_out, seq_in;
    uint64_t last_number;
    uint32_t lives;
    uint32_t lists; /* that it has enqueued */
    struct ask asks[ASKS];
    struct client_job jobs[CLIENT_JOBS]; /* whose end it does not know */
    uint32_t job_count;
};

/* An end of a job without a pipeline, of which clients may hear. */
struct sim_end {
    uint64_t index; /* of the command */
    uint64_t job_id, attempt;
    uint8_t state;
};

/* A job that was given to a worker in this round. */
struct given {
    uint64_t job_id, worker_id;
    uint64_t index; /* of the command */
    uint64_t arrival;
    int32_t band;
    uint8_t project, pool;
    bool displacing; /* it got the slot of one that gave way */
};

#define GIVEN_MAX 64u

struct sim {
    uint64_t seed;
    uint64_t random;
    struct swarm swarm;
    bool faults; /* fate may strike */
    bool tracing;
    bool paranoid;
    uint64_t now_us;
    uint64_t steps;
    uint64_t hash;

    struct event *events; /* a heap */
    size_t event_count, event_cap;
    uint64_t event_order;

    struct link *links; /* [0] is none */
    uint32_t link_count, link_cap;

    struct sim_log *logs;
    size_t log_count, log_cap;

    struct worker workers[SIM_WORKERS];
    uint32_t worker_count;
    struct client clients[SIM_CLIENTS];
    uint32_t pools_served; /* by workers, one bit each */
    uint64_t leaps;
    struct request requests[SIM_REQUESTS];
    uint32_t submitted;

    /* The broker. */
    char *dir;
    struct store *store;
    struct bus *bus;
    struct inbox *inbox;
    struct logs *logs_door; /* not NULL: it is up */
    logs_durable_fn logs_fn;
    void *logs_ctx;
    struct fleet *fleet;
    struct turn *turn;
    bool up;
    bool dead; /* killed in the midst of a step: nothing gets out any more */
    bool listening;
    uint64_t wish_us; /* when its next round is */
    uint64_t wish;
    int64_t clock_off_ms;
    uint64_t rest_us;       /* after a failed commit it may rest until then */
    struct tx *tx;          /* the write transaction in which commands were applied */
    uint64_t idle_since_us; /* a job and a slot that match, since */
    uint64_t idle_job, idle_worker;

    struct given given[GIVEN_MAX]; /* in this round */
    uint32_t given_count;
    bool given_unsure;        /* something was undone, or somebody gave way */
    struct run_shares shares; /* by how much projects were above theirs */
    struct sim_end *ends;
    size_t end_count, end_cap;

    uint64_t stamps;
    struct model *model;
    struct model *mark;          /* what is safe */
    struct model *written;       /* what is written and may be safe; not less than `mark` */
    bool watching;               /* commands are judged */
    uint64_t store_index;        /* commands in the open transaction, or else in the store */
    uint64_t saved_index;        /* in the store */
    struct disk *disk;           /* under the journal */
    uint64_t durable_index;      /* commands that will be there after a kill */
    uint64_t acknowledged_index; /* commands of which somebody has heard */
    struct model **past; /* what was written since the last flush, one by one: relaxed only */
    size_t past_count, past_cap;
    uint64_t unflushed_us; /* since when something waits for the disk; 0: nothing does */
    bool power_gone;       /* and no start since then */
    uint64_t losses;       /* starts that had less than was acknowledged */
    uint64_t commands, replayed, refused, audits, starts, checks;
    struct buf log;   /* applied commands, packed, each after its length */
    size_t *log_ends; /* where the command of an index ends */
    size_t log_ends_cap;
};

extern struct sim *sim;

/* A rule is broken: says so and ends the process. */
NORETURN void breach_now(const char *fmt, ...) PRINTF_LIKE(1, 2);
void trace_line(const char *fmt, ...) PRINTF_LIKE(1, 2);
#define trace(...)                   \
    do {                             \
        if (sim->tracing) {          \
            trace_line(__VA_ARGS__); \
        }                            \
    } while (0)
void hash_in(const void *p, size_t n);

/* random.c */
uint64_t rnd(void);
uint64_t below(uint64_t n);
bool one_in(uint32_t n);  /* 0: never */
bool strikes(uint32_t n); /* likewise, and only while faults are on */
uint64_t between(uint64_t a, uint64_t b);
void swarm_draw(struct swarm *s);

/* world.c */
void event_add_us(uint64_t at_us, enum event_kind kind, uint32_t a, uint64_t b);
void event_add_bytes(uint64_t at_us, enum event_kind kind, uint32_t a, const void *p, size_t n,
                     const void *q, size_t m);

/* net.c: and the functions of broker/net/wire.h */
uint32_t net_connect(uint32_t owner);                  /* the new pipe; 0: nobody listens */
void net_send(uint32_t pipe, const void *p, size_t n); /* by its owner */
void net_close(uint32_t pipe);                         /* likewise */
void net_to_broker(uint32_t pipe, char *bytes, size_t n);
void net_broker_down(uint32_t pipe);
void net_broker_killed(void);

/* disk.c: and the functions of broker/journal/disk.h */
void disk_killed(bool power);
void disk_release(void);

/* logs.c: and the functions of broker/blob/logs.h */
void logs_reached(uint32_t index, uint64_t size);
void logs_killed(void);
void logs_were_lost(void); /* those of attempts that the broker has forgotten */
uint8_t log_byte(uint64_t job_id, uint64_t attempt, uint64_t offset);

/* broker.c */
void broker_start(void);
void broker_step(uint64_t wish);
void broker_kill(const char *why);
void broker_wish(uint64_t at_us);
void broker_end(void); /* for good */
uint64_t broker_real_ms(void);
void broker_written(void); /* the journal has written all commands so far */
void broker_flushed(void);
void broker_acknowledge(const char *what); /* somebody hears of all commands so far */

/* watch.c: what is looked at while the broker works, and after */
void watch_step(void);
void watch_audit(struct tx *tx);
void watch_replay(void);
void watch_end(const struct model *m, const struct model_job *j);
void watch_kept(void); /* nothing is there that is too old */
/* fair.c: who comes first */
void watch_assign(const struct model *m, const struct model_worker *w, const struct model_job *j,
                  bool displacing);
void watch_round(void);

/* worker.c */
void worker_init(struct worker *w, uint32_t index);
void worker_event(struct worker *w);
void worker_fate(struct worker *w);
void worker_message(uint32_t pipe, const char *p, size_t n);
void worker_down(uint32_t pipe);
void worker_heal(struct worker *w);
void worker_was_lost(struct worker *w); /* the broker knows less of it than it did */

/* client.c */
void client_init(uint32_t index);
void client_event(struct client *c);
void client_message(uint32_t pipe, const char *p, size_t n);
void client_down(uint32_t pipe);
void client_heal(struct client *c);
void client_restart(struct client *c); /* it has forgotten all */
bool client_is_done(const struct client *c);
void client_say_what_hangs(const struct client *c);

/* trigger.c */
void trigger_wish(void *ctx, uint64_t job_id, uint64_t epoch);
void trigger_make(uint64_t job_id, uint64_t epoch);

/* settings.c */
void settings_change(void);
void settings_open(void); /* for everybody; at the end */

/* user.c */
void user_wish(struct arena *a, Pb__PlanJob *job, uint64_t *seed); /* what jobs can ask for */
Pb__Plan *user_plan(struct arena *a, uint64_t seed, uint32_t max); /* of up to so many jobs */
uint64_t user_next(uint64_t *seed);
bool user_chance(uint64_t *seed, uint32_t n);
void user_submit(struct post *p);                    /* its answer is judged */
void user_script(struct arena *a, Pb__PlanJob *job); /* what all jobs of this world run */
/* The body of a post's command, to be filled in. */
#define POST_BODY(p, field, CASE, init)                                                    \
    (post_command(p)->body_case = PB__COMMAND__BODY_##CASE,                                \
     post_command(p)->field = arena_alloc(post_arena(p), sizeof(*post_command(p)->field)), \
     init(post_command(p)->field), post_command(p)->field)
void user_event(void);
void user_was_lost(void);
void user_finish(void); /* plays what waits for people; at the end */

#endif
