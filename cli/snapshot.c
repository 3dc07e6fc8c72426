/* Packing a working tree: what git does not ignore, and .git itself, so that git works in the job.
 */
#include "common/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/repo.h"
#include "common/archive.h"
#include "common/limits.h"
#include "common/os.h"

struct paths {
    const char **items;
    size_t count;
    size_t cap;
};

static void paths_add(struct paths *p, const char *path)
{
    if (p->count == p->cap) {
        p->cap = p->cap * 2 + 256;
        p->items = xrealloc(p->items, p->cap * sizeof(*p->items));
    }
    p->items[p->count++] = path;
}

/* Adds a folder and all below it; leaves out what git makes while it works. */
static int add_folder(struct repo *r, struct paths *p, const char *below)
{
    const char *path = arena_printf(&r->arena, "%s/%s", r->root, below);
    DIR *d = opendir(path);
    if (d == NULL) {
        return err_from_errno(errno);
    }
    paths_add(p, below);
    int res = 0;
    struct dirent *e;
    while (res == 0 && (e = readdir(d)) != NULL) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 ||
            str_ends(str_from(e->d_name), STR(".lock"))) {
            continue;
        }
        const char *name = arena_printf(&r->arena, "%s/%s", below, e->d_name);
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
            continue; /* gone meanwhile: git packs and prunes */
        }
        if (S_ISDIR(st.st_mode)) {
            res = add_folder(r, p, name);
        } else {
            paths_add(p, name);
        }
        if (p->count > LIMIT_ARTIFACT_FILES) {
            res = -E_TOO_BIG;
        }
    }
    closedir(d);
    return res;
}

/* A linked worktree has a file `.git` that points elsewhere: a job could not follow it. A clone of
 * it in a folder beside takes its place; the files come over it by a second archive. */
static int snapshot_worktree(struct cli *c, struct repo *r, int fd, struct archive_info *ret);

static int pack(struct cli *c, struct repo *r, bool with_git, int fd, struct archive_info *ret)
{
    struct buf why = BUF_INIT;
    struct paths p = {0};
    int res = 0;
    for (size_t i = 0; i < r->file_count; i++) {
        paths_add(&p, r->files[i].p);
    }
    if (with_git) {
        res = add_folder(r, &p, ".git");
    }
    if (res == 0) {
        res = archive_pack(r->root, p.items, p.count, fd, ret, &why);
    }
    if (res < 0) {
        cli_fail(c, res, "cannot pack %s: %s", r->root, why.n > 0 ? buf_cstr(&why) : err_text(res));
    }
    free(p.items);
    buf_release(&why);
    return res;
}

int repo_snapshot(struct cli *c, struct repo *r, int fd, struct archive_info *ret)
{
    struct stat st;
    const char *git = arena_printf(&r->arena, "%s/.git", r->root);
    bool have = r->git && lstat(git, &st) == 0;
    if (have && !S_ISDIR(st.st_mode)) {
        return snapshot_worktree(c, r, fd, ret);
    }
    return pack(c, r, have, fd, ret);
}

static int run_git(const char *const *argv)
{
    int status = -1;
    struct os_spawn spawn = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    int r = os_run(&spawn, 64 * KIB, NULL, &status);
    return r < 0 ? r : WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -E_FAILED;
}

static int snapshot_worktree(struct cli *c, struct repo *r, int fd, struct archive_info *ret)
{
    char *tmp = os_make_temp_dir("davit-snapshot");
    if (tmp == NULL) {
        return cli_fail(c, -E_IO, "cannot make a folder in %s", os_temp_dir());
    }
    const char *tree = arena_printf(&r->arena, "%s/tree", tmp);
    const char *clone[] = {"git", "clone", "-q", "--no-checkout", r->root, tree, NULL};
    const char *reset[] = {"git", "-C", tree, "reset", "-q", r->sha, NULL};
    struct archive_info info;
    struct buf why = BUF_INIT;
    int part = open(tmp, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    int res = part < 0 ? -E_IO : run_git(clone);
    res = res < 0 ? res : run_git(reset);
    res = res < 0 ? res : pack(c, r, false, part, &info);
    if (res == 0 && lseek(part, 0, SEEK_SET) == 0) {
        res = archive_unpack(part, tree, LIMIT_ARTIFACT_FILES, LIMIT_ARTIFACT_BYTES, &info, &why);
    }
    if (res == 0) {
        struct repo copy = *r;
        arena_init(&copy.arena, 0);
        copy.root = tree;
        res = pack(c, &copy, true, fd, ret);
        arena_release(&copy.arena);
    } else {
        cli_fail(c, res, "cannot make a snapshot of the worktree %s: %s", r->root,
                 why.n > 0 ? buf_cstr(&why) : err_text(res));
    }
    if (part >= 0) {
        close(part);
    }
    os_remove_tree(tmp);
    free(tmp);
    buf_release(&why);
    return res;
}
