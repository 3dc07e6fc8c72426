#include "common/base.h"

#include "worker/shim/leave.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

bool leave_starter(void)
{
    pid_t pid = fork();
    if (pid > 0) {
        _exit(0);
    }
    return pid == 0 && setsid() > 0;
}

void leave_prepare(void)
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

void leave_announce(void)
{
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    printf("%d\n", (int)getpid());
    fflush(stdout);
    if (null_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 || dup2(null_fd, STDOUT_FILENO) < 0) {
        close(STDOUT_FILENO);
    }
    close(null_fd);
}
