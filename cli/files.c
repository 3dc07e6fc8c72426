#include "common/base.h"

#include <stdlib.h>

#include "cli/files.h"
#include "common/limits.h"
#include "common/os.h"

/* Of a pipeline and its children. */
#define FILES_MAX (2 * LIMIT_INCLUDES + 1)

void files_init(struct files *f, struct arena *arena, const struct repo *repo,
                struct fetcher *fetcher)
{
    *f = (struct files){.arena = arena, .repo = repo, .fetcher = fetcher};
    f->items = arena_array(arena, FILES_MAX, sizeof(*f->items));
}

const struct file *files_find(const struct files *f, const char *name)
{
    for (size_t i = 0; i < f->count; i++) {
        if (strcmp(f->items[i].name, name) == 0) {
            return &f->items[i];
        }
    }
    return NULL;
}

struct str files_add(struct files *f, const char *name, struct str text)
{
    check(f->count < FILES_MAX);
    struct file *file = &f->items[f->count++];
    file->name = arena_strdup(f->arena, str_from(name));
    file->text = arena_str(f->arena, text);
    return file->text;
}

static bool leaves_tree(const char *path)
{
    struct str rest = str_from(path);
    struct str part;
    while (str_split(&rest, '/', &part)) {
        if (str_eqz(part, "..")) {
            return true;
        }
    }
    return false;
}

bool files_read(struct files *f, const char *path, struct str *ret_text)
{
    const struct file *known = files_find(f, path);
    if (known != NULL) {
        *ret_text = known->text;
        return true;
    }
    struct buf text = BUF_INIT;
    char *full = path[0] == '/' ? xstrdup(path) : os_path_join(f->repo->root, path);
    bool ok = !leaves_tree(path) && f->count < FILES_MAX &&
              os_read_file(full, LIMIT_YAML_BYTES + 1, &text) == 0;
    if (ok) {
        *ret_text = files_add(f, path, buf_str(&text));
    }
    free(full);
    buf_release(&text);
    return ok;
}

int files_include(void *files, const struct include_ref *ref, struct included *ret,
                  const char **ret_why)
{
    struct files *f = files;
    const char *name = pipeline_include_name(f->arena, ref);
    const struct file *known = files_find(f, name);
    if (known != NULL) {
        *ret = (struct included){.text = known->text, .sha = known->sha, .version = known->version};
        return 0;
    }
    switch (ref->kind) {
    case INCLUDE_LOCAL:
        return files_read(f, name, &ret->text) ? 0 : -E_NOT_FOUND;
    case INCLUDE_ARTIFACT:
        *ret_why = "it is there once its job has run";
        return -E_UNSUPPORTED;
    case INCLUDE_PROJECT:
    case INCLUDE_REMOTE:
    case INCLUDE_TEMPLATE:
    case INCLUDE_COMPONENT:
        break;
    }
    int r = f->count < FILES_MAX ? fetch_include(f->fetcher, ref, ret, ret_why) : -E_LIMIT;
    if (r == 0) {
        f->items[f->count++] = (struct file){
            .name = name, .text = ret->text, .sha = ret->sha, .version = ret->version};
    }
    return r;
}

/* A text, or an object where more than the text is known. */
static json_t *file_json(const struct file *f)
{
    json_t *text = json_stringn(f->text.p != NULL ? f->text.p : "", f->text.n);
    if (f->sha.n == 0) {
        return text;
    }
    json_t *o = json_object();
    json_object_set_new(o, "text", text);
    json_object_set_new(o, "sha", json_stringn(f->sha.p, f->sha.n));
    if (f->version.n > 0) {
        json_object_set_new(o, "version", json_stringn(f->version.p, f->version.n));
    }
    return o;
}

json_t *files_json(const struct files *f)
{
    json_t *o = json_object();
    for (size_t i = 0; i < f->count; i++) {
        json_object_set_new(o, f->items[i].name, file_json(&f->items[i]));
    }
    return o;
}
