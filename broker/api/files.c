#include "common/base.h"

#include <stdlib.h>

#include "broker/api/body.h"
#include "broker/api/files.h"
#include "broker/api/object.h"
#include "broker/api/server.h"
#include "common/limits.h"

static int check_file(struct request *rq, const char *name, const json_t *file)
{
    const char *text = NULL;
    const char *other = NULL;
    int r;
    if (json_is_string(file)) {
        return 0;
    }
    if (!json_is_object(file)) {
        return request_fail(rq, -E_INVALID, "file `%.255s` must be a text or an object", name);
    }
    if ((r = body_fields(rq, file, "files[].", "text sha version")) < 0 ||
        (r = body_text(rq, file, "text", LIMIT_HTTP_BODY, &text)) < 0 ||
        (r = body_text(rq, file, "sha", LIMIT_NAME, &other)) < 0 ||
        (r = body_text(rq, file, "version", LIMIT_NAME, &other)) < 0) {
        return r;
    }
    return text ? 0 : request_fail(rq, -E_INVALID, "file `%.255s` has no `text`", name);
}

static int check_compared(struct request *rq, const json_t *compared)
{
    const char *ref;
    json_t *paths;
    size_t total = 0;
    json_object_foreach((json_t *)compared, ref, paths)
    {
        bool ok = json_is_array(paths);
        for (size_t i = 0; ok && i < json_array_size(paths); i++) {
            ok = json_is_string(json_array_get(paths, i));
        }
        total += json_array_size(paths);
        if (!ok || total > LIMIT_HTTP_PATHS) {
            return request_fail(rq, -E_INVALID, "field `compared`: `%.255s` must be file names",
                                ref);
        }
    }
    return 0;
}

static int read_inputs(struct files *f, const json_t *inputs)
{
    const char *name;
    json_t *value;
    struct pipeline_value *all = arena_array(f->arena, json_object_size(inputs) + 1, sizeof(*all));
    if (json_object_size(inputs) > LIMIT_VARIABLES) {
        return request_fail(f->rq, -E_INVALID, "more than %u `inputs`", LIMIT_VARIABLES);
    }
    json_object_foreach((json_t *)inputs, name, value)
    {
        struct pipeline_value *v = &all[f->input_count++];
        char *text = json_is_string(value) ? NULL
                                           : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        v->name = str_from(name);
        v->json = text != NULL;
        v->text = text ? arena_str(f->arena, str_from(text))
                       : str_of(json_string_value(value), json_string_length(value));
        free(text);
        if (v->text.n > LIMIT_VARIABLE_VALUE) {
            return request_fail(f->rq, -E_INVALID, "input `%.255s` has more than %u bytes", name,
                                LIMIT_VARIABLE_VALUE);
        }
    }
    f->inputs = all;
    return 0;
}

int files_read(struct request *rq, const json_t *body, struct arena *arena, struct files *ret)
{
    const json_t *texts = NULL;
    const json_t *inputs = NULL;
    const char *name;
    json_t *file;
    int r;
    *ret = (struct files){.rq = rq, .arena = arena};
    if ((r = body_object(rq, body, "files", &texts)) < 0 ||
        (r = body_object(rq, body, "inputs", &inputs)) < 0 ||
        (r = body_object(rq, body, "compared", &ret->compared)) < 0 ||
        (r = check_compared(rq, ret->compared)) < 0 || (r = read_inputs(ret, inputs)) < 0) {
        return r;
    }
    ret->texts = (json_t *)texts; /* the body is ours */
    json_object_foreach(ret->texts, name, file)
    {
        if ((r = check_file(rq, name, file)) < 0) {
            return r;
        }
    }
    if (rq->api->config.includes) {
        ret->fetcher = fetch_new(rq->api->config.includes);
    }
    return 0;
}

void files_release(struct files *f)
{
    fetch_free(f->fetcher);
    f->fetcher = NULL;
}

static struct str field(const json_t *o, const char *name)
{
    const json_t *text = json_object_get(o, name);
    return text ? str_of(json_string_value(text), json_string_length(text)) : STR_NULL;
}

bool files_find(const struct files *f, const char *name, struct included *ret)
{
    const json_t *file = json_object_get(f->texts, name);
    if (json_is_string(file)) {
        *ret = (struct included){.text = str_of(json_string_value(file), json_string_length(file))};
    } else if (file) {
        *ret = (struct included){.text = field(file, "text"),
                                 .sha = field(file, "sha"),
                                 .version = field(file, "version")};
    }
    return file;
}

/* A fetched file as if it had come along, for the children of the pipeline. */
static void keep(struct files *f, const char *name, const struct included *got)
{
    json_t *file = json_object();
    json_object_set_new(file, "text", json_stringn(got->text.p ? got->text.p : "", got->text.n));
    json_object_set_new(file, "sha", json_stringn(got->sha.p ? got->sha.p : "", got->sha.n));
    json_object_set_new(file, "version",
                        json_stringn(got->version.p ? got->version.p : "", got->version.n));
    json_object_set_new(f->texts, name, file);
}

int files_include(void *files, const struct include_ref *ref, struct included *ret,
                  const char **ret_why)
{
    struct files *f = files;
    const char *name = pipeline_include_name(f->arena, ref);
    if (files_find(f, name, ret)) {
        return 0;
    }
    if (ref->kind == INCLUDE_LOCAL) {
        return -E_NOT_FOUND;
    }
    if (ref->kind == INCLUDE_ARTIFACT) {
        *ret_why = "it is there once its job has run";
        return -E_UNSUPPORTED;
    }
    if (!f->fetcher) {
        *ret_why = "it is not among `files`, and davitd runs without --fetch-includes";
        return -E_UNSUPPORTED;
    }
    int r = fetch_include(f->fetcher, ref, ret, ret_why);
    if (r == 0) {
        keep(f, name, ret);
    }
    return r;
}

bool files_compare(void *files, struct str ref, const struct str **ret, size_t *ret_count)
{
    struct files *f = files;
    const json_t *list = json_object_get(f->compared, arena_strdup(f->arena, ref));
    if (!list) {
        return false;
    }
    size_t count = json_array_size(list);
    struct str *paths = arena_array(f->arena, count + 1, sizeof(*paths));
    for (size_t i = 0; i < count; i++) {
        const json_t *path = json_array_get(list, i);
        paths[i] = str_of(json_string_value(path), json_string_length(path));
    }
    *ret = paths;
    *ret_count = count;
    return true;
}
