/* A job under davit-shim: its folder, its steps, the events between them. */
#ifndef DAVIT_SHIM_JOB_H
#define DAVIT_SHIM_JOB_H

#include "worker/shim/conf.h"
#include "worker/shim/output.h"
#include "worker/shim/tree.h"

struct job {
    const char *folder;
    struct conf conf;
    struct output output;
    struct tree tree;
    struct shim_status status;
    int ctl_fd;
    int signal_fd;        /* SIGCHLD, SIGTERM */
    int status_fd;        /* of status.new, with its blocks allocated: a full disk cannot stop it */
    uint64_t start_ticks; /* our own */
    uint64_t deadline_ms; /* of the main steps */
    bool canceled;
    bool silent; /* who canceled it says so elsewhere */
    bool killed;
    bool stopped_by_system; /* SIGTERM to the shim: the machine goes down */
    bool timed_out;
    bool script_begun;
    bool failed; /* a main step did not end with 0 */
};

void job_init(struct job *j, const char *folder); /* `folder` is canonical and outlives the job */
/* Gets all ready: from here on the worker can find and order it. */
int job_open(struct job *j);
/* Runs all steps and says how they ended. */
int job_run(struct job *j);
void job_release(struct job *j);

/* Take what came in by the fifo and by signals into the flags above. */
void job_read_orders(struct job *j);
void job_read_signals(struct job *j);

/* One step to its end, with nothing of it left; fills in all of *ret but the name. (step.c) */
void step_run(struct job *j, const struct conf_step *step, struct shim_step_status *ret);
void step_set_result(struct shim_step_status *s, const char *result, int code);

#endif
