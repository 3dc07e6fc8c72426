/* Files of other people, read where they are: the folder that DAVIT_CORPORA names, else
 * ../shared/corpora beside the repository. */
#ifndef DAVIT_TESTS_CORPORA_H
#define DAVIT_TESTS_CORPORA_H

#include <jansson.h>

#include "common/buf.h"

#define EXIT_SKIPPED 77

const char *corpora_root(void);
/* The path of a part; NULL and a message where it is not there. Heap. */
char *corpora_path(const char *root, const char *part);

/* A JSON file of the corpora; NULL: not there. */
json_t *corpora_json(const char *root, const char *part);

/* All files below a folder, paths relative to it, sorted. */
struct file_list {
    char **items;
    size_t count;
};
void file_list_read(struct file_list *list, const char *folder);
void file_list_release(struct file_list *list);

#endif
