/* A job in containers: the steps that make, use and remove them, each a program of its own under
 * the job's shim on the host. What they share is here.
 *
 *   container       pulls the images, makes the network, starts the services, makes the container
 *   pre_get_sources, script, after_script
 *                   start the container, in which davit-shim is the first process and runs the
 *                   lines, and show what it keeps in FOLDER/run; the exit code is that of the lines
 *   container_end   removes all of it
 *
 * The container sees FOLDER/run as /davit/run, the static davit-shim as /davit/shim, and the
 * working tree and FOLDER/vars under the paths that they have on the host, so that variables mean
 * the same inside and outside. Whatever stands in FOLDER/run after a start may be the work of the
 * job: links there are not followed. FOLDER/engine.pb: how to use the Engine; FOLDER/container.pb:
 * what was made; FOLDER/container.end: nothing of it is left. */
#ifndef DAVIT_STEP_CONTAINER_H
#define DAVIT_STEP_CONTAINER_H

#include "worker/engine/engine.h"
#include "worker/engine/image_name.h"
#include "worker/shim/shim.h"
#include "worker/step/step.h"

#define CONTAINER_SHIM "/davit/shim"
#define CONTAINER_RUN  "/davit/run"
#define CONTAINER_LIKE "/davit/like" /* read-only: belongs to whoever the worker is */

struct box {
    struct step *s;
    struct engine engine;
    Pb__EngineSettings *settings;
    const char *job;  /* the name of the job's folder */
    const char *name; /* of the container and the network */
};

/* container_box.c. Says what is wrong; the Engine has answered when it returns 0. */
int box_open(struct box *box, struct step *s);
int box_settings(const char *folder, struct arena *arena, Pb__EngineSettings **ret);
int box_state_write(const struct box *box, const Pb__ContainerState *state);
int box_state_read(const struct box *box, Pb__ContainerState **ret);
json_t *box_labels(const struct box *box);
/* What every container of the job has: limits, and no log of the Engine's that grows for ever. */
json_t *box_host_config(const struct box *box, const char *network);
/* {"Type": "bind", ...}, appended to a list. */
void box_add_mount(json_t *mounts, const char *source, const char *target, bool read_only);
/* A text of the spec with its variables; in the step's arena. NULL: too long, said so. */
const char *box_expand(const struct box *box, const char *text);
/* Lines for the log that quote the Engine or the job: made harmless. */
const char *box_quote(const struct box *box, struct str text);

/* container_image.c: gets an image as the policies say. An exit code, 0 when it is there. */
struct box_image {
    const char *what; /* "image", "service" */
    const char *name; /* expanded */
    const char *user;
    const char *platform;
    struct answer_image info;
};
int box_get_image(const struct box *box, const Pb__Image *wish, const char *what,
                  struct box_image *ret);
/* The words that run instead of an image's own: -E_INVALID with a message for what cannot be. */
int box_entrypoint(const struct box *box, const Pb__Image *wish, const struct answer_image *image,
                   const char ***ret, size_t *ret_count);

/* container_services.c. An exit code; appends to the state. */
int box_start_services(const struct box *box, const char *network, Pb__ContainerState *state);
/* What is to be waited for: words for davit-shim --wait, in the arena; NULL-terminated. */
const char **box_service_endpoints(const struct box *box, const Pb__ContainerState *state,
                                   size_t *ret_count);
/* Waits for those that say themselves when they are well, and says what became of them. */
void box_await_health(const struct box *box, const Pb__ContainerState *state);
void box_show_service_logs(const struct box *box, const Pb__ContainerState *state);

/* container_run.c: one start of the container with what `add_steps` puts into its shim.conf. How
 * the first step ended. -E_*: it cannot be known; said and in *ret_detail. -E_INVALID: for what the
 * job asks for. */
struct box_run {
    const char *name; /* of the step for which it runs */
    void (*add_steps)(void *ctx, struct shim_conf *conf);
    void *ctx;
    struct str script; /* NAME.sh in FOLDER/run; STR_NULL: none */
};
int box_run(struct box *box, const Pb__ContainerState *state, const struct box_run *run,
            struct shim_step_status *ret, const char **ret_detail);

#endif
