/* Stands in for davit-worker where a job's steps are run: step_runner step NAME FOLDER. */
#include "common/base.h"

#include "worker/exec/exec.h"

int main(int argc, char **argv)
{
    return argc == 4 && strcmp(argv[1], "step") == 0 ? step_main(argv[2], argv[3]) : 64;
}
