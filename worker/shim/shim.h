/* The contract between the worker and davit-shim: the files of one job's folder.
 *
 *   davit-shim [--stay] FOLDER
 *
 * runs the steps of FOLDER/shim.conf one after the other, keeps their output in FOLDER/spool, and
 * writes how all ended to FOLDER/status. It is one process, one thread, no network, and outlives
 * the worker: a new worker finds the folder and goes on reading. All paths in the conf are
 * absolute. A folder is run once: a second shim for it ends at once. With --stay it does not leave
 * whoever started it: as the first process of a container, say.
 *
 * FOLDER/shim.conf   written by the worker (tmp, rename) before the shim is started. Records of
 *                    NUL-terminated fields that are not empty, each record ended by an empty field;
 *                    the first field of a record is its name:
 *     limits   head_bytes tail_bytes grace_ms          kept head and tail of the output
 *     timeout  ms                                      of all main steps together
 *     files    limit                                   of open files of each step; without it the
 *                                                      shim's own
 *     mask     TEXT ...                                is hidden wherever the job prints it;
 *     mask_wrapped TEXT ...                            likewise, with blanks in between
 *     inherit                                          the shim's own environment is below that
 *                                                      of each step: a container's image has set it
 *     step     name kind timeout_ms cwd                kind: main | after | always; timeout_ms of
 *                                                      its own, 0: none
 *     quiet                                            not to be said: the exit code of the step
 *                                                      before, whose program says more
 *     arg      ...                                     the step's argv, after its `step`
 *     either   ...                                     likewise, but one argument: the first of
 *                                                      these programs that there is. None: `error`
 *                                                      with ENOENT
 *     env      NAME=VALUE ...                          the step's whole environment, likewise
 *   A step of kind `main` runs while all main steps before it ended with 0 and nobody canceled.
 *   `after` runs once the step named `script` was begun (a canceled job too, unless killed).
 *   `always` runs unless killed. Both have only their own timeout and are not ended by a cancel.
 *   The shim adds DAVIT_JOB_FOLDER to every step's environment and, to those of `after` and
 *   `always`, DAVIT_JOB_STATUS: success, failed or canceled, and DAVIT_JOB_TAIL: what of the output
 *   is in FOLDER/tail so far, "tail_bytes elided_bytes tail_start" as in `status`.
 * FOLDER/pid         "PID START_TIME\n" of the shim (os_process_start_time), fsynced before the
 *                    first step; START_TIME tells it from a later process with the same pid.
 * FOLDER/spool       frames, see below; the log's head.
 * FOLDER/tail        the last tail_bytes of output, when the head was full: a ring; its state is
 *                    in `status`.
 * FOLDER/ctl         a fifo. The worker writes one byte: 'c' cancel (SIGTERM, grace_ms, kill, then
 *                    after steps), 'e' the same without a word in the log, 'k' kill all now and run
 *                    nothing more.
 * FOLDER/errors      what the shim itself has to complain of.
 * FOLDER/status      written once, by fsync and rename, when no process of the job is left and the
 *                    spool is fsynced; its space is reserved before the first step. The same
 *                    record format as shim.conf:
 *     step     name result code duration_ms            result: exit | signal | timeout | canceled |
 *                                                      killed | skipped | error; code: exit status,
 *                                                      signal number or errno
 *     output   head_bytes tail_bytes elided_bytes tail_start
 *     leftover count                                   processes that had to be killed after a step
 *     oom      count                                   processes that the kernel killed meanwhile
 * for want of memory, in the shim's own container end When an order or the timeout comes between
 * two main steps, the first one that does not run for it carries the result, with duration 0; those
 * behind it are `skipped`. `error` is also the result of a step of which some process could not be
 * killed.
 *
 * A step ends when its main process ends. Then what still holds its output has 2 s to end too; what
 * runs after that is killed.
 *
 * Killing a step's process tree, the best the machine has (probed once, said in FOLDER/method):
 * cgroup v2 with cgroup.kill; else a PID namespace; else a sweep of all descendants of the
 * subreaper. DAVIT_SHIM_METHOD in the shim's environment (cgroup, namespace, sweep) allows one
 * only. After each step it is verified that nothing is left.
 *
 * SIGTERM to the shim means that the machine goes down: the step gets SIGTERM and the grace, its
 * result is `signal`, and nothing more is run.
 *
 * If the shim itself is killed: FOLDER/status is missing and (pid, start time) is gone. The worker
 * then kills what is left by `shim_kill_leftovers` and reports system_failure. */
