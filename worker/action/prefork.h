/* The executor `prefork`: programs that are started before there is work, and then do one tiny job
 * after the other, told by lines of JSON. A pool is so many equal processes of one command; a job
 * names its pool and brings a text.
 *
 *   process -> worker   {"ready": true}                       once, before anything else
 *   worker -> process   {"id": 7, "job": 412, "name": "thumb 1", "input": "...",
 *                        "variables": {"NAME": "value"}}
 *   process -> worker   {"id": 7, "exit": 0, "output": "...", "text": "...", "last": false}
 *
 * on stdin and stdout; all but `id` may be left out of an answer. What it writes to stderr while it
 * has a job is that job's log. `exit` other than 0 fails the job, `text` is a line for people.
 * `last` says that it takes no more, and another one is started. When its stdin ends it is to end.
 *
 * Invariants.
 * - A process has one job at a time. A job whose time is over, or that is canceled, costs its
 *   process: it is killed with all that it started, and another one takes its place.
 * - What is no answer, or comes unasked, costs the process and fails the job ("protocol"); so does
 *   the process's own end ("died"). A job is never given to a second process by the worker.
 * - A process that does not get ready is started again with growing pauses; while none of a pool
 *   gets ready, its jobs fail with system_failure, for other workers to have.
 * - Of a worker that was killed nothing is left once its next process has started: all that
 * descends from a pool carries PREFORK_MARK=STATE in its environment.
 *
 * Jobs of one pool share its processes: what one leaves in there, the next one finds. That is what
 * it is for, and why nobody has it who did not ask for it.
 * Ownership: pools are the actions'. Threads: the loop's. */
#ifndef DAVIT_WORKER_PREFORK_H
#define DAVIT_WORKER_PREFORK_H

#include "proto/pb.h"

#define PREFORK_MARK "DAVIT_PREFORK_STATE"

struct action;
struct actions;
struct prefork;

struct prefork_config {
    char *name;    /* of the pool: [A-Za-z0-9_.-]+ */
    char *command; /* by /bin/sh */
    uint32_t processes;
};

/* NAME[:PROCESSES]=COMMAND; without a number as many as there are processors. -E_USAGE. */
int prefork_parse(const char *text, struct prefork_config *ret);
void prefork_config_release(struct prefork_config *c);

/* Starts the processes. A process that has done `recycle` jobs is replaced; 0: never. */
struct prefork *prefork_new(struct actions *as, const struct prefork_config *config,
                            uint64_t recycle);
void prefork_free(struct prefork *f); /* kills them; accepts NULL; none of its jobs is left */
/* Kills what an earlier process of this worker left. */
void prefork_sweep(const char *state_dir);

void action_prefork(struct action *a, const Pb__PreforkAction *what);
void action_prefork_end(struct action *a); /* does nothing for one that is none */

#endif
