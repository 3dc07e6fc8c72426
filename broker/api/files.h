/* What came along with a submit for the compiler to ask for: included files, inputs, answers to
 * compare_to. Files that did not come are fetched where davitd was told so (--fetch-includes).
 * Threads: a work thread. */
#ifndef DAVIT_API_FILES_H
#define DAVIT_API_FILES_H

#include "broker/api/request.h"
#include "common/arena.h"
#include "pipeline/fetch/fetch.h"

struct files {
    struct request *rq;
    struct arena *arena;
    json_t *texts; /* the field `files`; what is fetched is added in the same form */
    const json_t *compared;
    struct fetcher *fetcher; /* NULL: nothing is fetched */
    const struct pipeline_value *inputs;
    size_t input_count;
};

/* The fields `files`, `inputs` and `compared` of the body, which must outlive `ret`. -E_INVALID
 * with a message. Call files_release in any case. */
int files_read(struct request *rq, const json_t *body, struct arena *arena, struct files *ret);
void files_release(struct files *f);
/* A file that came along, or was fetched since; false: there is none of the name. */
bool files_find(const struct files *f, const char *name, struct included *ret);

/* Callbacks of the compiler; the context is the files. */
int files_include(void *files, const struct include_ref *ref, struct included *ret,
                  const char **ret_why);
bool files_compare(void *files, struct str ref, const struct str **ret, size_t *ret_count);

#endif
