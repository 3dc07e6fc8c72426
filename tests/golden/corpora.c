#include "common/base.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/os.h"
#include "tests/golden/corpora.h"

const char *corpora_root(void)
{
    const char *root = getenv("DAVIT_CORPORA");
    return root ? root : DAVIT_SOURCE_ROOT "/../shared/corpora";
}

char *corpora_path(const char *root, const char *part)
{
    char *path = os_path_join(root, part);
    if (!os_exists(path)) {
        fprintf(stderr, "no %s: skipped\n", path);
        free(path);
        return NULL;
    }
    return path;
}

json_t *corpora_json(const char *root, const char *part)
{
    char *path = corpora_path(root, part);
    json_error_t error;
    if (!path) {
        return NULL;
    }
    json_t *json = json_load_file(path, 0, &error);
    check(json);
    free(path);
    return json;
}

static void add_folder(struct file_list *list, const char *folder, const char *below)
{
    struct dirent **entries = NULL;
    char *path = os_path_join(folder, below);
    int count = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        char *file = below[0] ? os_path_join(below, name) : xstrdup(name);
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
            free(file);
        } else if (entries[i]->d_type == DT_DIR) {
            add_folder(list, folder, file);
            free(file);
        } else {
            list->items = xrealloc(list->items, (list->count + 1) * sizeof(*list->items));
            list->items[list->count++] = file;
        }
        free(entries[i]);
    }
    free(entries);
    free(path);
}

void file_list_read(struct file_list *list, const char *folder)
{
    *list = (struct file_list){0};
    add_folder(list, folder, "");
}

void file_list_release(struct file_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->items[i]);
    }
    free(list->items);
}
