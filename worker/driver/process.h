/* What the files of the driver `process` share.
 *
 *     STATE/drivers/process/SERVICE/      its name, as far as a folder may have it, and a digest
 *         a-8100/                         an instance: its slot and its port
 *             instance                    "SNAPSHOT ADDRESS:PORT\n", the snapshot in hex
 *             drain                       when its drain is over, ms since 1970; then it is ended
 *             ready                       "PID MS\n": that child of davit-keep is ready since then
 *             vars/NAME                   variables of type file
 *             ...                         davit-keep's own: worker/keep/keep.h
 *
 * The folders are the truth; a call keeps nothing that they do not say. Threads: the loop's. */
#ifndef DAVIT_WORKER_DRIVER_PROCESS_H
#define DAVIT_WORKER_DRIVER_PROCESS_H

#include "proto/rollout.h"
#include "worker/driver/driver.h"
#include "worker/keep/keep.h"

/* What the action and the settings say, in the call's arena. */
struct process_wish {
    const char *service_dir;
    const char *service;
    char slot; /* a, b */
    uint32_t instances;
    const char *snapshot; /* hex */
    const char *version;
    const char *address; /* a number; of IPv6 without brackets */
    uint32_t first_port; /* of the slot */
    uint32_t port_count;
    const char *health;  /* a path; NULL: tcp */
    const char *command; /* "": none is said */
    const char *cwd;
    uint64_t grace_ms;
    uint64_t drain_ms;
};

/* False: something is wrong with it, and the call has been ended for it. */
bool process_wish_read(struct driver_call *call, struct process_wish *ret);

/* An instance as its folder says, in the arena of the look. */
struct process_instance {
    uint32_t port;
    const char *folder;
    const char *snapshot; /* "": it does not say */
    const char *address;  /* with the port */
    bool alive;           /* its davit-keep */
    bool damaged;         /* of a living one the state cannot be read */
    struct keep_state state;
    uint64_t drain_until_ms; /* since 1970; 0: it is not to go */
    bool stays;              /* for the caller */
    bool ready;              /* likewise */
    uint64_t ready_since_ms; /* since 1970 */
    const char *detail;      /* why it is not ready */
};

struct process_list {
    struct process_instance *items; /* by rising port */
    size_t count;
};

/* All of the slot. -E_LIMIT: more than LIMIT_PROCESS_FOLDERS. */
int process_list_load(struct arena *a, const struct process_wish *w, struct process_list *ret);
/* The command runs, as far as davit-keep says. */
bool process_is_running(const struct process_instance *i);
/* Prepares the folder of the port, where it is not there yet, and starts a davit-keep on it. False:
 * the call has been ended. */
bool process_start(struct driver_call *call, const struct process_wish *w, uint32_t port);
/* What a dead davit-keep left running is killed: true, it is gone. At most 100 ms. */
bool process_bury(const struct process_instance *i);
void process_remove(const struct process_instance *i);
/* Begins its drain, where it has not begun; or takes it back. */
int process_drain(const struct process_instance *i, uint64_t until_ms);
void process_undrain(const struct process_instance *i);
/* Its port of this slot that no folder of the service has; 0: none. */
uint32_t process_free_port(const struct process_wish *w, const struct process_list *list);
/* Keeps since when it has been ready; sets ready and ready_since_ms. */
void process_set_ready(struct process_instance *i, bool ready);
/* What the command said last: one line, or "". */
const char *process_last_line(struct arena *a, const struct process_instance *i);

/* All instances whose davit-keep is gone get a new one, but those that were to go: after a start of
 * the machine. `dir` is the driver's folder. */
void process_revive(const char *dir);

#endif
