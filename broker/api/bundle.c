#include "common/base.h"

#include "broker/api/bundle.h"

#include "broker/api/server.h"
#include "broker/trigger/bundle.h"

static ProtobufCBinaryData text_of(const json_t *text)
{
    return pb_bytes_ref(str_of(json_string_value(text), json_string_length(text)));
}

static void add_files(const struct files *files, Pb__Bundle *ret)
{
    struct arena *a = files->arena;
    const char *name;
    json_t *unused;
    ret->files = arena_array(a, json_object_size(files->texts) + 1, sizeof(*ret->files));
    json_object_foreach(files->texts, name, unused)
    {
        Pb__BundleFile *file = arena_alloc(a, sizeof(*file));
        struct included found;
        check(files_find(files, name, &found));
        pb__bundle_file__init(file);
        file->name = pb_bytes_ref(str_from(name));
        file->text = pb_bytes_ref(found.text);
        file->sha = arena_strdup(a, found.sha);
        file->version = arena_strdup(a, found.version);
        ret->files[ret->n_files++] = file;
    }
}

static ProtobufCBinaryData *texts_of(struct arena *a, const struct str *texts, size_t n)
{
    ProtobufCBinaryData *list = arena_array(a, MAX(n, 1u), sizeof(*list));
    for (size_t i = 0; i < n; i++) {
        list[i] = pb_bytes_ref(texts[i]);
    }
    return list;
}

static void add_compared(struct arena *a, const json_t *compared, Pb__Bundle *ret)
{
    const char *ref;
    json_t *paths;
    ret->compared = arena_array(a, MAX(json_object_size(compared), 1u), sizeof(*ret->compared));
    json_object_foreach((json_t *)compared, ref, paths)
    {
        Pb__ComparedChanges *one = arena_alloc(a, sizeof(*one));
        size_t n = json_array_size(paths);
        pb__compared_changes__init(one);
        one->ref = pb_bytes_ref(str_from(ref));
        one->changes = arena_array(a, MAX(n, 1u), sizeof(*one->changes));
        for (; one->n_changes < n; one->n_changes++) {
            one->changes[one->n_changes] = text_of(json_array_get(paths, one->n_changes));
        }
        ret->compared[ret->n_compared++] = one;
    }
}

int bundle_of_submit(const struct files *files, const struct pipeline_input *in,
                     const Pb__Plan *plan, Pb__SnapshotSource **ret)
{
    Pb__Bundle bundle = PB__BUNDLE__INIT;
    struct arena *a = files->arena;
    *ret = NULL;
    if (!plan_has_triggers(plan)) {
        return 0;
    }
    add_files(files, &bundle);
    add_compared(a, files->compared, &bundle);
    bundle.paths = texts_of(a, in->paths, in->path_count);
    bundle.n_paths = in->path_count;
    bundle.changes_known = in->changes_known;
    bundle.changes = texts_of(a, in->changes, in->change_count);
    bundle.n_changes = in->change_count;
    int r = bundle_store(files->rq->api->config.blobs, &bundle, a, ret);
    return r < 0 ? request_fail(files->rq, r, "cannot keep the files for child pipelines: %s",
                                err_text(r))
                 : 0;
}
