/* Whole jobs by the shell executor, without a worker: DAVIT_SHIM and DAVIT_STEP name the programs.
 */
#ifndef DAVIT_TESTS_EXEC_FIXTURE_H
#define DAVIT_TESTS_EXEC_FIXTURE_H

#include "worker/exec/exec.h"

struct fixture {
    char *root; /* builds/, job/, and what a test puts there */
    struct exec_context cx;
    struct arena arena;
    Pb__JobSpec spec;
    Pb__Source source;
    struct shim_status status;
    Pb__Outcome outcome;
    char *log;
    char *why; /* of a refused prepare */
};

int fixture_setup(void **state);
int fixture_teardown(void **state);

char *fixture_path(struct fixture *f, const char *name); /* below root, in the arena */
void fixture_new_job(struct fixture *f);                 /* the next job of the same slot */
void spec_script(struct fixture *f, const char *const *lines, size_t count);
void spec_after_script(struct fixture *f, const char *line);
void spec_variable(struct fixture *f, const char *name, const char *value);
Pb__Variable *spec_variable_bytes(struct fixture *f, const char *name, struct str value);
#define SCRIPT(f, ...)                                   \
    spec_script((f), (const char *const[]){__VA_ARGS__}, \
                sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

int run_prepare(struct fixture *f);
void run_start(struct fixture *f);
void run_finish(struct fixture *f); /* waits; outcome and log */
void run_job(struct fixture *f);    /* all of it */

/* A command of the test itself, run by sh in root; its output, without the last line's end. */
char *run_command(struct fixture *f, const char *command);

void assert_outcome(struct fixture *f, Pb__JobState result, Pb__Reason reason, int exit_code);
void assert_in_log(struct fixture *f, const char *part);
void assert_not_in_log(struct fixture *f, const char *part);
void wait_for_file(const char *path);

#endif
