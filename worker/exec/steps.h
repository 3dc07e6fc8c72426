/* A job's steps in shim.conf, which are the same for all executors but for how lines of the user's
 * are run: a `struct steps_way` says how. */
#ifndef DAVIT_EXEC_STEPS_H
#define DAVIT_EXEC_STEPS_H

#include "common/expand.h"
#include "common/limits.h"
#include "worker/exec/exec.h"

/* How much of a log is kept: its head, and its tail. */
#define STEPS_LOG_TAIL_BYTES (4ull * MIB)
#define STEPS_LOG_MARK_BYTES (4ull * KIB) /* of what was left out */
#define STEPS_LOG_HEAD_BYTES (LIMIT_LOG_BYTES - STEPS_LOG_TAIL_BYTES - STEPS_LOG_MARK_BYTES)

/* What one job's preparation works on. */
struct preparation {
    const struct exec_context *cx;
    const Pb__JobSpec *spec;
    const struct steps_way *way;
    char *project_dir;
    struct arena arena;
    struct vars vars; /* final */
    struct shim_conf *conf;
    struct buf *why;
};

/* Lines that a user wrote. */
struct script_step {
    const char *name; /* "script" */
    const char *kind; /* as in shim.h */
    const char *cwd;
    uint64_t timeout_ms; /* 0: none of its own */
    const ProtobufCBinaryData *lines;
    size_t count;
};

struct steps_way {
    /* The lines cannot reach the host. Then nothing that runs there may take orders from the job:
     * its variables are not in the environment of the steps that davit-worker itself runs. */
    bool isolated;
    void (*add_first)(struct preparation *p); /* NULL: nothing */
    int (*add_script)(struct preparation *p, const struct script_step *s);
    void (*add_behind_scripts)(struct preparation *p); /* NULL: nothing */
};

/* Makes the working folder, the variables, shim.conf and prepared.pb. */
int steps_prepare(const struct exec_context *cx, const Pb__JobSpec *spec,
                  const struct steps_way *way, struct buf *why);
/* A step that davit-worker itself runs. */
void steps_add_own(struct preparation *p, const char *name, const char *kind, uint64_t timeout_ms);
/* Writes FOLDER/NAME.sh. *ret_path is heap and set in any case. */
int steps_write_script(struct preparation *p, const struct script_step *s, bool bash,
                       char **ret_path);

/* Of any executor whose jobs run under davit-shim. */
int steps_start(const struct exec_context *cx, pid_t *ret_pid);
int steps_cancel(const struct exec_context *cx, bool force);
bool steps_alive(const struct exec_context *cx);
bool steps_cleanup(const struct exec_context *cx);

/* host.c: of those whose scripts are run by the host's programs. */
struct host_shell {
    const char *path;
    bool bash;
};
const struct host_shell *host_shell(void); /* NULL: there is none */
int steps_refuse_containers(const Pb__JobSpec *spec, const char *executor, struct buf *why);

#endif
