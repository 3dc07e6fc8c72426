/* A folder as the repository of a pipeline: its files are what include and rules:exists see. Each
 * file is read once and stays until tree_release, so what is compiled again costs no I/O. */
#ifndef DAVIT_TESTS_TREE_INPUT_H
#define DAVIT_TESTS_TREE_INPUT_H

#include "tests/golden/case_input.h"
#include "tests/golden/corpora.h"

struct tree {
    const char *folder; /* the caller's */
    struct arena arena;
    struct file_list files;
    struct str *paths; /* the same */
    struct vars texts; /* of the files that were read, by path */
};

void tree_open(struct tree *t, const char *folder);
void tree_release(struct tree *t);
/* False: there is no such file. */
bool tree_read(struct tree *t, const char *path, struct str *ret);
/* Makes c ready to compile the file, which must be there, for the default branch of this name
 * (NULL: main), otherwise with case_input.h's usual facts. */
void tree_prepare(struct tree *t, const char *path, const char *branch, struct case_input *c);

#endif
