/* Removing a tree that somebody else filled: any depth, any modes, no way out through a symlink. */
#include "common/base.h"

#include "common/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* One descriptor a level is open; a tree that is deeper is cut off here and moved up to the root,
 * where a later round finds it. */
#define DEPTH_MAX 32u

struct removal {
    int root_fd;
    uint64_t moved; /* folders that were moved up; names them */
    int error;      /* the first that mattered */
};

static void removal_failed(struct removal *rm)
{
    if (rm->error == 0) {
        rm->error = err_from_errno(errno);
    }
}

/* Opens a folder for removal. Build tools leave folders that nobody may list or change (Go's module
 * cache); the owner may change that, through /proc since a descriptor with O_PATH has no fchmod. */
static int open_folder(int parent_fd, const char *name)
{
    char self[32];
    int path_fd = openat(parent_fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (path_fd < 0) {
        return -1;
    }
    snprintf(self, sizeof(self), "/proc/self/fd/%d", path_fd);
    struct stat st;
    if (fstat(path_fd, &st) == 0 && (st.st_mode & S_IRWXU) != S_IRWXU) {
        (void)!chmod(self, S_IRWXU); /* without it the removal itself fails and says so */
    }
    int fd = openat(path_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int saved = errno;
    close(path_fd);
    errno = saved;
    return fd;
}

static void move_up(struct removal *rm, int parent_fd, const char *name)
{
    char unique[64];
    do {
        snprintf(unique, sizeof(unique), ".davit-remove-%" PRIu64, rm->moved++);
    } while (faccessat(rm->root_fd, unique, F_OK, AT_SYMLINK_NOFOLLOW) == 0);
    if (renameat(parent_fd, name, rm->root_fd, unique) < 0 && errno != ENOENT) {
        removal_failed(rm);
    }
}

static void remove_content(struct removal *rm, int fd, unsigned depth);

static void remove_entry(struct removal *rm, int parent_fd, const char *name, unsigned depth)
{
    if (unlinkat(parent_fd, name, 0) == 0 || errno == ENOENT) {
        return;
    }
    if (errno != EISDIR && errno != EPERM) {
        removal_failed(rm);
        return;
    }
    int fd = open_folder(parent_fd, name);
    if (fd < 0) {
        removal_failed(rm);
        return;
    }
    if (depth == DEPTH_MAX) {
        close(fd);
        move_up(rm, parent_fd, name);
        return;
    }
    remove_content(rm, fd, depth + 1);
    if (unlinkat(parent_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT) {
        removal_failed(rm);
    }
}

static bool is_dot(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Takes fd. */
static void remove_content(struct removal *rm, int fd, unsigned depth)
{
    DIR *dir = fdopendir(fd);
    struct dirent *entry;
    if (dir == NULL) {
        removal_failed(rm);
        close(fd);
        return;
    }
    while ((entry = readdir(dir)) != NULL) {
        if (!is_dot(entry->d_name)) {
            remove_entry(rm, fd, entry->d_name, depth);
        }
    }
    closedir(dir);
}

int os_remove_tree(const char *path)
{
    if (unlink(path) == 0 || errno == ENOENT) {
        return 0;
    }
    if (errno != EISDIR && errno != EPERM) {
        return err_from_errno(errno);
    }
    struct removal rm = {.root_fd = open_folder(AT_FDCWD, path)};
    if (rm.root_fd < 0) {
        return err_from_errno(errno);
    }
    uint64_t moved_before;
    do {
        moved_before = rm.moved;
        int fd = openat(rm.root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0) {
            removal_failed(&rm);
            break;
        }
        remove_content(&rm, fd, 0);
    } while (rm.error == 0 && rm.moved > moved_before);
    close(rm.root_fd);
    if (rm.error == 0 && rmdir(path) < 0 && errno != ENOENT) {
        removal_failed(&rm);
    }
    return rm.error;
}
