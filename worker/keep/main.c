/* davit-keep FOLDER: see keep.h. */
#include "common/base.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "worker/keep/run.h"
#include "worker/shim/leave.h"

int main(int argc, char **argv)
{
    static struct keep keep;
    static char folder[PATH_MAX];

    if (argc != 2 || realpath(argv[1], folder) == NULL) {
        fprintf(stderr, "usage: davit-keep FOLDER (of an instance, prepared by davit-worker)\n");
        return 64;
    }
    if (chdir("/") < 0 || !leave_starter()) {
        fprintf(stderr, "davit-keep: cannot detach: %s\n", strerror(errno));
        return 71;
    }
    leave_prepare();
    int r = keep_open(&keep, folder);
    if (r < 0) {
        fprintf(stderr, "davit-keep: %s: %s\n", folder, err_text(r));
        return err_exit_code(r);
    }
    keep_begin(&keep);
    leave_announce();
    r = keep_run(&keep);
    if (r < 0) {
        fprintf(stderr, "davit-keep: %s: some process of it cannot be ended\n", folder);
    }
    keep_release(&keep);
    return err_exit_code(r);
}
