#include "common/base.h"

#include "worker/exec/prepared.h"

#include <stdlib.h>
#include <unistd.h>

#include "common/crypto.h"
#include "common/limits.h"
#include "common/os.h"

/* Expansion may lengthen what came in one message. */
#define PREPARED_MAX ((size_t)16 * MIB)
#define PART_MAX     ((size_t)512 * KIB)

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

int prepared_write_file(const char *folder, const char *name, const ProtobufCMessage *m)
{
    return write_message(folder, name, m, os_put_file);
}

int prepared_read_file(const char *folder, const char *name, struct arena *arena,
                       const ProtobufCMessageDescriptor *desc, ProtobufCMessage **ret)
{
    return read_message(folder, name, arena, PART_MAX, desc, ret);
}

Pb__Variable **prepared_variables(struct arena *arena, const struct vars *vars)
{
    Pb__Variable **all = arena_array(arena, vars->count, sizeof(*all));
    for (size_t i = 0; i < vars->count; i++) {
        const struct var *var = &vars->items[i];
        Pb__Variable *v = arena_alloc(arena, sizeof(*v));
        pb__variable__init(v);
        v->name = arena_strdup(arena, var->name);
        v->value = pb_bytes_ref(var->value);
        v->raw = true;
        v->file = var->file;
        v->masked = var->masked;
        all[i] = v;
    }
    return all;
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

static int expand_list(const struct vars *vars, struct arena *arena, ProtobufCBinaryData *list,
                       size_t count)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < count; i++) {
        r = expand_bytes(vars, arena, &list[i]);
    }
    return r;
}

static int expand_artifacts(const struct vars *vars, struct arena *arena, Pb__ArtifactSpec *a)
{
    int r = expand_bytes(vars, arena, &a->name);
    r = r < 0 ? r : expand_list(vars, arena, a->paths, a->n_paths);
    r = r < 0 ? r : expand_list(vars, arena, a->exclude, a->n_exclude);
    for (size_t i = 0; r == 0 && i < a->n_reports; i++) {
        r = expand_list(vars, arena, a->reports[i]->paths, a->reports[i]->n_paths);
    }
    return r;
}

static int expand_cache(const struct vars *vars, struct arena *arena, Pb__CacheSpec *c)
{
    int r = expand_bytes(vars, arena, &c->key);
    r = r < 0 ? r : expand_bytes(vars, arena, &c->key_prefix);
    r = r < 0 ? r : expand_bytes(vars, arena, &c->policy);
    r = r < 0 ? r : expand_list(vars, arena, c->key_files, c->n_key_files);
    r = r < 0 ? r : expand_list(vars, arena, c->paths, c->n_paths);
    return r < 0 ? r : expand_list(vars, arena, c->fallback_keys, c->n_fallback_keys);
}

static int expand_all(const struct vars *vars, struct arena *arena, Pb__JobSpec *spec)
{
    int r = spec->artifacts != NULL ? expand_artifacts(vars, arena, spec->artifacts) : 0;
    for (size_t i = 0; r == 0 && i < spec->n_caches; i++) {
        r = expand_cache(vars, arena, spec->caches[i]);
    }
    if (r == 0 && spec->pages != NULL) {
        r = expand_bytes(vars, arena, &spec->pages->publish);
        r = r < 0 ? r : expand_bytes(vars, arena, &spec->pages->path_prefix);
    }
    return r;
}

int prepared_write(const char *folder, const Pb__JobSpec *spec, const struct vars *vars)
{
    struct arena arena;
    arena_init(&arena, 0);
    Pb__JobSpec *copy = (Pb__JobSpec *)pb_copy(&arena, &spec->base);
    copy->n_variables = vars->count;
    copy->variables = prepared_variables(&arena, vars);
    int r = expand_all(vars, &arena, copy);
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

static char *part_name(const char *step)
{
    struct buf name = BUF_INIT;
    buf_addf(&name, "%s.part", step);
    return buf_take(&name);
}

int prepared_part_write(const char *folder, const char *step, const Pb__Outcome *part)
{
    char *name = part_name(step);
    int r = write_message(folder, name, &part->base, os_write_file);
    free(name);
    return r;
}

int prepared_part_read(const char *folder, const char *step, struct arena *arena, Pb__Outcome **ret)
{
    char *name = part_name(step);
    int r = read_message(folder, name, arena, PART_MAX, &pb__outcome__descriptor,
                         (ProtobufCMessage **)ret);
    free(name);
    return r;
}
