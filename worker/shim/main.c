/* davit-shim FOLDER: see shim.h. */
#include "common/base.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker/shim/helper.h"
#include "worker/shim/job.h"

/* Leaves the worker: a session of its own, and init (or the nearest reaper) as its parent, so that
 * neither the worker's end nor its terminal reaches it and the worker has nothing to reap. */
static bool detach(void)
{
    pid_t pid = fork();
    if (pid > 0) {
        _exit(0);
    }
    return pid == 0 && setsid() > 0;
}

static void prepare_process(void)
{
    static const int ignored[] = {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGXFSZ};
    sigset_t none;
    for (int i = 1; i < NSIG; i++) {
        signal(i, SIG_DFL);
    }
    for (size_t i = 0; i < ARRAY_LEN(ignored); i++) {
        signal(ignored[i], SIG_IGN);
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    close_range(STDERR_FILENO + 1, ~0u, 0);
}

/* Tells shim_start that all is ready and lets go of its pipe. */
static void announce(void)
{
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    printf("%d\n", (int)getpid());
    fflush(stdout);
    if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || dup2(null_fd, STDOUT_FILENO) < 0) {
        close(STDOUT_FILENO);
    }
    close(null_fd);
}

int main(int argc, char **argv)
{
    static struct job job;
    static char folder[PATH_MAX];
    bool stay = argc == 3 && strcmp(argv[1], "--stay") == 0;
    int code = 0;
    if (argc > 1 && helper_run(argc - 1, argv + 1, &code)) {
        return code;
    }
    if (argc != 2 + stay || realpath(argv[argc - 1], folder) == NULL) {
        fprintf(stderr, "usage: davit-shim [--stay] FOLDER (of a job, prepared by davit-worker)\n");
        return 64;
    }
    if (chdir("/") < 0 || (!stay && !detach())) {
        fprintf(stderr, "davit-shim: cannot detach: %s\n", strerror(errno));
        return 71;
    }
    prepare_process();
    job_init(&job, folder);
    int r = job_open(&job);
    if (r < 0) {
        fprintf(stderr, "davit-shim: %s: %s\n", folder, err_text(r));
        return err_exit_code(r);
    }
    announce();
    r = job_run(&job);
    if (r < 0) {
        fprintf(stderr, "davit-shim: %s/status: %s\n", folder, err_text(r));
    }
    job_release(&job);
    return err_exit_code(r);
}
