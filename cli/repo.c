#include "common/base.h"

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
#include "common/str.h"

#define LIMIT_GIT_OUTPUT (64u * MIB)
#define LIMIT_TREE_DEPTH 64

/* Runs git in the folder; its standard output goes to out. False when it fails. */
static bool git(const char *dir, struct buf *out, const char *const *args)
{
    const char *argv[16] = {"git", "-C", dir};
    size_t n = 3;
    for (size_t i = 0; args[i] != NULL; i++) {
        check(n + 1 < ARRAY_LEN(argv));
        argv[n++] = args[i];
    }
    int status = -1;
    int null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC); /* failing is an answer, not an error */
    struct os_spawn spawn = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = null_fd};
    buf_clear(out);
    int r = os_run(&spawn, LIMIT_GIT_OUTPUT, out, &status);
    if (null_fd >= 0) {
        close(null_fd);
    }
    return r == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

#define GIT(dir, out, ...) git((dir), (out), (const char *const[]){__VA_ARGS__, NULL})

/* One line of git's output as an arena string; NULL when git fails or says nothing. */
#define GIT_LINE(r, out, ...)                                           \
    (GIT((r)->root, (out), __VA_ARGS__) && str_trim(buf_str(out)).n > 0 \
         ? arena_strdup(&(r)->arena, str_trim(buf_str(out)))            \
         : NULL)

static int str_order(const void *a, const void *b)
{
    return str_cmp(*(const struct str *)a, *(const struct str *)b);
}

struct list {
    struct str *items;
    size_t count;
    size_t cap;
};

static void list_add(struct list *l, struct str s)
{
    if (l->count == l->cap) {
        l->cap = l->cap * 2 + 64;
        l->items = xrealloc(l->items, l->cap * sizeof(*l->items));
    }
    l->items[l->count++] = s;
}

/* Sorts, drops repeats, and moves the list into the arena. */
static void list_finish(struct list *l, struct arena *arena, struct str **ret, size_t *ret_count)
{
    size_t kept = 0;
    if (l->count > 0) {
        qsort(l->items, l->count, sizeof(*l->items), str_order);
    }
    for (size_t i = 0; i < l->count; i++) {
        if (kept == 0 || !str_eq(l->items[kept - 1], l->items[i])) {
            l->items[kept++] = l->items[i];
        }
    }
    *ret = arena_array(arena, kept + 1, sizeof(**ret));
    if (kept > 0) {
        memcpy(*ret, l->items, kept * sizeof(**ret));
    }
    *ret_count = kept;
    free(l->items);
    *l = (struct list){0};
}

/* Adds the NUL-separated names in `out`, below `prefix`. */
static void add_names(struct arena *arena, struct list *l, const char *prefix, struct buf *out)
{
    struct str rest = buf_str(out);
    struct str name;
    while (str_split(&rest, 0, &name)) {
        if (name.n > 0) {
            list_add(l, str_from(arena_printf(arena, "%s" STR_FMT, prefix, STR_ARG(name))));
        }
    }
}

/* A submodule's `.git` is a file that names a folder in the .git of its parent, which goes along:
 * with the file, git works in the submodule too. One that points out of the tree stays behind. */
static void add_submodule_link(struct repo *r, struct list *l, const char *prefix)
{
    struct buf text = BUF_INIT;
    struct stat st;
    const char *own = arena_printf(&r->arena, "%s/.git", r->root);
    const char *link = arena_printf(&r->arena, "%s.git", prefix);
    const char *path = arena_printf(&r->arena, "%s/%s", r->root, link);
    if (lstat(own, &st) == 0 && S_ISDIR(st.st_mode) && lstat(path, &st) == 0 &&
        S_ISREG(st.st_mode) && os_read_file(path, 4 * KIB, &text) == 0 &&
        str_starts(buf_str(&text), STR("gitdir: ../"))) {
        list_add(l, str_from(link));
    }
    buf_release(&text);
}

/* Everything git does not ignore below root/prefix; goes into submodules. */
static void list_tree(struct repo *r, struct list *l, const char *prefix, int depth)
{
    struct buf out = BUF_INIT;
    struct list here = {0};
    const char *dir = arena_printf(&r->arena, "%s/%s", r->root, prefix);
    if (depth < LIMIT_TREE_DEPTH &&
        GIT(dir, &out, "ls-files", "-z", "--cached", "--others", "--exclude-standard")) {
        add_names(&r->arena, &here, prefix, &out);
    }
    for (size_t i = 0; i < here.count; i++) {
        struct stat st;
        const char *name = here.items[i].p; /* arena_printf ends it with NUL */
        const char *path = arena_printf(&r->arena, "%s/%s", r->root, name);
        if (lstat(path, &st) < 0) {
            continue; /* tracked, but deleted in the working tree */
        }
        if (S_ISDIR(st.st_mode)) {
            const char *below = str_ends(here.items[i], STR("/"))
                                    ? name
                                    : arena_printf(&r->arena, "%s/", name);
            list_tree(r, l, below, depth + 1);
        } else {
            list_add(l, here.items[i]);
        }
    }
    if (depth > 0) {
        add_submodule_link(r, l, prefix);
    }
    free(here.items);
    buf_release(&out);
}

