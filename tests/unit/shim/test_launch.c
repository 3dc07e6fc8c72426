/* The child's side of a start, without a shim. */
#include "common/base.h"

#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/os.h"
#include "worker/shim/launch.h"

#define NOT_POSSIBLE_HERE 77

/* As the shim starts it, but in a mount namespace only: its mounts must not be those of the test.
 */
static int exit_code_of_init(const struct launch *launch, const int report[2])
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        if (unshare(CLONE_NEWNS) < 0) {
            _exit(NOT_POSSIBLE_HERE);
        }
        close(report[0]);
        launch_init(launch, report[1], fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 10));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int run_init(const char *marker, bool shim_lives)
{
    const char *argv[] = {"/bin/sh", "-c", "echo ran > $MARKER", NULL};
    char environment[96];
    const char *envp[] = {environment, NULL};
    struct launch launch = {.argv = argv, .envp = envp, .cwd = "/", .output_fd = STDERR_FILENO};
    int report[2];
    snprintf(environment, sizeof(environment), "MARKER=%s", marker);
    assert_int_equal(pipe2(report, O_CLOEXEC), 0);
    if (!shim_lives) {
        close(report[0]);
        report[0] = -1;
    }
    int code = exit_code_of_init(&launch, report);
    close(report[1]);
    if (shim_lives) {
        close(report[0]);
    }
    return code;
}

static void an_init_whose_shim_was_killed_before_it_could_be_told_runs_nothing(void **state)
{
    char marker[64];
    snprintf(marker, sizeof(marker), "/tmp/davit-launch-%d", (int)getpid());
    int code = run_init(marker, true);
    bool ran = os_exists(marker);
    unlink(marker);
    if (code == NOT_POSSIBLE_HERE || !ran) {
        skip(); /* no namespaces here */
    }
    assert_int_equal(code, 0);
    assert_int_equal(run_init(marker, false), 127);
    assert_false(os_exists(marker));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_init_whose_shim_was_killed_before_it_could_be_told_runs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
