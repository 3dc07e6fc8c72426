/* What a rollout's target has against it, before anything is submitted (pipeline_rollout_fn). */
#ifndef DAVIT_API_TARGETS_H
#define DAVIT_API_TARGETS_H

#include "broker/api/server.h"

struct targets {
    struct api *api;
    const char *project; /* NULL: none is named, and nothing is known */
};

/* `ctx` is a struct targets. Threads: a work thread. */
void targets_ask(void *ctx, const char *environment, const Pb__RolloutSpec *spec,
                 struct arena *arena, const char **ret_error, const char **ret_warning);

#endif