/* Without a repository, git's own rules for .gitignore still apply: an empty one beside the tree.
 */
static int list_plain(struct cli *c, struct repo *r, struct list *l)
{
    struct buf out = BUF_INIT;
    char *tmp = os_make_temp_dir("davit-list");
    int res = 0;
    if (tmp == NULL) {
        return cli_fail(c, -E_IO, "cannot make a folder in %s", os_temp_dir());
    }
    if (!GIT(tmp, &out, "init", "-q", "--bare", ".")) {
        res = cli_fail(c, -E_IO, "cannot run git to list the files of %s", r->root);
    } else {
        const char *git_dir = arena_printf(&r->arena, "--git-dir=%s", tmp);
        const char *tree = arena_printf(&r->arena, "--work-tree=%s", r->root);
        if (GIT(r->root, &out, git_dir, tree, "ls-files", "-z", "--others", "--exclude-standard")) {
            add_names(&r->arena, l, "", &out);
        }
    }
    os_remove_tree(tmp);
    free(tmp);
    buf_release(&out);
    return res;
}

static const char *folder_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash != NULL && slash[1] != 0 ? slash + 1 : "project";
}

/* "https://host/group/name.git", "git@host:group/name.git", "/srv/name.git" -> "group/name" */
static const char *project_of_url(struct repo *r, struct str url)
{
    if (str_ends(url, STR("/"))) {
        url.n--;
    }
    if (str_ends(url, STR(".git"))) {
        url.n -= 4;
    }
    ptrdiff_t scheme = str_find(url, STR("://"));
    ptrdiff_t colon = str_chr(url, ':');
    struct str path = url;
    if (scheme < 0 && colon < 0) { /* a path on this machine: its last part is the name */
        path = str_from(folder_name(arena_strdup(&r->arena, url)));
    } else if (str_starts(url, STR("file://"))) {
        path = str_from(folder_name(arena_strdup(&r->arena, str_sub(url, 7, url.n))));
    } else if (scheme >= 0) {
        struct str rest = str_sub(url, (size_t)scheme + 3, url.n);
        ptrdiff_t slash = str_chr(rest, '/');
        path = slash >= 0 ? str_sub(rest, (size_t)slash + 1, rest.n) : rest;
    } else {
        path = str_sub(url, (size_t)colon + 1, url.n);
    }
    return arena_strdup(&r->arena, path);
}

static void read_changes(struct repo *r, struct buf *out)
{
    struct list l = {0};
    if (r->before_sha != NULL && GIT(r->root, out, "diff", "--name-only", "-z", r->before_sha)) {
        add_names(&r->arena, &l, "", out);
        r->changes_known = true;
    }
    if (GIT(r->root, out, "ls-files", "-z", "--others", "--exclude-standard")) {
        add_names(&r->arena, &l, "", out);
    }
    list_finish(&l, &r->arena, &r->changes, &r->change_count);
}

/* GitLab compares with the ref of the server: here that is the remote's, where both are there. */
static const char *find_commit(struct repo *r, const char *ref, struct buf *out)
{
    static const char *const below[] = {"refs/remotes/origin/", "refs/heads/", "refs/tags/", ""};
    for (size_t i = 0; i < ARRAY_LEN(below); i++) {
        const char *name = arena_printf(&r->arena, "%s%s^{commit}", below[i], ref);
        const char *sha = GIT_LINE(r, out, "rev-parse", "--verify", "-q", "--end-of-options", name);
        if (sha != NULL) {
            return sha;
        }
    }
    return NULL;
}

bool repo_compare(struct repo *r, const char *ref, struct str **ret, size_t *ret_count)
{
    struct buf out = BUF_INIT;
    struct list l = {0};
    const char *other = r->git ? find_commit(r, ref, &out) : NULL;
    const char *base = other != NULL ? GIT_LINE(r, &out, "merge-base", other, "HEAD") : NULL;
    base = base != NULL ? base : other; /* without a common commit all that differs counts */
    bool ok = base != NULL && GIT(r->root, &out, "diff", "--name-only", "-z", base);
    if (ok) {
        add_names(&r->arena, &l, "", &out);
        if (GIT(r->root, &out, "ls-files", "-z", "--others", "--exclude-standard")) {
            add_names(&r->arena, &l, "", &out);
        }
        list_finish(&l, &r->arena, ret, ret_count);
    }
    buf_release(&out);
    return ok;
}

