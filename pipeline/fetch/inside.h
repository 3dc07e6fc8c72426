/* Inside of the fetcher: only fetch.h is for others. */
#ifndef DAVIT_PIPELINE_FETCH_INSIDE_H
#define DAVIT_PIPELINE_FETCH_INSIDE_H

#include "pipeline/fetch/fetch.h"

struct version;

struct fetcher {
    struct fetch_config config;
    struct arena arena;
    struct version *versions; /* what refs came to, so far */
    uint64_t end_ms;          /* of the budget, monotonic; 0: none */
};

/* How long the next step may take; at least 1. */
uint32_t fetch_timeout_ms(const struct fetcher *f);

/* The URL or path of a project's repository. -E_UNSUPPORTED: no address is known. */
int address_of(struct fetcher *f, struct str project, const char **ret_url, const char **ret_why);

/* A repository's commit. */
struct version {
    struct version *next;
    const char *url;
    const char *dir; /* the bare repository in the cache */
    struct str ref;  /* as it was asked for */
    const char *sha;
    struct str name; /* the tag that `~latest` or `1.2` came to, else ref */
};
/* Fetches where that is needed. -E_NOT_FOUND: no such ref. */
int version_find(struct fetcher *f, const char *url, struct str ref, const struct version **ret,
                 const char **ret_why);
/* -E_NOT_FOUND: the commit has no such file. */
int version_read(struct fetcher *f, const struct version *v, struct str path, struct str *ret,
                 const char **ret_why);

/* Runs git with the arguments (NULL ends them) on the repository; stdout goes to out, and with
 * `all` stderr too. False: it failed or took too long. */
bool git_run(struct fetcher *f, const char *dir, bool all, size_t limit, struct buf *out,
             const char *const *args);

/* The highest of the tags X.Y.Z (or vX.Y.Z) that fits: "~latest", "1", "1.2". `tags` is what
 * git ls-remote prints. False: none does. */
bool semver_pick(struct str tags, struct str wanted, struct str *ret);
bool semver_is_partial(struct str wanted);

#endif
