/* Removing what was made for jobs in containers: of one job, and of those that are gone. */
#include "common/base.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/os.h"
#include "worker/exec/exec.h"
#include "worker/step/container.h"

#define OWN_WAIT_S (10u * 60)

static int remove_items(const struct engine *e, enum engine_kind kind,
                        const struct answer_item *items, size_t count, struct buf *why)
{
    int r = 0;
    for (size_t i = 0; i < count; i++) {
        int removed = engine_remove(e, kind, items[i].id, why);
        r = removed < 0 ? removed : r;
    }
    return r;
}

/* Containers first: a network goes when nobody is in it. */
static int remove_all(const struct box *box, struct buf *why)
{
    static const enum engine_kind kinds[] = {ENGINE_CONTAINERS, ENGINE_NETWORKS};
    struct answer_item *items;
    size_t count;
    int r = 0;
    for (size_t i = 0; r == 0 && i < ARRAY_LEN(kinds); i++) {
        r = engine_list(&box->engine, kinds[i], box->settings->worker, box->job, &items, &count,
                        why);
        r = r < 0 ? r : remove_items(&box->engine, kinds[i], items, count, why);
    }
    return r;
}

static void add_dir(const struct box *box, const char *name, json_t *mounts, json_t *words)
{
    struct arena *arena = &box->s->arena;
    const char *path = arena_printf(arena, "%s/%s", box->s->folder, name);
    if (os_exists(path)) {
        const char *target = arena_printf(arena, "/davit/%s", name);
        box_add_mount(mounts, path, target, false);
        json_array_append_new(words, json_string(target));
    }
}

/* What of the job's folder its lines could write into: FOLDER/vars, FOLDER/run and what earlier
 * starts have left beside it (container_run.c). */
static void add_dirs(const struct box *box, json_t *mounts, json_t *words)
{
    add_dir(box, "vars", mounts, words);
    add_dir(box, "run", mounts, words);
    for (unsigned i = 0; i < SHIM_STEPS_MAX; i++) {
        add_dir(box, arena_printf(&box->s->arena, "run.%u", i), mounts, words);
    }
}

/* A container of root's that gives back to the worker what the job's users have made: without
 * rights of its own the worker could not read or remove it. */
static json_t *owner_body(const struct box *box, const Pb__ContainerState *state)
{
    struct step *s = box->s;
    json_t *mounts = json_array();
    json_t *host = box_host_config(box, "none");
    const char *project_dir = arena_strdup(&s->arena, pb_str(state->project_dir));
    box_add_mount(mounts, box->settings->shim_program, CONTAINER_SHIM, true);
    box_add_mount(mounts, arena_printf(&s->arena, "%s/engine.pb", s->folder), CONTAINER_LIKE, true);
    box_add_mount(mounts, project_dir, project_dir, false);
    json_t *words = json_pack("[s, s, s, s]", CONTAINER_SHIM, "--own", CONTAINER_LIKE, project_dir);
    add_dirs(box, mounts, words);
    json_object_set_new(host, "Privileged", json_false());
    json_object_set_new(host, "Mounts", mounts);
    json_t *body = json_pack("{s:s, s:o, s:[], s:s, s:s, s:o, s:o}", "Image", state->image,
                             "Entrypoint", words, "Cmd", "User", "0:0", "WorkingDir", "/", "Labels",
                             box_labels(box), "HostConfig", host);
    check(body != NULL);
    return body;
}

static void give_back(const struct box *box)
{
    Pb__ContainerState *state;
    const char *id;
    struct buf why = BUF_INIT;
    if (geteuid() == 0 || box_state_read(box, &state) < 0) {
        return;
    }
    const char *name = arena_printf(&box->s->arena, "%s-own", box->name);
    /* One of these that was killed has left its container. */
    int r = engine_remove(&box->engine, ENGINE_CONTAINERS, name, &why);
    r = r < 0 ? r : engine_create(&box->engine, name, "", owner_body(box, state), &id, &why);
    r = r < 0 ? r : engine_start(&box->engine, id, &why);
    r = r < 0 ? r : engine_wait(&box->engine, id, OWN_WAIT_S, &why);
    if (r < 0) {
        step_warn("files that the job left keep their owners: %s", box_quote(box, buf_str(&why)));
    }
    buf_release(&why);
}

int step_container_end(struct step *s)
{
    struct box box;
    struct buf why = BUF_INIT;
    if (box_open(&box, s) < 0) {
        return STEP_EXIT_SYSTEM;
    }
    give_back(&box);
    int r = remove_all(&box, &why);
    if (r < 0) {
        step_warn("what ran for the job is not removed yet: %s", box_quote(&box, buf_str(&why)));
    } else {
        const char *path = arena_printf(&s->arena, "%s/container.end", s->folder);
        r = os_put_file(path, "", 0, 0600);
    }
    buf_release(&why);
    return r < 0 ? STEP_EXIT_SYSTEM : 0;
}
