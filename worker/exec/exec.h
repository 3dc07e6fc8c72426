/* An executor turns a job's spec into something that runs under davit-shim, as a small table of
 * functions. The job's folder is the state: everything can be found again by a new worker process.
 * Threads: the worker's event loop; no call may block longer than it takes to write small files. */
#ifndef DAVIT_EXEC_H
#define DAVIT_EXEC_H

#include "common/diag.h"
#include "proto/pb.h"
#include "worker/shim/shim.h"

/* How the sandbox executor is to make its sandboxes. */
struct sandbox_settings {
    const char *state; /* the worker's folder, which no job sees: keys, other jobs, their trees */
    const char *hidden[2]; /* files of the worker's, of which no job sees the content; NULL: none */
    bool network;          /* the host's, else none */
    char **read;           /* paths of the host that jobs see too */
    size_t n_read;
    char **write;
    size_t n_write;
};

/* What the executor needs to know of its surroundings. */
struct exec_context {
    const char *worker_name;
    const char *worker_version;
    uint64_t worker_id;
    const char *tags;       /* "linux, gcc" */
    const char *builds_dir; /* working trees: builds/SLOT/PROJECT */
    const char *cache_dir;
    uint64_t cache_bytes; /* that the folder may hold; 0: LIMIT_WORKER_CACHE_BYTES */
    const char *job_dir;  /* this job's folder, holding spec.pb */
    const char *api_url;
    const char *ca_file; /* whom to trust there; NULL: whom the machine does */
    const char *shim_program;
    const char *step_program; /* davit-worker: runs `step NAME FOLDER` */
    uint32_t slot;
    uint64_t cancel_grace_ms;
    uint64_t open_files;              /* that a job may have; 0: as many as the worker */
    const Pb__EngineSettings *engine; /* NULL: no Docker Engine */
    const struct sandbox_settings *sandbox;
    bool local_git; /* sources may be repositories of this machine (file://) */
};

struct executor {
    const char *name; /* "shell" */
    /* Can this machine use it? `why` says what is missing. */
    bool (*usable)(const struct exec_context *cx, struct buf *why);
    /* Refuses what it cannot do (an image, for the shell): -E_UNSUPPORTED with a line in `why`.
     * Writes scripts and shim.conf into the job's folder. */
    int (*prepare)(const struct exec_context *cx, const Pb__JobSpec *spec, struct buf *why);
    int (*start)(const struct exec_context *cx, pid_t *ret_pid);
    int (*cancel)(const struct exec_context *cx, bool force);
    bool (*alive)(const struct exec_context *cx);
    /* After the status was read, or the shim died: nothing of the job is left afterwards. False:
     * something still dies; to be called again. */
    bool (*cleanup)(const struct exec_context *cx);
};

const struct executor *executor_by_name(const char *name);
void executor_names(struct buf *out); /* appends all, with commas */
extern const struct executor executor_shell;
extern const struct executor executor_docker;
extern const struct executor executor_sandbox;

/* The outcome of a job whose shim has ended, from its status file: which reason, which exit code.
 */
void exec_outcome(const struct exec_context *cx, const Pb__JobSpec *spec,
                  const struct shim_status *status, struct arena *arena, Pb__Outcome *ret);

/* `davit-worker step NAME FOLDER`: what runs under the shim before and after the script. Exit codes
 * below are read by exec_outcome. */
#define STEP_EXIT_SOURCE   101 /* source_failure */
#define STEP_EXIT_ARTIFACT 102 /* artifact_missing, artifact_failure */
#define STEP_EXIT_SYSTEM   103 /* system_failure */
#define STEP_EXIT_RESULT   104 /* script_failure: what the job promises cannot be made of it */
#define STEP_EXIT_IMAGE    105 /* image_pull_failure */
#define STEP_EXIT_CONFIG   106 /* config_error: what the job asks for cannot be */
int step_main(const char *name, const char *folder);
/* `davit-worker sweep STATE`: of jobs that are gone. */
int sweep_main(const char *state);

#endif
