#include "common/base.h"

#include "worker/step/select.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/glob.h"
#include "common/limits.h"
#include "worker/step/git_view.h"

#define LISTING_MAX ((size_t)64 * MIB)

void selection_init(struct selection *sel, struct step *s)
{
    *sel = (struct selection){.s = s, .root = s->project_dir};
}

void selection_release(struct selection *sel)
{
    free(sel->paths);
    sel->paths = NULL;
}

static bool is_excluded(const struct selection *sel, struct str path)
{
    for (size_t i = 0; i < sel->exclude_count; i++) {
        struct str pattern = pb_str(sel->exclude[i]);
        if (str_starts(pattern, STR("./"))) {
            pattern = str_sub(pattern, 2, pattern.n);
        }
        if (glob_match(GLOB_STAR, pattern, path)) {
            return true;
        }
    }
    return false;
}

static void add(struct selection *sel, const char *path)
{
    if (is_excluded(sel, str_from(path))) {
        return;
    }
    if (sel->count >= LIMIT_ARTIFACT_FILES) {
        sel->too_many = true;
        return;
    }
    if (sel->count == sel->cap) {
        sel->cap = sel->cap > 0 ? sel->cap * 2 : 64;
        sel->paths = xrealloc(sel->paths, sel->cap * sizeof(*sel->paths));
    }
    sel->paths[sel->count++] = arena_strdup(&sel->s->arena, str_from(path));
}

/* One walk through the tree. With a pattern, what matches is added with all that is below it. */
struct walk {
    struct selection *sel;
    struct str pattern; /* STR_NULL: everything */
    struct buf path;
};

static void walk_folder(struct walk *w, bool all);

