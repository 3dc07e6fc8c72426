/* The files that a pipeline includes, read once each: those of the working tree, and what the
 * fetcher gets from elsewhere. All that was read goes along with the pipeline, so that the broker
 * compiles the same without asking anybody.
 * Ownership: texts live as long as the arena and the fetcher. Threads: one at a time. */
#ifndef DAVIT_CLI_FILES_H
#define DAVIT_CLI_FILES_H

#include "cli/repo.h"
#include "pipeline/fetch/fetch.h"

struct file {
    const char *name; /* as pipeline_include_name writes it */
    struct str text;
    struct str sha; /* empty: of this tree, or unknown */
    struct str version;
};

struct files {
    struct arena *arena;
    const struct repo *repo;
    struct fetcher *fetcher;
    struct file *items; /* the root file first */
    size_t count;
};

void files_init(struct files *f, struct arena *arena, const struct repo *repo,
                struct fetcher *fetcher);
const struct file *files_find(const struct files *f, const char *name); /* NULL: was not read */
/* Another text under a name of its own; gives the copy. */
struct str files_add(struct files *f, const char *name, struct str text);
/* A file of the working tree; false: it cannot be read. */
bool files_read(struct files *f, const char *path, struct str *ret_text);
/* A pipeline_include_fn; the context is the files. */
int files_include(void *files, const struct include_ref *ref, struct included *ret,
                  const char **ret_why);
json_t *files_json(const struct files *f); /* the field `files` of a body */

#endif
