/* The worker process: its state folder, its session with the broker, the jobs in its hands, and
 * what ends it. One struct, owned by main; everything below it hangs on it.
 *
 * Invariant: every folder under STATE/jobs is one `struct held` of `jobs` and the other way round,
 * but for actions, which have none.
 * Threads: the loop's. */
#ifndef DAVIT_WORKER_AGENT_H
#define DAVIT_WORKER_AGENT_H

#include "worker/action/action.h"
#include "worker/config.h"
#include "worker/health.h"
#include "worker/held.h"
#include "worker/loop.h"
#include "worker/renew.h"
#include "worker/session.h"
#include "worker/uid.h"

struct agent {
    const struct worker_config *config;
    struct loop *loop;
    struct session session;
    struct health health;
    struct held *jobs;
    struct held *quiet; /* actions that run: held.h */
    struct held *actions_by_job;
    struct actions *actions; /* NULL: no such executor */
    char **executors;        /* then: with action/DRIVER; in the arena */
    size_t executor_count;
    char *state_dir;

    struct tls *tls; /* NULL: the broker speaks none */
    char *tls_host;
    struct renewal renewal;

    int lock_fd;
    uint8_t uid[UID_BYTES];
    char *host;
    uint32_t cpu_millis; /* what its jobs may take together */
    uint64_t memory_bytes;
    uint64_t disk_bytes;
    char *jobs_dir;
    char *builds_dir;
    char *cache_dir;
    char *shim_program;
    char *step_program;
    char *static_shim;          /* davit-shim for containers */
    uint64_t open_files;        /* that were allowed before it took more; 0: it took none */
    char *tags_text;            /* "linux, gcc" */
    Pb__EngineSettings *engine; /* in the arena; NULL: no docker executor */
    struct sandbox_settings sandbox;
    struct arena arena; /* of what stays as it is */

    bool leaving;   /* SIGTERM: ends when no job is left */
    bool drained;   /* the broker wants no new work taken */
    bool sent_away; /* and this process to end when no job is left */
    bool was_taking_work;
    bool list_wanted;      /* the next heartbeat lists all jobs, however many */
    uint64_t list_sent_ms; /* when one did last */
    int exit_code;
    struct buf chunk; /* of log, for one message */
    struct loop_timer pump_timer;
    struct loop_timer start_timer;
    struct loop_timer tick_timer;
    struct loop_timer sweep_timer;
};

/* Takes the state folder and the jobs in it. `why` gets a line on failure. */
int agent_init(struct agent *a, const struct worker_config *config, struct buf *why);
int agent_run(struct agent *a);        /* returns the exit code */
void agent_send_away(struct agent *a); /* the broker's word */
void agent_release(struct agent *a);   /* accepts a half-made one; jobs run on */

/* For held.c and inbox.c. */
struct held *agent_find(const struct agent *a, struct job_key key);
struct held *agent_find_action(const struct agent *a, uint64_t job_id); /* whatever its epoch */
/* NULL: yes; else why not, for people. */
const char *agent_refuses_work(const struct agent *a);
size_t agent_slots_taken(const struct agent *a);
size_t agent_actions_taken(const struct agent *a);
void agent_beat(struct agent *a); /* with all jobs in it */
uint32_t agent_free_slot(const struct agent *a);
void agent_pump(struct agent *a); /* ships what there is to ship */
void agent_pump_soon(struct agent *a);
void agent_start_soon(struct agent *a); /* the jobs that are `ready` */
void agent_job_ended(struct agent *a, bool machine_failed);
void agent_job_gone(struct agent *a); /* maybe it was the last one */

struct loop *agent_loop_new(struct agent *a); /* with the session on it; NULL: cannot */

/* inbox.c: what the broker says. */
void agent_take_message(struct agent *a, const Pb__Envelope *e);

#endif
