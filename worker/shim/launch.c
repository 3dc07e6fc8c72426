#include "common/base.h"

#include "worker/shim/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "worker/shim/cgroup.h"

#define OOM_SCORE_STEP 500 /* the job goes before the worker */
#define OOM_SCORE_MAX  1000
#define EXIT_NOT_RUN   127

static void signals_reset(void)
{
    struct sigaction standard = {.sa_handler = SIG_DFL};
    sigset_t none;
    for (int i = 1; i < NSIG; i++) {
        sigaction(i, &standard, NULL); /* fails for SIGKILL, SIGSTOP and glibc's own two */
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Raising needs no privilege. Not fatal: the job then has the worker's score. */
static void raise_oom_score(void)
{
    char text[32] = "";
    int fd = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    if (read(fd, text, sizeof(text) - 1) > 0) {
        long score = strtol(text, NULL, 10) + OOM_SCORE_STEP;
        snprintf(text, sizeof(text), "%ld", MIN(score, OOM_SCORE_MAX));
        (void)!pwrite(fd, text, strlen(text), 0);
    }
    close(fd);
}

/* Leaves nothing open above stderr but `fd`, which a successful execve closes. */
static int close_all_but(int fd)
{
    check(fd > STDERR_FILENO + 1);
    if (close_range(STDERR_FILENO + 1, (unsigned)fd - 1, 0) < 0) {
        return -1;
    }
    return close_range((unsigned)fd + 1, ~0u, 0);
}

static int set_streams(int output_fd)
{
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || dup2(output_fd, STDOUT_FILENO) < 0 ||
        dup2(output_fd, STDERR_FILENO) < 0) {
        return -1;
    }
    return 0;
}

static int set_limits(const struct launch *launch)
{
    struct rlimit no_core = {0, 0};
    struct rlimit files;
    if (setrlimit(RLIMIT_CORE, &no_core) < 0 || getrlimit(RLIMIT_NOFILE, &files) < 0) {
        return -1;
    }
    if (launch->open_files > 0) {
        files.rlim_cur = MIN((rlim_t)launch->open_files, files.rlim_max);
    }
    return setrlimit(RLIMIT_NOFILE, &files);
}

static int become_main(const struct launch *launch, const char *cgroup, int error_fd)
{
    signals_reset();
    if (!launch->service) {
        raise_oom_score();
    }
    if (cgroup != NULL && !cgroup_join(cgroup)) {
        return -1;
    }
    if (setsid() < 0 || set_streams(launch->output_fd) < 0 || close_all_but(error_fd) < 0 ||
        set_limits(launch) < 0) {
        return -1;
    }
    umask(022);
    return chdir(launch->cwd);
}

void launch_main(const struct launch *launch, const char *cgroup, pid_t parent, int error_fd)
{
    /* If the shim is killed, the script goes with it. First this, then is the parent looked at: it
     * may have gone before. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (parent != 0 && getppid() != parent) {
        _exit(EXIT_NOT_RUN);
    }
    if (become_main(launch, cgroup, error_fd) == 0) {
        /* By PATH only where it holds no slash: an image's entry point may be a bare name. */
        execvpe(launch->argv[0], (char *const *)launch->argv, (char *const *)launch->envp);
    }
    int error = errno;
    (void)!write(error_fd, &error, sizeof(error));
    _exit(EXIT_NOT_RUN);
}

bool launch_init_view(void)
{
    /* Mounts of the host still come in, ours do not go out. */
    return mount("none", "/", NULL, MS_REC | MS_SLAVE, NULL) == 0 &&
           mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0;
}

static void init_reap(pid_t main_pid, int report_fd)
{
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, 0);
        if (pid == main_pid) {
            (void)!write(report_fd, &status, sizeof(status));
        } else if (pid < 0 && errno == ECHILD) {
            return;
        }
    }
}

void launch_init(const struct launch *launch, int report_fd, int error_fd)
{
    struct pollfd report = {.fd = report_fd};
    /* As in launch_main; but the shim is out of sight here. It alone reads the report. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (poll(&report, 1, 0) != 0) {
        _exit(EXIT_NOT_RUN);
    }
    pid_t main_pid = launch_init_view() ? fork() : -1;
    if (main_pid == 0) {
        launch_main(launch, NULL, 0, error_fd);
    }
    if (main_pid < 0) {
        int error = errno;
        (void)!write(error_fd, &error, sizeof(error));
        _exit(EXIT_NOT_RUN);
    }
    /* The init must not hold the output pipe open. */
    if (dup3(report_fd, STDIN_FILENO, O_CLOEXEC) < 0 || close_range(1, ~0u, 0) < 0) {
        _exit(EXIT_NOT_RUN);
    }
    init_reap(main_pid, STDIN_FILENO);
    _exit(0);
}
