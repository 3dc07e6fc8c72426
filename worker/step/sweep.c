/* `davit-worker sweep STATE`: removes the containers and networks of jobs that this worker has no
 * more: their programs, or the machine, were killed at a bad moment. */
#include "common/base.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/http.h"
#include "common/os.h"
#include "worker/engine/engine.h"
#include "worker/exec/exec.h"
#include "worker/step/container.h"

struct sweep {
    struct engine engine;
    Pb__EngineSettings *settings;
    size_t removed;
};

/* The folder is there before the first container is made, and goes after the last one. */
static bool is_in_hand(const struct sweep *sweep, const char *job)
{
    char *path = os_path_join(sweep->settings->jobs_dir, job);
    bool there = job[0] != '\0' && strchr(job, '/') == NULL && os_exists(path);
    free(path);
    return there;
}

static int sweep_kind(struct sweep *sweep, enum engine_kind kind, struct buf *why)
{
    struct answer_item *items;
    size_t count;
    int r = engine_list(&sweep->engine, kind, sweep->settings->worker, NULL, &items, &count, why);
    for (size_t i = 0; r == 0 && i < count; i++) {
        if (!is_in_hand(sweep, items[i].job)) {
            r = engine_remove(&sweep->engine, kind, items[i].id, why);
            sweep->removed += r == 0;
        }
    }
    return r;
}

int sweep_main(const char *state)
{
    struct sweep sweep = {0};
    struct arena arena;
    struct buf why = BUF_INIT;
    arena_init(&arena, 0);
    http_global_init();
    int r = box_settings(state, &arena, &sweep.settings);
    if (r < 0) {
        buf_addf(&why, "%s/engine.pb: %s", state, err_text(r));
    }
    r = r < 0 ? r : engine_open(&sweep.engine, sweep.settings->socket, &arena, &why);
    r = r < 0 ? r : sweep_kind(&sweep, ENGINE_CONTAINERS, &why);
    r = r < 0 ? r : sweep_kind(&sweep, ENGINE_NETWORKS, &why);
    if (r < 0) {
        fprintf(stderr, "davit-worker: cannot remove what is left of earlier jobs: %s\n",
                buf_cstr(&why));
    } else if (sweep.removed > 0) {
        fprintf(stderr, "davit-worker: removed %zu containers and networks of earlier jobs\n",
                sweep.removed);
    }
    arena_release(&arena);
    buf_release(&why);
    return err_exit_code(r);
}
