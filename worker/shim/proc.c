#include "common/base.h"

#include "worker/shim/proc.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/limits.h"
#include "common/os.h"

/* The kernel's own bound is the space for arguments and environment: at most 6 MiB. */
#define ENVIRONMENT_MAX ((size_t)8 * MIB)
#define STAT_MAX        ((size_t)1024)
#define KILL_LOOKS      8u

/* Takes the fields from the state (the third) to the start time (the 22nd) of a line of
 * /proc/PID/stat. The name before may hold any character, so it counts from the last ')'. */
static int parse_stat(const char *line, struct proc *p, uint64_t *ret_start_ticks)
{
    const char *name_end = strrchr(line, ')');
    char state;
    int parent;
    unsigned long long start;
    if (name_end == NULL ||
        sscanf(name_end + 1,
               " %c %d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
               &state, &parent, &start) != 3) {
        return -E_CORRUPT;
    }
    p->state = state;
    p->parent = (pid_t)parent;
    *ret_start_ticks = start;
    return 0;
}

int proc_read(pid_t pid, struct proc *ret, uint64_t *ret_start_ticks)
{
    char path[64];
    char line[STAT_MAX];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    ssize_t n = read(fd, line, sizeof(line) - 1);
    close(fd);
    if (n <= 0) {
        return -E_NOT_FOUND; /* it ended between open and read */
    }
    line[n] = '\0';
    struct proc p = {.pid = pid};
    int r = parse_stat(line, &p, ret_start_ticks);
    if (r == 0) {
        *ret = p;
    }
    return r;
}

static void list_add(struct proc_list *list, struct proc p)
{
    if (list->count == list->cap) {
        list->cap = list->cap > 0 ? list->cap * 2 : 256;
        list->items = xrealloc(list->items, list->cap * sizeof(*list->items));
    }
    list->items[list->count++] = p;
}

void proc_list_load(struct proc_list *list)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    *list = (struct proc_list){0};
    if (dir == NULL) {
        return;
    }
    while ((entry = readdir(dir)) != NULL) {
        struct proc p;
        uint64_t pid;
        uint64_t start;
        if (str_to_u64(str_from(entry->d_name), &pid) == 0 && pid <= INT32_MAX &&
            proc_read((pid_t)pid, &p, &start) == 0) {
            list_add(list, p);
        }
    }
    closedir(dir);
}

void proc_list_release(struct proc_list *list)
{
    free(list->items);
    *list = (struct proc_list){0};
}

static int by_pid(const void *a, const void *b)
{
    const struct proc *x = a;
    const struct proc *y = b;
    return (x->pid > y->pid) - (x->pid < y->pid);
}

void proc_list_spread(struct proc_list *list)
{
    bool changed = list->count > 0;
    if (changed) {
        qsort(list->items, list->count, sizeof(*list->items), by_pid);
    }
    while (changed) {
        changed = false;
        for (size_t i = 0; i < list->count; i++) {
            struct proc *p = &list->items[i];
            struct proc key = {.pid = p->parent};
            if (p->marked) {
                continue;
            }
            const struct proc *parent = bsearch(&key, list->items, list->count, sizeof(key),
                                                by_pid);
            if (parent != NULL && parent->marked) {
                p->marked = true;
                changed = true;
            }
        }
    }
}

void proc_list_mark_descendants(struct proc_list *list, pid_t ancestor)
{
    for (size_t i = 0; i < list->count; i++) {
        list->items[i].marked = list->items[i].parent == ancestor;
    }
    proc_list_spread(list);
}

static bool holds_entry(struct str environment, const char *entry)
{
    struct str part;
    while (str_split(&environment, '\0', &part)) {
        if (str_eqz(part, entry)) {
            return true;
        }
    }
    return false;
}

void proc_list_mark_environment(struct proc_list *list, const char *entry)
{
    struct buf environment = BUF_INIT;
    for (size_t i = 0; i < list->count; i++) {
        char path[64];
        snprintf(path, sizeof(path), "/proc/%d/environ", (int)list->items[i].pid);
        buf_clear(&environment);
        if (os_read_file(path, ENVIRONMENT_MAX, &environment) == 0 &&
            holds_entry(buf_str(&environment), entry)) {
            list->items[i].marked = true;
        }
    }
    buf_release(&environment);
}

size_t proc_list_signal(const struct proc_list *list, int signal_number, pid_t except)
{
    size_t count = 0;
    for (size_t i = 0; i < list->count; i++) {
        const struct proc *p = &list->items[i];
        if (p->marked && p->pid != except && p->state != 'Z' && p->state != 'X') {
            kill(p->pid, signal_number);
            count++;
        }
    }
    return count;
}

void proc_kill_marked(const char *entry, pid_t ancestor)
{
    size_t living = 1;

    for (uint32_t look = 0; living > 0 && look < KILL_LOOKS; look++) {
        struct proc_list list;
        proc_list_load(&list);
        if (ancestor > 0) {
            proc_list_mark_descendants(&list, ancestor);
        }
        proc_list_mark_environment(&list, entry);
        proc_list_spread(&list);
        living = proc_list_signal(&list, SIGKILL, getpid());
        proc_list_release(&list);
    }
}