static void read_git_facts(struct repo *r, struct buf *out)
{
    r->sha = GIT_LINE(r, out, "rev-parse", "HEAD");
    r->before_sha = GIT_LINE(r, out, "rev-parse", "--verify", "-q", "HEAD~1");
    r->ref = GIT_LINE(r, out, "symbolic-ref", "--short", "-q", "HEAD");
    if (r->ref == NULL) {
        r->ref = GIT_LINE(r, out, "describe", "--tags", "--exact-match", "HEAD");
        r->tag = r->ref != NULL;
        r->ref = r->ref != NULL ? r->ref : r->sha;
    }
    r->message = GIT_LINE(r, out, "log", "-1", "--format=%B");
    r->author = GIT_LINE(r, out, "log", "-1", "--format=%an <%ae>");
    r->timestamp = GIT_LINE(r, out, "log", "-1", "--format=%cI");
    const char *head = GIT_LINE(r, out, "symbolic-ref", "--short", "-q",
                                "refs/remotes/origin/HEAD");
    if (head != NULL && strchr(head, '/') != NULL) {
        r->default_branch = strchr(head, '/') + 1;
    } else if (GIT(r->root, out, "rev-parse", "--verify", "-q", "refs/heads/main")) {
        r->default_branch = "main";
    } else if (GIT(r->root, out, "rev-parse", "--verify", "-q", "refs/heads/master")) {
        r->default_branch = "master";
    } else {
        r->default_branch = r->tag ? "main" : r->ref;
    }
    const char *url = GIT_LINE(r, out, "config", "--get", "remote.origin.url");
    if (url != NULL) {
        r->origin = url;
        r->project = project_of_url(r, str_from(url));
    }
}

int repo_open(struct cli *c, const char *dir, struct repo *ret)
{
    struct buf out = BUF_INIT;
    struct list files = {0};
    *ret = (struct repo){0};
    arena_init(&ret->arena, 0);
    char *real = realpath(dir, NULL);
    if (real == NULL) {
        return cli_fail(c, -E_NOT_FOUND, "there is no folder %s", dir);
    }
    ret->root = arena_strdup(&ret->arena, str_from(real));
    free(real);
    const char *top = GIT_LINE(ret, &out, "rev-parse", "--show-toplevel");
    ret->git = top != NULL && GIT(ret->root, &out, "rev-parse", "--verify", "-q", "HEAD");
    int r = 0;
    if (ret->git) {
        ret->root = top;
        read_git_facts(ret, &out);
        read_changes(ret, &out);
        list_tree(ret, &files, "", 0);
    } else {
        r = list_plain(c, ret, &files);
    }
    list_finish(&files, &ret->arena, &ret->files, &ret->file_count);
    ret->project = ret->project != NULL ? ret->project : folder_name(ret->root);
    ret->ref = ret->ref != NULL ? ret->ref : "main";
    ret->default_branch = ret->default_branch != NULL ? ret->default_branch : "main";
    buf_release(&out);
    return r;
}

void repo_release(struct repo *r)
{
    arena_release(&r->arena);
}

const char *repo_ref_name(const char *ref, bool *ret_tag)
{
    struct str s = str_from(ref);
    *ret_tag = str_starts(s, STR("refs/tags/"));
    if (*ret_tag) {
        return ref + strlen("refs/tags/");
    }
    return str_starts(s, STR("refs/heads/")) ? ref + strlen("refs/heads/") : ref;
}

int repo_clone(struct cli *c, const char *url, const char *ref, const char *tmp, struct repo *ret)
{
    struct buf out = BUF_INIT;
    const char *what = ref != NULL ? ref : "HEAD";
    bool ok = GIT(tmp, &out, "init", "-q", ".") && GIT(tmp, &out, "remote", "add", "origin", url) &&
              GIT(tmp, &out, "fetch", "-q", "--depth=2", "origin", what) &&
              GIT(tmp, &out, "checkout", "-q", "--detach", "FETCH_HEAD");
    buf_release(&out);
    if (!ok) {
        return cli_fail(c, -E_UNREACHABLE, "cannot fetch %s of %s", what, url);
    }
    int r = repo_open(c, tmp, ret);
    if (r < 0) {
        return r;
    }
    ret->origin = arena_strdup(&ret->arena, str_from(url));
    ret->project = project_of_url(ret, str_from(url));
    if (ref == NULL) {
        struct buf line = BUF_INIT; /* "ref: refs/heads/main\tHEAD" */
        const char *head = GIT_LINE(ret, &line, "ls-remote", "--symref", "origin", "HEAD");
        struct str rest = str_from(head);
        ret->ref = "main";
        if (str_starts(rest, STR("ref: refs/heads/"))) {
            struct str name = str_sub(rest, 16, rest.n);
            ptrdiff_t tab = str_chr(name, '\t');
            ret->ref = arena_strdup(&ret->arena, str_sub(name, 0, tab > 0 ? (size_t)tab : name.n));
        }
        ret->default_branch = ret->ref;
        buf_release(&line);
    } else {
        struct buf line = BUF_INIT;
        const char *name = repo_ref_name(ref, &ret->tag);
        const char *tag = arena_printf(&ret->arena, "refs/tags/%s", name);
        ret->ref = arena_strdup(&ret->arena, str_from(name));
        if (name == ref) { /* it does not say what it is */
            ret->tag = GIT_LINE(ret, &line, "ls-remote", "origin", tag) != NULL;
        }
        buf_release(&line);
    }
    return 0;
}
