/* Real jobs under a real davit-shim (DAVIT_SHIM in the environment), in folders of their own. */
#ifndef DAVIT_TESTS_SHIM_FIXTURE_H
#define DAVIT_TESTS_SHIM_FIXTURE_H

#include "worker/shim/shim.h"

struct fixture {
    char *folder;
    struct shim_conf *conf;
    pid_t shim_pid;
};

#define PLENTY ((uint64_t)64 * 1024 * 1024)

int fixture_setup(void **state);
int fixture_teardown(void **state); /* fails when anything of the job is left */

/* A job with these limits; then its steps, each a bash script with stdin, cwd and environment as
 * the shim gives them. */
void job_limits(struct fixture *f, uint64_t head, uint64_t tail, uint64_t grace_ms,
                uint64_t timeout_ms);
void job_step(struct fixture *f, const char *name, const char *kind, const char *script);
void job_step_timed(struct fixture *f, const char *name, const char *kind, uint64_t timeout_ms,
                    const char *script);
void job_start(struct fixture *f);
struct shim_status job_wait(struct fixture *f);
struct shim_status job_run_script(struct fixture *f,
                                  const char *script);         /* all at once, usual limits */
char *job_log(struct fixture *f, const struct shim_status *s); /* head and tail; heap */
char *job_path(struct fixture *f, const char *name);           /* heap */
/* Waits until the file exists in the folder and holds a line; heap, without the line's end. */
char *job_wait_file(struct fixture *f, const char *name);
void wait_gone(pid_t pid); /* fails after some seconds */
bool process_alive(pid_t pid);

void assert_step(const struct shim_status *s, size_t index, const char *name, const char *result,
                 int code);
void assert_log(struct fixture *f, const struct shim_status *s, const char *expected);
void assert_log_has(struct fixture *f, const struct shim_status *s, const char *part);

#endif
