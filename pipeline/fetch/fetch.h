/* Included files from elsewhere, for who may do I/O: the command line and the broker's work
 * threads. Remote files by HTTP, files of projects and components by git into a cache, templates
 * from a folder. The compiler itself stays pure: fetch_include is a provider that its caller may
 * hand to it, or ask for what it does not have.
 *
 * A fetcher serves one compilation: what a branch came to once it comes to again, so that all files
 * of a project are of one commit. Repositories are cached by their address, shallow, and locked
 * while they are fetched into; a commit that is there is not fetched again.
 * Threads: one at a time per fetcher; several fetchers, also of several processes, may share a
 * cache. */
#ifndef DAVIT_PIPELINE_FETCH_H
#define DAVIT_PIPELINE_FETCH_H

#include <stdatomic.h>

#include "pipeline/pipeline.h"

struct fetch_project {
    struct str name;  /* GROUP/NAME, or HOST/GROUP/NAME of another server */
    const char *from; /* a folder or a URL that git knows */
};

struct fetch_config {
    const char *cache;     /* a folder, made when it is needed */
    const char *templates; /* a folder; NULL: there are none */
    const struct fetch_project *projects;
    size_t project_count;
    const char *origin;  /* URL of the pipeline's own repository: further projects are beside it;
                          * NULL: `projects` are all there are */
    bool offline;        /* only what is on this machine */
    bool public_only;    /* remote files from public addresses alone */
    uint32_t timeout_ms; /* of each file; 0: 60 s */
    uint32_t budget_ms;  /* of all files together, from fetch_new on; 0: no end */
    const atomic_bool *stop; /* true ends all fetching within a moment; NULL: none */
};

/* Was all fetching ended? `config` may be NULL. */
bool fetch_is_stopped(const struct fetch_config *config);

struct fetcher;
/* The configuration's texts must outlive the fetcher. */
struct fetcher *fetch_new(const struct fetch_config *config);
void fetch_free(struct fetcher *f);

/* A pipeline_include_fn; `fetcher` is one. What it returns lives as long as the fetcher. Local
 * files and artifacts are for the caller: -E_UNSUPPORTED. */
int fetch_include(void *fetcher, const struct include_ref *ref, struct included *ret,
                  const char **ret_why);

/* "NAME=PATH_OR_URL" as people write it. False: it is not that. */
bool fetch_project_parse(const char *text, struct fetch_project *ret);

/* The folder of templates: DAVIT_TEMPLATES, else what was installed with this program; heap, NULL:
 * there is none. */
char *fetch_find_templates(void);

#endif