#ifndef DAVIT_SHIM_H
#define DAVIT_SHIM_H

#include <sys/types.h>

#include "common/buf.h"
#include "common/err.h"
#include "common/mask.h"

/* One frame of the spool: this header (little-endian, packed), then `length` bytes. */
#define SPOOL_MAGIC 0x4c505344u /* "DSPL" */
struct spool_header {
    uint32_t magic;
    uint32_t length;
    uint64_t time_ms;
    uint32_t stream; /* 1: stdout and stderr together, 3: said by Davit itself */
    uint32_t crc;    /* of the bytes */
};

/* Reads a spool that may still grow, from any log offset on. */
struct spool_reader {
    int fd;
    uint64_t file_offset; /* of the next frame */
    uint64_t log_offset;  /* of its first byte */
};
int spool_open(struct spool_reader *r, const char *folder); /* -E_NOT_FOUND: not there yet */
void spool_close(struct spool_reader *r);
/* Appends at most max bytes to out, from log offset `from` on; 0 bytes when there is no more yet. A
 * torn frame at the end counts as not there yet. */
int spool_read(struct spool_reader *r, uint64_t from, size_t max, struct buf *out);

#define SHIM_STEPS_MAX 16u
struct shim_step_status {
    char name[32];
    char result[16];
    int code;
    uint64_t duration_ms;
};
struct shim_status {
    struct shim_step_status steps[SHIM_STEPS_MAX];
    size_t step_count;
    uint64_t head_bytes;
    uint64_t tail_bytes;
    uint64_t elided_bytes;
    uint64_t tail_start;
    uint32_t leftovers;
    uint32_t oom_kills;
};
int shim_status_read(const char *folder, struct shim_status *ret); /* -E_NOT_FOUND: still running */
/* Appends the kept tail in order, with the mark of what was elided before it. It is the rest of the
 * log behind the spool's head_bytes. */
int shim_tail_read(const char *folder, const struct shim_status *status, struct buf *out);
/* Reads DAVIT_JOB_TAIL into those three. -E_INVALID. */
int shim_tail_parse(struct str text, struct shim_status *ret);

/* Building shim.conf. Names have at most 31 bytes; no field is empty. */
struct shim_conf;
struct shim_conf *shim_conf_new(uint64_t head_bytes, uint64_t tail_bytes, uint64_t grace_ms,
                                uint64_t timeout_ms);
void shim_conf_files(struct shim_conf *c, uint64_t limit);
/* The job's output is to show no such text; what stands between NUL bytes counts as one each. */
void shim_conf_mask(struct shim_conf *c, enum mask_kind kind, struct str text);
void shim_conf_inherit(struct shim_conf *c);
void shim_conf_step(struct shim_conf *c, const char *name, const char *kind, uint64_t timeout_ms,
                    const char *cwd);
void shim_conf_quiet(struct shim_conf *c);
void shim_conf_arg(struct shim_conf *c, const char *arg);
void shim_conf_either(struct shim_conf *c, const char *const *programs, size_t count);
void shim_conf_env(struct shim_conf *c, struct str name, struct str value);
int shim_conf_write(struct shim_conf *c, const char *folder); /* frees c */

/* Starts davit-shim for a prepared folder; returns once it runs (its pid file is there). It is no
 * child of the caller. -E_FAILED: it ended at once, FOLDER/errors says why. */
int shim_start(const char *program, const char *folder, pid_t *ret_pid);
/* Is the folder's shim alive? By (pid, start time). */
bool shim_alive(const char *folder);
/* To the folder's shim, if it is alive: else false. */
bool shim_signal(const char *folder, int signal_number);
int shim_control(const char *folder, char command); /* -E_NOT_FOUND: no shim reads it */
/* Kills every process that belonged to a folder whose shim is dead; returns how many there were. It
 * knows them by the shim's cgroup, by DAVIT_JOB_FOLDER in their environment, and as descendants of
 * such. Takes until they are gone, 10 s at most. */
int shim_kill_leftovers(const char *folder);
/* The same for 100 ms at most, for a loop that must go on. False: something still dies, perhaps in
 * the kernel, where no signal reaches it; to be called again. */
bool shim_kill_leftovers_soon(const char *folder);

#endif
