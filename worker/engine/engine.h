/* The client of a Docker Engine (or of Podman, which speaks the same) over its unix socket.
 * Blocking calls, for programs that may wait: the steps of a job, and the sweep. Threads: one at a
 * time.
 *
 * Results are 0 or: -E_UNREACHABLE, -E_TIMEOUT, there is no Engine or it hangs; -E_NOT_FOUND;
 * -E_CONFLICT; -E_INVALID, it finds the request wrong; -E_FAILED, whatever else it complains of;
 * -E_PROTOCOL, it is not understood. `why` gets a line. */
#ifndef DAVIT_ENGINE_H
#define DAVIT_ENGINE_H

#include <jansson.h>

#include "common/buf.h"
#include "worker/engine/answers.h"

/* What all that Davit makes is known by. */
#define ENGINE_LABEL_WORKER "davit.worker" /* EngineSettings.worker */
#define ENGINE_LABEL_JOB    "davit.job"    /* the name of the job's folder */

struct engine {
    const char *socket;
    unsigned version; /* of the API, 1.N */
    struct arena *arena;
};

/* Asks which version it speaks. `socket` and the arena outlive it. */
int engine_open(struct engine *e, const char *socket, struct arena *arena, struct buf *why);

/* METHOD /v1.N/PATH with a JSON body (NULL: none; taken over) and, in seconds, how long an answer
 * may take; its body into `out`, which may be NULL. */
int engine_call(const struct engine *e, const char *method, const char *path, json_t *body,
                uint32_t wait_s, struct buf *out, struct buf *why);
#define ENGINE_WAIT_S 60u

/* Images: -E_NOT_FOUND, it is not there. `auth` is a header's value or "". -E_FAILED of a pull: the
 * registry said no, or cannot be reached. */
int engine_image(const struct engine *e, const char *name, struct answer_image *ret,
                 struct buf *why);
int engine_pull(const struct engine *e, const char *name, const char *platform, const char *auth,
                struct buf *ret_status, struct buf *why);

int engine_create(const struct engine *e, const char *name, const char *platform, json_t *body,
                  const char **ret_id, struct buf *why);
int engine_start(const struct engine *e, const char *container, struct buf *why);
int engine_inspect(const struct engine *e, const char *container, struct answer_container *ret,
                   struct buf *why);
/* Until it does not run. */
int engine_wait(const struct engine *e, const char *container, uint32_t wait_s, struct buf *why);
/* What it printed last, as far as `out` has room. */
int engine_logs(const struct engine *e, const char *container, unsigned lines, struct buf *out,
                struct buf *why);
int engine_create_network(const struct engine *e, const char *name, json_t *labels,
                          const char **ret_id, struct buf *why);

/* Everything with the worker's label and, where `job` is not NULL, of that job: containers, running
 * or not, or networks. */
enum engine_kind { ENGINE_CONTAINERS, ENGINE_NETWORKS };
int engine_list(const struct engine *e, enum engine_kind kind, const char *worker, const char *job,
                struct answer_item **ret, size_t *ret_count, struct buf *why);
/* With what hangs on it: a container is killed, and its anonymous volumes go, too. Nothing there is
 * no error. */
int engine_remove(const struct engine *e, enum engine_kind kind, const char *id, struct buf *why);

#endif
