#include "common/base.h"

#include <stdlib.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/exec/prepared.h"
#include "worker/step/container.h"

int box_settings(const char *folder, struct arena *arena, Pb__EngineSettings **ret)
{
    return prepared_read_file(folder, "engine.pb", arena, &pb__engine_settings__descriptor,
                              (ProtobufCMessage **)ret);
}

/* The last part of a path that does not end in a slash. */
static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

int box_open(struct box *box, struct step *s)
{
    struct buf why = BUF_INIT;
    *box = (struct box){.s = s, .job = last_part(s->folder)};
    int r = box_settings(s->folder, &s->arena, &box->settings);
    if (r < 0) {
        step_error("cannot read %s/engine.pb: %s", s->folder, err_text(r));
        return r;
    }
    box->name = arena_printf(&s->arena, "davit-%s-%s", box->settings->worker, box->job);
    r = engine_open(&box->engine, box->settings->socket, &s->arena, &why);
    if (r < 0) {
        step_error("the Docker Engine at %s cannot be used: %s", box->settings->socket,
                   buf_cstr(&why));
    }
    buf_release(&why);
    return r;
}

int box_state_write(const struct box *box, const Pb__ContainerState *state)
{
    return prepared_write_file(box->s->folder, "container.pb", &state->base);
}

int box_state_read(const struct box *box, Pb__ContainerState **ret)
{
    return prepared_read_file(box->s->folder, "container.pb", &box->s->arena,
                              &pb__container_state__descriptor, (ProtobufCMessage **)ret);
}

json_t *box_labels(const struct box *box)
{
    json_t *labels = json_pack("{s:s, s:s}", ENGINE_LABEL_WORKER, box->settings->worker,
                               ENGINE_LABEL_JOB, box->job);
    check(labels != NULL);
    return labels;
}

json_t *box_host_config(const struct box *box, const char *network)
{
    const Pb__EngineSettings *o = box->settings;
    json_t *config = json_pack("{s:s, s:b}", "NetworkMode", network, "Privileged", o->privileged);
    check(config != NULL);
    if (o->cpu_millis > 0) {
        json_object_set_new(config, "NanoCpus", json_integer((json_int_t)o->cpu_millis * 1000000));
    }
    if (o->memory_bytes > 0) {
        /* No swap beside it: a job that is too big ends, rather than slow down the machine. */
        json_object_set_new(config, "Memory", json_integer((json_int_t)o->memory_bytes));
        json_object_set_new(config, "MemorySwap", json_integer((json_int_t)o->memory_bytes));
    }
    if (o->pids > 0) {
        json_object_set_new(config, "PidsLimit", json_integer((json_int_t)o->pids));
    }
    return config;
}

void box_add_mount(json_t *mounts, const char *source, const char *target, bool read_only)
{
    json_t *mount = json_pack("{s:s, s:s, s:s, s:b}", "Type", "bind", "Source", source, "Target",
                              target, "ReadOnly", read_only);
    check(mount != NULL && json_array_append_new(mounts, mount) == 0);
}

const char *box_expand(const struct box *box, const char *text)
{
    struct buf out = BUF_INIT;
    buf_init(&out, LIMIT_EXPANDED_VALUE);
    int r = vars_expand(&box->s->vars, str_from(text), &out);
    bool good = r == 0 && buf_ok(&out) && str_is_utf8(buf_str(&out), NULL);
    const char *copy = good ? arena_strdup(&box->s->arena, str_trim(buf_str(&out))) : NULL;
    if (!good) {
        step_error("`%s` cannot be expanded: it is too long, or no text then",
                   box_quote(box, str_from(text)));
    }
    buf_release(&out);
    return copy;
}

const char *box_quote(const struct box *box, struct str text)
{
    char *copy = arena_strdup(&box->s->arena, str_sub(text, 0, LIMIT_IMAGE_NAME));
    for (char *at = copy; *at != '\0'; at++) {
        if ((unsigned char)*at < ' ' || *at == 0x7f) {
            *at = '?';
        }
    }
    return copy;
}
