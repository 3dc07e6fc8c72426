#include "common/base.h"

#include "worker/shim/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"
#include "worker/shim/proc.h"

#define CGROUP_PREFIX "davit-"
#define PROC_FILE_MAX ((size_t)1 * MIB)

/* The line "0::PATH" of /proc/self/cgroup: our place in the unified hierarchy. */
static bool own_cgroup(struct buf *out)
{
    struct buf text = BUF_INIT;
    struct str line;
    bool found = false;
    if (os_read_file("/proc/self/cgroup", PROC_FILE_MAX, &text) == 0) {
        struct str rest = buf_str(&text);
        while (!found && str_split(&rest, '\n', &line)) {
            if (str_starts(line, STR("0::"))) {
                buf_add_str(out, str_sub(line, 3, line.n));
                found = true;
            }
        }
    }
    buf_release(&text);
    return found;
}

/* Reads "ID PARENT DEVICE ROOT MOUNTPOINT OPTIONS ... - TYPE ...". */
static bool cgroup2_mount(struct str line, struct str *ret_root, struct str *ret_point)
{
    struct str field;
    ptrdiff_t dash = str_find(line, STR(" - "));
    if (dash < 0 || !str_starts(str_sub(line, (size_t)dash, line.n), STR(" - cgroup2 "))) {
        return false;
    }
    for (int i = 0; i < 5; i++) {
        if (!str_split(&line, ' ', &field)) {
            return false;
        }
        if (i == 3) {
            *ret_root = field;
        }
    }
    *ret_point = field;
    return true;
}

/* The folder under which our own cgroup is mounted. A mount may show a part of the hierarchy only:
 * its root is then a prefix of our path. */
static bool own_folder(struct buf *out)
{
    struct buf own = BUF_INIT;
    struct buf mounts = BUF_INIT;
    struct str line;
    struct str root;
    struct str point;
    bool found = false;
    if (own_cgroup(&own) && os_read_file("/proc/self/mountinfo", PROC_FILE_MAX, &mounts) == 0) {
        struct str rest = buf_str(&mounts);
        while (!found && str_split(&rest, '\n', &line)) {
            if (!cgroup2_mount(line, &root, &point)) {
                continue;
            }
            struct str prefix = str_eqz(root, "/") ? STR("") : root;
            if (str_starts(buf_str(&own), prefix)) {
                struct str below = str_sub(buf_str(&own), prefix.n, own.n);
                buf_add_str(out, point);
                buf_add_str(out, str_eqz(below, "/") ? STR("") : below);
                found = true;
            }
        }
    }
    buf_release(&own);
    buf_release(&mounts);
    return found;
}

void cgroup_name(pid_t pid, uint64_t start_ticks, struct buf *out)
{
    buf_addf(out, CGROUP_PREFIX "%d-%" PRIu64, (int)pid, start_ticks);
}

/* Writing may be refused although the files look writable (no delegation, no common ancestor): try.
 */
static bool can_join(const char *path)
{
    pid_t pid = fork();
    if (pid == 0) {
        _exit(cgroup_join(path) ? 0 : 1);
    }
    int status = -1;
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static bool owner_lives(const char *name)
{
    int pid;
    unsigned long long start;
    uint64_t start_now;
    struct proc p;
    char extra;
    if (sscanf(name, CGROUP_PREFIX "%d-%llu%c", &pid, &start, &extra) != 2) {
        return true; /* not one of ours: left alone */
    }
    return proc_read((pid_t)pid, &p, &start_now) == 0 && start_now == start;
}

/* What shims left that were killed: empty ones only, the kernel keeps the others. */
static void remove_stale(const char *folder)
{
    DIR *dir = opendir(folder);
    struct dirent *entry;
    if (dir == NULL) {
        return;
    }
    while ((entry = readdir(dir)) != NULL) {
        if (strncmp(entry->d_name, CGROUP_PREFIX, strlen(CGROUP_PREFIX)) == 0 &&
            !owner_lives(entry->d_name)) {
            char *path = os_path_join(folder, entry->d_name);
            cgroup_remove(path);
            free(path);
        }
    }
    closedir(dir);
}

int cgroup_make(pid_t pid, uint64_t start_ticks, struct buf *ret_path)
{
    struct buf path = BUF_INIT;
    int r = -E_UNSUPPORTED;
    if (own_folder(&path)) {
        remove_stale(path.p);
        buf_add_char(&path, '/');
        cgroup_name(pid, start_ticks, &path);
        if (mkdir(path.p, 0755) == 0) {
            if (can_join(path.p) && cgroup_kill(path.p)) {
                buf_add_str(ret_path, buf_str(&path));
                r = 0;
            } else {
                rmdir(path.p);
            }
        }
    }
    buf_release(&path);
    return r;
}

static bool write_file(const char *path, const char *file, const char *text)
{
    char full[PATH_MAX];
    int n = snprintf(full, sizeof(full), "%s/%s", path, file);
    if (n < 0 || (size_t)n >= sizeof(full)) {
        errno = ENAMETOOLONG;
        return false;
    }
    int fd = open(full, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    bool ok = write(fd, text, strlen(text)) >= 0;
    int saved = errno;
    close(fd);
    errno = saved;
    return ok;
}

uint64_t cgroup_oom_kills(void)
{
    /* Of the second version and of the first: lines of a name and a number. */
    static const char *const files[] = {"/sys/fs/cgroup/memory.events",
                                        "/sys/fs/cgroup/memory/memory.oom_control"};
    uint64_t kills = 0;
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        struct buf text = BUF_INIT;
        struct str line;
        if (os_read_file(files[i], PROC_FILE_MAX, &text) == 0) {
            struct str rest = buf_str(&text);
            while (str_split(&rest, '\n', &line)) {
                struct str name;
                if (str_split(&line, ' ', &name) && str_eqz(name, "oom_kill")) {
                    (void)str_to_u64(line, &kills);
                }
            }
        }
        buf_release(&text);
    }
    return kills;
}

bool cgroup_join(const char *path)
{
    return write_file(path, "cgroup.procs", "0");
}

bool cgroup_kill(const char *path)
{
    return write_file(path, "cgroup.kill", "1");
}

bool cgroup_remove(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    if (dir == NULL) {
        return errno == ENOENT;
    }
    while ((entry = readdir(dir)) != NULL) {
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.') {
            char *child = os_path_join(path, entry->d_name);
            cgroup_remove(child);
            free(child);
        }
    }
    closedir(dir);
    return rmdir(path) == 0 || errno == ENOENT;
}
