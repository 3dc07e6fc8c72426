/* A working tree and what git knows of it: the facts of a submitted pipeline. A folder without git
 * works too, with fewer facts. Runs `git` (by name, from PATH). Ownership: everything lives in the
 * repo's arena. Threads: one at a time. */
#ifndef DAVIT_CLI_REPO_H
#define DAVIT_CLI_REPO_H

#include "cli/cli.h"
#include "common/arena.h"

struct repo {
    struct arena arena;
    const char *root;    /* of the working tree, absolute */
    bool git;            /* it is a git repository with at least one commit */
    const char *project; /* "group/name" of the origin, else the folder's name */
    const char *origin;  /* the origin's URL; NULL: none */
    const char *ref;     /* branch or tag */
    bool tag;
    const char *sha;
    const char *before_sha;
    const char *default_branch;
    const char *message;
    const char *author;
    const char *timestamp;
    struct str *files; /* of the tree: tracked and untracked, without ignored ones; sorted */
    size_t file_count;
    struct str *changes; /* against the parent commit, uncommitted ones included */
    size_t change_count;
    bool changes_known;
};

/* What differs between `ref` and the working tree since they parted. False: there is no such ref.
 */
bool repo_compare(struct repo *r, const char *ref, struct str **ret, size_t *ret_count);
/* Reads the repository that holds `dir` (the folder itself, if there is no git). */
int repo_open(struct cli *c, const char *dir, struct repo *ret);
/* A shallow clone of a URL at a branch, tag or commit into the folder `tmp`, then its facts. */
int repo_clone(struct cli *c, const char *url, const char *ref, const char *tmp, struct repo *ret);
void repo_release(struct repo *r);
/* The short name of a ref that may be written in full, "refs/tags/v1" or "refs/heads/main". A tag
 * is one that says so. */
const char *repo_ref_name(const char *ref, bool *ret_tag);

/* Packs files and .git into a tar.zst at `fd`. */
struct archive_info;
int repo_snapshot(struct cli *c, struct repo *r, int fd, struct archive_info *ret);

#endif