static bool is_folder(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static void walk_entry(struct walk *w, const char *name, bool all)
{
    size_t n = w->path.n;
    if (n > 0) {
        buf_add_char(&w->path, '/');
    }
    buf_addz(&w->path, name);
    bool match = all || glob_match(GLOB_STAR, w->pattern, buf_str(&w->path));
    if (match) {
        add(w->sel, w->path.p);
    }
    /* git's own folder is no product of the job, and may hold credentials. */
    if (is_folder(w->path.p) && !w->sel->too_many) {
        walk_folder(w, match);
    }
    buf_truncate(&w->path, n);
}

static bool is_skipped(const struct walk *w, const char *name)
{
    bool git = strcmp(name, ".git") == 0 && w->path.n == 0;
    return git || strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static void walk_folder(struct walk *w, bool all)
{
    DIR *dir = opendir(w->path.n > 0 ? w->path.p : ".");
    struct dirent *entry;
    if (dir == NULL) {
        step_warn("cannot read the folder %s: %s", buf_cstr(&w->path), strerror(errno));
        return;
    }
    while ((entry = readdir(dir)) != NULL) {
        if (!is_skipped(w, entry->d_name)) {
            walk_entry(w, entry->d_name, all);
        }
    }
    closedir(dir);
}

static bool is_pattern(struct str text)
{
    for (size_t i = 0; i < text.n; i++) {
        if (strchr("*?[{\\", text.p[i]) != NULL) {
            return true;
        }
    }
    return false;
}

/* The folders before the first part with a wildcard: nothing else needs to be walked. */
static struct str plain_prefix(struct str pattern)
{
    size_t end = 0;
    for (size_t i = 0; i < pattern.n; i++) {
        if (strchr("*?[{\\", pattern.p[i]) != NULL) {
            break;
        }
        if (pattern.p[i] == '/') {
            end = i;
        }
    }
    return str_sub(pattern, 0, end);
}

/* The path in canonical form below the working folder; NULL when it is not there, outside, or the
 * folder itself is meant (""). The last part may be a link, and stays one. */
static char *canonical(struct selection *sel, struct str path, bool *ret_outside)
{
    struct arena *arena = &sel->s->arena;
    char *text = arena_strdup(arena, path);
    char *slash = strrchr(text, '/');
    const char *leaf = slash != NULL ? slash + 1 : text;
    const char *parent = slash != NULL ? text : ".";
    char real[PATH_MAX];
    *ret_outside = false;
    if (strcmp(leaf, "..") == 0 || strcmp(leaf, ".") == 0) {
        parent = arena_strdup(arena, path);
        leaf = "";
    } else if (slash != NULL) {
        *slash = '\0';
    }
    if (realpath(parent[0] != '\0' ? parent : "/", real) == NULL) {
        return NULL;
    }
    char *whole = arena_printf(arena, "%s/%s", real, leaf);
    size_t root = strlen(sel->s->project_dir);
    if (strncmp(whole, sel->s->project_dir, root) != 0 || whole[root] != '/') {
        *ret_outside = true;
        return NULL;
    }
    return whole + root + 1;
}

static void add_tree(struct walk *w, const char *path)
{
    struct stat st;
    if (path[0] != '\0') {
        if (lstat(path, &st) < 0) {
            return;
        }
        add(w->sel, path);
        if (!S_ISDIR(st.st_mode)) {
            return;
        }
    }
    buf_addz(&w->path, path);
    walk_folder(w, true);
}

static void add_matches(struct walk *w, struct str prefix)
{
    bool outside = false;
    if (prefix.n > 0) {
        const char *path = canonical(w->sel, prefix, &outside);
        if (path == NULL || !str_eqz(prefix, path) || !is_folder(path)) {
            return;
        }
        buf_add_str(&w->path, prefix);
    }
    walk_folder(w, false);
}

/* As people write it: absolute below the working folder, "./", a slash at the end. "." is all. */
static struct str tidy_pattern(struct selection *sel, struct str pattern)
{
    struct str root = str_from(sel->s->project_dir);
    pattern = str_trim(pattern);
    if (pattern.n == 0) {
        return pattern;
    }
    if (str_starts(pattern, root) && (pattern.n == root.n || pattern.p[root.n] == '/')) {
        pattern = str_sub(pattern, root.n + 1, pattern.n);
    }
    while (str_starts(pattern, STR("./"))) {
        pattern = str_sub(pattern, 2, pattern.n);
    }
    while (pattern.n > 1 && pattern.p[pattern.n - 1] == '/') {
        pattern.n--;
    }
    return pattern.n > 0 ? pattern : STR(".");
}

static void add_pattern(struct selection *sel, struct str written)
{
    struct walk w = {.sel = sel, .pattern = tidy_pattern(sel, written)};
    size_t before = sel->count;
    bool outside = false;
    if (w.pattern.n == 0) {
        return;
    }
    if (is_pattern(w.pattern)) {
        add_matches(&w, plain_prefix(w.pattern));
    } else {
        const char *path = canonical(sel, w.pattern, &outside);
        if (path != NULL) {
            add_tree(&w, path);
        }
    }
    buf_release(&w.path);
    if (sel->quiet) {
        return;
    }
    if (outside) {
        step_warn(STR_FMT ": is not in the project's folder, left out", STR_ARG(written));
    } else if (sel->count == before) {
        step_warn(STR_FMT ": no matching files", STR_ARG(written));
    } else {
        step_say(STR_FMT ": found %zu matching files and folders", STR_ARG(written),
                 sel->count - before);
    }
}

static void add_untracked(struct selection *sel)
{
    static const char *const words[] = {"ls-files", "-o", "-z", NULL};
    struct buf out = BUF_INIT;
    struct str rest;
    struct str path;
    size_t before = sel->count;
    int r = git_view_run(sel->s, words, LISTING_MAX, &out);
    if (r < 0) {
        step_warn("cannot list untracked files: %s", err_text(r));
    } else {
        rest = buf_str(&out);
        while (str_split(&rest, '\0', &path)) {
            if (path.n > 0) {
                add(sel, arena_strdup(&sel->s->arena, path));
            }
        }
        step_say("untracked: found %zu files", sel->count - before);
    }
    buf_release(&out);
}

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void finish(struct selection *sel)
{
    size_t kept = 0;
    if (sel->count == 0) {
        return;
    }
    qsort(sel->paths, sel->count, sizeof(*sel->paths), compare);
    for (size_t i = 0; i < sel->count; i++) {
        if (kept == 0 || strcmp(sel->paths[kept - 1], sel->paths[i]) != 0) {
            sel->paths[kept++] = sel->paths[i];
        }
    }
    sel->count = kept;
}

void selection_add_all(struct selection *sel, const ProtobufCBinaryData *patterns, size_t count,
                       bool untracked)
{
    for (size_t i = 0; i < count; i++) {
        add_pattern(sel, pb_str(patterns[i]));
    }
    if (untracked) {
        add_untracked(sel);
    }
    finish(sel);
}

int selection_add_folder(struct selection *sel, const char *folder)
{
    struct walk w = {.sel = sel};
    bool outside;
    struct arena *arena = &sel->s->arena;
    const char *base = canonical(sel, tidy_pattern(sel, str_from(folder)), &outside);
    if (base == NULL || (base[0] != '\0' && !is_folder(base))) {
        return -E_NOT_FOUND;
    }
    buf_addz(&w.path, base);
    walk_folder(&w, true);
    buf_release(&w.path);
    if (base[0] != '\0') {
        sel->root = arena_printf(arena, "%s/%s", sel->s->project_dir, base);
        for (size_t i = 0; i < sel->count; i++) {
            sel->paths[i] += strlen(base) + 1;
        }
    }
    finish(sel);
    step_say("%s: found %zu files and folders", folder, sel->count);
    return 0;
}
