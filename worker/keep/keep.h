/* The contract between the driver `process` and davit-keep: the files of one instance's folder.
 *
 *   davit-keep FOLDER
 *
 * runs the command of FOLDER/keep.conf by /bin/sh for as long as it is not told to stop, and starts
 * it again whenever it ends. It is one process, one thread, no network; it is started by shim_start
 * (worker/shim/shim.h), and has a session of its own: it outlives the worker, whose restart does
 * not touch it. All paths in the conf are absolute. A second one for the same folder ends at once,
 * with E_BUSY.
 *
 * FOLDER/keep.conf  written by the driver (tmp, rename), mode 0600. Records as of shim.conf:
 *     grace    ms          between SIGTERM and SIGKILL
 *     log      bytes       of FOLDER/log; then it becomes FOLDER/log.1, whose former self goes
 *     cwd      PATH
 *     command  TEXT
 *     mask, mask_wrapped   TEXT ...: is hidden in the log
 *     env      NAME=VALUE  the whole environment, one record each
 * FOLDER/lock       held while it runs
 * FOLDER/pid        "PID START_TIME\n", as of davit-shim: shim_alive(FOLDER)
 * FOLDER/method     likewise; with DAVIT_JOB_FOLDER in the environment of all that it runs, so that
 *                   shim_kill_leftovers(FOLDER) finds what a killed davit-keep has left
 * FOLDER/state      how it stands (tmp, rename): see struct keep_state. Whoever starts it anew on a
 *                   folder with a state goes on counting restarts from there.
 * FOLDER/log        what the command writes to stdout and stderr. A disk that takes no more loses
 *                   lines, never the service
 * FOLDER/errors     what davit-keep itself has to complain of
 *
 * The command stays in the foreground: when it has ended, what it left behind is killed, so that
 * its port is free, and it is started again, first after KEEP_BACKOFF_FIRST_MS, then after twice as
 * long each time up to KEEP_BACKOFF_MAX_MS; once it ran for KEEP_STEADY_MS that begins anew.
 *
 * SIGTERM to davit-keep: all processes of the command get SIGTERM, `grace` later SIGKILL, whatever
 * session they made; then davit-keep ends. SIGKILL to it kills the command too, and what that has
 * started is left to shim_kill_leftovers.
 *
 * Threads: all functions are safe. */
#ifndef DAVIT_KEEP_H
#define DAVIT_KEEP_H

#include <sys/types.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mask.h"

#define KEEP_BACKOFF_FIRST_MS 200u
#define KEEP_BACKOFF_MAX_MS   10000u
#define KEEP_STEADY_MS        10000u
/* Begins the lines of the log that are its own. */
#define KEEP_SAYS "davit-keep: "

enum keep_what {
    KEEP_RUNNING,  /* the command runs */
    KEEP_WAITING,  /* it has ended and is started again at some time */
    KEEP_STOPPING, /* it has been told to end */
    KEEP_STOPPED,  /* all of it is gone */
};

enum keep_end {
    KEEP_END_NONE,   /* it has not ended yet */
    KEEP_END_EXIT,   /* code: its exit code */
    KEEP_END_SIGNAL, /* code: the signal's number */
    KEEP_END_ERROR,  /* it could not be run; code: an errno */
};

struct keep_state {
    enum keep_what what;
    pid_t child; /* the command's shell; 0: none */
    uint64_t restarts;
    enum keep_end end; /* how it ended last */
    int code;
    uint64_t since_ms; /* since 1970: what is so since then */
};

/* -E_NOT_FOUND: it has written none yet; -E_CORRUPT: not as it writes them. */
int keep_state_read(const char *folder, struct keep_state *ret);
int keep_state_write(const char *folder, const struct keep_state *s);

/* Building keep.conf. No text is empty; in the order of the list above, env last. */
struct keep_draft;
struct keep_draft *keep_draft_new(uint64_t grace_ms, uint64_t log_bytes, const char *cwd,
                                  struct str command);
void keep_draft_mask(struct keep_draft *d, enum mask_kind kind, struct str text);
void keep_draft_env(struct keep_draft *d, struct str name, struct str value);
int keep_draft_write(struct keep_draft *d, const char *folder); /* frees d */
void keep_draft_free(struct keep_draft *d);

#endif
