#include "common/base.h"

#include <stdlib.h>

#include "common/limits.h"
#include "common/os.h"
#include "tests/golden/tree_input.h"

void tree_open(struct tree *t, const char *folder)
{
    *t = (struct tree){.folder = folder};
    arena_init(&t->arena, 0);
    vars_init(&t->texts, &t->arena);
    file_list_read(&t->files, folder);
    t->paths = arena_array(&t->arena, t->files.count + 1, sizeof(*t->paths));
    for (size_t i = 0; i < t->files.count; i++) {
        t->paths[i] = str_from(t->files.items[i]);
    }
}

void tree_release(struct tree *t)
{
    file_list_release(&t->files);
    arena_release(&t->arena);
}

bool tree_read(struct tree *t, const char *path, struct str *ret)
{
    const struct var *known = vars_get(&t->texts, str_from(path));
    if (known) {
        *ret = known->value;
        return true;
    }
    struct buf text = BUF_INIT;
    char *full = os_path_join(t->folder, path);
    bool there = os_read_file(full, 2 * LIMIT_YAML_BYTES, &text) == 0;
    if (there) {
        vars_set(&t->texts, (struct var){.name = str_from(path), .value = buf_str(&text)});
        *ret = vars_get(&t->texts, str_from(path))->value;
    }
    buf_release(&text);
    free(full);
    return there;
}

static int provide(void *ctx, const struct include_ref *ref, struct included *ret,
                   const char **ret_why)
{
    struct tree *t = ctx;
    (void)ret_why;
    if (ref->kind != INCLUDE_LOCAL) {
        return -E_UNSUPPORTED;
    }
    const char *path = pipeline_include_name(&t->arena, ref);
    return tree_read(t, path, &ret->text) ? 0 : -E_NOT_FOUND;
}

void tree_prepare(struct tree *t, const char *path, const char *branch, struct case_input *c)
{
    struct str text;
    check(tree_read(t, path, &text));
    case_input_init(c, path, STR(""));
    if (branch) {
        c->facts.ref = c->facts.default_branch = branch;
        case_input_prepare(c);
    }
    c->in.text = text;
    c->in.include = provide;
    c->in.include_ctx = t;
    c->in.paths = t->paths;
    c->in.path_count = t->files.count;
}
