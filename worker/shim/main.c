/* davit-shim FOLDER: see shim.h. */
#include "common/base.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker/shim/helper.h"
#include "worker/shim/job.h"
#include "worker/shim/leave.h"

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
    if (chdir("/") < 0 || (!stay && !leave_starter())) {
        fprintf(stderr, "davit-shim: cannot detach: %s\n", strerror(errno));
        return 71;
    }
    leave_prepare();
    job_init(&job, folder);
    int r = job_open(&job);
    if (r < 0) {
        fprintf(stderr, "davit-shim: %s: %s\n", folder, err_text(r));
        return err_exit_code(r);
    }
    leave_announce();
    r = job_run(&job);
    if (r < 0) {
        fprintf(stderr, "davit-shim: %s/status: %s\n", folder, err_text(r));
    }
    job_release(&job);
    return err_exit_code(r);
}
