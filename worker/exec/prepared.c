#include "common/base.h"

#include "worker/exec/prepared.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/crypto.h"
#include "common/limits.h"
#include "common/os.h"

/* Expansion may lengthen what came in one message. */
#define PREPARED_MAX  ((size_t)16 * MIB)
#define ARTIFACTS_MAX ((size_t)64 * KIB)

static int write_message(const char *folder, const char *name, const ProtobufCMessage *m,
                         int (*put)(const char *, const void *, size_t, mode_t))
{
    struct buf bytes = BUF_INIT;
    char *path = os_path_join(folder, name);
    pb_pack(m, &bytes);
    int r = put(path, buf_cstr(&bytes), bytes.n, 0600);
    free(path);
    crypto_wipe(bytes.p, bytes.n);
    buf_release(&bytes);
    return r;
}

static int read_message(const char *folder, const char *name, struct arena *arena, size_t max,
                        const ProtobufCMessageDescriptor *desc, ProtobufCMessage **ret)
{
    struct buf bytes = BUF_INIT;
    char *path = os_path_join(folder, name);
    int r = os_read_file(path, max, &bytes);
    if (r == 0) {
        r = pb_unpack(arena, desc, buf_cstr(&bytes), bytes.n, max, ret);
    }
    free(path);
    buf_release(&bytes);
    return r;
}

static void set_variables(Pb__JobSpec *spec, struct arena *arena, const struct vars *vars)
{
    spec->n_variables = vars->count;
    spec->variables = arena_array(arena, vars->count, sizeof(*spec->variables));
    for (size_t i = 0; i < vars->count; i++) {
        const struct var *var = &vars->items[i];
        Pb__Variable *v = arena_alloc(arena, sizeof(*v));
        pb__variable__init(v);
        v->name = arena_strdup(arena, var->name);
        v->value = pb_bytes_ref(var->value);
        v->raw = true;
        v->file = var->file;
        v->masked = var->masked;
        spec->variables[i] = v;
    }
}

static int expand_bytes(const struct vars *vars, struct arena *arena, ProtobufCBinaryData *bytes)
{
    struct buf out = BUF_INIT;
    buf_init(&out, LIMIT_EXPANDED_VALUE);
    int r = vars_expand(vars, pb_str(*bytes), &out);
    r = r == 0 && !buf_ok(&out) ? -E_LIMIT : r;
    if (r == 0) {
        *bytes = pb_bytes(arena, buf_str(&out));
    }
    buf_release(&out);
    return r;
}

static int expand_artifacts(const struct vars *vars, struct arena *arena, Pb__ArtifactSpec *a)
{
    int r = expand_bytes(vars, arena, &a->name);
    for (size_t i = 0; r == 0 && i < a->n_paths; i++) {
        r = expand_bytes(vars, arena, &a->paths[i]);
    }
    for (size_t i = 0; r == 0 && i < a->n_exclude; i++) {
        r = expand_bytes(vars, arena, &a->exclude[i]);
    }
    return r;
}

int prepared_write(const char *folder, const Pb__JobSpec *spec, const struct vars *vars)
{
    struct arena arena;
    arena_init(&arena, 0);
    Pb__JobSpec *copy = (Pb__JobSpec *)pb_copy(&arena, &spec->base);
    set_variables(copy, &arena, vars);
    int r = copy->artifacts != NULL ? expand_artifacts(vars, &arena, copy->artifacts) : 0;
    if (r == 0) {
        r = write_message(folder, "prepared.pb", &copy->base, os_put_file);
    }
    arena_release(&arena);
    return r;
}

int prepared_read(const char *folder, struct arena *arena, Pb__JobSpec **ret)
{
    return read_message(folder, "prepared.pb", arena, PREPARED_MAX, &pb__job_spec__descriptor,
                        (ProtobufCMessage **)ret);
}

void prepared_remove(const char *folder)
{
    char *path = os_path_join(folder, "prepared.pb");
    unlink(path);
    free(path);
}

int prepared_artifacts_write(const char *folder, const Pb__ArtifactOut *out)
{
    /* Durable before the step's end is: a success must not lose its artifacts. */
    return write_message(folder, "artifacts.pb", &out->base, os_write_file);
}

int prepared_artifacts_read(const char *folder, struct arena *arena, Pb__ArtifactOut **ret)
{
    return read_message(folder, "artifacts.pb", arena, ARTIFACTS_MAX, &pb__artifact_out__descriptor,
                        (ProtobufCMessage **)ret);
}
