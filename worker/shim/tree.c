#include "common/base.h"

#include "worker/shim/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/os.h"
#include "worker/shim/cgroup.h"
#include "worker/shim/launch.h"
#include "worker/shim/proc.h"

#define FD_LOWEST         10 /* of pipes that a child keeps while it closes the rest */
#define KILL_PAUSE_MAX_MS 20u

/* As fork, but the child is the first process of new PID and mount namespaces. */
static pid_t fork_namespaces(void)
{
    return (pid_t)syscall(SYS_clone, CLONE_NEWPID | CLONE_NEWNS | SIGCHLD, NULL, NULL, NULL, NULL);
}

static bool namespace_usable(void)
{
    int status = -1;
    pid_t pid = fork_namespaces();
    if (pid == 0) {
        _exit(launch_init_view() ? 0 : 1);
    }
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static bool is_wanted(const char *wanted, const char *method)
{
    return wanted == NULL || strcmp(wanted, method) == 0;
}

int tree_init(struct tree *t, const char *wanted, uint64_t start_ticks)
{
    struct buf path = BUF_INIT;
    *t = (struct tree){.child = -1, .report_fd = -1, .empty = true};
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0) {
        return err_from_errno(errno);
    }
    if (is_wanted(wanted, "cgroup") && cgroup_make(getpid(), start_ticks, &path) == 0) {
        t->method = TREE_CGROUP;
        t->cgroup = buf_take(&path);
    } else if (is_wanted(wanted, "namespace") && namespace_usable()) {
        t->method = TREE_NAMESPACE;
    } else if (is_wanted(wanted, "sweep")) {
        t->method = TREE_SWEEP;
    } else {
        return -E_UNSUPPORTED;
    }
    return 0;
}

void tree_release(struct tree *t)
{
    if (t->cgroup != NULL) {
        /* The kernel may need a moment after the last process. */
        for (unsigned tries = 0; !cgroup_remove(t->cgroup) && tries < 50; tries++) {
            cgroup_kill(t->cgroup);
            os_sleep_ms(KILL_PAUSE_MAX_MS);
        }
    }
    free(t->cgroup);
    t->cgroup = NULL;
}

void tree_describe(const struct tree *t, struct buf *out)
{
    switch (t->method) {
    case TREE_CGROUP:
        buf_addf(out, "cgroup %s", t->cgroup);
        break;
    case TREE_NAMESPACE:
        buf_addz(out, "namespace");
        break;
    case TREE_SWEEP:
        buf_addz(out, "sweep");
        break;
    }
}

static void close_fd(int *fd)
{
    if (*fd >= 0) {
        close(*fd);
    }
    *fd = -1;
}

/* A pipe whose writing end is high enough to stay open in a child. */
static int high_pipe(int ends[2])
{
    if (pipe2(ends, O_CLOEXEC) < 0) {
        return -1;
    }
    int high = fcntl(ends[1], F_DUPFD_CLOEXEC, FD_LOWEST);
    close(ends[1]);
    ends[1] = high;
    if (high < 0) {
        close(ends[0]);
        return -1;
    }
    return 0;
}

static int start_plain(struct tree *t, const struct launch *launch, int error_fd)
{
    pid_t shim = getpid();
    t->child = fork();
    if (t->child == 0) {
        launch_main(launch, t->cgroup, shim, error_fd);
    }
    return t->child < 0 ? -errno : 0;
}

static int start_namespace(struct tree *t, const struct launch *launch, int error_fd)
{
    int report[2];
    if (high_pipe(report) < 0) {
        return -errno;
    }
    fcntl(report[0], F_SETFL, O_NONBLOCK);
    t->child = fork_namespaces();
    if (t->child == 0) {
        close(report[0]);
        launch_init(launch, report[1], error_fd);
    }
    int error = errno;
    close(report[1]);
    t->report_fd = report[0];
    return t->child < 0 ? -error : 0;
}

int tree_start(struct tree *t, const struct launch *launch)
{
    int ends[2];
    int error = 0;
    if (high_pipe(ends) < 0) {
        return -errno;
    }
    t->main_ended = false;
    t->main_status = 0;
    t->empty = false;
    int r = t->method == TREE_NAMESPACE ? start_namespace(t, launch, ends[1])
                                        : start_plain(t, launch, ends[1]);
    close(ends[1]);
    if (r == 0) {
        /* Ends at once: by the execve or by the child's end. */
        ssize_t n;
        do {
            n = read(ends[0], &error, sizeof(error));
        } while (n < 0 && errno == EINTR);
        r = n == sizeof(error) ? -error : 0;
    }
    close(ends[0]);
    if (r < 0) {
        tree_kill(t);
    }
    return r;
}

static void main_ended(struct tree *t, int status)
{
    if (!t->main_ended) {
        t->main_ended = true;
        t->main_status = status;
    }
}

static void read_report(struct tree *t)
{
    int status;
    if (t->report_fd < 0) {
        return;
    }
    ssize_t n = read(t->report_fd, &status, sizeof(status));
    if (n == sizeof(status)) {
        main_ended(t, status);
    }
    if (n >= 0) {
        close_fd(&t->report_fd);
    }
}

void tree_reap(struct tree *t)
{
    int status;
    pid_t pid;
    read_report(t);
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == t->child) {
            read_report(t); /* the init's word comes first; without it the init was killed */
            main_ended(t, status);
            t->child = -1;
        }
    }
    if (pid < 0 && errno == ECHILD) {
        close_fd(&t->report_fd);
        t->empty = true;
    }
}

static void load_descendants(struct proc_list *list)
{
    proc_list_load(list);
    proc_list_mark_descendants(list, getpid());
}

/* The init of a namespace is ours, not the job's. */
static pid_t own_helper(const struct tree *t)
{
    return t->method == TREE_NAMESPACE && t->child > 0 ? t->child : 0;
}

void tree_signal(struct tree *t, int signal_number)
{
    struct proc_list list;
    load_descendants(&list);
    proc_list_signal(&list, signal_number, own_helper(t));
    proc_list_release(&list);
}

/* One round; returns how many processes there were. */
static size_t kill_round(struct tree *t)
{
    struct proc_list list;
    load_descendants(&list);
    size_t count = proc_list_signal(&list, 0, own_helper(t));
    if (t->method == TREE_CGROUP) {
        cgroup_kill(t->cgroup);
    }
    proc_list_signal(&list, SIGKILL, 0);
    proc_list_release(&list);
    return count;
}

size_t tree_kill(struct tree *t)
{
    uint64_t deadline_ms = os_monotonic_ms() + TREE_KILL_MS;
    uint64_t pause_ms = 1;
    size_t most = 0;
    tree_reap(t);
    while (!t->empty && os_monotonic_ms() < deadline_ms) {
        size_t count = kill_round(t);
        most = MAX(most, count);
        tree_reap(t);
        if (!t->empty) {
            os_sleep_ms(pause_ms);
            pause_ms = MIN(pause_ms * 2, KILL_PAUSE_MAX_MS);
            tree_reap(t);
        }
    }
    return most;
}
