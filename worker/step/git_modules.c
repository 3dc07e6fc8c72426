#include "common/base.h"

#include "worker/step/git_modules.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"

#define INDEX_MAX   ((size_t)64 * MIB)
#define GITFILE_MAX ((size_t)8 * KIB)
#define MODULES     ".git/modules"

/* The address is written again by `git submodule sync`, the rest by git as it needs it. */
static const char module_config[] = "[remote \"origin\"]\n"
                                    "\tfetch = +refs/heads/*:refs/remotes/origin/*\n";

static void tidy_folder(const char *path, void (*entry)(void *ctx, const char *name))
{
    if (os_list_dir(path, entry, (void *)(uintptr_t)path) < 0) {
        os_remove_tree(path); /* what cannot be looked at is not used */
    }
}

/* Git's own files are never links, and it would write through one. */
static bool is_plain(const char *path, struct stat *ret)
{
    return lstat(path, ret) == 0 && (S_ISREG(ret->st_mode) || S_ISDIR(ret->st_mode));
}

static void tidy_link_entry(void *ctx, const char *name)
{
    struct stat st;
    char *path = os_path_join(ctx, name);
    if (!is_plain(path, &st)) {
        os_remove_tree(path);
    } else if (S_ISDIR(st.st_mode)) {
        tidy_folder(path, tidy_link_entry);
    }
    free(path);
}

void git_tidy_links(void)
{
    tidy_folder(".git", tidy_link_entry);
}

/* By their names, wherever they stand: a submodule's own name may have any number of parts. One
 * that is called like this is cloned anew. */
static bool is_unwanted(const char *name)
{
    static const char *const names[] = {"hooks", "config", "config.worktree", "commondir"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return str_ends(str_from(name), STR(".lock"));
}

static void tidy_module_entry(void *ctx, const char *name)
{
    struct stat st;
    char *path = os_path_join(ctx, name);
    if (!is_plain(path, &st)) {
        os_remove_tree(path);
    } else if (is_unwanted(name)) {
        os_remove_tree(path);
        if (S_ISREG(st.st_mode) && strcmp(name, "config") == 0) {
            (void)os_put_file(path, module_config, strlen(module_config), 0600);
        }
    } else if (S_ISDIR(st.st_mode)) {
        tidy_folder(path, tidy_module_entry);
    }
    free(path);
}

void git_tidy_modules(void)
{
    struct stat st;
    if (lstat(MODULES, &st) == 0 && S_ISDIR(st.st_mode)) {
        tidy_folder(MODULES, tidy_module_entry);
    } else {
        os_remove_tree(MODULES);
    }
}

/* "gitdir: PATH", and that is below .git/modules. */
static bool is_own_gitfile(const char *folder, const char *path)
{
    struct buf text = BUF_INIT;
    struct stat st;
    bool own = false;
    if (lstat(path, &st) == 0 && S_ISREG(st.st_mode) &&
        os_read_file(path, GITFILE_MAX, &text) == 0 &&
        str_starts(buf_str(&text), STR("gitdir: "))) {
        char *target = str_dup(str_trim(str_sub(buf_str(&text), strlen("gitdir: "), text.n)));
        char *whole = target[0] == '/' ? xstrdup(target) : os_path_join(folder, target);
        char *real = os_absolute_path(whole);
        char *modules = os_absolute_path(MODULES);
        own = real != NULL && modules != NULL && str_starts(str_from(real), str_from(modules)) &&
              real[strlen(modules)] == '/';
        free(modules);
        free(real);
        free(whole);
        free(target);
    }
    buf_release(&text);
    return own;
}

static void tidy_tree_entry(void *ctx, const char *name)
{
    struct stat st;
    char *path = os_path_join(ctx, name);
    if (strcmp(name, ".git") == 0) {
        if (!is_own_gitfile(ctx, path)) {
            os_remove_tree(path);
        }
    } else if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        tidy_folder(path, tidy_tree_entry);
    }
    free(path);
}

/* No part of the way to a submodule may be a link. */
static void tidy_submodule(const char *path)
{
    struct stat st;
    char *part = xstrdup(path);
    for (char *at = part; *at != '\0'; at++) {
        if (*at == '/') {
            *at = '\0';
            if (lstat(part, &st) == 0 && S_ISLNK(st.st_mode)) {
                unlink(part);
            }
            *at = '/';
        }
    }
    free(part);
    if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        tidy_folder(path, tidy_tree_entry);
    } else {
        os_remove_tree(path);
    }
}

int git_tidy_submodules(void)
{
    static const char *const argv[] = {"git", "ls-files", "--stage", "-z", NULL};
    struct os_spawn spawn = {.argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1};
    struct buf out = BUF_INIT;
    struct str entry;
    struct str head;
    int status;
    int r = os_run(&spawn, INDEX_MAX, &out, &status);
    r = r == 0 && status != 0 ? -E_FAILED : r;
    struct str rest = buf_str(&out);
    while (r == 0 && str_split(&rest, '\0', &entry)) {
        /* "MODE OBJECT STAGE<TAB>PATH" */
        if (str_starts(entry, STR("160000 ")) && str_split(&entry, '\t', &head)) {
            char *path = str_dup(entry);
            tidy_submodule(path);
            free(path);
        }
    }
    buf_release(&out);
    return r;
}
