/* Following a pipeline and its child pipelines: events as they come, and the logs of the jobs with
 * the job's name before each line ("deploy/build" for one of the pipeline that `deploy` made). One
 * thread a pipeline reads its events, one more a running job its log; all lines go out whole, under
 * one lock. Reconnects when the broker goes away and comes back. */
#ifndef DAVIT_CLI_FOLLOW_H
#define DAVIT_CLI_FOLLOW_H

#include "cli/client.h"

#define EXIT_JOB_FAILED 1

/* Follows until the pipeline and those below it have ended, or nothing moves before somebody starts
 * a manual job (the status is then "manual" or, with such a child, "running"), or `tick` says no.
 * `tick` (may be NULL) is called on the caller's thread every 50 ms. ret_status gets the pipeline's
 * last status. */
struct follow_options {
    bool quiet; /* no logs, only what becomes of the jobs */
    bool (*tick)(void *ctx);
    void *ctx;
};
int follow_pipeline(struct cli *c, const struct client *cl, uint64_t pipeline_id,
                    const struct follow_options *o, char *ret_status, size_t n);

/* The exit code for the status that follow_pipeline told: 0 for success, and for a pipeline that
 * waits for somebody to start a manual job, which stderr says; else 1. */
int follow_exit_code(const struct cli *c, const char *status);

/* The same, then the table of the jobs; the exit code: 0, or 1 when the pipeline did not succeed.
 */
int follow_to_end(struct cli *c, const struct client *cl, uint64_t pipeline_id, bool quiet);

/* The log of one job to stdout, byte for byte, until it ends; waits for a job that has not begun.
 * With --json it only waits. */
int follow_log(struct cli *c, const struct client *cl, uint64_t job_id, uint64_t attempt);
/* The same of a job's newest attempts, or without a log. ret_status gets how the job ended. */
int follow_job(struct cli *c, const struct client *cl, uint64_t job_id, bool quiet,
               char *ret_status, size_t n);

/* The table of a pipeline's jobs. */
void print_pipeline(const struct cli *c, const json_t *pipeline);
/* Why jobs failed that ended without a word of their script, as far as the broker can be asked. */
void print_failures(struct cli *c, const struct client *cl, const json_t *pipeline);

#endif
