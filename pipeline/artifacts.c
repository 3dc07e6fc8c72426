/* artifacts of jobs. */
#include "common/base.h"

#include "pipeline/compile.h"

static void read_artifact_texts(struct compile *c, const struct node *n, const char *what,
                                ProtobufCBinaryData **ret, size_t *ret_count)
{
    struct texts t = {0};
    if (!node_is_null(n) &&
        read_texts(c, n, (struct read_texts){.what = what, .single = true, .depth = 10}, &t)) {
        *ret = texts_to_bytes(c->arena, t);
        *ret_count = t.count;
    }
}

static void read_expire_in(struct compile *c, const struct node *n, Pb__ArtifactSpec *spec)
{
    uint64_t ms = 0;
    if (node_is_string(n) && str_eqz(n->text, "never")) {
        spec->never_expires = true;
    } else if (read_duration(c, n, "expire_in", &ms)) {
        spec->expire_in_ms = ms;
        spec->never_expires = ms == 0; /* GitLab: 0 keeps it for ever */
    }
}

void artifacts_read(struct compile *c, const struct node *n, struct job *job)
{
    static const char *const names[] = {"on_success", "on_failure", "always"};
    static const Pb__ArtifactWhen values[] = {PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_SUCCESS,
                                              PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ON_FAILURE,
                                              PB__ARTIFACT_WHEN__ARTIFACT_WHEN_ALWAYS};
    if (!read_keys(c, n, SCOPE_ARTIFACTS, "artifacts")) {
        return;
    }
    Pb__ArtifactSpec *spec = arena_alloc(c->arena, sizeof(*spec));
    const struct node *when = node_get(n, "when");
    const struct node *expire_in = node_get(n, "expire_in");
    const struct node *name = node_get(n, "name");
    const struct node *untracked = node_get(n, "untracked");
    struct str text;
    size_t i;
    bool b = false;
    pb__artifact_spec__init(spec);
    read_artifact_texts(c, node_get(n, "paths"), "artifacts:paths", &spec->paths, &spec->n_paths);
    read_artifact_texts(c, node_get(n, "exclude"), "artifacts:exclude", &spec->exclude,
                        &spec->n_exclude);
    if (!node_is_null(when) &&
        read_choice(c, when, "artifacts:when", names, ARRAY_LEN(names), &i)) {
        spec->when = values[i];
    }
    if (!node_is_null(expire_in)) {
        read_expire_in(c, expire_in, spec);
    }
    if (!node_is_null(name) && read_name(c, name, "artifacts:name", &text)) {
        spec->name = pb_bytes_ref(text);
    }
    if (!node_is_null(untracked) && read_bool(c, untracked, "artifacts:untracked", &b)) {
        spec->untracked = b;
    }
    if (spec->n_paths > 0 || spec->untracked) {
        job->plan.artifacts = spec;
    }
}
